package autoscale

import "github.com/fleetscore/fleetscore"

// Busy is what a task keeps busy of its node, as the nodes reported it.
type Busy struct {
	CPUs        float64 `json:"cpus,omitempty" doc:"processors that a task keeps busy, with what else runs on the node; absent if it wasn't measured"`
	MemoryBytes int64   `json:"memory_bytes,omitempty" doc:"the most memory of a node that was in use, divided by its slots; absent if it wasn't measured"`
	Samples     int     `json:"samples" doc:"of times in which tasks ran"`
}

// BusyOf is what tasks keep busy: processors by the samples of times in which tasks ran, and
// memory by the highest sample. How many processors a node has is known from the nodes that
// are listed.
func BusyOf(samples []Sample, nodes []fleetscore.Node, slots int) (b Busy) {
	cpus, known := 0.0, 0
	for _, n := range nodes {
		if n.Load != nil && n.Load.CPUs > 0 {
			cpus += n.Load.CPUs
			known++
		}
	}
	used, tasks, memory := 0.0, 0.0, 0.0
	for _, s := range samples {
		if m, ok := s.Values["$MemoryBytes"]; ok {
			memory = max(memory, m)
		}
		per, ok := s.Values["$CPUPercent"]
		if running := s.Values["$RunningTasks"]; ok && known > 0 && running > 0 {
			used += per / 100 * cpus / float64(known) * s.Values["$UsableNodeCount"]
			tasks += running
			b.Samples++
		}
	}
	if tasks > 0 {
		b.CPUs = used / tasks
	}
	b.MemoryBytes = int64(memory) / int64(max(1, slots))
	return b
}
