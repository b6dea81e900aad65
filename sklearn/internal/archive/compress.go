// Package archive unpacks model files: files that joblib compressed, and skops's zip
// archives, which it translates into equivalent pickles. It allocates no more than the
// content needs, within a limit, and runs no code from a file.
package archive

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"

	"github.com/pierrec/lz4/v4"

	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

// MaxBytes is the size of the largest content that is unpacked.
const MaxBytes = 1 << 30

// limit returns the largest size that the content may have. No trained model compresses
// to less than a hundredth, except small files.
//
// A caller's limit of memory covers pieces and content together.
func limit(data []byte, b *budget.Budget) int64 {
	most := min(MaxBytes, max(16<<20, 100*int64(len(data))))
	if l := b.Limit(); l > 0 {
		most = min(most, 2*l/5)
	}
	return most
}

// compressions are those that joblib uses, with the first bytes of their files.
var compressions = [...]struct {
	magic, name string
	open        func(io.Reader) (io.Reader, error)
}{
	{"\x1f\x8b", "gzip", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
	{"BZh", "bz2", func(r io.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil }},
	{"\xfd7zXZ", "xz", nil}, {"]\x00\x00", "lzma", nil},
	{"x\x01", "zlib", openZlib}, {"x\x5e", "zlib", openZlib}, {"x\x9c", "zlib", openZlib}, {"x\xda", "zlib", openZlib},
	{"\x04\x22\x4d\x18", "lz4", func(r io.Reader) (io.Reader, error) { return lz4.NewReader(r), nil }},
}

func openZlib(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }

// Compressed reports whether a file begins like a compressed file.
func Compressed(data []byte) bool {
	for _, c := range compressions {
		if bytes.HasPrefix(data, []byte(c.magic)) {
			return true
		}
	}
	return false
}

// Decompress returns the content of a compressed file and the compression's name. For
// other data it returns the data itself and "".
//
// A file that was cut off is refused, even if only its checksum is missing.
func Decompress(data []byte, b *budget.Budget) ([]byte, string, error) {
	for _, c := range compressions {
		if !bytes.HasPrefix(data, []byte(c.magic)) {
			continue
		}
		out, err := decompress(data, c.name, c.open, b)
		if errors.Is(err, errTooLarge) {
			return nil, "", tooLarge(data, limit(data, b))
		}
		if err != nil {
			return nil, "", damaged(c.name, err)
		}
		return out, c.name, nil
	}
	return data, "", nil
}

func decompress(data []byte, name string, open func(io.Reader) (io.Reader, error), b *budget.Budget) ([]byte, error) {
	most := limit(data, b)
	switch name {
	case "xz":
		return unxz(data, most, b)
	case "lzma":
		return unlzma(data, most, b)
	}
	in := bytes.NewReader(data)
	r, err := open(in)
	if err != nil {
		return nil, err
	}
	out, err := readAll(r, most, len(data), b)
	if err == nil && in.Len() > 0 && name != "gzip" {
		return nil, errors.New("more bytes follow the end of the compressed data")
	}
	return out, err
}

func damaged(name string, err error) error {
	if of := (*refusal.Refusal)(nil); errors.As(err, &of) {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return refusal.New(refusal.Cut, "the file is cut off: the end of its %s compression is missing", name).
			WithHint("copy the file again, or write the model again")
	}
	return refusal.New(refusal.Damaged, "the file's %s compression is damaged: %w", name, err).
		WithHint("write the model again")
}

// stretch is how many bytes are unpacked between two checks of the context.
const stretch = 1 << 16

var errTooLarge = errors.New("the contents are too large")

func tooLarge(data []byte, most int64) error {
	return refusal.New(refusal.TooLarge, "the content of the %d compressed bytes is larger than the limit of %d bytes", len(data), most).
		WithHint("trained models don't compress this much; if the file is a model, write it uncompressed")
}

// readAll reads to the end, but not more than most bytes. It reads in pieces until it
// knows the size, so that it never holds more than 2.5 times the content.
func readAll(r io.Reader, most int64, compressed int, b *budget.Budget) ([]byte, error) {
	var pieces [][]byte
	n, size := int64(0), max(512, int64(compressed))
	for {
		piece := make([]byte, min(size, most+1-n))
		got, err := 0, error(nil)
		for got < len(piece) && err == nil {
			var k int
			k, err = r.Read(piece[got:min(len(piece), got+stretch)])
			got += k
			if late := b.Late(); late != nil {
				return nil, late
			}
		}
		n += int64(got)
		pieces = append(pieces, piece[:got])
		switch {
		case n > most:
			return nil, errTooLarge
		case err == io.EOF:
			return bytes.Join(pieces, nil), nil
		case err != nil:
			return nil, err
		}
		size = max(512, n/2)
	}
}
