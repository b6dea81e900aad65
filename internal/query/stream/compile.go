package stream

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/expr"
	"github.com/fleetscore/fleetscore/internal/query/sql"
)

// maxOverlap bounds how many hopping windows one event may belong to.
const maxOverlap = 10000

// query compiles one SELECT and returns its place in the plan.
func (c *compiler) query(s *sql.Select, name string) (int, error) {
	q := &Query{Name: name}
	if name == "" {
		name = "a statement"
	}
	sources, names, upstream, err := c.sources(s, q)
	if err != nil {
		return 0, err
	}
	scope := &expr.Scope{SQL: c.plan.SQL, Sources: sources, Uses: c.uses(names)}
	if err := c.joins(s, q, scope); err != nil {
		return 0, err
	}
	if !slices.ContainsFunc(q.joins, func(j join) bool { return !j.reference }) {
		scope.Analytics = &q.Analytics // they see the events of FROM, before a JOIN with reference data
	}
	if s.Where != nil {
		scope.Clause = "WHERE"
		w, err := scope.Condition(s.Where)
		if err != nil {
			return 0, err
		}
		q.where = &w
	}
	out := scope
	if s.Grouped {
		if out, err = c.groupBy(s, q, scope); err != nil {
			return 0, err
		}
	}
	out.Clause = "SELECT"
	if err := c.items(s, q, out); err != nil {
		return 0, err
	}
	if s.Having != nil {
		having := *out
		having.Clause, having.Aliases = "HAVING", map[string]sql.Expr{}
		for _, it := range s.Items {
			if it.Name != "" && s.Grouped {
				having.Aliases[strings.ToLower(it.Name)] = it.Expr
			}
		}
		h, err := having.Condition(s.Having)
		if err != nil {
			return 0, err
		}
		q.having = &h
	}
	at := len(c.plan.Queries)
	c.plan.Queries = append(c.plan.Queries, q)
	for port, list := range upstream {
		for _, u := range list {
			c.plan.Queries[u].readers = append(c.plan.Queries[u].readers, reader{at, port})
		}
	}
	return at, nil
}

// sources resolves FROM and JOIN: what expressions may name, the names of inputs, and
// which queries each source reads.
func (c *compiler) sources(s *sql.Select, q *Query) (sources []expr.Source, names []string, upstream [][]int, err error) {
	list := []sql.Input{s.From}
	references := []bool{false}
	for _, j := range s.Joins {
		_, isStep := c.steps[strings.ToLower(j.Name)]
		list, references = append(list, j.Input), append(references, !isStep && j.Query == nil && !bounded(j.On))
	}
	for i, in := range list {
		for _, o := range list[:i] {
			if strings.EqualFold(o.Alias, in.Alias) {
				return nil, nil, nil, c.plan.SQL.ErrorAt(in.At, "two inputs are called %s", in.Alias).WithHint("give one of them another name: %s AS other", in.Name)
			}
		}
		if references[i] && in.TimestampBy != nil {
			return nil, nil, nil, c.plan.SQL.ErrorAt(s.Joins[i-1].On.Pos(), "this JOIN needs a bound of time").WithHint("add AND DATEDIFF(second, %s, %s) BETWEEN 0 AND 60; only reference data, which has no TIMESTAMP BY, is joined without", list[0].Alias, in.Alias)
		}
		if references[i] && len(s.From.Over) > 0 {
			return nil, nil, nil, c.plan.SQL.ErrorAt(in.At, "reference data can't be joined to an input with TIMESTAMP BY … OVER")
		}
		src, up, err := c.source(in, references[i], q)
		if err != nil {
			return nil, nil, nil, err
		}
		sources, upstream = append(sources, src), append(upstream, up)
		if names = append(names, in.Name); len(up) > 0 {
			names[i] = ""
		}
	}
	return sources, names, upstream, nil
}

func (c *compiler) source(in sql.Input, reference bool, q *Query) (expr.Source, []int, error) {
	up, isStep := c.steps[strings.ToLower(in.Name)]
	if in.Query != nil {
		var err error
		if up, err = c.union(in.Query, "subquery "+in.Alias); err != nil {
			return expr.Source{}, nil, err
		}
		isStep = true
	}
	if !isStep {
		i, err := c.input(in, reference)
		if err != nil {
			return expr.Source{}, nil, err
		}
		q.Sources = append(q.Sources, Source{Input: i, Query: -1, Alias: in.Alias})
		return sourceOf(&c.plan.Inputs[i], in.Alias), nil, nil
	}
	if in.TimestampBy != nil {
		return expr.Source{}, nil, c.plan.SQL.ErrorAt(in.TimestampBy.Pos(), "TIMESTAMP BY belongs to an input, and %s is a step", in.Name).WithHint("write it inside of the step, behind the input")
	}
	src := expr.Source{Alias: in.Alias, Columns: c.plan.Queries[up[0]].Columns}
	for _, u := range up {
		src.Open = src.Open || c.plan.Queries[u].Open
	}
	q.Sources = append(q.Sources, Source{Input: -1, Query: up[0], Alias: in.Alias})
	return src, up, nil
}

// groupBy compiles the keys and windows, and returns the scope of what follows.
func (c *compiler) groupBy(s *sql.Select, q *Query, rows *expr.Scope) (*expr.Scope, error) {
	rows.Clause = "GROUP BY"
	g := &expr.Group{Rows: rows}
	for _, k := range s.GroupBy {
		if err := c.aliasAsKey(s, k); err != nil {
			return nil, err
		}
		x, err := rows.Compile(k)
		if err != nil {
			return nil, err
		}
		form := sql.Format(k)
		q.keys, g.Keys, g.KeyTypes = append(q.keys, x), append(g.Keys, form), append(g.KeyTypes, x.Type)
		q.Keys = append(q.Keys, c.script.Written(k))
	}
	for _, o := range s.From.Over {
		if form := sql.Format(o); !slices.ContainsFunc(g.Keys, func(k string) bool {
			return k == form || strings.HasSuffix(k, "."+form) || strings.HasSuffix(form, "."+k)
		}) {
			return nil, c.plan.SQL.ErrorAt(s.GroupAt, "%s stands behind OVER, so that GROUP BY needs it too", c.script.Written(o)).WithHint("add %s to GROUP BY", c.script.Written(o))
		}
	}
	for _, w := range s.Windows {
		over, err := rows.All(w.Over)
		if err != nil {
			return nil, err
		}
		if w.Kind == sql.Hopping && w.Size/w.Hop > maxOverlap {
			return nil, c.plan.SQL.ErrorAt(w.At, "each event would belong to %d windows, more than %d", w.Size/w.Hop, maxOverlap).WithHint("use a longer hop")
		}
		q.session = append(q.session, over)
	}
	q.Windows, q.group = s.Windows, g
	return &expr.Scope{SQL: c.plan.SQL, Sources: rows.Sources, Group: g}, nil
}

// aliasAsKey refuses a GROUP BY of a name that SELECT gives to an expression.
func (c *compiler) aliasAsKey(s *sql.Select, k sql.Expr) error {
	col, ok := k.(*sql.Column)
	if !ok || len(col.Path) != 1 {
		return nil
	}
	for _, it := range s.Items {
		_, plain := it.Expr.(*sql.Column)
		if it.Expr == nil || plain || !strings.EqualFold(it.Name, col.Path[0]) || names(it.Expr, sql.Format(k)) {
			continue
		}
		return c.plan.SQL.ErrorAt(col.At, "%s is a name that SELECT gives; GROUP BY takes columns of the input and expressions", col.Path[0]).WithHint("write the expression itself: GROUP BY %s", c.script.Written(it.Expr))
	}
	return nil
}

// names reports whether a column occurs in an expression.
func names(x sql.Expr, form string) bool {
	return sql.Format(x) == form || slices.ContainsFunc(sql.Children(x), func(y sql.Expr) bool { return names(y, form) })
}

// items compiles the SELECT list.
func (c *compiler) items(s *sql.Select, q *Query, scope *expr.Scope) error {
	for _, it := range s.Items {
		if it.Star {
			if err := c.star(s, it, q, scope); err != nil {
				return err
			}
			continue
		}
		x, err := scope.Compile(it.Expr)
		if err != nil {
			return err
		}
		name := it.Name
		if name == "" {
			name = c.unnamed(it.Expr, q)
		}
		if !q.Open && slices.ContainsFunc(q.Columns, func(o expr.Column) bool { return o.Name == name }) {
			if len(s.Items) > 1 && slices.ContainsFunc(s.Items, func(o sql.Item) bool { return o.Star }) {
				continue // a column further left has the name
			}
			return c.plan.SQL.ErrorAt(it.At, "the column %s is selected twice", name).WithHint("give one of them another name with AS")
		}
		q.items = append(q.items, item{expr: x, name: name})
		q.Columns = append(q.Columns, expr.Column{Name: name, Type: x.Type})
	}
	return nil
}

// unnamed is the name of a column without AS: the column's or function's own, with a
// number if that name is taken.
func (c *compiler) unnamed(x sql.Expr, q *Query) string {
	name := fmt.Sprintf("column%d", len(q.items)+1)
	switch x := x.(type) {
	case *sql.Column:
		return x.Path[len(x.Path)-1]
	case *sql.Call:
		name = strings.ToLower(x.Name)
	case *sql.Cast:
		if col, ok := x.X.(*sql.Column); ok {
			name = col.Path[len(col.Path)-1]
		}
	case *sql.Stamp:
		name = "timestamp"
	case *sql.WindowID:
		name = "Id"
	}
	base := name
	for n := 2; slices.ContainsFunc(q.Columns, func(o expr.Column) bool { return o.Name == name }); n++ {
		name = fmt.Sprintf("%s%d", base, n)
	}
	return name
}

// star compiles * and name.*.
func (c *compiler) star(s *sql.Select, it sql.Item, q *Query, scope *expr.Scope) error {
	if s.Grouped {
		return c.plan.SQL.ErrorAt(it.At, "SELECT * is not possible with GROUP BY").WithHint("name the keys, and aggregates such as AVG(Value) AS Value; Collect() gives all rows as an array")
	}
	source := 0
	if len(it.Of) == 0 && len(scope.Sources) > 1 {
		return c.plan.SQL.ErrorAt(it.At, "SELECT * is not possible with JOIN").WithHint("write %s.*", scope.Sources[0].Alias)
	}
	if len(it.Of) > 0 {
		source = slices.IndexFunc(scope.Sources, func(o expr.Source) bool { return strings.EqualFold(o.Alias, it.Of[0]) })
		if source < 0 || len(it.Of) > 1 { // a column with a record
			if len(it.Of) == 1 && len(scope.Sources) > 1 {
				var known []string
				for _, o := range scope.Sources {
					known = append(known, o.Alias)
				}
				err := c.plan.SQL.ErrorAt(it.At, "there is no input %s", it.Of[0])
				if near := fleetscore.Nearest(it.Of[0], known); near != "" {
					return err.WithHint("is %s meant?", near)
				}
			}
			x, err := scope.Compile(&sql.Column{At: it.At, Path: it.Of})
			q.items, q.Open = append(q.items, item{star: true, source: -1, expr: x}), true
			return err
		}
	}
	q.items = append(q.items, item{star: true, source: source})
	q.Open = q.Open || scope.Sources[source].Open
	for _, col := range scope.Sources[source].Columns {
		if !slices.ContainsFunc(q.Columns, func(o expr.Column) bool { return strings.EqualFold(o.Name, col.Name) }) {
			q.Columns = append(q.Columns, col)
		}
	}
	return nil
}
