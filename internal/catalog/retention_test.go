package catalog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/table"
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

	output := Output("p", "second", 0, 1, "Device=1/preds.csv") // of a command
	if err := store.WriteAll(t.Context(), c.Store(), output, []byte("x"), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		kept time.Duration
		left bool
	}{{0, true}, {3 * time.Hour, true}, {time.Hour, false}} {
		if _, err := c.Maintain(t.Context(), time.Now().Add(2*time.Hour), Upkeep{Use: nothing, Pipelines: map[string]time.Duration{"p": tt.kept}}); err != nil {
			t.Error(err)
		}
		if _, err := c.Store().Stat(t.Context(), output); (err == nil) != tt.left {
			t.Errorf("output of two hours ago, with a retention of %s: %v", tt.kept, err)
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
			put(TaskLog(fleetscore.Job{Pipeline: "p", ID: job}, 0, attempt+1, "stderr"), old)
		}
	}
	put(TaskLog(fleetscore.Job{Pipeline: "p", ID: "gone"}, 0, 9, "stderr"), time.Now())
	put(TaskLog(fleetscore.Job{Pipeline: "nodes", ID: "nodes-1"}, 0, 1, "stderr"), old) // a pipeline may have that name
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

// TestTiming: the files with the times of the attempts' models are joined to one for the
// job, of which other programs can read the last attempt of each task as Parquet. Joining
// goes on after it was interrupted. The file is deleted with the logs.
func TestTiming(t *testing.T) {
	t.Parallel()
	dir, _, c := inFolder(t)
	items := []fleetscore.Item{{Key: "1\x1fpressure", Outcome: fleetscore.Scored, Rows: 60, Load: 2 * time.Millisecond, Score: 500 * time.Microsecond},
		{Key: "2\x1fpressure", Outcome: fleetscore.NoData}, {Key: "3\x1fflow", Outcome: fleetscore.TimedOut, Load: time.Second, Score: 10 * time.Second}}
	write := func(task, attempt int, items []fleetscore.Item) {
		t.Helper()
		if err := c.WriteTiming(t.Context(), Timed{Pipeline: "p", Job: "p-1", Task: task, Attempt: attempt, Node: "cpu-1", KeyNames: []string{"Device", "Tag"}}, items); err != nil {
			t.Fatal(err)
		}
	}
	write(4, 2, items)
	write(4, 1, items) // it was lost with its node
	write(11, 1, items[:1])
	write(5, 1, nil) // none of its sensors has rows
	if err := c.JoinTiming(t.Context(), "p", "p-1"); err != nil {
		t.Fatal(err)
	}
	write(4, 2, items) // as if the server had been killed before it was removed
	if err := c.JoinTiming(t.Context(), "p", "p-1"); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "logs", "p", "p-1", "*")); err != nil || len(left) != 1 {
		t.Errorf("there are %v, %v; want one file", left, err)
	}
	type row struct {
		Task         *int64   `parquet:"task,optional"`
		Attempt      *int64   `parquet:"attempt,optional"`
		Node         *string  `parquet:"node,optional"`
		Device       *string  `parquet:"Device,optional"`
		Tag          *string  `parquet:"Tag,optional"`
		Outcome      *string  `parquet:"outcome,optional"`
		Rows         *int64   `parquet:"rows,optional"`
		LoadSeconds  *float64 `parquet:"load_seconds,optional"`
		ScoreSeconds *float64 `parquet:"score_seconds,optional"`
	}
	got, err := parquet.ReadFile[row](filepath.Join(dir, "logs", "p", "p-1", "timing.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	for _, r := range got {
		shown = append(shown, strings.TrimSpace(fmt.Sprintln(*r.Task, *r.Attempt, *r.Node, *r.Device, *r.Tag, *r.Outcome, *r.Rows, *r.LoadSeconds, *r.ScoreSeconds)))
	}
	if d := cmp.Diff([]string{"4 2 cpu-1 1 pressure scored 60 0.002 0.0005", "4 2 cpu-1 3 flow timed_out 0 1 10", "11 1 cpu-1 1 pressure scored 60 0.002 0.0005"}, shown); d != "" {
		t.Errorf("times (-want +got):\n%s", d)
	}
	if n, err := c.DeleteJobLogs(t.Context(), "p", "p-1"); n != 1 || err != nil {
		t.Errorf("%d files deleted, %v", n, err)
	}
}

// TestLogsAreBounded: logs that are too old go, then the oldest of too many: of a job all,
// never those of a job in use. A dry run counts the same and deletes nothing.
func TestLogsAreBounded(t *testing.T) {
	t.Parallel()
	dir, b, c := inFolder(t)
	now := time.Now()
	put := func(name fleetscore.BlobName, age time.Duration) {
		t.Helper()
		if err := store.WriteAll(t.Context(), b, name, make([]byte, 100), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, string(name)), now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	for i, id := range []fleetscore.JobID{"p-0", "p-1", "p-2", "p-3"} { // p-3 is the oldest
		j := fleetscore.Job{Pipeline: "p", ID: id}
		put(TaskLog(j, 0, 1, "stderr"), time.Duration(i+2)*time.Hour)
		put(Timing("p", id, 0, 1), time.Duration(i+1)*time.Hour)
	}
	put(TaskLog(fleetscore.Job{Pipeline: "nodes", ID: "nodes-1"}, 0, 1, "stderr"), 5*time.Hour/2)
	put(NodeLog("cpu", "cpu-1"), 9*time.Hour)
	put(NodeLog("cpu", "cpu-2"), time.Minute)
	left := func() (out []string) {
		for i, err := range b.List(t.Context(), "logs/", store.ListOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, strings.TrimPrefix(string(i.Name), "logs/"))
		}
		return out
	}
	all := left()
	for _, tt := range []struct {
		keep  LogsKept
		want  Maintained
		there string // of these, and of no others, all are left
	}{
		{LogsKept{Before: now.Add(-8 * time.Hour)}, Maintained{Files: 10, Deleted: 1, Bytes: 100}, "nodes/cpu/cpu-2 nodes/nodes-1/ p/p-0/ p/p-1/ p/p-2/ p/p-3/"},
		{LogsKept{Bytes: 700}, Maintained{Files: 7, Deleted: 3, Bytes: 300}, "nodes/cpu/cpu-2 p/p-0/ p/p-1/ p/p-3/"},
		{LogsKept{Bytes: 450, Before: now.Add(-90 * time.Minute)}, Maintained{Files: 3, Deleted: 4, Bytes: 400}, "nodes/cpu/cpu-2 p/p-3/"},
	} {
		tt.want.Table = "logs"
		tt.keep.InUse = map[fleetscore.JobID]bool{"p-3": true}
		before := left()
		for _, tt.keep.Dry = range []bool{true, false} {
			got, err := c.KeepLogs(t.Context(), tt.keep)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("%+v (-want +got):\n%s", tt.keep, d)
			}
			if tt.keep.Dry && !slices.Equal(left(), before) {
				t.Errorf("a dry run left %v of %v", left(), before)
			}
		}
		var want []string
		for _, name := range all {
			if slices.ContainsFunc(strings.Fields(tt.there), func(p string) bool { return strings.HasPrefix(name, p) }) {
				want = append(want, name)
			}
		}
		if d := cmp.Diff(want, left()); d != "" {
			t.Errorf("%+v left (-want +got):\n%s", tt.keep, d)
		}
	}
	c.moved = func() time.Duration { return time.Hour }
	if _, err := c.KeepLogs(t.Context(), LogsKept{Bytes: 1}); !fleetscore.Unavailable.Is(err) {
		t.Errorf("after the clock was moved: %v", err)
	}
}

// TestResultsAreBounded: if predictions and coverage are too large, the oldest files of all
// pipelines go, but nothing that a job needs which hasn't ended. A dry run counts the same.
func TestResultsAreBounded(t *testing.T) {
	t.Parallel()
	c := New(openTemp(t))
	hour := func(n int) time.Time { return time.UnixMicro(int64(n) * 3600e6).UTC() }
	for n := range 6 {
		iv := fleetscore.Interval{From: hour(n), To: hour(n + 1)}
		for _, p := range []string{"p", "q"} {
			scoredBy(t, c, p, fleetscore.JobID(fmt.Sprint(p, n)), iv, []fleetscore.Key{"d1", "d2"}, []fleetscore.Micros{fleetscore.MicrosOf(iv.To)}, 0)
		}
	}
	size := func() (bytes int64, first map[string]time.Time) {
		first = map[string]time.Time{}
		for _, p := range []string{"p", "q"} {
			for _, d := range []*table.Delta{c.Predictions(p).Delta, c.Coverage(p).Delta} {
				snap, err := d.Snapshot(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range snap.Files {
					bytes += f.SizeBytes
					if at := f.Last.Time(); first[p].IsZero() || at.Before(first[p]) {
						first[p] = at
					}
				}
			}
		}
		return bytes, first
	}
	whole, _ := size()
	u := Upkeep{ResultsBytes: whole/2 + whole/24, Use: func(context.Context) (InUse, error) {
		return InUse{Results: map[string]time.Time{"q": hour(1)}}, nil
	}}
	now := hour(6).Add(30 * time.Minute)
	var counts [2]Maintained
	for i, dry := range []bool{true, false} {
		u.Dry = dry
		done, err := c.Maintain(t.Context(), now, u)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range done {
			if d.Problem != "" {
				t.Errorf("%+v", d)
			}
			counts[i].Expired, counts[i].Bytes = counts[i].Expired+d.Expired, counts[i].Bytes+d.Bytes
		}
		if left, _ := size(); dry && left != whole {
			t.Errorf("a dry run left %d of %d bytes", left, whole)
		}
	}
	left, first := size()
	if counts[0] != counts[1] || counts[0].Bytes != whole-left || counts[0].Expired != 8 {
		t.Errorf("%d of %d bytes are left; counted before %+v, and then %+v", left, whole, counts[0], counts[1])
	}
	if !first["p"].Equal(hour(4)) || !first["q"].Equal(hour(2)) {
		t.Errorf("p begins at %s, q, of which a job works on everything after 01:00, at %s", first["p"], first["q"])
	}
}
