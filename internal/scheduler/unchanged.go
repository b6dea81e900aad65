package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/table"
)

// content is the digest of all that a job's results depend on: its interval, the files
// with its rows, the fleet's generation, how models are used, and this release.
func (s *Scheduler) content(j fleetscore.Job, in ledger.Input) fleetscore.Digest {
	c := j.Config
	if len(c.Mounts) > 0 {
		return fleetscore.Digest{} // nobody can tell whether what lies there has changed
	}
	image := ""
	if c.Runtime.RunsPython() || c.Command != nil {
		image = strings.Join(j.Images(), " ") // the native runtime needs nothing of it
	}
	doc, err := json.Marshal([]any{j.Interval, in.Files, in.TimeName, in.KeyNames, c.Dataset, c.Fleet, j.Generation, c.Features, c.FeaturesBy, c.Runtime, c.Python, c.Command, in.Code, c.Label, c.Missing, s.release, image})
	if err != nil {
		return fleetscore.Digest{} // the job equals no other
	}
	return fleetscore.DigestOf(doc)
}

// latestOver is the latest of a pipeline's jobs, besides the one given, that touched its
// interval or will do so; nil if there is none.
func (s *Scheduler) latestOver(ctx context.Context, j fleetscore.Job) (*fleetscore.Job, error) {
	const page = 100
	overlaps := func(old fleetscore.Job) bool {
		return old.ID != j.ID && old.State != fleetscore.JobCanceled && old.Interval.From.Before(j.Interval.To) && j.Interval.From.Before(old.Interval.To)
	}
	running, err := s.ledger.Jobs(ctx, ledger.JobFilter{Pipeline: j.Pipeline, States: active})
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(running, overlaps); i >= 0 {
		return &running[i], nil // it may have been made earlier than another one, and will end later
	}
	for f := (ledger.JobFilter{Pipeline: j.Pipeline, Limit: page}); ; {
		jobs, err := s.ledger.Jobs(ctx, f) // the newest first
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(jobs, overlaps); i >= 0 {
			return &jobs[i], nil
		}
		if len(jobs) < page {
			return nil, nil
		}
		f.Before = jobs[page-1].ID
	}
}

// unchanged finds the job whose results a job of a backfill would only repeat: it
// succeeded over the same interval from the same content, and no other job has touched
// the interval since. It is nil if there is none. Jobs that a schedule or a person asked
// for are always carried out.
func (s *Scheduler) unchanged(ctx context.Context, j fleetscore.Job) (*fleetscore.Job, error) {
	if j.Backfill == "" || j.Again || j.Content.IsZero() {
		return nil, nil
	}
	old, err := s.latestOver(ctx, j)
	if old == nil || old.State != fleetscore.JobSucceeded || old.Content != j.Content {
		return nil, err
	}
	if isLate(j) && !isLate(*old) {
		return nil, nil // predictions of rows that have vanished may be there: of an older job that ended after it, or of a sensor that had no row left for it
	}
	return old, nil
}

// earlier is where the outcomes of the sensors lie that a job needn't score if their rows
// and models haven't changed: those of the latest job over exactly the same interval. There
// are none if another job has touched a part of the interval since, or does so now. A rerun,
// and a job that is to score all again, score what they were asked for.
func (s *Scheduler) earlier(ctx context.Context, j fleetscore.Job) (dispatch.Earlier, error) {
	none := dispatch.Earlier{}
	if j.Rerun != nil || j.Again {
		return none, nil
	}
	files, err := filesIn(ctx, s.catalog.Coverage(j.Pipeline).Delta, j.Interval)
	if err != nil || len(files) == 0 { // as of every new interval
		return none, err
	}
	old, err := s.latestOver(ctx, j)
	if old == nil || covering([]fleetscore.Job{*old}, j.Interval) == nil || old.State != fleetscore.JobSucceeded && old.State != fleetscore.JobPartlyFailed {
		return none, err
	}
	rows := int64(0) // of predictions: fewer than the job found means that they were removed since
	if old.Rows > 0 {
		predictions, err := filesIn(ctx, s.catalog.Predictions(j.Pipeline).Delta, j.Interval)
		if err != nil {
			return none, err
		}
		for _, f := range predictions {
			rows += f.Rows
		}
	}
	if rows < old.Rows {
		return none, nil
	}
	return dispatch.Earlier{Job: old.ResultsOf(), Files: files}, nil
}

// filesIn are the files of a table that may hold rows of an interval; none if there is no
// table.
func filesIn(ctx context.Context, d *table.Delta, iv fleetscore.Interval) ([]fleetscore.DataFile, error) {
	snap, err := d.Snapshot(ctx)
	if fleetscore.NotFound.Is(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return table.ReadQuery{Interval: &iv}.Prune(snap.Files), nil
}

// skip ends a waiting job whose results are there already.
func (s *Scheduler) skip(ctx context.Context, j, same fleetscore.Job, now time.Time) error {
	ended, did := now.UTC(), false
	_, err := s.ledger.UpdateJob(ctx, j.ID, func(k *fleetscore.Job) error {
		if did = k.State == fleetscore.JobWaiting; !did {
			return nil
		}
		k.State, k.Ended, k.Content, k.Unchanged = fleetscore.JobSucceeded, &ended, j.Content, same.ResultsOf()
		k.Generation, k.Expected, k.Outcomes, k.Rows, k.Anomalies, k.Kept = j.Generation, j.Expected, same.Outcomes, same.Rows, same.Anomalies, same.Outcomes.Total()
		k.Reason = fmt.Sprintf("nothing was scored: rows, models and settings are those of job %s, whose results stay", k.Unchanged)
		return nil
	})
	if err == nil && did {
		s.metrics.ended(j.Config, fleetscore.JobSucceeded)
		s.log.Info("job ended", "job", j.ID, "state", fleetscore.JobSucceeded, "unchanged", same.ResultsOf())
	}
	return err
}
