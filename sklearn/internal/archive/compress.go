// Package archive unwraps model files: what joblib compressed, and skops's zip
// archives, which it writes anew as the pickle they stand for. It allocates no
// more than the contents take, within a cap, and runs nothing.
package archive

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"

	"github.com/pierrec/lz4/v4"

	"github.com/fleetscore/fleetscore"
)

const opLoad = "load model"

// MaxBytes is the largest content that is unwrapped.
const MaxBytes = 1 << 30

// limit is how large contents may become: no model is so regular that it is
// compressed to less than a hundredth, and small files may be so anyway.
func limit(data []byte) int64 { return min(MaxBytes, max(16<<20, 100*int64(len(data)))) }

// compressions are those of joblib, by what a file begins with.
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

// Decompress gives the contents of a compressed file and the name of the
// compression; the file itself and "" where it isn't compressed.
func Decompress(data []byte) ([]byte, string, error) {
	for _, c := range compressions {
		if !bytes.HasPrefix(data, []byte(c.magic)) {
			continue
		}
		out, err := decompress(data, c.name, c.open)
		if errors.Is(err, errTooLarge) {
			return nil, "", tooLarge(data)
		}
		if err != nil {
			return nil, "", damaged(c.name, err)
		}
		return out, c.name, nil
	}
	return data, "", nil
}

func decompress(data []byte, name string, open func(io.Reader) (io.Reader, error)) ([]byte, error) {
	most := limit(data)
	switch name {
	case "xz":
		return unxz(data, most)
	case "lzma":
		return unlzma(data, most)
	}
	r, err := open(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return readAll(r, most, len(data))
}

func damaged(name string, err error) error {
	if fleetscore.Invalid.Is(err) {
		return err
	}
	return fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "the %s compression is damaged: %w", name, err).
		WithHint("write the model again")
}

var errTooLarge = errors.New("the contents are too large")

func tooLarge(data []byte) error {
	return fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "the contents of %d bytes are larger than the limit of %d", len(data), limit(data)).
		WithHint("no trained model is so regular; if it is one, write it uncompressed")
}

// readAll reads to the end, but not beyond most. It keeps pieces until it knows
// the size, so that it never has more than 2.5 times the contents.
func readAll(r io.Reader, most int64, compressed int) ([]byte, error) {
	var pieces [][]byte
	n, size := int64(0), max(512, int64(compressed))
	for {
		piece := make([]byte, min(size, most+1-n))
		got, err := 0, error(nil)
		for got < len(piece) && err == nil {
			var k int
			k, err = r.Read(piece[got:])
			got += k
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
