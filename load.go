package fleetscore

import (
	"fmt"
	"strings"
)

// String is the load in a few words for people, such as "CPU 34 % of 4, memory 1.2 of
// 7.8 GiB, disk 20 of 95 GiB".
func (l *NodeLoad) String() string {
	if l == nil {
		return "not measured yet"
	}
	var parts []string
	if l.CPUPercent != nil {
		parts = append(parts, fmt.Sprintf("CPU %.0f %% of %.3g", *l.CPUPercent, l.CPUs))
	}
	for _, p := range []struct {
		name        string
		used, total *int64
	}{{"memory", l.MemoryBytes, l.MemoryTotalBytes}, {"disk", l.DiskBytes, l.DiskTotalBytes}} {
		if p.used != nil && p.total != nil {
			parts = append(parts, fmt.Sprintf("%s %.3g of %.3g GiB", p.name, gib(*p.used), gib(*p.total)))
		}
	}
	if l.Missing != "" {
		parts = append(parts, "not measured: "+l.Missing)
	}
	return strings.Join(parts, ", ")
}

func gib(bytes int64) float64 { return float64(bytes) / (1 << 30) }
