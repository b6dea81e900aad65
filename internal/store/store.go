// Package store is blob storage: named byte strings that are written whole and
// atomically, read in ranges, and listed in order of their names.
//
// It supports a directory (Dir) and three clouds: S3 and servers that speak its
// protocol, Azure Blob Storage and Google Cloud Storage. All of them implement Bucket
// and pass the same conformance suite (storetest). Names are separated by slashes and
// have no other meaning here. All buckets are safe for concurrent use, also by
// several processes.
package store

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"iter"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fleetscore/fleetscore"
)

// Info describes a blob. In a listing with Delimiter, a folder is an Info whose
// Name ends in "/" and whose other fields are zero.
type Info struct {
	Name      fleetscore.BlobName `json:"name"`
	SizeBytes int64               `json:"size_bytes"`
	Modified  time.Time           `json:"modified"`
	ETag      string              `json:"etag,omitempty"` // changes when the content does
}

// PutOptions say how a blob is written.
type PutOptions struct {
	// IfAbsent refuses with kind Conflict if the blob exists. If several writers try,
	// exactly one succeeds, also across processes.
	IfAbsent bool
}

// ListOptions narrow a listing.
type ListOptions struct {
	After fleetscore.BlobName // only names greater than this
	// Refused, if not nil, is called with the names of symbolic links that aren't
	// followed because they lead out of the store's directory, to nothing, or to a
	// folder.
	Refused   func(fleetscore.BlobName)
	Delimiter bool // only the direct children of the prefix's folder; each subfolder once, with a trailing "/"
}

// Bucket is a store or a part of it.
type Bucket interface {
	// Get reads length bytes from offset; a negative length reads to the end. A range
	// beyond the end is cut off. Kind NotFound if there is no such blob. All bytes of
	// one reader belong to one content: if the blob is overwritten meanwhile, the
	// reader returns the old content or fails with kind Unavailable.
	Get(ctx context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error)
	// Put writes the whole blob: readers see the old content or the new, and after
	// Put returned without error the content survives a power cut. If reading the
	// body fails, nothing is left. The body is read once and never held in memory as
	// a whole. After an error of kind Unavailable the blob may have been written
	// nevertheless, if only the answer was lost.
	Put(ctx context.Context, name fleetscore.BlobName, body io.Reader, opt PutOptions) (Info, error)
	// Stat describes the blob; kind NotFound if there is none.
	Stat(ctx context.Context, name fleetscore.BlobName) (Info, error)
	// Delete removes the blob; a missing blob is no error.
	Delete(ctx context.Context, name fleetscore.BlobName) error
	// List yields the blobs whose names start with prefix in byte order of their
	// names, reading on while it yields. After an error it ends.
	List(ctx context.Context, prefix string, opt ListOptions) iter.Seq2[Info, error]
}

// ReadAll reads a whole blob.
func ReadAll(ctx context.Context, b Bucket, name fleetscore.BlobName) ([]byte, error) {
	r, err := b.Get(ctx, name, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if f, ok := r.(interface{ Stat() (fs.FileInfo, error) }); ok { // memory is taken once, and the file is read at once
		if st, err := f.Stat(); err == nil && st.Size() <= mostSized {
			data := bytes.NewBuffer(make([]byte, 0, st.Size()+bytes.MinRead))
			_, err = data.ReadFrom(r)
			return data.Bytes(), fleetscore.Wrap("read", string(name), err)
		}
	}
	data, err := io.ReadAll(r)
	return data, fleetscore.Wrap("read", string(name), err)
}

// mostSized is the size of the largest file for which memory is taken before it is read.
const mostSized = 64 << 20

// WriteAll writes a whole blob.
func WriteAll(ctx context.Context, b Bucket, name fleetscore.BlobName, data []byte, opt PutOptions) error {
	_, err := b.Put(ctx, name, bytes.NewReader(data), opt)
	return err
}

// CheckName refuses names that not every engine supports: empty, absolute, with
// empty, "." or ".." segments, control characters, a backslash, or longer than 900
// bytes (255 in a segment).
func CheckName(name fleetscore.BlobName) error {
	bad := func(why string) error {
		return fleetscore.Errorf(fleetscore.Invalid, "check blob name", string(name), "%s", why)
	}
	s := string(name)
	switch {
	case s == "":
		return bad("the name is empty")
	case len(s) > 900:
		return bad("the name is longer than 900 bytes")
	case !utf8.ValidString(s):
		return bad("the name is not UTF-8")
	case strings.HasPrefix(s, tempFolder+"/") || s == tempFolder:
		return bad("the folder is reserved")
	}
	for _, r := range s {
		if r < 0x20 || r == 0x7f || r == '\\' {
			return bad("the name has a control character or backslash")
		}
	}
	for seg := range strings.SplitSeq(s, "/") {
		switch {
		case seg == "":
			return bad("the name has an empty segment")
		case seg == "." || seg == "..":
			return bad(`the name has a segment "` + seg + `"`)
		case len(seg) > 255:
			return bad("a segment is longer than 255 bytes")
		}
	}
	return nil
}

// Sub is the part of a bucket below a folder; names are relative to it.
func Sub(b Bucket, folder string) Bucket {
	folder = strings.Trim(folder, "/")
	if folder == "" {
		return b
	}
	return &sub{b, folder + "/"}
}

type sub struct {
	b      Bucket
	prefix string
}

func (s *sub) full(name fleetscore.BlobName) fleetscore.BlobName {
	if name == "" {
		return "" // the bucket refuses this name
	}
	return fleetscore.BlobName(s.prefix) + name
}

func (s *sub) rel(i Info) Info {
	i.Name = fleetscore.BlobName(strings.TrimPrefix(string(i.Name), s.prefix))
	return i
}

func (s *sub) Get(ctx context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error) {
	return s.b.Get(ctx, s.full(name), offset, length)
}

func (s *sub) Put(ctx context.Context, name fleetscore.BlobName, body io.Reader, opt PutOptions) (Info, error) {
	i, err := s.b.Put(ctx, s.full(name), body, opt)
	return s.rel(i), err
}

func (s *sub) Stat(ctx context.Context, name fleetscore.BlobName) (Info, error) {
	i, err := s.b.Stat(ctx, s.full(name))
	return s.rel(i), err
}

func (s *sub) Delete(ctx context.Context, name fleetscore.BlobName) error {
	return s.b.Delete(ctx, s.full(name))
}

func (s *sub) List(ctx context.Context, prefix string, opt ListOptions) iter.Seq2[Info, error] {
	opt.After = s.full(opt.After)
	if refused := opt.Refused; refused != nil {
		opt.Refused = func(name fleetscore.BlobName) { refused(name[len(s.prefix):]) }
	}
	return func(yield func(Info, error) bool) {
		for i, err := range s.b.List(ctx, s.prefix+prefix, opt) {
			if !yield(s.rel(i), err) {
				return
			}
		}
	}
}
