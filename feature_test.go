package fleetscore_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
)

// TestMatchFeatures: names match their columns in any order, and names that don't
// match are refused with both lists.
func TestMatchFeatures(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		features, names string
		want            []int
		problem         []string // parts of the error
	}{
		{"a b", "a b", []int{0, 1}, nil},
		{"b a", "a b", []int{1, 0}, nil},
		{"c a b", "a b c", []int{1, 2, 0}, nil},
		{"Val=Value", "Value", []int{0}, nil},
		{"Val=Value", "Val", []int{0}, nil},
		{"A=x B=x", "B A", []int{1, 0}, nil}, // a column twice, told apart by its names on output
		{"A=b B=c", "b c", []int{0, 1}, nil},
		{"a b", "a c", nil, []string{"[a, c]", "[a, b]", "missing: [c]", "unknown to the model: [b]"}},
		{"a b", "x y", nil, []string{"[x, y]", "[a, b]"}},
		{"a b c", "a b", nil, []string{"[a, b]", "[a, b, c]", "unknown to the model: [c]"}},
		{"a", "a b", nil, []string{"[a, b]", "[a]", "missing: [b]"}},
		{"a b", "a a", nil, []string{"[a, a]", "[a, b]"}},
		{"A=B B=A", "A B", nil, []string{"match both"}}, // the meaning is ambiguous
		{"a b", "A b", nil, []string{"missing: [A]"}},
	} {
		got, err := fleetscore.MatchFeatures(strings.Fields(tt.features), strings.Fields(tt.names))
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.problem == nil) {
			t.Errorf("%s for %s: got %v, %v; want %v", tt.features, tt.names, got, err, tt.want)
			continue
		}
		for _, part := range tt.problem {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s for %s: the error %q lacks %q", tt.features, tt.names, err, part)
			}
		}
	}
}
