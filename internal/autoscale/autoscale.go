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
	Preempted bool                 // it was taken away
	Load      *fleetscore.NodeLoad // as it reported last; nil if it never did
	Before    *fleetscore.NodeLoad // the same at the sample before; nil if there was none
}

// State is the current state of a pool.
type State struct {
	Queued int64 // tasks that wait for a slot
	Leased int64 // tasks that hold one
	// AtLeast is how many nodes the tasks need because not every node can run all of them, as with several images; 0 if
	// every node can.
	AtLeast int
	// Succeeded and Failed are the tasks that have ended so, ever; they are known only when a
	// sample is taken.
	Succeeded, Failed int64
	Nodes             []NodeView
	Now               time.Time
	// Kinds says that the pool has both kinds of nodes. Without it, nodes beyond a
	// formula's target of dedicated nodes count as nodes of low priority.
	Kinds bool
}

// Alive counts the nodes that work or will: those that are draining or have ended are not
// counted.
func (s State) Alive() int { return len(s.alive()) }

// AliveOf counts those of one kind.
func (s State) AliveOf(kind fleetscore.NodeKind) int { return len(of(kind, s.alive())) }

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
	Want     int                 // nodes the work asks for, within the bounds
	Start    int                 // dedicated nodes to start
	StartLow int                 // nodes of low priority to start
	Drain    []fleetscore.NodeID // nodes to stop as soon as they hold no lease
	// Interrupt are nodes to stop at once: their leases are taken back.
	Interrupt []fleetscore.NodeID
}

// Split divides a number of nodes into the two kinds, within the bounds of each. Nodes of
// low priority come first, because they cost less: beyond the least number of dedicated
// nodes, dedicated ones are for what is more than the nodes of low priority.
func Split(c fleetscore.ScaleConfig, nodes int) (dedicated, low int) {
	if c.LowPriority != nil {
		low = min(max(nodes-c.Min, c.LowPriority.Min), c.LowPriority.Max)
	}
	return min(max(nodes-low, c.Min), max(c.Max, c.Min)), low
}

// of are the nodes of one kind.
func of(kind fleetscore.NodeKind, nodes []NodeView) (out []NodeView) {
	for _, n := range nodes {
		if (n.Kind == fleetscore.LowPriority) == (kind == fleetscore.LowPriority) {
			out = append(out, n)
		}
	}
	return out
}

// Target decides. The work asks for ceil((queued + leased) / slots) nodes, but at least AtLeast; Split divides
// them. Missing nodes are started at once. Nodes beyond what is asked for are drained once
// they were idle for IdleAfter, the longest idle first; beyond max at once. Nodes that are
// draining or have ended are not counted.
func Target(c fleetscore.ScaleConfig, slots int, s State) (d Decision) {
	slots = max(1, slots)
	want := max(int(min((s.Queued+s.Leased+int64(slots)-1)/int64(slots), 1<<20)), s.AtLeast)
	alive := s.alive()
	dedicated, low := Split(c, want)
	mostLow := 0
	if c.LowPriority != nil {
		mostLow = c.LowPriority.Max
	}
	d.Want = dedicated + low
	d.Start = d.rest(of(fleetscore.Dedicated, alive), dedicated, max(c.Max, c.Min), c.IdleAfter.D(), s.Now)
	d.StartLow = d.rest(of(fleetscore.LowPriority, alive), low, mostLow, c.IdleAfter.D(), s.Now)
	return d
}

// rest drains the nodes of one kind that are too many, once they have rested; it returns
// how many are missing.
func (d *Decision) rest(alive []NodeView, want, most int, idleAfter time.Duration, now time.Time) (missing int) {
	if len(alive) <= want {
		return want - len(alive)
	}
	slices.SortStableFunc(alive, func(a, b NodeView) int {
		if c := cmp.Compare(min(a.Running, 1), min(b.Running, 1)); c != 0 {
			return c
		}
		return a.IdleSince.Compare(b.IdleSince)
	})
	over := len(alive) - most
	for i, n := range alive[:len(alive)-want] {
		rested := n.Running == 0 && n.State.Works() && now.Sub(n.IdleSince) >= idleAfter
		if i < over || rested {
			d.Drain = append(d.Drain, n.ID)
		}
	}
	return 0
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
