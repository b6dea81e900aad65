package scheduler

import (
	"context"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
)

// carryOut carries out a job over the hour before a time, with a log.
func (w *world) carryOut(to time.Time) fleetscore.Job {
	w.t.Helper()
	j, err := w.Submit(w.t.Context(), "p", &fleetscore.Interval{From: to.Add(-time.Hour), To: to})
	if err != nil {
		w.t.Fatal(err)
	}
	l := w.lease("n1")
	if err := w.logs.AppendLog(w.t.Context(), l.ID, chunk("hello")); err != nil {
		w.t.Fatal(err)
	}
	if err := w.broker.Complete(w.t.Context(), l.ID, w.score(l)); err != nil {
		w.t.Fatal(err)
	}
	j = w.wait(j.ID, ended)
	if err := w.logs.Seal(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return j
}

func (w *world) logged(j fleetscore.Job) bool {
	w.t.Helper()
	_, err := w.bucket().Stat(w.t.Context(), catalog.TaskLog(j, 0, 1, "stderr"))
	if err != nil && !fleetscore.NotFound.Is(err) {
		w.t.Fatal(err)
	}
	return err == nil
}

// TestOldJobsAreForgotten with their logs, and no others; the next due time is decided
// as if they were there.
func TestOldJobsAreForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{History: fleetscore.Duration(24 * time.Hour)})
	w.rows(day.Add(9 * time.Hour))
	old := w.carryOut(day.Add(9 * time.Hour))
	w.set(day.Add(30 * time.Hour))
	young := w.carryOut(day.Add(8 * time.Hour))
	waits, err := w.Submit(t.Context(), "p", &fleetscore.Interval{From: day.Add(90 * time.Hour), To: day.Add(99 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	w.set(day.Add(34*time.Hour + time.Minute))
	for range 2 {
		if _, err := w.Maintain(t.Context(), catalog.Maintenance{Dataset: "readings"}); err != nil { // one table alone
			t.Fatal(err)
		}
	}
	if _, err := w.ledger.Job(t.Context(), old.ID); err != nil || !w.logged(old) {
		t.Errorf("a dataset was maintained, and an old job is gone: %v", err)
	}
	for range 2 {
		if _, err := w.Maintain(t.Context(), catalog.Maintenance{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.ledger.Job(t.Context(), old.ID); !fleetscore.NotFound.Is(err) || w.logged(old) {
		t.Errorf("the old job is kept: %v", err)
	}
	for _, j := range []fleetscore.Job{young, waits} {
		if _, err := w.ledger.Job(t.Context(), j.ID); err != nil {
			t.Errorf("%s is gone: %v", j.ID, err)
		}
	}
	if !w.logged(young) {
		t.Error("the young job's log is gone")
	}
	if len(w.visible()) == 0 {
		t.Error("the old job's results are gone")
	}
}

// TestForgettingKilled ends the process at each step: a job is there with its tasks, or
// it isn't, and the next time finishes.
func TestForgettingKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{History: fleetscore.Duration(time.Hour)})
	w.rows(day.Add(9 * time.Hour))
	var jobs []fleetscore.Job
	steps := []string{"delete", "OldJobs", "OldJobs done", "ForgetJobs", "ForgetJobs done", "Trim", "Trim done"}
	for n := range steps {
		w.set(day.Add(10*time.Hour + time.Duration(n)*time.Second))
		jobs = append(jobs, w.carryOut(day.Add(time.Duration(9-n)*time.Hour)))
	}
	later := day.Add(20 * time.Hour)
	for n, step := range steps {
		fail := func(op string) error {
			if op == step {
				return fleetscore.Errorf(fleetscore.Internal, op, "", "crash")
			}
			return nil
		}
		faulty, err := New(Deps{Ledger: &ledgertest.Faulty{Ledger: w.ledger, Fail: func(_ context.Context, op, _ string) error { return fail(op) }},
			Store: &storetest.Faulty{Bucket: w.bucket(), Fail: func(op string, _ fleetscore.BlobName) error { return fail(op) }}})
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := w.config(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := faulty.forget(t.Context(), cfg, jobs[n].Ended.Add(time.Hour+time.Microsecond), false); err == nil {
			t.Errorf("%s: nothing failed", step)
		}
		for _, j := range jobs {
			_, err := w.ledger.Job(t.Context(), j.ID)
			tasks, err2 := w.ledger.Tasks(t.Context(), j.ID)
			if gone := fleetscore.NotFound.Is(err); err != nil && !gone || err2 != nil || len(tasks) == 0 != gone {
				t.Errorf("%s: job %s: %v; %d tasks, %v", step, j.ID, err, len(tasks), err2)
			}
		}
	}
	w.set(later)
	if _, err := w.Maintain(t.Context(), catalog.Maintenance{}); err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		if _, err := w.ledger.Job(t.Context(), j.ID); !fleetscore.NotFound.Is(err) || w.logged(j) {
			t.Errorf("%s is left: %v", j.ID, err)
		}
	}
}

// TestRowsThatJobsNeedAreKept however old they are: those of a job that waits, and
// those of the schedule's next interval.
func TestRowsThatJobsNeedAreKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	cfg, err := w.config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Datasets = map[string]fleetscore.DatasetConfig{"readings": {Retention: fleetscore.Duration(time.Hour)}}
	scheduled := cfg.Pipelines["p"]
	scheduled.Schedule.Cron = "0 * * * *"
	cfg.Pipelines["q"] = scheduled
	if _, err := w.ledger.PutConfig(t.Context(), time.Now(), "with retention", cfg); err != nil {
		t.Fatal(err)
	}
	for h := range 9 {
		w.rows(day.Add(time.Duration(h) * time.Hour))
	}
	w.stop() // nothing is decided or planned any more
	w.open()
	next := func(at time.Time) {
		t.Helper()
		_, err := w.ledger.DecideSchedule(t.Context(), "q", func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
			v.State.Created, v.State.NextFrom = day, at
			return ledger.ScheduleDecision{State: v.State}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	hours := func(want int) {
		t.Helper()
		s, err := New(Deps{Ledger: w.ledger, Store: w.bucket(), Now: func() time.Time { return day.Add(100 * time.Hour) }})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Maintain(t.Context(), catalog.Maintenance{Dataset: "readings"}); err != nil {
			t.Fatal(err)
		}
		snap, err := s.catalog.Dataset("readings").Snapshot(t.Context())
		if err != nil || snap.Rows() != int64(2*want) {
			t.Errorf("%d rows are left, want those of %d hours; %v", snap.Rows(), want, err)
		}
	}
	next(time.Time{})
	hours(9)
	next(day.Add(6 * time.Hour))
	job := fleetscore.Job{ID: "w", Pipeline: "p", State: fleetscore.JobWaiting, Config: cfg.Pipelines["p"],
		Interval: fleetscore.Interval{From: day.Add(4 * time.Hour), To: day.Add(5 * time.Hour)}, Created: day}
	if err := ledgertest.Insert(t.Context(), w.ledger, job); err != nil {
		t.Fatal(err)
	}
	hours(4) // of 5 to 8 o'clock
	if _, err := w.ledger.CancelJob(context.Background(), "w", "", day); err != nil {
		t.Fatal(err)
	}
	hours(2) // the schedule's: of 7 and 8 o'clock
	next(day.Add(90 * time.Hour))
	hours(0)
}

// TestHistoryIsBounded: of a pipeline as many jobs are kept as the configuration says, and
// logs until they are older than their own age. A dry run counts both and changes nothing.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.applyConfig(func(c *fleetscore.Config) {
		c.Retention.History.Jobs = 2
		c.Retention.Logs.Size = 1
	})
	w.rows(day.Add(9 * time.Hour))
	var jobs []fleetscore.Job
	for n := range 4 {
		w.set(day.Add(10*time.Hour + time.Duration(n)*time.Second))
		jobs = append(jobs, w.carryOut(day.Add(time.Duration(9-n)*time.Hour)))
	}
	runs, err := w.Submit(t.Context(), "p", &fleetscore.Interval{From: day, To: day.Add(9 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	l := w.lease("n1")
	if l.Job != runs.ID {
		t.Fatalf("the task is of job %s", l.Job)
	}
	for _, dry := range []bool{true, false} {
		done, err := w.Maintain(t.Context(), catalog.Maintenance{Dry: dry})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]catalog.Maintained{}
		for _, m := range done {
			got[m.Table] = m
		}
		if logs, past := got["logs"], got["history"]; logs.Deleted != 4 || logs.Bytes != 20 || past.Expired != 3 {
			t.Errorf("dry %t: logs %+v, history %+v", dry, logs, past)
		}
		for i, j := range jobs {
			_, err := w.ledger.Job(t.Context(), j.ID)
			if kept := err == nil; kept != (dry || i == 3) || w.logged(j) != dry {
				t.Errorf("dry %t: job %d is kept: %t, its log: %t", dry, i, kept, w.logged(j))
			}
		}
	}
	if j, err := w.ledger.Job(t.Context(), runs.ID); err != nil || j.State != fleetscore.JobRunning {
		t.Errorf("the running job: %+v, %v", j, err)
	}
}

// TestHistoryIsBoundedByBytes: of all pipelines together as much is kept as the configuration
// says; the jobs that ended first go, with their logs, and one that hasn't ended stays. A dry
// run counts them and changes nothing.
func TestHistoryIsBoundedByBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.rows(day.Add(9 * time.Hour))
	var jobs []fleetscore.Job
	for n := range 4 {
		w.set(day.Add(10*time.Hour + time.Duration(n)*time.Second))
		jobs = append(jobs, w.carryOut(day.Add(time.Duration(9-n)*time.Hour)))
	}
	runs, err := w.Submit(t.Context(), "p", &fleetscore.Interval{From: day, To: day.Add(9 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	w.lease("n1")
	kept := func(bytes int) (n int) {
		t.Helper()
		ids, err := w.ledger.OldJobs(t.Context(), ledger.OldJobs{Bytes: int64(bytes), Limit: 9})
		if err != nil {
			t.Fatal(err)
		}
		return len(jobs) - len(ids)
	}
	bytes := 1
	for kept(bytes) < 2 {
		bytes++
	}
	w.applyConfig(func(c *fleetscore.Config) { c.Retention.History.Size = fleetscore.Size(bytes) })
	for _, dry := range []bool{true, false} {
		done, err := w.Maintain(t.Context(), catalog.Maintenance{Dry: dry})
		if err != nil {
			t.Fatal(err)
		}
		if past := done[len(done)-1]; past.Table != "history" || past.Expired != 2 {
			t.Errorf("dry %t: history %+v", dry, past)
		}
		for i, j := range jobs {
			_, err := w.ledger.Job(t.Context(), j.ID)
			if kept := err == nil; kept != (dry || i >= 2) || w.logged(j) != kept {
				t.Errorf("dry %t: job %d is kept: %t, its log: %t", dry, i, kept, w.logged(j))
			}
		}
	}
	if j, err := w.ledger.Job(t.Context(), runs.ID); err != nil || j.State != fleetscore.JobRunning {
		t.Errorf("the running job: %+v, %v", j, err)
	}
}
