package autoscale

import (
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Start is a time at which tasks are expected.
type Start struct {
	At    time.Time
	Tasks int
}

// MostHold is how long after its time a start is waited for, such as for a job whose data
// isn't complete yet.
const MostHold = time.Hour

// Warm is how many nodes there have to be now because of starts that are expected, and
// the next time at which that may change; a zero time means never.
//
// A start counts as soon as it is nearer than nodes take to start. Nodes that are started
// then are ready in time. It is also the break-even of nodes that are idle: to stop one
// and start it again costs the time that it takes to start, so that keeping it costs less
// only if the start is nearer than that.
func Warm(slots int, takes time.Duration, starts []Start, now time.Time) (nodes int, wake time.Time) {
	tasks := 0
	for _, s := range starts {
		from, to := s.At.Add(-takes), s.At.Add(MostHold)
		if !now.Before(from) && now.Before(to) {
			tasks += max(0, s.Tasks)
		}
		for _, t := range []time.Time{from, to} {
			if t.After(now) && (wake.IsZero() || t.Before(wake)) {
				wake = t
			}
		}
	}
	slots = max(1, slots)
	return (tasks + slots - 1) / slots, wake
}

// newestStarts is how many of the newest nodes StartTime looks at.
const newestStarts = 10

// StartTime is how long nodes take from their start until they are ready: the longest time
// of the newest ones, so that all are ready in time. False if no node was ready yet.
func StartTime(nodes []fleetscore.Node) (takes time.Duration, known bool) {
	nodes = slices.DeleteFunc(slices.Clone(nodes), func(n fleetscore.Node) bool { return n.Ready.IsZero() || n.Ready.Before(n.Started) })
	slices.SortFunc(nodes, func(a, b fleetscore.Node) int { return b.Started.Compare(a.Started) })
	for _, n := range nodes[:min(len(nodes), newestStarts)] {
		takes = max(takes, n.Ready.Sub(n.Started))
	}
	return takes, len(nodes) > 0
}
