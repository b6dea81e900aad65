package schedule

import (
	"time"

	"github.com/fleetscore/fleetscore"
)

// Leader says how far the jobs of a pipeline have come that another one follows.
type Leader struct {
	Pipeline string
	Until    time.Time           // its jobs have ended for all rows until then; zero if none has
	From     time.Time           // where the interval of the job that ended last begins
	Ended    fleetscore.JobState // how that job ended; empty if it isn't known any more
}

// After decides for a pipeline that follows another one. When the other's jobs have
// ended for more rows, it is due at the end of their interval, and its job covers what
// it hasn't covered until there: one job for all if the other was faster. A job of the
// other that failed or was canceled gives no trigger: the next one that ends well
// covers its rows too. A pipeline that is new begins with the next job of the other,
// which fresh says.
//
// Active are the follower's jobs of its schedule that haven't ended. The caller asks
// again when a job of either ends.
func After(l Leader, s State, fresh bool, active []fleetscore.Job) Decision {
	d := Decision{Next: s}
	if l.Until.IsZero() || !l.Until.After(s.LastDue) {
		return d
	}
	if fresh && s.NextFrom.IsZero() || l.Ended == "" && s.NextFrom.IsZero() {
		d.Next.LastDue, d.Next.NextFrom = l.Until, l.Until
		return d
	}
	outcome := func(state fleetscore.OccurrenceState, why string) {
		d.Next.LastDue = l.Until
		d.Occurrences = []fleetscore.Occurrence{{Due: l.Until, State: state, Reason: why}}
	}
	from := s.NextFrom
	if from.IsZero() {
		from = l.From
	}
	switch {
	case !s.Paused.IsZero():
		outcome(fleetscore.OccurrenceSkipped, "the schedule was paused")
	case l.Ended == fleetscore.JobFailed || l.Ended == fleetscore.JobCanceled:
		outcome(fleetscore.OccurrenceSkipped, "the job of "+l.Pipeline+" is "+string(l.Ended)+"; the rows are in the next interval")
	case len(active) > 0: // it is decided again when that job has ended
	case !l.Until.After(from):
		outcome(fleetscore.OccurrenceSkipped, "the rows until then are covered by an earlier job")
	default:
		outcome(fleetscore.OccurrenceRan, "")
		d.Interval = &fleetscore.Interval{From: from, To: l.Until}
		d.Next.NextFrom = l.Until
	}
	return d
}
