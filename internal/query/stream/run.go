package stream

import (
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/expr"
	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// Row is one row of an output.
type Row struct {
	Output int // of Plan.Outputs
	Stamp  fleetscore.Micros
	Record *value.Record
}

// Runner runs a plan over events.
type Runner struct {
	plan   *Plan
	nodes  []*node
	shapes value.Reader
	emit   func(Row) error
	err    error
	now    fleetscore.Micros
}

// NewRunner starts a plan. reference holds the rows of reference data by their input's
// name. emit gets each row as soon as it is certain.
func (p *Plan) NewRunner(reference map[string][]*value.Record, emit func(Row) error) *Runner {
	r := &Runner{plan: p, emit: emit, now: -never}
	for _, q := range p.Queries {
		n := &node{r: r, q: q}
		for _, a := range q.Analytics {
			n.histories = append(n.histories, a.NewHistory())
		}
		for i := range q.joins {
			var rows []*value.Record
			if q.joins[i].reference {
				rows = reference[p.Inputs[q.joins[i].input].Name]
			}
			n.keeps = n.keeps || !q.joins[i].reference
			n.stages = append(n.stages, newStage(&q.joins[i], i+1, len(q.Sources), rows))
		}
		for _, w := range q.Windows {
			n.windows, n.slides = append(n.windows, newWindow(w, q.group.Aggregates, q.groupOf)), n.slides || w.Kind == sql.Sliding
		}
		r.nodes = append(r.nodes, n)
	}
	return r
}

// Reference is the rows of reference data, arranged for the JOINs of a plan. Several runners
// may use one.
type Reference struct {
	query, join []int
	stages      []*stage
}

// Reference arranges the rows of reference data.
func (p *Plan) Reference(input string, rows []*value.Record) *Reference {
	out := &Reference{}
	for k, q := range p.Queries {
		for i := range q.joins {
			if j := &q.joins[i]; j.reference && p.Inputs[j.input].Name == input {
				out.query, out.join = append(out.query, k), append(out.join, i)
				out.stages = append(out.stages, newStage(j, i+1, len(q.Sources), rows))
			}
		}
	}
	return out
}

// Refer replaces reference data, for events and rows to come.
func (r *Runner) Refer(to *Reference) {
	for i, s := range to.stages {
		r.nodes[to.query[i]].stages[to.join[i]] = s
	}
}

// Push takes an event of an input of the plan. Its time is not before that of the event
// before it.
func (r *Runner) Push(input int, row *value.Record, stamp fleetscore.Micros) error {
	r.Advance(stamp)
	for i, q := range r.plan.Queries {
		for port, s := range q.Sources {
			if s.Input == input && r.err == nil {
				r.nodes[i].push(port, row, stamp)
			}
		}
	}
	return r.err
}

// Advance emits all rows whose times are before to: no event before it will come.
func (r *Runner) Advance(to fleetscore.Micros) {
	for r.err == nil {
		at := r.Next()
		if at >= to {
			break
		}
		for _, n := range r.nodes { // queries come after those that they read
			if n.next() == at && r.err == nil {
				n.fire(at)
			}
		}
	}
	r.now = max(r.now, to)
}

// Next is the earliest time at which rows appear without further events; the largest time if
// there is none.
func (r *Runner) Next() fleetscore.Micros {
	at := never
	for _, n := range r.nodes {
		at = min(at, n.next())
	}
	return at
}

// AdvanceTo is Advance, with the first error of the evaluations so far.
func (r *Runner) AdvanceTo(to fleetscore.Micros) error {
	r.Advance(to)
	return r.err
}

// Flush emits everything that is open, as if time went on without events.
func (r *Runner) Flush() error {
	r.Advance(never)
	return r.err
}

// node is the state of one query.
type node struct {
	r         *Runner
	q         *Query
	histories []*expr.History
	stages    []*stage
	windows   []window
	keeps     bool      // events, because it joins streams
	slides    bool      // whether a window keeps entries
	env       *expr.Env // of the latest event; the next one uses it again if no event is kept
	entry     entry     // likewise
}

// failed takes an error of an evaluation.
func (n *node) failed(env *expr.Env) bool {
	if env.Err != nil && n.r.err == nil {
		n.r.err = env.Err
	}
	return n.r.err != nil
}

func (n *node) push(port int, row *value.Record, stamp fleetscore.Micros) {
	if port > 0 {
		n.right(port, row, stamp)
		return
	}
	if n.keeps || n.env == nil {
		n.env = &expr.Env{Rows: make([]*value.Record, len(n.q.Sources)), Stamps: make([]fleetscore.Micros, len(n.q.Sources)), Analytics: make([]value.Value, len(n.histories))}
	}
	env := n.env
	env.Stamp, env.Rows[0], env.Stamps[0], env.Err = stamp, row, stamp, nil
	if len(n.histories) > 0 {
		for i, h := range n.histories {
			env.Analytics[i] = h.Next(env)
		}
	}
	n.joined(0, env)
}

// joined takes an event that has been through the first k JOINs.
func (n *node) joined(k int, env *expr.Env) {
	if k == len(n.stages) {
		n.complete(env)
		return
	}
	s := n.stages[k]
	if s.join.reference {
		found := false
		for _, row := range s.candidates(env) {
			if both := with(env, k+1, row, env.Stamp); s.join.on.Eval(both).True() && !n.failed(both) {
				found = true
				n.joined(k+1, both)
			}
		}
		if !found && s.join.left {
			n.joined(k+1, env)
		}
		return
	}
	w := &waiting{env: env}
	w.from, w.to, w.none = s.join.span(env.Stamps, env.Stamp)
	var can bool // with NULL nothing is equal
	if w.key, can = lookup(s.join.mine, env); !can {
		w.from, w.to = never, w.none
	}
	for _, r := range s.rights {
		if r.key == w.key && r.stamp >= w.from && r.stamp <= w.to {
			n.match(k, w, r)
		}
	}
	if w.to >= env.Stamp || s.join.left {
		s.lefts = append(s.lefts, w)
	}
}

// right takes an event of a JOIN's right side.
func (n *node) right(port int, row *value.Record, stamp fleetscore.Micros) {
	s := n.stages[port-1]
	keep := fleetscore.Micros(0)
	for _, o := range n.stages {
		keep += o.join.keep // a left side that was joined itself may be older than its time
	}
	s.rights = slices.DeleteFunc(s.rights, func(r arrived) bool { return r.stamp < stamp-keep })
	env := &expr.Env{Rows: make([]*value.Record, len(n.q.Sources)), Stamps: make([]fleetscore.Micros, len(n.q.Sources)), Stamp: stamp}
	env.Rows[port] = row
	key, can := lookup(s.join.its, env)
	if !can || n.failed(env) {
		n.failed(env)
		return // with NULL nothing is equal
	}
	r := arrived{key, row, stamp}
	s.rights = append(s.rights, r)
	for _, w := range slices.Clone(s.lefts) {
		if w.key == key && stamp >= w.from && stamp <= w.to {
			n.match(port-1, w, r)
		}
	}
}

func (n *node) match(k int, w *waiting, r arrived) {
	both := with(w.env, k+1, r.row, r.stamp)
	if n.stages[k].join.on.Eval(both).True() && !n.failed(both) {
		w.matched = true
		n.joined(k+1, both)
	}
	n.failed(both)
}

// complete takes an event that has been through all JOINs.
func (n *node) complete(env *expr.Env) {
	q := n.q
	if q.where != nil && !q.where.Eval(env).True() || n.failed(env) {
		n.failed(env)
		return
	}
	if q.group == nil {
		n.out(env)
		return
	}
	if n.slides || n.entry.keys == nil {
		n.entry = entry{keys: make([]value.Value, len(q.keys)), args: make([][]value.Value, len(q.group.Aggregates))}
	}
	e := &n.entry
	e.stamp = env.Stamp
	for i, k := range q.keys {
		e.keys[i] = k.Eval(env)
	}
	e.group = q.groupOf(e.group[:0], e.keys)
	for i, a := range q.group.Aggregates {
		e.args[i] = a.AppendArgs(e.args[i][:0], env)
	}
	for i, w := range n.windows {
		var key []byte
		for _, x := range q.session[i] {
			key = value.AppendKey(key, x.Eval(env))
		}
		e.session = string(key)
		w.add(*e)
	}
	n.failed(env)
}

func (n *node) next() fleetscore.Micros {
	at := never
	for _, w := range n.windows {
		at = min(at, w.next())
	}
	for _, s := range n.stages {
		for _, w := range s.lefts {
			at = min(at, max(w.to, w.env.Stamp))
		}
	}
	return at
}

func (n *node) fire(at fleetscore.Micros) {
	for k, s := range n.stages {
		due := s.lefts
		s.lefts = nil
		for _, w := range due {
			switch {
			case max(w.to, w.env.Stamp) > at:
				s.lefts = append(s.lefts, w)
			case s.join.left && !w.matched:
				env := *w.env
				if env.Stamp = w.none; len(n.q.readers) > 0 || k+1 < len(n.stages) || n.windows != nil {
					env.Stamp = at // what follows has gone on to this time
				}
				n.joined(k+1, &env)
			}
		}
	}
	for i, w := range n.windows {
		if w.next() != at {
			continue
		}
		id := value.Null
		if n.q.Windows[i].Named {
			id = value.String(n.q.Windows[i].ID)
		}
		w.fire(at, func(g *group) {
			env := &expr.Env{Keys: g.keys, Stamp: at, WindowID: id, Results: make([]value.Value, len(g.accs))}
			for i, a := range g.accs {
				env.Results[i] = a.Result()
			}
			n.out(env)
		})
	}
}

// out makes a row and hands it on.
func (n *node) out(env *expr.Env) {
	q := n.q
	if q.having != nil && !q.having.Eval(env).True() || n.r.err != nil {
		n.failed(env)
		return
	}
	names, values := make([]string, 0, len(q.items)), make([]value.Value, 0, len(q.items))
	stars := false
	add := func(name string, v value.Value) {
		if stars && slices.ContainsFunc(names, func(o string) bool { return strings.EqualFold(o, name) }) {
			return // a column further left has the name
		}
		names, values = append(names, name), append(values, v)
	}
	for _, it := range q.items {
		if !it.star {
			add(it.name, it.expr.Eval(env))
			continue
		}
		stars = true
		row := it.expr.Record(env)
		if it.source >= 0 {
			row = env.Rows[it.source]
		}
		if row != nil {
			for i, name := range row.Shape.Names {
				add(name, row.Values[i])
			}
		}
	}
	if n.failed(env) {
		return
	}
	if len(q.as) == len(names) {
		names = q.as
	}
	row := &value.Record{Shape: n.r.shapes.Shape(names), Values: values}
	if q.Output != "" {
		if err := n.r.emit(Row{q.output, env.Stamp, row}); err != nil && n.r.err == nil {
			n.r.err = err
		}
	}
	for _, to := range q.readers {
		n.r.nodes[to.query].push(to.port, row, env.Stamp)
	}
}
