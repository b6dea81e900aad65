package cli

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore/internal/config"
)

// TestScheduleNext: due times without a server.
func TestScheduleNext(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"--cron", "0 * * * *", "--zone", "America/New_York", "--after", "2026-11-01T00:30:00", "-n", "3"},
			[]string{"2026-11-01T05:00:00Z", "2026-11-01T06:00:00Z", "2026-11-01T07:00:00Z"}},
		{[]string{"--cron=@daily", "--after=2026-11-01T00:00:00Z", "-n", "1"}, []string{"2026-11-02T00:00:00Z"}},
		// Logic Apps' JSON, as it is written in a trigger: a single value, numbers in quotes, tabs.
		{[]string{"--recurrence", `{"type": "Recurrence", "recurrence": {"frequency": "week", "interval": 1,` + "\t" + `"startTime": "2020-09-18T08:00:00", "timeZone": "Pacific Standard Time",
			"schedule": {"hours": ["10", 12], "minutes": 30, "weekDays": "Monday"}}}`, "--after", "2020-09-04T00:00:00Z", "-n", "3"},
			[]string{"2020-09-21T17:30:00Z", "2020-09-21T19:30:00Z", "2020-09-28T17:30:00Z"}},
		{[]string{"--recurrence", `{"frequency": "Day", "startTime": "2026-01-01", "endTime": "2026-01-02"}`, "--after", "2026-01-01T12:00:00Z", "--zone", "Asia/Kolkata"},
			[]string{"2026-01-01T18:30:00Z"}},
		{[]string{"--recurrence", `{"frequency": "Day", "endTime": "2026-01-02"}`, "--after", "2026-03-01"}, []string{}},
	} {
		code, stdout, stderr := command(t, append([]string{"schedule", "next", "-o", "json"}, tt.args...)...)
		var got []string
		if err := json.Unmarshal([]byte(stdout), &got); code != 0 || err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%q: code %d, got %q (%v), want %q\n%s", tt.args, code, got, err, tt.want, stderr)
		}
	}
	code, stdout, _ := command(t, "schedule", "next", "--cron", "30 2 * * *", "--zone", "Europe/Berlin", "--after", "2026-03-28", "-n", "2")
	if code != 0 || !strings.Contains(stdout, "2026-03-28 01:30:00  2026-03-28 02:30:00 +01:00 CET") || !strings.Contains(stdout, "2026-03-29 01:00:00  2026-03-29 03:00:00 +02:00 CEST") {
		t.Errorf("code %d:\n%s", code, stdout)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--cron", "0 25 * * *"}, "the hour 25 isn't between 0 and 23"},
		{[]string{"--cron", ""}, "it has 0 fields, not 5"},
		{[]string{"--cron", "@daily", "--zone", "Europe/Berln"}, `there is no time zone "Europe/Berln"`},
		{[]string{"--cron", "0 25 * * *", "--zone", "Europe/Berln"}, "the hour 25 isn't between 0 and 23"}, // both are told
		{[]string{"--cron", "@daily", "--after", "noon"}, `"noon" isn't a time`},
		{[]string{"--cron", "@daily", "-n", "0"}, "from 1 to 10,000 are possible"},
		{[]string{"--recurrence", `{"frequencey": "Day"}`}, "recurrence.frequencey: unknown key; did you mean frequency?"},
		{[]string{"--recurrence", `{"frequency": "Day", "schedule": {"hours": ["noon"]}}`}, "recurrence.schedule.hours: whole numbers are expected"},
		{[]string{"--recurrence", `Day`}, "not a JSON object"},
		{[]string{"--recurrence", `{"frequency": "Day", "timeZone": "UTC"}`, "--zone", "Europe/Rome"}, "name the time zone once"},
		{nil, "name a pipeline, or give --cron or --recurrence"},
		{[]string{"p", "--cron", "@daily"}, "exactly one of them"},
		{[]string{"p", "--zone", "Europe/Rome"}, "a pipeline has its own"},
	} {
		code, _, stderr := command(t, append([]string{"schedule", "next"}, tt.args...)...)
		if code != 10 || !strings.Contains(stderr, tt.want) {
			t.Errorf("%q: code %d, want 10 and %q:\n%s", tt.args, code, tt.want, stderr)
		}
	}
	code, _, stderr := command(t, "schedule", "next", "--recurrence", `{"frequency": "Day", "startTime": "2026-01-01T08:00:00Z", "timeZone": "Pacific Standard Time"}`)
	if code != 0 || !strings.Contains(stderr, "startTime ends in Z, so that the time zone is ignored") {
		t.Errorf("a start with Z: code %d\n%s", code, stderr)
	}
}

// TestScheduleGuide: fleet.yaml takes the schedules that the guide shows.
func TestScheduleGuide(t *testing.T) {
	t.Parallel()
	shown := 0
	for _, b := range blocksOf(t, "schedules.md") {
		if b.language != "yaml" {
			continue
		}
		shown++
		text := "fleets: {f: {path: models/f, model: \"m_{Device}_{Tag}\"}}\npools: {cpu: {}}\npipelines:\n  p:\n    dataset: rows\n    fleet: f\n    features: [V]\n    pool: cpu\n" +
			"    " + strings.ReplaceAll(b.text, "\n", "\n    ")
		scheduled := "p"
		if strings.HasPrefix(b.text, "pipelines:") { // whole pipelines
			text, scheduled = "fleets: {sensors: {path: models/f, model: \"m_{Device}_{Tag}\"}, severity: {path: models/s, model: \"m_{Device}_{Tag}\"}}\npools: {cpu: {}}\n"+b.text, "anomalies"
		}
		if cfg, err := config.Parse("fleet.yaml", []byte(text)); err != nil || !cfg.Pipelines[scheduled].Schedule.IsSet() {
			t.Errorf("%v\n%s", err, text)
		}
	}
	if shown < 2 {
		t.Errorf("the guide shows %d schedules", shown)
	}
}

// TestScheduleCommands: a schedule is paused, triggered and resumed, and its due times
// are listed ahead and as history.
func TestScheduleCommands(t *testing.T) {
	t.Parallel()
	p := startServerIn(t, `
fleets: {sensors: {path: models/sensors, model: "m_{Device}_{Tag}"}}
pools: {cpu: {}}
pipelines:
  yearly: {dataset: rows, fleet: sensors, features: [Value], pool: cpu, schedule: {cron: "0 0 1 1 *", zone: Asia/Kolkata}}
  by-hand: {dataset: rows, fleet: sensors, features: [Value], pool: cpu}
`, func(string) {})
	run := func(want int, args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, append([]string{"schedule", "--server=http://" + p.addr}, args...)...)
		if code != want {
			t.Fatalf("%q: exit %d, want %d\n%s%s", args, code, want, stdout, stderr)
		}
		return stdout + stderr
	}
	holds := func(out string, wanted ...string) {
		t.Helper()
		for _, w := range wanted {
			if !strings.Contains(out, w) {
				t.Errorf("it doesn't say %q:\n%s", w, out)
			}
		}
	}
	holds(run(0, "next", "yearly", "--after", "2030-06-01T00:00:00Z", "-n", "2", "-o", "json"), `"2030-12-31T18:30:00Z"`, `"2031-12-31T18:30:00Z"`)
	holds(run(12, "next", "yeary"), "there is no such pipeline; is yearly meant?")
	holds(run(13, "next", "by-hand"), "has no schedule")
	holds(run(0, "pause", "yearly", "-o", "json"), `"paused": "20`)
	holds(run(0, "list", "-o", "json"), `"paused": "20`)
	holds(run(0, "trigger", "yearly"), "yearly-", "waiting")
	holds(run(13, "trigger", "yearly"), "hasn't ended")
	holds(run(0, "history", "yearly"), "ran", "yearly-")
	if out := run(0, "resume", "yearly", "-o", "json"); strings.Contains(out, "paused") {
		t.Errorf("resumed: %s", out)
	}
	if out := run(0, "list", "-o", "json"); strings.Contains(out, `"paused"`) {
		t.Errorf("after it was resumed: %s", out)
	}
	holds(run(12, "pause", "nobody"), "there is no such pipeline")
	holds(run(13, "pause", "by-hand"), "has no schedule")
}
