package sklearn

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
)

// expected is the output of testdata/make.py: decisions and labels of one release.
type expected struct {
	Cases []struct {
		Name         string
		Files        []string
		Rows         [][]float64
		Decision     []float64
		Predict      []float64
		Health       string
		FeatureNames []string `json:"feature_names"`
	}
	Refused []struct{ File, Says string }
}

func fixtures(t testing.TB) map[string]expected {
	t.Helper()
	files, err := filepath.Glob("testdata/*/expected.json")
	if err != nil || len(files) < 7 {
		t.Fatalf("fixtures of %d releases, %v", len(files), err)
	}
	out := map[string]expected{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var e expected
		if err := json.Unmarshal(data, &e); err != nil {
			t.Fatal(f, err)
		}
		out[filepath.Dir(f)] = e
	}
	return out
}

// TestReleases: models of releases from 0.19 to the newest, in these releases' pickle
// protocols, give the decisions of their own scikit-learn.
func TestReleases(t *testing.T) {
	t.Parallel()
	for dir, e := range fixtures(t) {
		for _, c := range e.Cases {
			for _, file := range c.Files {
				t.Run(filepath.Base(dir)+"/"+file, func(t *testing.T) {
					t.Parallel()
					data, err := os.ReadFile(filepath.Join(dir, file))
					if err != nil {
						t.Fatal(err)
					}
					m, err := Load(data)
					if err != nil {
						t.Fatal(err)
					}
					prediction, score := make([]float64, len(c.Rows)), make([]float64, len(c.Rows))
					if err := m.PredictInto(slices.Concat(c.Rows...), len(c.Rows), prediction, score, &Scratch{}); err != nil {
						t.Fatal(err)
					}
					if d := cmp.Diff(c.Predict, prediction); d != "" {
						t.Errorf("labels (-scikit-learn +ours):\n%s\n%v", d, c.Decision)
					}
					for i, want := range c.Decision {
						if math.Abs(want-score[i]) > 1e-12*math.Max(1, math.Abs(want)) {
							t.Errorf("row %d: decision %v, scikit-learn has %v", i, score[i], want)
						}
					}
					info := m.Info()
					if len(c.FeatureNames) > 0 && !slices.Equal(info.FeatureNames, c.FeatureNames) {
						t.Errorf("feature names %q, want %q", info.FeatureNames, c.FeatureNames)
					}
					if c.Health != "" && !strings.Contains(fmt.Sprint(info), c.Health) {
						t.Errorf("health %s is missing in %+v", c.Health, info)
					}
				})
			}
		}
		for _, r := range e.Refused {
			data, err := os.ReadFile(filepath.Join(dir, r.File))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Load(data); !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), r.Says) {
				t.Errorf("%s/%s: %v, want %q", dir, r.File, err, r.Says)
			}
		}
	}
}

// TestHostile: files that would run a command or take much memory in Python are
// refused, and the error names the class.
func TestHostile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ pickle, says string }{
		"system, protocol 0":   {"cposix\nsystem\n(S'touch pwned'\ntR.", "posix.system"},
		"eval, protocol 2":     {"\x80\x02c__builtin__\neval\nX\x04\x00\x00\x001+1\n\x85R.", "__builtin__.eval"},
		"popen, stack global":  {"\x80\x04\x8c\nsubprocess\x8c\x05Popen\x93\x8c\x02id\x85R.", "subprocess.Popen"},
		"inst":                 {"(S'id'\nios\nsystem\n.", "os.system"},
		"obj":                  {"(cos\nsystem\nS'id'\no.", "os.system"},
		"newobj":               {"\x80\x02cbuiltins\nexec\nX\x01\x00\x00\x001\x85\x81.", "builtins.exec"},
		"getattr":              {"\x80\x04cbuiltins\ngetattr\n.", "builtins.getattr"},
		"dotted allowed name":  {"\x80\x04\x8c\x14sklearn.svm._classes\x8c\x1bOneClassSVM.fit.__globals__\x93.", "OneClassSVM.fit"},
		"module of an allowed": {"\x80\x04\x8c\x10sklearn.pipeline\x8c\x02os\x93.", "sklearn.pipeline.os"},
		"extension code":       {"\x80\x02\x82\x01.", ""},
		"persistent id":        {"\x80\x02X\x01\x00\x00\x00aQ.", ""},
		"huge length":          {"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", ""},
		"huge memo":            {"\x80\x02Nr\xff\xff\xff\xff.", ""},
		"no stop":              {"\x80\x04N", ""},
		"empty":                {"", ""},
		"deep nesting":         {"\x80\x04" + strings.Repeat("(", 1<<20), ""},
	} {
		_, err := Load([]byte(c.pickle))
		if kind := fleetscore.KindOf(err); err == nil || kind != fleetscore.Invalid && kind != fleetscore.Corrupt && kind != fleetscore.Exhausted || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	if _, err := os.Stat("pwned"); err == nil {
		t.Error("a command ran")
	}
}

// TestDamage: a model cut off anywhere, or with any byte changed, never panics.
func TestDamage(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/1.9.1/one.p4.pickle")
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		if _, err := Load(data[:i]); err == nil {
			t.Fatalf("a model cut off after %d of %d bytes loads", i, len(data))
		}
		for _, b := range []byte{0, 0xff, data[i] ^ 1, data[i] ^ 0x80} {
			changed := slices.Clone(data)
			changed[i] = b
			m, err := Load(changed)
			if err == nil {
				x, out := make([]float64, m.NumFeatures()), make([]float64, 2)
				_ = m.PredictInto(x, 1, out[:1], out[1:], &Scratch{}) // any result is right, but no panic
			}
		}
	}
}

func TestScoreAllocatesNothing(t *testing.T) {
	data, err := os.ReadFile("testdata/1.9.1/wide.p5.pickle")
	if err != nil {
		t.Fatal(err)
	}
	m, err := Load(data)
	if err != nil {
		t.Fatal(err)
	}
	const rows = 100
	x, out := make([]float64, rows*m.NumFeatures()), make([]float64, 2*rows)
	var scratch Scratch
	if n := testing.AllocsPerRun(10, func() {
		if err := m.PredictInto(x, rows, out[:rows], out[rows:], &scratch); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
