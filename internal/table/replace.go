package table

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table/sound"
)

// ReadFrame reads the named columns of files of the table, file after file: time and
// key columns always, all columns if none is named. It returns the table's schema too.
func (d *Delta) ReadFrame(ctx context.Context, files []fleetscore.DataFile, names []string, q ReadQuery) (*Frame, TableSchema, error) {
	snap, err := d.Snapshot(ctx)
	if err != nil {
		return nil, TableSchema{}, err
	}
	s := snap.Schema
	want := s.all()
	if names != nil {
		want = s.some(names)
	}
	f, err := d.readFrame(ctx, s, files, want, q)
	return f, s, err
}

// WriteFrame writes a frame as one Parquet file.
func WriteFrame(w io.Writer, f *Frame) error { return writeParquet(w, f) }

// JoinParquet writes the rows of Parquet files with the same columns as one file.
func JoinParquet(w io.Writer, files [][]byte) error {
	var out *parquet.GenericWriter[any]
	for _, data := range files {
		in, err := sound.Open(data)
		if err != nil {
			return err
		}
		if out == nil {
			out = parquet.NewGenericWriter[any](w, in.Schema(), parquet.Compression(codec), parquet.CreatedBy("fleetscore", "1", ""))
		}
		for _, rows := range in.RowGroups() {
			if _, err := out.WriteRowGroup(rows); err != nil {
				return err
			}
		}
	}
	if out == nil {
		return nil
	}
	return out.Close()
}

// WriteFrame writes rows into files of the table, by date, hour and, where there are
// many, shard range; name gives a file's name without extension, which must never
// have been used before. No reader sees the files before a commit adds them.
func (d *Delta) WriteFrame(ctx context.Context, s TableSchema, f *Frame, name func(fleetscore.ShardRange) string) ([]fleetscore.DataFile, error) {
	return d.writeFrame(ctx, s, f, name)
}

// Replacement is files and the rows of the table that they take the place of.
type Replacement struct {
	Guard    string                // the entry that makes it happen once; see Commit
	Interval fleetscore.Interval   // superseded rows lie in it
	Add      []fleetscore.DataFile // written before
	// Superseded marks the rows of a file of the table that are replaced. It is called
	// for every file that may have such rows, and again for all of them whenever another
	// writer's commit came first. Begin, if set, is called before each such round.
	Superseded func(*Frame, TableSchema) ([]bool, error)
	Begin      func()
	// Outdated, if set, is called afterwards: it tells whether some of the added rows
	// must not become visible, and which ones.
	Outdated func() (some bool, which func(*Frame, TableSchema) ([]bool, error))
	// Name gives, for each file whose rows are written anew, the names of their files,
	// as for WriteFrame.
	Name func() func(fleetscore.ShardRange) string
}

// Replace makes files visible in one commit, and in the same commit removes the rows that
// they supersede, by writing again the files that hold such rows. If two replacements
// concern the same rows, the one that commits later finds the rows of the other. A
// replacement that was committed before changes nothing, see AlreadyCommitted.
func (d *Delta) Replace(ctx context.Context, r Replacement) (int64, error) {
	return d.commit(ctx, func(snap *Snapshot) (Commit, error) {
		c := Commit{Operation: "WRITE", Txns: map[string]int64{r.Guard: 1}, Guard: r.Guard}
		if _, done := snap.Txns[r.Guard]; done {
			return c, nil // refused by the guard
		}
		if r.Begin != nil {
			r.Begin()
		}
		for _, old := range (ReadQuery{Interval: &r.Interval}).Prune(snap.Files) {
			rest, changed, err := d.without(ctx, snap.Schema, old, r.Name, r.Superseded)
			if err != nil {
				return c, err
			}
			if changed {
				c.Operation = "MERGE"
				c.Remove = append(c.Remove, old.Path)
				c.Add = append(c.Add, rest...)
			}
		}
		some, which := false, r.Superseded
		if r.Outdated != nil {
			some, which = r.Outdated()
		}
		if !some {
			c.Add = append(c.Add, r.Add...)
			return c, nil
		}
		for _, mine := range r.Add {
			rest, changed, err := d.without(ctx, snap.Schema, mine, r.Name, which)
			if err != nil {
				return c, err
			}
			if !changed {
				rest = []fleetscore.DataFile{mine}
			}
			c.Add = append(c.Add, rest...)
		}
		return c, nil
	})
}

// without writes a file's rows again without the rows that drop marks. If drop marks no
// row, nothing is written.
func (d *Delta) without(ctx context.Context, s TableSchema, file fleetscore.DataFile, name func() func(fleetscore.ShardRange) string, drop func(*Frame, TableSchema) ([]bool, error)) (rest []fleetscore.DataFile, changed bool, err error) {
	f, err := d.readFile(ctx, file, s.all())
	if err != nil {
		return nil, false, err
	}
	gone, err := drop(f, s)
	if err != nil {
		return nil, false, err
	}
	var keep []int
	for i, g := range gone {
		if !g {
			keep = append(keep, i)
		}
	}
	if len(keep) == len(gone) {
		return nil, false, nil
	}
	if len(keep) > 0 {
		rest, err = d.writeFrame(ctx, s, f.pick(keep), name())
	}
	return rest, true, err
}

// SetAside counts the readings of an interval of event time that are in no row of
// a dataset, or not twice. A commit of a query holds such a list, under the name
// SetAsideInfo in its commitInfo, of what it met since the commit before.
type SetAside struct {
	From    fleetscore.Micros `json:"from_us"` // exclusive
	To      fleetscore.Micros `json:"to_us"`   // inclusive
	Late    int64             `json:"late"`    // their window was over
	Early   int64             `json:"early"`   // their time lay too far after their arrival
	Repeats int64             `json:"repeats"` // they were counted before
}

// Revised counts rows of committed cuts in whose place a commit of a query put others,
// because late readings came. A commit holds such a list, under the name RevisedInfo.
type Revised struct {
	From fleetscore.Micros `json:"from_us"` // exclusive
	To   fleetscore.Micros `json:"to_us"`   // inclusive
	Rows int64             `json:"rows"`
}

// RevisedInfo is the name of the entry of Revised in commitInfo.
const RevisedInfo = "fleetscore.revised"

// SetAsideInfo is the entry's name.
const SetAsideInfo = "fleetscore.set_aside"

// commitSlack is how long before its data arrived a commit may say that it was
// made: clocks of servers differ.
const commitSlack = time.Hour

// SetAside adds up what the commits say of readings whose time lies in the
// interval. Counts of a cut that the interval covers in part are taken as a whole.
// It reads the commits since the beginning of the interval, so it is meant for recent
// intervals. Commits that were deleted (a day after a checkpoint replaced them) aren't
// counted.
func (d *Delta) SetAside(ctx context.Context, iv fleetscore.Interval) (SetAside, error) {
	snap, err := d.Snapshot(ctx)
	out := SetAside{From: fleetscore.MicrosOf(iv.From), To: fleetscore.MicrosOf(iv.To)}
	if err != nil {
		return out, err
	}
	for version := snap.Version; version >= 0; version-- {
		said, err := d.asideAt(ctx, version)
		if fleetscore.NotFound.Is(err) {
			break
		} else if err != nil {
			return out, err
		}
		if !said.made.IsZero() && said.made.Before(iv.From.Add(-commitSlack)) {
			break
		}
		for _, s := range said.list {
			if s.To > out.From && s.From < out.To {
				out.Late, out.Early, out.Repeats = out.Late+s.Late, out.Early+s.Early, out.Repeats+s.Repeats
			}
		}
	}
	return out, nil
}

// Revised returns what the commits from one version to another say of rows that they
// revised. Commits that were deleted, and whose revisions aren't in memory, are left out.
func (d *Delta) Revised(ctx context.Context, from, to int64) (out []Revised, err error) {
	for version := from; version <= to; version++ {
		said, err := d.asideAt(ctx, version)
		if err != nil && !fleetscore.NotFound.Is(err) {
			return nil, err
		}
		out = append(out, said.revised...)
	}
	return out, nil
}

// asideOf is what one commit says.
type asideOf struct {
	made    time.Time
	list    []SetAside
	revised []Revised
}

// keptAsides is the number of commits whose lists are kept in memory, because every job
// asks for the lists of the last hours.
const keptAsides = 4096

// noteAside remembers what a commit says. The caller holds mu.
func (d *Delta) noteAside(version int64, data []byte) {
	if d.asides == nil {
		d.asides = map[int64]asideOf{}
	}
	d.asides[version] = setAsideOf(data)
	delete(d.asides, version-keptAsides)
}

// asideAt is what a commit says; kind NotFound if the commit was removed.
func (d *Delta) asideAt(ctx context.Context, version int64) (asideOf, error) {
	if err := d.mu.take(ctx); err != nil {
		return asideOf{}, err
	}
	said, ok := d.asides[version]
	d.mu.Unlock()
	if ok {
		return said, nil
	}
	data, err := d.readCommit(ctx, commitName(version))
	if err != nil {
		return asideOf{}, err
	}
	if err := d.mu.take(ctx); err != nil {
		return asideOf{}, err
	}
	defer d.mu.Unlock()
	if version < d.next-keptAsides {
		return setAsideOf(data), nil
	}
	d.noteAside(version, data)
	return d.asides[version], nil
}

// setAsideOf finds the lists of a commit, and when the commit was made. Other programs may
// write anything into commitInfo, so an entry that can't be read isn't our list.
func setAsideOf(data []byte) asideOf {
	for line := range bytes.SplitSeq(data, []byte{'\n'}) {
		if !bytes.Contains(line, []byte(`"commitInfo"`)) {
			continue
		}
		var a struct {
			CommitInfo *struct {
				Timestamp int64      `json:"timestamp"`
				SetAside  []SetAside `json:"fleetscore.set_aside"`
				Revised   []Revised  `json:"fleetscore.revised"`
			} `json:"commitInfo"`
		}
		if json.Unmarshal(line, &a) == nil && a.CommitInfo != nil && a.CommitInfo.Timestamp > 0 {
			return asideOf{time.UnixMilli(a.CommitInfo.Timestamp), a.CommitInfo.SetAside, a.CommitInfo.Revised}
		}
	}
	return asideOf{}
}

// Clock is a sensor whose readings' times differ from their arrival by more than the way
// of a reading takes, by the newest reading of the last message that had any.
type Clock struct {
	Key     []string          `json:"key"`
	Time    fleetscore.Micros `json:"time_us"`
	Arrived fleetscore.Micros `json:"arrived_us"`
}

// Clocks are the sensors whose clocks are off, of those that a query met since its commit before.
type Clocks struct {
	Some bool    `json:"some,omitempty"` // there are more, or not all messages were looked at: others may be off too
	Off  []Clock `json:"off"`
}

// ClocksInfo is the name of the entry of Clocks in commitInfo, and MaxClocks how many it
// has at most: those whose difference is the largest.
const (
	ClocksInfo = "fleetscore.clocks"
	MaxClocks  = 1000
)

// Change is what one commit did.
type Change struct {
	Version  int64
	Add      []fleetscore.DataFile
	SameRows bool             // the added files hold rows that were there before
	Txns     map[string]int64 // entries that it set
	Clocks   Clocks
}

// Change reads one commit from the log; kind NotFound if it isn't there any more.
func (d *Delta) Change(ctx context.Context, version int64) (Change, error) {
	c := Change{Version: version, SameRows: true, Txns: map[string]int64{}}
	name := commitName(version)
	data, err := d.readCommit(ctx, name)
	if err != nil {
		return c, err
	}
	for line := range bytes.SplitSeq(data, []byte{'\n'}) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var a struct {
			readAction
			Info struct {
				Clocks json.RawMessage `json:"fleetscore.clocks"`
			} `json:"commitInfo"`
		}
		if err := json.Unmarshal(line, &a); err != nil {
			return c, fleetscore.Errorf(fleetscore.Corrupt, "read Delta log", string(name), "%w", err)
		}
		switch {
		case a.Add != nil:
			f, err := readAdd(a.Add)
			if err != nil {
				return c, fleetscore.Errorf(fleetscore.Corrupt, "read Delta log", string(name), "%w", err)
			}
			c.Add, c.SameRows = append(c.Add, *f), c.SameRows && !a.Add.DataChange
		case a.Txn != nil:
			c.Txns[a.Txn.AppID] = a.Txn.Version
		case a.Info.Clocks != nil && json.Unmarshal(a.Info.Clocks, &c.Clocks) != nil:
			c.Clocks = Clocks{} // other programs may write anything into commitInfo
		}
	}
	return c, nil
}
