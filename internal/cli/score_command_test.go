package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestScoreCommand: the one-shot runs a program for each sensor, or once for all, with rows and
// models as files; takes its predictions, keeps what it leaves, and names the sensor that it
// fails for.
func TestScoreCommand(t *testing.T) {
	t.Parallel()
	python, dir := testkit.ModelsVenv(t), t.TempDir()
	script := `import csv, os, sys
data, models, output, limit = sys.argv[1:]
assert {open(os.path.join(models, name)).read() for name in os.listdir(models)} == {"a model"}
assert os.environ["SCORE_TEST_PLAIN"] == "1" and not "SCORE_TEST_OTHER" in os.environ
with open(data) as f:
    rows = list(csv.DictReader(f))
if any(r["Tag"] == "2" for r in rows):
    sys.exit("no such pump")
print("the word is", os.environ["SCORE_TEST_SECRET"])
with open(os.path.join(output, "preds.csv"), "w") as f:
    out = csv.DictWriter(f, ["TS", "Device", "Tag", "Prediction"], extrasaction="ignore")
    out.writeheader()
    out.writerows(dict(r, Prediction=int(float(r["Value"]) > float(limit))) for r in rows)
`
	rows := "TS,Device,Tag,Value\n"
	for _, tag := range []string{"1", "2", "3"} {
		for _, v := range []string{"1", "5", "9"} {
			rows += "2026-11-23T09:0" + v + ":00Z,a," + tag + "," + v + "\n"
		}
	}
	files := map[string]string{"code/score.py": script, "rows.csv": rows, "models/model_a_1": "a model", "models/model_a_2": "a model", "models/model_a_3": "a model", "out/_output/of/an/earlier/run": "x"}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	score := func(more ...string) (int, string) {
		code, stdout, stderr := command(t, append([]string{"score", "--data", filepath.Join(dir, "rows.csv"), "--models", filepath.Join(dir, "models"), "--model", "model_{Device}_{Tag}", "--key", "Device,Tag", "--time", "TS", "--feature", "Value",
			"--out", filepath.Join(dir, "out"), "--runtime", "command", "--python", python}, more...)...)
		return code, stdout + stderr
	}
	t.Run("refusals", func(t *testing.T) {
		for args, want := range map[string]string{"": "--runtime command needs --command", "--command x --per row": "--per row: key or task", "--command x --input json": "--input json", "--command x --predictions ../x": "--predictions ../x",
			"--command x --env SCORE_TEST_OTHER": "--env SCORE_TEST_OTHER", "--command x --param y": "--param y", "--command x --script y": "--script and --per-model", "--runtime native --command x": "need --runtime command",
			"--runtime python --script none.py": "--script none.py: there is no such file", "--runtime auto --code none": "--code none: there is no such file or folder",
			"--runtime auto --code " + filepath.Join(testkit.Root(t), "python", "fleetscore", "_score.py"): "name the folder that the module lies in"} {
			if code, out := score(strings.Fields(args)...); code != exitUsage || !strings.Contains(out, want) {
				t.Errorf("%q: exit %d, want %d and %q\n%s", args, code, exitUsage, want, out)
			}
		}
	})
	if err := os.Setenv("SCORE_TEST_SECRET", "a-secret-word"); err != nil { // t.Setenv allows no parallel tests
		t.Fatal(err)
	}
	more := []string{"--command", "python score.py {data} {models} {output} {limit}", "--code", filepath.Join(dir, "code"), "--predictions", "preds.csv", "--env", "SCORE_TEST_PLAIN=1", "--env", "SCORE_TEST_SECRET", "--param", "limit=4"}
	for _, per := range []string{"key", "task"} {
		code, out := score(append(more, "--per", per)...)
		if code != exitPartly || !strings.Contains(out, "2 scored, 1 failed") || !strings.Contains(out, "a/2: failed: ") || !strings.Contains(out, "no such pump") {
			t.Fatalf("per %s: exit %d, want one that failed\n%s", per, code, out)
		}
		got := readTable(t, filepath.Join(dir, "out", "predictions.csv"))
		for _, r := range got {
			if want := map[string]string{"1": "0", "5": "1", "9": "1"}[r["Value"]]; r["Prediction"] != want {
				t.Errorf("per %s: %v, want the prediction %s", per, r, want)
			}
		}
		if len(got) != 6 {
			t.Errorf("per %s: %d predictions, want 6", per, len(got))
		}
		kept, err := filepath.Glob(filepath.Join(dir, "out", "_output", "Device=a", "Tag=*", "preds.csv"))
		if per == "key" && (err != nil || len(kept) != 2) {
			t.Errorf("what the command left is %v, %v; want a file of each good sensor", kept, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "out", "_output", "of")); !os.IsNotExist(err) {
			t.Errorf("what an earlier run left is there: %v", err)
		}
	}
}
