// Package foreign reads the logs of Delta tables that other programs wrote, such as
// delta-rs and Spark: which files a table has, how its columns are named in them, and
// which of their rows were deleted. What it doesn't know how to honour it refuses by
// name, so that no row is read that the table doesn't have.
//
// It follows the Delta transaction log protocol
// (https://github.com/delta-io/delta/blob/master/PROTOCOL.md), readers' version 3. It
// reads no rows, writes nothing and starts no goroutines.
package foreign

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Table is a table as its log's last version says.
type Table struct {
	Version   int64
	Columns   []Column // those of partitions included
	Files     []File   // by path
	Settings  map[string]string
	Partition []string // names of the columns by which files are partitioned
}

// Column is a column of a table.
type Column struct {
	Name     string
	Type     string // of Delta; "struct", "array" or "map" for what has parts
	Physical string // its name in files
	ID       int    // its field's id in files, 0 where names count
}

// File is a data file of a table.
type File struct {
	Path      fleetscore.BlobName
	SizeBytes int64
	Partition map[string]*string // values of the partition columns by their names; nil is null
	vector    *vector
	stats     string // JSON; empty where there are none
}

// Bounds are the least and the largest value of a column in the file, as the log's
// statistics say in JSON; false where they don't say, or where some rows have no value.
// Texts may be cut off there, and times are cut to milliseconds.
func (f *File) Bounds(column Column) (least, largest json.RawMessage, ok bool) {
	var stats struct {
		MinValues, MaxValues, NullCount map[string]json.RawMessage
	}
	if f.stats == "" || json.Unmarshal([]byte(f.stats), &stats) != nil {
		return nil, nil, false
	}
	least, largest = stats.MinValues[column.Physical], stats.MaxValues[column.Physical]
	return least, largest, least != nil && largest != nil && string(stats.NullCount[column.Physical]) == "0"
}

const (
	op      = "read Delta table"
	logArea = "_delta_log/"
)

// features are what a reader must know of and this one does.
var features = []string{"columnMapping", "deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "typeWidening", "typeWidening-preview"}

type actionLine struct {
	Protocol *protocol
	MetaData *metaData
	Add      *addFile
	Remove   *struct{ Path string }
	Sidecar  *struct{ Path string }
}

type protocol struct {
	MinReaderVersion int
	ReaderFeatures   []string
}

type metaData struct {
	SchemaString     string
	PartitionColumns []string
	Configuration    map[string]string
}

type addFile struct {
	Path            string
	Size            int64
	PartitionValues map[string]*string
	DeletionVector  *vector
	Stats           string
}

// state is the log read so far.
type state struct {
	b        store.Bucket
	protocol *protocol
	meta     *metaData
	files    map[string]*addFile
}

// Open reads the log of the table at the root of a bucket.
func Open(ctx context.Context, b store.Bucket) (*Table, error) {
	l, err := list(ctx, b)
	if err != nil {
		return nil, err
	}
	s := &state{b: b, files: map[string]*addFile{}}
	next := int64(0)
	if l.checkpoint >= 0 {
		for _, name := range l.parts {
			if err := s.checkpoint(ctx, name); err != nil {
				return nil, err
			}
		}
		next = l.checkpoint + 1
	}
	for _, version := range l.commits {
		if version < next {
			continue
		}
		if version > next {
			return nil, corrupt(commitName(next), "the commit is missing, but a later one is there")
		}
		if err := s.file(ctx, commitName(version)); err != nil {
			return nil, err
		}
		next++
	}
	if next == 0 {
		return nil, corrupt(commitName(0), "the log's first commit is gone, and there is no checkpoint")
	}
	return s.table(next - 1)
}

func corrupt(name, format string, args ...any) error {
	return fleetscore.Errorf(fleetscore.Corrupt, op, name, format, args...)
}

func commitName(version int64) string { return fmt.Sprintf("%s%020d.json", logArea, version) }

// logFiles is what a log consists of.
type logFiles struct {
	commits    []int64 // in order
	checkpoint int64   // version of the newest whole checkpoint; -1 without one
	parts      []string
}

// list finds commits and the newest checkpoint that is whole. A checkpoint is
// N.checkpoint.parquet, N.checkpoint.<uuid>.json or .parquet, or the parts
// N.checkpoint.<i>.<of>.parquet.
func list(ctx context.Context, b store.Bucket) (logFiles, error) {
	l := logFiles{checkpoint: -1}
	parts := map[string][]string{} // by version and number of parts
	for i, err := range b.List(ctx, logArea, store.ListOptions{Delimiter: true}) {
		if err != nil {
			return l, err
		}
		name := string(i.Name)
		p := strings.Split(strings.TrimPrefix(name, logArea), ".")
		version, err := strconv.ParseInt(p[0], 10, 64)
		switch {
		case err != nil || len(p[0]) != 20 || len(p) < 2:
		case len(p) == 2 && p[1] == "json":
			l.commits = append(l.commits, version)
		case p[1] != "checkpoint" || version < l.checkpoint:
		case len(p) == 3 && p[2] == "parquet", len(p) == 4 && (p[3] == "parquet" || p[3] == "json"):
			l.checkpoint, l.parts = version, []string{name}
		case len(p) == 5 && p[4] == "parquet":
			of, err := strconv.Atoi(p[3])
			id := p[0] + "." + p[3]
			parts[id] = append(parts[id], name)
			if err == nil && len(parts[id]) == of {
				l.checkpoint, l.parts = version, parts[id]
			}
		}
	}
	slices.Sort(l.commits)
	if l.checkpoint < 0 && len(l.commits) == 0 {
		return l, fleetscore.Errorf(fleetscore.NotFound, op, logArea, "the log has no commits")
	}
	return l, nil
}

// checkpoint reads a checkpoint, and the sidecars that hold parts of it.
func (s *state) checkpoint(ctx context.Context, name string) error {
	var sidecars []string
	var err error
	if strings.HasSuffix(name, ".json") {
		sidecars, err = s.lines(ctx, name)
	} else {
		sidecars, err = s.parquet(ctx, name)
	}
	for _, side := range sidecars {
		if err == nil {
			_, err = s.parquet(ctx, logArea+"_sidecars/"+side)
		}
	}
	return err
}

func (s *state) file(ctx context.Context, name string) error {
	_, err := s.lines(ctx, name)
	return err
}

// lines reads a file of actions in JSON.
func (s *state) lines(ctx context.Context, name string) (sidecars []string, err error) {
	data, err := store.ReadAll(ctx, s.b, fleetscore.BlobName(name))
	if err != nil {
		return nil, err
	}
	var actions []actionLine
	n := 0
	for line := range bytes.Lines(data) {
		n++
		var a actionLine
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if err := json.Unmarshal(line, &a); err != nil {
			return nil, corrupt(name, "line %d: %w", n, err)
		}
		actions = append(actions, a)
	}
	for _, a := range actions { // a commit's actions may stand in any order: removes first
		if a.Remove != nil {
			delete(s.files, a.Remove.Path)
		}
	}
	for _, a := range actions {
		switch {
		case a.Protocol != nil:
			s.protocol = a.Protocol
		case a.MetaData != nil:
			s.meta = a.MetaData
		case a.Add != nil:
			s.files[a.Add.Path] = a.Add
		case a.Sidecar != nil:
			sidecars = append(sidecars, a.Sidecar.Path)
		}
	}
	return sidecars, nil
}

// table judges what was read.
func (s *state) table(version int64) (*Table, error) {
	if s.meta == nil || s.protocol == nil {
		return nil, corrupt(commitName(0), "the log has no protocol or no metaData action")
	}
	if err := s.refuse(); err != nil {
		return nil, err
	}
	t := &Table{Version: version, Settings: s.meta.Configuration, Partition: s.meta.PartitionColumns}
	var err error
	if t.Columns, err = s.columns(); err != nil {
		return nil, err
	}
	for _, path := range slices.Sorted(maps.Keys(s.files)) {
		a := s.files[path]
		f := File{SizeBytes: a.Size, Partition: map[string]*string{}, vector: a.DeletionVector, stats: a.Stats}
		name, err := url.PathUnescape(path)
		if err != nil {
			return nil, corrupt(path, "%w", err)
		}
		if strings.Contains(path, "://") || strings.HasPrefix(name, "/") {
			return nil, fleetscore.Errorf(fleetscore.Invalid, op, path, "the file lies outside the table's folder, as in a shallow clone").
				WithHint("make a deep clone, or write the table anew")
		}
		f.Path = fleetscore.BlobName(name)
		for _, p := range t.Partition {
			i := slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == p })
			if i < 0 {
				return nil, corrupt(logArea, "the schema lacks the partition column %q", p)
			}
			v := a.PartitionValues[t.Columns[i].Physical]
			if v != nil && *v == "" {
				v = nil // the protocol writes null so, too
			}
			f.Partition[p] = v
		}
		t.Files = append(t.Files, f)
	}
	return t, nil
}

// refuse names what the table needs of its readers and this one lacks.
func (s *state) refuse() error {
	for key := range s.meta.Configuration {
		if strings.HasPrefix(key, "delta.coordinatedCommits.") {
			return fleetscore.Errorf(fleetscore.Invalid, op, logArea, "its commits are kept by a catalog (%s), which isn't asked", key).
				WithHint("copy the table to one without a commit coordinator")
		}
	}
	if s.protocol.MinReaderVersion > 3 {
		return fleetscore.Errorf(fleetscore.Invalid, op, logArea, "it needs reader version %d; 1 to 3 are supported", s.protocol.MinReaderVersion)
	}
	for _, f := range s.protocol.ReaderFeatures {
		if !slices.Contains(features, f) {
			return fleetscore.Errorf(fleetscore.Invalid, op, logArea, "it needs the reader feature %s, which isn't supported; supported are %s", f, strings.Join(features, ", ")).
				WithHint("drop the feature (ALTER TABLE … DROP FEATURE %s), or export the table as Parquet", f)
		}
	}
	return nil
}

// columns reads the schema.
func (s *state) columns() ([]Column, error) {
	var schema struct {
		Fields []struct {
			Name     string
			Type     json.RawMessage
			Metadata map[string]json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(s.meta.SchemaString), &schema); err != nil {
		return nil, corrupt(logArea, "schemaString: %w", err)
	}
	mode := s.meta.Configuration["delta.columnMapping.mode"]
	if mode != "" && mode != "none" && mode != "name" && mode != "id" {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, logArea, "the column mapping mode %q isn't supported", mode)
	}
	var out []Column
	for _, f := range schema.Fields {
		c := Column{Name: f.Name, Physical: f.Name}
		if json.Unmarshal(f.Type, &c.Type) != nil {
			var nested struct{ Type string }
			if err := json.Unmarshal(f.Type, &nested); err != nil {
				return nil, corrupt(logArea, "the type of column %q: %w", f.Name, err)
			}
			c.Type = nested.Type
		}
		if mode == "name" || mode == "id" {
			if err := json.Unmarshal(f.Metadata["delta.columnMapping.physicalName"], &c.Physical); err != nil {
				return nil, corrupt(logArea, "column %q has no physical name: %w", f.Name, err)
			}
		}
		if mode == "id" {
			if err := json.Unmarshal(f.Metadata["delta.columnMapping.id"], &c.ID); err != nil {
				return nil, corrupt(logArea, "column %q has no id: %w", f.Name, err)
			}
		}
		out = append(out, c)
	}
	return out, nil
}
