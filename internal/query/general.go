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
}

// judge finds out whether the rows of a query depend on the readings of one key alone, so
// that each partition of a hub can be read by itself, and whether they fit a dataset: one
// row per key and time, with numbers.
type judge struct {
	*reader
	script *sql.Script
	key    []string // of the hub
	time   string   // behind TIMESTAMP BY; empty before the first
	from   string
	over   bool                // OVER stands behind it
	steps  map[string]*columns // in lower case
	inputs []stream.Input
}

// columns are those of a SELECT, or of an input.
type columns struct {
	list []column
	open bool // besides, all columns of the hub, under their names
}

type column struct {
	name  string
	key   int // of the hub's key columns, unchanged; -1 if it is none of them
	stamp bool
	at    int
}

// keyOf is the hub's key column that a column is; -1 if it is none.
func (c *columns) keyOf(name string, key []string) int {
	for _, x := range c.list {
		if strings.EqualFold(x.name, name) {
			return x.key
		}
	}
	if !c.open {
		return -1
	}
	return slices.IndexFunc(key, func(k string) bool { return strings.EqualFold(k, name) })
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
	plan := &Plan{SQL: text, KeyNames: key, General: &General{Plan: compiled, Numbers: numbers(script)}, Window: compiled.Horizon()}
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
	plan.From, plan.TimestampBy, plan.Into, plan.General.Over = j.from, j.time, compiled.Outputs[0], j.over
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
			if a, b := first.list[i], next.list[i]; a.key != b.key || a.stamp != b.stamp {
				return nil, j.src.ErrorAt(b.at, "%s stands where the first query of the UNION has %s", b.name, a.name).WithHint("name System.Timestamp() and the key columns at the same places in each of the queries")
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
		if err := j.lookBack(x, s, from); err != nil {
			return nil, err
		}
	}
	out := &columns{}
	for _, it := range s.Items {
		c := column{name: it.Name, key: -1, at: it.At}
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
		case *sql.Column:
			c.key = j.hubKey(x, s, from)
			if c.name == "" {
				c.name = x.Path[len(x.Path)-1]
			}
		}
		out.list = append(out.list, c)
	}
	return out, nil
}

// hubKey is the hub's key column that an expression is; -1 if it is none.
func (j *judge) hubKey(x sql.Expr, s *sql.Select, from *columns) int {
	c, ok := x.(*sql.Column)
	switch {
	case !ok:
		return -1
	case len(c.Path) == 1: // of several inputs with such a column, that of FROM
		return from.keyOf(c.Path[0], j.key)
	case len(c.Path) == 2 && strings.EqualFold(c.Path[0], s.From.Alias):
		return from.keyOf(c.Path[1], j.key)
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
	return &columns{open: true}, nil
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

// grouped judges GROUP BY: groups and sessions must not mix the keys of the hub, whose
// readings lie in different partitions.
func (j *judge) grouped(s *sql.Select, from *columns, output bool) error {
	if k := j.lacking(s.GroupBy, s, from); k != "" {
		return j.src.ErrorAt(s.GroupAt, "GROUP BY lacks the key column %s", k).WithHint("a server groups by the hub's key columns, which are %s, and a window", strings.Join(j.key, ", "))
	}
	for _, w := range s.Windows {
		if k := j.lacking(w.Over, s, from); w.Kind == sql.Session && k != "" {
			return j.notYet(w.At, "a session of several keys").WithHint("write SessionWindow(…) OVER (PARTITION BY %s)", strings.Join(j.key, ", "))
		}
	}
	if !output {
		return nil
	}
	if len(s.Windows) > 1 {
		return j.src.ErrorAt(s.Windows[1].At, "several windows in one dataset would give a key several rows with the same time").
			WithHint("write the windows in a step, WITH step AS (SELECT System.Window().Id AS Id, …), and then SELECT … INTO dataset FROM step WHERE Id = 'name' for each")
	}
	for _, x := range s.GroupBy {
		if j.hubKey(x, s, from) < 0 {
			return j.src.ErrorAt(x.Pos(), "a further column in GROUP BY would give a key several rows with the same time").WithHint("group by the hub's key columns, which are %s, and a window", strings.Join(j.key, ", "))
		}
	}
	return nil
}

// lookBack judges functions that look back from an event: they must look at the events of
// the same key.
func (j *judge) lookBack(x sql.Expr, s *sql.Select, from *columns) error {
	if x == nil {
		return nil
	}
	if c, ok := x.(*sql.Call); ok {
		first := strings.EqualFold(c.Name, "isfirst")
		if first || c.Over != nil && c.Over.Limit > 0 {
			var by []sql.Expr
			if c.Over != nil {
				by = c.Over.PartitionBy
			}
			if k := j.lacking(by, s, from); k != "" {
				return j.notYet(c.At, "%s over several keys", strings.ToUpper(c.Name)).WithHint("write OVER (PARTITION BY %s …)", strings.Join(j.key, ", "))
			}
		}
	}
	for _, y := range sql.Children(x) {
		if err := j.lookBack(y, s, from); err != nil {
			return err
		}
	}
	return nil
}

// dataset checks that the columns of a statement are those of a dataset.
func (j *judge) dataset(plan *Plan, s *sql.Select, out *columns) error {
	has := make([]bool, len(j.key))
	var values []string
	stamp := ""
	for i, c := range out.list {
		switch {
		case c.name == "":
			return j.src.ErrorAt(c.at, "the column has no name").WithHint("name the column with AS")
		case c.stamp && stamp != "":
			return j.src.ErrorAt(c.at, "System.Timestamp() is selected twice")
		case c.stamp:
			stamp = c.name
		case c.key >= 0 && has[c.key]:
			return j.src.ErrorAt(c.at, "the key column %s is selected twice", j.key[c.key])
		case c.key >= 0 && c.name != j.key[c.key]:
			return j.src.ErrorAt(c.at, "key columns keep their names").WithHint("write %s without AS", j.key[c.key])
		case c.key >= 0:
			has[c.key] = true
		default:
			if t := plan.General.typeOf(i); t != value.Any {
				return j.src.ErrorAt(c.at, "%s is a %s, and a dataset has numbers besides its time and key", c.name, t).WithHint("CASE WHEN … THEN 1 ELSE 0 END makes a number of a condition")
			}
			values = append(values, c.name)
		}
	}
	missing := ""
	switch i := slices.Index(has, false); {
	case stamp == "":
		missing = "System.Timestamp() AS TS"
	case i >= 0:
		missing = "the key column " + j.key[i]
	case len(values) == 0:
		missing = "an aggregate such as AVG(Value) AS Value"
	}
	if missing != "" {
		return j.src.ErrorAt(s.Items[0].At, "the SELECT list lacks %s", missing).WithHint("%s", shape)
	}
	plan.StampName, plan.General.Values = stamp, values
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
