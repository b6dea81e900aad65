// Package schedule decides which due times of a pipeline's schedule have come and
// what happens to each: which due time gets a job and over which interval, and which
// other due times this job also covers.
//
// It is pure: state and now go in, a decision comes out. Only time zones come from
// outside: from the machine, or from the program where the machine has none.
package schedule

import (
	"time"

	"github.com/fleetscore/fleetscore"
)

// State is how far a pipeline's schedule has been carried out.
type State struct {
	Created  time.Time // when the pipeline got its schedule
	LastDue  time.Time // the last due time that was decided; zero before the first
	NextFrom time.Time // where the next interval starts; zero before the first
}

// Decision is what to do at a time.
type Decision struct {
	// Occurrences that came due since, oldest first. The last one runs as a job, the
	// others are coalesced into it. If NextFrom is after all of them, all are
	// skipped.
	Occurrences []fleetscore.Occurrence
	// Interval is the interval of the job; nil if nothing is due.
	Interval *fleetscore.Interval
	Next     State     // the state after the decision was carried out
	Wake     time.Time // when to ask again at the latest; zero if there is no schedule
}

// maxCatchUp bounds the due times decided at once. After a long outage the remaining
// due times are decided when the job over the first ones has ended.
const maxCatchUp = 1000

// Due decides which due times have come by now. Due times are later than LastDue, or
// than the schedule's creation. The interval starts where the last one ended; the
// first starts Backfill before the creation, or at the due time before it. A schedule
// without a cron line and recurrence is never due.
//
// The caller asks only while no job of the pipeline runs, so that intervals
// follow one another without gap or overlap.
func Due(c fleetscore.ScheduleConfig, pipeline string, s State, now time.Time) (Decision, error) {
	d := Decision{Next: s}
	if !c.IsSet() {
		return d, nil
	}
	spec, err := Parse(c)
	if err != nil {
		return d, err
	}
	last := s.LastDue
	if last.IsZero() {
		last = s.Created
	}
	var due []time.Time
	for len(due) < maxCatchUp {
		t, ok := spec.Next(last)
		if !ok {
			break // the schedule has ended
		}
		if t.After(now) {
			d.Wake = t
			break
		}
		due = append(due, t)
		last = t
	}
	if len(due) == 0 {
		return d, nil
	}
	if len(due) == maxCatchUp {
		d.Wake = now
	}
	from := start(c, spec, s)
	d.Next.LastDue = last
	if !last.After(from) { // a job was submitted ahead of its due time
		for _, t := range due {
			d.Occurrences = append(d.Occurrences, fleetscore.Occurrence{Pipeline: pipeline, Due: t, State: fleetscore.OccurrenceSkipped,
				Reason: "an earlier job covers the rows until " + from.Format(time.RFC3339)})
		}
		return d, nil
	}
	for i, t := range due {
		o := fleetscore.Occurrence{Pipeline: pipeline, Due: t, State: fleetscore.OccurrenceRan}
		if i < len(due)-1 {
			o.State = fleetscore.OccurrenceCoalesced
			o.Reason = "the due time came while no job could start; the job due at " + last.Format(time.RFC3339) + " covers its interval"
		}
		d.Occurrences = append(d.Occurrences, o)
	}
	d.Interval = &fleetscore.Interval{From: from, To: last}
	d.Next.NextFrom = last
	return d, nil
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
