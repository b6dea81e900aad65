package ledger

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// hot are the queries that run often, with as many arguments as they take.
func hot() map[string]string {
	out := map[string]string{
		"count queued": countQueued, "count leased": countLeased, "next retry": nextRetry, "any due": anyDue, "count due": countDue, "lease": selectDue,
		"tasks by id": selectTasksOf, "put tasks": putTasks, "put ended": putEnded, "put idle": putIdle, "pools of nodes": lockPools, "tasks of a job": selectTasks, "inputs of tasks": selectInputsOf, "inputs of a job": selectInputs, "results": selectResults,
		"attempt": selectAttempt, "attempts of a task": selectAttemptsOf, "leased of a job": selectLeasedOfJob,
		"node with its running": selectNode, "nodes of a pool": selectPoolNodes, "job": selectJob,
		"schedule": selectSchedule, "old jobs": selectOldJobs, "jobs that ended first": selectEnded, "too many jobs": strings.ReplaceAll(strings.ReplaceAll(selectManyJobs, "?2", "?1"), "?3", "?1"), "occurrences": selectOccurrences,
		"end of inputs": `DELETE FROM inputs WHERE job = ?`, "end of results": `DELETE FROM results WHERE job = ?`,
		"leases of signs of life": findLeases, "nodes of signs of life": findNodes, "leases to renew": lockLeases, "renew leases": renewLeases, "nodes to renew": lockNodes, "renew nodes": renewNodes,
		"rejected": selectRejected, "older rejected": strings.ReplaceAll(selectOlderRejected, "?2", "?1"), "one rejected": selectOneRejected, "old rejected": trimRejected,
		"costs": selectCosts, "tasks that ended": tasksEnded, "samples": selectSamples, "old samples": trimSamples, "evaluations": selectEvaluations, "old evaluations": strings.ReplaceAll(trimEvaluations, "?2", "?1"),
		"move": `UPDATE tasks SET pool = ?, image = '' WHERE job = ? AND state IN ('queued', 'leased')`,
	}
	for name, f := range map[string]LeaseFilter{"expired": {ExpiredBefore: noon}, "of a node": {Node: "n"}, "of a node, expired": {Node: "n", ExpiredBefore: noon}, "of a job": {Job: "j", StartedBefore: noon}, "of nodes that are gone": {Gone: true}, "all": {}} {
		leases, _ := leasedQuery(f)
		out["take back "+name], out["jobs of leases "+name] = selectAttempts+leases, selectJobsOf(leases)
	}
	for name, f := range map[string]JobFilter{
		"active of a pipeline": {Pipeline: "p", States: active}, "active": {States: active}, "committing": {Pipeline: "p", States: active[3:]},
		"ended of a pipeline": {Pipeline: "p", States: []fleetscore.JobState{fleetscore.JobSucceeded, fleetscore.JobFailed}, Limit: 100, Before: "j"},
		"of a pipeline":       {Pipeline: "p", Limit: 100}, "failed": {States: []fleetscore.JobState{fleetscore.JobFailed}, Limit: 100},
	} {
		out["jobs "+name], _ = jobsQuery(f)
	}
	return out
}

// bounded are what a plan may read whole: they are as small as what waits and
// runs, or were made by the query itself. Everything else has to be searched.
var bounded = []string{
	"SCAN page", "SCAN part", "SCAN CONSTANT ROW", "SCAN w VIRTUAL TABLE",
	"SCAN attempts USING INDEX attempts_", "SCAN attempts USING COVERING INDEX attempts_", // partial: the leases that haven't ended
}

// TestHotQueriesReadNoTable asks the engine how it would carry out the queries
// that run often: none reads a table, nor an index, of all that has ended, and giving
// out a task doesn't sort all that wait.
func TestHotQueriesReadNoTable(t *testing.T) {
	t.Parallel()
	l := open(t)
	for name, q := range hot() {
		args := make([]any, strings.Count(strings.ReplaceAll(q, "?1", ""), "?"))
		if strings.Contains(q, "?1") {
			args = make([]any, 1)
		}
		for i := range args {
			args[i] = 1
		}
		rows, err := l.read.QueryContext(t.Context(), `EXPLAIN QUERY PLAN `+l.text(q), args...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		steps, err := collect(rows, func(scan func(...any) error) (string, error) {
			var id, parent, unused int64
			var step string
			return step, scan(&id, &parent, &unused, &step)
		})
		if err != nil || len(steps) == 0 {
			t.Errorf("%s: %d steps, %v", name, len(steps), err)
		}
		for _, step := range steps {
			ok := !strings.HasPrefix(step, "SCAN")
			if strings.HasPrefix(step, "USE TEMP B-TREE") { // it sorts all that it found, but for lists of jobs, whose parts are pages
				ok = strings.HasPrefix(name, "jobs ")
			}
			for _, b := range bounded {
				ok = ok || strings.HasPrefix(step, b)
			}
			if !ok {
				t.Errorf("%s reads or sorts everything: %q\n%s", name, step, q)
			}
		}
	}
}

// TestPages: pages by several states are the newest of all of them, in order.
func TestPages(t *testing.T) {
	t.Parallel()
	l := open(t)
	states := []fleetscore.JobState{fleetscore.JobFailed, fleetscore.JobSucceeded, fleetscore.JobWaiting}
	for i := range 12 {
		plan(t, l, fmt.Sprintf("j%02d", i), 0)
		if _, err := l.UpdateJob(t.Context(), fleetscore.JobID(fmt.Sprintf("j%02d", i)), func(j *fleetscore.Job) error { j.State = states[i%3]; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	f := JobFilter{States: []fleetscore.JobState{fleetscore.JobSucceeded, fleetscore.JobFailed, fleetscore.JobFailed}, Limit: 3}
	for {
		page := must[[]fleetscore.Job](t)(l.Jobs(t.Context(), f))
		if len(page) == 0 {
			break
		}
		for _, j := range page {
			got = append(got, string(j.ID))
		}
		f.Before = page[len(page)-1].ID
	}
	if want := "j10 j09 j07 j06 j04 j03 j01 j00"; strings.Join(got, " ") != want {
		t.Errorf("pages hold %v, want %s", got, want)
	}
	if c := must[map[fleetscore.JobState]int64](t)(l.CountJobs(t.Context())); c[fleetscore.JobFailed] != 4 || c[fleetscore.JobWaiting] != 4 || c[fleetscore.JobQueued] != 0 {
		t.Errorf("counts %v", c)
	}
}

// endedJobs puts n jobs with a task, an attempt and an occurrence each, all ended.
func endedJobs(tb testing.TB, l *core, n int) {
	tb.Helper()
	err := l.update(tb.Context(), "fill", "", func(x *tx) error {
		for i := range n {
			id := fmt.Sprintf("old%06d", i)
			j := job(id)
			j.State = fleetscore.JobSucceeded
			if err := x.insertJob(j); err != nil {
				return err
			}
			for _, q := range []string{
				fmt.Sprintf(`INSERT INTO tasks (id, job, job_seq, idx, pool, state, not_before, doc) VALUES ('%s.000', '%s', %d, 0, 'cpu', 'succeeded', 0, '{}')`, id, id, i),
				fmt.Sprintf(`INSERT INTO attempts VALUES ('l%s', '%s.000', '%s', 1, 'n1', 'succeeded', '', 1, 2, 3)`, id, id, id),
				fmt.Sprintf(`INSERT INTO occurrences VALUES ('p', %d, 'ran', '%s', '')`, i+1, id),
			} {
				if err := x.exec(q); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkLease gives out, ends and counts tasks, with few and with many jobs
// that have ended: both take the same time.
func BenchmarkLease(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) {
		benchmarkLease(b, func(b *testing.B) (Ledger, *core) {
			l, err := Open(b.Context(), filepath.Join(b.TempDir(), "ledger.db"))
			if err != nil {
				b.Fatal(err)
			}
			return l, &l.core
		})
	})
	b.Run("postgres", func(b *testing.B) {
		server := testkit.StartPostgres(b, testkit.PostgresVersions[0])
		benchmarkLease(b, func(b *testing.B) (Ledger, *core) {
			l, err := OpenPostgres(b.Context(), PostgresConfig{URL: server.NewDatabase(b)})
			if err != nil {
				b.Fatal(err)
			}
			return l, &l.core
		})
	})
}

func benchmarkLease(b *testing.B, open func(*testing.B) (Ledger, *core)) {
	for _, ended := range []int{10, 10_000} {
		b.Run(fmt.Sprint("ended=", ended), func(b *testing.B) {
			ctx := b.Context()
			l, c := open(b)
			defer l.Close()
			endedJobs(b, c, ended)
			if _, err := l.UpdateNode(ctx, "n1", func(n *fleetscore.Node) error {
				*n = fleetscore.Node{ID: "n1", Pool: "cpu", Slots: 2, State: fleetscore.NodeIdle, Started: noon, Heartbeat: noon, IdleSince: noon}
				return nil
			}); err != nil {
				b.Fatal(err)
			}
			for i := 0; b.Loop(); i++ {
				plan(b, l, fmt.Sprint("new", i), 1)
				ls, err := l.LeaseTasks(ctx, "cpu", "n1", 1, noon, time.Minute)
				if err != nil || len(ls) != 1 {
					b.Fatal(ls, err)
				}
				if _, _, err := l.QueueDepth(ctx, "cpu"); err != nil {
					b.Fatal(err)
				}
				if _, err := l.NextRetry(ctx, "cpu", noon); err != nil {
					b.Fatal(err)
				}
				if _, err := l.TakeBack(ctx, LeaseFilter{ExpiredBefore: noon}, noon, nil); err != nil {
					b.Fatal(err)
				}
				if _, err := l.EndAttempt(ctx, ls[0].Attempt.Lease, noon, func(ls Leased) (AttemptEnd, error) {
					ls.Task.State = fleetscore.TaskSucceeded
					return AttemptEnd{State: "succeeded", Task: ls.Task, Result: []byte("{}")}, nil
				}); err != nil {
					b.Fatal(err)
				}
				if _, err := l.UpdateJob(ctx, ls[0].Job.ID, func(j *fleetscore.Job) error { j.State = fleetscore.JobSucceeded; return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLeaseOfMany gives out one task while few or many wait.
func BenchmarkLeaseOfMany(b *testing.B) {
	for _, waiting := range []int{10, 10_000} {
		b.Run(fmt.Sprint("waiting=", waiting), func(b *testing.B) {
			l, err := Open(b.Context(), filepath.Join(b.TempDir(), "ledger.db"))
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			plan(b, l, "j", waiting)
			for b.Loop() {
				tasks, err := query(b.Context(), &l.core, "", "", scanDoc[fleetscore.Task], selectDue, "cpu", micros(noon), 1)
				if err != nil || len(tasks) != 1 {
					b.Fatal(tasks, err)
				}
			}
		})
	}
}

// BenchmarkPage lists and counts jobs as the overview does.
func BenchmarkPage(b *testing.B) {
	for _, ended := range []int{10, 10_000} {
		b.Run(fmt.Sprint("ended=", ended), func(b *testing.B) {
			l, err := Open(b.Context(), filepath.Join(b.TempDir(), "ledger.db"))
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			endedJobs(b, &l.core, ended)
			for b.Loop() {
				if _, err := l.Jobs(b.Context(), JobFilter{Limit: 12}); err != nil {
					b.Fatal(err)
				}
				if _, err := l.Jobs(b.Context(), JobFilter{Pipeline: "p", States: active}); err != nil {
					b.Fatal(err)
				}
				if _, err := l.CountJobs(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestOneBadLeaseHoldsUpNoOther: of leases that are taken back, one whose task
// can't be read costs itself alone.
func TestOneBadLeaseHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	l, ctx := open(t), t.Context()
	if _, err := l.UpdateNode(ctx, "n1", func(n *fleetscore.Node) error {
		*n = fleetscore.Node{ID: "n1", Pool: "cpu", Slots: 9, State: fleetscore.NodeIdle}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	plan(t, l, "j1", 3)
	if ls := must[[]Leased](t)(l.LeaseTasks(ctx, "cpu", "n1", 9, noon, time.Minute)); len(ls) != 3 {
		t.Fatalf("leases %+v", ls)
	}
	if _, err := l.write.ExecContext(ctx, `UPDATE tasks SET doc = 'x' WHERE id = 'j1.001'`); err != nil {
		t.Fatal(err)
	}
	back, err := l.TakeBack(ctx, LeaseFilter{Node: "n1"}, noon, func(ls Leased) (AttemptEnd, error) {
		ls.Task.State = fleetscore.TaskQueued
		return AttemptEnd{State: "lost", Task: ls.Task}, nil
	})
	if !fleetscore.Corrupt.Is(err) || len(back) != 2 {
		t.Errorf("taken back: %d, %v; want the two that can be read, and kind corrupt", len(back), err)
	}
	if q, r, err := l.QueueDepth(ctx, "cpu"); q != 2 || r != 1 || err != nil {
		t.Errorf("%d wait and %d run, %v", q, r, err)
	}
}
