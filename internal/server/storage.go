package server

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/natshub"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/store"
)

func (s *Server) openStorage(ctx context.Context) error {
	if err := s.openLedger(ctx); err != nil {
		return err
	}
	if err := s.openClock(ctx, s.Ledger); err != nil {
		return err
	}
	if err := s.openStore(ctx); err != nil {
		return err
	}
	blobs := filepath.Join(s.cfg.Dir, "store")
	if err := os.Chmod(blobs, 0o700); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return FolderError(blobs, err)
	}
	return nil
}

// openClock compares the machine's clock with the last times in ledger and hub. It must
// be called before anything uses the time.
func (s *Server) openClock(ctx context.Context, l ledger.Times) error {
	seen, err := l.LastTime(ctx)
	if err != nil {
		return err
	}
	if arrived := hub.LastArrival(filepath.Join(s.cfg.Dir, "hub")); arrived > 0 && arrived.Time().After(seen) {
		seen = arrived.Time()
	}
	deps := s.cfg.Clock
	deps.Log, deps.Health = s.log, s.health
	s.clock = clock.New(clock.Config{}, deps, seen)
	s.health.Now = s.clock.Now
	return nil
}

// openStore opens the store that the flag names, else the configuration in force,
// else the folder store. A cloud's store is tested once for the operations that commits
// need.
func (s *Server) openStore(ctx context.Context) error {
	if s.cfg.Store == "" {
		cfg, _, err := s.applied(ctx)
		if err != nil {
			return err
		}
		s.cfg.Store = cfg.Store
	}
	if s.cfg.Store == "" {
		s.cfg.Store = filepath.Join(s.cfg.Dir, "store")
	}
	if err := s.sameStore(); err != nil {
		return err
	}
	if s.postgres != nil {
		if err := s.postgres.BelongTo(ctx, s.storeOf(s.cfg.Store)); err != nil {
			return err
		}
	}
	b, err := store.Open(ctx, s.cfg.Store)
	if err != nil {
		return err
	}
	s.store, s.Catalog = b, catalog.NewReporting(b, s.health, func() time.Time { return s.clock.Now() })
	if d, ok := b.(*store.Dir); ok {
		s.storeURL = d.URL()
		return nil
	}
	return s.awaited(ctx, func() error { return store.Probe(ctx, b) })
}

// startPatience is how long a server that starts waits for a database or a store that can't be
// reached: both may start with the machine, or be away for a minute.
const startPatience = 2 * time.Minute

// awaited opens what lies outside of the server, again and again while it can't be reached.
func (s *Server) awaited(ctx context.Context, open func() error) error {
	var told string
	for end := time.Now().Add(startPatience); ; {
		err := open()
		if !fleetscore.Unavailable.Is(err) || ctx.Err() != nil {
			return err
		}
		if time.Now().After(end) {
			return fleetscore.Errorf(fleetscore.Unavailable, "start the server", s.cfg.Dir, "for %s: %w", startPatience, err).
				WithHint("start it again once that can be reached, or correct the address")
		}
		if text := err.Error(); text != told {
			s.log.Warn("the start waits, at most "+startPatience.String(), "error", err)
			told = text
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// sameStore refuses a store that doesn't belong to the folder's ledger and hub, because
// their positions and jobs refer to data of their own store.
func (s *Server) sameStore() error {
	file := filepath.Join(s.cfg.Dir, "store.url")
	now := s.storeName(s.cfg.Store)
	then, whole, err := readStoreName(file)
	if err != nil {
		return FolderError(file, err)
	}
	if !whole && then == "" {
		if _, err := os.Stat(filepath.Join(s.cfg.Dir, "store", catalog.DatasetFolder(""))); err == nil {
			then = s.storeName(filepath.Join(s.cfg.Dir, "store")) // the store that lies in the folder
		}
	}
	switch {
	case then == now && whole:
		return nil
	case then == now, !whole && strings.HasPrefix(now, then):
		if _, err := os.Stat(file); err == nil {
			s.log.Warn("the name of the store was cut off, as by a power cut, and is written anew", "file", file, "held", then, "store", now)
		}
		if err := durable.WriteFile(file, []byte(now+"\n"), 0o644); err != nil {
			return FolderError(file, err)
		}
		return nil
	case !whole:
		return fleetscore.Errorf(fleetscore.Corrupt, "open store", file, "the file was cut off and holds only %q, which is not the beginning of %s", then, now).
			WithHint("name the store that the data belong to, or write its address and a line break into %s", file)
	}
	return fleetscore.Errorf(fleetscore.Conflict, "open store", now, "the data of %s belong to the store %s", s.cfg.Dir, then).
		WithHint("name that store, or start with another --dir; to move, end the server, copy every blob and remove %s", file)
}

// readStoreName reads the name of a store, and whether the line with it is whole:
// a power cut can leave it empty, cut, or filled with zero bytes.
func readStoreName(file string) (name string, whole bool, err error) {
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", false, err
	}
	text := strings.TrimRight(string(data), "\x00")
	return strings.TrimSpace(text), strings.HasSuffix(text, "\n") && strings.TrimSpace(text) != "", nil
}

// storeName identifies a store, whichever way it is reached. A store inside --dir is
// named relative to it, so that --dir may be moved.
func (s *Server) storeName(address string) string {
	if !store.IsLocal(address) {
		return strings.TrimSuffix(withoutQuery(address), "/")
	}
	path := strings.TrimPrefix(address, "file://")
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if rel, err := filepath.Rel(s.cfg.Dir, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return path
}

// withoutQuery is an address without its parameters.
func withoutQuery(address string) string {
	bare, _, _ := strings.Cut(address, "?")
	return bare
}

// FolderError says why a folder can't be made or written, and what to do.
func FolderError(dir string, err error) error {
	kind, hint := fleetscore.Unavailable, "check the folder's owner and permissions, or pick another with --dir"
	if errors.Is(err, syscall.ENOSPC) {
		kind, hint = fleetscore.Exhausted, "the disk is full: free some space, or pick another disk with --dir"
	}
	return fleetscore.Errorf(kind, "make folder", dir, "%w", err).WithHint("%s", hint)
}

// log says which log the hub is: one in a folder, or on NATS servers if there is a URL.
type log struct {
	folder hub.Config
	nats   natshub.Config
}

// hubConfig is the part of the configuration that the hub itself depends on.
func (s *streams) hubConfig(c fleetscore.HubConfig) log {
	if n := c.NATS; n != nil {
		return log{nats: natshub.Config{URL: n.URL, Name: n.Name, Partitions: c.Partitions, Replicas: n.Replicas, Retention: c.Retention.Age.D(), Size: int64(c.Retention.Size), MaxBytes: int64(n.MaxMB) << 20,
			Credentials: n.Credentials, CA: n.CA, Certificate: n.Certificate, Key: n.Key}}
	}
	return log{folder: hub.Config{Dir: filepath.Join(s.server.cfg.Dir, "hub"), Partitions: c.Partitions, Retention: c.Retention.Age.D(), Size: int64(c.Retention.Size)}}
}

// open opens the log.
func (l log) open(ctx context.Context, deps hub.Deps) (hub.Hub, error) {
	if l.nats.URL != "" {
		return natshub.Open(ctx, l.nats, deps)
	}
	return hub.Open(ctx, l.folder, deps)
}

func (s *streams) openHub(ctx context.Context, cfg log) error {
	var outages lifecycle.Outages
	trouble := func() hub.Trouble {
		t := outages.Trouble(s.server.log)
		return &t
	}
	h, err := cfg.open(ctx, hub.Deps{Log: s.server.log, Health: s.server.health, Trouble: trouble, Now: s.server.clock.Now, Needed: s.needed})
	if err == nil {
		s.mu.Lock()
		s.hub = h
		s.mu.Unlock()
		s.server.log.Info("the hub is open", "dir", cfg.folder.Dir, "url", cfg.nats.URL, "hub", h.ID(), "partitions", h.Partitions(), "retention", cmp.Or(cfg.folder.Retention, cfg.nats.Retention), "size", fleetscore.Size(cmp.Or(cfg.folder.Size, cfg.nats.Size)))
	}
	return err
}
