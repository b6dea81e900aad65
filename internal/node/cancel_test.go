package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// canceler gives out one lease, and takes it back as soon as its first model scores.
type canceler struct {
	deafOnce
	lease     dispatch.Lease
	scoring   chan struct{} // closed when a model scores
	given     bool
	mu        sync.Mutex // guards what follows
	completed bool
	result    dispatch.Result
}

func (c *canceler) Lease(ctx context.Context, _ fleetscore.NodeID, _ dispatch.LeaseRequest) (dispatch.LeaseReply, error) {
	if c.given {
		return dispatch.LeaseReply{Stop: true}, nil
	}
	c.given = true
	return dispatch.LeaseReply{Leases: []dispatch.Lease{c.lease}}, nil
}

func (c *canceler) Heartbeat(_ context.Context, _ fleetscore.NodeID, r dispatch.HeartbeatRequest) (dispatch.HeartbeatReply, error) {
	select {
	case <-c.scoring:
		return dispatch.HeartbeatReply{Revoked: r.Leases}, nil
	default:
		return dispatch.HeartbeatReply{}, nil
	}
}

func (c *canceler) AppendLog(context.Context, fleetscore.LeaseID, dispatch.LogChunk) error {
	return nil
}

func (c *canceler) Complete(_ context.Context, _ fleetscore.LeaseID, r dispatch.Result) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.completed, c.result = true, r
	return nil
}

// slow is a runtime whose only model takes until the end of its context.
type slow struct {
	scoring chan struct{}
	loaded  int
}

func (s *slow) Worker() (scorer.Worker, error)                     { return s, nil }
func (s *slow) Load(context.Context, []byte) (scorer.Model, error) { s.loaded++; return s, nil }
func (s *slow) Close()                                             {}
func (s *slow) Traits() scorer.Traits                              { return scorer.Traits{} }
func (s *slow) HasFeatureNames([]string) bool                      { return true }
func (s *slow) FeatureNames() []string                             { return nil }
func (s *slow) Predict(ctx context.Context, _ time.Time, _ [][]float64, _, _ []float64) error {
	close(s.scoring) // a second model would panic
	<-ctx.Done()
	return ctx.Err()
}

// threeSensors is a store with a dataset of three sensors and their models, and a lease to
// score them.
func threeSensors(t *testing.T) (store.Bucket, dispatch.Lease) {
	t.Helper()
	ctx, dir := t.Context(), t.TempDir()
	b, err := store.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	model, err := os.ReadFile(filepath.Join(testkit.Root(t), "sklearn", "testdata", "1.9.1", "one.p5.pickle"))
	if err != nil {
		t.Fatal(err)
	}
	keys := []fleetscore.Key{"0", "1", "2"}
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, ValueNames: []string{"Value"}, Keys: keys,
		KeyIndex: []uint32{0, 1, 2}, Times: []fleetscore.Micros{1, 1, 1}, Values: [][]float64{{1, 2, 3}}}
	for _, k := range keys {
		if err := store.WriteAll(ctx, b, fleetscore.BlobName("models/f/model_"+string(k)), model, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	spec, err := fleet.SpecOf("f", fleetscore.FleetConfig{Path: "models/f", Model: "model_{Device}"}, rows.KeyNames)
	if err != nil {
		t.Fatal(err)
	}
	change, err := fleet.Sync(ctx, store.Sub(b, "models/f"), fleet.PackFolder(b, "f"), spec, fleet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	data := catalog.New(b).Dataset("d")
	if err := data.Create(ctx, table.DatasetSchema("TS", rows.KeyNames, rows.ValueNames)); err != nil {
		t.Fatal(err)
	}
	files, err := data.WriteRows(ctx, rows, "rows")
	if err != nil {
		t.Fatal(err)
	}
	return b, dispatch.Lease{ID: "l", Task: "j.000", Job: "j", Pipeline: "p", Attempt: 1, Shards: fleetscore.AllShards,
		Interval: fleetscore.Interval{From: time.UnixMicro(0), To: time.UnixMicro(2)}, Dataset: "d", Files: files, TimeName: "TS", KeyNames: rows.KeyNames,
		Features: []string{"Value"}, Fleet: "f", Generation: change.Generation.ID, Store: "file://" + filepath.ToSlash(dir)}
}

// TestCanceledWorkStops: when a lease is taken back, as it is when its job is
// canceled, the scorer stops within the model that it scores, and takes up no other.
func TestCanceledWorkStops(t *testing.T) {
	t.Parallel()
	b, lease := threeSensors(t)
	runtime := &slow{scoring: make(chan struct{})}
	server := &canceler{scoring: runtime.scoring, lease: lease}
	n, err := New(Config{Hello: dispatch.Hello{Node: "n", Pool: "cpu", Slots: 1}, Heartbeat: 10 * time.Millisecond, Workers: 1},
		Deps{Server: server, Runtime: runtime, OpenStore: func(context.Context, string) (store.Bucket, error) { return b, nil }})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if runtime.loaded != 1 || server.completed {
		t.Errorf("%d models were loaded, the result was delivered: %v; want 1 and no result", runtime.loaded, server.completed)
	}
}

// TestOnlyNamedKeys: a lease that names keys, as a rerun's does, is for these alone; a
// named key that the fleet doesn't expect has an outcome too. In a container, the outcomes of
// models say in which image.
func TestOnlyNamedKeys(t *testing.T) {
	t.Parallel()
	b, lease := threeSensors(t)
	lease.Keys, lease.Image = []fleetscore.Key{"1", "9"}, "box@1"
	c := catalog.New(b)
	if err := errors.Join(c.Predictions("p").Create(t.Context(), catalog.PredictionSchema("TS", lease.KeyNames, lease.Features)),
		c.Coverage("p").Create(t.Context(), catalog.ItemSchema(lease.KeyNames))); err != nil {
		t.Fatal(err)
	}
	server := &canceler{scoring: make(chan struct{}), lease: lease}
	n, err := New(Config{Hello: dispatch.Hello{Node: "n", Pool: "cpu", Slots: 1}, Workers: 1},
		Deps{Server: server, OpenStore: func(context.Context, string) (store.Bucket, error) { return b, nil }})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := fleetscore.Counts{fleetscore.Scored: 1, fleetscore.NoData: 1}
	if d := cmp.Diff(want, server.result.Outcomes); d != "" || server.result.Rows != 1 || server.result.Error != "" {
		t.Errorf("result %+v, want %v of 1 row", server.result, want)
	}
	items, err := c.Coverage("p").ReadItems(t.Context(), server.result.Coverage, catalog.ItemQuery{})
	if err != nil || len(items) != 2 || items[0].Image != "box@1" || items[1].Image != "" {
		t.Errorf("the coverage names the image of the container for other keys than that whose model was asked: %+v, %v", items, err)
	}
}

// endless is a model that never ends, whatever becomes of its task.
type endless struct {
	slow
	end chan struct{} // closed when the test is over
}

func (e *endless) Worker() (scorer.Worker, error)                     { return e, nil }
func (e *endless) Load(context.Context, []byte) (scorer.Model, error) { return e, nil }
func (e *endless) Predict(context.Context, time.Time, [][]float64, []float64, []float64) error {
	close(e.scoring)
	<-e.end
	return nil
}

// TestStuck: a node that can't end a task whose lease was taken back says so, once it has
// waited for a while, as its process has to be ended.
func TestStuck(t *testing.T) {
	t.Parallel()
	b, lease := threeSensors(t)
	runtime := &endless{slow{scoring: make(chan struct{})}, make(chan struct{})}
	server := &canceler{scoring: runtime.scoring, lease: lease}
	begin := time.Now()
	now := func() time.Time { return begin.Add(1000 * time.Since(begin)) } // a second is a quarter of an hour
	stuck := make(chan fleetscore.TaskID, 1000)
	n, err := New(Config{Hello: dispatch.Hello{Node: "n", Pool: "cpu", Slots: 1}, Heartbeat: 5 * time.Millisecond, Workers: 1, AwayLimit: 1000 * time.Hour},
		Deps{Server: server, Runtime: runtime, Now: now, Stuck: func(id fleetscore.TaskID) { stuck <- id },
			OpenStore: func(context.Context, string) (store.Bucket, error) { return b, nil }})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.Run(t.Context()) }()
	select {
	case id := <-stuck:
		if id != lease.Task {
			t.Errorf("stuck is %s", id)
		}
	case <-time.After(20 * time.Second):
		t.Error("the node doesn't say that it is stuck")
	}
	close(runtime.end)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
