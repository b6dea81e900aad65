package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/broker"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/fleet/syncer"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
	"github.com/fleetscore/fleetscore/internal/logs"
	"github.com/fleetscore/fleetscore/internal/node"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
)

// hanging is a store of which one kind of operation never returns while op is set,
// whatever becomes of its context, as a folder on a disk that hangs.
type hanging struct {
	mu    sync.Mutex // guards what follows
	op    string
	freed chan struct{}
}

func (h *hanging) fail(op string, _ fleetscore.BlobName) error {
	h.mu.Lock()
	hangs, freed := op == h.op, h.freed
	h.mu.Unlock()
	if hangs {
		<-freed
	}
	return nil
}

// hang lets an operation hang, and frees those that hang already.
func (h *hanging) hang(op string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.freed != nil {
		close(h.freed)
	}
	h.op, h.freed = op, make(chan struct{})
}

// nodesOverHTTP serves the API over a store that can hang, runs a node that asks it for
// blobs, and returns a client for people. Broker and node run until the test ends.
func nodesOverHTTP(t *testing.T, l ledger.Ledger, b store.Bucket) *client.Client {
	t.Helper()
	work, err := broker.New(broker.Config{}, broker.Deps{Ledger: l})
	if err != nil {
		t.Fatal(err)
	}
	kept, err := logs.New(logs.Config{SpoolDir: t.TempDir()}, logs.Deps{Ledger: l, Store: b})
	if err != nil {
		t.Fatal(err)
	}
	control, err := access.Open(t.Context(), access.Config{Local: "sesame", Node: "for nodes"}, access.Deps{Ledger: l})
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(Config{StoreLimit: 200 * time.Millisecond}, Deps{Access: control, Ledger: l, Store: b, Broker: work, Logs: kept,
		Gateway: http.NotFoundHandler(), Queries: func() []aggregator.Status { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	connect := func(token string) *client.Client {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := client.New(client.Config{Server: s.URL, TokenFile: file, AwayLimit: 300 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	c := connect("for nodes")
	n, err := node.New(node.Config{Hello: dispatch.Hello{Node: "n1", Pool: "cpu", Slots: 1}, Heartbeat: 50 * time.Millisecond},
		node.Deps{Server: c, OpenStore: func(context.Context, string) (store.Bucket, error) { return c.Blobs(), nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = work.Run(ctx) }) // both end with ctx
	running.Go(func() { _ = n.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return connect("sesame")
}

// TestStoreThatNeverAnswersDelaysTheTask: while the store never answers, a task of a node
// that asks the server for blobs fails as unavailable, first while it reads and then
// while it writes; it is tried again, and succeeds when the store answers. Meanwhile
// the node's lease is renewed and the server answers everything else.
func TestStoreThatNeverAnswersDelaysTheTask(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l, err := ledger.Open(context.Background(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	dir, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.WriteAll(ctx, dir, "models/f/m_1", []byte("a model that can't be read"), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	cfg := fleetscore.Config{Hub: fleetscore.HubConfig{Key: []string{"D"}, Time: "TS"}, Pools: map[string]fleetscore.PoolConfig{"cpu": {Slots: 1}},
		Fleets: map[string]fleetscore.FleetConfig{"f": {Path: "models/f", Model: "m_{D}"}}}
	if _, err := l.PutConfig(ctx, time.Now(), "text", cfg); err != nil {
		t.Fatal(err)
	}
	fleets, err := syncer.New(syncer.Config{}, syncer.Deps{Ledger: l, Store: dir})
	if err != nil {
		t.Fatal(err)
	}
	synced, err := fleets.Sync(ctx, "f")
	if err != nil {
		t.Fatal(err)
	}
	h := &hanging{}
	h.hang("get")
	people := nodesOverHTTP(t, l, &storetest.Faulty{Bucket: dir, Fail: h.fail})
	t.Cleanup(func() { h.hang("") }) // before the server is closed, which waits for its requests

	j := fleetscore.Job{ID: "j1", Pipeline: "p", State: fleetscore.JobWaiting, Created: time.Now(), Generation: synced.Generation.ID, Expected: 1,
		Interval: fleetscore.Interval{From: time.Now().Add(-time.Hour), To: time.Now()},
		Config:   fleetscore.PipelineConfig{Dataset: "d", Fleet: "f", Features: []string{"V"}, Pool: "cpu", Limits: fleetscore.LimitsConfig{Tries: 3}}}
	if err := ledgertest.Insert(ctx, l, j); err != nil {
		t.Fatal(err)
	}
	task := ledger.PlannedTask{Input: ledger.Input{TimeName: "TS", KeyNames: []string{"D"}},
		Task: fleetscore.Task{ID: "j1.000", Job: j.ID, Shards: fleetscore.AllShards, State: fleetscore.TaskQueued, Keys: 1}}
	if err := l.PlanJob(ctx, j, []ledger.PlannedTask{task}); err != nil {
		t.Fatal(err)
	}
	changes, stop := l.Watch(ledger.AttemptsTopic)
	defer stop()
	ended := func(n int) fleetscore.Attempt {
		t.Helper()
		for end := time.After(time.Minute); ; {
			attempts, err := l.Attempts(ctx, task.Task.ID)
			if err != nil {
				t.Fatal(err)
			}
			if len(attempts) >= n && attempts[n-1].Ended != nil {
				return attempts[n-1]
			}
			select {
			case <-changes:
			case <-end:
				t.Fatalf("attempt %d doesn't end: %+v", n, attempts)
			}
		}
	}
	answers := func() {
		t.Helper()
		limited, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		if err := people.Get(limited, "/jobs/j1", nil, new(fleetscore.Job)); err != nil {
			t.Errorf("the server doesn't answer people: %v", err)
		}
	}
	for n, next := range []string{"put", ""} {
		answers()
		if a := ended(n + 1); a.State != string(dispatch.Unavailable) || !strings.Contains(a.Reason, "the store gave no answer within 200ms") {
			t.Errorf("attempt %d is %s: %s", n+1, a.State, a.Reason)
		}
		h.hang(next)
	}
	if a := ended(3); a.State != string(dispatch.Succeeded) {
		t.Errorf("the store answers, and attempt 3 is %s: %s", a.State, a.Reason)
	}
	answers()
}
