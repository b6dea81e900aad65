package table

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// ReadPath reads rows from a file or folder of this machine, or of a store at a
// URL that store.Open knows. The name's ending says how a file is read: .csv,
// .ndjson or .jsonl, .parquet. A folder is a Delta table, or its files (and those
// of its folders) in order of their names, except those that start with "." or
// "_". The first file decides which value columns there are, where none are named.
//
// With an error that malformed rows are to blame for comes an Input that names
// them; its rows mean nothing.
func ReadPath(ctx context.Context, path string, schema Schema, opt ReadOptions) (*Input, error) {
	if strings.Contains(path, "://") {
		return readURL(ctx, path, schema, opt)
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fleetscore.Errorf(fleetscore.NotFound, "read", path, "there is no such file or folder").WithHint("check the path of the data")
	case err != nil:
		return nil, fleetscore.Wrap("read", path, err)
	case !st.IsDir():
		return readSources(ctx, []source{localFile(path, st.Size())}, schema, opt)
	}
	if _, err := os.Stat(filepath.Join(path, logFolder)); err == nil {
		b, err := store.OpenDir(path)
		if err != nil {
			return nil, err
		}
		return readDeltaFolder(ctx, path, b, schema, opt)
	}
	files, err := localFiles(path)
	if err != nil {
		return nil, err
	}
	return readSources(ctx, files, schema, opt)
}

// SizeOf is how many bytes ReadPath would read, for progress; 0 if that isn't
// easily known.
func SizeOf(path string) (total int64) {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	if !st.IsDir() {
		return st.Size()
	}
	files, err := localFiles(path)
	if err != nil {
		return 0
	}
	for _, f := range files {
		total += f.size
	}
	return total
}

const logFolder = "_delta_log"

func localFile(path string, size int64) source {
	return source{name: path, size: size, open: func(context.Context) (io.ReadCloser, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, fleetscore.Errorf(fleetscore.Unavailable, "read", path, "%w", err)
		}
		return f, nil
	}}
}

func localFiles(folder string) ([]source, error) {
	var out []source
	err := filepath.WalkDir(folder, func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p != folder && e.IsDir() && hidden(e.Name()):
			return fs.SkipDir
		case !e.IsDir() && !hidden(e.Name()) && readable(p):
			st, err := os.Stat(p) // what a link points to
			if err != nil {
				return err
			}
			out = append(out, localFile(p, st.Size()))
		}
		return nil
	})
	if err != nil {
		return nil, fleetscore.Wrap("read", folder, err)
	}
	slices.SortFunc(out, func(a, b source) int { return strings.Compare(a.name, b.name) })
	return out, noData(out, folder)
}

func hidden(name string) bool { return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") }

func noData(files []source, folder string) error {
	if len(files) > 0 {
		return nil
	}
	return fleetscore.Errorf(fleetscore.NotFound, "read", folder, "the folder holds no data").
		WithHint("files that end in %s are read, or a Delta table", supported)
}

// readURL reads a file or a folder of a store.
func readURL(ctx context.Context, url string, schema Schema, opt ReadOptions) (*Input, error) {
	folder, file := url, ""
	base, query, _ := strings.Cut(url, "?")
	if readable(base) {
		at := strings.LastIndexByte(base, '/')
		folder, file = base[:at+1], base[at+1:]
		if query != "" {
			folder += "?" + query
		}
	}
	b, err := store.Open(ctx, folder)
	if err != nil {
		return nil, err
	}
	blob := func(i store.Info) source {
		return source{name: string(i.Name), size: i.SizeBytes, open: func(ctx context.Context) (io.ReadCloser, error) { return b.Get(ctx, i.Name, 0, -1) }}
	}
	if file != "" {
		i, err := b.Stat(ctx, fleetscore.BlobName(file))
		if err != nil {
			return nil, err
		}
		return readSources(ctx, []source{blob(i)}, schema, opt)
	}
	for _, err := range b.List(ctx, logFolder+"/", store.ListOptions{}) {
		if err != nil {
			return nil, err
		}
		return readDeltaFolder(ctx, url, b, schema, opt)
	}
	var files []source
	for i, err := range b.List(ctx, "", store.ListOptions{}) {
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(strings.Split(string(i.Name), "/"), hidden) && readable(string(i.Name)) {
			files = append(files, blob(i))
		}
	}
	if err := noData(files, url); err != nil {
		return nil, err
	}
	return readSources(ctx, files, schema, opt)
}

const (
	supported = ".csv, .ndjson, .jsonl or .parquet"
	parquets  = ".parquet"
)

var lineFormats = map[string]func(string, *Schema) lineFormat{".csv": newCSV, ".ndjson": newNDJSON, ".jsonl": newNDJSON}

func ending(name string) string { return strings.ToLower(filepath.Ext(name)) }

func readable(name string) bool { return ending(name) == parquets || lineFormats[ending(name)] != nil }

func newLines(name string, s *Schema) lineFormat { return lineFormats[ending(name)](name, s) }

// readSources reads files: neighbouring ones of lines together, those of Parquet
// one by one.
func readSources(ctx context.Context, files []source, schema Schema, opt ReadOptions) (*Input, error) {
	var out *Input
	for len(files) > 0 {
		n := 0
		for n < len(files) && ending(files[n].name) != parquets {
			if !readable(files[n].name) {
				return nil, fleetscore.Errorf(fleetscore.Invalid, "read", files[n].name, "its name doesn't say what it holds").
					WithHint("rename it to end in %s", supported)
			}
			n++
		}
		var in *Input
		var err error
		if n > 0 {
			in, err = readLines(ctx, files[:n], schema, opt, newLines)
		} else {
			n = 1
			in, err = readParquetSource(ctx, files[0], schema, opt)
		}
		if err != nil {
			return in, err
		}
		files = files[n:]
		if out == nil {
			out, schema.Values = in, in.Rows.ValueNames
			continue
		}
		appendRows(out.Rows, in.Rows)
		out.Layout = out.Layout.merge(in.Layout)
		out.Records, out.Rejected, out.Rejects = out.Records+in.Records, out.Rejected+in.Rejected, append(out.Rejects, in.Rejects...)
	}
	return out, nil
}

func readParquetSource(ctx context.Context, s source, schema Schema, opt ReadOptions) (*Input, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fleetscore.Wrap("read", s.name, err)
	}
	if opt.Progress != nil {
		opt.Progress.Add(int64(len(data)))
	}
	return ReadParquet(s.name, data, schema, opt)
}

func readDeltaFolder(ctx context.Context, path string, b store.Bucket, schema Schema, opt ReadOptions) (*Input, error) {
	if err := schema.validate(); err != nil {
		return nil, err
	}
	d := OpenDelta(b)
	snap, err := d.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	have := snap.Schema.Values()
	for _, v := range schema.Values {
		if !slices.Contains(have, v) {
			return nil, missingColumn(path, v, have)
		}
	}
	if snap.Schema.Time != schema.Time || !slices.Equal(snap.Schema.Key, schema.Key) {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "read", path, "the table's time is %s and its key %s", snap.Schema.Time, strings.Join(snap.Schema.Key, ", ")).
			WithHint("name the same columns")
	}
	rows, err := d.ReadRows(ctx, snap.Files, ReadQuery{Interval: opt.Interval, Values: schema.Values})
	if err != nil {
		return nil, err
	}
	return &Input{Rows: rows, Layout: RFC3339, Records: int64(rows.Len())}, nil
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
			index[k] = p
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
