package ledger

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/fleetscore/fleetscore"
)

// ScheduleState is how far a pipeline's schedule was carried out.
type ScheduleState struct {
	Pipeline string
	Created  time.Time // zero if nothing was ever decided
	NextFrom time.Time // where the next interval starts; zero before the first
	LastDue  time.Time // the last due time with an outcome; zero before the first
	Queued   time.Time // as in schedule.State
	CatchUp  time.Time // as in schedule.State
	Paused   time.Time // since when nothing runs; zero if it isn't paused
	Revised  int64     // the first version of the dataset in which revisions of rows weren't looked for yet; 0 before the first look
}

// ScheduleView is what decisions about a pipeline's jobs are taken from.
type ScheduleView struct {
	State  ScheduleState
	Active []fleetscore.Job // the pipeline's jobs that haven't ended, newest first
}

// ScheduleDecision is what was decided; the zero value but for State changes
// nothing.
type ScheduleDecision struct {
	State       ScheduleState           // from now on
	Occurrences []fleetscore.Occurrence // outcomes of due times
	Job         *fleetscore.Job         // to be made; nil if none
	Cancel      []fleetscore.JobID      // jobs that end with it
	Canceled    string                  // why they do
	At          time.Time               // when they do
	Backfill    []fleetscore.Job        // jobs to be made besides
}

// Schedules keeps how far the schedules of pipelines were carried out, and what
// became of each due time.
type Schedules interface {
	// Schedule is what a decision would be taken from now.
	Schedule(ctx context.Context, pipeline string) (ScheduleView, error)
	// DecideSchedule takes a decision and writes it in one transaction, so that
	// decisions about one pipeline follow one another. An error of decide changes
	// nothing and is returned. Kind Conflict if a due time has an outcome already,
	// or the job exists.
	DecideSchedule(ctx context.Context, pipeline string, decide func(ScheduleView) (ScheduleDecision, error)) (ScheduleDecision, error)
	// Occurrences are the newest of a pipeline's due times, newest first. An empty
	// pipeline means all of them.
	Occurrences(ctx context.Context, pipeline string, limit int) ([]fleetscore.Occurrence, error)
}

// active are the states of jobs that haven't ended.
var active = []fleetscore.JobState{fleetscore.JobWaiting, fleetscore.JobQueued, fleetscore.JobRunning, fleetscore.JobCommitting}

const selectSchedule = `SELECT created, next_from, queued, catch_up, paused, revised, last_due, COALESCE((SELECT MAX(due) FROM occurrences WHERE pipeline = ?1), 0) FROM schedules WHERE pipeline = ?1`

func schedule(q querier, pipeline string) (ScheduleView, error) {
	v := ScheduleView{State: ScheduleState{Pipeline: pipeline}}
	var created, from, queued, catchUp, paused, revised, due, decided int64
	err := q.row(selectSchedule, pipeline).Scan(&created, &from, &queued, &catchUp, &paused, &revised, &due, &decided)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return v, err
	}
	v.State = ScheduleState{pipeline, timeOf(created), timeOf(from), timeOf(max(due, decided)), timeOf(queued), timeOf(catchUp), timeOf(paused), revised} // the recorded outcomes must not be decided twice
	text, args := jobsQuery(JobFilter{Pipeline: pipeline, States: active})
	v.Active, err = list(q, scanDoc[fleetscore.Job], text, args...)
	return v, err
}

// Schedule implements Schedules.
func (l *core) Schedule(ctx context.Context, pipeline string) (ScheduleView, error) {
	v, err := schedule(l.reader(ctx), pipeline)
	return v, l.problem("read schedule", pipeline, err)
}

// DecideSchedule implements Schedules.
func (l *core) DecideSchedule(ctx context.Context, pipeline string, decide func(ScheduleView) (ScheduleDecision, error)) (ScheduleDecision, error) {
	var d ScheduleDecision
	err := l.update(ctx, "decide schedule", pipeline, func(t *tx) error {
		if err := t.lock("pipeline " + pipeline); err != nil {
			return err
		}
		v, err := schedule(t, pipeline)
		if err != nil {
			return err
		}
		if d, err = decide(v); err != nil {
			return err
		}
		if d.State != v.State {
			d.State.Pipeline = pipeline
			t.event(JobsTopic(pipeline))
			if err := t.putSchedule(d.State); err != nil {
				return err
			}
		}
		for _, o := range d.Occurrences {
			t.event(JobsTopic(pipeline))
			if err := t.exec(`INSERT INTO occurrences (pipeline, due, state, job, reason) VALUES (?, ?, ?, ?, ?)`,
				pipeline, micros(o.Due), string(o.State), string(o.Job), o.Reason); err != nil {
				return err
			}
		}
		for _, id := range d.Cancel {
			if _, err := t.cancelJob(id, d.Canceled, d.At); err != nil {
				return err
			}
		}
		for _, j := range d.Backfill {
			if err := t.insertJob(j); err != nil {
				return err
			}
		}
		if d.Job == nil {
			return nil
		}
		return t.insertJob(*d.Job)
	})
	return d, err
}

func (t *tx) putSchedule(s ScheduleState) error {
	return t.exec(`INSERT INTO schedules (pipeline, created, next_from, last_due, queued, catch_up, paused, revised) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (pipeline) DO UPDATE SET created = excluded.created, next_from = excluded.next_from, last_due = excluded.last_due,
		queued = excluded.queued, catch_up = excluded.catch_up, paused = excluded.paused, revised = excluded.revised`,
		s.Pipeline, micros(s.Created), micros(s.NextFrom), micros(s.LastDue), micros(s.Queued), micros(s.CatchUp), micros(s.Paused), s.Revised)
}

// The newest due times, of one pipeline and of all.
const (
	selectOccurrences    = `SELECT pipeline, due, state, job, reason FROM occurrences WHERE pipeline = ? ORDER BY due DESC LIMIT ?`
	selectAllOccurrences = `SELECT pipeline, due, state, job, reason FROM occurrences ORDER BY due DESC, pipeline DESC LIMIT ?`
)

// Occurrences implements Schedules.
func (l *core) Occurrences(ctx context.Context, pipeline string, limit int) ([]fleetscore.Occurrence, error) {
	text, args := selectAllOccurrences, []any{limit}
	if pipeline != "" {
		text, args = selectOccurrences, []any{pipeline, limit}
	}
	return query(ctx, l, "read occurrences", pipeline, func(scan func(...any) error) (fleetscore.Occurrence, error) {
		var o fleetscore.Occurrence
		var due int64
		err := scan(&o.Pipeline, &due, &o.State, &o.Job, &o.Reason)
		o.Due = timeOf(due)
		return o, err
	}, text, args...)
}
