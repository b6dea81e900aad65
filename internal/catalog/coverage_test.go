package catalog

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
)

// TestPagesOfItems: pages of any size, one after the other, hold each item once, in the
// order of shards; files may have shards in common. A page reads only the files that it
// needs.
func TestPagesOfItems(t *testing.T) {
	t.Parallel()
	ctx, bucket := t.Context(), openTemp(t)
	d := New(bucket).Coverage("p")
	if err := d.Create(ctx, ItemSchema([]string{"Device"})); err != nil {
		t.Fatal(err)
	}
	to := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	interval := fleetscore.Interval{From: to.Add(-time.Hour), To: to}
	parts := make([][]fleetscore.Item, 4) // by shards; the first two share theirs
	var want []fleetscore.Item
	for n := range 200 {
		i := fleetscore.Item{Key: fleetscore.Key(fmt.Sprint("d", n)), Outcome: fleetscore.Scored, Rows: int64(n)}
		if n%7 == 0 {
			i.Outcome, i.Reason = fleetscore.Failed, "why"
		}
		part := int(i.Key.Shard()) / 64
		if part < 2 {
			part = n % 2
		}
		parts[part], want = append(parts[part], i), append(want, i)
	}
	slices.SortFunc(want, func(a, b fleetscore.Item) int { return ByShard(a.Key, b.Key) })
	for _, job := range []fleetscore.JobID{"other", "mine"} {
		iv, add := interval, []fleetscore.DataFile{}
		if job == "other" { // it lies in the same hour
			iv.From = iv.From.Add(time.Minute)
		}
		for _, items := range parts {
			files, err := d.WriteItems(ctx, items, []string{"Device"}, job, iv)
			if err != nil {
				t.Fatal(err)
			}
			add = append(add, files...)
		}
		if _, err := d.CommitItems(ctx, job, iv, add, nil); err != nil {
			t.Fatal(err)
		}
	}
	read := func(outcomes []fleetscore.Outcome, limit int) (got []fleetscore.Item) {
		p := ItemPage{Outcomes: outcomes, Limit: limit}
		for {
			items, more, err := d.Page(ctx, "mine", interval, p)
			if err != nil {
				t.Fatal(err)
			}
			if len(items) > limit || more && len(items) < limit {
				t.Fatalf("a page of %d has %d items; more follow: %t", limit, len(items), more)
			}
			got = append(got, items...)
			if !more {
				return got
			}
			p.After = items[len(items)-1].Key
		}
	}
	failed := slices.DeleteFunc(slices.Clone(want), func(i fleetscore.Item) bool { return i.Outcome != fleetscore.Failed })
	for _, limit := range []int{1, 7, 199, 200, 1000} {
		if diff := cmp.Diff(want, read(nil, limit)); diff != "" {
			t.Errorf("pages of %d: %s", limit, diff)
		}
		if diff := cmp.Diff(failed, read([]fleetscore.Outcome{fleetscore.Failed}, limit)); diff != "" {
			t.Errorf("pages of %d, failed only: %s", limit, diff)
		}
	}
	snap, err := d.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range snap.Files {
		if f.Shards.First >= 128 {
			if err := bucket.Delete(ctx, fleetscore.BlobName(CoverageFolder("p")+"/"+f.Path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if items, more, err := d.Page(ctx, "mine", interval, ItemPage{Limit: 5}); err != nil || !more || !cmp.Equal(items, want[:5]) {
		t.Errorf("the first page needs files of later ones: %v, %t, %v", items, more, err)
	}
	if _, _, err := d.Page(ctx, "mine", interval, ItemPage{Limit: 1000}); !fleetscore.Corrupt.Is(err) {
		t.Errorf("files are missing: %v, want kind corrupt", err)
	}
}

// TestDelayedCoverage: a job that commits after a later one over the same interval doesn't
// replace its outcomes, and adds those of other sensors.
func TestDelayedCoverage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := New(openTemp(t)).Coverage("p")
	if err := d.Create(ctx, ItemSchema([]string{"Device"})); err != nil {
		t.Fatal(err)
	}
	to := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	iv := fleetscore.Interval{From: to.Add(-time.Hour), To: to}
	commit := func(job fleetscore.JobID, later func(fleetscore.JobID) bool, keys ...fleetscore.Key) {
		t.Helper()
		var items []fleetscore.Item
		for _, k := range keys {
			items = append(items, fleetscore.Item{Key: k, Outcome: fleetscore.Scored, Reason: string(job)})
		}
		files, err := d.WriteItems(ctx, items, []string{"Device"}, job, iv)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.CommitItems(ctx, job, iv, files, later); err != nil {
			t.Fatal(err)
		}
	}
	commit("first", nil, "a", "b")
	commit("third", nil, "a", "c")
	commit("second", func(id fleetscore.JobID) bool { return id == "third" }, "a", "b", "d")
	snap, err := d.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	items, err := d.ReadItems(ctx, snap.Files, ItemQuery{})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, i := range items {
		got += string(i.Key) + " " + string(i.Job) + ", "
	}
	if want := "a third, b second, c third, d second, "; got != want {
		t.Errorf("the table has %s want %s", got, want)
	}
}
