package aggregator

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/window"
)

const second = fleetscore.Micros(1e6)

// put appends one reading per key, or a tick if there is no key.
func put(t *testing.T, h hub.Hub, stamp hub.Stamp, times map[string]fleetscore.Micros) {
	t.Helper()
	r := &fleetscore.Readings{Columns: []fleetscore.ReadingColumn{{Name: "Value"}}}
	for k, at := range times {
		r.KeyIndex = append(r.KeyIndex, uint32(len(r.Keys)))
		r.Keys = append(r.Keys, fleetscore.Key(k))
		r.Times = append(r.Times, at)
		r.Columns[0].Numbers = append(r.Columns[0].Numbers, 1)
	}
	if len(times) == 0 {
		r = nil
	}
	if _, err := h.Append(t.Context(), 0, stamp, r); err != nil {
		t.Fatal(err)
	}
}

// TestOneClockAhead: if a device's clock is 290 s ahead, no readings are lost, and
// the dataset is never complete beyond the arrivals.
func TestOneClockAhead(t *testing.T) {
	t.Parallel()
	h, b := hubtest.New(1), openDir(t)
	begin := 100 * minute
	for now := begin; now < begin+10*minute; now += second {
		put(t, h, hubtest.At(now), map[string]fleetscore.Micros{"ahead": now + 290*second, "honest": now - second})
	}
	a, err := run(t, h, b)
	if err != nil {
		t.Fatal(err)
	}
	s := a.Status().Partitions[0]
	if s.Late != 0 || s.Early != 0 || s.Counted != 1200 {
		t.Errorf("status %+v, want all 1,200 readings counted", s)
	}
	if want := begin + 9*minute; s.CompleteUntil != want {
		t.Errorf("complete until %s, want %s", s.CompleteUntil, want)
	}
	rows, _ := rowsIn(t, b)
	honest := 0
	for id := range rows {
		if strings.HasPrefix(id, "honest") {
			honest++
		}
	}
	if honest != 9*12+1 { // every 5 s until 109 min, and the window of the first reading
		t.Errorf("%d rows of the honest device", honest)
	}
}

// TestSetAsideByInterval: the commits tell how many readings of an interval were
// late, early or repeated.
func TestSetAsideByInterval(t *testing.T) {
	t.Parallel()
	h, b := hubtest.New(1), openDir(t)
	now := 100 * minute
	one := func(at fleetscore.Micros) map[string]fleetscore.Micros {
		return map[string]fleetscore.Micros{"a": at}
	}
	put(t, h, hubtest.At(now), one(now))
	put(t, h, hubtest.At(now+second), one(now))                   // a repeat, of the cut that ends at 100 min
	put(t, h, hubtest.At(now+2*second), one(now-10*minute+1))     // late, of the cut that ends at 91 min
	put(t, h, hubtest.At(now+2*second), one(now-10*minute+2))     // the same
	put(t, h, hubtest.At(now+2*second), one(now+7*minute+second)) // early, in the cut that ends at 108 min
	put(t, h, hubtest.At(now+20*minute), nil)
	a, err := run(t, h, b)
	if err != nil {
		t.Fatal(err)
	}
	if p := a.Status().Partitions[0]; p.Late != 2 || p.Early != 1 || p.Repeats != 1 || p.Counted != 1 {
		t.Errorf("status %+v", p)
	}
	for _, c := range []struct {
		from, to             fleetscore.Micros // in minutes
		late, early, repeats int64
	}{{0, 200, 2, 1, 1}, {90, 91, 2, 0, 0}, {80, 90, 0, 0, 0}, {91, 99, 0, 0, 0}, {99, 100, 0, 0, 1}, {100, 120, 0, 1, 0}} {
		got, err := catalog.New(b).Dataset("readings").SetAside(t.Context(), fleetscore.Interval{From: (c.from * minute).Time(), To: (c.to * minute).Time()})
		if err != nil || got.Late != c.late || got.Early != c.early || got.Repeats != c.repeats {
			t.Errorf("(%d, %d] min: %+v, %v; want %d late, %d early, %d repeats", c.from, c.to, got, err, c.late, c.early, c.repeats)
		}
	}
}

// TestAsideIsBounded: devices choose event times. Even if these belong to very many
// cuts, a commit lists a bounded number of cuts, and the sums stay right.
func TestAsideIsBounded(t *testing.T) {
	t.Parallel()
	a := aside{cut: minute}
	for i := range fleetscore.Micros(5000) {
		a.count(1, i*minute, "k") // a repeat
	}
	list, n := a.list(), int64(0)
	for i, s := range list {
		n += s.Repeats
		if i > 0 && s.From < list[i-1].To {
			t.Errorf("entry %d overlaps the one before", i)
		}
	}
	if len(list) > maxAsideCuts || n != 5000 {
		t.Errorf("%d entries hold %d readings", len(list), n)
	}
}

// TestMemoryBound: finished windows are committed before their cut when they take too
// much memory; the rows stay the same.
func TestMemoryBound(t *testing.T) {
	t.Parallel()
	commits := map[bool]int64{}
	rows := map[bool]map[string]string{}
	for _, bounded := range []bool{false, true} {
		h, b := hubtest.New(1), openDir(t)
		begin := 100 * minute
		for now := begin; now < begin+10*minute; now += 5 * second {
			readings := map[string]fleetscore.Micros{}
			for k := range 50 {
				readings[fmt.Sprint(k)] = now
			}
			put(t, h, hubtest.At(now), readings)
		}
		put(t, h, hubtest.At(begin+20*minute), nil)
		cfg := config
		cfg.Query.Cut = fleetscore.Duration(10 * time.Minute)
		if bounded {
			cfg.MaxHeldBytes = 60_000
		}
		a, err := runConfig(t, cfg, h, b)
		if err != nil {
			t.Fatal(err)
		}
		got, snap := rowsIn(t, b)
		rows[bounded], commits[bounded] = got, snap.Version
		if p := a.Status().Partitions[0]; p.HeldBytes != 0 {
			t.Errorf("%d bytes are held at the end", p.HeldBytes)
		}
	}
	if d := cmp.Diff(rows[false], rows[true]); d != "" {
		t.Errorf("rows of the bounded query (-want +got):\n%s", d)
	}
	if commits[true] <= commits[false] {
		t.Errorf("%d commits with the bound, %d without", commits[true], commits[false])
	}
}

// TestOpenWindowsTooLarge: a query whose open windows alone take too much memory
// stops, says what to do, and keeps the log's messages from being removed.
func TestOpenWindowsTooLarge(t *testing.T) {
	t.Parallel()
	h, b := hubtest.New(1), openDir(t)
	readings := map[string]fleetscore.Micros{}
	for k := range 1000 {
		readings[fmt.Sprint(k)] = 100 * minute
	}
	put(t, h, hubtest.At(100*minute), readings)
	cfg := config
	cfg.MaxHeldBytes = 50_000
	health := &obs.Health{}
	a, err := New(cfg, Deps{Hub: h, Catalog: catalog.New(b), Health: health})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.run(t.Context()); err == nil || !strings.Contains(err.Error(), "queries.q.memory_mb") {
		t.Errorf("got %v, want an error that names the setting", err)
	}
	if a.Hold(0) != 1 {
		t.Errorf("holds message %d, want 1", a.Hold(0))
	}
}

// TestHold: committed messages may be removed, messages that an open window needs may
// not, and all messages are kept until the query has found its position.
func TestHold(t *testing.T) {
	t.Parallel()
	h, b := hubtest.New(1), openDir(t)
	fresh, err := New(config, Deps{Hub: h, Catalog: catalog.New(b)})
	if err != nil {
		t.Fatal(err)
	}
	if fresh.Hold(0) != 0 {
		t.Errorf("before it ran it holds %d, want 0", fresh.Hold(0))
	}
	one := func(at fleetscore.Micros) map[string]fleetscore.Micros {
		return map[string]fleetscore.Micros{"a": at}
	}
	put(t, h, hubtest.At(100*minute), one(100*minute))                   // 1
	put(t, h, hubtest.At(100*minute+3*second), one(100*minute+3*second)) // 2: opens the window that ends at :05
	put(t, h, hubtest.At(100*minute+4*second), one(100*minute+4*second)) // 3: the cut at 100 min is over
	a, err := run(t, h, b)
	if err != nil || a.Hold(0) != 2 {
		t.Errorf("holds %d, %v; want 2", a.Hold(0), err)
	}
	// A process that doesn't carry the query out learns the same from the table.
	if err := fresh.Peek(t.Context()); err != nil || fresh.Hold(0) != 2 {
		t.Errorf("by the table it holds %d, %v; want 2", fresh.Hold(0), err)
	}
	other, err := New(config, Deps{Hub: hubtest.New(1), Catalog: catalog.New(b)})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Peek(t.Context()); err != nil || other.Hold(0) != 1 {
		t.Errorf("of another hub it holds %d, %v; want all, 1", other.Hold(0), err)
	}
}

// TestCheckpointInTable: reading the entries that a commit writes returns the same
// checkpoint.
func TestCheckpointInTable(t *testing.T) {
	t.Parallel()
	a, err := New(config, Deps{Hub: hubtest.New(2), Catalog: catalog.New(openDir(t))})
	if err != nil {
		t.Fatal(err)
	}
	want := window.Checkpoint{Position: 9, Done: 100, ReplayFrom: 7, Watermark: 103, Clock: 109,
		Sources: []window.SourceMark{{Source: "http", Mark: 104, Arrived: 107, Last: 108}, {Source: "mqtt", Mark: 103, Arrived: 110, Last: 109}}}
	at := place{hub: 3, epoch: 4, offset: 5}
	withUnset := want
	withUnset.Sources = append(slices.Clone(want.Sources), window.SourceMark{Source: "new", Mark: math.MinInt64, Last: 109}) // this source takes no part yet
	entries := a.entries(1, withUnset, at)
	maps.Copy(entries, a.entries(0, window.Checkpoint{Sources: []window.SourceMark{{Source: "kafka", Mark: 1, Last: 2}}}, place{})) // another partition
	got, gotAt, ok := a.checkpoint(&table.Snapshot{Txns: entries}, 1)
	slices.SortFunc(got.Sources, func(a, b window.SourceMark) int { return strings.Compare(string(a.Source), string(b.Source)) })
	if d := cmp.Diff(want, got); d != "" || !ok || gotAt != at {
		t.Errorf("%v, %+v; checkpoint (-want +got):\n%s", ok, gotAt, d)
	}
}
