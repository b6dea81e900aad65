package table

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
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

// BenchmarkDelta writes and reads rows as tasks do, on one core.
func BenchmarkDelta(b *testing.B) {
	bucket, err := store.OpenDir(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	d := OpenDelta(bucket)
	p := ticks(20000, 60)
	p.Models = make([]fleetscore.Digest, len(p.Keys))
	for i := range p.Models {
		p.Models[i] = fleetscore.DigestOf([]byte(p.Keys[i]))
	}
	if err := d.Create(b.Context(), DatasetSchema(p.TimeName, p.KeyNames, p.ValueNames)); err != nil {
		b.Fatal(err)
	}
	var files []fleetscore.DataFile
	perRow := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(p.Len()), "ns/row")
	}
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			if files, err = d.WriteRows(b.Context(), &p.Rows, "job"); err != nil {
				b.Fatal(err)
			}
		}
		perRow(b)
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := d.ReadRows(b.Context(), files, ReadQuery{Values: []string{"Val"}}); err != nil {
				b.Fatal(err)
			}
		}
		perRow(b)
	})
}

// BenchmarkOpen opens a table with a file for each hour of a year, and a day's small
// files that were joined.
func BenchmarkOpen(b *testing.B) {
	bucket, err := store.OpenDir(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer bucket.Close()
	d := OpenDelta(bucket)
	if err := d.Create(b.Context(), DatasetSchema("TS", []string{"Device", "Tag"}, []string{"Val"})); err != nil {
		b.Fatal(err)
	}
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := Commit{Operation: "WRITE", Txns: map[string]int64{}}
	const hours = 365 * 24
	for h := range hours {
		at := begin.Add(time.Duration(h) * time.Hour)
		f := fleetscore.DataFile{Date: at.Format(time.DateOnly), Hour: at.Hour(), Rows: 60_000, SizeBytes: 500_000, First: fleetscore.MicrosOf(at.Add(time.Minute)), Last: fleetscore.MicrosOf(at.Add(time.Hour)), Shards: fleetscore.AllShards}
		f.Path = fmt.Sprintf("date=%s/hour=%02d/s000-255-%013x.parquet", f.Date, f.Hour, h)
		c.Add = append(c.Add, f)
	}
	for n := range 3 * 24 * 60 {
		c.Txns[fmt.Sprintf("job/p-20261123T1000Z-%06d", n)] = 1
	}
	if _, err := d.Commit(b.Context(), c); err != nil {
		b.Fatal(err)
	}
	for n := range 24_000 {
		d.gone[fmt.Sprintf("date=2026-11-23/hour=%02d/p-20261123T1000Z-%06d-s000-015-abcdefghij.parquet", n/1000, n)] = time.Now().UnixMilli()
	}
	if err := d.writeCheckpoint(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		snap, err := OpenDelta(bucket).Snapshot(b.Context())
		if err != nil || len(snap.Files) != hours {
			b.Fatal(snap, err)
		}
	}
}
