package scorer

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
	"github.com/fleetscore/fleetscore/sklearn"
)

// TestGroupRows: every row stands once, with its key, in input order.
func TestGroupRows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		checkGroups(rt, rapid.IntRange(1, 400).Draw(rt, "keys"), rapid.IntRange(0, 3000).Draw(rt, "rows"),
			rapid.IntRange(1, 8).Draw(rt, "workers"), rapid.Bool().Draw(rt, "ordered"))
	})
	checkGroups(t, 5000, 200_000, 3, true) // several shares
	checkGroups(t, 5000, 200_000, 3, false)
	checkGroups(t, 3*manyKeys, 200_000, 3, false) // sorted in two steps
}

func checkGroups(t interface{ Fatalf(string, ...any) }, keys, n, workers int, ordered bool) {
	rows := &fleetscore.Rows{TimeName: "TS", Keys: make([]fleetscore.Key, keys)}
	want := map[uint32][]uint32{}
	timed := true
	for i := range n {
		k := uint32(i*i+i/7) % uint32(keys)
		rows.KeyIndex = append(rows.KeyIndex, k)
		at := fleetscore.Micros(i / 5)
		if !ordered && i%1000 == 999 {
			at, timed = 0, false
		}
		rows.Times = append(rows.Times, at)
		want[k] = append(want[k], uint32(i))
	}
	g := groupRows(rows, workers)
	if g.timed != timed {
		t.Fatalf("in the order of times: got %v, want %v", g.timed, timed)
	}
	seen := 0
	var s sorted
	for b := range g.bundles() {
		first := g.bundle(b, &s)
		for k := range len(s.start) - 2 {
			got := s.order[s.start[k]:s.start[k+1]]
			seen += len(got)
			if w := want[uint32(first+k)]; !slices.Equal(got, w) {
				t.Fatalf("key %d: got %d rows, want %d", first+k, len(got), len(w))
			}
		}
	}
	if seen != n {
		t.Fatalf("got %d rows, want %d", seen, n)
	}
}

// TestMissing: what becomes of rows that lack a feature.
func TestMissing(t *testing.T) {
	t.Parallel()
	good := reference(t, "model_1_1")
	in := func() *fleetscore.Rows {
		return rowsOf(map[fleetscore.Key][]float64{"a": {10, math.NaN(), 12}, "b": {10, 11}, "c": {math.NaN()}, "d": {math.Inf(1)}}, "a", "b", "c", "d")
	}
	m := models{"a": good, "b": good, "c": good, "d": good}
	for _, tt := range []struct {
		rule    fleetscore.MissingRule
		want    string // outcome and rows of each
		rows    int
		leftOut int64
	}{
		{"", "failed/0 scored/2 failed/0 failed/0", 2, 0},
		{fleetscore.MissingFail, "failed/0 scored/2 failed/0 failed/0", 2, 0},
		{fleetscore.MissingSkip, "scored/2 scored/2 no_data/0 failed/0", 4, 2},
		{fleetscore.MissingToModel, "failed/0 scored/2 failed/0 failed/0", 2, 0}, // this model refuses NaN
	} {
		r, err := Score(t.Context(), Spec{Features: []string{"Value"}, Missing: tt.rule}, in(), nil, m)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, it := range r.Items {
			got = append(got, string(it.Outcome)+"/"+string(rune('0'+it.Rows)))
		}
		if s := strings.Join(got, " "); s != tt.want || r.Predictions.Len() != tt.rows || r.LeftOut != tt.leftOut {
			t.Errorf("%q: got %s, %d rows, %d left out; want %s, %d, %d", tt.rule, s, r.Predictions.Len(), r.LeftOut, tt.want, tt.rows, tt.leftOut)
		}
		if tt.rule == fleetscore.MissingSkip && !strings.Contains(r.Items[0].Reason, "1 of its 3 rows") {
			t.Errorf("skip: reason %q", r.Items[0].Reason)
		}
	}
}

// TestSeveralFeatures: features reach the model in the order they are named, with
// rows left out in between.
func TestSeveralFeatures(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(testkit.Root(t), "sklearn", "testdata", "1.9.1", "wide.p5.pickle"))
	if err != nil {
		t.Fatal(err)
	}
	model, err := sklearn.Load(data)
	if err != nil {
		t.Fatal(err)
	}
	n, features := 200, model.NumFeatures()
	if features < 2 {
		t.Fatalf("the model has %d features", features)
	}
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, Keys: []fleetscore.Key{"a", "b"}, Values: make([][]float64, features)}
	var spec Spec
	for c := range features {
		name := string(rune('A' + c))
		rows.ValueNames = append([]string{name}, rows.ValueNames...)
		spec.Features = append(spec.Features, "out"+name+"="+name)
	}
	var x []float64
	for i := range n {
		rows.Times, rows.KeyIndex = append(rows.Times, fleetscore.Micros(i+1)), append(rows.KeyIndex, uint32(i%2))
		gap := i%7 == 3
		for c := range features {
			v := math.Sin(float64(i*features + c))
			if !gap {
				x = append(x, v)
			} else if c == features-1 {
				v = math.NaN()
			}
			rows.Values[features-1-c] = append(rows.Values[features-1-c], v)
		}
	}
	spec.Missing = fleetscore.MissingSkip
	r, err := Score(t.Context(), spec, rows, nil, models{"a": data, "b": data})
	if err != nil {
		t.Fatal(err)
	}
	want := make([]float64, len(x)/features)
	if err := model.PredictInto(x, len(want), nil, want, nil); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.Predictions.Score, want) || r.LeftOut != int64(n-len(want)) {
		t.Errorf("got %v, %d left out; want %v, %d", r.Predictions.Score, r.LeftOut, want, n-len(want))
	}
}

// slowErrors has a model for one key; that the others have none takes it long.
type slowErrors struct {
	model []byte
	err   error
}

func (s slowErrors) Model(_ context.Context, k fleetscore.Key) ([]byte, fleetscore.Digest, error) {
	if k == "good" {
		return s.model, fleetscore.DigestOf(s.model), nil
	}
	time.Sleep(4 * time.Second)
	return nil, fleetscore.Digest{}, s.err
}

// TestTimeOfOthers: what a key without a usable model took isn't charged to the next.
func TestTimeOfOthers(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(testkit.Root(t), "sklearn", "testdata", "1.9.1", "one.p4.pickle"))
	if err != nil {
		t.Fatal(err)
	}
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, ValueNames: []string{"Value"}}
	var values []float64
	for i := range 400 { // several keys in a bundle, one of them good
		k := fleetscore.Key(fmt.Sprintf("bad%03d", i))
		if i == 399 {
			k = "good"
		}
		rows.Keys, rows.KeyIndex = append(rows.Keys, k), append(rows.KeyIndex, uint32(i))
		rows.Times, values = append(rows.Times, 1), append(values, 20)
	}
	rows.Values = [][]float64{values}
	for _, kind := range []fleetscore.Kind{fleetscore.NotFound, fleetscore.Corrupt} {
		synctest.Test(t, func(t *testing.T) {
			r, err := Score(t.Context(), Spec{Features: []string{"Value"}, Workers: 1}, rows, nil, slowErrors{data, fleetscore.Errorf(kind, "read model", "bad", "slow")})
			if err != nil {
				t.Fatal(err)
			}
			if it := r.Items[len(r.Items)-1]; it.Outcome != fleetscore.Scored {
				t.Errorf("%v: %s: %s", kind, it.Outcome, it.Reason)
			}
		})
	}
}
