package scorer_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/scorertest"
	"github.com/fleetscore/fleetscore/internal/testkit"
	"github.com/fleetscore/fleetscore/sklearn"
)

// columns turns rows into columns.
func columns(rows [][]float64) [][]float64 {
	out := make([][]float64, len(rows[0]))
	for _, r := range rows {
		for c, v := range r {
			out[c] = append(out[c], v)
		}
	}
	return out
}

// TestNativeRuntime runs the suite over files that scikit-learn wrote, with what it
// predicts, as pickles and as the native records of packs.
func TestNativeRuntime(t *testing.T) {
	dir := filepath.Join(testkit.Root(t), "sklearn", "testdata", "1.9.1")
	text, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var expected struct {
		Cases []struct {
			Name    string
			Files   []string
			Rows    [][]float64
			Predict []float64
		}
	}
	if err := json.Unmarshal(text, &expected); err != nil {
		t.Fatal(err)
	}
	var samples []scorertest.Sample
	for _, c := range expected.Cases {
		if len(c.Rows) == 0 || len(c.Predict) != len(c.Rows) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, c.Files[len(c.Files)-1]))
		if err != nil {
			t.Fatal(err)
		}
		m, err := sklearn.Load(data)
		if err != nil {
			t.Fatal(err)
		}
		record, err := m.AppendRecord(nil)
		if err != nil {
			t.Fatal(err)
		}
		s := scorertest.Sample{Columns: columns(c.Rows), Prediction: c.Predict, Names: m.FeatureNames(),
			Traits: scorer.Traits{Features: len(c.Rows[0]), Named: m.Named(), OutlierDetector: m.OutlierDetector(), Degenerate: m.Degenerate()}}
		for form, data := range map[string][]byte{"pickle": data, "record": record} {
			s.Name, s.Data = c.Name+" as "+form, data
			samples = append(samples, s)
		}
	}
	odd, err := os.ReadFile(filepath.Join(dir, "array.p5.pickle"))
	if err != nil {
		t.Fatal(err)
	}
	scorertest.Run(t, scorer.Native{}, samples, [][]byte{nil, []byte("no model"), odd, samples[0].Data[:len(samples[0].Data)/2]})
}

func TestThresholds(t *testing.T) {
	t.Parallel()
	one := scorertest.Threshold{Count: 1, Above: 10}
	two := scorertest.Threshold{Count: 2, Names: []string{"a", "b"}, Above: 3}
	scorertest.Run(t, scorertest.Thresholds{}, []scorertest.Sample{
		{Name: "one", Data: one.Bytes(), Traits: scorer.Traits{Features: 1, OutlierDetector: true}, Columns: [][]float64{{1, 10, 11}}, Prediction: []float64{1, 1, -1}},
		{Name: "two", Data: two.Bytes(), Traits: scorer.Traits{Features: 2, Named: true, OutlierDetector: true}, Names: []string{"a", "b"},
			Columns: [][]float64{{1, 2}, {1, 2}}, Prediction: []float64{1, -1}},
	}, [][]byte{nil, []byte("no model"), []byte(`{"Count":0}`)})
}

// everybody has the same model.
type everybody []byte

func (e everybody) Model(_ context.Context, _ fleetscore.Key) ([]byte, fleetscore.Digest, error) {
	return e, fleetscore.DigestOf(e), nil
}

// TestScoreWithAnotherRuntime: what a runtime says becomes predictions, and the time
// limit of a model is measured by the clock that the scorer was given.
func TestScoreWithAnotherRuntime(t *testing.T) {
	t.Parallel()
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, ValueNames: []string{"Value"}, Keys: []fleetscore.Key{"a"},
		KeyIndex: []uint32{0, 0}, Times: []fleetscore.Micros{1, 2}, Values: [][]float64{{5, 15}}}
	model := everybody(scorertest.Threshold{Count: 1, Above: 10}.Bytes())
	spec := scorer.Spec{Features: []string{"Value"}, Runtime: scorertest.Thresholds{}}
	got, err := scorer.Score(t.Context(), spec, rows, nil, model)
	if err != nil {
		t.Fatal(err)
	}
	if p := got.Predictions.Prediction; len(p) != 2 || p[0] != 0 || p[1] != 1 || got.Items[0].Anomalies != 1 {
		t.Errorf("predictions %v, items %+v; want 0 and 1", p, got.Items)
	}
	now := time.Unix(0, 0)
	spec.ModelTimeout, spec.Now = time.Second, func() time.Time { now = now.Add(2 * time.Second); return now }
	if got, err = scorer.Score(t.Context(), spec, rows, nil, model); err != nil || got.Items[0].Outcome != fleetscore.TimedOut {
		t.Errorf("a model that takes 2 s of the scorer's clock: %+v, %v; want timed_out", got.Items, err)
	}
}

// together is a Foreign whose batches end only when there are so many of them at the same time.
type together struct {
	everybody
	mu      sync.Mutex // guards what follows
	waiting int
	most    int
	full    chan struct{}
}

// Original implements scorer.Originals.
func (f *together) Original(ctx context.Context, k fleetscore.Key) ([]byte, string, fleetscore.Digest, error) {
	data, digest, err := f.Model(ctx, k)
	return data, k.String(), digest, err
}

// Score implements scorer.Foreign.
func (f *together) Score(ctx context.Context, b *scorer.Batch, ended func(int, scorer.Ended)) error {
	f.mu.Lock()
	if f.waiting++; f.waiting == f.most {
		close(f.full)
	}
	f.mu.Unlock()
	select {
	case <-f.full:
	case <-ctx.Done():
		return ctx.Err()
	}
	at := 0
	for i, s := range b.Sensors {
		ended(i, scorer.Ended{Prediction: b.Columns[0][at : at+s.Rows], Score: make([]float64, s.Rows)})
		at += s.Rows
	}
	return nil
}

// TestBatchesAtOnce: a worker gives several batches to another process at the same time, and every sensor gets what is
// its own.
func TestBatchesAtOnce(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, ValueNames: []string{"Value"}, Values: make([][]float64, 1)}
	for k := range 500 {
		rows.Keys = append(rows.Keys, fleetscore.Key(fmt.Sprintf("%03d", k)))
		for n := range 2 {
			rows.KeyIndex, rows.Times = append(rows.KeyIndex, uint32(k)), append(rows.Times, fleetscore.Micros(n+1))
			rows.Values[0] = append(rows.Values[0], float64(2*k+n))
		}
	}
	f := &together{everybody: everybody("a model"), most: 3, full: make(chan struct{})}
	got, err := scorer.Score(ctx, scorer.Spec{Features: []string{"Value"}, Use: fleetscore.RuntimePython, Foreign: f, Workers: 1, Batches: 3}, rows, nil, f)
	if err != nil {
		t.Fatalf("%d batches were given at the same time, want 3: %v", f.waiting, err)
	}
	for i, p := range got.Predictions.Prediction {
		if p != got.Predictions.Values[0][i] {
			t.Fatalf("row %d has the prediction %v, want %v", i, p, got.Predictions.Values[0][i])
		}
	}
	if c := got.Counts(); c[fleetscore.Scored] != 500 {
		t.Errorf("outcomes %v, want 500 scored", c)
	}
}

// large is a Foreign that knows how many bytes of models it is given at the same time.
type large struct {
	everybody
	times     string     // the column of times of all batches
	mu        sync.Mutex // guards what follows
	now, most int
}

// Original implements scorer.Originals.
func (f *large) Original(_ context.Context, k fleetscore.Key) ([]byte, string, fleetscore.Digest, error) {
	return f.everybody, k.String(), fleetscore.Digest{}, nil
}

// Score implements scorer.Foreign.
func (f *large) Score(_ context.Context, b *scorer.Batch, ended func(int, scorer.Ended)) error {
	bytes := 0
	for _, s := range b.Sensors {
		bytes += len(s.Model)
	}
	f.mu.Lock()
	f.now += bytes
	f.most = max(f.most, f.now)
	f.mu.Unlock()
	time.Sleep(time.Second)
	f.mu.Lock()
	f.now -= bytes
	f.mu.Unlock()
	for i, s := range b.Sensors {
		e := scorer.Ended{Prediction: make([]float64, s.Rows), Score: make([]float64, s.Rows)}
		if b.TimeName != f.times {
			e.Err = fmt.Errorf("the times have the name %q", b.TimeName)
		}
		ended(i, e)
	}
	return nil
}

// TestBatchesOfLargeModels: batches at the same time don't multiply the memory that large models take.
func TestBatchesOfLargeModels(t *testing.T) {
	t.Parallel()
	rows := &fleetscore.Rows{KeyNames: []string{"Device"}, ValueNames: []string{"Value"}, Values: make([][]float64, 1)} // without a column of times
	for k := range 20 {
		rows.Keys = append(rows.Keys, fleetscore.Key(fmt.Sprintf("%02d", k)))
		rows.KeyIndex, rows.Times, rows.Values[0] = append(rows.KeyIndex, uint32(k)), append(rows.Times, 1), append(rows.Values[0], 1)
	}
	for model, want := range map[int]int{300 << 20: 300 << 20, 50 << 20: 100 << 20, 8 << 20: 80 << 20} {
		f := &large{everybody: make(everybody, model)}
		synctest.Test(t, func(t *testing.T) {
			got, err := scorer.Score(t.Context(), scorer.Spec{Features: []string{"Value"}, Use: fleetscore.RuntimePython, Foreign: f, Workers: 1, Batches: 10}, rows, nil, f)
			if err != nil {
				t.Fatal(err)
			}
			if got.Counts()[fleetscore.Scored] != int64(len(rows.Keys)) {
				t.Errorf("models of %d bytes: %+v", model, got.Causes)
			}
		})
		if f.most != want {
			t.Errorf("models of %d bytes: %d bytes at the same time, want %d", model, f.most, want)
		}
	}
}
