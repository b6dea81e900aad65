// Package window turns the readings of one partition of a hub into rows: one per key
// and tumbling or hopping window, made when the watermark says that no more readings are
// expected.
//
// It is pure: it takes the messages of the log in order and returns rows. The rows
// depend on the log alone. Arrival times and ticks are part of the log, and it makes
// no difference when or how often the caller closes windows. A Partition is used by
// one goroutine at a time.
//
// Windows are (start, end], where ends are multiples of the hop since 1970-01-01 UTC; a
// row's stamp is its window's end. A reading counts in all of its windows or in none: it is
// late once the first of them is over.
package window

import (
	"math"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Aggregate is one value column of the rows. Absent values are ignored, and so are
// texts except in count. If there is no value at all, count is 0 and the others are
// missing.
type Aggregate struct {
	Func   string // avg, sum, min, max, count, stdev, stdevp, var or varp
	Column string // empty means that count counts readings
}

// Config says how to aggregate. All fields but Disorder and Hop must be positive.
type Config struct {
	Window     time.Duration
	Hop        time.Duration // between the ends of windows, at most Window; 0: Window, so that windows are tumbling
	Disorder   time.Duration // a source's mark stays this far behind its latest reading
	IdleAfter  time.Duration // and this far behind the arrival of a tick
	MaxEarly   time.Duration // readings further ahead of their arrival are set aside
	GoneAfter  time.Duration // a source without a message for this long, while the log works, no longer holds the watermark back
	Aggregates []Aggregate
}

// Verdict is the outcome of a reading.
type Verdict int

// The verdicts.
const (
	Counted  Verdict = iota // the reading is part of its window
	Repeat                  // a reading with the same key, time and id (or values) was counted
	Late                    // the watermark had passed the end of the reading's window
	Early                   // the reading's time is too far after its arrival to be right
	Filtered                // the query's condition doesn't hold
	Done                    // during a replay: the reading's outcome was committed before
)

// String returns the verdict's name in metrics and late files.
func (v Verdict) String() string {
	return [...]string{"counted", "repeat", "late", "early", "filtered", "done"}[v]
}

// unset is a watermark before the first message.
const unset = fleetscore.Micros(math.MinInt64)

// Stamp is what a message says about its origin.
type Stamp struct {
	Seq     uint64
	Source  fleetscore.Source
	Arrived fleetscore.Micros
	Unsure  fleetscore.Micros // how much later than Arrived the message may have arrived
}

// Partition aggregates one partition of a log.
type Partition struct {
	cfg     Config
	width   fleetscore.Micros
	hop     fleetscore.Micros
	state   state
	windows map[fleetscore.Micros]*window
	nextEnd fleetscore.Micros // no unsealed open window ends before this time

	doneSeq uint64 // messages up to this one were committed as far as doneEnd
	doneEnd fleetscore.Micros

	before state // the state before the message that is being taken
	kept   *state
	held   int64 // bytes of memory that the windows take, estimated
	over   int64 // of held, those of sealed windows
}

// window is one open window of all keys. Once the watermark has passed its end, the
// window is sealed: it takes no more readings, so that only its rows are kept.
type window struct {
	firstSeq uint64 // of the message with its first reading
	before   *state // before that message
	cells    map[fleetscore.Key]*cell
	rows     *sealed // in place of cells, once the watermark has passed the end
	held     int64   // of Partition.held
}

// cell is one key in one window.
type cell struct {
	readings int64
	sums     []sum
	seen     []print
	many     map[print]struct{} // used in place of seen when there are many
}

// sum is the state of one aggregate. Values are added in the log's order, so that
// a replay gives the same bits.
type sum struct {
	n             int64
	sum, min, max float64
	mean, squares float64 // of stdev and the like, by Welford's method
}

// print identifies a reading among those of one key.
type print struct {
	time fleetscore.Micros
	hash uint64 // of the id, or else the values
}

// New builds a partition before its first message.
func New(cfg Config) *Partition {
	if cfg.Hop == 0 {
		cfg.Hop = cfg.Window
	}
	return &Partition{cfg: cfg, width: micros(cfg.Window), hop: micros(cfg.Hop), state: state{watermark: unset},
		windows: map[fleetscore.Micros]*window{}, nextEnd: math.MaxInt64, doneEnd: unset}
}

// Checkpoint says where a replay may start. Together with the log it restores the
// state: call New, Resume, then take every message from ReplayFrom on.
type Checkpoint struct {
	Position   uint64            // the last message that was taken
	Done       fleetscore.Micros // windows that end by then were closed and committed
	ReplayFrom uint64            // the first message with a reading in an open window, else Position+1

	// What was known before message ReplayFrom. A source that was listed once is
	// listed in every later checkpoint.
	Watermark fleetscore.Micros
	Clock     fleetscore.Micros // of the partition, by which sources are silent
	Sources   []SourceMark
}

// Checkpoint describes the state after message position, after the windows that end
// by done were closed; done must not be after the watermark.
func (p *Partition) Checkpoint(position uint64, done fleetscore.Micros) Checkpoint {
	c := Checkpoint{Position: position, Done: done, ReplayFrom: position + 1}
	from := &p.state
	for _, w := range p.windows {
		if w.firstSeq < c.ReplayFrom {
			c.ReplayFrom, from = w.firstSeq, w.before
		}
	}
	c.Watermark, c.Clock, c.Sources = from.watermark, from.clock, slices.Clone(from.sources)
	return c
}

// Resume sets a new partition to a checkpoint. The next message is ReplayFrom.
func (p *Partition) Resume(c Checkpoint) {
	p.state = state{watermark: c.Watermark, clock: c.Clock, sources: slices.Clone(c.Sources)}
	p.doneSeq, p.doneEnd = c.Position, c.Done
}

// Watermark is the time up to which no more readings are expected; false before
// the first message.
func (p *Partition) Watermark() (fleetscore.Micros, bool) {
	return p.state.watermark, p.state.watermark != unset
}

// OpenWindows is how many windows, over all keys, are held in memory.
func (p *Partition) OpenWindows() int { return len(p.windows) }

// HeldBytes estimates the memory of the windows that are still open, and of those
// that are over and wait to be closed.
func (p *Partition) HeldBytes() (open, over int64) { return p.held - p.over, p.over }

// Tick takes a tick. A tick says that at its arrival its source was healthy and had
// sent nothing more.
func (p *Partition) Tick(s Stamp) {
	src := p.state.enter(s, &p.cfg)
	p.state.raise(src, s.Arrived-micros(p.cfg.IdleAfter), p.state.others(src, &p.cfg))
	p.seal()
}

func micros(d time.Duration) fleetscore.Micros { return fleetscore.Micros(d.Microseconds()) }

// Readings takes a message. keep says which readings fulfil the query's condition
// (nil: all do); verdict is called for each reading, in order.
//
// A reading that is late or early doesn't move the watermark. A reading that doesn't
// fulfil the condition does, because its device is alive. A repeat does too: a replay
// that starts between the two readings couldn't recognise the repeat, and must move
// the watermark in the same way.
func (p *Partition) Readings(s Stamp, r *fleetscore.Readings, keep []bool, verdict func(i int, v Verdict)) {
	columns := p.columns(r)
	p.before.copy(&p.state)
	p.kept = nil
	src := p.state.enter(s, &p.cfg)
	others := p.state.others(src, &p.cfg)
	ahead := s.Arrived + s.Unsure + micros(p.cfg.MaxEarly)
	disorder := micros(p.cfg.Disorder)
	for i, t := range r.Times {
		end := p.end(t)
		v := Counted
		switch {
		case t > ahead:
			v = Early
		case end <= p.state.watermark || s.Seq > p.doneSeq && end <= p.doneEnd: // committed windows stay closed even if another log begins here
			v = Late
		default:
			p.state.raise(src, min(t, s.Arrived)-disorder, others)
			if keep != nil && !keep[i] {
				v = Filtered
			}
		}
		counts := v == Counted
		if s.Seq <= p.doneSeq && (v == Late || v == Early || end <= p.doneEnd) {
			v = Done // perhaps of its first windows only: the others are still open
		}
		for ; counts && end-p.width < t; end += p.hop {
			if s.Seq <= p.doneSeq && end <= p.doneEnd {
				continue
			}
			if !p.add(end, r.Keys[r.KeyIndex[i]], s.Seq, columns, r, i) && v == Counted {
				v = Repeat
			}
		}
		verdict(i, v)
	}
	p.seal()
}

// end is the end of the first window that contains t.
func (p *Partition) end(t fleetscore.Micros) fleetscore.Micros {
	n := t / p.hop
	if t%p.hop > 0 {
		n++
	}
	return n * p.hop
}

// columns finds each aggregate's columns in a message: at most one of numbers and one
// of texts.
func (p *Partition) columns(r *fleetscore.Readings) [][]*fleetscore.ReadingColumn {
	out := make([][]*fleetscore.ReadingColumn, len(p.cfg.Aggregates))
	for a, g := range p.cfg.Aggregates {
		for c := range r.Columns {
			if r.Columns[c].Name == g.Column && g.Column != "" {
				out[a] = append(out[a], &r.Columns[c])
			}
		}
	}
	return out
}

// Estimates of memory, in bytes: of a key in an open window without its aggregates,
// of one aggregate of the key, and of the data that recognises the repeats of one
// reading.
const (
	cellBytes  = 160
	sumBytes   = 48
	printBytes = 72
)

// add counts a reading in its window unless it is a repeat.
func (p *Partition) add(end fleetscore.Micros, k fleetscore.Key, seq uint64, columns [][]*fleetscore.ReadingColumn, r *fleetscore.Readings, i int) bool {
	w := p.windows[end]
	if w == nil {
		if p.kept == nil { // one copy serves all windows that this message opens
			p.kept = &state{}
			p.kept.copy(&p.before)
		}
		w = &window{firstSeq: seq, before: p.kept, cells: map[fleetscore.Key]*cell{}}
		p.windows[end] = w
		p.nextEnd = min(p.nextEnd, end)
	}
	c := w.cells[k]
	if c == nil {
		c = &cell{sums: make([]sum, len(p.cfg.Aggregates))}
		w.cells[k] = c
		n := int64(cellBytes + len(k) + sumBytes*len(c.sums))
		w.held, p.held = w.held+n, p.held+n
	}
	if !c.add(p.cfg.Aggregates, columns, r, i) {
		return false
	}
	w.held, p.held = w.held+printBytes, p.held+printBytes
	return true
}

// add counts a reading unless it is a repeat.
func (c *cell) add(aggregates []Aggregate, columns [][]*fleetscore.ReadingColumn, r *fleetscore.Readings, i int) bool {
	if !c.first(print{r.Times[i], hashOf(r, i)}) {
		return false
	}
	c.readings++
	for a := range aggregates {
		for _, col := range columns[a] {
			c.sums[a].add(col, i, aggregates[a].Func)
		}
	}
	return true
}

// add takes the value of a reading in one column.
func (s *sum) add(col *fleetscore.ReadingColumn, i int, function string) {
	if col.Strings != nil {
		if function == "count" && (col.Present == nil || col.Present[i]) {
			s.n++
		}
		return
	}
	x := col.Numbers[i]
	if math.IsNaN(x) {
		return
	}
	if s.n == 0 || x < s.min {
		s.min = x
	}
	if s.n == 0 || x > s.max {
		s.max = x
	}
	s.n++
	s.sum += x
	if isSpread(function) {
		d := x - s.mean
		s.mean += d / float64(s.n)
		s.squares += d * (x - s.mean)
	}
}

// isSpread reports whether a function is a variance or standard deviation.
func isSpread(function string) bool { return function[0] == 'v' || function[:2] == "st" }

// first reports whether the print is new, and remembers it.
func (c *cell) first(x print) bool {
	const few = 32 // up to this number a scan is faster than a map
	if c.many != nil {
		_, seen := c.many[x]
		c.many[x] = struct{}{}
		return !seen
	}
	if slices.Contains(c.seen, x) {
		return false
	}
	c.seen = append(c.seen, x)
	if len(c.seen) > few {
		c.many = make(map[print]struct{}, 4*few)
		for _, s := range c.seen {
			c.many[s] = struct{}{}
		}
		c.seen = nil
	}
	return true
}

// hashOf hashes a reading's id, or all its values if it has none (FNV-1a). The hash
// includes the columns' names, so that their order in a message doesn't matter.
func hashOf(r *fleetscore.Readings, i int) uint64 {
	const offset = 14695981039346656037
	if r.IDs != nil && r.IDs[i] != "" {
		return hashText(offset, r.IDs[i])
	}
	var all uint64
	for c := range r.Columns {
		col := &r.Columns[c]
		h := hashText(offset, col.Name)
		switch {
		case col.Strings != nil:
			if col.Present != nil && !col.Present[i] {
				continue
			}
			h = hashText(h^1, col.Strings[i])
		case math.IsNaN(col.Numbers[i]):
			continue
		default:
			h = (h ^ math.Float64bits(col.Numbers[i])) * 0xff51afd7ed558ccd
		}
		all += h ^ h>>29
	}
	return all
}

func hashText(h uint64, s string) uint64 {
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}
