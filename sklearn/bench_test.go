package sklearn

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"io/fs"
	"testing"

	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
)

// TestBenchModels: what the benchmarks measure is right.
func TestBenchModels(t *testing.T) {
	t.Parallel()
	z, err := zip.OpenReader("testdata/bench.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	t.Log("kernels:", kernel.Name())
	checkParity(t, "1.9.1", z)
}

// benchModel is a model of testdata/bench.zip with its rows.
type benchModel struct {
	parityCase
	model  *Model
	file   []byte // of its pickle, for the small ones; else of its joblib file
	record []byte
	rows   []float64
}

// benchModels reads those whose name is listed, of all without names.
func benchModels(b *testing.B, names ...string) []benchModel {
	b.Helper()
	z, err := zip.OpenReader("testdata/bench.zip")
	if err != nil {
		b.Fatal(err)
	}
	defer z.Close()
	data, err := fs.ReadFile(z, "cases.json")
	if err != nil {
		b.Fatal(err)
	}
	var cases []parityCase
	if err := json.Unmarshal(data, &cases); err != nil {
		b.Fatal(err)
	}
	wanted := map[string]bool{}
	for _, n := range names {
		wanted[n] = true
	}
	var out []benchModel
	for _, c := range cases {
		if len(names) > 0 && !wanted[c.Name] {
			continue
		}
		m := benchModel{parityCase: c, rows: unpackFloats(b, c.X)}
		if m.file, err = fs.ReadFile(z, c.Files[len(c.Files)-1]); err != nil {
			b.Fatal(err)
		}
		if m.model, err = Load(m.file); err != nil {
			b.Fatal(err)
		}
		if m.record, err = m.model.AppendRecord(nil); err != nil {
			b.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

// BenchmarkScore scores 60 rows, the model being there: as loaded from a file,
// and as read from a native record.
func BenchmarkScore(b *testing.B) {
	for _, m := range benchModels(b) {
		for _, from := range []string{"file", "record"} {
			b.Run(fmt.Sprintf("%s/%s", m.Name, from), func(b *testing.B) {
				model := m.model
				if from == "record" {
					model = viaRecord(b, model)
				}
				prediction, score := make([]float64, 60), make([]float64, 60)
				var scratch Scratch
				b.ReportAllocs()
				for b.Loop() {
					if err := model.Score(m.rows, 60, prediction, score, &scratch); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkRecord reads native records, different ones of the same kind in turn
// as in a pack, with and without scoring 60 rows each.
func BenchmarkRecord(b *testing.B) {
	for _, m := range benchModels(b, "ref_1", "ref_8", "sv200_1", "sv200_8", "if100_1", "if100_8") {
		for _, score := range []bool{false, true} {
			name := m.Name + "/read"
			if score {
				name += "+score"
			}
			b.Run(name, func(b *testing.B) {
				prediction, scores := make([]float64, 60), make([]float64, 60)
				var scratch Scratch
				var model Model
				b.ReportAllocs()
				for b.Loop() {
					if err := model.ReadRecord(m.record); err != nil {
						b.Fatal(err)
					}
					if score {
						if err := model.Score(m.rows, 60, prediction, scores, &scratch); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}

// BenchmarkLoad reads pickles of small models.
func BenchmarkLoad(b *testing.B) {
	for _, m := range benchModels(b, "ref_1", "ref_8", "sv200_1", "sv200_8") {
		b.Run(m.Name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(m.file)))
			for b.Loop() {
				if _, err := Load(m.file); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
