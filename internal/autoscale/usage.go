package autoscale

import (
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
)

// Usage is how much a pool was used in a time, beside a pool that always has as many
// nodes as this one had at most.
type Usage struct {
	From       time.Time `json:"from" doc:"the first sample"`
	To         time.Time `json:"to" doc:"the last sample"`
	Hours      float64   `json:"hours" doc:"of this time, how long a server took samples"`
	NodeHours  float64   `json:"node_hours"`
	LowHours   float64   `json:"low_priority_node_hours" doc:"of these, how many were of nodes of low priority"`
	MostNodes  int64     `json:"most_nodes" doc:"at once"`
	AlwaysOn   float64   `json:"always_on_node_hours" doc:"node-hours of a pool that always has the most nodes"`
	Cost       *float64  `json:"cost,omitempty" doc:"of the node-hours; absent without scale.cost_per_hour"`
	SavedHours float64   `json:"saved_node_hours" doc:"compared with the pool that is always on"`
	SavedCost  *float64  `json:"saved_cost,omitempty" doc:"the same in money"`
}

// longestGap is the longest time that a sample stands for: while no server ran, nothing is
// known.
const longestGap = 3 * formula.SamplePeriod

// Used sums up samples, which are in the order of time. A sample stands for the time until
// the next one. A cost of 0 means that it isn't known. The pool that is always on has
// dedicated nodes.
func Used(samples []Sample, c fleetscore.ScaleConfig) (u Usage) {
	for i, s := range samples {
		nodes := s.Values["$CurrentDedicatedNodes"] + s.Values["$CurrentLowPriorityNodes"]
		u.MostNodes = max(u.MostNodes, int64(nodes))
		if i == 0 {
			u.From = s.At
		}
		u.To = s.At
		if i+1 == len(samples) {
			break
		}
		if gap := samples[i+1].At.Sub(s.At); gap <= longestGap {
			u.Hours += gap.Hours()
			u.NodeHours += nodes * gap.Hours()
			if c.LowPriority != nil {
				u.LowHours += s.Values["$CurrentLowPriorityNodes"] * gap.Hours()
			}
		}
	}
	u.AlwaysOn = float64(u.MostNodes) * u.Hours
	u.SavedHours = u.AlwaysOn - u.NodeHours
	if cost, known := Cost(c, u.NodeHours-u.LowHours, u.LowHours); known {
		saved := u.AlwaysOn*c.CostPerHour - cost
		u.Cost, u.SavedCost = &cost, &saved
	}
	return u
}

// Cost is the price of hours of dedicated nodes and of nodes of low priority; false if the
// price of either kind isn't known.
func Cost(c fleetscore.ScaleConfig, dedicated, low float64) (cost float64, known bool) {
	if c.LowPriority == nil {
		return (dedicated + low) * c.CostPerHour, c.CostPerHour > 0
	}
	return dedicated*c.CostPerHour + low*c.LowPriority.CostPerHour, c.CostPerHour > 0 && c.LowPriority.CostPerHour > 0
}

// TaskHours is the node-hours of tasks that have ended, and how many of these were of nodes
// of low priority: the time of each from its first try to its end, divided by the slots of a
// node. A task counts by its last node.
func TaskHours(tasks []fleetscore.Task, slots int) (all, low float64) {
	for _, t := range tasks {
		if t.Started == nil || t.Ended == nil {
			continue
		}
		hours := t.Ended.Sub(*t.Started).Hours() / float64(max(1, slots))
		all += hours
		if t.NodeKind == fleetscore.LowPriority {
			low += hours
		}
	}
	return all, low
}
