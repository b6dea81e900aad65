// Package cache keeps files of packs on a node's disk, so that tasks read models over the
// network once. The names of these files are digests of what they hold, so that nothing in the
// cache can be out of date; each file is compared with its digest before this process first uses
// it. All other blobs are read from the store as ever.
//
// Each process has a folder of its own below the one it is given, which it finds again after
// a restart. A Cache is safe for concurrent use and has no goroutines. Folders for what isn't
// to be found again are those of Work.
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Cache is a folder of files of packs.
type Cache struct {
	dir   string
	lock  *os.File // of dir
	limit int64
	log   *slog.Logger
	now   func() time.Time

	mu       sync.Mutex // guards what follows
	stats    fleetscore.CacheUse
	verified map[string]bool          // files that this process has compared with their digest
	loading  map[string]chan struct{} // files that are being read from the store; closed when that has ended
}

// most is how many processes may have folders in one.
const most = 1024

// Open takes the first folder below dir that no other process has, and makes it if it is
// absent. Files may take limit bytes; 0 means 10 GB, but no more than a quarter of the disk.
func Open(dir string, limit int64, log *slog.Logger, now func() time.Time) (*Cache, error) {
	const op = "open cache"
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	dir, lock, err := claim(op, dir, 0o700)
	if err != nil {
		return nil, err
	}
	if limit == 0 {
		limit = usualLimit
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil {
			limit = min(limit, int64(st.Blocks)*int64(st.Bsize)/4)
		}
	}
	if err := tidy(dir); err != nil {
		return nil, errors.Join(fleetscore.Wrap(op, dir, err), lock.Close())
	}
	c := &Cache{dir: dir, lock: lock, limit: limit, log: log, now: now, stats: fleetscore.CacheUse{LimitBytes: limit}, verified: map[string]bool{}, loading: map[string]chan struct{}{}}
	c.room(0)
	return c, nil
}

// tidy removes what a killed process left half written.
func tidy(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if filepath.Ext(e.Name()) != extension && e.Name() != lockName {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// usualLimit is how much a cache may hold unless that is said.
const usualLimit = 10e9

// Close lets another process have the folder. Its files stay.
func (c *Cache) Close() error { return c.lock.Close() }

// Use is what the cache holds, and how often it had what was asked for.
func (c *Cache) Use() fleetscore.CacheUse {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// Over is a bucket whose files of packs come from the cache.
func (c *Cache) Over(b store.Bucket) store.Bucket { return bucket{b, c} }

type bucket struct {
	store.Bucket
	c *Cache
}

// extension ends the names of the cache's files, which begin with their digests.
const extension = ".pack"

// Get implements store.Bucket. Parts of a file come from the cache if it holds the file; only the
// reading of a whole file fills it.
func (b bucket) Get(ctx context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error) {
	digest, is := fleet.SegmentOf(name)
	if !is {
		return b.Bucket.Get(ctx, name, offset, length)
	}
	f, err := b.c.get(ctx, b.Bucket, name, digest.String()+extension, offset == 0 && length < 0)
	if err != nil {
		return nil, err
	}
	switch {
	case f == nil:
		return b.Bucket.Get(ctx, name, offset, length)
	case offset == 0 && length < 0:
		return f, nil // it can be mapped into memory
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fleetscore.Wrap("read cache", f.Name(), err), f.Close())
	}
	if length < 0 {
		length = max(0, st.Size()-offset)
	}
	return part{io.NewSectionReader(f, offset, length), f}, nil
}

// part is a part of a file.
type part struct {
	io.Reader
	io.Closer
}

// get opens a file of the cache, which is filled from the store first if fill says so. nil
// means that the file isn't there and the store has to be asked.
func (c *Cache) get(ctx context.Context, b store.Bucket, name fleetscore.BlobName, file string, fill bool) (*os.File, error) {
	for first := true; ; first = false {
		if f := c.open(file); f != nil {
			c.count(first, true, fill)
			return f, nil
		}
		if !fill {
			return nil, nil
		}
		c.mu.Lock()
		wait, busy := c.loading[file]
		if !busy {
			wait = make(chan struct{})
			c.loading[file] = wait
		}
		c.mu.Unlock()
		if !busy {
			c.count(first, false, fill)
			err := c.load(ctx, b, name, file)
			c.mu.Lock()
			delete(c.loading, file)
			c.mu.Unlock()
			close(wait)
			if err != nil {
				return nil, err
			}
			return c.open(file), nil // nil if it has no room
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if !first { // it has no room, or can't be loaded
			return nil, nil
		}
	}
}

// count counts a file that was asked for as a whole.
func (c *Cache) count(first, hit, whole bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !whole:
	case hit:
		c.stats.Hits++
	case first:
		c.stats.Misses++
	}
}

// open opens a file that the cache holds; nil if it doesn't, or the file is damaged.
func (c *Cache) open(file string) *os.File {
	f, err := os.Open(filepath.Join(c.dir, file))
	if err != nil {
		return nil
	}
	c.mu.Lock()
	known := c.verified[file]
	c.mu.Unlock()
	if !known {
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
		if err != nil || hex.EncodeToString(h.Sum(nil))+extension != file {
			c.log.Warn("a file of the cache is damaged and is removed", "file", f.Name(), "error", err)
			_ = f.Close() // it was only read
			_ = os.Remove(filepath.Join(c.dir, file))
			return nil
		}
		c.mu.Lock()
		c.verified[file] = true
		c.mu.Unlock()
	}
	now := c.now()
	_ = os.Chtimes(f.Name(), now, now) // says only which file goes first
	return f
}

// errNoRoom ends the loading of a file that the cache has no room for.
var errNoRoom = errors.New("the file is larger than the cache may be")

// load reads a file from the store into the cache. A cache that can't be written costs time
// alone: then nothing is loaded, and there is no error.
func (c *Cache) load(ctx context.Context, b store.Bucket, name fleetscore.BlobName, file string) error {
	info, err := b.Stat(ctx, name)
	if err != nil {
		return err
	}
	if info.SizeBytes > c.limit {
		c.log.Info("a file of models isn't kept in the cache", "file", name, "bytes", info.SizeBytes, "limit", c.limit)
		return nil
	}
	in, err := b.Get(ctx, name, 0, -1)
	if err != nil {
		return err
	}
	defer in.Close()
	c.room(info.SizeBytes)
	out, err := durable.Create(filepath.Join(c.dir, file), 0o600)
	if err != nil {
		c.log.Warn("the cache can't be written", "error", err)
		return nil
	}
	w := &digester{out: out.File, hash: sha256.New(), left: c.limit}
	_, err = io.Copy(w, in)
	switch {
	case w.failed != nil:
		err = errors.Join(w.failed, out.Abort())
		c.log.Warn("the cache can't be written", "error", err)
		return nil
	case err != nil:
		return errors.Join(fleetscore.Wrap("read pack", string(name), err), out.Abort())
	case hex.EncodeToString(w.hash.Sum(nil))+extension != file:
		return errors.Join(fleetscore.Errorf(fleetscore.Corrupt, "read pack", string(name), "its content isn't what its name says"), out.Abort())
	}
	if err := out.Commit(); err != nil {
		c.log.Warn("the cache can't be written", "error", err)
		return nil
	}
	c.mu.Lock()
	c.verified[file] = true
	c.mu.Unlock()
	c.room(0)
	return nil
}

// digester writes into a file, and notes whether that failed.
type digester struct {
	out    io.Writer
	hash   hash.Hash
	left   int64
	failed error
}

func (d *digester) Write(p []byte) (n int, err error) {
	if d.left -= int64(len(p)); d.left < 0 {
		d.failed = errNoRoom
		return 0, d.failed
	}
	d.hash.Write(p)
	n, d.failed = d.out.Write(p)
	return n, d.failed
}

// room removes the files that weren't used for the longest time until there is room for so many
// bytes, and notes what is left.
func (c *Cache) room(bytes int64) {
	type file struct {
		name string
		size int64
		used time.Time
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		c.log.Warn("the cache can't be read", "error", err)
		return
	}
	var files []file
	total := bytes
	for _, e := range entries {
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() && filepath.Ext(e.Name()) == extension {
			files = append(files, file{e.Name(), st.Size(), st.ModTime()})
			total += st.Size()
		}
	}
	slices.SortFunc(files, func(a, b file) int { return a.used.Compare(b.used) })
	removed := int64(0)
	for _, f := range files {
		if total <= c.limit {
			break
		}
		if err := os.Remove(filepath.Join(c.dir, f.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.log.Warn("a file of the cache can't be removed", "error", err)
			continue
		}
		total -= f.size
		removed++
		c.mu.Lock()
		delete(c.verified, f.name)
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Bytes, c.stats.Files, c.stats.Removed = total-bytes, int64(len(files))-removed, c.stats.Removed+removed
}
