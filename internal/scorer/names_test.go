package scorer

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
	"github.com/fleetscore/fleetscore/sklearn"
)

// named is a model that was fitted with the columns pressure and température, in
// that order, as a file and as a native record.
func named(t testing.TB) (forms map[string][]byte, model *sklearn.Model) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(testkit.Root(t), "sklearn", "testdata", "1.9.1", "named.p5.pickle"))
	if err != nil {
		t.Fatal(err)
	}
	if model, err = sklearn.Load(data); err != nil {
		t.Fatal(err)
	}
	record, err := model.AppendRecord(nil)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"file": data, "record": record}, model
}

// swapped are rows whose columns stand the other way round, and what the model
// gives for them in its own order.
func swapped(t testing.TB, model *sklearn.Model) (rows *fleetscore.Rows, want, byPosition []float64) {
	t.Helper()
	rows = &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, Keys: []fleetscore.Key{"a"}, ValueNames: []string{"température", "pressure"}, Values: make([][]float64, 2)}
	var right, wrong []float64
	for i := range 20 {
		p, temp := math.Sin(float64(i)), 3*math.Cos(float64(i))
		rows.Times, rows.KeyIndex = append(rows.Times, fleetscore.Micros(i+1)), append(rows.KeyIndex, 0)
		rows.Values[0], rows.Values[1] = append(rows.Values[0], temp), append(rows.Values[1], p)
		right, wrong = append(right, p, temp), append(wrong, temp, p)
	}
	want, byPosition = make([]float64, 20), make([]float64, 20)
	if err := model.PredictInto(right, 20, nil, want, nil); err != nil {
		t.Fatal(err)
	}
	if err := model.PredictInto(wrong, 20, nil, byPosition, nil); err != nil {
		t.Fatal(err)
	}
	if slices.Equal(want, byPosition) {
		t.Fatal("the order of the columns makes no difference to the model")
	}
	return rows, want, byPosition
}

// TestFeaturesByName: a model that knows its feature names gets columns by name,
// in whatever order they are configured, and by position where that is asked for.
func TestFeaturesByName(t *testing.T) {
	t.Parallel()
	forms, model := named(t)
	rows, want, byPosition := swapped(t, model)
	for form, data := range forms {
		for _, tt := range []struct {
			features string
			by       fleetscore.FeatureOrder
			want     []float64
		}{
			{"température pressure", "", want},
			{"pressure température", "", want},
			{"T=température P=pressure", fleetscore.FeaturesByName, want},
			{"température pressure", fleetscore.FeaturesByPosition, byPosition},
			{"pressure température", fleetscore.FeaturesByPosition, want},
			{"pressure=température température=pressure", fleetscore.FeaturesByPosition, byPosition},
		} {
			spec := Spec{Features: strings.Fields(tt.features), FeaturesBy: tt.by}
			r, err := Score(t.Context(), spec, rows, nil, models{"a": data})
			if err != nil {
				t.Fatal(err)
			}
			if it := r.Items[0]; it.Outcome != fleetscore.Scored || !slices.Equal(r.Predictions.Score, tt.want) {
				t.Errorf("%s, %s by %q: %s %s, got %v, want %v", form, tt.features, tt.by, it.Outcome, it.Reason, r.Predictions.Score, tt.want)
			}
			out, _ := fleetscore.SplitFeature(spec.Features[0])
			if r.Predictions.ValueNames[0] != out {
				t.Errorf("%s, %s: the predictions have the columns %v", form, tt.features, r.Predictions.ValueNames)
			}
		}
	}
}

// TestFeatureNamesRefused: names that don't fit cost the sensor, with both lists
// and the way on.
func TestFeatureNamesRefused(t *testing.T) {
	t.Parallel()
	forms, model := named(t)
	rows, _, _ := swapped(t, model)
	rows.ValueNames = []string{"temp", "pressure"}
	for form, data := range forms {
		for _, features := range []string{"temp pressure", "pressure"} {
			spec := Spec{Features: strings.Fields(features), PositionOption: "--features-by position"}
			r, err := Score(t.Context(), spec, rows, nil, models{"a": data})
			if err != nil {
				t.Fatal(err)
			}
			it := r.Items[0]
			if it.Outcome != fleetscore.Failed {
				t.Errorf("%s, %s: got %s, want failed", form, features, it.Outcome)
			}
			for _, part := range []string{"[pressure, température]", "[" + strings.Join(spec.Features, ", ") + "]", "--features-by position"} {
				if !strings.Contains(it.Reason, part) {
					t.Errorf("%s, %s: the reason %q lacks %q", form, features, it.Reason, part)
				}
			}
		}
	}
	if _, err := Score(t.Context(), Spec{Features: []string{"temp"}, FeaturesBy: "order"}, rows, nil, models{}); !fleetscore.Invalid.Is(err) {
		t.Errorf("an unknown order: got %v, want an error of kind invalid", err)
	}
}

// TestNamesAllocateNothing: names are matched once, not for every model, even
// where a native record is read anew for each.
func TestNamesAllocateNothing(t *testing.T) {
	forms, _ := named(t)
	rows, _, _ := swapped(t, mustLoad(t, forms["record"]))
	r, err := prepare(Spec{Features: []string{"température", "pressure"}}, rows)
	if err != nil {
		t.Fatal(err)
	}
	runtime, err := Native{}.Worker()
	if err != nil {
		t.Fatal(err)
	}
	w := worker{runtime: runtime}
	if n := testing.AllocsPerRun(20, func() {
		m, err := w.runtime.Load(t.Context(), forms["record"])
		if err != nil {
			t.Fatal(err)
		}
		order, err := r.order(&w, m)
		if err != nil || !slices.Equal(order, []int{1, 0}) {
			t.Fatalf("got %v, %v; want [1 0]", order, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func mustLoad(t testing.TB, data []byte) *sklearn.Model {
	t.Helper()
	m, err := sklearn.Load(data)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
