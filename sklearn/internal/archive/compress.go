// Package archive unwraps model files: what joblib compressed, and skops's zip
// archives, which it writes anew as the pickle they stand for. It allocates no
// more than the contents take, within a cap, and runs nothing.
package archive

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"compress/zlib"
	"io"

	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

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
	{"\xfd7zXZ", "xz", func(r io.Reader) (io.Reader, error) { return xz.ReaderConfig{DictCap: 64 << 20}.NewReader(r) }},
	{"]\x00\x00", "lzma", func(r io.Reader) (io.Reader, error) { return lzma.ReaderConfig{DictCap: 64 << 20}.NewReader(r) }},
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
		r, err := c.open(bytes.NewReader(data))
		if err != nil {
			return nil, "", damaged(c.name, err)
		}
		out, err := readAll(r, data)
		if err != nil {
			return nil, "", damaged(c.name, err)
		}
		return out, c.name, nil
	}
	return data, "", nil
}

func damaged(name string, err error) error {
	if fleetscore.Invalid.Is(err) {
		return err
	}
	return fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "the %s compression is damaged: %w", name, err).
		WithHint("write the model again")
}

// readAll reads to the end, but not beyond the limit.
func readAll(r io.Reader, data []byte) ([]byte, error) {
	most := limit(data)
	var out bytes.Buffer
	out.Grow(int(min(most, 4*int64(len(data)))))
	n, err := io.Copy(&out, io.LimitReader(r, most+1))
	if n > most {
		return nil, fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "the contents of %d bytes are larger than the limit of %d", len(data), most).
			WithHint("no trained model is so regular; if it is one, write it uncompressed")
	}
	return out.Bytes(), err
}
