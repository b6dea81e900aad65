package table

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table/sound"
)

// How long a Delta log becomes. A checkpoint holds the state as of a version, so
// readers don't need the commits up to that version. The commits up to the previous
// checkpoint are deleted after a time in which every reader has finished with them.
const (
	checkpointEvery  = 100                // commits between checkpoints, where maintenance calls Checkpoint
	checkpointInline = 1000               // commits after which a commit itself writes a checkpoint, which takes longer
	keepCommits      = 24 * time.Hour     // how long commits are kept that a checkpoint has replaced
	keepEntries      = 3 * 24 * time.Hour // how long entries of jobs are kept: after that the ledger knows that the job ended
	keepRemoved      = 26 * time.Hour     // how long entries of removed files are kept; the files are deleted after a day
	lookAgain        = keepCommits / 4    // after this time without a look at the log, its first commits may be deleted
	pointerName      = "_delta_log/_last_checkpoint"
)

// A checkpoint is one Parquet file with a row per action, as the Delta protocol
// says.
type checkpointRow struct {
	Txn      *txnRow      `parquet:"txn,optional"`
	Add      *addRow      `parquet:"add,optional"`
	Remove   *removeRow   `parquet:"remove,optional"`
	MetaData *metaRow     `parquet:"metaData,optional"`
	Protocol *protocolRow `parquet:"protocol,optional"`
}

type txnRow struct {
	AppID   string `parquet:"appId"`
	Version int64  `parquet:"version"`
	Updated *int64 `parquet:"lastUpdated,optional"`
}

type addRow struct {
	Path             string            `parquet:"path"`
	PartitionValues  map[string]string `parquet:"partitionValues"`
	Size             int64             `parquet:"size"`
	ModificationTime int64             `parquet:"modificationTime"`
	DataChange       bool              `parquet:"dataChange"`
	Tags             map[string]string `parquet:"tags"`
	Stats            string            `parquet:"stats"`
}

type removeRow struct {
	Path              string `parquet:"path"`
	DeletionTimestamp int64  `parquet:"deletionTimestamp"`
	DataChange        bool   `parquet:"dataChange"`
}

type metaRow struct {
	ID               string            `parquet:"id"`
	Format           formatRow         `parquet:"format"`
	SchemaString     string            `parquet:"schemaString"`
	PartitionColumns []string          `parquet:"partitionColumns,list"`
	Configuration    map[string]string `parquet:"configuration"`
	CreatedTime      int64             `parquet:"createdTime"`
}

type formatRow struct {
	Provider string            `parquet:"provider"`
	Options  map[string]string `parquet:"options"`
}

type protocolRow struct {
	MinReader int32 `parquet:"minReaderVersion"`
	MinWriter int32 `parquet:"minWriterVersion"`
}

// checkpointPointer is the content of _last_checkpoint.
type checkpointPointer struct {
	Version int64             `json:"version"`
	Size    int64             `json:"size"` // rows
	Tags    map[string]string `json:"tags,omitempty"`
}

func checkpointName(version int64) fleetscore.BlobName {
	return fleetscore.BlobName(fmt.Sprintf("_delta_log/%020d.checkpoint.parquet", version))
}

// Checkpoint writes a checkpoint if a hundred commits were made since the last one,
// and deletes the commits that readers don't need any more. The log is complete without
// a checkpoint, so a failure only makes readers slower until the next checkpoint.
// Commits may be made at the same time.
func (d *Delta) Checkpoint(ctx context.Context) error {
	if _, err := d.Snapshot(ctx); err != nil {
		return err
	}
	if err := d.mu.take(ctx); err != nil {
		return err
	}
	due := d.next-1-d.checked >= d.every
	d.mu.Unlock()
	if !due {
		return nil
	}
	return d.writeCheckpoint(ctx)
}

func (d *Delta) writeCheckpoint(ctx context.Context) error {
	d.checkpoints.Lock()
	defer d.checkpoints.Unlock()
	s, err := d.stateNow(ctx, d.opt.now())
	if err != nil {
		return err
	}
	var b bytes.Buffer
	rows, err := s.write(&b)
	if err != nil {
		return err
	}
	version := s.snap.Version
	if err := store.WriteAll(ctx, d.b, checkpointName(version), b.Bytes(), store.PutOptions{}); err != nil {
		return err
	}
	pointer, err := json.Marshal(checkpointPointer{Version: version, Size: rows, Tags: map[string]string{digestEntry: fleetscore.DigestOf(b.Bytes()).String()}})
	if err != nil {
		return err
	}
	if err := store.WriteAll(ctx, d.b, pointerName, pointer, store.PutOptions{}); err != nil {
		return err
	}
	if err := d.mu.take(ctx); err != nil {
		return err
	}
	previous := d.checked
	d.checked = version
	d.mu.Unlock()
	d.tell(func(g *damage) { g.checkpoint = "" })
	// The previous checkpoint and the commits after it are kept, in case the new
	// checkpoint is damaged later.
	return d.cut(ctx, previous, d.opt.now().Add(-d.keep))
}

// state is all that a checkpoint holds, as of one version.
type state struct {
	snap    *Snapshot
	meta    *metaAction
	updated map[string]int64 // of entries in snap.Txns
	gone    map[string]int64
	now     time.Time
}

// stateNow is a copy of the state, so that the state may change while the copy is
// written. Entries that are too old to be needed are removed from both.
func (d *Delta) stateNow(ctx context.Context, now time.Time) (s state, err error) {
	if err := d.mu.take(ctx); err != nil {
		return s, err
	}
	defer d.mu.Unlock()
	for id, at := range d.updated {
		if strings.HasPrefix(id, "job/") && now.Sub(time.UnixMilli(at)) > keepEntries {
			delete(d.txns, id)
			delete(d.updated, id)
			d.txnsChanged = true
		}
	}
	for path, at := range d.gone {
		if now.Sub(time.UnixMilli(at)) > keepRemoved {
			delete(d.gone, path)
		}
	}
	s = state{meta: d.metaData, updated: maps.Clone(d.updated), gone: maps.Clone(d.gone), now: now}
	s.snap, err = d.snapshot()
	return s, err
}

// write writes the state, each kind of action into a row group of its own, so that a
// reader of one kind doesn't read the others. It returns the number of rows.
func (s *state) write(w io.Writer) (rows int64, err error) {
	out := parquet.NewGenericWriter[checkpointRow](w, parquet.Compression(codec), parquet.CreatedBy("fleetscore", "1", ""))
	groups, err := s.rows()
	if err != nil {
		return 0, err
	}
	for _, g := range groups {
		if len(g) == 0 {
			continue
		}
		if _, err := out.Write(g); err != nil {
			return 0, err
		}
		if err := out.Flush(); err != nil {
			return 0, err
		}
		rows += int64(len(g))
	}
	return rows, out.Close()
}

// rows is the state as rows of a checkpoint, in groups.
func (s *state) rows() (groups [4][]checkpointRow, err error) {
	m := s.meta
	groups[0] = []checkpointRow{
		{Protocol: &protocolRow{MinReader: 1, MinWriter: 2}},
		{MetaData: &metaRow{ID: m.ID, Format: formatRow(m.Format), SchemaString: m.SchemaString, PartitionColumns: m.PartitionColumns,
			Configuration: m.Configuration, CreatedTime: m.CreatedTime}},
	}
	for _, id := range sortedKeys(s.snap.Txns) {
		row := &txnRow{AppID: id, Version: s.snap.Txns[id]}
		if at, ok := s.updated[id]; ok {
			row.Updated = &at
		}
		groups[1] = append(groups[1], checkpointRow{Txn: row})
	}
	for _, path := range sortedKeys(s.gone) {
		groups[2] = append(groups[2], checkpointRow{Remove: &removeRow{Path: escapePath(path), DeletionTimestamp: s.gone[path], DataChange: true}})
	}
	for _, f := range s.snap.Files {
		a, err := writeAdd(f, s.snap.Schema.Time, s.now)
		if err != nil {
			return groups, err
		}
		groups[3] = append(groups[3], checkpointRow{Add: &addRow{Path: a.Path, PartitionValues: a.PartitionValues, Size: a.Size, ModificationTime: a.ModificationTime,
			Tags: a.Tags, Stats: a.Stats}})
	}
	return groups, nil
}

// cut deletes commits and checkpoints below a version that are older than a time.
func (d *Delta) cut(ctx context.Context, below int64, before time.Time) error {
	var old []fleetscore.BlobName
	for i, err := range d.b.List(ctx, "_delta_log/0", store.ListOptions{}) {
		if err != nil {
			return err
		}
		v, ending := logName(i.Name)
		if ending == "" || v >= below {
			continue
		}
		if i.Modified.After(before) {
			break // what follows is newer
		}
		old = append(old, i.Name)
	}
	for _, name := range old { // the oldest first, so that what is left has no gap
		if err := d.b.Delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// fromCheckpoint takes the state of the last checkpoint if it is newer than what was
// read. A damaged checkpoint is ignored: the commits are enough as long as they are
// there, and the next commit writes another checkpoint.
func (d *Delta) fromCheckpoint(ctx context.Context) error {
	p, err := d.pointer(ctx)
	if fleetscore.NotFound.Is(err) {
		return nil
	}
	if err == nil && p.Version >= d.next {
		err = d.loadCheckpoint(ctx, p.Version)
	}
	if err != nil && !fleetscore.Corrupt.Is(err) {
		return err
	}
	text := ""
	if err != nil {
		var known *fleetscore.Error
		errors.As(err, &known)
		text = d.broken(known.Subject, err, "the table is read from its older log; the next commit writes another checkpoint").Error()
	}
	d.tell(func(g *damage) { g.checkpoint = text })
	return nil
}

// pointer reads which checkpoint is the last; kind NotFound if there is none.
func (d *Delta) pointer(ctx context.Context) (p checkpointPointer, err error) {
	data, err := store.ReadAll(ctx, d.b, pointerName)
	if err != nil {
		return p, err
	}
	p.Version = -1
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fleetscore.Errorf(fleetscore.Corrupt, "read Delta checkpoint", pointerName, "%w", err)
	}
	if p.Version < 0 {
		return p, fleetscore.Errorf(fleetscore.Corrupt, "read Delta checkpoint", pointerName, "it names no version")
	}
	return p, nil
}

// loadCheckpoint takes the state of a checkpoint.
func (d *Delta) loadCheckpoint(ctx context.Context, version int64) error {
	const op = "read Delta checkpoint"
	name := string(checkpointName(version))
	data, err := store.ReadAll(ctx, d.b, fleetscore.BlobName(name))
	if fleetscore.NotFound.Is(err) {
		return fleetscore.Errorf(fleetscore.Corrupt, op, name, "the file is missing")
	} else if err != nil {
		return err
	}
	// The digest of the last checkpoint is known. Pages of older ones have checksums.
	p, err := d.pointer(ctx)
	if digest := p.Tags[digestEntry]; err == nil && p.Version == version && digest != "" && digest != fleetscore.DigestOf(data).String() {
		return fleetscore.Errorf(fleetscore.Corrupt, op, name, "its content was changed: it doesn't fit the digest in _last_checkpoint")
	}
	fresh := OpenDelta(d.b)
	files, err := fresh.restore(data)
	if err != nil {
		return fleetscore.Errorf(fleetscore.Corrupt, op, name, "%w", err)
	}
	if fresh.meta == nil {
		return fleetscore.Errorf(fleetscore.Corrupt, op, name, "it has no metaData")
	}
	d.meta, d.metaData, d.file, d.txns, d.updated, d.gone = fresh.meta, fresh.metaData, fresh.file, fresh.txns, fresh.updated, fresh.gone
	d.next, d.checked, d.touched, d.txnsChanged = version+1, version, nil, false
	d.snap = &Snapshot{Version: version, Schema: *d.meta, Files: files, Txns: maps.Clone(d.txns)}
	return nil
}

// restore takes the state of a checkpoint's bytes, and returns the files by path. A large
// table has very many actions, so the columns are read by themselves: it takes several
// times as long to build all rows.
func (d *Delta) restore(data []byte) (files []fleetscore.DataFile, err error) {
	defer func() { // the library panics on some corrupt files
		if p := recover(); p != nil {
			files, err = nil, fmt.Errorf("not a sound Parquet file: %v", p)
		}
	}()
	file, err := sound.Open(data)
	if err != nil {
		return nil, fmt.Errorf("not a sound Parquet file: %w", err)
	}
	for _, group := range file.RowGroups() {
		for _, kind := range []func(*actionRows) error{d.restoreMeta, d.restoreTxns, d.restoreRemoves,
			func(r *actionRows) (err error) { files, err = restoreAdds(files, r); return err }} {
			r := &actionRows{schema: file.Schema(), group: group}
			if err := kind(r); err != nil {
				return nil, err
			}
			if r.err != nil {
				return nil, r.err
			}
		}
	}
	d.file = make(map[string]fleetscore.DataFile, len(files))
	for _, f := range files {
		d.file[f.Path] = f
	}
	if len(d.file) != len(files) || !slices.IsSortedFunc(files, byPath) { // another program's checkpoint
		files = slices.SortedFunc(maps.Values(d.file), byPath)
	}
	return files, nil
}

func (d *Delta) restoreMeta(r *actionRows) error {
	minReader, minWriter := r.leaf("protocol.minReaderVersion"), r.leaf("protocol.minWriterVersion")
	id, schema, created := r.leaf("metaData.id"), r.leaf("metaData.schemaString"), r.leaf("metaData.createdTime")
	provider, options := r.leaf("metaData.format.provider"), r.entries("metaData.format.options")
	columns, configuration := r.leaf("metaData.partitionColumns.list.element"), r.entries("metaData.configuration")
	for r.next() {
		if minReader.has() {
			if err := d.apply([]action{{Protocol: &protocolAction{MinReader: int(minReader.number()), MinWriter: int(minWriter.number())}}}); err != nil {
				return err
			}
		}
		if !schema.has() {
			continue
		}
		m := &metaAction{ID: id.text(), Format: formatSpec{provider.text(), options.all()}, SchemaString: schema.text(), Configuration: configuration.all(), CreatedTime: created.number()}
		for _, v := range columns.row {
			m.PartitionColumns = append(m.PartitionColumns, string(v.ByteArray()))
		}
		if err := d.apply([]action{{MetaData: m}}); err != nil {
			return err
		}
	}
	return nil
}

func (d *Delta) restoreTxns(r *actionRows) error {
	id, version, updated := r.leaf("txn.appId"), r.leaf("txn.version"), r.leaf("txn.lastUpdated")
	for r.next() {
		if !id.has() {
			continue
		}
		name := id.text()
		d.txns[name] = version.number()
		if updated.has() {
			d.updated[name] = updated.number()
		}
	}
	return nil
}

func (d *Delta) restoreRemoves(r *actionRows) error {
	path, at := r.leaf("remove.path"), r.leaf("remove.deletionTimestamp")
	for r.next() {
		if !path.has() {
			continue
		}
		name, err := url.PathUnescape(path.text())
		if err != nil {
			return err
		}
		d.gone[name] = at.number()
	}
	return nil
}

func restoreAdds(files []fleetscore.DataFile, r *actionRows) ([]fleetscore.DataFile, error) {
	path, size, stats := r.leaf("add.path"), r.leaf("add.size"), r.leaf("add.stats")
	partition, tags := r.entries("add.partitionValues"), r.entries("add.tags")
	for r.next() {
		if !path.has() {
			continue
		}
		f, err := dataFile(path.text(), size.number(), stats.text(), partition.of, tags.of)
		if err != nil {
			return files, err
		}
		files = append(files, f)
	}
	return files, nil
}

// actionRows walks over the rows of a group of a checkpoint, for some of its columns.
type actionRows struct {
	schema *parquet.Schema
	group  parquet.RowGroup
	leaves []*leaf
	err    error
}

// leaf is a column and its values in one row.
type leaf struct {
	rest []parquet.Value // of later rows
	row  []parquet.Value // those that aren't null
}

// leaf reads a column of the group. A column that the file lacks is null in all rows.
func (r *actionRows) leaf(path string) *leaf {
	l := &leaf{}
	r.leaves = append(r.leaves, l)
	column, ok := r.schema.Lookup(strings.Split(path, ".")...)
	if !ok || r.err != nil {
		return l
	}
	pages := r.group.ColumnChunks()[column.ColumnIndex].Pages()
	defer pages.Close()
	for {
		page, err := pages.ReadPage() // not released, as values point into its memory
		if errors.Is(err, io.EOF) {
			return l
		}
		if err != nil {
			r.err = fmt.Errorf("column %s: %w", path, err)
			return l
		}
		if len(l.rest) == 0 && page.NumNulls() == page.NumValues() && page.NumValues() == r.group.NumRows() {
			return l // the group has no such action
		}
		at, n := len(l.rest), int(page.NumValues())
		l.rest = slices.Grow(l.rest, n)[:at+n]
		n, err = page.Values().ReadValues(l.rest[at:])
		if l.rest = l.rest[:at+n]; err != nil && !errors.Is(err, io.EOF) {
			r.err = fmt.Errorf("column %s: %w", path, err)
			return l
		}
	}
}

// next goes on to the next row. It is false after the last one that has any value, and
// after an error.
func (r *actionRows) next() bool {
	more := false
	for _, l := range r.leaves {
		n := 0
		for n < len(l.rest) && (n == 0 || l.rest[n].RepetitionLevel() > 0) {
			n++
		}
		if l.row, l.rest = l.rest[:n], l.rest[n:]; n > 0 {
			more = true
		}
		if n == 1 && l.row[0].IsNull() {
			l.row = nil
		}
	}
	return more && r.err == nil
}

func (l *leaf) has() bool { return len(l.row) > 0 }

func (l *leaf) text() string {
	if !l.has() {
		return ""
	}
	return string(l.row[0].ByteArray())
}

func (l *leaf) number() int64 {
	switch {
	case !l.has():
		return 0
	case l.row[0].Kind() == parquet.Int32:
		return int64(l.row[0].Int32())
	}
	return l.row[0].Int64()
}

// entries are the entries of a map in one row.
type entries struct{ keys, values *leaf }

func (r *actionRows) entries(path string) entries {
	return entries{r.leaf(path + ".key_value.key"), r.leaf(path + ".key_value.value")}
}

// of is the value of a key; empty if there is none.
func (e entries) of(key string) string {
	for i, k := range e.keys.row {
		if string(k.ByteArray()) == key && i < len(e.values.row) {
			return string(e.values.row[i].ByteArray())
		}
	}
	return ""
}

func (e entries) all() map[string]string {
	out := map[string]string{}
	for _, k := range e.keys.row {
		out[string(k.ByteArray())] = e.of(string(k.ByteArray()))
	}
	return out
}
