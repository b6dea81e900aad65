package table

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

func rewrite(t *testing.T, b store.Bucket, name fleetscore.BlobName, change func([]byte) []byte) {
	t.Helper()
	data, err := store.ReadAll(t.Context(), b, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.WriteAll(t.Context(), b, name, change(data), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, b store.Bucket, names ...fleetscore.BlobName) {
	t.Helper()
	for _, name := range names {
		if err := b.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, b store.Bucket, name fleetscore.BlobName, text string) {
	t.Helper()
	if err := store.WriteAll(t.Context(), b, name, []byte(text), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// reports keeps what a table reported last.
type reports struct {
	problem string
	works   bool
}

func (r *reports) open(b store.Bucket) *Delta {
	return OpenTable(b, Options{Name: "dataset d", Folder: "data/d", Report: func(problem string, works bool) { r.problem, r.works = problem, works }})
}

// TestDamagedLog: damage of the log is passed over where something older makes up
// for it, and is named by table and file where nothing does.
func TestDamagedLog(t *testing.T) {
	t.Parallel()
	digit := func(data []byte) []byte { // a change that leaves a commit readable
		at := bytes.LastIndex(data, []byte(`"numRecords\":`)) + len(`"numRecords\":`)
		data[at] ^= 1
		return data
	}
	half := func(data []byte) []byte { return data[:len(data)/2] }
	last := commitName(jobs)
	var early []fleetscore.BlobName // what a cut log lacks
	for v := range int64(10) {
		early = append(early, commitName(v))
	}
	for name, c := range map[string]struct {
		harm func(t *testing.T, b store.Bucket)
		file string // that is named; empty if the table is whole
		warn string // what is reported in spite of that
	}{
		"a changed digit": {func(t *testing.T, b store.Bucket) { rewrite(t, b, last, digit) }, string(last), ""},
		"cut":             {func(t *testing.T, b store.Bucket) { rewrite(t, b, last, half) }, string(last), ""},
		"cut at a line": {func(t *testing.T, b store.Bucket) {
			rewrite(t, b, last, func(d []byte) []byte { return d[:bytes.IndexByte(d, '\n')+1] })
		}, string(last), ""},
		"empty":   {func(t *testing.T, b store.Bucket) { write(t, b, last, "") }, string(last), ""},
		"garbage": {func(t *testing.T, b store.Bucket) { write(t, b, last, "\x00\x01garbage") }, string(last), ""},
		"of another table": {func(t *testing.T, b store.Bucket) {
			write(t, b, last, `{"protocol":{"minReaderVersion":3,"minWriterVersion":7}}`)
		}, string(last), ""},
		"missing": {func(t *testing.T, b store.Bucket) { remove(t, b, commitName(jobs-1)) }, string(commitName(jobs - 1)), ""},
		"all since the checkpoint missing but the last": {func(t *testing.T, b store.Bucket) {
			for v := int64(21); v < jobs; v++ {
				remove(t, b, commitName(v))
			}
		}, string(commitName(21)), ""},
		"a commit that a checkpoint replaced": {func(t *testing.T, b store.Bucket) { rewrite(t, b, commitName(15), half) }, "", ""},
		"files of others": {func(t *testing.T, b store.Bucket) {
			for _, n := range []fleetscore.BlobName{"a.txt", "00000000000000000099.crc", "00000000000000000099.json.tmp", "99.json", ".s3keep", "_compact/x.json", "zz"} {
				write(t, b, "_delta_log/"+n, "not ours")
			}
		}, "", ""},
		"checkpoint cut":     {func(t *testing.T, b store.Bucket) { rewrite(t, b, checkpointName(20), half) }, "", string(checkpointName(20))},
		"checkpoint missing": {func(t *testing.T, b store.Bucket) { remove(t, b, checkpointName(20)) }, "", string(checkpointName(20))},
		"pointer garbage":    {func(t *testing.T, b store.Bucket) { write(t, b, pointerName, "{") }, "", pointerName},
		"pointer elsewhere":  {func(t *testing.T, b store.Bucket) { write(t, b, pointerName, `{"version":900,"size":3}`) }, "", string(checkpointName(900))},
		"pointer missing":    {func(t *testing.T, b store.Bucket) { remove(t, b, pointerName) }, "", ""},
		"checkpoint of a cut log": {func(t *testing.T, b store.Bucket) {
			remove(t, b, early...)
			rewrite(t, b, checkpointName(20), half)
		}, "", string(checkpointName(20))},
		"pointer of a cut log": {func(t *testing.T, b store.Bucket) { remove(t, b, append(early, pointerName)...) }, "", ""},
		"all checkpoints of a cut log": {func(t *testing.T, b store.Bucket) {
			remove(t, b, early...)
			rewrite(t, b, checkpointName(10), half)
			rewrite(t, b, checkpointName(20), half)
		}, string(checkpointName(20)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := openTest(t)
			want := filled(t, b)
			c.harm(t, b)
			var said reports
			d := said.open(b)
			got, err := d.Snapshot(t.Context())
			if c.file == "" {
				if diff := cmp.Diff(want, got); err != nil || diff != "" {
					t.Errorf("%v\n%s", err, diff)
				}
				if c.warn == "" && said.problem != "" || !strings.Contains(said.problem, c.warn) || c.warn != "" && !said.works {
					t.Errorf("reported %+v, want a warning about %q", said, c.warn)
				}
				return
			}
			if !fleetscore.Corrupt.Is(err) || !strings.Contains(err.Error(), "dataset d") || !strings.Contains(err.Error(), "data/d/"+c.file) || !strings.Contains(err.Error(), "backup") {
				t.Fatalf("got %v, want dataset d and its file %s named, and what to do", err, c.file)
			}
			if said.problem != err.Error() || said.works {
				t.Errorf("reported %+v, want %v", said, err)
			}
			if _, err := d.Commit(t.Context(), Commit{Operation: "WRITE", Txns: map[string]int64{"x": 1}}); !fleetscore.Corrupt.Is(err) {
				t.Errorf("a commit on top of damage: %v", err)
			}
		})
	}
}

// TestDamageIsMended: once the file is back the table is well again, and says so.
func TestDamageIsMended(t *testing.T) {
	t.Parallel()
	b := openTest(t)
	if _, err := fillTable(b, keepCommits); err != nil {
		t.Fatal(err)
	}
	good, err := store.ReadAll(t.Context(), b, commitName(jobs))
	if err != nil {
		t.Fatal(err)
	}
	var said reports
	d := said.open(b)
	write(t, b, commitName(jobs), "{")
	if _, err := d.Snapshot(t.Context()); err == nil || said.problem == "" {
		t.Errorf("%v, reported %+v", err, said)
	}
	write(t, b, commitName(jobs), string(good))
	if _, err := d.Snapshot(t.Context()); err != nil || said.problem != "" {
		t.Errorf("%v, reported %+v", err, said)
	}
	// A damaged checkpoint is replaced by the next one.
	write(t, b, checkpointName(20), "no")
	d = said.open(b)
	d.inline = 1
	if _, err := d.Snapshot(t.Context()); err != nil || !said.works || said.problem == "" {
		t.Errorf("%v, reported %+v", err, said)
	}
	if _, err := d.Commit(t.Context(), Commit{Operation: "WRITE", Txns: map[string]int64{"x": 1}}); err != nil || said.problem != "" {
		t.Errorf("%v, reported %+v", err, said)
	}
}

// TestEveryBitOfACheckpoint: whatever bit of the last checkpoint flips, readers see
// the table as it is.
func TestEveryBitOfACheckpoint(t *testing.T) {
	t.Parallel()
	b := openTest(t)
	want := filled(t, b)
	for _, name := range []fleetscore.BlobName{checkpointName(20), pointerName} {
		good, err := store.ReadAll(t.Context(), b, name)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(good); at += 1 + len(good)/150 {
			bad := bytes.Clone(good)
			bad[at] ^= 1 << (at % 8)
			write(t, b, name, string(bad))
			got, err := OpenDelta(b).Snapshot(t.Context())
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("bit %d of byte %d of %s: %v\n%s", at%8, at, name, err, diff)
			}
		}
		write(t, b, name, string(good))
	}
}

// TestDamagedFiles: a data file that is missing, cut or changed stops those who
// need its rows, by name; the table and its other files go on.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(t *testing.T, b store.Bucket, file fleetscore.BlobName){
		"missing": func(t *testing.T, b store.Bucket, file fleetscore.BlobName) { remove(t, b, file) },
		"cut": func(t *testing.T, b store.Bucket, file fleetscore.BlobName) {
			rewrite(t, b, file, func(d []byte) []byte { return d[:len(d)/2] })
		},
		"empty": func(t *testing.T, b store.Bucket, file fleetscore.BlobName) { write(t, b, file, "") },
		"changed": func(t *testing.T, b store.Bucket, file fleetscore.BlobName) {
			rewrite(t, b, file, func(d []byte) []byte { d[12] ^= 4; d[len(d)/2] ^= 4; return d })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := openTest(t)
			var said reports
			d := said.open(b)
			if err := d.Create(t.Context(), DatasetSchema("TS", []string{"Device"}, []string{"Val"})); err != nil {
				t.Fatal(err)
			}
			var files []fleetscore.DataFile
			for n := range 2 {
				p := testkit.Predictions([]fleetscore.Key{"a", "b"}, []fleetscore.Micros{fleetscore.Micros(n)*3600e6 + 1}, 1)
				f, err := d.WriteRows(t.Context(), &p.Rows, fmt.Sprint(n))
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, f...)
			}
			if _, err := d.Commit(t.Context(), Commit{Operation: "WRITE", Add: files}); err != nil {
				t.Fatal(err)
			}
			good, err := store.ReadAll(t.Context(), b, fleetscore.BlobName(files[0].Path))
			if err != nil {
				t.Fatal(err)
			}
			harm(t, b, fleetscore.BlobName(files[0].Path))
			_, err = d.ReadRows(t.Context(), files, ReadQuery{})
			if !fleetscore.Corrupt.Is(err) || !strings.Contains(err.Error(), "dataset d") || !strings.Contains(err.Error(), "data/d/"+files[0].Path) {
				t.Errorf("got %v, want the file named", err)
			}
			if err == nil || said.problem != err.Error() {
				t.Errorf("reported %+v, want %v", said, err)
			}
			if rows, err := d.ReadRows(t.Context(), files[1:], ReadQuery{}); err != nil || rows.Len() != 2 {
				t.Errorf("the other file: %v", err)
			}
			iv := fleetscore.Interval{From: time.UnixMicro(3600e6), To: time.UnixMicro(7200e6)}
			if rows, err := d.ReadRows(t.Context(), files, ReadQuery{Interval: &iv}); err != nil || rows.Len() != 2 {
				t.Errorf("an interval that doesn't need it: %v", err)
			}
			if said.problem == "" {
				t.Error("the damage was forgotten")
			}
			write(t, b, fleetscore.BlobName(files[0].Path), string(good))
			if _, err := d.ReadRows(t.Context(), files, ReadQuery{}); err != nil || said.problem != "" {
				t.Errorf("mended: %v, reported %+v", err, said)
			}
		})
	}
}

// TestOnlyForeignFilesAreNoTable: what another program left in a folder doesn't
// make it a damaged table.
func TestOnlyForeignFilesAreNoTable(t *testing.T) {
	t.Parallel()
	b := openTest(t)
	write(t, b, "_delta_log/.DS_Store", "x")
	d := OpenDelta(b)
	if _, err := d.Snapshot(t.Context()); !fleetscore.NotFound.Is(err) {
		t.Errorf("got %v, want not found", err)
	}
	if err := d.Create(t.Context(), deviceSchema); err != nil {
		t.Error(err)
	}
}

// TestRowsOfAnotherWriter: where another program added a second row with the same
// key and time, the last counts and the others are counted.
func TestRowsOfAnotherWriter(t *testing.T) {
	t.Parallel()
	d := OpenDelta(openTest(t))
	if err := d.Create(t.Context(), DatasetSchema("TS", []string{"Device"}, []string{"Val"})); err != nil {
		t.Fatal(err)
	}
	var files []fleetscore.DataFile
	for n, times := range [][]fleetscore.Micros{{10, 20, 30}, {20, 40}, {20}} {
		p := testkit.Predictions([]fleetscore.Key{"a", "b"}, times, float64(n))
		f, err := d.WriteRows(t.Context(), &p.Rows, fmt.Sprint(n))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f...)
	}
	if _, err := d.Commit(t.Context(), Commit{Operation: "WRITE", Add: files}); err != nil {
		t.Fatal(err)
	}
	snap, err := d.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var repeated int64
	rows, err := d.ReadRows(t.Context(), snap.Files, ReadQuery{Repeated: &repeated})
	if err != nil {
		t.Fatal(err)
	}
	got := map[cell]float64{}
	for i, x := range rows.Times {
		got[cell{rows.Keys[rows.KeyIndex[i]], x}] = rows.Values[0][i]
	}
	want := map[cell]float64{}
	for _, k := range []fleetscore.Key{"a", "b"} {
		want[cell{k, 10}], want[cell{k, 20}], want[cell{k, 30}], want[cell{k, 40}] = 0, 2, 0, 1
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(cell{})); diff != "" || rows.Len() != len(want) || repeated != 4 {
		t.Errorf("%d rows, %d repeated\n%s", rows.Len(), repeated, diff)
	}
}

// filled is what the writer of fillTable's table sees.
func filled(t *testing.T, b store.Bucket) *Snapshot {
	t.Helper()
	writer, err := fillTable(b, keepCommits)
	if err != nil {
		t.Fatal(err)
	}
	snap, err := writer.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return snap
}
