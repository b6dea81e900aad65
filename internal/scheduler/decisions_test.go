package scheduler

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
)

// TestSubmitAtOnce: of many submissions at once one makes the job, the others are
// told which one covers their rows.
func TestSubmitAtOnce(t *testing.T) {
	t.Parallel()
	hours := &fleetscore.Interval{From: day.Add(7 * time.Hour), To: day.Add(8 * time.Hour)}
	for name, iv := range map[string]*fleetscore.Interval{"what is next": nil, "an interval": hours} {
		w := newWorld(t, fleetscore.PipelineConfig{})
		w.rows(day.Add(9 * time.Hour))
		var wg sync.WaitGroup
		errs := make([]error, 16)
		for i := range errs {
			wg.Go(func() { _, errs[i] = w.Submit(t.Context(), "p", iv) })
		}
		wg.Wait()
		jobs, err := w.ledger.Jobs(t.Context(), ledger.JobFilter{})
		if err != nil || len(jobs) != 1 {
			t.Fatalf("%s: %d jobs, %v", name, len(jobs), err)
		}
		refused := 0
		for _, err := range errs {
			if err == nil {
				continue
			}
			refused++
			if !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), string(jobs[0].ID)) {
				t.Errorf("%s: %v, want kind conflict and job %s", name, err, jobs[0].ID)
			}
		}
		if refused != len(errs)-1 {
			t.Errorf("%s: %d of %d were refused", name, refused, len(errs))
		}
	}
}

// joined says what is wrong with the intervals of a pipeline's jobs: each has to
// start where the one before ended.
func joined(jobs []fleetscore.Job) string {
	slices.SortFunc(jobs, func(a, b fleetscore.Job) int { return a.Interval.From.Compare(b.Interval.From) })
	for i, j := range jobs {
		if i > 0 && !j.Interval.From.Equal(jobs[i-1].Interval.To) {
			return fmt.Sprintf("job %s over %s follows job %s over %s", j.ID, j.Interval, jobs[i-1].ID, jobs[i-1].Interval)
		}
	}
	return ""
}

// TestSubmitWhileDue lets submissions, due times, ends of jobs and restarts meet in
// random order, on a clock that goes on by pieces of a minute: the intervals join,
// and each due time is decided once, none before its time.
func TestSubmitWhileDue(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			w := newWorld(t, fleetscore.PipelineConfig{Schedule: fleetscore.ScheduleConfig{Cron: "* * * * *"}})
			begin := day.Add(10 * time.Hour)
			w.rows(begin)
			now := begin
			for range 25 {
				now = now.Add(time.Duration(rnd.Int64N(int64(70 * time.Second))))
				w.set(now)
				if rnd.IntN(2) == 0 {
					w.rows(now.Truncate(time.Minute))
				}
				var wg sync.WaitGroup
				for range 1 + rnd.IntN(6) {
					wait := rnd.IntN(3)
					wg.Go(func() {
						for range wait {
							time.Sleep(time.Millisecond) // another order, no proof
						}
						if _, err := w.Submit(t.Context(), "p", nil); err != nil && !fleetscore.Conflict.Is(err) {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if rnd.IntN(8) == 0 {
					w.stop()
					w.start(w.bucket())
				}
				if rnd.IntN(3) == 0 {
					active, err := w.ledger.Jobs(t.Context(), ledger.JobFilter{States: active})
					if err != nil {
						t.Fatal(err)
					}
					for _, j := range active {
						if _, err := w.Cancel(t.Context(), j.ID); err != nil && !fleetscore.Conflict.Is(err) {
							t.Error(err)
						}
					}
				}
			}
			w.decided(now)
			jobs, err := w.ledger.Jobs(t.Context(), ledger.JobFilter{})
			if err != nil || len(jobs) == 0 {
				t.Fatalf("%d jobs, %v", len(jobs), err)
			}
			if wrong := joined(jobs); wrong != "" {
				t.Error(wrong)
			}
			occs, err := w.ledger.Occurrences(t.Context(), "p", 1000)
			if err != nil {
				t.Fatal(err)
			}
			for i, o := range occs {
				if want := now.Truncate(time.Minute).Add(-time.Duration(i) * time.Minute); !o.Due.Equal(want) || o.Due.After(now) {
					t.Errorf("occurrence %d is due at %s, want %s; now is %s", i, o.Due, want, now)
				}
			}
			if p := w.problems.Problems(); len(p) != 0 {
				t.Errorf("problems %+v", p)
			}
		})
	}
}

// decided waits until the due times before now are decided; jobs that keep the
// schedule from it are canceled.
func (w *world) decided(now time.Time) {
	w.t.Helper()
	changes, stop := w.ledger.Watch(ledger.AnyJobs)
	defer stop()
	for end := time.After(20 * time.Second); ; {
		v, err := w.ledger.Schedule(w.t.Context(), "p")
		if err != nil {
			w.t.Fatal(err)
		}
		if !v.State.LastDue.Before(now.Truncate(time.Minute)) {
			return
		}
		for _, j := range v.Active {
			if _, err := w.Cancel(w.t.Context(), j.ID); err != nil && !fleetscore.Conflict.Is(err) {
				w.t.Fatal(err)
			}
		}
		select {
		case <-changes:
		case <-end:
			w.t.Fatalf("the schedule stays at %+v, problems %+v", v.State, w.problems.Problems())
		}
	}
}

// TestScheduleHealsFromOldRows: outcomes that an older fault left ahead of the
// schedule's state don't stop it.
func TestScheduleHealsFromOldRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	due := day.Add(10*time.Hour + time.Minute)
	if _, err := w.ledger.DecideSchedule(t.Context(), "p", func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		v.State.Created, v.State.LastDue, v.State.NextFrom = day, day.Add(10*time.Hour), day.Add(10*time.Hour)
		return ledger.ScheduleDecision{State: v.State, Occurrences: []fleetscore.Occurrence{{Due: due, State: fleetscore.OccurrenceRan}}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	w.apply(func(p *fleetscore.PipelineConfig) { p.Schedule.Cron = "* * * * *" })
	now := day.Add(10*time.Hour + 3*time.Minute)
	w.set(now)
	w.decided(now)
	jobs, err := w.ledger.Jobs(t.Context(), ledger.JobFilter{})
	if err != nil || len(jobs) != 1 || !jobs[0].Interval.From.Equal(day.Add(10*time.Hour)) || !jobs[0].Interval.To.Equal(now) {
		t.Errorf("jobs %+v, %v; want one until %s", jobs, err, now)
	}
}

// apply changes the pipeline p of the configuration in force.
func (w *world) apply(change func(*fleetscore.PipelineConfig)) {
	w.t.Helper()
	w.applyConfig(func(cfg *fleetscore.Config) {
		p := cfg.Pipelines["p"]
		change(&p)
		cfg.Pipelines["p"] = p
	})
}

func (w *world) applyConfig(change func(*fleetscore.Config)) {
	w.t.Helper()
	cfg, _, _, err := w.ledger.Config(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	change(&cfg)
	if _, err := w.ledger.PutConfig(w.t.Context(), time.Now(), fmt.Sprint(time.Now().UnixNano()), cfg); err != nil {
		w.t.Fatal(err)
	}
}

// waitProblem waits until a part has a problem, or none.
func (w *world) waitProblem(part, want string) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got := ""
		for _, p := range w.problems.Problems() {
			if p.Part == part {
				got = p.Problem
			}
		}
		if want == "" && got == "" || want != "" && strings.Contains(got, want) {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("the problem of %s is %q, want %q", part, got, want)
		}
	}
}

// TestScheduleThatFailsHoldsUpNoOther: a schedule whose decisions fail is named,
// tried again and goes on; meanwhile another one works.
func TestScheduleThatFailsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{Schedule: fleetscore.ScheduleConfig{Cron: "* * * * *"}})
	var mu sync.Mutex
	broken := true
	w.stop()
	w.wrap = func(l ledger.Ledger) ledger.Ledger {
		return &brokenSchedule{Ledger: l, fails: func(pipeline string) error {
			mu.Lock()
			defer mu.Unlock()
			if broken && pipeline == "p" {
				return fleetscore.Errorf(fleetscore.Conflict, "decide schedule", pipeline, "injected")
			}
			return nil
		}}
	}
	w.start(w.bucket())
	w.applyConfig(func(cfg *fleetscore.Config) { cfg.Pipelines["q"] = cfg.Pipelines["p"] })
	w.waitProblem("schedule p", "injected")
	w.rows(day.Add(10 * time.Hour))
	waitJob := func(pipeline string) {
		t.Helper()
		changes, stop := w.ledger.Watch(ledger.AnyJobs)
		defer stop()
		for end := time.After(20 * time.Second); ; {
			jobs, err := w.ledger.Jobs(t.Context(), ledger.JobFilter{Pipeline: pipeline})
			if err != nil {
				t.Fatal(err)
			}
			if len(jobs) > 0 {
				return
			}
			select {
			case <-changes:
			case <-end:
				t.Fatalf("pipeline %s has no job; problems %+v", pipeline, w.problems.Problems())
			}
		}
	}
	w.created("q") // its due time comes after
	w.set(day.Add(10*time.Hour + time.Minute + time.Second))
	waitJob("q")
	mu.Lock()
	broken = false
	mu.Unlock()
	w.waitProblem("schedule p", "")
	w.set(day.Add(10*time.Hour + 2*time.Minute + time.Second))
	waitJob("p")
}

// brokenSchedule fails the decisions of some pipelines.
type brokenSchedule struct {
	ledger.Ledger
	fails func(pipeline string) error
}

func (b *brokenSchedule) DecideSchedule(ctx context.Context, pipeline string, decide func(ledger.ScheduleView) (ledger.ScheduleDecision, error)) (ledger.ScheduleDecision, error) {
	if err := b.fails(pipeline); err != nil {
		return ledger.ScheduleDecision{}, err
	}
	return b.Ledger.DecideSchedule(ctx, pipeline, decide)
}

// TestClockJumps: the wall clock jumps an hour ahead for eight seconds. No due time
// is decided that hasn't come, and afterwards the schedule goes on.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	wall, steady := day.Add(10*time.Hour), time.Duration(0)
	pass := func(d time.Duration) { mu.Lock(); wall, steady = wall.Add(d), steady+d; mu.Unlock() }
	jump := func(d time.Duration) { mu.Lock(); wall = wall.Add(d); mu.Unlock() }
	trusted := clock.New(clock.Config{}, clock.Deps{
		Wall:   func() time.Time { mu.Lock(); defer mu.Unlock(); return wall },
		Steady: func() time.Duration { mu.Lock(); defer mu.Unlock(); return steady },
		Synced: func() (time.Time, bool) { return time.Time{}, false },
	}, wall.Add(-time.Second))
	w := newWorld(t, fleetscore.PipelineConfig{Schedule: fleetscore.ScheduleConfig{Cron: "* * * * *"}})
	w.stop()
	w.clockOf = trusted.Now
	w.start(w.bucket())
	truth := day.Add(10 * time.Hour)
	second := func(n int) {
		for range n {
			pass(time.Second)
			truth = truth.Add(time.Second)
			trusted.Now()
		}
	}
	w.created("p")
	second(61)
	w.decided(truth)
	jump(time.Hour)
	for range 8 {
		second(1)
		time.Sleep(3 * w.loops.Look) // the loops look at the clock
	}
	jump(-time.Hour)
	second(60)
	w.decided(truth)
	occs, err := w.ledger.Occurrences(t.Context(), "p", 1000)
	if err != nil || len(occs) == 0 {
		t.Fatal(occs, err)
	}
	for _, o := range occs {
		if o.Due.After(truth) {
			t.Errorf("%s was decided, and it is %s", o.Due, truth)
		}
	}
	jobs, err := w.ledger.Jobs(t.Context(), ledger.JobFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		if j.Interval.To.After(truth) {
			t.Errorf("job %s covers %s, and it is %s", j.ID, j.Interval, truth)
		}
	}
	if wrong := joined(jobs); wrong != "" {
		t.Error(wrong)
	}
}

// TestDecidedAhead: due times that were decided by a clock that was wrong are
// named, and the schedule goes on when they have come.
func TestDecidedAhead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	until := day.Add(11 * time.Hour)
	if _, err := w.ledger.DecideSchedule(t.Context(), "p", func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		v.State.Created, v.State.LastDue, v.State.NextFrom = day, until, until
		return ledger.ScheduleDecision{State: v.State}, nil
	}); err != nil {
		t.Fatal(err)
	}
	w.apply(func(p *fleetscore.PipelineConfig) { p.Schedule.Cron = "* * * * *" })
	w.waitProblem("schedule p", "the due time 2026-11-23T11:00:00Z was decided already")
	now := until.Add(time.Minute)
	w.set(now)
	w.apply(func(p *fleetscore.PipelineConfig) { p.Limits.Tries = 3 }) // an event shortens the wait
	w.decided(now)
	w.waitProblem("schedule p", "")
}

// TestStoreThatHangsHoldsUpItsPipelineAlone: a dataset that doesn't answer holds up
// the pipeline that reads it alone; another one's job ends.
func TestStoreThatHangsHoldsUpItsPipelineAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	hang, asked := make(chan struct{}), make(chan struct{}, 1000)
	w.stop()
	w.start(&storetest.Faulty{Bucket: w.bucket(), Fail: func(_ string, name fleetscore.BlobName) error {
		if strings.HasPrefix(string(name), "data/slow/") {
			asked <- struct{}{}
			<-hang
		}
		return nil
	}})
	stop := w.stop
	w.stop = func() { close(hang); stop() }
	w.applyConfig(func(cfg *fleetscore.Config) {
		q := cfg.Pipelines["p"]
		q.Dataset = "slow"
		cfg.Pipelines["a-slow"] = q
	})
	iv := fleetscore.Interval{From: day.Add(8 * time.Hour), To: day.Add(9 * time.Hour)}
	if _, err := w.Submit(t.Context(), "a-slow", &iv); err != nil {
		t.Fatal(err)
	}
	<-asked
	w.rows(day.Add(9 * time.Hour))
	j, err := w.Submit(t.Context(), "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	l := w.lease("n1")
	if _, err := w.broker.Heartbeat(t.Context(), "n1", beat(l)); err != nil {
		t.Error(err)
	}
	if err := w.broker.Complete(t.Context(), l.ID, w.score(l)); err != nil {
		t.Fatal(err)
	}
	if got := w.wait(j.ID, ended); got.State != fleetscore.JobSucceeded {
		t.Errorf("job %+v", got)
	}
}

// TestNodesAreAnsweredWhileTheStoreHangs: no call of the node protocol waits for
// the store, and leases are taken back meanwhile.
func TestNodesAreAnsweredWhileTheStoreHangs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{})
	w.rows(day.Add(9 * time.Hour))
	j, err := w.Submit(t.Context(), "p", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.wait(j.ID, func(j fleetscore.Job) bool { return j.State == fleetscore.JobQueued })
	hang := make(chan struct{})
	w.stop()
	w.start(&storetest.Faulty{Bucket: w.bucket(), Fail: func(string, fleetscore.BlobName) error {
		<-hang
		return nil
	}})
	old := w.lease("n1")
	if err := w.logs.AppendLog(t.Context(), old.ID, chunk("one\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.broker.Heartbeat(t.Context(), "n1", beat(old)); err != nil {
		t.Fatal(err)
	}
	w.set(day.Add(10*time.Hour + time.Minute)) // n1 is silent
	l := w.lease("n2")
	if l.Task != old.Task || l.Attempt != 2 {
		t.Errorf("leased %+v, want the task of the lost node", l)
	}
	if err := w.logs.AppendLog(t.Context(), l.ID, chunk("two\n")); err != nil {
		t.Fatal(err)
	}
	r := w.score(l)
	if err := w.broker.Complete(t.Context(), l.ID, r); err != nil {
		t.Fatal(err)
	}
	if err := w.broker.Goodbye(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	if got, err := w.ledger.Job(t.Context(), j.ID); err != nil || got.State != fleetscore.JobCommitting {
		t.Errorf("job %+v, %v", got, err)
	}
	close(hang)
	if got := w.wait(j.ID, ended); got.State != fleetscore.JobSucceeded {
		t.Errorf("job %+v", got)
	}
}

// TestStaticPoolsShareAJob: a job of a static pool has tasks for many agents, whose
// number isn't configured.
func TestStaticPoolsShareAJob(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pool fleetscore.PoolConfig
		want int
	}{
		{fleetscore.PoolConfig{Provider: "static", Slots: 2}, 32},
		{fleetscore.PoolConfig{Provider: "local", Slots: 2, Scale: fleetscore.ScaleConfig{Max: 3}}, 6},
		{fleetscore.PoolConfig{}, 1},
	} {
		if got := slotsOf(tt.pool); got != tt.want {
			t.Errorf("%+v: cut for %d slots, want %d", tt.pool, got, tt.want)
		}
	}
}
