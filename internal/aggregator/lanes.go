package aggregator

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/stream"
	"github.com/fleetscore/fleetscore/internal/query/value"
	"github.com/fleetscore/fleetscore/internal/window"
)

// lanes run a query over the readings of a partition, which wait until the watermark has
// passed them. There is one lane for all keys, or one for each key: then the lane of a key can be
// ahead of others, and can be computed again without them. The rows of a key depend on its own
// readings alone, so that both ways give the same rows.
type lanes struct {
	plan  *stream.Plan
	apart bool // a lane for each key
	reach fleetscore.Micros
	emit  func(stream.Row) error
	of    map[fleetscore.Key]*lane
	due   dues
	refs  []*stream.Reference // reference data that is in force
	open  int                 // windows
}

// lane is a query over the readings of one key, or of all.
type lane struct {
	key    fleetscore.Key // empty: all
	runner *stream.Runner
	wait   waiting
	last   fleetscore.Micros // of the latest reading that was handed on
	due    fleetscore.Micros // the next time at which there is something to do; never if there is nothing
	place  int               // in the heap; below 0 if there is nothing to do
	open   int
}

func newLanes(plan *stream.Plan, apart bool, reach fleetscore.Micros, emit func(stream.Row) error) *lanes {
	return &lanes{plan: plan, apart: apart, reach: reach, emit: emit, of: map[fleetscore.Key]*lane{}}
}

// keyOf is the key of the lane of what may have one of its own.
func (l *lanes) keyOf(k fleetscore.Key) fleetscore.Key {
	if !l.apart {
		return ""
	}
	return k
}

// lane finds or begins the lane of a key.
func (l *lanes) lane(k fleetscore.Key) *lane {
	k = l.keyOf(k)
	x := l.of[k]
	if x == nil {
		x = &lane{key: fleetscore.Key(strings.Clone(string(k))), runner: l.plan.NewRunner(nil, l.emit), last: beginning, due: never, place: -1}
		for _, ref := range l.refs {
			x.runner.Refer(ref)
		}
		l.of[x.key] = x
	}
	return x
}

// refer puts reference data in force.
func (l *lanes) refer(refs []*stream.Reference) {
	l.refs = refs
	for _, x := range l.of {
		for _, ref := range refs {
			x.runner.Refer(ref)
		}
	}
}

// push takes a reading.
func (l *lanes) push(p pending) {
	x := l.lane(p.line)
	x.wait.push(p)
	if p.Stamp < x.due {
		l.wake(x)
	}
}

// wake puts a lane to the time at which it has something to do.
func (l *lanes) wake(x *lane) {
	at := x.runner.Next()
	if len(x.wait) > 0 {
		at = min(at, x.wait[0].stamp)
	}
	if at == x.due {
		return
	}
	x.due = at
	switch {
	case at == never:
		heap.Remove(&l.due, x.place)
	case x.place < 0:
		heap.Push(&l.due, x)
	default:
		heap.Fix(&l.due, x.place)
	}
}

// advance hands on the readings before a time, and emits the rows before it.
func (l *lanes) advance(to fleetscore.Micros, passed func(window.Past)) error {
	for len(l.due) > 0 && l.due[0].due < to {
		if err := l.run(l.due[0], to, passed); err != nil {
			return err
		}
	}
	return nil
}

// run is advance for one lane.
func (l *lanes) run(x *lane, to fleetscore.Micros, passed func(window.Past)) error {
	for len(x.wait) > 0 && x.wait[0].stamp < to {
		p := x.wait.pop()
		passed(p.Past)
		x.last = p.Stamp
		if err := x.runner.Push(0, p.row, p.Stamp); err != nil {
			return err
		}
	}
	err := x.runner.AdvanceTo(to)
	n := x.runner.Open()
	l.open, x.open = l.open+n-x.open, n
	l.wake(x)
	return err
}

// clear forgets what the lane of a key remembers, besides the readings that wait.
func (l *lanes) clear(k fleetscore.Key) {
	old := l.of[k]
	if old == nil {
		return
	}
	l.open -= old.open
	if delete(l.of, k); old.place >= 0 {
		heap.Remove(&l.due, old.place)
	}
	for _, s := range old.wait {
		l.push(*s.pending)
	}
}

// waiting are the readings that wait, in the order in which they came.
func (l *lanes) waiting() (out []pending) {
	for _, x := range l.of {
		for _, s := range x.wait {
			out = append(out, *s.pending)
		}
	}
	slices.SortFunc(out, func(a, b pending) int { return cmp.Compare(a.order, b.order) })
	return out
}

// load takes readings that waited.
func (l *lanes) load(list []pending) {
	for _, p := range list {
		l.push(p)
	}
}

// kept is the state of a lane without the readings that wait.
type kept struct {
	key   fleetscore.Key
	last  fleetscore.Micros
	state string // as value.Append writes it
}

// save returns the states of all lanes that remember something, in the order of their keys, and
// forgets the others. All readings and rows before reached were handed on.
func (l *lanes) save(reached fleetscore.Micros) (out []kept) {
	for k, x := range l.of {
		if reached != beginning && len(x.wait) == 0 && x.runner.Next() == never && x.last < reached-2*l.reach { // nothing looks so far back
			delete(l.of, k)
			continue
		}
		out = append(out, x.save())
	}
	slices.SortFunc(out, func(a, b kept) int { return cmp.Compare(a.key, b.key) })
	return out
}

func (x *lane) save() kept {
	var f value.Fields
	x.runner.Save(&f)
	return kept{x.key, x.last, string(value.Append(nil, f.Value()))}
}

// restore takes the state of a lane; false if it is damaged.
func (l *lanes) restore(k kept, reader *value.Reader) bool {
	v, rest, err := reader.Decode([]byte(k.state))
	if err != nil || len(rest) > 0 {
		return false
	}
	x, c := l.lane(k.key), value.NewCursor(v)
	x.runner.Load(c)
	x.last = k.last
	l.loaded(x)
	return c.OK()
}

// loaded puts a lane to work that took a state.
func (l *lanes) loaded(x *lane) {
	x.open = x.runner.Open()
	l.open += x.open
	l.wake(x)
}

// dues is a heap by the times at which lanes have something to do.
type dues []*lane

func (d dues) Len() int { return len(d) }
func (d dues) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(d[i].due, d[j].due), cmp.Compare(d[i].key, d[j].key)) < 0
}
func (d dues) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}
func (d *dues) Push(x any) {
	x.(*lane).place = len(*d)
	*d = append(*d, x.(*lane))
}
func (d *dues) Pop() any {
	last := (*d)[len(*d)-1]
	(*d)[len(*d)-1] = nil
	*d, last.place = (*d)[:len(*d)-1], -1
	return last
}

// before reports whether a reading is handed on before another one.
func (p *pending) before(q *pending) bool {
	return cmp.Or(cmp.Compare(p.Stamp, q.Stamp), cmp.Compare(p.Key, q.Key), cmp.Compare(p.order, q.order)) < 0
}

// waiting is a heap of readings. It does what container/heap does, in less time: each reading goes through it.
type waiting []slot

type slot struct {
	stamp fleetscore.Micros
	*pending
}

func (s slot) before(o slot) bool {
	return s.stamp < o.stamp || s.stamp == o.stamp && s.pending.before(o.pending)
}

func (w *waiting) push(p pending) {
	x := slot{p.Stamp, &p}
	list := append(*w, x)
	at := len(list) - 1
	for at > 0 && x.before(list[(at-1)/2]) {
		list[at] = list[(at-1)/2]
		at = (at - 1) / 2
	}
	list[at], *w = x, list
}

func (w *waiting) pop() *pending {
	list := *w
	n := len(list) - 1
	first, x := list[0], list[n]
	list[n] = slot{}
	at := 0
	for below := 1; below < n; below = 2*at + 1 {
		if below+1 < n && list[below+1].before(list[below]) {
			below++
		}
		if !list[below].before(x) {
			break
		}
		list[at], at = list[below], below
	}
	if n > 0 {
		list[at] = x
	}
	*w = list[:n]
	return first.pending
}

// view is how the query sees a message's readings, and a function that makes the record of one; false if it isn't what CREATE TABLE says.
func (e *events) view(r *fleetscore.Readings, key []string) (window.View, func(i int) (*value.Record, bool)) {
	general, of := e.plan.General, e.records(r, key)
	in, view := &general.Plan.Inputs[0], window.View{Readings: r}
	if !general.Timed && !general.Lines {
		return view, func(i int) (*value.Record, bool) { return in.Declare(of(i)) }
	}
	rows := make([]*value.Record, r.Len())
	if view.At = make([]fleetscore.Micros, r.Len()); general.Lines {
		view.Lines = make([]fleetscore.Key, r.Len())
	}
	for i := range rows {
		row, ok := in.Declare(of(i))
		rows[i], view.At[i] = row, window.NoTime
		if !ok {
			continue
		}
		if at, ok := in.Stamp(row); ok {
			view.At[i] = at
		}
		if general.Lines {
			view.Lines[i] = in.Line(row)
		}
	}
	return view, func(i int) (*value.Record, bool) { return rows[i], rows[i] != nil }
}

// records returns a function that makes a record of a reading: its key as texts, its time,
// and its values.
func (e *events) records(r *fleetscore.Readings, key []string) func(i int) *value.Record {
	names := append(slices.Clone(key), e.plan.TimestampBy)
	at := make([]int, len(r.Columns))
	for c := range r.Columns {
		if at[c] = slices.Index(names, r.Columns[c].Name); at[c] < 0 {
			at[c] = len(names)
			names = append(names, r.Columns[c].Name)
		}
	}
	shape := e.reader.Shape(names)
	return func(i int) *value.Record {
		values := make([]value.Value, len(names))
		for k, v := range r.Keys[r.KeyIndex[i]].Values() {
			values[k] = value.String(v)
		}
		values[len(key)] = value.Time(r.Times[i])
		for c := range r.Columns {
			switch col := &r.Columns[c]; {
			case col.Strings != nil && (col.Present == nil || col.Present[i]):
				values[at[c]] = value.String(col.Strings[i])
			case col.Strings == nil && !math.IsNaN(col.Numbers[i]):
				values[at[c]] = value.Number(col.Numbers[i])
			}
		}
		return &value.Record{Shape: shape, Values: values}
	}
}

// lineOf is what has a watermark of its own, of a reading.
func (e *events) lineOf(k fleetscore.Key, row *value.Record) fleetscore.Key {
	if e.plan.General.Lines {
		return e.plan.General.Plan.Inputs[0].Line(row)
	}
	return k
}
