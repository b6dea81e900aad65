package table

import (
	"context"
	"fmt"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/durable/durabletest"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestPowerCut cuts the power after each step of a series of commits, some of
// which write checkpoints and cut the log. The table opens again, holds every row
// that was committed, and takes further rows.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var j *durabletest.Journal
	b, err := store.OpenDirOn(dir, func(d durable.Disk) durable.Disk {
		j = durabletest.Record(dir, d)
		return j
	})
	if err != nil {
		t.Fatal(err)
	}
	upsert := func(d *Delta, n int) error {
		p := testkit.Predictions([]fleetscore.Key{"a"}, []fleetscore.Micros{fleetscore.Micros(n/2) * 3600e6 / 2, fleetscore.Micros(n) * 1e6}, float64(n))
		_, err := d.Upsert(context.Background(), &p.Rows, func(*Snapshot) (Commit, error) {
			return Commit{Operation: "MERGE", Txns: map[string]int64{"n": int64(n)}}, nil
		})
		return err
	}
	open := func(b store.Bucket) *Delta {
		d := OpenDelta(b)
		d.inline, d.keep = 3, 0
		return d
	}
	schema := DatasetSchema("TS", []string{"Device"}, []string{"Val"})
	d := open(b)
	if err := d.Create(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	var ends []int // steps taken when each commit was acknowledged
	for n := range 7 {
		if err := upsert(d, n); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, j.Len())
	}
	for left := range j.Cuts(t) {
		committed := left.Acknowledged(ends)
		b, err := store.OpenDir(left.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(t.Context(), open(b), committed-1, schema, upsert); err != nil {
			t.Errorf("%s of %d, %d commits acknowledged: %v", left, j.Len(), committed, err)
		}
	}
}

// check looks whether a table holds what the first commits wrote, and can be
// written.
func check(ctx context.Context, d *Delta, committed int, schema TableSchema, upsert func(*Delta, int) error) error {
	snap, err := d.Snapshot(ctx)
	if fleetscore.NotFound.Is(err) && committed < 0 {
		err = d.Create(ctx, schema)
		if err == nil {
			snap, err = d.Snapshot(ctx)
		}
	}
	if err != nil {
		return err
	}
	last := -1
	if n, ok := snap.Txns["n"]; ok {
		last = int(n)
	}
	if last != committed && last != committed+1 {
		return fmt.Errorf("commit %d is the last", last)
	}
	if last >= 0 {
		rows, err := d.ReadRows(ctx, snap.Files, ReadQuery{})
		if err != nil {
			return err
		}
		seen := map[fleetscore.Micros]bool{}
		for _, x := range rows.Times {
			seen[x] = true
		}
		for n := range last + 1 {
			if !seen[fleetscore.Micros(n)*1e6] {
				return fmt.Errorf("the row of commit %d is lost", n)
			}
		}
	}
	return upsert(d, last+1)
}
