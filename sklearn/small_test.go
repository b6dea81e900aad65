package sklearn

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
)

// TestSmallModels: models of testdata/small.py, most of them changed by hand after the
// fit, give the results of their own scikit-learn, or are refused, and the error names
// the attribute.
func TestSmallModels(t *testing.T) {
	t.Parallel()
	archives, err := filepath.Glob("testdata/small/*.zip")
	if err != nil || len(archives) < 2 {
		t.Fatal(archives, err)
	}
	for _, file := range archives {
		z, err := zip.OpenReader(file)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		data, err := fs.ReadFile(z, "cases.json")
		if err != nil {
			t.Fatal(err)
		}
		var cases []struct {
			parityCase
			Refused *string // the parameter at fault; empty for any parameter
		}
		if err := json.Unmarshal(data, &cases); err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			data, err := fs.ReadFile(z, c.Name+".pickle")
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Base(file) + " " + c.Name
			m, err := Load(data)
			var r *Refusal
			switch {
			case c.Refused != nil && (!errors.As(err, &r) || *c.Refused != "" && r.Parameter != *c.Refused):
				t.Errorf("%s should be refused for %q: %v", name, *c.Refused, err)
			case c.Refused == nil && err != nil:
				t.Errorf("%s: %v", name, err)
			case err == nil:
				x := unpackFloats(t, c.X)
				for _, m := range []*Model{m, viaRecord(t, m)} {
					if len(m.Methods()) != len(c.Out) {
						t.Errorf("%s has %v, scikit-learn %d methods", name, m.Methods(), len(c.Out))
					}
					for method, want := range c.Out {
						got := make([]float64, len(x)/c.Cols*want.Cols)
						if err := m.Call(methodOf(method), x, len(x)/c.Cols, got, nil); err != nil {
							t.Errorf("%s: %s: %v", name, method, err)
						} else if d := difference(got, unpackFloats(t, want.Values), want.Cols, 0, method == "predict" && (m.labels != nil || m.detector != nil)); d != "" {
							t.Errorf("%s: %s: %s", name, method, d)
						}
					}
				}
			}
		}
	}
}
