// Package reference keeps the reference data that queries join with: files of the store,
// each with the versions that it had.
//
// A file is looked at from time to time. If it has changed, a copy is kept as a new
// version, which is in force for readings from a time on that lies a little ahead, so that
// no reading of that time was taken yet. So the version that a reading is joined with
// depends on the reading's time alone, also when the log is read again later.
//
// A Set is used by several goroutines at once. Run owns no goroutine after it has returned.
package reference

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/query/value"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table/records"
)

// settle is how far ahead a new version comes into force. Readings are handed on at the earliest
// when the watermark has passed them, which is never later than now.
const settle = 5 * time.Second

// maxBytes bounds a file of reference data, which is kept in memory.
const maxBytes = 256 << 20

// Version is one state of a file.
type Version struct {
	From fleetscore.Micros // in force for readings of this time and later ones; the first version for all earlier ones too
	Blob fleetscore.BlobName
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

	mu       sync.Mutex // guards what follows
	versions map[string][]Version
	rows     map[fleetscore.BlobName][]*value.Record // of versions that were asked for
}

// New makes a Set. Nothing is read.
func New(cfg map[string]fleetscore.ReferenceConfig, deps Deps) *Set {
	return &Set{cfg: cfg, deps: deps, versions: map[string][]Version{}, rows: map[fleetscore.BlobName][]*value.Record{}}
}

// folder is the prefix of a file's versions.
func folder(name string) string { return "references/_versions/" + name + "/" }

// Load reads which versions there are. Queries must not run before.
func (s *Set) Load(ctx context.Context) error {
	for name := range s.cfg {
		var list []Version
		for info, err := range s.deps.Store.List(ctx, folder(name), store.ListOptions{}) {
			if err != nil {
				return err
			}
			from, _, _ := strings.Cut(path.Base(string(info.Name)), "-")
			if at, err := strconv.ParseInt(from, 10, 64); err == nil {
				list = append(list, Version{fleetscore.Micros(at), info.Name})
			}
		}
		slices.SortFunc(list, func(a, b Version) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Blob, b.Blob)) })
		s.mu.Lock()
		s.versions[name] = list
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
	digest = digest[strings.LastIndexByte(digest, ':')+1:][:16] + path.Ext(c.Path)
	s.mu.Lock()
	known := s.versions[name]
	s.mu.Unlock()
	v := Version{}
	if n := len(known); n > 0 {
		if strings.HasSuffix(string(known[n-1].Blob), digest) {
			return nil
		}
		v.From = max(fleetscore.MicrosOf(s.deps.Now().Add(settle)), known[n-1].From+1)
	}
	v.Blob = fleetscore.BlobName(fmt.Sprintf("%s%020d-%s", folder(name), v.From, digest))
	if err := store.WriteAll(ctx, s.deps.Store, v.Blob, data, store.PutOptions{}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions[name] = append(slices.Clip(known), v)
	s.deps.Log.Info("reference data has a new version", "name", name, "rows", len(rows), "in_force_from", v.From)
	return nil
}

// Versions are those of a file, in the order in which they come into force. Kind Unavailable if there is none.
func (s *Set) Versions(name string) ([]Version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.versions[name]) == 0 {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "join with reference data", name, "its file %s couldn't be read yet", s.cfg[name].Path)
	}
	return s.versions[name], nil
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
