package query

import (
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/stream"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// General is a query that package stream runs, because it is more than a filter and
// aggregates over tumbling or hopping windows.
type General struct {
	Plan       *stream.Plan
	Values     []string // value columns of the dataset, in the order of SELECT
	Numbers    []string // columns of readings of which it computes sums and the like
	References []string // names of the reference data that it joins with
	Over       bool     // each key has a watermark of its own, by TIMESTAMP BY … OVER
	Merged     bool     // its groups have readings of several of the hub's keys, which may lie in different partitions
	Mixes      bool     // the dataset's keys aren't those of the hub
}

// judge finds out whether the rows of a query depend on the readings of one key of the hub alone, so
// that each partition can be read by itself, and whether they fit a dataset: one row per key and time,
// with numbers. The dataset's keys are the groups of the rows; rows that aren't grouped are those of
// sensors.
type judge struct {
	*reader
	script *sql.Script
	key    []string // of the hub
	time   string   // behind TIMESTAMP BY; empty before the first
	from   string
	over   bool // OVER stands behind it
	overAt int
	merged bool                // rows depend on the readings of several keys
	steps  map[string]*columns // in lower case
	inputs []stream.Input
}

// columns are those of a SELECT, or of an input.
type columns struct {
	list   []column
	open   bool    // besides, all columns of the hub, under their names
	groups []group // what rows with the same time differ in
}

// group is what stands in GROUP BY.
type group struct {
	name string // of a column; empty for another expression
	at   int
}

type column struct {
	name  string
	key   int  // of the hub's key columns, unchanged; -1 if it is none of them
	group int  // of the groups; -1 if it is none of them
	fixed bool // a text that is the same in all rows
	stamp bool
	at    int
}

// find is the column with a name; none of them has key and group -1.
func (c *columns) find(name string, key []string) column {
	for _, x := range c.list {
		if strings.EqualFold(x.name, name) {
			return x
		}
	}
	at := -1
	if c.open {
		at = slices.IndexFunc(key, func(k string) bool { return strings.EqualFold(k, name) })
	}
	return column{name: name, key: at, group: at}
}

// general reads a script with one output.
func (r *reader) general(text string, script *sql.Script, key []string) (*Plan, error) {
	compiled, err := stream.Compile(script)
	if err != nil {
		return nil, err
	}
	for _, t := range script.Tables {
		for _, c := range t.Columns {
			if slices.ContainsFunc(key, func(k string) bool { return strings.EqualFold(k, c.Name) }) && c.Type != value.Text {
				return nil, r.src.ErrorAt(c.At, "the key column %s is a %s, and keys are texts", c.Name, c.Type).WithHint("declare it as nvarchar(max)")
			}
		}
	}
	j := &judge{reader: r, script: script, key: key, steps: map[string]*columns{}, inputs: compiled.Inputs}
	for _, st := range script.Steps {
		if j.steps[strings.ToLower(st.Name)], err = j.union(st.Query, false); err != nil {
			return nil, err
		}
	}
	plan := &Plan{SQL: text, General: &General{Plan: compiled, Numbers: numbers(script)}, Window: compiled.Horizon()}
	s := script.Statements[0]
	out, err := j.union(s, true)
	if err != nil {
		return nil, err
	}
	if err := j.dataset(plan, s, out); err != nil {
		return nil, err
	}
	streams := 0
	for _, in := range compiled.Inputs {
		if in.Reference {
			plan.General.References = append(plan.General.References, in.Name)
		} else if streams++; streams > 1 {
			return nil, j.notYet(in.At, "two inputs, or one in two spellings,")
		}
	}
	plan.From, plan.TimestampBy, plan.Into, plan.General.Over, plan.General.Merged = j.from, j.time, compiled.Outputs[0], j.over, j.merged
	if j.over && j.merged {
		return nil, j.src.ErrorAt(j.overAt, "OVER doesn't go with sessions or functions that look at the readings of several keys").WithHint("write OVER (PARTITION BY %s …) there, or leave TIMESTAMP BY … OVER out", strings.Join(key, ", "))
	}
	if plan.General.Mixes = j.merged || !slices.Equal(plan.KeyNames, key); plan.General.Mixes {
		compiled.TextKeys()
	}
	return plan, nil
}

func (j *judge) union(s *sql.Select, output bool) (*columns, error) {
	first, err := j.selected(s, output)
	if err != nil {
		return nil, err
	}
	for u := s.Union; u != nil; u = u.Union {
		next, err := j.selected(u, output)
		if err != nil {
			return nil, err
		}
		if first.open || next.open {
			return nil, j.notYet(u.At, "UNION with SELECT *")
		}
		for i := range first.list {
			if a, b := first.list[i], next.list[i]; a.key != b.key || a.stamp != b.stamp || a.fixed != b.fixed || (a.group < 0) != (b.group < 0) {
				return nil, j.src.ErrorAt(b.at, "%s stands where the first query of the UNION has %s", b.name, a.name).WithHint("name System.Timestamp(), the key columns and what is in GROUP BY at the same places in each of the queries")
			}
		}
	}
	return first, nil
}

// selected judges one SELECT and returns its columns.
func (j *judge) selected(s *sql.Select, output bool) (*columns, error) {
	for _, join := range s.Joins {
		if !slices.ContainsFunc(j.inputs, func(in stream.Input) bool { return in.Reference && in.Name == join.Name && join.Query == nil }) {
			return nil, j.notYet(join.At, "a JOIN with anything but reference data")
		}
	}
	from, err := j.source(s.From)
	if err != nil {
		return nil, err
	}
	if s.Grouped {
		if err := j.grouped(s, from, output); err != nil {
			return nil, err
		}
	}
	parts := []sql.Expr{s.Where, s.Having}
	for _, it := range s.Items {
		parts = append(parts, it.Expr)
	}
	for _, x := range parts {
		j.lookBack(x, s, from)
	}
	out := &columns{groups: from.groups}
	if s.Grouped {
		out.groups = nil
		for _, x := range s.GroupBy {
			g := group{at: x.Pos()}
			if c, ok := x.(*sql.Column); ok {
				g.name = c.Path[len(c.Path)-1]
			}
			out.groups = append(out.groups, g)
		}
	}
	for _, it := range s.Items {
		c := column{name: it.Name, key: -1, group: -1, at: it.At}
		switch x := it.Expr.(type) {
		case nil: // a star
			if output {
				return nil, j.src.ErrorAt(it.At, "SELECT * into a dataset is not possible, because its columns must be known before the readings").WithHint("name the columns")
			}
			if len(it.Of) > 1 || len(it.Of) == 1 && !strings.EqualFold(it.Of[0], s.From.Alias) {
				return nil, j.notYet(it.At, "%s.*, whose columns might be called like a key column,", strings.Join(it.Of, "."))
			}
			out.list, out.open = append(out.list, from.list...), out.open || from.open
			continue
		case *sql.Stamp:
			c.stamp = true
		case *sql.Literal:
			c.fixed = x.Value.Type() == value.Text
		case *sql.Column:
			was := j.column(x, s, from)
			c.key, c.group, c.fixed = was.key, was.group, was.fixed
			if c.name == "" {
				c.name = x.Path[len(x.Path)-1]
			}
		}
		if s.Grouped {
			c.group = slices.IndexFunc(s.GroupBy, func(k sql.Expr) bool { return j.isKey(it.Expr, k) })
		}
		out.list = append(out.list, c)
	}
	return out, nil
}

// column is what a column of the input of FROM is; of several inputs with such a column, that of FROM.
func (j *judge) column(c *sql.Column, s *sql.Select, from *columns) column {
	switch {
	case len(c.Path) == 1:
		return from.find(c.Path[0], j.key)
	case len(c.Path) == 2 && strings.EqualFold(c.Path[0], s.From.Alias):
		return from.find(c.Path[1], j.key)
	}
	return column{key: -1, group: -1}
}

// isKey reports whether an expression of SELECT is one of GROUP BY; a column may have its input's name in one of them.
func (j *judge) isKey(x, k sql.Expr) bool {
	a, b := sql.Format(x), sql.Format(k)
	_, plain := x.(*sql.Column)
	return a == b || plain && (strings.HasSuffix(a, "."+b) || strings.HasSuffix(b, "."+a))
}

// hubKey is the hub's key column that an expression is; -1 if it is none.
func (j *judge) hubKey(x sql.Expr, s *sql.Select, from *columns) int {
	if c, ok := x.(*sql.Column); ok {
		return j.column(c, s, from).key
	}
	return -1
}

// lacking is a key column of the hub that isn't among expressions; empty if all are.
func (j *judge) lacking(list []sql.Expr, s *sql.Select, from *columns) string {
	has := make([]bool, len(j.key))
	for _, x := range list {
		if k := j.hubKey(x, s, from); k >= 0 {
			has[k] = true
		}
	}
	if i := slices.Index(has, false); i >= 0 {
		return j.key[i]
	}
	return ""
}

func (j *judge) source(in sql.Input) (*columns, error) {
	if in.Query != nil {
		return j.union(in.Query, false)
	}
	if c, ok := j.steps[strings.ToLower(in.Name)]; ok {
		return c, nil
	}
	if in.TimestampBy == nil {
		return nil, j.src.ErrorAt(in.At, "%s needs TIMESTAMP BY behind it", in.Name).WithHint("%s", shape)
	}
	c, ok := in.TimestampBy.(*sql.Column)
	if !ok || len(c.Path) > 1 {
		return nil, j.notYet(in.TimestampBy.Pos(), "an expression behind TIMESTAMP BY")
	}
	if j.time != "" && (j.time != c.Path[0] || j.from != in.Name) {
		return nil, j.notYet(in.At, "two inputs, or two columns behind TIMESTAMP BY,")
	}
	if err := j.lines(in, j.time == ""); err != nil {
		return nil, err
	}
	j.time, j.from = c.Path[0], in.Name
	out := &columns{open: true}
	for _, k := range j.key {
		out.groups = append(out.groups, group{name: k})
	}
	return out, nil
}

// lines judges OVER: a watermark of its own can have what lies in one partition, which is a key of the hub.
func (j *judge) lines(in sql.Input, first bool) error {
	if !first && j.over != (len(in.Over) > 0) || !first && j.over && len(in.Over) != len(j.key) {
		return j.src.ErrorAt(in.At, "%s stands with OVER and without it", in.Name).WithHint("write TIMESTAMP BY … OVER %s behind each %s", strings.Join(j.key, ", "), in.Name)
	}
	j.over = len(in.Over) > 0
	if !j.over {
		return nil
	}
	j.overAt = in.Over[0].Pos()
	s, hub := &sql.Select{From: in}, &columns{open: true}
	for i, x := range in.Over {
		if j.hubKey(x, s, hub) != i || len(in.Over) > len(j.key) {
			return j.src.ErrorAt(x.Pos(), "behind OVER a server takes the hub's key columns, in their order").WithHint("write OVER %s", strings.Join(j.key, ", "))
		}
	}
	if k := j.lacking(in.Over, s, hub); k != "" {
		return j.src.ErrorAt(in.Over[0].Pos(), "OVER lacks the key column %s: the readings of different keys may lie in different partitions of the hub", k).WithHint("write OVER %s", strings.Join(j.key, ", "))
	}
	return nil
}

// grouped judges GROUP BY, and finds out whether groups or sessions mix the keys of the hub.
func (j *judge) grouped(s *sql.Select, from *columns, output bool) error {
	j.merged = j.merged || j.lacking(s.GroupBy, s, from) != ""
	for _, w := range s.Windows {
		j.merged = j.merged || w.Kind == sql.Session && j.lacking(w.Over, s, from) != ""
	}
	if !output {
		return nil
	}
	if len(s.Windows) > 1 {
		return j.src.ErrorAt(s.Windows[1].At, "several windows in one dataset would give a key several rows with the same time").
			WithHint("write the windows in a step, WITH step AS (SELECT System.Window().Id AS Id, …), and then SELECT … INTO dataset FROM step WHERE Id = 'name' for each")
	}
	for _, x := range s.GroupBy {
		if _, ok := x.(*sql.Stamp); ok {
			return j.src.ErrorAt(x.Pos(), "System.Timestamp() beside a window would give a key several rows with the same time").WithHint("leave it out, or the window")
		}
	}
	return nil
}

// lookBack finds out whether functions that look back from an event look at the events of other keys too.
func (j *judge) lookBack(x sql.Expr, s *sql.Select, from *columns) {
	if x == nil {
		return
	}
	if c, ok := x.(*sql.Call); ok {
		first := strings.EqualFold(c.Name, "isfirst")
		if first || c.Over != nil && c.Over.Limit > 0 {
			var by []sql.Expr
			if c.Over != nil {
				by = c.Over.PartitionBy
			}
			j.merged = j.merged || j.lacking(by, s, from) != ""
		}
	}
	for _, y := range sql.Children(x) {
		j.lookBack(y, s, from)
	}
}

// dataset checks that the columns of a statement are those of a dataset.
func (j *judge) dataset(plan *Plan, s *sql.Select, out *columns) error {
	has := make([]bool, len(out.groups))
	var keys, values []string
	stamp, sensors := "", 0
	for i, c := range out.list {
		switch {
		case c.name == "":
			return j.src.ErrorAt(c.at, "the column has no name").WithHint("name the column with AS")
		case c.stamp && stamp != "":
			return j.src.ErrorAt(c.at, "System.Timestamp() is selected twice")
		case c.stamp:
			stamp = c.name
		case c.group >= 0 && has[c.group]:
			return j.src.ErrorAt(c.at, "the key column %s is selected twice", c.name)
		case c.group >= 0 && c.key >= 0 && c.name != j.key[c.key]:
			return j.src.ErrorAt(c.at, "key columns keep their names").WithHint("write %s without AS", j.key[c.key])
		case c.group >= 0:
			has[c.group] = true
			keys = append(keys, c.name)
			if c.key >= 0 {
				sensors++
			}
		case c.fixed:
			keys = append(keys, c.name)
		default:
			if t := plan.General.typeOf(i); t != value.Any {
				return j.src.ErrorAt(c.at, "%s is a %s, and a dataset has numbers besides its time and key", c.name, t).WithHint("CASE WHEN … THEN 1 ELSE 0 END makes a number of a condition; what is in GROUP BY is part of the key")
			}
			values = append(values, c.name)
		}
	}
	missing := ""
	switch i := slices.Index(has, false); {
	case stamp == "":
		missing = "System.Timestamp() AS TS"
	case i >= 0 && (s.Grouped || sensors < len(j.key)): // of a step's rows with the same key and time the last one counts
		if out.groups[i].name == "" {
			return j.src.ErrorAt(out.groups[i].at, "the SELECT list lacks this expression of GROUP BY, which is part of the dataset's key").WithHint("select it too, with a name behind AS")
		}
		missing = "the key column " + out.groups[i].name
	case len(values) == 0:
		missing = "an aggregate such as AVG(Value) AS Value"
	case len(keys) == 0:
		return j.src.ErrorAt(s.Items[0].At, "the rows have no key: GROUP BY has a window only").WithHint("a dataset has rows of keys: select a text that is the same in all rows, such as 'all' AS Fleet")
	}
	if missing != "" {
		return j.src.ErrorAt(s.Items[0].At, "the SELECT list lacks %s", missing).WithHint("%s", shape)
	}
	if sensors == len(keys) && sensors == len(j.key) {
		keys = j.key // in the hub's order
	}
	plan.StampName, plan.KeyNames, plan.General.Values = stamp, keys, values
	return nil
}

// typeOf is the type of a column of the output that holds no numbers; Any if it does, or
// may do.
func (g *General) typeOf(column int) value.Type {
	for _, q := range g.Plan.Queries {
		if q.Output == "" {
			continue
		}
		switch t := q.Columns[column].Type; t {
		case value.Text, value.Datetime, value.Array, value.RecordType:
			return t
		}
	}
	return value.Any
}

// numbers are the columns of which a script computes sums and the like.
func numbers(script *sql.Script) (out []string) {
	var look func(x sql.Expr)
	look = func(x sql.Expr) {
		if x == nil {
			return
		}
		if c, ok := x.(*sql.Call); ok && len(c.Args) == 1 && slices.Contains(arithmetic, strings.ToLower(c.Name)) {
			if col, ok := c.Args[0].(*sql.Column); ok && len(col.Path) == 1 && !slices.Contains(out, col.Path[0]) {
				out = append(out, col.Path[0])
			}
		}
		for _, y := range sql.Children(x) {
			look(y)
		}
	}
	queries := slices.Clone(script.Statements)
	for _, st := range script.Steps {
		queries = append(queries, st.Query)
	}
	for _, q := range queries {
		for ; q != nil; q = q.Union {
			for _, it := range q.Items {
				look(it.Expr)
			}
			look(q.Having)
		}
	}
	return out
}

var arithmetic = []string{"avg", "sum", "stdev", "stdevp", "var", "varp"}
