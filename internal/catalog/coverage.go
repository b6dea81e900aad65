package catalog

import (
	"cmp"
	"context"
	"slices"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
)

// ItemSchema is the shape of a pipeline's coverage. Its time column is the end of the
// job's interval.
func ItemSchema(key []string) table.TableSchema {
	s := table.TableSchema{Time: "To", Key: slices.Clone(key), Columns: []table.Column{{Name: "To", Type: table.Timestamp}, {Name: "From", Type: table.Timestamp}}}
	for _, k := range key {
		s.Columns = append(s.Columns, table.Column{Name: k, Type: table.Text})
	}
	for _, c := range [][2]string{{"Job", table.Text}, {"Outcome", table.Text}, {"Rows", table.Long}, {"Anomalies", table.Long},
		{"First", table.Timestamp}, {"Last", table.Timestamp}, {"Model", table.Text}, {"Reason", table.Text},
		{"Kept", table.Text}, {"Content", table.Long}, {"Image", table.Text}} {
		s.Columns = append(s.Columns, table.Column{Name: c[0], Type: c[1]})
	}
	return s
}

// Coverage is the table with the outcomes of a pipeline's jobs.
type Coverage struct{ *table.Delta }

// WriteItems writes a job's coverage into files; no reader sees them before CommitItems
// adds them.
func (d Coverage) WriteItems(ctx context.Context, items []fleetscore.Item, keyNames []string, job fleetscore.JobID, interval fleetscore.Interval) ([]fleetscore.DataFile, error) {
	if len(items) == 0 {
		return nil, nil
	}
	f, n := &table.Frame{}, len(items)
	longs := func(value func(*fleetscore.Item) int64) []int64 {
		out := make([]int64, n)
		for i := range items {
			out[i] = value(&items[i])
		}
		return out
	}
	f.AddTimes("To", false, longs(func(*fleetscore.Item) int64 { return int64(fleetscore.MicrosOf(interval.To)) }))
	f.AddTimes("From", true, longs(func(*fleetscore.Item) int64 { return int64(fleetscore.MicrosOf(interval.From)) }))
	keys := make([][]string, n)
	for i := range items {
		keys[i] = items[i].Key.Values()
	}
	for k, name := range keyNames {
		f.AddTexts(name, n, func(row int) string { return keys[row][k] })
	}
	f.AddTexts("Job", n, func(int) string { return string(job) })
	f.AddTexts("Outcome", n, func(row int) string { return string(items[row].Outcome) })
	f.AddLongs("Rows", longs(func(i *fleetscore.Item) int64 { return i.Rows }))
	f.AddLongs("Anomalies", longs(func(i *fleetscore.Item) int64 { return i.Anomalies }))
	f.AddTimes("First", true, longs(func(i *fleetscore.Item) int64 { return int64(i.First) }))
	f.AddTimes("Last", true, longs(func(i *fleetscore.Item) int64 { return int64(i.Last) }))
	f.AddTexts("Model", n, func(row int) string {
		if items[row].Model.IsZero() {
			return ""
		}
		return items[row].Model.String()
	})
	f.AddTexts("Reason", n, func(row int) string { return items[row].Reason })
	f.AddTexts("Kept", n, func(row int) string { return string(items[row].Kept) })
	f.AddLongs("Content", longs(func(i *fleetscore.Item) int64 { return int64(i.Content) }))
	f.AddTexts("Image", n, func(row int) string { return items[row].Image })
	return d.WriteFrame(ctx, ItemSchema(keyNames), f, jobFile(job))
}

// CommitItems makes a job's coverage visible. Items of an earlier job with the same key
// and the same interval are removed. Items of a job that was made later, as later tells,
// stay, and this job's own items of these keys don't become visible: so a job that was
// delayed doesn't replace the outcomes of a later job. nil means that there is no such job.
func (d Coverage) CommitItems(ctx context.Context, job fleetscore.JobID, interval fleetscore.Interval, add []fleetscore.DataFile, later func(fleetscore.JobID) bool) (int64, error) {
	from, to := int64(fleetscore.MicrosOf(interval.From)), int64(fleetscore.MicrosOf(interval.To))
	var mine map[fleetscore.Key]bool
	newer := map[fleetscore.Key]bool{} // keys whose items of a later job stay
	r := table.Replacement{Guard: jobEntry(job), Interval: interval, Add: add, Begin: func() { clear(newer) },
		Name: func() func(fleetscore.ShardRange) string { return jobFile(job) }}
	r.Superseded = func(f *table.Frame, s table.TableSchema) ([]bool, error) {
		if mine == nil { // it is needed only if the table has rows in the interval
			own, _, err := d.ReadFrame(ctx, add, []string{}, table.ReadQuery{})
			if err != nil {
				return nil, err
			}
			mine = map[fleetscore.Key]bool{}
			keys, _ := own.Keys(s.Key)
			for _, k := range keys {
				mine[k] = true
			}
		}
		out := make([]bool, f.Len())
		keys, index := f.Keys(s.Key)
		starts, ends, jobs := f.Longs("From"), f.Longs("To"), f.Texts("Job")
		for i := range out {
			k := keys[index[i]]
			if starts[i] != from || ends[i] != to || !mine[k] {
				continue
			}
			if out[i] = later == nil || !later(fleetscore.JobID(jobs(i))); !out[i] {
				newer[k] = true
			}
		}
		return out, nil
	}
	r.Outdated = func() (bool, func(*table.Frame, table.TableSchema) ([]bool, error)) {
		return len(newer) > 0, func(f *table.Frame, s table.TableSchema) ([]bool, error) {
			keys, index := f.Keys(s.Key)
			out := make([]bool, f.Len())
			for i := range out {
				out[i] = newer[keys[index[i]]]
			}
			return out, nil
		}
	}
	return d.Replace(ctx, r)
}

// ItemQuery narrows which items are read.
type ItemQuery struct {
	Job      fleetscore.JobID     // only this job's; empty means all jobs'
	Interval *fleetscore.Interval // only of jobs whose interval ends in it
	Keys     []fleetscore.Key
	Shards   *fleetscore.ShardRange // only keys of these shards
	Outcome  fleetscore.Outcome     // empty means all
}

// JobItem is an item and the job it belongs to.
type JobItem struct {
	fleetscore.Item
	Job      fleetscore.JobID    `json:"job"`
	Interval fleetscore.Interval `json:"interval"`
}

// JobItems reads all items of a job, sorted by key; nil if there is no table yet.
func (d Coverage) JobItems(ctx context.Context, job fleetscore.JobID, interval fleetscore.Interval) ([]fleetscore.Item, error) {
	snap, err := d.Snapshot(ctx)
	if fleetscore.NotFound.Is(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	found, err := d.ReadItems(ctx, snap.Files, ItemQuery{Job: job, Interval: &interval})
	if err != nil {
		return nil, err
	}
	items := make([]fleetscore.Item, len(found))
	for i, f := range found {
		items[i] = f.Item
	}
	return items, nil
}

// ItemPage says which items of a job to read.
type ItemPage struct {
	Outcomes []fleetscore.Outcome // empty means all
	After    fleetscore.Key       // the last item of the page before; empty means from the start
	Limit    int
}

// PageOf reads a page of the items of a job that has ended. If the results of an earlier job
// stay as a whole, the items are those of that job, and say so.
func (d Coverage) PageOf(ctx context.Context, j fleetscore.Job, p ItemPage) (items []fleetscore.Item, more bool, err error) {
	items, more, err = d.Page(ctx, j.ResultsOf(), j.Interval, p)
	for i := range items {
		items[i].Kept = cmp.Or(items[i].Kept, j.Unchanged)
	}
	return items, more, err
}

// Page reads a page of a job's items, in the order of ByShard; more says whether there are
// others after it. It reads the files of a few shards at a time and keeps nothing, so a
// page of a million items costs about as much as a page of a thousand.
func (d Coverage) Page(ctx context.Context, job fleetscore.JobID, interval fleetscore.Interval, p ItemPage) (items []fleetscore.Item, more bool, err error) {
	snap, err := d.Snapshot(ctx)
	if fleetscore.NotFound.Is(err) {
		return nil, false, nil
	} else if err != nil {
		return nil, false, err
	}
	query := table.ReadQuery{Interval: &interval}
	if p.After != "" {
		query.Shards = &fleetscore.ShardRange{First: p.After.Shard(), Last: fleetscore.Shards - 1}
	}
	for _, files := range apart(query.Prune(snap.Files)) {
		if some, err := d.has(ctx, files, job, p.Outcomes); err != nil {
			return nil, false, err
		} else if !some {
			continue
		}
		found, err := d.ReadItems(ctx, files, ItemQuery{Job: job, Interval: &interval})
		if err != nil {
			return nil, false, err
		}
		found = slices.DeleteFunc(found, func(i JobItem) bool {
			return len(p.Outcomes) > 0 && !slices.Contains(p.Outcomes, i.Outcome) || p.After != "" && ByShard(i.Key, p.After) <= 0
		})
		slices.SortFunc(found, func(a, b JobItem) int { return ByShard(a.Key, b.Key) })
		for _, i := range found {
			if len(items) == p.Limit {
				return items, true, nil
			}
			items = append(items, i.Item)
		}
	}
	return items, false, nil
}

// has reports whether files hold items of a job with one of the outcomes; empty means any.
// It reads two columns only, so that a few failed items of a million are found quickly.
func (d Coverage) has(ctx context.Context, files []fleetscore.DataFile, job fleetscore.JobID, outcomes []fleetscore.Outcome) (bool, error) {
	f, _, err := d.ReadFrame(ctx, files, []string{"Job", "Outcome"}, table.ReadQuery{})
	if err != nil {
		return false, err
	}
	jobs, ends := f.Texts("Job"), f.Texts("Outcome")
	for i := range f.Len() {
		if jobs(i) == string(job) && (len(outcomes) == 0 || slices.Contains(outcomes, fleetscore.Outcome(ends(i)))) {
			return true, nil
		}
	}
	return false, nil
}

// ByShard orders keys by shard, then key: the order in which pages of items follow each
// other.
func ByShard(a, b fleetscore.Key) int {
	return cmp.Or(cmp.Compare(a.Shard(), b.Shard()), cmp.Compare(a, b))
}

// apart groups files by shards: no two groups have a shard in common, and the groups are
// in the order of their shards.
func apart(files []fleetscore.DataFile) (out [][]fleetscore.DataFile) {
	slices.SortStableFunc(files, func(a, b fleetscore.DataFile) int { return cmp.Compare(a.Shards.First, b.Shards.First) })
	var last fleetscore.Shard // of the newest group
	for _, f := range files {
		if len(out) == 0 || f.Shards.First > last {
			out, last = append(out, nil), f.Shards.Last
		}
		out[len(out)-1], last = append(out[len(out)-1], f), max(last, f.Shards.Last)
	}
	return out
}

// ReadItems reads items, sorted by the interval's end, then key.
func (d Coverage) ReadItems(ctx context.Context, files []fleetscore.DataFile, q ItemQuery) ([]JobItem, error) {
	f, s, err := d.ReadFrame(ctx, files, nil, table.ReadQuery{Interval: q.Interval, Keys: q.Keys, Shards: q.Shards})
	if err != nil {
		return nil, err
	}
	keys, index := f.Keys(s.Key)
	jobs, outcomes, models, reasons, kept := f.Texts("Job"), f.Texts("Outcome"), f.Texts("Model"), f.Texts("Reason"), f.Texts("Kept")
	images := func(int) string { return "" }
	if slices.Contains(s.Columns, table.Column{Name: "Image", Type: table.Text}) { // tables of earlier releases get it with their next job
		images = f.Texts("Image")
	}
	from, to := f.Longs("From"), f.Longs("To")
	rows, anomalies, first, last, contents := f.Longs("Rows"), f.Longs("Anomalies"), f.Longs("First"), f.Longs("Last"), f.Longs("Content")
	var out []JobItem
	for i := range rows {
		if (q.Job != "" && jobs(i) != string(q.Job)) || (q.Outcome != "" && outcomes(i) != string(q.Outcome)) {
			continue
		}
		it := JobItem{Job: fleetscore.JobID(jobs(i)),
			Interval: fleetscore.Interval{From: fleetscore.Micros(from[i]).Time(), To: fleetscore.Micros(to[i]).Time()},
			Item: fleetscore.Item{Key: keys[index[i]], Outcome: fleetscore.Outcome(outcomes(i)), Rows: rows[i], Anomalies: anomalies[i],
				First: fleetscore.Micros(first[i]), Last: fleetscore.Micros(last[i]), Reason: reasons(i), Kept: fleetscore.JobID(kept(i)), Content: uint64(contents[i]), Image: images(i)}}
		if err := it.Model.UnmarshalText([]byte(models(i))); err != nil {
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

// DoneJob is what the coverage tells of a job: the outcomes that no later job over the
// same interval has replaced.
type DoneJob struct {
	Job       fleetscore.JobID
	Interval  fleetscore.Interval
	Outcomes  fleetscore.Counts
	Rows      int64
	Anomalies int64
}

// DoneJobs are the jobs that outcomes are kept of, in the order of their intervals' ends.
// There are none if there is no table yet. The files are read one after the other.
func (d Coverage) DoneJobs(ctx context.Context) ([]DoneJob, error) {
	snap, err := d.Snapshot(ctx)
	if fleetscore.NotFound.Is(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	found := map[fleetscore.JobID]*DoneJob{}
	for i := range snap.Files {
		f, _, err := d.ReadFrame(ctx, snap.Files[i:i+1], []string{"From", "Job", "Outcome", "Rows", "Anomalies"}, table.ReadQuery{})
		if err != nil {
			return nil, err
		}
		jobs, outcomes, rows, anomalies := f.Texts("Job"), f.Texts("Outcome"), f.Longs("Rows"), f.Longs("Anomalies")
		from, to := f.Longs("From"), f.Longs("To")
		for i := range rows {
			id := fleetscore.JobID(jobs(i))
			j := found[id]
			if j == nil {
				j = &DoneJob{Job: id, Outcomes: fleetscore.Counts{},
					Interval: fleetscore.Interval{From: fleetscore.Micros(from[i]).Time(), To: fleetscore.Micros(to[i]).Time()}}
				found[id] = j
			}
			j.Outcomes[fleetscore.Outcome(outcomes(i))]++
			j.Rows += rows[i]
			j.Anomalies += anomalies[i]
		}
	}
	out := make([]DoneJob, 0, len(found))
	for _, j := range found {
		out = append(out, *j)
	}
	slices.SortFunc(out, func(a, b DoneJob) int {
		return cmp.Or(a.Interval.To.Compare(b.Interval.To), cmp.Compare(a.Job, b.Job))
	})
	return out, nil
}
