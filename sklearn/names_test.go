package sklearn

import (
	"os"
	"slices"
	"testing"
)

// TestFeatureNames: the names are those that the model was fitted with, both from a
// file and from a native record. There are no names if only a later step has names.
func TestFeatureNames(t *testing.T) {
	t.Parallel()
	for file, want := range map[string][]string{
		"1.9.1/named.p5.pickle":  {"pressure", "température"},
		"1.9.1/named.p0.pickle":  {"pressure", "température"},
		"1.9.1/wide.p5.pickle":   nil,
		"names/frame.pickle":     {"b", "a"},
		"names/made_up.pickle":   nil, // fitted on an array; set_output made names for the second step
		"names/functions.pickle": {"b", "a"},
		"names/search.pickle":    {"b", "a"},
		"names/columns.pickle":   {"b", "a", "c"},
		"names/union.pickle":     {"b", "a"},
		"names/forest.pickle":    {"b", "a"},
		"names/numbers.pickle":   nil, // a data frame whose columns are 0 and 1
	} {
		data, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Load(data)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		for form, m := range map[string]*Model{"file": m, "record": viaRecord(t, m)} {
			if got := m.FeatureNames(); !slices.Equal(got, want) || !slices.Equal(m.Info().FeatureNames, want) {
				t.Errorf("%s as %s: got %q, Info %q; want %q", file, form, got, m.Info().FeatureNames, want)
			}
			if m.Named() != (len(want) > 0) || !m.HasFeatureNames(want) || m.HasFeatureNames(append(slices.Clone(want), "more")) {
				t.Errorf("%s as %s: Named %v, HasFeatureNames contradicts FeatureNames", file, form, m.Named())
			}
			if len(want) > 1 {
				other := slices.Clone(want)
				slices.Reverse(other)
				if m.HasFeatureNames(other) {
					t.Errorf("%s as %s: it has its names in another order too", file, form)
				}
			}
		}
	}
}
