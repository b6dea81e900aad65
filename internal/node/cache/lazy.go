package cache

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Lazy is a cache that is opened when it is first needed: a node that opens the store's folder
// itself needs none. It must not be copied.
type Lazy struct {
	Dir  string // empty means fleetscore in the user's folder for caches
	Now  func() time.Time
	Size string // as people write it; empty means as much as Open takes by itself; 0B means that there is no cache

	mu   sync.Mutex // guards what follows
	open *Cache
}

// Check refuses a size that isn't one.
func (l *Lazy) Check() error {
	_, _, err := l.limit()
	return err
}

func (l *Lazy) limit() (bytes int64, off bool, err error) {
	if l.Size == "" {
		return 0, false, nil
	}
	var size fleetscore.Size
	if err := size.UnmarshalText([]byte(l.Size)); err != nil || size < 0 {
		return 0, false, fmt.Errorf("%s: not a size such as 20GB", l.Size)
	}
	return int64(size), size == 0, nil
}

// Over puts the cache before a bucket. Without a usable cache it is the bucket itself.
func (l *Lazy) Over(from store.Bucket, log *slog.Logger) store.Bucket {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		limit, off, err := l.limit()
		if off {
			return from
		}
		dir := l.Dir
		if dir == "" && err == nil {
			dir, err = os.UserCacheDir()
			dir = filepath.Join(dir, "fleetscore")
		}
		if err == nil {
			l.open, err = Open(dir, limit, log, l.Now)
		}
		if err != nil {
			log.Warn("models are read from the server each time, because there is no cache; --cache-dir names a folder for it", "error", err)
			return from
		}
	}
	return l.open.Over(from)
}

// Measure adds the use of the cache to what measure finds.
func (l *Lazy) Measure(measure func(now time.Time) fleetscore.NodeLoad) func(now time.Time) fleetscore.NodeLoad {
	return func(now time.Time) fleetscore.NodeLoad {
		load := measure(now)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.open != nil {
			use := l.open.Use()
			load.Cache = &use
		}
		return load
	}
}

// Close lets go of the cache.
func (l *Lazy) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open != nil {
		_ = l.open.Close() // it only unlocks
	}
}
