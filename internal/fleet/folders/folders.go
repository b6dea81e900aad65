// Package folders shows models that are folders, as MLflow writes them, as one file each: an
// archive that holds the folder's files as they are. So a folder has a name, a size, a digest
// and bytes as other models have them, and goes wherever those go.
//
// It doesn't read models; package sklearn and Python's processes know what is in an archive.
// All functions and values are safe for concurrent use.
package folders

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Manifest is the file that makes a folder a model.
const Manifest = "MLmodel"

// MaxBytes and MaxFiles bound a folder.
const (
	MaxBytes = 1 << 30
	MaxFiles = 10_000
)

// Bucket is a store in which folders with a manifest are blobs.
type Bucket struct {
	store.Bucket
	mu      sync.Mutex // guards what follows
	folders map[string]bool
}

// Fold shows the folders of a store as blobs, once they were listed.
func Fold(b store.Bucket) *Bucket {
	if f, ok := b.(*Bucket); ok {
		return f
	}
	return &Bucket{Bucket: b, folders: map[string]bool{}}
}

// List yields blobs as the store does, and a folder in the place of its files. A folder within
// such a folder belongs to it. Listings of a part aren't changed.
func (b *Bucket) List(ctx context.Context, prefix string, opt store.ListOptions) iter.Seq2[store.Info, error] {
	if prefix != "" || opt.After != "" || opt.Delimiter {
		return b.Bucket.List(ctx, prefix, opt)
	}
	return func(yield func(store.Info, error) bool) {
		l := listing{of: b, yield: yield}
		for i, err := range b.Bucket.List(ctx, "", opt) {
			if err != nil {
				yield(i, err)
				return
			}
			if strings.HasSuffix(string(i.Name), "/"+Manifest) {
				b.add(strings.TrimSuffix(string(i.Name), "/"+Manifest))
			}
			l.waiting = append(l.waiting, i)
			if !l.let(string(i.Name)) {
				return
			}
		}
		if l.let("\xff") {
			l.flush()
		}
	}
}

func (b *Bucket) add(folder string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.folders[folder] = true
}

func (b *Bucket) has(folder string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.folders[folder]
}

// listing holds listed blobs until it is known whether a folder above them is a model: names
// come in order, so that it is known once the listing is beyond the name of its manifest.
type listing struct {
	of      *Bucket
	yield   func(store.Info, error) bool
	waiting []store.Info
	folder  string // a model whose files are being counted
	files   []store.Info
}

// let yields what is known when the listing is at a name. It says whether to go on.
func (l *listing) let(at string) bool {
	n := 0
	for ; n < len(l.waiting); n++ {
		i := l.waiting[n]
		folder, known := l.above(string(i.Name), at)
		if !known {
			break
		}
		if folder != l.folder && !l.flush() {
			return false
		}
		l.folder = folder
		if folder != "" {
			l.files = append(l.files, i)
		} else if !l.yield(i, nil) {
			return false
		}
	}
	if l.waiting = l.waiting[n:]; len(l.waiting) == 0 {
		l.waiting = nil
	}
	return true
}

// above is the outermost folder above a name that is a model; empty if none is.
func (l *listing) above(name, at string) (folder string, known bool) {
	for end := strings.IndexByte(name, '/'); end >= 0; {
		folder := name[:end]
		if l.of.has(folder) {
			return folder, true
		}
		if at < folder+"/"+Manifest {
			return "", false
		}
		next := strings.IndexByte(name[end+1:], '/')
		if next < 0 {
			break
		}
		end += 1 + next
	}
	return "", true
}

// flush yields the model whose files were counted.
func (l *listing) flush() bool {
	if l.folder == "" {
		return true
	}
	out := store.Info{Name: fleetscore.BlobName(l.folder), SizeBytes: size(l.folder, l.files)}
	h := fnv.New128a()
	for _, i := range l.files {
		tag := i.ETag
		if tag == "" {
			tag = i.Modified.String()
		}
		fmt.Fprintf(h, "%s\x00%d\x00%s\x00", i.Name, i.SizeBytes, tag)
		if i.Modified.After(out.Modified) {
			out.Modified = i.Modified
		}
	}
	out.ETag = hex.EncodeToString(h.Sum(nil))
	l.folder, l.files = "", nil
	return l.yield(out, nil)
}

// size is how many bytes the archive of a folder has: two headers for each file, and the end.
func size(folder string, files []store.Info) int64 {
	const local, central, end = 30, 46, 22
	n := int64(end)
	for _, i := range files {
		n += local + central + 2*int64(len(i.Name)-len(folder)-1) + i.SizeBytes
	}
	return n
}

// Get reads a folder as an archive, and other blobs as they are.
func (b *Bucket) Get(ctx context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error) {
	if !b.has(string(name)) {
		return b.Bucket.Get(ctx, name, offset, length)
	}
	data, err := b.archive(ctx, string(name))
	if err != nil {
		return nil, err
	}
	data = data[min(max(0, offset), int64(len(data))):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// Archive reads a folder of this machine as an archive; ok says whether it has a manifest.
func Archive(ctx context.Context, dir string) (data []byte, ok bool, err error) {
	if _, err := os.Stat(filepath.Join(dir, Manifest)); err != nil {
		return nil, false, nil
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, false, err
	}
	b, err := store.OpenFolder(filepath.Dir(dir))
	if err != nil {
		return nil, false, err
	}
	data, err = Fold(b).archive(ctx, filepath.Base(dir))
	return data, true, errors.Join(err, b.Close())
}

// archive is the same for the same files: in order of their names, without times.
func (b *Bucket) archive(ctx context.Context, folder string) ([]byte, error) {
	const op = "read model"
	var files []store.Info
	for i, err := range b.Bucket.List(ctx, folder+"/", store.ListOptions{}) {
		if err != nil {
			return nil, err
		}
		files = append(files, i)
	}
	total := size(folder, files)
	switch {
	case len(files) == 0:
		return nil, fleetscore.Errorf(fleetscore.NotFound, op, folder, "the folder is gone")
	case len(files) > MaxFiles || total > MaxBytes:
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, folder, "the folder has %d files with %d bytes, more than %d or %d", len(files), total, MaxFiles, MaxBytes).
			WithHint("leave in it only what the model needs")
	}
	var out bytes.Buffer
	out.Grow(int(total))
	z := zip.NewWriter(&out)
	for _, i := range files {
		data, err := store.ReadAll(ctx, b.Bucket, i.Name)
		if err != nil {
			return nil, err
		}
		n := uint64(len(data))
		f, err := z.CreateRaw(&zip.FileHeader{Name: string(i.Name)[len(folder)+1:], Method: zip.Store, CRC32: crc32.ChecksumIEEE(data), CompressedSize64: n, UncompressedSize64: n})
		if err == nil {
			_, err = f.Write(data)
		}
		if err != nil {
			return nil, fleetscore.Wrap(op, folder, err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, fleetscore.Wrap(op, folder, err)
	}
	return out.Bytes(), nil
}

// Is reports whether a model's bytes are the archive of a folder.
func Is(data []byte) bool {
	if !bytes.HasPrefix(data, []byte("PK\x03\x04")) || !bytes.Contains(data, []byte(Manifest)) {
		return false
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return false
	}
	for _, f := range z.File {
		if f.Name == Manifest {
			return true
		}
	}
	return false
}

// Unpack writes the files of an archive into a folder, which it makes.
func Unpack(data []byte, dir string) error {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return fleetscore.Errorf(fleetscore.Invalid, "unpack model", filepath.Base(dir), "%w", err)
	}
	left := int64(MaxBytes)
	for _, f := range z.File {
		if !fs.ValidPath(f.Name) || !filepath.IsLocal(filepath.FromSlash(f.Name)) {
			return fleetscore.Errorf(fleetscore.Invalid, "unpack model", filepath.Base(dir), "the archive holds the name %q", f.Name)
		}
		n, err := unpack(f, filepath.Join(dir, filepath.FromSlash(f.Name)), left)
		if left -= n; err == nil && left <= 0 {
			err = fmt.Errorf("the archive holds more than %d bytes", MaxBytes)
		}
		if err != nil {
			return fleetscore.Errorf(fleetscore.Invalid, "unpack model", filepath.Base(dir), "%w", err)
		}
	}
	return nil
}

func unpack(f *zip.File, path string, left int64) (n int64, err error) {
	in, err := f.Open()
	if err != nil {
		return 0, err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return 0, err
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return 0, err
	}
	n, err = io.Copy(out, io.LimitReader(in, left))
	return n, errors.Join(err, out.Close())
}
