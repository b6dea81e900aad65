package query

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fleetscore/fleetscore"
)

const whole = `
SELECT System.Timestamp() AS TS, Device, [Tag], -- the key
       AVG(Value) AS Value, count(*) as N, Max("Fault") AS Fault
INTO readings FROM hub TIMESTAMP BY TS
/* all of it */ WHERE Value > -40 AND NOT (Tag = 'x''y' OR State IS NULL)
group by Device, Tag, TumblingWindow(SECONDS, 5);`

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := Parse(whole)
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
	p, err := Parse(statement("System.Timestamp() AS TS, Device, STDEV(Value) AS Spread", "GROUP BY Device, HoppingWindow(Duration(minute, 1), Hop(second, 15))"))
	if err != nil || p.Window != time.Minute || p.Hop != 15*time.Second || p.Aggregates[0] != (Aggregate{"stdev", "Value", "Spread"}) {
		t.Errorf("got %+v: %v", p, err)
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
		{"other window", statement(columns, "GROUP BY Device, SlidingWindow(second, 5)"), "line 1, column 111: a server doesn't run SlidingWindow yet"},
		{"wide hop", statement(columns, "GROUP BY Device, HoppingWindow(second, 5, 10)"), "a hop that is longer than the window"},
		{"many windows", statement(columns, "GROUP BY Device, HoppingWindow(second, 61, 1)"), "each reading would belong to 61 windows"},
		{"odd hop", statement(columns, "GROUP BY Device, HoppingWindow(second, 14, 7)"), "does not divide a day"},
		{"odd window", statement(columns, "GROUP BY Device, TumblingWindow(second, 7)"), "does not divide a day"},
		{"long window", statement(columns, "GROUP BY Device, TumblingWindow(day, 2)"), "does not divide a day"},
		{"long hopping window", statement(columns, "GROUP BY Device, HoppingWindow(hour, 48, 12)"), "a window of more than a day"},
		{"unit", statement(columns, "GROUP BY Device, TumblingWindow(week, 1)"), `"week" is not a unit`},
		{"no stamp", statement("Device, AVG(Value) AS Value", group), "lacks System.Timestamp() AS TS"},
		{"no key", statement("System.Timestamp() AS TS, AVG(Value) AS Value", group), "lacks the key column Device"},
		{"no aggregate", statement("System.Timestamp() AS TS, Device", group), "lacks an aggregate"},
		{"not grouped", statement(columns+", Tag", group), "Tag is neither aggregated nor in GROUP BY"},
		{"function", statement(columns+", TopOne(Value) OVER (ORDER BY Value) AS S", group), "doesn't run the function TopOne"},
		{"no name", statement("System.Timestamp() AS TS, Device, AVG(Value)", group), "has no name"},
		{"twice", statement(columns+", SUM(Value) AS Value", group), "selected twice"},
		{"renamed key", statement("System.Timestamp() AS TS, Device AS D, AVG(Value) AS Value", group), "keep their names"},
		{"open text", statement(columns, "WHERE a = 'x "+group), "is not closed"},
		{"odd name", statement(columns, "GROUP BY Device, TumblngWindow(second, 5)"), "is TumblingWindow meant?"},
		{"sign", statement(columns, "WHERE a # 1 "+group), `'#' has no meaning`},
		{"arithmetic", statement(columns, "WHERE Value * 2 > 1 "+group), "a server doesn't run an expression in WHERE"},
		{"trailing", statement(columns, group+" ORDER BY TS"), `the query ends before "ORDER"`},
		{"having", statement(columns, group+" HAVING AVG(Value) > 1"), "a server doesn't run HAVING"},
		{"deep", statement(columns, "WHERE "+strings.Repeat("(", 5000)), "nested more than"},
		{"line", "SELECT\n  System.Timestamp() AS TS,\n  Dévice 5", "line 3, column 10"},
	} {
		_, err := Parse(tt.sql)
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
		p, err := Parse(statement("System.Timestamp() AS TS, Device, AVG(Value) AS Value", "WHERE "+tt.where+" GROUP BY Device, TumblingWindow(second, 5)"))
		if err != nil {
			t.Errorf("%s: %v", tt.where, err)
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
		p, err := Parse(s)
		if err == nil && (p.Window <= 0 || len(p.KeyNames) == 0 || len(p.Aggregates) == 0) {
			t.Errorf("%q: %+v", s, p)
		}
	})
}
