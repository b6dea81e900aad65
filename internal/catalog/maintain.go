package catalog

import (
	"context"
	"errors"
	"path"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// How maintenance goes about it.
const (
	settled = time.Hour // after its end an hour's files are joined: by then most rows have come
	// A wall clock that was moved by more than this is not believed: files are deleted
	// by age.
	clockTrust = 5 * time.Minute
	grace      = 24 * time.Hour // a file that a commit replaced, or that none made visible, is kept for readers and writers
)

// InUse is what may not be removed although no reader sees it any more.
type InUse struct {
	Jobs  map[fleetscore.JobID]bool  // jobs that haven't ended: the files of their results, not yet visible
	Files map[string]map[string]bool // by dataset: the files that those jobs read
}

// Maintained says what maintenance did to a table.
type Maintained struct {
	Table    string `json:"table" doc:"its folder in the store"`
	Files    int    `json:"files" doc:"visible files afterwards"`
	Replaced int    `json:"replaced" doc:"small files that were joined"`
	By       int    `json:"by" doc:"the files they were joined into"`
	Deleted  int    `json:"deleted" doc:"files that no reader needs any more"`
	Problem  string `json:"problem,omitempty" doc:"why the table could not be maintained"`
}

// Maintain joins small files of the tables and deletes files that nobody needs any
// more, table by table. A table that can't be maintained says so, and the others are
// maintained all the same. The error is for what concerns all. dataset, if not empty,
// names the only table to maintain; kind NotFound if there is none.
//
// Each step is one commit or the deletion of a file that no reader sees, so it may be
// killed anywhere. Kind Unavailable, and nothing is done, if the wall clock was moved
// since the catalog was made.
func (c *Catalog) Maintain(ctx context.Context, now time.Time, dataset string, use func(context.Context) (InUse, error)) ([]Maintained, error) {
	if moved := c.moved(); moved.Abs() > clockTrust {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "maintain tables", "", "the wall clock was moved by %s since the start, and files are deleted by their age", moved.Round(time.Second)).
			WithHint("restart the server once the clock is right")
	}
	type one struct {
		folder string
		table  *table.Delta
		keep   func(InUse, string) bool
	}
	result := func(use InUse, file string) bool { // of a job that hasn't ended: its name begins with the job's
		name := path.Base(file)
		for job := range use.Jobs {
			if strings.HasPrefix(name, string(job)+"-") {
				return true
			}
		}
		return false
	}
	var tables []one
	datasets := []string{dataset}
	if dataset == "" {
		var err error
		if datasets, err = c.Datasets(ctx); err != nil {
			return nil, err
		}
		pipelines, err := c.pipelines(ctx)
		if err != nil {
			return nil, err
		}
		for _, p := range pipelines {
			tables = append(tables, one{PredictionsFolder(p), c.Predictions(p), result}, one{CoverageFolder(p), c.Coverage(p), result})
		}
	}
	for _, name := range datasets {
		tables = append(tables, one{DatasetFolder(name), c.Dataset(name), func(use InUse, file string) bool { return use.Files[name][file] }})
	}
	out := []Maintained{}
	for _, t := range tables {
		done, err := maintain(ctx, t.table, now, func(ctx context.Context) (func(string) bool, error) {
			in, err := use(ctx)
			return func(file string) bool { return t.keep(in, file) }, err
		})
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		if fleetscore.NotFound.Is(err) {
			if dataset != "" {
				return nil, fleetscore.Errorf(fleetscore.NotFound, "maintain dataset", dataset, "there is no such dataset, or nothing was written yet")
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

func maintain(ctx context.Context, d *table.Delta, now time.Time, keep func(context.Context) (func(string) bool, error)) (done Maintained, err error) {
	var joining, deleting error
	_ = d.ExamineDamaged(ctx) // it reports; whoever needs a damaged file says so too
	if done.Replaced, done.By, joining = d.Compact(ctx, now.Add(-settled)); fleetscore.NotFound.Is(joining) {
		return done, joining
	}
	done.Deleted, deleting = d.Vacuum(ctx, now.Add(-grace), keep) // also where a damaged file stops the joining
	snap, err := d.Snapshot(ctx)
	if err == nil {
		done.Files = len(snap.Files)
		err = errors.Join(joining, deleting)
	}
	return done, err
}

// pipelines lists the folders among the predictions, in order.
func (c *Catalog) pipelines(ctx context.Context) (out []string, err error) {
	for info, err := range c.store.List(ctx, predictionsArea, store.ListOptions{Delimiter: true}) {
		if err != nil {
			return nil, err
		}
		if name, isFolder := strings.CutSuffix(strings.TrimPrefix(string(info.Name), predictionsArea), "/"); isFolder {
			out = append(out, name)
		}
	}
	return out, nil
}
