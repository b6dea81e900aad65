package autoscale

import (
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
)

// levels are the variables of the service that are the mean of what the nodes measured.
var levels = map[string]func(*fleetscore.NodeLoad) (float64, bool){
	"$CPUPercent": func(l *fleetscore.NodeLoad) (float64, bool) {
		if l.CPUPercent == nil {
			return 0, false
		}
		return *l.CPUPercent, true
	},
	"$MemoryBytes": whole(func(l *fleetscore.NodeLoad) *int64 { return l.MemoryBytes }),
	"$DiskBytes":   whole(func(l *fleetscore.NodeLoad) *int64 { return l.DiskBytes }),
}

// flows are the variables of the service that are the sum, over the nodes, of how much a
// counter grew since the sample before.
var flows = map[string]func(*fleetscore.NodeLoad) (float64, bool){
	"$DiskReadBytes":   whole(func(l *fleetscore.NodeLoad) *int64 { return l.DiskReadBytes }),
	"$DiskWriteBytes":  whole(func(l *fleetscore.NodeLoad) *int64 { return l.DiskWriteBytes }),
	"$DiskReadOps":     whole(func(l *fleetscore.NodeLoad) *int64 { return l.DiskReadOps }),
	"$DiskWriteOps":    whole(func(l *fleetscore.NodeLoad) *int64 { return l.DiskWriteOps }),
	"$NetworkInBytes":  whole(func(l *fleetscore.NodeLoad) *int64 { return l.NetworkInBytes }),
	"$NetworkOutBytes": whole(func(l *fleetscore.NodeLoad) *int64 { return l.NetworkOutBytes }),
	"$WallClockSeconds": func(l *fleetscore.NodeLoad) (float64, bool) {
		return float64(l.At.UnixMilli()) / 1000, !l.At.IsZero()
	},
}

func whole(of func(*fleetscore.NodeLoad) *int64) func(*fleetscore.NodeLoad) (float64, bool) {
	return func(l *fleetscore.NodeLoad) (float64, bool) {
		if v := of(l); v != nil {
			return float64(*v), true
		}
		return 0, false
	}
}

// freshLoad is how old what a node measured may be to count.
const freshLoad = time.Minute

// Measure is the metrics of a pool as formulas see them. In a pool with nodes of one kind,
// those beyond the target of dedicated nodes count as nodes of low priority, up to that
// target. Preempted are nodes that were taken away and aren't replaced yet. What no node has
// measured has no value, so that there is no sample of it.
func Measure(slots int, s State, targets map[string]int64) Sample {
	var current, usable, ofLow, taken int64
	for _, n := range s.Nodes {
		if n.Preempted {
			taken++
		}
		if n.Kind == fleetscore.LowPriority && !n.State.Ended() {
			ofLow++
		}
		switch {
		case n.State.Works():
			usable++
			current++
		case n.State.Coming(), n.State == fleetscore.NodeDraining:
			current++
		}
	}
	low := min(max(0, current-targets[formula.Dedicated]), targets[formula.LowPriority])
	if s.Kinds {
		low = ofLow
	}
	values := map[string]float64{
		"$ActiveTasks": float64(s.Queued), "$RunningTasks": float64(s.Leased), "$PendingTasks": float64(s.Queued + s.Leased),
		"$SucceededTasks": float64(s.Succeeded), "$FailedTasks": float64(s.Failed),
		"$CurrentDedicatedNodes": float64(current - low), "$CurrentLowPriorityNodes": float64(low), "$PreemptedNodeCount": float64(min(taken, max(0, targets[formula.LowPriority]-low))),
		"$UsableNodeCount": float64(usable), "$SampleNodeCount": float64(usable), "$TaskSlotsPerNode": float64(max(1, slots)),
	}
	var loads []NodeView
	for _, n := range s.Nodes {
		if n.State.Speaks() && n.Load != nil && s.Now.Sub(n.Load.At) <= freshLoad {
			loads = append(loads, n)
		}
	}
	for name, of := range levels {
		sum, known := 0.0, 0
		for _, n := range loads {
			if v, ok := of(n.Load); ok {
				sum += v
				known++
			}
		}
		if known > 0 {
			values[name] = sum / float64(known)
		}
	}
	for name, of := range flows {
		for _, n := range loads {
			if n.Before == nil {
				continue
			}
			now, ok := of(n.Load)
			before, had := of(n.Before)
			if ok && had && now >= before { // a counter that fell began anew
				values[name] += now - before
			}
		}
	}
	return Sample{At: s.Now.UTC(), Values: values}
}
