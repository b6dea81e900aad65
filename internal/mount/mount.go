// Package mount checks folders that machines have mounted from file servers, and measures how
// fast they are.
//
// A file server that is away makes calls of the operating system wait for ever. Each look at a
// mount therefore has a goroutine of its own, which isn't waited for beyond a limit; while it
// hangs, no second one is started for the same path. The package mounts nothing. A Checker is
// safe for concurrent use.
package mount

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Limit is how long a look at a mount may take.
const Limit = 10 * time.Second

// Checker looks at mounts. The zero value is ready.
type Checker struct {
	// Limit is how long a look may take; 0 means the constant Limit.
	Limit time.Duration
	// Roots are the folders that mounts may lie in. Empty means that there may be none.
	Roots []string

	mu      sync.Mutex       // guards what follows
	looking map[string]*look // that haven't ended, by what they look at
}

// look is one look at a mount.
type look struct {
	ended chan struct{}
	err   error // written before ended is closed
}

// Check says why a mount can't be used; nil if it can. Kind Unavailable: it is absent, stale or
// doesn't answer; Invalid: it isn't what the configuration says, or may not be used.
func (c *Checker) Check(ctx context.Context, m fleetscore.Mount) error {
	const op = "check mount"
	fail := func(kind fleetscore.Kind, err error) error {
		return fleetscore.Errorf(kind, op, m.Name, "%w", err).WithHint("mount it on this machine, or correct mounts.%s in fleet.yaml (docs/mounts.md)", m.Name)
	}
	limit, l := cmp.Or(c.Limit, Limit), c.start(m)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fail(fleetscore.Unavailable, fmt.Errorf("%s didn't answer within %s: its file server may be away", m.Path, limit))
	case <-l.ended:
		err := l.err
		if bad, ok := errors.AsType[*unfit](err); ok {
			return fail(fleetscore.Invalid, bad)
		}
		if err != nil {
			return fail(fleetscore.Unavailable, err)
		}
		return nil
	}
}

// start looks at a mount, unless a look at it hasn't ended.
func (c *Checker) start(m fleetscore.Mount) *look {
	key := fmt.Sprintf("%s %q %q %q %t", m.Name, m.Path, m.Type, m.Source, m.Writable())
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.looking[key]; l != nil {
		return l
	}
	if c.looking == nil {
		c.looking = map[string]*look{}
	}
	l := &look{ended: make(chan struct{})}
	c.looking[key] = l
	go func() {
		l.err = c.look(m)
		c.mu.Lock()
		delete(c.looking, key)
		c.mu.Unlock()
		close(l.ended)
	}()
	return l
}

// unfit is a mount that answers and isn't what it should be.
type unfit struct{ text string }

func (u *unfit) Error() string { return u.text }

func unfitf(format string, args ...any) error { return &unfit{fmt.Sprintf(format, args...)} }

// look looks at a mount, however long that takes.
func (c *Checker) look(m fleetscore.Mount) error {
	// The table of mounts is read first: that never waits for a file server.
	if m.Type != "" || m.Source != "" {
		found, err := Find(m.Path)
		if err != nil {
			return err
		}
		if err := fits(m, found); err != nil {
			return err
		}
	}
	if err := c.allowed(m.Path); err != nil {
		return err
	}
	st, err := os.Stat(m.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no folder %s on this machine", m.Path)
	case err != nil:
		return stale(m.Path, err)
	case !st.IsDir():
		return unfitf("%s isn't a folder", m.Path)
	}
	f, err := os.Open(m.Path)
	if err != nil {
		return stale(m.Path, err)
	}
	defer f.Close()
	if _, err := f.Readdirnames(1); err != nil && !errors.Is(err, io.EOF) {
		return stale(m.Path, err)
	}
	if m.Writable() {
		if err := writable(m.Path); err != nil {
			return unfitf("programs are to write there (read_only: false), but %s can't be written by this user: %v", m.Path, err)
		}
	}
	return nil
}

// allowed refuses paths outside of the roots, links followed.
func (c *Checker) allowed(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no folder %s on this machine", path)
	} else if err != nil {
		return stale(path, err)
	}
	for _, r := range c.Roots {
		root, err := filepath.EvalSymlinks(r)
		if err != nil {
			continue
		}
		if rel, err := filepath.Rel(root, real); err == nil && filepath.IsLocal(rel) {
			return nil
		}
	}
	return unfitf("%s doesn't lie in a folder of this machine that mounts may lie in; start the process (serve, or node on other machines) with --mount-root %s if it may be used", path, path)
}

// stale says what an error of a mount means.
func stale(path string, err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	switch {
	case errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.EIO), errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, syscall.EHOSTDOWN):
		return fmt.Errorf("%s is stale, as the connection to its file server is broken (%w); unmount it and mount it again", path, err)
	case errors.Is(err, fs.ErrPermission):
		return unfitf("%s can't be read by this user: %v", path, err)
	}
	return fmt.Errorf("%s can't be read: %w", path, err)
}

// Entry is a line of the machine's table of mounts.
type Entry struct {
	At     string // where it is mounted
	Type   string
	Source string
}

// Find gives the mount that a path lies in.
func Find(path string) (Entry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return Entry{}, unfitf("this machine has no table of mounts that type and source could be compared with: %v", err)
	}
	defer f.Close()
	return find(f, path)
}

func find(table io.Reader, path string) (best Entry, err error) {
	lines := bufio.NewScanner(table)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// 36 35 98:0 /root /at rw,noatime master:1 - type source options
		before, after, ok := strings.Cut(lines.Text(), " - ")
		a, b := strings.Fields(before), strings.Fields(after)
		if !ok || len(a) < 5 || len(b) < 2 {
			continue
		}
		e := Entry{unescape(a[4]), b[0], unescape(b[1])}
		if rel, err := filepath.Rel(e.At, path); err == nil && filepath.IsLocal(rel) && len(e.At) >= len(best.At) { // of several at one place, the last covers the others
			best = e
		}
	}
	return best, lines.Err()
}

// unescape undoes how the table writes spaces and the like: \040.
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		var c int
		if s[i] == '\\' && len(s)-i >= 4 {
			if _, err := fmt.Sscanf(s[i+1:i+4], "%o", &c); err == nil {
				out.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// kinds are what people call file systems, with the names that tables of mounts have.
var kinds = map[string][]string{
	"nfs":     {"nfs", "nfs4"},
	"smb":     {"cifs", "smb3"},
	"gluster": {"fuse.glusterfs"},
	"lustre":  {"lustre"},
}

// fits compares what is mounted with what should be.
func fits(m fleetscore.Mount, is Entry) error {
	as := fmt.Sprintf("%s lies in %s of type %s, which is mounted from %s", m.Path, is.At, is.Type, is.Source)
	if names := append(kinds[m.Type], m.Type); m.Type != "" && !slices.Contains(names, is.Type) {
		return fmt.Errorf("%s of type %s isn't mounted: %s", m.Name, m.Type, as)
	}
	if m.Source != "" && strings.TrimRight(m.Source, "/") != strings.TrimRight(is.Source, "/") {
		return fmt.Errorf("%s of %s isn't mounted: %s", m.Name, m.Source, as)
	}
	return nil
}
