// Package queue measures how many tasks a second go through the queue: from the moment that
// jobs are submitted until the last answer is taken. The tasks do nothing. River, a queue on
// PostgreSQL, does the same with the same database in the same run. The package has only
// tests. "make bench BENCH='-only queue'" runs the large form.
package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/broker"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// Size and shape of the work.
const (
	tasksOfJob = 250 // of one job, which is about as many as a job can have
	nodes      = 4   // so many nodes ask for tasks
	slots      = 32  // of each node; River has as many workers as all of them together
)

// Result is what a round took, in seconds.
type Result struct {
	Tasks                    int
	SQLite, Postgres, Peer   []float64
	PostgresVersion, Workers int
}

// TestQueue runs a small form, unless FLEETSCORE_QUEUE says how many tasks and rounds. The
// times go to the file that FLEETSCORE_QUEUE_OUT names.
func TestQueue(t *testing.T) {
	r, rounds := Result{Tasks: tasksOfJob, PostgresVersion: testkit.PostgresVersions[len(testkit.PostgresVersions)-1], Workers: nodes * slots}, 0
	if large := os.Getenv("FLEETSCORE_QUEUE"); large != "" {
		if _, err := fmt.Sscanf(large, "%d,%d", &r.Tasks, &rounds); err != nil || r.Tasks%tasksOfJob != 0 {
			t.Fatalf("FLEETSCORE_QUEUE is %q, want tasks, a multiple of %d, and rounds such as 5000,5", large, tasksOfJob)
		}
	}
	server := testkit.StartPostgres(t, r.PostgresVersion)
	for round := range max(rounds, 1) {
		contestants := []func(){
			func() { r.SQLite = append(r.SQLite, ours(t, sqlite(t), r.Tasks)) },
			func() { r.Postgres = append(r.Postgres, ours(t, postgres(t, server.NewDatabase(t)), r.Tasks)) },
			func() { // the small form does without, because it would have to build the peer
				if rounds > 0 {
					r.Peer = append(r.Peer, peer(t, server.NewDatabase(t), r.Tasks))
				}
			},
		}
		for i := range contestants {
			if round%2 == 1 {
				i = len(contestants) - 1 - i
			}
			contestants[i]()
		}
	}
	t.Logf("%d tasks: SQLite %.3v s, PostgreSQL %.3v s, River %.3v s", r.Tasks, r.SQLite, r.Postgres, r.Peer)
	if out := os.Getenv("FLEETSCORE_QUEUE_OUT"); out != "" {
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(out, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func sqlite(t *testing.T) ledger.Ledger {
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	testkit.CloseLater(t, l)
	return l
}

func postgres(t *testing.T, url string) ledger.Ledger {
	l, err := ledger.OpenPostgres(t.Context(), ledger.PostgresConfig{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	testkit.CloseLater(t, l)
	return l
}

// ours is how many seconds our queue takes for so many tasks.
func ours(t *testing.T, l ledger.Ledger, tasks int) float64 {
	t.Helper()
	if _, err := l.PutConfig(t.Context(), time.Now(), "text", fleetscore.Config{Pools: map[string]fleetscore.PoolConfig{"cpu": {Slots: slots}}}); err != nil {
		t.Fatal(err)
	}
	b, err := broker.New(broker.Config{LostAfter: time.Hour, LeaseTTL: time.Hour}, broker.Deps{Ledger: l}) // the nodes give no signs of life
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = b.Run(ctx) }) // it ends with the context
	left := atomic.Int64{}
	left.Store(int64(tasks))
	done := make(chan struct{})
	for n := range nodes {
		id := fleetscore.NodeID(fmt.Sprint("n", n))
		if _, err := b.Register(ctx, dispatch.Hello{Node: id, Pool: "cpu", Slots: slots}); err != nil {
			t.Fatal(err)
		}
		free := make(chan struct{}, slots)
		running.Go(func() {
			for ctx.Err() == nil {
				free <- struct{}{} // until a slot is free
				<-free
				reply, err := b.Lease(ctx, id, dispatch.LeaseRequest{Free: slots - len(free), Wait: fleetscore.Duration(10 * time.Second)})
				if err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
				for _, lease := range reply.Leases {
					free <- struct{}{}
					running.Go(func() {
						defer func() { <-free }()
						if err := b.Complete(ctx, lease.ID, dispatch.Result{Outcomes: fleetscore.Counts{}}); err != nil {
							t.Error(err)
						}
						if left.Add(-1) == 0 {
							close(done)
						}
					})
				}
			}
		})
	}
	begun := time.Now()
	for n := range tasks / tasksOfJob {
		j := fleetscore.Job{ID: fleetscore.JobID(fmt.Sprint("j", n)), Pipeline: fmt.Sprint("p", n), State: fleetscore.JobWaiting, Created: begun, Interval: fleetscore.Interval{From: begun, To: begun.Add(time.Hour)},
			Config: fleetscore.PipelineConfig{Dataset: "readings", Fleet: "f", Pool: "cpu", Limits: fleetscore.LimitsConfig{Tries: 3}}}
		if err := ledgertest.Queue(ctx, l, j, tasksOfJob); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-done:
	case <-time.After(10 * time.Minute):
		t.Fatalf("%d of %d tasks aren't done after ten minutes", left.Load(), tasks)
	}
	took := time.Since(begun).Seconds()
	ended, err := l.Jobs(ctx, ledger.JobFilter{States: []fleetscore.JobState{fleetscore.JobCommitting}})
	if err != nil || len(ended) != tasks/tasksOfJob {
		t.Errorf("%d jobs have ended all tasks, %v", len(ended), err)
	}
	return took
}

// peer is how many seconds River takes for so many jobs.
func peer(t *testing.T, url string, jobs int) float64 {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "river")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir = filepath.Join(testkit.Root(t), "bench", "queue", "river")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	var errs bytes.Buffer
	cmd := exec.Command(binary, url, strconv.Itoa(jobs), strconv.Itoa(nodes*slots))
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("river: %v\n%s", err, errs.Bytes())
	}
	took, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		t.Fatal(err)
	}
	return took
}
