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

// Folder is somebody's folder, to be read only: nothing is ever made or changed
// in it.
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

// OpenFolderIn is OpenFolder of a folder that must lie in one of the roots, which are
// folders too. Symbolic links that lead out of the root are not followed. Kind
// Invalid if it lies in none.
func OpenFolderIn(roots []string, dir string) (Folder, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Folder{}, fault("open folder", dir, err)
	}
	for _, root := range roots {
		if root, err = filepath.Abs(root); err != nil {
			return Folder{}, fault("open folder", root, err)
		}
		places := []string{root}
		if real, err := filepath.EvalSymlinks(root); err == nil && real != root {
			places = append(places, real)
		}
		for _, place := range places {
			rel, err := filepath.Rel(place, abs)
			if err != nil || !filepath.IsLocal(rel) {
				continue
			}
			return openBelow(place, rel)
		}
	}
	return Folder{}, fleetscore.Errorf(fleetscore.Invalid, "open folder", dir, "it lies in none of the folders that models may be read from (%s)", cmp.Or(strings.Join(roots, ", "), "there are none")).
		WithHint("start the server with --models-root and a folder that holds it, or give a folder of the store, such as models/NAME")
}

func openBelow(root, rel string) (Folder, error) {
	abs := filepath.Join(root, rel)
	r, err := os.OpenRoot(root)
	if err != nil {
		return Folder{}, fault("open folder", root, err)
	}
	defer r.Close()
	in, err := r.OpenRoot(rel)
	if _, there := os.Lstat(abs); err != nil && there == nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return Folder{}, fleetscore.Errorf(fleetscore.Invalid, "open folder", abs, "a symbolic link on the way leads out of %s", root).
			WithHint("start the server with --models-root and the folder that it leads to, and name that folder")
	}
	if err != nil {
		return Folder{}, fault("open folder", abs, err)
	}
	return Folder{&Dir{path: abs, root: in}}, nil
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
