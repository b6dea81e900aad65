// Package autoscale decides how many nodes a pool should have: from the work that waits
// and runs, the existing nodes, and how long each was idle; or by the targets of a
// formula.
//
// It is pure: the state and now go in, a decision comes out. It starts and stops
// nothing.
package autoscale

import (
	"cmp"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// NodeView is the part of a node's state that the decision depends on.
type NodeView struct {
	ID        fleetscore.NodeID
	State     fleetscore.NodeState
	Running   int       // leases it holds
	Started   time.Time // when it was started
	IdleSince time.Time // since when it holds none; meaningless while Running > 0
	Kind      fleetscore.NodeKind
	Load      *fleetscore.NodeLoad // as it reported last; nil if it never did
	Before    *fleetscore.NodeLoad // the same at the sample before; nil if there was none
}

// State is the current state of a pool.
type State struct {
	Queued int64 // tasks that wait for a slot
	Leased int64 // tasks that hold one
	Nodes  []NodeView
	Now    time.Time
}

// Alive counts the nodes that work or will: those that are draining or have ended are not
// counted.
func (s State) Alive() int { return len(s.alive()) }

func (s State) alive() (out []NodeView) {
	for _, n := range s.Nodes {
		if n.State.Coming() || n.State.Works() {
			out = append(out, n)
		}
	}
	return out
}

// Decision is what to do now.
type Decision struct {
	Want  int                 // nodes the work asks for, within the bounds
	Start int                 // nodes to start
	Drain []fleetscore.NodeID // nodes to stop as soon as they hold no lease
	// Interrupt are nodes to stop at once: their leases are taken back.
	Interrupt []fleetscore.NodeID
}

// Target decides. The work asks for ceil((queued + leased) / slots) nodes, between
// min and max. Missing nodes are started at once. Nodes beyond what is asked for are
// drained once they were idle for IdleAfter, the longest idle first; beyond max at
// once. Nodes that are draining or have ended are not counted.
func Target(c fleetscore.ScaleConfig, slots int, s State) Decision {
	slots = max(1, slots)
	alive := s.alive()
	work := s.Queued + s.Leased
	most := int64(max(c.Max, c.Min))
	want := int(min((work+int64(slots)-1)/int64(slots), most))
	d := Decision{Want: max(want, c.Min)}
	if len(alive) < d.Want {
		d.Start = d.Want - len(alive)
		return d
	}
	slices.SortStableFunc(alive, func(a, b NodeView) int {
		if c := cmp.Compare(min(a.Running, 1), min(b.Running, 1)); c != 0 {
			return c
		}
		return a.IdleSince.Compare(b.IdleSince)
	})
	surplus := len(alive) - d.Want
	over := len(alive) - int(most)
	for i, n := range alive[:surplus] {
		rested := n.Running == 0 && n.State.Works() && s.Now.Sub(n.IdleSince) >= c.IdleAfter.D()
		if i < over || rested {
			d.Drain = append(d.Drain, n.ID)
		}
	}
	return d
}

// Wake is the earliest time at which Target may decide differently although nothing
// has happened: when an idle node has been idle for long enough. False if there is no
// such node.
func Wake(c fleetscore.ScaleConfig, s State) (time.Time, bool) {
	var first time.Time
	for _, n := range s.Nodes {
		if !n.State.Works() || n.Running > 0 {
			continue
		}
		if t := n.IdleSince.Add(c.IdleAfter.D()); t.After(s.Now) && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first, !first.IsZero()
}
