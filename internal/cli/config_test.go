package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	example := filepath.Join(testkit.Root(t), "examples", "fleet", "fleet.yaml")
	code, stdout, stderr := command(t, "validate", example)
	if code != 0 || !strings.Contains(stdout, "is good: 1 query, 1 fleet, 1 pool, 1 pipeline") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	for _, tt := range []struct{ old, new, want string }{
		{"label: Fault", "lable: Fault", "fleet.yaml:25: pipelines.anomalies.lable: unknown key; did you mean label?"},
		{"./models", "./models", "models isn't there"},
	} {
		if err := os.WriteFile(file, []byte(strings.Replace(string(text), tt.old, tt.new, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := command(t, "validate", file)
		if code != 10 || !strings.Contains(stderr, tt.want) {
			t.Errorf("exit %d, want 10 and %q\n%s", code, tt.want, stderr)
		}
	}
}

// TestExampleFleet: the example's models find most simulated faults and flag
// little else.
func TestExampleFleet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, out := filepath.Join(dir, "r.csv"), filepath.Join(dir, "out")
	if code, _, stderr := command(t, "simulate", "--from", "2026-11-05T00:00:00Z", "--to", "2026-11-05T01:00:00Z", "--out", data); code != 0 {
		t.Fatal(stderr)
	}
	code, stdout, stderr := command(t, "score", "--data", data, "--models", filepath.Join(testkit.Root(t), "examples", "fleet", "models"),
		"--model", "model_{Device}_{Tag}", "--key", "Device,Tag", "--time", "TS", "--feature", "Value", "--label", "Fault", "--out", out)
	if code != 0 || !strings.Contains(stdout, "20 scored") || strings.Contains(stdout, "warning") {
		t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
	}
	counts := map[string]int{}
	for _, r := range readTable(t, filepath.Join(out, "predictions.csv")) {
		counts[r["Fault"]+r["Prediction"]]++
	}
	found, wrong := float64(counts["11"])/float64(counts["11"]+counts["10"]), float64(counts["01"])/float64(counts["01"]+counts["00"])
	if found < 0.4 || wrong > 0.1 {
		t.Errorf("found %.2f of faulty rows, flagged %.2f of the others: %v", found, wrong, counts)
	}
}
