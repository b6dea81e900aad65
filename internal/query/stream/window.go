package stream

import (
	"cmp"
	"container/heap"
	"math"
	"slices"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/expr"
	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// never is a deadline that doesn't come.
const never = fleetscore.Micros(math.MaxInt64)

// entry is one event as a window takes it: the group it belongs to, and the arguments of
// the aggregates. Windows that slide keep it; others don't keep its slices.
type entry struct {
	stamp   fleetscore.Micros
	group   []byte // as groupOf makes it
	keys    []value.Value
	session string // the key that has sessions of its own
	args    [][]value.Value
}

// window collects events and emits the rows of windows that are over. Deadlines are the
// times at which rows appear: all events up to a deadline, and none after it, have been
// added before it is fired.
type window interface {
	add(entry)
	next() fleetscore.Micros // the earliest deadline; never if there is none
	fire(at fleetscore.Micros, emit func(g *group))
	save(f *value.Fields) // for a checkpoint
	load(c *value.Cursor) // into a new window
	count() int           // how much is open
}

// group is the state of one group in one window.
type group struct {
	keys []value.Value
	accs []expr.Accumulator
}

// groups are the groups of one window in the order of their first events.
type groups struct {
	of    map[string]*group
	order []*group
}

func (g *groups) add(e entry, aggregates []*expr.Aggregate) {
	x := g.of[string(e.group)]
	if x == nil {
		x = newGroup(slices.Clone(e.keys), aggregates)
		if g.of == nil {
			g.of = map[string]*group{}
		}
		g.of[string(e.group)] = x
		g.order = append(g.order, x)
	}
	x.add(e)
}

func newGroup(keys []value.Value, aggregates []*expr.Aggregate) *group {
	g := &group{keys: keys, accs: make([]expr.Accumulator, len(aggregates))}
	for i, a := range aggregates {
		g.accs[i] = a.New()
	}
	return g
}

func (g *group) add(e entry) {
	for i, a := range g.accs {
		a.Add(e.args[i])
	}
}

// groupOf is what the keys of one group have in common; see Plan.TextKeys.
type groupOf func(b []byte, keys []value.Value) []byte

func (q *Query) groupOf(b []byte, keys []value.Value) []byte {
	for _, k := range keys {
		if q.texts {
			k = value.String(KeyText(k))
		}
		b = value.AppendKey(b, k)
	}
	return b
}

func newWindow(w sql.Window, aggregates []*expr.Aggregate, groupOf groupOf) window {
	switch w.Kind {
	case sql.Sliding:
		return &sliding{size: micros(w.Size), aggregates: aggregates, groupOf: groupOf, of: map[string]*slide{}}
	case sql.Session:
		return &sessions{timeout: micros(w.Timeout), most: micros(w.Max), aggregates: aggregates, groupOf: groupOf, of: map[string]*session{}}
	case sql.Snapshot:
		return &hopping{size: 1, hop: 1, aggregates: aggregates, groupOf: groupOf, open: map[fleetscore.Micros]*groups{}} // an instant is a microsecond
	}
	return &hopping{size: micros(w.Size), hop: micros(w.Hop), offset: micros(w.Offset), aggregates: aggregates, groupOf: groupOf, open: map[fleetscore.Micros]*groups{}}
}

// hopping are tumbling and hopping windows: (end - size, end], where the ends are the
// multiples of hop since 1970-01-01 UTC, plus the offset.
type hopping struct {
	size, hop, offset fleetscore.Micros
	aggregates        []*expr.Aggregate
	groupOf           groupOf
	open              map[fleetscore.Micros]*groups
	ends              times
}

func (h *hopping) add(e entry) {
	for end := ceil(e.stamp-h.offset, h.hop) + h.offset; end-h.size < e.stamp; end += h.hop {
		g := h.open[end]
		if g == nil {
			g = &groups{}
			h.open[end] = g
			heap.Push(&h.ends, end)
		}
		g.add(e, h.aggregates)
	}
}

// ceil is the smallest multiple of unit that isn't less than t.
func ceil(t, unit fleetscore.Micros) fleetscore.Micros {
	n := t / unit
	if t%unit > 0 {
		n++
	}
	return n * unit
}

func (h *hopping) next() fleetscore.Micros { return h.ends.least() }

func (h *hopping) fire(at fleetscore.Micros, emit func(*group)) {
	for h.ends.least() == at {
		heap.Pop(&h.ends)
		for _, g := range h.open[at].order {
			emit(g)
		}
		delete(h.open, at)
	}
}

// times is a heap of instants.
type times []fleetscore.Micros

func (t times) Len() int           { return len(t) }
func (t times) Less(i, j int) bool { return t[i] < t[j] }
func (t times) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *times) Push(x any)        { *t = append(*t, x.(fleetscore.Micros)) }
func (t *times) Pop() any {
	last := (*t)[len(*t)-1]
	*t = (*t)[:len(*t)-1]
	return last
}
func (t times) least() fleetscore.Micros {
	if len(t) == 0 {
		return never
	}
	return t[0]
}

// sliding are windows that end at each instant at which an event of the group enters or
// leaves: an event at t enters at t and leaves at t + size.
type sliding struct {
	size       fleetscore.Micros
	aggregates []*expr.Aggregate
	groupOf    groupOf
	of         map[string]*slide
	queue      []entry // events that haven't left, oldest first
	entered    int     // how many of the queue's last events have not been fired yet
}

type slide struct {
	events []entry
}

func (s *sliding) add(e entry) {
	g := s.of[string(e.group)]
	if g == nil {
		g = &slide{}
		s.of[string(e.group)] = g
	}
	g.events = append(g.events, e)
	s.queue = append(s.queue, e)
	s.entered++
}

func (s *sliding) next() fleetscore.Micros {
	if len(s.queue) == 0 {
		return never
	}
	d := s.queue[0].stamp + s.size
	if s.entered > 0 {
		d = min(d, s.queue[len(s.queue)-s.entered].stamp)
	}
	return d
}

func (s *sliding) fire(at fleetscore.Micros, emit func(*group)) {
	var changed []string
	done := map[string]bool{}
	note := func(e entry) {
		if name := string(e.group); !done[name] {
			done[name] = true
			changed = append(changed, name)
		}
	}
	for s.entered > 0 && s.queue[len(s.queue)-s.entered].stamp == at {
		note(s.queue[len(s.queue)-s.entered])
		s.entered--
	}
	for len(s.queue) > 0 && s.queue[0].stamp+s.size == at {
		note(s.queue[0])
		s.queue = s.queue[1:]
	}
	for _, name := range changed {
		x := s.of[name]
		for len(x.events) > 0 && x.events[0].stamp+s.size <= at {
			x.events = x.events[1:]
		}
		if len(x.events) == 0 {
			delete(s.of, name)
			continue
		}
		g := newGroup(x.events[0].keys, s.aggregates)
		for _, e := range x.events {
			g.add(e)
		}
		emit(g)
	}
}

// sessions end when no event came for timeout after the last one; an event exactly
// timeout after it still belongs to the session. At the multiples of most since
// 1970-01-01 UTC a session that is longer than most is cut, as Azure Stream Analytics does: another one begins at that
// instant. That one is exactly as long as most at the next multiple, so that it goes on to the second one. Where a session is
// cut thus depends on where the first one of an unbroken chain of sessions began, which may be any time ago.
type sessions struct {
	timeout, most fleetscore.Micros
	aggregates    []*expr.Aggregate
	groupOf       groupOf
	of            map[string]*session
	due           alarms
}

type session struct {
	key         string
	start, last fleetscore.Micros
	groups      groups
}

func (s *sessions) add(e entry) {
	x := s.of[e.session]
	if x == nil {
		x = &session{key: e.session, start: e.stamp}
		s.of[e.session] = x
		x.last = e.stamp
		s.wake(x)
	}
	x.last = e.stamp
	x.groups.add(e, s.aggregates)
}

// deadline is when a session ends if no further event comes.
func (s *sessions) deadline(x *session) fleetscore.Micros {
	return min(x.last+s.timeout, ceil(x.start+s.most+1, s.most))
}

func (s *sessions) wake(x *session) {
	heap.Push(&s.due, alarm{s.deadline(x), x})
}

func (s *sessions) next() fleetscore.Micros {
	if len(s.due) == 0 {
		return never
	}
	return s.due[0].at
}

func (s *sessions) fire(at fleetscore.Micros, emit func(*group)) {
	for len(s.due) > 0 && s.due[0].at == at {
		x := heap.Pop(&s.due).(alarm).session
		if s.deadline(x) > at { // events came since the alarm was set
			s.wake(x)
			continue
		}
		for _, g := range x.groups.order {
			emit(g)
		}
		if x.last+s.timeout <= at {
			delete(s.of, x.key)
			continue
		}
		x.groups, x.start = groups{}, at
		s.wake(x)
	}
}

type alarm struct {
	at      fleetscore.Micros
	session *session
}

// compare orders alarms by time and key, so that the order of rows doesn't depend on what was before.
func (a alarm) compare(b alarm) int {
	return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.session.key, b.session.key))
}

// alarms is a heap with one alarm for each session.
type alarms []alarm

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].compare(a[j]) < 0 }
func (a alarms) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *alarms) Push(x any)        { *a = append(*a, x.(alarm)) }
func (a *alarms) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}
