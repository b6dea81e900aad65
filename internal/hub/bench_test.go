package hub_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
)

// BenchmarkAppend appends synced messages of about 64 KB and of about 512 KB, from
// one writer and from four on as many partitions.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{3000, 24000} {
		for _, partitions := range []int{1, 4} {
			b.Run(fmt.Sprintf("readings=%d/partitions=%d", size, partitions), func(b *testing.B) {
				h := openBench(b, b.TempDir(), partitions)
				defer h.Close()
				batch := hubtest.Batch(1, size)
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				for p := range partitions {
					wg.Go(func() {
						for i := 0; i < b.N; i += partitions {
							if _, err := h.Append(b.Context(), p, hubtest.At(1), batch); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			})
		}
	}
}

// BenchmarkRead reads a log of messages of about 64 KB.
func BenchmarkRead(b *testing.B) {
	h := openBench(b, b.TempDir(), 1)
	defer h.Close()
	batch := hubtest.Batch(1, 3000)
	const n = 100
	for range n {
		if _, err := h.Append(b.Context(), 0, hubtest.At(1), batch); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := hubtest.ReadN(b.Context(), h, 0, 0, n); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n/3000, "ns/reading")
}
