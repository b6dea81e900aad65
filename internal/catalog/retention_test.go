package catalog

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// hoursOf uploads a row per hour of a day to dataset d, an upload each.
func hoursOf(t *testing.T, c *Catalog, hours int) (want map[cell]float64, start time.Time) {
	t.Helper()
	start = (400 * quarter).Time()
	want = map[cell]float64{}
	for h := range hours {
		u := upload{{cell{"1\x1fa", 400*quarter + fleetscore.Micros(4*h+2)*quarter}, float64(h)}}
		u.apply(want)
		r := u.rows()
		r.KeyNames = []string{"Device", "Tag"}
		if _, err := c.Upload(t.Context(), "d", r, nil); err != nil {
			t.Fatal(err)
		}
	}
	return want, start
}

func since(want map[cell]float64, at time.Time) map[cell]float64 {
	out := map[cell]float64{}
	for c, v := range want {
		if c.time.Time().After(at) {
			out[c] = v
		}
	}
	return out
}

// TestRetention: rows leave a dataset once all of their file are too old, unless
// somebody is still to read them; their files are deleted after the grace time. Foreign
// readers see what we see.
func TestRetention(t *testing.T) {
	t.Parallel()
	dir, b, c := inFolder(t)
	want, start := hoursOf(t, c, 12)
	late := LateReadings("d", 0, 1, 2)
	for _, name := range []fleetscore.BlobName{late, LateReadings("other", 0, 1, 2)} {
		if err := store.WriteAll(t.Context(), b, name, []byte("x"), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	now := start.Add(12 * time.Hour)
	needed := start.Add(3 * time.Hour)
	u := Upkeep{Datasets: map[string]time.Duration{"d": 5 * time.Hour}, Use: func(context.Context) (InUse, error) {
		return InUse{Since: map[string]time.Time{"d": needed}}, nil
	}}
	maintain := func() Maintained {
		t.Helper()
		done, err := c.Maintain(t.Context(), now, u)
		if err != nil || len(done) != 1 || done[0].Problem != "" {
			t.Fatal(done, err)
		}
		return done[0]
	}
	check := func(when string, at time.Time) {
		t.Helper()
		left := since(want, at)
		if got := contents(t, New(b), "d"); !alike(got, left) {
			t.Errorf("%s: got %v, want %v", when, got, left)
		}
		for reader, s := range testkit.ReadDelta(t, filepath.Join(dir, "data", "d"), "Val") {
			if s.Rows != float64(len(left)) {
				t.Errorf("%s: %s sees %+v, want %d rows", when, reader, s, len(left))
			}
		}
	}
	if done := maintain(); done.Expired != 3 || done.Deleted != 0 {
		t.Errorf("rows that are needed: %+v", done)
	}
	check("while rows are needed", needed)
	needed = start.Add(99 * time.Hour)
	if done := maintain(); done.Expired != 4 {
		t.Errorf("after that: %+v", done)
	}
	check("by age", now.Add(-5*time.Hour))
	if n := len(dataFiles(t, b, "data/d")); n != 12 {
		t.Errorf("%d files are left for readers within the grace time, want 12", n)
	}
	now = time.Now().Add(grace + time.Minute)
	u.Datasets["d"] = 50 * 365 * 24 * time.Hour * 2 // the rows are of 1970
	if done := maintain(); done.Expired != 0 || done.Deleted != 7 {
		t.Errorf("after the grace time: %+v", done)
	}
	u.Datasets["d"], u.Late = 0, time.Hour // for ever
	if done := maintain(); done.Expired != 0 || done.Deleted != 1 {
		t.Errorf("late readings: %+v", done)
	}
	if _, err := b.Stat(t.Context(), late); !fleetscore.NotFound.Is(err) {
		t.Errorf("late readings are still there: %v", err)
	}
	check("kept for ever", start.Add(7*time.Hour))
}

// TestRetentionOfResults: predictions and coverage of a pipeline leave together.
func TestRetentionOfResults(t *testing.T) {
	t.Parallel()
	c := New(openTemp(t))
	for i, r := range []Results{results(t, c, "first", 1, 0, 7), results(t, c, "second", 2, 7, 20)} {
		if err := c.Publish(t.Context(), r); err != nil {
			t.Fatal(i, err)
		}
	}
	now := (412 * quarter).Time()
	done, err := c.Maintain(t.Context(), now, Upkeep{Use: nothing, Pipelines: map[string]time.Duration{"p": time.Hour}})
	if err != nil || len(done) != 2 || done[0].Expired != 3 || done[1].Expired != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	for at := range visible(t, c.Store()) {
		if at.time <= 408*quarter {
			t.Errorf("%s is still there", at.time.Time().Format(time.TimeOnly))
		}
	}
	for job, want := range map[fleetscore.JobID]int{"first": 0, "second": 2} {
		iv := fleetscore.Interval{From: (400 * quarter).Time(), To: (420 * quarter).Time()}
		if items, err := c.Coverage("p").JobItems(t.Context(), job, iv); err != nil || len(items) != want {
			t.Errorf("%s has %d items, want %d; %v", job, len(items), want, err)
		}
	}
}

// TestRetentionKilled ends maintenance at each operation on the store in turn: readers
// see the rows before or after, and the next time finishes.
func TestRetentionKilled(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"put", "put done", "get", "list", "delete"} {
		for nth, struck := 1, true; struck; nth++ {
			b := openTemp(t)
			want, start := hoursOf(t, New(b), 8)
			u := Upkeep{Use: nothing, Datasets: map[string]time.Duration{"d": 4 * time.Hour}}
			now := start.Add(8 * time.Hour)
			struck = false
			faulty := storetest.Crash(b, op, nth, &struck)
			_, _ = New(faulty).Maintain(t.Context(), now, u) // its tables say what failed
			left := since(want, start.Add(4*time.Hour))
			if got := contents(t, New(b), "d"); !alike(got, left) && !alike(got, want) {
				t.Fatalf("%s %d: got %v", op, nth, got)
			}
			u.Datasets = map[string]time.Duration{"d": 4 * time.Hour}
			if done, err := New(b).Maintain(t.Context(), now, u); err != nil || done[0].Problem != "" || !alike(contents(t, New(b), "d"), left) {
				t.Fatalf("%s %d, the next time: %+v, %v", op, nth, done, err)
			}
		}
	}
}

// TestManyFilesOfAnHourThatGoesOn are joined too, as jobs of every minute leave many.
func TestManyFilesOfAnHourThatGoesOn(t *testing.T) {
	t.Parallel()
	b := openTemp(t)
	c := New(b)
	want := map[cell]float64{}
	for n := range 40 {
		u := upload{{cell{"a", 400*quarter + fleetscore.Micros(n+1)}, float64(n)}}
		u.apply(want)
		if _, err := c.Upload(t.Context(), "d", u.rows(), nil); err != nil {
			t.Fatal(err)
		}
	}
	now := (400*quarter + quarter/2).Time()
	done, err := c.Maintain(t.Context(), now, Upkeep{Use: nothing})
	if err != nil || done[0].Files != 1 || done[0].Replaced != 40 {
		t.Errorf("%+v, %v", done, err)
	}
	if got := contents(t, New(b), "d"); !alike(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestOneHourThatCannotBeJoined keeps no other from it.
func TestOneHourThatCannotBeJoined(t *testing.T) {
	t.Parallel()
	b := openTemp(t)
	c := New(b)
	for n := range 20 { // ten files of two hours
		u := upload{{cell{"a", 400*quarter + fleetscore.Micros(n%2)*4*quarter + fleetscore.Micros(n+1)}, float64(n)}}
		if _, err := c.Upload(t.Context(), "d", u.rows(), nil); err != nil {
			t.Fatal(err)
		}
	}
	files := slices.Sorted(func(yield func(string) bool) {
		for f := range dataFiles(t, b, "data/d") {
			if !yield(f) {
				return
			}
		}
	})
	if err := store.WriteAll(t.Context(), b, fleetscore.BlobName("data/d/"+files[0]), []byte("PAR1"), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	done, err := c.Maintain(t.Context(), time.Now(), Upkeep{Use: nothing})
	if err != nil || done[0].Files != 11 || done[0].Replaced != 10 || !strings.Contains(done[0].Problem, files[0]) {
		t.Errorf("%+v, %v", done, err)
	}
}

// TestLogs: a job's logs go with it; those that belong to nobody go when they are old.
func TestLogs(t *testing.T) {
	t.Parallel()
	dir, b, c := inFolder(t)
	old := time.Now().Add(-48 * time.Hour)
	put := func(name fleetscore.BlobName, at time.Time) {
		t.Helper()
		if err := store.WriteAll(t.Context(), b, name, []byte("x"), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, string(name)), at, at); err != nil {
			t.Fatal(err)
		}
	}
	for _, job := range []fleetscore.JobID{"p-1", "p-2", "gone"} {
		for attempt := range 2 {
			put(TaskLog("p", job, 0, attempt+1, "stderr"), old)
		}
	}
	put(TaskLog("p", "gone", 0, 9, "stderr"), time.Now())
	put(TaskLog("nodes", "nodes-1", 0, 1, "stderr"), old) // a pipeline may have that name
	put(NodeLog("cpu", "cpu-1"), old)
	put(NodeLog("cpu", "cpu-2"), time.Now())
	left := func() (out []string) {
		for i, err := range b.List(t.Context(), "logs/", store.ListOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, strings.TrimPrefix(string(i.Name), "logs/"))
		}
		return out
	}
	if n, err := c.DeleteJobLogs(t.Context(), "p", "p-1"); err != nil || n != 2 {
		t.Errorf("%d logs, %v", n, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "logs", "p", "p-1")); !os.IsNotExist(err) {
		t.Errorf("the folders of a job's logs are left: %v", err)
	}
	unknown := func(_ context.Context, ids []fleetscore.JobID) (out []fleetscore.JobID, _ error) {
		for _, id := range ids {
			if id == "gone" || id == "cpu" {
				out = append(out, id)
			}
		}
		return out, nil
	}
	if n, err := c.DeleteStrayLogs(t.Context(), time.Now().Add(-24*time.Hour), unknown); err != nil || n != 3 {
		t.Errorf("%d logs, %v", n, err)
	}
	want := []string{"nodes/cpu/cpu-2.txt", "nodes/nodes-1/000/1/stderr.txt", "p/gone/000/9/stderr.txt", "p/p-2/000/1/stderr.txt", "p/p-2/000/2/stderr.txt"}
	if diff := cmp.Diff(want, left()); diff != "" {
		t.Error(diff)
	}
}
