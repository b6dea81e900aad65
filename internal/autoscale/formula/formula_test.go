package formula

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC) // a Monday

// samples are one every 30 s until ago before now, the oldest first.
func samples(ago time.Duration, values ...float64) (out []Sample) {
	for i, v := range values {
		out = append(out, Sample{now.Add(-ago - time.Duration(len(values)-1-i)*30*time.Second), v})
	}
	return out
}

func pending(ago time.Duration, values ...float64) State {
	return State{Now: now, Samples: map[string][]Sample{"$PendingTasks": samples(ago, values...)}}
}

func evaluate(t *testing.T, src string, s State) Result {
	t.Helper()
	f, problems := Parse(src)
	if problems != nil {
		t.Fatalf("%s: %v", src, problems)
	}
	return f.Eval(s)
}

// TestValues: what an expression is; an error is given by a part of its text.
func TestValues(t *testing.T) {
	t.Parallel()
	ten := pending(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	ten.Current = map[string]float64{Dedicated: 3, "$TaskSlotsPerNode": 4}
	empty := State{Now: now}
	for _, c := range []struct {
		x     string
		state State
		want  string
	}{
		// Operators: as strong as in C, from left to right.
		{"1 + 2 * 3 - 4 / 2", empty, "5"}, {"-2 * -3", empty, "6"}, {"!0 + !5", empty, "1"}, {"10 - 4 - 3", empty, "3"},
		{"1 < 2 == 1", empty, "1"}, {"1 || 0 && 0", empty, "1"}, {"7 / 2", empty, "3.5"}, {"1 / 0", empty, "Infinity"}, {"0 / 0 == 0 / 0", empty, "0"},
		{".5 + 1e2 + 2.", empty, "102.5"}, {"3 != 3", empty, "0"}, {`"a" < "b"`, empty, "1"}, {"requeue == requeue", empty, "1"},
		// A choice is lazy, goes from right to left, and binds least.
		{"0 ? 1 : 0 ? 2 : 3", empty, "3"}, {"1 ? 1 : 2 + 0.5", empty, "1"}, {"0 ? 1 : 2 + 0.5", empty, "2.5"}, {"-1 ? 1 : 2", empty, "1"},
		{"$PendingTasks.GetSamplePercent(TimeInterval_Minute) < 70 ? 1 : avg($PendingTasks.GetSample(TimeInterval_Minute))", empty, "1"},
		{"1 || avg($PendingTasks.GetSample(5))", empty, "1"}, {"0 && avg($PendingTasks.GetSample(5))", empty, "0"},
		{"$PendingTasks.GetSample(1) ? 1 : 2", ten, "can't be a condition"},
		// Vectors.
		{"$PendingTasks.GetSample(3) * 2 + 1", ten, "[17,19,21]"}, {"10 - $PendingTasks.GetSample(2)", ten, "[1,0]"},
		{"$PendingTasks.GetSample(2) / $PendingTasks.GetSample(2)", ten, "[1,1]"}, {"$PendingTasks.GetSample(1) + $RunningTasks.GetSample(1)", empty, "[]"},
		{"$PendingTasks.GetSample(1) + $PendingTasks.GetSample(2)", ten, "1 and 2 elements"}, {"$PendingTasks.GetSample(2) > 3", ten, "vectors can't be compared"},
		{"-$PendingTasks.GetSample(2)", ten, "write vector * -1"},
		// Functions join numbers and vectors first.
		{"avg(vec(1, 2, 3), 7)", empty, "3.25"}, {"avg(1, 2, 3)", empty, "2"}, {"len(vec(1, 2), 3, vec())", empty, "3"}, {"max(1, vec(5, 2))", empty, "5"}, {"min(4, $PendingTasks.GetSample(9))", ten, "2"},
		{"norm(3, 4)", empty, "5"}, {"range(5, 2, 9)", empty, "7"}, {"std(1, 3, 5)", empty, "2"}, {"sum(1, vec(2, 3))", empty, "6"}, {"sum()", empty, "0"},
		{"percentile(vec(5, 1, 4, 2, 3), 50)", empty, "3"}, {"percentile(vec(1, 2, 3, 4), 75)", empty, "3"}, {"percentile(vec(1, 2), 0)", empty, "1"}, {"percentile(vec(1, 2), 100)", empty, "2"}, {"percentile(vec(1), 101)", empty, "from 0 to 100"},
		{"val(vec(7, 8), 1)", empty, "8"}, {"val(vec(7, 8), 2)", empty, "no element 2"}, {"val($PendingTasks.GetSample(1), 0)", empty, "no element 0"},
		{"lg(8)", empty, "3"}, {"log(1000)", empty, "3"}, {"ln(1)", empty, "0"}, {"lg(vec(8))", empty, "[3]"}, {"log(10, 100)", empty, "[1,2]"},
		{"ceil(1.2) + floor(1.8) + round(2.5) + round(-2.5)", empty, "3"}, {"ceil(vec(1.2, 2))", empty, "[2,2]"},
		{"max(0, $PendingTasks.GetSample(1))", empty, "0"}, {"max($PendingTasks.GetSample(1))", empty, "max(0, …)"}, {"avg($PendingTasks.GetSample(1))", empty, "vector is empty"}, {"std(1)", empty, "at least two"},
		{"avg(\"1\")", empty, "argument 1 of avg can't be a text"}, {"(rand() >= 0) + (rand() < 1)", empty, "2"}, {"rand() == rand()", empty, "0"},
		// Times: Monday is 1, Sunday 7.
		{"time()", empty, "2026-11-23T10:00:00.000Z"}, {"time().weekday", empty, "1"}, {`time("2026-11-22").weekday`, empty, "7"}, {"(time() - TimeInterval_Day).weekday >= 6", empty, "1"},
		{"time().year * 10000 + time().month * 100 + time().day", empty, "20261123"}, {`time("2026-11-23T23:45:06.5Z").hour * 10000 + time("2026-11-23T23:45:06.5Z").minute * 100 + time("2026-11-23T23:45:06.5Z").second`, empty, "234506"},
		{`time("Mon, 23 Nov 2026 09:00:00 GMT")`, empty, "2026-11-23T09:00:00.000Z"}, {`time("2016-10-13T19:18:47.805123Z")`, empty, "2016-10-13T19:18:47.805Z"}, {`time("2016-10-13T19:18:47.8050001Z")`, empty, "2016-10-13T19:18:47.805Z"},
		{`time("2026-11-23T10:00:00+02:00").hour`, empty, "8"}, {`time("2026")`, empty, "2026-01-01T00:00:00.000Z"}, {`time("2026-11-23T10:00Z") == time()`, empty, "1"}, {`time("") == time()`, empty, "1"}, {`time("tomorrow")`, empty, "isn't a time"},
		{"time() - time(\"2026-11-23T09:00:00Z\") == TimeInterval_Hour", empty, "1"}, {"TimeInterval_Hour + time() > time()", empty, "1"}, {"time() + time()", empty, "times can't be added"}, {"time() + 5", empty, ".hour"},
		// Intervals.
		{"1.5 * TimeInterval_Hour", empty, "PT1H30M"}, {"TimeInterval_Week / 7", empty, "P1D"}, {"-TimeInterval_Minute + TimeInterval_Second", empty, "-PT59S"}, {"TimeInterval_Zero", empty, "PT0S"}, {"TimeInterval_Year", empty, "P365D"},
		{"TimeInterval_Day + 500 * TimeInterval_Millisecond", empty, "P1DT0.5S"}, {"10 * TimeInterval_100ns == TimeInterval_Microsecond", empty, "1"}, {"TimeInterval_Hour * TimeInterval_Hour", empty, "divided by a number"}, {"TimeInterval_Year * 100000", empty, "years 1 to 9999"},
		// A variable of the service is a number, too: its newest value.
		{"$PendingTasks / $TaskSlotsPerNode + 0.9", ten, "3.4"}, {"$PendingTasks", empty, "no sample yet"}, {Dedicated, ten, "3"}, {"$TargetDedicated", ten, "3"}, {Option, ten, "requeue"},
		{"unset", empty, "nothing was assigned"},
	} {
		r := evaluate(t, "x = "+c.x, c.state)
		got := r.Variables["x"].String()
		if r.Err != nil {
			got = r.Err.Error()
		}
		if got != c.want && (r.Err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%s: got %s, want %s", c.x, got, c.want)
		}
	}
}

// TestSamples: which samples the methods see.
func TestSamples(t *testing.T) {
	t.Parallel()
	full, gap := pending(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10), pending(time.Minute, 1, 2, 3, 4)
	for _, c := range []struct {
		call  string
		state State
		want  string
	}{
		{"GetSample(3)", full, "[8,9,10]"}, {"GetSample(99)", full, "[1,2,3,4,5,6,7,8,9,10]"}, {"GetSample(0)", full, "[]"}, {"GetSample(2.9)", full, "[9,10]"}, {"GetSample(-1)", full, "[]"},
		{"GetSample(1)", pending(1000*time.Hour, 7), "[7]"}, {"GetSample(1)", State{Now: now}, "[]"},
		{"GetSample(2 * TimeInterval_Minute)", full, "[7,8,9,10]"},
		{"GetSample(TimeInterval_Minute, 2 * TimeInterval_Minute)", full, "[7,8]"}, {"GetSample(2 * TimeInterval_Minute, TimeInterval_Minute)", full, "[7,8]"},
		{"GetSample(10 * TimeInterval_Second, 0 * TimeInterval_Second)", full, "[10]"}, {"GetSample(0 * TimeInterval_Second, 60 * TimeInterval_Second)", full, "[9,10]"},
		{"GetSample(time() - TimeInterval_Minute)", full, "[9,10]"}, {`GetSample(time("2026-11-23T09:58:00Z"), TimeInterval_Minute)`, full, "[7,8]"},
		{"GetSample(2 * TimeInterval_Minute)", gap, "$PendingTasks wanted 70%, received 50%"}, {"GetSample(2 * TimeInterval_Minute, 50)", gap, "[3,4]"}, {"GetSample(2 * TimeInterval_Minute, 51)", gap, "wanted 51%, received 50%"},
		{"GetSample(TimeInterval_Minute, 0)", gap, "[]"}, {"GetSample(TimeInterval_Minute, 0 * TimeInterval_Second, 10)", gap, "wanted 10%, received 0%"}, {"GetSample(TimeInterval_Minute)", State{Now: now}, "wanted 70%, received 0%"},
		{"GetSamplePercent(2 * TimeInterval_Minute)", gap, "50"}, {"GetSamplePercent(TimeInterval_Minute, 2 * TimeInterval_Minute)", gap, "100"}, {"GetSamplePercent(TimeInterval_Minute)", State{Now: now}, "0"},
		{"GetSamplePeriod()", full, "PT30S"}, {"Count()", full, "10"}, {"Count()", State{Now: now}, "0"}, {"Count() ? 1 : 2", State{Now: now}, "2"},
		{"HistoryBeginTime()", full, "2026-11-23T09:55:30.000Z"}, {"HistoryBeginTime()", State{Now: now}, "no sample yet"},
		{"GetSample(1, 50)", full, "argument 1 of GetSample can't be a number"}, {"GetSample(TimeInterval_Minute, 1, 2)", full, "argument 2"}, {"GetSamplePercent(5)", full, "argument 1"},
		{"GetSample(2 * TimeInterval_Minute)", pending(-time.Hour, 1, 2, 3), "received 0%"}, // later than now
	} {
		r := evaluate(t, "x = $PendingTasks."+c.call, c.state)
		got := r.Variables["x"].String()
		if r.Err != nil {
			got = r.Err.Message
		}
		if got != c.want && (r.Err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%s: got %s, want %s", c.call, got, c.want)
		}
	}
}

// TestRuns: targets, options, old names, and the text of the result.
func TestRuns(t *testing.T) {
	t.Parallel()
	base := "$TargetDedicatedNodes=3;$TargetLowPriorityNodes=1;$NodeDeallocationOption=requeue"
	two := "$TargetDedicatedNodes=2;$TargetLowPriorityNodes=1;$NodeDeallocationOption=requeue"
	for _, c := range []struct{ src, want string }{
		{"", base}, {"// nothing;\r\n", base}, {"1 + 1;", base},
		{"$maxTasksPerNode = 4; $round = 3; $samples = 100; $targetVMs = 1; $tasks = 0; $TargetDedicatedNodes = 2; $TargetLowPriorityNodes = 5; $NodeDeallocationOption = taskcompletion",
			"$TargetDedicatedNodes=2;$TargetLowPriorityNodes=5;$NodeDeallocationOption=taskcompletion;$maxTasksPerNode=4;$round=3;$samples=100;$targetVMs=1;$tasks=0"},
		{"$TargetDedicatedNodes = 2.9", two}, {"$TargetDedicatedNodes = -2; $TargetLowPriorityNodes = -0.5", "$TargetDedicatedNodes=0;$TargetLowPriorityNodes=0;$NodeDeallocationOption=requeue"},
		{"$TargetDedicated = 2", two}, {"$targetDedicatedNodes = 2", two}, {"$TargetDedicated = 7; $TargetDedicatedNodes = 2", two}, {"$TargetDedicatedNodes = 2; $TargetDedicated = 7", two},
		{"$TargetLowPriority = 1; $TargetDedicatedNodes = 2", two},
		{"$TargetDedicatedNodes = 2.9; x = $TargetDedicatedNodes", two + ";x=2.9"}, {"x = $TargetDedicatedNodes; $TargetDedicatedNodes = 2", two + ";x=3"}, {"$targetDedicatedNodes = 2; x = $targetDedicatedNodes", two + ";x=2"},
		{"$TargetDedicatedNodes = 2; stop(); $TargetDedicatedNodes = 9", two}, {"$TargetDedicatedNodes = 2; $TargetDedicatedNodes = 1 ? stop() : 9", two},
		{"now = 1; interval = 2; span = 3; $taskSlotsPerNode = 4", base + ";$taskSlotsPerNode=4;interval=2;now=1;span=3"},
		{"$TargetSpotNodes = 2; $TargetDedicatedNodes = 0", "$TargetDedicatedNodes=0;$TargetLowPriorityNodes=2;$NodeDeallocationOption=requeue"}, {"x = $TargetSpotNodes", base + ";x=1"},
		{"$TargetLowPriorityNodes = 3; $TargetSpotNodes = 2", strings.Replace(base, "$TargetLowPriorityNodes=1", "$TargetLowPriorityNodes=3", 1)},
		{"a = 1;; b = 2 // c = 3; \"\n", base + ";a=1;b=2"}, {"a=1;\r\nb=a\r\n+1;\r\n", base + ";a=1;b=2"},
		{"$NodeDeallocationOption = 0 ? requeue : retaineddata; x = $NodeDeallocationOption", "$TargetDedicatedNodes=3;$TargetLowPriorityNodes=1;$NodeDeallocationOption=retaineddata;x=retaineddata"},
		{"$NodeDeallocationOption = terminate", strings.Replace(base, Requeue, Terminate, 1)},
		{"v = $PendingTasks.GetSample(3); t = time()", base + ";t=2026-11-23T10:00:00.000Z;v=[1,1,2]"},
	} {
		s := pending(0, 1, 1, 2)
		s.Current = map[string]float64{"$TargetDedicated": 3, LowPriority: 1}
		if r := evaluate(t, c.src, s); r.Err != nil || r.Text() != c.want {
			t.Errorf("%s\n got %s %v\nwant %s", c.src, r.Text(), r.Err, c.want)
		}
	}
}

// TestFailuresKeepThePool: whatever an earlier statement assigned; each error says
// where, in characters from 1, and has the service's form.
func TestFailuresKeepThePool(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]string{
		"//é\n\n\n\n\n\n\n\n  é = 1": "", // see below
		"$TargetDedicatedNodes = 9;\nsli = TimeInterval_Minute;\n\n\n\n\n\n\n$x = 1 + max($PendingTasks.GetSample(sli))": "Line 9, Col 37: Insufficient data from data set: $PendingTasks wanted 70%, received 0%",
		"$TargetDedicatedNodes = 9; x = $RunningTasks.GetSample(TimeInterval_Minute, 100)":                               "Line 1, Col 55: Insufficient data from data set: $RunningTasks wanted 100%, received 0%",
		"$TargetDedicatedNodes = 9; x = y": "Line 1, Col 32: y has no value",
		"$TargetDedicatedNodes = 9; $NodeDeallocationOption = taskcompletion; 1 ? time() : 1; x = 1 +\n time()": "Line 1, Col 92: + isn't defined",
		"$TargetDedicatedNodes = $PendingTasks.GetSample(1)":                                                    "Line 1, Col 1: $TargetDedicatedNodes can't be a vector",
		"$TargetDedicatedNodes = 1 / 0":                                                                         "Line 1, Col 1: $TargetDedicatedNodes can't be Infinity",
		"$TargetDedicatedNodes = 0 / 0":                                                                         "can't be NaN",
		"$TargetDedicatedNodes = requeue":                                                                       "can't be a text",
		"$NodeDeallocationOption = 1":                                                                           "can't be a number",
		`$NodeDeallocationOption = "retain"`:                                                                    `can't be "retain"`,
	} {
		if want == "" {
			if _, problems := Parse(src); len(problems) != 1 || problems[0].Line != 9 || problems[0].Column != 3 {
				t.Errorf("%s: %v", src, problems)
			}
			continue
		}
		s := State{Now: now, Current: map[string]float64{Dedicated: 3}}
		r := evaluate(t, src, s)
		if r.Err == nil || !strings.HasPrefix(r.Err.Located(), want) && !strings.Contains(r.Err.Located(), want) || r.Err.Hint == "" {
			t.Errorf("%s\n got %v\nwant %s", src, r.Err, want)
			continue
		}
		if code := map[bool]string{true: TooFewSamples, false: BadFormula}[strings.Contains(want, "Insufficient")]; r.Err.Code != code {
			t.Errorf("%s: code %s", src, r.Err.Code)
		}
		if got := r.Text(); !strings.HasPrefix(got, "$TargetDedicatedNodes=3;$TargetLowPriorityNodes=0;$NodeDeallocationOption=requeue") {
			t.Errorf("%s: the pool changes to %s", src, got)
		}
	}
}

// TestMistakes: each mistake that was found in public formulas has its hint.
func TestMistakes(t *testing.T) {
	t.Parallel()
	const low = "$TargetLowPriorityNodes = "
	for _, c := range []struct {
		src, at, severity, hint string
	}{
		{"$a = 1\n$TargetDedicatedNodes = $a;", "1:7", Wrong, "write ; at the end of line 1"},
		{"$a = max(1, 2)\n\n  $TargetDedicatedNodes = $a;", "1:15", Wrong, "write ; at the end of line 1"},
		{"$TargetDedicatedNodes = time().minute % 2;", "1:39", Wrong, "floor(a / b)"},
		{"$s = $PendingTasks.GetSample(5); $TargetDedicatedNodes = $s.Sum();", "1:61", Wrong, "sum(…)"},
		{"$TargetDedicatedNodes = $PendingTasks.GetSample(5).GetSum();", "1:52", Wrong, "sum(…)"},
		{"$TargetDedicatedNodes = $PendingTasks.GetAverage();", "1:39", Wrong, "avg($PendingTasks.GetSample("},
		{`$TargetDedicatedNodes = time() > time(\"2026-11-23\");`, "1:39", Wrong, `write " instead of \"`},
		{"$TargetDedicatedNodes = ${vmCount};", "1:25", Wrong, "${vmCount}"},
		{"$TargetDedicatedNodes = {0};", "1:25", Wrong, "in place of {0}"},
		{"$TargetDedicatedNodes = {{vmCount}};", "1:25", Wrong, "template"},
		{"$tasks = 1; $TargetDedicatedNodes = $task;", "1:37", Wrong, "is $tasks meant?"},
		{"tasks = 1; $TargetDedicatedNodes = $tasks;", "1:36", Wrong, "tasks was assigned"},
		{"$TargetDedicatedNodes = $pendingTasks;", "1:25", Wrong, "is $PendingTasks meant?"},
		{"$TargetDedicatedNodes = maximum;", "1:25", Wrong, "assign it in a statement before"},
		{"$TargetDedicatedNodes = $PendingTasks + $RunningTasks;", "1:39", Warning, "leave $RunningTasks out"},
		{"p = max(0, $PendingTasks.GetSample(1)); r = max(0, $RunningTasks.GetSample(1)); $TargetDedicatedNodes = r + p;", "1:107", Warning, "leave $RunningTasks out"},
		{"$TargetDedicatedNodes = sum($PendingTasks, $ActiveTasks);", "1:28", Warning, "leave $ActiveTasks out"},
		{"$t = $PendingTasks > 0 ? $PendingTasks : max(0, $TargetDedicatedNodes / 2); " + low + "min($t, 9);", "1:77", Warning, "divide $TargetLowPriorityNodes"},
		{low + "$TargetDedicatedNodes * 0.5;", "1:1", Warning, "divide $TargetLowPriorityNodes"},
		{"$TargetDedicatedNodes = $CPUPercent > 0.7 ? 2 : 1;", "1:37", Warning, "70"},
		{"$TargetDedicatedNodes = max(0, $CPUPercent.GetSample(9)) < 0.2 ? 2 : 1;", "1:58", Warning, "70"},
		{"w = avg($CPUPercent.GetSample(9)); lim = 0.7; $TargetDedicatedNodes = w > lim ? 2 : 1;", "1:73", Warning, "70"},
		{"$TargetDedicatedNodes = 7 / 10 < $CPUPercent ? 2 : 1;", "1:32", Warning, "70"},
		{"$targetDedicatedNodes = 5;", "1:1", Warning, "write $TargetDedicatedNodes"},
		{"x = 5;", "1:1", Warning, "assign $TargetDedicatedNodes or"},
		{"$TargetDedicatedNodes = $ActiveTasks;", "1:1", Warning, "$NodeDeallocationOption = taskcompletion"},
		{"$TargetDedicatedNodes = avg($PendingTasks.GetSample(TimeInterval_Minute * 5));", "1:52", Warning, "GetSamplePercent"},
		{"$TargetDedicatedNodes = 1 < $PendingTasks < 5;", "1:43", Warning, "a < b && b < c"},
		// What else goes wrong.
		{"$TargetDedicatedNodes = $PendingTasks.GetSample(1);", "1:1", Wrong, "take one number"},
		{"$TargetDedicatedNodes = $PendingTasks.GetSample(1) > 0 ? 1 : 2;", "1:52", Wrong, "vectors can't be compared"},
		{"$TargetDedicatedNodes = mx(1, 2);", "1:25", Wrong, "is max meant?"}, {"$TargetDedicatedNodes = abs(1);", "1:25", Wrong, "max(x, -x)"},
		{"$TargetDedicatedNodes = $PendingTasks.GetSamples(1);", "1:39", Wrong, "is GetSample meant?"}, {"$TargetDedicatedNodes = $PendingTasks.Count;", "1:39", Wrong, "parentheses are missing"},
		{"x = 1; $TargetDedicatedNodes = x.GetSample(1);", "1:34", Wrong, "read-only variables have samples"}, {"$TargetDedicatedNodes = time().weekDay;", "1:32", Wrong, "is .weekday meant?"},
		{"$TargetDedicatedNodes = max();", "1:28", Wrong, "max(numbers"}, {"$PendingTasks = 1;", "1:1", Wrong, "another name"}, {"requeue = 1; $TargetDedicatedNodes = 1;", "1:1", Wrong, "another name"},
		{"$TargetDedicatedNodes = (1 = 2) ? 1 : 2;", "1:28", Wrong, "== compares"}, {"$TargetDedicatedNodes = (1 + 2;", "1:31", Wrong, "isn't complete"}, {"$TargetDedicatedNodes = 1 +", "1:28", Wrong, "isn't complete"},
		{"$TargetDedicatedNodes = 1 ? 2;", "1:30", Wrong, "condition ? value : other value"}, {"$TargetDedicatedNodes = 1 & 1;", "1:27", Wrong, "write &&"}, {"$TargetDedicatedNodes = 5 == '5';", "1:30", Wrong, "double quotes"},
		{"$TargetDedicatedNodes = 5m;", "1:25", Wrong, "5 * TimeInterval_Minute"}, {"# comment\n$TargetDedicatedNodes = 1;", "1:1", Wrong, "begins with //"}, {"$TargetDedicatedNodes = “1”;", "1:25", Wrong, "plain double quote"},
		{"$TargetDedicatedNodes += 1;", "1:24", Wrong, "x = x + 1"}, {"$TargetDedicatedNodes = TimeInterval_Minute > 5 ? 1 : 2;", "1:45", Wrong, "no unit of time"}, {`$NodeDeallocationOption = "x`, "1:27", Wrong, `end it with "`},
		{`$TargetDedicatedNodes = time("soon") > time() ? 1 : 2;`, "1:29", Wrong, "2026-11-23T10:00:00Z"}, {"$NodeDeallocationOption = taskCompletion; $TargetDedicatedNodes = 1;", "1:27", Wrong, "is taskcompletion meant?"},
		{"$TargetDedicatedNodes = 1; $NodeDeallocationOption = 1;", "1:28", Wrong, "without quotes"}, {"$TargetDedicatedNodes = max(requeue);", "1:28", Wrong, "max(numbers"}, {"$TargetDedicatedNodes = $PendingTasks.GetSample(requeue);", "1:48", Wrong, "number of samples"},
		{"$TargetDedicatedNodes = (1 + 2).hour;", "1:33", Wrong, "only times have members"}, {"$TargetDedicatedNodes = -requeue;", "1:25", Wrong, "compare it"}, {"$TargetDedicatedNodes = $ 5;", "1:25", Wrong, "$PendingTasks"},
	} {
		found := Check(c.src)
		if !slices.ContainsFunc(found, func(f Finding) bool {
			return fmt.Sprintf("%d:%d", f.Line, f.Column) == c.at && f.Severity == c.severity && strings.Contains(f.Hint, c.hint)
		}) {
			t.Errorf("%s\n got %+v\nwant %s %s …%s…", c.src, found, c.at, c.severity, c.hint)
		}
		for _, f := range found {
			if f.Message == "" || f.Hint == "" {
				t.Errorf("%s: %+v says too little", c.src, f)
			}
		}
	}
}

// patterns are formulas as users have them; each evaluates on a new pool.
var patterns = map[string]string{
	"backlog": `ok = $PendingTasks.GetSamplePercent(3 * TimeInterval_Minute) >= 70; want = ok ? avg($PendingTasks.GetSample(3 * TimeInterval_Minute)) : 1; $TargetDedicatedNodes = min(25, want); $NodeDeallocationOption = taskcompletion;`,
	"slots":   `tasks = max(0, $ActiveTasks.GetSample(1)); extra = (tasks - $TargetDedicatedNodes * 4 + 3) / 4; $TargetDedicatedNodes = max(0, min($TargetDedicatedNodes + extra, 3)); $NodeDeallocationOption = taskcompletion;`,
	"hours": `
		// office hours
		$now = time() + (-6 * TimeInterval_Hour);
		$hours = $now.hour >= 8 && $now.hour < 18;
		$weekday = $now.weekday >= 1 && $now.weekday <= 5;
		$TargetDedicatedNodes = $hours && $weekday ? 20:10
	`,
	"warm": `t = time(); due = t.minute >= 55 || t.minute < 10; busy = $PendingTasks.Count() > 0 ? max(0, $PendingTasks.GetSample(60 * TimeInterval_Minute, 0)) : 0; $TargetDedicatedNodes = due ? 3 : (busy > 0 ? $TargetDedicatedNodes : 0);`,
	"start": "$TargetDedicatedNodes = 4; lifespan = time() - time(\"Mon, 23 Nov 2026 09:55:00 GMT\"); span = TimeInterval_Minute * 60; startup = TimeInterval_Minute * 10; ratio = 50;\r\n" +
		`$TargetDedicatedNodes = (lifespan > startup ? (max($RunningTasks.GetSample(span, ratio), $ActiveTasks.GetSample(span, ratio)) == 0 ? 0 : $TargetDedicatedNodes) : 4);`,
	"half": `$samples = $PendingTasks.GetSamplePercent(TimeInterval_Minute * 15);
		$tasks = $samples < 70 ? max(0, $PendingTasks.GetSample(1)) : max($PendingTasks.GetSample(1), avg($PendingTasks.GetSample(TimeInterval_Minute * 15)));
		$targetVMs = $tasks > 0? $tasks:max(0, $TargetDedicatedNodes/2);
		$TargetDedicatedNodes = max(0, min($targetVMs, 20)); $NodeDeallocationOption = taskcompletion;`,
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int64{"backlog": 1, "slots": 0, "hours": 10, "warm": 3, "start": 4, "half": 5} {
		src := patterns[name]
		if found := Check(src); len(found) > 0 {
			t.Errorf("%s: %+v", name, found)
		}
		r := evaluate(t, src, State{Now: now, Current: map[string]float64{Dedicated: map[string]float64{"half": 10}[name]}})
		if r.Err != nil || r.Targets[Dedicated] != want {
			t.Errorf("%s: got %s %v, want %d", name, r.Text(), r.Err, want)
		}
	}
	if found := Check("$TargetDedicatedNodes = $ActiveTasks; $NodeDeallocationOption = taskcompletion"); len(found) > 0 {
		t.Errorf("no task is stopped, yet there is %+v", found)
	}
	// Without work 20 nodes end step by step.
	var got []int64
	for n := int64(20); n > 0 && len(got) < 9; {
		n = evaluate(t, patterns["half"], State{Now: now, Current: map[string]float64{Dedicated: float64(n)}}).Targets[Dedicated]
		got = append(got, n)
	}
	if diff := cmp.Diff([]int64{10, 5, 2, 1, 0}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, problems := Parse("a = 1\nb = %;\nc = d e;\nf = (1;"); len(problems) == 0 {
		t.Error("errors are overlooked")
	}
	if _, problems := Parse("a = 1\nc = d e;\nf = (1;"); len(problems) != 3 {
		t.Errorf("not every error is reported: %v", problems)
	}
}

// TestReads: an evaluation says which samples it used.
func TestReads(t *testing.T) {
	t.Parallel()
	r := evaluate(t, "a = $PendingTasks.GetSample(2);\nb = $PendingTasks.GetSamplePercent(2 * TimeInterval_Minute)", pending(time.Minute, 1, 2, 3, 4))
	want := []Read{{"$PendingTasks", 1, 28, time.Time{}, now, 2, 100}, {"$PendingTasks", 2, 35, now.Add(-2 * time.Minute), now, 2, 50}}
	if diff := cmp.Diff(want, r.Reads); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestBounds: formulas that are too large are refused, at once.
func TestBounds(t *testing.T) {
	t.Parallel()
	refused := func(src, why string) {
		t.Helper()
		if _, problems := Parse(src); len(problems) == 0 || !strings.Contains(problems[0].Message, why) || problems[0].Hint == "" {
			t.Errorf("%.40s…: got %v, want %s", src, problems, why)
		}
	}
	refused("x = 1;"+strings.Repeat(" ", MaxBytes-5), "8193 bytes")
	refused(strings.Repeat("x = 1;", MaxStatements+1), "100 statements")
	refused("x = "+strings.Repeat("(", 4000)+"1", "200 levels")
	refused("x = "+strings.Repeat("-", 4000)+"1", "200 levels")
	refused("x = "+strings.Repeat("max(", 1000)+"1", "200 levels")
	refused("x = 1e999", "too large")
	for _, src := range []string{"x = 1;" + strings.Repeat(" ", MaxBytes-6), strings.Repeat("x = 1;", MaxStatements), "x = 1" + strings.Repeat("+1", 4000), "x = " + strings.Repeat("0 ? 1 : ", 1000) + "2", "x = " + strings.Repeat("(", 150) + "1" + strings.Repeat(")", 150)} {
		if r := evaluate(t, src, State{Now: now}); r.Err != nil {
			t.Errorf("%.40s…: %v", src, r.Err)
		}
	}
	if _, problems := Parse(strings.Repeat("x = ;", 90)); len(problems) != maxProblems {
		t.Errorf("%d errors are reported, not %d", len(problems), maxProblems)
	}
	many := pending(0, make([]float64, 100_000)...)
	if r := evaluate(t, "v = $PendingTasks.GetSample(1e9); x = v"+strings.Repeat("+v", 1000), many); r.Err == nil || !strings.Contains(r.Err.Message, "20000000 numbers") {
		t.Errorf("the work isn't bounded: %v", r.Err)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s    State
		want string
	}{
		{State{Now: now, Current: map[string]float64{"$TargetDedicated": 1, "$CurrentDedicated": 1}, Samples: map[string][]Sample{"$PendingTasks": nil}, Option: Terminate}, ""},
		{State{Now: now, Current: map[string]float64{"$TargetDedicatedNode": 1}}, "is $TargetDedicatedNodes meant?"},
		{State{Now: now, Samples: map[string][]Sample{"$Pending": nil}}, "no such variable"},
		{State{Now: now, Option: "kill"}, "the options are"},
		{State{Now: now.AddDate(9000, 0, 0)}, "years 1 to 9999"},
	} {
		err := c.s.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !fleetscore.Invalid.Is(err)) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	var e error = &Error{Code: BadFormula, Line: 1, Column: 2, Message: "m", Hint: "h"}
	if got := e.Error(); got != "Line 1, Col 2: m (h)" || !errors.As(e, new(*Error)) {
		t.Error(got)
	}
}

// TestJSON: values in JSON, also those that JSON has no number for.
func TestJSON(t *testing.T) {
	t.Parallel()
	r := evaluate(t, `a = 1.5; b = vec(1, 1/0, 2); c = 0/0; d = time(); e = TimeInterval_Minute; f = "x"; g = 1e300; h = -0.0`, State{Now: now})
	got, err := json.Marshal(r.Variables)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"a":1.5,"b":[1,"Infinity",2],"c":"NaN","d":"2026-11-23T10:00:00.000Z","e":"PT1M","f":"x","g":1e+300,"h":0}`, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestCheckAgrees: in formulas without choices, where everything is evaluated, Check
// finds an error of types if and only if the evaluation meets one.
func TestCheckAgrees(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		g := &generator{rt: rt, vars: map[string]kind{}}
		src, s := g.formula(), g.state()
		found := slices.ContainsFunc(Check(src), func(f Finding) bool { return f.Severity == Wrong })
		if strings.Contains(src, "?") || strings.Contains(src, "&&") || strings.Contains(src, "||") || strings.Contains(src, "stop") {
			return
		}
		f, _ := Parse(src)
		r := f.Eval(s)
		if found && r.Err == nil {
			rt.Errorf("%s\nevaluates to %s, but has %+v", src, r.Text(), Check(src))
		}
		if r.Err != nil && !found && (strings.Contains(r.Err.Message, "isn't defined") || strings.Contains(r.Err.Message, "can't be a ") || strings.Contains(r.Err.Message, "nothing was assigned")) {
			rt.Errorf("%s\nfails with %v, which Check doesn't find", src, r.Err)
		}
	})
}

// FuzzFormula: no text takes long or ends the process.
func FuzzFormula(f *testing.F) {
	for _, src := range patterns {
		f.Add(src)
	}
	for _, src := range []string{"x = $a.GetSample(1)", "a ? b : c ? d", `"`, "${", "1e", "x=-!-1..", "$TargetDedicatedNodes = vec(1)+1;stop()", "x=1\n y", "x = 1E1000"} {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		if len(src) > MaxBytes+1 {
			return
		}
		for _, finding := range Check(src) {
			if finding.Line < 1 || finding.Column < 1 || finding.Hint == "" {
				t.Errorf("%q: %+v", src, finding)
			}
		}
		parsed, problems := Parse(src)
		if (parsed == nil) != (len(problems) > 0) || parsed == nil {
			return
		}
		r := parsed.Eval(pending(0, 1, 2, 3))
		if r.Targets[Dedicated] < 0 || !slices.Contains(options, r.Option) {
			t.Errorf("%q: %s", src, r.Text())
		}
		if _, err := json.Marshal(r.Variables); err != nil {
			t.Errorf("%q: %v", src, err)
		}
	})
}
