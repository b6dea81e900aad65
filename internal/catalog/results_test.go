package catalog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

func commitOf(job fleetscore.JobID, iv fleetscore.Interval, revision int64, scored func(fleetscore.Key) bool, files []fleetscore.DataFile) PredictionCommit {
	return PredictionCommit{Job: job, Interval: iv, Revision: revision, Files: files,
		Settled: func(context.Context) (func(fleetscore.Key) (fleetscore.JobID, bool), error) {
			return func(k fleetscore.Key) (fleetscore.JobID, bool) { return job, scored(k) }, nil
		}}
}

// TestSupersede runs jobs over random keys and intervals, and compares what
// readers see with a map.
func TestSupersede(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		d := New(openTemp(t)).Predictions("p")
		if err := d.Create(ctx, PredictionSchema("TS", []string{"Device"}, []string{"Val"})); err != nil {
			rt.Fatal(err)
		}
		type visible struct {
			value    float64
			revision int64
		}
		want := map[cell]visible{}
		const hour = fleetscore.Micros(3600e6)
		for n := range rapid.IntRange(1, 6).Draw(rt, "jobs") {
			from := fleetscore.Micros(rapid.IntRange(0, 5).Draw(rt, "from")) * hour / 2
			to := from + fleetscore.Micros(rapid.IntRange(1, 4).Draw(rt, "length"))*hour/2
			iv := fleetscore.Interval{From: from.Time(), To: to.Time()}
			var keys []fleetscore.Key
			for k := range 4 {
				if rapid.Bool().Draw(rt, "key") {
					keys = append(keys, fleetscore.Key(fmt.Sprint("d", k)))
				}
			}
			var times []fleetscore.Micros
			for x := from + hour/4; x <= to; x += hour / 4 {
				if rapid.Bool().Draw(rt, "row") {
					times = append(times, x)
				}
			}
			scored := func(k fleetscore.Key) bool { return slices.Contains(keys, k) }
			revision := int64(n)
			if rapid.Bool().Draw(rt, "held up") { // made before others that were committed already
				revision = int64(rapid.IntRange(0, n).Draw(rt, "revision"))
			}
			for c, v := range want {
				if scored(c.key) && iv.ContainsMicros(c.time) && v.revision <= revision {
					delete(want, c)
				}
			}
			for _, k := range keys {
				for _, x := range times {
					if _, newer := want[cell{k, x}]; !newer {
						want[cell{k, x}] = visible{float64(n), revision}
					}
				}
			}
			job := fleetscore.JobID(fmt.Sprint("job", n))
			files, err := d.WritePredictions(ctx, testkit.Predictions(keys, times, float64(n)), job, revision)
			if err != nil {
				rt.Fatal(err)
			}
			for again := range 2 { // the second commit of a job changes nothing
				_, err := d.CommitPredictions(ctx, commitOf(job, iv, revision, scored, files))
				if (again == 0) != (err == nil) || (again == 1 && !table.AlreadyCommitted(err)) {
					rt.Fatalf("commit %d of %s: %v", again, job, err)
				}
			}
		}
		snap, err := d.Snapshot(ctx)
		if err != nil {
			rt.Fatal(err)
		}
		p, err := d.ReadPredictions(ctx, snap.Files, table.ReadQuery{})
		if err != nil {
			rt.Fatal(err)
		}
		got := map[cell]float64{}
		for i, x := range p.Times {
			c := cell{p.Keys[p.KeyIndex[i]], x}
			if _, twice := got[c]; twice {
				rt.Errorf("%v is there twice", c)
			}
			got[c] = p.Values[0][i]
		}
		values := map[cell]float64{}
		for c, v := range want {
			values[c] = v.value
		}
		if !maps.Equal(values, got) {
			rt.Errorf("got %v, want %v", got, values)
		}
		if snap.Rows() != int64(len(want)) {
			rt.Errorf("the log counts %d rows, want %d", snap.Rows(), len(want))
		}
	})
}

func TestItems(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := New(openTemp(t)).Coverage("p")
	names := []string{"Device", "Tag"}
	if err := d.Create(ctx, ItemSchema(names)); err != nil {
		t.Fatal(err)
	}
	iv := fleetscore.Interval{From: time.Unix(0, 0).UTC(), To: time.Unix(3600, 0).UTC()}
	items := []fleetscore.Item{
		{Key: "1\x1fa", Outcome: fleetscore.Scored, Rows: 3, Anomalies: 1, First: 5, Last: 9, Model: fleetscore.Digest{7}},
		{Key: "2\x1fa", Outcome: fleetscore.NoModel, Reason: "no model, \"2/a\""},
	}
	for n, job := range []fleetscore.JobID{"j1", "j2"} { // the second replaces the first's items
		items[0].Rows = int64(n)
		files, err := d.WriteItems(ctx, items[:2-n], names, job, iv)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.CommitItems(ctx, job, iv, files, nil); err != nil {
			t.Fatal(err)
		}
		for range 2 { // read, then remembered
			if got, err := d.JobItems(ctx, "j1", iv); err != nil || len(got) != 2-n {
				t.Errorf("after %s: job j1 has %d items, %v; want %d", job, len(got), err, 2-n)
			}
		}
	}
	done, err := d.DoneJobs(ctx)
	if diff := cmp.Diff([]DoneJob{{Job: "j1", Interval: iv, Outcomes: fleetscore.Counts{fleetscore.NoModel: 1}},
		{Job: "j2", Interval: iv, Outcomes: fleetscore.Counts{fleetscore.Scored: 1}, Rows: 1, Anomalies: 1}}, done); diff != "" || err != nil {
		t.Errorf("the jobs that outcomes are kept of, %v (-want +got):\n%s", err, diff)
	}
	snap, err := d.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.ReadItems(ctx, snap.Files, ItemQuery{})
	if err != nil {
		t.Fatal(err)
	}
	want := []JobItem{{Item: items[0], Job: "j2", Interval: iv}, {Item: items[1], Job: "j1", Interval: iv}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
