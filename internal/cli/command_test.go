package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// predictScript is a script in the reference's style: it is called with a device, a tag and a
// file of settings, reads the readings and the sensor's pickled model, and writes TS, Device,
// Tag, Val and Prediction. In place of a cloud's containers it has folders.
const predictScript = `
import json, pickle, sys
import numpy as np
import pandas as pd

device = sys.argv[1]
tag = sys.argv[2]
with open(sys.argv[3]) as f:
    j = json.loads(f.read())

data = pd.read_csv(j["data"] + "/readings.csv", dtype={"Device": str, "Tag": str})
data = data[(data["Device"] == device) & (data["Tag"] == tag)]
vals = np.array(data["Value"])
with open("{0}/model_{1}_{2}".format(j["models"], device, tag), "rb") as f:
    pipe = pickle.loads(f.read())
preds = pipe.predict(vals.reshape(-1, 1))
preds = np.where(preds == 1, 0, 1)  # 1 indicates an anomaly, 0 otherwise
res = pd.DataFrame({"TS": data["TS"], "Device": np.repeat(device, len(preds)), "Tag": np.repeat(tag, len(preds)), "Val": vals, "Prediction": preds})
res.to_csv(j["predictions"] + "/preds.csv", index=None)
`

// referenceModels trains a model for each sensor of the reference's readings, because today's
// scikit-learn can't load the reference's own.
const referenceModels = `
import os, pickle, sys
import pandas as pd
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
data = pd.read_csv(sys.argv[1])
os.makedirs(os.path.join(sys.argv[2], "models"))
for (device, tag), rows in data.groupby(["Device", "Tag"]):
    model = Pipeline([("scale", StandardScaler()), ("svm", OneClassSVM(nu=0.05, gamma=0.01))]).fit(rows[["Value"]].to_numpy()[:300])
    with open(os.path.join(sys.argv[2], "models", "model_%d_%d" % (device, tag)), "wb") as f:
        pickle.dump(model, f)
`

// TestCommandPipelines: a script in the reference's style runs for each sensor of the reference's
// readings, as a command. Its predictions are those of the native runtime, its files lie in the
// store, and its secret is nowhere.
func TestCommandPipelines(t *testing.T) {
	t.Parallel()
	python := testkit.ModelsVenv(t)
	documented := regexp.MustCompile("(?s)      run: ([^\n]+)\n.*```python\n(.*?)```").FindStringSubmatch(fileText(t, filepath.Join(testkit.Root(t), "docs", "commands.md")))
	readings := filepath.Join(testkit.Reference(t), "sensor_data.csv")
	p := newServer(t, `
fleets: {sensors: {path: ./models, model: "model_{Device}_{Tag}"}}
pools: {cpu: {slots: 2, scale: {min: 0, max: 1}}}
pipelines:
  native: {dataset: history, fleet: sensors, features: [Val=Value], pool: cpu}
  script:
    dataset: history
    fleet: sensors
    features: [Val=Value]
    pool: cpu
    runtime: command
    command: {run: "sh -c run", code: ./code}
    limits: {model_timeout: 60s}
  docs:
    dataset: few
    fleet: sensors
    features: [Val=Value]
    pool: cpu
    runtime: command
    command:
      code: ./docs
      predictions: preds.csv
      run: `+documented[1]+`
    limits: {model_timeout: 60s, no_data: 100%}
    schedule: {start_when: clock}
`, func(dir string) {
		if out, err := testkit.Command(t, python, "-c", referenceModels, readings, dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		put := func(folder, name, text string) {
			t.Helper()
			if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, folder, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		put("code", "predict.py", predictScript)
		put("docs", "predict.py", documented[2])
		few := "TS,Device,Tag,Value\n"
		for line := range strings.Lines(fileText(t, readings)) {
			if strings.Contains(line, ",1,1,") || strings.Contains(line, ",3,4,") {
				few += line
			}
		}
		put(".", "few.csv", few)
		// Where the folders lie is said by a program before the script, which a container would hold.
		wrapper := "import json, os, subprocess, sys\nprint('the key is', os.environ['STORAGE_KEY'])\n" +
			"json.dump({'data': os.environ['AZ_BATCHAI_INPUT_DATA'], 'models': os.environ['AZ_BATCHAI_INPUT_MODELS'], 'predictions': os.environ['AZ_BATCHAI_OUTPUT_PREDICTIONS']}, open(os.environ['AZ_BATCHAI_JOB_TEMP'] + '/config.json', 'w'))\n" +
			"sys.exit(subprocess.call([sys.executable, 'predict.py', sys.argv[1], sys.argv[2], os.environ['AZ_BATCHAI_JOB_TEMP'] + '/config.json']))\n"
		put("code", "start.py", wrapper)
	})
	server := "--server=http://" + p.addr
	submit := func(pipeline string, want ...string) {
		t.Helper()
		code, stdout, stderr := command(t, "job", "submit", pipeline, "--wait", server, "-o", "json", "--from", "2018-08-28T23:00:04.999999Z", "--to", "2018-08-29T03:12:30Z")
		for _, w := range want {
			if !strings.Contains(stdout+stderr, w) {
				t.Errorf("pipeline %s lacks %q: exit %d\n%s%s\n%s", pipeline, w, code, stdout, stderr, p.log)
			}
		}
	}
	p.start()
	for dataset, file := range map[string]string{"history": readings, "few": filepath.Join(p.dir, "few.csv")} {
		if code, stdout, stderr := command(t, "dataset", "upload", dataset, file, server); code != 0 {
			t.Fatalf("upload: exit %d\n%s%s", code, stdout, stderr)
		}
	}
	submit("native", `"scored": 15`)
	submit("script", `"failed": 15`, "put the program there") // nobody allowed sh
	config := fileText(t, p.file)
	with := `{run: "python start.py {Device} {Tag}", code: ./code, predictions: preds.csv, secrets: {STORAGE_KEY: blob-key}}`
	if err := os.WriteFile(p.file, []byte(strings.Replace(config, `{run: "sh -c run", code: ./code}`, with, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := command(t, "apply", p.file, server); code != 10 || !strings.Contains(stdout+stderr, "FLEETSCORE_SECRET_BLOB_KEY") {
		t.Errorf("a secret that the server doesn't have: exit %d\n%s%s", code, stdout, stderr)
	}
	p.stop()
	p.args, p.env = []string{"--python", python}, []string{"FLEETSCORE_SECRET_BLOB_KEY=hunter2-of-old"}
	p.start()
	submit("script", `"scored": 15`)
	submit("docs", `"scored": 2`, `"no_data": 13`)
	native, got, few := p.predictions("native"), p.predictions("script"), p.predictions("docs")
	want := map[string]float64{}
	anomalies := 0.0
	for i, k := range native.KeyIndex {
		want[native.Keys[k].String()+native.Times[i].String()] = native.Prediction[i]
		anomalies += native.Prediction[i]
	}
	if few.Len() < 2000 || got.Len() != 17768 || anomalies == 0 || anomalies == 17768 {
		t.Errorf("%d rows have predictions, %v anomalies", got.Len(), anomalies)
	}
	for _, got := range []*fleetscore.Predictions{got, few} {
		for i, k := range got.KeyIndex {
			if w, ok := want[got.Keys[k].String()+got.Times[i].String()]; !ok || w != got.Prediction[i] {
				t.Fatalf("%s at %s: %v, natively %v", got.Keys[k], got.Times[i], got.Prediction[i], w)
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(p.dir, "data", "store", "predictions", "script", "_output", "script-*", "*", "1", "Device=*", "Tag=*", "preds.csv"))
	if err != nil || len(files) != 15 {
		t.Fatalf("the files kept are %v, %v", files, err)
	}
	if text, err := os.ReadFile(files[0]); err != nil || !strings.HasPrefix(string(text), "TS,Device,Tag,Val,Prediction\n2018-08-28 ") {
		t.Errorf("the file kept begins with %.100q, %v", text, err)
	}
	_, shown, _ := command(t, "config", "show", server)
	if !strings.Contains(shown, "blob-key") {
		t.Errorf("the configuration is\n%s", shown)
	}
	p.stop()
	if found := testkit.Command(t, "grep", "-rl", "hunter2-of-old", filepath.Join(p.dir, "data")); true {
		if out, _ := found.Output(); len(out) > 0 || strings.Contains(p.log.String()+shown, "hunter2") {
			t.Errorf("the secret is in %s, or in a log:\n%s", out, p.log)
		}
	}
	if out, _ := testkit.Command(t, "grep", "-r", "the key is", filepath.Join(p.dir, "data", "store", "logs")).Output(); !regexp.MustCompile(`/\d+/1/stdout\.txt:\S+ 1/1: the key is \*\*\*`).Match(out) || strings.Contains(string(out), "stderr.txt") {
		t.Errorf("the logs of standard output lack what the script printed, or others have it:\n%s", out)
	}
}

func fileText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
