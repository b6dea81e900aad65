package expr

import (
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// Aggregate is one aggregate function over the rows of a window.
type Aggregate struct {
	Name string // in lower case
	Type value.Type
	Text string // in sql.Format's form

	args     []Expr // the value, then what ORDER BY names
	whole    bool   // the value is the whole row
	desc     []bool // of ORDER BY
	distinct bool
	fraction float64 // of a percentile
	most     int     // of CollectTop
}

// kind describes an aggregate function: whether it takes a number, and its result's type.
type kind struct {
	number  bool
	like    bool // the result has the argument's type
	gives   value.Type
	ordered bool // it needs OVER (ORDER BY …)
	whole   bool // without an argument it takes the whole row
}

var aggregates = map[string]kind{
	"count": {gives: value.Bigint, whole: true}, "sum": {number: true, like: true}, "avg": {number: true, gives: value.Float}, "min": {like: true}, "max": {like: true},
	"stdev": {number: true, gives: value.Float}, "stdevp": {number: true, gives: value.Float}, "var": {number: true, gives: value.Float}, "varp": {number: true, gives: value.Float},
	"first": {like: true}, "last": {like: true}, "collect": {gives: value.Array, whole: true},
	"topone": {like: true, ordered: true, whole: true}, "collecttop": {gives: value.Array, ordered: true, whole: true},
	"percentile_cont": {gives: value.Float, ordered: true}, "percentile_disc": {ordered: true},
}

// aggregate finds or adds an aggregate of the group.
func (s *Scope) aggregate(x *sql.Call, name string) (Expr, error) {
	if s.Group == nil {
		err := s.SQL.ErrorAt(x.At, "the aggregate %s can't be used in %s", strings.ToUpper(x.Name), s.Clause)
		switch s.Clause {
		case "SELECT":
			return Expr{}, err.WithHint("add GROUP BY with a window, for example GROUP BY TumblingWindow(second, 5), or OVER (LIMIT DURATION(second, 5))")
		case "WHERE":
			return Expr{}, err.WithHint("write the condition in HAVING")
		}
		return Expr{}, err
	}
	g := s.Group
	form := sql.Format(x)
	i := slices.Index(g.forms, form)
	if i < 0 {
		a, err := g.Rows.newAggregate(x, name)
		if err != nil {
			return Expr{}, err
		}
		i = len(g.Aggregates)
		g.Aggregates, g.forms = append(g.Aggregates, a), append(g.forms, form)
	}
	return Expr{g.Aggregates[i].Type, func(e *Env) value.Value { return e.Results[i] }}, nil
}

// newAggregate compiles an aggregate whose arguments name rows of this scope.
func (s *Scope) newAggregate(x *sql.Call, name string) (*Aggregate, error) {
	k := aggregates[name]
	a := &Aggregate{Name: name, Type: k.gives, distinct: x.Distinct, Text: sql.Format(x)}
	args := x.Args
	inner := *s
	inner.Clause = "an aggregate"
	s = &inner
	if x.Distinct && name != "count" {
		return nil, s.SQL.ErrorAt(x.At, "DISTINCT is supported in COUNT only")
	}
	var order []sql.Order
	if x.Over != nil {
		order = x.Over.OrderBy
	}
	if x.Over == nil && k.ordered || k.ordered != (len(order) > 0) {
		if !k.ordered {
			return nil, s.SQL.ErrorAt(x.Over.At, "%s takes no ORDER BY", strings.ToUpper(x.Name))
		}
		return nil, s.SQL.ErrorAt(x.At, "%s needs OVER (ORDER BY column)", x.Name).WithHint("write for example %s", orderedForms[name])
	}
	if x.Over != nil && x.Over.Limit == 0 && (len(x.Over.PartitionBy) > 0 || x.Over.When != nil || !k.ordered) {
		return nil, s.SQL.ErrorAt(x.Over.At, "OVER lacks LIMIT DURATION(unit, n)").WithHint("OVER (PARTITION BY Device LIMIT DURATION(minute, 5)) looks back from each event; without OVER, %s aggregates over the window of GROUP BY", strings.ToUpper(x.Name))
	}
	var err error
	if args, err = s.constants(a, x, args); err != nil {
		return nil, err
	}
	percentile := strings.HasPrefix(name, "percentile")
	switch {
	case len(args) > 1 || percentile && len(args) > 0:
		return nil, s.SQL.ErrorAt(args[len(args)-1].Pos(), "%s takes no further argument", x.Name)
	case percentile:
		if len(order) > 1 {
			return nil, s.SQL.ErrorAt(order[1].Expr.Pos(), "%s orders by one expression", x.Name)
		}
	case len(args) == 1:
		v, err := s.Compile(args[0])
		if err != nil {
			return nil, err
		}
		if k.number && !numeric(v.Type) {
			return nil, s.SQL.ErrorAt(args[0].Pos(), "%s needs a number, and this is a %s", strings.ToUpper(x.Name), v.Type)
		}
		a.args = append(a.args, v)
		if k.like {
			a.Type = v.Type
		}
	case !k.whole || x.Star && name != "count":
		return nil, s.SQL.ErrorAt(x.At, "%s needs an argument", strings.ToUpper(x.Name))
	default:
		a.whole = true
		a.args = append(a.args, Expr{value.RecordType, s.wholeRow()})
		if k.like {
			a.Type = value.RecordType
		}
	}
	return a, s.order(a, order, percentile)
}

var orderedForms = map[string]string{"topone": "TopOne(Value) OVER (ORDER BY Value DESC)", "collecttop": "CollectTop(3, Value) OVER (ORDER BY Value DESC)",
	"percentile_cont": "PERCENTILE_CONT(0.95) OVER (ORDER BY Value)", "percentile_disc": "PERCENTILE_DISC(0.95) OVER (ORDER BY Value)"}

// constants reads the leading constants of percentiles and CollectTop.
func (s *Scope) constants(a *Aggregate, x *sql.Call, args []sql.Expr) ([]sql.Expr, error) {
	isPercentile := strings.HasPrefix(a.Name, "percentile")
	if !isPercentile && a.Name != "collecttop" {
		return args, nil
	}
	if len(args) == 0 {
		return nil, s.SQL.ErrorAt(x.At, "%s needs an argument", x.Name).WithHint("write for example %s", orderedForms[a.Name])
	}
	l, ok := args[0].(*sql.Literal)
	if isPercentile {
		if ok {
			a.fraction, ok = l.Value.AsFloat()
		}
		if !ok || a.fraction < 0 || a.fraction > 1 {
			return nil, s.SQL.ErrorAt(args[0].Pos(), "%s needs a constant from 0 to 1", x.Name)
		}
		return args[1:], nil
	}
	if !ok || l.Value.Type() != value.Bigint || l.Value.Bigint() < 1 || l.Value.Bigint() > 100000 {
		return nil, s.SQL.ErrorAt(args[0].Pos(), "%s needs a whole number of rows", x.Name)
	}
	a.most = int(l.Value.Bigint())
	return args[1:], nil
}

// order compiles ORDER BY. A percentile's value is what it orders by.
func (s *Scope) order(a *Aggregate, order []sql.Order, percentile bool) error {
	for _, o := range order {
		v, err := s.Compile(o.Expr)
		if err != nil {
			return err
		}
		if percentile && !numeric(v.Type) {
			return s.SQL.ErrorAt(o.Expr.Pos(), "a percentile needs numbers, and this is a %s", v.Type)
		}
		a.args, a.desc = append(a.args, v), append(a.desc, o.Desc)
		if a.Name == "percentile_disc" {
			a.Type = v.Type
		}
	}
	return nil
}

// wholeRow gives the row, of all inputs together.
func (s *Scope) wholeRow() func(*Env) value.Value {
	return func(e *Env) value.Value {
		if len(e.Rows) == 1 {
			return value.OfRecord(e.Rows[0])
		}
		var names []string
		var values []value.Value
		for _, r := range e.Rows {
			if r == nil {
				continue
			}
			for i, n := range r.Shape.Names {
				if !slices.Contains(names, n) {
					names, values = append(names, n), append(values, r.Values[i])
				}
			}
		}
		return value.OfRecord(&value.Record{Shape: value.NewShape(names), Values: values})
	}
}

// Args evaluates the arguments for one row; Accumulator.Add takes them.
func (a *Aggregate) Args(e *Env) []value.Value {
	return a.AppendArgs(make([]value.Value, 0, len(a.args)), e)
}

// AppendArgs is Args appended to a slice.
func (a *Aggregate) AppendArgs(to []value.Value, e *Env) []value.Value {
	if a.Name == "count" && a.whole && !a.distinct {
		return to
	}
	for _, x := range a.args {
		to = append(to, x.Eval(e))
	}
	return to
}

// New starts an accumulator.
func (a *Aggregate) New() Accumulator {
	switch a.Name {
	case "count":
		if a.distinct {
			return &distinct{seen: map[string]bool{}}
		}
		return &counter{}
	case "sum", "avg":
		return &total{avg: a.Name == "avg"}
	case "min":
		return &extreme{want: -1}
	case "max":
		return &extreme{want: 1}
	case "first":
		return &edge{}
	case "last":
		return &edge{last: true}
	case "stdev", "stdevp", "var", "varp":
		return &spread{population: strings.HasSuffix(a.Name, "p"), root: strings.HasPrefix(a.Name, "stdev")}
	case "collect":
		return &collection{}
	case "topone":
		return &ranking{desc: a.desc, most: 1, one: true}
	case "collecttop":
		return &ranking{desc: a.desc, most: a.most}
	}
	return &percentile{fraction: a.fraction, between: a.Name == "percentile_cont", desc: a.desc[0]}
}

// Distinct reports whether equal values count once.
func (a *Aggregate) Distinct() bool { return a.distinct }
