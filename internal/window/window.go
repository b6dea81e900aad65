// Package window turns the readings of one partition of a hub into rows: one per
// key and tumbling window, made when the watermark says that no more is expected.
//
// It is pure: messages of the log go in, in order, rows come out. What comes out
// is a function of the log alone; arrival times and ticks are part of the log, and
// when or how often the caller closes windows changes nothing. A Partition is
// used by one goroutine at a time.
//
// Windows are (start, end], aligned to 1970-01-01 UTC; a row's stamp is its
// window's end.
package window

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Aggregate is one value column of the rows. Absent values, and texts other than
// for count, are passed over. Over no value at all, count is 0 and the others are
// missing.
type Aggregate struct {
	Func   string // avg, sum, min, max or count
	Column string // empty: count counts readings
}

// Config says how to aggregate. All fields but Disorder must be positive.
type Config struct {
	Window     time.Duration
	Disorder   time.Duration // the watermark stays this far behind the latest reading
	IdleAfter  time.Duration // and this far behind a tick's arrival
	MaxAhead   time.Duration // readings further ahead of their arrival are set aside
	Aggregates []Aggregate
}

// Verdict is what became of a reading.
type Verdict int

// The verdicts.
const (
	Counted  Verdict = iota // it is part of its window
	Repeat                  // a reading with the same key, time and id (or values) was counted
	Late                    // its window was over: the watermark had passed its end
	Ahead                   // its time lies too far after its arrival to be true
	Filtered                // the query's condition doesn't hold
	Done                    // while replaying: what became of it was committed before
)

// String names the verdict as metrics and late files do.
func (v Verdict) String() string {
	return [...]string{"counted", "repeat", "late", "ahead", "filtered", "done"}[v]
}

// unset is the watermark before the first message.
const unset = fleetscore.Micros(math.MinInt64)

// Partition aggregates one partition of a log.
type Partition struct {
	cfg       Config
	width     int64
	watermark fleetscore.Micros
	windows   map[fleetscore.Micros]*window

	doneSeq uint64 // messages up to this one were committed as far as doneEnd
	doneEnd fleetscore.Micros
}

// window is one open window of all keys.
type window struct {
	firstSeq uint64            // of the message with its first reading
	before   fleetscore.Micros // the watermark before that message
	cells    map[fleetscore.Key]*cell
}

// cell is one key in one window.
type cell struct {
	readings int64
	sums     []sum
	seen     []print
	many     map[print]struct{} // the same as seen, once there are many
}

// sum is the state of one aggregate. Values are added in the log's order, so that
// a replay gives the same bits.
type sum struct {
	n             int64
	sum, min, max float64
}

// print tells readings of one key apart.
type print struct {
	time fleetscore.Micros
	hash uint64 // of the id, or else the values
}

// New builds a partition before its first message.
func New(cfg Config) *Partition {
	return &Partition{cfg: cfg, width: cfg.Window.Microseconds(), watermark: unset, windows: map[fleetscore.Micros]*window{}, doneEnd: unset}
}

// Checkpoint says where a replay may start. Together with the log it gives the
// state back: New, Resume, then every message from ReplayFrom on.
type Checkpoint struct {
	Position        uint64            // the last message that was taken
	Done            fleetscore.Micros // windows that end by then were closed and committed
	ReplayFrom      uint64            // the first message of which an open window holds a reading, else Position+1
	ReplayWatermark fleetscore.Micros // the watermark before that message
}

// Checkpoint describes the state after message position, once the windows that
// end by done were closed; done must not lie after the watermark.
func (p *Partition) Checkpoint(position uint64, done fleetscore.Micros) Checkpoint {
	c := Checkpoint{Position: position, Done: done, ReplayFrom: position + 1, ReplayWatermark: p.watermark}
	for _, w := range p.windows {
		if w.firstSeq < c.ReplayFrom {
			c.ReplayFrom, c.ReplayWatermark = w.firstSeq, w.before
		}
	}
	return c
}

// Resume sets a new partition to a checkpoint. The next message is ReplayFrom.
func (p *Partition) Resume(c Checkpoint) {
	p.watermark, p.doneSeq, p.doneEnd = c.ReplayWatermark, c.Position, c.Done
}

// Watermark is the time up to which no more readings are expected; false before
// the first message.
func (p *Partition) Watermark() (fleetscore.Micros, bool) { return p.watermark, p.watermark != unset }

// OpenWindows is how many windows, over all keys, are held in memory.
func (p *Partition) OpenWindows() int { return len(p.windows) }

// Tick takes a tick: as of its arrival nothing more had come and the gateway was
// healthy.
func (p *Partition) Tick(arrived fleetscore.Micros) {
	p.watermark = max(p.watermark, arrived-fleetscore.Micros(p.cfg.IdleAfter.Microseconds()))
}

// Readings takes a message. keep says which readings fulfil the query's condition
// (nil: all do); verdict is told of each reading, in order. A reading that doesn't
// fulfil the condition moves the watermark all the same: its device is alive.
func (p *Partition) Readings(seq uint64, arrived fleetscore.Micros, r *fleetscore.Readings, keep []bool, verdict func(i int, v Verdict)) {
	columns := p.columns(r)
	before := p.watermark
	ahead := arrived + fleetscore.Micros(p.cfg.MaxAhead.Microseconds())
	disorder := fleetscore.Micros(p.cfg.Disorder.Microseconds())
	for i, t := range r.Times {
		end := p.end(t)
		v := Counted
		switch {
		case t > ahead:
			v = Ahead
		case end <= p.watermark:
			v = Late
		case keep != nil && !keep[i]:
			v = Filtered
		}
		if t <= ahead {
			p.watermark = max(p.watermark, t-disorder)
		}
		if seq <= p.doneSeq && (v == Late || v == Ahead || end <= p.doneEnd) {
			v = Done
		}
		if v == Counted && !p.cell(end, r.Keys[r.KeyIndex[i]], seq, before).add(p.cfg.Aggregates, columns, r, i) {
			v = Repeat
		}
		verdict(i, v)
	}
}

// end is the end of the window that t lies in.
func (p *Partition) end(t fleetscore.Micros) fleetscore.Micros {
	n := int64(t) / p.width
	if int64(t)%p.width > 0 {
		n++
	}
	return fleetscore.Micros(n * p.width)
}

// columns finds each aggregate's column in a message; nil where it has none.
func (p *Partition) columns(r *fleetscore.Readings) []*fleetscore.ReadingColumn {
	out := make([]*fleetscore.ReadingColumn, len(p.cfg.Aggregates))
	for a, g := range p.cfg.Aggregates {
		for c := range r.Columns {
			if r.Columns[c].Name == g.Column && g.Column != "" {
				out[a] = &r.Columns[c]
			}
		}
	}
	return out
}

func (p *Partition) cell(end fleetscore.Micros, k fleetscore.Key, seq uint64, before fleetscore.Micros) *cell {
	w := p.windows[end]
	if w == nil {
		w = &window{firstSeq: seq, before: before, cells: map[fleetscore.Key]*cell{}}
		p.windows[end] = w
	}
	c := w.cells[k]
	if c == nil {
		c = &cell{sums: make([]sum, len(p.cfg.Aggregates))}
		w.cells[k] = c
	}
	return c
}

// add counts a reading unless it is a repeat.
func (c *cell) add(aggregates []Aggregate, columns []*fleetscore.ReadingColumn, r *fleetscore.Readings, i int) bool {
	if !c.first(print{r.Times[i], hashOf(r, i)}) {
		return false
	}
	c.readings++
	for a := range aggregates {
		col := columns[a]
		if col == nil {
			continue
		}
		s := &c.sums[a]
		if col.Strings != nil {
			if aggregates[a].Func == "count" && (col.Present == nil || col.Present[i]) {
				s.n++
			}
			continue
		}
		x := col.Numbers[i]
		if math.IsNaN(x) {
			continue
		}
		if s.n == 0 || x < s.min {
			s.min = x
		}
		if s.n == 0 || x > s.max {
			s.max = x
		}
		s.n++
		s.sum += x
	}
	return true
}

// first reports whether the print is new, and remembers it.
func (c *cell) first(x print) bool {
	const few = 32 // up to here a scan beats a map
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

// hashOf hashes a reading's id, or all its values if it has none (FNV-1a).
// Columns are told apart by name, so that the order in a message doesn't matter.
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

// Close takes out the windows that end by until, which must not lie after the
// watermark, and returns their rows, sorted by stamp and key. Values are in the
// order of the aggregates; the caller names the columns.
func (p *Partition) Close(until fleetscore.Micros) *fleetscore.Rows {
	out := &fleetscore.Rows{Values: make([][]float64, len(p.cfg.Aggregates))}
	var ends []fleetscore.Micros
	for end := range p.windows {
		if end <= until {
			ends = append(ends, end)
		}
	}
	slices.Sort(ends)
	index := map[fleetscore.Key]uint32{}
	for _, end := range ends {
		w := p.windows[end]
		delete(p.windows, end)
		keys := make([]fleetscore.Key, 0, len(w.cells))
		for k := range w.cells {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, cmp.Compare)
		for _, k := range keys {
			n, ok := index[k]
			if !ok {
				n = uint32(len(out.Keys))
				index[k] = n
				out.Keys = append(out.Keys, k)
			}
			out.KeyIndex = append(out.KeyIndex, n)
			out.Times = append(out.Times, end)
			for a, g := range p.cfg.Aggregates {
				out.Values[a] = append(out.Values[a], w.cells[k].value(g, a))
			}
		}
	}
	return out
}

func (c *cell) value(g Aggregate, a int) float64 {
	s := c.sums[a]
	switch {
	case g.Func == "count" && g.Column == "":
		return float64(c.readings)
	case g.Func == "count":
		return float64(s.n)
	case s.n == 0:
		return fleetscore.Missing
	case g.Func == "avg":
		return s.sum / float64(s.n)
	case g.Func == "sum":
		return s.sum
	case g.Func == "min":
		return s.min
	}
	return s.max
}
