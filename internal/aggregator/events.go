package aggregator

import (
	"cmp"
	"container/heap"
	"fmt"
	"hash/fnv"
	"iter"
	"math"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/query/stream"
	"github.com/fleetscore/fleetscore/internal/query/value"
	"github.com/fleetscore/fleetscore/internal/window"
)

// events carries out a query that package stream runs, over one partition, or over all if its
// groups have readings of several. Readings wait until the watermark has passed them, and are then handed on in the
// order of time, equal times in the order of their keys, and those of a key in the order of the log. So the rows depend on
// the log alone, as those of package window do, and not on how keys are spread over partitions.
//
// A checkpoint holds all of the state (save), so that a restart needn't read again as much of the log as
// windows and functions look back. If the state is lost, or doesn't fit the query, which was edited, the log is read
// again from the first message that can still influence rows (replay), or from the oldest one that there is (fromOldest),
// and rows that were committed are left out: the other rows are the same.
type events struct {
	plan   *query.Plan
	form   int64             // of the query's text, for checkpoints
	reach  fleetscore.Micros // how far back readings can influence rows to come
	late   fleetscore.Micros // how old readings may be at their arrival; 0: they aren't adjusted
	gate   *window.Gate
	lanes  *lanes
	order  int64 // of readings, over all messages
	passed []passed
	over   bool // each key has a watermark of its own

	revise  fleetscore.Micros                    // how late readings may be that make rows to be computed again; 0: none do
	bases   []base                               // from which rows are computed again
	touched map[fleetscore.Key]fleetscore.Micros // keys whose rows have to be computed again, from which time on

	done     fleetscore.Micros                    // rows up to this time were committed
	oldest   fleetscore.Micros                    // those up to this time can't be computed again, because what they were made from isn't known any more
	doneSeq  []uint64                             // by partition: while this message isn't reached, the log is read again
	own      []fleetscore.Micros                  // by partition: rows of its keys up to this time were committed, after an edit
	behind   map[fleetscore.Key]fleetscore.Micros // keys of partitions where that is less than done
	caughtUp bool                                 // these were committed as far as the others a moment ago
	rows     []made                               // that aren't committed yet, older than the watermark
	ahead    ahead                                // those that aren't, of keys that are ahead of others
	rowsMade int64                                // ahead of others
	double   int64                                // rows that another one with their key and time replaced

	reader value.Reader
	shape  *value.Shape // of the latest row
	place  []int        // in it: of the key columns, then the values

	only func(fleetscore.Key, fleetscore.Micros) bool // of readings; others aren't used. Nil: all are

	joined  *joined           // reference data; nil if the query has no JOIN
	reached fleetscore.Micros // readings and rows before it were handed on

	measured int64 // bytes of the state, when it was measured, without those of rows and of
	older    int64 // states from which rows are computed again
	listed   int   // bytes of the rows, in the state that was saved last
	since    int64 // readings that came since then
}

// engine turns the messages of a partition, or of all, into rows: windows or events.
type engine interface {
	Tick(s window.Stamp) error
	// Take takes a message with readings, and says what becomes of each, and its time; key names the hub's key columns.
	Take(m hub.Message, s window.Stamp, key []string, verdict func(i int, v window.Verdict, at fleetscore.Micros)) error
	Watermark() (fleetscore.Micros, bool)
	// Complete is the time of the last cut up to which no rows are to come, or any such
	// time for a commit before the cut; false before the first message.
	Complete(cut fleetscore.Micros, early bool) (fleetscore.Micros, bool)
	OpenWindows() int
	HeldBytes() (open, over int64) // memory, estimated: of what is open, and of rows
	Measure()                      // estimates it better
	// Parts removes the rows up to a time and returns them, in parts that are made one after
	// the other, so that many rows don't need much memory at once.
	Parts(done fleetscore.Micros) iter.Seq[*fleetscore.Rows]
	Mark(partition int, buf []window.SourceMark) window.Mark
	Replaced() int64 // rows that another one with their key and time replaced
	// Checkpoint describes the state after the messages at the positions, by partition.
	Checkpoint(positions []uint64, done fleetscore.Micros) []window.Checkpoint
	Save(positions []uint64) []byte // the state that the log doesn't tell; nil if it tells everything
}

// windows are a query that package window carries out.
type windows struct {
	*window.Partition
	plan *query.Plan
	keep []bool
}

// Tick takes a tick.
func (w *windows) Tick(s window.Stamp) error {
	w.Partition.Tick(s)
	return nil
}

// Take takes a message with readings.
func (w *windows) Take(m hub.Message, s window.Stamp, key []string, verdict func(i int, v window.Verdict, at fleetscore.Micros)) error {
	w.Readings(s, m.Readings, w.kept(m, key), func(i int, v window.Verdict) { verdict(i, v, m.Readings.Times[i]) })
	return nil
}

// kept says which readings fulfil the query's condition; nil if all do.
func (w *windows) kept(m hub.Message, key []string) []bool {
	if !w.plan.Filters() {
		return nil
	}
	w.keep = slices.Grow(w.keep[:0], m.Readings.Len())[:m.Readings.Len()]
	w.plan.Filter(m.Readings, key, w.keep)
	return w.keep
}

// Complete is the watermark, as far back as windows end.
func (w *windows) Complete(cut fleetscore.Micros, early bool) (fleetscore.Micros, bool) {
	mark, ok := w.Watermark()
	if early {
		cut = fleetscore.Micros(w.plan.Hop.Microseconds())
	}
	return floor(mark, cut), ok
}

// partRows is about how many rows are written at once; a file has as many at most.
const partRows = 512 << 10

// Parts closes the windows that are over.
func (w *windows) Parts(done fleetscore.Micros) iter.Seq[*fleetscore.Rows] {
	return w.Partition.Parts(done, partRows)
}

// Measure has nothing to do: the estimate is near.
func (w *windows) Measure() {}

// Replaced is 0: a key has one row in each window.
func (w *windows) Replaced() int64 { return 0 }

// Save has nothing to save.
func (w *windows) Save([]uint64) []byte { return nil }

// Mark describes the watermark and the sources, which are put into buf.
func (w *windows) Mark(_ int, buf []window.SourceMark) window.Mark { return w.Partition.Mark(buf) }

// Checkpoint describes the open windows.
func (w *windows) Checkpoint(positions []uint64, done fleetscore.Micros) []window.Checkpoint {
	return []window.Checkpoint{w.Partition.Checkpoint(positions[0], done)}
}

// made is one row.
type made struct {
	key    fleetscore.Key
	stamp  fleetscore.Micros
	values []float64
	order  int64 // of rows that are ahead
}

// ahead is a heap of rows by time, and in the order in which they were made.
type ahead []made

func (a ahead) Len() int { return len(a) }
func (a ahead) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(a[i].stamp, a[j].stamp), cmp.Compare(a[i].order, a[j].order)) < 0
}
func (a ahead) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *ahead) Push(x any)   { *a = append(*a, x.(made)) }
func (a *ahead) Pop() any {
	last := (*a)[len(*a)-1]
	(*a)[len(*a)-1] = made{}
	*a = (*a)[:len(*a)-1]
	return last
}

// passed are messages that lie one after the other in the log, and how late their readings are.
type passed struct {
	seq    uint64 // of the first message
	last   fleetscore.Micros
	before window.Mark // before that message
}

// pending is a reading that waits for the watermark.
type pending struct {
	window.Past
	order int64
	row   *value.Record
	line  fleetscore.Key // what has a watermark of its own; its key if that is the hub's
}

const beginning = fleetscore.Micros(math.MinInt64)

const never = fleetscore.Micros(math.MaxInt64)

func newEvents(plan *query.Plan, cfg window.Config) *events {
	e := &events{plan: plan, form: formOf(plan), reach: fleetscore.Micros((plan.Window + cfg.Remembers()).Microseconds()), late: fleetscore.Micros(cfg.Adjust.Microseconds()), gate: window.NewGate(cfg), done: beginning, oldest: beginning, reached: beginning,
		over: cfg.Apart > 0, revise: fleetscore.Micros(cfg.Revise.Microseconds()), touched: map[fleetscore.Key]fleetscore.Micros{}, behind: map[fleetscore.Key]fleetscore.Micros{}}
	e.lanes = newLanes(plan.General.Plan, e.over || e.revise > 0 && !plan.General.Mixes, e.reach, e.emit)
	if e.over || e.revise > 0 {
		e.form = ^e.form // its state has another form
	}
	e.doneSeq = make([]uint64, max(1, cfg.Partitions))
	if e.revise > 0 {
		e.bases = []base{{positions: make([]uint64, len(e.doneSeq)), reached: beginning, marks: e.marks(), judged: e.judges()}}
	}
	return e
}

// formOf is the same for the same query.
func formOf(plan *query.Plan) int64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%q %q %q", strings.TrimSpace(plan.SQL), plan.Into, plan.KeyNames)
	return int64(h.Sum64() >> 1)
}

// replay sets new events to the place from which the log is read again: of one partition that of the checkpoint,
// of several their beginning.
func (e *events) replay(list []window.Checkpoint) {
	var positions []uint64
	for i, c := range list {
		e.done, e.doneSeq[i] = max(e.done, c.Done), c.Position
		positions = append(positions, c.ReplayFrom-1)
	}
	if len(list) == 1 {
		c := list[0]
		e.gate.Resume([]window.Mark{{Watermark: c.Watermark, Clock: c.Clock, Sources: c.Sources}}, nil, nil)
		e.reached = c.Watermark
	}
	if e.revise > 0 { // rows that were committed depend on readings before that place
		e.bases = []base{{positions: positions, reached: beginning, marks: e.marks(), judged: e.judges()}}
		e.oldest = e.done
	}
}

// marks are those of the partitions.
func (e *events) marks() (out []window.Mark) {
	for i := range e.doneSeq {
		out = append(out, e.gate.Mark(i, nil))
	}
	return out
}

// emit takes a row of the runner.
func (e *events) emit(r stream.Row) error {
	if r.Stamp <= e.done && len(e.behind) == 0 {
		return nil // it was committed before
	}
	if r.Record.Shape != e.shape {
		e.locate(r.Record.Shape)
	}
	key, n := "", len(e.plan.KeyNames)
	for i, at := range e.place[:n] {
		if i > 0 {
			key += fleetscore.KeySeparator
		}
		key += stream.KeyText(r.Record.Values[at])
	}
	if e.committed(fleetscore.Key(key), r.Stamp) {
		return nil
	}
	row := made{key: fleetscore.Key(key), stamp: r.Stamp, values: make([]float64, len(e.place)-n)}
	for i, at := range e.place[n:] {
		x, ok := r.Record.Values[at].AsFloat()
		if row.values[i] = x; !ok {
			row.values[i] = fleetscore.Missing
		}
	}
	e.list(row)
	return nil
}

// committed reports whether rows of a key up to a time were committed.
func (e *events) committed(k fleetscore.Key, stamp fleetscore.Micros) bool {
	own, ok := e.behind[k]
	return stamp <= e.done && (!ok || stamp <= own)
}

// list keeps a row until it is committed.
func (e *events) list(row made) {
	if w, _ := e.gate.Watermark(); e.over && row.stamp >= w {
		e.rowsMade++
		row.order = e.rowsMade
		heap.Push(&e.ahead, row)
		return
	}
	e.rows = append(e.rows, row)
}

// locate finds the dataset's columns in rows.
func (e *events) locate(s *value.Shape) {
	e.shape, e.place = s, nil
	for _, name := range slices.Concat(e.plan.KeyNames, e.plan.Values()) {
		e.place = append(e.place, slices.Index(s.Names, name))
	}
}

// Tick takes a tick.
func (e *events) Tick(s window.Stamp) error {
	e.note(s.Seq, beginning)
	e.gate.Tick(s)
	return e.advance()
}

// Take takes a message with readings.
func (e *events) Take(m hub.Message, s window.Stamp, key []string, verdict func(i int, v window.Verdict, at fleetscore.Micros)) error {
	view, row := e.view(m.Readings, key)
	newest := beginning
	for i := range m.Readings.Times {
		newest = max(newest, view.Time(i))
	}
	newest = min(newest, s.Arrived+s.Unsure+fleetscore.Micros(maxEarly.Microseconds()))
	if w, ok := e.gate.Watermark(); e.late > 0 { // readings may count at later times than their own
		newest = max(newest, s.Arrived-e.late)
		if ok {
			newest = max(newest, w)
		}
	}
	e.note(m.Seq, newest)
	again, by := m.Seq <= e.doneSeq[s.Partition], e.judges()
	least := by.leastOf(s.Partition, m.Seq)
	e.gate.Since(by.oldestOf(s.Partition, m.Seq, e.oldest))
	if e.own != nil && e.own[s.Partition] < e.done {
		e.stayBehind(m.Readings.Keys, e.own[s.Partition])
	}
	e.gate.Readings(s, view, least, nil, func(i int, v window.Verdict, p window.Print, stamp fleetscore.Micros) {
		switch v {
		case window.Revised:
			k := e.lanes.keyOf(p.Key)
			if from, ok := e.touched[k]; !ok || stamp < from {
				e.touched[k] = stamp
			}
		case window.Counted, window.Adjusted:
			past := window.Past{Print: p, Stamp: stamp}
			unwanted := e.only != nil && !e.only(p.Key, stamp)
			if row, ok := row(i); ok && !unwanted {
				e.order++
				e.lanes.push(pending{past, e.order, row, view.Line(i)})
				e.since++
			} else {
				v = window.Filtered // it isn't what CREATE TABLE says
				e.gate.Dropped(p)
			}
		}
		if again {
			v = window.Done
		}
		verdict(i, v, view.Time(i))
	})
	if e.over {
		lines := m.Readings.Keys
		if view.Lines != nil {
			lines = slices.Compact(slices.Sorted(slices.Values(view.Lines)))
		}
		for _, k := range lines { // which may be ahead of others
			if x := e.lanes.of[k]; x != nil {
				if err := e.lanes.run(x, e.gate.WatermarkOf(k), e.gate.Passed); err != nil {
					return e.failed(err)
				}
			}
		}
	}
	return e.advance()
}

// note remembers where messages lie whose readings can influence rows to come. Messages
// with readings of about the same time are noted once. Of several partitions all that there is is read
// again where the state is lost, so that nothing need be noted.
func (e *events) note(seq uint64, newest fleetscore.Micros) {
	if len(e.doneSeq) > 1 {
		return
	}
	if n := len(e.passed); n > 0 && newest <= e.passed[n-1].last+e.grain() {
		return // at most a grain too much is forgotten too late, see checkpoint
	}
	e.passed = append(e.passed, passed{seq, newest, e.gate.Mark(0, nil)})
}

// grain is how far the times of messages are apart that are noted: a second, or more if the query
// looks far back, so that there are a few hundred of them.
func (e *events) grain() fleetscore.Micros { return max(1_000_000, e.reach/256) }

// advance hands on what the watermark has passed.
func (e *events) advance() error {
	w, ok := e.gate.Watermark()
	if !ok {
		return nil
	}
	return e.advanceTo(w)
}

// advanceTo hands on the readings before a time.
func (e *events) advanceTo(w fleetscore.Micros) error {
	for {
		to, err := e.refer(e.reached, w)
		if err != nil {
			return err
		}
		if err := e.lanes.advance(to, e.gate.Passed); err != nil {
			return e.failed(err)
		}
		if e.reached = to; to == w {
			for len(e.ahead) > 0 && e.ahead[0].stamp < w {
				e.rows = append(e.rows, heap.Pop(&e.ahead).(made))
			}
			return nil
		}
	}
}

func (e *events) failed(err error) error {
	return fleetscore.Wrap("run query into", e.plan.Into, err)
}

// Watermark is the time before which no more readings are let in.
func (e *events) Watermark() (fleetscore.Micros, bool) { return e.gate.Watermark() }

// Mark describes the watermark and the sources of a partition, which are put into buf.
func (e *events) Mark(partition int, buf []window.SourceMark) window.Mark {
	return e.gate.Mark(partition, buf)
}

// Replaced is how many rows another one with their key and time replaced.
func (e *events) Replaced() int64 { return e.double }

// OpenWindows is how many windows and sessions are open, and readings that slide.
func (e *events) OpenWindows() int { return e.lanes.open }

// Estimates of memory: how much larger the state is than its form in a checkpoint, and of
// a reading.
const (
	stateFactor  = 4
	readingBytes = 300
)

// HeldBytes estimates the memory of what is open, with the rows of keys that are ahead, and of rows that can be committed.
func (e *events) HeldBytes() (open, over int64) {
	return stateFactor*e.measured + readingBytes*e.since + e.older + bytesOf(e.ahead), bytesOf(e.rows)
}

// inOrder are the rows of keys that are ahead, in the order in which they were made.
func (e *events) inOrder() []made {
	return slices.SortedFunc(slices.Values(e.ahead), func(a, b made) int { return cmp.Compare(a.order, b.order) })
}

// bytesOf estimates the memory of rows. The first one stands for all.
func bytesOf(rows []made) int64 {
	if len(rows) == 0 {
		return 0
	}
	return int64(len(rows)) * int64(80+len(rows[0].key)+8*len(rows[0].values))
}

// Save is the state for a checkpoint.
func (e *events) Save(positions []uint64) []byte {
	data := e.save(positions)
	e.measure(len(data))
	return data
}

func (e *events) measure(bytes int) {
	e.older, e.since = 0, 0
	for _, b := range e.bases {
		for _, k := range b.states {
			e.older += int64(len(k.state))
		}
	}
	e.measured = int64(bytes-e.listed) - e.older
}

// Measure replaces the estimate, which counts every reading, by the size of the state.
func (e *events) Measure() { e.measure(len(e.save(make([]uint64, len(e.doneSeq))))) }

// Complete is the time up to which no rows are to come: that of a cut, or for a commit
// before it.
func (e *events) Complete(cut fleetscore.Micros, early bool) (fleetscore.Micros, bool) {
	w, ok := e.gate.Watermark()
	if early || !ok {
		return w - 1, ok // a reading with the watermark's own time is still let in
	}
	return floor(w-1, cut), ok
}

// Parts closes the rows up to a time, in one part.
func (e *events) Parts(done fleetscore.Micros) iter.Seq[*fleetscore.Rows] {
	rows := e.Close(done)
	return func(yield func(*fleetscore.Rows) bool) { yield(rows) }
}

// Close returns the rows up to done, which are committed next, in the order of their times. Of
// rows with the same key and time the last one counts.
func (e *events) Close(done fleetscore.Micros) *fleetscore.Rows {
	out := &fleetscore.Rows{Values: make([][]float64, len(e.plan.Values()))}
	var over, rest []made
	for _, r := range e.rows {
		if r.stamp <= done {
			over = append(over, r)
		} else {
			rest = append(rest, r)
		}
	}
	slices.SortStableFunc(over, func(a, b made) int { return cmp.Compare(a.stamp, b.stamp) })
	index := map[fleetscore.Key]uint32{}
	latest := map[fleetscore.Key]int{} // row of each key
	for _, r := range over {
		k, ok := index[r.key]
		if !ok {
			k = uint32(len(out.Keys))
			index[r.key] = k
			out.Keys = append(out.Keys, r.key)
		}
		at, ok := latest[r.key]
		if ok && out.Times[at] == r.stamp {
			e.double++
		} else {
			at = len(out.Times)
			latest[r.key] = at
			out.KeyIndex, out.Times = append(out.KeyIndex, k), append(out.Times, r.stamp)
			for c := range out.Values {
				out.Values[c] = append(out.Values[c], 0)
			}
		}
		for c, x := range r.values {
			out.Values[c][at] = x
		}
	}
	e.rows, e.done, e.caughtUp = rest, max(e.done, done), e.revise > 0 && e.own != nil
	e.own = nil
	clear(e.behind)
	return out
}

// Checkpoint describes the state after the messages at the positions.
func (e *events) Checkpoint(positions []uint64, done fleetscore.Micros) (out []window.Checkpoint) {
	e.rebase(positions)
	for i, position := range positions {
		mark, from := e.gate.Mark(i, nil), position+1
		if len(positions) == 1 {
			mark, from = e.from(mark, from, done)
		}
		if len(e.bases) > 0 && e.bases[0].positions[i] < from {
			from, mark = e.bases[0].positions[i]+1, e.bases[0].marks[i]
		}
		out = append(out, window.Checkpoint{Position: position, Done: done, ReplayFrom: from, Watermark: mark.Watermark, Clock: mark.Clock, Sources: mark.Sources})
	}
	return out
}

// from is the first message whose readings can influence rows to come, if it is earlier than the one given,
// with the mark before it.
func (e *events) from(mark window.Mark, from uint64, done fleetscore.Micros) (window.Mark, uint64) {
	old := done - e.reach - 2*e.grain() // see note
	i := 0
	for i < len(e.passed) && e.passed[i].last <= old {
		i++
	}
	e.passed = slices.Clone(e.passed[i:])
	if len(e.passed) > 0 {
		return e.passed[0].before, e.passed[0].seq
	}
	return mark, from
}
