package files

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// expectation is what a script says of a table that it wrote.
type expectation struct {
	Rows    int
	Sum     float64
	Value   string // the column's name; Value if empty
	Refused string // words of the refusal
}

// compare reads the tables that a script wrote into a folder.
func compare(t *testing.T, dir string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]expectation
	if err := json.Unmarshal(data, &all); err != nil || len(all) == 0 {
		t.Fatalf("%v: %s", err, data)
	}
	for name, want := range all {
		s := schema
		if want.Value != "" {
			s.Values = []string{want.Value}
		}
		in, err := Read(t.Context(), []string{filepath.Join(dir, name)}, nil, s, say)
		if want.Refused != "" {
			if err == nil || !strings.Contains(err.Error(), want.Refused) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: got %v, want a refusal with %q", name, err, want.Refused)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sum := 0.0
		for _, v := range in.Rows.Values[0] {
			if !math.IsNaN(v) {
				sum += v
			}
		}
		if in.Rows.Len() != want.Rows || sum != want.Sum {
			t.Errorf("%s: got %d rows with the sum %v, want %d and %v", name, in.Rows.Len(), sum, want.Rows, want.Sum)
		}
		if len(in.Rows.Keys) != 2 || in.Rows.Times[0].Time().Year() != 2026 {
			t.Errorf("%s: keys %q, first time %s", name, in.Rows.Keys, in.Rows.Times[0])
		}
	}
}

// compareIntervals reads parts of tables: the same rows as are found among all of them,
// and no file is opened that the log says to have none. Each table has its own times.
func compareIntervals(t *testing.T, dir string) {
	t.Helper()
	at := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	minutes := func(from, to int) fleetscore.Interval {
		return fleetscore.Interval{From: at.Add(time.Duration(from) * time.Minute), To: at.Add(time.Duration(to) * time.Minute)}
	}
	for _, c := range []struct {
		name   string
		iv     fleetscore.Interval
		opened int
	}{
		{"delta-rs", minutes(25, 35), 4}, // two devices, ten minutes in each file
		{"delta-rs", minutes(29, 30), 2}, // the file that ends with minute 29 may end a part of a millisecond later
		{"delta-rs", minutes(-9, 4), 0},  // rows that were deleted
		{"delta-rs cut", minutes(40, 99), 1},
		{"without zone", minutes(10, 99), 0},
		{"dates", fleetscore.Interval{From: at, To: at.Add(time.Hour)}, 0},
		{"by day", fleetscore.Interval{From: at.AddDate(0, 0, -24), To: at.AddDate(0, 0, -21)}, 3},
		{"mapped by name", minutes(10, 15), 1},
		{"mapped by id", minutes(3, 5), 1},
		{"deletions", minutes(500, 600), 1},
		{"deletions", minutes(498, 499), 1},
		{"checkpoint in parts", minutes(15, 25), 2},
		{"checkpoint v2 json", minutes(15, 25), 2},
		{"checkpoint v2 classic", minutes(15, 45), 4},
		{"without stamps", minutes(50, 99), 1}, // whether they are of this interval isn't known
	} {
		b, err := store.OpenFolder(filepath.Join(dir, c.name))
		if err != nil {
			t.Fatal(err)
		}
		opened := 0
		counting := &storetest.Faulty{Bucket: b, Fail: func(op string, name fleetscore.BlobName) error {
			if op == "get" && strings.HasSuffix(string(name), ".parquet") && !strings.HasPrefix(string(name), logFolder) {
				opened++
			}
			return nil
		}}
		opt := say
		opt.Interval = &c.iv
		r := &reader{opt: opt, progress: opt}
		if err := r.delta(t.Context(), c.name, counting, schema); err != nil {
			t.Fatal(err)
		}
		part, err := table.ReadSources(t.Context(), r.sources, schema, r.opt)
		if opened != c.opened {
			t.Errorf("%s %s: %d files were opened, want %d", c.name, c.iv, opened, c.opened)
		}
		whole, e := Read(t.Context(), []string{filepath.Join(dir, c.name)}, nil, schema, say)
		if err != nil && e != nil {
			continue // a table that is refused
		}
		if err != nil || e != nil {
			t.Fatalf("%s: %v, %v", c.name, err, e)
		}
		var want []string
		for i, line := range strings.SplitAfter(lines(whole.Rows), "\n") {
			if i < whole.Rows.Len() && c.iv.ContainsMicros(whole.Rows.Times[i]) {
				want = append(want, line)
			}
		}
		if got := lines(part.Rows); got != strings.Join(want, "") || len(want) == 0 && c.opened > 0 {
			t.Errorf("%s %s: got\n%s\nwant\n%s", c.name, c.iv, got, strings.Join(want, ""))
		}
		for _, k := range part.Rows.Keys {
			if !strings.Contains(strings.Join(want, ""), " "+k.String()+" ") {
				t.Errorf("%s %s: key %q has no row", c.name, c.iv, k)
			}
		}
	}
}

// TestForeignTables reads tables of delta-rs, and such as the protocol describes:
// mapped columns, checkpoints of all kinds, deletion vectors; and refuses by name what it can't honour.
func TestForeignTables(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := testkit.Command(t, testkit.Readers(t), filepath.Join("testdata", "tables.py"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	compare(t, dir)
	compareIntervals(t, dir)
	_, err := Read(t.Context(), []string{filepath.Join(dir, "delta-rs")}, nil, table.Schema{Time: "ts", Key: []string{"Device"}, Values: []string{"Value"}}, say)
	if err == nil || !strings.Contains(err.Error(), `has "TS": upper and lower case count`) {
		t.Errorf("a column's case: got %v", err)
	}
}

// TestOwnTable: of a table that Fleetscore wrote one row per key and time is read,
// and its columns have to be named as they are.
func TestOwnTable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := store.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, ValueNames: []string{"Value"}, Keys: []fleetscore.Key{"1", "2"},
		Times: []fleetscore.Micros{1e15, 1e15}, KeyIndex: []uint32{0, 1}, Values: [][]float64{{5, 6}}}
	d := table.OpenDelta(b)
	if err := d.Create(t.Context(), table.DatasetSchema("TS", []string{"Device"}, []string{"Value"})); err != nil {
		t.Fatal(err)
	}
	add, err := d.WriteRows(t.Context(), rows, "x")
	if err == nil {
		_, err = d.Commit(t.Context(), table.Commit{Operation: "WRITE", Add: add})
	}
	if err != nil {
		t.Fatal(err)
	}
	in, err := Read(t.Context(), []string{dir}, nil, schema, say)
	if err != nil || in.Rows.Len() != 2 {
		t.Errorf("got %+v, %v", in, err)
	}
	other := schema
	other.Key = []string{"Value"}
	if _, err := Read(t.Context(), []string{dir}, nil, other, say); err == nil {
		t.Error("another key was taken")
	}
}

// FuzzForeignTable: no bytes of a log cause a panic.
func FuzzForeignTable(f *testing.F) {
	f.Add([]byte(`{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}
{"metaData":{"schemaString":"{\"fields\":[{\"name\":\"TS\",\"type\":\"timestamp\"}]}","partitionColumns":[],"configuration":{}}}
{"add":{"path":"x.parquet","partitionValues":{},"size":1,"deletionVector":{"storageType":"i","pathOrInlineDv":"00000","sizeInBytes":4,"cardinality":1}}}`))
	f.Fuzz(func(t *testing.T, log []byte) {
		dir := t.TempDir()
		put(t, dir, "_delta_log/00000000000000000000.json", log)
		put(t, dir, "x.parquet", []byte("PAR1"))
		_, _ = Read(t.Context(), []string{dir}, nil, schema, say) // whatever it says
	})
}
