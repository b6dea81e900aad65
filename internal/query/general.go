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
	Timed      bool     // the time of a reading is computed, by an expression behind TIMESTAMP BY
	Over       string   // what has a watermark of its own, by TIMESTAMP BY … OVER, as it is written; empty: nothing
	Lines      bool     // that isn't a key of the hub
	Merged     bool     // its groups, or what has a watermark, have readings of several of the hub's keys, which may lie in different partitions
	Mixes      bool     // the dataset's keys aren't those of the hub
}

// judge finds out whether the rows of a query depend on the readings of one key of the hub alone, so
// that each partition can be read by itself, and whether they fit a dataset: one row per key and time,
// with numbers. The dataset's keys are the groups of the rows; rows that aren't grouped are those of
// sensors.
type judge struct {
	*reader
	script *sql.Script
	key    []string            // of the hub
	first  *sql.Input          // from the hub; nil before it
	merged bool                // rows depend on the readings of several keys
	mixed  int                 // where they depend on several watermarks; 0: they don't
	steps  map[string]*columns // in lower case
	inputs []stream.Input
}

// columns are those of a SELECT, or of an input.
type columns struct {
	list   []column
	open   bool    // besides, all columns of the hub, under their names
	plain  bool    // these are the hub's columns
	groups []group // what rows with the same time differ in
	ofHub  bool    // the groups are those of the hub
}

// group is what stands in GROUP BY.
type group struct {
	name string // of a column; empty for another expression
	at   int
}

type column struct {
	name  string
	key   int  // of the hub's key columns, unchanged; -1 if it is none of them
	over  int  // of what stands behind OVER; -1 if it is none of it
	group int  // of the groups; -1 if it is none of them
	fixed bool // a text that is the same in all rows
	stamp bool
	at    int
}

// find is the column with a name; none of them has key, over and group -1.
func (j *judge) find(c *columns, name string) column {
	for _, x := range c.list {
		if strings.EqualFold(x.name, name) {
			return x
		}
	}
	key, over := -1, -1
	if c.open {
		key = slices.IndexFunc(j.key, func(k string) bool { return strings.EqualFold(k, name) })
		over = slices.IndexFunc(j.over(), func(x sql.Expr) bool { return strings.EqualFold(nameOf(x), name) })
	}
	return column{name: name, key: key, over: over, group: key}
}

// nameOf is the name of a column; empty for another expression.
func nameOf(x sql.Expr) string {
	if c, ok := x.(*sql.Column); ok {
		return c.Path[len(c.Path)-1]
	}
	return ""
}

// over is what stands behind OVER.
func (j *judge) over() []sql.Expr {
	if j.first == nil {
		return nil
	}
	return j.first.Over
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
	if j.mixed > 0 {
		return nil, j.src.ErrorAt(j.mixed, "what looks at several readings needs those of one watermark, and TIMESTAMP BY has OVER %s", j.written()).
			WithHint("write %s in GROUP BY and in OVER (PARTITION BY …) of sessions and of functions that look back, or leave OVER behind TIMESTAMP BY out", j.written())
	}
	plan.From, plan.Into, plan.General.Merged = j.first.Name, compiled.Outputs[0], j.merged
	if plan.TimestampBy = j.time(); plan.TimestampBy == "" {
		plan.General.Timed = true
	}
	plan.General.Over, plan.General.Lines = j.written(), !j.keyIsOver()
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
		first.ofHub = first.ofHub || next.ofHub
		for i := range first.list {
			if first.list[i].over != next.list[i].over {
				first.list[i].over = -1
			}
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
	out := &columns{groups: from.groups, ofHub: from.ofHub && !s.Grouped}
	if s.Grouped {
		out.groups = nil
		for _, x := range s.GroupBy {
			out.groups = append(out.groups, group{nameOf(x), x.Pos()})
		}
	}
	for _, it := range s.Items {
		c := column{name: it.Name, key: -1, over: -1, group: -1, at: it.At}
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
			c.key, c.over, c.group, c.fixed = was.key, was.over, was.group, was.fixed
			if c.name == "" {
				c.name = x.Path[len(x.Path)-1]
			}
		}
		if it.Expr != nil {
			c.over = j.overOf(it.Expr, s, from)
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
		return j.find(from, c.Path[0])
	case len(c.Path) == 2 && strings.EqualFold(c.Path[0], s.From.Alias):
		return j.find(from, c.Path[1])
	}
	return column{key: -1, over: -1, group: -1}
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

// overOf is which of what stands behind OVER an expression is; -1 if it is none of it.
func (j *judge) overOf(x sql.Expr, s *sql.Select, from *columns) int {
	if from.plain {
		return slices.IndexFunc(j.over(), func(o sql.Expr) bool { return j.isKey(x, o) })
	}
	if c, ok := x.(*sql.Column); ok {
		return j.column(c, s, from).over
	}
	return -1
}

// lacks reports whether a key column of the hub isn't among expressions, and notes where something isn't among them that stands
// behind OVER.
func (j *judge) lacks(list []sql.Expr, at int, s *sql.Select, from *columns) bool {
	keys, over := make([]bool, len(j.key)), make([]bool, len(j.over()))
	for _, x := range list {
		if k := j.hubKey(x, s, from); k >= 0 {
			keys[k] = true
		}
		if k := j.overOf(x, s, from); k >= 0 {
			over[k] = true
		}
	}
	if j.mixed == 0 && slices.Contains(over, false) {
		j.mixed = at
	}
	return slices.Contains(keys, false)
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
	switch {
	case j.first == nil:
		j.first = &in
		j.merged = j.merged || len(in.Over) > 0 && !j.keyInOver()
	case j.first.Name != in.Name || sql.Format(j.first.TimestampBy) != sql.Format(in.TimestampBy):
		return nil, j.notYet(in.At, "two inputs, or two times behind TIMESTAMP BY,")
	case !slices.EqualFunc(j.first.Over, in.Over, func(a, b sql.Expr) bool { return sql.Format(a) == sql.Format(b) }):
		return nil, j.src.ErrorAt(in.At, "%s stands with different columns behind OVER, or with OVER and without it", in.Name).WithHint("write the same behind each TIMESTAMP BY")
	}
	out := &columns{open: true, plain: true, ofHub: true}
	for _, k := range j.key {
		out.groups = append(out.groups, group{name: k})
	}
	return out, nil
}

// time is the column behind TIMESTAMP BY; empty for another expression.
func (j *judge) time() string {
	if c, ok := j.first.TimestampBy.(*sql.Column); ok && (len(c.Path) == 1 || len(c.Path) == 2 && strings.EqualFold(c.Path[0], j.first.Alias)) {
		return c.Path[len(c.Path)-1]
	}
	return ""
}

// written is what stands behind OVER, for people.
func (j *judge) written() string {
	var out []string
	for _, x := range j.over() {
		out = append(out, j.script.Written(x))
	}
	return strings.Join(out, ", ")
}

// keyInOver reports whether all key columns of the hub stand behind OVER, so that what has a watermark lies in one partition.
func (j *judge) keyInOver() bool {
	return !slices.ContainsFunc(j.key, func(k string) bool {
		return !slices.ContainsFunc(j.over(), func(x sql.Expr) bool { return strings.EqualFold(nameOf(x), k) })
	})
}

// keyIsOver reports whether the key of the hub is what stands behind OVER, or nothing does.
func (j *judge) keyIsOver() bool {
	return len(j.over()) == 0 || slices.EqualFunc(j.over(), j.key, func(x sql.Expr, k string) bool { return strings.EqualFold(nameOf(x), k) })
}

// grouped judges GROUP BY, and finds out whether groups or sessions mix the keys of the hub.
func (j *judge) grouped(s *sql.Select, from *columns, output bool) error {
	j.merged = j.lacks(s.GroupBy, s.GroupAt, s, from) || j.merged
	for _, w := range s.Windows {
		j.merged = w.Kind == sql.Session && j.lacks(w.Over, w.At, s, from) || j.merged
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
			j.merged = j.lacks(by, c.At, s, from) || j.merged
		}
	}
	for _, y := range sql.Children(x) {
		j.lookBack(y, s, from)
	}
}

// dataset checks that the columns of a statement are those of a dataset.
func (j *judge) dataset(plan *Plan, s *sql.Select, out *columns) error {
	if out.ofHub {
		for _, x := range j.over() {
			if !slices.ContainsFunc(j.key, func(k string) bool { return strings.EqualFold(nameOf(x), k) }) {
				return j.src.ErrorAt(x.Pos(), "rows that aren't grouped have the hub's key, and what stands behind OVER must be part of it").WithHint("write some of %s, or GROUP BY", strings.Join(j.key, ", "))
			}
		}
	}
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
