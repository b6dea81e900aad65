package ledger

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
)

// writerEnv makes the test binary a writer that TestSurvivesKill kills.
const writerEnv = "FLEETSCORE_LEDGER_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		writeForEver(path)
	}
	goleak.VerifyTestMain(m)
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func open(t *testing.T) *Ledger {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "ledger.db"))
}

func openAt(t *testing.T, path string) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func job(id string) fleetscore.Job {
	return fleetscore.Job{ID: fleetscore.JobID(id), Pipeline: "p", State: fleetscore.JobWaiting, Config: fleetscore.PipelineConfig{Pool: "cpu"},
		Interval: fleetscore.Interval{From: noon.Add(-time.Hour), To: noon}, Created: noon}
}

// plan makes a job with n queued tasks.
func plan(t *testing.T, l *Ledger, id string, n int) []fleetscore.Task {
	t.Helper()
	j := job(id)
	if err := l.InsertJob(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	var tasks []fleetscore.Task
	for i := range n {
		tasks = append(tasks, fleetscore.Task{ID: fleetscore.TaskID(fmt.Sprintf("%s.%03d", id, i)), Job: j.ID, Index: i, State: fleetscore.TaskQueued, Keys: 1})
	}
	if err := l.PlanJob(t.Context(), j, tasks, Input{Version: 7, TimeName: "TS", KeyNames: []string{"Device"}}); err != nil {
		t.Fatal(err)
	}
	return tasks
}

func node(t *testing.T, l *Ledger, id string) fleetscore.NodeID {
	t.Helper()
	n := fleetscore.Node{ID: fleetscore.NodeID(id), Pool: "cpu", Slots: 2, State: fleetscore.NodeReady, Started: noon, Heartbeat: noon, IdleSince: noon}
	if err := l.UpsertNode(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return n.ID
}

func succeed(result string) func(Leased) (AttemptEnd, error) {
	return func(ls Leased) (AttemptEnd, error) {
		ls.Task.State = fleetscore.TaskSucceeded
		return AttemptEnd{State: "succeeded", Task: ls.Task, Result: []byte(result)}, nil
	}
}

func requeue(at time.Time) func(Leased) (AttemptEnd, error) {
	return func(ls Leased) (AttemptEnd, error) {
		ls.Task.State = fleetscore.TaskQueued
		return AttemptEnd{State: "expired", Reason: "no sign of life", Task: ls.Task, NotBefore: at}, nil
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	l := open(t)
	if _, _, _, err := l.Config(t.Context()); !fleetscore.NotFound.Is(err) {
		t.Errorf("Config before the first = %v, want kind not_found", err)
	}
	five := fleetscore.Percent(5)
	cfg := fleetscore.Config{Hub: fleetscore.HubConfig{Key: []string{"Device"}, Retention: fleetscore.Duration(time.Hour)},
		Pipelines: map[string]fleetscore.PipelineConfig{"p": {Dataset: "d", Limits: fleetscore.LimitsConfig{Failed: &five}}}}
	for i, want := range []struct {
		yaml    string
		version int64
	}{{"a: 1", 1}, {"a: 1", 1}, {"a: 2", 2}} {
		if v := must[int64](t)(l.PutConfig(t.Context(), want.yaml, cfg)); v != want.version {
			t.Errorf("put %d: version %d, want %d", i, v, want.version)
		}
	}
	got, yaml, version, err := l.Config(t.Context())
	if d := cmp.Diff(cfg, got); err != nil || d != "" || yaml != "a: 2" || version != 2 {
		t.Errorf("Config = %q version %d, %v (-want +got):\n%s", yaml, version, err, d)
	}
}

func TestScheduleAndOccurrences(t *testing.T) {
	t.Parallel()
	l := open(t)
	if _, err := l.Schedule(t.Context(), "p"); !fleetscore.NotFound.Is(err) {
		t.Errorf("Schedule of none = %v, want kind not_found", err)
	}
	s := ScheduleState{Pipeline: "p", Created: noon}
	if err := l.PutSchedule(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, must[ScheduleState](t)(l.Schedule(t.Context(), "p"))); d != "" {
		t.Errorf("zero times (-want +got):\n%s", d)
	}
	s.NextFrom, s.LastDue = noon.Add(2*time.Hour), noon.Add(2*time.Hour)
	j := job("j1")
	occs := []fleetscore.Occurrence{
		{Pipeline: "p", Due: noon.Add(time.Hour), State: fleetscore.OccurrenceCoalesced, Job: "j1", Reason: "later"},
		{Pipeline: "p", Due: noon.Add(2 * time.Hour), State: fleetscore.OccurrenceRan, Job: "j1"}}
	if err := l.DecideOccurrences(t.Context(), s, occs, &j); err != nil {
		t.Fatal(err)
	}
	// A second decision on the same due times changes nothing.
	again, other := s, job("j2")
	again.NextFrom = noon
	if err := l.DecideOccurrences(t.Context(), again, occs[1:], &other); !fleetscore.Conflict.Is(err) {
		t.Errorf("a second outcome = %v, want kind conflict", err)
	}
	if d := cmp.Diff(s, must[ScheduleState](t)(l.Schedule(t.Context(), "p"))); d != "" {
		t.Errorf("state (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]fleetscore.Occurrence{occs[1], occs[0]}, must[[]fleetscore.Occurrence](t)(l.Occurrences(t.Context(), "p", 10))); d != "" {
		t.Errorf("occurrences (-want +got):\n%s", d)
	}
	if got := must[[]fleetscore.Occurrence](t)(l.Occurrences(t.Context(), "", 1)); len(got) != 1 {
		t.Errorf("one of all pipelines': %v", got)
	}
	if _, err := l.Job(t.Context(), "j2"); !fleetscore.NotFound.Is(err) {
		t.Errorf("the refused job = %v, want kind not_found", err)
	}
	if d := cmp.Diff(j, must[fleetscore.Job](t)(l.Job(t.Context(), "j1"))); d != "" {
		t.Errorf("job (-want +got):\n%s", d)
	}
}

func TestJobs(t *testing.T) {
	t.Parallel()
	l := open(t)
	for i := range 5 {
		j := job(fmt.Sprintf("j%d", i))
		if i%2 == 1 {
			j.Pipeline = "q"
		}
		if err := l.InsertJob(t.Context(), j); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.InsertJob(t.Context(), job("j0")); !fleetscore.Conflict.Is(err) {
		t.Errorf("a taken id = %v, want kind conflict", err)
	}
	got, err := l.UpdateJob(t.Context(), "j2", func(j *fleetscore.Job) error { j.State = fleetscore.JobFailed; return nil })
	if err != nil || got.State != fleetscore.JobFailed {
		t.Errorf("UpdateJob = %s, %v", got.State, err)
	}
	boom := errors.New("boom")
	if _, err := l.UpdateJob(t.Context(), "j3", func(j *fleetscore.Job) error { j.State = fleetscore.JobFailed; return boom }); !errors.Is(err, boom) {
		t.Errorf("UpdateJob = %v, want the function's error", err)
	}
	if _, err := l.UpdateJob(t.Context(), "j9", func(*fleetscore.Job) error { return nil }); !fleetscore.NotFound.Is(err) {
		t.Errorf("UpdateJob of none = %v, want kind not_found", err)
	}
	for _, c := range []struct {
		f    JobFilter
		want string
	}{
		{JobFilter{}, "j4 j3 j2 j1 j0"},
		{JobFilter{Limit: 2}, "j4 j3"},
		{JobFilter{Limit: 2, Before: "j3"}, "j2 j1"},
		{JobFilter{Pipeline: "q"}, "j3 j1"},
		{JobFilter{States: []fleetscore.JobState{fleetscore.JobFailed, fleetscore.JobCanceled}}, "j2"},
		{JobFilter{Pipeline: "q", States: []fleetscore.JobState{fleetscore.JobFailed}}, ""},
	} {
		var ids []string
		for _, j := range must[[]fleetscore.Job](t)(l.Jobs(t.Context(), c.f)) {
			ids = append(ids, string(j.ID))
		}
		if got := strings.Join(ids, " "); got != c.want {
			t.Errorf("Jobs(%+v) = %q, want %q", c.f, got, c.want)
		}
	}
	want := map[fleetscore.JobState]int64{fleetscore.JobWaiting: 4, fleetscore.JobFailed: 1}
	if d := cmp.Diff(want, must[map[fleetscore.JobState]int64](t)(l.CountJobs(t.Context()))); d != "" {
		t.Errorf("counts (-want +got):\n%s", d)
	}
}

func TestLifeOfTasks(t *testing.T) {
	t.Parallel()
	l, ctx := open(t), t.Context()
	plan(t, l, "j1", 2)
	plan(t, l, "j2", 1)
	if err := l.PlanJob(ctx, job("j1"), nil, Input{}); !fleetscore.Conflict.Is(err) {
		t.Errorf("a second plan = %v, want kind conflict", err)
	}
	n1, n2 := node(t, l, "n1"), node(t, l, "n2")
	if got := must[[]Leased](t)(l.LeaseTasks(ctx, "gpu", n1, 9, noon, time.Minute)); len(got) != 0 {
		t.Errorf("leases of another pool's queue: %v", got)
	}
	first := must[[]Leased](t)(l.LeaseTasks(ctx, "cpu", n1, 2, noon, time.Minute))
	if len(first) != 2 || first[0].Task.ID != "j1.000" || first[1].Task.ID != "j1.001" {
		t.Fatalf("leases %+v, want those of the oldest job in order", first)
	}
	if ls := first[0]; ls.Job.State != fleetscore.JobRunning || ls.Job.Started == nil || ls.Task.Attempts != 1 || ls.Attempt.Number != 1 || ls.Input.Version != 7 ||
		!ls.Attempt.Expires.Equal(noon.Add(time.Minute)) || len(ls.Attempt.Lease) < 26 {
		t.Errorf("lease %+v", ls)
	}
	if q, r, err := l.QueueDepth(ctx, "cpu"); q != 1 || r != 2 || err != nil {
		t.Errorf("QueueDepth = %d queued, %d leased, %v", q, r, err)
	}
	if n := must[fleetscore.Node](t)(l.Node(ctx, n1)); n.Running != 2 {
		t.Errorf("the node runs %d, want 2", n.Running)
	}

	// The first expires; renewing saves the second.
	later := noon.Add(90 * time.Second)
	if _, revoked, err := l.Renew(ctx, n1, []fleetscore.LeaseID{first[1].Attempt.Lease, "unknown"}, noon.Add(30*time.Second), time.Minute+time.Second); err != nil ||
		!cmp.Equal(revoked, []fleetscore.LeaseID{"unknown"}) {
		t.Errorf("Renew revokes %v, %v", revoked, err)
	}
	if _, revoked, _ := l.Renew(ctx, n2, []fleetscore.LeaseID{first[1].Attempt.Lease}, noon, time.Hour); len(revoked) != 1 {
		t.Error("a node renews another's lease")
	}
	lost := must[[]Leased](t)(l.TakeBack(ctx, LeaseFilter{ExpiredBefore: later}, later, requeue(later.Add(time.Second))))
	if len(lost) != 1 || lost[0].Task.ID != "j1.000" || lost[0].Attempt.State != "expired" {
		t.Fatalf("taken back: %+v", lost)
	}
	if at := must[time.Time](t)(l.NextRetry(ctx, "cpu", later)); !at.Equal(later.Add(time.Second)) {
		t.Errorf("NextRetry = %s", at)
	}
	if got := must[[]Leased](t)(l.LeaseTasks(ctx, "cpu", n2, 1, later, time.Minute)); len(got) != 1 || got[0].Task.ID != "j2.000" {
		t.Fatalf("leases %+v, want the second job's: the first's waits for its retry", got)
	}
	later = later.Add(time.Second)
	second := must[[]Leased](t)(l.LeaseTasks(ctx, "cpu", n2, 1, later, time.Minute))
	if len(second) != 1 || second[0].Task.ID != "j1.000" || second[0].Attempt.Number != 2 {
		t.Fatalf("leases %+v, want the second attempt", second)
	}

	// The late answer of the first holder is refused, the second's is taken once.
	if _, err := l.EndAttempt(ctx, first[0].Attempt.Lease, later, succeed("{}")); !fleetscore.Conflict.Is(err) {
		t.Errorf("a late answer = %v, want kind conflict", err)
	}
	if _, err := l.EndAttempt(ctx, "unknown", later, succeed("{}")); !fleetscore.NotFound.Is(err) {
		t.Errorf("an unknown lease = %v, want kind not_found", err)
	}
	ended := must[Leased](t)(l.EndAttempt(ctx, second[0].Attempt.Lease, later, succeed(`{"rows":1}`)))
	if ended.Job.State != fleetscore.JobRunning || ended.Job.TasksEnded != 1 || ended.Task.Ended == nil {
		t.Errorf("after the first result: %+v", ended)
	}
	if _, err := l.EndAttempt(ctx, second[0].Attempt.Lease, later, succeed("{}")); !fleetscore.Conflict.Is(err) {
		t.Errorf("an answer twice = %v, want kind conflict", err)
	}
	ended = must[Leased](t)(l.EndAttempt(ctx, first[1].Attempt.Lease, later, succeed(`{"rows":2}`)))
	if ended.Job.State != fleetscore.JobCommitting || ended.Job.TasksEnded != 2 {
		t.Errorf("after the last result the job is %s with %d tasks ended", ended.Job.State, ended.Job.TasksEnded)
	}
	if n := must[fleetscore.Node](t)(l.Node(ctx, n1)); n.Running != 0 || !n.IdleSince.Equal(later) {
		t.Errorf("the node runs %d, idle since %s; want 0 since %s", n.Running, n.IdleSince, later)
	}
	results := must[map[fleetscore.TaskID]json.RawMessage](t)(l.Results(ctx, "j1"))
	if len(results) != 2 || string(results["j1.000"]) != `{"rows":1}` {
		t.Errorf("results %s", results)
	}
	if a := must[[]fleetscore.Attempt](t)(l.Attempts(ctx, "j1.000")); len(a) != 2 || a[0].State != "expired" || a[1].State != "succeeded" || a[1].Ended == nil {
		t.Errorf("attempts %+v", a)
	}
	if a, j, err := l.Attempt(ctx, second[0].Attempt.Lease); err != nil || j != "j1" || a.Number != 2 {
		t.Errorf("Attempt = %+v of %s, %v", a, j, err)
	}
	if _, err := l.UpdateJob(ctx, "j1", func(j *fleetscore.Job) error { j.State = fleetscore.JobSucceeded; return nil }); err != nil {
		t.Fatal(err)
	}
	if r := must[map[fleetscore.TaskID]json.RawMessage](t)(l.Results(ctx, "j1")); len(r) != 0 {
		t.Errorf("results are kept after the job's end: %s", r)
	}
	if _, err := l.Input(ctx, "j1"); !fleetscore.NotFound.Is(err) {
		t.Errorf("Input after the job's end = %v, want kind not_found", err)
	}
}

func TestCancelJob(t *testing.T) {
	t.Parallel()
	l, ctx := open(t), t.Context()
	plan(t, l, "j1", 3)
	n := node(t, l, "n1")
	ls := must[[]Leased](t)(l.LeaseTasks(ctx, "cpu", n, 2, noon, time.Minute))
	must[Leased](t)(l.EndAttempt(ctx, ls[0].Attempt.Lease, noon, succeed("{}")))
	j := must[fleetscore.Job](t)(l.CancelJob(ctx, "j1", "somebody asked", noon.Add(time.Second)))
	if j.State != fleetscore.JobCanceled || j.Ended == nil || j.TasksEnded != 3 {
		t.Errorf("canceled: %+v", j)
	}
	var states []fleetscore.TaskState
	for _, task := range must[[]fleetscore.Task](t)(l.Tasks(ctx, "j1")) {
		states = append(states, task.State)
	}
	if d := cmp.Diff([]fleetscore.TaskState{fleetscore.TaskSucceeded, fleetscore.TaskCanceled, fleetscore.TaskCanceled}, states); d != "" {
		t.Errorf("tasks (-want +got):\n%s", d)
	}
	if _, revoked, err := l.Renew(ctx, n, []fleetscore.LeaseID{ls[1].Attempt.Lease}, noon, time.Minute); err != nil || len(revoked) != 1 {
		t.Errorf("Renew revokes %v, %v; want the canceled lease", revoked, err)
	}
	if _, err := l.EndAttempt(ctx, ls[1].Attempt.Lease, noon, succeed("{}")); !fleetscore.Conflict.Is(err) {
		t.Errorf("an answer after the cancellation = %v, want kind conflict", err)
	}
	if _, err := l.CancelJob(ctx, "j1", "", noon); !fleetscore.Conflict.Is(err) {
		t.Errorf("a second cancellation = %v, want kind conflict", err)
	}
	if q, r, _ := l.QueueDepth(ctx, "cpu"); q != 0 || r != 0 {
		t.Errorf("%d queued and %d leased are left", q, r)
	}
}

func TestConcurrentLeases(t *testing.T) {
	t.Parallel()
	l, ctx := open(t), t.Context()
	const nodes, tasks = 8, 60
	plan(t, l, "j1", tasks)
	var mu sync.Mutex
	given := map[fleetscore.TaskID]int{}
	var wg sync.WaitGroup
	for i := range nodes {
		n := node(t, l, fmt.Sprint("n", i))
		wg.Go(func() {
			for {
				ls, err := l.LeaseTasks(ctx, "cpu", n, 3, noon, time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				if len(ls) == 0 {
					return
				}
				for _, one := range ls {
					if _, err := l.EndAttempt(ctx, one.Attempt.Lease, noon, succeed("{}")); err != nil {
						t.Error(err)
					}
					mu.Lock()
					given[one.Task.ID]++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	for id, n := range given {
		if n != 1 {
			t.Errorf("task %s was given %d times", id, n)
		}
	}
	if j := must[fleetscore.Job](t)(l.Job(ctx, "j1")); len(given) != tasks || j.State != fleetscore.JobCommitting {
		t.Errorf("%d of %d tasks were given, the job is %s", len(given), tasks, j.State)
	}
}

func TestNodes(t *testing.T) {
	t.Parallel()
	l, ctx := open(t), t.Context()
	n := node(t, l, "n1")
	want := fleetscore.Node{ID: "n1", Pool: "cpu", Slots: 2, State: fleetscore.NodeReady, Started: noon, Heartbeat: noon, IdleSince: noon}
	if d := cmp.Diff(want, must[fleetscore.Node](t)(l.Node(ctx, n))); d != "" {
		t.Errorf("node (-want +got):\n%s", d)
	}
	plan(t, l, "j1", 1)
	if err := l.SetNodeState(ctx, n, fleetscore.NodeDraining); err != nil {
		t.Fatal(err)
	}
	if _, err := l.LeaseTasks(ctx, "cpu", n, 1, noon, time.Minute); !fleetscore.Conflict.Is(err) {
		t.Errorf("a lease for a draining node = %v, want kind conflict", err)
	}
	if err := l.TouchNode(ctx, n, noon.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{l.SetNodeState(ctx, "n9", fleetscore.NodeLost), l.TouchNode(ctx, "n9", noon)} {
		if !fleetscore.NotFound.Is(err) {
			t.Errorf("an unknown node = %v, want kind not_found", err)
		}
	}
	got := must[fleetscore.Node](t)(l.UpdateNode(ctx, "n2", func(n *fleetscore.Node) error {
		*n = fleetscore.Node{ID: n.ID, Pool: "gpu", State: fleetscore.NodeStopped, Started: noon}
		return nil
	}))
	if got.ID != "n2" || len(must[[]fleetscore.Node](t)(l.Nodes(ctx, "gpu"))) != 1 || len(must[[]fleetscore.Node](t)(l.Nodes(ctx, ""))) != 2 {
		t.Errorf("after adding %+v the pools hold others", got)
	}
	if err := l.ForgetNodes(ctx, noon); err != nil {
		t.Fatal(err)
	}
	if left := must[[]fleetscore.Node](t)(l.Nodes(ctx, "")); len(left) != 1 || left[0].Heartbeat != noon.Add(time.Minute) {
		t.Errorf("left are %+v, want n1 with its sign of life", left)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	l, ctx := open(t), t.Context()
	ch, stop := l.Watch()
	signaled := func() bool {
		select {
		case <-ch:
			return true
		default:
			return false
		}
	}
	node(t, l, "n1")
	plan(t, l, "j1", 1)
	if !signaled() || signaled() {
		t.Error("changes that follow each other give one signal")
	}
	if err := l.TouchNode(ctx, "n1", noon); err != nil {
		t.Fatal(err)
	}
	if _, err := l.UpdateJob(ctx, "j1", func(*fleetscore.Job) error { return errors.New("no") }); err == nil || signaled() {
		t.Error("a heartbeat or a refused change gives a signal")
	}
	stop()
	plan(t, l, "j2", 1)
	if signaled() {
		t.Error("a signal after the watch ended")
	}
}

func TestAudit(t *testing.T) {
	t.Parallel()
	l := open(t)
	for _, s := range []string{"j1", "j2"} {
		if err := l.Audit(t.Context(), "me", "submit", s); err != nil {
			t.Fatal(err)
		}
	}
	got := must[[]AuditEntry](t)(l.AuditLog(t.Context(), 1))
	if len(got) != 1 || got[0].Subject != "j2" || got[0].Who != "me" || got[0].At.IsZero() {
		t.Errorf("AuditLog = %+v", got)
	}
}

func TestOpenTwice(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a folder?", "100%#.db") // characters that mean something in a URL
	l := openAt(t, path)
	plan(t, l, "j1", 1)
	_, err := Open(t.Context(), path)
	if !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("a second Open = %v, want kind conflict, the process and what to do", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l2, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer l2.Close()
	if j, err := l2.Job(t.Context(), "j1"); err != nil || j.State != fleetscore.JobQueued || j.Tasks != 1 {
		t.Errorf("after reopening the job is %+v, %v", j, err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file lies elsewhere: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path); !fleetscore.Corrupt.Is(err) {
		t.Errorf("Open of other bytes = %v, want kind corrupt", err)
	}

	newer := filepath.Join(t.TempDir(), "ledger.db")
	l, err := Open(t.Context(), newer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.write.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)`); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), newer); !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), "newer release") {
		t.Errorf("Open of a newer ledger = %v, want kind conflict", err)
	}
}

// writeForEver makes jobs with tasks, and prints each id once it was told that
// the job is kept.
func writeForEver(path string) {
	ctx := context.Background()
	l, err := Open(ctx, path)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	existing, err := l.Jobs(ctx, JobFilter{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := len(existing); ; i++ {
		j := job(fmt.Sprintf("j%d", i))
		err := l.DecideOccurrences(ctx, ScheduleState{Pipeline: "p", Created: noon, LastDue: noon.Add(time.Duration(i) * time.Minute)},
			[]fleetscore.Occurrence{{Pipeline: "p", Due: noon.Add(time.Duration(i) * time.Minute), State: fleetscore.OccurrenceRan, Job: j.ID}}, &j)
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(j.ID)
	}
}

// TestSurvivesKill kills a writer at random moments: what it was told is kept is
// kept, and transactions are whole.
func TestSurvivesKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.db")
	kept := 0
	for round := range 4 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), writerEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if strings.HasPrefix(lines.Text(), "error") {
				t.Errorf("the writer says %s", lines.Text())
				break
			}
			kept++
			if n == 5+7*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed
		l, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		jobs := must[[]fleetscore.Job](t)(l.Jobs(t.Context(), JobFilter{}))
		occs := must[[]fleetscore.Occurrence](t)(l.Occurrences(t.Context(), "p", 1_000_000))
		s := must[ScheduleState](t)(l.Schedule(t.Context(), "p"))
		// One more than acknowledged may be there: the kill came before the word.
		if len(jobs) < kept || len(jobs) > kept+1 || len(occs) != len(jobs) || !s.LastDue.Equal(occs[0].Due) {
			t.Errorf("round %d: %d jobs, %d occurrences, last due %s; %d were acknowledged", round, len(jobs), len(occs), s.LastDue, kept)
		}
		kept = len(jobs)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
