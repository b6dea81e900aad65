package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// submitted submits a job, waits for it, and returns it.
func submitted(t *testing.T, p *process, args ...string) (j fleetscore.Job) {
	t.Helper()
	return jsonOf[fleetscore.Job](t, append([]string{"job", "submit", "--wait", "--server=http://" + p.addr}, args...)...)
}

// TestTasksByMeasuredCost: nobody knows what 300 models cost in their first job, which has
// several tasks; the second job of the same rows has one, as the first one measured that
// they are fast. Both find the same.
func TestTasksByMeasuredCost(t *testing.T) {
	t.Parallel()
	model, err := os.ReadFile(filepath.Join(testkit.Reference(t), "models", "model_1_1"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "models"), 0o700); err != nil {
		t.Fatal(err)
	}
	var rows strings.Builder
	rows.WriteString("TS,Device,Value\n")
	for i := range 300 {
		if err := os.WriteFile(filepath.Join(dir, "models", fmt.Sprintf("m_%d", i)), model, 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&rows, "2026-11-23T10:00:00Z,%d,%d\n", i, i)
	}
	data := filepath.Join(dir, "rows.csv")
	if err := os.WriteFile(data, []byte(rows.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startServer(t, fmt.Sprintf(`
hub: {key: [Device]}
fleets: {sensors: {path: %s/models, model: "m_{Device}"}}
pools: {cpu: {slots: 2, scale: {max: 1}}}
pipelines: {p: {dataset: rows, fleet: sensors, features: [Value], pool: cpu}}
`, dir))
	if code, _, stderr := command(t, "dataset", "upload", "rows", data, "--server=http://"+p.addr); code != 0 {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	args := []string{"p", "--from", "2026-11-23T09:00:00Z", "--to", "2026-11-23T10:00:00Z"}
	first := submitted(t, p, args...)
	second := submitted(t, p, args...)
	if first.Tasks != 5 || second.Tasks != 1 {
		t.Errorf("%d and %d tasks, want 5 of 60 sensors, then one", first.Tasks, second.Tasks)
	}
	if first.State != fleetscore.JobSucceeded || first.Rows != 300 || second.Rows != 300 || second.Anomalies != first.Anomalies {
		t.Errorf("first: %+v\nsecond: %+v", first, second)
	}
}
