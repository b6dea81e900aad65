package node

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// machine is the files of a machine with four processors.
func machine(extra map[string]string) fstest.MapFS {
	files := map[string]string{
		"proc/stat":         "cpu  1000 0 500 8000 500 0 0 0 0 0\ncpu0 1 0 0 0 0 0 0 0\ncpu1 1 0 0 0 0 0 0 0\ncpu2 1 0 0 0 0 0 0 0\ncpu3 1 0 0 0 0 0 0 0\nintr 7\n",
		"proc/meminfo":      "MemTotal:  8388608 kB\nMemFree: 1 kB\nMemAvailable:  6291456 kB\n",
		"proc/diskstats":    "   8 0 sda 10 1 200 3 20 1 400 3 0 0 0\n   8 1 sda1 10 1 200 3 20 1 400 3 0 0 0\n   7 0 loop0 9 9 9 9 9 9 9 9 9 9 9\n",
		"proc/net/dev":      "Inter-| Receive\n face |bytes\n    lo: 5 0 0 0 0 0 0 0 5 0 0 0 0 0 0 0\n  eth0: 700 1 0 0 0 0 0 0 300 1 0 0 0 0 0 0\n",
		"sys/block/sda/dev": "8:0",
	}
	for name, text := range extra {
		files[name] = text
	}
	out := fstest.MapFS{}
	for name, text := range files {
		if text != "" {
			out[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	return out
}

// TestMeter: the load is the machine's, or the container's where its processors and memory
// are limited, in both versions of Linux' groups, also by the limit of a group above. What
// can't be measured is named.
func TestMeter(t *testing.T) {
	t.Parallel()
	whole := func(cpus, percent float64, memory, total int64) fleetscore.NodeLoad {
		return fleetscore.NodeLoad{CPUs: cpus, CPUPercent: &percent, MemoryBytes: &memory, MemoryTotalBytes: &total,
			DiskReadBytes: new(int64(200 * 512)), DiskWriteBytes: new(int64(400 * 512)), DiskReadOps: new(int64(10)), DiskWriteOps: new(int64(20)),
			NetworkInBytes: new(int64(700)), NetworkOutBytes: new(int64(300))}
	}
	const gib = int64(1 << 30)
	later := "cpu  1600 0 900 8900 600 0 0 0 0 0\ncpu0 1 0 0 0 0 0 0 0\ncpu1 1 0 0 0 0 0 0 0\ncpu2 1 0 0 0 0 0 0 0\ncpu3 1 0 0 0 0 0 0 0\n"
	v2 := func(usec string) map[string]string {
		return map[string]string{"proc/self/cgroup": "0::/jobs/agent\n", "sys/fs/cgroup/jobs/agent/cpu.max": "max 100000", "sys/fs/cgroup/jobs/cpu.max": "150000 100000",
			"sys/fs/cgroup/jobs/cpu.stat": "usage_usec " + usec + "\nuser_usec 1\n", "sys/fs/cgroup/jobs/agent/memory.max": "2147483648", "sys/fs/cgroup/jobs/agent/memory.current": "1610612736",
			"sys/fs/cgroup/jobs/agent/memory.stat": "anon 5\ninactive_file 536870912\n"}
	}
	v1 := func(nsec string) map[string]string {
		return map[string]string{"proc/self/cgroup": "4:memory:/box\n2:cpuacct:/box\n1:cpu:/box\n0::/\n", "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "50000", "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000",
			"sys/fs/cgroup/cpuacct/box/cpuacct.usage": nsec, "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "1073741824", "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "1073741824",
			"sys/fs/cgroup/memory/box/memory.stat": "total_inactive_file 268435456\n"}
	}
	unlimited := v2("1")
	unlimited["sys/fs/cgroup/jobs/cpu.max"], unlimited["sys/fs/cgroup/jobs/agent/memory.max"] = "max 100000", "max"
	for _, tt := range []struct {
		name          string
		before, after map[string]string
		want          fleetscore.NodeLoad
	}{
		{"machine", nil, map[string]string{"proc/stat": later}, whole(4, 50, 2*gib, 8*gib)}, // 1000 of 2000 ticks
		{"container without limits", unlimited, map[string]string{"proc/stat": later}, whole(4, 50, 2*gib, 8*gib)},
		{"limited container", v2("1000000"), v2("4000000"), whole(1.5, 20, gib, 2*gib)}, // 3 s of 10 s × 1.5
		{"limited container of the first version", v1("1000000000"), v1("2000000000"), whole(0.5, 20, 3*gib/4, gib)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			began := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
			m := &Meter{root: machine(tt.before), folder: t.TempDir(), linux: true}
			var err error
			if m.before, err = m.cpu(began); err != nil {
				t.Fatal(err)
			}
			m.root = machine(tt.after)
			got := m.Measure(began.Add(10 * time.Second))
			if got.DiskTotalBytes == nil || *got.DiskTotalBytes <= 0 || *got.DiskBytes < 0 {
				t.Errorf("disk %v of %v", got.DiskBytes, got.DiskTotalBytes)
			}
			got.DiskBytes, got.DiskTotalBytes = nil, nil
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	broken := &Meter{root: machine(map[string]string{"proc/stat": "", "proc/meminfo": "", "proc/diskstats": ""}), folder: "/no such folder", linux: true}
	if got := broken.Measure(time.Now()); got.CPUPercent != nil || got.MemoryBytes != nil || got.DiskBytes != nil || got.DiskReadOps != nil || *got.NetworkInBytes != 700 ||
		!strings.Contains(got.Missing, "disk space: ") || !strings.Contains(got.Missing, "memory: ") || !strings.Contains(got.Missing, "processors: ") {
		t.Errorf("a machine that tells nothing gives %+v", got)
	}
	other := &Meter{folder: t.TempDir()}
	if got := other.Measure(time.Now()); got.DiskBytes == nil || got.CPUPercent != nil || !strings.Contains(got.Missing, "measured on Linux only") {
		t.Errorf("another system gives %+v", got)
	}
}

// TestHeartbeatsCarryTheLoad: the first heartbeat does, and then not every one, so that
// heartbeats stay small.
func TestHeartbeatsCarryTheLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &oneTask{given: true}
		n, err := New(Config{Hello: dispatch.Hello{Node: "n", Pool: "cpu", Slots: 1}}, Deps{Server: server,
			Measure: func(now time.Time) fleetscore.NodeLoad { return fleetscore.NodeLoad{CPUs: 7} }})
		if err != nil {
			t.Fatal(err)
		}
		life, end := context.WithTimeout(t.Context(), 61*time.Second)
		defer end()
		_ = n.Run(life) // it ends with the time
		loads := 0
		for i, b := range server.beats {
			if b.Load != nil && b.Load.CPUs == 7 {
				loads++
			} else if i == 0 {
				t.Error("the first heartbeat has no load")
			}
		}
		if len(server.beats) != 20 || loads != 5 {
			t.Errorf("%d of %d heartbeats of a minute carry a load; want 5 of 20", loads, len(server.beats))
		}
	})
}
