package cli

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestExamples: the three forms of the examples score the reference's readings. With the
// reference's own models, the native form gives the reference's predictions; with models of
// today's scikit-learn, which Python can load, all three give the same. The form of
// containers runs on this machine, with the same script and command.
func TestExamples(t *testing.T) {
	t.Parallel()
	python := testkit.ModelsVenv(t)
	reference := testkit.Reference(t)
	trained := t.TempDir()
	if out, err := testkit.Command(t, python, "-c", referenceModels, filepath.Join(reference, "sensor_data.csv"), trained).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	all := filepath.Join(reference, "sensor_data.csv")
	some := filepath.Join(trained, "some.csv") // of two sensors: a process that loads pandas for each of 15 takes long
	text := "TS,Device,Tag,Value\n"
	for line := range strings.Lines(fileText(t, all)) {
		if strings.Contains(line, ",1,1,") || strings.Contains(line, ",3,4,") {
			text += line
		}
	}
	if err := os.WriteFile(some, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// score gives the predictions of a form.
	score := func(form, models, rows string) map[string]float64 {
		t.Helper()
		p := newServer(t, "", func(dir string) {
			if err := os.CopyFS(filepath.Join(dir, form), os.DirFS(filepath.Join(testkit.Root(t), "examples", form))); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(dir, "fleet", "models"), os.DirFS(models)); err != nil {
				t.Fatal(err)
			}
		})
		p.file, p.args = filepath.Join(p.dir, form, "fleet.yaml"), []string{"--python", python}
		boxes := regexp.MustCompile(`(?m)^    (provider: docker|docker: .*)\n`)
		yaml := fileText(t, p.file)
		if got := len(boxes.FindAllString(yaml, -1)); got != 0 && got != 2 {
			t.Fatalf("the pool of form %s has %d lines about containers", form, got)
		}
		if err := os.WriteFile(p.file, []byte(boxes.ReplaceAllString(yaml, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		p.start()
		defer p.stop()
		server := "--server=http://" + p.addr
		for _, args := range [][]string{{"dataset", "upload", "history", rows}, {"job", "submit", "anomalies", "--wait"}} {
			if code, stdout, stderr := command(t, append(args, server)...); code != 0 {
				t.Fatalf("form %s: %v: exit %d\n%s%s\n%s", form, args, code, stdout, stderr, p.log)
			}
		}
		got, out := p.predictions("anomalies"), map[string]float64{}
		for i, k := range got.KeyIndex {
			out[strings.ReplaceAll(got.Keys[k].String(), "/", ",")+" "+got.Times[i].String()] = got.Prediction[i]
		}
		return out
	}
	same := func(form string, got, want map[string]float64, rows int) {
		t.Helper()
		if len(got) != rows || len(want) != 17768 {
			t.Errorf("form %s has predictions for %d rows of %d, want %d", form, len(got), len(want), rows)
		}
		for row, g := range got {
			if w, ok := want[row]; !ok || g != w {
				t.Fatalf("form %s says %v for %s, want %v", form, g, row, w)
			}
		}
	}
	f, err := os.Open(filepath.Join(reference, "expected_predictions.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	expected := map[string]float64{}
	for _, l := range lines[1:] {
		at, err := time.Parse("2006-01-02 15:04:05.000", l[0])
		if err != nil {
			t.Fatal(err)
		}
		expected[l[1]+","+l[2]+" "+fleetscore.MicrosOf(at).String()] = map[string]float64{"0": 0, "1": 1}[l[4]]
	}
	same("native", score("native", filepath.Join(reference, "models"), all), expected, 17768)
	want := score("native", filepath.Join(trained, "models"), all)
	same("python", score("python", filepath.Join(trained, "models"), all), want, 17768)
	same("container", score("container", filepath.Join(trained, "models"), some), want, strings.Count(text, "\n")-1)
}
