package stream

import (
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/expr"
	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// join is one JOIN of a query: with reference data, or with another stream whose events
// lie within a bound of time.
type join struct {
	reference bool
	left      bool // LEFT JOIN
	input     int  // of Plan.Inputs: the reference data
	on        expr.Expr
	mine, its []expr.Expr // the two sides of the equalities in ON, by which matches are found
	bounds    []bound
	keep      fleetscore.Micros // how long an event of the right side may find matches
}

// bound says that the right event comes from low to high units after the event of a
// source on the left side.
type bound struct {
	source    int
	unit      fleetscore.Micros
	low, high int64
	hasLow    bool
	hasHigh   bool
}

// bounded reports whether a condition has a DATEDIFF of two inputs.
func bounded(x sql.Expr) bool {
	_, _, ok := difference(x)
	return ok || x != nil && slices.ContainsFunc(sql.Children(x), bounded)
}

// difference returns the two names in DATEDIFF(unit, a, b).
func difference(x sql.Expr) (a, b string, ok bool) {
	call, isCall := x.(*sql.Call)
	if !isCall || !strings.EqualFold(call.Name, "datediff") || len(call.Args) != 3 {
		return "", "", false
	}
	l, okL := call.Args[1].(*sql.Column)
	r, okR := call.Args[2].(*sql.Column)
	if !okL || !okR || len(l.Path) != 1 || len(r.Path) != 1 {
		return "", "", false
	}
	return l.Path[0], r.Path[0], true
}

// joins compiles the conditions of all JOINs.
func (c *compiler) joins(s *sql.Select, q *Query, scope *expr.Scope) error {
	all := scope.Sources
	for i, j := range s.Joins {
		sub := *scope
		sub.Clause, sub.Join, sub.Sources = "ON", true, all[:i+2] // what is joined later has no name here
		on, err := sub.Condition(j.On)
		if err != nil {
			return err
		}
		src := q.Sources[i+1]
		k := join{left: j.Left, on: on, input: src.Input}
		k.reference = src.Input >= 0 && c.plan.Inputs[src.Input].Reference
		parts := conjuncts(j.On)
		for _, p := range parts {
			k.equality(&sub, p, i+1)
		}
		if k.reference {
			q.joins = append(q.joins, k)
			continue
		}
		for _, p := range parts {
			if err := c.bound(&k, p, all, i+1); err != nil {
				return err
			}
		}
		if !slices.ContainsFunc(k.bounds, func(b bound) bool { return b.hasLow }) || !slices.ContainsFunc(k.bounds, func(b bound) bool { return b.hasHigh }) {
			return c.plan.SQL.ErrorAt(j.On.Pos(), "this JOIN needs a bound of time with two ends").
				WithHint("add AND DATEDIFF(second, %s, %s) BETWEEN 0 AND 60; reference data, which is no step, is joined without", all[0].Alias, all[i+1].Alias)
		}
		q.joins = append(q.joins, k)
	}
	return nil
}

func conjuncts(x sql.Expr) []sql.Expr {
	if b, ok := x.(*sql.Binary); ok && b.Op == "AND" {
		return append(conjuncts(b.L), conjuncts(b.R)...)
	}
	return []sql.Expr{x}
}

// equality notes a part of ON of the form left = right, by which matches are found.
func (k *join) equality(scope *expr.Scope, x sql.Expr, port int) {
	b, ok := x.(*sql.Binary)
	if !ok || b.Op != "=" {
		return
	}
	l, r := side(scope, b.L, port), side(scope, b.R, port)
	mine, its := b.L, b.R
	switch {
	case l == leftSide && r == rightSide:
	case l == rightSide && r == leftSide:
		mine, its = b.R, b.L
	default:
		return
	}
	m, err := scope.Compile(mine)
	if err != nil {
		return // ON as a whole was compiled before
	}
	if i, err := scope.Compile(its); err == nil {
		k.mine, k.its = append(k.mine, m), append(k.its, i)
	}
}

const (
	noSide = iota
	leftSide
	rightSide
	bothSides
)

// side says which side of a JOIN an expression's columns belong to; names without an
// input may belong to both.
func side(scope *expr.Scope, x sql.Expr, port int) int {
	if c, ok := x.(*sql.Column); ok {
		for i, s := range scope.Sources {
			if strings.EqualFold(s.Alias, c.Path[0]) && len(c.Path) > 1 {
				if i == port {
					return rightSide
				}
				return leftSide
			}
		}
		return bothSides
	}
	out := noSide
	for _, y := range sql.Children(x) {
		out |= side(scope, y, port)
	}
	return out
}

// bound notes a part of ON that bounds the time between two events.
func (c *compiler) bound(k *join, x sql.Expr, sources []expr.Source, port int) error {
	var call sql.Expr
	var b bound
	switch x := x.(type) {
	case *sql.Between:
		low, okL := whole(x.Low)
		high, okH := whole(x.High)
		if !okL || !okH || x.Not {
			return nil
		}
		call, b = x.X, bound{low: low, high: high, hasLow: true, hasHigh: true}
	case *sql.Binary:
		n, ok := whole(x.R)
		op := x.Op
		call = x.L
		if !ok {
			if n, ok = whole(x.L); !ok {
				return nil
			}
			call, op = x.R, map[string]string{"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "="}[op]
		}
		b = bound{low: n, high: n, hasLow: op == "=" || op[0] == '>', hasHigh: op == "=" || op[0] == '<'}
		if op == "<" {
			b.high--
		}
		if op == ">" {
			b.low++
		}
		if op == "<>" {
			return nil
		}
	}
	first, second, ok := difference(call)
	if !ok {
		return nil
	}
	unit, known := sql.Unit(call.(*sql.Call).Args[0].(*sql.Column).Path[0])
	if !known {
		return c.plan.SQL.ErrorAt(call.Pos(), "the bound of a JOIN needs a unit of at most a day")
	}
	b.unit = micros(unit)
	i, j := sourceNamed(sources, first), sourceNamed(sources, second)
	if i == port {
		i, j = j, i
		b.low, b.high, b.hasLow, b.hasHigh = -b.high, -b.low, b.hasHigh, b.hasLow
	}
	if j != port || i < 0 || i > port {
		return nil
	}
	const most = int64(sql.MaxWindow / time.Microsecond)
	if b.low < -most/int64(b.unit) || b.high > most/int64(b.unit) {
		return c.plan.SQL.ErrorAt(call.Pos(), "the bound of a JOIN is at most 7 days")
	}
	b.source = i
	k.bounds = append(k.bounds, b)
	if b.hasLow {
		k.keep = max(k.keep, fleetscore.Micros(1-b.low)*b.unit)
	}
	return nil
}

func sourceNamed(sources []expr.Source, name string) int {
	return slices.IndexFunc(sources, func(s expr.Source) bool { return strings.EqualFold(s.Alias, name) })
}

func whole(x sql.Expr) (int64, bool) {
	l, ok := x.(*sql.Literal)
	if !ok || l.Value.Type() != value.Bigint {
		return 0, false
	}
	return l.Value.Bigint(), true
}

// span returns the times of right events that can match, and what an event stamps that
// matches none: the last time at which a match could have come.
func (k *join) span(stamps []fleetscore.Micros, stamp fleetscore.Micros) (from, to, none fleetscore.Micros) {
	from, to, none = -never, never, never
	for _, b := range k.bounds {
		begin := ceil(stamps[b.source]-b.unit+1, b.unit) // of the unit in which the event lies: DATEDIFF counts boundaries
		if b.hasLow {
			from = max(from, begin+fleetscore.Micros(b.low)*b.unit)
		}
		if b.hasHigh {
			to = min(to, begin+fleetscore.Micros(b.high+1)*b.unit-1)
			none = min(none, stamps[b.source]+fleetscore.Micros(b.high)*b.unit)
		}
	}
	return from, to, max(none, stamp)
}

// stage is the state of one JOIN.
type stage struct {
	join   *join
	rows   []*value.Record            // reference data
	index  map[string][]*value.Record // by what equals in ON
	lefts  []*waiting
	rights []arrived
}

// waiting is a left event whose matches may still come.
type waiting struct {
	env            *expr.Env
	key            string
	from, to, none fleetscore.Micros
	matched        bool
}

type arrived struct {
	key   string
	row   *value.Record
	stamp fleetscore.Micros
}

func newStage(j *join, port, sources int, rows []*value.Record) *stage {
	s := &stage{join: j, rows: rows}
	if !j.reference || len(j.its) == 0 {
		return s
	}
	s.index = map[string][]*value.Record{}
	env := &expr.Env{Rows: make([]*value.Record, sources)}
	for _, r := range rows {
		env.Rows[port] = r
		if k, ok := lookup(j.its, env); ok {
			s.index[k] = append(s.index[k], r)
		}
	}
	return s
}

// lookup is equal for values that = may find equal: a text that is a number goes with the
// number. ON is evaluated for what is found.
func lookup(list []expr.Expr, env *expr.Env) (string, bool) {
	var b []byte
	for _, x := range list {
		v := x.Eval(env)
		if v.IsNull() {
			return "", false
		}
		if f, ok := v.AsFloat(); ok {
			v = value.Number(f)
		} else if t, ok := v.AsTime(); ok {
			v = value.Time(t)
		}
		b = value.AppendKey(b, v)
	}
	return string(b), true
}

func (s *stage) candidates(env *expr.Env) []*value.Record {
	if s.index == nil {
		return s.rows
	}
	k, ok := lookup(s.join.mine, env)
	if !ok {
		return nil
	}
	return s.index[k]
}

// with returns the environment with one more row.
func with(env *expr.Env, port int, row *value.Record, stamp fleetscore.Micros) *expr.Env {
	out := *env
	out.Rows, out.Stamps = slices.Clone(env.Rows), slices.Clone(env.Stamps)
	out.Rows[port], out.Stamps[port] = row, stamp
	out.Stamp = max(env.Stamp, stamp)
	return &out
}
