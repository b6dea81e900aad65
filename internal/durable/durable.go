// Package durable writes files of state so that a power cut at any moment leaves
// the old content or the new one, and never loses what was acknowledged.
//
// Every room that keeps files of its own writes them with this package; archtest
// refuses os.WriteFile, os.Create and os.Rename elsewhere. The order is always the
// same: write a temporary file, sync it, rename it, sync the folder that names it.
//
// One writer at a time may write a file. The package has no state and starts no
// goroutines.
package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// File is an open file of a Disk.
type File interface {
	io.Writer
	Sync() error
	Close() error
}

// Disk has the operations that durable files need. Tests record these operations, to
// know what a power cut would leave on the disk.
type Disk interface {
	// Create opens an empty file for writing. An existing file of that name is
	// emptied.
	Create(name string, perm fs.FileMode) (File, error)
	// Rename gives a file another name, and replaces a file that has that name.
	Rename(from, to string) error
	// Link gives a file a second name, and fails if a file already has that name.
	Link(from, to string) error
	Remove(name string) error
	Mkdir(name string, perm fs.FileMode) error
	// SyncDir makes the names in a folder durable.
	SyncDir(name string) error
}

// OS is the disk of this machine.
type OS struct{}

// Create opens an empty file.
func (OS) Create(name string, perm fs.FileMode) (File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
}

// Rename renames a file.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Link gives a file a second name.
func (OS) Link(from, to string) error { return os.Link(from, to) }

// Remove removes a file.
func (OS) Remove(name string) error { return os.Remove(name) }

// Mkdir makes a folder.
func (OS) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(name, perm) }

// SyncDir syncs a folder.
func (OS) SyncDir(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return syncAndClose(f)
}

func syncAndClose(f *os.File) error {
	err := f.Sync()
	if errors.Is(err, syscall.EINVAL) { // some file systems can't sync a folder
		err = nil
	}
	return errors.Join(err, f.Close())
}

// Root is the disk below a folder. Names are relative to the folder and can't lead
// out of it.
type Root struct{ *os.Root }

// Create opens an empty file.
func (r Root) Create(name string, perm fs.FileMode) (File, error) {
	return r.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
}

// SyncDir syncs a folder.
func (r Root) SyncDir(name string) error {
	f, err := r.Open(name)
	if err != nil {
		return err
	}
	return syncAndClose(f)
}

// WriteFile writes a whole small file. Its folder must exist.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return WriteFileOn(OS{}, path, data, perm)
}

// WriteFileOn writes a whole small file of a disk.
func WriteFileOn(d Disk, path string, data []byte, perm fs.FileMode) error {
	p, err := CreateOn(d, path, perm)
	if err != nil {
		return err
	}
	if _, err := p.File.Write(data); err != nil {
		return errors.Join(err, p.Abort())
	}
	return p.Commit()
}

// temporary is the end of an unfinished file's name. The name is always the same, so
// that the next attempt replaces a file that a crash left.
const temporary = ".part"

// Pending is a file that is being written under a temporary name.
type Pending struct {
	File File // to write to
	disk Disk
	path string
}

// Create begins to write a file of this machine; its File is an *os.File. Commit
// makes the file visible, Abort removes it.
func Create(path string, perm fs.FileMode) (*Pending, error) { return CreateOn(OS{}, path, perm) }

// CreateOn begins to write a file of a disk.
func CreateOn(d Disk, path string, perm fs.FileMode) (*Pending, error) {
	f, err := d.Create(path+temporary, perm)
	if err != nil {
		return nil, err
	}
	return &Pending{File: f, disk: d, path: path}, nil
}

// Commit syncs the file, gives it its name and makes the name durable. After an error
// the name may stand for the new file or for the old one, if there was an old one.
func (p *Pending) Commit() error {
	err := p.File.Sync()
	if err = errors.Join(err, p.File.Close()); err == nil {
		err = p.disk.Rename(p.path+temporary, p.path)
	}
	if err != nil {
		return errors.Join(err, p.remove())
	}
	return p.disk.SyncDir(filepath.Dir(p.path))
}

// Abort removes what was written.
func (p *Pending) Abort() error { return errors.Join(p.File.Close(), p.remove()) }

func (p *Pending) remove() error {
	if err := p.disk.Remove(p.path + temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// MkdirAll makes a folder of this machine and the missing folders above it, and makes
// their names durable.
func MkdirAll(path string, perm fs.FileMode) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	return MkdirAllOn(OS{}, path, perm, func(dir string) (bool, error) {
		st, err := os.Stat(dir)
		if err == nil && !st.IsDir() {
			err = &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	}, func(string) {})
}

// MkdirAllOn makes a folder of a disk and the folders above it, except folders that
// lasts reports as durable already. It calls made for each folder that it makes.
func MkdirAllOn(d Disk, path string, perm fs.FileMode, lasts func(dir string) (bool, error), made func(dir string)) error {
	if path == "." || path == "" || path == string(filepath.Separator) {
		return nil
	}
	if ok, err := lasts(path); ok || err != nil {
		return err
	}
	parent := filepath.Dir(path)
	if err := MkdirAllOn(d, parent, perm, lasts, made); err != nil {
		return err
	}
	if err := d.Mkdir(path, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := d.SyncDir(parent); err != nil {
		return err
	}
	made(path)
	return nil
}

// Scratch makes a temporary file without a name. The file disappears when it is
// closed or the process ends. An empty folder means the system's folder for temporary
// files.
func Scratch(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "scratch-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
