// Package durabletest records the operations on a disk and builds, for every moment,
// the folder that a power cut would have left.
package durabletest

import (
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fleetscore/fleetscore/internal/durable"
)

// Loss says what a power cut destroys. Real file systems keep what was synced; of the
// rest they keep what had already reached the disk.
type Loss int

const (
	// LoseNames loses every change of a folder since the folder's last sync, and
	// every byte of a file since the file's last sync.
	LoseNames Loss = iota
	// KeepNames keeps all changes of folders, but loses the bytes that were not
	// synced, so that files may be empty.
	KeepNames
	// HalfBytes keeps all changes of folders and half of the bytes that were not
	// synced.
	HalfBytes
)

// Losses lists all kinds of loss.
var Losses = []Loss{LoseNames, KeepNames, HalfBytes}

// Journal is a disk that carries out its operations and records them. Names are
// relative to the folder, or absolute paths below it.
type Journal struct {
	dir  string
	disk durable.Disk
	name func(string) string // relative to dir

	mu    sync.Mutex // guards steps
	steps []step
}

// step is one change. Changes of folders carry names, changes of files the number
// of the file.
type step struct {
	op       string // create, write, sync, rename, link, remove, mkdir, syncdir
	from, to string
	file     int
	data     []byte
}

// Record records the operations on a disk whose names are relative to dir, such as
// durable.Root.
func Record(dir string, d durable.Disk) *Journal {
	return &Journal{dir: dir, disk: d, name: path.Clean}
}

// RecordOS records the operations on this machine's disk below dir.
func RecordOS(dir string) *Journal {
	return &Journal{dir: dir, disk: durable.OS{}, name: func(p string) string {
		if rel, err := filepath.Rel(dir, p); err == nil {
			return filepath.ToSlash(rel)
		}
		return p
	}}
}

// Len returns the number of steps so far. A power cut may come after any of them.
func (j *Journal) Len() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.steps)
}

func (j *Journal) note(s step) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.steps = append(j.steps, s)
	return len(j.steps) - 1
}

// Create opens an empty file.
func (j *Journal) Create(name string, perm fs.FileMode) (durable.File, error) {
	f, err := j.disk.Create(name, perm)
	if err != nil {
		return nil, err
	}
	return &file{File: f, j: j, number: j.note(step{op: "create", to: j.name(name)})}, nil
}

type file struct {
	durable.File
	j      *Journal
	number int // the step that made it
}

func (f *file) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.j.note(step{op: "write", file: f.number, data: slices.Clone(p[:n])})
	return n, err
}

func (f *file) Sync() error {
	err := f.File.Sync()
	if err == nil {
		f.j.note(step{op: "sync", file: f.number})
	}
	return err
}

func (j *Journal) did(err error, s step) error {
	if err == nil {
		j.note(s)
	}
	return err
}

// Rename renames a file.
func (j *Journal) Rename(from, to string) error {
	return j.did(j.disk.Rename(from, to), step{op: "rename", from: j.name(from), to: j.name(to)})
}

// Link gives a file a second name.
func (j *Journal) Link(from, to string) error {
	return j.did(j.disk.Link(from, to), step{op: "link", from: j.name(from), to: j.name(to)})
}

// Remove removes a file.
func (j *Journal) Remove(name string) error {
	return j.did(j.disk.Remove(name), step{op: "remove", from: j.name(name)})
}

// Mkdir makes a folder.
func (j *Journal) Mkdir(name string, perm fs.FileMode) error {
	return j.did(j.disk.Mkdir(name, perm), step{op: "mkdir", to: j.name(name)})
}

// SyncDir syncs a folder.
func (j *Journal) SyncDir(name string) error {
	return j.did(j.disk.SyncDir(name), step{op: "syncdir", from: j.name(name)})
}

// content is what a file holds, and how much of it was synced.
type content struct {
	data   []byte
	synced int
}

// names maps a folder's entries to files, or to nil for folders.
type names map[string]*content

// Left is what a power cut leaves.
type Left struct {
	Dir   string
	Steps int // that were taken before
	Loss  Loss
}

// String says when the power was cut, for messages.
func (l Left) String() string { return fmt.Sprintf("after step %d, loss %d", l.Steps, l.Loss) }

// Acknowledged is how many of some writes had ended before the cut. ends holds, for each
// write, the journal's length at its end.
func (l Left) Acknowledged(ends []int) (n int) {
	for n < len(ends) && ends[n] <= l.Steps {
		n++
	}
	return n
}

// Cuts cuts the power after each step, with each kind of loss.
func (j *Journal) Cuts(t testing.TB) iter.Seq[Left] {
	return func(yield func(Left) bool) {
		for n := range j.Len() + 1 {
			for _, loss := range Losses {
				l := Left{t.TempDir(), n, loss}
				if err := j.Cut(n, loss, l.Dir); err != nil {
					t.Fatal(err)
				}
				if !yield(l) {
					return
				}
			}
		}
	}
}

// Cut writes into an empty folder what is left if the power fails after the first n
// steps.
func (j *Journal) Cut(n int, loss Loss, into string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	now, lasting := map[string]names{".": {}}, map[string]names{".": {}}
	files := map[int]*content{}
	folder := func(of map[string]names, name string) names {
		if of[name] == nil {
			of[name] = names{}
		}
		return of[name]
	}
	for i, s := range j.steps[:n] {
		switch s.op {
		case "create":
			files[i] = &content{}
			folder(now, path.Dir(s.to))[path.Base(s.to)] = files[i]
		case "write":
			files[s.file].data = append(files[s.file].data, s.data...)
		case "sync":
			files[s.file].synced = len(files[s.file].data)
		case "rename", "link":
			f := folder(now, path.Dir(s.from))[path.Base(s.from)]
			folder(now, path.Dir(s.to))[path.Base(s.to)] = f
			if s.op == "rename" {
				delete(now[path.Dir(s.from)], path.Base(s.from))
			}
		case "remove":
			delete(folder(now, path.Dir(s.from)), path.Base(s.from))
		case "mkdir":
			folder(now, path.Dir(s.to))[path.Base(s.to)] = nil
		case "syncdir":
			kept := names{}
			for name, f := range folder(now, s.from) {
				kept[name] = f
			}
			lasting[s.from] = kept
		}
	}
	if loss != LoseNames {
		lasting = now
	}
	return write(into, ".", lasting, loss)
}

// write writes a folder and those below it. The content of a folder whose own name
// was lost is lost too.
func write(into, dir string, all map[string]names, loss Loss) error {
	for name, f := range all[dir] {
		full := filepath.Join(into, filepath.FromSlash(dir), name)
		if f == nil {
			if err := os.MkdirAll(full, 0o755); err != nil {
				return err
			}
			if err := write(into, strings.TrimPrefix(path.Join(dir, name), "./"), all, loss); err != nil {
				return err
			}
			continue
		}
		keep := f.synced
		if loss == HalfBytes {
			keep += (len(f.data) - f.synced) / 2
		}
		if err := os.WriteFile(full, f.data[:keep], 0o644); err != nil {
			return err
		}
	}
	return nil
}
