package simtest

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// problems collects what is wrong after a run.
type problems []string

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

// check looks at what a run left behind, past all that could fail.
func (w *world) check(ctx context.Context) (p problems, err error) {
	c := catalog.New(w.store)
	w.record.mu.Lock()
	p = slices.Clone(w.record.broken)
	w.record.mu.Unlock()
	for _, name := range w.pipelines {
		jobs, err := w.ledger.Jobs(ctx, ledger.JobFilter{Pipeline: name})
		if err != nil {
			return p, err
		}
		slices.Reverse(jobs)
		if err := w.checkItems(ctx, &p, c, name, jobs); err != nil {
			return p, err
		}
		if err := w.checkPredictions(ctx, &p, c, name, jobs); err != nil {
			return p, err
		}
		for _, folder := range []string{catalog.PredictionsFolder(name), catalog.CoverageFolder(name)} {
			if err := w.checkLogOfTable(ctx, &p, folder); err != nil {
				return p, err
			}
		}
		if err := w.checkSchedule(ctx, &p, name, jobs); err != nil {
			return p, err
		}
		for _, j := range jobs {
			if err := w.checkAttempts(ctx, &p, j); err != nil {
				return p, err
			}
		}
	}
	if err := w.checkDataset(ctx, &p, c); err != nil {
		return p, err
	}
	if w.streams() {
		if err := w.checkStream(ctx, &p, c); err != nil {
			return p, err
		}
	}
	if err := w.checkHarm(ctx, &p); err != nil {
		return p, err
	}
	if err := w.checkFormula(ctx, &p); err != nil {
		return p, err
	}
	nodes, err := w.ledger.Nodes(ctx, "")
	if err != nil {
		return p, err
	}
	for _, n := range nodes {
		if !n.State.Ended() || n.Running != 0 {
			p.add("node %s is %s and holds %d leases", n.ID, n.State, n.Running)
		}
		w.record.kind(n.ID, n.Kind)
		if n.Kind == fleetscore.Dedicated && strings.HasPrefix(n.Reason, fleetscore.PreemptedReason) {
			p.add("node %s is dedicated, and it is said that it was taken away: %s", n.ID, n.Reason)
		}
	}
	if ids := w.runningNodes(); len(ids) > 0 {
		p.add("the nodes %v run", ids)
	}
	return p, nil
}

// checkDataset: each reading is there, and once.
func (w *world) checkDataset(ctx context.Context, p *problems, c *catalog.Catalog) error {
	snap, err := c.Dataset(dataset).Snapshot(ctx)
	if err != nil {
		return err
	}
	repeated := int64(0)
	rows, err := c.Dataset(dataset).ReadRows(ctx, snap.Files, table.ReadQuery{Repeated: &repeated})
	if err != nil {
		return err
	}
	want := w.record.rows(math.MaxInt64)
	if rows.Len() > len(want) || repeated != 0 {
		p.add("the dataset has %d rows and %d repeated ones, %d were uploaded", rows.Len(), repeated, len(want))
	}
	for i, at := range rows.Times {
		key := rows.Keys[rows.KeyIndex[i]]
		if v, ok := want[cell{key, at}]; !ok || v != rows.Values[0][i] {
			p.add("the dataset has %v for %s at %s, uploaded was %v", rows.Values[0][i], key, at, v)
		}
		delete(want, cell{key, at})
	}
	for c, v := range want {
		if !w.expired(c.at) {
			p.add("the dataset has no row for %s at %s, uploaded was %v", c.key, c.at, v)
		}
	}
	return nil
}

// isNamed tells whether somebody named a job's interval: these begin half a second after
// half minutes. A rerun has the interval of another job, and so
// has a job that scores what late readings changed.
func isNamed(j fleetscore.Job) bool {
	return j.Rerun != nil || isLate(j) || j.Interval.From.Second() == 30 && j.Interval.From.Nanosecond() == int(500*time.Millisecond)
}

// isLate tells whether a job scores what late readings changed.
func isLate(j fleetscore.Job) bool { return strings.HasPrefix(j.Backfill, "late-") }

// published tells whether a job's results had to become visible.
func published(j fleetscore.Job) bool { return j.Tasks > 0 && j.State != fleetscore.JobCanceled }

// later are the published jobs after the i-th one over the same interval: outcomes of
// the same sensor and interval are the latest job's.
func later(jobs []fleetscore.Job, i int) (out []fleetscore.JobID) {
	for _, j := range jobs[i+1:] {
		if published(j) && j.Interval.From.Equal(jobs[i].Interval.From) && j.Interval.To.Equal(jobs[i].Interval.To) {
			out = append(out, j.ID)
		}
	}
	return out
}

// checkItems: each key of each job has one outcome, and the job counts the same.
func (w *world) checkItems(ctx context.Context, p *problems, c *catalog.Catalog, pipeline string, jobs []fleetscore.Job) error {
	items := map[fleetscore.JobID]map[fleetscore.Key]fleetscore.Item{}
	snap, err := c.Coverage(pipeline).Snapshot(ctx)
	if fleetscore.NotFound.Is(err) {
		snap, err = &table.Snapshot{}, nil
	}
	if err != nil {
		return err
	}
	if len(snap.Files) > 0 {
		all, err := c.Coverage(pipeline).ReadItems(ctx, snap.Files, catalog.ItemQuery{})
		if err != nil {
			return err
		}
		for _, i := range all {
			if items[i.Job] == nil {
				items[i.Job] = map[fleetscore.Key]fleetscore.Item{}
			}
			if have, ok := items[i.Job][i.Key]; ok {
				p.add("job %s: sensor %s has two outcomes, %s and %s", i.Job, i.Key, have.Outcome, i.Outcome)
			}
			items[i.Job][i.Key] = i.Item
		}
	}
	known := map[fleetscore.JobID]bool{}
	for i, j := range jobs {
		known[j.ID] = true
		if !published(j) {
			if n := len(items[j.ID]); n > 0 {
				p.add("job %s is %s and has %d outcomes", j.ID, j.State, n)
			}
			continue
		}
		if others := later(jobs, i); len(others) > 0 {
			for key := range items[j.ID] {
				for _, other := range others {
					if _, ok := items[other][key]; ok { // a sensor that isn't expected may have none, if its task failed
						p.add("job %s has an outcome for sensor %s, and the later job %s has its interval", j.ID, key, other)
					}
				}
			}
			continue
		}
		counts := fleetscore.Counts{}
		for _, i := range items[j.ID] {
			w.checkHarmed(p, i, j.ID)
			counts[i.Outcome]++
		}
		for _, d := range w.devices[:len(w.devices)-1] { // the last one is nobody's who is expected
			if _, ok := items[j.ID][d]; !ok {
				p.add("job %s is %s (%s), and sensor %s has no outcome", j.ID, j.State, j.Reason, d)
			}
		}
		for _, o := range fleetscore.Outcomes {
			if counts[o] != j.Outcomes[o] {
				p.add("job %s counts %d %s, its items are %d", j.ID, j.Outcomes[o], o, counts[o])
			}
		}
	}
	for id := range items {
		if !known[id] {
			p.add("there are outcomes of job %s, which nobody knows", id)
		}
	}
	return nil
}

// label is what a model says: the good one knows 20 as normal, the wild one nothing.
func (w *world) label(model fleetscore.Digest, value float64) float64 {
	if model == fleetscore.DigestOf(w.models["good"]) && value == 20 {
		return 0
	}
	return 1
}

// checkAttempts: no lease is left, a task has one result, and whoever delivered it has
// a whole log.
func (w *world) checkAttempts(ctx context.Context, p *problems, j fleetscore.Job) error {
	tasks, err := w.ledger.Tasks(ctx, j.ID)
	if err != nil {
		return err
	}
	for _, t := range tasks {
		attempts, err := w.ledger.Attempts(ctx, t.ID)
		if err != nil {
			return err
		}
		won, failed := 0, 0
		for _, a := range attempts {
			if a.State == "failed" || a.State == "timed_out" {
				failed++
			}
			if a.Ended == nil {
				p.add("the lease of attempt %d of task %s never ended", a.Number, t.ID)
			}
			if a.State == "succeeded" {
				won++
				if err := w.checkLog(ctx, p, j, t, a); err != nil {
					return err
				}
			}
		}
		if !t.State.Ended() || (won == 1) != (t.State == fleetscore.TaskSucceeded) || won > 1 {
			p.add("task %s is %s, and %d of its attempts succeeded", t.ID, t.State, won)
		}
		if t.Failures > failed {
			p.add("task %s has used up %d tries, and %d of its attempts failed: losing a node uses up none", t.ID, t.Failures, failed)
		}
	}
	return nil
}

// checkLog: the log of an attempt that delivered has its first line once, and its
// last one.
func (w *world) checkLog(ctx context.Context, p *problems, j fleetscore.Job, t fleetscore.Task, a fleetscore.Attempt) error {
	text, err := store.ReadAll(ctx, w.store, catalog.TaskLog(j, t.Index, a.Number, "stderr"))
	if fleetscore.NotFound.Is(err) {
		p.add("attempt %d of task %s delivered and has no log", a.Number, t.ID)
		return nil
	}
	first := fmt.Sprintf("task %s, attempt %d on node", t.ID, a.Number)
	if strings.Count(string(text), first) != 1 || strings.Count(string(text), " done in ") != 1 || !strings.HasSuffix(string(text), "\n") {
		p.add("the log of attempt %d of task %s isn't whole: %q", a.Number, t.ID, text)
	}
	return err
}

// claim is a row that a job scored.
type claim struct {
	job      fleetscore.JobID
	revision int64 // a larger one is newer
	value    float64
	label    float64
	kept     bool // it left what an older job had found
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
				out[c] = append(out[c], claim{j.ID, j.Created.UnixMilli(), v, w.label(model, v), w.record.kept[j.ID][c.key]})
			}
		}
	}
	return out
}

// checkPredictions checks that there is one row per key and time of all that was
// scored, and that it is the newest job's, or one that a newer job rightly kept: neither an older job that was held up nor a
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
			its := slices.IndexFunc(claims[row], func(c claim) bool { return string(c.job) == job(i) && !c.kept })
			if its < 0 {
				p.add("pipeline %s has a prediction for %s at %s of job %s, which didn't score that row or isn't published", pipeline, row.key, row.at, job(i))
				continue
			}
			mine := claims[row][its]
			if value[i] != mine.value || prediction[i] != mine.label || revision[i] != mine.revision {
				p.add("pipeline %s: %s at %s has prediction %v for the value %v, job %s read the value %v, whose label is %v", pipeline, row.key, row.at, prediction[i], value[i],
					mine.job, mine.value, mine.label)
			}
			newest := newestOf(claims[row])
			if newest.kept && (newest.value != mine.value || newest.label != mine.label) {
				p.add("pipeline %s: job %s keeps the prediction for %s at %s of job %s, but the row or the model has changed", pipeline, newest.job, row.key, row.at, mine.job)
			}
			if newest := newestOf(slices.DeleteFunc(slices.Clone(claims[row]), func(c claim) bool { return c.kept })); newest.revision > mine.revision {
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
// row's time, or found that late readings have removed all of its rows. If it didn't read the row, the row may be gone with the older results.
func (w *world) takenBack(jobs []fleetscore.Job, row cell, newest claim) bool {
	w.record.mu.Lock()
	defer w.record.mu.Unlock()
	return slices.ContainsFunc(jobs, func(j fleetscore.Job) bool {
		_, scored := w.record.scored[j.ID][row.key]
		vanished := isLate(j) && w.record.empty[j.ID][row.key]
		return (scored || vanished) && published(j) && j.Interval.ContainsMicros(row.at) && j.Created.UnixMilli() > newest.revision
	})
}
