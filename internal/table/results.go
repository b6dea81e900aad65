package table

import (
	"cmp"
	"context"
	"slices"

	"github.com/fleetscore/fleetscore"
)

// WritePredictions writes a job's predictions into files of the predictions
// table. No reader sees them before CommitPredictions adds them. Files of several
// attempts never collide.
func (d *Delta) WritePredictions(ctx context.Context, p *fleetscore.Predictions, job fleetscore.JobID, revision int64) ([]fleetscore.DataFile, error) {
	f := &frame{}
	f.addRows(&p.Rows)
	n := p.Len()
	models := column{name: "Model", kind: kindText, codes: make([]uint32, n)}
	place := make([]uint32, len(p.Keys))
	for i := range p.Keys {
		place[i] = models.code(p.Models[i].String())
	}
	for i, k := range p.KeyIndex {
		models.codes[i] = place[k]
	}
	revisions := make([]int64, n)
	for i := range revisions {
		revisions[i] = revision
	}
	f.columns = append(f.columns,
		column{name: "Prediction", kind: kindDouble, doubles: p.Prediction},
		column{name: "Score", kind: kindDouble, doubles: p.Score},
		models, constant("Job", string(job), n),
		column{name: "Revision", kind: kindLong, longs: revisions})
	s := PredictionSchema(p.TimeName, p.KeyNames, p.ValueNames)
	return d.writeFrame(ctx, s, f, jobFile(job))
}

// jobFile names the files of one attempt of a job.
func jobFile(job fleetscore.JobID) func(fleetscore.ShardRange) string {
	attempt := newID()[:8]
	return func(r fleetscore.ShardRange) string { return string(job) + "-" + r.String() + "-" + attempt }
}

// ReadPredictions reads predictions; q.Values names features, and empty means
// all of them.
func (d *Delta) ReadPredictions(ctx context.Context, files []fleetscore.DataFile, q ReadQuery) (*fleetscore.Predictions, error) {
	snap, err := d.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	values := q.Values
	if len(values) == 0 {
		values = slices.DeleteFunc(snap.Schema.Values(), func(s string) bool { return s == "Prediction" || s == "Score" })
	}
	want := append(snap.Schema.wanted(append(slices.Clone(values), "Prediction", "Score")), wanted{name: "Model", kind: kindText})
	f, err := d.readFrame(ctx, snap.Schema, files, want, q)
	if err != nil {
		return nil, err
	}
	p := &fleetscore.Predictions{Rows: *f.rows(snap.Schema, values),
		Prediction: f.column("Prediction").doubles, Score: f.column("Score").doubles}
	p.Models = make([]fleetscore.Digest, len(p.Keys))
	models := f.column("Model")
	for i, k := range p.KeyIndex { // the last row of a key says which model is its latest
		if p.Models[k].IsZero() || i+1 == len(p.KeyIndex) || p.KeyIndex[i+1] != k {
			if err := p.Models[k].UnmarshalText([]byte(models.text(i))); err != nil {
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
	// Scored finds out whose rows the job scored. It is asked only if the table has
	// rows in the interval.
	Scored func(context.Context) (func(fleetscore.Key) bool, error)
}

// CommitPredictions makes a job's prediction files visible in one commit, and in
// the same commit takes back what they supersede: the rows in the interval of the
// keys that this job scored. So a key and time has one visible row. A row of a newer
// revision stays, and this job's row with its key and time doesn't appear: a job that
// was held up doesn't bring back what was scored before later rows came. A job that
// was committed before changes nothing. The table must exist.
func (d *Delta) CommitPredictions(ctx context.Context, c PredictionCommit) (int64, error) {
	var scored func(fleetscore.Key) bool
	x := supersession{job: c.Job, interval: c.Interval, add: c.Files, newer: map[rowID]bool{}}
	x.drop = func(f *frame, s TableSchema) ([]bool, error) {
		if scored == nil {
			var err error
			if scored, err = c.Scored(ctx); err != nil {
				return nil, err
			}
		}
		keys, index := f.keysOf(s.Key)
		out := make([]bool, f.len())
		mine := make([]bool, len(keys))
		for i, k := range keys {
			mine[i] = scored(k)
		}
		revisions := f.column("Revision").longs
		for i, t := range f.column(s.Time).longs {
			if !mine[index[i]] || !c.Interval.ContainsMicros(fleetscore.Micros(t)) {
				continue
			}
			if out[i] = revisions[i] <= c.Revision; !out[i] {
				x.newer[rowID{keys[index[i]], t}] = true
			}
		}
		return out, nil
	}
	return d.supersede(ctx, x)
}

// rowID is what a table has one row of.
type rowID struct {
	key  fleetscore.Key
	time int64
}

// CommitItems makes a job's coverage visible. Items of an earlier job with the
// same key and the same interval are taken back.
func (d *Delta) CommitItems(ctx context.Context, job fleetscore.JobID, interval fleetscore.Interval, add []fleetscore.DataFile) (int64, error) {
	from, to := int64(fleetscore.MicrosOf(interval.From)), int64(fleetscore.MicrosOf(interval.To))
	var mine map[fleetscore.Key]bool
	drop := func(f *frame, s TableSchema) ([]bool, error) {
		if mine == nil { // nothing was superseded so far, so nobody needed it
			own, err := d.readFrame(ctx, s, add, s.wanted(nil), ReadQuery{})
			if err != nil {
				return nil, err
			}
			mine = map[fleetscore.Key]bool{}
			keys, _ := own.keysOf(s.Key)
			for _, k := range keys {
				mine[k] = true
			}
		}
		out := make([]bool, f.len())
		keys, index := f.keysOf(s.Key)
		starts, ends := f.column("From").longs, f.column("To").longs
		for i := range out {
			out[i] = starts[i] == from && ends[i] == to && mine[keys[index[i]]]
		}
		return out, nil
	}
	return d.supersede(ctx, supersession{job: job, interval: interval, add: add, drop: drop})
}

// supersession is a job's files and what they take the place of.
type supersession struct {
	job      fleetscore.JobID
	interval fleetscore.Interval
	add      []fleetscore.DataFile
	drop     func(*frame, TableSchema) ([]bool, error) // marks rows that are superseded
	newer    map[rowID]bool                            // filled by drop: rows that stay in place of the job's own
}

// supersede commits files and writes those anew in which rows are superseded. Of
// two jobs over the same rows the one that commits later meets the rows of the other.
func (d *Delta) supersede(ctx context.Context, x supersession) (int64, error) {
	guard := "job/" + string(x.job)
	return d.commit(ctx, func(snap *Snapshot) (Commit, error) {
		c := Commit{Operation: "WRITE", Txns: map[string]int64{guard: 1}, Guard: guard}
		if _, done := snap.Txns[guard]; done {
			return c, nil // refused by the guard
		}
		clear(x.newer)
		for _, old := range (ReadQuery{Interval: &x.interval}).Prune(snap.Files) {
			rest, changed, err := d.without(ctx, snap.Schema, old, x.job, x.drop)
			if err != nil {
				return c, err
			}
			if changed {
				c.Operation = "MERGE"
				c.Remove = append(c.Remove, old.Path)
				c.Add = append(c.Add, rest...)
			}
		}
		if len(x.newer) == 0 {
			c.Add = append(c.Add, x.add...)
			return c, nil
		}
		for _, mine := range x.add {
			rest, changed, err := d.without(ctx, snap.Schema, mine, x.job, x.outdated)
			if err != nil {
				return c, err
			}
			if !changed {
				rest = []fleetscore.DataFile{mine}
			}
			c.Add = append(c.Add, rest...)
		}
		return c, nil
	})
}

// outdated marks the job's rows that a newer one stands for.
func (x *supersession) outdated(f *frame, s TableSchema) ([]bool, error) {
	keys, index := f.keysOf(s.Key)
	out := make([]bool, f.len())
	for i, t := range f.column(s.Time).longs {
		out[i] = x.newer[rowID{keys[index[i]], t}]
	}
	return out, nil
}

// without writes a file's rows anew without those that drop marks, unless it marks
// none.
func (d *Delta) without(ctx context.Context, s TableSchema, file fleetscore.DataFile, job fleetscore.JobID, drop func(*frame, TableSchema) ([]bool, error)) (rest []fleetscore.DataFile, changed bool, err error) {
	f, err := d.readFile(ctx, file, s.all())
	if err != nil {
		return nil, false, err
	}
	gone, err := drop(f, s)
	if err != nil {
		return nil, false, err
	}
	var keep []int
	for i, g := range gone {
		if !g {
			keep = append(keep, i)
		}
	}
	if len(keep) == len(gone) {
		return nil, false, nil
	}
	if len(keep) > 0 {
		rest, err = d.writeFrame(ctx, s, f.pick(keep), jobFile(job))
	}
	return rest, true, err
}

// WriteItems writes a job's coverage into files of the coverage table; no reader
// sees them before CommitItems adds them.
func (d *Delta) WriteItems(ctx context.Context, items []fleetscore.Item, keyNames []string, job fleetscore.JobID, interval fleetscore.Interval) ([]fleetscore.DataFile, error) {
	if len(items) == 0 {
		return nil, nil
	}
	s := ItemSchema(keyNames)
	f := &frame{columns: make([]column, len(s.Columns))}
	for i, w := range s.all() {
		f.columns[i] = column{name: w.name, kind: w.kind, zero: w.optional}
	}
	long := func(name string, v int64) { c := f.column(name); c.longs = append(c.longs, v) }
	text := func(name, v string) { f.column(name).appendText(v) }
	for _, it := range items {
		long("To", int64(fleetscore.MicrosOf(interval.To)))
		long("From", int64(fleetscore.MicrosOf(interval.From)))
		for i, v := range it.Key.Values() {
			text(keyNames[i], v)
		}
		text("Job", string(job))
		text("Outcome", string(it.Outcome))
		long("Rows", it.Rows)
		long("Anomalies", it.Anomalies)
		long("First", int64(it.First))
		long("Last", int64(it.Last))
		model := ""
		if !it.Model.IsZero() {
			model = it.Model.String()
		}
		text("Model", model)
		text("Reason", it.Reason)
	}
	return d.writeFrame(ctx, s, f, jobFile(job))
}

// ItemQuery narrows which items are read.
type ItemQuery struct {
	Job      fleetscore.JobID     // only this job's; empty means all jobs'
	Interval *fleetscore.Interval // only of jobs whose interval ends in it
	Keys     []fleetscore.Key
	Outcome  fleetscore.Outcome // empty means all
}

// JobItem is an item and the job it belongs to.
type JobItem struct {
	fleetscore.Item
	Job      fleetscore.JobID    `json:"job"`
	Interval fleetscore.Interval `json:"interval"`
}

// jobItems is what JobItems read last.
type jobItems struct {
	job     fleetscore.JobID
	version int64
	items   []fleetscore.Item
}

// JobItems reads the items of a job, sorted by key; nil if there is no table yet.
// Those of the job that was asked for last are remembered, as people turn pages.
// The caller must not change them.
func (d *Delta) JobItems(ctx context.Context, job fleetscore.JobID, interval fleetscore.Interval) ([]fleetscore.Item, error) {
	snap, err := d.Snapshot(ctx)
	if fleetscore.NotFound.Is(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := d.itemsMu.take(ctx); err != nil {
		return nil, fleetscore.Wrap("read items", d.opt.Name, err)
	}
	defer d.itemsMu.Unlock()
	if last := d.items; last != nil && last.job == job && last.version == snap.Version {
		return last.items, nil
	}
	found, err := d.ReadItems(ctx, snap.Files, ItemQuery{Job: job, Interval: &interval})
	if err != nil {
		return nil, err
	}
	items := make([]fleetscore.Item, len(found))
	for i, f := range found {
		items[i] = f.Item
	}
	d.items = &jobItems{job, snap.Version, items}
	return items, nil
}

// ReadItems reads items, sorted by the interval's end, then key.
func (d *Delta) ReadItems(ctx context.Context, files []fleetscore.DataFile, q ItemQuery) ([]JobItem, error) {
	snap, err := d.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	f, err := d.readFrame(ctx, snap.Schema, files, snap.Schema.all(), ReadQuery{Interval: q.Interval, Keys: q.Keys})
	if err != nil {
		return nil, err
	}
	keys, index := f.keysOf(snap.Schema.Key)
	jobs, outcomes, models, reasons := f.column("Job"), f.column("Outcome"), f.column("Model"), f.column("Reason")
	from, to := f.column("From").longs, f.column("To").longs
	rows, anomalies, first, last := f.column("Rows").longs, f.column("Anomalies").longs, f.column("First").longs, f.column("Last").longs
	var out []JobItem
	for i := range rows {
		if (q.Job != "" && jobs.text(i) != string(q.Job)) || (q.Outcome != "" && outcomes.text(i) != string(q.Outcome)) {
			continue
		}
		it := JobItem{Job: fleetscore.JobID(jobs.text(i)),
			Interval: fleetscore.Interval{From: fleetscore.Micros(from[i]).Time(), To: fleetscore.Micros(to[i]).Time()},
			Item: fleetscore.Item{Key: keys[index[i]], Outcome: fleetscore.Outcome(outcomes.text(i)), Rows: rows[i], Anomalies: anomalies[i],
				First: fleetscore.Micros(first[i]), Last: fleetscore.Micros(last[i]), Reason: reasons.text(i)}}
		if err := it.Model.UnmarshalText([]byte(models.text(i))); err != nil {
			return nil, err
		}
		out = append(out, it)
	}
	slices.SortFunc(out, func(a, b JobItem) int {
		if c := a.Interval.To.Compare(b.Interval.To); c != 0 {
			return c
		}
		return cmp.Compare(a.Key, b.Key)
	})
	return out, nil
}
