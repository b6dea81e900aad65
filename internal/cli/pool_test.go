package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// file writes a file of a test and returns its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFormulaCheck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		src, how string
		code     int
		want     string
	}{
		{"$TargetDedicatedNodes = 1;", "table", 0, "is good"},
		{"$TargetDedicatedNodes = 1;", "json", 0, "[]\n"},
		{"$targetDedicatedNodes = 1;", "csv", 0, "1,1,warning,$targetDedicatedNodes is taken for $TargetDedicatedNodes,"},
		{"a = 1\n$TargetDedicatedNodes = a % 2;", "table", exitUsage, "2     27      error     there is no operator %"},
		{"a = 1\n$TargetDedicatedNodes = a;", "json", exitUsage, `"hint": "write ; at the end of line 1"`},
	} {
		code, stdout, stderr := command(t, "pool", "formula", "check", file(t, "f.formula", c.src), "-o", c.how)
		if code != c.code || !strings.Contains(stdout, c.want) || stderr != "" {
			t.Errorf("%s as %s: exit %d\n%s%s", c.src, c.how, code, stdout, stderr)
		}
	}
	var out, errs bytes.Buffer
	if code := Main([]string{"pool", "formula", "check", "-"}, strings.NewReader("x = 1"), &out, &errs); code != 0 || !strings.Contains(out.String(), "assigns no target") {
		t.Errorf("from standard input: exit %d\n%s%s", code, out.String(), errs.String())
	}
	if code, _, stderr := command(t, "pool", "formula", "check", "/nowhere"); code != exitUsage || !strings.Contains(stderr, "/nowhere") {
		t.Errorf("no file: exit %d\n%s", code, stderr)
	}
}

const formulaState = `{"now": "2026-11-23T10:00:00Z", "current": {"$TargetDedicatedNodes": 3, "$TaskSlotsPerNode": 4},
	"samples": {"$PendingTasks": [["2026-11-23T09:59:30Z", 7], ["2026-11-23T10:00:00Z", 10]]}}`

// TestFormulaEval: the answers have the form that docs/formulas.md promises.
func TestFormulaEval(t *testing.T) {
	t.Parallel()
	state := file(t, "state.json", formulaState)
	for _, c := range []struct {
		src  string
		code int
		want string
	}{
		{"$slots = $PendingTasks / $TaskSlotsPerNode + 0.9; v = $PendingTasks.GetSample(TimeInterval_Minute);\n$TargetDedicatedNodes = $slots; $NodeDeallocationOption = taskcompletion;", 0,
			`{"targets":{"$TargetDedicatedNodes":3,"$TargetLowPriorityNodes":0},"option":"taskcompletion","variables":{"$slots":3.4,"v":[7,10]},` +
				`"result":"$TargetDedicatedNodes=3;$TargetLowPriorityNodes=0;$NodeDeallocationOption=taskcompletion;$slots=3.4;v=[7,10]",` +
				`"samples":[{"metric":"$PendingTasks","line":1,"column":78,"from":"2026-11-23T09:59:00Z","to":"2026-11-23T10:00:00Z","samples":2,"percent":100}]}`},
		{"$TargetDedicatedNodes = 9;\nx = avg($PendingTasks.GetSample(5 * TimeInterval_Minute, 70));", exitFailed,
			`{"error":{"code":"InsufficientSampleData","line":2,"column":32,"message":"Line 2, Col 32: Insufficient data from data set: $PendingTasks wanted 70%, received 20%",` +
				`"hint":"ask first, and use the newest sample else: $PendingTasks.GetSamplePercent(…) \u003c 70 ? max(0, $PendingTasks.GetSample(1)) : avg($PendingTasks.GetSample(…)); a percentage as last argument changes how many are wanted"},` +
				`"targets":{"$TargetDedicatedNodes":3,"$TargetLowPriorityNodes":0},"option":"requeue","variables":{},"result":"$TargetDedicatedNodes=3;$TargetLowPriorityNodes=0;$NodeDeallocationOption=requeue",` +
				`"samples":[{"metric":"$PendingTasks","line":2,"column":32,"from":"2026-11-23T09:55:00Z","to":"2026-11-23T10:00:00Z","samples":2,"percent":20}]}`},
		{"$TargetDedicatedNodes = 9\nx = 1;", exitFailed,
			`{"error":{"code":"AutoScalingFormulaEvaluationError","line":1,"column":26,"message":"Line 1, Col 26: the statement isn't ended before x","hint":"write ; at the end of line 1"},` +
				`"targets":{"$TargetDedicatedNodes":3,"$TargetLowPriorityNodes":0},"option":"requeue","variables":{},"result":"$TargetDedicatedNodes=3;$TargetLowPriorityNodes=0;$NodeDeallocationOption=requeue","samples":[]}`},
	} {
		code, stdout, stderr := command(t, "pool", "formula", "eval", file(t, "f.formula", c.src), "--state", state, "-o", "json")
		var got bytes.Buffer
		if err := json.Compact(&got, []byte(stdout)); err != nil || code != c.code || (code == 0) != (stderr == "") {
			t.Errorf("%s: %v, exit %d\n%s%s", c.src, err, code, stdout, stderr)
		}
		if diff := cmp.Diff(c.want, got.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.src, diff)
		}
	}
	formula := file(t, "f.formula", "a = 1; $TargetDedicatedNodes = 2")
	want := "NAME                     VALUE\n$TargetDedicatedNodes    2\n$TargetLowPriorityNodes  0\n$NodeDeallocationOption  requeue\na                        1\n"
	if code, stdout, stderr := command(t, "pool", "formula", "eval", formula, "--state", state); code != 0 || stdout != want {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	if code, _, stderr := command(t, "pool", "formula", "eval", formula); code != exitUsage || !strings.Contains(stderr, "state") {
		t.Errorf("without --state: exit %d\n%s", code, stderr)
	}
}

// TestFormulaState: a state that can't be read says where and what is expected.
func TestFormulaState(t *testing.T) {
	t.Parallel()
	formula := file(t, "f.formula", "a = $CurrentDedicated; $TargetDedicatedNodes = 2; o = $NodeDeallocationOption; p = $PendingTasks.GetSamplePeriod()")
	const now = `"now": "2026-11-23T10:00:00Z"`
	for text, want := range map[string]string{
		`{` + now + `, "current": {"$CurrentDedicated": 3, "$NodeDeallocationOption": "terminate"}, "period": "1m", "seed": 1}`: "",
		`{"current": {}}`:                                         `"" isn't a time`,
		`{"now": "soon"}`:                                         `"soon" isn't a time`,
		`{` + now + `, "samplez": {}}`:                            "samplez",
		`{` + now + `, "current": {"$Target": 1}}`:                "there is no such variable",
		`{` + now + `, "current": {"$PendingTasks": null}}`:       "a number is expected",
		`{` + now + `, "samples": {"$PendingTasks": [[1]]}}`:      "a pair of time and value",
		`{` + now + `, "samples": {"$PendingTasks": [["x", 1]]}}`: `"x" isn't a time`,
		`{` + now + `, "period": "1ms"}`:                          "shorter than a second",
		`{` + now + `} {}`:                                        "something follows",
		`[]`:                                                      "cannot unmarshal array",
	} {
		code, stdout, stderr := command(t, "pool", "formula", "eval", formula, "--state", file(t, "state.json", text), "-o", "json")
		if want == "" {
			if code != 0 || !strings.Contains(stdout, "$NodeDeallocationOption=terminate;a=3;o=terminate;p=PT1M") {
				t.Errorf("%s: exit %d\n%s%s", text, code, stdout, stderr)
			}
		} else if code != exitUsage || !strings.Contains(stderr, want) || !strings.Contains(stderr, "2026-11-23T10:00:00Z") && !strings.Contains(stderr, "the variables are") {
			t.Errorf("%s: exit %d\n%s%s", text, code, stdout, stderr)
		}
	}
}

// TestFormulaReplay: formulas side by side until the same time, as chart, table and JSON.
func TestFormulaReplay(t *testing.T) {
	t.Parallel()
	work := file(t, "tasks.csv", "time,tasks,seconds\n2026-11-23T10:00:00Z,8,600\n")
	two, four := file(t, "two.formula", "$TargetDedicatedNodes = 2"), file(t, "four.formula", "$TargetDedicatedNodes = time().hour == 10 ? 4 : 0; $NodeDeallocationOption = taskcompletion")
	args := []string{"pool", "formula", "replay", two, four, "--workload", work, "--slots", "2", "--start", "0s", "--tail", "2h", "--cost", "0.5"}
	code, stdout, stderr := command(t, args...)
	lines := strings.Split(stdout, "\n")
	// Two nodes need two rounds of 10 minutes, four one; the play ends 2 h after the longer.
	if code != 0 || stderr != "" || len(lines) < 12 || lines[0] != "2026-11-23 10:00:00 to 2026-11-23 12:20:00; the highest bar is 4 nodes or 4 waiting tasks" ||
		lines[3] != "  nodes    |"+strings.Repeat("▄", 60)+"|" || lines[4] != "  waiting  |█████"+strings.Repeat(" ", 55)+"|" ||
		lines[7] != "  nodes    |"+strings.Repeat("█", 26)+strings.Repeat(" ", 34)+"|" ||
		!strings.Contains(stdout, "\ntwo.formula   4.67        2           14      300          600          600         8      8     0         0           10           0       2.33\n") ||
		!strings.Contains(stdout, "\nfour.formula  4.00        4           17      0            0            0           8      8     0         0           10           0       2.00\n") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	var got []struct {
		Formula   string
		NodeHours float64 `json:"node_hours"`
		Cost      float64
		Points    []json.RawMessage
	}
	if code, stdout, stderr = command(t, append(args, "-o", "json")...); code != 0 || json.Unmarshal([]byte(stdout), &got) != nil || len(got) != 2 || got[1].Cost != 2 || got[1].NodeHours != 4 || len(got[0].Points) != 200 {
		t.Errorf("exit %d\n%.2000s%s", code, stdout, stderr)
	}
	fails := file(t, "fails.formula", "$TargetDedicatedNodes = avg($PendingTasks.GetSample(TimeInterval_Day))")
	if code, stdout, stderr = command(t, "pool", "formula", "replay", fails, "--workload", work, "--min", "1"); code != 0 || !strings.Contains(stderr, "failed, the first with: Line 1, Col 52: Insufficient data") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	for text, want := range map[string]string{
		"":                               "no tasks",
		"time,tasks,seconds\nsoon,1,1\n": `tasks.csv:2: "soon" isn't a time`,
		"2026-11-23,x,1\n":               `tasks.csv:1: "x" isn't a whole number of tasks`,
		"2026-11-23,1,0\n":               `tasks.csv:1: "0" isn't a number of seconds`,
		"2026-11-23,0,1\n":               "at least one task",
		"2026-11-23,1\n":                 "there are 2 columns",
		"2026-11-23,1,1\n\"":             `tasks.csv:2: extraneous or missing`,
	} {
		if code, _, stderr := command(t, "pool", "formula", "replay", two, "--workload", file(t, "tasks.csv", text)); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit %d\n%s", text, code, stderr)
		}
	}
	if code, _, stderr := command(t, "pool", "formula", "replay", file(t, "bad.formula", "x = %"), "--workload", work); code != exitUsage || !strings.Contains(stderr, "bad.formula: Line 1, Col 5: there is no operator %") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}
