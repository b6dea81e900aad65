package catalog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

func nothing(context.Context) (InUse, error) { return InUse{}, nil }

// dataFiles are the names of the data files that lie in a table's folder.
func dataFiles(t *testing.T, b store.Bucket, folder string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for i, err := range b.List(t.Context(), folder+"/date=", store.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimPrefix(string(i.Name), folder+"/")] = true
	}
	return out
}

// scatter uploads many small pieces, some of which replace others.
func scatter(t *testing.T, c *Catalog, uploads int) map[cell]float64 {
	t.Helper()
	rnd := rand.New(rand.NewPCG(3, uint64(uploads)))
	want := map[cell]float64{}
	for n := range uploads {
		var u upload
		for k := range 3 {
			u = append(u, struct {
				cell
				value float64
			}{cell{fleetscore.Key(fmt.Sprintf("%d\x1fa", k)), 400*quarter + fleetscore.Micros(rnd.IntN(20))*quarter/2}, float64(n)})
		}
		u.apply(want)
		r := u.rows()
		r.KeyNames = []string{"Device", "Tag"}
		if _, err := c.Upload(t.Context(), "d", r, nil); err != nil {
			t.Fatal(err)
		}
	}
	return want
}

// TestMaintain: small files are joined and what nobody needs is deleted after the
// grace time, without any change of the rows, for us and for foreign readers.
func TestMaintain(t *testing.T) {
	t.Parallel()
	dir, b, c := inFolder(t)
	want := scatter(t, c, 30)
	before := dataFiles(t, b, "data/d")
	early := time.UnixMicro(int64(400 * quarter)).Add(30 * time.Minute) // no hour has ended
	if done, err := c.Maintain(t.Context(), early, Upkeep{Maintenance: Maintenance{Dataset: "d"}, Use: nothing}); err != nil || len(done) != 1 || done[0].Replaced+done[0].Deleted != 0 {
		t.Errorf("before any hour ended: %+v, %v", done, err)
	}
	sum := 0.0
	for _, v := range want {
		sum += v
	}
	seen := func(when string) {
		if got := contents(t, New(b), "d"); !alike(got, want) {
			t.Errorf("%s: got %v, want %v", when, got, want)
		}
		for reader, s := range testkit.ReadDelta(t, filepath.Join(dir, "data", "d"), "Val") {
			if s.Rows != float64(len(want)) || s.Sum != sum {
				t.Errorf("%s: %s sees %+v, want %d rows with the sum %v", when, reader, s, len(want), sum)
			}
		}
	}
	now := time.Now()
	done, err := c.Maintain(t.Context(), now, Upkeep{Use: nothing})
	if err != nil || len(done) != 1 || done[0].Problem != "" || done[0].Replaced < 10 || done[0].Files > 3*4 || done[0].Deleted != 0 {
		t.Errorf("the first time: %+v, %v", done, err)
	}
	for name := range before { // whoever reads still can
		if _, err := os.Stat(filepath.Join(dir, "data", "d", name)); err != nil {
			t.Errorf("within the grace time: %v", err)
		}
	}
	seen("joined")
	if again, err := c.Maintain(t.Context(), now, Upkeep{Use: nothing}); err != nil || again[0].Replaced+again[0].Deleted != 0 {
		t.Errorf("a second time: %+v, %v", again, err)
	}
	done, err = c.Maintain(t.Context(), now.Add(grace+time.Hour), Upkeep{Use: nothing})
	if err != nil || done[0].Deleted == 0 || len(dataFiles(t, b, "data/d")) != done[0].Files {
		t.Errorf("after the grace time: %+v, %v; %d files lie there", done, err, len(dataFiles(t, b, "data/d")))
	}
	seen("after the grace time")
}

// TestMaintainKeepsWhatIsInUse: files that a job reads, and results that a job has
// written and not published, stay however old they are.
func TestMaintainKeepsWhatIsInUse(t *testing.T) {
	t.Parallel()
	b := openTemp(t)
	c := New(b)
	scatter(t, c, 12)
	pinned := dataFiles(t, b, "data/d")
	p := c.Predictions("p")
	if err := p.Create(t.Context(), PredictionSchema("TS", []string{"Device"}, []string{"Val"})); err != nil {
		t.Fatal(err)
	}
	rows := upload{{cell{"a", 400 * quarter}, 1}}.rows()
	predictions := &fleetscore.Predictions{Rows: *rows, Prediction: []float64{0}, Score: []float64{0}, Models: []fleetscore.Digest{fleetscore.DigestOf(nil)}}
	for _, job := range []fleetscore.JobID{"running", "gone"} {
		if _, err := p.WritePredictions(t.Context(), predictions, job, 1); err != nil {
			t.Fatal(err)
		}
	}
	use := func(context.Context) (InUse, error) {
		return InUse{Jobs: map[fleetscore.JobID]bool{"running": true}, Files: map[string]map[string]bool{"d": pinned}}, nil
	}
	for range 2 {
		if _, err := c.Maintain(t.Context(), time.Now().Add(10*grace), Upkeep{Use: use}); err != nil {
			t.Fatal(err)
		}
	}
	there := dataFiles(t, b, "data/d")
	for name := range pinned {
		if !there[name] {
			t.Errorf("%s was deleted while a job reads it", name)
		}
	}
	left := dataFiles(t, b, "predictions/p")
	if len(left) != 1 {
		t.Errorf("of the results not published are left %v", left)
	}
	for name := range left {
		if !strings.Contains(name, "running-") {
			t.Errorf("left is %s", name)
		}
	}
	if _, err := c.Maintain(t.Context(), time.Now().Add(10*grace), Upkeep{Use: nothing}); err != nil || len(dataFiles(t, b, "predictions/p")) != 0 {
		t.Errorf("after the jobs: %v", err)
	}
}

// TestMaintainKilled ends maintenance at each operation on the store in turn,
// before and after it was carried out: the rows are the same, and the next
// maintenance finishes the work.
func TestMaintainKilled(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"put", "put done", "get", "list", "delete"} {
		for nth, struck := 1, true; struck; nth++ {
			b := openTemp(t)
			want := scatter(t, New(b), 14)
			late := time.Now().Add(2 * grace)
			if _, err := New(b).Maintain(t.Context(), time.Now(), Upkeep{Use: nothing}); op == "delete" && err != nil { // so that there is something to delete
				t.Fatal(err)
			}
			struck = false
			faulty := storetest.Crash(b, op, nth, &struck)
			_, _ = New(faulty).Maintain(t.Context(), late, Upkeep{Use: nothing}) // its tables say what failed
			if got := contents(t, New(b), "d"); !alike(got, want) {
				t.Fatalf("%s %d: got %v, want %v", op, nth, got, want)
			}
			done, err := New(b).Maintain(t.Context(), late, Upkeep{Use: nothing})
			if got := contents(t, New(b), "d"); err != nil || done[0].Problem != "" || !alike(got, want) {
				t.Fatalf("%s %d, the next time: %+v, %v; got %v", op, nth, done, err, got)
			}
		}
	}
}

// TestMaintainWithAMovedClock: a clock that was moved makes everything look old.
func TestMaintainWithAMovedClock(t *testing.T) {
	t.Parallel()
	b := openTemp(t)
	c := New(b)
	scatter(t, c, 12)
	before := dataFiles(t, b, "data/d")
	for _, moved := range []time.Duration{48 * time.Hour, -48 * time.Hour} {
		c.moved = func() time.Duration { return moved }
		if _, err := c.Maintain(t.Context(), time.Now().Add(moved), Upkeep{Use: nothing}); !fleetscore.Unavailable.Is(err) || !strings.Contains(err.Error(), moved.String()) {
			t.Errorf("got %v", err)
		}
	}
	if after := dataFiles(t, b, "data/d"); len(after) != len(before) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
	if moved := New(b).moved(); moved.Abs() > time.Second {
		t.Errorf("a clock that wasn't moved seems moved by %s", moved)
	}
}

// TestMaintainDamaged: a damaged table says so, and the others are maintained.
func TestMaintainDamaged(t *testing.T) {
	t.Parallel()
	b := openTemp(t)
	c := New(b)
	scatter(t, c, 20)
	for _, name := range []fleetscore.BlobName{"data/a/_delta_log/00000000000000000000.json", "data/z/_delta_log/00000000000000000000.json"} {
		if err := store.WriteAll(t.Context(), b, name, []byte("{"), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	done, err := c.Maintain(t.Context(), time.Now(), Upkeep{Use: nothing})
	if err != nil || len(done) != 3 || !strings.Contains(done[0].Problem, "dataset a") || done[1].Problem != "" || done[1].Replaced == 0 || !strings.Contains(done[2].Problem, "dataset z") {
		t.Errorf("%+v, %v", done, err)
	}
	if _, err := c.Maintain(t.Context(), time.Now(), Upkeep{Maintenance: Maintenance{Dataset: "none"}, Use: nothing}); !fleetscore.NotFound.Is(err) {
		t.Errorf("no such dataset: %v", err)
	}
}

// TestMaintainWhileRowsCome: uploads that replace rows and maintenance of another
// process at the same time leave what the uploads alone would.
func TestMaintainWhileRowsCome(t *testing.T) {
	t.Parallel()
	b := openTemp(t)
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		c := New(b)
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			all, err := c.Maintain(t.Context(), time.Now(), Upkeep{Use: nothing})
			for _, m := range all {
				if m.Problem != "" {
					err = errors.New(m.Problem)
				}
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	want := scatter(t, New(b), 40)
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := contents(t, New(b), "d"); !alike(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
