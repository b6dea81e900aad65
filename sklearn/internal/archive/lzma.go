package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"hash/crc64"
	"io"
	"slices"

	"github.com/ulikunitz/xz/lzma"

	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
)

// The LZMA decompressor allocates the dictionary size that a file asks for: 64 MiB for
// a small model, and gigabytes for a hostile file. A dictionary larger than the content
// is never needed, so the size is limited to the content's size.

var errXz = errors.New("the xz container is damaged")

const minDictionary = 1 << 12

// unxz decompresses an xz file (The .xz File Format, 1.2): a header, blocks of chunks
// with their sizes, and an index, which isn't needed.
func unxz(data []byte, most int64, b *budget.Budget) ([]byte, error) {
	if len(data) < 12 {
		return nil, io.ErrUnexpectedEOF
	}
	if data[6] != 0 || crc32.ChecksumIEEE(data[6:8]) != binary.LittleEndian.Uint32(data[8:]) {
		return nil, errXz
	}
	check := data[7]
	var out []byte
	var records []record
	for at := 12; ; {
		if at >= len(data) {
			return nil, io.ErrUnexpectedEOF
		}
		if data[at] == 0 { // the index
			return out, xzEnd(data, at, records)
		}
		k, err := openBlock(data, at)
		if err != nil {
			return nil, err
		}
		if int64(len(out))+k.size > most {
			return nil, errTooLarge
		}
		r, err := lzma.Reader2Config{DictCap: int(max(minDictionary, min(k.dictionary, k.size)))}.NewReader2(bytes.NewReader(data[k.start:k.end]))
		if err != nil {
			return nil, err
		}
		from := len(out)
		out = slices.Grow(out, int(k.size))[:from+int(k.size)]
		for done := from; done < len(out); done += stretch {
			if _, err := io.ReadFull(r, out[done:min(done+stretch, len(out))]); err != nil {
				return nil, err
			}
			if err := b.Late(); err != nil {
				return nil, err
			}
		}
		start := at
		at = (k.end + 3) &^ 3
		n, ok := checks(check, out[from:], data[min(at, len(data)):])
		if !ok && n > len(data)-at {
			return nil, io.ErrUnexpectedEOF
		}
		if !ok {
			return nil, errors.New("the checksum doesn't match")
		}
		at += n
		records = append(records, record{uint64(k.end - start + n), uint64(k.size)})
	}
}

// record is the index's entry of a block: the packed size without padding, and the
// unpacked size.
type record struct{ packed, size uint64 }

// xzEnd checks the index, the footer, and that only zeros follow.
func xzEnd(data []byte, at int, records []record) error {
	index := at
	at++
	next := func() (uint64, error) {
		u, n := binary.Uvarint(data[min(at, len(data)):])
		if n == 0 {
			return 0, io.ErrUnexpectedEOF
		}
		if n < 0 {
			return 0, errXz
		}
		at += n
		return u, nil
	}
	count, err := next()
	if err != nil {
		return err
	}
	if count != uint64(len(records)) {
		return errXz
	}
	for _, r := range records {
		for _, want := range [...]uint64{r.packed, r.size} {
			got, err := next()
			if err != nil {
				return err
			}
			if got != want {
				return errXz
			}
		}
	}
	at = (at + 3) &^ 3
	const footer = 12
	if at+4+footer > len(data) {
		return io.ErrUnexpectedEOF
	}
	foot := data[at+4 : at+4+footer]
	if crc32.ChecksumIEEE(data[index:at]) != binary.LittleEndian.Uint32(data[at:]) || crc32.ChecksumIEEE(foot[4:10]) != binary.LittleEndian.Uint32(foot) ||
		(int(binary.LittleEndian.Uint32(foot[4:]))+1)*4 != at+4-index || !bytes.Equal(foot[8:10], data[6:8]) || string(foot[10:]) != "YZ" {
		return errXz
	}
	for _, c := range data[at+4+footer:] {
		if c != 0 {
			return errors.New("more bytes follow the end of the compressed data")
		}
	}
	return nil
}

// block is the place of a block's chunks, with their unpacked size.
type block struct {
	start, end int
	size       int64
	dictionary int64
}

func openBlock(data []byte, at int) (b block, err error) {
	n := (int(data[at]) + 1) * 4
	if n > len(data)-at {
		return b, io.ErrUnexpectedEOF
	}
	h := data[at : at+n]
	if crc32.ChecksumIEEE(h[:n-4]) != binary.LittleEndian.Uint32(h[n-4:]) {
		return b, errXz
	}
	flags := h[1]
	h = h[2 : n-4]
	for _, bit := range [...]byte{0x40, 0x80} { // sizes, which the chunks contain too
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

// measure adds up the sizes of the chunks.
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
		if len(data)-at < 6 {
			return io.ErrUnexpectedEOF
		}
		if control > 2 && control < 0x80 {
			return errXz
		}
		size := int(binary.BigEndian.Uint16(data[at+1:])) + 1
		if control < 0x80 { // stored uncompressed
			b.size += int64(size)
			at += 3 + size
			continue
		}
		b.size += int64(control&0x1f)<<16 + int64(size)
		at += 5 + int(binary.BigEndian.Uint16(data[at+3:])) + 1
		if control >= 0xc0 { // the chunk has new properties
			at++
		}
	}
}

var ecma = crc64.MakeTable(crc64.ECMA)

// checks compares a block's content with the checksum after it, and returns the
// checksum's length.
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

// unlzma decompresses the older format: properties, the size of the dictionary, the
// size of the content or −1, and one stream. The content may be much smaller than the
// dictionary that the file asks for, so smaller dictionaries are tried first: a
// reference beyond the dictionary is an error.
func unlzma(data []byte, most int64, b *budget.Budget) ([]byte, error) {
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
			if out, err = readAll(r, most, len(data), b); err == nil || errors.Is(err, errTooLarge) || b.Err() != nil {
				return out, err
			}
		}
		if dictionary == asked {
			return nil, err
		}
	}
}
