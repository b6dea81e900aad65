package sklearn

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// liveCase is the output of testdata/live.py for one model.
type liveCase struct {
	Name, Shown, File string
	Unsupported       string // the unsupported parameter or use for which the model must be refused
	Exact             bool   // the order of all arithmetic is defined
	Single            bool   // the model was trained on float32
	Cols              int
	Asked             liveRows
	Probes            []liveRows
	Wrong             map[string]bool // for each wrong number of features, whether scikit-learn refuses it
	MayRefuse         bool            `json:"may_refuse"` // the model may be refused as unsupported
	Changed           string          // an attribute that was changed by hand after the fit

	release string
}

type liveRows struct {
	X, Weights string // Weights are the sizes of the terms of sums
	Out        map[string]liveOut
	Tied       []int // rows with several equally near neighbours
}

type liveOut struct {
	Refused string
	Cols    int
	Values  string
	Moved   string // how far rounding alone changes the values
}

func compareLive(t *testing.T, files fs.FS) {
	t.Helper()
	data, err := fs.ReadFile(files, "cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var run struct {
		Sklearn, NumPy string
		Cases          []liveCase
		Unfit          map[string]string
	}
	if err := json.Unmarshal(data, &run); err != nil {
		t.Fatal(err)
	}
	t.Logf("scikit-learn %s, NumPy %s on %s/%s: %d models, %d couldn't be fitted", run.Sklearn, run.NumPy, runtime.GOOS, runtime.GOARCH, len(run.Cases), len(run.Unfit))
	if len(run.Unfit)*5 > len(run.Cases) {
		t.Errorf("too few could be fitted: %v", run.Unfit)
	}
	refused := 0 // of the models that nobody changed by hand
	for i := range run.Cases {
		c := &run.Cases[i]
		c.release = run.Sklearn
		t.Run(c.Name, func(t *testing.T) {
			data, err := fs.ReadFile(files, c.File)
			if err != nil {
				t.Fatal(err)
			}
			m, err := Load(data)
			if c.Unsupported != "" {
				if err == nil || !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), c.Unsupported) || !strings.Contains(err.Error(), "is not supported") {
					t.Errorf("%v, want a refusal of %s", err, c.Unsupported)
				}
				return
			}
			if c.refused(err) {
				if c.Changed == "" {
					refused++
				}
				return
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, c.Shown)
			}
			c.check(t, m)
			c.check(t, viaRecord(t, m))
			if t.Failed() {
				t.Log(c.Shown)
			}
		})
	}
	if refused*5 > len(run.Cases) {
		t.Errorf("%d of %d models were refused, so that too few were compared", refused, len(run.Cases))
	}
}

// refused reports whether a refusal is right: a model whose numbers aren't finite, or
// whose file lacks what scores depend on, can't be scored, and a model that live.py
// marks may be refused as unsupported or as changed by hand.
func (c *liveCase) refused(err error) bool {
	if !fleetscore.Invalid.Is(err) {
		return false
	}
	why := err.Error()
	return errors.Is(err, pickle.ErrNotFinite) || strings.Contains(why, "a component without variance") || strings.Contains(why, "a file without the number of columns") ||
		c.MayRefuse && (strings.Contains(why, "is not supported") || c.Changed != "")
}

func (c *liveCase) check(t *testing.T, m *Model) {
	t.Helper()
	for _, method := range m.Methods() {
		if c.Changed != "" {
			break
		}
		if _, ok := c.Asked.Out[method.String()]; !ok && !(method == ScoreSamples && len(m.front) > 0) { // pipelines have this method since 0.22
			t.Errorf("it has %s, scikit-learn doesn't", method)
		}
	}
	c.compare(t, m, &c.Asked, -1)
	for i := range c.Probes {
		c.compare(t, m, &c.Probes[i], 1)
	}
	for n, refused := range c.Wrong {
		if c.Changed != "" {
			break
		}
		cols, _ := strconv.Atoi(n)
		method := m.Methods()[0]
		err := m.Call(method, make([]float64, 4*cols), 4, make([]float64, 4*max(1, m.root.Outputs(method, cols))), nil)
		if m.NumFeatures() > 0 && !fleetscore.Invalid.Is(err) || m.NumFeatures() == 0 && (err != nil) != refused {
			t.Errorf("rows of %d instead of %d features: %v, scikit-learn refuses them: %v", cols, c.Cols, err, refused)
		}
	}
}

// compare compares the results of every method. The row probe contains a value that may
// be refused.
func (c *liveCase) compare(t *testing.T, m *Model, asked *liveRows, probe int) {
	t.Helper()
	x, weights := unpackFloats(t, asked.X), unpackFloats(t, asked.Weights)
	rows := len(x) / c.Cols
	what := ""
	if probe >= 0 {
		what = fmt.Sprint(x[probe*c.Cols:(probe+1)*c.Cols], ": ")
	}
	var scratch Scratch
	for name, want := range asked.Out {
		method := methodOf(name)
		cols := m.root.Outputs(method, c.Cols)
		if cols == 0 {
			if want.Refused == "" { // if scikit-learn refuses the rows, there is no result to compare
				t.Errorf("%s is missing", name)
			}
			continue
		}
		got := make([]float64, rows*cols)
		err := m.Call(method, x, rows, got, &scratch)
		if strings.Contains(want.Refused, "Buffer dtype mismatch") || strings.Contains(want.Refused, "invalid literal for int()") {
			continue // known defects of scikit-learn: KMeans trained on float32, and KNeighborsClassifier with text labels by brute force
		}
		if (method == DecisionFunction || method == Predict && probe >= 0) && wholeBatch(m, c.release) {
			continue
		}
		if want.Refused != "" && m.last.Class() == "PCA" && method == ScoreSamples {
			continue // scikit-learn can't invert this covariance; Fleetscore needn't invert it
		}
		if c.Changed != "" && want.Refused != "" {
			continue // scikit-learn can't compute this method
		}
		if (err != nil) != (want.Refused != "") && !c.excused(m, x, probe) {
			t.Errorf("%s%s: %v, scikit-learn: %q", what, name, err, want.Refused)
			continue
		}
		if err != nil || want.Refused != "" {
			continue
		}
		if cols != want.Cols {
			t.Errorf("%s%s gives %d columns, want %d", what, name, cols, want.Cols)
			continue
		}
		one := liveRow{c: c, m: m, method: method, outs: asked.Out, cols: cols, values: unpackFloats(t, want.Values),
			powers: strings.Contains(c.Shown, "PowerTransformer") && !strings.HasPrefix(c.release, "1.9")}
		if want.Moved != "" {
			one.moved = unpackFloats(t, want.Moved)
		}
		for r := range rows {
			if slices.Contains(asked.Tied, r) || r == probe && (!c.Exact || strings.Contains(c.Shown, "PolynomialFeatures")) && !finite(x[r*c.Cols:(r+1)*c.Cols]) {
				continue
			}
			if d := one.difference(r, got, weights[r]); d != "" {
				t.Errorf("%s%s, row %d %v: %s", what, name, r, x[r*c.Cols:(r+1)*c.Cols], d)
				break
			}
		}
	}
}

// excused reports whether scikit-learn and Fleetscore may differ in whether they accept
// a row with finite values: if sums overflow, or in columns that no tree of an early
// forest uses.
func (c *liveCase) excused(m *Model, x []float64, probe int) bool {
	if probe < 0 {
		return false
	}
	row := x[probe*c.Cols : (probe+1)*c.Cols]
	if slices.ContainsFunc(row, func(v float64) bool { return v-v != 0 }) {
		return false
	}
	overflow := slices.ContainsFunc(row, func(v float64) bool { return math.Abs(v) > 1e100 })
	return !c.Exact && overflow || m.last.Class() == "IsolationForest"
}

// finite reports whether values are so small that their squares are finite too. If sums
// overflow, the BLAS decides between infinity and NaN.
func finite(x []float64) bool {
	return !slices.ContainsFunc(x, func(v float64) bool { return !(math.Abs(v) < 1e30) })
}

// liveRow compares rows of one method.
type liveRow struct {
	c             *liveCase
	m             *Model
	method        Method
	outs          map[string]liveOut
	cols          int
	values, moved []float64
	powers        bool // a PowerTransformer until 1.8, which loses digits of small numbers
}

// largest returns the largest size of the results.
func (l *liveRow) largest() float64 {
	most := 0.0
	for _, v := range l.values {
		if v := math.Abs(v); v < 1e30 {
			most = max(most, v)
		}
	}
	return most
}

func (l *liveRow) difference(r int, got []float64, weight float64) string {
	got, want := got[r*l.cols:(r+1)*l.cols], l.values[r*l.cols:(r+1)*l.cols]
	scale := weight
	switch {
	case l.method == PredictLogProba || l.m.last.Class() == "IsolationForest": // computed from numbers near 1
		scale = max(1, scale)
	case !l.c.Exact:
		scale = max(scale, l.largest())
	}
	for _, w := range want {
		if w-w == 0 {
			scale = max(scale, math.Abs(w))
		}
	}
	for i, w := range want {
		g := got[i]
		if g == w || (g != g && w != w) {
			continue
		}
		limit, moves := 1e-12*scale+1e-290, 0.0
		if l.moved != nil {
			moves = l.moved[r*l.cols+i]
		}
		limit += 30 * moves
		if l.c.Single && (!l.c.Exact || l.m.last.Class() == "GaussianNB") {
			limit += 1e-6 * scale // scikit-learn keeps some constants as float32
		}
		if l.powers {
			limit += 1e-6 * scale
		}
		switch {
		case l.method == Predict && l.labelled():
			if moves > 0 || (!l.c.Exact || l.m.Info().SupportVectors > 0) && near(l.outs, r, weight) {
				continue
			}
		case l.method == Transform && strings.Contains(l.m.last.Class(), "KMeans"): // scikit-learn expands squares
			if math.Abs(g*g-w*w) <= limit {
				continue
			}
		case math.Abs(g-w) <= limit:
			continue
		}
		return fmt.Sprintf("column %d: %v, want %v (apart %.3g, allowed %.3g)", i, g, w, math.Abs(g-w), limit)
	}
	return ""
}

// labelled reports whether predictions are labels rather than values.
func (l *liveRow) labelled() bool {
	_, sums := l.outs["decision_function"]
	_, odds := l.outs["predict_proba"]
	return sums || odds || l.m.labels != nil || strings.Contains(l.m.last.Class(), "KMeans")
}

// near reports whether a row's decision is so close to the threshold that rounding
// decides the label.
func near(outs map[string]liveOut, r int, scale float64) bool {
	for _, name := range []string{"decision_function", "predict_proba", "transform"} {
		o, ok := outs[name]
		if !ok || o.Refused != "" {
			continue
		}
		b := unpackRow(o, r)
		if len(b) == 1 {
			return math.Abs(b[0]) <= 1e-12*scale
		}
		if name == "transform" {
			for i := range b {
				b[i] *= b[i]
			}
			slices.Sort(b)
			return b[1]-b[0] <= 1e-12*scale
		}
		slices.Sort(b)
		return b[len(b)-1]-b[len(b)-2] <= 1e-12*max(1, scale)
	}
	return false
}

func unpackRow(o liveOut, r int) []float64 {
	var t testing.T
	return unpackFloats(&t, o.Values)[r*o.Cols : (r+1)*o.Cols]
}

// TestRandomFixtures compares some results of testdata/live.py that are stored in the
// repository, for people without Python.
func TestRandomFixtures(t *testing.T) {
	archives, err := filepath.Glob("testdata/random/*.zip")
	if err != nil || len(archives) < 2 {
		t.Fatalf("fixtures of %d releases, %v", len(archives), err)
	}
	// Some of these models must be refused; compareLive checks the message.
	more, err := filepath.Glob("testdata/changed/*.zip")
	if err != nil || len(more) < 4 {
		t.Fatalf("fixtures of %d releases, %v", len(more), err)
	}
	for _, archive := range append(archives, more...) {
		t.Run(strings.TrimSuffix(filepath.Base(archive), ".zip"), func(t *testing.T) {
			z, err := zip.OpenReader(archive)
			if err != nil {
				t.Fatal(err)
			}
			defer z.Close()
			compareLive(t, z)
		})
	}
}
