package pool

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

func TestMain(m *testing.M) {
	testkit.BeNode()
	os.Exit(m.Run())
}

// local is a provider whose nodes are the test's own program.
func local(t *testing.T, executable string) *Local {
	t.Helper()
	token := filepath.Join(t.TempDir(), "node-token")
	if err := os.WriteFile(token, []byte("a secret of the nodes"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := NewLocal(LocalConfig{ServerURL: "http://127.0.0.1:1", Executable: executable, TokenFile: token})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// world is pools over a ledger with one job's worth of configuration.
func world(t *testing.T, scale fleetscore.ScaleConfig) (*Pools, ledger.Ledger, store.Bucket) {
	t.Helper()
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cfg := fleetscore.Config{Pools: map[string]fleetscore.PoolConfig{"cpu": {Provider: "local", Slots: 1, Scale: scale}}}
	if _, err := l.PutConfig(t.Context(), time.Now(), "", cfg); err != nil {
		t.Fatal(err)
	}
	p, err := New(Config{}, Deps{Ledger: l, Store: b, Providers: map[string]Provider{"local": local(t, os.Args[0])}})
	if err != nil {
		t.Fatal(err)
	}
	return p, l, b
}

// until waits for a state of the nodes.
func until(t *testing.T, l ledger.Ledger, what string, holds func([]fleetscore.Node) bool) []fleetscore.Node {
	t.Helper()
	changes, stop := l.Watch(ledger.AnyNodes)
	defer stop()
	for end := time.After(20 * time.Second); ; {
		nodes, err := l.Nodes(t.Context(), "cpu")
		if err != nil {
			t.Fatal(err)
		}
		if holds(nodes) {
			return nodes
		}
		select {
		case <-changes:
		case <-end:
			t.Fatalf("waiting until %s: %+v", what, nodes)
		}
	}
}

func count(nodes []fleetscore.Node, s fleetscore.NodeState) (n int) {
	for _, x := range nodes {
		if x.State == s {
			n++
		}
	}
	return n
}

// TestScale: nodes start up to what is wanted, are drained when they have rested,
// and end with the pool; what they wrote is kept.
func TestScale(t *testing.T) {
	t.Setenv(testkit.NodeVariable, "obedient")
	p, l, b := world(t, fleetscore.ScaleConfig{Min: 2, Max: 3, IdleAfter: fleetscore.Duration(time.Millisecond)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	nodes := until(t, l, "two nodes start", func(n []fleetscore.Node) bool { return count(n, fleetscore.NodeStarting) == 2 })
	for _, n := range nodes {
		if err := l.SetNodeState(t.Context(), n.ID, fleetscore.NodeIdle); err != nil {
			t.Fatal(err)
		}
	}
	cfg := fleetscore.Config{Pools: map[string]fleetscore.PoolConfig{"cpu": {Provider: "local", Slots: 1, Scale: fleetscore.ScaleConfig{Max: 1, IdleAfter: fleetscore.Duration(time.Millisecond)}}}}
	if _, err := l.PutConfig(t.Context(), time.Now(), "less", cfg); err != nil {
		t.Fatal(err)
	}
	until(t, l, "both are drained", func(n []fleetscore.Node) bool { return count(n, fleetscore.NodeDraining) == 2 })
	cancel()
	<-done
	if len(p.running) != 0 {
		t.Errorf("%d nodes run on", len(p.running))
	}
	for _, n := range nodes {
		if _, err := b.Stat(t.Context(), fleetscore.BlobName("logs/nodes/cpu/"+string(n.ID)+".output.txt")); err != nil {
			t.Error(err)
		}
	}
}

func TestNodesHoldNoCredentials(t *testing.T) {
	t.Parallel()
	got := withoutCredentials([]string{"PATH=/bin", "AWS_SECRET_ACCESS_KEY=x", "AZURE_STORAGE_KEY=y", "GOOGLE_APPLICATION_CREDENTIALS=z", "FLEETSCORE_SECRET_BLOB_KEY=x", "FLEETSCORE_SIGN_IN_SECRET=x", "MY_AWS_=1", "FLEETSCORE_LOG=debug"})
	if want := "PATH=/bin MY_AWS_=1 FLEETSCORE_LOG=debug"; strings.Join(got, " ") != want {
		t.Errorf("a node gets %v, want %s", got, want)
	}
}

// TestCrashingNode: a node that ends by itself is lost, its output kept, and
// another one started.
func TestCrashingNode(t *testing.T) {
	t.Setenv(testkit.NodeVariable, "crashing")
	p, l, b := world(t, fleetscore.ScaleConfig{Min: 1, Max: 1})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	nodes := until(t, l, "two were lost", func(n []fleetscore.Node) bool { return count(n, fleetscore.NodeLost) >= 2 })
	cancel()
	<-done
	for _, n := range nodes {
		if n.State != fleetscore.NodeLost {
			continue
		}
		text, err := store.ReadAll(t.Context(), b, fleetscore.BlobName("logs/nodes/cpu/"+string(n.ID)+".output.txt"))
		if err != nil || !strings.Contains(string(text), "no luck") {
			t.Errorf("log of %s: %q, %v", n.ID, text, err)
		}
	}
}
