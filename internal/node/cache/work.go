package cache

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
)

// Work is a folder for what a process needs only while it works, such as code of its tasks. What
// killed processes left in theirs is removed when the next one opens its own.
type Work struct {
	Dir  string
	lock *os.File
}

// ours is the folder in a folder of the user's below which all is ours, to be removed.
const ours = "fleetscore-nodes"

// OpenWork takes a folder below fleetscore-nodes in base that no other process has, and makes it if
// it is absent. Nothing else in base is touched. Other users may read there, because isolated programs may run
// as another user. An empty base means the system's folder for temporary files, where the user's number is
// part of the name, as other users have their folders there too.
func OpenWork(base string, log *slog.Logger) (*Work, error) {
	const op = "open work folder"
	folders := []string{base, filepath.Join(base, ours)}
	if base == "" {
		folders = []string{filepath.Join(os.TempDir(), ours+"-"+strconv.Itoa(os.Getuid()))}
	}
	for i, dir := range folders {
		var err error
		if base, err = filepath.Abs(dir); err != nil {
			return nil, fleetscore.Wrap(op, dir, err)
		}
		if err := os.MkdirAll(base, 0o755); err != nil {
			return nil, fleetscore.Wrap(op, base, err)
		}
		if i == 0 && len(folders) > 1 { // the user's folder may be a link; below it, others could have made one
			if base, err = filepath.EvalSymlinks(base); err != nil {
				return nil, fleetscore.Wrap(op, dir, err)
			}
		}
		if err := private(base); err != nil {
			return nil, fleetscore.Errorf(fleetscore.Invalid, op, base, "%w", err).WithHint("name another folder by --work-dir")
		}
	}
	own, lock, err := claim(op, base, 0o755)
	if err != nil {
		return nil, err
	}
	left, err := os.ReadDir(base)
	if err != nil {
		return nil, errors.Join(fleetscore.Wrap(op, base, err), lock.Close())
	}
	for _, e := range left {
		dir := filepath.Join(base, e.Name())
		var err error
		if dir == own {
			err = empty(dir)
		} else if l, e := locked(dir); e == nil && l != nil { // its process has ended
			err = errors.Join(empty(dir), l.Close())
		}
		if err != nil {
			log.Warn("what an earlier node left can't be removed", "folder", dir, "error", err)
		}
	}
	return &Work{own, lock}, nil
}

// private refuses a folder in which other users could put something.
func private(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !st.IsDir():
		return errors.New("it isn't a folder")
	case ok && int(owner.Uid) != os.Geteuid() || st.Mode().Perm()&0o022 != 0:
		return errors.New("it belongs to another user, or others may write there")
	}
	return nil
}

// empty removes all that is in a folder but its lock.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != lockName {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// Close removes what is in the folder, and lets another process have it.
func (w *Work) Close() error { return errors.Join(empty(w.Dir), w.lock.Close()) }

// lockName is the file in a folder that a process has locked as long as it has the folder.
const lockName = "lock"

// claim takes the first folder below dir that no other process has, and makes it if it is absent.
func claim(op, dir string, mode fs.FileMode) (own string, lock *os.File, err error) {
	for i := range most {
		own := filepath.Join(dir, strconv.Itoa(i))
		if err := os.MkdirAll(own, mode); err != nil {
			return "", nil, fleetscore.Wrap(op, own, err)
		}
		lock, err := locked(own)
		if err != nil || lock != nil {
			return own, lock, fleetscore.Wrap(op, own, err)
		}
	}
	return "", nil, fleetscore.Errorf(fleetscore.Exhausted, op, dir, "%d processes have a folder there", most)
}

// locked locks a folder; nil if another process has it.
func locked(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case err == nil:
		return f, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, f.Close()
	default:
		return nil, errors.Join(err, f.Close())
	}
}
