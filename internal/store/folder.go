package store

import (
	"context"
	"io"
	"os"
	"path/filepath"

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
