package window

import (
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Gate judges the readings of one partition of a log one by one, for queries that need
// them in the order of their times: it keeps the watermark as a Partition does, but a
// reading is late as soon as it is older than the watermark. A reading that is let in can
// be handed on, in the order of time, once the watermark has passed it. It is used by one
// goroutine at a time.
type Gate struct {
	cfg   Config // Window, Hop and Aggregates aren't used
	state state
	seen  map[Print]struct{} // of readings whose repeats would count
	gone  []Past             // those of them that were handed on, in order
	names []uint64           // hashes of a message's column names
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
	return &Gate{cfg: cfg, state: state{watermark: unset}, seen: map[Print]struct{}{}}
}

// Watermark is the time before which no more readings are let in; false before the first
// message.
func (g *Gate) Watermark() (fleetscore.Micros, bool) {
	return g.state.watermark, g.state.watermark != unset
}

// Tick takes a tick.
func (g *Gate) Tick(s Stamp) {
	src := g.state.enter(s, &g.cfg)
	g.state.raise(src, s.Arrived-micros(g.cfg.IdleAfter), g.state.others(src, &g.cfg))
	g.forget()
}

// forget forgets readings whose repeats aren't expected any more.
func (g *Gate) forget() {
	n := 0
	for ; n < len(g.gone) && g.gone[n].Stamp+micros(g.cfg.Remembers()) < g.state.watermark; n++ {
		delete(g.seen, g.gone[n].Print)
	}
	g.gone = g.gone[n:]
}

// Readings takes a message and calls verdict for each reading, in order, with the time at which
// it counts. least is the
// time up to which rows are certain and can't take further readings, even if another log
// begins here. The verdict is Counted, Adjusted, Repeat, Late or Early.
//
// A gate that adjusts does so by the letter of Azure Stream Analytics: first a reading that is too
// old at its arrival gets the earliest time that wouldn't be, then one that is older
// than the watermark gets the watermark.
func (g *Gate) Readings(s Stamp, r *fleetscore.Readings, least fleetscore.Micros, verdict func(i int, v Verdict, p Print, stamp fleetscore.Micros)) {
	src := g.state.enter(s, &g.cfg)
	others := g.state.others(src, &g.cfg)
	g.names = namesOf(g.names[:0], r)
	ahead, disorder := s.Arrived+s.Unsure+micros(g.cfg.MaxEarly), micros(g.cfg.Disorder)
	for i, t := range r.Times {
		v, p := Counted, Print{Time: t}
		if g.cfg.Adjust > 0 && t <= ahead {
			if t = max(t, s.Arrived-micros(g.cfg.Adjust), g.state.watermark, least+1); t > p.Time {
				v = Adjusted
			}
		}
		switch {
		case t > ahead:
			v = Early
		case t < g.state.watermark || t <= least:
			v = Late
		default:
			p.Key, p.Hash = r.Keys[r.KeyIndex[i]], hashOf(r, g.names, i)
			if _, again := g.seen[p]; again {
				v = Repeat
			} else {
				g.seen[p] = struct{}{}
			}
			g.state.raise(src, min(t, s.Arrived)-disorder, others) // also for a repeat, which a replay may not recognise
		}
		verdict(i, v, p, t)
	}
	g.forget()
}

// Dropped forgets a reading that was let in and isn't used.
func (g *Gate) Dropped(p Print) { delete(g.seen, p) }

// Passed notes that a reading was handed on. Unless the gate adjusts, a repeat of it would be late.
func (g *Gate) Passed(p Past) {
	if g.cfg.Adjust == 0 {
		delete(g.seen, p.Print)
		return
	}
	g.gone = append(g.gone, p)
}

// Gone are the readings that were handed on and are still known.
func (g *Gate) Gone() []Past { return g.gone }

// Mark is a gate's watermark and sources, for checkpoints.
type Mark struct {
	Watermark fleetscore.Micros
	Clock     fleetscore.Micros
	Sources   []SourceMark
}

// Mark describes the gate without the readings that were let in. The sources are put
// into buf.
func (g *Gate) Mark(buf []SourceMark) Mark { return g.state.mark(buf) }

// Mark describes the partition without its windows. The sources are put into buf.
func (p *Partition) Mark(buf []SourceMark) Mark { return p.state.mark(buf) }

func (s *state) mark(buf []SourceMark) Mark {
	return Mark{s.watermark, s.clock, append(buf[:0], s.sources...)}
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

// Resume sets a new gate to a mark, with the readings that were let in and haven't been
// passed, and those that were handed on and are still known.
func (g *Gate) Resume(m Mark, seen []Print, gone []Past) {
	g.gone = slices.Clone(gone)
	for _, p := range gone {
		g.seen[p.Print] = struct{}{}
	}
	g.state = state{watermark: m.Watermark, clock: m.Clock, sources: slices.Clone(m.Sources)}
	for _, p := range seen {
		g.seen[p] = struct{}{}
	}
}
