package expr

import (
	"maps"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// function is a scalar function. Its arguments are described by one letter each: t text,
// n number, i integer, d datetime, a anything, r record, l array. A + repeats the last
// letter. NULL for an argument gives NULL, unless nulls is set.
type function struct {
	args     string
	optional int // how many of the last arguments may be left out
	nulls    bool
	like     bool // the result has the first argument's type
	gives    value.Type
	eval     func(e *call, args []value.Value) value.Value
}

// call is one call of a function at its place in the text.
type call struct {
	sql sql.Source
	at  int
	env *Env
}

func (c *call) fail(format string, args ...any) value.Value {
	return c.env.fail(c.sql.ErrorAt(c.at, format, args...))
}

// otherNames are names in other dialects, and what is meant by them here.
var otherNames = map[string]string{
	"iif": "CASE WHEN … THEN … ELSE … END", "if": "CASE WHEN … THEN … ELSE … END", "isnull": "COALESCE", "ifnull": "COALESCE", "nvl": "COALESCE",
	"now": "System.Timestamp()", "getdate": "System.Timestamp()", "getutcdate": "System.Timestamp()", "current_timestamp": "System.Timestamp()",
	"median": "PERCENTILE_CONT(0.5) OVER (ORDER BY x)", "quantile": "PERCENTILE_CONT(p) OVER (ORDER BY x)", "stddev": "STDEV", "stddev_samp": "STDEV",
	"stddev_pop": "STDEVP", "var_samp": "VAR", "variance": "VAR", "var_pop": "VARP", "length": "LEN", "substr": "SUBSTRING", "instr": "CHARINDEX",
	"mean": "AVG", "average": "AVG", "lastvalue": "LAST", "firstvalue": "FIRST", "total": "SUM", "ceil": "CEILING", "pow": "POWER", "lead": "LAG, on the later event", "first_value": "FIRST", "last_value": "LAST",
	"row_number": "TopOne() or CollectTop(n) OVER (ORDER BY x)", "rank": "TopOne() or CollectTop(n) OVER (ORDER BY x)", "convert": "CAST(x AS type)",
	"date_trunc": "a TumblingWindow in GROUP BY", "dateadd_big": "DATEADD", "to_timestamp": "DATEADD(second, x, '1970-01-01')", "array_agg": "Collect", "arg_max": "TopOne(x) OVER (ORDER BY y DESC)",
	"arg_min":          "TopOne(x) OVER (ORDER BY y ASC)",
	"getarrayelements": "GetArrayElement(array, n)", "anomalydetection_spikeanddip": "a fleet's model", "anomalydetection_changepoint": "a fleet's model", "udf": "the functions in docs/query.md",
}

// call compiles a function.
func (s *Scope) call(x *sql.Call) (Expr, error) {
	name := strings.ToLower(x.Name)
	_, isAggregate := aggregates[name]
	switch {
	case x.Over != nil && x.Over.Limit > 0, name == "lag", name == "isfirst", name == "last" && x.Over != nil:
		return s.analytic(x, name)
	case isAggregate:
		return s.aggregate(x, name)
	}
	f, ok := functions[name]
	if !ok {
		return Expr{}, s.unknown(x, name)
	}
	if x.Over != nil || x.Star || x.Distinct {
		return Expr{}, s.SQL.ErrorAt(x.At, "%s takes neither OVER, * nor DISTINCT", strings.ToUpper(x.Name))
	}
	if strings.HasPrefix(name, "date") && f.args[0] == 'u' {
		return s.date(x, name)
	}
	return s.scalar(x, f)
}

func (s *Scope) unknown(x *sql.Call, name string) error {
	err := s.SQL.ErrorAt(x.At, "the function %s is unknown", x.Name)
	if other, ok := otherNames[name]; ok {
		return err.WithHint("write %s", other)
	}
	if near := fleetscore.Nearest(name, names()); near != "" {
		return err.WithHint("is %s meant?", strings.ToUpper(near))
	}
	return err.WithHint("docs/query.md lists the functions")
}

// names are all functions, in order.
func names() []string {
	out := slices.Collect(maps.Keys(functions))
	for n := range aggregates {
		out = append(out, n)
	}
	out = append(out, "lag", "isfirst", "system.timestamp")
	slices.Sort(out)
	return out
}

var letters = map[byte]struct {
	is   func(value.Type) bool
	name string
}{
	't': {func(t value.Type) bool { return t != value.Array && t != value.RecordType }, "a text"},
	'n': {numeric, "a number"},
	'i': {numeric, "a whole number"},
	'd': {func(t value.Type) bool { return t == value.Datetime || t == value.Text || t == value.Any }, "a datetime"},
	'a': {func(value.Type) bool { return true }, "a value"},
	'r': {func(t value.Type) bool { return t == value.RecordType || t == value.Any }, "a record"},
	'l': {func(t value.Type) bool { return t == value.Array || t == value.Any }, "an array"},
}

// count checks the number of arguments.
func (s *Scope) count(x *sql.Call, least, most int) error {
	switch n := len(x.Args); {
	case n < least:
		return s.SQL.ErrorAt(x.At, "%s needs %d arguments and has %d", strings.ToUpper(x.Name), least, n)
	case n > most:
		return s.SQL.ErrorAt(x.Args[most].Pos(), "%s takes %d arguments and has %d", strings.ToUpper(x.Name), most, n)
	}
	return nil
}

func (s *Scope) scalar(x *sql.Call, f function) (Expr, error) {
	letterOf := func(i int) byte { return f.args[min(i, len(strings.TrimSuffix(f.args, "+"))-1)] }
	most := len(f.args)
	if strings.HasSuffix(f.args, "+") {
		most = 100
	}
	if err := s.count(x, len(strings.TrimSuffix(f.args, "+"))-f.optional, most); err != nil {
		return Expr{}, err
	}
	args, err := s.All(x.Args)
	if err != nil {
		return Expr{}, err
	}
	for i, a := range args {
		if l := letters[letterOf(i)]; !l.is(a.Type) {
			return Expr{}, s.SQL.ErrorAt(x.Args[i].Pos(), "%s needs %s here, and this is a %s", strings.ToUpper(x.Name), l.name, a.Type)
		}
	}
	t := f.gives
	if f.like {
		t = args[0].Type
	}
	text := s.SQL
	return Expr{t, func(e *Env) value.Value {
		values := make([]value.Value, len(args))
		for i, a := range args {
			v := argument(letterOf(i), a.Eval(e))
			if v.IsNull() && !f.nulls {
				return v
			}
			values[i] = v
		}
		return f.eval(&call{text, x.At, e}, values)
	}}, nil
}

// argument converts a value to what a function takes; NULL if that isn't possible.
func argument(letter byte, v value.Value) value.Value {
	ok := true
	switch letter {
	case 't':
		v, ok = value.Cast(v, value.Text)
	case 'i':
		v, ok = value.Cast(v, value.Bigint)
	case 'd':
		v, ok = value.Cast(v, value.Datetime)
	case 'n':
		if v.Type() == value.Text || v.Type() == value.Bit {
			v = value.Arithmetic('+', v, value.Int(0))
		} else if !v.IsNumber() {
			v = value.Null
		}
	case 'r':
		ok = v.Type() == value.RecordType
	case 'l':
		ok = v.Type() == value.Array
	}
	if !ok {
		return value.Null
	}
	return v
}
