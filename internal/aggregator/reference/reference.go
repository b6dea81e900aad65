// Package reference keeps the reference data that queries join with: files of the store,
// each with the versions that it had.
//
// A file is looked at from time to time. If it has changed, a copy is kept as a new
// version, which is in force for readings from a time on that lies a little ahead. That time
// is chosen once the copy is written, and never before one that a query has passed; while
// the choice is being stored, queries that would pass that time wait. So the version that a
// reading is joined with depends on the reading's time alone, also when the log is read
// again later. A server that lost the lead can't add versions, see package journal.
//
// A Set is used by several goroutines at once. Run owns no goroutine after it has returned.
package reference

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/query/value"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/journal"
	"github.com/fleetscore/fleetscore/internal/table/records"
)

// settle is how far ahead a new version comes into force. Readings are handed on at the earliest
// when the watermark has passed them, which is never later than now.
const settle = 5 * time.Second

// maxBytes bounds a file of reference data, which is kept in memory.
const maxBytes = 256 << 20

// Version is one state of a file.
type Version struct {
	From fleetscore.Micros   `json:"from_us"` // in force for readings of this time and later ones; the first version for all earlier ones too
	Blob fleetscore.BlobName `json:"blob"`
}

// Deps is what a Set works with.
type Deps struct {
	Store  store.Bucket
	Log    *slog.Logger
	Health *obs.Health      // nil discards
	Now    func() time.Time // the trusted time
}

// Set is the reference data of a configuration.
type Set struct {
	cfg  map[string]fleetscore.ReferenceConfig
	deps Deps

	mu     sync.Mutex        // guards what follows
	passed fleetscore.Micros // other processes may have handed on readings up to this time
	files  map[string]*file
	rows   map[fleetscore.BlobName][]*value.Record // of versions that were asked for
}

// file is one of the files.
type file struct {
	journal  *journal.Journal[[]Version]
	versions []Version         // in the order of From, each once
	passed   fleetscore.Micros // queries may have handed on readings before this time
	pending  fleetscore.Micros // from which the version is in force that is being stored
	stored   chan struct{}     // closed when that has ended; nil if there is none
}

// New makes a Set. Nothing is read.
func New(cfg map[string]fleetscore.ReferenceConfig, deps Deps) *Set {
	return &Set{cfg: cfg, deps: deps, files: map[string]*file{}, rows: map[fleetscore.BlobName][]*value.Record{}}
}

// folder is the prefix of a file's versions.
func folder(name string) string { return "references/_versions/" + name + "/" }

// Load reads which versions there are, and takes care that another server adds none any more.
// Queries must not run before.
func (s *Set) Load(ctx context.Context) error {
	return s.load(ctx, func(folder string) (*journal.Journal[[]Version], []Version, error) {
		return journal.Take[[]Version](ctx, s.deps.Store, folder)
	})
}

// Read reads which versions there are, in a set that is only read.
func (s *Set) Read(ctx context.Context) error {
	return s.load(ctx, func(folder string) (*journal.Journal[[]Version], []Version, error) {
		list, err := journal.Last[[]Version](ctx, s.deps.Store, folder)
		return nil, list, err
	})
}

func (s *Set) load(ctx context.Context, read func(folder string) (*journal.Journal[[]Version], []Version, error)) error {
	for name := range s.cfg {
		j, list, err := read(folder(name) + "log/")
		if err != nil {
			return err
		}
		for i := 1; i < len(list); i++ {
			if list[i].From <= list[i-1].From {
				return fleetscore.Errorf(fleetscore.Corrupt, "read versions of reference data", name, "version %d is in force from %s, which isn't later than %s of the one before it", i+1, list[i].From, list[i-1].From).
					WithHint("remove the folder %slog from the store; versions then begin anew", folder(name))
			}
		}
		s.mu.Lock()
		s.files[name] = &file{journal: j, versions: list, passed: fleetscore.Micros(math.MinInt64)}
		s.mu.Unlock()
	}
	return nil
}

// Run looks at the files until ctx ends. Problems are shown in the health.
func (s *Set) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	for name, c := range s.cfg {
		all.Go(func() {
			ticker := time.NewTicker(c.Every.D())
			defer ticker.Stop()
			defer s.deps.Health.Report("reference data "+name, "") // the configuration may have it no more
			for {
				err := s.Refresh(ctx, name)
				if ctx.Err() != nil {
					return
				}
				why := ""
				if err != nil {
					why = fmt.Sprintf("the version that was read last stays in force: %v", err)
				}
				s.deps.Health.Report("reference data "+name, why)
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
				}
			}
		})
	}
	<-ctx.Done() // also without reference data
	return ctx.Err()
}

// Refresh looks at a file, and keeps a new version if it has changed. A file that can't be
// read is an error and changes nothing.
func (s *Set) Refresh(ctx context.Context, name string) error {
	const op = "read reference data"
	c := s.cfg[name]
	info, err := s.deps.Store.Stat(ctx, fleetscore.BlobName(c.Path))
	if fleetscore.NotFound.Is(err) {
		return fleetscore.Errorf(fleetscore.NotFound, op, name, "the store has no file %s", c.Path).WithHint("put it there; queries that join with it wait until then")
	} else if err != nil {
		return err
	}
	if info.SizeBytes > maxBytes {
		return fleetscore.Errorf(fleetscore.Invalid, op, name, "%s has %d MB, more than %d", c.Path, info.SizeBytes>>20, maxBytes>>20)
	}
	data, err := store.ReadAll(ctx, s.deps.Store, fleetscore.BlobName(c.Path))
	if err != nil {
		return err
	}
	rows, err := records.Read(c.Path, data)
	if err != nil {
		return err
	}
	digest := fleetscore.DigestOf(data).String()
	v := Version{Blob: fleetscore.BlobName(folder(name) + digest[strings.LastIndexByte(digest, ':')+1:] + path.Ext(c.Path))}
	s.mu.Lock()
	f := s.files[name]
	s.mu.Unlock()
	if n := len(f.versions); n > 0 && f.versions[n-1].Blob == v.Blob { // only Refresh changes versions
		return nil
	}
	if err := store.WriteAll(ctx, s.deps.Store, v.Blob, data, store.PutOptions{}); err != nil {
		return err
	}
	if err := s.add(ctx, name, f, v); err != nil {
		return err
	}
	s.deps.Log.Info("reference data has a new version", "name", name, "rows", len(rows), "in_force_from", f.versions[len(f.versions)-1].From)
	return nil
}

// Passed notes that queries of another process may have handed on readings up to a time. Its clock may have
// been ahead of this one's.
func (s *Set) Passed(to fleetscore.Micros) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed = max(s.passed, to)
}

// add puts a version in force, from a time on that no query has passed.
func (s *Set) add(ctx context.Context, name string, f *file, v Version) error {
	s.mu.Lock()
	if n := len(f.versions); n > 0 {
		v.From = max(fleetscore.MicrosOf(s.deps.Now().Add(settle)), f.versions[n-1].From+1, f.passed+1, s.passed+1)
	}
	f.pending, f.stored = v.From, make(chan struct{})
	list := append(slices.Clip(f.versions), v)
	s.mu.Unlock()
	trouble := new(lifecycle.Outages).Trouble(s.deps.Log)
	err := f.journal.Put(ctx, list)
	for pause := 100 * time.Millisecond; err != nil && fleetscore.KindOf(err).Retryable(); pause = min(2*pause, 5*time.Second) {
		trouble.Failed(slog.LevelWarn, "a new version of reference data can't be stored, which is tried again", err, "name", name)
		s.deps.Health.Report("reference data "+name, fmt.Sprintf("a new version can't be stored, and queries wait for it: %v", err))
		select {
		case <-ctx.Done():
			return err // nobody knows whether it is stored: queries pass its time only after another Load
		case <-time.After(pause):
			err = f.journal.Put(ctx, list)
		}
	}
	if fleetscore.Conflict.Is(err) || ctx.Err() != nil {
		return err // queries don't pass the time either, because another server's versions aren't known
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		f.versions = list
	}
	close(f.stored)
	f.stored = nil
	return err
}

// Versions are those of a file, in the order in which they come into force, for a query that
// hands on readings up to a time. It waits while it isn't certain which version is in force at
// that time. Kind Unavailable if there is no version.
func (s *Set) Versions(ctx context.Context, name string, to fleetscore.Micros) ([]Version, error) {
	for {
		s.mu.Lock()
		f := s.files[name]
		stored := f.stored
		if stored == nil || to < f.pending {
			defer s.mu.Unlock()
			if len(f.versions) == 0 {
				return nil, fleetscore.Errorf(fleetscore.Unavailable, "join with reference data", name, "its file %s couldn't be read yet", s.cfg[name].Path)
			}
			f.passed = max(f.passed, to)
			return f.versions, nil
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-stored:
		}
	}
}

// Rows are those of a version. They must not be changed.
func (s *Set) Rows(ctx context.Context, name string, v Version) ([]*value.Record, error) {
	s.mu.Lock()
	rows, ok := s.rows[v.Blob]
	s.mu.Unlock()
	if ok {
		return rows, nil
	}
	data, err := store.ReadAll(ctx, s.deps.Store, v.Blob)
	if err != nil {
		return nil, err
	}
	list, err := records.Read(string(v.Blob), data)
	if err != nil {
		return nil, err
	}
	rows = make([]*value.Record, len(list))
	for i, r := range list {
		rows[i] = r.Record
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for blob := range s.rows { // partitions go through the versions at about the same time
		if len(s.rows) >= 2*max(1, len(s.cfg)) {
			delete(s.rows, blob)
		}
	}
	s.rows[v.Blob] = rows
	return rows, nil
}
