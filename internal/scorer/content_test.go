package scorer

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
)

// TestKept: a key whose rows, model and settings are those of an earlier item isn't scored
// and ends as this item says, whatever the order of its rows; any change has it scored.
func TestKept(t *testing.T) {
	t.Parallel()
	one, other := reference(t, "model_1_1"), reference(t, "model_3_2")
	rowsNow := func() *fleetscore.Rows {
		return rowsOf(map[fleetscore.Key][]float64{"a": {1, 2, 3}, "b": {4, 5}}, "a", "b")
	}
	spec := Spec{Features: []string{"Value"}, Content: 7}
	score := func(s Spec, rows *fleetscore.Rows, m models) *Result {
		t.Helper()
		r, err := Score(t.Context(), s, rows, []fleetscore.Key{"c"}, m)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := score(spec, rowsNow(), models{"a": one, "b": one})
	spec.Earlier = map[fleetscore.Key]fleetscore.Item{}
	for _, i := range first.Items {
		if (i.Content != 0) != (i.Outcome == fleetscore.Scored) {
			t.Errorf("%s: content %d", i.Key, i.Content)
		}
		i.Kept = "p-1"
		spec.Earlier[i.Key] = i
	}
	if first.Items[0].Content == first.Items[1].Content {
		t.Error("different rows have the same content")
	}
	for _, tt := range []struct {
		name   string
		change func(s *Spec, rows *fleetscore.Rows, m models)
		want   []fleetscore.Key // are scored
	}{
		{"nothing", func(*Spec, *fleetscore.Rows, models) {}, nil},
		{"order of rows", func(_ *Spec, r *fleetscore.Rows, _ models) {
			slices.Reverse(r.KeyIndex)
			slices.Reverse(r.Times)
			slices.Reverse(r.Values[0])
		}, nil},
		{"value", func(_ *Spec, r *fleetscore.Rows, _ models) { r.Values[0][0]++ }, []fleetscore.Key{"a"}},
		{"time", func(_ *Spec, r *fleetscore.Rows, _ models) { r.Times[len(r.Times)-1]++ }, []fleetscore.Key{"b"}},
		{"model", func(_ *Spec, _ *fleetscore.Rows, m models) { m["b"] = other }, []fleetscore.Key{"b"}},
		{"settings", func(s *Spec, _ *fleetscore.Rows, _ models) { s.Content++ }, []fleetscore.Key{"a", "b"}},
		{"no contents", func(s *Spec, _ *fleetscore.Rows, _ models) { s.Content = 0 }, []fleetscore.Key{"a", "b"}},
		{"label", func(s *Spec, _ *fleetscore.Rows, _ models) { s.Label = "Value" }, []fleetscore.Key{"a", "b"}},
		{"more rows", func(_ *Spec, r *fleetscore.Rows, _ models) {
			r.KeyIndex, r.Times, r.Values[0] = append(r.KeyIndex, 1), append(r.Times, 99), append(r.Values[0], 1)
		}, []fleetscore.Key{"b"}},
	} {
		s, rows, m := spec, rowsNow(), models{"a": one, "b": one}
		tt.change(&s, rows, m)
		r := score(s, rows, m)
		var scored []fleetscore.Key
		n := 0
		for _, i := range r.Items {
			switch {
			case i.Kept != "":
				if d := cmp.Diff(spec.Earlier[i.Key], i); d != "" {
					t.Errorf("%s: kept (-earlier +now):\n%s", tt.name, d)
				}
			case i.Outcome == fleetscore.Scored:
				scored = append(scored, i.Key)
				n += int(i.Rows)
			}
		}
		if d := cmp.Diff(tt.want, scored); d != "" || r.Predictions.Len() != n {
			t.Errorf("%s: %d predictions of %d rows; scored (-want +got):\n%s", tt.name, r.Predictions.Len(), n, d)
		}
		for _, k := range r.Predictions.KeyIndex {
			if !slices.Contains(tt.want, r.Predictions.Keys[k]) {
				t.Errorf("%s: predictions of %s", tt.name, r.Predictions.Keys[k])
			}
		}
	}
}
