package catalog

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
)

// PredictionSchema is the shape of a pipeline's predictions: the dataset's time, key
// and features, then Prediction, Score, Model, Job and Revision.
func PredictionSchema(timeName string, key, values []string) table.TableSchema {
	s := table.DatasetSchema(timeName, key, append(slices.Clone(values), "Prediction", "Score"))
	s.Columns = append(s.Columns, table.Column{Name: "Model", Type: table.Text}, table.Column{Name: "Job", Type: table.Text}, table.Column{Name: "Revision", Type: table.Long})
	return s
}

// Predictions is the table with a pipeline's predictions.
type Predictions struct{ *table.Delta }

// WritePredictions writes a job's predictions into files. No reader sees them before
// CommitPredictions adds them. Files of several attempts never collide.
func (d Predictions) WritePredictions(ctx context.Context, p *fleetscore.Predictions, job fleetscore.JobID, revision int64) ([]fleetscore.DataFile, error) {
	f, n := &table.Frame{}, p.Len()
	f.AddRows(&p.Rows)
	models := make([]string, len(p.Keys))
	for i := range models {
		models[i] = p.Models[i].String()
	}
	revisions := make([]int64, n)
	for i := range revisions {
		revisions[i] = revision
	}
	f.AddDoubles("Prediction", p.Prediction)
	f.AddDoubles("Score", p.Score)
	f.AddTexts("Model", n, func(row int) string { return models[p.KeyIndex[row]] })
	f.AddTexts("Job", n, func(int) string { return string(job) })
	f.AddLongs("Revision", revisions)
	return d.WriteFrame(ctx, PredictionSchema(p.TimeName, p.KeyNames, p.ValueNames), f, jobFile(job))
}

// jobFile names the files of one attempt of a job: ofJobs knows them by that.
func jobFile(job fleetscore.JobID) func(fleetscore.ShardRange) string {
	attempt := strings.ToLower(rand.Text()[:10])
	return func(r fleetscore.ShardRange) string { return string(job) + "-" + r.String() + "-" + attempt }
}

// jobEntry is the entry of a table that says that a job's results are there.
func jobEntry(job fleetscore.JobID) string { return "job/" + string(job) }

// ReadPredictions reads predictions; q.Values names features, and empty means all of
// them.
func (d Predictions) ReadPredictions(ctx context.Context, files []fleetscore.DataFile, q table.ReadQuery) (*fleetscore.Predictions, error) {
	snap, err := d.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	values := q.Values
	if len(values) == 0 {
		values = slices.DeleteFunc(snap.Schema.Values(), func(s string) bool { return s == "Prediction" || s == "Score" })
	}
	f, s, err := d.ReadFrame(ctx, files, append(slices.Clone(values), "Prediction", "Score", "Model"), q)
	if err != nil {
		return nil, err
	}
	p := &fleetscore.Predictions{Rows: *f.Rows(s, values), Prediction: f.Doubles("Prediction"), Score: f.Doubles("Score")}
	p.Models = make([]fleetscore.Digest, len(p.Keys))
	model := f.Texts("Model")
	for i, k := range p.KeyIndex { // the last row of a key says which model is its latest
		if p.Models[k].IsZero() || i+1 == len(p.KeyIndex) || p.KeyIndex[i+1] != k {
			if err := p.Models[k].UnmarshalText([]byte(model(i))); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// PredictionCommit is what a job's commit of predictions needs to know.
type PredictionCommit struct {
	Job      fleetscore.JobID
	Interval fleetscore.Interval
	Revision int64                 // the files' rows have it; a larger one is newer
	Files    []fleetscore.DataFile // written by WritePredictions
	// Settled finds out of which keys the job says whose rows in the interval are right: its own, or
	// those of an earlier job. It is called only if the table has rows in the interval.
	Settled func(context.Context) (func(fleetscore.Key) (fleetscore.JobID, bool), error)
}

// rowID is what a table has one row of.
type rowID struct {
	key  fleetscore.Key
	time int64
}

// CommitPredictions makes a job's prediction files visible in one commit, and in the
// same commit removes the rows that they supersede: the rows in the interval of the keys
// that this job settled, besides those of the job that is right for a key. So each key and time has one visible row. A row of a newer
// revision is kept, and this job's row with the same key and time doesn't become
// visible: so a job that was delayed doesn't replace results of a later job. A job that
// was committed before changes nothing. The table must exist.
func (d Predictions) CommitPredictions(ctx context.Context, c PredictionCommit) (int64, error) {
	var settled func(fleetscore.Key) (fleetscore.JobID, bool)
	newer := map[rowID]bool{} // rows that stay in place of the job's own
	r := table.Replacement{Guard: jobEntry(c.Job), Interval: c.Interval, Add: c.Files, Begin: func() { clear(newer) },
		Name: func() func(fleetscore.ShardRange) string { return jobFile(c.Job) }}
	r.Superseded = func(f *table.Frame, s table.TableSchema) ([]bool, error) {
		if settled == nil {
			var err error
			if settled, err = c.Settled(ctx); err != nil {
				return nil, err
			}
		}
		keys, index := f.Keys(s.Key)
		out := make([]bool, f.Len())
		mine, right := make([]bool, len(keys)), make([]fleetscore.JobID, len(keys))
		for i, k := range keys {
			right[i], mine[i] = settled(k)
		}
		revisions, jobs := f.Longs("Revision"), f.Texts("Job")
		for i, t := range f.Longs(s.Time) {
			if !mine[index[i]] || !c.Interval.ContainsMicros(fleetscore.Micros(t)) || jobs(i) == string(right[index[i]]) {
				continue
			}
			if out[i] = revisions[i] <= c.Revision; !out[i] {
				newer[rowID{keys[index[i]], t}] = true
			}
		}
		return out, nil
	}
	r.Outdated = func() (bool, func(*table.Frame, table.TableSchema) ([]bool, error)) {
		return len(newer) > 0, func(f *table.Frame, s table.TableSchema) ([]bool, error) {
			keys, index := f.Keys(s.Key)
			out := make([]bool, f.Len())
			for i, t := range f.Longs(s.Time) {
				out[i] = newer[rowID{keys[index[i]], t}]
			}
			return out, nil
		}
	}
	return d.Replace(ctx, r)
}
