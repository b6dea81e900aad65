package table

import (
	"bytes"
	"context"
	"io"

	"github.com/parquet-go/parquet-go"

	"github.com/fleetscore/fleetscore"
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
		in, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
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
