package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// counting is a store of files of packs that counts what is read.
type counting struct {
	store.Bucket
	mu    sync.Mutex
	blobs map[fleetscore.BlobName][]byte
	gets  atomic.Int64
	fail  atomic.Bool
}

func (c *counting) Get(_ context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error) {
	c.gets.Add(1)
	if c.fail.Load() {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "read", string(name), "the store is away")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.blobs[name][offset:]
	if length >= 0 {
		b = b[:min(length, int64(len(b)))]
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (c *counting) Stat(_ context.Context, name fleetscore.BlobName) (store.Info, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return store.Info{Name: name, SizeBytes: int64(len(c.blobs[name]))}, nil
}

// pack adds a file of a pack.
func (c *counting) pack(size int, fill byte) fleetscore.BlobName {
	data := bytes.Repeat([]byte{fill}, size)
	name := fleetscore.BlobName(fmt.Sprintf("models/sensors/_pack/segments/%s.pack", fleetscore.DigestOf(data)))
	c.blobs[name] = data
	return name
}

func opened(t *testing.T, dir string, limit int64) *Cache {
	t.Helper()
	c, err := Open(dir, limit, slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func read(t *testing.T, b store.Bucket, name fleetscore.BlobName, offset, length int64) string {
	t.Helper()
	r, err := b.Get(t.Context(), name, offset, length)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestCache: files of packs are read from the store once, also after a restart; what is older
// makes room; a damaged file is read again; other blobs aren't kept; and what the cache tells
// of itself is true.
func TestCache(t *testing.T) {
	t.Parallel()
	from := &counting{blobs: map[fleetscore.BlobName][]byte{"data/readings/x.parquet": []byte("rows")}}
	dir := t.TempDir()
	c := opened(t, dir, 250)
	b := c.Over(from)
	gets := func(want int64, after string) {
		t.Helper()
		if got := from.gets.Swap(0); got != want {
			t.Errorf("%s the store was read %d times, want %d", after, got, want)
		}
	}
	first, second, third, huge := from.pack(100, 'a'), from.pack(100, 'b'), from.pack(100, 'c'), from.pack(300, 'd')
	if got := read(t, b, first, 10, 5); got != "aaaaa" {
		t.Errorf("a part is %q", got)
	}
	gets(1, "for a part of a file that isn't there")
	for range 3 {
		if got := read(t, b, first, 0, -1); got != strings.Repeat("a", 100) {
			t.Errorf("the file is %q", got)
		}
	}
	gets(1, "for three times the same file")
	if got := read(t, b, first, 95, 20) + read(t, b, first, 98, -1); got != "aaaaaaa" {
		t.Errorf("parts are %q", got)
	}
	gets(0, "for parts of a file that is there")
	if r, err := b.Get(t.Context(), first, 0, -1); err != nil {
		t.Error(err)
	} else if _, ok := r.(*os.File); !ok || r.Close() != nil {
		t.Errorf("the file can't be mapped into memory: it is a %T", r)
	}
	read(t, b, "data/readings/x.parquet", 0, -1)
	read(t, b, "data/readings/x.parquet", 0, -1)
	gets(2, "for rows")
	if got := c.Use(); got != (fleetscore.CacheUse{Bytes: 100, LimitBytes: 250, Files: 1, Hits: 3, Misses: 1}) {
		t.Errorf("its use is %+v", got)
	}
	read(t, b, huge, 0, -1)
	read(t, b, huge, 0, -1)
	gets(2, "for a file that is larger than the cache")

	read(t, b, second, 0, -1)
	old := time.Now().Add(-time.Hour) // the first was used before the second
	own := filepath.Join(dir, "0")
	if err := os.Chtimes(filepath.Join(own, filepath.Base(string(second))), old.Add(time.Minute), old.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(own, filepath.Base(string(first))), old, old); err != nil {
		t.Fatal(err)
	}
	read(t, b, third, 0, -1)
	gets(2, "for two more files")
	if got := c.Use(); got.Bytes != 200 || got.Files != 2 || got.Removed != 1 {
		t.Errorf("after one made room: %+v", got)
	}
	read(t, b, second, 0, -1)
	read(t, b, third, 0, -1)
	gets(0, "for those that stayed")

	beside := opened(t, dir, 250) // another process
	read(t, beside.Over(from), second, 0, -1)
	gets(1, "for another process")
	if err := errors.Join(c.Close(), beside.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(own, filepath.Base(string(third))), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(own, "half.pack.tmp"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	c = opened(t, dir, 250)
	b = c.Over(from)
	if _, err := os.Stat(filepath.Join(own, "half.pack.tmp")); err == nil {
		t.Error("what was half written is still there")
	}
	read(t, b, second, 0, -1)
	gets(0, "for a file from before the restart")
	if got := read(t, b, third, 0, -1); got != strings.Repeat("c", 100) {
		t.Errorf("a damaged file was read: %q", got)
	}
	gets(1, "for a damaged file")
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestTogether: tasks that need the same file at once read it from the store once, and a store
// that is away or holds something else gives its error.
func TestTogether(t *testing.T) {
	t.Parallel()
	from := &counting{blobs: map[fleetscore.BlobName][]byte{}}
	name := from.pack(1<<20, 'x')
	c := opened(t, t.TempDir(), 10<<20)
	defer c.Close()
	b := c.Over(from)
	from.fail.Store(true)
	if _, err := b.Get(t.Context(), name, 0, -1); !fleetscore.Unavailable.Is(err) {
		t.Errorf("a store that is away: %v, want kind unavailable", err)
	}
	from.fail.Store(false)
	from.gets.Store(0)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			r, err := b.Get(context.Background(), name, 0, -1)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			if n, err := io.Copy(io.Discard, r); n != 1<<20 || err != nil {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
	all.Wait()
	if n := from.gets.Load(); n != 1 {
		t.Errorf("16 tasks read the file %d times from the store", n)
	}
	if u := c.Use(); u.Hits+u.Misses < 16 || u.Misses != 2 {
		t.Errorf("its use is %+v", u)
	}
	wrong := from.pack(10, 'y')
	from.blobs[wrong] = []byte("something")
	if _, err := b.Get(t.Context(), wrong, 0, -1); !fleetscore.Corrupt.Is(err) {
		t.Errorf("another content than the name says: %v, want kind corrupt", err)
	}
}
