package scheduler

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// maxBackfill is how many jobs a backfill may have.
const maxBackfill = 10_000

// backfillsAtOnce is how many jobs of a pipeline's backfills are planned and haven't
// ended. A few keep the pool busy; more would only fill the queue.
const backfillsAtOnce = 2

// Backfill makes jobs of low priority over a past interval, one for each piece of
// length every, and the rest. Pieces that a job covers which hasn't ended are left out.
// The schedule isn't affected. Kind Conflict if the schedule is still to score a part
// of the interval, or if no piece is left.
func (s *Scheduler) Backfill(ctx context.Context, pipeline string, iv fleetscore.Interval, every time.Duration, wishes ...Wish) ([]fleetscore.Job, error) {
	const op = "submit backfill"
	cfg, _, _, err := s.ledger.Config(ctx)
	if err != nil {
		return nil, err
	}
	p, ok := cfg.Pipelines[pipeline]
	if !ok {
		return nil, noPipeline(op, pipeline)
	}
	if err := iv.Validate(); err != nil {
		return nil, err
	}
	if every < time.Second || iv.To.Sub(iv.From) > every*maxBackfill {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, pipeline, "pieces of %s: a piece must have at least 1s, and the interval of %s at most %d pieces", every, iv.To.Sub(iv.From), maxBackfill)
	}
	now := s.now()
	d, err := s.ledger.DecideSchedule(ctx, pipeline, func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		d, err := decideBackfill(pipeline, p, iv, every, v, now)
		for i := range d.Backfill {
			for _, wish := range wishes {
				wish(&d.Backfill[i])
			}
		}
		return d, err
	})
	if err != nil {
		return nil, err
	}
	s.log.Info("backfill was submitted", "pipeline", pipeline, "backfill", d.Backfill[0].Backfill, "jobs", len(d.Backfill), "interval", iv.String())
	for i, j := range d.Backfill {
		if d.Backfill[i], err = s.stillThere(ctx, j); err != nil {
			return nil, err
		}
	}
	return d.Backfill, nil
}

// decideBackfill makes the jobs of a backfill.
func decideBackfill(pipeline string, p fleetscore.PipelineConfig, iv fleetscore.Interval, every time.Duration, v ledger.ScheduleView, now time.Time) (ledger.ScheduleDecision, error) {
	const op = "submit backfill"
	end, why := now, "it is only "
	if at := v.State.NextFrom; !at.IsZero() && at.Before(now) {
		end, why = at, "the pipeline's regular jobs will score the rows after "
	}
	if iv.To.After(end) {
		at := end.UTC().Format(time.RFC3339)
		return ledger.ScheduleDecision{}, fleetscore.Errorf(fleetscore.Conflict, op, pipeline, "a backfill can't reach until %s: %s%s", iv.To.UTC().Format(time.RFC3339), why, at).
			WithHint("end it there: --to %s", at)
	}
	d := ledger.ScheduleDecision{State: v.State}
	name := strings.ToLower(rand.Text()[:8])
	for from := iv.From; from.Before(iv.To); from = from.Add(every) {
		piece := fleetscore.Interval{From: from, To: from.Add(every)}
		if piece.To.After(iv.To) {
			piece.To = iv.To
		}
		if covering(v.Active, piece) != nil {
			continue
		}
		j := newJob(pipeline, p, piece, now)
		j.Priority, j.Backfill = fleetscore.PriorityLow, name
		d.Backfill = append(d.Backfill, j)
	}
	if len(d.Backfill) == 0 {
		return d, fleetscore.Errorf(fleetscore.Conflict, op, pipeline, "jobs that haven't ended cover each piece of the interval").WithHint("fleetscore job list --pipeline %s shows them", pipeline)
	}
	return d, nil
}

// covering is the job over exactly that interval; nil if there is none.
func covering(jobs []fleetscore.Job, iv fleetscore.Interval) *fleetscore.Job {
	i := slices.IndexFunc(jobs, func(j fleetscore.Job) bool { return j.Interval.From.Equal(iv.From) && j.Interval.To.Equal(iv.To) })
	if i < 0 {
		return nil
	}
	return &jobs[i]
}

// byPriority orders jobs as they are to be worked on: by priority, then by age. The
// jobs come oldest first.
func byPriority(jobs []fleetscore.Job) {
	slices.SortStableFunc(jobs, func(a, b fleetscore.Job) int { return cmp.Compare(a.Priority.Rank(), b.Priority.Rank()) })
}

// turn says which of a pipeline's waiting jobs, in the order of byPriority, have to wait
// for other jobs of backfills, and why.
func (s *Scheduler) turn(ctx context.Context, name string, jobs []fleetscore.Job) (map[fleetscore.JobID]string, error) {
	if !slices.ContainsFunc(jobs, func(j fleetscore.Job) bool { return j.Backfill != "" }) {
		return nil, nil
	}
	at, err := s.ledger.Jobs(ctx, ledger.JobFilter{Pipeline: name, States: active[1:]})
	if err != nil {
		return nil, err
	}
	busy := 0
	for _, j := range at {
		if j.Backfill != "" {
			busy++
		}
	}
	out := map[fleetscore.JobID]string{}
	for _, j := range jobs {
		why := behind(j, at)
		switch {
		case j.Backfill == "":
		case why != "":
			out[j.ID] = why
		case busy < backfillsAtOnce:
			busy++
		default:
			out[j.ID] = fmt.Sprintf("waits for its turn: %d jobs of a backfill are worked on at once", backfillsAtOnce)
		}
	}
	return out, nil
}
