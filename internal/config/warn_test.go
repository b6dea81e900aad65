package config

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
)

const base = `
hub: {key: [D]}
queries:
  q:
    cut: 10m
    sql: SELECT System.Timestamp() AS TS, D, AVG(V) AS V, AVG(W) AS W INTO readings FROM hub TIMESTAMP BY TS GROUP BY D, TumblingWindow(second, 5)
fleets: {f: {path: models/f, model: "m_{D}"}}
pools: {cpu: {}}
pipelines:
  p: {dataset: readings, fleet: f, features: [V], pool: cpu, schedule: {cron: "0 * * * *"}}
`

func parsed(t *testing.T, pairs ...string) fleetscore.Config {
	t.Helper()
	text := strings.NewReplacer(pairs...).Replace(base)
	c, err := Parse("fleet.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return c
}

// TestWarnings: settings that are most likely mistakes are reported, and no others.
func TestWarnings(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 20, 0, 0, 0, time.UTC)
	nowhere := func(string) bool { return false }
	for _, tt := range []struct {
		pairs []string
		want  string // empty: none
	}{
		{nil, ""},
		{[]string{"dataset: readings", "dataset: reading"}, "no query writes the dataset reading (did you mean readings?)"},
		{[]string{"dataset: readings", "dataset: uploaded"}, "no query writes the dataset uploaded;"},
		{[]string{"0 * * * *", "*/5 * * * *"}, "jobs are due every 5m0s, but readings becomes complete only in steps of 10m0s"},
		{[]string{"0 * * * *", "0,5 * * * *"}, "jobs are due every 5m0s"},
		{[]string{`cron: "0 * * * *"`, `cron: "* * * * *", start_when: clock`}, "jobs find none"},
		{[]string{"0 * * * *", "*/10 * * * *"}, ""},
		{[]string{"cpu: {}", "cpu: {}, spare: {}"}, "pools.spare: no pipeline uses it"},
		{[]string{"cpu: {}", "cpu: {scale: {max: 3, formula: $TargetDedicatedNodes = $PendingTasks}}"}, ""},
		{[]string{"cpu: {}", "cpu: {scale: {max: 3, formula: $TargetDedicatedNodes = $PendingTasks + $RunningTasks}}"}, "pools.cpu.scale.formula: line 1, column "},
		{[]string{"cpu: {}", "cpu: {scale: {max: 3, formula: $TargetDedicatedNodes = $FailedTasks > 70 ? 3 : 1}}"}, ""},
		{[]string{"fleets: {", `fleets: {g: {path: models/g, model: "m_{D}"}, `}, "fleets.g: no pipeline uses it"},
	} {
		got := Warnings(parsed(t, tt.pairs...), now, nowhere)
		if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)) {
			t.Errorf("%q: got %q, want %q", tt.pairs, got, tt.want)
		}
	}
	if got := Warnings(parsed(t, "dataset: readings", "dataset: uploaded"), now, func(d string) bool { return d == "uploaded" }); len(got) > 0 {
		t.Errorf("a dataset that has rows: got %q, want none", got)
	}
}

// TestLeaving: a warning says that the schedule and predictions of a renamed or
// removed pipeline stay under the old name.
func TestLeaving(t *testing.T) {
	t.Parallel()
	old := parsed(t)
	if got := Leaving(old, parsed(t, "0 *", "5 *")); len(got) > 0 {
		t.Errorf("nothing is removed: got %q", got)
	}
	if got := Leaving(old, parsed(t, "  p: {", "  renamed: {")); len(got) != 1 || !strings.Contains(got[0], "renamed scores the same dataset") || !strings.Contains(got[0], "restore the old name") {
		t.Errorf("renamed: got %q", got)
	}
	if got := Leaving(old, parsed(t, "  p: {", "  other: {", "dataset: readings", "dataset: else")); len(got) != 1 || !strings.Contains(got[0], "pipelines.p is removed") {
		t.Errorf("taken out: got %q", got)
	}
}

// TestEditing: a change of a query says what becomes of its open windows.
func TestEditing(t *testing.T) {
	t.Parallel()
	old := parsed(t)
	if got := Editing(old, parsed(t, "0 *", "5 *")); len(got) > 0 {
		t.Errorf("no query is edited: got %q", got)
	}
	for want, pairs := range map[string][]string{
		"windows that are open now, and all later ones, get their rows by the new text":                    {"TumblingWindow(second, 5)", "SlidingWindow(second, 5)"},
		"looks back 24h0m0s, and hub.retention is 1h0m0s, so that its first rows may be of fewer readings": {"TumblingWindow(second, 5)", "SlidingWindow(hour, 24)", "hub: {", "hub: {retention: 1h, "},
		"no longer writes the dataset readings: its rows stay":                                             {"INTO readings", "INTO others", "dataset: readings", "dataset: others"},
	} {
		if got := Editing(old, parsed(t, pairs...)); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestDiff: each key that differs is named with its old and new value; a default that
// is written out is not a difference.
func TestDiff(t *testing.T) {
	t.Parallel()
	old := parsed(t)
	for _, tt := range []struct {
		pairs []string
		want  []string
	}{
		{nil, nil},
		{[]string{"cpu: {}", "cpu: {provider: local, slots: 1}"}, nil},
		{[]string{"0 * * * *", "5 * * * *"}, []string{`~ pipelines.p.schedule.cron: "0 * * * *" → "5 * * * *"`}},
		{[]string{"cut: 10m", "cut: 1m"}, []string{`~ queries.q.cut: "10m0s" → "1m0s"`}},
		{[]string{"features: [V]", "features: [A=V]"}, []string{`~ pipelines.p.features: ["V"] → ["A=V"]`}},
		{[]string{"pool: cpu", "pool: cpu, retention: 90d, history: 7d"}, []string{`~ pipelines.p.history: "720h0m0s" → "168h0m0s"`, `+ pipelines.p.retention: "2160h0m0s"`}},
		{[]string{"pool: cpu", "pool: cpu, label: W, features_by: position"}, []string{`~ pipelines.p.features_by: "name" → "position"`, `+ pipelines.p.label: "W"`}},
	} {
		changes, err := Diff(old, parsed(t, tt.pairs...))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range changes {
			got = append(got, c.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q:\ngot  %q\nwant %q", tt.pairs, got, tt.want)
		}
	}
	changes, err := Diff(fleetscore.Config{}, old)
	if err != nil || len(changes) < 10 || slices.ContainsFunc(changes, func(c Change) bool { return c.Path == "pipelines.p.pool" && c.String() != `+ pipelines.p.pool: "cpu"` }) {
		t.Errorf("from nothing: got %v, %v", changes, err)
	}
	back, err := Diff(parsed(t, "cpu: {}", "cpu: {}, spare: {slots: 3}"), old)
	if err != nil || !slices.ContainsFunc(back, func(c Change) bool { return c.String() == "- pools.spare.slots: 3" }) {
		t.Errorf("a pool less: got %v, %v", back, err)
	}
}
