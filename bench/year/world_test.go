// Package year simulates a year of jobs with a simulated clock. It counts the files and rows of
// the system, measures how long opening, committing, leasing and pages take, and compares them
// with the first day. The package has only tests. "make year" runs the long form.
package year

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/broker"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/fleet/syncer"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/logs"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/portal"
	"github.com/fleetscore/fleetscore/internal/scheduler"
	"github.com/fleetscore/fleetscore/internal/sensor"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// The names of the dataset, the pipeline and the node.
const (
	dataset  = "readings"
	pipeline = "p"
	node     = fleetscore.NodeID("n1")
)

var keyNames = []string{"Device", "Tag"}

// plan describes a simulation.
type plan struct {
	sensors            int
	step               time.Duration // the time from job to job
	retention, history time.Duration // 0 means the configuration's defaults
	first              int           // the number of jobs of the first day, which are measured
	before, ledger     time.Duration // how much time is filled in, in the tables and in the ledger, before the next jobs
	then               time.Duration // how long jobs run after that
	compared           int           // how many jobs follow then, beside those of a young system
	careless           bool          // the store's disk isn't synced
}

// world holds the parts of a server: store, ledger, catalog, scheduler and portal.
type world struct {
	t     *testing.T
	plan  plan
	dir   string
	clock atomic.Int64 // microseconds
	hook  func(op string, name fleetscore.BlobName)

	bucket store.Bucket
	ledger *ledger.SQLite
	tables *catalog.Catalog
	fleets *syncer.Syncer
	sched  *scheduler.Scheduler
	broker *broker.Broker
	logs   *logs.Logs
	portal http.Handler
	stop   func()

	nodes *catalog.Catalog // the node's own catalog, with the tables that it has opened
	jobs  int

	maintained time.Time
	spent      spent
	work       work // of the store until now
}

// spent holds the durations of each operation, one for each job, and what the store had
// to do for each job and for each maintenance.
type spent struct {
	lease, commit, whole, overview, job, sensor []time.Duration
	jobs, upkeep                                []effort
}

// effort is what a store had to do: how often it was called, how many names it listed,
// and how many bytes were read. work counts that.
type (
	effort struct{ Calls, Listed, Bytes int64 }
	work   struct{ calls, listed, bytes atomic.Int64 }
)

func (w *work) now() effort { return effort{w.calls.Load(), w.listed.Load(), w.bytes.Load()} }

func (e effort) since(b effort) effort {
	return effort{e.Calls - b.Calls, e.Listed - b.Listed, e.Bytes - b.Bytes}
}

func newWorld(t *testing.T, p plan) *world {
	t.Helper()
	w := &world{t: t, plan: p, dir: t.TempDir()}
	w.clock.Store(time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC).UnixMicro())
	for s := range p.sensors {
		name := filepath.Join(w.dir, "store", "models", "m", fmt.Sprintf("model_%d_a", s))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("model"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	t.Cleanup(func() { w.stop() })
	cfg := fleetscore.Config{Hub: fleetscore.HubConfig{Key: keyNames, Time: "TS"},
		Datasets: map[string]fleetscore.DatasetConfig{dataset: {Retention: fleetscore.Duration(p.retention)}},
		Fleets:   map[string]fleetscore.FleetConfig{"f": {Path: "models/m", Model: "model_{Device}_{Tag}", Sync: fleetscore.Duration(365 * 24 * time.Hour)}},
		Pools:    map[string]fleetscore.PoolConfig{"cpu": {Provider: "local", Slots: 2, Scale: fleetscore.ScaleConfig{Max: 2}}},
		Pipelines: map[string]fleetscore.PipelineConfig{pipeline: {Dataset: dataset, Fleet: "f", Features: []string{"Value"}, Pool: "cpu",
			Limits: fleetscore.LimitsConfig{Tries: 2}, Retention: fleetscore.Duration(p.retention), History: fleetscore.Duration(p.history)}}}
	if _, err := w.ledger.PutConfig(t.Context(), time.Now(), "text", cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := w.fleets.Sync(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) now() time.Time { return time.UnixMicro(w.clock.Load()).UTC() }

// aged is the store's folder, with blobs whose times come from the world's clock. It
// counts what it does.
type aged struct {
	store.Bucket
	w *world
}

func (a *aged) Get(ctx context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error) {
	a.w.work.calls.Add(1)
	r, err := a.Bucket.Get(ctx, name, offset, length)
	if err != nil {
		return nil, err
	}
	return &counted{r, &a.w.work.bytes}, nil
}

// counted counts the bytes that are read.
type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (a *aged) List(ctx context.Context, prefix string, opt store.ListOptions) iter.Seq2[store.Info, error] {
	a.w.work.calls.Add(1)
	return func(yield func(store.Info, error) bool) {
		for i, err := range a.Bucket.List(ctx, prefix, opt) {
			a.w.work.listed.Add(1)
			if !yield(i, err) {
				return
			}
		}
	}
}

func (a *aged) Put(ctx context.Context, name fleetscore.BlobName, body io.Reader, opt store.PutOptions) (store.Info, error) {
	a.w.work.calls.Add(1)
	info, err := a.Bucket.Put(ctx, name, body, opt)
	if err == nil {
		now := a.w.now()
		if err = os.Chtimes(filepath.Join(a.w.dir, "store", string(name)), now, now); err == nil && a.w.hook != nil {
			a.w.hook("put", name)
		}
	}
	return info, err
}

func (a *aged) Delete(ctx context.Context, name fleetscore.BlobName) error {
	a.w.work.calls.Add(1)
	err := a.Bucket.Delete(ctx, name)
	if err == nil && a.w.hook != nil {
		a.w.hook("delete", name)
	}
	return err
}

// start opens everything, as a server does.
func (w *world) start() {
	w.t.Helper()
	fatal := func(err error) {
		if err != nil {
			w.t.Fatal(err)
		}
	}
	dir, err := store.OpenDirOn(filepath.Join(w.dir, "store"), func(d durable.Disk) durable.Disk {
		if w.plan.careless {
			return careless{d}
		}
		return d
	})
	fatal(err)
	w.bucket = &aged{dir, w}
	w.ledger, err = ledger.Open(w.t.Context(), filepath.Join(w.dir, "ledger.db"))
	fatal(err)
	w.tables = catalog.NewReporting(w.bucket, nil, w.now)
	w.nodes = catalog.New(w.bucket)
	w.fleets, err = syncer.New(syncer.Config{}, syncer.Deps{Ledger: w.ledger, Store: w.bucket, Now: w.now})
	fatal(err)
	w.sched, err = scheduler.New(scheduler.Deps{Ledger: w.ledger, Store: w.bucket, Catalog: w.tables, Now: w.now})
	fatal(err)
	w.broker, err = broker.New(broker.Config{}, broker.Deps{Ledger: w.ledger, Now: w.now})
	fatal(err)
	w.logs, err = logs.New(logs.Config{SpoolDir: filepath.Join(w.dir, "spool")}, logs.Deps{Ledger: w.ledger, Store: w.bucket, Now: w.now})
	fatal(err)
	control, err := access.Open(w.t.Context(), access.Config{Open: true}, access.Deps{})
	fatal(err)
	idle, err := sensor.New(sensor.Deps{}) // it doesn't run, because it reads the tables by the clock of this machine
	fatal(err)
	w.portal, err = portal.New(portal.Deps{Access: control, Ledger: w.ledger, Logs: w.logs, Store: w.bucket, Catalog: w.tables, Sensors: idle, Now: w.now, Health: &obs.Health{},
		Queries: func() []aggregator.Status { return []aggregator.Status{{Query: "q", Dataset: dataset}} }, Gateway: func() gateway.Stats { return gateway.Stats{} }})
	fatal(err)
	ctx, cancel := context.WithCancel(context.Background())
	var services sync.WaitGroup
	for _, run := range []func(context.Context) error{w.fleets.Run, w.sched.Run, w.broker.Run, w.logs.Run} {
		services.Go(func() { _ = run(ctx) }) // it ends with ctx
	}
	w.stop = func() {
		cancel()
		services.Wait()
		if err := w.ledger.Close(); err != nil {
			w.t.Error(err)
		}
		if err := dir.Close(); err != nil {
			w.t.Error(err)
		}
	}
}

// rowsAt returns rows of all sensors at some times.
func rowsAt(sensors int, stamps ...time.Time) *fleetscore.Rows {
	r := &fleetscore.Rows{TimeName: "TS", KeyNames: keyNames, ValueNames: []string{"Value"}, Values: make([][]float64, 1)}
	for s := range sensors {
		r.Keys = append(r.Keys, fleetscore.Key(fmt.Sprintf("%d\x1fa", s)))
		for n, at := range stamps {
			r.KeyIndex, r.Times, r.Values[0] = append(r.KeyIndex, uint32(s)), append(r.Times, fleetscore.MicrosOf(at)), append(r.Values[0], float64(s+n))
		}
	}
	return r
}

// minute commits the next rows, as an aggregator would.
func (w *world) minute() (to time.Time) {
	w.t.Helper()
	to = w.now().Add(w.plan.step)
	w.clock.Store(to.UnixMicro())
	ctx, d := w.t.Context(), w.tables.Dataset(dataset)
	if err := d.Create(ctx, table.DatasetSchema("TS", keyNames, []string{"Value"})); err != nil {
		w.t.Fatal(err)
	}
	files, err := d.WriteRows(ctx, rowsAt(w.plan.sensors, to), fmt.Sprint(to.Unix()))
	if err != nil {
		w.t.Fatal(err)
	}
	txns := map[string]int64{"query/q/p0/position": to.Unix(), "query/q/p0/complete_until": to.UnixMicro(), "query/q/partitions": 1}
	if _, err := d.Commit(ctx, table.Commit{Operation: "STREAMING UPDATE", Add: files, Txns: txns}); err != nil {
		w.t.Fatal(err)
	}
	return to
}

// carryOut lets a minute pass: rows arrive, a job scores them, pages are opened, and
// every ten minutes the tables are maintained.
func (w *world) carryOut() {
	w.t.Helper()
	ctx, to, before := w.t.Context(), w.minute(), w.work.now()
	begun := time.Now()
	j, err := w.sched.Submit(ctx, pipeline, &fleetscore.Interval{From: to.Add(-w.plan.step), To: to})
	if err != nil {
		w.t.Fatal(err)
	}
	changes, stop := w.ledger.Watch(ledger.JobTopic(j.ID))
	defer stop()
	if _, err := w.broker.Register(ctx, dispatch.Hello{Node: node, Pool: "cpu", Slots: 64}); err != nil {
		w.t.Fatal(err)
	}
	var scoring time.Duration
	var last time.Time
	for left := -1; left != 0; {
		asked := time.Now()
		reply, err := w.broker.Lease(ctx, node, dispatch.LeaseRequest{Free: 64, Wait: fleetscore.Duration(20 * time.Second)})
		if err != nil || len(reply.Leases) == 0 {
			w.t.Fatal(reply, err)
		}
		if left < 0 {
			if j, err = w.ledger.Job(ctx, j.ID); err != nil {
				w.t.Fatal(err)
			}
			left = j.Tasks
			w.spent.lease = append(w.spent.lease, time.Since(asked))
		}
		for _, l := range reply.Leases {
			at := time.Now()
			r := w.score(l)
			scoring += time.Since(at)
			last = time.Now()
			if err := w.broker.Complete(ctx, l.ID, r); err != nil {
				w.t.Fatal(err)
			}
			left--
		}
	}
	for end := time.After(20 * time.Second); !j.State.Ended(); {
		select {
		case <-changes:
		case <-end:
			w.t.Fatalf("job %s is %s: %s", j.ID, j.State, j.Reason)
		}
		if j, err = w.ledger.Job(ctx, j.ID); err != nil {
			w.t.Fatal(err)
		}
	}
	w.spent.commit = append(w.spent.commit, time.Since(last))
	w.spent.whole = append(w.spent.whole, time.Since(begun)-scoring)
	if j.State != fleetscore.JobSucceeded {
		w.t.Fatalf("job %s is %s: %s", j.ID, j.State, j.Reason)
	}
	w.jobs++
	w.look(j)
	w.spent.jobs = append(w.spent.jobs, w.work.now().since(before))
	if w.now().Sub(w.maintained) >= 10*time.Minute {
		w.maintain()
	}
}

// look opens pages.
func (w *world) look(j fleetscore.Job) {
	w.t.Helper()
	get := func(path string) time.Duration {
		at := time.Now()
		rec := httptest.NewRecorder()
		w.portal.ServeHTTP(rec, httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, path, nil))
		if rec.Code != http.StatusOK {
			w.t.Fatalf("%s: %d\n%s", path, rec.Code, rec.Body)
		}
		return time.Since(at)
	}
	w.spent.overview = append(w.spent.overview, get("/"))
	w.spent.job = append(w.spent.job, get("/jobs/"+string(j.ID)))
	w.spent.sensor = append(w.spent.sensor, get("/sensors/"+pipeline+"?key=1&key=a"))
}

// score does a node's work, with models that find no anomalies.
func (w *world) score(l dispatch.Lease) dispatch.Result {
	w.t.Helper()
	ctx := w.t.Context()
	fatal := func(err error) {
		if err != nil {
			w.t.Fatal(err)
		}
	}
	if l.Index == 0 || w.plan.sensors > 500 {
		fatal(w.logs.AppendLog(ctx, l.ID, dispatch.LogChunk{Stream: "stderr", Data: []byte("scored\n")}))
	}
	pack, err := fleet.OpenPack(ctx, w.bucket, l.Fleet, l.Generation, l.Shards)
	fatal(err)
	defer pack.Close()
	rows, err := w.nodes.Dataset(l.Dataset).ReadRows(ctx, l.Files, table.ReadQuery{Interval: &l.Interval, Shards: &l.Shards})
	fatal(err)
	p := predictionsOf(rows)
	r := dispatch.Result{Outcomes: fleetscore.Counts{}, Rows: int64(rows.Len())}
	items := itemsOf(pack.Keys(), rows)
	for _, i := range items {
		r.Outcomes[i.Outcome]++
	}
	r.Predictions, err = w.nodes.Predictions(l.Pipeline).WritePredictions(ctx, p, l.Job, l.Revision)
	fatal(err)
	r.Coverage, err = w.nodes.Coverage(l.Pipeline).WriteItems(ctx, items, l.KeyNames, l.Job, l.Interval)
	fatal(err)
	return r
}

func predictionsOf(rows *fleetscore.Rows) *fleetscore.Predictions {
	return &fleetscore.Predictions{Rows: *rows, Models: make([]fleetscore.Digest, len(rows.Keys)), Prediction: make([]float64, rows.Len()), Score: make([]float64, rows.Len())}
}

func itemsOf(keys []fleetscore.Key, rows *fleetscore.Rows) (items []fleetscore.Item) {
	for _, k := range keys {
		i := fleetscore.Item{Key: k, Outcome: fleetscore.NoData}
		if slices.Contains(rows.Keys, k) {
			i.Outcome, i.Rows = fleetscore.Scored, 1
		}
		items = append(items, i)
	}
	return items
}

// maintain does the maintenance that the server does every ten minutes.
func (w *world) maintain() {
	w.t.Helper()
	before := w.work.now()
	done, err := w.sched.Maintain(w.t.Context(), catalog.Maintenance{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range done {
		if m.Problem != "" {
			w.t.Fatalf("%s: %s", m.Table, m.Problem)
		}
	}
	w.maintained = w.now()
	w.spent.upkeep = append(w.spent.upkeep, w.work.now().since(before))
}
