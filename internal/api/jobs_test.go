package api

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/obs"
)

// TestWithoutNode: a job that waits for a node tells why the last one of its pool can't be used,
// until a later one could be.
func TestWithoutNode(t *testing.T) {
	t.Parallel()
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := l.PutConfig(t.Context(), time.Now(), "text", fleetscore.Config{Pools: map[string]fleetscore.PoolConfig{"cpu": {Provider: "local", Scale: fleetscore.ScaleConfig{Max: 2}}}}); err != nil {
		t.Fatal(err)
	}
	s := &server{deps: Deps{Ledger: l, Health: &obs.Health{}}}
	start := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for i, c := range []struct {
		node   fleetscore.NodeID
		state  fleetscore.NodeState
		reason string
		want   string
	}{
		{"d", fleetscore.NodeUnusable, "mount history is away", "waits for a node of pool cpu; the last one, d, is unusable: mount history is away"},
		{"c", fleetscore.NodeStopped, "", "waits for a node of pool cpu"},
		{"b", fleetscore.NodeLost, "it ended", "waits for a node of pool cpu; the last one, b, is lost: it ended"},
		{"a", fleetscore.NodeStarting, "", "waits for the nodes of pool cpu that start"},
	} {
		if _, err := l.UpdateNode(t.Context(), c.node, func(n *fleetscore.Node) error {
			n.Pool, n.State, n.Reason, n.Started, n.Kind = "cpu", c.state, c.reason, start.Add(time.Duration(i)*time.Minute), fleetscore.Dedicated
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if got, err := s.withoutNode(t.Context(), "cpu"); err != nil || got != c.want {
			t.Errorf("after node %s: %q, %v; want %q", c.node, got, err, c.want)
		}
	}
}
