package ledgertest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// testTexts: reasons may hold any bytes, and names are ordered byte by byte, whatever
// language an engine was made for.
func testTexts(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	odd := "zero \x00, no UTF-8 \xff, \u00e9"
	if err := l.Audit(ctx, ledger.AuditEntry{Who: odd, What: odd, Subject: odd}); err != nil {
		t.Fatal(err)
	}
	plan(t, l, "j1", 1)
	n := node(t, l, "n1")
	ls := must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "cpu", n, 1, noon, time.Minute))
	must[ledger.Leased](t)(l.EndAttempt(ctx, ls[0].Attempt.Lease, noon, func(ls ledger.Leased) (ledger.AttemptEnd, error) {
		ls.Task.State, ls.Task.Reason = fleetscore.TaskFailed, odd
		return ledger.AttemptEnd{State: "failed", Reason: odd, Task: ls.Task}, nil
	}))
	if a := must[[]fleetscore.Attempt](t)(l.Attempts(ctx, "j1.000")); len(a) != 1 || !strings.HasPrefix(a[0].Reason, "zero ") || !strings.HasSuffix(a[0].Reason, "\u00e9") {
		t.Errorf("the reason is kept as %+v", a)
	}
	if _, err := l.Job(ctx, "j\x00\xff"); !fleetscore.NotFound.Is(err) {
		t.Errorf("a job whose id can't be: %v, want kind not_found", err)
	}
	want := []string{"B", "Z", "_", "a", "a b", "a-b", "aB", "ab", "\u00e9"}
	for i, name := range want {
		if err := l.PutToken(ctx, ledger.Token{ID: fmt.Sprint(i), Name: name, Role: fleetscore.RoleViewer, Created: noon}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, tok := range must[[]ledger.Token](t)(l.Tokens(ctx)) {
		got = append(got, tok.Name)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("names in order (-want +got):\n%s", d)
	}
}

// testTogether lets everything that happens to jobs happen at once: nodes lease, renew,
// answer and come and go; leases are taken back; jobs are canceled, moved to another pool
// and planned. Afterwards the books agree.
func testTogether(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	const jobs, tasks, nodes, rounds = 3, 20, 6, 25
	for i := range jobs {
		plan(t, l, fmt.Sprint("j", i), tasks)
	}
	var wg sync.WaitGroup
	worker := func(seed uint64, do func(r *rand.Rand) error) {
		r := rand.New(rand.NewPCG(seed, 7))
		wg.Go(func() {
			for range rounds {
				if err := do(r); err != nil && (!fleetscore.Conflict.Is(err) || strings.Contains(err.Error(), "exists")) && !fleetscore.NotFound.Is(err) {
					t.Error(err)
				}
			}
		})
	}
	for i := range nodes {
		id := node(t, l, fmt.Sprint("n", i))
		var held []fleetscore.LeaseID
		worker(uint64(i), func(r *rand.Rand) error {
			ls, err := l.LeaseTasks(ctx, []string{"cpu", "gpu"}[r.IntN(2)], id, 1+r.IntN(3), noon, time.Minute)
			for _, one := range ls {
				held = append(held, one.Attempt.Lease)
			}
			if err != nil || len(held) == 0 {
				return err
			}
			if _, _, err := l.Renew(ctx, id, held, nil, noon, time.Minute); err != nil {
				return err
			}
			lease := held[0]
			held = held[1:]
			_, err = l.EndAttempt(ctx, lease, noon, [](func(ledger.Leased) (ledger.AttemptEnd, error)){succeed("{}"), requeue(noon)}[r.IntN(2)])
			return err
		})
	}
	worker(100, func(r *rand.Rand) error { // it was given up
		_, err := l.TakeBack(ctx, ledger.LeaseFilter{Node: fleetscore.NodeID(fmt.Sprint("n", r.IntN(nodes)))}, noon, requeue(noon))
		return err
	})
	worker(101, func(r *rand.Rand) error { // its leases have run out
		_, err := l.TakeBack(ctx, ledger.LeaseFilter{ExpiredBefore: noon.Add(time.Hour)}, noon, requeue(noon))
		return err
	})
	worker(102, func(r *rand.Rand) error {
		if r.IntN(20) > 0 {
			return l.SetNodeState(ctx, fleetscore.NodeID(fmt.Sprint("n", r.IntN(nodes))), []fleetscore.NodeState{fleetscore.NodeIdle, fleetscore.NodeDraining}[r.IntN(2)])
		}
		_, err := l.CancelJob(ctx, fleetscore.JobID(fmt.Sprint("j", r.IntN(jobs))), "enough", noon)
		return err
	})
	worker(103, func(r *rand.Rand) error {
		return l.UpdateJobs(ctx, "p", []fleetscore.JobState{fleetscore.JobWaiting, fleetscore.JobQueued, fleetscore.JobRunning}, func(j *fleetscore.Job) {
			j.Config.Pool = []string{"cpu", "gpu"}[r.IntN(2)]
		})
	})
	wg.Wait()
	checkBooks(t, l)
}

// checkBooks compares what is kept twice: tasks with attempts, jobs with tasks, counts
// with jobs.
func checkBooks(t *testing.T, l ledger.Ledger) {
	t.Helper()
	ctx := t.Context()
	count, running := map[fleetscore.JobState]int64{}, map[fleetscore.NodeID]int{}
	queued, leased := map[string]int64{}, map[string]int64{}
	for _, j := range must[[]fleetscore.Job](t)(l.Jobs(ctx, ledger.JobFilter{})) {
		count[j.State]++
		ended := 0
		for _, task := range must[[]fleetscore.Task](t)(l.Tasks(ctx, j.ID)) {
			attempts := must[[]fleetscore.Attempt](t)(l.Attempts(ctx, task.ID))
			open := slices.DeleteFunc(slices.Clone(attempts), func(a fleetscore.Attempt) bool { return a.State != "leased" })
			if task.State.Ended() {
				ended++
			}
			switch task.State {
			case fleetscore.TaskQueued:
				queued[j.Config.Pool]++
			case fleetscore.TaskLeased:
				leased[j.Config.Pool]++
			}
			if (len(open) == 1) != (task.State == fleetscore.TaskLeased) || len(open) > 1 || task.Attempts != len(attempts) {
				t.Errorf("task %s is %s with %d attempts; kept are %+v", task.ID, task.State, task.Attempts, attempts)
			}
			for _, a := range open {
				running[a.Node]++
			}
		}
		if j.TasksEnded != ended || (ended == j.Tasks) != (j.State == fleetscore.JobCommitting || j.State == fleetscore.JobCanceled) {
			t.Errorf("job %s is %s with %d of %d tasks ended; %d have", j.ID, j.State, j.TasksEnded, j.Tasks, ended)
		}
	}
	if d := cmp.Diff(count, must[map[fleetscore.JobState]int64](t)(l.CountJobs(ctx))); d != "" {
		t.Errorf("counts (-jobs +counts):\n%s", d)
	}
	for _, pool := range []string{"cpu", "gpu"} {
		if q, r, err := l.QueueDepth(ctx, pool); q != queued[pool] || r != leased[pool] || err != nil {
			t.Errorf("pool %s: %d wait and %d run, %v; its tasks say %d and %d", pool, q, r, err, queued[pool], leased[pool])
		}
	}
	for _, n := range must[[]fleetscore.Node](t)(l.Nodes(ctx, "")) {
		if n.Running != running[n.ID] {
			t.Errorf("node %s runs %d, by its attempts %d", n.ID, n.Running, running[n.ID])
		}
	}
}
