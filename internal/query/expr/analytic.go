package expr

import (
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// Analytic is a function that looks back from each event: LAG, LAST, ISFIRST, and
// aggregates with OVER (… LIMIT DURATION …). It sees all events of the input, before WHERE.
type Analytic struct {
	Name  string
	Limit fleetscore.Micros
	Text  string // in sql.Format's form

	value     Expr
	whole     bool
	offset    int
	other     Expr // the default
	partition []Expr
	when      Expr
	hasWhen   bool
	aggregate *Aggregate
}

// analytic compiles an analytic function.
func (s *Scope) analytic(x *sql.Call, name string) (Expr, error) {
	if s.Analytics == nil || s.Group != nil {
		err := s.SQL.ErrorAt(x.At, "%s looks back from single events, and can't be used in %s here", strings.ToUpper(x.Name), s.Clause)
		return Expr{}, err.WithHint("write it in a step: WITH step AS (SELECT *, %s(…) OVER (…) AS x FROM …)", strings.ToUpper(x.Name))
	}
	form := sql.Format(x)
	at := slices.IndexFunc(*s.Analytics, func(a *Analytic) bool { return a.Text == form })
	if at < 0 {
		a, err := s.newAnalytic(x, name)
		if err != nil {
			return Expr{}, err
		}
		a.Text = form
		at = len(*s.Analytics)
		*s.Analytics = append(*s.Analytics, a)
	}
	t := (*s.Analytics)[at].value.Type
	return Expr{t, func(e *Env) value.Value { return e.Analytics[at] }}, nil
}

func (s *Scope) newAnalytic(x *sql.Call, name string) (*Analytic, error) {
	a := &Analytic{Name: name, other: Expr{value.Any, func(*Env) value.Value { return value.Null }}}
	rows := *s
	rows.Analytics, rows.Clause = nil, "an analytic function"
	var err error
	over := x.Over
	if name == "isfirst" {
		return a, rows.isFirst(a, x)
	}
	if over == nil || over.Limit == 0 {
		return nil, s.SQL.ErrorAt(x.At, "%s needs OVER (LIMIT DURATION(unit, n))", strings.ToUpper(x.Name)).WithHint("write for example %s(Value) OVER (PARTITION BY Device LIMIT DURATION(hour, 1))", strings.ToUpper(x.Name))
	}
	a.Limit = micros(over.Limit)
	if err = rows.partition(a, over); err != nil {
		return nil, err
	}
	if name != "lag" && name != "last" {
		if x.Distinct {
			return nil, s.SQL.ErrorAt(x.At, "COUNT(DISTINCT …) can't be used with OVER").WithHint("use it in a query with GROUP BY")
		}
		if _, ok := aggregates[name]; !ok {
			return nil, s.SQL.ErrorAt(x.At, "%s can't be used with OVER", x.Name)
		}
		a.aggregate, err = rows.newAggregate(x, name)
		if err == nil {
			a.value.Type = a.aggregate.Type
		}
		return a, err
	}
	return a, rows.lookBack(a, x)
}

func micros(d time.Duration) fleetscore.Micros { return fleetscore.Micros(d.Microseconds()) }

// lookBack reads the arguments of LAG and LAST.
func (s *Scope) lookBack(a *Analytic, x *sql.Call) error {
	if len(x.Over.OrderBy) > 0 {
		return s.SQL.ErrorAt(x.Over.OrderBy[0].Expr.Pos(), "%s takes no ORDER BY: events come in the order of time", strings.ToUpper(x.Name))
	}
	args := x.Args
	if x.Star {
		a.whole = true
		a.value = Expr{value.RecordType, s.wholeRow()}
	} else if len(args) == 0 {
		return s.SQL.ErrorAt(x.At, "%s needs an argument", strings.ToUpper(x.Name))
	} else {
		var err error
		if a.value, err = s.Compile(args[0]); err != nil {
			return err
		}
		args = args[1:]
	}
	if a.Name == "lag" {
		a.offset = 1
		if len(args) > 0 {
			l, ok := args[0].(*sql.Literal)
			if !ok || l.Value.Type() != value.Bigint || l.Value.Bigint() < 1 || l.Value.Bigint() > 1e6 {
				return s.SQL.ErrorAt(args[0].Pos(), "the offset of LAG is a whole number of at least 1").WithHint("LAST(x) OVER (…) includes the event itself")
			}
			a.offset = int(l.Value.Bigint())
			args = args[1:]
		}
	}
	if len(args) > 1 {
		return s.SQL.ErrorAt(args[1].Pos(), "%s takes no further argument", strings.ToUpper(x.Name))
	}
	if len(args) == 1 {
		var err error
		if a.other, err = s.Compile(args[0]); err != nil {
			return err
		}
		if a.other.Type != a.value.Type {
			a.value.Type = value.Any
		}
	}
	return nil
}

func (s *Scope) partition(a *Analytic, over *sql.Over) (err error) {
	if a.partition, err = s.All(over.PartitionBy); err != nil {
		return err
	}
	if over.When != nil {
		inner := *s
		inner.Clause, a.hasWhen = "WHEN", true
		a.when, err = inner.Condition(over.When)
	}
	return err
}

// isFirst reads ISFIRST(unit, n).
func (s *Scope) isFirst(a *Analytic, x *sql.Call) error {
	a.value.Type = value.Bigint
	if err := s.count(x, 2, 2); err != nil {
		return err
	}
	c, ok := x.Args[0].(*sql.Column)
	var unit time.Duration
	if ok {
		unit, ok = sql.Unit(c.Path[0])
	}
	if !ok {
		return s.SQL.ErrorAt(x.Args[0].Pos(), "ISFIRST needs a unit of time").WithHint("the units are %s", strings.Join(sql.UnitNames(), ", "))
	}
	l, ok := x.Args[1].(*sql.Literal)
	if !ok || l.Value.Type() != value.Bigint || l.Value.Bigint() < 1 || l.Value.Bigint() > int64(sql.MaxWindow/unit) {
		return s.SQL.ErrorAt(x.Args[1].Pos(), "ISFIRST needs a whole number of units, of at most 7 days")
	}
	a.Limit = micros(unit) * fleetscore.Micros(l.Value.Bigint())
	if x.Over != nil {
		if x.Over.Limit > 0 || len(x.Over.OrderBy) > 0 {
			return s.SQL.ErrorAt(x.Over.At, "OVER of ISFIRST takes PARTITION BY and WHEN only")
		}
		return s.partition(a, x.Over)
	}
	return nil
}

// History is what an analytic function remembers of the events. It is used by one
// goroutine.
type History struct {
	of    *Analytic
	parts map[string]*past
	swept fleetscore.Micros
}

type past struct {
	last     fleetscore.Micros
	times    []fleetscore.Micros
	values   [][]value.Value
	interval int64 // of ISFIRST
	seen     bool
}

// NewHistory starts without events.
func (a *Analytic) NewHistory() *History { return &History{of: a, parts: map[string]*past{}} }

// Next takes an event, whose time isn't before that of the event before, and returns the
// function's value for it.
func (h *History) Next(e *Env) value.Value {
	a := h.of
	var key []byte
	for _, p := range a.partition {
		key = value.AppendKey(key, p.Eval(e))
	}
	h.sweep(e.Stamp)
	p := h.parts[string(key)]
	if p == nil {
		p = &past{}
		h.parts[string(key)] = p
	}
	p.last = e.Stamp
	matches := !a.hasWhen || a.when.Eval(e).True()
	if a.Name == "isfirst" {
		interval := floorDiv(int64(e.Stamp)-1, int64(a.Limit)) // (start, end], as tumbling windows
		first := matches && (!p.seen || p.interval != interval)
		if matches {
			p.seen, p.interval = true, interval
		}
		if first {
			return value.Int(1)
		}
		return value.Int(0)
	}
	keep := 0
	for keep < len(p.times) && p.times[keep] <= e.Stamp-a.Limit {
		keep++
	}
	p.times, p.values = slices.Delete(p.times, 0, keep), slices.Delete(p.values, 0, keep)
	if a.Name == "lag" { // the event itself is no previous one
		v := h.look(p, e)
		h.add(p, e, matches)
		return v
	}
	h.add(p, e, matches)
	return h.look(p, e)
}

func (h *History) add(p *past, e *Env, matches bool) {
	if !matches {
		return
	}
	a := h.of
	var v []value.Value
	if a.aggregate != nil {
		v = a.aggregate.Args(e)
	} else {
		v = []value.Value{a.value.Eval(e)}
	}
	p.times, p.values = append(p.times, e.Stamp), append(p.values, v)
	if most := max(a.offset, 1); a.aggregate == nil && len(p.times) > most { // LAG and LAST need no more
		p.times, p.values = slices.Delete(p.times, 0, 1), slices.Delete(p.values, 0, 1)
	}
}

func (h *History) look(p *past, e *Env) value.Value {
	a := h.of
	if a.aggregate != nil {
		acc := a.aggregate.New()
		for _, v := range p.values {
			acc.Add(v)
		}
		return acc.Result()
	}
	if n := len(p.values); n >= max(a.offset, 1) {
		return p.values[n-max(a.offset, 1)][0]
	}
	return a.other.Eval(e)
}

// sweep forgets partitions whose events are all too old, now and then.
func (h *History) sweep(now fleetscore.Micros) {
	if now-h.swept < 2*h.of.Limit {
		return
	}
	h.swept = now
	for k, p := range h.parts {
		if p.last <= now-2*h.of.Limit {
			delete(h.parts, k)
		}
	}
}
