package alone

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"github.com/fleetscore/fleetscore"
)

// limitMemory lets allocations of this process and its children fail beyond a size, and
// makes them the first that the kernel ends when the machine's memory is used up.
func limitMemory(bytes int64) error {
	if f, err := os.OpenFile("/proc/self/oom_score_adj", os.O_WRONLY, 0); err == nil {
		_, _ = f.WriteString("1000") // a container may not allow it; then the kernel chooses by size
		_ = f.Close()
	}
	if bytes <= 0 {
		return nil
	}
	debug.SetMemoryLimit(bytes / 2) // collect garbage rather than fail
	// RLIMIT_DATA counts memory that can be written, and not the addresses that are only
	// reserved, of which Go programs have many.
	limit := syscall.Rlimit{Cur: uint64(bytes), Max: uint64(bytes)}
	return fleetscore.Wrap("limit memory", "", syscall.Setrlimit(syscall.RLIMIT_DATA, &limit))
}

// MachineMemory is how much memory this process may use at most: the machine's, or what
// its container has; 0 if that isn't known.
func MachineMemory() int64 {
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) != nil {
		return 0
	}
	memory := int64(info.Totalram) * int64(info.Unit)
	if text, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil { // else it is "max"
			memory = min(memory, limit)
		}
	}
	return memory
}
