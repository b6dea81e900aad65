package query

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

const whole = `
SELECT System.Timestamp() AS TS, Device, [Tag], -- the key
       AVG(Value) AS Value, count(*) as N, Max("Fault") AS Fault
INTO readings FROM hub TIMESTAMP BY TS
/* all of it */ WHERE Value > -40 AND NOT (Tag = 'x''y' OR State IS NULL)
group by Device, Tag, TumblingWindow(SECONDS, 5);`

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := one(whole, "Device", "Tag")
	if err != nil {
		t.Fatal(err)
	}
	want := &Plan{SQL: whole, Into: "readings", From: "hub", TimestampBy: "TS", KeyNames: []string{"Device", "Tag"}, StampName: "TS",
		Window: 5 * time.Second, Hop: 5 * time.Second, Aggregates: []Aggregate{{"avg", "Value", "Value"}, {"count", "", "N"}, {"max", "Fault", "Fault"}}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Plan{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestParseHopping: hopping windows and the functions of spread.
func TestParseHopping(t *testing.T) {
	t.Parallel()
	p, err := one(statement("System.Timestamp() AS TS, Device, STDEV(Value) AS Spread", "GROUP BY Device, HoppingWindow(Duration(minute, 1), Hop(second, 15))"), "Device")
	if err != nil || p.Window != time.Minute || p.Hop != 15*time.Second || p.Aggregates[0] != (Aggregate{"stdev", "Value", "Spread"}) {
		t.Errorf("got %+v: %v", p, err)
	}
}

// one reads a query that writes one dataset.
func one(sql string, key ...string) (*Plan, error) {
	plans, err := Parse(sql, key)
	if err != nil {
		return nil, err
	}
	if len(plans) != 1 {
		return nil, fmt.Errorf("%d plans", len(plans))
	}
	return plans[0], nil
}

// TestParseGeneral: what package window doesn't do becomes a plan of package stream.
func TestParseGeneral(t *testing.T) {
	t.Parallel()
	const columns = "System.Timestamp() AS TS, Device, AVG(Value) AS Value"
	for _, tt := range []struct {
		name, sql string
		reach     time.Duration
		values    string
	}{
		{"sliding", statement(columns, "GROUP BY Device, SlidingWindow(second, 5)"), 5 * time.Second, "Value"},
		{"session", statement(columns, "GROUP BY Device, SessionWindow(second, 5, 60) OVER (PARTITION BY Device)"), 125 * time.Second, "Value"},
		{"snapshot", statement(columns, "GROUP BY Device, System.Timestamp()"), 0, "Value"},
		{"having", statement(columns, "GROUP BY Device, TumblingWindow(second, 5) HAVING COUNT(*) > 3"), 5 * time.Second, "Value"},
		{"odd window", statement(columns, "GROUP BY Device, TumblingWindow(second, 7)"), 7 * time.Second, "Value"},
		{"expression", statement("System.Timestamp() AS TS, Device, MAX(Value) - MIN(Value) AS Width, CASE WHEN COUNT(*) > 1 THEN 1 ELSE 0 END AS Many", "GROUP BY Device, TumblingWindow(second, 5)"), 5 * time.Second, "Width Many"},
		{"each reading", statement("System.Timestamp() AS TS, Device, Value * 2 AS Twice, Value", "WHERE Value * 2 > 1"), 0, "Twice Value"},
		{"look back", statement("System.Timestamp() AS TS, Device, Value - LAG(Value) OVER (PARTITION BY Device LIMIT DURATION(minute, 1)) AS Change", ""), time.Minute, "Change"},
		{"over", strings.Replace(statement(columns, "GROUP BY Device, TumblingWindow(second, 5)"), "TIMESTAMP BY TS", "TIMESTAMP BY TS OVER Device", 1), 5 * time.Second, "Value"},
		{"over a value", strings.Replace(statement("System.Timestamp() AS TS, LOWER(State) AS State, AVG(Value) AS Value", "GROUP BY LOWER(State), TumblingWindow(second, 5)"), "TIMESTAMP BY TS", "TIMESTAMP BY TS OVER LOWER(State)", 1), 5 * time.Second, "Value"},
		{"time", strings.Replace(statement(columns, "GROUP BY Device, TumblingWindow(second, 5)"), "TIMESTAMP BY TS", "TIMESTAMP BY TRY_CAST(Measured AS datetime)", 1), 5 * time.Second, "Value"},
		{"join", statement("System.Timestamp() AS TS, Device, AVG(hub.Value / limits.Most) AS Value", "JOIN limits ON limits.Device = hub.Device GROUP BY Device, TumblingWindow(second, 5)"), 5 * time.Second, "Value"},
		{"steps", "WITH w AS (SELECT Device, System.Window().Id AS Id, AVG(Value) AS Value FROM hub TIMESTAMP BY TS GROUP BY Device, Windows(Window('a', TumblingWindow(second, 5)), Window('b', HoppingWindow(second, 20, 10)))) " +
			"SELECT System.Timestamp() AS TS, w.Device, w.Value INTO d FROM w WHERE Id = 'a'", 20 * time.Second, "Value"},
		{"two steps", "WITH a AS (SELECT Device, AVG(Value) AS Value FROM hub TIMESTAMP BY TS GROUP BY Device, TumblingWindow(second, 5)), b AS (SELECT * FROM a WHERE Value > 1) " +
			"SELECT System.Timestamp() AS TS, Device, MAX(Value) AS Value INTO d FROM b GROUP BY Device, TumblingWindow(minute, 1)", 65 * time.Second, "Value"},
	} {
		p, err := one(tt.sql, "Device")
		if err != nil || p.General == nil || p.Window != tt.reach || strings.Join(p.Values(), " ") != tt.values || p.StampName != "TS" || p.From != "hub" || p.General.Timed != (tt.name == "time") || p.General.Timed != (p.TimestampBy == "") {
			t.Errorf("%s: got %+v: %v", tt.name, p, err)
		}
	}
	plans, err := Parse(statement(columns, "GROUP BY Device, TumblingWindow(second, 5)")+"; "+
		strings.Replace(statement(columns, "GROUP BY Device, SlidingWindow(second, 5)"), "INTO d", "INTO e", 1), []string{"Device"})
	if err != nil || len(plans) != 2 || plans[0].General != nil || plans[1].General == nil || plans[0].Into != "d" || plans[1].Into != "e" {
		t.Errorf("two statements: %+v: %v", plans, err)
	}
}

// over adds OVER to a query.
func over(what, sql string) string {
	return strings.ReplaceAll(sql, "TIMESTAMP BY TS", "TIMESTAMP BY TS OVER "+what)
}

// TestParseGroups: the dataset's keys are the groups. Groups of several of the hub's keys are made of all partitions.
func TestParseGroups(t *testing.T) {
	t.Parallel()
	const number, window = ", COUNT(*) AS N", ", TumblingWindow(second, 5)"
	for _, tt := range []struct {
		name, sql, keys string
		merged          bool
	}{
		{"a part of the key", statement("System.Timestamp() AS TS, Device"+number, "GROUP BY Device"+window), "Device", true},
		{"the other part", statement("System.Timestamp() AS TS, Tag"+number, "GROUP BY Tag"+window), "Tag", true},
		{"a value", statement("System.Timestamp() AS TS, Room"+number, "GROUP BY Room"+window), "Room", true},
		{"an expression", statement("System.Timestamp() AS TS, CASE WHEN Value > 5 THEN 'high' ELSE 'low' END AS Level"+number, "GROUP BY CASE WHEN Value > 5 THEN 'high' ELSE 'low' END"+window), "Level", true},
		{"a number", statement("System.Timestamp() AS TS, FLOOR(Value) AS Class"+number, "GROUP BY FLOOR(Value)"+window), "Class", true},
		{"all", statement("System.Timestamp() AS TS, 'all' AS Fleet"+number, "GROUP BY TumblingWindow(second, 5)"), "Fleet", true},
		{"reference data", statement("System.Timestamp() AS TS, limits.Room"+number, "JOIN limits ON limits.Device = hub.Device GROUP BY limits.Room"+window), "Room", true},
		{"the name of the input", statement("System.Timestamp() AS TS, Device"+number, "GROUP BY hub.Device"+window), "Device", true},
		{"more than the key", statement("System.Timestamp() AS TS, State, Tag, Device"+number, "GROUP BY Device, Tag, State"+window), "State Tag Device", false},
		{"the key", statement("System.Timestamp() AS TS, Tag, Device, 2 * COUNT(*) AS N", "GROUP BY Tag, Device"+window), "Device Tag", false},
		{"a session of all sensors", statement("System.Timestamp() AS TS, Device, Tag"+number, "GROUP BY Device, Tag, SessionWindow(second, 5, 60)"), "Device Tag", true},
		{"back over all sensors", statement("System.Timestamp() AS TS, Device, Tag, LAG(Value) OVER (LIMIT DURATION(minute, 1)) AS Last", ""), "Device Tag", true},
		{"a step", "WITH w AS (SELECT Room, AVG(Value) AS Value FROM hub TIMESTAMP BY TS GROUP BY Room" + window + ") SELECT System.Timestamp() AS TS, Room AS Place, Value INTO d FROM w WHERE Value > 3", "Place", true},
		{"a step by the key", "WITH w AS (SELECT Device, Tag, AVG(Value) AS Value FROM hub TIMESTAMP BY TS GROUP BY Device, Tag" + window + ") SELECT System.Timestamp() AS TS, Device, MAX(Value) AS Value INTO d FROM w GROUP BY Device, TumblingWindow(minute, 1)", "Device", true},
		{"over a part of the key", over("Device", statement("System.Timestamp() AS TS, Device, Tag"+number, "GROUP BY Device, Tag"+window)), "Device Tag", true},
		{"over more than the key", over("Tag, State, Device", statement("System.Timestamp() AS TS, State, Tag, Device"+number, "GROUP BY Device, Tag, State"+window)), "State Tag Device", false},
		{"over a part of the key, each reading", over("Tag", statement("System.Timestamp() AS TS, Device, Tag, Value", "")), "Device Tag", true},
		{"union", statement("System.Timestamp() AS TS, 'a' AS Kind, Room"+number, "GROUP BY Room"+window+" UNION SELECT System.Timestamp() AS TS, 'b' AS Kind, State AS Room, COUNT(*) AS N FROM hub TIMESTAMP BY TS GROUP BY State"+window), "Kind Room", true},
	} {
		p, err := one(tt.sql, "Device", "Tag")
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if got := strings.Join(p.KeyNames, " "); got != tt.keys || p.General == nil || p.General.Merged != tt.merged || p.General.Mixes != (got != "Device Tag" || tt.merged) {
			t.Errorf("%s: keys %s of %+v, want %s, of all partitions: %t", tt.name, got, p.General, tt.keys, tt.merged)
		}
	}
}

// TestDocumented: a server runs the queries in docs/query.md.
func TestDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(testkit.Root(t), "docs", "query.md"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, block := range strings.Split(string(text), "```sql\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		if _, err := Parse(block, []string{"Device", "Tag"}); err != nil {
			t.Errorf("%v:\n%s", err, block)
		}
		n++
	}
	if n < 2 {
		t.Errorf("there are only %d queries", n)
	}
}

func statement(selected, rest string) string {
	return "SELECT " + selected + " INTO d FROM hub TIMESTAMP BY TS " + rest
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	const columns, group = "System.Timestamp() AS TS, Device, AVG(Value) AS Value", "GROUP BY Device, TumblingWindow(second, 5)"
	for _, tt := range []struct{ name, sql, want string }{
		{"empty", "", "line 1, column 1: SELECT is expected, not the end"},
		{"no window", statement(columns, "GROUP BY Device"), "GROUP BY needs"},
		{"unit", statement(columns, "GROUP BY Device, TumblingWindow(week, 1)"), `"week" is not a unit`},
		{"no stamp", statement("Device, AVG(Value) AS Value", group), "lacks System.Timestamp() AS TS"},
		{"no key", statement("System.Timestamp() AS TS, AVG(Value) AS Value", group), "lacks the key column Device"},
		{"no aggregate", statement("System.Timestamp() AS TS, Device", group), "lacks an aggregate"},
		{"not grouped", statement(columns+", Tag", group), "Tag is neither aggregated nor in GROUP BY"},
		{"text", statement(columns+", System.Window().Id AS Id", group), "Id is a nvarchar(max), and a dataset has numbers"},
		{"group of all", statement("System.Timestamp() AS TS, AVG(Value) AS Value", "GROUP BY TumblingWindow(second, 5)"), "line 1, column 8: the rows have no key: GROUP BY has a window only (a dataset has rows of keys: select a text that is the same in all rows, such as 'all' AS Fleet)"},
		{"group that isn't selected", statement("System.Timestamp() AS TS, AVG(Value) AS Value", "GROUP BY UPPER(State), TumblingWindow(second, 5)"), "line 1, column 95: the SELECT list lacks this expression of GROUP BY"},
		{"several times", statement(columns, "GROUP BY Device, System.Timestamp(), TumblingWindow(second, 5)"), "line 1, column 111: System.Timestamp() beside a window would give a key several rows"},
		{"over, and a session of all", "SELECT System.Timestamp() AS TS, Device, AVG(Value) AS Value INTO d FROM hub TIMESTAMP BY TS OVER Device GROUP BY Device, SessionWindow(second, 5, 60)", "line 1, column 123: what looks at several readings needs those of one watermark, and TIMESTAMP BY has OVER Device"},
		{"union of groups", statement("System.Timestamp() AS TS, State, COUNT(*) AS N", "GROUP BY State, TumblingWindow(second, 5) UNION SELECT System.Timestamp() AS TS, Value AS State, 1 AS N FROM hub TIMESTAMP BY TS"), "State stands where the first query of the UNION has State"},
		{"finer groups", statement(columns, "GROUP BY Device, State, SlidingWindow(second, 5)"), "lacks the key column State"},
		{"several windows", statement(columns, "GROUP BY Device, Windows(TumblingWindow(second, 5), TumblingWindow(second, 10))"), "several windows in one dataset would give a key several rows"},
		{"star", statement("*", ""), "SELECT * into a dataset"},
		{"join of streams", statement("System.Timestamp() AS TS, hub.Device, hub.Value", "JOIN hub AS other TIMESTAMP BY TS ON other.Device = hub.Device AND DATEDIFF(second, hub, other) BETWEEN 0 AND 5"), "a server doesn't run a JOIN with anything but reference data yet"},
		{"key of reference data", statement("System.Timestamp() AS TS, limits.Device, hub.Value", "JOIN limits ON limits.Device = hub.Device"), "lacks the key column Device"},
		{"over another column", "SELECT System.Timestamp() AS TS, Device, Value INTO d FROM hub TIMESTAMP BY TS OVER State", "line 1, column 85: rows that aren't grouped have the hub's key, and what stands behind OVER must be part of it"},
		{"over, and other groups of a step", "WITH s AS (SELECT State, AVG(Value) AS Value FROM hub TIMESTAMP BY TS OVER State GROUP BY State, TumblingWindow(second, 5)) SELECT System.Timestamp() AS TS, 'all' AS Fleet, MAX(Value) AS Value INTO d FROM s GROUP BY TumblingWindow(second, 5)", "line 1, column 208: what looks at several readings needs those of one watermark"},
		{"over, and looking back at all", "WITH s AS (SELECT State, LAG(Value) OVER (LIMIT DURATION(second, 5)) AS Value FROM hub TIMESTAMP BY TS OVER State) SELECT System.Timestamp() AS TS, State, MAX(Value) AS Value INTO d FROM s GROUP BY State, TumblingWindow(second, 5)", "line 1, column 26: what looks at several readings"},
		{"over at times", "WITH s AS (SELECT Device, Value FROM hub TIMESTAMP BY TS OVER Device) SELECT System.Timestamp() AS TS, Device, Value INTO d FROM s UNION SELECT System.Timestamp() AS TS, Device, Value FROM hub TIMESTAMP BY TS", "hub stands with different columns behind OVER"},
		{"two times", "WITH s AS (SELECT Device, Value FROM hub TIMESTAMP BY DATEADD(second, 1, TS)) SELECT System.Timestamp() AS TS, Device, Value INTO d FROM s UNION SELECT System.Timestamp() AS TS, Device, Value FROM hub TIMESTAMP BY TS", "two times behind TIMESTAMP BY"},
		{"no time", "SELECT System.Timestamp() AS TS, Device, AVG(Value) AS Value INTO d FROM hub GROUP BY Device, SlidingWindow(second, 5)", "hub needs TIMESTAMP BY"},
		{"two outputs", statement(columns, group) + "; " + statement(columns, group), "another statement writes INTO d"},
		{"no output", "SELECT System.Timestamp() AS TS, Device, AVG(Value) AS Value FROM hub TIMESTAMP BY TS " + group, "INTO is expected"},
		{"declared key", "CREATE TABLE hub (Device bigint, TS datetime, Value float); " + statement(columns, group), "line 1, column 19: the key column Device is a bigint"},
		{"record", "WITH s AS (SELECT place.* FROM hub TIMESTAMP BY TS) SELECT System.Timestamp() AS TS, Device, Value INTO d FROM s", "a server doesn't run place.*"},
		{"renamed", "WITH s AS (SELECT Value AS Device, * FROM hub TIMESTAMP BY TS) SELECT System.Timestamp() AS TS, Device, 1 AS N INTO d FROM s", "the SELECT list lacks the key column Device"},
		{"union", "SELECT System.Timestamp() AS TS, Device, Value INTO d FROM hub TIMESTAMP BY TS UNION SELECT System.Timestamp() AS TS, Value AS Device, Value FROM hub TIMESTAMP BY TS", "Device stands where the first query of the UNION has Device"},
		{"no name", statement("System.Timestamp() AS TS, Device, AVG(Value)", group), "has no name"},
		{"twice", statement(columns+", SUM(Value) AS Value", group), "selected twice"},
		{"renamed key", statement("System.Timestamp() AS TS, Device AS D, AVG(Value) AS Value", group), "keep their names"},
		{"open text", statement(columns, "WHERE a = 'x "+group), "is not closed"},
		{"odd name", statement(columns, "GROUP BY Device, TumblngWindow(second, 5)"), "is TumblingWindow meant?"},
		{"sign", statement(columns, "WHERE a # 1 "+group), `'#' has no meaning`},
		{"trailing", statement(columns, group+" ORDER BY TS"), `the query ends before "ORDER"`},
		{"deep", statement(columns, "WHERE "+strings.Repeat("(", 5000)), "nested more than"},
		{"line", "SELECT\n  System.Timestamp() AS TS,\n  Dévice 5", "line 3, column 10"},
	} {
		_, err := one(tt.sql, "Device")
		if !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

// TestFilter follows SQL's three-valued logic: only readings for which the condition
// is true are kept.
func TestFilter(t *testing.T) {
	t.Parallel()
	r := &fleetscore.Readings{
		Keys: []fleetscore.Key{"1", "2"}, KeyIndex: []uint32{0, 1, 0}, Times: []fleetscore.Micros{1, 2, 3},
		Columns: []fleetscore.ReadingColumn{
			{Name: "Value", Numbers: []float64{5, math.NaN(), -5}},
			{Name: "State", Strings: []string{"on", "off", ""}, Present: []bool{true, true, false}},
		},
	}
	for _, tt := range []struct {
		where string
		want  string // + kept, - not
	}{
		{"Value > 0", "+--"},
		{"NOT Value > 0", "--+"},
		{"Value >= -5", "+-+"},
		{"Value IS NULL", "-+-"},
		{"Value IS NOT NULL", "+-+"},
		{"Device = '1'", "+-+"},
		{"Device <> '1'", "-+-"},
		{"Device = 1", "+-+"}, // a text that spells a number
		{"State = 1", "---"},
		{"State = 'on' OR Value < 0", "+-+"},
		{"State <> 'on'", "-+-"},
		{"State <> 'on' AND Value IS NULL", "-+-"},
		{"Nothing = 1 OR Value = 5", "+--"},
		{"NOT (Nothing = 1) OR Value = 5", "+--"},
		{"5 = Value", "+--"},
		{"Value != 5", "--+"},
		{"Value BETWEEN -5 AND 0", "--+"},
		{"Value NOT BETWEEN -5 AND 0", "+--"},
		{"State IN ('on', 'off')", "++-"},
		{"State NOT IN ('on')", "-+-"},
		{"Value IN (5, NULL)", "+--"},
		{"Value NOT IN (5, NULL)", "---"},
	} {
		p, err := one(statement("System.Timestamp() AS TS, Device, AVG(Value) AS Value", "WHERE "+tt.where+" GROUP BY Device, TumblingWindow(second, 5)"), "Device")
		if err != nil || p.General != nil {
			t.Errorf("%s: %v, want a plan for package window", tt.where, err)
			continue
		}
		keep := make([]bool, 3)
		p.Filter(r, []string{"Device"}, keep)
		got := ""
		for _, k := range keep {
			got += map[bool]string{true: "+", false: "-"}[k]
		}
		if got != tt.want {
			t.Errorf("%s: kept %s, want %s", tt.where, got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(whole)
	f.Add("SELECT [")
	f.Fuzz(func(t *testing.T, s string) {
		plans, err := Parse(s, []string{"Device", "Tag"})
		for _, p := range plans {
			if err != nil || len(p.KeyNames) == 0 || len(p.Values()) == 0 || p.StampName == "" || p.Into == "" || p.General == nil && p.Window <= 0 {
				t.Errorf("%q: %+v", s, p)
			}
		}
	})
}
