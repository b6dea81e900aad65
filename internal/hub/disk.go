package hub

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
)

// disk has the operations of a file system that the log needs. Tests replace it by disks
// that fail, hang and lose power.
type disk interface {
	durable.Disk
	open(name string, flag int) (file, error)
	list(dir string) ([]entry, error) // in the order of names
	free(dir string) (uint64, error)
}

// file is one open file of a disk.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
}

// entry is a file in a folder.
type entry struct {
	name string
	size int64
	dir  bool
}

// osDisk is the disk of the operating system.
type osDisk struct{ durable.OS }

func (osDisk) open(name string, flag int) (file, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err // not a nil *os.File in an interface
	}
	return f, nil
}

func (osDisk) list(dir string) ([]entry, error) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []entry
	for _, e := range all {
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // the file was removed since the folder was read
		}
		if err != nil {
			return nil, err
		}
		out = append(out, entry{e.Name(), info.Size(), e.IsDir()})
	}
	slices.SortFunc(out, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	return out, nil
}

func (osDisk) free(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}

// makeDir makes a folder; a folder that already exists is no error. The caller syncs
// the folder above it.
func makeDir(d disk, dir string) error {
	if err := d.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// readFile reads a small file; more than limit bytes are an error.
func readFile(d disk, name string, limit int) ([]byte, error) {
	f, err := d.open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := make([]byte, limit+1)
	n, err := f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return buf[:n], nil
}

// lockDir makes the folder and takes its lock, which the kernel releases when
// the process ends, however it ends.
func lockDir(dir string) (*os.File, error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, storageError("open hub", dir, err)
	}
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, storageError("open hub", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, storageError("open hub", dir, err)
		}
		holder := "another process"
		if b, err := os.ReadFile(name); err == nil && len(b) > 0 {
			holder = "process " + string(b)
		}
		return nil, fleetscore.Errorf(fleetscore.Conflict, "open hub", dir, "%s has it open", holder).
			WithHint("stop the other server, or use another --dir")
	}
	// The number is needed only for the message above, so an error of writing the
	// number is ignored.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d", os.Getpid()), 0)
	}
	return f, nil
}

// storageError gives an error of the file system its kind and a hint.
func storageError(op, dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return diskFull(op, dir, err)
	case errors.Is(err, os.ErrPermission):
		return fleetscore.Errorf(fleetscore.Unavailable, op, dir, "%w", err).WithHint("give this user the right to write there, or use another --dir")
	case errors.Is(err, syscall.EROFS):
		return fleetscore.Errorf(fleetscore.Unavailable, op, dir, "%w", err).
			WithHint("the disk is read-only, often after an error of the device: read the system's log; readings are accepted again when the disk can be written")
	}
	return fleetscore.Errorf(fleetscore.Unavailable, op, dir, "%w", err).
		WithHint("read the system's log for errors of the disk; readings are accepted again when the disk can be written")
}

func diskFull(op, dir string, err error) error {
	return fleetscore.Errorf(fleetscore.Exhausted, op, dir, "%w", err).
		WithHint("free space on that disk, or lower hub.retention; no stored reading is lost, and readings are accepted again when there is space")
}
