package simtest

import (
	"cmp"
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// uploader uploads rows to the dataset, as a process of its own.
type uploader struct {
	w       *world
	by      *process
	rnd     *rand.Rand
	catalog *catalog.Catalog
}

func (w *world) newUploader(name string) *uploader {
	p := newProcess(name)
	return &uploader{w, p, rand.New(rand.NewPCG(w.rnd.Uint64(), 3)), catalog.New(&blobs{w: w, by: p})}
}

// rowsOf are the rows with some values, in order.
func rowsOf(values map[cell]float64) *fleetscore.Rows {
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, ValueNames: []string{"Value"}, Values: make([][]float64, 1)}
	for _, c := range sortedCells(values) {
		rows.KeyIndex, rows.Keys = append(rows.KeyIndex, uint32(len(rows.Keys))), append(rows.Keys, c.key)
		rows.Times, rows.Values[0] = append(rows.Times, c.at), append(rows.Values[0], values[c])
	}
	return rows
}

// until uploads rows, as often as it takes.
func (u *uploader) until(ctx context.Context, values map[cell]float64, fresh bool) bool {
	rows := rowsOf(values)
	u.w.record.trying(values)
	for tries := 0; ctx.Err() == nil; tries++ {
		done, err := u.catalog.Upload(ctx, dataset, rows, nil)
		if err == nil {
			if fresh && tries == 0 && done.Added != int64(rows.Len()) {
				u.w.record.problem("an upload of %d new rows says that it added %d, replaced %d and found %d", rows.Len(), done.Added, done.Replaced, done.Same)
			}
			u.w.record.uploaded(done.Version, values)
			u.w.ledger.Put(ledger.DatasetTopic(dataset))
			return true
		}
		u.w.log.Info("upload fails", "error", err)
		time.Sleep(time.Second + time.Duration(u.rnd.Int64N(int64(time.Second))))
	}
	return false
}

// more tells whether readings of a minute are still uploaded.
func (w *world) more(at time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lastMinute.IsZero() || !at.After(w.lastMinute)
}

// feed uploads readings, a minute after the other.
func (w *world) feed(ctx context.Context) {
	u := w.newUploader("feeder")
	defer u.by.end()
	var last map[cell]float64
	for at := w.began.Truncate(time.Minute); w.more(at); at = at.Add(time.Minute) {
		time.Sleep(time.Until(at.Add(time.Duration(u.rnd.Int64N(int64(20 * time.Second))))))
		values := map[cell]float64{}
		for _, d := range w.devices {
			if u.rnd.IntN(10) == 0 && len(values) > 0 {
				continue // it is silent
			}
			values[cell{d, fleetscore.MicrosOf(at)}] = []float64{20, 0}[u.rnd.IntN(2)]
		}
		if last != nil && w.resend.Swap(false) { // as by somebody who heard no answer
			_, _ = u.catalog.Upload(ctx, dataset, rowsOf(last), nil)
		}
		if !u.until(ctx, values, true) {
			return
		}
		last = values
	}
}

// revise uploads other values for rows that were uploaded some minutes ago, now and
// then, while the feeder uploads too.
func (w *world) revise(ctx context.Context) {
	u := w.newUploader("reviser")
	defer u.by.end()
	for at := w.began.Truncate(time.Minute); w.more(at); at = at.Add(time.Minute) {
		time.Sleep(time.Until(at.Add(time.Duration(u.rnd.Int64N(int64(20 * time.Second))))))
		have := w.record.rows(math.MaxInt64)
		last := fleetscore.Micros(0) // the feeder may upload these once more
		for c := range have {
			last = max(last, c.at)
		}
		values := map[cell]float64{}
		for _, c := range sortedCells(have) {
			if c.at < last && u.rnd.IntN(2*len(w.devices)) == 0 {
				values[c] = 20 - have[c]
			}
		}
		if len(values) > 0 && !u.until(ctx, values, false) {
			return
		}
	}
}

func sortedCells(values map[cell]float64) []cell {
	out := make([]cell, 0, len(values))
	for c := range values {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b cell) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.key, b.key)) })
	return out
}
