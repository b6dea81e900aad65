package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
)

// tempFolder holds unfinished blobs, at the root so that every rename stays on
// one file system.
const tempFolder = ".fleetscore-tmp"

// tempKept is the least age of an unfinished blob that is removed when a bucket
// opens: another process may still be writing a younger one.
const tempKept = 24 * time.Hour

// Dir is a bucket in a directory. A blob is a file of the same name; symbolic
// links that lead out of the directory are not followed.
type Dir struct {
	path string
	root *os.Root
	disk durable.Disk // below path

	mu      sync.Mutex      // guards lasting
	lasting map[string]bool // folders whose names this Dir has synced
}

// OpenDir opens the bucket in a directory, which is made if absent, and removes
// unfinished files of writers that crashed.
func OpenDir(dir string) (*Dir, error) {
	return OpenDirOn(dir, func(d durable.Disk) durable.Disk { return d })
}

// OpenDirOn is OpenDir with another disk in place of the folder's own, such as one
// that records its operations. Only changes of the folder go through this disk.
func OpenDirOn(dir string, disk func(durable.Disk) durable.Disk) (*Dir, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fault("open store", dir, err)
	}
	if err := durable.MkdirAll(filepath.Join(abs, tempFolder), 0o755); err != nil {
		return nil, fault("open store", abs, err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fault("open store", abs, err)
	}
	d := &Dir{path: abs, root: root, disk: disk(durable.Root{Root: root}), lasting: map[string]bool{}}
	return d, d.sweep()
}

// Close closes the folder; after that the bucket can't be used.
func (d *Dir) Close() error { return d.root.Close() }

// URL is the address that Open takes.
func (d *Dir) URL() string { return "file://" + d.path }

func (d *Dir) sweep() error {
	entries, err := fs.ReadDir(d.root.FS(), tempFolder)
	if err != nil {
		return fault("open store", d.path, err)
	}
	for _, e := range entries {
		i, err := e.Info()
		if err == nil && time.Since(i.ModTime()) > tempKept {
			err = d.root.Remove(path.Join(tempFolder, e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault("clean store", d.path, err)
		}
	}
	return nil
}

// fault gives an error of the file system its kind and a hint.
func fault(op, subject string, err error) error {
	if err == nil {
		return nil
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err // the message names the subject already
	}
	e := fleetscore.Errorf(fleetscore.Internal, op, subject, "%w", err)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		e.Kind = fleetscore.NotFound
	case errors.Is(err, fs.ErrExist):
		e.Kind = fleetscore.Conflict
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		e.Kind, e.Hint = fleetscore.Exhausted, "the disk is full: free some space or move the data to a larger disk; then Fleetscore goes on by itself"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		e.Kind, e.Hint = fleetscore.Exhausted, "too many open files: raise the limit (ulimit -n)"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		e.Kind, e.Hint = fleetscore.Unavailable, "check owner and permissions of the folder"
	}
	return e
}

// Get opens the file; see Bucket.
func (d *Dir) Get(ctx context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error) {
	if err := d.ready(ctx, name); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "read", string(name), "negative offset %d", offset)
	}
	f, err := d.root.OpenFile(string(name), os.O_RDONLY|unix.O_NONBLOCK, 0) // without this flag, opening a pipe (which isn't a blob) would wait for a writer
	if err != nil {
		return nil, fault("read", string(name), err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err == nil && offset > 0 {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fault("read", string(name), err)
	}
	if length < 0 {
		return f, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, length), f}, nil
}

func (d *Dir) ready(ctx context.Context, name fleetscore.BlobName) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return CheckName(name)
}

// Put writes the file; see Bucket. The order makes it atomic and durable: write a
// temporary, sync it, give it its name, sync the folders that name it.
func (d *Dir) Put(ctx context.Context, name fleetscore.BlobName, body io.Reader, opt PutOptions) (Info, error) {
	if err := d.ready(ctx, name); err != nil {
		return Info{}, err
	}
	temp, err := d.writeTemp(ctx, body)
	if err != nil {
		return Info{}, fault("write", string(name), err)
	}
	defer d.disk.Remove(temp) // the file no longer exists if it was renamed
	for range placeTries {    // an empty folder may be removed before the blob is in it
		err = d.makeParents(path.Dir(string(name)))
		if err == nil && opt.IfAbsent {
			err = d.disk.Link(temp, string(name)) // unlike a rename, this fails if the name exists
		} else if err == nil {
			err = d.disk.Rename(temp, string(name))
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return Info{}, fault("write", string(name), unlink(err))
	}
	if err := d.disk.SyncDir(path.Dir(string(name))); err != nil {
		return Info{}, fault("write", string(name), err)
	}
	return d.Stat(ctx, name)
}

// unlink returns the cause in a LinkError, because the LinkError's message would
// contain the temporary name.
func unlink(err error) error {
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err
	}
	return err
}

func (d *Dir) writeTemp(ctx context.Context, body io.Reader) (name string, err error) {
	var r [12]byte
	if _, err := rand.Read(r[:]); err != nil {
		return "", err
	}
	name = path.Join(tempFolder, hex.EncodeToString(r[:]))
	f, err := d.disk.Create(name, 0o644)
	if err != nil {
		return "", err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = d.disk.Remove(name) // a file that can't be removed is removed a day later
		}
	}()
	if _, err := io.Copy(f, ctxReader{ctx, body}); err != nil {
		return name, err
	}
	return name, f.Sync()
}

// ctxReader ends a copy when its context does.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// placeTries bounds how often a blob's folders are made again after others removed
// them.
const placeTries = 100

// maxLasting bounds how many folders are remembered as synced; the others are synced
// again.
const maxLasting = 1 << 16

// makeParents makes dir and the folders above it, and makes their names durable. An
// existing folder may have been made by another writer that hasn't synced its name
// yet, so every process that writes there syncs each folder once.
func (d *Dir) makeParents(dir string) error {
	return durable.MkdirAllOn(d.disk, dir, 0o755, func(dir string) (bool, error) {
		d.mu.Lock()
		known := d.lasting[dir]
		d.mu.Unlock()
		if st, err := d.root.Stat(dir); err == nil && !st.IsDir() {
			return false, fmt.Errorf("%s is a blob, not a folder: %w", dir, syscall.ENOTDIR)
		} else if err != nil {
			return false, nil
		}
		return known, nil
	}, d.lasts)
}

// lasts notes that a folder's name was synced.
func (d *Dir) lasts(dir string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.lasting) >= maxLasting {
		clear(d.lasting)
	}
	d.lasting[dir] = true
}

// Stat describes the file; see Bucket.
func (d *Dir) Stat(ctx context.Context, name fleetscore.BlobName) (Info, error) {
	if err := d.ready(ctx, name); err != nil {
		return Info{}, err
	}
	st, err := d.root.Stat(string(name))
	if err == nil && !st.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return Info{}, fault("look up", string(name), err)
	}
	return info(string(name), st), nil
}

func info(name string, st fs.FileInfo) Info {
	var inode uint64
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		inode = sys.Ino
	}
	return infoOf(name, st.Size(), st.ModTime(), inode)
}

// infoOf makes the tag from the time, which changes every few milliseconds, the size,
// and the number of the file, which is a new one when a blob is put again.
func infoOf(name string, size int64, modified time.Time, inode uint64) Info {
	etag := strconv.AppendInt(make([]byte, 0, 48), modified.UnixNano(), 16)
	etag = strconv.AppendInt(append(etag, '-'), size, 16)
	etag = strconv.AppendUint(append(etag, '-'), inode, 16)
	return Info{Name: fleetscore.BlobName(name), SizeBytes: size, Modified: modified.UTC(), ETag: string(etag)}
}

// Delete removes the file, and the folders that it leaves empty; see Bucket.
func (d *Dir) Delete(ctx context.Context, name fleetscore.BlobName) error {
	if err := d.ready(ctx, name); err != nil {
		return err
	}
	err := d.disk.Remove(string(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return fault("delete", string(name), err)
	}
	if err == nil {
		d.removeEmpty(path.Dir(string(name)))
	}
	return nil
}

// removeEmpty removes a folder and the folders above it as long as they are empty,
// because every job that is removed leaves empty folders. A writer that puts a blob
// there at the same time makes them again. A folder that can't be removed stays.
func (d *Dir) removeEmpty(dir string) {
	for ; dir != "."; dir = path.Dir(dir) {
		d.mu.Lock() // the folder is forgotten before it is removed, so that a new folder of that name is synced
		delete(d.lasting, dir)
		d.mu.Unlock()
		if st, err := d.root.Lstat(dir); err != nil || !st.IsDir() || d.root.Remove(dir) != nil {
			return // the folder is a link, isn't empty, or was removed meanwhile
		}
	}
}

// List walks the folders in name order; see Bucket. Only one folder per level is
// held in memory.
func (d *Dir) List(ctx context.Context, prefix string, opt ListOptions) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		folder := ""
		if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
			folder = prefix[:i+1]
		}
		w := walk{d, ctx, prefix, opt, yield}
		w.folder(folder)
	}
}

type walk struct {
	d      *Dir
	ctx    context.Context
	prefix string
	opt    ListOptions
	yield  func(Info, error) bool
}

// entry is an entry of a folder. Its name has a trailing "/" if it is a folder, so
// that folders sort among blobs as their contents do.
type entry struct {
	name string
	link bool
}

// folder yields the content of a folder ("" or ending in "/"); false ends the walk.
func (w *walk) folder(folder string) bool {
	dir := strings.TrimSuffix(folder, "/")
	if dir == "" {
		dir = "."
	} else if CheckName(fleetscore.BlobName(dir)) != nil {
		return true // no blob can be there
	}
	f, err := w.d.root.Open(dir)
	if err == nil {
		defer f.Close()
	}
	var entries []entry
	if err == nil {
		entries, err = w.entries(f, folder)
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return true
		}
		w.yield(Info{}, fault("list", dir, err))
		return false
	}
	for _, e := range entries {
		if err := w.ctx.Err(); err != nil {
			w.yield(Info{}, err)
			return false
		}
		if !w.entry(f, folder, e) {
			return false
		}
	}
	return true
}

// readAtOnce is how many entries of a folder are read together; for a larger folder
// only the names are kept.
const readAtOnce = 4096

// entries are the sorted entries of a folder that the listing can contain.
func (w *walk) entries(f *os.File, folder string) ([]entry, error) {
	var out []entry
	for {
		batch, err := f.ReadDir(readAtOnce)
		for _, e := range batch {
			name := e.Name()
			if e.IsDir() {
				name += "/"
			}
			rest, isInside := strings.CutPrefix(w.prefix, folder)
			if folder == "" && name == tempFolder+"/" || isInside && !strings.HasPrefix(name, rest) && !strings.HasPrefix(rest, name) {
				continue
			}
			out = append(out, entry{name, e.Type()&fs.ModeSymlink != 0})
		}
		if err != nil && err != io.EOF {
			return nil, err
		}
		if len(batch) < readAtOnce && err != nil || len(batch) == 0 {
			slices.SortFunc(out, func(a, b entry) int { return strings.Compare(a.name, b.name) })
			return out, nil
		}
	}
}

func (w *walk) entry(f *os.File, folder string, e entry) bool {
	after, n := string(w.opt.After), folder+e.name
	if strings.HasSuffix(e.name, "/") {
		switch {
		case n < after && !strings.HasPrefix(after, n):
			return true
		case w.opt.Delimiter && len(n) > len(w.prefix):
			return n <= after || w.yield(Info{Name: fleetscore.BlobName(n)}, nil)
		}
		return w.folder(n)
	}
	if n <= after || !strings.HasPrefix(n, w.prefix) {
		return true
	}
	i, err := w.describe(f, n, e)
	if errors.Is(err, fs.ErrNotExist) {
		return true // the file was deleted since the folder was read, or isn't a blob
	}
	if err != nil {
		w.yield(Info{}, fault("list", n, err))
		return false
	}
	return w.yield(i, nil)
}

// describe looks a file up in its open folder, which takes a quarter of the time of a
// look-up by its whole name.
func (w *walk) describe(f *os.File, n string, e entry) (Info, error) {
	if e.link {
		st, err := w.d.root.Stat(n) // this fails if a link leads out of the directory
		if err != nil || !st.Mode().IsRegular() {
			if w.opt.Refused != nil {
				w.opt.Refused(fleetscore.BlobName(n))
			}
			return Info{}, fs.ErrNotExist
		}
		return info(n, st), nil
	}
	var st unix.Stat_t
	for {
		err := unix.Fstatat(int(f.Fd()), e.name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Info{}, err
		}
		break
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return Info{}, fs.ErrNotExist
	}
	return infoOf(n, st.Size, time.Unix(st.Mtim.Unix()), st.Ino), nil
}
