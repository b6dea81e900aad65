// Package catalog is the one place that knows where everything lies in the store
// and what the tables there mean: the datasets, the predictions and coverage of
// pipelines, and how far a dataset is complete.
//
// It opens each table once, so that all rooms of a process share what was read of
// its log. It knows the columns of predictions and coverage and which of their rows give
// way to others; how rows lie in files is package table's, and what becomes of jobs is
// decided elsewhere. It starts no goroutines; a Catalog may be used by several
// goroutines at once.
package catalog

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// maxTables bounds how many opened tables are remembered: their names also come
// from requests, which anybody can write. Each costs the memory of its list of
// files.
const maxTables = 4096

// Catalog is the tables of a store.
type Catalog struct {
	store  store.Bucket
	health *obs.Health
	now    func() time.Time
	moved  func() time.Duration // by how much the wall clock was moved since the catalog was made

	mu     sync.Mutex // guards tables
	tables map[string]*table.Delta
}

// New makes the catalog of a store. Nothing is read.
func New(b store.Bucket) *Catalog { return NewReporting(b, nil, nil) }

// NewReporting is New for a process that keeps its health: damaged tables are
// reported there, each under its own name such as "dataset readings". now is the time
// that the tables' commits bear; nil means the system's.
func NewReporting(b store.Bucket, h *obs.Health, now func() time.Time) *Catalog {
	start := time.Now()
	return &Catalog{store: b, health: h, now: now, tables: map[string]*table.Delta{}, moved: func() time.Duration {
		now := time.Now()
		return now.Round(0).Sub(start.Round(0)) - now.Sub(start) // without the monotonic part, and with it
	}}
}

// Store is the store whose catalog this is.
func (c *Catalog) Store() store.Bucket { return c.store }

// Dataset is the table of a dataset. It need not exist yet.
func (c *Catalog) Dataset(name string) *table.Delta {
	return c.table("dataset "+name, DatasetFolder(name))
}

// Predictions is the table with a pipeline's predictions. It need not exist yet.
func (c *Catalog) Predictions(pipeline string) Predictions {
	return Predictions{c.table("predictions of pipeline "+pipeline, PredictionsFolder(pipeline))}
}

// Coverage is the table with the outcomes of a pipeline's jobs. It need not exist
// yet.
func (c *Catalog) Coverage(pipeline string) Coverage {
	return Coverage{c.table("coverage of pipeline "+pipeline, CoverageFolder(pipeline))}
}

func (c *Catalog) table(name, folder string) *table.Delta {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, ok := c.tables[folder]
	if !ok {
		d = table.OpenTable(store.Sub(c.store, folder), table.Options{Name: name, Folder: folder, Now: c.now, Report: func(problem string, works bool) {
			if works {
				c.health.Warn(name, problem)
			} else {
				c.health.Report(name, problem)
			}
		}})
		for other := range c.tables {
			if len(c.tables) < maxTables {
				break
			}
			delete(c.tables, other) // its present users may go on using it
		}
		c.tables[folder] = d
	}
	return d
}

// Examine reads a data file of a table that another process, such as a node, found
// damaged, so that the damage is reported here too. Other blobs, and files that readers
// don't see any more, are not read. What it finds is only reported.
func (c *Catalog) Examine(ctx context.Context, blob string) {
	if store.CheckName(fleetscore.BlobName(blob)) != nil {
		return
	}
	if rest, ok := strings.CutPrefix(blob, dataArea); ok {
		if name, file, ok := strings.Cut(rest, "/"); ok && CheckDataset(name) == nil {
			_ = c.Dataset(name).Examine(ctx, file) // the table reports it
		}
	} else if rest, ok := strings.CutPrefix(blob, predictionsArea); ok {
		if name, file, ok := strings.Cut(rest, "/"); ok {
			d := c.Predictions(name).Delta
			if inCoverage, ok := strings.CutPrefix(file, coverageName[1:]+"/"); ok {
				d, file = c.Coverage(name).Delta, inCoverage
			}
			_ = d.Examine(ctx, file)
		}
	}
}

// Datasets lists the names of the folders that lie among the datasets, in order.
// Not every folder need hold a table.
func (c *Catalog) Datasets(ctx context.Context) ([]string, error) {
	var out []string
	for info, err := range c.store.List(ctx, dataArea, store.ListOptions{Delimiter: true}) {
		if err != nil {
			return nil, err
		}
		name, isFolder := strings.CutSuffix(strings.TrimPrefix(string(info.Name), dataArea), "/")
		if isFolder && CheckDataset(name) == nil {
			out = append(out, name)
		}
	}
	return out, nil
}

// CompleteUntil is the time until which a dataset is complete: the smallest
// "…/complete_until" entry of its table, false while one of the hub's partitions
// has none. Partitions that only a former hub had don't count. The time is never after
// now, even if a wrong clock or an upload once said so, because rows of the future are
// still expected.
func CompleteUntil(snap *table.Snapshot, now time.Time) (fleetscore.Micros, bool) {
	var least int64
	have, want := 0, int64(0)
	for id, v := range snap.Txns {
		if strings.HasSuffix(id, "/partitions") {
			want = max(want, v)
		}
	}
	for id, v := range snap.Txns {
		of, ok := strings.CutSuffix(id, "/complete_until")
		if !ok {
			continue
		}
		if at := strings.LastIndex(of, "/p"); at >= 0 && want > 0 {
			if partition, err := strconv.ParseInt(of[at+2:], 10, 64); err == nil && partition >= want {
				continue
			}
		}
		if have == 0 || v < least {
			least = v
		}
		have++
	}
	return min(fleetscore.Micros(least), fleetscore.MicrosOf(now)), have > 0 && int64(have) >= want
}
