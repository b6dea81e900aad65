// Package ledgertest is the conformance suite of ledgers.
package ledgertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// Open returns an empty ledger that is closed when the test ends.
type Open func(t *testing.T) ledger.Ledger

// Run tests an implementation.
func Run(t *testing.T, open Open) {
	for _, tt := range []struct {
		name string
		test func(*testing.T, Open)
	}{
		{"Config", testConfig},
		{"ScheduleAndOccurrences", testScheduleAndOccurrences},
		{"ReplacedJob", testReplacedJob},
		{"Jobs", testJobs},
		{"LifeOfTasks", testLifeOfTasks}, {"Images", testImages},
		{"CancelJob", testCancelJob},
		{"TimeOutJob", testTimeOutJob},
		{"Priority", testPriority},
		{"ConcurrentLeases", testConcurrentLeases},
		{"Nodes", testNodes},
		{"SignsOfLife", testSignsOfLife},
		{"SignsDontWait", testSignsDontWait},
		{"SignsWhileWritten", testSignsWhileWritten},
		{"Neglected", testNeglected},
		{"TakeBackMany", testTakeBackMany},
		{"Watch", testWatch},
		{"Audit", testAudit},
		{"LastTime", testLastTime},
		{"History", testHistory},
		{"Scales", testScales},
		{"Harms", testHarms},
		{"Texts", testTexts},
		{"Secrets", testSecrets},
		{"Sessions", testSessions},
		{"Together", testTogether},
		{"Costs", testCosts},
		{"Rejects", testRejects},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.test(t, open)
		})
	}
}

// Insert makes a job whose pipeline has no schedule.
func Insert(ctx context.Context, l ledger.Schedules, j fleetscore.Job) error {
	_, err := l.DecideSchedule(ctx, j.Pipeline, func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		return ledger.ScheduleDecision{State: v.State, Job: &j}, nil
	})
	return err
}

// Queue makes a job with so many queued tasks that read nothing.
func Queue(ctx context.Context, l interface {
	ledger.Schedules
	ledger.JobChanges
}, j fleetscore.Job, tasks int) error {
	if err := Insert(ctx, l, j); err != nil {
		return err
	}
	planned := make([]ledger.PlannedTask, tasks)
	for i := range planned {
		planned[i].Task = fleetscore.Task{ID: fleetscore.TaskID(fmt.Sprintf("%s.%03d", j.ID, i)), Job: j.ID, Index: i, State: fleetscore.TaskQueued}
	}
	return l.PlanJob(ctx, j, planned)
}

func touch(ctx context.Context, l ledger.Ledger, id fleetscore.NodeID) error {
	_, _, err := l.Renew(ctx, id, nil, nil, noon, 0)
	return err
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

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
func plan(t *testing.T, l ledger.Ledger, id string, n int) []ledger.PlannedTask {
	t.Helper()
	j := job(id)
	if err := Insert(t.Context(), l, j); err != nil {
		t.Fatal(err)
	}
	var tasks []ledger.PlannedTask
	for i := range n {
		tasks = append(tasks, ledger.PlannedTask{Input: ledger.Input{Version: 7, TimeName: "TS", KeyNames: []string{"Device"}, Files: []fleetscore.DataFile{{Path: fmt.Sprint("f", i)}}}, Task: fleetscore.Task{ID: fleetscore.TaskID(fmt.Sprintf("%s.%03d", id, i)), Job: j.ID, Index: i, State: fleetscore.TaskQueued, Keys: 1}})
	}
	if err := l.PlanJob(t.Context(), j, tasks); err != nil {
		t.Fatal(err)
	}
	return tasks
}

func node(t *testing.T, l ledger.Ledger, id string) fleetscore.NodeID {
	t.Helper()
	n := fleetscore.Node{ID: fleetscore.NodeID(id), Pool: "cpu", Slots: 2, State: fleetscore.NodeIdle, Started: noon, Heartbeat: noon, IdleSince: noon}
	if _, err := l.UpdateNode(t.Context(), n.ID, func(have *fleetscore.Node) error { *have = n; return nil }); err != nil {
		t.Fatal(err)
	}
	return n.ID
}

func succeed(result string) func(ledger.Leased) (ledger.AttemptEnd, error) {
	return func(ls ledger.Leased) (ledger.AttemptEnd, error) {
		ls.Task.State = fleetscore.TaskSucceeded
		return ledger.AttemptEnd{State: "succeeded", Task: ls.Task, Result: []byte(result)}, nil
	}
}

func requeue(at time.Time) func(ledger.Leased) (ledger.AttemptEnd, error) {
	return func(ls ledger.Leased) (ledger.AttemptEnd, error) {
		ls.Task.State = fleetscore.TaskQueued
		return ledger.AttemptEnd{State: "expired", Reason: "no sign of life", Task: ls.Task, NotBefore: at}, nil
	}
}

func testConfig(t *testing.T, open Open) {
	t.Helper()
	l := open(t)
	if _, _, _, err := l.Config(t.Context()); !fleetscore.NotFound.Is(err) {
		t.Errorf("Config before the first = %v, want kind not_found", err)
	}
	cfg := fleetscore.Config{Hub: fleetscore.HubConfig{Key: []string{"Device"}, Retention: fleetscore.HubRetention{Age: fleetscore.Duration(time.Hour)}},
		Pipelines: map[string]fleetscore.PipelineConfig{"p": {Dataset: "d", Limits: fleetscore.LimitsConfig{Failed: fleetscore.AllowShare(5), NoData: fleetscore.AllowCount(7)}}}}
	for i, want := range []struct {
		yaml    string
		version int64
	}{{"a: 1", 1}, {"a: 1", 1}, {"a: 2", 2}} {
		if v := must[int64](t)(l.PutConfig(t.Context(), noon.Add(time.Duration(i)*time.Minute), want.yaml, cfg)); v != want.version {
			t.Errorf("put %d: version %d, want %d", i, v, want.version)
		}
	}
	got, yaml, version, err := l.Config(t.Context())
	if d := cmp.Diff(cfg, got); err != nil || d != "" || yaml != "a: 2" || version != 2 {
		t.Errorf("Config = %q version %d, %v (-want +got):\n%s", yaml, version, err, d)
	}
	testConfigVersions(t, l, cfg)
}

func testScheduleAndOccurrences(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	state := func() ledger.ScheduleState { return must[ledger.ScheduleView](t)(l.Schedule(ctx, "p")).State }
	if d := cmp.Diff(ledger.ScheduleState{Pipeline: "p"}, state()); d != "" {
		t.Errorf("before the first decision (-want +got):\n%s", d)
	}
	decide := func(d ledger.ScheduleDecision) error {
		_, err := l.DecideSchedule(ctx, "p", func(ledger.ScheduleView) (ledger.ScheduleDecision, error) { return d, nil })
		return err
	}
	s := ledger.ScheduleState{Pipeline: "p", Created: noon}
	if err := decide(ledger.ScheduleDecision{State: s}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, state()); d != "" {
		t.Errorf("zero times (-want +got):\n%s", d)
	}
	s.NextFrom, s.LastDue = noon.Add(2*time.Hour), noon.Add(2*time.Hour)
	s.Queued, s.CatchUp, s.Paused = noon.Add(3*time.Hour), noon.Add(4*time.Hour), noon.Add(5*time.Hour)
	s.Revised = 7
	j := job("j1")
	occs := []fleetscore.Occurrence{
		{Pipeline: "p", Due: noon.Add(time.Hour), State: fleetscore.OccurrenceCoalesced, Job: "j1", Reason: "later"},
		{Pipeline: "p", Due: noon.Add(2 * time.Hour), State: fleetscore.OccurrenceRan, Job: "j1"}}
	if err := decide(ledger.ScheduleDecision{State: s, Occurrences: occs, Job: &j}); err != nil {
		t.Fatal(err)
	}
	// A second decision on the same due times changes nothing.
	again, other := s, job("j2")
	again.NextFrom = noon
	if err := decide(ledger.ScheduleDecision{State: again, Occurrences: occs[1:], Job: &other}); !fleetscore.Conflict.Is(err) {
		t.Errorf("a second outcome = %v, want kind conflict", err)
	}
	boom := errors.New("boom")
	if _, err := l.DecideSchedule(ctx, "p", func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		if len(v.Active) != 1 || v.Active[0].ID != "j1" || v.State != s {
			t.Errorf("the decision sees %+v", v)
		}
		return ledger.ScheduleDecision{State: again}, boom
	}); !errors.Is(err, boom) {
		t.Errorf("a refused decision = %v, want its error", err)
	}
	if d := cmp.Diff(s, state()); d != "" {
		t.Errorf("state (-want +got):\n%s", d)
	}
	// What was decided counts, whatever the state says.
	behind := s
	behind.LastDue = noon
	if err := decide(ledger.ScheduleDecision{State: behind}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, state()); d != "" {
		t.Errorf("a state behind the outcomes (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]fleetscore.Occurrence{occs[1], occs[0]}, must[[]fleetscore.Occurrence](t)(l.Occurrences(ctx, "p", 10))); d != "" {
		t.Errorf("occurrences (-want +got):\n%s", d)
	}
	if got := must[[]fleetscore.Occurrence](t)(l.Occurrences(ctx, "", 1)); len(got) != 1 {
		t.Errorf("one of all pipelines': %v", got)
	}
	if _, err := l.Job(ctx, "j2"); !fleetscore.NotFound.Is(err) {
		t.Errorf("the refused job = %v, want kind not_found", err)
	}
	if d := cmp.Diff(j, must[fleetscore.Job](t)(l.Job(ctx, "j1"))); d != "" {
		t.Errorf("job (-want +got):\n%s", d)
	}
}

func testJobs(t *testing.T, open Open) {
	t.Helper()
	l := open(t)
	for i := range 5 {
		j := job(fmt.Sprintf("j%d", i))
		if i%2 == 1 {
			j.Pipeline = "q"
		}
		if err := Insert(t.Context(), l, j); err != nil {
			t.Fatal(err)
		}
	}
	if err := Insert(t.Context(), l, job("j0")); !fleetscore.Conflict.Is(err) {
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
	if _, err := l.UpdateJob(t.Context(), "j9", func(*fleetscore.Job) error { return nil }); !fleetscore.NotFound.Is(err) || !strings.Contains(err.Error(), "there is no such job (fleetscore job list") {
		t.Errorf("UpdateJob of none = %v, want kind not_found", err)
	}
	for _, c := range []struct {
		f    ledger.JobFilter
		want string
	}{
		{ledger.JobFilter{}, "j4 j3 j2 j1 j0"},
		{ledger.JobFilter{Limit: 2}, "j4 j3"},
		{ledger.JobFilter{Limit: 2, Before: "j3"}, "j2 j1"},
		{ledger.JobFilter{Pipeline: "q"}, "j3 j1"},
		{ledger.JobFilter{States: []fleetscore.JobState{fleetscore.JobFailed, fleetscore.JobCanceled}}, "j2"},
		{ledger.JobFilter{Pipeline: "q", States: []fleetscore.JobState{fleetscore.JobFailed}}, ""},
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

func testLifeOfTasks(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	plan(t, l, "j1", 2)
	plan(t, l, "j2", 1)
	if err := l.PlanJob(ctx, job("j1"), nil); !fleetscore.Conflict.Is(err) {
		t.Errorf("a second plan = %v, want kind conflict", err)
	}
	n1, n2 := node(t, l, "n1"), node(t, l, "n2")
	if got := must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "gpu", n1, 9, noon, time.Minute)); len(got) != 0 {
		t.Errorf("leases of another pool's queue: %v", got)
	}
	first := must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "cpu", n1, 2, noon, time.Minute))
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
	if _, revoked, err := l.Renew(ctx, n1, []fleetscore.LeaseID{first[1].Attempt.Lease, "unknown"}, nil, noon.Add(30*time.Second), time.Minute+time.Second); err != nil ||
		!cmp.Equal(revoked, []fleetscore.LeaseID{"unknown"}) {
		t.Errorf("Renew revokes %v, %v", revoked, err)
	}
	if _, revoked, _ := l.Renew(ctx, n2, []fleetscore.LeaseID{first[1].Attempt.Lease}, nil, noon, time.Hour); len(revoked) != 1 {
		t.Error("a node renews another's lease")
	}
	lost := must[[]ledger.Leased](t)(l.TakeBack(ctx, ledger.LeaseFilter{ExpiredBefore: later}, later, requeue(later.Add(time.Second))))
	if len(lost) != 1 || lost[0].Task.ID != "j1.000" || lost[0].Attempt.State != "expired" {
		t.Fatalf("taken back: %+v", lost)
	}
	if at := must[time.Time](t)(l.NextRetry(ctx, "cpu", later)); !at.Equal(later.Add(time.Second)) {
		t.Errorf("NextRetry = %s", at)
	}
	if got := must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "cpu", n2, 1, later, time.Minute)); len(got) != 1 || got[0].Task.ID != "j2.000" {
		t.Fatalf("leases %+v, want the second job's: the first's waits for its retry", got)
	}
	later = later.Add(time.Second)
	second := must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "cpu", n2, 1, later, time.Minute))
	if len(second) != 1 || second[0].Task.ID != "j1.000" || second[0].Attempt.Number != 2 {
		t.Fatalf("leases %+v, want the second attempt", second)
	}

	testAnswers(t, l, first, second, later)
}

// testAnswers: the late answer of the first holder is refused, the second's is
// taken once.
func testAnswers(t *testing.T, l ledger.Ledger, first, second []ledger.Leased, later time.Time) {
	t.Helper()
	ctx, n1 := t.Context(), fleetscore.NodeID("n1")
	if _, err := l.EndAttempt(ctx, first[0].Attempt.Lease, later, succeed("{}")); !fleetscore.Conflict.Is(err) {
		t.Errorf("a late answer = %v, want kind conflict", err)
	}
	if _, err := l.EndAttempt(ctx, "unknown", later, succeed("{}")); !fleetscore.NotFound.Is(err) {
		t.Errorf("an unknown lease = %v, want kind not_found", err)
	}
	ended := must[ledger.Leased](t)(l.EndAttempt(ctx, second[0].Attempt.Lease, later, succeed(`{"rows":1}`)))
	if ended.Job.State != fleetscore.JobRunning || ended.Job.TasksEnded != 1 || ended.Task.Ended == nil {
		t.Errorf("after the first result: %+v", ended)
	}
	if _, err := l.EndAttempt(ctx, second[0].Attempt.Lease, later, succeed("{}")); !fleetscore.Conflict.Is(err) {
		t.Errorf("an answer twice = %v, want kind conflict", err)
	}
	ended = must[ledger.Leased](t)(l.EndAttempt(ctx, first[1].Attempt.Lease, later, succeed(`{"rows":2}`)))
	if ended.Job.State != fleetscore.JobCommitting || ended.Job.TasksEnded != 2 {
		t.Errorf("after the last result the job is %s with %d tasks ended", ended.Job.State, ended.Job.TasksEnded)
	}
	endedTasks(t, l, "before the job ends", 2, 0)
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
	endedTasks(t, l, "after the job has ended", 2, 0)
	if _, err := l.UpdateJob(ctx, "j1", func(j *fleetscore.Job) error { j.Reason = "changed later"; return nil }); err != nil {
		t.Fatal(err)
	}
	endedTasks(t, l, "after the job was changed once more", 2, 0)
	if r := must[map[fleetscore.TaskID]json.RawMessage](t)(l.Results(ctx, "j1")); len(r) != 0 {
		t.Errorf("results are kept after the job's end: %s", r)
	}
	if in := must[[]ledger.Input](t)(l.Inputs(ctx, "j1")); len(in) != 0 {
		t.Errorf("inputs are kept after the job's end: %+v", in)
	}
	if in := must[[]ledger.Input](t)(l.Inputs(ctx, "j2")); len(in) != 1 || in[0].Version != 7 {
		t.Errorf("another job's inputs are %+v", in)
	}
	if err := l.ForgetJobs(ctx, []fleetscore.JobID{"j1"}); err != nil {
		t.Fatal(err)
	}
	endedTasks(t, l, "after the job is forgotten", 2, 0)
}

// endedTasks looks at how many tasks of the pool have succeeded and failed; another pool has
// none.
func endedTasks(t *testing.T, l ledger.Ledger, when string, succeeded, failed int64) {
	t.Helper()
	if s, f, err := l.TasksEnded(t.Context(), "cpu"); s != succeeded || f != failed || err != nil {
		t.Errorf("%s, %d tasks succeeded and %d failed, %v; want %d and %d", when, s, f, err, succeeded, failed)
	}
	if s, f, err := l.TasksEnded(t.Context(), "gpu"); s != 0 || f != 0 || err != nil {
		t.Errorf("%s, %d tasks of another pool succeeded and %d failed, %v", when, s, f, err)
	}
}

func testCancelJob(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	plan(t, l, "j1", 3)
	n := node(t, l, "n1")
	ls := must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "cpu", n, 2, noon, time.Minute))
	must[ledger.Leased](t)(l.EndAttempt(ctx, ls[0].Attempt.Lease, noon, succeed("{}")))
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
	if _, revoked, err := l.Renew(ctx, n, []fleetscore.LeaseID{ls[1].Attempt.Lease}, nil, noon, time.Minute); err != nil || len(revoked) != 1 {
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
	endedTasks(t, l, "after the cancellation", 1, 0)
}

func testConcurrentLeases(t *testing.T, open Open) {
	t.Helper()
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

func testWatch(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	watch := map[ledger.Topic]<-chan struct{}{}
	for _, topic := range []ledger.Topic{ledger.AnyQueue, ledger.QueueTopic("cpu"), ledger.QueueTopic("gpu"), ledger.AnyJobs, ledger.JobsTopic("p"), ledger.JobsTopic("q"),
		ledger.JobTopic("j1"), ledger.AnyNodes, ledger.NodesTopic("cpu"), ledger.NodeTopic("n1"), ledger.AttemptsTopic, ledger.ConfigTopic, ledger.DatasetTopic("d")} {
		ch, stop := l.Watch(topic)
		defer stop()
		watch[topic] = ch
	}
	told := func(what string, want ...ledger.Topic) {
		t.Helper()
		for topic, ch := range watch {
			got := false
			select {
			case <-ch:
				got = true
			default:
			}
			if got != slices.Contains(want, topic) {
				t.Errorf("%s: a signal for %s is %t", what, topic, got)
			}
		}
	}
	n := node(t, l, "n1")
	told("a node", ledger.AnyNodes, ledger.NodesTopic("cpu"), ledger.NodeTopic("n1"))
	plan(t, l, "j1", 2)
	told("a job with tasks", ledger.AnyQueue, ledger.QueueTopic("cpu"), ledger.AnyJobs, ledger.JobsTopic("p"), ledger.JobTopic("j1"))
	told("nothing")
	if err := touch(ctx, l, "n1"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.UpdateJob(ctx, "j1", func(*fleetscore.Job) error { return errors.New("no") }); err == nil {
		t.Error("a refused change has no error")
	}
	told("a heartbeat and a refused change")
	ls := must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "cpu", n, 1, noon, time.Minute))
	told("a first lease", ledger.AnyJobs, ledger.JobsTopic("p"), ledger.JobTopic("j1"))
	must[ledger.Leased](t)(l.EndAttempt(ctx, ls[0].Attempt.Lease, noon, succeed("{}")))
	told("an attempt's end", ledger.JobTopic("j1"), ledger.AnyNodes, ledger.NodesTopic("cpu"), ledger.AttemptsTopic)
	if err := l.UpdateJobs(ctx, "p", []fleetscore.JobState{fleetscore.JobRunning}, func(j *fleetscore.Job) { j.Config.Pool = "gpu" }); err != nil {
		t.Fatal(err)
	}
	told("another pool", ledger.AnyQueue, ledger.QueueTopic("gpu"), ledger.JobTopic("j1"))
	if got := must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "cpu", n, 1, noon, time.Minute)); len(got) != 0 {
		t.Errorf("the old pool still has tasks: %+v", got)
	}
	must[int64](t)(l.PutConfig(ctx, noon, "x", fleetscore.Config{}))
	l.Put(ledger.DatasetTopic("d"))
	told("a configuration and a dataset", ledger.ConfigTopic, ledger.DatasetTopic("d"))
	ch, stop := l.Watch(ledger.ConfigTopic, ledger.AnyJobs)
	stop()
	l.Put(ledger.ConfigTopic)
	select {
	case <-ch:
		t.Error("a signal after the watch ended")
	default:
	}
}

func testAudit(t *testing.T, open Open) {
	t.Helper()
	l := open(t)
	for _, s := range []string{"j1", "j2"} {
		if err := l.Audit(t.Context(), ledger.AuditEntry{At: noon, Who: "me", What: "submit", Subject: s}); err != nil {
			t.Fatal(err)
		}
	}
	got := must[[]ledger.AuditEntry](t)(l.AuditLog(t.Context(), 1))
	if len(got) != 1 || got[0] != (ledger.AuditEntry{At: noon, Who: "me", What: "submit", Subject: "j2"}) {
		t.Errorf("AuditLog = %+v", got)
	}
}

func testLastTime(t *testing.T, open Open) {
	l := open(t)
	last := func() time.Time { return must[time.Time](t)(l.LastTime(t.Context())) }
	if got := last(); !got.IsZero() {
		t.Errorf("a new ledger last saw %s", got)
	}
	_, err := l.UpdateNode(t.Context(), "cpu-1", func(n *fleetscore.Node) error {
		n.Pool, n.State, n.Started, n.Heartbeat, n.IdleSince = "cpu", fleetscore.NodeIdle, noon, noon.Add(time.Hour), noon
		return nil
	})
	if got := last(); err != nil || !got.Equal(noon.Add(time.Hour)) {
		t.Errorf("it last saw %s, %v; want the node's sign of life an hour after noon", got, err)
	}
	_, err = l.DecideSchedule(t.Context(), "p", func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		v.State.Created, v.State.LastDue, v.State.NextFrom = noon, noon.Add(2*time.Hour), noon.Add(9*time.Hour)
		return ledger.ScheduleDecision{State: v.State}, nil
	})
	if got := last(); err != nil || !got.Equal(noon.Add(2*time.Hour)) {
		t.Errorf("it last saw %s, %v; want the due time two hours after noon", got, err)
	}
}
