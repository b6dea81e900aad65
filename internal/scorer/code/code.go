// Package code carries the files that Python and commands need besides models to the nodes:
// folders and files of the server's machine become one archive, whose digest names it, and a
// node unpacks it once.
//
// It neither runs code nor knows where archives are kept. All functions and values are safe
// for concurrent use.
package code

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Bounds of an archive.
const (
	maxFiles = 10_000
	maxBytes = 64 << 20 // of all files together
)

// Part is a folder or a file, and the folder of the archive that it comes into.
type Part struct {
	Name string // such as "code"
	Path string // on this machine; a folder's content, or one file under its own name
}

// PartsOf are the files and folders of a pipeline's code, as its configuration names them. They
// needn't be on this machine.
func PartsOf(p fleetscore.PipelineConfig) (out []Part) {
	path := p.Python.Code
	if p.Command != nil {
		path = p.Command.Code
	}
	if path != "" {
		out = append(out, Part{Name: "code", Path: filepath.Clean(path)})
	}
	for i, e := range p.Python.Environments {
		if e.Requirements != "" {
			out = append(out, Part{Name: "requirements/" + strconv.Itoa(i), Path: filepath.Clean(e.Requirements)})
		}
	}
	return out
}

// Here are the parts that this machine has.
func Here(parts []Part) []Part {
	return slices.DeleteFunc(slices.Clone(parts), func(p Part) bool {
		_, err := os.Stat(p.Path)
		return err != nil
	})
}

// Check refuses parts on this machine that lie in none of the roots.
func Check(roots store.Roots, parts []Part) error {
	var problems []error
	for _, part := range Here(parts) {
		in, _, err := roots.OpenPlace(part.Path)
		if err == nil {
			err = in.Close()
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// Pack makes an archive of the parts. The same files give the same bytes. Names that begin with
// "." or are __pycache__ are left out, and so is what isn't a regular file: links could lead
// anywhere. Kind NotFound if a part isn't there, Invalid if it lies in none of the roots,
// Exhausted if there is too much.
func Pack(ctx context.Context, roots store.Roots, parts []Part) ([]byte, error) {
	p := packer{ctx: ctx, roots: roots}
	p.archive = zip.NewWriter(&p.out)
	for _, part := range parts {
		if err := p.part(part); err != nil {
			return nil, err
		}
	}
	if err := p.archive.Close(); err != nil {
		return nil, err
	}
	return p.out.Bytes(), nil
}

type packer struct {
	ctx     context.Context // of Pack
	roots   store.Roots
	out     bytes.Buffer
	archive *zip.Writer
	files   int
	bytes   int64
}

func (p *packer) part(part Part) error {
	root, name, err := p.roots.OpenPlace(part.Path)
	if err != nil {
		return err
	}
	defer root.Close()
	if name != "." {
		return p.file(root, name, part.Name)
	}
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fleetscore.Wrap("pack code", path.Join(part.Path, name), err)
		case p.ctx.Err() != nil:
			return p.ctx.Err()
		case name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "__pycache__"):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !d.Type().IsRegular():
			return nil
		}
		return p.file(root, name, part.Name)
	})
}

// file adds a file below a folder of the archive.
func (p *packer) file(root *os.Root, name, to string) error {
	st, err := root.Stat(name)
	if err == nil && !st.Mode().IsRegular() { // to open a pipe could wait for ever
		return fleetscore.Errorf(fleetscore.Invalid, "pack code", name, "it is neither a file nor a folder")
	}
	if err != nil {
		return fleetscore.Wrap("pack code", name, err)
	}
	f, err := root.Open(name)
	if err != nil {
		return fleetscore.Wrap("pack code", name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return fleetscore.Wrap("pack code", name, err)
	}
	p.files++
	p.bytes += int64(len(data))
	if p.files > maxFiles || p.bytes > maxBytes {
		return fleetscore.Errorf(fleetscore.Exhausted, "pack code", root.Name(), "it has more than %d files or %d MB", maxFiles, maxBytes>>20)
	}
	w, err := p.archive.CreateHeader(&zip.FileHeader{Name: path.Join(to, name), Method: zip.Deflate}) // without the time, which would change the digest
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}
