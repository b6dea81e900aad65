package sklearn

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/archive"
	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
)

// TestBenchModels: the models of the benchmarks give correct results.
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

// TestScoreColumns: PredictColumns gives the same results as PredictInto for any number
// of rows, also if only predictions or only scores are requested.
func TestScoreColumns(t *testing.T) {
	t.Parallel()
	for _, m := range benchModels(t) {
		x := append(append([]float64(nil), m.rows...), append(m.rows, append(m.rows, append(m.rows, m.rows...)...)...)...)
		for _, rows := range []int{0, 1, 7, 8, 31, 60, 255, 256, 257, 300} {
			columns := make([][]float64, m.Cols)
			for c := range columns {
				for r := range rows {
					columns[c] = append(columns[c], x[r*m.Cols+c])
				}
			}
			var got, want, alone [2][]float64
			for i := range got {
				got[i], want[i], alone[i] = make([]float64, rows), make([]float64, rows), make([]float64, rows)
			}
			for what, err := range map[string]error{
				"rows":    m.model.PredictInto(x[:rows*m.Cols], rows, want[0], want[1], nil),
				"columns": m.model.PredictColumns(columns, got[0], got[1], nil),
				"labels":  m.model.PredictColumns(columns, alone[0], nil, nil),
				"scores":  m.model.PredictColumns(columns, nil, alone[1], nil),
			} {
				if err != nil {
					t.Fatalf("%s: %d %s: %v", m.Name, rows, what, err)
				}
			}
			for i := range want {
				for r, w := range want[i] {
					if g, a := got[i][r], alone[i][r]; (g != w && w == w) || (a != w && w == w) {
						t.Fatalf("%s: row %d of %d: %v by columns, %v alone, %v by rows", m.Name, r, rows, g, a, w)
					}
				}
			}
		}
		if err := m.model.PredictColumns(make([][]float64, m.Cols+1), nil, nil, nil); !fleetscore.Invalid.Is(err) {
			t.Errorf("%s: a column too many: %v", m.Name, err)
		}
		if err := m.model.PredictColumns(nil, nil, nil, nil); !fleetscore.Invalid.Is(err) {
			t.Errorf("%s: no column: %v", m.Name, err)
		}
		if err := m.model.PredictColumns(append(make([][]float64, m.Cols-1), []float64{1}), nil, nil, nil); m.Cols > 1 && !fleetscore.Invalid.Is(err) {
			t.Errorf("%s: columns of different lengths: %v", m.Name, err)
		}
	}
}

// TestStepFunctions: a forest with one feature gives the same results from a record,
// where it is a step function, as from the file, where it has trees: to the last bit.
func TestStepFunctions(t *testing.T) {
	t.Parallel()
	x := []float64{math.MaxFloat32, -math.MaxFloat32, 0, math.SmallestNonzeroFloat64}
	for i := range 200_000 {
		x = append(x, float64(i-50_000)/1000)
	}
	for _, m := range benchModels(t, "if100_1", "gb100_1", "hist100_1") {
		want, got := make([]float64, 2*len(x)), make([]float64, 2*len(x))
		for model, out := range map[*Model][]float64{m.model: want, viaRecord(t, m.model): got} {
			if err := model.PredictInto(x, len(x), out[:len(x)], out[len(x):], nil); err != nil {
				t.Fatal(err)
			}
		}
		for i, w := range want {
			if math.Float64bits(got[i]) != math.Float64bits(w) {
				t.Fatalf("%s: number %d is %v from the record, %v from the file", m.Name, i, got[i], w)
			}
		}
	}
}

// benchModel is a model of testdata/bench.zip with its rows.
type benchModel struct {
	parityCase
	model  *Model
	file   []byte // the pickle of a small model, or the joblib file of another model
	record []byte
	rows   []float64
}

// benchModels reads the models with these names, or all models without names.
func benchModels(b testing.TB, names ...string) []benchModel {
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

// measure runs f b.N times. It also reports the best mean of a few calls in a row,
// which is the time when nothing else runs on the machine.
func measure(b *testing.B, f func() error) {
	b.Helper()
	b.ReportAllocs()
	run := func(n int) time.Duration {
		start := time.Now()
		for range n {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(start)
	}
	few := 1
	for run(few) < 10*time.Microsecond {
		few *= 2
	}
	best := math.Inf(1)
	b.ResetTimer()
	for done := 0; done < b.N; done += few {
		n := min(few, b.N-done)
		if d := run(n); n == few {
			best = min(best, float64(d.Nanoseconds())/float64(n))
		}
	}
	b.ReportMetric(best, "best-ns/op")
}

// BenchmarkScore scores 60 rows with a model that is in memory: one loaded from a file,
// and one read from a native record.
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
				measure(b, func() error { return model.PredictInto(m.rows, 60, prediction, score, &scratch) })
			})
		}
	}
}

// BenchmarkRecord reads native records, with and without scoring 60 rows each.
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
				var records RecordReader
				measure(b, func() error {
					model, err := records.Read(m.record)
					if score && err == nil {
						err = model.PredictInto(m.rows, 60, prediction, scores, &scratch)
					}
					return err
				})
			})
		}
	}
}

// BenchmarkFleet reads and scores 100,000 records of small models, one after the other
// in memory as in a pack, with 60 rows for each, on all cores.
func BenchmarkFleet(b *testing.B) {
	const fleet, rows = 100_000, 60
	m := benchModels(b, "ref_1")[0]
	size := len(m.record)
	pack := make([]byte, 0, fleet*size)
	x := make([]float64, 0, fleet*rows)
	for range fleet {
		pack = append(pack, m.record...)
		x = append(x, m.rows...)
	}
	prediction, score := make([]float64, len(x)), make([]float64, len(x))
	for b.Loop() {
		var next atomic.Int64
		var wg sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				const bunch = 256
				var records RecordReader
				var scratch Scratch
				for {
					last := int(next.Add(bunch))
					for k := last - bunch; k < last; k++ {
						if k >= fleet {
							return
						}
						model, err := records.Read(pack[k*size : (k+1)*size])
						if err != nil {
							b.Error(err)
							return
						}
						at := k * rows
						if err := model.PredictInto(x[at:at+rows], rows, prediction[at:at+rows], score[at:at+rows], &scratch); err != nil {
							b.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/fleet, "ns/model")
}

// BenchmarkLoad reads pickles of small models.
func BenchmarkLoad(b *testing.B) {
	for _, m := range benchModels(b, "ref_1", "ref_8", "sv200_1", "sv200_8", "if100_1") {
		b.Run(m.Name, func(b *testing.B) {
			file, _, err := archive.Decompress(m.file, new(budget.Budget))
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(file)))
			measure(b, func() error {
				_, err := Load(file)
				return err
			})
		})
	}
}
