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
	"cmp"
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
	"sync"

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

// Cache keeps unpacked archives while a node lives, as many as fit into a bound.
type Cache struct {
	// Dir is the folder below which archives are unpacked. Empty means a folder of its own in the
	// system's folder for temporary files.
	Dir string
	// MostBytes is how much may be kept that no task uses; 0 means 1 GiB.
	MostBytes int64
	// Leave is called before a folder is removed to make room; nothing may use it afterwards. nil
	// means that nobody has to be told.
	Leave func(folder string)

	mu      sync.Mutex // guards what follows, also while an archive is fetched
	own     bool       // Dir was made
	folders map[fleetscore.Digest]*folder
	turn    int64 // grows with each use
}

// folder is an unpacked archive.
type folder struct {
	dir   string
	bytes int64
	users int   // tasks that need it
	used  int64 // the turn of the last use
}

// mostBytes is what a cache keeps unless its owner says something else.
const mostBytes = 1 << 30

// Folder gives the folder with the content of an archive, which fetch gets if it isn't here. It
// stays until done is called.
func (c *Cache) Folder(ctx context.Context, digest fleetscore.Digest, fetch func(context.Context) ([]byte, error)) (dir string, done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.folders[digest]
	if !ok {
		if f, err = c.add(ctx, digest, fetch); err != nil {
			return "", nil, err
		}
	}
	c.turn++
	f.users, f.used = f.users+1, c.turn
	return f.dir, sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		f.users--
	}), nil
}

// add unpacks an archive. The lock is held.
func (c *Cache) add(ctx context.Context, digest fleetscore.Digest, fetch func(context.Context) ([]byte, error)) (*folder, error) {
	const op = "unpack code"
	data, err := fetch(ctx)
	if err != nil {
		return nil, err
	}
	if fleetscore.DigestOf(data) != digest {
		return nil, fleetscore.Errorf(fleetscore.Corrupt, op, digest.Short(), "the archive's bytes don't match its digest")
	}
	if c.Dir == "" {
		if c.Dir, err = os.MkdirTemp("", "fleetscore-code-"); err != nil {
			return nil, fleetscore.Errorf(fleetscore.Unavailable, op, digest.Short(), "%w", err)
		}
		c.own = true
		if err := os.Chmod(c.Dir, 0o755); err != nil { // isolated programs may run as another user
			return nil, fleetscore.Errorf(fleetscore.Unavailable, op, c.Dir, "%w", err)
		}
	}
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Corrupt, op, digest.Short(), "%w", err)
	}
	f := &folder{dir: filepath.Join(c.Dir, "code-"+digest.Short())}
	for _, file := range archive.File {
		f.bytes += int64(min(file.UncompressedSize64, maxBytes))
	}
	if err := c.room(f.bytes); err != nil {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, op, digest.Short(), "%w", err)
	}
	if err := unpack(archive, f.dir); err != nil {
		return nil, errors.Join(fleetscore.Errorf(fleetscore.Unavailable, op, digest.Short(), "%w", err), os.RemoveAll(f.dir))
	}
	if c.folders == nil {
		c.folders = map[fleetscore.Digest]*folder{}
	}
	c.folders[digest] = f
	return f, nil
}

// room removes folders that no task uses, the one that was used least recently first, until so
// much more fits. The lock is held.
func (c *Cache) room(more int64) error {
	for _, f := range c.folders {
		more += f.bytes
	}
	for most := cmp.Or(c.MostBytes, mostBytes); more > most; {
		var oldest fleetscore.Digest
		for d, f := range c.folders {
			if o := c.folders[oldest]; f.users == 0 && (o == nil || f.used < o.used) {
				oldest = d
			}
		}
		f := c.folders[oldest]
		if f == nil {
			return nil // tasks use all of them
		}
		if c.Leave != nil {
			c.Leave(f.dir)
		}
		if err := os.RemoveAll(f.dir); err != nil {
			return err
		}
		delete(c.folders, oldest)
		more -= f.bytes
	}
	return nil
}

// unpack writes the files of an archive below a new folder.
func unpack(archive *zip.Reader, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range archive.File {
		if err := unpackFile(root, f); err != nil {
			return err
		}
	}
	return nil
}

func unpackFile(root *os.Root, f *zip.File) error {
	if err := root.MkdirAll(path.Dir(f.Name), 0o755); err != nil {
		return err
	}
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := root.OpenFile(f.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, maxBytes))
	return errors.Join(err, out.Close())
}

// Close removes what was unpacked. Nothing of it may be in use.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var problems []error
	for _, f := range c.folders {
		problems = append(problems, os.RemoveAll(f.dir))
	}
	if c.own {
		problems = append(problems, os.RemoveAll(c.Dir))
		c.Dir, c.own = "", false
	}
	c.folders = nil
	return errors.Join(problems...)
}
