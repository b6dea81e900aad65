package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore/internal/store"
)

// BenchmarkDirList lists a directory of many files: in one folder, and spread over
// folders of 1,000. FLEETSCORE_BENCH_FILES says how many (100,000).
func BenchmarkDirList(b *testing.B) {
	n := 100_000
	if v, err := strconv.Atoi(os.Getenv("FLEETSCORE_BENCH_FILES")); err == nil {
		n = v
	}
	for _, layout := range []struct {
		name string
		path func(i int) string
	}{
		{"flat", func(i int) string { return fmt.Sprintf("models/model_%07d", i) }},
		{"deep", func(i int) string {
			return fmt.Sprintf("data/d/date=%04d/hour=%02d/f%04d.parquet", i/24000, i/1000%24, i%1000)
		}},
	} {
		dir := b.TempDir()
		for i := range n {
			path := filepath.Join(dir, layout.path(i))
			err := os.WriteFile(path, nil, 0o600)
			if os.IsNotExist(err) {
				if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
					err = os.WriteFile(path, nil, 0o600)
				}
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		d, err := store.OpenDir(dir)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(layout.name, func(b *testing.B) {
			b.ReportAllocs()
			var peak uint64
			begin := cpuSeconds(b)
			for b.Loop() {
				seen := 0
				for _, err := range d.List(b.Context(), "", store.ListOptions{}) {
					if err != nil {
						b.Fatal(err)
					}
					if seen++; seen == n/2 {
						var m runtime.MemStats
						runtime.ReadMemStats(&m)
						peak = max(peak, m.HeapInuse)
					}
				}
				if seen != n {
					b.Fatalf("%d files listed, want %d", seen, n)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
			b.ReportMetric((cpuSeconds(b)-begin)/float64(b.N)/float64(n)*1e6, "cpu-s/Mfile")
			b.ReportMetric(float64(peak)/(1<<20), "MiB-heap")
		})
	}
}

func cpuSeconds(b *testing.B) float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
