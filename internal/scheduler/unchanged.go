package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// content is the digest of all that a job's results depend on: its interval, the files
// with its rows, the fleet's generation, how models are used, and this release.
func (s *Scheduler) content(j fleetscore.Job, in ledger.Input) fleetscore.Digest {
	c := j.Config
	doc, err := json.Marshal([]any{j.Interval, in.Files, in.TimeName, in.KeyNames, c.Dataset, c.Fleet, j.Generation, c.Features, c.FeaturesBy, c.Runtime, c.Python, c.Label, c.Missing, s.release})
	if err != nil {
		return fleetscore.Digest{} // the job equals no other
	}
	return fleetscore.DigestOf(doc)
}

// lookBack is how many of a pipeline's latest jobs are searched for one with the same
// results.
const lookBack = 10_000

// unchanged finds the job whose results a job of a backfill would only repeat: it
// succeeded over the same interval from the same content, and no other job has touched
// the interval since. It is nil if there is none. Jobs that a schedule or a person asked
// for are always carried out.
func (s *Scheduler) unchanged(ctx context.Context, j fleetscore.Job) (*fleetscore.Job, error) {
	if j.Backfill == "" || j.Content.IsZero() {
		return nil, nil
	}
	jobs, err := s.ledger.Jobs(ctx, ledger.JobFilter{Pipeline: j.Pipeline, Limit: lookBack})
	if err != nil {
		return nil, err
	}
	for _, old := range jobs { // the newest first
		overlaps := old.Interval.From.Before(j.Interval.To) && j.Interval.From.Before(old.Interval.To)
		if old.ID == j.ID || !overlaps || old.State == fleetscore.JobCanceled {
			continue
		}
		if old.State == fleetscore.JobSucceeded && old.Content == j.Content {
			return &old, nil
		}
		return nil, nil
	}
	return nil, nil
}

// skip ends a waiting job whose results are there already.
func (s *Scheduler) skip(ctx context.Context, j, same fleetscore.Job, now time.Time) error {
	ended, did := now.UTC(), false
	_, err := s.ledger.UpdateJob(ctx, j.ID, func(k *fleetscore.Job) error {
		if did = k.State == fleetscore.JobWaiting; !did {
			return nil
		}
		k.State, k.Ended, k.Content, k.Unchanged = fleetscore.JobSucceeded, &ended, j.Content, same.ResultsOf()
		k.Generation, k.Expected, k.Outcomes, k.Rows, k.Anomalies = j.Generation, j.Expected, same.Outcomes, same.Rows, same.Anomalies
		k.Reason = fmt.Sprintf("nothing was scored: rows, models and settings are those of job %s, whose results stay", k.Unchanged)
		return nil
	})
	if err == nil && did {
		s.metrics.ended(j.Config, fleetscore.JobSucceeded)
		s.log.Info("job ended", "job", j.ID, "state", fleetscore.JobSucceeded, "unchanged", same.ResultsOf())
	}
	return err
}
