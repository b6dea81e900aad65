package pool

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/obs"
)

// TestBrokenNodes: nodes whose setup command fails are replaced less and less often, after
// some of them one at a time, and health says why. A node that works, or a change of the
// configuration, ends that.
func TestBrokenNodes(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	var health obs.Health
	p, err := New(Config{}, Deps{Now: func() time.Time { return now }, Health: &health})
	if err != nil {
		t.Fatal(err)
	}
	cfg := fleetscore.PoolConfig{Setup: &fleetscore.SetupConfig{Command: []string{"a"}}}
	var nodes []fleetscore.Node
	fail := func() {
		nodes = append(nodes, fleetscore.Node{ID: fleetscore.NodeID(fmt.Sprint("n", len(nodes))), Pool: "vms", Kind: fleetscore.Dedicated, State: fleetscore.NodeUnusable, Reason: "no such package"})
	}
	start := func(want int) (int, time.Duration) {
		return p.careful(kindOf{"vms", fleetscore.Dedicated}, cfg, nodes, want, time.Hour)
	}
	if n, _ := start(4); n != 4 {
		t.Errorf("a new pool starts %d nodes, want 4", n)
	}
	fail()
	if n, rest := start(4); n != 0 || rest != firstRestart {
		t.Errorf("after a failure %d nodes are started, and %s later again; want none before %s", n, rest, firstRestart)
	}
	now = now.Add(firstRestart)
	if n, _ := start(4); n != 4 || len(health.Problems()) != 0 {
		t.Errorf("after one failure %d nodes are started; problems %v", n, health.Problems())
	}
	began := now
	tries := 0
	for now.Sub(began) < 24*time.Hour { // a day with a program that can't be installed
		n, rest := start(4)
		if n == 0 {
			now = now.Add(min(rest, time.Hour))
			continue
		}
		tries += n
		if len(nodes) >= manyBroken && n != 1 {
			t.Fatalf("%d nodes are tried at once after %d failures", n, len(nodes))
		}
		for range n {
			fail()
		}
	}
	if tries > 170 || tries < 100 {
		t.Errorf("%d nodes were started in a day on which none could be used; want one in ten minutes", tries)
	}
	start(4)
	if got := health.Problems(); len(got) != 1 || got[0].Part != "nodes of pool vms" || !strings.Contains(got[0].Problem, "no such package") || !strings.Contains(got[0].Problem, "could not be used") {
		t.Errorf("health says %+v", got)
	}
	before := nodes
	nodes = append(nodes, fleetscore.Node{ID: "good", Kind: fleetscore.Dedicated, State: fleetscore.NodeIdle, Ready: now.Add(time.Second)})
	now = now.Add(time.Minute)
	if n, _ := start(4); n != 4 || len(health.Problems()) != 0 {
		t.Errorf("with a node that works, %d nodes are started; problems %v", n, health.Problems())
	}
	nodes = before
	for range manyBroken {
		fail()
		start(4)
	}
	if n, _ := start(4); n != 0 {
		t.Errorf("%d nodes are started just after failures", n)
	}
	cfg.Setup = &fleetscore.SetupConfig{Command: []string{"b"}}
	if n, _ := start(4); n != 4 {
		t.Errorf("after the configuration was changed %d nodes are started, want 4", n)
	}
}

// unfit is a provider of machines that lack what their pool needs.
type unfit struct{ starts atomic.Int64 }

func (u *unfit) Start(context.Context, fleetscore.Node) (Running, error) {
	u.starts.Add(1)
	return u, nil
}
func (*unfit) StopEarlier(context.Context, fleetscore.Node) error { return nil }
func (*unfit) Stop()                                              {}
func (*unfit) Kill()                                              {}
func (*unfit) Wait() Ended {
	return Ended{Err: errors.New("mount history is away"), Unusable: true}
}

// TestUnfitMachine: a node that isn't started because its machine lacks something is unusable,
// with the reason, and others are tried with pauses.
func TestUnfitMachine(t *testing.T) {
	t.Parallel()
	p, l, _ := world(t, fleetscore.ScaleConfig{Min: 1, Max: 1})
	var by unfit
	var health obs.Health
	p.providers["local"], p.health = &by, &health
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	nodes := until(t, l, "three can't be used", func(n []fleetscore.Node) bool {
		return count(n, fleetscore.NodeUnusable) >= manyBroken && len(health.Problems()) > 0
	})
	cancel()
	<-done
	for _, n := range nodes {
		if n.State == fleetscore.NodeStarting {
			continue // it is tried again
		}
		if n.State != fleetscore.NodeUnusable || n.Reason != "mount history is away" {
			t.Errorf("%s is %s: %s", n.ID, n.State, n.Reason)
		}
	}
	if got := health.Problems()[0]; !strings.Contains(got.Problem, "mount history is away") || by.starts.Load() > manyBroken+1 {
		t.Errorf("health says %+v after %d starts", got, by.starts.Load())
	}
}

// TestHeldLowPriority: while nodes of low priority can't be had, dedicated ones take their
// place, within their own bounds.
func TestHeldLowPriority(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	p, err := New(Config{}, Deps{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	s := autoscale.State{Queued: 4, Now: now, Kinds: true, Nodes: []autoscale.NodeView{{ID: "l", Kind: fleetscore.LowPriority, State: fleetscore.NodeRunning, Running: 1}}}
	decide := func() autoscale.Decision {
		c := fleetscore.PoolConfig{Scale: fleetscore.ScaleConfig{Max: 3, LowPriority: &fleetscore.LowPriorityConfig{Max: 4}}}
		p.withoutHeld("vms", &c, s)
		return autoscale.Target(c.Scale, 1, s)
	}
	if d := decide(); d.Start != 0 || d.StartLow != 3 {
		t.Errorf("at first %+v, want 3 nodes of low priority", d)
	}
	for range manyBroken {
		p.ended(fleetscore.Node{ID: "x", Pool: "vms", Kind: fleetscore.LowPriority}, 0, "no capacity")
	}
	if d := decide(); d.Start != 3 || d.StartLow != 0 || len(d.Drain) != 0 {
		t.Errorf("without capacity %+v, want 3 dedicated nodes, and that the other one stays", d)
	}
	now = now.Add(time.Hour)
	if d := decide(); d.Start != 0 || d.StartLow != 3 {
		t.Errorf("later %+v, want that nodes of low priority are tried again", d)
	}
}
