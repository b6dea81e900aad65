package table

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Commit is one change of a table; all of it becomes visible at once.
type Commit struct {
	Operation string                // what it is, for the table's history: "STREAMING UPDATE", "WRITE", "MERGE"
	Add       []fleetscore.DataFile // files that become visible; already written
	Remove    []string              // paths of files that cease to be; kind Conflict if one isn't visible any more
	Txns      map[string]int64      // entries to set: how far an application is
	// Guard names the entry of Txns that makes the commit happen once: if the
	// table has it at this version or a later one, nothing is written and the
	// error is one that AlreadyCommitted knows.
	Guard string
	// Check, if set, judges the table as it is just before the commit; its error
	// refuses the commit.
	Check func(*Snapshot) error
	// SameRows says that the rows of the table stay as they are: only their files
	// change.
	SameRows bool
	Info     map[string]any // further entries of the commit's commitInfo
}

var errAlready = errors.New("it was committed before")

// AlreadyCommitted tells whether a commit was refused because its Guard says that
// it happened before.
func AlreadyCommitted(err error) bool { return errors.Is(err, errAlready) }

// Create makes the table if there is none. Nothing happens if it exists with the
// same columns; kind Conflict if with others.
func (d *Delta) Create(ctx context.Context, s TableSchema) error {
	if err := s.Check(); err != nil {
		return err
	}
	if err := d.commits.take(ctx); err != nil {
		return fleetscore.Wrap("create table", d.opt.Name, err)
	}
	defer d.commits.Unlock()
	for {
		snap, err := d.Snapshot(ctx)
		if err == nil {
			if !snap.Schema.Equal(s) {
				return fleetscore.Errorf(fleetscore.Conflict, "create table", "", "it exists with the columns %s, wanted are %s", snap.Schema, s).
					WithHint("columns of a table are fixed: write into a table of another name")
			}
			return nil
		}
		if !fleetscore.NotFound.Is(err) {
			return err
		}
		now := d.opt.now()
		meta, err := writeMeta(s, newID(), now.UnixMilli())
		if err != nil {
			return err
		}
		err = d.put(ctx, 0, []action{
			{CommitInfo: commitInfo("CREATE TABLE", now, nil)},
			{Protocol: &protocolAction{MinReader: 1, MinWriter: 2}},
			{MetaData: meta},
		})
		if err != nil && !fleetscore.Conflict.Is(err) {
			return err
		}
	}
}

// Extend is Create for a table whose shape gets further columns in time: a table that lacks the
// last ones gets them. They are null in the files that it has. A table that has further ones already, from a
// later release, stays as it is, and takes files without them.
func (d *Delta) Extend(ctx context.Context, s TableSchema) error {
	for {
		snap, err := d.Snapshot(ctx)
		switch {
		case err == nil && snap.Schema.extends(s):
			return nil
		case fleetscore.NotFound.Is(err) || err == nil && !s.extends(snap.Schema):
			return d.Create(ctx, s)
		}
		if err == nil {
			err = d.extend(ctx, snap, s)
		}
		if !fleetscore.Conflict.Is(err) { // or another writer's commit came first
			return err
		}
	}
}

// extend commits the columns as the version after that of a snapshot.
func (d *Delta) extend(ctx context.Context, snap *Snapshot, s TableSchema) error {
	if err := s.Check(); err != nil {
		return err
	}
	if err := d.commits.take(ctx); err != nil {
		return fleetscore.Wrap("extend table", d.opt.Name, err)
	}
	defer d.commits.Unlock()
	if err := d.mu.take(ctx); err != nil {
		return fleetscore.Wrap("extend table", d.opt.Name, err)
	}
	id, created := d.metaData.ID, d.metaData.CreatedTime
	d.mu.Unlock()
	meta, err := writeMeta(s, id, created)
	if err != nil {
		return err
	}
	if err := d.put(ctx, snap.Version+1, []action{{CommitInfo: commitInfo("ADD COLUMNS", d.opt.now(), nil)}, {MetaData: meta}}); err != nil {
		return err
	}
	return d.committed(ctx)
}

// Commit appends one commit to the log. When another writer takes the version
// first, the commit is judged anew against the table as it is then and tried
// with the next version.
func (d *Delta) Commit(ctx context.Context, c Commit) (int64, error) {
	return d.commit(ctx, func(*Snapshot) (Commit, error) { return c, nil })
}

// commit asks for a commit that fits the table as it is, until one wins. A Commit
// without any change ends it: nothing is written.
func (d *Delta) commit(ctx context.Context, make func(*Snapshot) (Commit, error)) (int64, error) {
	if err := d.commits.take(ctx); err != nil {
		return 0, fleetscore.Wrap("commit", d.opt.Name, err)
	}
	defer d.commits.Unlock()
	for {
		snap, err := d.Snapshot(ctx)
		if err != nil {
			return 0, err
		}
		c, err := make(snap)
		if err != nil {
			return 0, err
		}
		if c.Guard == "" && len(c.Add)+len(c.Remove)+len(c.Txns) == 0 {
			return snap.Version, nil
		}
		if c.Check != nil {
			if err := c.Check(snap); err != nil {
				return 0, err
			}
		}
		actions, err := actions(snap, c, d.opt.now())
		if err != nil {
			return 0, err
		}
		err = d.put(ctx, snap.Version+1, actions)
		if err == nil {
			return snap.Version + 1, d.committed(ctx)
		}
		if !fleetscore.Conflict.Is(err) {
			return 0, err
		}
	}
}

// committed takes our own commit into the state, and writes a checkpoint if the last one
// is too old.
func (d *Delta) committed(ctx context.Context) error {
	if d.mu.take(ctx) != nil {
		return nil // the commit is done, and is read with the next look at the log
	}
	_, err := d.refresh(ctx)
	due := d.next-1-d.checked >= d.inline
	d.mu.Unlock()
	if err == nil && due {
		_ = d.writeCheckpoint(ctx) // the commit is done; a checkpoint that fails is tried again with the next
	}
	return err
}

func actions(snap *Snapshot, c Commit, now time.Time) ([]action, error) {
	if c.Guard != "" {
		if have, ok := snap.Txns[c.Guard]; ok && have >= c.Txns[c.Guard] {
			return nil, fleetscore.Errorf(fleetscore.Conflict, "commit", c.Guard, "%w", errAlready)
		}
	}
	out := []action{{CommitInfo: commitInfo(c.Operation, now, c.Info)}}
	for _, id := range sortedKeys(c.Txns) {
		out = append(out, action{Txn: &txnAction{AppID: id, Version: c.Txns[id], Updated: now.UnixMilli()}})
	}
	for _, path := range c.Remove {
		f, ok := snap.file(path)
		if !ok {
			return nil, fleetscore.Errorf(fleetscore.Conflict, "commit", path, "the file to remove is not part of the table any more")
		}
		out = append(out, action{Remove: &removeAction{Path: escapePath(path), DeletionTimestamp: now.UnixMilli(), DataChange: !c.SameRows,
			ExtendedFileMetadata: true, PartitionValues: partitionValues(f), Size: f.SizeBytes}})
	}
	for _, f := range c.Add {
		a, err := writeAdd(f, snap.Schema.Time, now)
		if err != nil {
			return nil, err
		}
		a.DataChange = !c.SameRows
		out = append(out, action{Add: a})
	}
	return out, nil
}

// put writes a commit; kind Conflict if the version is taken. A failed put may
// have happened all the same (the answer was lost), so what lies there is
// compared by the commit's own id.
func (d *Delta) put(ctx context.Context, version int64, actions []action) error {
	id := newID()
	var rest, b bytes.Buffer
	if err := encode(&rest, actions[1:]); err != nil {
		return err
	}
	info := actions[0].CommitInfo
	info["fleetscore.commit"], info[digestEntry] = id, fleetscore.DigestOf(rest.Bytes()).String()
	if err := encode(&b, actions[:1]); err != nil {
		return err
	}
	b.Write(rest.Bytes())
	err := store.WriteAll(ctx, d.b, commitName(version), b.Bytes(), store.PutOptions{IfAbsent: true})
	if err == nil || ctx.Err() != nil {
		return err
	}
	there, e := store.ReadAll(ctx, d.b, commitName(version))
	switch {
	case e == nil && bytes.Contains(there, []byte(id)):
		return nil
	case e != nil && fleetscore.Conflict.Is(err):
		return e // it may be our own commit: to make it again would tell the caller something false
	}
	return err
}

// encode writes actions, one a line.
func encode(w io.Writer, actions []action) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, a := range actions {
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
	return nil
}

func commitInfo(operation string, now time.Time, more map[string]any) map[string]any {
	info := map[string]any{"timestamp": now.UnixMilli(), "operation": operation, "engineInfo": "fleetscore"}
	for k, v := range more {
		info[k] = v
	}
	return info
}

func partitionValues(f fleetscore.DataFile) map[string]string {
	return map[string]string{"date": f.Date, "hour": fmt.Sprint(f.Hour)}
}

// newID is a random UUID (version 4).
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func sortedKeys(m map[string]int64) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// What Compact joins.
const (
	smallFileBytes = 16 << 20 // smaller files are joined
	fewFiles       = 4        // up to this number, small files of an hour that has ended are not joined
	manyFiles      = 32       // the same for an hour that hasn't ended
	maxJoinRows    = 4 << 20  // rows that are read into memory together
	maxExpired     = 10_000   // files that one commit removes
)

// Compact joins the small files of each hour into larger ones, hour by hour, each by
// one commit: of hours that ended before a time nearly all, and of later ones where
// there are many, as they will be joined again. Rows stay as they are. Another
// writer's commit to the same files is no error: the hour is left for the next time.
// An hour that can't be joined keeps no other from it; the error is about all such.
// It returns how many files were replaced by how many.
func (d *Delta) Compact(ctx context.Context, before time.Time) (replaced, by int, err error) {
	snap, err := d.Snapshot(ctx)
	if err != nil {
		return 0, 0, err
	}
	type hour struct {
		date string
		hour int
	}
	small := map[hour][]fleetscore.DataFile{}
	var hours []hour
	for _, f := range snap.Files { // by path, which is the order of their rows for readers
		if f.SizeBytes >= smallFileBytes || f.Rows >= maxFileRows {
			continue
		}
		h := hour{f.Date, f.Hour}
		if small[h] == nil {
			hours = append(hours, h)
		}
		small[h] = append(small[h], f)
	}
	var problems []error
	for _, h := range hours {
		few := fewFiles
		day, err := time.Parse(time.DateOnly, h.date)
		if err != nil {
			continue // a partition that another program made
		}
		if day.Add(time.Duration(h.hour+1) * time.Hour).After(before) {
			few = manyFiles
		}
		for files := small[h]; len(files) > few; {
			n, rows := 0, int64(0)
			for n < len(files) && (n == 0 || rows+files[n].Rows <= maxJoinRows) {
				rows += files[n].Rows
				n++
			}
			made, err := d.join(ctx, snap.Schema, files[:n])
			if ctx.Err() != nil {
				return replaced, by, ctx.Err()
			}
			if err != nil {
				if !fleetscore.Conflict.Is(err) {
					problems = append(problems, err)
				}
				break
			}
			replaced, by, files = replaced+n, by+made, files[n:]
		}
	}
	return replaced, by, errors.Join(problems...)
}

// Expire takes files out of the table all of whose rows have a stamp up to a time.
// It returns how many. The files are deleted later, by Vacuum.
func (d *Delta) Expire(ctx context.Context, until fleetscore.Micros) (expired int, err error) {
	for {
		var old []string
		_, err := d.commit(ctx, func(snap *Snapshot) (Commit, error) {
			old = old[:0]
			for _, f := range snap.Files {
				if f.Last <= until && len(old) < maxExpired {
					old = append(old, f.Path)
				}
			}
			return Commit{Operation: "DELETE", Remove: old}, nil
		})
		if err != nil || len(old) == 0 {
			return expired, err
		}
		expired += len(old)
	}
}

// join writes the rows of some files of an hour into as few as can be.
func (d *Delta) join(ctx context.Context, s TableSchema, files []fleetscore.DataFile) (made int, err error) {
	f, err := d.readFrame(ctx, s, files, s.all(), ReadQuery{})
	if err != nil {
		return 0, err
	}
	id := newID()[:13]
	c := Commit{Operation: "OPTIMIZE", SameRows: true}
	if c.Add, err = d.writeFrame(ctx, s, f, func(r fleetscore.ShardRange) string { return r.String() + "-" + id }); err != nil {
		return 0, err
	}
	var before, after int64
	for _, f := range files {
		c.Remove, before = append(c.Remove, f.Path), before+f.Rows
	}
	for _, f := range c.Add {
		after += f.Rows
	}
	if before != after {
		return 0, fleetscore.Errorf(fleetscore.Internal, "join files of table", d.opt.Name, "%d rows became %d: a defect of ours, nothing was changed", before, after)
	}
	_, err = d.Commit(ctx, c)
	return len(c.Add), err
}

// Vacuum deletes data files that no reader can need any more: files that a commit
// replaced before a time, and files that were written before that time and that no
// commit ever made visible. keep tells which of them are still needed; it is called
// once, after all files were found. A file's name is never used twice, so a deleted file
// doesn't become visible again.
//
// Folders with files that the log knows to be replaced are listed each time. The other
// dates may hold files of attempts that ended without a commit: each call lists the next
// few dates in turn, or all of them if all is true.
func (d *Delta) Vacuum(ctx context.Context, before time.Time, all bool, keep func(ctx context.Context) (func(path string) bool, error)) (deleted int, err error) {
	if _, err := d.Snapshot(ctx); err != nil {
		return 0, err
	}
	folders := []string{dataPrefix}
	if !all {
		if folders, err = d.toSweep(ctx, before); err != nil {
			return 0, err
		}
	}
	var old []string
	for _, folder := range folders {
		for i, err := range d.b.List(ctx, folder, store.ListOptions{}) {
			if err != nil {
				return 0, err
			}
			if i.Modified.Before(before) {
				old = append(old, string(i.Name))
			}
		}
	}
	kept, err := keep(ctx)
	if err != nil {
		return 0, err
	}
	snap, err := d.Snapshot(ctx) // what was committed while the files were listed
	if err != nil {
		return 0, err
	}
	d.mu.Lock()
	old = slices.DeleteFunc(old, func(name string) bool {
		at, replaced := d.gone[name]
		_, visible := snap.file(name)
		return visible || replaced && !time.UnixMilli(at).Before(before) || kept(name)
	})
	d.mu.Unlock()
	for _, name := range old {
		if err := d.b.Delete(ctx, fleetscore.BlobName(name)); err != nil {
			return deleted, err
		}
		deleted++
	}
	return deleted, d.swept(ctx, before, folders, kept)
}

// sweepDates is how many dates each Vacuum lists at least, whether or not the log knows
// of replaced files there; of many dates it lists one in sweepShare.
const (
	sweepDates = 8
	sweepShare = 50
)

// toSweep are the folders that Vacuum lists, none inside another.
func (d *Delta) toSweep(ctx context.Context, before time.Time) (folders []string, err error) {
	var dates []string
	for i, err := range d.b.List(ctx, dataPrefix, store.ListOptions{Delimiter: true}) {
		if err != nil {
			return nil, err
		}
		dates = append(dates, string(i.Name))
	}
	if err := d.mu.take(ctx); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	if d.lastSwept == "" && len(dates) > 0 { // so that a server that is restarted often comes to all dates
		var b [2]byte
		rand.Read(b[:]) // like newID, so that the simulation can repeat a run; it never fails
		d.lastSwept = dates[int(binary.LittleEndian.Uint16(b[:]))%len(dates)]
	}
	next, _ := slices.BinarySearch(dates, d.lastSwept+"\x00")
	for range min(len(dates), max(sweepDates, len(dates)/sweepShare)) {
		d.lastSwept = dates[next%len(dates)]
		folders = append(folders, d.lastSwept)
		next++
	}
	hours := map[string]bool{}
	for name, at := range d.gone {
		if time.UnixMilli(at).Before(before) && !d.deleted[name] {
			hours[path.Dir(name)+"/"] = true
		}
	}
	for _, hour := range slices.Sorted(maps.Keys(hours)) {
		if !slices.Contains(folders, path.Dir(path.Dir(hour))+"/") {
			folders = append(folders, hour)
		}
	}
	return folders, nil
}

// swept remembers which replaced files of the folders aren't there any more.
func (d *Delta) swept(ctx context.Context, before time.Time, folders []string, kept func(string) bool) error {
	if err := d.mu.take(ctx); err != nil {
		return err
	}
	defer d.mu.Unlock()
	maps.DeleteFunc(d.deleted, func(name string, _ bool) bool { _, known := d.gone[name]; return !known })
	for name, at := range d.gone {
		in := func(folder string) bool { return strings.HasPrefix(name, folder) }
		if time.UnixMilli(at).Before(before) && slices.ContainsFunc(folders, in) && !kept(name) {
			d.deleted[name] = true
		}
	}
	return nil
}
