package pool

import (
	"context"

	"github.com/fleetscore/fleetscore"
)

// Provider starts nodes of one kind, such as child processes. It must be safe for
// concurrent use. Package pooltest is the suite that every provider passes.
type Provider interface {
	// Start starts a node. The node outlives ctx. After an error nothing runs.
	Start(ctx context.Context, n fleetscore.Node) (Running, error)
	// StopEarlier asks a node to end that a former server started and this
	// provider didn't. Kind NotFound if nothing runs that is known for sure to be
	// that node.
	StopEarlier(ctx context.Context, n fleetscore.Node) error
}

// Running is a node that a provider started.
type Running interface {
	// Stop asks the node to end: it gives its tasks back first. It doesn't wait,
	// and does nothing to a node that has ended.
	Stop()
	// Kill ends the node at once, also one that was asked before and doesn't end.
	// It doesn't wait, and does nothing to a node that has ended.
	Kill()
	// Wait returns once the node has ended. It is called once.
	Wait() Ended
}

// Fetcher is a Provider whose nodes need an image on their machine.
type Fetcher interface {
	Provider
	// Fetch brings an image to the machine, unless it is there.
	Fetch(ctx context.Context, image string) error
}

// Ended is how a node ended.
type Ended struct {
	Err    error  // how it failed, as far as is known; nil if it ended as it should
	Output []byte // what it wrote itself: the end of it, if it was much
	Left   bool   // it runs on: its provider left it to the next server
	// Unusable says that the node wasn't started, because its machine lacks what its pool needs.
	// Err says what.
	Unusable bool
}

// Lasting is a Provider whose nodes outlive the server, such as virtual machines. A
// server that ends leaves them; the next server compares what exists with the ledger.
type Lasting interface {
	Provider
	// NodeID makes the name of a node from the name of its machine.
	NodeID(machine string) fleetscore.NodeID
	// List returns the names of the machines of a pool that exist.
	List(ctx context.Context, pool string) ([]string, error)
	// Remove ends a machine at once.
	Remove(ctx context.Context, pool, machine string) error
	// Leave makes every Wait return, with Left. Nodes run on.
	Leave()
}
