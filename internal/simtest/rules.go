package simtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// asks is what each formula asks for: a node for each task that waits or runs.
const asks = "$TargetDedicatedNodes = $PendingTasks; $NodeDeallocationOption = "

// formulas are those that a run may have. The last one can't be evaluated while something
// runs, which leaves the pool as it is.
var formulas = []string{asks + "requeue;", asks + "taskcompletion;", asks + "$RunningTasks > 0 ? val(vec(), 1) : requeue;"}

// AddSample notes nothing. A mutant doesn't count the tasks that wait.
func (l *witness) AddSample(ctx context.Context, pool string, s autoscale.Sample, keep time.Time) error {
	if l.w.mutant == countsNothing {
		s.Values["$PendingTasks"] = s.Values["$RunningTasks"]
	}
	return l.Ledger.AddSample(ctx, pool, s, keep)
}

// checkFormula: each evaluation asked for as many nodes as tasks waited or ran, within the
// bounds of the pool, and one that failed for as many as the one before.
func (w *world) checkFormula(ctx context.Context, p *problems) error {
	evaluations, err := w.ledger.Evaluations(ctx, poolName, ledger.KeptEvaluations)
	if err != nil {
		return err
	}
	if w.formula == "" && len(evaluations) > 0 {
		p.add("there are %d evaluations, and no formula", len(evaluations))
	}
	if w.formula != "" && len(evaluations) == 0 {
		p.add("the formula was never evaluated")
	}
	for i, e := range evaluations {
		target := e.Targets[formula.Dedicated]
		if e.Nodes != int(min(target, mostNodes)) || e.Targets[formula.LowPriority] != 0 {
			p.add("the evaluation at %s has the targets %v and %d nodes", e.At, e.Targets, e.Nodes)
		}
		switch {
		case e.Problem == nil && float64(target) != e.Service["$PendingTasks"]:
			p.add("the evaluation at %s asks for %d nodes, as %g tasks waited or ran", e.At, target, e.Service["$PendingTasks"])
		case e.Problem != nil && i+1 < len(evaluations) && target != evaluations[i+1].Targets[formula.Dedicated]:
			p.add("the evaluation at %s failed, and changed the target from %d to %d", e.At, evaluations[i+1].Targets[formula.Dedicated], target)
		}
	}
	return nil
}

// everyOf is how far a pipeline's due times lie apart.
func everyOf(pipeline string) time.Duration {
	if pipeline == "q" {
		return 2 * time.Minute
	}
	return time.Minute
}

// drawSchedule makes the schedule of a pipeline: often the plain one, otherwise with
// other rules.
func drawSchedule(rnd *rand.Rand, pipeline string) fleetscore.ScheduleConfig {
	minutes := int(everyOf(pipeline) / time.Minute)
	c := fleetscore.ScheduleConfig{Cron: fmt.Sprintf("*/%d * * * *", minutes)}
	if rnd.IntN(4) == 0 {
		c = fleetscore.ScheduleConfig{Recurrence: &fleetscore.Recurrence{Frequency: "Minute", Interval: &minutes}}
	}
	if rnd.IntN(4) == 0 {
		c.Deadline = fleetscore.Duration(time.Duration(10+rnd.IntN(80)) * time.Second)
	}
	if rnd.IntN(3) == 0 {
		return c
	}
	c.Overlap = []fleetscore.Overlap{fleetscore.OverlapSkip, fleetscore.OverlapQueueOne, fleetscore.OverlapQueueAll, fleetscore.OverlapReplace, fleetscore.OverlapReplace, fleetscore.OverlapAllow}[rnd.IntN(6)]
	c.CatchUp = []fleetscore.CatchUp{fleetscore.CatchUpNone, fleetscore.CatchUpLast, fleetscore.CatchUpAll}[rnd.IntN(3)]
	if rnd.IntN(3) == 0 {
		c.CatchUpWindow = fleetscore.Duration(90 * time.Second)
	}
	if rnd.IntN(3) == 0 {
		c.Jitter = fleetscore.Duration(time.Duration(1+rnd.IntN(40)) * time.Second)
	}
	return c
}

// drawLimits makes the limits of all pipelines: some runs have short time limits.
func drawLimits(rnd *rand.Rand) fleetscore.LimitsConfig {
	all := fleetscore.AllowShare(100)
	l := fleetscore.LimitsConfig{Tries: 3, Failed: all, NoModel: all, NoData: all, ModelTimeout: fleetscore.Duration(10 * time.Second), QuarantineAfter: 1 + rnd.IntN(3)}
	if rnd.IntN(4) == 0 {
		l.TaskTimeout = fleetscore.Duration(time.Duration(2+rnd.IntN(20)) * time.Second)
	}
	if rnd.IntN(4) == 0 {
		l.JobTimeout = fleetscore.Duration(time.Duration(5+rnd.IntN(60)) * time.Second)
	}
	return l
}

// byHand marks a context in which somebody triggers a schedule.
type byHand struct{}

// DecideSchedule checks what was decided about a pipeline against what it was decided
// from.
func (l *witness) DecideSchedule(ctx context.Context, pipeline string, decide func(ledger.ScheduleView) (ledger.ScheduleDecision, error)) (ledger.ScheduleDecision, error) {
	var before ledger.ScheduleView
	d, err := l.Ledger.DecideSchedule(ctx, pipeline, func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		before = v
		d, err := decide(l.w.mutant.view(v))
		if err != nil {
			return d, err
		}
		return l.w.mutant.decision(v, d), nil
	})
	if err == nil {
		l.w.decided(pipeline, before, d, ctx.Value(byHand{}) != nil)
	}
	return d, err
}

// decided checks one decision.
func (w *world) decided(pipeline string, v ledger.ScheduleView, d ledger.ScheduleDecision, triggered bool) {
	c, r := w.schedules[pipeline], w.record
	scheduled, paused := d.Job != nil && d.Job.Due != nil, !v.State.Paused.IsZero() && !triggered
	if scheduled {
		w.decidedJob(v, d, c.Overlap)
	}
	if d.Job == nil && !d.State.NextFrom.Equal(v.State.NextFrom) {
		r.problem("pipeline %s: the next interval is to start at %s in place of %s, without a job", pipeline, d.State.NextFrom, v.State.NextFrom)
	}
	if scheduled && paused {
		r.problem("pipeline %s: job %s starts while the schedule is paused", pipeline, d.Job.ID)
	}
	for _, o := range d.Occurrences {
		switch {
		case o.State == fleetscore.OccurrenceMissed && c.CatchUp != fleetscore.CatchUpNone && c.CatchUpWindow == 0:
			r.problem("pipeline %s: the due time %s is missed, and catch_up is %q", pipeline, o.Due, c.CatchUp)
		case o.State == fleetscore.OccurrenceCoalesced && !triggered && c.CatchUp == fleetscore.CatchUpAll && (c.Overlap == fleetscore.OverlapQueueAll || c.Overlap == fleetscore.OverlapAllow):
			r.problem("pipeline %s: the due time %s is coalesced, and each is to have a job of its own", pipeline, o.Due)
		case (o.State == fleetscore.OccurrenceRan || o.State == fleetscore.OccurrenceCoalesced) && (d.Job == nil || o.Job != d.Job.ID || !d.Job.Interval.Contains(o.Due)):
			r.problem("pipeline %s: the due time %s is %s by job %q, which doesn't cover it", pipeline, o.Due, o.State, o.Job)
		}
	}
	for _, j := range d.Backfill {
		if j.Priority != fleetscore.PriorityLow {
			r.problem("job %s of a backfill has the priority %q", j.ID, j.Priority)
		}
	}
}

// decidedJob checks a job of the schedule: which others may run beside it, and that it
// begins where the last one ended, or where the jobs begin that it replaces.
func (w *world) decidedJob(v ledger.ScheduleView, d ledger.ScheduleDecision, rule fleetscore.Overlap) {
	j, r, from := d.Job, w.record, v.State.NextFrom
	for _, other := range v.Active {
		replaced := slices.Contains(d.Cancel, other.ID)
		switch {
		case replaced && (rule != fleetscore.OverlapReplace || other.Due == nil || other.State == fleetscore.JobCommitting):
			r.problem("job %s cancels job %s, which is %s, and overlap is %q", j.ID, other.ID, other.State, rule)
		case !replaced && other.Due != nil && rule != fleetscore.OverlapAllow:
			r.problem("job %s starts beside job %s, and overlap is %q", j.ID, other.ID, rule)
		}
		if replaced && other.Interval.From.Before(from) {
			from = other.Interval.From
		}
	}
	if !from.IsZero() && !j.Interval.From.Equal(from) {
		r.problem("job %s over %s should begin at %s", j.ID, j.Interval, from)
	}
	if !d.State.NextFrom.Equal(j.Interval.To) {
		r.problem("job %s over %s is followed by an interval from %s on", j.ID, j.Interval, d.State.NextFrom)
	}
}

// LeaseTasks checks that nobody gets a task while one of a higher priority waits that
// was never tried.
func (l *witness) LeaseTasks(ctx context.Context, pool string, node fleetscore.NodeID, max int, now time.Time, ttl time.Duration) ([]ledger.Leased, error) {
	out, err := l.Ledger.LeaseTasks(ctx, pool, node, max, now, ttl)
	if err != nil || len(out) == 0 {
		return out, err
	}
	last := slices.MaxFunc(out, func(a, b ledger.Leased) int { return a.Job.Priority.Rank() - b.Job.Priority.Rank() })
	jobs, err := l.Jobs(context.WithoutCancel(ctx), ledger.JobFilter{States: []fleetscore.JobState{fleetscore.JobQueued, fleetscore.JobRunning}})
	if err != nil {
		return nil, err
	}
	for _, j := range jobs {
		if j.Config.Pool != pool || j.Priority.Rank() >= last.Job.Priority.Rank() {
			continue
		}
		tasks, err := l.Tasks(context.WithoutCancel(ctx), j.ID)
		if err != nil {
			return nil, err
		}
		for _, t := range tasks {
			if t.State == fleetscore.TaskQueued && t.Attempts == 0 {
				l.w.record.problem("node %s got task %s of priority %q, and task %s of priority %q waited", node, last.Task.ID, last.Job.Priority, t.ID, j.Priority)
			}
		}
	}
	return out, nil
}

// checkSchedule: each due time has one outcome, and the intervals of the jobs that
// follow the schedule join.
func (w *world) checkSchedule(ctx context.Context, p *problems, pipeline string, jobs []fleetscore.Job) error {
	occurrences, err := w.ledger.Occurrences(ctx, pipeline, 1000)
	if err != nil {
		return err
	}
	slices.Reverse(occurrences)
	byID := map[fleetscore.JobID]fleetscore.Job{}
	dues, known := map[fleetscore.JobID]int{}, map[int64]bool{}
	for _, j := range jobs {
		byID[j.ID] = j
	}
	if len(occurrences) == 0 {
		v, err := w.ledger.Schedule(ctx, pipeline)
		if err != nil {
			return err
		}
		if made := v.State.Created; !made.IsZero() && !w.more(made.Add(everyOf(pipeline)+time.Minute)) { // the last minute lies up to one beyond the last due time
			return nil // the store was away so long that the schedule was made when no due time was left
		}
		p.add("pipeline %s: no due time has an outcome", pipeline)
		return nil
	}
	for _, o := range occurrences {
		known[o.Due.Unix()] = true
		j, ok := byID[o.Job]
		switch o.State {
		case fleetscore.OccurrenceSkipped: // its rows are in the next interval, or belong to a job that was submitted before
			ok = !strings.Contains(o.Reason, "an earlier job covers") || slices.ContainsFunc(jobs, func(x fleetscore.Job) bool { return !isNamed(x) && !x.Interval.To.Before(o.Due) })
		case fleetscore.OccurrenceMissed:
			ok = true
		case fleetscore.OccurrenceRan:
			dues[o.Job]++
			ok = ok && j.Interval.To.Equal(o.Due)
		case fleetscore.OccurrenceCoalesced:
			ok = ok && j.Interval.Contains(o.Due)
		}
		if !ok {
			p.add("pipeline %s: the due time %s is %s (%s) by job %q over %s", pipeline, o.Due, o.State, o.Reason, o.Job, j.Interval)
		}
	}
	every := everyOf(pipeline)
	for at := occurrences[0].Due.Add(every - 1).Truncate(every); at.Before(occurrences[len(occurrences)-1].Due); at = at.Add(every) {
		if !known[at.Unix()] {
			p.add("pipeline %s: the due time %s has no outcome", pipeline, at)
		}
	}
	checkChain(p, jobs, dues)
	return nil
}

// checkChain: the intervals of the jobs that follow the schedule join. A job that
// replaces others covers their intervals too.
func checkChain(p *problems, jobs []fleetscore.Job, dues map[fleetscore.JobID]int) {
	replaced := map[fleetscore.JobID]time.Time{} // by the job that replaces others, where the first of them begins
	for _, j := range jobs {
		if rest, ok := strings.CutPrefix(j.Reason, "replaced by job "); ok && j.State == fleetscore.JobCanceled {
			by, _, _ := strings.Cut(rest, ",")
			if at, ok := replaced[fleetscore.JobID(by)]; !ok || j.Interval.From.Before(at) {
				replaced[fleetscore.JobID(by)] = j.Interval.From
			}
		}
	}
	var last *fleetscore.Job
	for _, j := range jobs {
		if !j.State.Ended() {
			p.add("job %s is %s", j.ID, j.State)
		}
		if j.Due != nil && dues[j.ID] != 1 {
			p.add("job %s ran %d due times", j.ID, dues[j.ID])
		}
		if isNamed(j) {
			continue
		}
		if last != nil {
			from := last.Interval.To
			if at, ok := replaced[j.ID]; ok && at.Before(from) {
				from = at
			}
			if !j.Interval.From.Equal(from) {
				p.add("job %s over %s follows job %s over %s", j.ID, j.Interval, last.ID, last.Interval)
			}
		}
		last = &j
	}
}
