package autoscale

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
)

func used(at time.Duration, dedicated, low float64) Sample {
	return Sample{At: now.Add(at), Values: map[string]float64{"$CurrentDedicatedNodes": dedicated, "$CurrentLowPriorityNodes": low}}
}

// TestCostOfKinds: each kind has its price, and without one of the two there is no cost.
func TestCostOfKinds(t *testing.T) {
	t.Parallel()
	samples := []Sample{}
	for i := range 121 { // an hour
		samples = append(samples, Sample{At: now.Add(time.Duration(i) * formula.SamplePeriod), Values: map[string]float64{"$CurrentDedicatedNodes": 1, "$CurrentLowPriorityNodes": 2}})
	}
	c := fleetscore.ScaleConfig{CostPerHour: 1, LowPriority: &fleetscore.LowPriorityConfig{Max: 2, CostPerHour: 0.25}}
	u := Used(samples, c)
	about := func(v *float64, want float64) bool { return v != nil && math.Abs(*v-want) < 1e-9 }
	if !about(&u.NodeHours, 3) || !about(&u.LowHours, 2) || !about(u.Cost, 1.5) || !about(u.SavedCost, 1.5) {
		t.Errorf("used %+v; want 3 hours, 2 of low priority, for 1.5, which saved 1.5", u)
	}
	c.LowPriority.CostPerHour = 0
	if u := Used(samples, c); u.Cost != nil || u.SavedCost != nil {
		t.Errorf("a cost without the price of a kind: %+v", u)
	}
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
	if d := cmp.Diff(want, Used(samples, fleetscore.ScaleConfig{CostPerHour: 0.6}), cmpopts.EquateApprox(0, 1e-9)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if u := Used(samples, fleetscore.ScaleConfig{}); u.Cost != nil || u.SavedCost != nil {
		t.Errorf("a cost that isn't known is %+v", u)
	}
	if d := cmp.Diff(Usage{}, Used(nil, fleetscore.ScaleConfig{CostPerHour: 1}), cmpopts.IgnoreFields(Usage{}, "Cost", "SavedCost")); d != "" {
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
		u := Used(samples, fleetscore.ScaleConfig{CostPerHour: 1})
		if math.Abs(u.NodeHours*3600-seconds) > 1e-6 || math.Abs(u.Hours*3600-covered) > 1e-6 || u.SavedHours < -1e-9 || math.Abs(u.NodeHours+u.SavedHours-float64(u.MostNodes)*u.Hours) > 1e-9 {
			rt.Errorf("%+v, want %v node-seconds in %v seconds", u, seconds, covered)
		}
	})
}

// TestTaskHours: a task takes its part of a node; one that hasn't ended takes nothing yet.
func TestTaskHours(t *testing.T) {
	t.Parallel()
	at := func(hours int) *time.Time { x := now.Add(time.Duration(hours) * time.Hour); return &x }
	all, low := TaskHours([]fleetscore.Task{{Started: at(0), Ended: at(2)}, {Started: at(1), Ended: at(4), NodeKind: fleetscore.LowPriority}, {Started: at(1)}, {}}, 2)
	if all != 2.5 || low != 1.5 {
		t.Errorf("%v node-hours, %v of low priority; want 2.5 and 1.5", all, low)
	}
}
