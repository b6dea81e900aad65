package cli

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestMLflowFolders: models that are folders of MLflow are scored as plain Python scores them,
// natively or by Python, by the one-shot and by a server; scripts and commands find them as
// folders; a folder that lacks its model costs its own sensor alone.
func TestMLflowFolders(t *testing.T) {
	t.Parallel()
	python := testkit.ModelsVenv(t)
	dir := t.TempDir()
	plant := filepath.Join(testkit.Root(t), "internal", "scorer", "python", "testdata", "code", "plant.py")
	if out, err := testkit.Command(t, python, "-B", filepath.Join("testdata", "mlflow_models.py"), dir, plant).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	type row struct{ prediction, score float64 }
	number := func(s string) float64 {
		if s == "" {
			return math.NaN()
		}
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	want := map[string]row{}
	sensors := map[string]bool{}
	for _, r := range readTable(t, filepath.Join(dir, "expected.csv")) {
		want[r["Tag"]+" "+strconv.FormatFloat(number(r["Value"]), 'g', -1, 64)] = row{number(r["Prediction"]), number(r["Score"])}
		sensors[r["Tag"]] = true
	}
	check := func(how string, got map[string]row) {
		t.Helper()
		for k, g := range got {
			w, ok := want[k]
			if !ok || math.Abs(w.prediction-g.prediction) > 1e-9 || math.IsNaN(w.score) != math.IsNaN(g.score) || math.Abs(w.score-g.score) > 1e-9 {
				t.Errorf("%s: %s is %v, want %v", how, k, g, w)
			}
		}
	}
	native := []string{"pickle", "cloudpickle", "skops"}
	oneshot := func(runtime string, sensors int, wants ...string) {
		t.Helper()
		out := filepath.Join(t.TempDir(), "out")
		args := []string{"score", "--data", filepath.Join(dir, "rows.csv"), "--models", filepath.Join(dir, "models"), "--model", "model_{Device}_{Tag}", "--key", "Device,Tag", "--time", "TS", "--feature", "Value", "--out", out, "--runtime", runtime}
		if runtime != "native" {
			args = append(args, "--python", python)
		}
		code, stdout, stderr := command(t, args...)
		for _, w := range wants {
			if code != exitPartly || !strings.Contains(stderr, w) {
				t.Fatalf("%s: exit %d, want %d and %q\n%s%s", runtime, code, exitPartly, w, stdout, stderr)
			}
		}
		got := map[string]row{}
		for _, r := range readTable(t, filepath.Join(out, "predictions.csv")) {
			got[r["Tag"]+" "+strconv.FormatFloat(number(r["Value"]), 'g', -1, 64)] = row{number(r["Prediction"]), number(r["Score"])}
		}
		if len(got) != 20*sensors {
			t.Errorf("%s: %d rows were scored, want those of %d sensors\n%s", runtime, len(got), sensors, stderr)
		}
		check(runtime, got)
	}
	oneshot("native", len(native), "the folder holds a model of MLflow's flavor xgboost", "model.pkl")
	oneshot("python", len(sensors), "a/broken", "no flavor sklearn, xgboost, lightgbm, onnx or python_function with its file")

	p := newServer(t, `
fleets: {sensors: {path: ./models, model: "model_{Device}_{Tag}"}, pushed: {path: models/pushed, model: "model_{Device}_{Tag}"}}
pools: {cpu: {scale: {min: 0, max: 1}}}
pipelines:
  mixed: {dataset: history, fleet: sensors, features: [Value], pool: cpu, runtime: auto}
  pushed: {dataset: history, fleet: pushed, features: [Value], pool: cpu, runtime: auto}
  script: {dataset: history, fleet: sensors, features: [Value], pool: cpu, runtime: python, python: {code: ./code, script: score.py}}
  command: {dataset: history, fleet: sensors, features: [Value], pool: cpu, runtime: command, command: {run: "python {code}/run.py {model}", code: ./code}}
`, func(at string) {
		if err := os.CopyFS(filepath.Join(at, "models"), os.DirFS(filepath.Join(dir, "models"))); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(at, "code"), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{
			"score.py": "import os\ndef run(batch):\n    folder = os.path.join(os.environ['AZUREML_MODEL_DIR'], 'model_a_')\n    return [float(open(folder + tag + '/MLmodel').read().startswith('flavors')) for tag in batch.Tag]\n",
			"run.py":   "import os, sys\nassert open(os.path.join(sys.argv[1], 'MLmodel')).read().startswith('flavors')\n",
		} {
			if err := os.WriteFile(filepath.Join(at, "code", name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	})
	p.args = []string{"--python", python}
	p.start()
	server := "--server=http://" + p.addr
	run := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, append(args, server)...)
		if code != 0 && code != exitPartly {
			t.Fatalf("%q: exit %d\n%s%s\n%s", args, code, stdout, stderr, p.log)
		}
		return stdout + stderr
	}
	run("dataset", "upload", "history", filepath.Join(dir, "rows.csv"))
	some := filepath.Join(t.TempDir(), "some")
	for _, name := range []string{"model_a_pickle", "model_a_own"} {
		if err := os.CopyFS(filepath.Join(some, name), os.DirFS(filepath.Join(dir, "models", name))); err != nil {
			t.Fatal(err)
		}
	}
	run("model", "push", "pushed", "--dir", some)
	run("model", "push", "pushed", "a/xgboost", filepath.Join(dir, "models", "model_a_xgboost"))
	if out := run("job", "submit", "pushed", "--wait", "-o", "json", "--from", "2026-11-23T08:00:00Z", "--to", "2026-11-23T09:19:00Z"); !strings.Contains(out, `"scored": 3`) {
		t.Errorf("folders that were pushed:\n%s", out)
	}
	scored := strconv.Itoa(len(sensors))
	for _, pipeline := range []string{"mixed", "script", "command"} {
		out := run("job", "submit", pipeline, "--wait", "-o", "json", "--from", "2026-11-23T08:00:00Z", "--to", "2026-11-23T09:19:00Z")
		if !strings.Contains(out, `"scored": `+scored) || !strings.Contains(out, `"failed": 1`) {
			t.Errorf("%s: want %s sensors scored:\n%s\n%s", pipeline, scored, out, p.log)
		}
	}
	got := map[string]row{}
	for b, i := p.predictions("mixed"), 0; i < b.Len(); i++ {
		_, tag, _ := strings.Cut(b.Keys[b.KeyIndex[i]].String(), "/")
		got[tag+" "+strconv.FormatFloat(b.Values[0][i], 'g', -1, 64)] = row{b.Prediction[i], b.Score[i]}
	}
	if len(got) != 20*len(sensors) {
		t.Errorf("the server scored %d rows, want those of %d sensors", len(got), len(sensors))
	}
	check("server", got)
	if out := run("fleet", "show", "sensors"); !strings.Contains(out, "runtime auto: 3 scored natively, 6 otherwise, 1 not at all") {
		t.Errorf("the fleet is shown as\n%s", out)
	}
}
