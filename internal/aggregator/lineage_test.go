package aggregator

import (
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/store"
)

// lateFiles are the contents of all late files.
func lateFiles(t *testing.T, b store.Bucket) map[string]string {
	t.Helper()
	out := map[string]string{}
	for i, err := range b.List(t.Context(), "data/readings/_late/", store.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		r, err := b.Get(t.Context(), i.Name, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		out[string(i.Name)] = string(text)
	}
	return out
}

// TestAnotherLog: whatever happens to the hub's folder while the store stays, no
// message that the query has not taken is skipped, whatever its sequence. Committed
// rows stay unchanged and are there once, and the change is reported.
func TestAnotherLog(t *testing.T) {
	t.Parallel()
	const partitions = 2
	for name, c := range map[string]struct {
		after func(t *testing.T, h *hubtest.Memory) *hubtest.Memory // returns the hub that replaces the one that was read
		want  string
	}{
		"new folder":                 {func(*testing.T, *hubtest.Memory) *hubtest.Memory { return hubtest.New(partitions) }, "was made from hub"},
		"other number of partitions": {func(*testing.T, *hubtest.Memory) *hubtest.Memory { return hubtest.New(1) }, "was made from hub"},
		"end lost": {func(_ *testing.T, h *hubtest.Memory) *hubtest.Memory {
			h.Reopen(20, 30)
			return h
		}, "ends at message 20 of what this query had read up to message 6"},
		"all lost but the identity": {func(_ *testing.T, h *hubtest.Memory) *hubtest.Memory {
			h.Reopen(0, 0)
			return h
		}, "isn't the one that this query had read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := openDir(t)
			h := hubtest.New(partitions)
			fill(t, h, partitions)
			if _, err := run(t, h, b); err != nil {
				t.Fatal(err)
			}
			before, snap := rowsIn(t, b)
			lateBefore := lateFiles(t, b)
			if len(before) == 0 || len(lateBefore) == 0 {
				t.Fatal("the first run made nothing")
			}
			until, _ := catalog.CompleteUntil(snap, far)

			now := c.after(t, h)
			fill(t, now, now.Partitions()) // devices repeat readings whose storing wasn't confirmed; their rows exist already
			fillFrom(t, now, now.Partitions(), 200*minute)
			fillFrom(t, now, now.Partitions(), 300*minute) // more messages than the old hub had, so that positions alone don't show the difference
			var health obs.Health
			a := runHealth(t, now, b, &health)
			said := ""
			for _, p := range a.Status().Partitions {
				said += p.Note
			}
			if !strings.Contains(said, c.want) || len(health.Problems()) != 1 || !strings.Contains(health.Problems()[0].Problem, c.want) {
				t.Errorf("it says %q, the health %+v; want %q", said, health.Problems(), c.want)
			}

			alone := openDir(t)
			fresh := hubtest.New(now.Partitions())
			ticks(t, fresh, now.Partitions(), 190*minute) // both sources are known, as they are after the first log
			fillFrom(t, fresh, now.Partitions(), 200*minute)
			fillFrom(t, fresh, now.Partitions(), 300*minute)
			if _, err := run(t, fresh, alone); err != nil {
				t.Fatal(err)
			}
			want, _ := rowsIn(t, alone)
			got, snap := rowsIn(t, b) // fails if a row is there twice
			for id, row := range before {
				if got[id] != row {
					t.Errorf("row %s was %s and is %s", id, row, got[id])
				}
			}
			maps.DeleteFunc(got, func(id string, _ string) bool { _, old := before[id]; return old })
			// Windows between the first log's end and the new readings may have rows of repeated ones.
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("new rows (-want +got):\n%s", d)
			}
			if after, ok := catalog.CompleteUntil(snap, far); !ok || after <= until {
				t.Errorf("complete until %v, %v; it was %v", after, ok, until)
			}
			for name, text := range lateBefore {
				if now := lateFiles(t, b)[name]; now != text {
					t.Errorf("late file %s was overwritten", name)
				}
			}
			if len(lateFiles(t, b)) <= len(lateBefore) {
				t.Error("the repeated readings are not in a late file")
			}

			health = obs.Health{}
			again := runHealth(t, now, b, &health)
			for _, p := range again.Status().Partitions {
				if p.Note != "" {
					t.Errorf("the next start says %q", p.Note)
				}
			}
			if rows, _ := rowsIn(t, b); len(rows) != len(before)+len(want) {
				t.Errorf("%d rows after the next start, want %d", len(rows), len(before)+len(want))
			}
		})
	}
}

// TestOlderCopy: a copy of the hub's folder that is older than the table takes new
// messages under sequences that the query has committed.
func TestOlderCopy(t *testing.T) {
	t.Parallel()
	b := openDir(t)
	h := hubtest.New(1)
	fill(t, h, 1)
	copied := h.Copy()
	h.Reopen()
	fillFrom(t, h, 1, 200*minute)
	if _, err := run(t, h, b); err != nil {
		t.Fatal(err)
	}
	before, _ := rowsIn(t, b)
	fillFrom(t, copied, 1, 400*minute)
	fillFrom(t, copied, 1, 500*minute)
	var health obs.Health
	a := runHealth(t, copied, b, &health)
	if n := a.Status().Partitions[0].Note; !strings.Contains(n, "older copy") {
		t.Errorf("it says %q", n)
	}
	got, _ := rowsIn(t, b)
	late := 0
	for id := range got {
		if _, old := before[id]; !old {
			late++
		}
	}
	alone := openDir(t)
	fresh := hubtest.New(1)
	ticks(t, fresh, 1, 390*minute) // both sources are known, as they are after the first log
	fillFrom(t, fresh, 1, 400*minute)
	fillFrom(t, fresh, 1, 500*minute)
	if _, err := run(t, fresh, alone); err != nil {
		t.Fatal(err)
	}
	want, _ := rowsIn(t, alone)
	if late != len(want) {
		t.Errorf("%d new rows, want %d", late, len(want))
	}
}

// TestGap: messages that can't be read are counted and named, and the query goes on
// after them.
func TestGap(t *testing.T) {
	t.Parallel()
	b := openDir(t)
	h := hubtest.New(1)
	fill(t, h, 1)
	h.Lose(0, 7, 9)
	var health obs.Health
	a := runHealth(t, h, b, &health)
	s := a.Status().Partitions[0]
	if s.Gone != 3 || !strings.Contains(s.Note, "messages 7 to 9 of partition 0 are not in the hub any more, damaged: lost by the test") || len(health.Problems()) != 1 {
		t.Errorf("status %+v, health %+v", s, health.Problems())
	}
	if s.CompleteUntil < 101*minute {
		t.Errorf("complete until %v: the query stands still", s.CompleteUntil)
	}
}

// TestStateLostAfterRetention: when the state of a query is lost, and the hub has removed messages that open sessions need, the query
// says so, and goes on.
func TestStateLostAfterRetention(t *testing.T) {
	t.Parallel()
	const s = 1_000_000
	c := config
	c.Query.SQL = strings.Replace(config.Query.SQL, "TumblingWindow(second, 5)", "SessionWindow(minute, 1, 30) OVER (PARTITION BY Device)", 1)
	h, b := hubtest.New(1), openDir(t)
	begin(t, h)
	at := func(from, to fleetscore.Micros) {
		for at := from; at <= to; at += 30 * s {
			send(t, h, sent{"d", at, at, 1})
		}
	}
	at(100*minute, 110*minute)
	if _, err := runConfig(t, c, h, b); err != nil {
		t.Fatal(err)
	}
	loseStates(t, b)
	h.Expire(0, 12)
	at(110*minute+30*s, 112*minute)
	ticks(t, h, 1, 130*minute)
	a, err := runConfig(t, c, h, b)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := a.Status().Partitions[0], "its state is gone"; got.Gone == 0 || !strings.Contains(got.Note, want) {
		t.Errorf("%d messages are gone: %q, want %q", got.Gone, got.Note, want)
	}
	rows, _ := rowsIn(t, b)
	if d := cmp.Diff(map[string]string{fmt.Sprint("d ", 113*minute): "15 15"}, rows); d != "" { // of 25, ten are gone
		t.Errorf("rows (-want +got):\n%s", d)
	}
}

func runHealth(t *testing.T, h hub.Hub, b store.Bucket, health *obs.Health) *Aggregator {
	t.Helper()
	a, err := runDeps(t, config, h, Deps{Catalog: catalog.New(b), Health: health})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var far = (1000000 * minute).Time()

// TestEdited: when the text of a query was changed, its later rows are those that the new
// text gives over the whole log, although it looks further back than the old text did; the
// rows that were there stay.
func TestEdited(t *testing.T) {
	t.Parallel()
	over := func(window string) Config {
		c := config
		c.Query.SQL = strings.Replace(config.Query.SQL, "TumblingWindow(second, 5)", window, 1)
		return c
	}
	for name, windows := range map[string][2]string{
		"longer":       {"TumblingWindow(second, 5)", "HoppingWindow(minute, 10, 1)"},
		"to sliding":   {"TumblingWindow(second, 5)", "SlidingWindow(minute, 10)"},
		"from sliding": {"SlidingWindow(second, 5)", "HoppingWindow(minute, 10, 1)"},
		"both sliding": {"SlidingWindow(second, 5)", "SlidingWindow(minute, 10)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, b, fresh := hubtest.New(1), openDir(t), openDir(t)
			fill(t, h, 1)
			if _, err := runConfig(t, over(windows[0]), h, b); err != nil {
				t.Fatal(err)
			}
			old, snap := rowsIn(t, b)
			done, _ := catalog.CompleteUntil(snap, time.Now())
			fillFrom(t, h, 1, done+minute)
			if _, err := runConfig(t, over(windows[1]), h, b); err != nil {
				t.Fatal(err)
			}
			if _, err := runConfig(t, over(windows[1]), h, fresh); err != nil {
				t.Fatal(err)
			}
			want, _ := rowsIn(t, fresh)
			got, _ := rowsIn(t, b)
			later := 0
			for id := range want {
				if _, at, _ := strings.Cut(id, " "); at <= done.String() {
					delete(want, id)
				} else {
					later++
				}
			}
			maps.Copy(want, old)
			if d := cmp.Diff(want, got); d != "" || later < 10 {
				t.Errorf("%d later rows (-want +got):\n%s", later, d)
			}
		})
	}
}
