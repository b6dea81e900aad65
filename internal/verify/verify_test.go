package verify

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
	"github.com/fleetscore/fleetscore/sklearn"
)

// pretend makes the test's own program behave as a Python with scikit-learn.
const pretend = "FLEETSCORE_TEST_PRETEND"

func TestMain(m *testing.M) {
	if how := os.Getenv(pretend); how != "" {
		pretendPython(how, slices.Contains(os.Args, "-I"))
		return
	}
	goleak.VerifyTestMain(m)
}

// pretendPython answers as worker.py does, with Fleetscore's own results; how says
// what goes wrong.
func pretendPython(how string, isolated bool) {
	write := func(v any) {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(b))
	}
	hello := map[string]any{"python": "3.99", "executable": "pretended", "sklearn": "9.9", "numpy": "9.8"}
	if how == "no sklearn" || how == "no sklearn when isolated" && isolated {
		hello["error"] = fault{Type: "ModuleNotFoundError", Message: "No module named 'sklearn'", Module: "sklearn"}
	}
	write(hello)
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var q request
		if err := json.Unmarshal(line, &q); err != nil {
			panic(err)
		}
		a := reply{ID: q.ID, Out: map[string]array{}, Errors: map[string]fault{}}
		data, err := os.ReadFile(q.Path)
		if err != nil {
			panic(err)
		}
		m, err := sklearn.Load(data)
		if err != nil {
			panic(err)
		}
		hit := strings.Contains(filepath.Base(q.Path), "two")
		switch {
		case hit && how == "crash":
			fmt.Fprintln(os.Stderr, "Fatal Python error: Segmentation fault")
			os.Exit(11)
		case hit && how == "hang":
			time.Sleep(time.Hour)
		case hit && how == "too new":
			a.Load = &fault{Type: "ModuleNotFoundError", Message: "No module named 'numpy._core'", Module: "numpy._core"}
			write(a)
			continue
		}
		x, err := decode(q.X)
		if err != nil {
			panic(err)
		}
		rows := len(x) / q.Cols
		for _, name := range q.Methods {
			out := make([]float64, rows*m.Outputs(methodOf(name)))
			if err := m.Call(methodOf(name), x, rows, out, nil); err != nil {
				a.Errors[name] = fault{Type: "ValueError", Message: err.Error()}
				continue
			}
			if hit && how == "another label" && name == "predict" {
				out[3] = -out[3]
			}
			if hit && how == "another value" && name == "score_samples" {
				out[3] += 1e-6
			}
			if hit && how == "refuses" {
				a.Errors[name] = fault{Type: "ValueError", Message: "Input contains what it doesn't like"}
				continue
			}
			a.Out[name] = array{Cols: len(out) / rows, Values: encode(out)}
		}
		write(a)
	}
}

func models(t *testing.T) []File {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(testkit.Root(t), "sklearn", "testdata", "1.9.1", "one.p5.pickle"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var out []File
	for _, name := range []string{"one", "two", "three"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		out = append(out, File{name, path})
	}
	return out
}

func program(t *testing.T, how string) string {
	t.Helper()
	t.Setenv(pretend, how)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func TestRun(t *testing.T) {
	for _, tt := range []struct {
		how   string
		check func(r *Report) bool
	}{
		{"good", func(r *Report) bool {
			k := r.Kinds[0]
			return r.Equal && r.Compared == 3 && k.Rows > 500 && k.Estimators == "StandardScaler → OneClassSVM" && k.Releases == "1.9.1" && k.Worst == 0 && r.Python.Isolated
		}},
		{"no sklearn when isolated", func(r *Report) bool { return r.Equal && r.Compared == 3 && !r.Python.Isolated }},
		{"another label", func(r *Report) bool {
			k := r.Kinds[0]
			return !r.Equal && k.Labels == 1 && k.Differ == 1 && k.Offending[0].File == "two" && k.Offending[0].Method == "predict" && len(k.Offending[0].Row) == 1
		}},
		{"another value", func(r *Report) bool {
			k := r.Kinds[0]
			return !r.Equal && k.Labels == 0 && k.Differ == 1 && k.Offending[0].Method == "score_samples" && k.WorstModel == "two" && math.Abs(k.Worst-1e-6) < 1e-7
		}},
		{"refuses", func(r *Report) bool {
			return !r.Equal && strings.Contains(r.Kinds[0].Offending[0].Problem, "scikit-learn refuses rows that Fleetscore scores: ValueError")
		}},
		{"too new", func(r *Report) bool {
			f := r.NotLoadable[0]
			return !r.Equal && r.Compared == 2 && slices.Equal(f.Examples, []string{"two"}) && strings.Contains(f.Explanation, "another generation of NumPy")
		}},
		{"crash", func(r *Report) bool {
			f := r.NotLoadable[0]
			return !r.Equal && r.Compared == 2 && strings.Contains(f.Error, "exit status 11") && strings.Contains(f.Error, "Segmentation fault") && f.Examples[0] == "two"
		}},
		{"hang", func(r *Report) bool {
			return !r.Equal && r.Compared == 2 && strings.Contains(r.NotLoadable[0].Error, "did not answer within")
		}},
	} {
		t.Run(tt.how, func(t *testing.T) {
			cfg := Config{Python: program(t, tt.how)}
			if tt.how == "hang" {
				cfg.Patience = 2 * time.Second
			}
			r, err := Run(t.Context(), cfg, models(t))
			if err != nil {
				t.Fatal(err)
			}
			if !tt.check(r) {
				text, _ := json.MarshalIndent(r, "", " ")
				t.Errorf("%s", text)
			}
		})
	}
}

func TestNoPython(t *testing.T) {
	for how, python := range map[string]string{"no sklearn": "", "good": filepath.Join(t.TempDir(), "python")} {
		exe := program(t, how)
		if python != "" {
			exe = python
		}
		_, err := Run(t.Context(), Config{Python: exe}, models(t))
		if !fleetscore.Unavailable.Is(err) || !strings.Contains(err.Error(), "give --python an interpreter that has scikit-learn") {
			t.Errorf("%s: %v", how, err)
		}
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cfg := Config{Python: program(t, "hang"), Sample: -1}
	cfg.Progress = func(done, total int64) { cancel() }
	if _, err := Run(ctx, cfg, models(t)); err != context.Canceled {
		t.Errorf("got %v", err)
	}
}

// TestSample: the requested number of each kind is picked, the same in each run;
// unreadable files are named.
func TestSample(t *testing.T) {
	files := models(t)
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Python: program(t, "good"), Sample: 2, Rows: 10}
	cfg.RowsOf = func(name string, info *sklearn.Info) ([]float64, error) {
		x := make([]float64, 1000)
		for i := range x {
			x[i] = float64(i)
		}
		return x, nil
	}
	code := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(code, []byte("cposix\nsystem\n(S'true'\ntR."), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), cfg, append(files, File{"bad", bad}, File{"code", code}))
	if err != nil || r.Compared != 2 || r.Files != 5 || r.Rows != 20 || len(r.Unsupported) != 2 || r.Unsupported[0].Examples[0] != "bad" || r.Unsupported[1].Code != "code" || r.Equal {
		t.Errorf("%+v, %v", r, err)
	}
	var b strings.Builder
	if err := r.Write(&b, func(io.Writer, []string, [][]string) error { return nil }); err != nil || !strings.Contains(b.String(), "Python would run code to read 1 of the models: load model: posix.system") {
		t.Errorf("%v: %s", err, b.String())
	}
}

// TestGenerate: there are rows inside, around and far from the range of training, and
// on both sides of changes of the label.
func TestGenerate(t *testing.T) {
	data, err := os.ReadFile(models(t)[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := sklearn.Load(data)
	if err != nil {
		t.Fatal(err)
	}
	info := m.Info()
	x := generate(m, &info, 200, 1)
	prediction := make([]float64, len(x))
	if err := m.PredictInto(x, len(x), prediction, nil, nil); err != nil {
		t.Fatal(err)
	}
	labels := map[float64]int{}
	for _, p := range prediction {
		labels[p]++
	}
	edges := 0
	for i := 150; i+1 < len(x); i += 2 {
		if prediction[i] != prediction[i+1] && math.Nextafter(min(x[i], x[i+1]), math.Inf(1)) == max(x[i], x[i+1]) {
			edges++
		}
	}
	if len(x) != 200 || labels[1] < 40 || labels[-1] < 40 || edges < 20 {
		t.Errorf("%d rows, labels %v, %d edges", len(x), labels, edges)
	}
	if !slices.Equal(x, generate(m, &info, 200, 1)) {
		t.Error("other rows for the same seed")
	}
}

// TestCurrentPython compares with the newest scikit-learn: models that it wrote
// itself give equal results, and it can't load those of the reference.
func TestCurrentPython(t *testing.T) {
	if !testkit.All() {
		t.Skip("SKIPPED: live scikit-learn: set FLEETSCORE_TEST_ALL=1; it needs Python 3 with venv and a package index")
	}
	python := testkit.Venv(t, "scikit-learn", "skops", "pandas")
	dir := t.TempDir()
	make := `
import sys, pickle, joblib, numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM, SVC
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import Ridge
import skops.io
rng = np.random.default_rng(1)
x = rng.normal(20, 3, (300, 3))
y = np.where(x[:, 0] + x[:, 1] > 40, "high", "low")
d = sys.argv[1] + "/"
pickle.dump(make_pipeline(StandardScaler(), OneClassSVM(nu=0.1)).fit(x), open(d + "svm", "wb"))
joblib.dump(make_pipeline(StandardScaler(), IsolationForest(random_state=1)).fit(x), d + "forest.joblib", compress=3)
skops.io.dump(Ridge().fit(x, x[:, 0]), d + "ridge.skops")
pickle.dump(RandomForestClassifier(20, random_state=1).fit(x, y), open(d + "trees", "wb"))
pickle.dump(SVC(probability=False).fit(x, y), open(d + "svc", "wb"))
`
	if out, err := testkit.Command(t, python, "-c", make, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r, err := Run(t.Context(), Config{Python: python}, list(t, dir))
	if err != nil || !r.Equal || r.Compared != 5 || len(r.Kinds) != 5 || !r.Python.Isolated {
		text, _ := json.MarshalIndent(r, "", " ")
		t.Errorf("%v: %s", err, text)
	}
	r, err = Run(t.Context(), Config{Python: python}, list(t, filepath.Join(testkit.Reference(t), "models")))
	if err != nil || r.Equal || r.Compared != 0 || len(r.NotLoadable) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	f := r.NotLoadable[0]
	if f.Models != 15 || f.Error != "ModuleNotFoundError: No module named 'sklearn.preprocessing.data'" ||
		!strings.Contains(f.Explanation, "0.19.2") || !strings.Contains(f.Explanation, "Fleetscore reads the file as data and scores it") {
		t.Errorf("%+v", f)
	}
}

func list(t *testing.T, dir string) (out []File) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, File{e.Name(), filepath.Join(dir, e.Name())})
	}
	return out
}
