package pool

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
)

// asked is a provider of nodes that do nothing, which notes what it is asked for.
type asked struct {
	stopped, killed chan fleetscore.NodeID
}

func newAsked() *asked {
	return &asked{make(chan fleetscore.NodeID, 9), make(chan fleetscore.NodeID, 9)}
}

func (a *asked) Start(_ context.Context, n fleetscore.Node) (Running, error) {
	return &hung{a, n.ID, make(chan struct{}), sync.Once{}}, nil
}

// hung is a node that does nothing until it is killed.
type hung struct {
	by   *asked
	id   fleetscore.NodeID
	dead chan struct{}
	once sync.Once
}

func (h *hung) Stop() {}

func (h *hung) Kill() {
	h.once.Do(func() {
		h.by.killed <- h.id
		close(h.dead)
	})
}

func (h *hung) Wait() Ended {
	<-h.dead
	return Ended{Err: errors.New("killed")}
}

func (a *asked) StopEarlier(_ context.Context, n fleetscore.Node) error {
	a.stopped <- n.ID
	return nil
}

// frozen is a ledger whose process is frozen when it has put a node into the ledger.
type frozen struct {
	Ledger
	wake func()
}

func (f frozen) UpdateNode(ctx context.Context, id fleetscore.NodeID, change func(*fleetscore.Node) error) (fleetscore.Node, error) {
	n, err := f.Ledger.UpdateNode(ctx, id, change)
	f.wake()
	return n, err
}

// TestWokenServerStartsNoNode: a server that was frozen after it had decided to start a node
// doesn't start it when it wakes, because another one leads and has given the node up. After a
// short wait, as of a slow disk, it does.
func TestWokenServerStartsNoNode(t *testing.T) {
	t.Parallel()
	for away, started := range map[time.Duration]int{time.Second: 1, 31 * time.Second: 0} {
		p, l, _ := world(t, fleetscore.ScaleConfig{Min: 1, Max: 1})
		provider := newAsked()
		p.providers = map[string]Provider{"local": provider}
		now := time.Now()
		p.now = func() time.Time { return now }
		p.ledger = frozen{p.ledger, func() { now = now.Add(away) }}
		_, err := p.scale(t.Context())
		if (err == nil) != (started == 1) || len(p.running) != started {
			t.Errorf("after %s %d nodes run, %v; want %d", away, len(p.running), err, started)
		}
		nodes, err := l.Nodes(t.Context(), "cpu")
		if err != nil || len(nodes) != 1 || (nodes[0].State == fleetscore.NodeStarting) != (started == 1) {
			t.Errorf("after %s the nodes are %+v, %v", away, nodes, err)
		}
		for _, n := range nodes {
			if node := p.ours(n.ID); node != nil {
				node.Kill()
			}
		}
		p.waits.Wait()
	}
}

// TestNodeOfAFormerServerThatNeverRegisters: it is lost, and its provider is asked once
// to stop it, as this server has no hold of it, also if it was drained or lost before.
func TestNodeOfAFormerServerThatNeverRegisters(t *testing.T) {
	t.Parallel()
	for _, state := range []fleetscore.NodeState{fleetscore.NodeStarting, fleetscore.NodeDraining, fleetscore.NodeLost} {
		p, l, _ := world(t, fleetscore.ScaleConfig{})
		provider := newAsked()
		p.providers = map[string]Provider{"local": provider}
		long := time.Now().UTC().Add(-time.Minute)
		if _, err := l.UpdateNode(t.Context(), "cpu-old", func(n *fleetscore.Node) error {
			*n = fleetscore.Node{ID: "cpu-old", Pool: "cpu", Slots: 1, State: state, Started: long, Heartbeat: long, IdleSince: long}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := p.scale(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := l.Node(t.Context(), "cpu-old"); err != nil || n.State != fleetscore.NodeLost || len(provider.stopped) != 1 {
			t.Errorf("a node that was %s: %+v, %v; want lost; its provider was asked %d times to stop it", state, n, err, len(provider.stopped))
		}
	}
}

// TestNodesThatHangAreKilled: a process that never registers is killed, whatever the
// ledger holds of it by then; so is one that was lost and hangs, but not as long as it
// may merely be cut off.
func TestNodesThatHangAreKilled(t *testing.T) {
	t.Parallel()
	p, l, _ := world(t, fleetscore.ScaleConfig{Min: 2, Max: 2})
	provider := newAsked()
	p.providers = map[string]Provider{"local": provider}
	now := time.Now().UTC()
	p.now = func() time.Time { return now }
	scale := func() (killed []fleetscore.NodeID) {
		t.Helper()
		if _, err := p.scale(t.Context()); err != nil {
			t.Fatal(err)
		}
		for {
			select {
			case id := <-provider.killed:
				killed = append(killed, id)
			default:
				return killed
			}
		}
	}
	scale()
	nodes, err := l.Nodes(t.Context(), "cpu")
	if err != nil || len(nodes) != 2 {
		t.Fatal(nodes, err)
	}
	silent, lost := nodes[0].ID, nodes[1].ID
	if err := l.SetNodeState(t.Context(), silent, fleetscore.NodeDraining); err != nil {
		t.Fatal(err)
	}
	if _, err := l.UpdateNode(t.Context(), lost, func(n *fleetscore.Node) error {
		n.State, n.PID = fleetscore.NodeLost, 4242
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	cfg := fleetscore.Config{Pools: map[string]fleetscore.PoolConfig{"cpu": {Provider: "local", Slots: 1}}} // no new ones
	if _, err := l.PutConfig(t.Context(), time.Now(), "none", cfg); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		want  fleetscore.NodeID
	}{{20 * time.Second, ""}, {40 * time.Second, silent}, {2 * time.Minute, ""}, {4 * time.Minute, lost}} {
		now = nodes[0].Started.Add(step.after)
		killed := scale()
		if step.want == "" && len(killed) > 0 || step.want != "" && (len(killed) != 1 || killed[0] != step.want) {
			t.Errorf("after %s %v were killed, want %q", step.after, killed, step.want)
		}
	}
	p.waits.Wait()
	for id, want := range map[fleetscore.NodeID]string{silent: "its agent didn't register within 30s of its start", lost: "it ended without a goodbye"} {
		if n, err := l.Node(t.Context(), id); err != nil || !strings.HasPrefix(n.Reason, want) {
			t.Errorf("node %s: reason %q, %v; want %q", id, n.Reason, err, want)
		}
	}
}

// TestUnneededMachines: only machines that are the pool's by their names, and on which
// no node lives, are stopped.
func TestUnneededMachines(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	node := func(id string, s fleetscore.NodeState, silent time.Duration) fleetscore.Node {
		return fleetscore.Node{ID: fleetscore.NodeID(id + machineSuffix), State: s, Heartbeat: now.Add(-silent)}
	}
	nodes := []fleetscore.Node{
		node("vms-aaaaa1", fleetscore.NodeStarting, 9*time.Minute),
		node("vms-aaaaa2", fleetscore.NodeIdle, 0),
		node("vms-aaaaa3", fleetscore.NodeDraining, 0),
		node("vms-aaaaa4", fleetscore.NodeStopped, 0),
		node("vms-aaaaa5", fleetscore.NodeLost, time.Minute),
		node("vms-aaaaa6", fleetscore.NodeLost, 4*time.Minute),
	}
	machines := []string{"vms-aaaaa1", "vms-aaaaa2", "vms-aaaaa3", "vms-aaaaa4", "vms-aaaaa5", "vms-aaaaa6",
		"vms-nobody", "vms-big-nobody", "vms", "other-nobody", "vms-", "vms-toolong", "vms-../../"}
	got := unneeded("vms", machines, nodes, (&Exec{}).NodeID, now)
	if want := []string{"vms-aaaaa4", "vms-aaaaa6", "vms-nobody"}; !slices.Equal(got, want) {
		t.Errorf("stopped are %v, want %v", got, want)
	}
}
