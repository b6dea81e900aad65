package pool

import (
	"context"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
)

// asked is a provider that notes whom it was asked to stop.
type asked struct {
	Provider
	stopped chan fleetscore.NodeID
}

func (a *asked) StopEarlier(_ context.Context, n fleetscore.Node) error {
	a.stopped <- n.ID
	return nil
}

// TestNodeOfAFormerServerThatNeverRegisters: it is lost, and its provider is asked to
// stop it, as no process of this server has a hold of it.
func TestNodeOfAFormerServerThatNeverRegisters(t *testing.T) {
	t.Parallel()
	p, l, _ := world(t, fleetscore.ScaleConfig{})
	provider := &asked{stopped: make(chan fleetscore.NodeID, 1)}
	p.providers = map[string]Provider{"local": provider}
	long := time.Now().UTC().Add(-time.Minute)
	if _, err := l.UpdateNode(t.Context(), "cpu-old", func(n *fleetscore.Node) error {
		*n = fleetscore.Node{ID: "cpu-old", Pool: "cpu", Slots: 1, State: fleetscore.NodeStarting, Started: long, Heartbeat: long, IdleSince: long}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.scale(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case id := <-provider.stopped:
		if n, err := l.Node(t.Context(), id); err != nil || n.State != fleetscore.NodeLost {
			t.Errorf("node %+v, %v; want lost", n, err)
		}
	default:
		t.Error("nobody asked the provider to stop the node")
	}
}
