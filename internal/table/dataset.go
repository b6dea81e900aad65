package table

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// ReadQuery narrows what is read from a table's files. The zero value reads all.
type ReadQuery struct {
	Interval *fleetscore.Interval   // only rows of this interval
	Shards   *fleetscore.ShardRange // only keys of these shards
	Keys     []fleetscore.Key       // only these keys
	Values   []string               // value columns to return; empty means all
}

func (q ReadQuery) wantsFile(f fleetscore.DataFile) bool {
	if q.Interval != nil && (f.Last <= fleetscore.MicrosOf(q.Interval.From) || f.First > fleetscore.MicrosOf(q.Interval.To)) {
		return false
	}
	if q.Shards != nil && !q.Shards.Overlaps(f.Shards) {
		return false
	}
	return len(q.Keys) == 0 || slices.ContainsFunc(q.Keys, func(k fleetscore.Key) bool { return f.Shards.Contains(k.Shard()) })
}

// Prune returns the files that may hold rows of the query.
func (q ReadQuery) Prune(files []fleetscore.DataFile) []fleetscore.DataFile {
	var out []fleetscore.DataFile
	for _, f := range files {
		if q.wantsFile(f) {
			out = append(out, f)
		}
	}
	return out
}

// select picks the rows of a frame that the query wants, in their order.
func (q ReadQuery) pick(f *frame, s TableSchema) *frame {
	if q.Interval == nil && q.Shards == nil && len(q.Keys) == 0 {
		return f
	}
	keys, index := f.keysOf(s.Key)
	wanted := make([]bool, len(keys))
	all := true
	for i, k := range keys {
		wanted[i] = (q.Shards == nil || q.Shards.Contains(k.Shard())) && (len(q.Keys) == 0 || slices.Contains(q.Keys, k))
		all = all && wanted[i]
	}
	times := f.column(s.Time).longs
	var order []int
	for i, t := range times {
		if wanted[index[i]] && (q.Interval == nil || q.Interval.ContainsMicros(fleetscore.Micros(t))) {
			order = append(order, i)
		}
	}
	if len(order) == len(times) {
		return f
	}
	return f.pick(order)
}

// readFrame reads the wanted columns of all files that the query wants into one
// frame, file after file.
func (d *Delta) readFrame(ctx context.Context, s TableSchema, files []fleetscore.DataFile, want []wanted, q ReadQuery) (*frame, error) {
	out := &frame{columns: make([]column, len(want))}
	for i, w := range want {
		out.columns[i] = column{name: w.name, kind: w.kind}
	}
	for _, file := range q.Prune(files) {
		data, err := store.ReadAll(ctx, d.b, fleetscore.BlobName(file.Path))
		if err != nil {
			return nil, err
		}
		f, err := readParquet(file.Path, data, want)
		if err != nil {
			return nil, err
		}
		f = q.pick(f, s)
		for i := range out.columns {
			out.columns[i].extend(f.columns[i])
		}
	}
	return out, nil
}

// ReadRows reads rows from files of the table. Rows keep the files' order: by
// path, and within a file by key and time.
func (d *Delta) ReadRows(ctx context.Context, files []fleetscore.DataFile, q ReadQuery) (*fleetscore.Rows, error) {
	snap, err := d.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	values := q.Values
	if len(values) == 0 {
		values = snap.Schema.Values()
	}
	f, err := d.readFrame(ctx, snap.Schema, files, snap.Schema.wanted(values), q)
	if err != nil {
		return nil, err
	}
	return f.rows(snap.Schema, values), nil
}

// WriteRows writes rows into files of the table, one per date and hour, sorted by
// key and time. No reader sees them before a commit adds them. The id makes the
// names unique: writing the same rows under the same id again replaces the files.
func (d *Delta) WriteRows(ctx context.Context, rows *fleetscore.Rows, id string) ([]fleetscore.DataFile, error) {
	f := &frame{}
	f.addRows(rows)
	s := DatasetSchema(rows.TimeName, rows.KeyNames, rows.ValueNames)
	return d.writeFrame(ctx, s, f, func(shards fleetscore.ShardRange) string { return shards.String() + "-" + id })
}

// maxFileRows is from how many rows on an hour's rows are spread over several
// files by shard range, up to fileRanges of them: a task then reads its own
// shards' files, and no others.
const (
	maxFileRows = 512 << 10
	fileRanges  = 16
)

// writeFrame writes a frame's parts; name gives a file's name without extension.
func (d *Delta) writeFrame(ctx context.Context, s TableSchema, f *frame, name func(fleetscore.ShardRange) string) ([]fleetscore.DataFile, error) {
	parts, keys, keyIndex := f.parts(s)
	shards := make([]fleetscore.Shard, len(keys))
	for i, k := range keys {
		shards[i] = k.Shard()
	}
	var split []part
	for _, p := range parts {
		n := 1
		for n < fileRanges && len(p.order) > n*maxFileRows {
			n *= 2
		}
		split = append(split, p.split(n, func(row int) fleetscore.Shard { return shards[keyIndex[row]] })...)
	}
	times := f.column(s.Time).longs
	out := make([]fleetscore.DataFile, len(split))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, p := range split {
		group.Go(func() error {
			file := fleetscore.DataFile{Rows: int64(len(p.order)), Date: p.date, Hour: p.hour,
				First: fleetscore.Micros(times[p.order[0]]), Last: fleetscore.Micros(times[p.order[0]])}
			first := shards[keyIndex[p.order[0]]]
			file.Shards = fleetscore.ShardRange{First: first, Last: first}
			for _, row := range p.order {
				t, sh := fleetscore.Micros(times[row]), shards[keyIndex[row]]
				file.First, file.Last = min(file.First, t), max(file.Last, t)
				file.Shards.First, file.Shards.Last = min(file.Shards.First, sh), max(file.Shards.Last, sh)
			}
			file.Path = fmt.Sprintf("date=%s/hour=%02d/%s.parquet", p.date, p.hour, name(file.Shards))
			var b bytes.Buffer
			if err := writeParquet(&b, f.pick(p.order)); err != nil {
				return fleetscore.Wrap("write", file.Path, err)
			}
			file.SizeBytes = int64(b.Len())
			out[i] = file
			_, err := d.b.Put(ctx, fleetscore.BlobName(file.Path), &b, store.PutOptions{})
			return err
		})
	}
	return out, group.Wait()
}
