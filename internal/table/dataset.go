package table

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
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
	Keys     []fleetscore.Key       // only these keys; empty means all
	Except   []fleetscore.Key       // without these keys
	Values   []string               // value columns to return; empty means all
	Repeated *int64                 // set by ReadRows to how many rows it left out; may be nil
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
func (q ReadQuery) pick(f *Frame, s TableSchema) *Frame {
	if q.Interval == nil && q.Shards == nil && len(q.Keys)+len(q.Except) == 0 {
		return f
	}
	keys, index := f.keysOf(s.Key)
	wanted := make([]bool, len(keys))
	all := true
	only, without := setOf(q.Keys), setOf(q.Except)
	for i, k := range keys {
		wanted[i] = (q.Shards == nil || q.Shards.Contains(k.Shard())) && (len(only) == 0 || only[k]) && !without[k]
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

func setOf(keys []fleetscore.Key) map[fleetscore.Key]bool {
	out := make(map[fleetscore.Key]bool, len(keys))
	for _, k := range keys {
		out[k] = true
	}
	return out
}

// readFrame reads the wanted columns of all files that the query wants into one
// frame, file after file.
func (d *Delta) readFrame(ctx context.Context, s TableSchema, files []fleetscore.DataFile, want []wanted, q ReadQuery) (*Frame, error) {
	out := &Frame{columns: make([]column, len(want))}
	for i, w := range want {
		out.columns[i] = column{name: w.name, kind: w.kind}
	}
	for _, file := range q.Prune(files) {
		f, err := d.readFile(ctx, file, want)
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

// readFile reads the wanted columns of one file, whole. A file that is missing,
// cut or damaged is an error of kind Corrupt, and is reported.
func (d *Delta) readFile(ctx context.Context, file fleetscore.DataFile, want []wanted) (*Frame, error) {
	data, err := store.ReadAll(ctx, d.b, fleetscore.BlobName(file.Path))
	if err != nil && !fleetscore.NotFound.Is(err) {
		return nil, err
	}
	var f *Frame
	switch {
	case err != nil:
		err = errors.New("the file is missing")
	case file.SizeBytes > 0 && int64(len(data)) != file.SizeBytes:
		err = fmt.Errorf("the file has %d bytes, the table's log says %d", len(data), file.SizeBytes)
	default:
		if f, err = readParquet(file.Path, data, want); err == nil && len(want) > 0 && file.Rows > 0 && int64(f.len()) != file.Rows {
			err = fmt.Errorf("the file has %d rows, the table's log says %d", f.len(), file.Rows)
		}
	}
	return f, d.damagedFile(file.Path, err)
}

// ReadRows reads rows from files of the table. Rows keep the files' order: by
// path, and within a file by key and time.
//
// Our own commits leave one row per key and time. Where another program added a
// second one, the last in that order counts and the others are left out.
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
	rows := f.rows(snap.Schema, values)
	keep := lastOfEach(rows.KeyIndex, rows.Times, len(rows.Keys))
	if q.Repeated != nil {
		*q.Repeated = 0
	}
	if keep == nil {
		return rows, nil
	}
	if q.Repeated != nil {
		*q.Repeated = int64(rows.Len() - len(keep))
	}
	return f.pick(keep).rows(snap.Schema, values), nil
}

// lastOfEach returns the rows that count, in order: of several rows with the same key
// and time only the last one does. It is nil if no two rows have the same key and time;
// to find that out is cheap as long as each key's rows are in the order of their times.
func lastOfEach(keyIndex []uint32, times []fleetscore.Micros, keys int) []int {
	last := make([]fleetscore.Micros, keys)
	seen := make([]bool, keys)
	sorted := true
	for i, k := range keyIndex {
		if seen[k] && times[i] <= last[k] {
			sorted = false
			break
		}
		seen[k], last[k] = true, times[i]
	}
	if sorted {
		return nil
	}
	type cell struct {
		key  uint32
		time fleetscore.Micros
	}
	at := make(map[cell]int, len(keyIndex))
	for i, k := range keyIndex {
		at[cell{k, times[i]}] = i
	}
	if len(at) == len(keyIndex) {
		return nil
	}
	return slices.Sorted(maps.Values(at))
}

// WriteRows writes rows into files of the table, one per date and hour, sorted by
// key and time. No reader sees them before a commit adds them. Names begin with the
// rows' shards and the id, and are never used again.
func (d *Delta) WriteRows(ctx context.Context, rows *fleetscore.Rows, id string) ([]fleetscore.DataFile, error) {
	f := &Frame{}
	f.addRows(rows)
	s := DatasetSchema(rows.TimeName, rows.KeyNames, rows.ValueNames)
	id += "-" + newID()[:8]
	return d.writeFrame(ctx, s, f, func(shards fleetscore.ShardRange) string { return shards.String() + "-" + id })
}

// dataPrefix is what the names of all data files begin with.
const dataPrefix = "date="

// maxFileRows is from how many rows on an hour's rows are spread over several
// files by shard range, up to fileRanges of them: a task then reads its own
// shards' files, and no others.
const (
	maxFileRows = 512 << 10
	fileRanges  = 16
)

// writeFrame writes a frame's parts; name gives a file's name without extension.
func (d *Delta) writeFrame(ctx context.Context, s TableSchema, f *Frame, name func(fleetscore.ShardRange) string) ([]fleetscore.DataFile, error) {
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
			file.Path = fmt.Sprintf(dataPrefix+"%s/hour=%02d/%s.parquet", p.date, p.hour, name(file.Shards))
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

// Upserted says what Upsert did.
type Upserted struct {
	Version  int64 // of the table afterwards
	Added    int64 // rows with a key and time that the table didn't have
	Replaced int64 // rows that took the place of another with the same key and time
	Same     int64 // rows that were there already, with the same values
	Repeated int64 // rows of the input that a later one with the same key and time replaced
}

// Upsert makes rows visible in one commit. A row of the table with the same key and time
// as a new row is removed, in whatever file it is, so that each key and time has one
// row. Of several new rows with the same key and time the last one counts. Rows that
// the table already has with the same values change nothing. Only files with a row that
// is removed are written again.
//
// The columns must be those of the table. The commit's other entries come from commit,
// which is called again whenever another writer changed the table first.
func (d *Delta) Upsert(ctx context.Context, rows *fleetscore.Rows, commit func(*Snapshot) (Commit, error)) (Upserted, error) {
	return d.Revise(ctx, rows, nil, commit)
}

// Revise is Upsert with rows that are gone: a row of the table with the same key and time is
// removed, and nothing takes its place. No two rows have the same key and time. nil means that
// none is gone.
func (d *Delta) Revise(ctx context.Context, rows *fleetscore.Rows, gone []bool, commit func(*Snapshot) (Commit, error)) (Upserted, error) {
	var u *upsert
	version, err := d.commit(ctx, func(snap *Snapshot) (Commit, error) {
		if have := DatasetSchema(rows.TimeName, rows.KeyNames, rows.ValueNames); !have.Equal(snap.Schema) {
			return Commit{}, fleetscore.Errorf(fleetscore.Conflict, "write rows", d.opt.Name, "the table has the columns %s, the rows have %s", snap.Schema, have)
		}
		c, err := commit(snap)
		if err != nil {
			return c, err
		}
		u = newUpsert(d, snap, rows)
		u.gone = gone
		if err := u.run(ctx); err != nil {
			return c, err
		}
		c.Add, c.Remove = append(c.Add, u.add...), append(c.Remove, u.remove...)
		return c, nil
	})
	if err != nil {
		return Upserted{}, err
	}
	u.done.Version = version
	return u.done, nil
}

// upsert is one attempt at an Upsert, on a table as it is at one version.
type upsert struct {
	d      *Delta
	snap   *Snapshot
	frame  *Frame // the new rows
	parts  []part // by hour, in each one row per key and time, sorted
	keys   []fleetscore.Key
	index  []uint32 // per row, its key
	times  []int64
	gone   []bool // rows that only remove what they meet; nil: none
	byKey  map[fleetscore.Key]uint32
	id     string
	add    []fleetscore.DataFile
	remove []string
	done   Upserted
}

func newUpsert(d *Delta, snap *Snapshot, rows *fleetscore.Rows) *upsert {
	u := &upsert{d: d, snap: snap, frame: &Frame{}, id: newID()[:13]}
	u.frame.addRows(rows)
	u.times = u.frame.column(snap.Schema.Time).longs
	u.parts, u.keys, u.index = u.frame.parts(snap.Schema)
	u.byKey = make(map[fleetscore.Key]uint32, len(u.keys))
	for i, k := range u.keys {
		u.byKey[k] = uint32(i)
	}
	for i := range u.parts {
		order := u.parts[i].order
		kept := order[:0]
		for _, row := range order { // rows with the same key and time are neighbours, in the order of the input
			if n := len(kept); n > 0 && u.index[kept[n-1]] == u.index[row] && u.times[kept[n-1]] == u.times[row] {
				kept[n-1] = row
				u.done.Repeated++
			} else {
				kept = append(kept, row)
			}
		}
		u.parts[i].order = kept
	}
	return u
}

// run writes the new files. New rows that replace no row of the table are written
// together. Each hour in which rows are replaced is written separately, so that only
// the new rows and one hour are in memory.
func (u *upsert) run(ctx context.Context) error {
	var plain []int
	for _, p := range u.parts {
		fresh, old, err := u.meet(ctx, p)
		if err != nil {
			return err
		}
		if old == nil {
			plain = append(plain, fresh...)
			continue
		}
		merged := u.frame.pick(fresh)
		for i := range old.columns {
			merged.columns[i].extend(old.columns[i])
		}
		if err := u.write(ctx, merged); err != nil {
			return err
		}
	}
	if len(plain) == u.frame.len() {
		return u.write(ctx, u.frame)
	}
	return u.write(ctx, u.frame.pick(plain))
}

func (u *upsert) write(ctx context.Context, f *Frame) error {
	if f.len() == 0 {
		return nil
	}
	files, err := u.d.writeFrame(ctx, u.snap.Schema, f, func(r fleetscore.ShardRange) string {
		return fmt.Sprintf("%s-%s-%d", r, u.id, len(u.add))
	})
	u.add = append(u.add, files...)
	return err
}

// meet compares an hour's new rows with the table's: fresh are those to be written,
// old the rows that stay of the files that are to be written anew.
func (u *upsert) meet(ctx context.Context, p part) (fresh []int, old *Frame, err error) {
	all := u.snap.Schema.all()
	there := make([]bool, len(p.order)) // with the same values
	met := make([]bool, len(p.order))
	for _, file := range u.candidates(p) {
		f, err := u.d.readFile(ctx, file, all)
		if err != nil {
			return nil, nil, err
		}
		var keep []int
		keys, index := f.keysOf(u.snap.Schema.Key)
		times := f.column(u.snap.Schema.Time).longs
		for row := range f.len() {
			at, ok := u.find(p, keys[index[row]], times[row])
			switch {
			case !ok:
				keep = append(keep, row)
			case !u.isGone(p.order[at]) && !there[at] && u.same(p.order[at], f, row):
				there[at] = true
				keep = append(keep, row)
			default:
				met[at] = true
			}
		}
		if len(keep) == f.len() {
			continue
		}
		u.remove = append(u.remove, file.Path)
		f = f.pick(keep)
		if old == nil {
			old = f
			continue
		}
		for i := range old.columns {
			old.columns[i].extend(f.columns[i])
		}
	}
	for at, row := range p.order {
		switch {
		case u.isGone(row):
			continue
		case there[at]:
			u.done.Same++
			continue
		case met[at]:
			u.done.Replaced++
		default:
			u.done.Added++
		}
		fresh = append(fresh, row)
	}
	return fresh, old, nil
}

func (u *upsert) isGone(row int) bool { return u.gone != nil && u.gone[row] }

// candidates are the table's files that may hold a row of the part.
func (u *upsert) candidates(p part) []fleetscore.DataFile {
	first, last := u.times[p.order[0]], u.times[p.order[0]]
	shards := map[fleetscore.Shard]bool{}
	for i, row := range p.order {
		first, last = min(first, u.times[row]), max(last, u.times[row])
		if i == 0 || u.index[row] != u.index[p.order[i-1]] {
			shards[u.keys[u.index[row]].Shard()] = true
		}
	}
	var out []fleetscore.DataFile
	for _, f := range u.snap.Files {
		if f.Date != p.date || f.Hour != p.hour || int64(f.Last) < first || int64(f.First) > last {
			continue
		}
		for s := int(f.Shards.First); s <= int(f.Shards.Last); s++ {
			if shards[fleetscore.Shard(s)] {
				out = append(out, f)
				break
			}
		}
	}
	return out
}

// find is the place in the part of the new row with a key and time.
func (u *upsert) find(p part, key fleetscore.Key, time int64) (at int, ok bool) {
	k, ok := u.byKey[key]
	if !ok {
		return 0, false
	}
	return slices.BinarySearchFunc(p.order, time, func(row int, time int64) int {
		return cmp.Or(cmp.Compare(u.keys[u.index[row]], u.keys[k]), cmp.Compare(u.times[row], time))
	})
}

// same tells whether a new row has the values of an old one, bit by bit.
func (u *upsert) same(row int, f *Frame, old int) bool {
	for _, c := range u.frame.columns {
		if c.kind != kindDouble {
			continue // time and key, which are the same
		}
		a, b := c.doubles[row], f.column(c.name).doubles[old]
		if math.Float64bits(a) != math.Float64bits(b) && (a == a || b == b) {
			return false
		}
	}
	return true
}
