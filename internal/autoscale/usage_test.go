package autoscale

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
)

func used(at time.Duration, dedicated, low float64) Sample {
	return Sample{At: now.Add(at), Values: map[string]float64{"$CurrentDedicatedNodes": dedicated, "$CurrentLowPriorityNodes": low}}
}

// TestUsed: node-hours and cost of a pool that had up to four nodes, beside one that always
// has four; a time without a server counts for neither.
func TestUsed(t *testing.T) {
	t.Parallel()
	var samples []Sample
	for i := range 61 { // half an hour: one node, then four, then none
		nodes := [][2]float64{{1, 0}, {3, 1}, {0, 0}}[min(i/20, 2)]
		samples = append(samples, used(time.Duration(i)*30*time.Second, nodes[0], nodes[1]))
	}
	samples = append(samples, used(10*time.Hour, 2, 0)) // no server ran before
	cost, saved := 5.0/6*0.6, (2-5.0/6)*0.6
	want := Usage{From: now, To: now.Add(10 * time.Hour), Hours: 0.5, NodeHours: 5.0 / 6, MostNodes: 4, AlwaysOn: 2, SavedHours: 2 - 5.0/6, Cost: &cost, SavedCost: &saved}
	if d := cmp.Diff(want, Used(samples, 0.6), cmpopts.EquateApprox(0, 1e-9)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if u := Used(samples, 0); u.Cost != nil || u.SavedCost != nil {
		t.Errorf("a cost that isn't known is %+v", u)
	}
	if d := cmp.Diff(Usage{}, Used(nil, 1), cmpopts.IgnoreFields(Usage{}, "Cost", "SavedCost")); d != "" {
		t.Errorf("without samples (-want +got):\n%s", d)
	}
}

// TestUsedAddsUp: node-hours are the sum over seconds, and never more than those of the
// pool that is always on.
func TestUsedAddsUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var samples []Sample
		at, seconds, covered := time.Duration(0), 0.0, 0.0
		for range rapid.IntRange(1, 50).Draw(rt, "samples") {
			nodes := float64(rapid.IntRange(0, 5).Draw(rt, "nodes"))
			samples = append(samples, used(at, nodes, 0))
			gap := rapid.IntRange(1, 120).Draw(rt, "gap")
			for range gap {
				if time.Duration(gap)*time.Second <= 3*formula.SamplePeriod {
					seconds, covered = seconds+nodes, covered+1
				}
			}
			at += time.Duration(gap) * time.Second
		}
		samples = append(samples, used(at, 0, 0))
		u := Used(samples, 1)
		if math.Abs(u.NodeHours*3600-seconds) > 1e-6 || math.Abs(u.Hours*3600-covered) > 1e-6 || u.SavedHours < -1e-9 || math.Abs(u.NodeHours+u.SavedHours-float64(u.MostNodes)*u.Hours) > 1e-9 {
			rt.Errorf("%+v, want %v node-seconds in %v seconds", u, seconds, covered)
		}
	})
}
