package files

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/table/foreign"
)

// ownSetting is what tables have that Fleetscore wrote.
const ownSetting = "fleetscore.time"

// delta adds the files of a Delta table.
func (r *reader) delta(ctx context.Context, path string, b store.Bucket, schema table.Schema) error {
	t, err := foreign.Open(ctx, b)
	if err != nil {
		return inTable(path, err)
	}
	if t.Settings[ownSetting] != "" {
		r.tables = append(r.tables, b)
		return nil
	}
	columns := make(map[string]table.DeltaColumn, len(t.Columns))
	var names []string
	for _, c := range t.Columns {
		names = append(names, c.Name)
		if !slices.Contains(t.Partition, c.Name) {
			columns[c.Name] = table.DeltaColumn{Physical: c.Physical, ID: c.ID}
		}
	}
	for _, c := range slices.Concat([]string{schema.Time}, schema.Key, schema.Values) {
		if !slices.Contains(names, c) {
			return table.MissingColumn(path, c, names)
		}
	}
	for i := range t.Files {
		f := &t.Files[i]
		if r.outside(t, f, schema.Time) {
			continue
		}
		deleted, err := f.Deleted(ctx, b)
		if err != nil {
			return inTable(path, err)
		}
		s := table.Source{Name: strings.TrimSuffix(path, "/") + "/" + string(f.Path), Format: table.Parquet, SizeBytes: f.SizeBytes,
			Delta: &table.DeltaFile{Columns: columns, Deleted: deleted}}
		for _, p := range t.Partition {
			if v := f.Partition[p]; v == nil {
				s.Constants = append(s.Constants, table.NewConstant(p, "", true))
			} else {
				s.Constants = append(s.Constants, table.NewConstant(p, *v, false))
			}
		}
		name := f.Path
		s.Open = func(ctx context.Context) (io.ReadCloser, error) {
			rc, err := b.Get(ctx, name, 0, -1)
			if fleetscore.NotFound.Is(err) {
				return nil, fleetscore.Errorf(fleetscore.Corrupt, opRead, path, "the table's file %s is missing", name)
			}
			return readCounting(rc, r.progress.Progress), err
		}
		r.sources = append(r.sources, s)
	}
	return nil
}

// cutTimes is by how much statistics may cut times.
const cutTimes = time.Millisecond

// outside tells whether a file holds no row of the interval that is wanted, as far as
// the table's log says: by the value of a partition column, or else by statistics.
func (r *reader) outside(t *foreign.Table, f *foreign.File, timeColumn string) bool {
	if v, ok := f.Partition[timeColumn]; ok {
		return v != nil && r.opt.Outside(*v, *v, 0)
	}
	i := slices.IndexFunc(t.Columns, func(c foreign.Column) bool { return c.Name == timeColumn })
	if i < 0 || r.opt.Interval == nil {
		return false
	}
	switch t.Columns[i].Type {
	case "timestamp", "timestamp_ntz", "date", "long", "integer", "short":
		least, largest, ok := f.Bounds(t.Columns[i])
		return ok && r.opt.Outside(bare(least), bare(largest), cutTimes)
	}
	return false // the order of texts isn't that of the times they stand for
}

// bare is a text or number of JSON without quotes; times have nothing that JSON escapes.
func bare(value []byte) string { return strings.Trim(string(value), `"`) }

// inTable says in which table an error is.
func inTable(path string, err error) error { return fleetscore.Wrap(opRead, path, err) }

// readOwn reads a table that Fleetscore wrote: of several rows with the same key and
// time the last.
func readOwn(ctx context.Context, path string, b store.Bucket, schema table.Schema, opt table.ReadOptions) (*table.Input, error) {
	d := table.OpenDelta(b)
	snap, err := d.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	have := snap.Schema.Values()
	for _, v := range schema.Values {
		if !slices.Contains(have, v) {
			return nil, table.MissingColumn(path, v, have)
		}
	}
	if snap.Schema.Time != schema.Time || !slices.Equal(snap.Schema.Key, schema.Key) {
		return nil, fleetscore.Errorf(fleetscore.Invalid, opRead, path, "the table's time is %s and its key %s", snap.Schema.Time, strings.Join(snap.Schema.Key, ", ")).
			WithHint("name the same columns")
	}
	rows, err := d.ReadRows(ctx, snap.Files, table.ReadQuery{Interval: opt.Interval, Values: schema.Values})
	if err != nil {
		return nil, err
	}
	return &table.Input{Rows: rows, Layout: table.RFC3339, Records: int64(rows.Len())}, nil
}
