package aggregator

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/store"
)

// BenchmarkGroups measures the processor time of a million readings of 1,000 sensors in four partitions, with an average over five
// seconds: by sensor in the simple form; by sensor in the order of time; and by a value, of all partitions as one log.
func BenchmarkGroups(b *testing.B) {
	const partitions, sensors, seconds = 4, 1000, 250
	h := hubtest.New(partitions)
	readings := 0
	for s := range seconds {
		for p, r := range make([]fleetscore.Readings, partitions) {
			r.Columns = []fleetscore.ReadingColumn{{Name: "Value"}, {Name: "Room"}}
			for k := range sensors / partitions {
				r.Keys = append(r.Keys, fleetscore.Key(fmt.Sprintf("d%d-%d", p, k)))
				for i := range 4 {
					r.KeyIndex = append(r.KeyIndex, uint32(k))
					r.Times = append(r.Times, 100*minute+fleetscore.Micros(s)*second+fleetscore.Micros(i)*second/4)
					r.Columns[0].Numbers = append(r.Columns[0].Numbers, float64(k+i)/3)
					r.Columns[1].Strings = append(r.Columns[1].Strings, fmt.Sprintf("room%d", k%20))
				}
			}
			readings += r.Len()
			if _, err := h.Append(b.Context(), p, hub.Stamp{Source: "http", Arrived: 100*minute + fleetscore.Micros(s+1)*second}, &r); err != nil {
				b.Fatal(err)
			}
		}
	}
	last := 100*minute + (seconds+60)*second
	for p := range partitions {
		for i := range fleetscore.Micros(2) { // the last message of a partition waits for others
			if _, err := h.Append(b.Context(), p, hub.Stamp{Source: "http", Arrived: last + i}, nil); err != nil {
				b.Fatal(err)
			}
		}
	}
	const sql = "SELECT System.Timestamp() AS TS, Device, AVG(Value) AS Value INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, TumblingWindow(second, 5)"
	for name, text := range map[string]string{"sensor, simple": sql, "sensor, in order": strings.Replace(sql, "AVG(Value)", "1 * AVG(Value)", 1), "room": strings.ReplaceAll(sql, "Device", "Room")} {
		b.Run(name, func(b *testing.B) {
			if plans, err := query.Parse(text, config.Hub.Key); err != nil || (plans[0].General == nil) != strings.Contains(name, "simple") {
				b.Fatal(err)
			}
			for b.Loop() {
				dir, err := store.OpenDir(b.TempDir())
				if err != nil {
					b.Fatal(err)
				}
				c := config
				c.Query.SQL = text
				before := processorTime(b)
				done := make(chan struct{}, 100)
				a, err := New(c, Deps{Hub: h, Catalog: catalog.New(dir), Committed: func(string) { done <- struct{}{} }})
				if err != nil {
					b.Fatal(err)
				}
				ended := make(chan error, 1)
				ctx, cancel := context.WithCancel(b.Context())
				go func() { ended <- a.run(ctx) }()
				for complete := false; !complete; {
					select {
					case err := <-ended:
						b.Fatal(err)
					case <-done:
					case <-time.After(100 * time.Millisecond): // the status follows the commit
					}
					complete = true
					for _, p := range a.Status().Partitions {
						complete = complete && p.CompleteUntil >= 100*minute+seconds*second
					}
				}
				cancel()
				<-ended
				b.ReportMetric((processorTime(b)-before).Seconds()/float64(readings)*1e6, "cpu-s/million")
			}
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
