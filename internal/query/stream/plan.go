// Package stream runs queries over events: it gives events their times, joins, filters and
// groups them, and emits rows when their windows are over.
//
// It is pure: the rows depend on the events, their order and the policy alone. A Runner
// belongs to one goroutine; a Plan may have many.
package stream

import (
	"math"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/expr"
	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// DefaultOutput is where a statement without INTO writes.
const DefaultOutput = "output"

// Plan is a compiled script.
type Plan struct {
	SQL     sql.Source
	Inputs  []Input
	Outputs []string // in the order of the statements
	Queries []*Query // each reads inputs or earlier queries
	Uses    []Use
}

// Use is a column of an input that a query names.
type Use struct {
	Input  string
	Column string
	At     int
}

// Input is what a plan reads: a stream with its time, or reference data.
type Input struct {
	Name      string
	Reference bool
	Declared  []expr.Column // by CREATE TABLE
	HasTime   bool          // by TIMESTAMP BY; else it goes by arrival
	NeedsTime bool          // whether rows depend on the events' times
	At        int

	stamp expr.Expr
	over  []expr.Expr
	form  string
}

// Stamp returns an event's own time, by TIMESTAMP BY; false if it has none.
func (in *Input) Stamp(r *value.Record) (fleetscore.Micros, bool) {
	return TimeOf(in.stamp.Eval(&expr.Env{Rows: []*value.Record{r}}))
}

// TimeOf reads the time of an event as a hub does: a datetime, a text that spells one, or a
// number of milliseconds since 1970 that is no earlier than 1973 and no later than 5138.
func TimeOf(v value.Value) (fleetscore.Micros, bool) {
	if ms, ok := v.AsFloat(); ok && v.IsNumber() {
		return fleetscore.Micros(math.Floor(ms * 1000)), ms >= 1e11 && ms <= 1e14
	}
	return v.AsTime()
}

// Timeline returns the key behind OVER, whose events have a watermark of their own.
func (in *Input) Timeline(r *value.Record) string {
	var b []byte
	for _, x := range in.over {
		b = value.AppendKey(b, x.Eval(&expr.Env{Rows: []*value.Record{r}}))
	}
	return string(b)
}

// Line is the key behind OVER as a text. Keys with the same text have one watermark, as they have one group; see KeyText.
func (in *Input) Line(r *value.Record) fleetscore.Key {
	env, texts := &expr.Env{Rows: []*value.Record{r}}, make([]string, len(in.over))
	for i, x := range in.over {
		texts[i] = KeyText(x.Eval(env))
	}
	return fleetscore.Key(strings.Join(texts, fleetscore.KeySeparator))
}

// Declare checks an event against CREATE TABLE and gives its values the declared types;
// false if one can't be converted.
func (in *Input) Declare(r *value.Record) (*value.Record, bool) {
	if len(in.Declared) == 0 {
		return r, true
	}
	names, values := make([]string, len(in.Declared)), make([]value.Value, len(in.Declared))
	for i, c := range in.Declared {
		v, ok := value.Cast(r.Get(c.Name), c.Type)
		if !ok {
			return nil, false
		}
		names[i], values[i] = c.Name, v
	}
	return &value.Record{Shape: value.NewShape(names), Values: values}, true
}

// Query is one compiled SELECT.
type Query struct {
	Name      string // of the step; empty for a statement
	Output    string // empty for steps
	Sources   []Source
	Windows   []sql.Window
	Keys      []string // of GROUP BY, as they are written
	Columns   []expr.Column
	Open      bool // whether it has columns that aren't known before the events, by SELECT *
	Analytics []*expr.Analytic

	output  int
	readers []reader
	joins   []join
	where   *expr.Expr
	group   *expr.Group
	keys    []expr.Expr
	session [][]expr.Expr // of each window: the keys with sessions of their own
	having  *expr.Expr
	items   []item
	as      []string // the names of the first query of a UNION
	texts   bool     // see TextKeys
}

// Source is what a query reads.
type Source struct {
	Input int // of Plan.Inputs; -1 if it reads a query
	Query int // of Plan.Queries
	Alias string
}

// reader is a query that reads another one.
type reader struct{ query, port int }

// item is one entry of the SELECT list.
type item struct {
	star   bool
	source int       // of star; -1: a column that holds a record
	expr   expr.Expr // of others, or the record
	name   string
}

// TextKeys makes the groups of what is written into outputs differ if and only if their texts do, as KeyText makes them. Expressions
// go on to have the values themselves: those of the first event of a group.
func (p *Plan) TextKeys() {
	for _, q := range p.Queries {
		q.texts = q.Output != ""
	}
}

// NullKey is the text of a key that is NULL.
const NullKey = "NULL"

// KeyText is the text of a value that is part of a key, which is never empty and has no separator.
func KeyText(v value.Value) string {
	text, _ := value.Cast(v, value.Text)
	if text.IsNull() || text.Text() == "" {
		return NullKey
	}
	return strings.ReplaceAll(text.Text(), fleetscore.KeySeparator, " ")
}

type compiler struct {
	script *sql.Script
	plan   *Plan
	steps  map[string][]int // the queries of each step, in lower case; several with UNION
	needs  bool
}

// Compile compiles a script. Errors name the line and column.
func Compile(script *sql.Script) (*Plan, error) {
	c := &compiler{script: script, plan: &Plan{SQL: script.Source}, steps: map[string][]int{}, needs: needsTime(script)}
	for _, st := range script.Steps {
		list, err := c.union(st.Query, st.Name)
		if err != nil {
			return nil, err
		}
		c.steps[strings.ToLower(st.Name)] = list
	}
	for _, s := range script.Statements {
		list, err := c.union(s, "")
		if err != nil {
			return nil, err
		}
		into := DefaultOutput
		for u := s; u != nil; u = u.Union {
			if u.Into != "" {
				into = u.Into
			}
		}
		if !slices.Contains(c.plan.Outputs, into) {
			c.plan.Outputs = append(c.plan.Outputs, into)
		}
		for _, q := range list {
			c.plan.Queries[q].Output, c.plan.Queries[q].output = into, slices.Index(c.plan.Outputs, into)
		}
	}
	return c.plan, nil
}

// needsTime reports whether anything in a script depends on the times of events.
func needsTime(script *sql.Script) bool {
	var in func(x sql.Expr) bool
	in = func(x sql.Expr) bool {
		switch x := x.(type) {
		case nil:
			return false
		case *sql.Stamp:
			return true
		case *sql.Call:
			if x.Over != nil && x.Over.Limit > 0 || strings.EqualFold(x.Name, "isfirst") {
				return true
			}
		}
		return slices.ContainsFunc(sql.Children(x), in)
	}
	var of func(q *sql.Select) bool
	of = func(q *sql.Select) bool {
		if q == nil {
			return false
		}
		parts := []sql.Expr{q.Where, q.Having}
		for _, it := range q.Items {
			parts = append(parts, it.Expr)
		}
		for _, j := range q.Joins {
			parts = append(parts, j.On)
			if of(j.Query) || bounded(j.On) {
				return true
			}
		}
		return q.Grouped || slices.ContainsFunc(parts, in) || of(q.From.Query) || of(q.Union)
	}
	for _, st := range script.Steps {
		if of(st.Query) {
			return true
		}
	}
	return slices.ContainsFunc(script.Statements, of)
}

// union compiles a SELECT and those that UNION adds.
func (c *compiler) union(s *sql.Select, name string) ([]int, error) {
	var out []int
	for u := s; u != nil; u = u.Union {
		i, err := c.query(u, name)
		if err != nil {
			return nil, err
		}
		if q := c.plan.Queries[i]; len(out) > 0 {
			first := c.plan.Queries[out[0]]
			if !first.Open && !q.Open {
				if len(first.Columns) != len(q.Columns) {
					return nil, c.plan.SQL.ErrorAt(u.At, "the queries of a UNION have different numbers of columns: %d and %d", len(first.Columns), len(q.Columns))
				}
				for _, col := range first.Columns {
					q.as = append(q.as, col.Name)
				}
				q.Columns = first.Columns
			}
		}
		out = append(out, i)
	}
	return out, nil
}

// input finds or adds an input of the plan.
func (c *compiler) input(in sql.Input, reference bool) (int, error) {
	form := strings.ToLower(in.Name) + " by "
	if in.TimestampBy != nil {
		form += sql.Format(in.TimestampBy)
	}
	for _, x := range in.Over {
		form += " over " + sql.Format(x)
	}
	if reference {
		form = "reference " + strings.ToLower(in.Name)
	}
	for i := range c.plan.Inputs {
		if c.plan.Inputs[i].form == form {
			return i, nil
		}
	}
	p := Input{Name: in.Name, Reference: reference, At: in.At, HasTime: in.TimestampBy != nil, NeedsTime: c.needs, form: form}
	for _, t := range c.script.Tables {
		if strings.EqualFold(t.Name, in.Name) {
			for _, col := range t.Columns {
				p.Declared = append(p.Declared, expr.Column{Name: col.Name, Type: col.Type})
			}
		}
	}
	scope := &expr.Scope{SQL: c.plan.SQL, Clause: "TIMESTAMP BY", NoStamp: true, Sources: []expr.Source{sourceOf(&p, in.Alias)}, Uses: c.uses([]string{in.Name})}
	var err error
	if in.TimestampBy != nil {
		if p.stamp, err = scope.Compile(in.TimestampBy); err != nil {
			return 0, err
		}
		if t := p.stamp.Type; t != value.Any && t != value.Text && t != value.Datetime {
			return 0, c.plan.SQL.ErrorAt(in.TimestampBy.Pos(), "TIMESTAMP BY needs a datetime, and this is a %s", t).WithHint("DATEADD(millisecond, x, '1970-01-01T00:00:00Z') makes a time of a number")
		}
	}
	if p.over, err = scope.All(in.Over); err != nil {
		return 0, err
	}
	c.plan.Inputs = append(c.plan.Inputs, p)
	return len(c.plan.Inputs) - 1, nil
}

func sourceOf(p *Input, alias string) expr.Source {
	return expr.Source{Alias: alias, Open: len(p.Declared) == 0, Columns: p.Declared}
}

// uses remembers the columns of inputs; names are those of the sources, empty for steps.
func (c *compiler) uses(names []string) func(source, at int, column string) {
	return func(source, at int, column string) {
		if names[source] != "" {
			c.plan.Uses = append(c.plan.Uses, Use{names[source], column, at})
		}
	}
}

// Ordered are the aggregates that keep values of all events of a window.
func (q *Query) Ordered() (out []string) {
	if q.group == nil {
		return nil
	}
	for _, a := range q.group.Aggregates {
		switch a.Name {
		case "percentile_cont", "percentile_disc", "collect":
			out = append(out, strings.ToUpper(a.Name))
		}
		if a.Distinct() {
			out = append(out, "COUNT(DISTINCT)")
		}
	}
	return out
}
