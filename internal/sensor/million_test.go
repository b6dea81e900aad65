package sensor

import (
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/fleetscore/fleetscore"
)

// million is a state of a million sensors, and the rows of a commit with one row of each, stamped a number of seconds after noon.
func million(b *testing.B) (*state, func(at int) *fleetscore.Rows) {
	const n = 1_000_000
	keys, index := make([]fleetscore.Key, n), make([]uint32, n)
	for i := range n {
		keys[i], index[i] = fleetscore.Key(fmt.Sprintf("device-%06d%s%d", i*7919%n, fleetscore.KeySeparator, i%10)), uint32(i)
	}
	rows := func(at int) *fleetscore.Rows {
		r := &fleetscore.Rows{Keys: keys, KeyIndex: index, Times: make([]fleetscore.Micros, n), Values: [][]float64{make([]float64, n)}}
		for i := range n {
			r.Times[i], r.Values[0][i] = noon+fleetscore.Micros(at)*second, float64(i%100)
		}
		return r
	}
	s := newState()
	s.columns = []string{"Value"}
	s.take(rows(0), true, nil, &sync.Mutex{})
	s.arrange(&sync.Mutex{})
	s.until = noon
	return s, rows
}

// cpu measures the processor time of the rest of a benchmark, because other programs may use the machine too.
func cpu(b *testing.B) (report func()) {
	used := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	begun := used()
	return func() { b.ReportMetric(float64(used()-begun)/1e6/float64(b.N), "cpu-ms/op") }
}

// BenchmarkMillion measures what a server does with a million sensors: docs/health.md has the figures.
func BenchmarkMillion(b *testing.B) {
	s, rows := million(b)
	w := &Watch{states: map[string]*state{"readings": s}}
	at := 0
	b.Run("commit", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			at++
			b.StopTimer()
			r := rows(at)
			b.StartTimer()
			s.take(r, true, nil, &w.mu)
		}
	})
	s.until = noon + fleetscore.Micros(at)*second + 1200*second
	for name, q := range map[string]Query{"first-page": {Limit: 100}, "silent": {Silent: SilentAfter, Limit: 100}, "none-silent": {Silent: 24 * FlatAfter, Limit: 100},
		"one": {Key: "device-000007" + fleetscore.KeySeparator + "3", Limit: 100}} {
		b.Run(name, func(b *testing.B) {
			defer cpu(b)()
			for b.Loop() {
				w.List(q)
			}
		})
	}
	b.Run("pages", func(b *testing.B) { // of 10,000, as sensor list --limit 0 asks for
		defer cpu(b)()
		for b.Loop() {
			for after := ""; ; {
				_, next, _ := w.List(Query{Limit: 10_000, After: after})
				if after = next; next == "" {
					break
				}
			}
		}
	})
	b.Run("counts", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			w.Counts()
		}
	})
	b.Run("write", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			if _, err := s.encode(); err != nil {
				b.Fatal(err)
			}
		}
	})
	file, err := s.encode()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("read", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			if _, err := decode(file); err != nil {
				b.Fatal(err)
			}
		}
	})
}
