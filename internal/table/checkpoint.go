package table

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// How long a Delta log becomes. A checkpoint holds the state as of a version, so
// that nobody needs the commits up to it. Those up to the checkpoint before are
// deleted once nobody can be reading them any more.
const (
	checkpointEvery  = 100                // commits, where Checkpoint is called now and then
	checkpointInline = 1000               // commits, where nobody calls it: a commit then writes one and takes longer
	keepCommits      = 24 * time.Hour     // that a checkpoint has replaced
	keepEntries      = 3 * 24 * time.Hour // of jobs; the ledger knows their end, and a commit repeated later finds its own rows
	keepRemoved      = 26 * time.Hour     // of removed files, which are deleted a day after their removal
	lookAgain        = keepCommits / 4    // a log not looked at for so long may have been cut
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
// and deletes what nobody needs after it. The log is whole without it, so a failure
// only costs readers time: the next checkpoint makes up for it. Commits go on beside
// it.
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
	rows, err := s.rows()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	w := parquet.NewGenericWriter[checkpointRow](&b, parquet.Compression(codec), parquet.CreatedBy("fleetscore", "1", ""))
	if _, err := w.Write(rows); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	version := s.snap.Version
	if err := store.WriteAll(ctx, d.b, checkpointName(version), b.Bytes(), store.PutOptions{}); err != nil {
		return err
	}
	pointer, err := json.Marshal(checkpointPointer{Version: version, Size: int64(len(rows)), Tags: map[string]string{digestEntry: fleetscore.DigestOf(b.Bytes()).String()}})
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
	// The checkpoint before and the commits since stay, for the case that this one is
	// damaged some day.
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

// stateNow is a copy of the state, so that it may go on. Entries that nobody needs
// any more are dropped from both.
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

// rows is the state as rows of a checkpoint.
func (s *state) rows() ([]checkpointRow, error) {
	m := s.meta
	rows := []checkpointRow{
		{Protocol: &protocolRow{MinReader: 1, MinWriter: 2}},
		{MetaData: &metaRow{ID: m.ID, Format: formatRow(m.Format), SchemaString: m.SchemaString, PartitionColumns: m.PartitionColumns,
			Configuration: m.Configuration, CreatedTime: m.CreatedTime}},
	}
	for _, id := range sortedKeys(s.snap.Txns) {
		row := &txnRow{AppID: id, Version: s.snap.Txns[id]}
		if at, ok := s.updated[id]; ok {
			row.Updated = &at
		}
		rows = append(rows, checkpointRow{Txn: row})
	}
	for path, at := range s.gone {
		rows = append(rows, checkpointRow{Remove: &removeRow{Path: escapePath(path), DeletionTimestamp: at, DataChange: true}})
	}
	for _, f := range s.snap.Files {
		a, err := writeAdd(f, s.snap.Schema.Time, s.now)
		if err != nil {
			return nil, err
		}
		rows = append(rows, checkpointRow{Add: &addRow{Path: a.Path, PartitionValues: a.PartitionValues, Size: a.Size, ModificationTime: a.ModificationTime,
			Tags: a.Tags, Stats: a.Stats}})
	}
	return rows, nil
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

// fromCheckpoint takes the state of the last checkpoint if it is ahead of what
// was read. One that is damaged is passed over: while the commits are there nobody
// needs it, and the next commit writes another.
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
	// Of the last one the digest is known; pages of the others have checksums.
	p, err := d.pointer(ctx)
	if digest := p.Tags[digestEntry]; err == nil && p.Version == version && digest != "" && digest != fleetscore.DigestOf(data).String() {
		return fleetscore.Errorf(fleetscore.Corrupt, op, name, "its content was changed: it doesn't fit the digest in _last_checkpoint")
	}
	rows, err := readCheckpoint(name, data)
	if err != nil {
		return err
	}
	fresh := OpenDelta(d.b)
	for i, r := range rows {
		if err := fresh.restore(r); err != nil {
			return fleetscore.Errorf(fleetscore.Corrupt, op, name, "row %d: %w", i, err)
		}
	}
	if fresh.meta == nil {
		return fleetscore.Errorf(fleetscore.Corrupt, op, name, "it has no metaData")
	}
	d.meta, d.metaData, d.file, d.txns, d.updated, d.gone = fresh.meta, fresh.metaData, fresh.file, fresh.txns, fresh.updated, fresh.gone
	d.next, d.checked, d.snap, d.touched = version+1, version, nil, nil
	return nil
}

func readCheckpoint(name string, data []byte) (rows []checkpointRow, err error) {
	defer func() { // the library panics on some corrupt files
		if p := recover(); p != nil {
			rows, err = nil, fleetscore.Errorf(fleetscore.Corrupt, "read Delta checkpoint", name, "not a sound Parquet file: %v", p)
		}
	}()
	rows, err = parquet.Read[checkpointRow](bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Corrupt, "read Delta checkpoint", name, "%w", err)
	}
	return rows, nil
}

// restore applies one row of a checkpoint.
func (d *Delta) restore(r checkpointRow) error {
	a := action{}
	switch {
	case r.Txn != nil:
		a.Txn = &txnAction{AppID: r.Txn.AppID, Version: r.Txn.Version}
		if r.Txn.Updated != nil {
			a.Txn.Updated = *r.Txn.Updated
		}
	case r.Add != nil:
		a.Add = &addAction{Path: r.Add.Path, PartitionValues: r.Add.PartitionValues, Size: r.Add.Size, Stats: r.Add.Stats, Tags: r.Add.Tags}
	case r.Remove != nil:
		a.Remove = &removeAction{Path: r.Remove.Path, DeletionTimestamp: r.Remove.DeletionTimestamp}
	case r.MetaData != nil:
		a.MetaData = &metaAction{ID: r.MetaData.ID, Format: formatSpec(r.MetaData.Format), SchemaString: r.MetaData.SchemaString,
			PartitionColumns: r.MetaData.PartitionColumns, Configuration: r.MetaData.Configuration, CreatedTime: r.MetaData.CreatedTime}
	case r.Protocol != nil:
		a.Protocol = &protocolAction{MinReader: int(r.Protocol.MinReader), MinWriter: int(r.Protocol.MinWriter)}
	}
	return d.apply([]action{a})
}
