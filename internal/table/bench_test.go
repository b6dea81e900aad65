package table

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/fleetscore/fleetscore"
)

// ticks makes predictions of sensors that report one after another, tick after
// tick.
func ticks(sensors, n int) *fleetscore.Predictions {
	r := rand.New(rand.NewPCG(1, 2))
	p := &fleetscore.Predictions{Rows: fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device", "Tag"}, ValueNames: []string{"Val"}, Values: make([][]float64, 1)}}
	for k := range sensors {
		p.Keys = append(p.Keys, fleetscore.Key(fmt.Sprintf("%d\x1f%d", k/5, k%5)))
	}
	for t := range n {
		for k := range sensors {
			p.Times = append(p.Times, fleetscore.Micros(1e15+t*1e6))
			p.KeyIndex = append(p.KeyIndex, uint32(k))
			p.Values[0] = append(p.Values[0], float64(int(r.NormFloat64()*1500+5000))/100)
			p.Prediction = append(p.Prediction, float64(k%2))
			p.Score = append(p.Score, (r.Float64()-0.5)*0.02)
		}
	}
	return p
}

// BenchmarkWriteCSV writes on one core; the metric is what a row costs.
func BenchmarkWriteCSV(b *testing.B) {
	p := ticks(10000, 60)
	for b.Loop() {
		if err := WriteCSV(io.Discard, p, WriteOptions{Layout: RFC3339, Workers: 1}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(p.Len()), "ns/row")
}
