package cli

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestModelPush: models are checked, pushed as a version that the next job scores with,
// listed and rolled back; models that can't be scored are refused as a whole.
func TestModelPush(t *testing.T) {
	t.Parallel()
	ref := testkit.Reference(t)
	models := filepath.Join(ref, "models")
	p := startServer(t, `
fleets:
  sensors: {path: models/sensors, model: "model_{Device}_{Tag}"}
  elsewhere: {path: `+models+`, model: "model_{Device}_{Tag}"}
pools: {cpu: {scale: {min: 0, max: 1}}}
pipelines:
  anomalies: {dataset: history, fleet: sensors, features: [Val=Value], pool: cpu, limits: {no_model: 100%}}
`)
	server := "--server=http://" + p.addr
	run := func(want int, text string, args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, append(args, server)...)
		if code != want || !strings.Contains(stdout+stderr, text) {
			t.Fatalf("%v: exit %d, want %d with %q\n%s%s", args, code, want, text, stdout, stderr)
		}
		return stdout
	}
	predicted := func() map[string]float64 {
		t.Helper()
		got, out := p.predictions("anomalies"), map[string]float64{}
		for i, k := range got.KeyIndex {
			out[got.Keys[k].String()+" "+got.Times[i].String()] = got.Prediction[i]
		}
		return out
	}
	bad := filepath.Join(p.dir, "bad")
	if err := os.WriteFile(bad, []byte("cposix\nsystem\n(S'touch pwned'\ntR."), 0o644); err != nil {
		t.Fatal(err)
	}
	strange := filepath.Join(t.TempDir(), "strange") // no file's name is one of a model
	if err := os.MkdirAll(strange, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(strange, "notes.txt"), []byte("no model"), 0o644); err != nil {
		t.Fatal(err)
	}
	wide := filepath.Join(p.dir, "wide.pkl")
	if err := os.WriteFile(wide, testkit.GrowingModel(3, 1), 0o644); err != nil {
		t.Fatal(err)
	}
	model := func(name string) string { return filepath.Join(models, name) }
	score := func(sensors string) {
		t.Helper()
		run(0, `"scored": `+sensors, "job", "submit", "anomalies", "--wait", "-o", "json", "--from", "2018-08-28T23:00:00Z", "--to", "2018-08-29T03:12:30Z")
	}
	run(0, "", "dataset", "upload", "history", filepath.Join(ref, "sensor_data.csv"))
	run(10, "1/1: posix.system is not supported", "model", "push", "sensors", "1/1", bad, "1/2", model("model_1_2"))
	run(10, "takes 3 features", "model", "push", "sensors", "1/1", wide)
	run(0, "", "model", "versions", "sensors") // nothing was pushed
	stored := func() []string {
		t.Helper()
		got, err := filepath.Glob(filepath.Join(p.dir, "data", "store", "models", "sensors", "model*"))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := stored(); len(got) > 0 {
		t.Errorf("a refused push left %v", got)
	}
	run(0, "1  ", "model", "push", "sensors", "--dir", models, "-m", "all of them")
	score("15")
	first := predicted()
	run(13, "nothing would change", "model", "push", "sensors", "1/1", model("model_1_1"))
	run(0, "2  ", "model", "push", "sensors", "1/1", model("model_3_2"), "-m", "a mistake")
	if out := run(0, "model_1_1", "model", "versions", "sensors", "2", "-o", "jsonl"); strings.Count(out, "\n") != 1 {
		t.Errorf("version 2:\n%s", out)
	}
	score("15")
	if second := predicted(); maps.Equal(first, second) {
		t.Error("another model gives the same predictions")
	}
	run(0, "3  ", "model", "rollback", "sensors", "--to", "1")
	score("15")
	if third := predicted(); !maps.Equal(first, third) {
		t.Error("the old model gives other predictions than before")
	}
	if out := run(0, "a mistake", "model", "versions", "sensors", "-o", "csv"); strings.Count(out, "\n") != 4 || !strings.Contains(out, "all of them") {
		t.Errorf("versions:\n%s", out)
	}
	run(0, "4  ", "model", "push", "sensors", "1/1", bad, "--unchecked")
	run(0, "5  ", "model", "rollback", "sensors", "--to", "0")
	if got := stored(); len(got) > 0 {
		t.Errorf("before the first push there was nothing, now there is %v", got)
	}
	pushes := filepath.Join(p.dir, "data", "push")
	if left, err := os.ReadDir(pushes); err != nil || len(left) > 0 {
		t.Errorf("after all pushes the folder for them holds %v, %v", left, err)
	}
	if err := os.WriteFile(filepath.Join(pushes, "left"), nil, 0o600); err != nil { // as by a server that was killed
		t.Fatal(err)
	}
	p.stop()
	p.start()
	if _, err := os.Stat(pushes); !os.IsNotExist(err) {
		t.Errorf("a start leaves what a killed server left of pushes: %v", err)
	}
	for text, args := range map[string][]string{
		"no versions are kept":  {"push", "elsewhere", "1/1", wide},
		"no such fleet":         {"rollback", "none", "--to", "1"},
		"no fleet of this name": {"push", "none", "1/1", wide},
		"in pairs":              {"push", "sensors", "1/1"},
		"there is no such file": {"push", "sensors", "1/1", filepath.Join(p.dir, "none")},
		"key columns are":       {"push", "sensors", "1", wide},
		"no version 9":          {"rollback", "sensors", "--to", "9"},
		"match the fleet's":     {"push", "sensors", "--dir", strange},
	} {
		code, stdout, stderr := command(t, append(append([]string{"model"}, args...), server)...)
		if code == 0 || !strings.Contains(stderr, text) {
			t.Errorf("model %v: exit %d, want %q\n%s%s", args, code, text, stdout, stderr)
		}
	}
}

// TestTrainingExample: the example trains models, pushes them, and a job scores with them.
func TestTrainingExample(t *testing.T) {
	t.Parallel()
	python := testkit.Venv(t, "scikit-learn==1.6.1", "pandas==2.3.3", "deltalake==1.6.6", "duckdb==2.0.1", "pyarrow==26.0.1") // the environment of the guides' tests
	root := testkit.Root(t)
	example := filepath.Join(root, "examples", "training")
	text, err := os.ReadFile(filepath.Join(example, "fleet.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	p := startServer(t, string(text))
	server := "--server=http://" + p.addr
	healthy := filepath.Join(p.dir, "healthy.csv")
	if code, _, stderr := command(t, "simulate", "--faults=-1", "--from", "2026-11-01T00:00:00Z", "--to", "2026-11-01T00:30:00Z", "--out", healthy); code != 0 {
		t.Fatal(stderr)
	}
	for _, want := range []string{"version 1 of fleet sensors: 20 models changed", "nothing would change"} {
		train := testkit.Command(t, python, filepath.Join(example, "train.py"), healthy, "sensors")
		train.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(root, "python"), "FLEETSCORE_SERVER=http://"+p.addr,
			"FLEETSCORE_TOKEN_FILE="+filepath.Join(p.dir, "data", "secrets", "admin-token"))
		if out, _ := train.CombinedOutput(); !strings.Contains(string(out), want) {
			t.Fatalf("got %s, want %q", out, want)
		}
	}
	for _, args := range [][]string{{"dataset", "upload", "history", healthy, "--value", "Value"}, {"job", "submit", "anomalies", "--wait"}} {
		if code, stdout, stderr := command(t, append(args, server)...); code != 0 {
			t.Fatalf("%v: exit %d\n%s%s", args, code, stdout, stderr)
		}
	}
	wrong, got := 0.0, p.predictions("anomalies")
	for _, v := range got.Prediction {
		wrong += v
	}
	if got.Len() == 0 || wrong > 0.1*float64(got.Len()) {
		t.Errorf("%v of %d healthy rows are anomalies", wrong, got.Len())
	}
	code, stdout, stderr := command(t, "model", "versions", "sensors", "-o", "json", server)
	if code != 0 || !strings.Contains(stdout, "trained on healthy.csv") {
		t.Errorf("versions: exit %d\n%s%s", code, stdout, stderr)
	}
}
