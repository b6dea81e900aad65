package dispatch

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
)

// TestShares: each key is in one share, that of the image that its model needs; the rest, and
// models of environments that are no image, are in share 0.
func TestShares(t *testing.T) {
	t.Parallel()
	environments := []fleetscore.PythonEnvironment{{SKLearn: "1", Path: "new"}, {SKLearn: "0.24", Image: "old"}, {SKLearn: "1.2", Image: "middle"}, {SKLearn: "0.1", Image: "unused"}}
	made := map[fleetscore.Key]string{"a": "0.24.2", "b": "1.2.1", "c": "1.3.0", "d": "", "e": "0.24.0", "f": "0.240"}
	for _, c := range []struct {
		what   string
		chosen []fleetscore.Key
		want   []Share
	}{
		{"the fleet", nil, []Share{{Environment: 0, Except: []fleetscore.Key{"a", "b", "e"}}, {Environment: 2, Keys: []fleetscore.Key{"a", "e"}}, {Environment: 3, Keys: []fleetscore.Key{"b"}}}},
		{"some keys, one of them native", []fleetscore.Key{"e", "x", "c"}, []Share{{Environment: 0, Keys: []fleetscore.Key{"c", "x"}}, {Environment: 2, Keys: []fleetscore.Key{"e"}}}},
		{"keys of one image", []fleetscore.Key{"b"}, []Share{{Environment: 3, Keys: []fleetscore.Key{"b"}}}},
	} {
		if d := cmp.Diff(c.want, Shares(made, c.chosen, environments)); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, d)
		}
	}
	if d := cmp.Diff([]Share{{}}, Shares(nil, nil, environments)); d != "" {
		t.Errorf("a fleet without models for Python (-want +got):\n%s", d)
	}
}
