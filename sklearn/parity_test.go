package sklearn

import (
	"archive/zip"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
)

// parityCase is a case in the output of testdata/parity.py.
type parityCase struct {
	Name, Class     string
	Cols            int
	X               string
	Out             map[string]parityOut
	NaN, Inf, Large bool                 // whether scikit-learn refuses rows with such a value
	XNaN            string               `json:"x_nan"`
	OutNaN          map[string]parityOut `json:"out_nan"`
	Weight          float64              // the size of a decision's terms, if they are much larger than the decision
	Files           []string

	release string // the folder's name
}

type parityOut struct {
	Cols   int
	Values string
}

func unpackFloats(t testing.TB, s string) []float64 {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float64, len(b)/8)
	for i := range out {
		out[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return out
}

// checkParity loads every file of a folder or zip file and compares every method, both
// of the file and of its native record.
func checkParity(t *testing.T, release string, files fs.FS) {
	t.Helper()
	data, err := fs.ReadFile(files, "cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []parityCase
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		c.release = release
		for _, file := range c.Files {
			t.Run(file, func(t *testing.T) {
				data, err := fs.ReadFile(files, file)
				if err != nil {
					t.Fatal(err)
				}
				m, err := Load(data)
				if err != nil {
					t.Fatal(err)
				}
				c.check(t, m)
				c.check(t, viaRecord(t, m))
			})
		}
	}
}

func (c *parityCase) check(t *testing.T, m *Model) {
	t.Helper()
	x := unpackFloats(t, c.X)
	rows := len(x) / c.Cols
	if n := m.NumFeatures(); n != c.Cols && n != 0 {
		t.Errorf("%d features, want %d", n, c.Cols)
	}
	c.compare(t, m, x, rows, c.Out)
	for _, method := range m.Methods() {
		if _, ok := c.Out[method.String()]; !ok {
			t.Errorf("it has %s, scikit-learn doesn't", method)
		}
	}
	for value, refused := range map[float64]bool{math.Inf(1): c.Inf, 1e39: c.Large} {
		bad := slices.Clone(x[12*c.Cols : 16*c.Cols])
		bad[c.Cols] = value
		c.verdict(t, m, bad, value, refused)
	}
	bad := slices.Clone(x[12*c.Cols : 16*c.Cols])
	bad[c.Cols] = math.NaN()
	c.verdict(t, m, bad, math.NaN(), c.NaN)
	if !c.NaN {
		xn := unpackFloats(t, c.XNaN)
		c.compare(t, m, xn, len(xn)/c.Cols, c.OutNaN)
	}
	if n := m.NumFeatures(); n > 0 {
		method := m.Methods()[0]
		if err := m.Call(method, make([]float64, n+1), 1, make([]float64, m.Outputs(method)), nil); !fleetscore.Invalid.Is(err) {
			t.Errorf("a row of %d features: %v", n+1, err)
		}
	}
}

func (c *parityCase) verdict(t *testing.T, m *Model, bad []float64, value float64, refused bool) {
	t.Helper()
	method := m.Methods()[0]
	err := m.Call(method, bad, 4, make([]float64, 4*m.root.Outputs(method, c.Cols)), nil)
	if (err != nil) != refused {
		t.Errorf("%v: %v, but scikit-learn refuses it: %v", value, err, refused)
	}
	if err != nil && (!fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), "row")) {
		t.Errorf("%v: %v", value, err)
	}
}

func (c *parityCase) compare(t *testing.T, m *Model, x []float64, rows int, outs map[string]parityOut) {
	t.Helper()
	var scratch Scratch
	for name, want := range outs {
		method := methodOf(name)
		if method == DecisionFunction && wholeBatch(m, c.release) {
			continue
		}
		if got := m.root.Outputs(method, c.Cols); got != want.Cols {
			t.Errorf("%s gives %d columns, want %d", name, got, want.Cols)
			continue
		}
		got := make([]float64, rows*want.Cols)
		if err := m.Call(method, x, rows, got, &scratch); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := difference(got, unpackFloats(t, want.Values), want.Cols, c.Weight, method == Predict && (m.labels != nil || m.detector != nil)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func methodOf(name string) Method {
	for m := Predict; m <= Transform; m++ {
		if m.String() == name {
			return m
		}
	}
	return 99
}

// difference returns where two results differ. Labels must be equal. Values may differ
// in their last digits, because the BLAS orders sums differently.
func difference(got, want []float64, cols int, weight float64, exact bool) string {
	scale := make([]float64, cols)
	for c := range scale {
		scale[c] = weight
	}
	for i, w := range want {
		if w-w == 0 {
			scale[i%cols] = max(scale[i%cols], math.Abs(w))
		}
	}
	for i, w := range want {
		g := got[i]
		if g == w || (g != g && w != w) {
			continue
		}
		if !exact && math.Abs(g-w) <= 1e-11*scale[i%cols]+1e-13 {
			continue
		}
		return fmt.Sprintf("row %d, column %d: %v, want %v", i/cols, i%cols, g, w)
	}
	return ""
}

// wholeBatch reports whether decision_function depends on all rows of a call in a
// release, so that it can't be computed row by row: machines with several classes,
// until 0.21.
func wholeBatch(m *Model, release string) bool {
	early := strings.HasPrefix(release, "0.19.") || strings.HasPrefix(release, "0.20.")
	return early && (m.last.Class() == "OneVsOneClassifier" || m.last.Class() == "BaggingClassifier" || len(m.Classes()) > 2 && m.Info().SupportVectors > 0 && strings.HasSuffix(m.last.Class(), "SVC"))
}

// TestParity: models of every supported class, from releases 0.19 to the newest, give
// the results of their own release.
func TestParity(t *testing.T) {
	t.Parallel()
	archives, err := filepath.Glob("testdata/parity/*.zip")
	if err != nil || len(archives) < 3 {
		t.Fatalf("fixtures of %d releases, %v", len(archives), err)
	}
	for _, archive := range archives {
		release := strings.TrimSuffix(filepath.Base(archive), ".zip")
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			z, err := zip.OpenReader(archive)
			if err != nil {
				t.Fatal(err)
			}
			defer z.Close()
			checkParity(t, release, z)
		})
	}
}
