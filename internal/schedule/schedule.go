// Package schedule decides which due times of a pipeline's schedule have come and
// what happens to each: which due time gets a job and over which interval, and which
// other due times this job also covers.
//
// It is pure: state and now go in, a decision comes out. Only time zones come from
// outside: from the machine, or from the program where the machine has none.
package schedule

import (
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// State is how far a pipeline's schedule has been carried out.
type State struct {
	Created  time.Time // when the pipeline got its schedule
	LastDue  time.Time // the last due time that was decided; zero before the first
	NextFrom time.Time // where the next interval starts; zero before the first
	Queued   time.Time // due times up to this one came while a job ran, and wait for its end
	CatchUp  time.Time // due times up to this one get a job each, one after another
	Paused   time.Time // since when nothing runs; zero if it isn't paused
}

// Decision is what to do at a time.
type Decision struct {
	// Occurrences are the outcomes of due times, oldest first. At most one of them ran:
	// its job covers those that are coalesced.
	Occurrences []fleetscore.Occurrence
	// Interval is the interval of the job; nil if there is none.
	Interval *fleetscore.Interval
	Cancel   []fleetscore.JobID // jobs that the new one replaces
	Next     State              // the state after the decision was carried out
	Wake     time.Time          // when to ask again at the latest; zero if nothing more is due
}

// maxCatchUp bounds the due times decided at once. After a long outage the remaining
// due times are decided when the job over the first ones has ended.
const maxCatchUp = 1000

// grace is how much later than due a decision may come before the due time counts as
// one that came while no server worked.
const grace = time.Minute

// Decide decides the due times that have come by now: those later than LastDue, or
// than the schedule's creation, whose jitter is over. The interval of a job starts
// where the last one ended; the first starts Backfill before the creation, or at the
// due time before it. Due times that get no job leave their rows to the next
// interval.
//
// Active are the schedule's jobs that haven't ended. The caller asks again when one of
// them ends.
func Decide(c fleetscore.ScheduleConfig, pipeline string, s State, active []fleetscore.Job, now time.Time) (Decision, error) {
	d := Decision{Next: s}
	if !c.IsSet() {
		return d, nil
	}
	spec, err := Parse(c)
	if err != nil {
		return d, err
	}
	x := &decider{c: c, pipeline: pipeline, s: s, active: active, now: now, out: &d, from: start(c, spec, s)}
	due := x.pending(spec)
	n := x.decide(due)
	if n > 0 {
		d.Next.LastDue = due[n-1]
	}
	if n < len(due) && d.Interval != nil {
		d.Wake = now // the rest is decided after this job is there
	}
	slices.SortFunc(d.Occurrences, func(a, b fleetscore.Occurrence) int { return a.Due.Compare(b.Due) })
	return d, nil
}

// Trigger makes a schedule due now, in whole seconds, also while it is paused: its job
// covers the due times that wait too. Kind Conflict if a job hasn't ended that the
// schedule doesn't allow beside it and doesn't replace, or if the rows until now are
// covered already.
func Trigger(c fleetscore.ScheduleConfig, pipeline string, s State, active []fleetscore.Job, now time.Time) (Decision, error) {
	d := Decision{Next: s}
	spec, err := Parse(c)
	if err != nil {
		return d, err
	}
	x := &decider{c: c, pipeline: pipeline, s: s, active: active, now: now, out: &d, from: start(c, spec, s)}
	x.c.Jitter = 0 // the job covers all due times that have come, and so decides them too
	for _, j := range active {
		if c.Overlap != fleetscore.OverlapAllow && (c.Overlap != fleetscore.OverlapReplace || j.State == fleetscore.JobCommitting) {
			return d, fleetscore.Errorf(fleetscore.Conflict, "trigger schedule", pipeline, "job %s hasn't ended: it is %s", j.ID, j.State).
				WithHint("wait for it: fleetscore job wait %s; or cancel it", j.ID)
		}
	}
	to := now.UTC().Truncate(time.Second)
	if !to.After(x.from) || !to.After(s.LastDue) {
		return d, fleetscore.Errorf(fleetscore.Conflict, "trigger schedule", pipeline, "the rows until %s are covered already", x.from.UTC().Format(time.RFC3339))
	}
	var run []time.Time
	due := x.pending(spec)
	if len(due) == maxCatchUp { // more may have come, and no outcome may be left out
		return d, fleetscore.Errorf(fleetscore.Conflict, "trigger schedule", pipeline, "%d or more due times of an outage aren't decided yet", maxCatchUp).
			WithHint("try again when fleetscore schedule history %s shows their outcomes", pipeline)
	}
	for _, t := range due {
		switch {
		case !t.After(x.from):
			x.outcome(t, fleetscore.OccurrenceSkipped, "an earlier job covers the rows until %s", x.from.UTC().Format(time.RFC3339))
		case t.Before(to):
			run = append(run, t)
		}
	}
	x.job(append(run, to))
	d.Next.LastDue = to
	return d, nil
}

type decider struct {
	c        fleetscore.ScheduleConfig
	pipeline string
	s        State
	active   []fleetscore.Job
	now      time.Time
	from     time.Time // where the next interval starts
	out      *Decision
}

// pending are the due times that have come and aren't decided; and it is known when
// the next one comes.
func (x *decider) pending(spec *Spec) (due []time.Time) {
	last := x.s.LastDue
	if last.IsZero() {
		last = x.s.Created
	}
	for len(due) < maxCatchUp {
		t, ok := spec.Next(last)
		if !ok {
			return due // the schedule has ended
		}
		if begins := x.begins(t); begins.After(x.now) {
			x.out.Wake = begins
			return due
		}
		due = append(due, t)
		last = t
	}
	x.out.Wake = x.now
	return due
}

// begins is when the job of a due time starts: Jitter later at most, by the same
// amount whoever asks.
func (x *decider) begins(t time.Time) time.Time {
	jitter := x.c.Jitter.D()
	if jitter <= 0 {
		return t
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d", x.pipeline, t.Unix())
	return t.Add(time.Duration(h.Sum64()%uint64(jitter) + 1).Truncate(time.Millisecond))
}

// late reports whether a due time came while no server worked, and no job ran.
func (x *decider) late(t time.Time) bool {
	return t.After(x.s.Queued) && t.After(x.s.CatchUp) && x.now.Sub(x.begins(t)) > grace
}

// missed says why a late due time isn't made up for; empty if it is.
func (x *decider) missed(t time.Time) string {
	window := x.c.CatchUpWindow.D()
	switch {
	case !x.late(t):
		return ""
	case x.c.CatchUp == fleetscore.CatchUpNone:
		return "no server worked when it came, and catch_up is none"
	case window > 0 && x.now.Sub(t) > window:
		return fmt.Sprintf("no server worked when it came, and it is further back than the catch_up_window of %s", x.c.CatchUpWindow)
	}
	return ""
}

// alone reports whether a due time gets a job of its own, although others wait.
func (x *decider) alone(t time.Time) bool {
	switch {
	case !t.After(x.s.CatchUp):
		return true
	case x.late(t):
		return x.c.CatchUp == fleetscore.CatchUpAll
	}
	return x.c.Overlap == fleetscore.OverlapQueueAll || x.c.Overlap == fleetscore.OverlapAllow
}

// waits reports whether a due time waits for the end of the job that runs.
func (x *decider) waits(t time.Time) bool {
	switch x.c.Overlap {
	case fleetscore.OverlapSkip:
	case fleetscore.OverlapReplace:
		if slices.ContainsFunc(x.active, func(j fleetscore.Job) bool { return j.State == fleetscore.JobCommitting }) {
			return true // it can't be canceled any more
		}
	default:
		return true
	}
	return !t.After(x.s.Queued) || !t.After(x.s.CatchUp)
}

func (x *decider) outcome(t time.Time, state fleetscore.OccurrenceState, format string, args ...any) {
	x.out.Occurrences = append(x.out.Occurrences, fleetscore.Occurrence{Pipeline: x.pipeline, Due: t, State: state, Reason: fmt.Sprintf(format, args...)})
}

// decide decides due times, and returns how many. It ends with one that gets a job, or
// before one that waits.
func (x *decider) decide(due []time.Time) int {
	busy := len(x.active) > 0 && x.c.Overlap != fleetscore.OverlapAllow
	var run []time.Time // one job covers them
	for i, t := range due {
		switch {
		case !t.After(x.from):
			x.outcome(t, fleetscore.OccurrenceSkipped, "an earlier job covers the rows until %s", x.from.UTC().Format(time.RFC3339))
		case !x.s.Paused.IsZero():
			x.outcome(t, fleetscore.OccurrenceSkipped, "the schedule is paused since %s", x.s.Paused.UTC().Format(time.RFC3339))
		case busy && x.waits(t):
			// Whatever comes later waits behind it.
			if last := due[len(due)-1]; t.After(x.s.CatchUp) {
				x.out.Next.Queued = last
			} else {
				x.out.Next.CatchUp = last
			}
			return i
		case busy && x.c.Overlap == fleetscore.OverlapSkip:
			x.outcome(t, fleetscore.OccurrenceSkipped, "job %s hadn't ended", x.active[0].ID)
		case !busy && x.missed(t) != "":
			x.outcome(t, fleetscore.OccurrenceMissed, "%s", x.missed(t))
		default:
			if run = append(run, t); !busy && x.alone(t) {
				x.job(run)
				for _, rest := range due[i+1:] {
					if x.late(t) && x.late(rest) {
						x.out.Next.CatchUp = rest
					}
				}
				return i + 1
			}
		}
	}
	x.job(run)
	return len(due)
}

// job makes a job for the last of some due times; the others are coalesced into it.
func (x *decider) job(run []time.Time) {
	if len(run) == 0 {
		return
	}
	to, from := run[len(run)-1], x.from
	if x.c.Overlap == fleetscore.OverlapReplace {
		for _, j := range x.active {
			x.out.Cancel = append(x.out.Cancel, j.ID)
			if j.Interval.From.Before(from) { // its rows are this job's now
				from = j.Interval.From
			}
		}
	}
	for _, t := range run[:len(run)-1] {
		x.outcome(t, fleetscore.OccurrenceCoalesced, "the due time came while no job could start; the job due at %s covers its interval", to.UTC().Format(time.RFC3339))
	}
	x.outcome(to, fleetscore.OccurrenceRan, "")
	x.out.Interval = &fleetscore.Interval{From: from, To: to}
	x.out.Next.NextFrom = to
}

// start is where the next interval starts.
func start(c fleetscore.ScheduleConfig, spec *Spec, s State) time.Time {
	if !s.NextFrom.IsZero() {
		return s.NextFrom
	}
	if b := c.Backfill.D(); b > 0 {
		return s.Created.Add(-b).UTC().Truncate(time.Second)
	}
	// The first interval is as long as the others: it begins at the due time that
	// would have come before, if the schedule had no start.
	at, unbounded := s.Created, *spec
	if spec.start.After(at) {
		at = spec.start.Add(-1)
	}
	unbounded.start = time.Time{}
	if t, ok := unbounded.Last(at); ok {
		return t
	}
	return s.Created.UTC().Truncate(time.Second)
}
