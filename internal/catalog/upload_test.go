package catalog

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

const quarter = fleetscore.Micros(900e6)

type cell struct {
	key  fleetscore.Key
	time fleetscore.Micros
}

// upload is what one body holds, in its order.
type upload []struct {
	cell
	value float64
}

func (u upload) rows() *fleetscore.Rows {
	r := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, ValueNames: []string{"Val"}, Values: make([][]float64, 1)}
	place := map[fleetscore.Key]uint32{}
	for _, x := range u {
		p, ok := place[x.key]
		if !ok {
			p = uint32(len(r.Keys))
			place[x.key] = p
			r.Keys = append(r.Keys, x.key)
		}
		r.KeyIndex, r.Times, r.Values[0] = append(r.KeyIndex, p), append(r.Times, x.time), append(r.Values[0], x.value)
	}
	return r
}

// apply is the slow twin: the last row of a key and time counts.
func (u upload) apply(to map[cell]float64) {
	for _, x := range u {
		to[x.cell] = x.value
	}
}

func drawUpload(rt *rapid.T) upload {
	var u upload
	for range rapid.IntRange(1, 12).Draw(rt, "rows") {
		x := upload(make([]struct {
			cell
			value float64
		}, 1))[0]
		x.key = fleetscore.Key(fmt.Sprint("d", rapid.IntRange(0, 3).Draw(rt, "key")))
		x.time = 100*4*quarter + fleetscore.Micros(rapid.IntRange(0, 9).Draw(rt, "time"))*quarter // borders of hours too
		x.value = rapid.SampledFrom([]float64{0, 1, 2, math.Copysign(0, -1), math.NaN()}).Draw(rt, "value")
		u = append(u, x)
	}
	return u
}

// contents reads a dataset, and fails if a key and time are there twice.
func contents(t interface {
	Errorf(string, ...any)
	Fatal(...any)
}, c *Catalog, name string) map[cell]float64 {
	ctx := ctxOf(t)
	d := c.Dataset(name)
	snap, err := d.Snapshot(ctx)
	if fleetscore.NotFound.Is(err) {
		return map[cell]float64{}
	}
	if err != nil {
		t.Fatal(err)
	}
	out := map[cell]float64{}
	var rows int64
	for _, f := range snap.Files { // one by one, as foreign readers do: nothing is left out
		r, err := d.ReadRows(ctx, []fleetscore.DataFile{f}, table.ReadQuery{})
		if err != nil {
			t.Fatal(err)
		}
		rows += int64(r.Len())
		for i, x := range r.Times {
			at := cell{r.Keys[r.KeyIndex[i]], x}
			if _, twice := out[at]; twice {
				t.Errorf("%v is there twice", at)
			}
			out[at] = r.Values[0][i]
		}
	}
	if rows != snap.Rows() {
		t.Errorf("files have %d rows, the log says %d", rows, snap.Rows())
	}
	return out
}

func alike(a, b map[cell]float64) bool {
	return maps.EqualFunc(a, b, func(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) || x != x && y != y })
}

// TestOverlappingUploads uploads random rows again and again, by two processes in
// turn, and compares with a map.
func TestOverlappingUploads(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		b := openTemp(t)
		writers := []*Catalog{New(b), New(b)}
		want := map[cell]float64{}
		for range rapid.IntRange(1, 6).Draw(rt, "uploads") {
			u := drawUpload(rt)
			before := maps.Clone(want)
			u.apply(want)
			done, err := writers[rapid.IntRange(0, 1).Draw(rt, "writer")].Upload(ctxOf(rt), "d", u.rows(), nil)
			if err != nil {
				rt.Fatal(err)
			}
			if sum := done.Added + done.Replaced + done.Same + done.Repeated; sum != int64(len(u)) || done.Added != int64(len(want)-len(before)) {
				rt.Errorf("of %d rows %+v are accounted for; the dataset grew from %d to %d", len(u), done.Upserted, len(before), len(want))
			}
		}
		if got := contents(rt, New(b), "d"); !alike(got, want) {
			rt.Errorf("got %v, want %v", got, want)
		}
	})
}

// TestUploadKilled ends the process at each operation on the store in turn, before
// and after it was carried out: readers see all of the upload or nothing, and the
// upload sent again makes it whole.
func TestUploadKilled(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(7, 7))
	draw := func(n int) (u upload) {
		for range n {
			u = append(u, struct {
				cell
				value float64
			}{cell{fleetscore.Key(fmt.Sprint("d", rnd.IntN(3))), 400*quarter + fleetscore.Micros(rnd.IntN(9))*quarter}, float64(rnd.IntN(3))})
		}
		return u
	}
	first, second := draw(30), draw(20)
	before, after := map[cell]float64{}, map[cell]float64{}
	first.apply(before)
	first.apply(after)
	second.apply(after)
	for _, op := range []string{"put", "put done", "get", "list"} {
		for nth, struck := 1, true; struck; nth++ {
			b := openTemp(t)
			if _, err := New(b).Upload(t.Context(), "d", first.rows(), nil); err != nil {
				t.Fatal(err)
			}
			struck = false
			faulty := storetest.Crash(b, op, nth, &struck)
			_, err := New(faulty).Upload(t.Context(), "d", second.rows(), nil)
			got := contents(t, New(b), "d")
			if !alike(got, after) && (err == nil || !alike(got, before)) {
				t.Errorf("%s %d: readers see a part: %v", op, nth, got)
			}
			again, err := New(b).Upload(t.Context(), "d", second.rows(), nil)
			if got := contents(t, New(b), "d"); err != nil || !alike(got, after) {
				t.Errorf("%s %d, sent again: %+v, %v; got %v", op, nth, again, err, got)
			}
		}
	}
}

// TestUploadsAtOnce: several processes upload overlapping rows at the same time.
// Each row of the result is one that somebody sent, and nothing is there twice.
func TestUploadsAtOnce(t *testing.T) {
	t.Parallel()
	b := openTemp(t)
	const writers, each = 4, 5
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			c := New(b)
			for i := range each {
				var u upload
				for k := range 3 {
					for h := range 4 {
						u = append(u, struct {
							cell
							value float64
						}{cell{fleetscore.Key(fmt.Sprint("d", k)), 400*quarter + fleetscore.Micros(h)*2*quarter}, float64(w*100 + i)})
					}
				}
				if _, err := c.Upload(t.Context(), "d", u.rows(), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	got := contents(t, New(b), "d")
	if len(got) != 12 {
		t.Errorf("%d rows, want 12", len(got))
	}
	values := map[float64]bool{}
	for _, v := range got {
		values[v] = true
	}
	if len(values) != 1 { // an upload is one commit, so the last one's rows are all there
		t.Errorf("rows of several uploads are mixed: %v", values)
	}
}

// TestUploadWritesOnlyWhatOverlaps: files that hold no row of the upload stay.
func TestUploadWritesOnlyWhatOverlaps(t *testing.T) {
	t.Parallel()
	c := New(openTemp(t))
	row := func(key fleetscore.Key, n int, v float64) upload {
		return upload{{cell{key, 400*quarter + fleetscore.Micros(n)*quarter}, v}}
	}
	for _, u := range []upload{row("a", 1, 1), row("a", 2, 1), row("b", 1, 1), row("a", 9, 1)} {
		if _, err := c.Upload(t.Context(), "d", u.rows(), nil); err != nil {
			t.Fatal(err)
		}
	}
	paths := func() map[string]bool {
		snap, err := c.Dataset("d").Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]bool{}
		for _, f := range snap.Files {
			out[f.Path] = true
		}
		return out
	}
	before := paths()
	version := func() int64 { snap, _ := c.Dataset("d").Snapshot(t.Context()); return snap.Version }
	v := version()
	if done, err := c.Upload(t.Context(), "d", row("a", 2, 1).rows(), nil); err != nil || done.Same != 1 || version() != v {
		t.Errorf("rows that are there already: %+v, %v, version %d after %d", done, err, version(), v)
	}
	if done, err := c.Upload(t.Context(), "d", row("a", 2, 5).rows(), nil); err != nil || done.Replaced != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	kept := 0
	for p := range paths() {
		if before[p] {
			kept++
		}
	}
	if kept != len(before)-1 {
		t.Errorf("%d of %d files were kept, want all but one", kept, len(before))
	}
}

// TestUploadIntoAQuerysDataset is refused, also when the configuration no longer
// has the query: the dataset would never be complete again.
func TestUploadIntoAQuerysDataset(t *testing.T) {
	t.Parallel()
	c := New(openTemp(t))
	u := upload{{cell{"a", 400 * quarter}, 1}}
	r := u.rows()
	d := c.Dataset("d")
	if err := d.Create(t.Context(), table.DatasetSchema(r.TimeName, r.KeyNames, r.ValueNames)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Commit(t.Context(), table.Commit{Operation: "WRITE", Txns: map[string]int64{"query/means/p0/position": 4}}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Upload(t.Context(), "d", r, nil)
	if !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), "query means") || !strings.Contains(err.Error(), "another name") {
		t.Errorf("got %v", err)
	}
}

// TestUploadForeignReaders: delta-rs and DuckDB see one row per key and time.
func TestUploadForeignReaders(t *testing.T) {
	t.Parallel()
	dir, _, c := inFolder(t)
	start := fleetscore.MicrosOf(time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC))
	want := map[cell]float64{}
	for n := range 5 {
		var u upload
		for k := range 3 {
			for i := range 6 {
				u = append(u, struct {
					cell
					value float64
				}{cell{fleetscore.Key(fmt.Sprintf("%d\x1fa", k)), start + fleetscore.Micros(n+i)*quarter}, float64(n*10 + i)})
			}
		}
		u.apply(want)
		r := u.rows()
		r.KeyNames = []string{"Device", "Tag"}
		if _, err := c.Upload(t.Context(), "d", r, nil); err != nil {
			t.Fatal(err)
		}
	}
	sum := 0.0
	for _, v := range want {
		sum += v
	}
	for reader, seen := range testkit.ReadDelta(t, filepath.Join(dir, "data", "d"), "Val") {
		if seen.Rows != float64(len(want)) || seen.Sum != sum || seen.Sensors != 3 {
			t.Errorf("%s sees %+v, want %d rows with the sum %v", reader, seen, len(want), sum)
		}
	}
}

// TestUploadWhoseCommitIsRepeated uploads to a store that carries out a commit, loses
// the answer and takes the repeated request for another writer's. The upload must
// recognise its own commit. If it can't read the commit it must fail: it must not say
// that the rows were there before.
func TestUploadWhoseCommitIsRepeated(t *testing.T) {
	t.Parallel()
	for _, readable := range []bool{true, false} {
		_, dir, before := inFolder(t)
		if _, err := before.Upload(t.Context(), "readings", upload{{cell{"a", quarter}, 1}}.rows(), nil); err != nil {
			t.Fatal(err)
		}
		lost := fleetscore.BlobName("")
		c := New(&storetest.Faulty{Bucket: dir, Fail: func(op string, name fleetscore.BlobName) error {
			switch {
			case op == "put done" && strings.Contains(string(name), "/_delta_log/") && lost == "":
				lost = name
				return fleetscore.Errorf(fleetscore.Conflict, "write", string(name), "it exists already")
			case op == "get" && name == lost && !readable:
				readable = true
				return fleetscore.Errorf(fleetscore.Unavailable, "read", string(name), "no answer")
			}
			return nil
		}})
		expected := readable
		done, err := c.Upload(t.Context(), "readings", upload{{cell{"a", 2 * quarter}, 2}}.rows(), nil)
		switch {
		case lost == "":
			t.Fatal("nothing was committed")
		case expected && (err != nil || done.Added != 1):
			t.Errorf("the upload says %+v, %v; want one added row", done, err)
		case !expected && !fleetscore.Unavailable.Is(err):
			t.Errorf("the upload whose commit can't be read says %+v, %v; want an error of kind unavailable", done, err)
		}
	}
}
