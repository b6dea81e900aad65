package aggregator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const minute = fleetscore.Micros(60e6)

var config = Config{Name: "q",
	Query: fleetscore.QueryConfig{Cut: fleetscore.Duration(time.Minute), SQL: `SELECT System.Timestamp() AS TS, Device, SUM(Value) AS Value, COUNT(*) AS N
		INTO readings FROM hub TIMESTAMP BY TS WHERE Value > -100 GROUP BY Device, TumblingWindow(second, 5)`},
	Hub: fleetscore.HubConfig{Key: []string{"Device"}, Time: "TS", Disorder: fleetscore.Duration(2 * time.Second), IdleAfter: fleetscore.Duration(5 * time.Second)}}

// fill writes a log of some minutes with disorder, repeats and late readings into
// a hub, from two sources, and ends it with ticks that close all windows.
func fill(t *testing.T, h hub.Hub, partitions int) {
	t.Helper()
	fillFrom(t, h, partitions, 100*minute)
}

func fillFrom(t *testing.T, h hub.Hub, partitions int, now fleetscore.Micros) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		now += fleetscore.Micros(rnd.IntN(6e6))
		for p := range partitions {
			r := &fleetscore.Readings{Columns: []fleetscore.ReadingColumn{{Name: "Value"}}}
			for k := range 3 {
				r.Keys = append(r.Keys, fleetscore.Key(fmt.Sprintf("d%d-%d", p, k)))
			}
			for range rnd.IntN(20) {
				r.KeyIndex = append(r.KeyIndex, uint32(rnd.IntN(3)))
				r.Times = append(r.Times, now-fleetscore.Micros(rnd.IntN(9))*1e6)
				r.Columns[0].Numbers = append(r.Columns[0].Numbers, float64(rnd.IntN(4))/3)
			}
			if r.Len() == 0 {
				r = nil
			}
			stamp := hub.Stamp{Source: []fleetscore.Source{"http", "http", "mqtt"}[rnd.IntN(3)], Arrived: now}
			if _, err := h.Append(t.Context(), p, stamp, r); err != nil {
				t.Fatal(err)
			}
		}
	}
	ticks(t, h, partitions, now+2*minute)
}

// ticks appends a tick of each source.
func ticks(t *testing.T, h hub.Hub, partitions int, now fleetscore.Micros) {
	t.Helper()
	for p := range partitions {
		for _, source := range []fleetscore.Source{"mqtt", "http"} {
			if _, err := h.Append(t.Context(), p, hub.Stamp{Source: source, Arrived: now}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// watched is a hub that signals when its whole log was read.
type watched struct {
	hub.Hub
	all  chan struct{}
	left atomic.Int64 // partitions not read to the end yet
	last map[int]uint64
}

func watch(t *testing.T, h hub.Hub) *watched {
	t.Helper()
	stats, err := h.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{Hub: h, all: make(chan struct{}), last: map[int]uint64{}}
	w.left.Store(int64(len(stats)))
	for _, s := range stats {
		w.last[s.Partition] = s.Last
	}
	return w
}

func (w *watched) Read(ctx context.Context, partition int, from uint64, fn func(hub.Message) error) error {
	if from > w.last[partition] && w.left.Add(-1) == 0 { // all of it was committed before
		close(w.all)
	}
	return w.Hub.Read(ctx, partition, from, func(m hub.Message) error {
		err := fn(m)
		if err == nil && m.Seq == w.last[partition] && w.left.Add(-1) == 0 {
			close(w.all)
		}
		return err
	})
}

// run carries the query out until the whole log was read or the query failed.
func run(t *testing.T, h hub.Hub, b store.Bucket) (*Aggregator, error) {
	t.Helper()
	return runConfig(t, config, h, b)
}

func runConfig(t *testing.T, config Config, h hub.Hub, b store.Bucket) (*Aggregator, error) {
	t.Helper()
	return runDeps(t, config, h, Deps{Catalog: catalog.New(b)})
}

func runDeps(t *testing.T, config Config, h hub.Hub, deps Deps) (*Aggregator, error) {
	t.Helper()
	w := watch(t, h)
	deps.Hub = w
	a, err := New(config, deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- a.run(ctx) }()
	select {
	case err := <-done:
		return a, err
	case <-w.all:
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		return a, err
	}
	return a, nil
}

func rowsIn(t *testing.T, b store.Bucket) (map[string]string, *table.Snapshot) {
	t.Helper()
	d := catalog.New(b).Dataset("readings")
	snap, err := d.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows, err := d.ReadRows(t.Context(), snap.Files, table.ReadQuery{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for i, x := range rows.Times {
		id := fmt.Sprint(rows.Keys[rows.KeyIndex[i]], " ", x)
		if _, twice := out[id]; twice {
			t.Errorf("row %s is there twice", id)
		}
		out[id] = fmt.Sprint(rows.Values[0][i], " ", rows.Values[1][i])
	}
	return out, snap
}

func openDir(t *testing.T) store.Bucket {
	t.Helper()
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRowsAndCompleteUntil(t *testing.T) {
	t.Parallel()
	b := openDir(t)
	h := hubtest.New(2)
	fill(t, h, 2)
	a, err := run(t, h, b)
	if err != nil {
		t.Fatal(err)
	}
	rows, snap := rowsIn(t, b)
	until, ok := catalog.CompleteUntil(snap, time.Now())
	s := a.Status()
	if !ok || until < 101*minute || until%minute != 0 || s.Partitions[0].CompleteUntil < until {
		t.Errorf("complete until %s, %v; status %+v", until, ok, s)
	}
	var counted, n int64
	for _, p := range s.Partitions {
		counted += p.Counted
		if p.Repeats == 0 || p.Late == 0 || p.OpenWindows != 0 {
			t.Errorf("the log should have repeats and late readings, and no window be left: %+v", p)
		}
	}
	for _, r := range rows {
		var sum float64
		var k int64
		if _, err := fmt.Sscan(r, &sum, &k); err != nil {
			t.Fatal(err)
		}
		n += k
	}
	if n != counted {
		t.Errorf("rows hold %d readings, %d were counted", n, counted)
	}
	late := int64(0)
	for i, err := range b.List(t.Context(), "data/readings/_late/", store.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		data, err := store.ReadAll(t.Context(), b, i.Name)
		if err != nil {
			t.Fatal(err)
		}
		late += int64(strings.Count(string(data), "\n"))
	}
	if want := s.Partitions[0].Late + s.Partitions[1].Late; late != want {
		t.Errorf("late files hold %d readings, want %d", late, want)
	}
}

// TestCrashAnywhere ends the process at each operation on the store in turn,
// before and after it was carried out, and starts again: the rows are those of a
// run without a crash.
func TestCrashAnywhere(t *testing.T) {
	t.Parallel()
	tumbling := crashAnywhere(t, config, 1, fill)
	hopping := config
	hopping.Query.SQL = strings.Replace(config.Query.SQL, "TumblingWindow(second, 5)", "HoppingWindow(second, 15, 5)", 1)
	if got := crashAnywhere(t, hopping, 1, fill); tumbling < 100 || got != 3*tumbling {
		t.Errorf("%d readings are in hopping windows, want each of %d in three", got, tumbling)
	}
}

// TestCrashInSession is TestCrashAnywhere for a query whose state lies in files.
func TestCrashInSession(t *testing.T) {
	t.Parallel()
	session := config
	session.Query.SQL = strings.Replace(config.Query.SQL, "TumblingWindow(second, 5)", "SessionWindow(second, 7, 45) OVER (PARTITION BY Device)", 1)
	if got := crashAnywhere(t, session, 1, fill); got < 50 {
		t.Errorf("only %d readings are in sessions", got)
	}
}

// crashAnywhere returns how many readings are in the rows.
func crashAnywhere(t *testing.T, config Config, partitions int, fill func(*testing.T, hub.Hub, int)) (readings int) {
	t.Helper()
	whole := openDir(t)
	h := hubtest.New(partitions)
	fill(t, h, partitions)
	if _, err := runConfig(t, config, h, whole); err != nil {
		t.Fatal(err)
	}
	want, _ := rowsIn(t, whole)
	for _, op := range []string{"put", "put done", "get"} {
		for nth, struck := 1, true; struck; nth++ {
			b := openDir(t)
			h := hubtest.New(partitions)
			fill(t, h, partitions)
			n := 0
			struck = false
			faulty := &storetest.Faulty{Bucket: b, Fail: func(o string, name fleetscore.BlobName) error {
				if struck {
					return fleetscore.Errorf(fleetscore.Internal, o, string(name), "the process is gone")
				}
				if o == op {
					n++
				}
				if n == nth && o == op {
					struck = true
					return fleetscore.Errorf(fleetscore.Internal, o, string(name), "crash")
				}
				return nil
			}}
			if _, err := runConfig(t, config, h, faulty); (err != nil) != struck {
				t.Fatalf("%s %d: struck %v, got %v", op, nth, struck, err)
			}
			if _, err := runConfig(t, config, h, b); err != nil {
				t.Fatalf("%s %d: after the crash: %v", op, nth, err)
			}
			got, _ := rowsIn(t, b)
			if d := cmp.Diff(want, got); d != "" {
				t.Fatalf("%s %d: rows (-want +got):\n%s", op, nth, d)
			}
		}
	}
	for _, r := range want {
		var sum float64
		var n int
		if _, err := fmt.Sscan(r, &sum, &n); err != nil {
			t.Fatal(err)
		}
		readings += n
	}
	return readings
}

// TestOutage: a store that is unavailable for a while only delays the query.
func TestOutage(t *testing.T) {
	t.Parallel()
	b := openDir(t)
	h := hubtest.New(1)
	fill(t, h, 1)
	failures := 0
	faulty := &storetest.Faulty{Bucket: b, Fail: func(o string, name fleetscore.BlobName) error {
		if o == "put" && failures < 4 {
			failures++
			return fleetscore.Errorf(fleetscore.Exhausted, o, string(name), "the disk is full")
		}
		return nil
	}}
	a, err := run(t, h, faulty)
	if s := a.Status().Partitions[0]; err != nil || failures != 4 || s.CompleteUntil < 101*minute {
		t.Errorf("after %d failures: %v, %+v", failures, err, s)
	}
}

// TestOtherDataset: a query never writes into a dataset that isn't its own. It stops
// and says why; once the reason is gone, Check accepts the query.
func TestOtherDataset(t *testing.T) {
	t.Parallel()
	plans, err := query.Parse(config.Query.SQL, config.Hub.Key)
	if err != nil {
		t.Fatal(err)
	}
	plan := plans[0]
	for name, c := range map[string]struct {
		schema table.TableSchema
		txn    string
		want   string // "" if the query may write
	}{
		"its own":       {schemaOf(plan), "query/q/p0/position", ""},
		"other columns": {table.DatasetSchema("TS", []string{"Device"}, []string{"Mean"}), "query/q/p0/position", "has the columns TS, Device, Mean, the query makes TS, Device, Value, N"},
		"other query":   {schemaOf(plan), "query/renamed/p0/position", "is written by query renamed"},
		"uploads":       {schemaOf(plan), "upload/0af1", "holds uploaded rows"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := openDir(t)
			tables := catalog.New(b)
			d := tables.Dataset("readings")
			if err := d.Create(t.Context(), c.schema); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Commit(t.Context(), table.Commit{Operation: "WRITE", Txns: map[string]int64{c.txn: 0}}); err != nil {
				t.Fatal(err)
			}
			err := Check(t.Context(), tables, "q", plan)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "another name") {
				t.Errorf("got %v, want a conflict: %s", err, c.want)
			}
			h := hubtest.New(1)
			fill(t, h, 1)
			a, err := New(config, Deps{Hub: h, Catalog: catalog.New(b)})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- a.Run(ctx) }()
			for a.Status().Problem == "" {
				select {
				case err := <-done:
					t.Fatalf("the query ended: %v", err)
				case <-time.After(time.Millisecond): // the status has no signal
				}
			}
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) || !strings.Contains(a.Status().Problem, c.want) {
				t.Errorf("the query ended with %v, its problem was %q", err, a.Status().Problem)
			}
			if snap, err := d.Snapshot(t.Context()); err != nil || len(snap.Files) > 0 {
				t.Errorf("it wrote %d files, %v", len(snap.Files), err)
			}
		})
	}
}
