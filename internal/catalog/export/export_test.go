package export

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

var key = []string{"Device", "Tag"}

// TestParse: which paths are possible, and what files they name.
func TestParse(t *testing.T) {
	t.Parallel()
	at := fleetscore.MicrosOf(time.Date(2026, 11, 3, 10, 0, 0, 0, time.UTC))
	for path, want := range map[string]string{
		"readings/{date}/{time}/{Device}.csv":                                                       "exports/readings/2026/11/03/09/a%2Fb.csv",
		"year={datetime:yyyy}/{datetime:MM}-{datetime:dd}/{datetime:HH}{datetime:mm}_{Tag}.parquet": "exports/year=2026/11-03/0959_%2E%2E.parquet",
		"{datetime:yyyy}/{datetime:M}/{datetime:d}.csv":                                             "exports/2026/11/3.csv",
	} {
		p, err := Parse(path, key)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if got := string(p.name(at, []string{"a/b", ".."})); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	for path, why := range map[string]string{
		"{date}/{Gate}.csv": "{Gate} is unknown", "{date/x.csv": "a } is missing", "{time}.csv": "it lacks the year", "{date}/{datetime:mm}.csv": "it lacks the hour",
		"{date}/{datetime:HH:mm}.csv": "is unknown", "{date}": "it ends neither", "../{date}.csv": "isn't the name of a file", "_state/{date}.csv": "begins with _", "{date}//x.csv": "isn't the name of a file",
	} {
		if _, err := Parse(path, key); !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want that %s", path, err, why)
		}
	}
}

// counting counts writes of exported files, and fails from one of all writes on.
type counting struct {
	store.Bucket
	files []string
	fail  int // counts down to the write from which on they fail; never if it is below 0
}

func (c *counting) Put(ctx context.Context, name fleetscore.BlobName, body io.Reader, opt store.PutOptions) (store.Info, error) {
	if strings.HasPrefix(string(name), Folder) {
		if c.fail--; c.fail == 0 {
			c.fail = 1
			return store.Info{}, errors.New("the disk is away")
		}
		if !strings.Contains(string(name), "_state") {
			c.files = append(c.files, strings.TrimPrefix(string(name), Folder))
		}
	}
	return c.Bucket.Put(ctx, name, body, opt)
}

func written(t *testing.T, b store.Bucket) map[string]string {
	t.Helper()
	out := map[string]string{}
	for info, err := range b.List(t.Context(), Folder+"r/", store.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		data, err := store.ReadAll(t.Context(), b, info.Name)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimPrefix(string(info.Name), Folder)] = string(data)
	}
	return out
}

// TestFiles: files are written once their hour is complete, and again when rows of it were revised;
// wherever the process ends, all rows are there in the end, once.
func TestFiles(t *testing.T) {
	t.Parallel()
	for fail := -1; fail <= 8; fail++ {
		if fail == 0 {
			continue
		}
		dir, err := store.OpenDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		b := &counting{Bucket: dir, fail: -1}
		c := catalog.New(b)
		upload := func(complete time.Time, rows ...any) {
			t.Helper()
			r := &fleetscore.Rows{TimeName: "TS", KeyNames: key, ValueNames: []string{"Value"}, Values: [][]float64{nil}}
			for i := 0; i < len(rows); i += 3 {
				r.Keys = append(r.Keys, fleetscore.Key(rows[i].(string)+fleetscore.KeySeparator+"t"))
				r.KeyIndex = append(r.KeyIndex, uint32(i/3))
				r.Times = append(r.Times, fleetscore.MicrosOf(rows[i+1].(time.Time)))
				r.Values[0] = append(r.Values[0], rows[i+2].(float64))
			}
			until := fleetscore.MicrosOf(complete)
			if _, err := c.Upload(t.Context(), "readings", r, &until); err != nil {
				t.Fatal(err)
			}
		}
		open := func() *Export {
			e, err := New("readings", "r/{date}/{time}/{Device}.csv", key, Deps{Catalog: c, Log: slog.New(slog.DiscardHandler), Now: time.Now})
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
		hour := func(h, m int) time.Time { return time.Date(2026, 11, 3, h, m, 0, 0, time.UTC) }
		round := func() {
			t.Helper()
			if err := open().Round(t.Context()); err == nil {
				return
			} else if b.fail < 0 {
				t.Fatal(err)
			}
			b.fail = -1 // the disk is back, and the process has ended
			if err := open().Round(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		round() // there is no dataset yet
		upload(hour(11, 30), "a", hour(9, 30), 1.0, "b", hour(9, 40), 2.0, "a", hour(10, 0), 3.0, "a", hour(10, 1), 4.0, "a", hour(11, 10), 5.0)
		b.fail = fail
		round()
		want := map[string]string{
			"r/2026/11/03/09/a.csv": "TS,Device,Tag,Value\n2026-11-03 09:30:00.000,a,t,1\n2026-11-03 10:00:00.000,a,t,3\n",
			"r/2026/11/03/09/b.csv": "TS,Device,Tag,Value\n2026-11-03 09:40:00.000,b,t,2\n",
			"r/2026/11/03/10/a.csv": "TS,Device,Tag,Value\n2026-11-03 10:01:00.000,a,t,4\n",
		}
		if d := cmp.Diff(want, written(t, dir)); d != "" {
			t.Errorf("write %d fails: files (-want +got):\n%s", fail, d)
		}
		b.fail, b.files = -1, nil
		round()
		if len(b.files) > 0 {
			t.Errorf("without a change %q were written", b.files)
		}
		upload(hour(12, 0), "a", hour(10, 1), 40.0)
		round()
		if d := cmp.Diff([]string{"r/2026/11/03/10/a.csv", "r/2026/11/03/11/a.csv"}, b.files); d != "" {
			t.Errorf("after a revision (-want +got):\n%s", d)
		}
		if got := written(t, dir)["r/2026/11/03/10/a.csv"]; !strings.HasSuffix(got, ",40\n") {
			t.Errorf("the revised file is\n%s", got)
		}
		remove := func(key string, at time.Time) { // as a query does when a late reading made the row vanish
			t.Helper()
			r := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device", "Tag"}, ValueNames: []string{"Value"}, Values: [][]float64{{0}},
				Keys: []fleetscore.Key{fleetscore.Key(key + fleetscore.KeySeparator + "t")}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{fleetscore.MicrosOf(at)}}
			if _, err := c.Dataset("readings").Revise(t.Context(), r, []bool{true}, func(*table.Snapshot) (table.Commit, error) { return table.Commit{Operation: "MERGE"}, nil }); err != nil {
				t.Fatal(err)
			}
		}
		upload(hour(13, 0), "b", hour(10, 30), 6.0)
		round()
		remove("a", hour(10, 1))
		remove("a", hour(11, 10))
		round()
		want = map[string]string{
			"r/2026/11/03/09/a.csv": want["r/2026/11/03/09/a.csv"],
			"r/2026/11/03/09/b.csv": want["r/2026/11/03/09/b.csv"],
			"r/2026/11/03/10/b.csv": "TS,Device,Tag,Value\n2026-11-03 10:30:00.000,b,t,6\n",
		}
		if d := cmp.Diff(want, written(t, dir)); d != "" {
			t.Errorf("after rows vanished: files (-want +got):\n%s", d)
		}
	}
	other, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := catalog.New(other)
	until := fleetscore.Micros(1)
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"X"}, Keys: []fleetscore.Key{"x"}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{1}, ValueNames: []string{"Value"}, Values: [][]float64{{1}}}
	if _, err := c.Upload(t.Context(), "readings", rows, &until); err != nil {
		t.Fatal(err)
	}
	e, err := New("readings", "{date}.parquet", key, Deps{Catalog: c, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Round(t.Context()); !fleetscore.Conflict.Is(err) {
		t.Errorf("a dataset with other key columns: %v", err)
	}
}

// TestParquet: the rows of a file are those of the dataset.
func TestParquet(t *testing.T) {
	t.Parallel()
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := catalog.New(b)
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: key, Keys: []fleetscore.Key{"b" + fleetscore.KeySeparator + "t", "a" + fleetscore.KeySeparator + "t"}, KeyIndex: []uint32{0, 1}, Times: []fleetscore.Micros{5e6, 5e6},
		ValueNames: []string{"Value"}, Values: [][]float64{{1, 2}}}
	until := fleetscore.MicrosOf(time.Unix(0, 0).AddDate(0, 0, 1))
	if _, err := c.Upload(t.Context(), "readings", rows, &until); err != nil {
		t.Fatal(err)
	}
	e, err := New("readings", "{date}.parquet", key, Deps{Catalog: c, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	data, err := store.ReadAll(t.Context(), b, Folder+"1970/01/01.parquet")
	if err != nil {
		t.Fatal(err)
	}
	got, err := table.ReadParquet("file", data, table.Schema{Time: "TS", Key: key, Values: []string{"Value"}}, table.ReadOptions{})
	if err != nil || got.Rows.Len() != 2 || got.Rows.Keys[got.Rows.KeyIndex[0]].Values()[0] != "a" || got.Rows.Values[0][0] != 2 {
		t.Errorf("%v: %+v", err, got)
	}
}
