package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/compare"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// scoredBy writes the results of a pipeline's job over an interval into its tables: each
// key has a row at each time, with the label that it is given.
func scoredBy(t *testing.T, c *Catalog, pipeline string, job fleetscore.JobID, iv fleetscore.Interval, keys []fleetscore.Key, times []fleetscore.Micros, label float64) {
	t.Helper()
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(c.Predictions(pipeline).Create(ctx, PredictionSchema("TS", []string{"Device"}, []string{"Val"})))
	check(c.Coverage(pipeline).Create(ctx, ItemSchema([]string{"Device"})))
	p := testkit.Predictions(keys, times, 1)
	var items []fleetscore.Item
	for _, k := range keys {
		items = append(items, fleetscore.Item{Key: k, Outcome: fleetscore.Scored, Rows: int64(len(times))})
	}
	for i := range p.Prediction {
		p.Prediction[i], p.Score[i] = label, label/4
	}
	r := Results{Job: job, Pipeline: pipeline, Interval: iv, Revision: 1, Scored: int64(len(items))}
	var err error
	r.Predictions, err = c.Predictions(pipeline).WritePredictions(ctx, p, job, 1)
	check(err)
	r.Coverage, err = c.Coverage(pipeline).WriteItems(ctx, items, []string{"Device"}, job, iv)
	check(err)
	check(c.Publish(ctx, r))
}

// TestCompare: the results of two pipelines are compared sensor by sensor over the time
// that both have, whatever files they are in; a sensor can be named, and an interval.
func TestCompare(t *testing.T) {
	t.Parallel()
	c := New(openTemp(t))
	var keys []fleetscore.Key
	for i := range 40 {
		keys = append(keys, fleetscore.Key(fmt.Sprint("d", i)))
	}
	hour := func(n int) time.Time { return time.UnixMicro(int64(n) * 3600e6).UTC() }
	for n := range 3 {
		iv := fleetscore.Interval{From: hour(n), To: hour(n + 1)}
		times := []fleetscore.Micros{fleetscore.MicrosOf(iv.From) + 60e6, fleetscore.MicrosOf(iv.To)}
		// The live pipeline's files hold all keys, or those of one half each.
		scoredBy(t, c, "live", fleetscore.JobID(fmt.Sprint("l", n)), iv, keys, times, 0)
		if n == 0 {
			continue
		}
		half := keys[:20]
		scoredBy(t, c, "next", fleetscore.JobID(fmt.Sprint("n", n)), iv, half, times, float64(n-1))
	}
	run := func(q Comparison) (out []compare.Sensor, iv fleetscore.Interval) {
		t.Helper()
		iv, err := c.Compare(t.Context(), q, func(s compare.Sensor) error { out = append(out, s); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if !slices.IsSortedFunc(out, func(a, b compare.Sensor) int { return ByShard(a.Key, b.Key) }) {
			t.Errorf("the sensors aren't in the order of their shards")
		}
		return out, iv
	}
	got, iv := run(Comparison{A: "live", B: "next"})
	if iv.From.Before(hour(1)) || !iv.To.Equal(hour(3)) || len(got) != 40 {
		t.Errorf("%d sensors over %s, want 40 over (01:00, 03:00]", len(got), iv)
	}
	scored := func(n int64) fleetscore.Counts { return fleetscore.Counts{fleetscore.Scored: n} }
	of := map[fleetscore.Key]compare.Sensor{}
	for _, s := range got {
		of[s.Key] = s
	}
	want := compare.Sensor{Key: "d7", Rows: 4, Agree: 2, Difference: compare.Difference{Scores: 4, Max: 0.25, Mean: 0.125},
		A: compare.Side{Rows: 4, Outcomes: scored(2)}, B: compare.Side{Rows: 4, Anomalies: 2, Outcomes: scored(2)}}
	if d := cmp.Diff(want, of["d7"]); d != "" {
		t.Errorf("sensor d7 (-want +got):\n%s", d)
	}
	want = compare.Sensor{Key: "d39", A: compare.Side{Rows: 4, Only: 4, Outcomes: scored(2)}, B: compare.Side{Outcomes: fleetscore.Counts{}}}
	if d := cmp.Diff(want, of["d39"]); d != "" {
		t.Errorf("sensor d39 (-want +got):\n%s", d)
	}
	got, _ = run(Comparison{A: "next", B: "live", Keys: []fleetscore.Key{"d7"}, From: hour(2)})
	want = compare.Sensor{Key: "d7", Rows: 2, Difference: compare.Difference{Scores: 2, Max: 0.25, Mean: 0.25},
		A: compare.Side{Rows: 2, Anomalies: 2, Outcomes: scored(1)}, B: compare.Side{Rows: 2, Outcomes: scored(1)}}
	if d := cmp.Diff([]compare.Sensor{want}, got); d != "" {
		t.Errorf("one sensor of one hour (-want +got):\n%s", d)
	}
}

// TestCompareSameJobs: outcomes of intervals that both pipelines have jobs of are compared, also if
// the interval ends after the last row, and not those of other jobs.
func TestCompareSameJobs(t *testing.T) {
	t.Parallel()
	c := New(openTemp(t))
	hour := func(n int) time.Time { return time.UnixMicro(int64(n) * 3600e6).UTC() }
	keys := []fleetscore.Key{"d1"}
	both := fleetscore.Interval{From: hour(1), To: hour(3)}
	rows := []fleetscore.Micros{fleetscore.MicrosOf(hour(2))}
	for n := range 3 { // jobs that only the live pipeline has
		scoredBy(t, c, "live", fleetscore.JobID(fmt.Sprint("l", n)), fleetscore.Interval{From: hour(1), To: hour(2).Add(time.Duration(n) * time.Minute)}, keys, rows, 0)
	}
	scoredBy(t, c, "live", "l9", both, keys, rows, 0)
	scoredBy(t, c, "next", "n9", both, keys, rows, 0)
	iv, err := c.Compare(t.Context(), Comparison{A: "live", B: "next"}, func(s compare.Sensor) error {
		if s.A.Outcomes[fleetscore.Scored] != 1 || s.B.Outcomes[fleetscore.Scored] != 1 || s.Differs() {
			t.Errorf("sensor %+v; want one outcome on both sides, and no difference", s)
		}
		return nil
	})
	if err != nil || !iv.To.Equal(both.To) {
		t.Errorf("compared over %s, %v; want until %s", iv, err, both.To)
	}
}

// TestCompareRefuses: pipelines without results, or without results of the same time,
// are refused by name.
func TestCompareRefuses(t *testing.T) {
	t.Parallel()
	c := New(openTemp(t))
	hour := func(n int) fleetscore.Interval {
		return fleetscore.Interval{From: time.UnixMicro(int64(n) * 3600e6).UTC(), To: time.UnixMicro(int64(n+1) * 3600e6).UTC()}
	}
	for n, p := range []string{"a", "b"} {
		scoredBy(t, c, p, "j", hour(n), []fleetscore.Key{"d1"}, []fleetscore.Micros{fleetscore.MicrosOf(hour(n).To)}, 0)
	}
	for want, q := range map[string]Comparison{"none: the pipeline has no results yet": {A: "a", B: "none"}, "a and b: they have no predictions of the same time": {A: "a", B: "b"},
		"same time after 1970-01-01T01:00:00Z": {A: "a", B: "a", From: hour(1).From}} {
		_, err := c.Compare(t.Context(), q, func(compare.Sensor) error { return nil })
		if !fleetscore.NotFound.Is(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestPortions: many sensors are compared part by part, and the parts are all shards.
func TestPortions(t *testing.T) {
	t.Parallel()
	sides := [2]side{{items: []fleetscore.DataFile{{Shards: fleetscore.AllShards, Date: "d", Rows: 600_000}, {Shards: fleetscore.AllShards, Date: "d", Rows: 400_000}, {Shards: fleetscore.AllShards, Date: "e", Rows: 900_000}}}}
	next, parts := 0, portions(fleetscore.AllShards, sides)
	for _, p := range parts {
		if int(p.First) != next || p.Last < p.First {
			t.Errorf("parts %v", parts)
		}
		next = int(p.Last) + 1
	}
	if len(parts) != 11 || next != fleetscore.Shards {
		t.Errorf("%d parts up to shard %d: %v", len(parts), next, parts)
	}
	if got := portions(fleetscore.ShardRange{First: 9, Last: 9}, sides); len(got) != 1 {
		t.Errorf("one shard is cut into %v", got)
	}
}

// TestCompareStops: when nobody wants more, the comparison ends with that error.
func TestCompareStops(t *testing.T) {
	t.Parallel()
	c := New(openTemp(t))
	iv := fleetscore.Interval{From: time.UnixMicro(0).UTC(), To: time.UnixMicro(3600e6).UTC()}
	for _, p := range []string{"a", "b"} {
		scoredBy(t, c, p, "j", iv, []fleetscore.Key{"d1", "d2"}, []fleetscore.Micros{5e6}, 0)
	}
	n := 0
	_, err := c.Compare(t.Context(), Comparison{A: "a", B: "b"}, func(compare.Sensor) error { n++; return context.Canceled })
	if n != 1 || err != context.Canceled {
		t.Errorf("%d sensors, %v", n, err)
	}
}
