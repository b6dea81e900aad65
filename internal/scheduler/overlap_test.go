package scheduler

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// story waits until the pipeline's outcomes and active jobs are as wanted: lines such
// as "11:00 ran" and "(10:00, 11:00]".
func (w *world) story(wanted ...string) {
	w.t.Helper()
	changes, stop := w.ledger.Watch(ledger.JobsTopic("p"))
	defer stop()
	for end := time.After(20 * time.Second); ; {
		occs, err := w.ledger.Occurrences(w.t.Context(), "p", 100)
		if err != nil {
			w.t.Fatal(err)
		}
		jobs, err := w.ledger.Jobs(w.t.Context(), ledger.JobFilter{States: active})
		if err != nil {
			w.t.Fatal(err)
		}
		var got []string
		for _, o := range occs {
			got = append(got, fmt.Sprintf("%s %s", o.Due.Format("15:04"), o.State))
		}
		for _, j := range jobs {
			got = append(got, fmt.Sprintf("(%s, %s]", j.Interval.From.Format("15:04"), j.Interval.To.Format("15:04")))
		}
		slices.Sort(got)
		d := cmp.Diff(wanted, got)
		if d == "" {
			return
		}
		select {
		case <-changes:
		case <-end:
			w.t.Fatalf("outcomes and active jobs (-want +got):\n%s", d)
		}
	}
}

// end ends all active jobs.
func (w *world) end() {
	w.t.Helper()
	jobs, err := w.ledger.Jobs(w.t.Context(), ledger.JobFilter{States: active})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, j := range jobs {
		if _, err := w.Cancel(w.t.Context(), j.ID); err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestOverlap: a due time comes while the last one's job still waits for data.
func TestOverlap(t *testing.T) {
	t.Parallel()
	for overlap, steps := range map[fleetscore.Overlap][3][]string{
		// At 12:00, after the job's end at 12:30, and at 13:00.
		fleetscore.OverlapSkip: {{"(10:00, 11:00]", "11:00 ran", "12:00 skipped"}, {"11:00 ran", "12:00 skipped"},
			{"(11:00, 13:00]", "11:00 ran", "12:00 skipped", "13:00 ran"}},
		fleetscore.OverlapQueueOne: {{"(10:00, 11:00]", "11:00 ran"}, {"(11:00, 12:00]", "11:00 ran", "12:00 ran"},
			{"(11:00, 12:00]", "11:00 ran", "12:00 ran"}},
		fleetscore.OverlapReplace: {{"(10:00, 12:00]", "11:00 ran", "12:00 ran"}, {"11:00 ran", "12:00 ran"},
			{"(12:00, 13:00]", "11:00 ran", "12:00 ran", "13:00 ran"}},
		fleetscore.OverlapAllow: {{"(10:00, 11:00]", "(11:00, 12:00]", "11:00 ran", "12:00 ran"}, {"11:00 ran", "12:00 ran"},
			{"(12:00, 13:00]", "11:00 ran", "12:00 ran", "13:00 ran"}},
	} {
		t.Run(string(overlap), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fleetscore.PipelineConfig{Schedule: fleetscore.ScheduleConfig{Cron: "0 * * * *", Overlap: overlap}})
			w.created("p")
			w.set(day.Add(11*time.Hour + time.Second))
			w.story("(10:00, 11:00]", "11:00 ran")
			w.set(day.Add(12*time.Hour + time.Second))
			w.story(steps[0]...)
			w.set(day.Add(12*time.Hour + 30*time.Minute))
			w.end()
			w.story(steps[1]...)
			w.set(day.Add(13*time.Hour + time.Second))
			w.story(steps[2]...)
			jobs, err := w.ledger.Jobs(t.Context(), ledger.JobFilter{})
			if err != nil {
				t.Fatal(err)
			}
			if first := jobs[len(jobs)-1]; overlap == fleetscore.OverlapReplace && !strings.HasPrefix(first.Reason, "replaced by job "+string(jobs[len(jobs)-2].ID)) {
				t.Errorf("the replaced job says %q", first.Reason)
			}
		})
	}
}

// TestEachOverRestarts: due times that wait, and those that came while no server
// worked, get a job each, one after another, also when the server stops between them.
func TestEachOverRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{Schedule: fleetscore.ScheduleConfig{Cron: "0 * * * *", Overlap: fleetscore.OverlapQueueAll, CatchUp: fleetscore.CatchUpAll,
		CatchUpWindow: fleetscore.Duration(150 * time.Minute)}})
	w.created("p")
	w.set(day.Add(11*time.Hour + time.Second))
	w.story("(10:00, 11:00]", "11:00 ran")
	w.set(day.Add(12*time.Hour + time.Second)) // it waits
	w.decidedUntil(day.Add(12 * time.Hour))
	w.set(day.Add(13*time.Hour + time.Second))
	w.decidedUntil(day.Add(13 * time.Hour))
	w.stop()
	w.start(w.bucket())
	w.end()
	w.story("(11:00, 12:00]", "11:00 ran", "12:00 ran")
	w.end()
	w.story("(12:00, 13:00]", "11:00 ran", "12:00 ran", "13:00 ran")
	w.end()
	w.story("11:00 ran", "12:00 ran", "13:00 ran")
	w.stop()
	w.set(day.Add(17*time.Hour + 5*time.Minute)) // 14:00 lies further back than the window
	w.start(w.bucket())
	before := []string{"11:00 ran", "12:00 ran", "13:00 ran", "14:00 missed", "15:00 ran"}
	w.story(append([]string{"(13:00, 15:00]"}, before...)...)
	w.stop()
	w.start(w.bucket())
	w.end()
	w.story(append([]string{"(15:00, 16:00]"}, append(before, "16:00 ran")...)...)
	w.end()
	w.story(append([]string{"(16:00, 17:00]"}, append(before, "16:00 ran", "17:00 ran")...)...)
}

// decidedUntil waits until due times up to one wait.
func (w *world) decidedUntil(due time.Time) {
	w.t.Helper()
	changes, stop := w.ledger.Watch(ledger.JobsTopic("p"))
	defer stop()
	for end := time.After(20 * time.Second); ; {
		v, err := w.ledger.Schedule(w.t.Context(), "p")
		if err != nil {
			w.t.Fatal(err)
		}
		if v.State.Queued.Equal(due) {
			return
		}
		select {
		case <-changes:
		case <-end:
			w.t.Fatalf("due times wait until %s, want %s", v.State.Queued, due)
		}
	}
}

// TestPauseResumeTrigger: due times of a paused schedule are skipped, also over a
// restart; a trigger makes a job at once, and no rows are left out.
func TestPauseResumeTrigger(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{Schedule: fleetscore.ScheduleConfig{Cron: "0 * * * *"}})
	w.created("p")
	since, err := w.SetPaused(t.Context(), "p", true)
	if err != nil || !since.Equal(day.Add(10*time.Hour)) {
		t.Fatalf("paused since %s, %v", since, err)
	}
	w.set(day.Add(11*time.Hour + time.Second))
	w.story("11:00 skipped")
	if again, err := w.SetPaused(t.Context(), "p", true); err != nil || !again.Equal(since) {
		t.Errorf("paused again: since %s, %v; want %s", again, err, since)
	}
	w.stop()
	w.start(w.bucket())
	w.set(day.Add(12*time.Hour + time.Second))
	w.story("11:00 skipped", "12:00 skipped")
	w.set(day.Add(12*time.Hour + 30*time.Minute))
	j, err := w.Trigger(t.Context(), "p") // although it is paused
	if want := (fleetscore.Interval{From: day.Add(10 * time.Hour), To: day.Add(12*time.Hour + 30*time.Minute)}); err != nil || j.Interval != want || j.Due == nil || !j.Due.Equal(want.To) {
		t.Fatalf("triggered: %+v, %v; want %s", j, err, want)
	}
	w.story("(10:00, 12:30]", "11:00 skipped", "12:00 skipped", "12:30 ran")
	if _, err := w.Trigger(t.Context(), "p"); !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), string(j.ID)) {
		t.Errorf("a trigger while its job waits: %v, want conflict with the job", err)
	}
	w.end()
	if since, err := w.SetPaused(t.Context(), "p", false); err != nil || !since.IsZero() {
		t.Errorf("resumed: paused since %s, %v", since, err)
	}
	w.set(day.Add(13*time.Hour + time.Second))
	w.story("(12:30, 13:00]", "11:00 skipped", "12:00 skipped", "12:30 ran", "13:00 ran")
	for _, err := range []error{func() error { _, err := w.Trigger(t.Context(), "nobody"); return err }(), func() error { _, err := w.SetPaused(t.Context(), "nobody", true); return err }()} {
		if !fleetscore.NotFound.Is(err) {
			t.Errorf("an unknown pipeline: %v, want not found", err)
		}
	}
	w.apply(func(p *fleetscore.PipelineConfig) { p.Schedule.Cron = "" })
	if _, err := w.Trigger(t.Context(), "p"); !fleetscore.Conflict.Is(err) {
		t.Errorf("a trigger without a schedule: %v, want conflict", err)
	}
}

// jobs waits until a pipeline has n jobs, and lists them, newest first.
func (w *world) jobs(pipeline string, n int) []fleetscore.Job {
	w.t.Helper()
	changes, stop := w.ledger.Watch(ledger.JobsTopic(pipeline))
	defer stop()
	for end := time.After(20 * time.Second); ; {
		all, err := w.ledger.Jobs(w.t.Context(), ledger.JobFilter{Pipeline: pipeline})
		if err != nil {
			w.t.Fatal(err)
		}
		if len(all) == n {
			return all
		}
		select {
		case <-changes:
		case <-end:
			w.t.Fatalf("%s has %d jobs, want %d", pipeline, len(all), n)
		}
	}
}

// TestRunAfter: a pipeline that follows another one gets a job over the same rows when
// the other's job has ended, none when it failed, and then one over both intervals.
func TestRunAfter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{Schedule: fleetscore.ScheduleConfig{Cron: "0 * * * *", StartWhen: "clock"}})
	w.applyConfig(func(cfg *fleetscore.Config) {
		q := cfg.Pipelines["p"]
		q.Schedule = fleetscore.ScheduleConfig{RunAfter: "p", StartWhen: "clock"}
		cfg.Pipelines["q"] = q
	})
	w.created("p")
	w.created("q")
	jobs := w.jobs
	hour := func(n int) time.Time { return day.Add(time.Duration(n) * time.Hour) }
	w.rows(hour(11))
	w.rows(hour(13))
	w.set(hour(11).Add(time.Second))
	first := jobs("p", 1)[0]
	jobs("q", 0)
	w.completeNext("n1")
	w.wait(first.ID, ended)
	follower := jobs("q", 1)[0]
	if follower.Interval != first.Interval || follower.Due == nil {
		t.Errorf("the follower's job covers %s, the other's %s", follower.Interval, first.Interval)
	}
	w.completeNext("n1")
	w.wait(follower.ID, ended)

	w.set(hour(12).Add(time.Second))
	if _, err := w.Cancel(t.Context(), jobs("p", 2)[0].ID); err != nil {
		t.Fatal(err)
	}
	w.set(hour(13).Add(time.Second))
	third := jobs("p", 3)[0]
	w.completeNext("n1")
	w.wait(third.ID, ended)
	second := jobs("q", 2)[0]
	if want := (fleetscore.Interval{From: hour(11), To: hour(13)}); second.Interval != want {
		t.Errorf("after a canceled job the follower covers %s, want %s", second.Interval, want)
	}
	outcomes, err := w.ledger.Occurrences(t.Context(), "q", 9)
	if err != nil || len(outcomes) != 3 || outcomes[1].State != fleetscore.OccurrenceSkipped || !strings.Contains(outcomes[1].Reason, "canceled") {
		t.Errorf("outcomes: %+v, %v", outcomes, err)
	}
}

// TestShadow: a shadow scores the interval of each job of the pipeline that it shadows,
// after it and after whatever else is live. Its results are in tables of its own, and when
// it fails, neither the live results nor the figures of live jobs show it.
func TestShadow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fleetscore.PipelineConfig{Schedule: fleetscore.ScheduleConfig{Cron: "0 * * * *", StartWhen: "clock"}})
	w.applyConfig(func(cfg *fleetscore.Config) {
		q := cfg.Pipelines["p"]
		q.Shadow, q.Priority, q.Limits.Tries = "p", fleetscore.PriorityLow, 1
		q.Schedule = fleetscore.ScheduleConfig{RunAfter: "p", StartWhen: "clock"}
		cfg.Pipelines["candidate"] = q
	})
	w.created("p")
	w.created("candidate")
	hour := func(n int) time.Time { return day.Add(time.Duration(n) * time.Hour) }
	w.rows(hour(11))
	w.rows(hour(12))
	w.set(hour(11).Add(time.Second))
	live := w.jobs("p", 1)[0]
	w.completeNext("n1")
	w.wait(live.ID, ended)
	shadow := w.jobs("candidate", 1)[0]
	w.wait(shadow.ID, func(j fleetscore.Job) bool { return j.State == fleetscore.JobQueued })
	if shadow.Interval != live.Interval || shadow.Priority != fleetscore.PriorityLow {
		t.Errorf("the shadow's job is %+v, the live one %+v", shadow, live)
	}

	w.set(hour(12).Add(time.Second))
	next := w.jobs("p", 2)[0]
	w.wait(next.ID, func(j fleetscore.Job) bool { return j.State == fleetscore.JobQueued })
	if got := w.completeNext("n1"); got != next.ID {
		t.Errorf("the first task is of job %s, want the live one's", got)
	}
	w.wait(next.ID, ended)
	before := w.visible()
	l := w.lease("n1")
	if err := w.broker.Complete(t.Context(), l.ID, dispatch.Result{Error: "the candidate is broken", Kind: "internal"}); err != nil {
		t.Fatal(err)
	}
	if got := w.wait(shadow.ID, ended); got.State != fleetscore.JobFailed {
		t.Errorf("the shadow's job: %+v", got)
	}
	second := w.jobs("candidate", 2)[0]
	w.completeNext("n1")
	if got := w.wait(second.ID, ended); got.State != fleetscore.JobSucceeded || got.Rows != 2 {
		t.Errorf("the shadow's second job: %+v", got)
	}
	if d := cmp.Diff(before, w.visible()); d != "" || len(before) == 0 {
		t.Errorf("the shadow changed the live results (-before +after):\n%s", d)
	}
	mine, err := catalog.New(w.bucket()).Predictions("candidate").Snapshot(t.Context())
	if err != nil || mine.Rows() != 2 {
		t.Errorf("the shadow's results: %+v, %v", mine, err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(w.metrics.jobs, w.metrics.shadows, w.metrics.items)
	shown := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(shown, httptest.NewRequest(http.MethodGet, "/", nil))
	for _, want := range []string{`jobs_total{state="succeeded"} 2`, `scheduler_jobs_total{state="failed"} 0`, `shadow_jobs_total{state="succeeded"} 1`,
		`shadow_jobs_total{state="failed"} 1`, `items_total{outcome="scored"} 4`} {
		if !strings.Contains(shown.Body.String(), want+"\n") {
			t.Errorf("the figures lack %s:\n%s", want, shown.Body)
		}
	}
}
