package autoscale

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func nodes(idle ...time.Duration) []NodeView {
	var out []NodeView
	for i, d := range idle {
		n := NodeView{ID: fleetscore.NodeID(fmt.Sprint("n", i)), State: fleetscore.NodeIdle, IdleSince: now.Add(-d)}
		if d < 0 { // busy
			n.Running, n.IdleSince = 1, time.Time{}
		}
		out = append(out, n)
	}
	return out
}

func TestTarget(t *testing.T) {
	t.Parallel()
	minute := fleetscore.Duration(time.Minute)
	for _, tt := range []struct {
		name  string
		scale fleetscore.ScaleConfig
		slots int
		state State
		want  Decision
	}{
		{"nothing to do", fleetscore.ScaleConfig{Max: 4}, 2, State{}, Decision{}},
		{"from zero", fleetscore.ScaleConfig{Max: 4}, 2, State{Queued: 3}, Decision{Want: 2, Start: 2}},
		{"at most max", fleetscore.ScaleConfig{Max: 4}, 2, State{Queued: 99}, Decision{Want: 4, Start: 4}},
		{"at least min", fleetscore.ScaleConfig{Min: 1, Max: 4}, 2, State{}, Decision{Want: 1, Start: 1}},
		{"leases count", fleetscore.ScaleConfig{Max: 4}, 1, State{Queued: 1, Leased: 1, Nodes: nodes(-1)}, Decision{Want: 2, Start: 1}},
		{"not rested", fleetscore.ScaleConfig{Max: 4, IdleAfter: minute}, 1, State{Nodes: nodes(59 * time.Second)}, Decision{}},
		{"rested", fleetscore.ScaleConfig{Max: 4, IdleAfter: minute}, 1, State{Nodes: nodes(time.Minute)}, Decision{Drain: []fleetscore.NodeID{"n0"}}},
		{"longest idle first", fleetscore.ScaleConfig{Min: 1, Max: 4, IdleAfter: minute}, 1, State{Nodes: nodes(2*time.Minute, 3*time.Minute)},
			Decision{Want: 1, Drain: []fleetscore.NodeID{"n1"}}},
		{"busy ones stay", fleetscore.ScaleConfig{Max: 4}, 1, State{Leased: 1, Nodes: nodes(-1, 0)}, Decision{Want: 1, Drain: []fleetscore.NodeID{"n1"}}},
		{"beyond max", fleetscore.ScaleConfig{Max: 1, IdleAfter: minute}, 1, State{Queued: 9, Leased: 2, Nodes: nodes(-1, -1)}, Decision{Want: 1, Drain: []fleetscore.NodeID{"n0"}}},
		{"lost ones don't count", fleetscore.ScaleConfig{Max: 1}, 1, State{Queued: 1, Nodes: []NodeView{{ID: "x", State: fleetscore.NodeLost}}}, Decision{Want: 1, Start: 1}},
	} {
		tt.state.Now = now
		if diff := cmp.Diff(tt.want, Target(tt.scale, tt.slots, tt.state)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestTargetSettles: carrying decisions out ends within the bounds, never starts
// and drains at once, and work always has a node.
func TestTargetSettles(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		c := fleetscore.ScaleConfig{Min: rapid.IntRange(0, 3).Draw(rt, "min"), IdleAfter: fleetscore.Duration(time.Minute)}
		c.Max = c.Min + rapid.IntRange(0, 3).Draw(rt, "more")
		s := State{Queued: rapid.Int64Range(0, 20).Draw(rt, "queued"), Now: now}
		for i := range rapid.IntRange(0, 8).Draw(rt, "nodes") {
			n := nodes(time.Duration(rapid.IntRange(-1, 120).Draw(rt, "idle")) * time.Second)[0]
			n.ID = fleetscore.NodeID(fmt.Sprint(i))
			s.Leased += int64(n.Running)
			s.Nodes = append(s.Nodes, n)
		}
		slots := rapid.IntRange(1, 4).Draw(rt, "slots")
		d := Target(c, slots, s)
		left := len(s.Nodes) + d.Start - len(d.Drain)
		if d.Start > 0 && len(d.Drain) > 0 || left < c.Min || left > max(c.Max, c.Min) || (s.Queued > 0 && c.Max > 0 && left == 0) {
			rt.Errorf("%+v with %+v decides %+v", c, s, d)
		}
	})
}

func TestWake(t *testing.T) {
	t.Parallel()
	c := fleetscore.ScaleConfig{IdleAfter: fleetscore.Duration(time.Minute)}
	got, ok := Wake(c, State{Now: now, Nodes: nodes(-1, 10*time.Second, 40*time.Second)})
	if want := now.Add(20 * time.Second); !ok || !got.Equal(want) {
		t.Errorf("got %v, %v; want %v", got, ok, want)
	}
	if _, ok := Wake(c, State{Now: now, Nodes: nodes(-1)}); ok {
		t.Error("a busy node sets a time to wake")
	}
}
