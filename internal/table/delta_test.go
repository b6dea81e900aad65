package table

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

func openTest(t interface{ TempDir() string }) store.Bucket {
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		panic(err)
	}
	return b
}

var deviceSchema = DatasetSchema("TS", []string{"Device"}, []string{"Val"})

type cell struct {
	key  fleetscore.Key
	time fleetscore.Micros
}

func TestConcurrentCommits(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := openTest(t)
	const writers, each = 4, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			d := OpenDelta(b)
			if err := d.Create(ctx, deviceSchema); err != nil {
				t.Error(err)
				return
			}
			for i := range each {
				id := fmt.Sprintf("app%d", w)
				if _, err := d.Commit(ctx, Commit{Operation: "WRITE", Txns: map[string]int64{id: int64(i), "all": int64(i)}, Guard: id}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	snap, err := OpenDelta(b).Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if snap.Version != writers*each {
		t.Errorf("version: got %d, want %d", snap.Version, writers*each)
	}
	for w := range writers {
		if got := snap.Txns[fmt.Sprintf("app%d", w)]; got != each-1 {
			t.Errorf("txn of writer %d: got %d, want %d", w, got, each-1)
		}
	}
}

func TestCommitConflicts(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	d := OpenDelta(openTest(t))
	if _, err := d.Snapshot(ctx); !fleetscore.NotFound.Is(err) {
		t.Errorf("no table: got %v, want not found", err)
	}
	if err := d.Create(ctx, deviceSchema); err != nil {
		t.Fatal(err)
	}
	if err := d.Create(ctx, DatasetSchema("TS", []string{"Device"}, []string{"Other"})); !fleetscore.Conflict.Is(err) {
		t.Errorf("other columns: got %v, want conflict", err)
	}
	if _, err := d.Commit(ctx, Commit{Remove: []string{"date=2026-11-23/hour=01/x.parquet"}}); !fleetscore.Conflict.Is(err) || AlreadyCommitted(err) {
		t.Errorf("remove of an absent file: got %v, want conflict", err)
	}
}

func TestRowsByShardAndInterval(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dir := t.TempDir()
	b, err := store.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := OpenDelta(b)
	if err := d.Create(ctx, DatasetSchema("TS", []string{"Device"}, []string{"Val"})); err != nil {
		t.Fatal(err)
	}
	var keys []fleetscore.Key
	for i := range 50 {
		keys = append(keys, fleetscore.Key(fmt.Sprint("d", i)))
	}
	rows := &testkit.Predictions(keys, []fleetscore.Micros{1, 3600e6, 3600e6 + 1}, 2).Rows
	files, err := d.WriteRows(ctx, rows, "id")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 2 || files[0].Hour != 0 || files[0].Rows != 100 || files[1].Hour != 1 || files[1].First != 3600e6+1 {
		t.Errorf("files: %+v", files)
	}
	if _, err := d.Commit(ctx, Commit{Operation: "WRITE", Add: files}); err != nil {
		t.Fatal(err)
	}
	iv := fleetscore.Interval{From: time.UnixMicro(1).UTC(), To: time.UnixMicro(3600e6).UTC()}
	half := fleetscore.ShardRange{First: 0, Last: 127}
	got, err := d.ReadRows(ctx, files, ReadQuery{Interval: &iv, Shards: &half})
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, k := range keys {
		if half.Contains(k.Shard()) {
			want++
		}
	}
	if got.Len() != want {
		t.Errorf("rows: got %d, want %d", got.Len(), want)
	}
}

// TestLargeHoursAreSplit: an hour of many rows lies in files of distinct shard
// ranges, each sorted, which together hold every row once.
func TestLargeHoursAreSplit(t *testing.T) {
	t.Parallel()
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := OpenDelta(b)
	p := ticks(3000, 400) // 1.2 M rows
	s := DatasetSchema(p.TimeName, p.KeyNames, p.ValueNames)
	if err := d.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	files, err := d.WriteRows(t.Context(), &p.Rows, "id")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 4 {
		t.Fatalf("got %d files, want 4", len(files))
	}
	rows := int64(0)
	for i, f := range files {
		rows += f.Rows
		for _, o := range files[:i] {
			if f.Shards.Overlaps(o.Shards) || f.Path == o.Path {
				t.Errorf("%s and %s share shards", f.Path, o.Path)
			}
		}
	}
	if rows != int64(p.Len()) {
		t.Errorf("got %d rows, want %d", rows, p.Len())
	}
	got, err := d.ReadRows(t.Context(), files[1:2], ReadQuery{Shards: &files[1].Shards})
	if err != nil || int64(got.Len()) != files[1].Rows || len(got.Keys) == 0 {
		t.Fatalf("one file: %v, %v", got.Len(), err)
	}
	for i := 1; i < got.Len(); i++ {
		a, b := got.Keys[got.KeyIndex[i-1]], got.Keys[got.KeyIndex[i]]
		if a > b || a == b && got.Times[i-1] > got.Times[i] {
			t.Fatalf("row %d is out of order", i)
		}
	}
}
