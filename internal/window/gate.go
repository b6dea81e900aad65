package window

import (
	"container/heap"
	"math"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Gate judges the readings of one partition of a log, or of several, one by one, for queries that need
// them in the order of their times: it keeps the watermark of each partition as a Partition does, and goes by
// the least of them, but a reading is late as soon as it is older than the watermark. A reading that is let in can
// be handed on, in the order of time, once the watermark has passed it. It is used by one
// goroutine at a time.
type Gate struct {
	cfg    Config             // Window, Hop and Aggregates aren't used
	states []state            // of the partitions
	seen   map[Print]struct{} // of readings whose repeats would count
	gone   pasts              // those of them that were handed on
	names  []uint64           // hashes of a message's column names

	oldest fleetscore.Micros // see Since
	lines  *lines            // of a gate whose keys have watermarks of their own
}

// View is a message's readings as a query sees them.
type View struct {
	*fleetscore.Readings
	At    []fleetscore.Micros // the time of each, by which it is judged, or NoTime; nil: its own
	Lines []fleetscore.Key    // of each: what has a watermark of its own; nil: its key
}

// NoTime stands for the time of a reading that has none. It is left out and moves nothing.
const NoTime = unset

// Time is the time of a reading.
func (v View) Time(i int) fleetscore.Micros {
	if v.At != nil {
		return v.At[i]
	}
	return v.Times[i]
}

// Line is what has a watermark of its own, of a reading.
func (v View) Line(i int) fleetscore.Key {
	if v.Lines != nil {
		return v.Lines[i]
	}
	return v.Keys[v.KeyIndex[i]]
}

// Print identifies a reading of a key; it recognises repeats.
type Print struct {
	Key  fleetscore.Key
	Time fleetscore.Micros
	Hash uint64
}

// Past is a reading that was handed on.
type Past struct {
	Print
	Stamp fleetscore.Micros // at which it counted
}

// Remembers is how long a gate that adjusts knows readings that were handed on, because repeats of
// them would count: a device whose acknowledgement was lost sends again within minutes.
func (c *Config) Remembers() time.Duration {
	if c.Adjust == 0 {
		return 0
	}
	return max(c.Adjust, 10*time.Minute)
}

// NewGate starts before the first message.
func NewGate(cfg Config) *Gate {
	g := &Gate{cfg: cfg, states: make([]state, max(1, cfg.Partitions)), seen: map[Print]struct{}{}, oldest: unset}
	for i := range g.states {
		g.states[i].watermark = unset
	}
	if cfg.Apart > 0 {
		g.lines = newLines(len(g.states))
	}
	return g
}

// Watermark is the time before which no more readings are let in, of any key; false before
// the first message of each partition.
func (g *Gate) Watermark() (fleetscore.Micros, bool) {
	w := g.least(-1)
	return w, w != unset
}

// least is the least watermark of the partitions except one.
func (g *Gate) least(but int) fleetscore.Micros {
	w := fleetscore.Micros(math.MaxInt64)
	for i := range g.states {
		if i != but {
			w = min(w, g.states[i].watermark)
		}
	}
	return w
}

// Tick takes a tick.
func (g *Gate) Tick(s Stamp) {
	state := &g.states[s.Partition]
	src := state.enter(s, &g.cfg)
	state.raise(src, s.Arrived-micros(g.cfg.IdleAfter), state.others(src, &g.cfg))
	g.settle()
	g.forget()
}

// forget forgets readings whose repeats aren't expected any more.
func (g *Gate) forget() {
	w := g.least(-1)
	for len(g.gone) > 0 && g.gone[0].Stamp+micros(g.cfg.Remembers()) < w {
		delete(g.seen, heap.Pop(&g.gone).(Past).Print)
	}
}

// pasts is a heap by the time at which readings counted.
type pasts []Past

func (p pasts) Len() int           { return len(p) }
func (p pasts) Less(i, j int) bool { return p[i].Stamp < p[j].Stamp }
func (p pasts) Swap(i, j int)      { p[i], p[j] = p[j], p[i] }
func (p *pasts) Push(x any)        { *p = append(*p, x.(Past)) }
func (p *pasts) Pop() any {
	last := (*p)[len(*p)-1]
	(*p)[len(*p)-1] = Past{}
	*p = (*p)[:len(*p)-1]
	return last
}

// Readings takes a message and calls verdict for each reading, in order, with the time at which
// it counts. least is the
// time up to which rows are certain and can't take further readings, even if another log
// begins here. of tells, for each key of the message, whether its readings are wanted; nil: all
// are. Those of other keys move the watermark only. The verdict is Counted, Adjusted, Repeat,
// Revised, Late or Early, or Filtered for a reading without a time.
//
// A gate that adjusts does so by the letter of Azure Stream Analytics: first a reading that is too
// old at its arrival gets the earliest time that wouldn't be, then one that is older
// than the watermark gets the watermark.
func (g *Gate) Readings(s Stamp, r View, least fleetscore.Micros, of []bool, verdict func(i int, v Verdict, p Print, stamp fleetscore.Micros)) {
	state, rest := &g.states[s.Partition], g.least(s.Partition)
	src := state.enter(s, &g.cfg)
	others := state.others(src, &g.cfg)
	if g.lines != nil {
		state.raise(src, s.Arrived-micros(g.cfg.Apart), others)
	}
	g.names = namesOf(g.names[:0], r.Readings)
	ahead, disorder := s.Arrived+s.Unsure+micros(g.cfg.MaxEarly), micros(g.cfg.Disorder)
	for i, sent := range r.Times {
		own := r.Time(i)
		t, v, p, mark, x := own, Counted, Print{Time: sent}, min(state.watermark, rest), (*line)(nil)
		if own == NoTime {
			verdict(i, Filtered, p, own)
			continue
		}
		if g.cfg.Adjust > 0 && t <= ahead {
			t = max(t, s.Arrived-micros(g.cfg.Adjust))
		}
		if g.lines != nil && t <= ahead && t >= s.Arrived-micros(g.cfg.Apart) {
			x = g.lines.of(r.Line(i))
			mark = max(mark, x.mark)
			x.raise(min(t, s.Arrived)-disorder, s.Arrived, g.heard(s.Partition, state.sources[src].Last))
		} else if g.lines != nil {
			mark = max(mark, s.Arrived-micros(g.cfg.Apart))
		}
		if g.cfg.Adjust > 0 && t <= ahead {
			if t = max(t, mark, least+1); t > own {
				v = Adjusted
			}
		}
		wanted := of == nil || of[r.KeyIndex[i]]
		if wanted {
			p.Key = r.Keys[r.KeyIndex[i]]
		}
		switch late := t < mark || t <= least; {
		case t > ahead:
			v = Early
		case late && g.revises(t, min(state.watermark, rest)):
			v = Revised
		case late:
			v = Late
		default:
			if g.lines == nil { // also for a repeat, which a replay may not recognise
				state.raise(src, min(t, s.Arrived)-disorder, others)
			}
		}
		if !wanted {
			continue
		}
		if v == Counted || v == Adjusted || v == Revised {
			p.Hash = hashOf(r.Readings, g.names, i)
		}
		if v == Counted || v == Adjusted {
			if _, again := g.seen[p]; again {
				v = Repeat
			} else {
				g.seen[p] = struct{}{}
			}
		}
		verdict(i, v, p, t)
	}
	g.settle()
	g.forget()
}

// revises reports whether a reading that is late makes rows to be computed again.
func (g *Gate) revises(t, watermark fleetscore.Micros) bool {
	return g.cfg.Revise > 0 && t > watermark-micros(g.cfg.Revise) && t > g.oldest
}

// Within sets how late readings may be that make rows to be computed again, in place of Config.Revise.
func (g *Gate) Within(late fleetscore.Micros) { g.cfg.Revise = time.Duration(late) * time.Microsecond }

// Since says from which time on, exclusively, rows can be computed again: older readings are
// late, because others with which they would count aren't known any more.
func (g *Gate) Since(oldest fleetscore.Micros) { g.oldest = oldest }

// Dropped forgets a reading that was let in and isn't used.
func (g *Gate) Dropped(p Print) { delete(g.seen, p) }

// Passed notes that a reading was handed on. Unless the gate adjusts, a repeat of it would be late.
func (g *Gate) Passed(p Past) {
	if g.cfg.Adjust == 0 {
		delete(g.seen, p.Print)
		return
	}
	heap.Push(&g.gone, p)
}

// Gone are the readings that were handed on and are still known, as Resume takes them.
func (g *Gate) Gone() []Past { return g.gone }

// Mark is the watermark and the sources of a partition, for checkpoints.
type Mark struct {
	Watermark fleetscore.Micros
	Clock     fleetscore.Micros
	Sources   []SourceMark
	Key       KeyMark // the live key that is furthest behind, if each key has a watermark of its own; none while it isn't known which keys there are
}

// Mark describes one of the partitions without the readings that were let in. The sources are put
// into buf.
func (g *Gate) Mark(partition int, buf []SourceMark) Mark {
	m := g.states[partition].mark(buf)
	if g.lines != nil && len(g.lines.heap) > 0 && !g.young(g.clock()) {
		m.Key = g.lines.heap[0].KeyMark()
	}
	return m
}

// Mark describes the partition without its windows. The sources are put into buf.
func (p *Partition) Mark(buf []SourceMark) Mark { return p.state.mark(buf) }

func (s *state) mark(buf []SourceMark) Mark {
	return Mark{Watermark: s.watermark, Clock: s.clock, Sources: append(buf[:0], s.sources...)}
}

// Slowest is the live source that holds the watermark back; false before the first message
// that tells a time.
func (m Mark) Slowest(c Config) (SourceMark, bool) {
	out, ok := SourceMark{}, false
	for _, s := range m.Sources {
		if s.Mark != unset && m.Clock-s.Last <= micros(c.GoneAfter) && (!ok || s.Mark < out.Mark) {
			out, ok = s, true
		}
	}
	return out, ok
}

// Resume sets a new gate to the marks of its partitions, with the readings that were let in and haven't been
// passed, and those that were handed on and are still known.
func (g *Gate) Resume(marks []Mark, seen []Print, gone []Past) {
	g.gone = slices.Clone(gone)
	for _, p := range gone {
		g.seen[p.Print] = struct{}{}
	}
	for i, m := range marks {
		g.states[i] = state{watermark: m.Watermark, clock: m.Clock, sources: slices.Clone(m.Sources)}
	}
	for _, p := range seen {
		g.seen[p] = struct{}{}
	}
}
