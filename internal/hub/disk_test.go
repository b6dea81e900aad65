package hub

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/fleetscore/fleetscore/internal/durable"
)

// memDisk is a disk in memory that knows which part of the disk is durable: a file's
// content as of the file's last sync, a folder's names as of the folder's last sync.
type memDisk struct {
	hook func(op, name string) error // called before every operation; may fail it or make it wait

	mu   sync.Mutex // guards what follows
	dirs map[string]*memDir
}

type memDir struct {
	names  map[string]*memFile // nil for a folder
	synced map[string]*memFile
}

type memFile struct {
	data     []byte
	synced   []byte
	unsynced []memWrite // since then, in order
}

type memWrite struct {
	offset int64
	data   []byte
	size   int64 // of the file; only of a truncation, which has no data
}

func newMemDisk() *memDisk {
	return &memDisk{dirs: map[string]*memDir{"/hub": {names: map[string]*memFile{}, synced: map[string]*memFile{}}}}
}

// cut returns what may be left after a power cut at this moment: everything that is
// synced, and a random part of the rest, which may include half-finished writes.
func (d *memDisk) cut(rnd *rand.Rand) *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := &memDisk{dirs: map[string]*memDir{}}
	files := map[*memFile]*memFile{}
	for name, dir := range d.dirs {
		to := &memDir{names: map[string]*memFile{}, synced: map[string]*memFile{}}
		left := maps.Clone(dir.synced)
		for n := range dir.synced {
			if _, there := dir.names[n]; !there && rnd.IntN(2) == 0 {
				delete(left, n)
			}
		}
		for n, f := range dir.names {
			if g, there := dir.synced[n]; (!there || g != f) && rnd.IntN(2) == 0 {
				left[n] = f
			}
		}
		for n, f := range left {
			if f != nil && files[f] == nil {
				files[f] = f.cut(rnd)
			}
			to.names[n], to.synced[n] = files[f], files[f]
		}
		out.dirs[name] = to
	}
	return out
}

func (f *memFile) cut(rnd *rand.Rand) *memFile {
	data := slices.Clone(f.synced)
	for _, w := range f.unsynced {
		switch {
		case rnd.IntN(2) == 0:
		case w.data == nil:
			data = data[:min(int64(len(data)), w.size)]
		default:
			data = put(data, w.data[:rnd.IntN(len(w.data)+1)], w.offset)
		}
	}
	return &memFile{data: data, synced: slices.Clone(data)}
}

func put(data, b []byte, offset int64) []byte {
	if grow := offset + int64(len(b)) - int64(len(data)); grow > 0 {
		data = append(data, make([]byte, grow)...)
	}
	copy(data[offset:], b)
	return data
}

// clone copies the disk as it is.
func (d *memDisk) clone() *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := &memDisk{dirs: map[string]*memDir{}}
	for name, dir := range d.dirs {
		to := &memDir{names: map[string]*memFile{}, synced: map[string]*memFile{}}
		for n, f := range dir.names {
			if f != nil {
				f = &memFile{data: slices.Clone(f.data), synced: slices.Clone(f.data)}
			}
			to.names[n], to.synced[n] = f, f
		}
		out.dirs[name] = to
	}
	return out
}

// files are the names and contents of all files.
func (d *memDisk) files() map[string]*memFile {
	out := map[string]*memFile{}
	for dir, all := range d.dirs {
		for n, f := range all.names {
			if f != nil {
				out[filepath.Join(dir, n)] = f
			}
		}
	}
	return out
}

func (d *memDisk) begin(op, name string) error {
	if d.hook == nil {
		return nil
	}
	return d.hook(op, name)
}

func (d *memDisk) folder(name string) (*memDir, string, error) {
	dir := d.dirs[filepath.Dir(name)]
	if dir == nil {
		return nil, "", &fs.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
	}
	return dir, filepath.Base(name), nil
}

func (d *memDisk) open(name string, flag int) (file, error) {
	op := "open"
	if flag&os.O_CREATE != 0 {
		op = "create"
	}
	if err := d.begin(op, name); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, base, err := d.folder(name)
	if err != nil {
		return nil, err
	}
	f := dir.names[base]
	if f == nil {
		if flag&os.O_CREATE == 0 {
			return nil, &fs.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
		}
		f = &memFile{}
		dir.names[base] = f
	}
	if flag&os.O_TRUNC != 0 && len(f.data) > 0 {
		f.data = nil
		f.unsynced = append(f.unsynced, memWrite{})
	}
	return &memHandle{d, f, name, 0}, nil
}

func (d *memDisk) list(dir string) ([]entry, error) {
	if err := d.begin("list", dir); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dirs[dir] == nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: os.ErrNotExist}
	}
	var out []entry
	for _, n := range slices.Sorted(maps.Keys(d.dirs[dir].names)) {
		f := d.dirs[dir].names[n]
		if f == nil {
			out = append(out, entry{n, 0, true})
		} else {
			out = append(out, entry{n, int64(len(f.data)), false})
		}
	}
	return out, nil
}

func (d *memDisk) free(string) (uint64, error) {
	if err := d.begin("free", ""); err != nil {
		return 0, nil
	}
	return 1 << 40, nil
}

// Create implements durable.Disk.
func (d *memDisk) Create(name string, _ fs.FileMode) (durable.File, error) {
	f, err := d.open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, err
	}
	return f.(*memHandle), nil
}

// change makes a change of names.
func (d *memDisk) change(op, name string, do func(dir *memDir, base string) error) error {
	if err := d.begin(op, name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, base, err := d.folder(name)
	if err != nil {
		return err
	}
	return do(dir, base)
}

// Rename implements durable.Disk, within a folder.
func (d *memDisk) Rename(from, to string) error {
	return d.change("rename", from, func(dir *memDir, base string) error {
		dir.names[filepath.Base(to)] = dir.names[base]
		delete(dir.names, base)
		return nil
	})
}

// Link implements durable.Disk; the log doesn't use it.
func (d *memDisk) Link(string, string) error { return errors.ErrUnsupported }

// Remove implements durable.Disk.
func (d *memDisk) Remove(name string) error {
	return d.change("remove", name, func(dir *memDir, base string) error {
		if _, there := dir.names[base]; !there {
			return os.ErrNotExist
		}
		delete(dir.names, base)
		delete(d.dirs, name)
		return nil
	})
}

// Mkdir implements durable.Disk.
func (d *memDisk) Mkdir(name string, _ fs.FileMode) error {
	return d.change("mkdir", name, func(dir *memDir, base string) error {
		if _, there := dir.names[base]; there {
			return fs.ErrExist
		}
		dir.names[base] = nil
		d.dirs[name] = &memDir{names: map[string]*memFile{}, synced: map[string]*memFile{}}
		return nil
	})
}

// SyncDir implements durable.Disk.
func (d *memDisk) SyncDir(name string) error {
	return d.change("syncdir", filepath.Join(name, "x"), func(dir *memDir, _ string) error {
		dir.synced = maps.Clone(dir.names)
		return nil
	})
}

// memHandle is an open file.
type memHandle struct {
	d    *memDisk
	f    *memFile
	name string
	at   int64
}

func (h *memHandle) ReadAt(b []byte, offset int64) (int, error) {
	if err := h.d.begin("read", h.name); err != nil {
		return 0, err
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if offset >= int64(len(h.f.data)) {
		return 0, io.EOF
	}
	n := copy(b, h.f.data[offset:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *memHandle) WriteAt(b []byte, offset int64) (int, error) {
	err := h.d.begin("write", h.name)
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if err != nil {
		b = b[:len(b)/2] // a write that fails still writes a part
	}
	h.f.data = put(h.f.data, b, offset)
	h.f.unsynced = append(h.f.unsynced, memWrite{offset, slices.Clone(b), 0})
	return len(b), err
}

func (h *memHandle) Write(b []byte) (int, error) {
	n, err := h.WriteAt(b, h.at)
	h.at += int64(n)
	return n, err
}

func (h *memHandle) Sync() error {
	if err := h.d.begin("sync", h.name); err != nil {
		h.d.mu.Lock()
		defer h.d.mu.Unlock()
		h.f.unsynced = nil // as the kernel drops pages that it could not write
		return err
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	h.f.synced, h.f.unsynced = slices.Clone(h.f.data), nil
	return nil
}

func (h *memHandle) Close() error { return nil }

// failing makes operations fail with an error of the device while on is true.
type failing struct {
	mu  sync.Mutex // guards what follows
	ops string     // the operations that fail, separated by spaces
	err error
}

func (f *failing) set(ops string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops, f.err = ops, err
}

func (f *failing) hook(op, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Contains(strings.Fields(f.ops), op) {
		return &fs.PathError{Op: op, Path: "/hub", Err: f.err}
	}
	return nil
}

var errDevice = syscall.EIO
