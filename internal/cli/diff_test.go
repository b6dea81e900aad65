package cli

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/compare"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// printed is a comparison as -o json prints it.
type printed[T, S any] struct {
	Sensors []T `json:"sensors"`
	Total   S   `json:"total"`
}

func diffOf[T, S any](t *testing.T, args ...string) printed[T, S] {
	t.Helper()
	return jsonOf[printed[T, S]](t, args...)
}

// jsonOf is what a command prints as JSON.
func jsonOf[T any](t *testing.T, args ...string) (out T) {
	t.Helper()
	code, stdout, stderr := command(t, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(stdout), &out); code != 0 || err != nil {
		t.Fatalf("%q: exit %d, %v\n%s%s", args, code, err, stdout, stderr)
	}
	return out
}

// TestShadowDiff: a candidate fleet scores the rows of a live pipeline as its shadow.
// fleet diff names the sensors whose models and results differ, and says the same of the
// results as model diff does of the same folders and rows without a server.
func TestShadowDiff(t *testing.T) {
	t.Parallel()
	ref, dir := testkit.Reference(t), t.TempDir()
	for _, name := range []string{"live", "next"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(ref, "models"))); err != nil {
			t.Fatal(err)
		}
	}
	other, err := os.ReadFile(filepath.Join(ref, "models", "model_1_1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "next", "model_3_2"), other, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "next", "model_2_5"), filepath.Join(dir, "next", "model_9_9")); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(ref, "sensor_data.csv")
	offline := diffOf[compare.Sensor, compare.Total](t, "model", "diff", filepath.Join(dir, "live"), filepath.Join(dir, "next"), "--data", data,
		"--model", "model_{Device}_{Tag}", "--key", "Device,Tag", "--time", "TS", "--feature", "Val=Value")
	if total := offline.Total; total.Sensors != 16 || total.Different != 3 || total.Rows == 0 || total.Agree == total.Rows || total.A.Only == 0 || total.B.Outcomes[fleetscore.NoModel] != 1 || total.Max == 0 {
		t.Errorf("without a server: %+v", total)
	}

	p := startServer(t, fmt.Sprintf(`
fleets:
  live: {path: %[1]s/live, model: "model_{Device}_{Tag}"}
  next: {path: %[1]s/next, model: "model_{Device}_{Tag}"}
pools: {cpu: {slots: 2}}
pipelines:
  anomalies: {dataset: rows, fleet: live, features: [Val=Value], pool: cpu, limits: {no_data: 100%%}, logs: {layout: flat}}
  candidate: {shadow: anomalies, fleet: next, limits: {no_model: 100%%}, logs: {timing: false}}
`, dir))
	server := "--server=http://" + p.addr
	if code, _, stderr := command(t, "dataset", "upload", "rows", data, server); code != 0 {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	if code, _, stderr := command(t, "fleet", "diff", "--pipeline", "anomalies", server); code != 12 || !strings.Contains(stderr, "no results yet") {
		t.Errorf("before the first job: exit %d\n%s", code, stderr)
	}
	if code, stdout, stderr := command(t, "job", "submit", "anomalies", "--wait", server); code != 0 {
		t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) { // a page of the API, not an event
		var jobs api.JobList
		if err := p.Get(t.Context(), "/jobs?pipeline=candidate", nil, &jobs); err != nil {
			t.Fatal(err)
		}
		if len(jobs.Items) == 1 && jobs.Items[0].State.Ended() {
			if j := jobs.Items[0]; j.State != fleetscore.JobSucceeded || j.Config.Shadow != "anomalies" || j.Priority != fleetscore.PriorityLow {
				t.Fatalf("the shadow's job: %+v", j)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the shadow's jobs: %+v", jobs.Items)
		}
	}
	if code, stdout, _ := command(t, "schedule", "list", "-o", "csv", server); code != 0 || !strings.Contains(stdout, "candidate,after anomalies,") {
		t.Errorf("schedule list: %s", stdout)
	}

	// The shadow has the live pipeline's layout of logs, and its own setting for times.
	for _, want := range []struct {
		pattern string
		there   bool
	}{{"anomalies/*/000-1-stderr.txt", true}, {"anomalies/*/timing.parquet", true}, {"candidate/*/000-1-stderr.txt", true}, {"candidate/*/timing-*", false}} {
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) { // logs are moved into the store in the background
			found, err := filepath.Glob(filepath.Join(p.dir, "data", "store", "logs", want.pattern))
			if err != nil {
				t.Fatal(err)
			}
			if (len(found) > 0) == want.there {
				break
			}
			if !want.there || time.Now().After(end) {
				t.Fatalf("%s: %v, want some: %t", want.pattern, found, want.there)
			}
		}
	}

	// The node sends its own log while it runs.
	var nodes api.List[fleetscore.Node]
	if err := p.Get(t.Context(), "/nodes", nil, &nodes); err != nil || len(nodes.Items) == 0 {
		t.Fatalf("%d nodes, %v", len(nodes.Items), err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // sent with heartbeats
		_, stdout, stderr := command(t, "node", "logs", string(nodes.Items[0].ID), server)
		if strings.Contains(stdout, "task begins") && strings.Contains(stdout, string(nodes.Items[0].ID)) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the node's own log:\n%s%s", stdout, stderr)
		}
	}
	if code, _, stderr := command(t, "node", "logs", "nobody", server); code != 12 {
		t.Errorf("the log of a node that isn't there: exit %d\n%s", code, stderr)
	}

	online := diffOf[compare.Sensor, api.ResultsDiff](t, "fleet", "diff", "--pipeline", "anomalies", "--with", "candidate", server)
	bySensor := cmpopts.SortSlices(func(a, b compare.Sensor) bool { return a.Key < b.Key })
	if d := cmp.Diff(offline.Sensors, online.Sensors, bySensor, cmpopts.EquateApprox(0, 1e-12)); d != "" {
		t.Errorf("sensors (-without a server +with):\n%s", d)
	}
	if d := cmp.Diff(offline.Total, online.Total.Total, cmpopts.EquateApprox(0, 1e-12)); d != "" {
		t.Errorf("total (-without a server +with):\n%s", d)
	}
	one := diffOf[compare.Sensor, api.ResultsDiff](t, "fleet", "diff", "--pipeline", "anomalies", "--key", "3/2", "--to", "2030-01-01T00:00:00Z", server) // its shadow
	if len(one.Sensors) != 1 || one.Sensors[0].Key.String() != "3/2" || one.Total.With != "candidate" || one.Sensors[0].Agree == one.Sensors[0].Rows {
		t.Errorf("one sensor: %+v", one)
	}
	models := diffOf[fleet.MemberChange, fleet.Changes](t, "fleet", "diff", "live", "next", server)
	if m := models.Total; m.Added != 1 || m.Removed != 1 || m.Changed != 1 || m.Same != 13 || len(models.Sensors) != 3 {
		t.Errorf("models: %+v", models)
	}
	code, stdout, stderr := command(t, "fleet", "diff", "--pipeline", "candidate", "-o", "csv", server) // the pipeline that it shadows
	rows, err := csv.NewReader(strings.NewReader(stdout)).ReadAll()
	if code != 0 || err != nil || len(rows) != 17 || !strings.Contains(stderr, "candidate (A) and anomalies (B)") {
		t.Errorf("csv: exit %d, %d rows, %v\n%s", code, len(rows), err, stderr)
	}
	code, stdout, _ = command(t, "fleet", "diff", "--pipeline", "anomalies", "--limit", "2", server)
	if lines := strings.Split(strings.TrimSpace(stdout), "\n"); code != 0 || !strings.Contains(stdout, "16, of them 3 that differ") || !strings.HasPrefix(lines[len(lines)-2], "3/2 ") {
		t.Errorf("table: exit %d\n%s", code, stdout)
	}
	for want, args := range map[string][]string{
		"is anomalies meant?":                              {"--pipeline", "anomalie", "--with", "candidate"},
		"compared with itself":                             {"--pipeline", "candidate", "--with", "candidate"},
		"the key columns are Device, Tag":                  {"--pipeline", "anomalies", "--key", "3"},
		"have no predictions of the same time after 2030-": {"--pipeline", "anomalies", "--from", "2030-01-01T00:00:00Z"},
		"has no fleet of this name":                        {"live", "nxt"},
		"there is no such generation":                      {"live@0123", "next"},
		"the fleet has had one generation only":            {"live"},
		"--with, --from, --to and --key belong to":         {"live", "next", "--key", "3/2"},
		"name two fleets, or --pipeline":                   {},
	} {
		if code, _, stderr := command(t, append([]string{"fleet", "diff", server}, args...)...); code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit %d, want %q\n%s", args, code, want, stderr)
		}
	}
}
