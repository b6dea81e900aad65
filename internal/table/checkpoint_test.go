package table

import (
	"context"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// Times of the tables below: a job a minute, of two sensors.
const jobs = 27

func minuteOf(n int) fleetscore.Interval {
	from := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Minute)
	return fleetscore.Interval{From: from, To: from.Add(time.Minute)}
}

// fillTable commits a job's rows per minute, with every fifth interval written again, as an instance that makes checkpoints every ten commits.
func fillTable(b store.Bucket, keep time.Duration) (*Delta, error) {
	d := OpenDelta(b)
	d.inline, d.keep = 10, keep
	schema := DatasetSchema("TS", []string{"Device", "Tag"}, []string{"Val"})
	ctx := context.Background()
	if err := d.Create(ctx, schema); err != nil {
		return d, err
	}
	for n := range jobs {
		iv := minuteOf(n)
		if n%5 == 4 {
			iv = minuteOf(n - 2) // again
		}
		p := testkit.Predictions([]fleetscore.Key{"1\x1fa", "2\x1fa"}, []fleetscore.Micros{fleetscore.MicrosOf(iv.To)}, float64(n))
		p.KeyNames = []string{"Device", "Tag"}
		_, err := d.Upsert(ctx, &p.Rows, func(*Snapshot) (Commit, error) {
			return Commit{Operation: "MERGE", Txns: map[string]int64{fmt.Sprintf("job/j%02d", n): 1}}, nil
		})
		if err != nil {
			return d, err
		}
	}
	return d, nil
}

func logFiles(t *testing.T, b store.Bucket) (commits, checkpoints int) {
	t.Helper()
	for i, err := range b.List(t.Context(), "_delta_log/0", store.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(string(i.Name), ".json") {
			commits++
		} else {
			checkpoints++
		}
	}
	return commits, checkpoints
}

// TestCheckpoint: whoever opens a table whose log was cut sees what its writer
// sees, and whoever was away while it was cut catches up.
func TestCheckpoint(t *testing.T) {
	t.Parallel()
	b := openTest(t)
	behind := OpenDelta(b)
	writer, err := fillTable(b, 0)
	if err != nil {
		t.Fatal(err)
	}
	if commits, checkpoints := logFiles(t, b); commits > 25 || checkpoints != 2 {
		t.Errorf("the log has %d commits and %d checkpoints", commits, checkpoints)
	}
	want, err := writer.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(want.Txns) != jobs || want.Version != jobs {
		t.Errorf("version %d, %d jobs", want.Version, len(want.Txns))
	}
	// An instance that read the first commits long ago.
	if err := behind.read("0", []byte(`{"metaData":{"id":"x","format":{"provider":"parquet"},"schemaString":"{\"fields\":[{\"name\":\"TS\",\"type\":\"timestamp\"},{\"name\":\"K\",\"type\":\"string\"}]}","partitionColumns":["date","hour"],"configuration":{"fleetscore.time":"TS","fleetscore.key":"K"}}}`)); err != nil {
		t.Fatal(err)
	}
	behind.next, behind.looked = 3, time.Now().Add(-2*lookAgain)
	for name, d := range map[string]*Delta{"a new instance": OpenDelta(b), "one that was away": behind} {
		got, err := d.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-writer's +its):\n%s", name, diff)
		}
	}
	rows, err := OpenDelta(b).ReadRows(t.Context(), want.Files, ReadQuery{})
	if err != nil || rows.Len() != 2*(jobs-jobs/5) {
		t.Errorf("%d rows, %v", rows.Len(), err)
	}
}

// TestCheckpointFaults: a checkpoint that fails anywhere changes nothing that
// readers see, and one that is damaged doesn't matter while the commits are there.
func TestCheckpointFaults(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"put", "put done", "list", "delete"} {
		for nth := 1; ; nth++ {
			inner, n := openTest(t), 0
			faulty := &storetest.Faulty{Bucket: inner, Fail: func(o string, name fleetscore.BlobName) error {
				log := strings.Contains(string(name), "checkpoint") || strings.HasSuffix(string(name), "_delta_log/0") || o == "delete"
				if o == op && log {
					n++
					if n == nth {
						return fleetscore.Errorf(fleetscore.Unavailable, o, string(name), "a fault")
					}
				}
				return nil
			}}
			writer, err := fillTable(faulty, 0)
			if err != nil {
				t.Fatalf("%s %d: %v", op, nth, err)
			}
			want, err := writer.Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got, err := OpenDelta(inner).Snapshot(t.Context())
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%s %d: %v\n%s", op, nth, err, diff)
			}
			if n < nth {
				break
			}
			if nth == 5 {
				break
			}
		}
	}
}

// TestOldEntries: jobs and removed files of long ago leave the state.
func TestOldEntries(t *testing.T) {
	t.Parallel()
	b := openTest(t)
	d, err := fillTable(b, 0)
	if err != nil {
		t.Fatal(err)
	}
	d.txns["upload/1"], d.txns["query/q/p0/position"] = 1, 7
	state, err := d.stateNow(t.Context(), time.Now().Add(keepEntries+time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := state.write(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.txns) != 2 || len(d.gone) != 0 || rows != int64(2+2+len(d.file)) {
		t.Errorf("%d entries, %d removed files and %d rows are left", len(d.txns), len(d.gone), rows)
	}
}

// TestCheckpointForeignReaders: delta-rs and DuckDB read a table whose first
// commits are gone, and some of whose files have a null.
func TestCheckpointForeignReaders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := store.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	filled, err := fillTable(b, 0)
	if err != nil {
		t.Fatal(err)
	}
	nulls := testkit.Predictions([]fleetscore.Key{"1\x1fa", "2\x1fa"}, []fleetscore.Micros{fleetscore.MicrosOf(minuteOf(jobs).To)}, 1)
	nulls.KeyNames, nulls.Values[0][1] = []string{"Device", "Tag"}, math.NaN()
	if _, err := filled.Upsert(t.Context(), &nulls.Rows, func(*Snapshot) (Commit, error) {
		return Commit{Operation: "MERGE", Txns: map[string]int64{"job/nulls": 1}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	if commits, _ := logFiles(t, b); commits >= jobs {
		t.Fatalf("the log wasn't cut: %d commits", commits)
	}
	for reader, got := range testkit.ReadDelta(t, filepath.Clean(dir), "Val") {
		last := float64(fleetscore.MicrosOf(minuteOf(jobs).To))
		if got.Rows != 2*(jobs-jobs/5)+2 || got.Sensors != 2 || got.Last != last {
			t.Errorf("%s reads %+v", reader, got)
		}
	}
	// Another program's checkpoint, which has its own order of columns and rows.
	want, err := OpenDelta(b).Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const script = "import sys, deltalake; deltalake.DeltaTable(sys.argv[1]).create_checkpoint()"
	if out, err := testkit.Command(t, testkit.Readers(t), "-c", script, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d := OpenDelta(b)
	got, err := d.Snapshot(t.Context())
	if diff := cmp.Diff(want, got); err != nil || diff != "" || d.checked != want.Version {
		t.Errorf("a checkpoint of delta-rs, read up to version %d: %v (-before +after)\n%s", d.checked, err, diff)
	}
}

// TestTableBeginsMeanwhile: a table whose first commit another process writes between a
// reader's question for it and the list of its log isn't taken for a damaged one.
func TestTableBeginsMeanwhile(t *testing.T) {
	t.Parallel()
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	begun := false
	faulty := &storetest.Faulty{Bucket: b, Fail: func(op string, _ fleetscore.BlobName) error {
		if op == "list" && !begun {
			begun = true
			return OpenDelta(b).Create(t.Context(), deviceSchema)
		}
		return nil
	}}
	snap, err := OpenDelta(faulty).Snapshot(t.Context())
	if err != nil || snap.Version != 0 {
		t.Errorf("got %+v, %v", snap, err)
	}
}
