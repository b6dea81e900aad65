package natshub_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/hub/natshub"
	"github.com/fleetscore/fleetscore/internal/testkit/natstest"
)

// BenchmarkAppend appends messages of about 29 KB and 230 KB to the log in a folder, to
// one NATS server and to a cluster of three, from one writer and from four on as many
// partitions. cpu-ms/MB is what this process spends; servers-cpu-ms/MB is what the NATS servers
// spend besides.
func BenchmarkAppend(b *testing.B) {
	one := natstest.Start(b, natstest.Options{})
	three := natstest.StartCluster(b, 3)
	engines := []struct {
		name string
		open func(name string, partitions int) (hub.Hub, error)
		pids []int
	}{
		{"folder", func(_ string, n int) (hub.Hub, error) {
			return hub.Open(b.Context(), hub.Config{Dir: b.TempDir(), Partitions: n}, hub.Deps{})
		}, nil},
		{"nats", func(name string, n int) (hub.Hub, error) {
			return natshub.Open(b.Context(), natshub.Config{URL: one.URL(), Name: name, Partitions: n, Replicas: 1}, hub.Deps{})
		}, []int{one.PID()}},
		{"cluster", func(name string, n int) (hub.Hub, error) {
			return natshub.Open(b.Context(), natshub.Config{URL: three.URL(), Name: name, Partitions: n}, hub.Deps{})
		}, []int{three[0].PID(), three[1].PID(), three[2].PID()}},
	}
	for _, e := range engines {
		for _, size := range []int{3000, 24000} {
			for _, partitions := range []int{1, 4} {
				b.Run(fmt.Sprintf("%s/readings=%d/partitions=%d", e.name, size, partitions), func(b *testing.B) {
					h, err := e.open(fmt.Sprintf("bench%d", names.Add(1)), partitions)
					if err != nil {
						b.Fatal(err)
					}
					defer h.Close()
					appendAll(b, h, size, e.pids)
				})
			}
		}
	}
}

// appendAll appends b.N messages, one at a time in each partition.
func appendAll(b *testing.B, h hub.Hub, size int, pids []int) {
	batch := hubtest.Batch(1, size)
	bytes := float64(len(hub.Encode(nil, hubtest.At(1), batch)))
	ours, theirs := ownCPU(b), cpuOf(b, pids)
	b.ResetTimer()
	var wg sync.WaitGroup
	for p := range h.Partitions() {
		wg.Go(func() {
			for i := p; i < b.N; i += h.Partitions() {
				if _, err := h.Append(b.Context(), p, hubtest.At(1), batch); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	mb := bytes * float64(b.N) / 1e6
	b.ReportMetric(mb/b.Elapsed().Seconds(), "MB/s")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	b.ReportMetric(float64((ownCPU(b)-ours).Microseconds())/1e3/mb, "cpu-ms/MB")
	if len(pids) > 0 {
		b.ReportMetric(float64((cpuOf(b, pids)-theirs).Microseconds())/1e3/mb, "servers-cpu-ms/MB")
	}
}

func ownCPU(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuOf is what processes have spent.
func cpuOf(b *testing.B, pids []int) (sum time.Duration) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			b.Fatal(err)
		}
		var user, system int64 // in hundredths of a second
		_, after, _ := strings.Cut(string(text), ") ")
		if _, err := fmt.Sscanf(strings.Join(strings.Fields(after)[11:13], " "), "%d %d", &user, &system); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(user+system) * 10 * time.Millisecond
	}
	return sum
}
