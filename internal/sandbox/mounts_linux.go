package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// system is what programs need of the machine, as far as it exists.
var system = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
	"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime", "/etc/timezone"}

// devices are those that are no way to anything else. /dev/zero is none of them: mapped, it is
// memory that no limit counts.
var devices = []string{"/dev/null", "/dev/full", "/dev/random", "/dev/urandom"}

// mounts builds the file system that the program sees, and makes it the only one. The
// program's folder is handed over through a descriptor, if that is asked for.
func (p *plan) mounts(folder int) (note string, err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", fmt.Errorf("make a file system of its own: %w", err)
	}
	// The new root lies over the program's own folder, which exists and holds nothing yet
	// that is needed.
	r := root{at: p.Dir}
	if err := unix.Mount("root", r.at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m,nr_inodes=20000"); err != nil {
		return "", fmt.Errorf("mount a file system in memory: %w", err)
	}
	if err := r.scratch(p); err != nil {
		return "", err
	}
	if err := makeWithin(r.path(p.Dir), p.Make); err != nil {
		return "", err
	}
	if p.Keep {
		if err := handOver(r.path(p.Dir), folder); err != nil {
			return "", fmt.Errorf("hand over the program's folder: %w", err)
		}
	}
	if err := r.show(p); err != nil {
		return "", err
	}
	for _, d := range devices {
		if err := r.bind(d, 0); err != nil {
			return "", err
		}
	}
	for link, to := range map[string]string{"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2"} {
		if err := unix.Symlink(to, r.path(link)); err != nil {
			return "", err
		}
	}
	note = "a file system, processes, network and IPC of its own"
	if err := r.proc(); err != nil {
		note += "; without /proc (" + err.Error() + ")"
	}
	_ = r.bind("/sys/devices/system/cpu", unix.MOUNT_ATTR_RDONLY) // libraries count processors there; they can do without
	if err := r.accounts(); err != nil {
		return "", err
	}
	if err := unix.Sethostname([]byte("sandbox")); err != nil {
		return "", fmt.Errorf("name the machine: %w", err)
	}
	return note, r.enter()
}

// root is a file system that is being built.
type root struct {
	at string
}

func (r root) path(p string) string { return filepath.Join(r.at, p) }

// scratch makes the folder that the program may write to, of bounded size, which is its /tmp
// too, and its /dev/shm.
func (r root) scratch(p *plan) error {
	if err := os.MkdirAll(r.path("/tmp"), 0o755); err != nil {
		return err
	}
	options := fmt.Sprintf("mode=1777,size=%d,nr_inodes=%d", p.DiskBytes, max(10_000, p.DiskBytes>>13))
	if err := unix.Mount("scratch", r.path("/tmp"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount the program's folder: %w", err)
	}
	if within(p.Dir, "/tmp") {
		if err := os.MkdirAll(r.path(p.Dir), 0o755); err != nil {
			return err
		}
		if err := os.Chmod(r.path(p.Dir), 0o777); err != nil { // nobody else sees it
			return err
		}
	} else if err := r.same("/tmp", p.Dir); err != nil {
		return err
	}
	shared := r.path("/tmp/.shm")
	if err := os.Mkdir(shared, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(shared, 0o777); err != nil {
		return err
	}
	return r.same("/tmp/.shm", "/dev/shm")
}

// same shows a folder of the new root in another place too.
func (r root) same(folder, also string) error {
	if err := os.MkdirAll(r.path(also), 0o755); err != nil {
		return err
	}
	if err := unix.Mount(r.path(folder), r.path(also), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", also, err)
	}
	return nil
}

// show shows what the program may read.
func (r root) show(p *plan) error {
	paths := slices.Concat(system, p.Read, p.Write)
	slices.Sort(paths) // folders come before what is in them
	paths = slices.Compact(paths)
	shown := []string{}
	for _, path := range paths {
		if slices.Contains(p.Write, path) { // also over what is shown read-only already
			if within(p.Dir, path) {
				return fmt.Errorf("the folder %s can't be shown, because the program's own folder %s is in it", path, p.Dir)
			}
			if err := r.bind(path, 0); err != nil {
				return err
			}
			continue
		}
		switch {
		case !filepath.IsAbs(path) || filepath.Clean(path) != path:
			return fmt.Errorf("%s isn't a clean absolute path", path)
		case within(p.Dir, path):
			return fmt.Errorf("the folder %s can't be shown, because the program's own folder %s is in it", path, p.Dir)
		case slices.ContainsFunc(shown, func(s string) bool { return within(path, s) }):
			continue
		}
		st, err := os.Lstat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			return fmt.Errorf("look at %s: %w", path, err)
		case st.Mode()&os.ModeSymlink != 0:
			if err := r.link(path); err != nil {
				return err
			}
			continue
		}
		if err := r.bind(path, unix.MOUNT_ATTR_RDONLY); err != nil {
			return err
		}
		if st.IsDir() {
			shown = append(shown, path)
		}
	}
	return nil
}

// link makes the same symbolic link as outside. Folders on the way to it that are links are plain folders inside.
func (r root) link(path string) error {
	to, err := os.Readlink(path)
	if dir, e := filepath.EvalSymlinks(filepath.Dir(path)); e == nil && dir != filepath.Dir(path) && !filepath.IsAbs(to) {
		to = filepath.Join(dir, to)
	}
	if err == nil {
		err = os.MkdirAll(filepath.Dir(r.path(path)), 0o755)
	}
	if err == nil {
		err = unix.Symlink(to, r.path(path))
	}
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// bind shows a file or folder of the machine.
func (r root) bind(path string, attributes uint64) error {
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	to := r.path(path)
	switch {
	case err != nil:
	case st.IsDir():
		err = os.MkdirAll(to, 0o755)
	default:
		if err = os.MkdirAll(filepath.Dir(to), 0o755); err == nil {
			err = put(to, nil, 0o600)
		}
	}
	if err == nil {
		err = unix.Mount(path, to, "", unix.MS_BIND|unix.MS_REC, "")
	}
	if err != nil {
		return fmt.Errorf("show %s: %w", path, err)
	}
	attributes |= unix.MOUNT_ATTR_NOSUID
	if !strings.HasPrefix(path, "/dev/") {
		attributes |= unix.MOUNT_ATTR_NODEV
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, to, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attributes}); err != nil {
		return fmt.Errorf("show %s read-only (Linux 5.12 is needed): %w", path, err)
	}
	return nil
}

// put writes a new file.
func put(file string, text []byte, mode os.FileMode) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// proc mounts the list of the namespace's own processes.
func (r root) proc() error {
	if err := os.MkdirAll(r.path("/proc"), 0o755); err != nil {
		return err
	}
	return unix.Mount("proc", r.path("/proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "")
}

// accounts writes the files that name users and hosts, with the program's own alone.
func (r root) accounts() error {
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = nobody, nobody
	}
	if err := os.MkdirAll(r.path("/etc"), 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"passwd":        fmt.Sprintf("worker:x:%d:%d:worker:/tmp:/bin/sh\n", uid, gid),
		"group":         fmt.Sprintf("worker:x:%d:\n", gid),
		"hosts":         "127.0.0.1 localhost sandbox\n",
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
	} {
		file := r.path("/etc/" + name)
		if err := put(file, []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Chmod(file, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// enter makes the file system the only one that this process sees.
func (r root) enter() error {
	if err := os.Chdir(r.at); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("enter the new file system: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil { // the old one, which lies over it
		return fmt.Errorf("leave the old file system: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("make the new file system read-only: %w", err)
	}
	return nil
}
