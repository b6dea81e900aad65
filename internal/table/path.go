package table

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// ReadPath reads rows from a file or folder of this machine. The name's ending
// says how a file is read: .csv, .ndjson or .jsonl, .parquet. A folder is a Delta
// table, or its files (and those of its folders) in order of their names, except
// those that start with "." or "_". The layout is the first file's.
func ReadPath(ctx context.Context, path string, schema Schema, opt ReadOptions) (*fleetscore.Rows, Layout, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, RFC3339, fleetscore.Errorf(fleetscore.NotFound, "read", path, "there is no such file or folder").WithHint("check the path of the data")
	}
	if err != nil {
		return nil, RFC3339, fleetscore.Wrap("read", path, err)
	}
	if !st.IsDir() {
		return readFile(ctx, path, schema, opt)
	}
	if _, err := os.Stat(filepath.Join(path, "_delta_log")); err == nil {
		return readDeltaFolder(ctx, path, schema, opt)
	}
	files, err := dataFiles(path)
	if err != nil {
		return nil, RFC3339, err
	}
	var out *fleetscore.Rows
	layout := RFC3339
	for _, f := range files {
		rows, l, err := readFile(ctx, f, schema, opt)
		if err != nil {
			return nil, layout, err
		}
		if out == nil {
			out, layout = rows, l
			schema.Values = rows.ValueNames // the first file decides which columns there are
			continue
		}
		appendRows(out, rows)
		layout = layout.merge(l)
	}
	return out, layout, nil
}

func dataFiles(folder string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(folder, func(p string, e fs.DirEntry, err error) error {
		hidden := p != folder && (strings.HasPrefix(e.Name(), ".") || strings.HasPrefix(e.Name(), "_"))
		switch {
		case err != nil:
			return err
		case hidden && e.IsDir():
			return fs.SkipDir
		case !hidden && !e.IsDir() && readers[strings.ToLower(filepath.Ext(p))] != nil:
			out = append(out, p)
		}
		return nil
	})
	if err != nil {
		return nil, fleetscore.Wrap("read", folder, err)
	}
	if len(out) == 0 {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "read", folder, "the folder holds no data").
			WithHint("files that end in %s are read, or a Delta table", supported())
	}
	slices.Sort(out)
	return out, nil
}

type reader func(ctx context.Context, name string, data []byte, s Schema, opt ReadOptions) (*fleetscore.Rows, Layout, error)

var readers = map[string]reader{
	".csv": parseCSV, ".ndjson": parseNDJSON, ".jsonl": parseNDJSON,
	".parquet": func(_ context.Context, name string, data []byte, s Schema, opt ReadOptions) (*fleetscore.Rows, Layout, error) {
		return ReadParquet(name, data, s, opt)
	},
}

func supported() string { return ".csv, .ndjson, .jsonl or .parquet" }

func readFile(ctx context.Context, path string, schema Schema, opt ReadOptions) (*fleetscore.Rows, Layout, error) {
	read := readers[strings.ToLower(filepath.Ext(path))]
	if read == nil {
		return nil, RFC3339, fleetscore.Errorf(fleetscore.Invalid, "read", path, "its name doesn't say what it holds").
			WithHint("rename it to end in %s", supported())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, RFC3339, fleetscore.Errorf(fleetscore.Unavailable, "read", path, "%w", err)
	}
	return read(ctx, path, data, schema, opt)
}

func readDeltaFolder(ctx context.Context, path string, schema Schema, opt ReadOptions) (*fleetscore.Rows, Layout, error) {
	if err := schema.validate(); err != nil {
		return nil, RFC3339, err
	}
	b, err := store.OpenDir(path)
	if err != nil {
		return nil, RFC3339, err
	}
	d := OpenDelta(b)
	snap, err := d.Snapshot(ctx)
	if err != nil {
		return nil, RFC3339, err
	}
	have := snap.Schema.Values()
	for _, v := range schema.Values {
		if !slices.Contains(have, v) {
			return nil, RFC3339, missingColumn(path, v, have)
		}
	}
	if snap.Schema.Time != schema.Time || !slices.Equal(snap.Schema.Key, schema.Key) {
		return nil, RFC3339, fleetscore.Errorf(fleetscore.Invalid, "read", path, "the table's time is %s and its key %s", snap.Schema.Time, strings.Join(snap.Schema.Key, ", ")).
			WithHint("name the same columns")
	}
	rows, err := d.ReadRows(ctx, snap.Files, ReadQuery{Interval: opt.Interval, Values: schema.Values})
	return rows, RFC3339, err
}

// appendRows adds the rows of b, which has the same columns, to a.
func appendRows(a, b *fleetscore.Rows) {
	index := make(map[fleetscore.Key]uint32, len(a.Keys))
	for i, k := range a.Keys {
		index[k] = uint32(i)
	}
	place := make([]uint32, len(b.Keys))
	for i, k := range b.Keys {
		p, ok := index[k]
		if !ok {
			p = uint32(len(a.Keys))
			a.Keys = append(a.Keys, k)
		}
		place[i] = p
	}
	for _, k := range b.KeyIndex {
		a.KeyIndex = append(a.KeyIndex, place[k])
	}
	a.Times = append(a.Times, b.Times...)
	for c := range a.Values {
		a.Values[c] = append(a.Values[c], b.Values[c]...)
	}
}
