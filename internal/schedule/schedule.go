// Package schedule decides which due times of a pipeline's schedule have come and
// what happens to each: which due time gets a job and over which interval, and which
// other due times this job also covers.
//
// It is pure: state and now go in, a decision comes out. Cron expressions have
// five fields and are read in UTC.
package schedule

import (
	"strings"
	"time"

	"github.com/adhocore/gronx"

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

// Validate judges a schedule's cron expression.
func Validate(c fleetscore.ScheduleConfig) error {
	_, err := next(c.Cron, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	return err
}

func bad(cron, why string) error {
	return fleetscore.Errorf(fleetscore.Invalid, "read cron expression", cron, "%s", why).
		WithHint(`write five fields: minute hour day month weekday, such as "0 * * * *" for every hour`)
}

func next(cron string, after time.Time) (time.Time, error) {
	if len(strings.Fields(cron)) != 5 {
		return time.Time{}, bad(cron, "the expression doesn't have five fields")
	}
	if !gronx.IsValid(cron) {
		return time.Time{}, bad(cron, "a field has no valid value")
	}
	t, err := gronx.NextTickAfter(cron, after.UTC(), false)
	if err != nil {
		return time.Time{}, bad(cron, "the expression never comes due")
	}
	return t, nil
}

// Next is the first due time after t; kind Invalid if there is none.
func Next(c fleetscore.ScheduleConfig, t time.Time) (time.Time, error) { return next(c.Cron, t) }

// Due decides which due times have come by now. Due times are later than LastDue, or
// than the schedule's creation. The interval starts where the last one ended; the
// first starts Backfill before the creation, or at the due time before it. A schedule
// without a cron expression is never due.
//
// The caller asks only while no job of the pipeline runs, so that intervals
// follow one another without gap or overlap.
func Due(c fleetscore.ScheduleConfig, pipeline string, s State, now time.Time) (Decision, error) {
	d := Decision{Next: s}
	if c.Cron == "" {
		return d, nil
	}
	last := s.LastDue
	if last.IsZero() {
		last = s.Created
	}
	var due []time.Time
	for len(due) < maxCatchUp {
		t, err := next(c.Cron, last)
		if err != nil {
			return d, err
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
	if d.Wake.IsZero() {
		d.Wake = now
	}
	from, err := start(c, s)
	if err != nil {
		return d, err
	}
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
func start(c fleetscore.ScheduleConfig, s State) (time.Time, error) {
	if !s.NextFrom.IsZero() {
		return s.NextFrom, nil
	}
	if b := c.Backfill.D(); b > 0 {
		return s.Created.Add(-b).UTC().Truncate(time.Second), nil
	}
	t, err := gronx.PrevTickBefore(c.Cron, s.Created.UTC(), true)
	if err != nil {
		return t, bad(c.Cron, "the expression was never due before "+s.Created.Format(time.RFC3339))
	}
	return t, nil
}
