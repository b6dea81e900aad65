package catalog

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
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

// TestCoverageOfEarlierReleases: a table that was made before outcomes named their image is read, and gets the
// column with the next job; its earlier outcomes name no image, also where their file is written again.
func TestCoverageOfEarlierReleases(t *testing.T) {
	t.Parallel()
	ctx, key := t.Context(), []string{"Device"}
	d := New(openTemp(t)).Coverage("p")
	before := ItemSchema(key)
	before.Columns = before.Columns[:len(before.Columns)-1]
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	to := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	iv := fleetscore.Interval{From: to.Add(-time.Hour), To: to}
	item := func(k fleetscore.Key, image string) fleetscore.Item {
		return fleetscore.Item{Key: k, Outcome: fleetscore.Scored, Rows: 3, Last: 7, Image: image}
	}
	write := func(job fleetscore.JobID, items ...fleetscore.Item) []fleetscore.DataFile {
		t.Helper()
		files, err := d.WriteItems(ctx, items, key, job, iv)
		check(err)
		return files
	}
	commit := func(job fleetscore.JobID, files []fleetscore.DataFile) {
		t.Helper()
		_, err := d.CommitItems(ctx, job, iv, files, nil)
		check(err)
	}
	holds := func(want ...fleetscore.Item) {
		t.Helper()
		snap, err := d.Snapshot(ctx)
		check(err)
		found, err := d.ReadItems(ctx, snap.Files, ItemQuery{})
		check(err)
		var got []fleetscore.Item
		for _, i := range found {
			got = append(got, i.Item)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("items (-want +got):\n%s", diff)
		}
	}
	check(d.Create(ctx, before))
	f, s, err := d.ReadFrame(ctx, write("new", item("a", "box@1"), item("b", "box@1")), nil, table.ReadQuery{})
	check(err)
	old, err := d.WriteFrame(ctx, s, f, jobFile("old")) // without the column
	check(err)
	commit("old", old)
	holds(item("a", ""), item("b", ""))
	for range 2 {
		check(d.Extend(ctx, ItemSchema(key)))
	}
	holds(item("a", ""), item("b", ""))
	commit("next", write("next", item("b", "box@2"), item("c", "box@2")))
	holds(item("a", ""), item("b", "box@2"), item("c", "box@2"))
	if snap, err := d.Snapshot(ctx); err != nil || snap.Version != 3 || !snap.Schema.Equal(ItemSchema(key)) {
		t.Errorf("the table has version %d and the columns %s, %v", snap.Version, snap.Schema, err)
	}
	check(d.Extend(ctx, before)) // by a server of the release before, which goes on with the table
	old, err = d.WriteFrame(ctx, s, f, jobFile("older"))
	check(err)
	commit("older", old)
	holds(item("a", ""), item("b", ""), item("c", "box@2"))
}
