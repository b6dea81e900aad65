package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// The decompressor of LZMA takes memory for the dictionary that a file asks for,
// 64 MiB for a small model and gigabytes for a hostile one. No dictionary need be
// larger than the contents, so it never gets more than these.

var errXz = errors.New("the xz container is damaged")

const minDictionary = 1 << 12

// unxz decompresses an xz file (The .xz File Format, 1.2): a header, blocks of
// chunks whose sizes stand before them, and an index, which isn't needed.
func unxz(data []byte, most int64) ([]byte, error) {
	if len(data) < 12 || data[6] != 0 || crc32.ChecksumIEEE(data[6:8]) != binary.LittleEndian.Uint32(data[8:]) {
		return nil, errXz
	}
	check := data[7]
	var out []byte
	for at := 12; ; {
		if at >= len(data) {
			return nil, io.ErrUnexpectedEOF
		}
		if data[at] == 0 { // the index
			return out, nil
		}
		b, err := openBlock(data, at)
		if err != nil {
			return nil, err
		}
		if int64(len(out))+b.size > most {
			return nil, errTooLarge
		}
		r, err := lzma.Reader2Config{DictCap: int(max(minDictionary, min(b.dictionary, b.size)))}.NewReader2(bytes.NewReader(data[b.start:b.end]))
		if err != nil {
			return nil, err
		}
		from := len(out)
		out = append(out, make([]byte, b.size)...)
		if _, err := io.ReadFull(r, out[from:]); err != nil {
			return nil, err
		}
		at = (b.end + 3) &^ 3
		n, ok := checks(check, out[from:], data[min(at, len(data)):])
		if !ok {
			return nil, errors.New("the checksum doesn't match")
		}
		at += n
	}
}

// block is where the chunks of a block lie, and what becomes of them.
type block struct {
	start, end int
	size       int64
	dictionary int64
}

func openBlock(data []byte, at int) (b block, err error) {
	n := (int(data[at]) + 1) * 4
	if n > len(data)-at {
		return b, errXz
	}
	h := data[at : at+n]
	if crc32.ChecksumIEEE(h[:n-4]) != binary.LittleEndian.Uint32(h[n-4:]) {
		return b, errXz
	}
	flags := h[1]
	h = h[2 : n-4]
	for _, bit := range [...]byte{0x40, 0x80} { // sizes, which the chunks tell too
		if flags&bit != 0 {
			_, used := binary.Uvarint(h)
			if used <= 0 {
				return b, errXz
			}
			h = h[used:]
		}
	}
	if flags&3 != 0 || len(h) < 3 || h[0] != 0x21 || h[1] != 1 || h[2] > 40 {
		return b, errors.New("it uses filters other than LZMA2")
	}
	b.dictionary = 1<<32 - 1
	if bits := h[2]; bits < 40 {
		b.dictionary = int64(2|bits&1) << (bits/2 + 11)
	}
	b.start = at + n
	return b, b.measure(data)
}

// measure adds up the chunks.
func (b *block) measure(data []byte) error {
	at := b.start
	for {
		if at >= len(data) {
			return io.ErrUnexpectedEOF
		}
		control := data[at]
		if control == 0 {
			b.end = at + 1
			return nil
		}
		if len(data)-at < 6 || (control > 2 && control < 0x80) {
			return errXz
		}
		size := int(binary.BigEndian.Uint16(data[at+1:])) + 1
		if control < 0x80 { // stored as it is
			b.size += int64(size)
			at += 3 + size
			continue
		}
		b.size += int64(control&0x1f)<<16 + int64(size)
		at += 5 + int(binary.BigEndian.Uint16(data[at+3:])) + 1
		if control >= 0xc0 { // its properties
			at++
		}
	}
}

var ecma = crc64.MakeTable(crc64.ECMA)

// checks compares the checksum that follows a block, and gives its length.
func checks(kind byte, contents, after []byte) (n int, ok bool) {
	var sum []byte
	switch kind {
	case 0:
		return 0, true
	case 1:
		sum = binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(contents))
	case 4:
		sum = binary.LittleEndian.AppendUint64(nil, crc64.Checksum(contents, ecma))
	case 10:
		s := sha256.Sum256(contents)
		sum = s[:]
	default:
		return 0, false
	}
	return len(sum), bytes.HasPrefix(after, sum)
}

// unlzma decompresses the older format: properties, the size of the dictionary,
// that of the contents or −1, and one stream. Since the contents may be much
// smaller than their dictionary, smaller ones are tried first: what reaches
// beyond one is an error.
func unlzma(data []byte, most int64) ([]byte, error) {
	const header = 13
	if len(data) < header {
		return nil, io.ErrUnexpectedEOF
	}
	asked := max(minDictionary, int64(binary.LittleEndian.Uint32(data[1:])))
	if size := int64(binary.LittleEndian.Uint64(data[5:])); size >= 0 {
		if size > most {
			return nil, errTooLarge
		}
		asked = max(minDictionary, min(asked, size))
	}
	asked = min(asked, most)
	for dictionary := min(asked, max(minDictionary, 4*int64(len(data)))); ; dictionary = min(asked, 8*dictionary) {
		head := bytes.Clone(data[:header])
		binary.LittleEndian.PutUint32(head[1:], uint32(dictionary))
		r, err := lzma.ReaderConfig{DictCap: int(dictionary)}.NewReader(io.MultiReader(bytes.NewReader(head), bytes.NewReader(data[header:])))
		if err == nil {
			var out []byte
			if out, err = readAll(r, most, len(data)); err == nil || errors.Is(err, errTooLarge) {
				return out, err
			}
		}
		if dictionary == asked {
			return nil, err
		}
	}
}
