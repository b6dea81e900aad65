package sklearn

import (
	"archive/zip"
	"encoding/json"
	"io/fs"
	"path/filepath"
	"testing"
)

// TestEdges checks what docs/sklearn.md promises about rows where a label changes.
// Support vector machines with a linear or poly kernel and one feature give
// scikit-learn's label on both sides, to the last bit; until 0.22 also with more
// features. Neighbours by brute force give scikit-learn's label at their training rows
// if no two rows are equally near.
func TestEdges(t *testing.T) {
	t.Parallel()
	archives, err := filepath.Glob("testdata/edges/*.zip")
	if err != nil || len(archives) < 2 {
		t.Fatalf("fixtures of %d releases, %v", len(archives), err)
	}
	for _, archive := range archives {
		z, err := zip.OpenReader(archive)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		data, err := fs.ReadFile(z, "edges.json")
		if err != nil {
			t.Fatal(err)
		}
		var cases []struct {
			Name string
			X    [][]float64
			Want []float64
		}
		if err := json.Unmarshal(data, &cases); err != nil || len(cases) < 20 {
			t.Fatalf("%s: %d cases, %v", archive, len(cases), err)
		}
		for _, c := range cases {
			data, err := fs.ReadFile(z, c.Name+".pickle")
			if err != nil {
				t.Fatal(err)
			}
			m, err := Load(data)
			if err != nil {
				t.Fatal(err)
			}
			for i, x := range c.X {
				got := []float64{0}
				if err := m.PredictInto(x, 1, got, nil, nil); err != nil || got[0] != c.Want[i] {
					t.Errorf("%s: %s, row %v: %v, %v, want %v", archive, c.Name, x, got[0], err, c.Want[i])
				}
			}
		}
	}
}
