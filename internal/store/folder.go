package store

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fleetscore/fleetscore"
)

// Folder is a user's folder that is only read: nothing is ever created or changed in
// it.
type Folder struct{ *Dir }

// OpenFolder opens a folder that exists; kind NotFound if it doesn't.
func OpenFolder(dir string) (Folder, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Folder{}, fault("open folder", dir, err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return Folder{}, fault("open folder", abs, err)
	}
	return Folder{&Dir{path: abs, root: root}}, nil
}

// Roots are folders of this machine below which other folders may be read, and files that
// may be read themselves. Their places are determined once: if a root, or a folder above it,
// becomes a symbolic link later, the link's target isn't read.
type Roots []root

type root struct {
	name string // absolute, as it was given
	real string // without symbolic links, as far as the path existed and could be read
}

// FindRoots determines the places of folders; the folders needn't exist yet, and the file servers of mounts needn't answer.
func FindRoots(dirs []string) (Roots, error) {
	var out Roots
	for _, dir := range dirs {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, fault("open folder", dir, err)
		}
		out = append(out, root{abs, resolve(abs)})
	}
	return out, nil
}

// resolve follows the symbolic links in a path, as far as the path exists and can be read.
func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if filepath.Dir(path) == path {
		return path
	}
	return filepath.Join(resolve(filepath.Dir(path)), filepath.Base(path))
}

// String lists the roots as they were given.
func (r Roots) String() string {
	var names []string
	for _, root := range r {
		names = append(names, root.name)
	}
	return cmp.Or(strings.Join(names, ", "), "there are none")
}

// OpenFolder opens a folder that is one of the roots or below one. Symbolic links
// that lead out of the root are not followed. Kind Invalid if the folder is in none
// of the roots.
func (r Roots) OpenFolder(dir string) (Folder, error) {
	in, abs, err := r.open("open folder", dir)
	if err != nil {
		return Folder{}, err
	}
	return Folder{&Dir{path: abs, root: in}}, nil
}

// OpenPlace opens a folder, or the folder of a file, by the rules of OpenFolder. name is
// the file in it, or "." if the path is that of a folder.
func (r Roots) OpenPlace(path string) (in *os.Root, name string, err error) {
	if st, err := os.Stat(path); err != nil || st.IsDir() {
		in, _, err := r.open("open folder", path)
		return in, ".", err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, "", fault("open file", path, err)
	}
	for _, root := range r {
		if abs == root.name || abs == root.real { // the file itself is the root
			dir := filepath.Dir(root.real)
			in, _, err := Roots{{dir, dir}}.open("open file", dir)
			return in, filepath.Base(root.real), err
		}
	}
	in, _, err = r.open("open file", filepath.Dir(abs))
	return in, filepath.Base(abs), err
}

func (r Roots) open(op, dir string) (in *os.Root, abs string, err error) {
	if abs, err = filepath.Abs(dir); err != nil {
		return nil, "", fault(op, dir, err)
	}
	for _, root := range r {
		for _, place := range []string{root.name, root.real} {
			if rel, err := filepath.Rel(place, abs); err == nil && filepath.IsLocal(rel) {
				in, err := openBelow(op, root.real, rel)
				return in, filepath.Join(root.real, rel), err
			}
		}
	}
	return nil, "", fleetscore.Errorf(fleetscore.Invalid, op, dir, "it isn't in one of the folders that models and code may be read from (%s)", r).
		WithHint("start the server with --models-root and a folder that contains it, or use a folder of the store, such as models/NAME")
}

func openBelow(op, root, rel string) (*os.Root, error) {
	abs := filepath.Join(root, rel)
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, fault(op, root, err)
	}
	defer r.Close()
	if err := unmoved(r, root); err != nil {
		return nil, err
	}
	in, err := r.OpenRoot(rel)
	if _, there := os.Lstat(abs); err != nil && there == nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, abs, "a symbolic link in the path leads out of %s", root).
			WithHint("start the server with --models-root and the folder that the link leads to, and use that folder")
	}
	if err != nil {
		return nil, fault(op, abs, err)
	}
	return in, nil
}

// unmoved refuses a root whose path now leads to another folder, because of a
// symbolic link.
func unmoved(r *os.Root, path string) error {
	want, err := statWithoutLinks(path)
	if err != nil && !errors.Is(err, syscall.ELOOP) {
		return fault("open folder", path, err)
	}
	if err == nil {
		if have, err := r.Stat("."); err != nil {
			return fault("open folder", path, err)
		} else if os.SameFile(want, have) {
			return nil
		}
	}
	return fleetscore.Errorf(fleetscore.Invalid, "open folder", path, "the folder, or one above it, was replaced by a symbolic link after the server was started").
		WithHint("restart the server if you made this change; to switch between folders by a link, use a --models-root that contains the link and the folders")
}

// lstatParts does what statWithoutLinks does, on kernels that can't look up a path
// without links.
func lstatParts(path string) (os.FileInfo, error) {
	for part := path; ; part = filepath.Dir(part) {
		st, err := os.Lstat(part)
		if err != nil {
			return nil, err
		}
		if st.Mode()&fs.ModeSymlink != 0 {
			return nil, &os.PathError{Op: "open", Path: part, Err: syscall.ELOOP}
		}
		if filepath.Dir(part) == part {
			return os.Lstat(path)
		}
	}
}

// Put refuses.
func (f Folder) Put(_ context.Context, name fleetscore.BlobName, _ io.Reader, _ PutOptions) (Info, error) {
	return Info{}, readOnly("write", name)
}

// Delete refuses.
func (f Folder) Delete(_ context.Context, name fleetscore.BlobName) error {
	return readOnly("delete", name)
}

func readOnly(op string, name fleetscore.BlobName) error {
	return fleetscore.Errorf(fleetscore.Invalid, op, string(name), "the folder is open for reading only")
}
