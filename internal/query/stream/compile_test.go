package stream

import (
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// TestRefuses: what isn't supported or makes no sense is an error that names the word and
// its place, and the nearest thing that works.
func TestRefuses(t *testing.T) {
	t.Parallel()
	const in = " FROM i TIMESTAMP BY t "
	for _, tt := range []struct{ text, want, hint string }{
		{"", "line 1, column 1: SELECT is expected, not the end", ""},
		{"SELEC a FROM i", `line 1, column 1: SELECT is expected, not "SELEC"`, "is SELECT meant?"},
		{"SELECT a FORM i", "FROM is expected", ""},
		{"SELECT a FROM i WERE a > 1", `line 1, column 17: the query ends before "WERE"`, "is WHERE meant?"},
		{"SELECT COUNT(*)" + in + "GROUP BY DATEPART(minute, System.Timestamp())", "a window must be specified", "add for example TumblingWindow"},
		{"SELECT COUNT(*)" + in + "GROUP BY k", "line 1, column 39: a window must be specified", ""},
		{"SELECT COUNT(*)" + in, "line 1, column 8: the aggregate COUNT can't be used in SELECT", "add GROUP BY with a window"},
		{"SELECT a" + in + "WHERE COUNT(*) > 1", "the aggregate COUNT can't be used in WHERE", "in HAVING"},
		{"SELECT a" + in + "GROUP BY b, Tumbling(second, 5)", "line 1, column 8: a is neither aggregated nor in GROUP BY", "AVG(a) AS a"},
		{"SELECT *" + in + "GROUP BY b, Tumbling(second, 5)", "SELECT * is not possible with GROUP BY", ""},
		{"SELECT COUNT(*)" + in + "GROUP BY Tumbling(second, 5), Hopping(second, 5, 1)", "only one window", "Windows("},
		{"SELECT COUNT(*)" + in + "GROUP BY TumblngWindow(second, 5)", "line 1, column 48: the window TumblngWindow is unknown", "is TumblingWindow meant?"},
		{"SELECT COUNT(*)" + in + "GROUP BY SteppingWindow(second, 5)", "the window SteppingWindow is unknown", "the windows are"},
		{"SELECT COUNT(*)" + in + "GROUP BY Tumbling(secnd, 5)", `"secnd" is not a unit of time`, "is second meant?"},
		{"SELECT COUNT(*)" + in + "GROUP BY Tumbling(week, 1)", `"week" is not a unit of time`, "the units are day, hour"},
		{"SELECT COUNT(*)" + in + "GROUP BY Tumbling(day, 8)", "longer than 7 days", ""},
		{"SELECT COUNT(*)" + in + "GROUP BY Tumbling(second, 0)", "more than 0", ""},
		{"SELECT COUNT(*)" + in + "GROUP BY Tumbling(second, -5)", `a number is expected, not "-"`, ""},
		{"SELECT COUNT(*)" + in + "GROUP BY Tumbling(second, n)", `a number is expected, not "n"`, "is a constant"},
		{"SELECT COUNT(*)" + in + "GROUP BY Tumbling(microsecond, 0.5)", "whole number of microseconds", ""},
		{"SELECT COUNT(*)" + in + "GROUP BY Tumbling(second, 5, 1, 2)", "TumblingWindow takes no more than that", "with an offset"},
		{"SELECT COUNT(*)" + in + "GROUP BY Hopping(second, 5)", "HoppingWindow needs its hop", "HoppingWindow(second, size, hop)"},
		{"SELECT COUNT(*)" + in + "GROUP BY Hopping(day, 7, 0.000001)", "each event would belong to", "longer hop"},
		{"SELECT COUNT(*)" + in + "GROUP BY Hopping(Duration(second, 5), Offset(second, 5))", `Hop is expected, not "Offset"`, ""},
		{"SELECT COUNT(*)" + in + "GROUP BY Session(second, 5)", "SessionWindow needs its maxduration", ""},
		{"SELECT COUNT(*)" + in + "GROUP BY Windows(Windows(Tumbling(second, 5)))", `a window is expected, not "Windows"`, "can't be nested"},
		{"SELECT COUNT(*)" + in + "GROUP BY Windows(Window('a', Tumbling(second, 5)), Tumbling(second, 6))", "either all windows or none", ""},
		{"SELECT COUNT(*)" + in + "GROUP BY Windows(Window('a', Tumbling(second, 5)), Window('A', Tumbling(second, 6)))", "two windows have the name 'A'", ""},
		{"SELECT DATEPART(hour, t) AS h, COUNT(*)" + in + "GROUP BY h, Tumbling(second, 5)", "h is a name that SELECT gives", "write the expression itself"},
		{"SELECT k, COUNT(*)" + " FROM i TIMESTAMP BY t OVER d GROUP BY k, Tumbling(second, 5)", "d stands behind OVER", "add d to GROUP BY"},
		{"SELECT System.Timestamp() AS a FROM i TIMESTAMP BY System.Timestamp()", "can't be used in TIMESTAMP BY", ""},
		{"SELECT a FROM i TIMESTAMP BY 5", "TIMESTAMP BY needs a datetime, and this is a bigint", "DATEADD(millisecond"},
		{"SELECT DISTINCT a" + in, "SELECT DISTINCT is not supported", "COUNT(DISTINCT x)"},
		{"SELECT TOP 5 a" + in, "SELECT TOP is not supported", "CollectTop"},
		{"SELECT PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY a) AS p" + in, "line 1, column 29: WITHIN GROUP is not supported", "OVER (ORDER BY x)"},
		{"SELECT a" + in + "ORDER BY a", `the query ends before "ORDER"`, "order of their times"},
		{"SELECT a" + in + "CROSS APPLY GetArrayElements(b) AS c", "CROSS is not supported", "GetArrayElement(array, 0)"},
		{"SELECT a FROM i, j", "FROM takes one input, not a list", "JOIN"},
		{"SELECT a FROM i RIGHT JOIN j ON i.a = j.a", "RIGHT is not supported", "exchange the two inputs"},
		{"SELECT i.a" + in + "JOIN j TIMESTAMP BY t ON i.a = j.a", "this JOIN needs a bound of time", "DATEDIFF(second, i, j) BETWEEN"},
		{"SELECT i.a" + in + "JOIN j TIMESTAMP BY t ON DATEDIFF(second, i, j) > 1", "a bound of time with two ends", ""},
		{"SELECT i.a" + in + "JOIN j TIMESTAMP BY t ON DATEDIFF(day, i, j) BETWEEN 0 AND 8", "at most 7 days", ""},
		{"SELECT *" + in + "JOIN j ON i.a = j.a", "SELECT * is not possible with JOIN", "write i.*"},
		{"SELECT i.a" + in + "JOIN i ON i.a = i.a", "two inputs are called i", ""},
		{"SELECT k.*" + in + "JOIN j ON i.a = j.a", "there is no input k", ""},
		{"WITH s AS (SELECT a, b FROM i TIMESTAMP BY t) SELECT aa FROM s", "s has no column aa", "is a meant?"},
		{"WITH s AS (SELECT a INTO x FROM i) SELECT a FROM s", "INTO is not possible in a step", ""},
		{"WITH s AS (SELECT a FROM i), S AS (SELECT a FROM i) SELECT a FROM s", "two steps with the name S", ""},
		{"WITH s AS (SELECT a FROM i) SELECT a FROM s TIMESTAMP BY a", "TIMESTAMP BY belongs to an input, and s is a step", ""},
		{"CREATE TABLE i (t datetime, v float); SELECT w FROM i TIMESTAMP BY t", "i has no column w", "is t meant?"},
		{"CREATE TABLE i (t dattime); SELECT t FROM i", "is not a data type", "is datetime meant?"},
		{"SELECT a, a" + in, "the column a is selected twice", "AS"},
		{"SELECT a, b" + in + "UNION SELECT a" + in, "different numbers of columns: 2 and 1", ""},
		{"SELECT SUM(System.Timestamp())" + in + "GROUP BY Tumbling(second, 5)", "SUM needs a number, and this is a datetime", ""},
		{"SELECT SUM(DISTINCT a)" + in + "GROUP BY Tumbling(second, 5)", "DISTINCT is supported in COUNT only", ""},
		{"SELECT SUM()" + in + "GROUP BY Tumbling(second, 5)", "SUM needs an argument", ""},
		{"SELECT AVG(SUM(a))" + in + "GROUP BY Tumbling(second, 5)", "the aggregate SUM can't be used in an aggregate", ""},
		{"SELECT PERCENTILE_CONT(0.5)" + in + "GROUP BY Tumbling(second, 5)", "needs OVER (ORDER BY column)", "PERCENTILE_CONT(0.95) OVER (ORDER BY Value)"},
		{"SELECT PERCENTILE_CONT(95) OVER (ORDER BY a)" + in + "GROUP BY Tumbling(second, 5)", "a constant from 0 to 1", ""},
		{"SELECT TopOne()" + in + "GROUP BY Tumbling(second, 5)", "TopOne needs OVER (ORDER BY column)", ""},
		{"SELECT LAG(a)" + in, "LAG needs OVER (LIMIT DURATION(unit, n))", ""},
		{"SELECT LAG(a, 0) OVER (LIMIT DURATION(second, 1))" + in, "at least 1", "LAST(x)"},
		{"SELECT LAG(a) OVER (LIMIT DURATION(day, 8))" + in, "longer than 7 days", ""},
		{"SELECT LAG(a) OVER (LIMIT DURATION(second, 1)), COUNT(*)" + in + "GROUP BY Tumbling(second, 5)", "LAG looks back from single events", "in a step"},
		{"SELECT AVG(a) OVER (PARTITION BY k)" + in + "GROUP BY Tumbling(second, 5)", "OVER lacks LIMIT DURATION", ""},
		{"SELECT COUNT(DISTINCT a) OVER (LIMIT DURATION(second, 1))" + in, "COUNT(DISTINCT …) can't be used with OVER", ""},
		{"SELECT ISFIRST(second)" + in, "ISFIRST needs 2 arguments", ""},
		{"SELECT a" + in + "HAVING a", "", ""},
		{"SELECT a FROM (SELECT b AS a FROM i TIMESTAMP BY t) x WHERE y > 1", "x has no column y", ""},
		{"SELECT 'abc FROM i", "' is not closed", ""},
	} {
		script, err := sql.Parse(tt.text)
		if err == nil {
			_, err = Compile(script)
		}
		if tt.want == "" && tt.text != "" {
			if err != nil {
				t.Errorf("%s: %v", tt.text, err)
			}
			continue
		}
		if !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.hint) || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%s: got %v, want an error with %q and %q", tt.text, err, tt.want, tt.hint)
		}
	}
}

// FuzzQueries: no text makes the compiler or a run fail in another way than by an error.
func FuzzQueries(f *testing.F) {
	for _, text := range []string{
		"SELECT *, LAG(*, 1) OVER (LIMIT DURATION(hour, 1)) AS l FROM i TIMESTAMP BY t",
		"WITH s AS (SELECT k, SUM(v) AS v FROM i TIMESTAMP BY t GROUP BY k, Hopping(second, 9, 2)) SELECT System.Timestamp(), TopOne() OVER (ORDER BY v DESC) FROM s GROUP BY Windows(Sliding(second, 5), System.Timestamp())",
		"SELECT a.k, b.v FROM i a TIMESTAMP BY t LEFT JOIN i b TIMESTAMP BY t ON a.k = b.k AND DATEDIFF(second, a, b) BETWEEN -3 AND 1",
		"SELECT k, COUNT(DISTINCT v), PERCENTILE_DISC(0.5) OVER (ORDER BY v) FROM i TIMESTAMP BY t OVER k GROUP BY k, Session(second, 5, 10) OVER (PARTITION BY k) HAVING MAX(v) > 1 OR STDEV(v) IS NULL",
		"SELECT CASE WHEN v LIKE '[a-' THEN SUBSTRING(k, v, 2) ELSE DATEADD(month, v, t) END FROM i WHERE v BETWEEN 1 AND 5 UNION SELECT TRANSLATE(k, 'a', 'b') FROM i",
		"CREATE TABLE i (t datetime, v bigint) SELECT ROUND(v, -v), POWER(v, v), v / (v - 1), PATINDEX('%[%', k) FROM i TIMESTAMP BY t",
	} {
		f.Add(text, `{"t":"2026-11-25T10:00:00Z","k":"a","v":1}`)
	}
	f.Fuzz(func(t *testing.T, text, line string) {
		script, err := sql.Parse(text)
		if err != nil {
			return
		}
		plan, err := Compile(script)
		if err != nil {
			if !fleetscore.Invalid.Is(err) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		var reader value.Reader
		runner := plan.NewRunner(nil, func(r Row) error { r.Record.AppendJSON(nil); return nil })
		for i, l := range []string{line, `{"t":"2026-11-25T10:00:01Z","k":"b","v":2}`, `{"t":"2026-11-25T10:00:07Z","k":"a","v":-3.5}`, `{"v":[1,{"k":null}]}`} {
			r, err := reader.Read([]byte(l))
			if err != nil {
				continue
			}
			for in := range plan.Inputs {
				if declared, ok := plan.Inputs[in].Declare(r); ok && !plan.Inputs[in].Reference {
					if err := runner.Push(in, declared, fleetscore.Micros(i)*4e6); err != nil {
						return
					}
				}
			}
		}
		if err := runner.Flush(); err != nil && !fleetscore.Invalid.Is(err) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
