package files

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"path"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/table/ipc"
)

var formats = map[string]table.Format{".csv": table.CSV, ".tsv": table.CSV, ".ndjson": table.NDJSON, ".jsonl": table.NDJSON, ".parquet": table.Parquet,
	".arrow": table.Other, ".feather": table.Other, ".ipc": table.Other}

// formatOf is what a name says of a file's format.
func formatOf(name string) (f table.Format, known bool) {
	ending := strings.ToLower(path.Ext(name))
	if isCompressed(ending) {
		ending = strings.ToLower(path.Ext(name[:len(name)-len(ending)]))
	}
	f, known = formats[ending]
	return f, known
}

func isCompressed(ending string) bool {
	return ending == ".gz" || ending == ".zst" || ending == ".zstd"
}

// The first bytes of what can be told by them.
const (
	gzipMagic    = "\x1f\x8b"
	zstdMagic    = "\x28\xb5\x2f\xfd"
	parquetMagic = "PAR1"
)

// unreadable are kinds of files that can't be read, by their first bytes, and what to
// do with them.
var unreadable = []struct{ magic, name, hint string }{
	{"PK\x03\x04", "a zip archive or a spreadsheet", "unpack it, or save the sheet as CSV"},
	{"BZh91AY&SY", "compressed by bzip2", "decompress it: bzip2 -d FILE"},
	{"\xfd7zXZ\x00", "compressed by xz", "decompress it: xz -d FILE"},
	{"Obj\x01", "an Avro file", "convert it to Parquet or CSV"},
	{"ORC\x0a", "an ORC file", "convert it to Parquet or CSV"},
	{"\xff\xfe", "text in UTF-16", "convert it: iconv -f UTF-16 -t UTF-8 FILE"},
	{"\xfe\xff", "text in UTF-16", "convert it: iconv -f UTF-16 -t UTF-8 FILE"},
	{"\x89HDF", "an HDF5 file", "convert it to Parquet or CSV"},
	{"SQLite format 3\x00", "an SQLite database", "export the table as CSV"},
}

// content is the bytes of a file. Its first bytes, not its name, decide whether it is
// decompressed, and how.
type content struct {
	file     opened
	progress *atomic.Int64 // may be nil
	begun    io.ReadCloser // opened by look
}

// compressedName reports whether the size of the content isn't that of the file.
func (c *content) compressedName() bool {
	return isCompressed(strings.ToLower(path.Ext(c.file.name)))
}

// look judges the format by the first bytes.
func (c *content) look(ctx context.Context) (table.Format, error) {
	r, err := c.reader(ctx)
	if err != nil {
		return 0, err
	}
	b := bufio.NewReaderSize(r, 4096)
	head, err := b.Peek(512)
	if err != nil && err != io.EOF {
		r.Close()
		return 0, fleetscore.Wrap(opRead, c.file.name, err)
	}
	c.begun = readCloser{b, r.Close}
	text := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \r\n\t")
	switch {
	case bytes.HasPrefix(head, []byte(parquetMagic)):
		return table.Parquet, nil
	case bytes.HasPrefix(head, []byte(ipc.FileMagic)), bytes.HasPrefix(head, []byte(ipc.StreamMagic)):
		return table.Other, nil
	case bytes.HasPrefix(text, []byte("{")):
		return table.NDJSON, nil
	case bytes.IndexByte(head, 0) >= 0:
		r.Close()
		c.begun = nil
		return 0, fleetscore.Errorf(fleetscore.Invalid, opRead, c.file.name, "this is neither text nor Parquet nor Arrow: it holds zero bytes").
			WithHint("name files of rows in CSV, JSON lines, Parquet or Arrow; the file of a model isn't one")
	}
	return table.CSV, nil
}

// reader opens the content. A file that was looked at is read on.
func (c *content) reader(ctx context.Context) (io.ReadCloser, error) {
	if r := c.begun; r != nil {
		c.begun = nil
		return r, nil
	}
	f, err := c.file.open(ctx)
	if err != nil {
		return nil, err
	}
	b := bufio.NewReaderSize(&counting{f, c.progress}, 256<<10)
	head, _ := b.Peek(16) // an error comes again when it is read
	for _, k := range unreadable {
		if bytes.HasPrefix(head, []byte(k.magic)) {
			f.Close()
			return nil, fleetscore.Errorf(fleetscore.Invalid, opRead, c.file.name, "this is %s, which can't be read", k.name).WithHint("%s", k.hint)
		}
	}
	r, err := decompressed(b, head)
	if err != nil {
		f.Close()
		return nil, fleetscore.Errorf(fleetscore.Corrupt, opRead, c.file.name, "it can't be decompressed: %w", err)
	}
	if r == nil {
		return readCloser{b, f.Close}, nil
	}
	return readCloser{&named{r, c.file.name}, func() error { r.Close(); return f.Close() }}, nil
}

// maxWindow bounds the memory that a zstd file may ask for; zstd --long=27, which
// needs it, is what its own command reads without being told.
const maxWindow = 128 << 20

// decompressed is the content of a compressed stream; nil if it isn't compressed.
func decompressed(r io.Reader, head []byte) (io.ReadCloser, error) {
	switch {
	case bytes.HasPrefix(head, []byte(gzipMagic)):
		return gzip.NewReader(r)
	case bytes.HasPrefix(head, []byte(zstdMagic)):
		d, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return nil, nil
}

// Decompressed is a body's content: as it is, or decompressed if it begins as a gzip
// or zstd file does. It reads no more than limit bytes of content, of which a few
// bytes of body can hold very many; then it fails with kind Exhausted.
func Decompressed(body io.Reader, limit int64) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(body, 64<<10)
	head, _ := b.Peek(16) // an error comes again when it is read
	r, err := decompressed(b, head)
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, opRead, "body", "it can't be decompressed: %w", err)
	}
	if r == nil {
		return io.NopCloser(b), nil
	}
	return readCloser{&limited{r, limit, limit}, r.Close}, nil
}

type limited struct {
	r           io.Reader
	left, limit int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if err != nil && err != io.EOF {
		err = fleetscore.Errorf(fleetscore.Invalid, opRead, "body", "it can't be decompressed: %v", err) // a cut body must not look like its end
	}
	if l.left -= int64(n); l.left < 0 {
		return 0, fleetscore.Errorf(fleetscore.Exhausted, opRead, "body", "it has more than %d MiB when it is decompressed", l.limit>>20).
			WithHint("send it in several parts")
	}
	return n, err
}

type readCloser struct {
	io.Reader
	close func() error
}

func (r readCloser) Close() error { return r.close() }

// counting counts bytes for progress.
type counting struct {
	r    io.Reader
	done *atomic.Int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.done != nil {
		c.done.Add(int64(n))
	}
	return n, err
}

// readCounting is r with its bytes counted; nil if r is nil.
func readCounting(r io.ReadCloser, done *atomic.Int64) io.ReadCloser {
	if r == nil {
		return nil
	}
	return readCloser{&counting{r, done}, r.Close}
}

// named says of which file a damaged stream is.
type named struct {
	r    io.Reader
	name string
}

func (n *named) Read(p []byte) (int, error) {
	got, err := n.r.Read(p)
	if err != nil && err != io.EOF {
		// Not wrapped: a cut stream must not look like the end of the content.
		err = fleetscore.Errorf(fleetscore.Corrupt, opRead, n.name, "it can't be decompressed: %v", err).WithHint("is the file whole?")
	}
	return got, err
}
