package ledgertest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// testTimeOutJob: what was delivered stays, the other tasks fail with the outcome
// timed_out, their leases end, and the job commits. Leases of one job that were given
// long ago can be taken back alone.
func testTimeOutJob(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	plan(t, l, "j1", 3)
	plan(t, l, "j2", 1)
	n := node(t, l, "n1")
	if _, err := l.TimeOutJob(ctx, "j1", "late", noon); !fleetscore.Conflict.Is(err) {
		t.Errorf("a job that doesn't run times out: %v, want kind conflict", err)
	}
	ls := must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "cpu", n, 4, noon, time.Minute))
	for _, tt := range []struct {
		job    fleetscore.JobID
		before time.Time
		want   int
	}{{"j1", noon, 0}, {"j3", noon.Add(time.Second), 0}, {"j2", noon.Add(time.Second), 1}, {"j2", noon.Add(time.Second), 0}} {
		if got := must[[]ledger.Leased](t)(l.TakeBack(ctx, ledger.LeaseFilter{Job: tt.job, StartedBefore: tt.before}, noon, requeue(noon))); len(got) != tt.want {
			t.Errorf("%s before %s: %d leases are taken back, want %d", tt.job, tt.before, len(got), tt.want)
		}
	}
	must[ledger.Leased](t)(l.EndAttempt(ctx, ls[0].Attempt.Lease, noon, succeed("{}")))
	j := must[fleetscore.Job](t)(l.TimeOutJob(ctx, "j1", "late", noon.Add(time.Second)))
	if j.State != fleetscore.JobCommitting || j.Ended != nil || j.TasksEnded != 3 {
		t.Errorf("timed out: %+v", j)
	}
	type end struct {
		State   fleetscore.TaskState
		Outcome fleetscore.Outcome
		Reason  string
	}
	var ends []end
	for _, task := range must[[]fleetscore.Task](t)(l.Tasks(ctx, "j1")) {
		ends = append(ends, end{task.State, task.Outcome, task.Reason})
	}
	late := end{fleetscore.TaskFailed, fleetscore.TimedOut, "late"}
	if d := cmp.Diff([]end{{State: fleetscore.TaskSucceeded}, late, late}, ends); d != "" {
		t.Errorf("tasks (-want +got):\n%s", d)
	}
	if _, revoked, err := l.Renew(ctx, n, []fleetscore.LeaseID{ls[1].Attempt.Lease}, nil, noon, time.Minute); err != nil || len(revoked) != 1 {
		t.Errorf("Renew revokes %v, %v; want the lease of the job that timed out", revoked, err)
	}
	if got, err := l.Results(ctx, "j1"); err != nil || len(got) != 1 {
		t.Errorf("results %v, %v, want the one that was delivered in time", got, err)
	}
	endedTasks(t, l, "before the job ends", 1, 2)
	if _, err := l.UpdateJob(ctx, "j1", func(j *fleetscore.Job) error { j.State = fleetscore.JobPartlyFailed; return nil }); err != nil {
		t.Fatal(err)
	}
	endedTasks(t, l, "after the job has ended", 1, 2)
}

// testPriority: tasks of a higher priority are given out first, and among equal ones
// those of the older job. Jobs of a backfill are made with the decision.
func testPriority(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	var jobs []fleetscore.Job
	for _, p := range []fleetscore.Priority{fleetscore.PriorityLow, "", fleetscore.PriorityHigh, fleetscore.PriorityNormal} {
		j := job(fmt.Sprint("j", len(jobs)))
		j.Priority = p
		jobs = append(jobs, j)
	}
	if _, err := l.DecideSchedule(ctx, "p", func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		return ledger.ScheduleDecision{State: v.State, Backfill: jobs}, nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		task := fleetscore.Task{ID: fleetscore.TaskID(j.ID + ".000"), Job: j.ID, State: fleetscore.TaskQueued}
		if err := l.PlanJob(ctx, j, []ledger.PlannedTask{{Task: task}}); err != nil {
			t.Fatal(err)
		}
	}
	n := node(t, l, "n1")
	var got []fleetscore.JobID
	for range jobs {
		for _, ls := range must[[]ledger.Leased](t)(l.LeaseTasks(ctx, "cpu", n, 1, noon, time.Minute)) {
			got = append(got, ls.Job.ID)
		}
	}
	if d := cmp.Diff([]fleetscore.JobID{"j2", "j1", "j3", "j0"}, got); d != "" {
		t.Errorf("order of tasks (-want +got):\n%s", d)
	}
}

// testHarms: records of harm belong to a fleet, a pipeline and a sensor, and a change sees what is there.
func testHarms(t *testing.T, open Open) {
	t.Helper()
	l, ctx := open(t), t.Context()
	a := fleetscore.Harm{Pipeline: "p", Key: "1\x1fpressure", Model: fleetscore.DigestOf([]byte("m")), Reason: "a\nreason", Jobs: []fleetscore.JobID{"j1", "j2"}, First: noon, Last: noon.Add(time.Hour), Quarantined: &noon}
	b := fleetscore.Harm{Pipeline: "p", Key: "0", Reason: "other", Jobs: []fleetscore.JobID{"j1"}, First: noon, Last: noon}
	change := func(fleet string, put []fleetscore.Harm, remove ...fleetscore.Harm) (seen int) {
		t.Helper()
		if err := l.ChangeHarms(ctx, fleet, func(have []fleetscore.Harm) (_, _ []fleetscore.Harm) {
			seen = len(have)
			return put, remove
		}); err != nil {
			t.Fatal(err)
		}
		return seen
	}
	other := fleetscore.Harm{Pipeline: "q", Key: "0", Reason: "of another pipeline", Jobs: []fleetscore.JobID{"j9"}, First: noon, Last: noon}
	change("f", []fleetscore.Harm{other, a, b})
	if n := change("g", []fleetscore.Harm{a}); n != 0 {
		t.Errorf("another fleet has %d records", n)
	}
	a.Reason = "newer"
	if n := change("f", []fleetscore.Harm{a}); n != 3 {
		t.Errorf("the change saw %d records, want 3", n)
	}
	want := []fleetscore.Harm{b, a, other}
	for i := range want {
		want[i].Fleet = "f"
	}
	if d := cmp.Diff(want, must[[]fleetscore.Harm](t)(l.Harms(ctx, "f"))); d != "" {
		t.Errorf("harm (-want +got):\n%s", d)
	}
	if all := must[[]fleetscore.Harm](t)(l.Harms(ctx, "")); len(all) != 4 {
		t.Errorf("all fleets have %d records, want 4", len(all))
	}
	change("f", nil, b, fleetscore.Harm{Pipeline: "p", Key: "unknown"})
	if got := must[[]fleetscore.Harm](t)(l.Harms(ctx, "f")); len(got) != 2 || got[0].Key != a.Key || got[1].Pipeline != "q" {
		t.Errorf("after a removal: %+v", got)
	}
}
