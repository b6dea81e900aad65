// Package export writes the rows of a dataset as plain CSV or Parquet files under paths with
// tokens, for programs that read no tables.
//
// A file is a function of the dataset: it is written once the dataset is complete for the file's
// hour or day, whole, and again when rows of it were revised. So whatever ends the process, no row is
// missing or twice. What was written is remembered by the table's files of each hour or day.
//
// An Export belongs to one goroutine.
package export

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

const (
	every    = 5 * time.Second // how often the dataset is looked at
	maxRows  = 8 << 20         // of an hour or day, which are held in memory
	maxUnits = 4000            // hours or days that are remembered: older ones aren't written again
)

// Deps is what an Export works with.
type Deps struct {
	Catalog *catalog.Catalog
	Log     *slog.Logger
	Health  *obs.Health      // nil discards
	Now     func() time.Time // the trusted time
}

// Export writes the files of one dataset.
type Export struct {
	dataset string
	pattern *Pattern
	path    string // of the configuration
	key     []string
	deps    Deps
	state   *state // nil before it was read
}

// state is what was written.
type state struct {
	Path  string            `json:"path"`  // of the configuration; another one begins anew
	Units map[string]string `json:"units"` // by the beginning of the hour or day: of which files of the table
}

// New makes the export of a dataset. Nothing is read.
func New(dataset, path string, key []string, deps Deps) (*Export, error) {
	p, err := Parse(path, key)
	if err != nil {
		return nil, err
	}
	return &Export{dataset: dataset, pattern: p, path: path, key: key, deps: deps}, nil
}

// Run writes files until ctx ends. Problems are shown in the health.
func (e *Export) Run(ctx context.Context) error {
	part := "files of dataset " + e.dataset
	defer e.deps.Health.Report(part, "")
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		err := e.Round(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		why := ""
		if err != nil {
			why = err.Error()
			e.state = nil
		}
		e.deps.Health.Report(part, why)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (e *Export) stateName() fleetscore.BlobName {
	return fleetscore.BlobName(Folder + "_state/" + e.dataset + ".json")
}

// Round writes what is complete and not written yet, or was revised.
func (e *Export) Round(ctx context.Context) error {
	b := e.deps.Catalog.Store()
	if e.state == nil {
		s := &state{}
		data, err := store.ReadAll(ctx, b, e.stateName())
		if err == nil {
			err = json.Unmarshal(data, s)
		}
		if err != nil && !fleetscore.NotFound.Is(err) {
			return fleetscore.Wrap("read", string(e.stateName()), err)
		}
		if s.Path != e.path || s.Units == nil {
			s = &state{Path: e.path, Units: map[string]string{}}
		}
		e.state = s
	}
	d := e.deps.Catalog.Dataset(e.dataset)
	snap, err := d.Snapshot(ctx)
	if fleetscore.NotFound.Is(err) {
		return nil
	} else if err != nil {
		return err
	}
	if !slices.Equal(snap.Schema.Key, e.key) {
		return fleetscore.Errorf(fleetscore.Conflict, "write files of dataset", e.dataset, "its key columns are %q, those of its query, or of the hub, are %q", snap.Schema.Key, e.key).
			WithHint("take files out of datasets.%s", e.dataset)
	}
	until, ok := catalog.CompleteUntil(snap, e.deps.Now())
	if !ok {
		return nil
	}
	units := map[string][]fleetscore.DataFile{}
	for _, f := range snap.Files {
		at := f.Date
		if e.pattern.Unit == time.Hour {
			at = fmt.Sprintf("%sT%02d", f.Date, f.Hour)
		}
		units[at] = append(units[at], f)
	}
	order := slices.Sorted(maps.Keys(units))
	for _, at := range order[max(0, len(order)-maxUnits):] {
		begin, err := time.Parse("2006-01-02T15"[:len(at)], at)
		if err != nil {
			return err
		}
		files := units[at]
		sign := signature(files)
		if e.state.Units[at] == sign || fleetscore.MicrosOf(begin.Add(e.pattern.Unit)) > until {
			continue
		}
		if err := e.write(ctx, d, at, files, at > order[0]); err != nil {
			return err
		}
		e.state.Units[at] = sign
		if err := e.keep(ctx, b); err != nil {
			return err
		}
	}
	for _, at := range slices.Sorted(maps.Keys(e.state.Units)) {
		if units[at] != nil || len(order) == 0 || at < order[0] { // older ones may have expired, and their files stay
			continue
		}
		if err := e.prune(ctx, at, nil); err != nil {
			return err
		}
		delete(e.state.Units, at)
		if err := e.keep(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// prune removes those files of an hour or day that were written before and have no rows any more, and
// remembers which have; they are sorted.
func (e *Export) prune(ctx context.Context, at string, now []fleetscore.BlobName) error {
	b, list := e.deps.Catalog.Store(), fleetscore.BlobName(Folder+"_state/"+e.dataset+"/"+at+".json")
	var before []fleetscore.BlobName
	data, err := store.ReadAll(ctx, b, list)
	if err == nil {
		err = json.Unmarshal(data, &before)
	}
	if err != nil && !fleetscore.NotFound.Is(err) {
		return fleetscore.Wrap("read", string(list), err)
	}
	for _, name := range before {
		if _, has := slices.BinarySearch(now, name); has {
			continue
		}
		if err := b.Delete(ctx, name); err != nil && !fleetscore.NotFound.Is(err) {
			return err
		}
		e.deps.Log.Info("a file of a dataset was removed, because its rows were", "dataset", e.dataset, "file", string(name))
	}
	if slices.Equal(before, now) {
		return nil
	}
	if data, err = json.Marshal(now); err != nil {
		return err
	}
	return store.WriteAll(ctx, b, list, data, store.PutOptions{})
}

// keep stores what was written.
func (e *Export) keep(ctx context.Context, b store.Bucket) error {
	all := slices.Sorted(maps.Keys(e.state.Units))
	for _, old := range all[:max(0, len(all)-2*maxUnits)] { // twice as many, so that none that is looked at is forgotten
		delete(e.state.Units, old)
	}
	data, err := json.Marshal(e.state)
	if err != nil {
		return err
	}
	return store.WriteAll(ctx, b, e.stateName(), data, store.PutOptions{})
}

// signature is the same for the same files.
func signature(files []fleetscore.DataFile) string {
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Path
	}
	slices.Sort(names)
	h := fnv.New64a()
	fmt.Fprintf(h, "%q", names)
	return fmt.Sprintf("%016x", h.Sum64())
}

// write writes the files of an hour or day. whole says that none of its rows has expired.
func (e *Export) write(ctx context.Context, d *table.Delta, at string, files []fleetscore.DataFile, whole bool) error {
	n := int64(0)
	for _, f := range files {
		n += f.Rows
	}
	if n > maxRows {
		return fleetscore.Errorf(fleetscore.Exhausted, "write files of dataset", e.dataset, "%s has %d rows, more than the %d that are written at once", at, n, maxRows).
			WithHint("write {time} or {datetime:HH} in datasets.%s.files, or read the dataset's table", e.dataset)
	}
	rows, err := d.ReadRows(ctx, files, table.ReadQuery{})
	if err != nil {
		return err
	}
	keys := make([][]string, len(rows.Keys))
	for i, k := range rows.Keys {
		keys[i] = k.Values()
	}
	by := map[fleetscore.BlobName][]int{}
	for i, t := range rows.Times {
		name := e.pattern.name(t, keys[rows.KeyIndex[i]])
		by[name] = append(by[name], i)
	}
	for _, name := range slices.Sorted(maps.Keys(by)) {
		order := by[name]
		slices.SortStableFunc(order, func(x, y int) int {
			return cmp.Or(cmp.Compare(rows.Times[x], rows.Times[y]), cmp.Compare(rows.Keys[rows.KeyIndex[x]], rows.Keys[rows.KeyIndex[y]]))
		})
		write := table.WriteRowsCSV
		if e.pattern.Parquet {
			write = table.WriteRowsParquet
		}
		var b bytes.Buffer
		if err := write(&b, rows.Pick(order)); err != nil {
			return err
		}
		if err := store.WriteAll(ctx, e.deps.Catalog.Store(), name, b.Bytes(), store.PutOptions{}); err != nil {
			return err
		}
	}
	if whole || e.state.Units[at] == "" {
		if err := e.prune(ctx, at, slices.Sorted(maps.Keys(by))); err != nil {
			return err
		}
	}
	e.deps.Log.Info("files of a dataset were written", "dataset", e.dataset, "time", at, "files", len(by), "rows", rows.Len())
	return nil
}
