package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestScheduleThatCannotBeDecidedIsNamed: a schedule whose due time lies in the future,
// as an older fault left it, is named by the list of schedules, the health and
// the overview, with the reason; another one isn't.
func TestScheduleThatCannotBeDecidedIsNamed(t *testing.T) {
	t.Parallel()
	const text = `
fleets: {sensors: {path: models/sensors, model: "m_{Device}_{Tag}"}}
pools: {cpu: {}}
pipelines:
  ahead: {dataset: rows, fleet: sensors, features: [Value], pool: cpu, schedule: {cron: "0 0 1 1 *"}}
  well: {dataset: rows, fleet: sensors, features: [Value], pool: cpu, schedule: {cron: "0 0 1 1 *"}}
`
	p := startServerIn(t, text, func(dir string) {
		l, err := ledger.Open(t.Context(), filepath.Join(dir, "data", "ledger.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		now := time.Now().UTC().Truncate(time.Minute)
		if _, err := l.DecideSchedule(t.Context(), "ahead", func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
			v.State.Created, v.State.LastDue, v.State.NextFrom = now, now, now
			return ledger.ScheduleDecision{State: v.State, Occurrences: []fleetscore.Occurrence{{Due: now.Add(time.Hour), State: fleetscore.OccurrenceRan}}}, nil
		}); err != nil {
			t.Fatal(err)
		}
	})
	var stdout string
	for end := time.Now().Add(20 * time.Second); !strings.Contains(stdout, "was decided already"); time.Sleep(20 * time.Millisecond) { // a page of the API, not an event
		if time.Now().After(end) {
			t.Fatalf("schedule list:\n%s", stdout)
		}
		var code int
		var stderr string
		if code, stdout, stderr = command(t, "schedule", "list", "--server=http://"+p.addr); code != 0 {
			t.Fatalf("exit %d\n%s", code, stderr)
		}
	}
	for line := range strings.Lines(stdout) {
		if wrong := strings.Contains(line, "was decided already"); wrong != strings.HasPrefix(line, "ahead ") {
			t.Errorf("schedule list says %q", line)
		}
	}
	for path, status := range map[string]int{"/api/v1/health": 503, "/": 200} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+p.token())
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != status || !strings.Contains(string(page), "schedule ahead") || strings.Contains(string(page), "schedule well") {
			t.Errorf("%s: %d, %v\n%s", path, resp.StatusCode, err, page)
		}
	}
}

// TestFeatureOrder: a model that knows its feature names gets columns by name in
// "score" and in jobs of the platform, whatever their order; names that don't fit are
// refused with both lists; an option takes them by position.
func TestFeatureOrder(t *testing.T) {
	t.Parallel()
	model, err := os.ReadFile(filepath.Join(testkit.Root(t), "sklearn", "testdata", "1.9.1", "named.p5.pickle")) // pressure, température
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "models"), 0o700); err != nil {
		t.Fatal(err)
	}
	var rows strings.Builder
	rows.WriteString("TS,Device,température,pressure,temp\n")
	for i := range 20 {
		fmt.Fprintf(&rows, "2026-11-23T10:00:%02dZ,a,%v,%v,1\n", i, 3*math.Cos(float64(i)), math.Sin(float64(i)))
	}
	data := filepath.Join(dir, "rows.csv")
	for file, text := range map[string]string{filepath.Join(dir, "models", "m_a"): string(model), data: rows.String()} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	score := func(features ...string) (scores string, coverage string) {
		t.Helper()
		out := t.TempDir()
		args := []string{"score", "--data", data, "--models", filepath.Join(dir, "models"), "--model", "m_{Device}", "--key", "Device", "--time", "TS", "--out", out}
		code, _, stderr := command(t, append(args, features...)...)
		if code != 0 && code != 1 {
			t.Fatalf("%q: exit %d\n%s", features, code, stderr)
		}
		for _, r := range readTable(t, filepath.Join(out, "predictions.csv")) {
			scores += r["Score"] + " "
		}
		return scores, readTable(t, filepath.Join(out, "coverage.csv"))[0]["reason"]
	}
	want, _ := score("--feature", "pressure", "--feature", "température")
	swapped, _ := score("--feature", "température", "--feature", "pressure")
	byPosition, _ := score("--feature", "température", "--feature", "pressure", "--features-by", "position")
	if want == "" || swapped != want || byPosition == want || byPosition == "" {
		t.Errorf("score: in order %.40q, swapped %.40q, by position %.40q", want, swapped, byPosition)
	}
	if got, reason := score("--feature", "pressure", "--feature", "temp"); got != "" || !strings.Contains(reason, "[pressure, température]") || !strings.Contains(reason, "[pressure, temp]") || !strings.Contains(reason, "--features-by position") {
		t.Errorf("score with other names: %q, %s", got, reason)
	}

	p := startServer(t, fmt.Sprintf(`
hub: {key: [Device]}
fleets: {sensors: {path: %s, model: "m_{Device}"}}
pools: {cpu: {slots: 3}}
pipelines:
  swapped: {dataset: rows, fleet: sensors, features: [température, pressure], pool: cpu}
  position: {dataset: rows, fleet: sensors, features: [température, pressure], features_by: position, pool: cpu}
  other: {dataset: rows, fleet: sensors, features: [pressure, temp], pool: cpu}
`, filepath.Join(dir, "models")))
	server := "--server=http://" + p.addr
	if code, _, stderr := command(t, "dataset", "upload", "rows", data, server); code != 0 {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	for pipeline, want := range map[string]string{"swapped": want, "position": byPosition, "other": ""} {
		code, stdout, stderr := command(t, "job", "submit", pipeline, "--wait", "-o", "json", server)
		if (code == 0) != (want != "") {
			t.Errorf("job of %s: exit %d\n%s%s", pipeline, code, stdout, stderr)
		}
		if want == "" {
			var j fleetscore.Job
			if err := json.Unmarshal([]byte(stdout), &j); err != nil {
				t.Fatalf("%v\n%s", err, stdout)
			}
			if code, coverage, stderr := command(t, "job", "coverage", string(j.ID), server); code != 0 || !strings.Contains(coverage, "[pressure, température]") || !strings.Contains(coverage, "[pressure, temp]") || !strings.Contains(coverage, "features_by: position") {
				t.Errorf("coverage: exit %d\n%s%s", code, coverage, stderr)
			}
			continue
		}
		var got strings.Builder
		predictions := p.predictions(pipeline)
		for _, s := range predictions.Score {
			fmt.Fprintf(&got, "%v ", s)
		}
		if got.String() != want {
			t.Errorf("job of %s: %.60q, want %.60q", pipeline, got.String(), want)
		}
	}
}

// TestInterruptedWait: Ctrl-C ends the command that waits, not the job, and the command
// says so.
func TestInterruptedWait(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked == 2 {
			cancel()
			return
		}
		_ = json.NewEncoder(w).Encode(fleetscore.Job{ID: "j", State: fleetscore.JobRunning})
	}))
	defer srv.Close()
	c, err := client.New(client.Config{Server: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	var notes strings.Builder
	if _, err := waitJob(ctx, c, &notes, "j"); !errors.Is(err, context.Canceled) || !strings.Contains(notes.String(), "fleetscore job cancel j") {
		t.Errorf("error %v, notes %q", err, notes.String())
	}
}
