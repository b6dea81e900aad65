package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// pythonFleet makes models that only Python can score, one that the native runtime scores
// too, and one that ends its process; and a script.
const pythonFleet = `
import os, pickle, sys
sys.path.insert(0, os.path.join(sys.argv[1], "code"))
import plant
import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM
train = np.random.default_rng(1).normal(size=(100, 1))
os.makedirs(os.path.join(sys.argv[1], "models"))
for name, model in (("model_a_1", make_pipeline(plant.Scaled(2.0), OneClassSVM(nu=0.2))), ("model_a_2", OneClassSVM(nu=0.2)), ("model_a_3", plant.Quitter())):
    with open(os.path.join(sys.argv[1], "models", name), "wb") as f:
        pickle.dump(model.fit(train) if hasattr(model, "fit") else model, f)
with open(os.path.join(sys.argv[1], "rows.csv"), "w") as f:
    f.write("TS,Device,Tag,Value\n")
    for tag in "123":
        for i in range(20):
            f.write("2026-11-23T09:%02d:00Z,a,%s,%d\n" % (i, tag, i - 10))
`

// makePythonFleet makes the fleet, its rows and its code in a folder.
func makePythonFleet(t *testing.T, python, dir string) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(dir, "code"), os.DirFS(filepath.Join(testkit.Root(t), "internal", "scorer", "python", "testdata", "code"))); err != nil {
		t.Fatal(err)
	}
	if out, err := testkit.Command(t, python, "-B", "-c", pythonFleet, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestPythonPipelines: jobs score what the native runtime refuses by Python, name the
// model that ends its process, and run a user's script; without the operator's consent
// nothing of it runs.
func TestPythonPipelines(t *testing.T) {
	t.Parallel()
	python := testkit.ModelsVenv(t)
	p := newServer(t, `
fleets: {sensors: {path: ./models, model: "model_{Device}_{Tag}"}}
pools: {cpu: {scale: {min: 0, max: 1}}}
pipelines:
  safe: {dataset: history, fleet: sensors, features: [Value], pool: cpu}
  mixed: {dataset: history, fleet: sensors, features: [Value], pool: cpu, runtime: auto, python: {code: ./code}}
  all: {dataset: history, fleet: sensors, features: [Value], pool: cpu, runtime: python, python: {code: ./code, isolation: required}}
  script: {dataset: history, fleet: sensors, features: [Value], pool: cpu, runtime: python, python: {code: ./code, script: score.py}, logs: {layout: flat}}
  apart: {dataset: history, fleet: sensors, features: [Value], pool: cpu, runtime: python, python: {code: ./code, script: apart.py, isolation: required}}
`, func(dir string) {
		makePythonFleet(t, python, dir)
		// What an earlier job scored is still there if jobs share processes.
		apart := "seen = set()\ndef run(batch):\n    new = set(batch.TS.dt.minute)\n    if any(s < 10 for s in seen) and min(new) >= 10:\n        raise ValueError('rows of another job are here')\n    seen.update(new)\n    return [0.0] * len(batch)\n"
		if err := os.WriteFile(filepath.Join(dir, "code", "apart.py"), []byte(apart), 0o644); err != nil {
			t.Fatal(err)
		}
		script := "def init():\n    print('init is called')\ndef run(batch):\n    print('a batch of', len(batch), 'rows')\n    return batch[batch.Tag != '2'].assign(Prediction=lambda b: (b.Value > 5) * 1.0)[['Prediction']]\n"
		if err := os.WriteFile(filepath.Join(dir, "code", "score.py"), []byte(script), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	here := func(name string) string { return filepath.Join(p.dir, name) }
	if code, stdout, stderr := command(t, "model", "diff", here("models"), here("models"), "--data", here("rows.csv"), "--model", "model_{Device}_{Tag}", "--key", "Device,Tag", "--time", "TS", "--feature", "Value",
		"--runtime", "auto", "--python", python, "--code", here("code"), "-o", "json"); code != 0 || !strings.Contains(stdout, `"agree": 40`) {
		t.Errorf("model diff with Python: exit %d\n%s%s", code, stdout, stderr)
	}
	server := "--server=http://" + p.addr
	upload := func() {
		t.Helper()
		if code, stdout, stderr := command(t, "dataset", "upload", "history", filepath.Join(p.dir, "rows.csv"), server); code != 0 {
			t.Fatalf("upload: exit %d\n%s%s", code, stdout, stderr)
		}
	}
	over := func(pipeline, from, to string, want ...string) {
		t.Helper()
		code, stdout, stderr := command(t, "job", "submit", pipeline, "--wait", server, "-o", "json", "--from", "2026-11-23T"+from+":00Z", "--to", "2026-11-23T"+to+":00Z")
		for _, w := range want {
			if !strings.Contains(stdout+stderr, w) {
				t.Errorf("pipeline %s lacks %q: exit %d\n%s%s\n%s", pipeline, w, code, stdout, stderr, p.log)
			}
		}
	}
	submit := func(pipeline string, want ...string) {
		t.Helper()
		over(pipeline, "08:00", "09:19", want...)
	}
	p.start()
	upload()
	submit("mixed", `"scored": 1`, `"failed": 2`, "this node runs no Python")
	p.stop()
	p.args = []string{"--python", python, "--isolation", "off"}
	p.start()
	submit("all", `"failed": 3`, "isolation is required, but this machine's operator switched it off")
	p.stop()
	p.args = []string{"--python", python}
	p.start()
	submit("safe", `"scored": 1`, `"failed": 2`)
	submit("mixed", `"scored": 2`, `"failed": 1`, "exit code 3")
	submit("all", `"scored": 2`, `"failed": 1`, "exit code 3")
	over("apart", "08:00", "09:09", `"scored": 3`)
	over("apart", "09:09", "09:19", `"scored": 3`)
	submit("script", `"scored": 2`, `"failed": 1`, "no prediction for 20 of its 20 rows")
	got := p.predictions("script")
	anomalies := 0.0
	for i, v := range got.Prediction {
		anomalies += v
		if want := got.Values[0][i] > 5; (v == 1) != want {
			t.Errorf("the script's prediction for %v is %v", got.Values[0][i], v)
		}
	}
	if got.Len() != 40 || anomalies != 8 {
		t.Errorf("the script's predictions are %d rows with %v anomalies, want 40 with 8", got.Len(), anomalies)
	}
	for pattern, want := range map[string]string{"script/*/000-1-stdout.txt": "Python: init is called\n", "script/*/000-1-std*.txt": " rows\n", "mixed/*/000/1/stdout.txt": "a/3: before the end\n"} {
		text := ""
		files, err := filepath.Glob(filepath.Join(p.dir, "data", "store", "logs", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text += fileText(t, file)
		}
		if !strings.Contains(text, want) {
			t.Errorf("the logs %s lack %q:\n%s", pattern, want, text)
		}
	}
	native, all := p.predictions("safe"), p.predictions("all")
	at := map[string]float64{}
	for i, k := range all.KeyIndex {
		at[all.Keys[k].String()+all.Times[i].String()] = all.Score[i]
	}
	for i, k := range native.KeyIndex {
		if s, ok := at[native.Keys[k].String()+native.Times[i].String()]; !ok || math.Abs(s-native.Score[i]) > 1e-12 {
			t.Errorf("row %s: Python's score is %v, the native one %v", native.Times[i], s, native.Score[i])
		}
	}

	for args, wants := range map[string][]string{
		"fleet show sensors": {"native: 1 sensor made with scikit-learn 1.9.1: all of its classes are read as data\n    a/2", "python: 1 sensor made with scikit-learn 1.9.1, NumPy 2: ", "plant.Scaled", "start the nodes with --python",
			"pipeline safe          runtime native: 1 scored natively, 0 otherwise, 2 not at all", "pipeline mixed         runtime auto: 1 scored natively, 2 otherwise, 0 not at all", "pipeline all           runtime python: 0 scored natively, 3 otherwise, 0 not at all"},
		"fleet show sensors --models --runtime python -o csv":                {"a/1,model_a_1,python,\"scikit-learn 1.9.1, NumPy 2\",", "a/3,model_a_3,python,"},
		"fleet show sensors --models --runtime none --pipeline safe -o json": {`"key": "a/1"`, "write runtime: auto in the pipeline"},
		"fleet show sensors --models --pipeline all -o csv":                  {"a/2,model_a_2,python,"},
	} {
		if code, stdout, stderr := command(t, append(strings.Fields(args), server)...); code != 0 || slices.ContainsFunc(wants, func(w string) bool { return !strings.Contains(stdout, w) }) || strings.Contains(stdout, "a/2") != !strings.Contains(args, "--runtime") {
			t.Errorf("%s: exit %d\n%s%s\nwant %q", args, code, stdout, stderr, wants)
		}
	}
	request, err := http.NewRequest(http.MethodGet, "http://"+p.addr+"/fleets/sensors", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+p.token())
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil {
		t.Error(err)
	} else if page := string(text); !strings.Contains(page, "<td>python</td>") || !strings.Contains(page, "plant.Scaled") {
		t.Errorf("the page of the fleet is\n%s", page)
	}

	submit("all", `"scored": 2`, `"kept": 2`) // nothing has changed
	if err := os.WriteFile(filepath.Join(p.dir, "code", "more.py"), []byte("# the code has changed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, stdout, _ := command(t, "job", "submit", "all", "--wait", server, "-o", "json", "--from", "2026-11-23T08:00:00Z", "--to", "2026-11-23T09:19:00Z"); !strings.Contains(stdout, `"scored": 2`) || strings.Contains(stdout, `"kept"`) {
		t.Errorf("with other code:\n%s", stdout)
	}
}

// TestShippedCode: a node of another machine, which has neither the folder with the code nor the
// store's, scores with the code that came with its task, whatever becomes of the folder; other
// code is scored again.
func TestShippedCode(t *testing.T) {
	t.Parallel()
	python := testkit.ModelsVenv(t)
	p := startServerIn(t, `
fleets: {sensors: {path: ./models, model: "model_{Device}_{Tag}"}}
pools: {lab: {provider: static}}
pipelines:
  mixed: {dataset: history, fleet: sensors, features: [Value], pool: lab, runtime: auto, python: {code: ./code}}
  script: {dataset: history, fleet: sensors, features: [Value], pool: lab, runtime: python, python: {code: ./script, script: score.py}}
  command: {dataset: history, fleet: sensors, features: [Value], pool: lab, runtime: command, command: {run: "python {code}/run.py", code: ./run.py}}
`, func(dir string) {
		makePythonFleet(t, python, dir)
		for name, text := range map[string]string{"script/score.py": "import helper\ndef run(batch):\n    return [helper.answer] * len(batch)\n", "script/helper.py": "answer = 1.0\n", "run.py": "print('the command runs')\n"} {
			if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	})
	server := "--server=http://" + p.addr
	run := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, append(args, server)...)
		if code != 0 && code != exitPartly {
			t.Fatalf("%q: exit %d\n%s%s", args, code, stdout, stderr)
		}
		return stdout
	}
	submit := func(pipeline string, more ...string) string {
		t.Helper()
		return run(append([]string{"job", "submit", pipeline, "-o", "json", "--from", "2026-11-23T08:00:00Z", "--to", "2026-11-23T09:19:00Z"}, more...)...)
	}
	run("dataset", "upload", "history", filepath.Join(p.dir, "rows.csv"))
	pipelines := []string{"mixed", "script", "command"}
	for _, pipeline := range pipelines {
		submit(pipeline)
	}
	jobs := func() (out []fleetscore.Job) {
		var jobs api.List[fleetscore.Job]
		if err := p.Get(t.Context(), "/jobs", nil, &jobs); err != nil {
			t.Fatal(err)
		}
		return jobs.Items
	}
	eventually(t, "the jobs are planned", func() bool {
		return !slices.ContainsFunc(jobs(), func(j fleetscore.Job) bool { return j.Planned == nil })
	})
	gone := t.TempDir()
	for _, name := range []string{"code", "script", "run.py"} { // the node's machine doesn't have them
		if err := os.Rename(filepath.Join(p.dir, name), filepath.Join(gone, name)); err != nil {
			t.Fatal(err)
		}
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(run("pool", "join-token", "lab")), 0o600); err != nil {
		t.Fatal(err)
	}
	agent := exec.CommandContext(t.Context(), os.Args[0], "node", server, "--python", python)
	agent.Env = append(os.Environ(), asCommand+"=1", "FLEETSCORE_NODE_TOKEN_FILE="+token, "FLEETSCORE_BLOBS=server")
	var said logText
	agent.Stderr = &said
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = agent.Process.Signal(syscall.SIGTERM)
		_ = agent.Wait() // the signal's
	}()
	eventually(t, "the jobs have ended", func() bool {
		return !slices.ContainsFunc(jobs(), func(j fleetscore.Job) bool { return !j.State.Ended() })
	})
	want := map[string]int64{"mixed": 2, "script": 3, "command": 3}
	for _, j := range jobs() {
		if j.Outcomes[fleetscore.Scored] != want[j.Pipeline] {
			t.Errorf("%s: %s %v, want %d sensors scored: %s\n%s", j.Pipeline, j.State, j.Outcomes, want[j.Pipeline], run("job", "logs", string(j.ID)), said.String())
		}
	}
	for name, text := range map[string]string{"script/score.py": "", "script/helper.py": "answer = 0.0\n"} {
		data := []byte(text)
		if text == "" {
			data = []byte(fileText(t, filepath.Join(gone, name)))
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(p.dir, name)), 0o755), os.WriteFile(filepath.Join(p.dir, name), data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if out := submit("script", "--wait"); !strings.Contains(out, `"scored": 3`) || strings.Contains(out, `"kept"`) {
		t.Errorf("with other code:\n%s", out)
	}
	if got := p.predictions("script"); got.Len() != 60 || slices.Max(got.Prediction) != 0 {
		t.Errorf("%d predictions of the new code, the largest %v; want 60 of 0", got.Len(), got.Prediction)
	}
}

// TestEnvironments: each model of a fleet of mixed ages is scored in the environment that fits
// the release it was made with, which is a folder or is made of requirements; elsewhere, what
// doesn't fit is told of each model, or refused.
func TestEnvironments(t *testing.T) {
	t.Parallel()
	python, old := testkit.ModelsVenv(t), testkit.Venv(t, testkit.OldPackages...)
	venv := filepath.Dir(filepath.Dir(old))
	pipeline := "{dataset: history, fleet: sensors, features: [Value], pool: cpu, runtime: auto, python: {code: ./code, %s}}"
	yaml := "fleets: {sensors: {path: ./models, model: \"model_{Device}_{Tag}\"}}\npools: {cpu: {scale: {min: 0, max: 1}}}\npipelines:\n"
	for name, python := range map[string]string{"placed": "environments: [{sklearn: \"1\", path: none}, {sklearn: \"1.4\", path: " + filepath.Base(venv) + "}, {sklearn: \"1.9\", path: " + filepath.Base(filepath.Dir(filepath.Dir(python))) + "}]",
		"made": "environments: [{sklearn: \"1.4\", requirements: ./old.txt}]", "bad": "environments: [{sklearn: \"1.4\", requirements: ./old.txt, python: python0.9}]", "strict": "versions: refuse", "warned": "memory_mb: 4096"} {
		yaml += "  " + name + ": " + fmt.Sprintf(pipeline, python) + "\n"
	}
	p := newServer(t, yaml, func(dir string) {
		makePythonFleet(t, python, dir)
		for name, interpreter := range map[string]string{"model_a_1": python, "model_a_2": old} {
			program := "import os, pickle, sys\nsys.path.insert(0, os.path.join(sys.argv[1], 'code'))\nimport plant\nfrom sklearn.pipeline import make_pipeline\nwith open(os.path.join(sys.argv[1], 'models', sys.argv[2]), 'wb') as f:\n    pickle.dump(make_pipeline(plant.Scaled(2.0), plant.Release()).fit([[1.0]]), f)\n"
			if out, err := testkit.Command(t, interpreter, "-B", "-c", program, dir, name).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		if err := errors.Join(os.Remove(filepath.Join(dir, "models", "model_a_3")), os.WriteFile(filepath.Join(dir, "old.txt"), []byte(strings.Join(testkit.OldPackages, "\n")+"\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
	})
	p.args = []string{"--python", python, "--environments", filepath.Dir(venv)}
	p.start()
	server := "--server=http://" + p.addr
	if code, stdout, stderr := command(t, "dataset", "upload", "history", filepath.Join(p.dir, "rows.csv"), server); code != 0 {
		t.Fatalf("upload: exit %d\n%s%s", code, stdout, stderr)
	}
	for name, want := range map[string]struct {
		says   string
		minors map[fleetscore.Key]float64
	}{
		"placed": {`"scored": 2`, map[fleetscore.Key]float64{"a\x1f1": 9, "a\x1f2": 4}},
		"made":   {`"scored": 2`, map[fleetscore.Key]float64{"a\x1f1": 9, "a\x1f2": 4}},
		"bad":    {"python0.9", map[fleetscore.Key]float64{"a\x1f1": 9}},
		"strict": {"the model was made with scikit-learn 1.4.2, scored with 1.9.1", map[fleetscore.Key]float64{"a\x1f1": 9}},
		"warned": {`"scored": 2`, map[fleetscore.Key]float64{"a\x1f1": 9, "a\x1f2": 9}},
	} {
		_, stdout, stderr := command(t, "job", "submit", name, "--wait", server, "-o", "json", "--from", "2026-11-23T08:00:00Z", "--to", "2026-11-23T09:19:00Z")
		got := map[fleetscore.Key]float64{}
		predictions := p.predictions(name)
		for i, k := range predictions.KeyIndex {
			got[predictions.Keys[k]] = predictions.Prediction[i]
		}
		var j fleetscore.Job
		if err := json.Unmarshal([]byte(stdout), &j); err != nil {
			t.Fatalf("%s: %v\n%s%s", name, err, stdout, stderr)
		}
		_, coverage, _ := command(t, "job", "coverage", string(j.ID), "-o", "csv", server)
		if !maps.Equal(got, want.minors) || !strings.Contains(stdout+coverage, want.says) {
			t.Errorf("%s: %v, want %v and %q\n%s%s%s", name, got, want.minors, want.says, stdout, stderr, coverage)
		}
		if noted := strings.Contains(coverage, "made with scikit-learn 1.4.2, scored with 1.9.1"); noted != (name == "warned" || name == "strict") {
			t.Errorf("%s: the coverage tells of other releases: %v\n%s", name, noted, coverage)
		}
	}
}
