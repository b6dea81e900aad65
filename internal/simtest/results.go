package simtest

import (
	"context"
	"maps"
	"slices"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/table"
)

// claim is a row that a job scored.
type claim struct {
	job      fleetscore.JobID
	revision int64 // a larger one is newer
	value    float64
	label    float64
}

// claims are all rows that the jobs of a pipeline scored and had to make visible.
func (w *world) claims(jobs []fleetscore.Job) map[cell][]claim {
	w.record.mu.Lock()
	defer w.record.mu.Unlock()
	out := map[cell][]claim{}
	for _, j := range jobs {
		if !published(j) {
			continue
		}
		for c, v := range w.record.read[j.ID] {
			if model, ok := w.record.scored[j.ID][c.key]; ok {
				out[c] = append(out[c], claim{j.ID, j.Created.UnixMilli(), v, w.label(model, v)})
			}
		}
	}
	return out
}

// checkPredictions checks that there is one row per key and time of all that was
// scored, and that it is the newest job's: neither an older job that was held up nor a
// repeated commit may bring back what a newer one replaced.
func (w *world) checkPredictions(ctx context.Context, p *problems, c *catalog.Catalog, pipeline string, jobs []fleetscore.Job) error {
	claims := w.claims(jobs)
	snap, err := c.Predictions(pipeline).Snapshot(ctx)
	if fleetscore.NotFound.Is(err) {
		snap, err = &table.Snapshot{}, nil
	}
	if err != nil {
		return err
	}
	have := map[cell]bool{}
	if len(snap.Files) > 0 {
		f, s, err := c.Predictions(pipeline).ReadFrame(ctx, snap.Files, nil, table.ReadQuery{})
		if err != nil {
			return err
		}
		keys, index := f.Keys(s.Key)
		job, revision, value, prediction := f.Texts("Job"), f.Longs("Revision"), f.Doubles("Value"), f.Doubles("Prediction")
		for i, at := range f.Longs(s.Time) {
			row := cell{keys[index[i]], fleetscore.Micros(at)}
			if have[row] {
				p.add("pipeline %s has two predictions for %s at %s", pipeline, row.key, row.at)
			}
			have[row] = true
			its := slices.IndexFunc(claims[row], func(c claim) bool { return string(c.job) == job(i) })
			if its < 0 {
				p.add("pipeline %s has a prediction for %s at %s of job %s, which didn't score that row or isn't published", pipeline, row.key, row.at, job(i))
				continue
			}
			mine := claims[row][its]
			if value[i] != mine.value || prediction[i] != mine.label || revision[i] != mine.revision {
				p.add("pipeline %s: %s at %s has prediction %v for the value %v, job %s read the value %v, whose label is %v", pipeline, row.key, row.at, prediction[i], value[i],
					mine.job, mine.value, mine.label)
			}
			if newest := newestOf(claims[row]); newest.revision > mine.revision {
				p.add("pipeline %s: the prediction for %s at %s is of job %s, but the newer job %s scored the row too", pipeline, row.key, row.at, mine.job, newest.job)
			}
		}
	}
	for _, row := range slices.Collect(maps.Keys(claims)) {
		if !have[row] && !w.takenBack(jobs, row, newestOf(claims[row])) {
			p.add("pipeline %s has no prediction for %s at %s, and job %s scored it", pipeline, row.key, row.at, newestOf(claims[row]).job)
		}
	}
	return nil
}

func newestOf(claims []claim) claim {
	return slices.MaxFunc(claims, func(a, b claim) int { return int(a.revision - b.revision) })
}

// takenBack tells whether a newer job scored the sensor over an interval with the
// row's time. If it didn't read the row, the row may be gone with the older results.
func (w *world) takenBack(jobs []fleetscore.Job, row cell, newest claim) bool {
	w.record.mu.Lock()
	defer w.record.mu.Unlock()
	return slices.ContainsFunc(jobs, func(j fleetscore.Job) bool {
		_, scored := w.record.scored[j.ID][row.key]
		return scored && published(j) && j.Interval.ContainsMicros(row.at) && j.Created.UnixMilli() > newest.revision
	})
}
