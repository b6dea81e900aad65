package catalog

import (
	"cmp"
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// How maintenance goes about it.
const (
	settled = time.Hour // after its end an hour's files are joined: by then most rows have come
	// A wall clock that was moved by more than this is not trusted: files are deleted
	// by age.
	clockTrust = 5 * time.Minute
	grace      = 24 * time.Hour // a file that a commit replaced, or that none made visible, is kept for readers and writers
)

// InUse is what must not be removed, even if readers don't see it any more or it is older
// than the retention.
type InUse struct {
	Jobs  map[fleetscore.JobID]bool  // jobs that haven't ended: the files of their results, not yet visible
	Files map[string]map[string]bool // by dataset: the files that those jobs read
	// Since, by dataset: rows with a later stamp are still to be read, by jobs that
	// wait and by the next of each schedule.
	Since map[string]time.Time
	// Results, by pipeline: results with a later stamp are those of jobs that haven't
	// ended.
	Results map[string]time.Time
}

// Maintenance is what people can ask of maintenance.
type Maintenance struct {
	// Dataset names the only table to maintain, and all of its files are examined. Empty
	// means all tables, and of each table a few dates are examined in turn.
	Dataset string
	// Dry only counts what is older than its retention or beyond a bound, and changes
	// nothing.
	Dry bool
}

// Upkeep says what Maintain is to do.
type Upkeep struct {
	Maintenance
	// Use says what is in use; it is called just before something is removed.
	Use func(context.Context) (InUse, error)
	// Datasets and Pipelines are how long rows are kept, by their stamps' age; those
	// not named, or with 0, are kept for ever.
	Datasets, Pipelines map[string]time.Duration
	// Late is how long readings that came too late are kept, at most as long as the
	// dataset's rows; 0 means as long as them.
	Late time.Duration
	// ResultsBytes bounds the visible files of all predictions and coverage; the oldest go
	// first. 0 means without limit.
	ResultsBytes int64
}

// Maintained says what maintenance did to a table.
type Maintained struct {
	Table    string `json:"table" doc:"its folder in the store"`
	Files    int    `json:"files" doc:"visible files afterwards"`
	Replaced int    `json:"replaced" doc:"small files that were joined"`
	By       int    `json:"by" doc:"the files they were joined into"`
	Expired  int    `json:"expired" doc:"files taken out of the table because all of their rows are older than the retention, or the oldest of too many; of the history, jobs that were forgotten"`
	Deleted  int    `json:"deleted" doc:"files that no reader needs any more; of logs, those that are beyond their retention"`
	Bytes    int64  `json:"bytes" doc:"size of what was taken out because of its age, or because there was too much"`
	Problem  string `json:"problem,omitempty" doc:"why the table could not be maintained"`
}

// upkept is a table to be maintained.
type upkept struct {
	folder  string
	table   *table.Delta
	results bool                     // of a pipeline
	images  string                   // the pipeline whose notes of images go with the rows; empty for other tables than its coverage
	keep    func(InUse, string) bool // whether a file that no reader sees is still needed
	rows    time.Duration            // how long rows are kept; 0 means for ever
	since   func(InUse) time.Time    // rows that are needed however old they are; nil if none are
	until   time.Time                // rows up to it go too, as there are too many
	late    time.Duration            // how long readings that came too late are kept; 0 means for ever
	all     bool                     // all files are examined, not only those of a few dates
}

// Maintain takes rows out of the tables that are older than their retention, joins
// small files, writes checkpoints and deletes files that are no longer needed, table by
// table. If a table can't be maintained, its entry says why and the other tables are
// maintained nevertheless. The error is about what concerns all tables; it is of kind
// NotFound if the named dataset doesn't exist.
//
// Each step is one commit or the deletion of a file that no reader sees, so it may be
// killed anywhere. Kind Unavailable, and nothing is done, if the wall clock was moved
// since the catalog was made.
func (c *Catalog) Maintain(ctx context.Context, now time.Time, u Upkeep) ([]Maintained, error) {
	if err := c.clockMoved("maintain tables"); err != nil {
		return nil, err
	}
	tables, err := c.upkept(ctx, u)
	if err != nil {
		return nil, err
	}
	if u.ResultsBytes > 0 && u.Dataset == "" {
		until := oldestBeyond(ctx, tables, u.ResultsBytes)
		for i := range tables {
			if tables[i].results {
				tables[i].until = until
			}
		}
	}
	out := []Maintained{}
	for _, t := range tables {
		work := c.maintain
		if u.Dry {
			work = dryRun
		}
		done, err := work(ctx, t, now, u.Use)
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		if fleetscore.NotFound.Is(err) {
			if u.Dataset != "" {
				return nil, fleetscore.Errorf(fleetscore.NotFound, "maintain dataset", u.Dataset, "there is no such dataset, or nothing was written yet")
			}
			continue // the folder holds no table
		}
		if done.Table = t.folder; err != nil {
			done.Problem = err.Error()
		}
		out = append(out, done)
	}
	return out, nil
}

// clockMoved refuses to judge by age where the wall clock was moved.
func (c *Catalog) clockMoved(op string) error {
	if moved := c.moved(); moved.Abs() > clockTrust {
		return fleetscore.Errorf(fleetscore.Unavailable, op, "", "the wall clock was moved by %s since the start, and files are deleted by their age", moved.Round(time.Second)).
			WithHint("restart the server once the clock is right")
	}
	return nil
}

// upkept lists the tables to be maintained.
func (c *Catalog) upkept(ctx context.Context, u Upkeep) (out []upkept, err error) {
	datasets := []string{u.Dataset}
	if u.Dataset == "" {
		if datasets, err = c.Datasets(ctx); err != nil {
			return nil, err
		}
		pipelines, err := c.folders(ctx, predictionsArea)
		if err != nil {
			return nil, err
		}
		for _, p := range pipelines {
			since := func(use InUse) time.Time { return use.Results[p] }
			out = append(out, upkept{folder: PredictionsFolder(p), table: c.Predictions(p).Delta, keep: ofJobs, rows: u.Pipelines[p], since: since, results: true},
				upkept{folder: CoverageFolder(p), table: c.Coverage(p).Delta, keep: ofJobs, rows: u.Pipelines[p], since: since, results: true, images: p})
		}
	}
	for _, name := range datasets {
		rows := u.Datasets[name]
		late := u.Late
		if rows > 0 && (late == 0 || rows < late) {
			late = rows
		}
		out = append(out, upkept{folder: DatasetFolder(name), table: c.Dataset(name), rows: rows, late: late, all: u.Dataset != "",
			keep:  func(use InUse, file string) bool { return use.Files[name][file] },
			since: func(use InUse) time.Time { return use.Since[name] }})
	}
	return out, nil
}

// ofJobs tells whether a file holds results of a job that hasn't ended: its name
// begins with the job's.
func ofJobs(use InUse, file string) bool {
	name := path.Base(file)
	for job := range use.Jobs {
		if strings.HasPrefix(name, string(job)+"-") {
			return true
		}
	}
	return false
}

func (c *Catalog) maintain(ctx context.Context, t upkept, now time.Time, use func(context.Context) (InUse, error)) (done Maintained, err error) {
	d := t.table
	_ = d.ExamineDamaged(ctx) // it reports the damage itself
	if _, err := d.Snapshot(ctx); err != nil {
		return done, err
	}
	var problems [7]error // each step goes on where another is held up
	done.Expired, done.Bytes, problems[0] = expire(ctx, t, now, use, false)
	done.Replaced, done.By, problems[1] = d.Compact(ctx, now.Add(-settled))
	problems[2] = d.Checkpoint(ctx)
	done.Deleted, problems[3] = d.Vacuum(ctx, now.Add(-grace), t.all, func(ctx context.Context) (func(string) bool, error) {
		in, err := use(ctx)
		return func(file string) bool { return t.keep(in, file) }, err
	})
	if t.late > 0 {
		var late int
		late, problems[4] = c.deleteOld(ctx, t.folder+lateName, now.Add(-t.late))
		done.Deleted += late
	}
	if t.results && t.rows > 0 { // what commands left beside the rows
		var output int
		output, problems[5] = c.deleteOld(ctx, t.folder+outputName, now.Add(-t.rows))
		done.Deleted += output
	}
	snap, err := d.Snapshot(ctx)
	if err != nil {
		return done, err
	}
	done.Files = len(snap.Files)
	if t.images != "" {
		var notes int
		notes, problems[6] = c.expireImages(ctx, t.images, now, snap, use)
		done.Deleted += notes
	}
	return done, errors.Join(problems[:]...)
}

// dryRun counts what maintain would take out of a table.
func dryRun(ctx context.Context, t upkept, now time.Time, use func(context.Context) (InUse, error)) (done Maintained, err error) {
	snap, err := t.table.Snapshot(ctx)
	if err != nil {
		return done, err
	}
	done.Files = len(snap.Files)
	done.Expired, done.Bytes, err = expire(ctx, t, now, use, true)
	return done, err
}

// expire removes rows from a table that are older than its retention, or too many, and
// that no job needs any more. It returns how many files they were in, and how large these
// were; if dry is set, it removes nothing.
func expire(ctx context.Context, t upkept, now time.Time, use func(context.Context) (InUse, error), dry bool) (files int, bytes int64, err error) {
	until := t.until
	if old := now.Add(-t.rows); t.rows > 0 && old.After(until) {
		until = old
	}
	if until.IsZero() {
		return 0, 0, nil
	}
	if t.since != nil {
		in, err := use(ctx)
		if err != nil {
			return 0, 0, err
		}
		if since := t.since(in); !since.IsZero() && since.Before(until) {
			until = since
		}
	}
	snap, err := t.table.Snapshot(ctx)
	if err != nil {
		return 0, 0, err
	}
	at := fleetscore.MicrosOf(until)
	for _, f := range snap.Files {
		if f.Last <= at {
			files, bytes = files+1, bytes+f.SizeBytes
		}
	}
	if dry || files == 0 {
		return files, bytes, nil
	}
	files, err = t.table.Expire(ctx, at)
	return files, bytes, err
}

// oldestBeyond is the time up to which results have to go so that at most limit bytes are
// left; zero if there aren't more. Tables that can't be read don't count.
func oldestBeyond(ctx context.Context, tables []upkept, limit int64) time.Time {
	var all []fleetscore.DataFile
	total := int64(0)
	for _, t := range tables {
		if !t.results {
			continue
		}
		snap, err := t.table.Snapshot(ctx)
		if err != nil {
			continue // its own maintenance says why
		}
		for _, f := range snap.Files {
			all, total = append(all, f), total+f.SizeBytes
		}
	}
	slices.SortFunc(all, func(a, b fleetscore.DataFile) int { return cmp.Compare(a.Last, b.Last) })
	var until time.Time
	for i := 0; i < len(all) && total > limit; i++ {
		total -= all[i].SizeBytes
		until = all[i].Last.Time()
	}
	return until
}

// deleteOld deletes the blobs below a prefix that were last written before a time.
func (c *Catalog) deleteOld(ctx context.Context, prefix string, before time.Time) (deleted int, err error) {
	var old []fleetscore.BlobName
	for info, err := range c.store.List(ctx, prefix, store.ListOptions{}) {
		if err != nil {
			return 0, err
		}
		if info.Modified.Before(before) {
			old = append(old, info.Name)
		}
	}
	return c.delete(ctx, old)
}

func (c *Catalog) delete(ctx context.Context, names []fleetscore.BlobName) (deleted int, err error) {
	for _, name := range names {
		if err := c.store.Delete(ctx, name); err != nil {
			return deleted, err
		}
		deleted++
	}
	return deleted, nil
}

// folders lists the names of the folders right below an area, in order.
func (c *Catalog) folders(ctx context.Context, area string) (out []string, err error) {
	for info, err := range c.store.List(ctx, area, store.ListOptions{Delimiter: true}) {
		if err != nil {
			return nil, err
		}
		if name, isFolder := strings.CutSuffix(strings.TrimPrefix(string(info.Name), area), "/"); isFolder {
			out = append(out, name)
		}
	}
	return out, nil
}
