package scorer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// models answers for each key with bytes or an error.
type models map[fleetscore.Key]any

func (m models) Model(_ context.Context, k fleetscore.Key) ([]byte, fleetscore.Digest, error) {
	switch v := m[k].(type) {
	case []byte:
		return v, fleetscore.DigestOf(v), nil
	case error:
		return nil, fleetscore.Digest{}, v
	case string:
		panic(v)
	}
	return nil, fleetscore.Digest{}, fleetscore.Errorf(fleetscore.NotFound, "find model", k.String(), "none")
}

func reference(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(testkit.Reference(t), "models", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func rowsOf(perKey map[fleetscore.Key][]float64, order ...fleetscore.Key) *fleetscore.Rows {
	r := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, ValueNames: []string{"Value"}, Values: make([][]float64, 1), Keys: order}
	for i, k := range order {
		for j, v := range perKey[k] {
			r.KeyIndex = append(r.KeyIndex, uint32(i))
			r.Times = append(r.Times, fleetscore.Micros(j+1))
			r.Values[0] = append(r.Values[0], v)
		}
	}
	return r
}

// TestOneOutcomeEach: each way a key can end costs that key alone.
func TestOneOutcomeEach(t *testing.T) {
	t.Parallel()
	good := reference(t, "model_1_1")
	rows := rowsOf(map[fleetscore.Key][]float64{
		"good": {10, 11, 12}, "none": {1}, "broken": {1, 2}, "evil": {1}, "panics": {1}, "gap": {1, math.NaN()}, "corrupt": {1},
	}, "good", "none", "broken", "evil", "panics", "gap", "corrupt")
	m := models{"good": good, "silent": good, "gap": good, "broken": []byte("not a pickle"), "panics": "oh",
		"evil":    []byte("cposix\nsystem\n(S'id'\ntR."),
		"corrupt": fleetscore.Errorf(fleetscore.Corrupt, "read model", "corrupt", "digest")}
	notes := 0
	r, err := Score(t.Context(), Spec{Features: []string{"Val=Value"}, Log: func(string, ...any) { notes++ }}, rows, []fleetscore.Key{"silent", "good"}, m)
	if err != nil {
		t.Fatal(err)
	}
	want := map[fleetscore.Key][2]string{
		"good": {"scored", ""}, "silent": {"no_data", "no row"}, "none": {"no_model", "none"}, "broken": {"failed", "pickle"},
		"evil": {"failed", "posix.system"}, "panics": {"failed", "oh"}, "gap": {"failed", "Value is missing"}, "corrupt": {"failed", "digest"},
	}
	if len(r.Items) != len(want) {
		t.Errorf("got %d items, want %d", len(r.Items), len(want))
	}
	for _, it := range r.Items {
		w := want[it.Key]
		if string(it.Outcome) != w[0] || !strings.Contains(it.Reason, w[1]) || (w[1] == "") != (it.Reason == "") {
			t.Errorf("%s: got %s, %q; want %v", it.Key, it.Outcome, it.Reason, w)
		}
	}
	if p := r.Predictions; p.Len() != 3 || p.ValueNames[0] != "Val" || p.Keys[p.KeyIndex[0]] != "good" {
		t.Errorf("predictions: %+v, want the three rows of good", p)
	}
	if notes == 0 {
		t.Error("nothing was logged")
	}
}

func TestWholeAttemptFails(t *testing.T) {
	t.Parallel()
	rows := rowsOf(map[fleetscore.Key][]float64{"a": {1}}, "a")
	down := fleetscore.Errorf(fleetscore.Unavailable, "read", "store", "down")
	if _, err := Score(t.Context(), Spec{Features: []string{"Value"}}, rows, nil, models{"a": down}); !errors.Is(err, down) {
		t.Errorf("got %v, want the store's error", err)
	}
	if _, err := Score(t.Context(), Spec{Features: []string{"Other"}}, rows, nil, models{}); !fleetscore.Invalid.Is(err) {
		t.Errorf("got %v, want invalid", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Score(ctx, Spec{Features: []string{"Value"}}, rows, nil, models{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
}

func TestTimedOut(t *testing.T) {
	t.Parallel()
	rows := rowsOf(map[fleetscore.Key][]float64{"a": {1}}, "a")
	r, err := Score(t.Context(), Spec{Features: []string{"Value"}, ModelTimeout: time.Nanosecond}, rows, nil, models{"a": reference(t, "model_1_1")})
	if err != nil || r.Items[0].Outcome != fleetscore.TimedOut || r.Predictions.Len() != 0 || len(r.Harmful) != 1 {
		t.Errorf("got %+v, %v; want timed_out", r, err)
	}
}

// busy is a runtime in which loading a model takes longer than it may, a number of times.
type busy struct {
	Runtime
	now   *time.Time
	slow  map[byte]int // by the first byte of the model
	loads map[byte]int
}

func (b busy) Worker() (Worker, error) {
	w, err := b.Runtime.Worker()
	return busyWorker{w, b}, err
}

type busyWorker struct {
	Worker
	busy
}

func (b busyWorker) Load(ctx context.Context, data []byte) (Model, error) {
	first := data[0]
	if b.loads[first]++; b.loads[first] <= b.slow[first] {
		*b.now = b.now.Add(time.Minute)
		return nil, ErrTimeout
	}
	return b.Worker.Load(ctx, data[1:])
}

// TestTries: a key whose time is up is scored again, after growing waits, until its tries
// are used up; a model that can't be read isn't read again.
func TestTries(t *testing.T) {
	t.Parallel()
	rows := rowsOf(map[fleetscore.Key][]float64{"a": {1}, "b": {1, 2}, "c": {1}, "d": {1}}, "a", "b", "c", "d")
	good := reference(t, "model_1_1")
	now := time.Unix(0, 0)
	rt := busy{Native{}, &now, map[byte]int{'b': 2, 'c': 99}, map[byte]int{}}
	var rests []int
	var log strings.Builder
	spec := Spec{Features: []string{"Value"}, Workers: 1, Runtime: rt, Now: func() time.Time { return now }, Tries: 3,
		Rest: func(_ context.Context, n int) { rests = append(rests, n) }, Log: func(format string, args ...any) { fmt.Fprintf(&log, format+"\n", args...) }}
	m := models{}
	for _, k := range []string{"a", "b", "c"} {
		m[fleetscore.Key(k)] = append([]byte(k), good...)
	}
	m["d"] = []byte("d, which is no model")
	r, err := Score(t.Context(), spec, rows, nil, m)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[byte]int{'a': 1, 'b': 3, 'c': 3, 'd': 1}, rt.loads); d != "" {
		t.Errorf("loads (-want +got):\n%s", d)
	}
	var outcomes []fleetscore.Outcome
	for _, i := range r.Items {
		outcomes = append(outcomes, i.Outcome)
	}
	want := []fleetscore.Outcome{fleetscore.Scored, fleetscore.Scored, fleetscore.TimedOut, fleetscore.Failed}
	if !slices.Equal(outcomes, want) || r.Predictions.Len() != 3 || r.Items[1].Rows != 2 {
		t.Errorf("outcomes %v with %d rows, want %v with 3", outcomes, r.Predictions.Len(), want)
	}
	if !slices.Equal(rests, []int{1, 2}) || !slices.Equal(r.Harmful, []fleetscore.Key{"c"}) || len(r.Causes) != 2 || strings.Count(log.String(), "tried again") != 4 {
		t.Errorf("rests %v, harmful %v, causes %+v\n%s", rests, r.Harmful, r.Causes, log.String())
	}
}

// TestQuarantined: a model in quarantine isn't read, and another model of the sensor is.
func TestQuarantined(t *testing.T) {
	t.Parallel()
	rows := rowsOf(map[fleetscore.Key][]float64{"a": {1}, "b": {1}}, "a", "b")
	model := reference(t, "model_1_1")
	q := map[fleetscore.Key]fleetscore.Harm{"a": {Fleet: "f", Pipeline: "p", Key: "a", Model: fleetscore.DigestOf(model), Reason: "it crashed", Jobs: []fleetscore.JobID{"j1", "j2"}},
		"b": {Fleet: "f", Key: "b", Model: fleetscore.DigestOf([]byte("an earlier model"))}}
	r, err := Score(t.Context(), Spec{Features: []string{"Value"}, Quarantined: q}, rows, nil, models{"a": model, "b": model})
	if err != nil {
		t.Fatal(err)
	}
	a, b := r.Items[0], r.Items[1]
	if a.Outcome != fleetscore.Quarantined || !strings.Contains(a.Reason, "in 2 jobs of pipeline p in a row: it crashed") || a.Model.IsZero() || len(r.Harmful) != 0 {
		t.Errorf("a is %+v, harmful are %v", a, r.Harmful)
	}
	if b.Outcome != fleetscore.Scored || r.Predictions.Len() != 1 {
		t.Errorf("b is %+v", b)
	}
	if len(r.Causes) != 1 || r.Causes[0].Outcome != fleetscore.Quarantined {
		t.Errorf("causes %+v", r.Causes)
	}
}

// TestTiming: if asked for, each sensor's item says how long its model took to load and to
// score, by the clock that is given; otherwise none does.
func TestTiming(t *testing.T) {
	t.Parallel()
	rows := rowsOf(map[fleetscore.Key][]float64{"a": {1, 2}, "b": {1}}, "a", "b")
	for _, timing := range []bool{true, false} {
		at := time.Unix(0, 0)
		now := func() time.Time { at = at.Add(time.Second); return at }
		r, err := Score(t.Context(), Spec{Features: []string{"Value"}, Workers: 1, Timing: timing, Now: now}, rows, []fleetscore.Key{"c"}, models{"a": reference(t, "model_1_1"), "b": []byte("no model")})
		if err != nil {
			t.Fatal(err)
		}
		want := map[fleetscore.Key][2]time.Duration{"a": {}, "b": {}, "c": {}}
		if timing {
			want["a"], want["b"] = [2]time.Duration{time.Second, time.Second}, [2]time.Duration{time.Second, 0}
		}
		for _, i := range r.Items {
			if got := [2]time.Duration{i.Load, i.Score}; got != want[i.Key] {
				t.Errorf("timing %t: sensor %s loaded and scored in %v, want %v", timing, i.Key, got, want[i.Key])
			}
		}
	}
}

func BenchmarkScore(b *testing.B) {
	data, err := os.ReadFile(filepath.Join(testkit.Reference(b), "models", "model_1_1"))
	if err != nil {
		b.Fatal(err)
	}
	m, per := models{}, map[fleetscore.Key][]float64{}
	var keys []fleetscore.Key
	for i := range 10000 {
		k := fleetscore.Key(fmt.Sprint(i))
		keys = append(keys, k)
		m[k], per[k] = data, make([]float64, 60)
	}
	rows := rowsOf(per, keys...)
	for name, timing := range map[string]bool{"plain": false, "timing": true} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Score(b.Context(), Spec{Features: []string{"Value"}, Timing: timing}, rows, nil, m); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/10000, "ns/model")
		})
	}
}

// TestNoRows: an interval without a row gives every expected key its outcome; only
// a column that isn't named is missing.
func TestNoRows(t *testing.T) {
	t.Parallel()
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"K"}, ValueNames: []string{"Value", "Truth"}, Values: make([][]float64, 2)}
	r, err := Score(t.Context(), Spec{Features: []string{"Value"}, Label: "Truth"}, rows, []fleetscore.Key{"a", "b"}, models{})
	if err != nil {
		t.Fatal(err)
	}
	if c := r.Counts(); c.Total() != 2 || c[fleetscore.NoData] != 2 {
		t.Errorf("outcomes %v", c)
	}
	if _, err := Score(t.Context(), Spec{Features: []string{"Other"}}, rows, nil, models{}); !fleetscore.Invalid.Is(err) {
		t.Errorf("another column: %v", err)
	}
}
