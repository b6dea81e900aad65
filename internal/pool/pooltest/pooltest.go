// Package pooltest is the conformance suite of pool.Provider, and a provider whose
// nodes are goroutines of the process, for tests of several rooms together.
package pooltest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/pool"
)

// Behaviour is what the nodes of a provider under test do.
type Behaviour string

// The behaviours. Every node first writes "node <id> is here as <kind>" as a line.
const (
	Obedient Behaviour = "obedient" // it runs until it is asked to end, then writes "bye" and ends
	Deaf     Behaviour = "deaf"     // it runs on when it is asked to end
	Crashing Behaviour = "crashing" // it writes "no luck" and ends by itself with an error
	Missing  Behaviour = "missing"  // it can't be started at all
)

// Run checks that providers do what package pool expects of them. make gives a
// provider whose nodes behave in one way.
func Run(t *testing.T, make func(t *testing.T, b Behaviour) pool.Provider) {
	t.Run("stops", func(t *testing.T) { testStops(t, make(t, Obedient)) })
	t.Run("stops each by itself", func(t *testing.T) { testEach(t, make(t, Obedient)) })
	t.Run("kills", func(t *testing.T) { testKills(t, make(t, Deaf)) })
	t.Run("tells of crashes", func(t *testing.T) { testCrash(t, make(t, Crashing)) })
	t.Run("starts nodes of both kinds", func(t *testing.T) { testKinds(t, make(t, Obedient), make(t, Crashing)) })
	t.Run("refuses", func(t *testing.T) { testMissing(t, make(t, Missing)) })
	t.Run("touches nobody else's", func(t *testing.T) { testEarlier(t, make(t, Obedient)) })
}

func nodeOf(i int) fleetscore.Node {
	now := time.Now().UTC()
	return fleetscore.Node{ID: fleetscore.NodeID(fmt.Sprintf("cpu-%d", i)), Pool: "cpu", Slots: 1, State: fleetscore.NodeStarting, Started: now, Heartbeat: now, Kind: fleetscore.Dedicated}
}

// lowOf is the same of low priority.
func lowOf(i int) fleetscore.Node {
	n := nodeOf(i)
	n.Kind = fleetscore.LowPriority
	return n
}

func start(t *testing.T, p pool.Provider, i int) pool.Running {
	t.Helper()
	return startNode(t, p, nodeOf(i))
}

func startNode(t *testing.T, p pool.Provider, n fleetscore.Node) pool.Running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := p.Start(ctx, n)
	cancel() // the node outlives the call
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ends waits for a node.
func ends(t *testing.T, r pool.Running) pool.Ended {
	t.Helper()
	done := make(chan pool.Ended, 1)
	go func() { done <- r.Wait() }()
	select {
	case e := <-done:
		return e
	case <-time.After(time.Minute):
		t.Fatal("the node doesn't end")
		return pool.Ended{}
	}
}

func testStops(t *testing.T, p pool.Provider) {
	r := start(t, p, 1)
	r.Stop()
	r.Stop()
	e := ends(t, r)
	if e.Err != nil && len(e.Output) > 0 { // before its first line, it may not have known how to say goodbye
		t.Errorf("a node that was asked to end failed: %v; it wrote %q", e.Err, e.Output)
	}
	r.Stop()
	r.Kill() // it has ended: nothing happens
}

func testEach(t *testing.T, p pool.Provider) {
	const n = 3
	var nodes [n]pool.Running
	ended := make(chan int, n)
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range nodes {
		nodes[i] = start(t, p, i)
		wg.Go(func() {
			nodes[i].Wait()
			ended <- i
		})
	}
	for i := range nodes {
		select {
		case early := <-ended:
			t.Errorf("node %d ended, and nobody asked it", early)
		default:
		}
		nodes[i].Stop()
		select {
		case got := <-ended:
			if got != i {
				t.Errorf("node %d ended when node %d was asked to", got, i)
			}
		case <-time.After(time.Minute):
			t.Errorf("node %d doesn't end", i)
			nodes[i].Kill()
		}
	}
}

func testKills(t *testing.T, p pool.Provider) {
	r := start(t, p, 1)
	r.Stop() // it doesn't listen
	r.Kill()
	r.Kill()
	if e := ends(t, r); e.Err == nil {
		t.Error("a node that was killed ended well")
	}
}

func testCrash(t *testing.T, p pool.Provider) {
	e := ends(t, start(t, p, 7))
	if e.Err == nil || !strings.Contains(string(e.Output), "node cpu-7 is here") || !strings.Contains(string(e.Output), "no luck") {
		t.Errorf("a node that crashed ended with %v, and wrote %q", e.Err, e.Output)
	}
}

// testKinds: nodes of both kinds run side by side, each knows its kind, and to end one of
// them leaves the other one alone.
func testKinds(t *testing.T, p, crashing pool.Provider) {
	low, dedicated := startNode(t, p, lowOf(1)), startNode(t, p, nodeOf(2))
	ended := make(chan struct{})
	go func() { dedicated.Wait(); close(ended) }() // the only call of it: a node is waited for once
	low.Stop()
	ends(t, low)
	select {
	case <-ended:
		t.Error("a dedicated node ended when one of low priority was asked to")
	default:
	}
	dedicated.Stop()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the dedicated node doesn't end")
	}
	for i, n := range []fleetscore.Node{nodeOf(3), lowOf(4)} {
		e := ends(t, startNode(t, crashing, n))
		if want := fmt.Sprintf("node cpu-%d is here as %s\n", 3+i, n.Kind); !strings.Contains(string(e.Output), want) {
			t.Errorf("a node wrote %q; want %q", e.Output, want)
		}
	}
}

func testMissing(t *testing.T, p pool.Provider) {
	if r, err := p.Start(t.Context(), nodeOf(1)); err == nil {
		r.Kill()
		r.Wait()
		t.Error("a node that can't be started was started")
	}
}

func testEarlier(t *testing.T, p pool.Provider) {
	n := nodeOf(9)
	n.Host, n.PID = "nobody's machine", 4242
	if err := p.StopEarlier(t.Context(), n); !fleetscore.NotFound.Is(err) {
		t.Errorf("a node of another machine: %v, want kind not found", err)
	}
}
