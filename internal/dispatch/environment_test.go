package dispatch

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
)

// TestShares: each key is in one share, that of the image that its model needs; the rest, and
// models of environments that are no image, are in share 0. Without such, the largest share takes unexpected keys.
func TestShares(t *testing.T) {
	t.Parallel()
	environments := []fleetscore.PythonEnvironment{{SKLearn: "1", Path: "new"}, {SKLearn: "0.24", Image: "old"}, {SKLearn: "1.2", Image: "middle"}, {SKLearn: "0.1", Image: "unused"}}
	made := map[fleetscore.Key]string{"a": "0.24.2", "b": "1.2.1", "c": "1.3.0", "d": "", "e": "0.24.0", "f": "0.240"}
	for _, c := range []struct {
		what    string
		chosen  []fleetscore.Key
		members int64
		want    []Share
	}{
		{"the fleet", nil, 7, []Share{{Environment: 0, Except: []fleetscore.Key{"a", "b", "e"}}, {Environment: 2, Keys: []fleetscore.Key{"a", "e"}}, {Environment: 3, Keys: []fleetscore.Key{"b"}}}},
		{"a fleet whose models all need images", nil, 3, []Share{{Environment: 2, Except: []fleetscore.Key{"b"}}, {Environment: 3, Keys: []fleetscore.Key{"b"}}}},
		{"some keys, one of them native", []fleetscore.Key{"e", "x", "c"}, 7, []Share{{Environment: 0, Keys: []fleetscore.Key{"c", "x"}}, {Environment: 2, Keys: []fleetscore.Key{"e"}}}},
		{"keys of one image", []fleetscore.Key{"b"}, 7, []Share{{Environment: 3, Keys: []fleetscore.Key{"b"}}}},
	} {
		if d := cmp.Diff(c.want, Shares(made, c.chosen, c.members, environments)); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, d)
		}
	}
	if d := cmp.Diff([]Share{{}}, Shares(nil, nil, 3, environments)); d != "" {
		t.Errorf("a fleet without models for Python (-want +got):\n%s", d)
	}
}
