package hub

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// The files of a partition; see docs/formats/hub-log.md.
const (
	segmentMagic  = "FSEGLOG1"
	segmentHeader = 60
	recordMagic   = "\xf1REC"
	recordHeader  = 28
	segmentSuffix = ".log"
	segmentBytes  = 128 << 20 // a segment that has grown to this is followed by a new one
	readAhead     = 64 << 10  // bytes that are read at once if records are small
)

// segment is one file of a partition's log: messages from first on, up to the
// next segment's first. Every opening of the hub begins a segment of its own.
type segment struct {
	first    uint64
	previous uint64            // first of the segment before it, 0 if it was the first ever; header only
	hub      int64             // id of the hub; 0 if the header can't be read
	epoch    int64             // id of the opening that wrote it; 0 if unknown
	began    fleetscore.Micros // when it was made, by the wall clock
	end      int64             // bytes that hold records: nothing after them was acknowledged
}

// size is that of its records.
func (s *segment) size() int64 { return s.end - segmentHeader }

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

// parseSegmentName returns the first message of a segment's file; false if the name
// isn't that of a segment.
func parseSegmentName(name string) (first uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, err == nil && first > 0
}

// header encodes a segment's first bytes.
func (s *segment) header(partition int) []byte {
	b := append(make([]byte, 0, segmentHeader), segmentMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(partition))
	b = binary.LittleEndian.AppendUint64(b, s.first)
	b = binary.LittleEndian.AppendUint64(b, s.previous)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.hub))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.epoch))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.began))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// parseHeader reads a segment's first bytes.
func (s *segment) parseHeader(b []byte, partition int) error {
	switch {
	case len(b) < segmentHeader:
		return errors.New("the header is cut short")
	case string(b[:8]) != segmentMagic:
		return errors.New("the file doesn't start with a segment's header")
	case binary.LittleEndian.Uint32(b[56:]) != crc32.Checksum(b[:56], castagnoli):
		return errors.New("the header's checksum is wrong")
	case binary.LittleEndian.Uint64(b[8:]) != uint64(partition):
		return fmt.Errorf("the header names partition %d", binary.LittleEndian.Uint64(b[8:]))
	case binary.LittleEndian.Uint64(b[16:]) != s.first:
		return fmt.Errorf("the header names message %d as the first", binary.LittleEndian.Uint64(b[16:]))
	}
	s.previous = binary.LittleEndian.Uint64(b[24:])
	s.hub = int64(binary.LittleEndian.Uint64(b[32:]))
	s.epoch = int64(binary.LittleEndian.Uint64(b[40:]))
	s.began = fleetscore.Micros(binary.LittleEndian.Uint64(b[48:]))
	return nil
}

// fillRecordHeader writes the header of a record whose payload follows it in b.
func fillRecordHeader(b []byte, seq uint64, epoch int64) {
	copy(b, recordMagic)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-recordHeader))
	binary.LittleEndian.PutUint64(b[8:], seq)
	binary.LittleEndian.PutUint64(b[16:], uint64(epoch))
	binary.LittleEndian.PutUint32(b[24:], crc32.Checksum(b[:24], castagnoli))
}

// record is one message as a segment holds it.
type record struct {
	seq     uint64
	epoch   int64
	payload []byte // valid until the cursor moves
}

// cursor reads the records of one segment in order, and skips damaged ones.
type cursor struct {
	f      file
	epoch  int64  // of the segment; 0 until the first record says it
	offset int64  // of the next record
	buf    []byte // the bytes that were read from bufAt on
	bufAt  int64
	end    int64 // end of the records that may be read
}

// errDamaged says that bytes of a segment aren't a record. Read doesn't return it:
// reading goes on after those bytes.
var errDamaged = errors.New("damaged")

func (p *partition) openCursor(s *segment, end int64) (*cursor, error) {
	f, err := p.log.disk.open(p.file(s), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return &cursor{f: f, epoch: s.epoch, offset: segmentHeader, end: end}, nil
}

func (p *partition) file(s *segment) string { return filepath.Join(p.dir, segmentName(s.first)) }

func (c *cursor) close() { _ = c.f.Close() } // it was only read

// at returns n bytes from an offset, fewer where the records end.
func (c *cursor) at(offset int64, n int) ([]byte, error) {
	n = int(min(int64(n), c.end-offset))
	if n <= 0 {
		return nil, nil
	}
	if from := offset - c.bufAt; from >= 0 && from+int64(n) <= int64(len(c.buf)) {
		return c.buf[from : from+int64(n)], nil
	}
	want := int(min(max(int64(n), readAhead), c.end-offset))
	if cap(c.buf) < want {
		c.buf = make([]byte, want)
	}
	c.buf, c.bufAt = c.buf[:want], offset
	got, err := c.f.ReadAt(c.buf, offset)
	c.buf = c.buf[:got]
	if err != nil && !errors.Is(err, io.EOF) {
		c.buf = c.buf[:0]
		return nil, err
	}
	return c.buf[:min(n, got)], nil
}

// parse reads the record at an offset. An error other than errDamaged is the disk's.
// If the header is intact, size is that of the whole record even if the payload is
// damaged.
func (c *cursor) parse(offset int64) (r record, size int64, err error) {
	head, err := c.at(offset, recordHeader)
	if err != nil {
		return record{}, 0, err
	}
	if len(head) < recordHeader || string(head[:4]) != recordMagic || binary.LittleEndian.Uint32(head[24:]) != crc32.Checksum(head[:24], castagnoli) {
		return record{}, 0, errDamaged
	}
	n := int(binary.LittleEndian.Uint32(head[4:]))
	r = record{seq: binary.LittleEndian.Uint64(head[8:]), epoch: int64(binary.LittleEndian.Uint64(head[16:]))}
	// A text in a damaged message may look like a record, but it doesn't contain the
	// epoch.
	if n > MaxMessageBytes || n < headerBytes || c.epoch != 0 && r.epoch != c.epoch {
		return record{}, 0, errDamaged
	}
	all, err := c.at(offset, recordHeader+n)
	if err != nil {
		return record{}, 0, err
	}
	if len(all) < recordHeader+n {
		return r, int64(recordHeader + n), errDamaged
	}
	r.payload = all[recordHeader:]
	if binary.LittleEndian.Uint32(r.payload[4:]) != checksum(r.payload) {
		return r, int64(recordHeader + n), errDamaged
	}
	return r, int64(recordHeader + n), nil
}

// next returns the next intact record, or io.EOF if no intact record follows.
func (c *cursor) next() (record, error) {
	for c.offset < c.end {
		r, size, err := c.parse(c.offset)
		switch {
		case err == nil:
			c.offset += size
			c.epoch = r.epoch
			return r, nil
		case !errors.Is(err, errDamaged):
			return record{}, err
		case size > 0 && c.soundAt(c.offset+size): // only the payload is damaged: the next record follows it
			c.offset += size
			continue
		}
		if err := c.resync(); err != nil {
			return record{}, err
		}
	}
	return record{}, io.EOF
}

// soundAt reports whether an intact record begins at an offset, or the offset is the
// end.
func (c *cursor) soundAt(offset int64) bool {
	_, _, err := c.parse(offset)
	return err == nil || offset == c.end
}

// resync moves on to the next place that looks like the beginning of a record, or to
// the end if there is no such place.
func (c *cursor) resync() error {
	for from := c.offset + 1; from < c.end; {
		b, err := c.at(from, readAhead)
		if err != nil {
			return err
		}
		if i := bytes.Index(b, []byte(recordMagic)); i >= 0 {
			c.offset = from + int64(i)
			return nil
		}
		if len(b) < len(recordMagic) {
			break
		}
		from += int64(len(b) - len(recordMagic) + 1)
	}
	c.offset = c.end
	return nil
}
