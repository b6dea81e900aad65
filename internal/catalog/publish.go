package catalog

import (
	"cmp"
	"context"
	"slices"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
)

// Results is what the tasks of a job wrote: files that no reader sees yet.
type Results struct {
	Job         fleetscore.JobID
	Pipeline    string
	Interval    fleetscore.Interval
	Revision    int64 // of the predictions; a later job's is larger
	Predictions []fleetscore.DataFile
	Coverage    []fleetscore.DataFile // items of the keys that the job worked on
	// Later tells whether a job was made after this one: what it says of the same interval
	// stays. nil means that none was.
	Later  func(fleetscore.JobID) bool
	Scored int64 // how many of them were scored; 0 leaves earlier predictions as they are
	// Vanished says that rows of the interval have vanished since an earlier job scored them: keys that have
	// no rows any more lose their predictions.
	Vanished bool
	Carried  []fleetscore.DataFile // items of other keys, as an earlier job over the same interval left them
}

// Publish makes a job's results visible: predictions, then coverage, each by one
// commit. Predictions of earlier jobs in the interval are replaced where the job scored
// the key, and removed where its rows have vanished. A key that keeps the results of an earlier job has predictions of that
// job alone. What was published before a crash is recognised and not published again.
// The tables must exist.
func (c *Catalog) Publish(ctx context.Context, r Results) error {
	coverage := c.Coverage(r.Pipeline)
	if r.Scored > 0 || r.Vanished {
		_, err := c.Predictions(r.Pipeline).CommitPredictions(ctx, PredictionCommit{Job: r.Job, Interval: r.Interval, Revision: r.Revision, Files: r.Predictions,
			Settled: func(ctx context.Context) (func(fleetscore.Key) (fleetscore.JobID, bool), error) {
				items, err := coverage.ReadItems(ctx, r.Coverage, ItemQuery{})
				if err != nil {
					return nil, err
				}
				of := make(map[fleetscore.Key]fleetscore.JobID, len(items)) // whose predictions the key has
				for _, i := range items {
					if i.Outcome == fleetscore.Scored || r.Vanished && i.Outcome == fleetscore.NoData {
						of[i.Key] = cmp.Or(i.Kept, r.Job)
					}
				}
				return func(k fleetscore.Key) (job fleetscore.JobID, ok bool) {
					job, ok = of[k]
					return job, ok
				}, nil
			}})
		if err != nil && !table.AlreadyCommitted(err) {
			return err
		}
	}
	if _, err := coverage.CommitItems(ctx, r.Job, r.Interval, slices.Concat(r.Coverage, r.Carried), r.Later); err != nil && !table.AlreadyCommitted(err) {
		return err
	}
	return nil
}
