package window

import (
	"fmt"
	"testing"

	"github.com/fleetscore/fleetscore"
)

// BenchmarkReadings takes messages of 1,000 readings of 100 keys, and closes the
// finished windows, as the aggregator does.
func BenchmarkReadings(b *testing.B) {
	p := New(config)
	r := &fleetscore.Readings{Columns: []fleetscore.ReadingColumn{{Name: "v", Numbers: make([]float64, 1000)}},
		KeyIndex: make([]uint32, 1000), Times: make([]fleetscore.Micros, 1000)}
	for k := range 100 {
		r.Keys = append(r.Keys, fleetscore.Key(fmt.Sprintf("device-%d", k)))
	}
	now, seq := 1000*second, uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		seq++
		for i := range r.Times {
			now += second / 5000
			r.Times[i], r.KeyIndex[i], r.Columns[0].Numbers[i] = now, uint32(i%100), float64(i%7)
		}
		take(p, seq, now, r)
		if w, _ := p.Watermark(); seq%64 == 0 {
			p.Close(w)
		}
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "readings/s")
}

func take(p *Partition, seq uint64, arrived fleetscore.Micros, r *fleetscore.Readings) {
	p.Readings(Stamp{Seq: seq, Source: fleetscore.SourceHTTP, Arrived: arrived}, r, nil, func(int, Verdict) {})
}
