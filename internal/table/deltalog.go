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
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// The actions of a Delta log that we read and write, as the Delta transaction
// log protocol names them. docs/formats/delta.md says which and why.
type action struct {
	Protocol   *protocolAction `json:"protocol,omitempty"`
	MetaData   *metaAction     `json:"metaData,omitempty"`
	Txn        *txnAction      `json:"txn,omitempty"`
	Add        *addAction      `json:"add,omitempty"`
	Remove     *removeAction   `json:"remove,omitempty"`
	CommitInfo map[string]any  `json:"commitInfo,omitempty"`
}

// readAction leaves out what we never read, such as commitInfo, which may hold
// anything.
type readAction struct {
	Protocol *protocolAction `json:"protocol"`
	MetaData *metaAction     `json:"metaData"`
	Txn      *txnAction      `json:"txn"`
	Add      *addAction      `json:"add"`
	Remove   *removeAction   `json:"remove"`
}

type protocolAction struct {
	MinReader int `json:"minReaderVersion"`
	MinWriter int `json:"minWriterVersion"`
}

type metaAction struct {
	ID               string            `json:"id"`
	Format           formatSpec        `json:"format"`
	SchemaString     string            `json:"schemaString"`
	PartitionColumns []string          `json:"partitionColumns"`
	Configuration    map[string]string `json:"configuration"`
	CreatedTime      int64             `json:"createdTime"` // milliseconds
}

type formatSpec struct {
	Provider string            `json:"provider"`
	Options  map[string]string `json:"options"`
}

type txnAction struct {
	AppID   string `json:"appId"`
	Version int64  `json:"version"`
	Updated int64  `json:"lastUpdated,omitempty"`
}

type addAction struct {
	Path             string            `json:"path"`
	PartitionValues  map[string]string `json:"partitionValues"`
	Size             int64             `json:"size"`
	ModificationTime int64             `json:"modificationTime"`
	DataChange       bool              `json:"dataChange"`
	Stats            string            `json:"stats,omitempty"`
	Tags             map[string]string `json:"tags,omitempty"`
}

type removeAction struct {
	Path                 string            `json:"path"`
	DeletionTimestamp    int64             `json:"deletionTimestamp"`
	DataChange           bool              `json:"dataChange"`
	ExtendedFileMetadata bool              `json:"extendedFileMetadata"`
	PartitionValues      map[string]string `json:"partitionValues"`
	Size                 int64             `json:"size"`
}

// Snapshot is a table as of one version of its log. It must not be modified.
type Snapshot struct {
	Version int64
	Schema  TableSchema
	Files   []fleetscore.DataFile // the visible ones, by path
	Txns    map[string]int64
}

// Rows is how many rows the table has.
func (s *Snapshot) Rows() (n int64) {
	for _, f := range s.Files {
		n += f.Rows
	}
	return n
}

// file finds a visible file.
func (s *Snapshot) file(name string) (fleetscore.DataFile, bool) {
	i, ok := slices.BinarySearchFunc(s.Files, name, func(f fleetscore.DataFile, name string) int { return strings.Compare(f.Path, name) })
	if !ok {
		return fleetscore.DataFile{}, false
	}
	return s.Files[i], true
}

// Options say how a table is named in messages. With the zero value messages name only
// files.
type Options struct {
	Name   string // for messages, such as "dataset readings"
	Folder string // where the table lies in the store, for messages
	// Report is called when the table is found damaged, and with an empty problem when
	// all of it could be read again. If works is true, the table can be used although it
	// is damaged. Report may be nil; it must not use the table.
	Report func(problem string, works bool)
	Now    func() time.Time // that commits bear; nil means time.Now
}

func (o Options) now() time.Time {
	now := o.Now
	if now == nil {
		now = time.Now
	}
	return now()
}

// Delta is a table in the Delta Lake format.
type Delta struct {
	b   store.Bucket
	opt Options

	every, inline int64         // commits from checkpoint to checkpoint, by Checkpoint and by a commit
	keep          time.Duration // for which commits that a checkpoint replaced stay

	commits     lock       // held while a commit is made; above mu
	checkpoints sync.Mutex // held while a checkpoint is written; above mu

	mu       lock      // guards the state, which is the log read so far; held while it is read on
	next     int64     // version of the first commit not read yet
	checked  int64     // version of the last checkpoint known
	looked   time.Time // when the log was read last
	whole    bool      // the log was looked through for missing commits
	meta     *TableSchema
	metaData *metaAction
	file     map[string]fleetscore.DataFile
	gone     map[string]int64 // removed files and when, in milliseconds
	txns     map[string]int64
	updated  map[string]int64 // when entries of txns were set, in milliseconds, where known
	snap     *Snapshot        // as it was made last; nil when to be made from nothing
	// What changed since snap was made: paths of files that came or went, and whether
	// entries of txns did.
	touched     map[string]bool
	txnsChanged bool
	asides      map[int64]asideOf // by version, what the last commits say of readings that were set aside
	deleted     map[string]bool   // those of gone that Vacuum knows to be deleted
	lastSwept   string            // the date's folder that Vacuum listed last in its turn

	damageMu sync.Mutex // guards damage
	damage   damage
}

// OpenDelta is the table at the root of a bucket (use store.Sub). Nothing is read
// yet; the table need not exist.
func OpenDelta(b store.Bucket) *Delta { return OpenTable(b, Options{}) }

// OpenTable is OpenDelta for a table that has a name.
func OpenTable(b store.Bucket, opt Options) *Delta {
	return &Delta{b: b, opt: opt, commits: newLock(), mu: newLock(), every: checkpointEvery, inline: checkpointInline, keep: keepCommits, file: map[string]fleetscore.DataFile{}, gone: map[string]int64{}, deleted: map[string]bool{},
		txns: map[string]int64{}, updated: map[string]int64{}}
}

func commitName(version int64) fleetscore.BlobName {
	return fleetscore.BlobName(fmt.Sprintf("_delta_log/%020d.json", version))
}

// maxCommitBytes is the size of the largest commit of another program that is read.
const maxCommitBytes = 256 << 20

// Snapshot reads what was committed since the last call and returns the table as
// it is now. Kind NotFound if there is no table.
func (d *Delta) Snapshot(ctx context.Context) (*Snapshot, error) {
	if err := d.mu.take(ctx); err != nil {
		return nil, fleetscore.Wrap("read Delta log", d.opt.Name, err)
	}
	defer d.mu.Unlock()
	return d.refresh(ctx)
}

func (d *Delta) refresh(ctx context.Context) (*Snapshot, error) {
	now := d.opt.now()
	if d.next == 0 || now.Sub(d.looked) > lookAgain {
		if err := d.fromCheckpoint(ctx); err != nil {
			return nil, err
		}
	}
	if err := d.follow(ctx); err != nil {
		return nil, d.damagedLog(err)
	}
	if d.next == 0 {
		if err := d.begin(ctx); err != nil {
			return nil, d.damagedLog(err)
		}
	}
	if !d.whole {
		if err := d.gap(ctx); err != nil {
			return nil, d.damagedLog(err)
		}
		d.whole = true
	}
	d.looked = now
	snap, err := d.snapshot()
	return snap, d.damagedLog(err)
}

// follow reads the commits that follow what was read.
func (d *Delta) follow(ctx context.Context) error {
	for {
		name := commitName(d.next)
		data, err := d.readCommit(ctx, name)
		if fleetscore.NotFound.Is(err) {
			return nil
		}
		if err == nil {
			err = d.read(string(name), data)
		}
		if fleetscore.Corrupt.Is(err) {
			at := d.next // a checkpoint behind this commit makes it unnecessary
			if e := d.fromCheckpoint(ctx); e != nil {
				return e
			}
			if d.next > at {
				continue
			}
		}
		if err != nil {
			return err
		}
		d.noteAside(d.next, data)
		d.next++
	}
}

// begin reads a log that has no first commit any more: from the newest checkpoint
// that can be read.
func (d *Delta) begin(ctx context.Context) error {
	var checkpoints []int64
	commits := false
	for i, err := range d.b.List(ctx, "_delta_log/", store.ListOptions{}) {
		if err != nil {
			return err
		}
		switch version, kind := logName(i.Name); kind {
		case checkpointEnding:
			checkpoints = append(checkpoints, version)
		case commitEnding:
			commits = true
		}
	}
	if len(checkpoints) == 0 && !commits {
		return fleetscore.Errorf(fleetscore.NotFound, "read Delta log", "_delta_log", "there is no table yet")
	}
	if len(checkpoints) == 0 { // another process may have begun the table since its first commit was asked for
		if err := d.follow(ctx); err != nil || d.next > 0 {
			return err
		}
	}
	problem := error(fleetscore.Errorf(fleetscore.Corrupt, "read Delta log", string(commitName(0)), "the log's first commit is gone, and there is no checkpoint"))
	for i, version := range slices.Backward(checkpoints) {
		err := d.loadCheckpoint(ctx, version)
		if err == nil {
			return d.follow(ctx)
		}
		if !fleetscore.Corrupt.Is(err) {
			return err
		}
		if i == len(checkpoints)-1 {
			problem = err
		}
	}
	return problem
}

// The endings of the log's files.
const (
	commitEnding     = ".json"
	checkpointEnding = ".checkpoint.parquet"
)

// logName takes the name of a commit or checkpoint apart. The ending is empty for
// any other file, such as those that other programs leave there.
func logName(name fleetscore.BlobName) (version int64, ending string) {
	number, rest, _ := strings.Cut(strings.TrimPrefix(string(name), "_delta_log/"), ".")
	version, err := strconv.ParseInt(number, 10, 64)
	if err != nil || len(number) != 20 || version < 0 || rest != commitEnding[1:] && rest != checkpointEnding[1:] {
		return 0, ""
	}
	return version, "." + rest
}

// gap finds out whether the log really ends where reading stopped, or whether a commit in
// its middle is missing: then the commits after it would be ignored and overwritten.
func (d *Delta) gap(ctx context.Context) error {
	newest, evidence := int64(-1), ""
	for i, err := range d.b.List(ctx, "_delta_log/", store.ListOptions{After: commitName(d.next - 1)}) {
		if err != nil {
			return err
		}
		if version, ending := logName(i.Name); ending != "" && version >= d.next {
			newest, evidence = version, path.Base(string(i.Name))
		}
	}
	if newest < 0 {
		return nil
	}
	if err := d.follow(ctx); err != nil { // somebody may have committed just now
		return err
	}
	if d.next <= newest {
		return fleetscore.Errorf(fleetscore.Corrupt, "read Delta log", string(commitName(d.next)), "the commit is missing, but what came later is there: %s", evidence)
	}
	return nil
}

// readCommit reads a commit, up to a maximal size.
func (d *Delta) readCommit(ctx context.Context, name fleetscore.BlobName) ([]byte, error) {
	r, err := d.b.Get(ctx, name, 0, maxCommitBytes+1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err == nil && len(data) > maxCommitBytes {
		err = fleetscore.Errorf(fleetscore.Corrupt, "read Delta log", string(name), "it has more than %d bytes", maxCommitBytes)
	}
	return data, fleetscore.Wrap("read Delta log", string(name), err)
}

// snapshot is the table as of what was read. It costs little where little changed
// since the last one: a commit must not become slower as the table grows.
func (d *Delta) snapshot() (*Snapshot, error) {
	if d.meta == nil {
		return nil, fleetscore.Errorf(fleetscore.Corrupt, "read Delta log", string(commitName(0)), "it has no metaData action")
	}
	last := d.snap
	if last != nil && last.Version == d.next-1 && !d.txnsChanged && len(d.touched) == 0 {
		return last, nil
	}
	snap := &Snapshot{Version: d.next - 1, Schema: *d.meta}
	if last == nil {
		snap.Files = slices.SortedFunc(maps.Values(d.file), byPath)
		snap.Txns = maps.Clone(d.txns)
	} else {
		snap.Files = last.Files
		if len(d.touched) > 0 {
			snap.Files = d.merged(last.Files)
		}
		snap.Txns = last.Txns
		if d.txnsChanged {
			snap.Txns = maps.Clone(d.txns)
		}
	}
	d.snap, d.touched, d.txnsChanged = snap, nil, false
	return snap, nil
}

func byPath(a, b fleetscore.DataFile) int { return strings.Compare(a.Path, b.Path) }

// merged are the files by path, made of those before without what was touched since.
func (d *Delta) merged(before []fleetscore.DataFile) []fleetscore.DataFile {
	out := make([]fleetscore.DataFile, 0, max(len(d.file), len(before)))
	for _, path := range slices.Sorted(maps.Keys(d.touched)) {
		at, was := slices.BinarySearchFunc(before, path, func(f fleetscore.DataFile, path string) int { return strings.Compare(f.Path, path) })
		out = append(out, before[:at]...)
		if before = before[at:]; was {
			before = before[1:]
		}
		if f, is := d.file[path]; is {
			out = append(out, f)
		}
	}
	return append(out, before...)
}

// read applies one commit to the state.
func (d *Delta) read(name string, data []byte) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return fleetscore.Errorf(fleetscore.Corrupt, "read Delta log", name, "the commit is empty")
	}
	if err := checkDigest(data); err != nil {
		return fleetscore.Errorf(fleetscore.Corrupt, "read Delta log", name, "%w", err)
	}
	var actions []action
	i := 0
	for line := range bytes.SplitSeq(data, []byte{'\n'}) {
		if i++; len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var a readAction
		if err := json.Unmarshal(line, &a); err != nil {
			return fleetscore.Errorf(fleetscore.Corrupt, "read Delta log", name, "line %d: %w", i, err)
		}
		if a != (readAction{}) { // what we know nothing of costs no memory
			actions = append(actions, action{Protocol: a.Protocol, MetaData: a.MetaData, Txn: a.Txn, Add: a.Add, Remove: a.Remove})
		}
	}
	if err := d.apply(actions); err != nil {
		return fleetscore.Errorf(fleetscore.Corrupt, "read Delta log", name, "%w", err)
	}
	return nil
}

// digestEntry is the entry of a commit's commitInfo, which stands in its first
// line, with the SHA-256 of the lines that follow.
const digestEntry = "fleetscore.sha256"

// checkDigest finds damage that left a commit readable. Commits of other programs
// have no digest.
func checkDigest(data []byte) error {
	line, rest, _ := bytes.Cut(data, []byte{'\n'})
	if !bytes.Contains(line, []byte(digestEntry)) {
		return nil
	}
	var first struct {
		CommitInfo struct {
			Digest *string `json:"fleetscore.sha256"`
		} `json:"commitInfo"`
	}
	if err := json.Unmarshal(line, &first); err != nil {
		return fmt.Errorf("line 1: %w", err)
	}
	if want := first.CommitInfo.Digest; want != nil && *want != fleetscore.DigestOf(rest).String() {
		return errors.New("its content was changed: it doesn't fit the digest in its first line")
	}
	return nil
}

// apply applies actions to the state, all or none.
func (d *Delta) apply(actions []action) error {
	adds := make([]*fleetscore.DataFile, len(actions))
	removes := make([]string, len(actions))
	meta := d.meta
	for i, a := range actions {
		var err error
		switch {
		case a.Protocol != nil && (a.Protocol.MinReader > 1 || a.Protocol.MinWriter > 2):
			err = fmt.Errorf("it needs reader version %d and writer version %d; 1 and 2 are supported", a.Protocol.MinReader, a.Protocol.MinWriter)
		case a.MetaData != nil:
			meta, err = readMeta(a.MetaData)
		case a.Add != nil:
			adds[i], err = readAdd(a.Add)
		case a.Remove != nil:
			removes[i], err = url.PathUnescape(a.Remove.Path)
		}
		if err != nil {
			return fmt.Errorf("action %d: %w", i+1, err)
		}
	}
	if d.touched == nil {
		d.touched = map[string]bool{}
	}
	for i, a := range actions { // a commit's actions may stand in any order: removes first
		if removes[i] != "" {
			d.touched[removes[i]] = true
			delete(d.file, removes[i])
			d.gone[removes[i]] = a.Remove.DeletionTimestamp
		}
	}
	d.meta = meta
	for i, a := range actions {
		switch {
		case a.MetaData != nil:
			d.metaData = a.MetaData
		case a.Add != nil:
			d.file[adds[i].Path] = *adds[i]
			d.touched[adds[i].Path] = true
			delete(d.gone, adds[i].Path)
		case a.Txn != nil:
			d.txns[a.Txn.AppID] = a.Txn.Version
			d.txnsChanged = true
			if a.Txn.Updated > 0 {
				d.updated[a.Txn.AppID] = a.Txn.Updated
			}
		}
	}
	return nil
}

type deltaStats struct {
	NumRecords int64          `json:"numRecords"`
	Min        map[string]any `json:"minValues,omitempty"`
	Max        map[string]any `json:"maxValues,omitempty"`
}

func writeAdd(f fleetscore.DataFile, timeName string, now time.Time) (*addAction, error) {
	// Delta's statistics hold milliseconds: round outwards.
	minMS, maxMS := f.First.Time().Truncate(time.Millisecond), (f.Last + 999).Time().Truncate(time.Millisecond)
	stats, err := json.Marshal(deltaStats{NumRecords: f.Rows,
		Min: map[string]any{timeName: minMS.Format("2006-01-02T15:04:05.000Z")},
		Max: map[string]any{timeName: maxMS.Format("2006-01-02T15:04:05.000Z")}})
	if err != nil {
		return nil, err
	}
	return &addAction{
		Path:             escapePath(f.Path),
		PartitionValues:  map[string]string{"date": f.Date, "hour": strconv.Itoa(f.Hour)},
		Size:             f.SizeBytes,
		ModificationTime: now.UnixMilli(),
		DataChange:       true,
		Stats:            string(stats),
		Tags: map[string]string{
			"fleetscore.shards": fmt.Sprintf("%d-%d", f.Shards.First, f.Shards.Last),
			"fleetscore.first":  strconv.FormatInt(int64(f.First), 10),
			"fleetscore.last":   strconv.FormatInt(int64(f.Last), 10),
		},
	}, nil
}

// escapePath encodes a path as the protocol asks (RFC 2396), keeping what our
// names are made of.
func escapePath(p string) string {
	return strings.ReplaceAll((&url.URL{Path: p}).EscapedPath(), "+", "%2B")
}

func readAdd(a *addAction) (*fleetscore.DataFile, error) {
	f, err := dataFile(a.Path, a.Size, a.Stats, func(key string) string { return a.PartitionValues[key] }, func(key string) string { return a.Tags[key] })
	return &f, err
}

// dataFile is a file as an add action describes it, with its partition values and tags
// by their keys.
func dataFile(path string, size int64, stats string, partition, tag func(key string) string) (f fleetscore.DataFile, err error) {
	name, err := url.PathUnescape(path)
	if err != nil {
		return f, err
	}
	if err := store.CheckName(fleetscore.BlobName(name)); err != nil {
		return f, err
	}
	f = fleetscore.DataFile{Path: name, SizeBytes: size, Date: partition("date")}
	if h := partition("hour"); h != "" {
		if f.Hour, err = strconv.Atoi(h); err != nil {
			return f, fmt.Errorf("partition value hour: %w", err)
		}
	}
	if f.Rows, err = numRecords(stats); err != nil {
		return f, fmt.Errorf("stats: %w", err)
	}
	if f.Rows < 0 || f.SizeBytes < 0 || f.Hour < 0 || f.Hour > 23 {
		return f, fmt.Errorf("file %s has %d rows, %d bytes and hour %d", name, f.Rows, f.SizeBytes, f.Hour)
	}
	first, err1 := strconv.ParseInt(tag("fleetscore.first"), 10, 64)
	last, err2 := strconv.ParseInt(tag("fleetscore.last"), 10, 64)
	least, most, _ := strings.Cut(tag("fleetscore.shards"), "-")
	s0, err3 := strconv.ParseUint(least, 10, 8)
	s1, err4 := strconv.ParseUint(most, 10, 8)
	if err := errors.Join(err1, err2, err3, err4); err != nil || s0 > s1 {
		return f, fmt.Errorf("file %s has no tags of Fleetscore's: was it added by another program?", name)
	}
	f.First, f.Last = fleetscore.Micros(first), fleetscore.Micros(last)
	f.Shards = fleetscore.ShardRange{First: fleetscore.Shard(s0), Last: fleetscore.Shard(s1)}
	return f, nil
}

// numRecords is how many rows statistics speak of. Ours begin with it; to look for it in
// the JSON of others takes much longer.
func numRecords(stats string) (int64, error) {
	const begin = `{"numRecords":`
	if rest, ours := strings.CutPrefix(stats, begin); ours {
		digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
		if after := rest[len(digits):]; digits != "" && after != "" && (after[0] == ',' || after[0] == '}') {
			return strconv.ParseInt(digits, 10, 64)
		}
	}
	if stats == "" {
		return 0, nil
	}
	var s struct {
		NumRecords int64 `json:"numRecords"`
	}
	err := json.Unmarshal([]byte(stats), &s)
	return s.NumRecords, err
}
