package autoscale

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
)

func TestWarm(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration, tasks int) Start { return Start{now.Add(d), tasks} }
	for _, tt := range []struct {
		name   string
		slots  int
		takes  time.Duration
		starts []Start
		nodes  int
		wake   time.Duration // 0 means never
	}{
		{"nothing is expected", 2, time.Minute, nil, 0, 0},
		{"too far away to be worth it", 2, time.Minute, []Start{at(61*time.Second, 5)}, 0, time.Second},
		{"in time", 2, time.Minute, []Start{at(time.Minute, 5)}, 3, time.Minute + MostHold},
		{"waits for its data", 2, time.Minute, []Start{at(-time.Minute, 5)}, 3, MostHold - time.Minute},
		{"waits for too long", 2, time.Minute, []Start{at(-MostHold, 5)}, 0, 0},
		{"two at once", 2, time.Minute, []Start{at(0, 3), at(0, 4)}, 4, MostHold},
		{"the second is far away", 2, time.Minute, []Start{at(0, 3), at(10*time.Minute, 4)}, 2, 9 * time.Minute},
		{"nodes that start at once", 1, 0, []Start{at(0, 1)}, 1, MostHold},
		{"a job without tasks", 1, time.Minute, []Start{at(0, 0)}, 0, MostHold},
	} {
		nodes, wake := Warm(tt.slots, tt.takes, tt.starts, now)
		want := time.Time{}
		if tt.wake != 0 {
			want = now.Add(tt.wake)
		}
		if nodes != tt.nodes || !wake.Equal(want) {
			t.Errorf("%s: got %d nodes until %s, want %d until %s", tt.name, nodes, wake, tt.nodes, want)
		}
	}
}

// TestWarmInTime: whoever looks only when Warm says so has enough nodes ready at each
// start and pays for none, before a start, longer than a node takes to start.
func TestWarmInTime(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		takes := time.Duration(rapid.IntRange(0, 600).Draw(rt, "takes")) * time.Second
		slots := rapid.IntRange(1, 4).Draw(rt, "slots")
		var starts []Start
		for range rapid.IntRange(1, 5).Draw(rt, "starts") {
			starts = append(starts, Start{now.Add(time.Duration(rapid.IntRange(700, 20_000).Draw(rt, "at")) * time.Second), rapid.IntRange(1, 20).Draw(rt, "tasks")})
		}
		ready := map[Start]bool{}
		for at, steps := now, 0; ; steps++ {
			nodes, wake := Warm(slots, takes, starts, at)
			needed := false
			for _, s := range starts {
				if at.Equal(s.At.Add(-takes)) && nodes*slots >= s.Tasks {
					ready[s] = true // what is started now is ready at the start
				}
				needed = needed || !at.Before(s.At.Add(-takes)) && at.Before(s.At.Add(MostHold))
			}
			if nodes > 0 != needed {
				rt.Fatalf("%d nodes at %s, needed %t: %v", nodes, at, needed, starts)
			}
			if wake.IsZero() {
				break
			}
			between := at.Add(time.Duration(rapid.Int64Range(0, int64(wake.Sub(at))-1).Draw(rt, "between")))
			if again, _ := Warm(slots, takes, starts, between); again != nodes || !wake.After(at) || steps > 20 {
				rt.Fatalf("at %s there are %d nodes until %s, but %d at %s", at, nodes, wake, again, between)
			}
			at = wake
		}
		for _, s := range starts {
			if !ready[s] {
				rt.Errorf("not enough nodes are ready for %v of %v", s, starts)
			}
		}
	})
}

func TestStartTime(t *testing.T) {
	t.Parallel()
	node := func(ago, takes time.Duration) fleetscore.Node {
		n := fleetscore.Node{Started: now.Add(-ago)}
		if takes > 0 {
			n.Ready = n.Started.Add(takes)
		}
		return n
	}
	nodes := []fleetscore.Node{node(time.Hour, 9*time.Minute), node(time.Minute, 0)} // an old, slow one; one that is starting
	for i := range newestStarts {
		nodes = append(nodes, node(time.Duration(i+2)*time.Minute, time.Duration(i+1)*time.Second))
	}
	for _, tt := range []struct {
		nodes []fleetscore.Node
		want  string
	}{{nil, "0s false"}, {nodes[1:2], "0s false"}, {nodes[:2], "9m0s true"}, {nodes, "10s true"}} {
		takes, known := StartTime(tt.nodes)
		if got := fmt.Sprint(takes, known); got != tt.want {
			t.Errorf("%d nodes: got %s, want %s", len(tt.nodes), got, tt.want)
		}
	}
}
