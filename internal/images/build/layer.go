package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fleetscore/fleetscore"
)

// tree is what a base has: types and targets of links by path, relative to the root.
type tree map[string]node

type node struct {
	kind byte // as in tar
	link string
}

// readTree lists the files of an image, without those that upper layers remove.
func readTree(img v1.Image) (tree, error) {
	t := tree{}
	layers, err := img.Layers()
	if err != nil || len(layers) == 0 {
		return t, err
	}
	r := mutate.Extract(img)
	defer r.Close()
	for files := tar.NewReader(r); ; {
		h, err := files.Next()
		if err == io.EOF {
			return t, nil
		} else if err != nil {
			return nil, err
		}
		p := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		t[p] = node{h.Typeflag, h.Linkname}
		for p = path.Dir(p); p != "." && t[p].kind == 0; p = path.Dir(p) { // folders that the archive doesn't name
			t[p] = node{kind: tar.TypeDir}
		}
	}
}

// maxLinks is how many links a path may lead through, as in the kernel.
const maxLinks = 40

// resolve follows the links in the folders of a path, and with all in its last part too: a
// layer that has a folder where the base has a link would hide what lies behind the link.
func (t tree) resolve(p string, all bool) (string, error) {
	left, done := strings.Split(p, "/"), ""
	for links := 0; len(left) > 0; {
		at := path.Join(done, left[0])
		left = left[1:]
		n, there := t[at]
		switch {
		case there && n.kind == tar.TypeSymlink && (all || len(left) > 0):
			if links++; links > maxLinks {
				return "", fmt.Errorf("/%s leads through too many links", p)
			}
			to := n.link
			if !path.IsAbs(to) {
				to = path.Join("/", done, to)
			}
			to = strings.TrimPrefix(path.Clean(to), "/")
			done = ""
			if to != "" {
				left = append(strings.Split(to, "/"), left...)
			}
		case there && n.kind != tar.TypeDir && len(left) > 0:
			return "", fmt.Errorf("/%s is a file in the base, and /%s needs a folder there", at, p)
		default:
			done = at
		}
	}
	return done, nil
}

// entry is a file, folder or link of a layer.
type entry struct {
	path string // relative to the root
	kind byte   // as in tar: a file, folder or link
	mode int64
	link string
	size int64
	open func() (io.ReadCloser, error)
}

func textEntry(p string, mode int64, text []byte) entry {
	return entry{path: p, kind: tar.TypeReg, mode: mode, size: int64(len(text)), open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }}
}

// layerOf makes a layer of entries. Of two for the same path the later one counts.
func layerOf(t tree, entries []entry, mediaType types.MediaType) (v1.Layer, error) {
	byPath := map[string]entry{}
	for _, e := range entries {
		if e.path == "" {
			continue // the root is there
		}
		p, err := t.resolve(e.path, e.kind == tar.TypeDir)
		if err != nil {
			return nil, invalid("/"+e.path, "%w", err)
		}
		n, there := t[p]
		if there && e.kind == tar.TypeDir && n.kind == tar.TypeDir {
			continue // it keeps its owner and rights
		}
		if there && (e.kind == tar.TypeDir) != (n.kind == tar.TypeDir) {
			return nil, invalid("/"+p, "the base has a %s there, and the image would get a %s", kindName(n.kind), kindName(e.kind))
		}
		e.path = p
		byPath[p] = e
	}
	for _, p := range slices.Collect(maps.Keys(byPath)) { // folders that nobody named
		for at := path.Dir(p); at != "."; at = path.Dir(at) {
			if have, named := byPath[at]; named && have.kind != tar.TypeDir {
				return nil, invalid("/"+at, "it would be both a file and a folder")
			}
			if _, there := t[at]; there {
				break
			}
			byPath[at] = entry{path: at, kind: tar.TypeDir, mode: 0o755}
		}
	}
	sorted := slices.SortedFunc(maps.Values(byPath), func(a, b entry) int { return strings.Compare(a.path, b.path) })
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(writeTar(w, sorted)) }() // it ends when the reader is closed
		return r, nil
	}, layerOptions(mediaType, sizeOf(sorted))...)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil, fleetscore.Wrap(op, "", err)
		}
		return nil, invalid("layer", "%w", err)
	}
	return l, nil
}

// maxCached is up to which size of its content a layer's compressed form is kept in memory,
// which saves compressing it again for the registry.
const maxCached = 1 << 30

func layerOptions(mediaType types.MediaType, sizeBytes int64) []tarball.LayerOption {
	out := []tarball.LayerOption{tarball.WithMediaType(mediaType)}
	if sizeBytes <= maxCached {
		out = append(out, tarball.WithCompressedCaching)
	}
	return out
}

func sizeOf(entries []entry) (n int64) {
	for _, e := range entries {
		n += e.size
	}
	return n
}

func kindName(kind byte) string {
	switch kind {
	case tar.TypeDir:
		return "folder"
	case tar.TypeSymlink:
		return "link"
	}
	return "file"
}

func writeTar(w io.Writer, entries []entry) error {
	out := tar.NewWriter(w)
	for _, e := range entries {
		h := &tar.Header{Name: e.path, Typeflag: e.kind, Mode: e.mode, Linkname: e.link, Size: e.size, ModTime: epoch, Format: tar.FormatPAX}
		if e.kind == tar.TypeDir {
			h.Name += "/"
		}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if e.open == nil {
			continue
		}
		r, err := e.open()
		if err != nil {
			return err
		}
		n, err := io.Copy(out, io.LimitReader(r, e.size+1))
		r.Close() // only read
		if err == nil && n != e.size || errors.Is(err, tar.ErrWriteTooLong) {
			err = fmt.Errorf("/%s changed while it was read", e.path)
		}
		if err != nil {
			return err
		}
	}
	return out.Close()
}

// copies reads what FROM:TO names.
func copies(all []string) (out []entry, err error) {
	for _, text := range all {
		i := strings.LastIndexByte(text, ':')
		if i <= 0 {
			return nil, invalid(text, "a file and its path in the image are expected").WithHint("write for example --copy predict.py:/app/predict.py")
		}
		from, to := text[:i], text[i+1:]
		if info, err := os.Stat(from); strings.HasSuffix(to, "/") && (err != nil || !info.IsDir()) {
			to += filepath.Base(from)
		}
		to, err := clean(to)
		if err != nil {
			return nil, invalid(text, "%w", err)
		}
		entries, err := walk(from, to)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil, fleetscore.Errorf(fleetscore.NotFound, op, from, "there is no such file or folder")
			}
			return nil, invalid(from, "%w", err)
		}
		out = append(out, entries...)
	}
	return out, nil
}

// walk reads a file, or a folder with everything below it. Links in it stay links, with the
// same target; FROM itself may be a link to what is meant.
func walk(from, to string) (out []entry, err error) {
	if real, err := filepath.EvalSymlinks(from); err == nil {
		from = real
	}
	return out, filepath.WalkDir(from, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{path: path.Join(to, filepath.ToSlash(rel)), mode: 0o644}
		switch {
		case d.IsDir():
			e.kind, e.mode = tar.TypeDir, 0o755
		case info.Mode()&fs.ModeSymlink != 0:
			e.kind, e.mode = tar.TypeSymlink, 0o777
			if e.link, err = os.Readlink(file); err != nil {
				return err
			}
		case info.Mode().IsRegular():
			e.kind, e.size, e.open = tar.TypeReg, info.Size(), func() (io.ReadCloser, error) { return os.Open(file) }
			if info.Mode()&0o100 != 0 {
				e.mode = 0o755
			}
		default:
			return fmt.Errorf("%s is neither a file, a folder nor a link", file)
		}
		out = append(out, e)
		return nil
	})
}
