package query

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/stream"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// Parse reads the text of a query that a server runs, with the hub's key columns, and
// returns a plan for each dataset that it writes. Errors are of kind Invalid and name the
// line and column, the text that was found, and the possible texts.
func Parse(text string, key []string) ([]*Plan, error) { return parse(text, key, false) }

// ParseInOrder is Parse with plans of package stream alone, which gets the readings in the order
// of their times.
func ParseInOrder(text string, key []string) ([]*Plan, error) { return parse(text, key, true) }

func parse(text string, key []string, inOrder bool) ([]*Plan, error) {
	script, err := sql.Parse(text)
	if err != nil {
		return nil, err
	}
	if _, err := stream.Compile(script); err != nil { // what is wrong everywhere is said first
		return nil, err
	}
	r := &reader{src: script.Source}
	var out []*Plan
	for _, s := range script.Statements {
		if s.Into == "" {
			return nil, r.src.ErrorAt(s.From.At, "INTO is expected before FROM").WithHint("%s", shape)
		}
		if slices.ContainsFunc(out, func(p *Plan) bool { return p.Into == s.Into }) {
			return nil, r.src.ErrorAt(s.IntoAt, "another statement writes INTO %s", s.Into).WithHint("write into another dataset, or join the statements by UNION")
		}
		make := r.statement
		if inOrder {
			make = r.general
		}
		plan, err := make(text, only(script, s), key)
		if err != nil {
			return nil, err
		}
		out = append(out, plan)
	}
	return out, nil
}

// statement makes the plan of one dataset. What package window can do is left to it,
// because it is faster.
func (r *reader) statement(text string, script *sql.Script, key []string) (*Plan, error) {
	if plan, err := r.plan(text, script); err == nil && len(plan.KeyNames) == len(key) && !slices.ContainsFunc(plan.KeyNames, func(k string) bool { return !slices.Contains(key, k) }) {
		plan.KeyNames = key
		return plan, nil
	}
	return r.general(text, script, key)
}

// only is the part of a script that one of its statements needs.
func only(script *sql.Script, s *sql.Select) *sql.Script {
	out := *script
	out.Steps, out.Statements = nil, []*sql.Select{s}
	needed := map[string]bool{}
	var look func(q *sql.Select)
	input := func(in sql.Input) {
		needed[strings.ToLower(in.Name)] = true
		if in.Query != nil {
			look(in.Query)
		}
	}
	look = func(q *sql.Select) {
		for ; q != nil; q = q.Union {
			input(q.From)
			for _, j := range q.Joins {
				input(j.Input)
			}
		}
	}
	look(s)
	for _, st := range slices.Backward(script.Steps) { // a step reads earlier ones only
		if needed[strings.ToLower(st.Name)] {
			out.Steps = append(out.Steps, st)
			look(st.Query)
		}
	}
	slices.Reverse(out.Steps)
	return &out
}

// reader turns a syntax tree into a plan.
type reader struct{ src sql.Source }

// notYet refuses what query test runs and a server doesn't.
func (r *reader) notYet(at int, format string, args ...any) *fleetscore.Error {
	return r.src.ErrorAt(at, "a server doesn't run %s yet", fmt.Sprintf(format, args...)).WithHint("%s; fleetscore query test runs the whole language over files", shape)
}

// shape describes the usual form of a query.
const shape = "a query of a server has for example the form: SELECT System.Timestamp() AS TS, Device, Tag, AVG(Value) AS Value INTO dataset FROM hub " +
	"TIMESTAMP BY TS WHERE condition GROUP BY Device, Tag, TumblingWindow(second, 5)"

func (r *reader) plan(text string, script *sql.Script) (*Plan, error) {
	switch {
	case len(script.Tables) > 0:
		return nil, r.notYet(script.Tables[0].At, "CREATE TABLE")
	case len(script.Steps) > 0:
		return nil, r.notYet(script.Steps[0].At, "WITH")
	case len(script.Statements) > 1:
		return nil, r.notYet(script.Statements[1].At, "several statements in one query")
	}
	s := script.Statements[0]
	plan := &Plan{SQL: text, Into: s.Into, From: s.From.Name}
	if err := r.sources(plan, s); err != nil {
		return nil, err
	}
	if s.Where != nil {
		c, err := r.condition(s.Where)
		if err != nil {
			return nil, err
		}
		plan.where = c
	}
	if err := r.groupBy(plan, s); err != nil {
		return nil, err
	}
	return plan, r.selected(plan, s)
}

func (r *reader) sources(plan *Plan, s *sql.Select) error {
	switch {
	case s.Into == "":
		return r.src.ErrorAt(s.From.At, "INTO is expected before FROM").WithHint("%s", shape)
	case s.From.Query != nil:
		return r.notYet(s.From.At, "a subquery")
	case len(s.Joins) > 0:
		return r.notYet(s.Joins[0].At, "JOIN")
	case s.Union != nil:
		return r.notYet(s.Union.At, "UNION")
	case len(s.From.Over) > 0:
		return r.notYet(s.From.Over[0].Pos(), "TIMESTAMP BY … OVER")
	case s.Having != nil:
		return r.notYet(s.Having.Pos(), "HAVING")
	case s.From.TimestampBy == nil:
		return r.src.ErrorAt(s.From.At, "%s needs TIMESTAMP BY behind it", s.From.Name).WithHint("%s", shape)
	case !s.Grouped:
		return r.src.ErrorAt(s.At, "the query lacks GROUP BY").WithHint("%s", shape)
	}
	c, ok := s.From.TimestampBy.(*sql.Column)
	if !ok || len(c.Path) > 1 {
		return r.notYet(s.From.TimestampBy.Pos(), "an expression behind TIMESTAMP BY")
	}
	plan.TimestampBy = c.Path[0]
	return nil
}

func (r *reader) groupBy(plan *Plan, s *sql.Select) error {
	for _, k := range s.GroupBy {
		c, err := r.column(k, "an expression in GROUP BY")
		if err != nil {
			return err
		}
		if slices.Contains(plan.KeyNames, c) {
			return r.src.ErrorAt(k.Pos(), "GROUP BY names %s twice", c)
		}
		plan.KeyNames = append(plan.KeyNames, c)
	}
	if len(plan.KeyNames) == 0 {
		return r.src.ErrorAt(s.GroupAt, "GROUP BY needs the hub's key columns").WithHint("%s", shape)
	}
	w := s.Windows[0]
	switch {
	case len(s.Windows) > 1 || w.Named:
		return r.notYet(w.At, "Windows()")
	case w.Kind != sql.Tumbling && w.Kind != sql.Hopping:
		return r.notYet(w.At, "%s", w.Kind)
	case w.Offset != 0:
		return r.notYet(w.At, "a window with an offset")
	case sql.Day%w.Hop != 0:
		return r.src.ErrorAt(w.At, "a window of %v does not divide a day", w.Hop).WithHint("windows end at fixed times of the day: use for example 5 seconds, 15 minutes or 6 hours")
	case w.Size > sql.Day: // the windows of a partition are kept in memory
		return r.notYet(w.At, "a window of more than a day")
	case w.Hop > w.Size:
		return r.notYet(w.At, "a hop that is longer than the window")
	case w.Size/w.Hop > maxOverlap:
		return r.src.ErrorAt(w.At, "each reading would belong to %d windows, more than %d", w.Size/w.Hop, maxOverlap).WithHint("use a longer hop")
	}
	plan.Window, plan.Hop = w.Size, w.Hop
	return nil
}

// column returns the name of a plain column.
func (r *reader) column(x sql.Expr, what string) (string, error) {
	if c, ok := x.(*sql.Column); ok && len(c.Path) == 1 {
		return c.Path[0], nil
	}
	return "", r.notYet(x.Pos(), "%s", what)
}

// selected reads the SELECT list and checks it against the rest.
func (r *reader) selected(plan *Plan, s *sql.Select) error {
	names, keys := map[string]bool{}, map[string]bool{}
	for _, it := range s.Items {
		name := it.Name
		switch x := it.Expr.(type) {
		case *sql.Stamp:
			if plan.StampName != "" {
				return r.src.ErrorAt(it.At, "System.Timestamp() is selected twice")
			}
			plan.StampName = name
		case *sql.Call:
			a, err := r.aggregate(plan, x)
			if err != nil {
				return err
			}
			a.Name = name
			plan.Aggregates = append(plan.Aggregates, a)
		default:
			c, err := r.column(x, "an expression in SELECT")
			switch {
			case err != nil:
				return err
			case !slices.Contains(plan.KeyNames, c):
				return r.src.ErrorAt(it.At, "%s is neither aggregated nor in GROUP BY", c).WithHint("write for example AVG(%s) AS %s", c, c)
			case name != "" && name != c:
				return r.src.ErrorAt(it.At, "key columns keep their names").WithHint("write %s without AS", c)
			}
			name, keys[c] = c, true
		}
		if name == "" {
			return r.src.ErrorAt(it.At, "the column has no name").WithHint("name the column with AS")
		}
		if names[name] {
			return r.src.ErrorAt(it.At, "the column %s is selected twice", name)
		}
		names[name] = true
	}
	return r.complete(plan, s, keys)
}

// complete refuses a SELECT list that lacks the time, a key, or any aggregate.
func (r *reader) complete(plan *Plan, s *sql.Select, keys map[string]bool) error {
	missing := ""
	switch {
	case plan.StampName == "":
		missing = "System.Timestamp() AS " + plan.TimestampBy
	case len(plan.Aggregates) == 0:
		missing = "an aggregate such as AVG(Value) AS Value"
	}
	for _, k := range plan.KeyNames {
		if !keys[k] {
			missing = "the key column " + k
		}
	}
	if missing != "" {
		return r.src.ErrorAt(s.Items[0].At, "the SELECT list lacks %s", missing).WithHint("%s", shape)
	}
	return nil
}

func (r *reader) aggregate(plan *Plan, x *sql.Call) (Aggregate, error) {
	a := Aggregate{Func: strings.ToLower(x.Name)}
	if !slices.Contains(functions, a.Func) || x.Distinct || x.Over != nil {
		return a, r.notYet(x.At, "the function %s in this form", x.Name)
	}
	if a.Func == "count" && (x.Star || len(x.Args) == 0) {
		return a, nil
	}
	if len(x.Args) != 1 {
		return a, r.src.ErrorAt(x.At, "%s needs one column", x.Name)
	}
	c, err := r.column(x.Args[0], "an aggregate of an expression")
	if err == nil && slices.Contains(plan.KeyNames, c) && a.Func != "count" {
		return a, r.src.ErrorAt(x.At, "%s is a key column, and keys are text", c)
	}
	a.Column = c
	return a, err
}

// condition reads a condition that is evaluated over columns.
func (r *reader) condition(x sql.Expr) (condition, error) {
	switch x := x.(type) {
	case *sql.Binary:
		if x.Op == "AND" || x.Op == "OR" {
			l, err := r.condition(x.L)
			if err != nil {
				return nil, err
			}
			m, err := r.condition(x.R)
			if x.Op == "AND" {
				return allOf{l, m}, err
			}
			return anyOf{l, m}, err
		}
		op, ok := sql.Comparisons[x.Op]
		if !ok {
			break
		}
		l, err := r.operand(x.L)
		if err != nil {
			return nil, err
		}
		m, err := r.operand(x.R)
		return compare{l, m, op}, err
	case *sql.Unary:
		if x.Op == "NOT" {
			c, err := r.condition(x.X)
			return negation{c}, err
		}
	case *sql.IsNull:
		o, err := r.operand(x.X)
		return isNull{o, x.Not}, err
	case *sql.Between:
		c, err := r.condition(&sql.Binary{At: x.At, Op: "AND", L: &sql.Binary{At: x.At, Op: ">=", L: x.X, R: x.Low}, R: &sql.Binary{At: x.At, Op: "<=", L: x.X, R: x.High}})
		return negated(c, x.Not), err
	case *sql.In:
		var any anyOf
		for _, y := range x.List {
			c, err := r.condition(&sql.Binary{At: x.At, Op: "=", L: x.X, R: y})
			if err != nil {
				return nil, err
			}
			any = append(any, c)
		}
		return negated(any, x.Not), nil
	}
	return nil, r.notYet(x.Pos(), "this condition").WithHint("a server's WHERE takes =, <>, <, <=, >, >=, BETWEEN, IN, IS NULL, AND, OR, NOT; fleetscore query test runs the whole language over files")
}

func negated(c condition, not bool) condition {
	if not {
		return negation{c}
	}
	return c
}

func (r *reader) operand(x sql.Expr) (operand, error) {
	switch x := x.(type) {
	case *sql.Column:
		c, err := r.column(x, "a field of a record")
		return operand{kind: columnOperand, text: c}, err
	case *sql.Literal:
		if f, ok := x.Value.AsFloat(); ok && x.Value.Type() != value.Text {
			return operand{kind: numberOperand, number: f}, nil
		}
		if x.Value.Type() == value.Text {
			return operand{kind: textOperand, text: x.Value.Text()}, nil
		}
		return operand{}, nil
	}
	return operand{}, r.notYet(x.Pos(), "an expression in WHERE")
}

// String describes the plan in a line, for logs.
func (p *Plan) String() string {
	return fmt.Sprintf("%s from %s over %s by %s", p.Into, p.From, p.Window, strings.Join(p.KeyNames, ", "))
}
