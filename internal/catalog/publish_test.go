package catalog

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/table"
)

// results writes what the tasks of a job over two sensors would.
func results(t *testing.T, c *Catalog, job fleetscore.JobID, revision int64, from, to int) Results {
	t.Helper()
	at := func(n int) fleetscore.Micros { return 400*quarter + fleetscore.Micros(n)*quarter }
	r := Results{Job: job, Pipeline: "p", Interval: fleetscore.Interval{From: at(from).Time(), To: at(to).Time()}, Revision: revision, Scored: 2}
	var u upload
	var items []fleetscore.Item
	for k := range 2 {
		key := fleetscore.Key(fmt.Sprint("d", k))
		items = append(items, fleetscore.Item{Key: key, Outcome: fleetscore.Scored, Rows: int64(to - from)})
		for n := from + 1; n <= to; n++ {
			u = append(u, upload{{cell{key, at(n)}, float64(revision)}}...)
		}
	}
	rows := u.rows()
	p := &fleetscore.Predictions{Rows: *rows, Prediction: make([]float64, rows.Len()), Score: make([]float64, rows.Len()), Models: make([]fleetscore.Digest, 2)}
	for i := range p.Models {
		p.Models[i] = fleetscore.DigestOf([]byte{byte(i)})
	}
	d, coverage := c.Predictions("p"), c.Coverage("p")
	err := d.Create(t.Context(), PredictionSchema("TS", rows.KeyNames, rows.ValueNames))
	if err == nil {
		err = coverage.Create(t.Context(), ItemSchema(rows.KeyNames))
	}
	if err == nil {
		r.Predictions, err = d.WritePredictions(t.Context(), p, job, revision)
	}
	if err == nil {
		r.Coverage, err = coverage.WriteItems(t.Context(), items, rows.KeyNames, job, r.Interval)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// visible are the predictions that readers see, with their features' value.
func visible(t *testing.T, b store.Bucket) map[cell]float64 {
	t.Helper()
	d := New(b).Predictions("p")
	snap, err := d.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.ReadPredictions(t.Context(), snap.Files, table.ReadQuery{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[cell]float64{}
	for i, x := range p.Times {
		at := cell{p.Keys[p.KeyIndex[i]], x}
		if _, twice := out[at]; twice {
			t.Errorf("%v is there twice", at)
		}
		out[at] = p.Values[0][i]
	}
	return out
}

// TestPublishKilled publishes a job that scores a part of an earlier one's interval
// anew, ended at each operation on the store in turn, and publishes it again: one row
// per key and time is visible, and one item per key of each job.
func TestPublishKilled(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"put", "put done", "get", "list"} {
		for nth, struck := 1, true; struck; nth++ {
			b := openTemp(t)
			c := New(b)
			first, second := results(t, c, "first", 1, 0, 7), results(t, c, "second", 2, 3, 9)
			if err := c.Publish(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			struck = false
			faulty := storetest.Crash(b, op, nth, &struck)
			_ = New(faulty).Publish(t.Context(), second) // whether it was done shows in the tables
			if got := len(visible(t, b)); got != 2*7 && got != 2*9 {
				t.Errorf("%s %d: %d rows are visible", op, nth, got)
			}
			if err := New(b).Publish(t.Context(), second); err != nil {
				t.Fatalf("%s %d, again: %v", op, nth, err)
			}
			got := visible(t, b)
			for at, v := range got {
				if want := at.time > 403*quarter; (v == 2) != want {
					t.Errorf("%s %d: %v is of job %v", op, nth, at, v)
				}
			}
			items, err := New(b).Coverage("p").JobItems(t.Context(), "second", second.Interval)
			if len(got) != 2*9 || err != nil || len(items) != 2 {
				t.Errorf("%s %d: %d rows, %d items, %v", op, nth, len(got), len(items), err)
			}
		}
	}
}

// TestPublishHeldUp: a job that was made before another and is published after it
// adds what only it has, and changes nothing that the later one scored.
func TestPublishHeldUp(t *testing.T) {
	t.Parallel()
	b := openTemp(t)
	c := New(b)
	old, late := results(t, c, "old", 1, 0, 7), results(t, c, "late", 2, 3, 9)
	for _, r := range []Results{late, old} {
		if err := c.Publish(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	got := visible(t, b)
	for at, v := range got {
		if want := at.time > 403*quarter; (v == 2) != want {
			t.Errorf("%s: row of revision %v", at.time.Time().Format(time.TimeOnly), v)
		}
	}
	if len(got) != 2*9 {
		t.Errorf("%d rows, want 18", len(got))
	}
}

// TestPublishKept: a sensor that keeps the results of an earlier job loses predictions of a job that is older still, and was published after that
// one. A sensor whose rows have vanished loses all; predictions of a newer job stay.
func TestPublishKept(t *testing.T) {
	t.Parallel()
	b := openTemp(t)
	c := New(b)
	late := results(t, c, "late", 3, 0, 9)
	late.Predictions, late.Scored, late.Vanished = nil, 0, true
	items := []fleetscore.Item{{Key: "d0", Outcome: fleetscore.Scored, Kept: "right", Rows: 5}, {Key: "d1", Outcome: fleetscore.NoData}}
	var err error
	if late.Coverage, err = c.Coverage("p").WriteItems(t.Context(), items, []string{"Device"}, late.Job, late.Interval); err != nil {
		t.Fatal(err)
	}
	for _, r := range []Results{results(t, c, "right", 2, 0, 5), results(t, c, "old", 1, 3, 8), results(t, c, "newer", 4, 8, 9), late} {
		if err := c.Publish(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	want := map[cell]float64{{"d1", 409 * quarter}: 4, {"d0", 409 * quarter}: 4}
	for n := range fleetscore.Micros(5) {
		want[cell{"d0", (401 + n) * quarter}] = 2
	}
	if d := cmp.Diff(want, visible(t, b), cmp.AllowUnexported(cell{})); d != "" {
		t.Errorf("predictions (-want +got):\n%s", d)
	}
}
