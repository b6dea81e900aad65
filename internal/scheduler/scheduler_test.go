package scheduler

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/broker"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/fleet/syncer"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/logs"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var day = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

// world is a store with a dataset and models, a ledger, and a scheduler over them, with
// the services that it meets there.
type world struct {
	*Scheduler
	broker   *broker.Broker
	logs     *logs.Logs
	fleets   *syncer.Syncer
	t        *testing.T
	dir      string
	clock    atomic.Int64 // microseconds
	ledger   ledger.Ledger
	wrap     func(ledger.Ledger) ledger.Ledger // what the scheduler gets of the ledger; nil: all
	clockOf  func() time.Time                  // in place of clock
	image    func(context.Context, fleetscore.PoolConfig) (string, error)
	roots    store.Roots
	problems obs.Health
	stop     func()
}

func newWorld(t *testing.T, p fleetscore.PipelineConfig) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	w.set(day.Add(10 * time.Hour))
	b := w.bucket()
	for d := range 3 {
		if err := store.WriteAll(t.Context(), b, fleetscore.BlobName(fmt.Sprintf("models/m/model_%d", d)), []byte("model"), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	w.start(b)
	t.Cleanup(func() { w.stop() })
	p.Dataset, p.Fleet, p.Features, p.Pool, p.Limits.Tries = "readings", "f", []string{"Value"}, "cpu", 2
	cfg := fleetscore.Config{Hub: fleetscore.HubConfig{Key: []string{"Device"}, Time: "TS"},
		Fleets:    map[string]fleetscore.FleetConfig{"f": {Path: "models/m", Model: "model_{Device}"}},
		Pools:     map[string]fleetscore.PoolConfig{"cpu": {Provider: "local", Slots: 2, Scale: fleetscore.ScaleConfig{Max: 2}}},
		Pipelines: map[string]fleetscore.PipelineConfig{"p": p}}
	if _, err := w.ledger.PutConfig(t.Context(), time.Now(), "text", cfg); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) set(now time.Time) { w.clock.Store(now.UnixMicro()) }

func (w *world) bucket() store.Bucket {
	b, err := store.OpenDir(filepath.Join(w.dir, "store"))
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// start opens ledger and scheduler over a bucket.
func (w *world) start(b store.Bucket) {
	w.t.Helper()
	w.open()
	w.run(b)
}

// open opens the ledger.
func (w *world) open() {
	w.t.Helper()
	l, err := ledger.Open(context.Background(), filepath.Join(w.dir, "ledger.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.ledger = l
	w.stop = func() {
		if err := l.Close(); err != nil {
			w.t.Error(err)
		}
	}
}

// run runs a scheduler over the open ledger.
func (w *world) run(b store.Bucket) {
	w.t.Helper()
	used := w.ledger
	if w.wrap != nil {
		used = w.wrap(used)
	}
	now := w.clockOf
	if now == nil {
		now = func() time.Time { return time.UnixMicro(w.clock.Load()) }
	}
	fatal := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	var err error
	w.fleets, err = syncer.New(syncer.Config{Every: time.Hour}, syncer.Deps{Ledger: used, Store: b, Health: &w.problems, Now: now})
	fatal(err)
	w.Scheduler, err = New(Deps{Image: w.image, Roots: w.roots, Ledger: used, Store: b, Health: &w.problems, Now: now})
	fatal(err)
	w.loops.Look = 5 * time.Millisecond // the clock is set by the test
	w.broker, err = broker.New(broker.Config{StoreURL: "file://" + w.dir}, broker.Deps{Ledger: used, Examine: w.catalog.Examine, Health: &w.problems, Now: now})
	fatal(err)
	w.logs, err = logs.New(logs.Config{SpoolDir: filepath.Join(w.dir, "spool")}, logs.Deps{Ledger: used, Store: b, Health: &w.problems, Now: now})
	fatal(err)
	ctx, cancel := context.WithCancel(context.Background())
	var services sync.WaitGroup
	for _, run := range []func(context.Context) error{w.fleets.Run, w.Run, w.broker.Run, w.logs.Run} {
		services.Go(func() { _ = run(ctx) }) // it ends with ctx
	}
	shut := w.stop
	w.stop = func() {
		cancel()
		services.Wait()
		shut()
	}
}

// created waits until a pipeline's schedule is there.
func (w *world) created(pipeline string) {
	w.t.Helper()
	changes, stop := w.ledger.Watch(ledger.JobsTopic(pipeline))
	defer stop()
	for end := time.After(20 * time.Second); ; {
		v, err := w.ledger.Schedule(w.t.Context(), pipeline)
		if err != nil {
			w.t.Fatal(err)
		}
		if !v.State.Created.IsZero() {
			return
		}
		select {
		case <-changes:
		case <-end:
			w.t.Fatalf("the schedule of %s is never made", pipeline)
		}
	}
}

func beat(l dispatch.Lease) dispatch.HeartbeatRequest {
	return dispatch.HeartbeatRequest{Leases: []fleetscore.LeaseID{l.ID}}
}

func chunk(text string) dispatch.LogChunk {
	return dispatch.LogChunk{Stream: "stderr", Data: []byte(text)}
}

// rows adds a row per device to the dataset, stamped at the hour, and completes
// the dataset until then.
func (w *world) rows(stamp time.Time) {
	w.t.Helper()
	d := table.OpenDelta(store.Sub(w.bucket(), "data/readings"))
	if err := d.Create(w.t.Context(), table.DatasetSchema("TS", []string{"Device"}, []string{"Value"})); err != nil {
		w.t.Fatal(err)
	}
	at := fleetscore.MicrosOf(stamp)
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, ValueNames: []string{"Value"}, Keys: []fleetscore.Key{"0", "1"},
		KeyIndex: []uint32{0, 1}, Times: []fleetscore.Micros{at, at}, Values: [][]float64{{1, 2}}}
	files, err := d.WriteRows(w.t.Context(), rows, fmt.Sprint("t", at))
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := d.Commit(w.t.Context(), table.Commit{Operation: "WRITE", Add: files, Txns: map[string]int64{"upload/complete_until": int64(at)}}); err != nil {
		w.t.Fatal(err)
	}
	w.ledger.Put(ledger.DatasetTopic("readings"))
}

// wait returns the job once it is as wanted.
func (w *world) wait(id fleetscore.JobID, wanted func(fleetscore.Job) bool) fleetscore.Job {
	w.t.Helper()
	changes, stop := w.ledger.Watch(ledger.JobTopic(id))
	defer stop()
	for end := time.After(20 * time.Second); ; {
		j, err := w.ledger.Job(w.t.Context(), id)
		if err != nil {
			w.t.Fatal(err)
		}
		if wanted(j) {
			return j
		}
		select {
		case <-changes:
		case <-end:
			w.t.Fatalf("job stays %s (%s)", j.State, j.Reason)
		}
	}
}

func ended(j fleetscore.Job) bool { return j.State.Ended() }

// lease registers a node and gets a task for it.
func (w *world) lease(node fleetscore.NodeID) dispatch.Lease {
	w.t.Helper()
	if _, err := w.broker.Register(w.t.Context(), dispatch.Hello{Node: node, Pool: "cpu", Slots: 1}); err != nil {
		w.t.Fatal(err)
	}
	reply, err := w.broker.Lease(w.t.Context(), node, dispatch.LeaseRequest{Free: 1, Wait: fleetscore.Duration(20 * time.Second)})
	if err != nil || len(reply.Leases) != 1 {
		w.t.Fatalf("lease: %+v, %v", reply, err)
	}
	return reply.Leases[0]
}

// score does what a node does, with a model that says 1 for everything but for keys
// that fail.
func (w *world) score(l dispatch.Lease, failing ...fleetscore.Key) dispatch.Result {
	w.t.Helper()
	ctx, b := w.t.Context(), w.bucket()
	pack, err := fleet.OpenPack(ctx, b, l.Fleet, l.Generation, l.Shards)
	if err != nil {
		w.t.Fatal(err)
	}
	defer pack.Close()
	expected := fleetscore.Without(pack.Keys(), l.Except)
	if len(l.Keys) > 0 {
		expected = l.Keys
	}
	rows, err := table.OpenDelta(store.Sub(b, "data/"+l.Dataset)).ReadRows(ctx, l.Files, table.ReadQuery{Interval: &l.Interval, Shards: &l.Shards,
		Keys: slices.DeleteFunc(slices.Clone(expected), func(k fleetscore.Key) bool { return slices.Contains(failing, k) })})
	if err != nil {
		w.t.Fatal(err)
	}
	p := &fleetscore.Predictions{Rows: *rows, Models: make([]fleetscore.Digest, len(rows.Keys))}
	r := dispatch.Result{Outcomes: fleetscore.Counts{}, Rows: int64(rows.Len()), Anomalies: int64(rows.Len())}
	for range rows.Times {
		p.Prediction, p.Score = append(p.Prediction, 1), append(p.Score, -1)
	}
	var items []fleetscore.Item
	for _, k := range expected {
		item := fleetscore.Item{Key: k, Outcome: fleetscore.NoData}
		if slices.Contains(rows.Keys, k) {
			item.Outcome, item.Rows = fleetscore.Scored, 1
		}
		if slices.Contains(failing, k) {
			item.Outcome, item.Reason = fleetscore.Failed, "the model is broken"
		}
		items = append(items, item)
		r.Outcomes[item.Outcome]++
	}
	if rows.Len() > 0 {
		if r.Predictions, err = catalog.New(b).Predictions(l.Pipeline).WritePredictions(ctx, p, l.Job, l.Revision); err != nil {
			w.t.Fatal(err)
		}
	}
	if r.Coverage, err = catalog.New(b).Coverage(l.Pipeline).WriteItems(ctx, items, l.KeyNames, l.Job, l.Interval); err != nil {
		w.t.Fatal(err)
	}
	return r
}

// visible lists what readers see of the predictions and the coverage.
func (w *world) visible() (out []string) {
	w.t.Helper()
	ctx := w.t.Context()
	d := catalog.New(w.bucket()).Predictions("p")
	if snap, err := d.Snapshot(ctx); err == nil {
		p, err := d.ReadPredictions(ctx, snap.Files, table.ReadQuery{})
		if err != nil {
			w.t.Fatal(err)
		}
		for i, x := range p.Times {
			out = append(out, fmt.Sprintf("%s %s %v", x.Time().Format("15:04"), p.Keys[p.KeyIndex[i]], p.Prediction[i]))
		}
	}
	c := catalog.New(w.bucket()).Coverage("p")
	if snap, err := c.Snapshot(ctx); err == nil {
		items, err := c.ReadItems(ctx, snap.Files, catalog.ItemQuery{})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, i := range items {
			out = append(out, fmt.Sprintf("%s %s %s", i.Interval.To.Format("15:04"), i.Key, i.Outcome))
		}
	}
	slices.Sort(out)
	return out
}

var oneHour = []string{"09:00 0 1", "09:00 0 scored", "09:00 1 1", "09:00 1 scored", "09:00 2 no_data"}

func TestJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	if _, err := w.Submit(t.Context(), "p", nil); !fleetscore.Conflict.Is(err) {
		t.Errorf("a job before there are rows: %v", err)
	}
	w.rows(day.Add(9 * time.Hour))
	j, err := w.Submit(t.Context(), "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	l := w.lease("n1")
	hello := []byte("hello\n")
	for _, c := range []dispatch.LogChunk{{Stream: "stderr", Data: hello}, {Stream: "stderr", Data: hello}, {Stream: "stderr", Offset: 3, Data: []byte("lo\nworld\n")}} {
		if err := w.logs.AppendLog(t.Context(), l.ID, c); err != nil {
			t.Error(err)
		}
	}
	if err := w.logs.AppendLog(t.Context(), l.ID, dispatch.LogChunk{Stream: "stderr", Offset: 99, Data: hello}); !fleetscore.Conflict.Is(err) {
		t.Errorf("a chunk after a gap: %v", err)
	}
	r := w.score(l)
	bad := r
	bad.Outcomes = fleetscore.Counts{fleetscore.Scored: 2}
	if err := w.broker.Complete(t.Context(), l.ID, bad); !fleetscore.Invalid.Is(err) {
		t.Errorf("a result that leaves a sensor out: %v", err)
	}
	for range 2 { // the first answer may be lost
		if err := w.broker.Complete(t.Context(), l.ID, r); err != nil {
			t.Fatal(err)
		}
	}
	got := w.wait(j.ID, ended)
	if got.State != fleetscore.JobSucceeded || got.Rows != 2 || got.Anomalies != 2 || got.Expected != 3 || got.Outcomes[fleetscore.NoData] != 1 {
		t.Errorf("job %+v", got)
	}
	if d := cmp.Diff(oneHour, w.visible()); d != "" {
		t.Errorf("visible (-want +got):\n%s", d)
	}
	logs, err := w.logs.List(t.Context(), j.ID)
	if err != nil || len(logs) != 1 || logs[0].SizeBytes != 12 || logs[0].State != "succeeded" {
		t.Fatalf("logs %+v, %v", logs, err)
	}
	f, err := w.logs.Open(t.Context(), j.ID, 0, 1, "stderr", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text, err := io.ReadAll(f); err != nil || string(text) != "hello\nworld\n" {
		t.Errorf("log %q, %v", text, err)
	}
	if err := w.logs.AppendLog(t.Context(), l.ID, dispatch.LogChunk{Stream: "stdout", Data: hello}); !fleetscore.Conflict.Is(err) {
		t.Errorf("a log after the end: %v", err)
	}
	if _, err := w.Submit(t.Context(), "p", nil); !fleetscore.Conflict.Is(err) {
		t.Errorf("a second job over the same rows: %v", err)
	}
	again, err := w.Submit(t.Context(), "p", &j.Interval)
	if err != nil {
		t.Fatal(err)
	}
	l = w.lease("n1")
	if err := w.broker.Complete(t.Context(), l.ID, w.score(l)); err != nil {
		t.Fatal(err)
	}
	w.wait(again.ID, ended)
	if d := cmp.Diff(oneHour, w.visible()); d != "" {
		t.Errorf("after a rerun, visible (-want +got):\n%s", d)
	}
}

// TestLosses: a lost node uses up no try and its late answer is refused; reported
// errors use them up, and the sensors of the task have an outcome all the same.
func TestLosses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.rows(day.Add(9 * time.Hour))
	j, err := w.Submit(t.Context(), "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	old := w.lease("n1")
	w.set(day.Add(10*time.Hour + time.Minute))
	l := w.lease("n2")
	if old.Task != l.Task || l.Attempt != 2 {
		t.Errorf("leased %+v after %+v was lost", l, old)
	}
	if err := w.broker.Complete(t.Context(), old.ID, w.score(old)); !fleetscore.Conflict.Is(err) {
		t.Errorf("the late answer: %v", err)
	}
	if _, err := w.broker.Heartbeat(t.Context(), "n1", dispatch.HeartbeatRequest{Leases: []fleetscore.LeaseID{old.ID}}); !fleetscore.NotFound.Is(err) {
		t.Errorf("heartbeat of a lost node: %v", err)
	}
	for try := range 2 {
		if err := w.broker.Complete(t.Context(), l.ID, dispatch.Result{Error: "no luck"}); err != nil {
			t.Fatal(err)
		}
		if try == 0 {
			w.set(day.Add(10*time.Hour + 2*time.Minute))
			l = w.lease("n2")
		}
	}
	got := w.wait(j.ID, ended)
	if got.State != fleetscore.JobFailed || got.Outcomes[fleetscore.Failed] != 3 {
		t.Errorf("job %+v", got)
	}
	if d := cmp.Diff([]string{"09:00 0 failed", "09:00 1 failed", "09:00 2 failed"}, w.visible()); d != "" {
		t.Errorf("visible (-want +got):\n%s", d)
	}
}

func TestScheduleWaitsForData(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{Schedule: fleetscore.ScheduleConfig{Cron: "0 * * * *", Backfill: fleetscore.Duration(2 * time.Hour)}})
	w.rows(day.Add(9 * time.Hour))
	var first fleetscore.Job
	due := func(after fleetscore.JobID) fleetscore.Job {
		t.Helper()
		changes, stop := w.ledger.Watch(ledger.AnyJobs)
		defer stop()
		for end := time.After(20 * time.Second); ; {
			jobs, err := w.ledger.Jobs(t.Context(), ledger.JobFilter{})
			if err != nil {
				t.Fatal(err)
			}
			if len(jobs) > 0 && jobs[0].ID != after {
				return jobs[0]
			}
			select {
			case <-changes:
			case <-end:
				t.Fatal("no job is made")
			}
		}
	}
	w.created("p")                             // at 10:00 by the first look
	w.set(day.Add(12*time.Hour + time.Minute)) // two due times at once: 11:00 and 12:00
	first = due("")
	if want := (fleetscore.Interval{From: day.Add(8 * time.Hour), To: day.Add(12 * time.Hour)}); first.Interval != want {
		t.Errorf("interval %s, want %s", first.Interval, want)
	}
	w.wait(first.ID, func(j fleetscore.Job) bool {
		return j.State == fleetscore.JobWaiting && j.Reason == "waits for dataset readings to be complete until 2026-11-23T12:00:00Z; it is complete until 2026-11-23T09:00:00Z; "+
			"no query writes it: 'fleetscore dataset upload readings FILE' sends its rows, and with '--complete-until 2026-11-23T12:00:00Z' says that these are all up to then; it waits without limit, as the pipeline has no schedule.deadline"
	})
	w.rows(day.Add(12 * time.Hour))
	l := w.lease("n1")
	if err := w.broker.Complete(t.Context(), l.ID, w.score(l)); err != nil {
		t.Fatal(err)
	}
	w.wait(first.ID, ended)
	w.set(day.Add(13*time.Hour + time.Second))
	second := due(first.ID)
	if want := (fleetscore.Interval{From: day.Add(12 * time.Hour), To: day.Add(13 * time.Hour)}); second.Interval != want {
		t.Errorf("interval %s, want %s", second.Interval, want)
	}
	if _, err := w.Cancel(t.Context(), second.ID); err != nil {
		t.Error(err)
	}
	occs, err := w.ledger.Occurrences(t.Context(), "p", 10)
	if err != nil || len(occs) != 3 || occs[2].State != fleetscore.OccurrenceCoalesced || occs[2].Job != first.ID || occs[1].Job != first.ID {
		t.Errorf("occurrences %+v, %v", occs, err)
	}
}

// TestPoolTakenAway: a job whose pool was taken out of the configuration says what
// it waits for, until the pool is back.
func TestPoolTakenAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.rows(day.Add(9 * time.Hour))
	j, err := w.Submit(t.Context(), "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.wait(j.ID, func(j fleetscore.Job) bool { return j.State == fleetscore.JobQueued })
	cfg, _, _, err := w.ledger.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ pool, want string }{{"other", "waits without limit for pool cpu"}, {"cpu", ""}} {
		cfg.Pools = map[string]fleetscore.PoolConfig{c.pool: {Provider: "local", Slots: 1}}
		if _, err := w.ledger.PutConfig(t.Context(), time.Now(), "text "+c.pool, cfg); err != nil {
			t.Fatal(err)
		}
		w.wait(j.ID, func(j fleetscore.Job) bool {
			return j.State == fleetscore.JobQueued && strings.HasPrefix(j.Reason, c.want) && (c.want != "" || j.Reason == "")
		})
	}
	l := w.lease("n1")
	if err := w.broker.Complete(t.Context(), l.ID, w.score(l)); err != nil {
		t.Fatal(err)
	}
	w.wait(j.ID, ended)
}

// crash ends the process at the nth operation of a kind on the store while it commits a
// job's last result, and starts it again. It tells whether there were so many.
func (w *world) crash(job fleetscore.JobID, l dispatch.Lease, r dispatch.Result, op string, nth int) (struck bool) {
	w.t.Helper()
	w.stop()
	n := 0
	crash := make(chan struct{})
	var mu sync.Mutex // guards n and struck
	w.start(&storetest.Faulty{Bucket: w.bucket(), Fail: func(o string, name fleetscore.BlobName) error {
		mu.Lock()
		defer mu.Unlock()
		if struck || o == op {
			n++
		}
		if struck || o == op && n == nth {
			if !struck {
				struck = true
				close(crash)
			}
			return fleetscore.Errorf(fleetscore.Unavailable, o, string(name), "the process is gone")
		}
		return nil
	}})
	if err := w.broker.Complete(w.t.Context(), l.ID, r); err != nil {
		w.t.Fatal(err)
	}
	changes, stop := w.ledger.Watch(ledger.AnyJobs)
	for over := false; !over; {
		select {
		case <-crash:
			over = true
		case <-changes:
			got, err := w.ledger.Job(w.t.Context(), job)
			over = err != nil || got.State.Ended()
		}
	}
	stop()
	w.stop()
	w.start(w.bucket())
	return struck
}

// TestCrashWhileCommitting ends the server at each write of a commit in turn: the
// next one ends the job with the same result.
func TestCrashWhileCommitting(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"put", "put done"} {
		for nth, struck := 1, true; struck; nth++ {
			w := newWorld(t, fleetscore.PipelineConfig{})
			w.rows(day.Add(9 * time.Hour))
			j, err := w.Submit(t.Context(), "p", nil)
			if err != nil {
				t.Fatal(err)
			}
			l := w.lease("n1")
			r := w.score(l)
			struck = w.crash(j.ID, l, r, op, nth)
			if got := w.wait(j.ID, ended); got.State != fleetscore.JobSucceeded || got.Rows != 2 {
				t.Errorf("%s %d: job %+v", op, nth, got)
			}
			if d := cmp.Diff(oneHour, w.visible()); d != "" {
				t.Errorf("%s %d: visible (-want +got):\n%s", op, nth, d)
			}
			w.stop()
			w.stop = func() {}
		}
	}
}
