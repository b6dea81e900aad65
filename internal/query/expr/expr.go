// Package expr turns the expressions of a query into functions: it resolves names,
// judges types, and evaluates expressions, aggregates and analytic functions.
//
// It is pure. A compiled expression may be used by several goroutines at once, each with
// an environment of its own; accumulators and histories belong to one goroutine.
package expr

import (
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// Env is what an expression is evaluated with.
type Env struct {
	Rows      []*value.Record     // of each source; nil if a LEFT JOIN found none
	Stamps    []fleetscore.Micros // of each source's row
	Stamp     fleetscore.Micros   // System.Timestamp()
	Keys      []value.Value       // of the group
	Results   []value.Value       // of the group's aggregates
	Analytics []value.Value       // results of analytic functions for this event
	WindowID  value.Value
	Err       error // the first error of an evaluation, such as a CAST that isn't possible
}

// fail records an error and gives NULL.
func (e *Env) fail(err error) value.Value {
	if e.Err == nil {
		e.Err = err
	}
	return value.Null
}

// Expr is a compiled expression.
type Expr struct {
	Type value.Type // Any if it depends on the events
	Eval func(*Env) value.Value
}

// Column is a column whose name, and perhaps type, is known before the events.
type Column struct {
	Name string
	Type value.Type
}

// Source is an input that expressions can name.
type Source struct {
	Alias   string
	Open    bool     // whether events may have columns that aren't listed
	Columns []Column // those that are known
}

// Scope says what the expressions of a clause may name.
type Scope struct {
	SQL       sql.Source
	Clause    string // for messages, such as WHERE
	Sources   []Source
	NoStamp   bool                                // System.Timestamp() has no meaning here
	Join      bool                                // DATEDIFF compares the times of two inputs
	Group     *Group                              // after a GROUP BY: what remains of the rows
	Analytics *[]*Analytic                        // where analytic functions are added; nil refuses them
	Aliases   map[string]sql.Expr                 // of the SELECT list, in lower case, for HAVING
	Uses      func(source, at int, column string) // told about each column of an open source
}

// Group is what a GROUP BY leaves of the rows.
type Group struct {
	Keys       []string // in sql.Format's form
	KeyTypes   []value.Type
	Rows       *Scope // of what is inside of aggregates
	Aggregates []*Aggregate
	forms      []string // of the aggregates
}

// Compile compiles an expression. Errors name its line and column.
func (s *Scope) Compile(x sql.Expr) (Expr, error) {
	if s.Group != nil {
		form := sql.Format(x)
		for i, k := range s.Group.Keys {
			if k == form && form != stampForm {
				return Expr{s.Group.KeyTypes[i], func(e *Env) value.Value { return e.Keys[i] }}, nil
			}
		}
	}
	switch x := x.(type) {
	case *sql.Literal:
		v := x.Value
		return Expr{v.Type(), func(*Env) value.Value { return v }}, nil
	case *sql.Column:
		return s.column(x)
	case *sql.Stamp:
		if s.NoStamp {
			return Expr{}, s.SQL.ErrorAt(x.At, "System.Timestamp() can't be used in %s", s.Clause)
		}
		return Expr{value.Datetime, func(e *Env) value.Value { return value.Time(e.Stamp) }}, nil
	case *sql.WindowID:
		if s.Group == nil {
			return Expr{}, s.SQL.ErrorAt(x.At, "System.Window().Id has a value only in the SELECT of a query with GROUP BY")
		}
		return Expr{value.Text, func(e *Env) value.Value { return e.WindowID }}, nil
	case *sql.Unary:
		return s.unary(x)
	case *sql.Binary:
		return s.binary(x)
	case *sql.IsNull:
		y, err := s.Compile(x.X)
		return Expr{value.Bit, func(e *Env) value.Value { return value.Of(y.Eval(e).IsNull() != x.Not) }}, err
	case *sql.Between:
		return s.between(x)
	case *sql.In:
		return s.in(x)
	case *sql.Like:
		return s.like(x)
	case *sql.Case:
		return s.caseOf(x)
	case *sql.Cast:
		return s.cast(x)
	}
	return s.call(x.(*sql.Call))
}

const stampForm = "system.timestamp()"

// All compiles several expressions.
func (s *Scope) All(list []sql.Expr) ([]Expr, error) {
	out := make([]Expr, len(list))
	for i, x := range list {
		var err error
		if out[i], err = s.Compile(x); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Condition compiles an expression that must be true.
func (s *Scope) Condition(x sql.Expr) (Expr, error) {
	e, err := s.Compile(x)
	if err == nil && e.Type != value.Any && e.Type != value.Bit {
		return e, s.SQL.ErrorAt(x.Pos(), "%s needs a condition, and this is a %s", s.Clause, e.Type).WithHint("write a comparison, for example Value > 0")
	}
	return e, err
}

// column resolves a name.
func (s *Scope) column(c *sql.Column) (Expr, error) {
	if s.Group != nil {
		return s.grouped(c)
	}
	if i := s.source(c.Path[0]); i >= 0 && len(c.Path) > 1 {
		return s.of(i, c, c.Path[1:])
	} else if i >= 0 && !s.known(c.Path[0]) { // the input itself: the whole event
		return Expr{value.RecordType, func(e *Env) value.Value { return value.OfRecord(e.Rows[i]) }}, nil
	}
	var holders []int
	for i, src := range s.Sources {
		if _, ok := src.find(c.Path[0]); ok {
			holders = append(holders, i)
		}
	}
	switch {
	case len(holders) > 1:
		return Expr{}, s.SQL.ErrorAt(c.At, "the column %s is in more than one input", c.Path[0]).WithHint("write %s.%s", s.Sources[holders[0]].Alias, c.Path[0])
	case len(holders) == 1:
		return s.of(holders[0], c, c.Path)
	case len(s.Sources) == 1:
		return s.of(0, c, c.Path)
	}
	return s.anywhere(c)
}

func (s *Scope) known(name string) bool {
	for _, src := range s.Sources {
		if _, ok := src.find(name); ok {
			return true
		}
	}
	return false
}

func (s *Scope) source(name string) int {
	for i, src := range s.Sources {
		if strings.EqualFold(src.Alias, name) && name != "" {
			return i
		}
	}
	return -1
}

func (s Source) find(name string) (value.Type, bool) {
	for _, c := range s.Columns {
		if strings.EqualFold(c.Name, name) {
			return c.Type, true
		}
	}
	return value.Any, false
}

func (s Source) names() (out []string) {
	for _, c := range s.Columns {
		out = append(out, c.Name)
	}
	return out
}

// of is a column of one source, or a field inside of it.
func (s *Scope) of(i int, c *sql.Column, path []string) (Expr, error) {
	src := s.Sources[i]
	t, ok := src.find(path[0])
	if !ok && !src.Open {
		err := s.SQL.ErrorAt(c.At, "%s has no column %s", src.Alias, path[0])
		if near := fleetscore.Nearest(path[0], src.names()); near != "" {
			return Expr{}, err.WithHint("is %s meant?", near)
		}
		return Expr{}, err.WithHint("its columns are %s", strings.Join(src.names(), ", "))
	}
	if !ok && s.Uses != nil {
		s.Uses(i, c.At, path[0])
	}
	name := path[0]
	get := func(e *Env) value.Value { return e.Rows[i].Get(name) }
	if len(path) > 1 {
		t = value.Any
	}
	return Expr{t, fields(get, path[1:])}, nil
}

// anywhere is a column that any of several open sources may have: the first event that
// has it counts.
func (s *Scope) anywhere(c *sql.Column) (Expr, error) {
	open := false
	var names []string
	for _, src := range s.Sources {
		open = open || src.Open
		names = append(names, src.names()...)
	}
	if !open {
		err := s.SQL.ErrorAt(c.At, "no input has a column %s", c.Path[0])
		if near := fleetscore.Nearest(c.Path[0], names); near != "" {
			return Expr{}, err.WithHint("is %s meant?", near)
		}
		return Expr{}, err
	}
	name := c.Path[0]
	return Expr{value.Any, fields(func(e *Env) value.Value {
		for _, r := range e.Rows {
			if r != nil {
				if _, ok := r.Shape.Find(name); ok {
					return r.Get(name)
				}
			}
		}
		return value.Null
	}, c.Path[1:])}, nil
}

func fields(get func(*Env) value.Value, path []string) func(*Env) value.Value {
	if len(path) == 0 {
		return get
	}
	return func(e *Env) value.Value {
		v := get(e)
		for _, f := range path {
			v = v.Record().Get(f)
		}
		return v
	}
}

// grouped is a name behind a GROUP BY: a key without or with its input's name, a field of
// a key, or in HAVING a name of the SELECT list.
func (s *Scope) grouped(c *sql.Column) (Expr, error) {
	if x, ok := s.Aliases[strings.ToLower(c.Path[0])]; ok && len(c.Path) == 1 {
		without := *s
		without.Aliases = nil
		return without.Compile(x)
	}
	for i, k := range s.Group.Keys {
		for n := len(c.Path); n > 0; n-- {
			form := sql.Format(&sql.Column{Path: c.Path[:n]})
			if k == form || strings.HasSuffix(k, "."+form) && len(s.Group.Rows.Sources) == 1 || strings.HasSuffix(form, "."+k) && s.Group.Rows.source(c.Path[0]) >= 0 {
				t := s.Group.KeyTypes[i]
				if n < len(c.Path) {
					t = value.Any
				}
				return Expr{t, fields(func(e *Env) value.Value { return e.Keys[i] }, c.Path[n:])}, nil
			}
		}
	}
	name := strings.Join(c.Path, ".")
	return Expr{}, s.SQL.ErrorAt(c.At, "%s is neither aggregated nor in GROUP BY", name).WithHint("write for example AVG(%s) AS %s, or add it to GROUP BY", name, c.Path[len(c.Path)-1])
}

// Record evaluates an expression that gives a record; nil if it gives none.
func (x Expr) Record(e *Env) *value.Record {
	if x.Eval == nil {
		return nil
	}
	return x.Eval(e).Record()
}
