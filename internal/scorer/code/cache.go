package code

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"github.com/fleetscore/fleetscore"
)

// Cache keeps unpacked archives while a node lives, as many as fit into a bound.
type Cache struct {
	// Dir is the folder below which archives are unpacked. Empty means a folder of its own in the
	// system's folder for temporary files.
	Dir string
	// MostBytes is how much may be kept that no task uses; 0 means 1 GiB.
	MostBytes int64
	// Leave is called before a folder is removed to make room; nothing may use it afterwards. nil
	// means that nobody has to be told.
	Leave func(folder string)
	// Stays is called when a folder couldn't be removed. It goes on counting among what is kept, and the next archive that
	// is unpacked tries to remove it again. nil means that nobody has to be told.
	Stays func(folder string, err error)

	mu      sync.Mutex // guards what follows; it isn't held while files are read, written or removed
	own     bool       // Dir was made
	folders map[fleetscore.Digest]*folder
	stays   []*folder // that couldn't be removed
	turn    int64     // grows with each use

	removeAll func(string) error // for tests; nil means os.RemoveAll
}

// folder is an archive that is unpacked, or is being unpacked.
type folder struct {
	made  chan struct{} // closed when dir has the files, or err says why not
	err   error
	dir   string
	bytes int64
	users int   // tasks that need it
	used  int64 // the turn of the last use
}

// mostBytes is what a cache keeps unless its owner says something else.
const mostBytes = 1 << 30

// Folder gives the folder with the content of an archive, which fetch gets if it isn't here. It
// stays until done is called. Tasks that need other archives don't wait for this one.
func (c *Cache) Folder(ctx context.Context, digest fleetscore.Digest, fetch func(context.Context) ([]byte, error)) (dir string, done func(), err error) {
	for {
		f, here := c.use(digest)
		done := sync.OnceFunc(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			f.users--
		})
		if !here {
			f.err = c.add(ctx, f, digest, fetch)
			if f.err != nil {
				c.mu.Lock()
				delete(c.folders, digest)
				c.mu.Unlock()
			}
			close(f.made)
		}
		select {
		case <-f.made:
		case <-ctx.Done():
			done()
			return "", nil, context.Cause(ctx)
		}
		switch {
		case f.err == nil:
			return f.dir, done, nil
		case !here:
			return "", nil, f.err
		} // another task couldn't get it, which may have been that task's fault
	}
}

// use gives an archive's folder. It is here already, or another task is unpacking it, or the caller has to.
func (c *Cache) use(digest fleetscore.Digest) (f *folder, here bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, here = c.folders[digest]
	if !here {
		if c.folders == nil {
			c.folders = map[fleetscore.Digest]*folder{}
		}
		f = &folder{made: make(chan struct{})}
		c.folders[digest] = f
	}
	c.turn++
	f.users, f.used = f.users+1, c.turn
	return f, here
}

// add unpacks an archive.
func (c *Cache) add(ctx context.Context, f *folder, digest fleetscore.Digest, fetch func(context.Context) ([]byte, error)) error {
	const op = "unpack code"
	data, err := fetch(ctx)
	if err != nil {
		return err
	}
	if fleetscore.DigestOf(data) != digest {
		return fleetscore.Errorf(fleetscore.Corrupt, op, digest.Short(), "the archive's bytes don't match its digest")
	}
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return fleetscore.Errorf(fleetscore.Corrupt, op, digest.Short(), "%w", err)
	}
	var size int64
	for _, file := range archive.File {
		size += int64(min(file.UncompressedSize64, maxBytes))
	}
	c.mu.Lock()
	again := c.stays
	c.stays = nil
	c.mu.Unlock()
	c.remove(again)
	leaving, err := c.place(f, digest, size)
	c.remove(leaving)
	if err != nil {
		return fleetscore.Errorf(fleetscore.Unavailable, op, digest.Short(), "%w", err)
	}
	if err := unpack(archive, f.dir); err != nil {
		return errors.Join(fleetscore.Errorf(fleetscore.Unavailable, op, digest.Short(), "%w", err), os.RemoveAll(f.dir))
	}
	return nil
}

// remove removes folders that had to go. One that can't be removed is no fault of the task whose archive needs room.
func (c *Cache) remove(leaving []*folder) {
	removeAll := c.removeAll
	if removeAll == nil {
		removeAll = os.RemoveAll
	}
	for _, old := range leaving {
		if c.Leave != nil {
			c.Leave(old.dir)
		}
		if err := removeAll(old.dir); err != nil {
			if c.Stays != nil {
				c.Stays(old.dir, err)
			}
			c.mu.Lock()
			c.stays = append(c.stays, old)
			c.mu.Unlock()
		}
	}
}

// place names an archive's folder, and gives those that make room for it. They aren't the cache's any more.
func (c *Cache) place(f *folder, digest fleetscore.Digest, size int64) (leaving []*folder, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Dir == "" {
		if c.Dir, err = os.MkdirTemp("", "fleetscore-code-"); err != nil {
			return nil, err
		}
		c.own = true
		if err := os.Chmod(c.Dir, 0o755); err != nil { // isolated programs may run as another user
			return nil, err
		}
	}
	// An archive that had to go may come back before its old folder is removed.
	f.dir, f.bytes = filepath.Join(c.Dir, fmt.Sprintf("code-%s-%d", digest.Short(), f.used)), size
	return c.room(), nil
}

// room drops folders that no task uses, the one that was used least recently first, until the others fit. The lock is held.
func (c *Cache) room() (leaving []*folder) {
	var all int64
	for _, f := range c.folders {
		all += f.bytes
	}
	for _, f := range c.stays {
		all += f.bytes
	}
	for most := cmp.Or(c.MostBytes, mostBytes); all > most; {
		var oldest fleetscore.Digest
		for d, f := range c.folders {
			if o := c.folders[oldest]; f.users == 0 && (o == nil || f.used < o.used) {
				oldest = d
			}
		}
		f := c.folders[oldest]
		if f == nil {
			break // tasks use all of them
		}
		delete(c.folders, oldest)
		leaving, all = append(leaving, f), all-f.bytes
	}
	return leaving
}

// unpack writes the files of an archive below a new folder.
func unpack(archive *zip.Reader, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range archive.File {
		if err := unpackFile(root, f); err != nil {
			return err
		}
	}
	return nil
}

func unpackFile(root *os.Root, f *zip.File) error {
	if err := root.MkdirAll(path.Dir(f.Name), 0o755); err != nil {
		return err
	}
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := root.OpenFile(f.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, maxBytes))
	return errors.Join(err, out.Close())
}

// Close removes what was unpacked. Nothing of it may be in use.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var problems []error
	for _, f := range slices.Concat(slices.Collect(maps.Values(c.folders)), c.stays) {
		problems = append(problems, os.RemoveAll(f.dir))
	}
	if c.own {
		problems = append(problems, os.RemoveAll(c.Dir))
		c.Dir, c.own = "", false
	}
	c.folders, c.stays = nil, nil
	return errors.Join(problems...)
}
