// Package files reads rows out of the files that people have: paths, patterns,
// folders, stores and standard input; compressed or not; CSV with any separator,
// JSON lines, Parquet and Arrow; folders named by a column, as Hive names them; and Delta
// tables of any writer.
//
// It finds the files and opens them; what their bytes mean is package table's
// business. It writes nothing and starts no goroutine that outlives a call.
package files

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/table/ipc"
)

// Stdin is the path that means standard input.
const Stdin = "-"

const (
	opRead    = "read"
	logFolder = "_delta_log"
	supported = ".csv, .tsv, .ndjson, .jsonl, .parquet or .arrow, also with .gz or .zst behind it"
)

// Read reads the rows of all paths, in their order. A path is a file, a folder (its
// files and those of its folders in order of their names, except those that start
// with "." or "_"), a pattern with * ? [ ], a Delta table, a store's URL, or Stdin, which is read from in.
//
// With an error that malformed rows are to blame for comes an Input that names
// them; its rows mean nothing.
func Read(ctx context.Context, paths []string, in io.Reader, schema table.Schema, opt table.ReadOptions) (*table.Input, error) {
	r := &reader{stdin: in, opt: opt, progress: opt}
	r.opt.Progress = nil // bytes are counted as they lie in the files
	for _, p := range paths {
		if err := r.add(ctx, p, schema); err != nil {
			return nil, err
		}
	}
	if len(r.tables) == 0 {
		return table.ReadSources(ctx, r.sources, schema, r.opt)
	}
	if len(paths) > 1 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, opRead, paths[0], "a table that Fleetscore wrote is read by itself").
			WithHint("name that table alone")
	}
	return readOwn(ctx, paths[0], r.tables[0], schema, opt)
}

// Size is how many bytes Read would read, for progress; 0 if that isn't easily known.
func Size(paths []string) (total int64) {
	for _, p := range paths {
		found, err := expand(p)
		if err != nil || strings.Contains(p, "://") || p == Stdin {
			return 0
		}
		for _, f := range found {
			err := filepath.WalkDir(f, func(name string, e fs.DirEntry, err error) error {
				if err != nil || e.IsDir() {
					return err
				}
				if _, known := formatOf(name); known || name == f {
					st, err := os.Stat(name)
					if err != nil {
						return err
					}
					total += st.Size()
				}
				return nil
			})
			if err != nil {
				return 0
			}
		}
	}
	return total
}

// reader gathers what is to be read.
type reader struct {
	stdin    io.Reader
	opt      table.ReadOptions
	progress table.ReadOptions // with the counter of bytes
	sources  []table.Source
	tables   []store.Bucket // Delta tables of Fleetscore's own
}

func (r *reader) add(ctx context.Context, path string, schema table.Schema) error {
	switch {
	case path == Stdin:
		if r.stdin == nil {
			return fleetscore.Errorf(fleetscore.Invalid, opRead, path, "standard input can't be read here")
		}
		return r.file(ctx, opened{name: "standard input", open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(r.stdin), nil }}, true)
	case strings.Contains(path, "://"):
		return r.url(ctx, path, schema)
	}
	found, err := expand(path)
	if err != nil {
		return err
	}
	for _, p := range found {
		st, err := os.Stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fleetscore.Errorf(fleetscore.NotFound, opRead, p, "there is no such file or folder").WithHint("check the path of the data")
		case err != nil:
			return fleetscore.Wrap(opRead, p, err)
		case !st.IsDir():
			err = r.file(ctx, local(p, st.Size()), true)
		default:
			err = r.folder(ctx, p, schema)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// expand finds the files that match a pattern, in order. A file whose name is exactly the
// pattern takes precedence.
func expand(path string) ([]string, error) {
	if !strings.ContainsAny(path, "*?[") {
		return []string{path}, nil
	}
	if _, err := os.Lstat(path); err == nil {
		return []string{path}, nil
	}
	found, err := filepath.Glob(path)
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, opRead, path, "%w", err).WithHint("a pattern has * ? and [a-z]")
	}
	if len(found) == 0 {
		return nil, fleetscore.Errorf(fleetscore.NotFound, opRead, path, "no file or folder fits the pattern")
	}
	slices.Sort(found)
	return found, nil
}

// opened is a file before its content is known.
type opened struct {
	name string
	size int64
	open func(context.Context) (io.ReadCloser, error)
}

func local(path string, size int64) opened {
	return opened{path, size, func(context.Context) (io.ReadCloser, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, fleetscore.Errorf(fleetscore.Unavailable, opRead, path, "%w", err)
		}
		return f, nil
	}}
}

func blob(b store.Bucket, i store.Info) opened {
	return opened{string(i.Name), i.SizeBytes, func(ctx context.Context) (io.ReadCloser, error) { return b.Get(ctx, i.Name, 0, -1) }}
}

// file adds a file. If the user named this very file, its content shows the format where
// its name doesn't.
func (r *reader) file(ctx context.Context, f opened, named bool) error {
	s := table.Source{Name: f.name, Constants: constantsOf(f.name)}
	format, known := formatOf(f.name)
	if !known && !named {
		return nil
	}
	content := &content{file: f, progress: r.progress.Progress}
	if !known {
		var err error
		if format, err = content.look(ctx); err != nil {
			return err
		}
	}
	s.Format, s.Open, s.Rows = format, content.reader, ipc.Read
	if !content.compressedName() {
		s.SizeBytes = f.size
	}
	r.sources = append(r.sources, s)
	return nil
}

func hidden(name string) bool { return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") }

func (r *reader) folder(ctx context.Context, folder string, schema table.Schema) error {
	if _, err := os.Stat(filepath.Join(folder, logFolder)); err == nil {
		b, err := store.OpenFolder(folder)
		if err != nil {
			return err
		}
		return r.delta(ctx, folder, b, schema)
	}
	var found []opened
	err := filepath.WalkDir(folder, func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p != folder && e.IsDir() && hidden(e.Name()):
			return fs.SkipDir
		case !e.IsDir() && !hidden(e.Name()):
			st, err := os.Stat(p) // what a link points to
			if err != nil {
				return err
			}
			found = append(found, local(p, st.Size()))
		}
		return nil
	})
	if err != nil {
		return fleetscore.Wrap(opRead, folder, err)
	}
	return r.all(ctx, folder, found)
}

// all adds the files of a folder whose names say what they hold.
func (r *reader) all(ctx context.Context, folder string, found []opened) error {
	slices.SortFunc(found, func(a, b opened) int { return strings.Compare(a.name, b.name) })
	before := len(r.sources)
	for _, f := range found {
		if err := r.file(ctx, f, false); err != nil {
			return err
		}
	}
	if len(r.sources) > before {
		return nil
	}
	return fleetscore.Errorf(fleetscore.NotFound, opRead, folder, "the folder holds no data").
		WithHint("files that end in %s are read, or a Delta table; a file with another name can be named by itself", supported)
}

// url adds a file or a folder of a store.
func (r *reader) url(ctx context.Context, address string, schema table.Schema) error {
	folder, file := address, ""
	base, query, _ := strings.Cut(address, "?")
	if _, known := formatOf(base); known {
		at := strings.LastIndexByte(base, '/')
		folder, file = base[:at+1], base[at+1:]
		if query != "" {
			folder += "?" + query
		}
	}
	b, err := store.Open(ctx, folder)
	if err != nil {
		return err
	}
	if file != "" {
		i, err := b.Stat(ctx, fleetscore.BlobName(file))
		if err != nil {
			return err
		}
		return r.file(ctx, blob(b, i), true)
	}
	for _, err := range b.List(ctx, logFolder+"/", store.ListOptions{}) {
		if err != nil {
			return err
		}
		return r.delta(ctx, address, b, schema)
	}
	var found []opened
	for i, err := range b.List(ctx, "", store.ListOptions{}) {
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(strings.Split(string(i.Name), "/"), hidden) {
			found = append(found, blob(b, i))
		}
	}
	return r.all(ctx, address, found)
}

// hiveNull is the value of a folder's column that is missing.
const hiveNull = "__HIVE_DEFAULT_PARTITION__"

// constantsOf are the columns that the folders of a path give: date=2026-11-25/.
func constantsOf(name string) []table.Constant {
	var out []table.Constant
	parts := strings.Split(filepath.ToSlash(name), "/")
	for _, part := range parts[:len(parts)-1] {
		column, value, ok := strings.Cut(part, "=")
		if !ok || column == "" {
			continue
		}
		if text, err := url.PathUnescape(value); err == nil {
			value = text
		}
		out = append(out, table.NewConstant(column, value, value == hiveNull))
	}
	return out
}
