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
	"unsafe"

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
	Revise     time.Duration // how far the watermark may have passed a window that still takes readings, of a Gate a reading; 0: late readings count nowhere
	Apart      time.Duration // of a Gate: how old a reading may be at its arrival, where each key has a watermark of its own; 0: all keys have one
	Adjust     time.Duration // of a Gate: how old a reading may be at its arrival; older ones, and those that are out of order, get the earliest time that is still possible. 0: they are late
	Partitions int           // of a Gate: how many partitions of the log it reads; 0: one
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
	Revised                 // the row of the reading's window was committed, and has to be computed again
	Adjusted                // the reading counts at a later time than its own
	Done                    // during a replay: the reading's outcome was committed before
)

// String returns the verdict's name in metrics and late files.
func (v Verdict) String() string {
	return [...]string{"counted", "repeat", "late", "early", "filtered", "revised", "adjusted", "done"}[v]
}

// unset is a watermark before the first message.
const unset = fleetscore.Micros(math.MinInt64)

// Stamp is what a message says about its origin.
type Stamp struct {
	Seq     uint64
	Source  fleetscore.Source
	Arrived fleetscore.Micros
	Unsure  fleetscore.Micros // how much later than Arrived the message may have arrived
	// Partition is that of the message, of a Gate that reads several; else 0.
	Partition int
}

// Partition aggregates one partition of a log.
type Partition struct {
	cfg     Config
	width   fleetscore.Micros
	hop     fleetscore.Micros
	state   state
	windows map[fleetscore.Micros]*window
	latest  *window           // to which a reading was added last; nil if it was sealed
	nextEnd fleetscore.Micros // no unsealed open window ends before this time
	open    int               // windows that aren't sealed
	keys    keys

	fields         []field // of a page
	counts, floats int     // in a page
	pageBytes      int64
	sparePages     []*page // of windows that are over
	spareChunks    []*chunk

	doneSeq uint64 // messages up to this one were committed as far as doneEnd
	doneEnd fleetscore.Micros
	oldest  fleetscore.Micros // closed windows that start before it can't be computed again
	touched map[Cell]uint64   // rows that have to be computed again; see Touched

	msg    message
	before state // the state before the message that is being taken
	kept   *state
	held   int64 // bytes of memory that the windows take, estimated
	over   int64 // of held, those of sealed windows
}

// window is one open window of all keys. Once the watermark has passed its end, the
// window is sealed: it takes no more readings, so that only its rows are kept.
type window struct {
	end      fleetscore.Micros
	firstSeq uint64 // of the message with its first reading
	before   *state // before that message
	pages    []*page
	chunks   []*chunk
	prints   uint32   // in chunks
	index    []uint32 // of prints, plus 1; nil until it is needed
	rows     *sealed  // in place of all that, once the watermark has passed the end
	held     int64    // of Partition.held
}

// New builds a partition before its first message.
func New(cfg Config) *Partition {
	if cfg.Hop == 0 {
		cfg.Hop = cfg.Window
	}
	p := &Partition{cfg: cfg, width: micros(cfg.Window), hop: micros(cfg.Hop), state: state{watermark: unset}, keys: newKeys(),
		windows: map[fleetscore.Micros]*window{}, nextEnd: math.MaxInt64, doneEnd: unset, oldest: unset, touched: map[Cell]uint64{}}
	p.fields, p.counts, p.floats = layout(cfg.Aggregates)
	p.pageBytes = int64(unsafe.Sizeof(page{})) + 4*int64(p.counts) + 8*int64(p.floats)
	return p
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
func (p *Partition) HeldBytes() (open, over int64) {
	open, over = p.held-p.over, p.over
	if p.cfg.Revise > 0 { // nothing is sealed before it is closed
		for end, w := range p.windows {
			if end <= p.state.watermark {
				open, over = open-w.held, over+w.held
			}
		}
	}
	if p.open > 0 {
		open += p.keys.bytes
	}
	return open, over
}

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
	m := p.message(s.Seq, r)
	p.before.copy(&p.state)
	p.kept = nil
	src := p.state.enter(s, &p.cfg)
	others := p.state.others(src, &p.cfg)
	ahead := s.Arrived + s.Unsure + micros(p.cfg.MaxEarly)
	disorder := micros(p.cfg.Disorder)
	first := unset // end of the first window of the reading before
	for i, t := range r.Times {
		if first == unset || t > first || t <= first-p.hop {
			first = p.end(t)
		}
		end, v := first, Counted
		over := end <= p.state.watermark || s.Seq > p.doneSeq && end <= p.doneEnd // committed windows stay closed even if another log begins here
		switch {
		case t > ahead:
			v = Early
		case over && p.out(s.Seq, p.end(t+p.width)-p.hop):
			v = Late
		default:
			if !over { // a reading that is late tells nothing about those to come
				p.state.raise(src, min(t, s.Arrived)-disorder, others)
			}
			if keep != nil && !keep[i] {
				v = Filtered
			}
		}
		counts := v == Counted
		if s.Seq <= p.doneSeq && (v == Late || v == Early || end <= p.doneEnd) {
			v = Done // perhaps of its first windows only: the others are still open
		}
		revised := false
		for k, x := ^uint32(0), (print{}); counts && end-p.width < t; end += p.hop {
			switch {
			case s.Seq <= p.doneSeq && end <= p.doneEnd, over && p.out(s.Seq, end):
				continue
			case end <= p.doneEnd:
				p.touched[Cell{r.Keys[r.KeyIndex[i]], end}], revised = s.Seq, true
				continue
			}
			if k == ^uint32(0) {
				k = p.number(m, r.KeyIndex[i])
				x = printOf(&p.keys.list[k], t, hashOf(r, m.names, i))
			}
			if !p.add(end, k, x, m, i) && v == Counted {
				v = Repeat
			}
		}
		if revised {
			v = Revised
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

// message is a message of readings, as windows need it.
type message struct {
	seq     uint64
	r       *fleetscore.Readings
	columns [][]*fleetscore.ReadingColumn // by aggregate: at most one of numbers and one of texts
	names   []uint64                      // hashes of the columns' names
	numbers []uint32                      // of the keys, plus 1; 0 where it wasn't asked for
	before  uint32                        // the number that was asked for last
}

// message prepares a message. It is valid until the next one.
func (p *Partition) message(seq uint64, r *fleetscore.Readings) *message {
	m := &p.msg
	m.seq, m.r, m.columns, m.names = seq, r, m.columns[:0], namesOf(m.names[:0], r)
	for a := range p.fields {
		var of []*fleetscore.ReadingColumn
		for c := range r.Columns {
			if name := p.fields[a].column; r.Columns[c].Name == name && name != "" {
				of = append(of, &r.Columns[c])
			}
		}
		m.columns = append(m.columns, of)
	}
	m.numbers = slices.Grow(m.numbers[:0], len(r.Keys))[:len(r.Keys)]
	clear(m.numbers)
	return m
}

// number is the number of a message's key.
func (p *Partition) number(m *message, key uint32) uint32 {
	n := &m.numbers[key]
	if *n == 0 {
		m.before = p.keys.after(m.before, m.r.Keys[key])
		*n = m.before + 1
	}
	return *n - 1
}

// add counts a reading in its window unless it is a repeat.
func (p *Partition) add(end fleetscore.Micros, key uint32, x print, m *message, i int) bool {
	w := p.latest
	if w == nil || w.end != end {
		w = p.window(end, m.seq)
	}
	g, s := p.page(w, key), int(key&(pageKeys-1))
	t := m.r.Times[i]
	if last := g.last[s]; last == 0 || t > g.latest[s] {
		g.latest[s] = t
	} else {
		before := len(w.index)
		repeated := w.repeated(x, last)
		p.hold(w, int64(4*(len(w.index)-before)))
		if repeated {
			return false
		}
	}
	x.prev = g.last[s]
	p.remember(w, x)
	g.last[s] = w.prints
	g.readings[s]++
	g.take(p.fields, m.columns, s, i)
	return true
}

// window returns the open window that ends at a time, and makes it if it is absent.
func (p *Partition) window(end fleetscore.Micros, seq uint64) *window {
	w := p.windows[end]
	if w == nil {
		if p.kept == nil { // one copy serves all windows that this message opens
			p.kept = &state{}
			p.kept.copy(&p.before)
		}
		w = &window{end: end, firstSeq: seq, before: p.kept}
		p.windows[end] = w
		p.open++
		p.nextEnd = min(p.nextEnd, end)
	}
	p.latest = w
	return w
}

// namesOf appends the hashes of the names of the columns, as hashOf needs them.
func namesOf(dst []uint64, r *fleetscore.Readings) []uint64 {
	for c := range r.Columns {
		dst = append(dst, hashText(hashStart, r.Columns[c].Name))
	}
	return dst
}

// hashOf hashes a reading's id, or all its values if it has none (FNV-1a). The hash
// includes the columns' names, so that their order in a message doesn't matter. Checkpoints
// of a Gate hold such hashes.
func hashOf(r *fleetscore.Readings, names []uint64, i int) uint64 {
	if r.IDs != nil && r.IDs[i] != "" {
		return hashText(hashStart, r.IDs[i])
	}
	var all uint64
	for c := range r.Columns {
		col, h := &r.Columns[c], names[c]
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

const hashStart = 14695981039346656037

func hashText(h uint64, s string) uint64 {
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}
