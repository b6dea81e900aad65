package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore/internal/oneshot"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// command runs one command line as main does.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func readTable(t *testing.T, file string) []map[string]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]string
	for _, l := range lines[1:] {
		m := map[string]string{}
		for i, h := range lines[0] {
			m[h] = l[i]
		}
		out = append(out, m)
	}
	return out
}

// TestScoreReference: every label and decision value of the reference fleet.
func TestScoreReference(t *testing.T) {
	t.Parallel()
	ref, out := testkit.Reference(t), t.TempDir()
	code, stdout, stderr := command(t, "score", "--data", filepath.Join(ref, "sensor_data.csv"), "--models", filepath.Join(ref, "models"),
		"--model", "model_{Device}_{Tag}", "--key", "Device,Tag", "--time", "TS", "--feature", "Val=Value", "--out", out)
	if code != 0 || !strings.Contains(stdout, "17,768 rows of 15 sensors") || !strings.Contains(stdout, "6,757") {
		t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
	}
	want, got := readTable(t, filepath.Join(ref, "expected_predictions.csv")), readTable(t, filepath.Join(out, "predictions.csv"))
	if len(got) != len(want) {
		t.Fatalf("got %d rows, want %d", len(got), len(want))
	}
	for i, w := range want {
		for _, c := range []string{"TS", "Device", "Tag", "Val", "Prediction"} {
			if got[i][c] != w[c] {
				t.Fatalf("row %d, %s: got %q, want %q", i, c, got[i][c], w[c])
			}
		}
		a, err1 := strconv.ParseFloat(w["Decision"], 64)
		b, err2 := strconv.ParseFloat(got[i]["Score"], 64)
		if err1 != nil || err2 != nil || math.Abs(a-b) > 1e-15 {
			t.Fatalf("row %d: decision value %v, want %v", i, b, a)
		}
	}
	items := readTable(t, filepath.Join(out, "coverage.csv"))
	if len(items) != 15 || items[1]["outcome"] != "scored" || items[1]["anomalies"] != "1154" {
		t.Errorf("coverage: %v", items)
	}
	var m oneshot.Manifest
	data, err := os.ReadFile(filepath.Join(out, "manifest.json"))
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil || m.Rows != 17768 || m.Anomalies != 6757 || len(m.Degenerate) != 4 || m.Files["predictions.csv"].SizeBytes == 0 {
		t.Errorf("manifest: %+v, %v", m, err)
	}
}

func TestScoreProblems(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	models := filepath.Join(dir, "models")
	write := func(name, text string) string {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	data := write("in.csv", "TS,Device,Tag,Value\n2026-11-23 10:00:00,1,1,5\n2026-11-23 10:00:00,2,1,5\n")
	bad := write("bad.csv", "TS,Device,Tag,Value\n2026-11-23 10:00:00,1,1,five\n")
	write("models/model_1_1", "cposix\nsystem\n(S'touch pwned'\ntR.")
	for _, tt := range []struct {
		name, data, models, feature string
		code                        int
		want                        string
	}{
		{"harm", data, models, "Value", 1, "posix.system"},
		{"no model", data, models, "Value", 1, "2/1: no_model"},
		{"bad number", bad, models, "Value", 10, `line 2, column Value: "five"`},
		{"no data", filepath.Join(dir, "none.csv"), models, "Value", 12, "no such file"},
		{"no models", data, filepath.Join(dir, "none"), "Value", 12, "--models"},
		{"no column", data, models, "Val", 10, "the columns are: TS, Device, Tag, Value"},
	} {
		out := filepath.Join(dir, "out")
		code, stdout, stderr := command(t, "score", "--data", tt.data, "--models", tt.models, "--model", "model_{Device}_{Tag}",
			"--key", "Device,Tag", "--time", "TS", "--feature", tt.feature, "--out", out)
		if code != tt.code || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s: exit %d, want %d with %q\n%s%s", tt.name, code, tt.code, tt.want, stdout, stderr)
		}
	}
	empty := write("empty.csv", "TS,Device,Tag,Value\n")
	model, err := os.ReadFile(filepath.Join(testkit.Root(t), "examples", "fleet", "models", "model_1_pressure"))
	if err != nil {
		t.Fatal(err)
	}
	write("good/model_1_1", string(model))
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no rows", []string{"--data", empty, "--out", "o1"}, 1, "nothing was scored: the data holds no rows"},
		{"no rows, which is expected", []string{"--data", empty, "--out", "o2", "--fail-on", "no_data=100%"}, 0, ""},
		{"results among the models", []string{"--data", data, "--out", "good/results"}, 10, "aren't models"},
		{"an argument of another command", []string{"--data", "good/model_1_1", "--out", "o3"}, 10, "neither text nor Parquet"},
	} {
		for i, a := range tt.args {
			if strings.HasPrefix(a, "o") || strings.HasPrefix(a, "good") {
				tt.args[i] = filepath.Join(dir, a)
			}
		}
		code, stdout, stderr := command(t, append([]string{"score", "--models", filepath.Join(dir, "good"), "--model", "model_{Device}_{Tag}", "--key", "Device,Tag", "--time", "TS", "--feature", "Value"}, tt.args...)...)
		if code != tt.code || !strings.Contains(stderr, tt.want) || tt.want == "" && stderr != "" {
			t.Errorf("%s: exit %d, want %d with %q\n%s%s", tt.name, code, tt.code, tt.want, stdout, stderr)
		}
	}
	if code, _, stderr := command(t, "score", "--data", data); code != 10 || !strings.Contains(stderr, "these flags are needed too: --feature, --key, --models, --out") {
		t.Errorf("flags missing: exit %d\n%s", code, stderr)
	}
	if _, err := os.Stat("pwned"); err == nil {
		t.Error("the model's command ran")
	}
}

func TestModelInspect(t *testing.T) {
	t.Parallel()
	ref := testkit.Reference(t)
	code, stdout, stderr := command(t, "model", "inspect", filepath.Join(ref, "models", "model_1_2"), "-o", "json")
	if code != 0 || !strings.Contains(stdout, `"flags_everything"`) || !strings.Contains(stdout, `"StandardScaler"`) {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	if code, stdout, _ := command(t, "model", "inspect", filepath.Join(ref, "models", "model_1_1"), filepath.Join(ref, "LICENSE")); code != 3 {
		t.Errorf("one of two is no model: exit %d\n%s", code, stdout)
	}
}

func TestSimulateToFile(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "r.csv")
	code, _, stderr := command(t, "simulate", "--from", "2026-11-23T00:00:00Z", "--to", "2026-11-23T00:10:00Z", "--out", out)
	if code != 0 || !strings.Contains(stderr, "12,000 readings") {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	if rows := readTable(t, out); len(rows) != 12000 {
		t.Errorf("got %d rows, want 12000", len(rows))
	}
}
