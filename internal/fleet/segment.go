package fleet

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"math/bits"
	"unsafe"

	"github.com/fleetscore/fleetscore"
)

// A segment is a file: a header, an index with a row of 64 bytes per key, and the
// models' bodies. docs/formats/pack.md describes the bytes.
const (
	segmentMagic   = "FSPK"
	segmentVersion = 2
	headerBytes    = 64
	rowBytes       = 64
)

// Flags say what is known of a member's model. The lowest 7 bits are what native
// records hold as findings.
type Flags uint16

// The flags of a member.
const (
	FlagsEverything Flags = 1 << 0  // every row is an outlier, whatever its values
	FlagsNothing    Flags = 1 << 1  // no row is an outlier, whatever its values
	TooOld          Flags = 1 << 2  // a current scikit-learn can't load or score the file
	Constant        Flags = 1 << 3  // every row gets the same class or value
	HoldsCode       Flags = 1 << 7  // the file was refused because Python would run code when it read it
	Native          Flags = 1 << 8  // the body is a native record
	Original        Flags = 1 << 9  // the body is the file as it was; Detail says why
	Shared          Flags = 1 << 10 // the body lies in the shared segment, under the member's name
	NoModel         Flags = 1 << 11 // the sensor is expected and has no model
	Unreadable      Flags = 1 << 12 // there is no body; Detail says why
	NotFinite       Flags = 1 << 13 // the model was refused because it holds NaN or infinite numbers
	Unsupported     Flags = 1 << 14 // the model was refused because of a class or parameter
	NotModel        Flags = 1 << 15 // there is no body, because the file is no model; Detail says why
)

// hasBody reports whether the body lies in the row's own segment.
func (f Flags) hasBody() bool { return f&(Native|Original) != 0 && f&Shared == 0 }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segment is an opened segment. Its index lies in memory of the Go heap, so that
// keys may be kept; its bodies may be mapped from the file.
type segment struct {
	file    string // its name
	meta    Segment
	shards  fleetscore.ShardRange
	size    int64 // of the file
	n       int   // rows
	index   []byte
	rows    []byte
	slots   []byte
	details []byte
	keys    []byte
	texts   []byte

	bodies []byte // from the end of the index to the end of the file; nil if not in memory
}

// sizes are the parts of an index as the header gives them.
type sizes struct{ rows, slots, details, keys, texts, end uint64 }

func readSizes(h []byte) sizes {
	u := func(at int) uint64 { return uint64(binary.LittleEndian.Uint32(h[at:])) }
	s := sizes{rows: u(32), slots: u(36), details: u(40), keys: u(44), texts: u(48)}
	s.end = (headerBytes + s.rows*rowBytes + s.slots*4 + s.details*4 + s.keys + s.texts + 7) &^ 7
	return s
}

// parseHeader judges the first 64 bytes of a segment and gives the length of
// header and index.
func parseHeader(file string, h []byte) (indexBytes int64, err error) {
	if len(h) < headerBytes || string(h[:4]) != segmentMagic {
		return 0, corrupt(file, "it is no segment of a pack")
	}
	if v := binary.LittleEndian.Uint32(h[4:]); v != segmentVersion {
		return 0, corrupt(file, "it has version %d, this release reads %d", v, segmentVersion)
	}
	s := readSizes(h)
	size := binary.LittleEndian.Uint64(h[16:])
	if s.end != binary.LittleEndian.Uint64(h[24:]) || s.end > size || size > math.MaxInt64 || h[52] > h[53] {
		return 0, corrupt(file, "its header contradicts itself")
	}
	return int64(s.end), nil
}

// parseSegment reads header and index, which it keeps. Everything in them is
// checked here, so that nothing needs to be checked at use.
func parseSegment(file string, index []byte) (*segment, error) {
	n, err := parseHeader(file, index)
	if err != nil {
		return nil, err
	}
	if n != int64(len(index)) {
		return nil, corrupt(file, "its index has %d bytes instead of %d", len(index), n)
	}
	if crc32.Checksum(index[16:], castagnoli) != binary.LittleEndian.Uint32(index[8:]) {
		return nil, corrupt(file, "the checksum of its index doesn't match")
	}
	s := &segment{file: file, index: index, size: int64(binary.LittleEndian.Uint64(index[16:])),
		shards: fleetscore.ShardRange{First: fleetscore.Shard(index[52]), Last: fleetscore.Shard(index[53])}}
	z := readSizes(index)
	rest := index[headerBytes:]
	cut := func(n uint64) (part []byte) {
		part, rest = rest[:n:n], rest[n:]
		return part
	}
	s.n = int(z.rows)
	s.rows, s.slots, s.details, s.keys, s.texts = cut(z.rows*rowBytes), cut(z.slots*4), cut(z.details*4), cut(z.keys), cut(z.texts)
	return s, s.check()
}

func (s *segment) check() error {
	slots := len(s.slots) / 4
	if s.n > 0 && (slots <= s.n || bits.OnesCount(uint(slots)) != 1) {
		return corrupt(s.file, "its hash table has %d slots for %d keys", slots, s.n)
	}
	used := 0
	for i := range slots {
		to := binary.LittleEndian.Uint32(s.slots[4*i:])
		if int64(to) > int64(s.n) {
			return corrupt(s.file, "slot %d leads nowhere", i)
		}
		if to != 0 {
			used++
		}
	}
	if used != s.n {
		return corrupt(s.file, "%d slots are used for %d keys", used, s.n)
	}
	details := len(s.details) / 4
	for i := range details {
		if !s.isText(binary.LittleEndian.Uint32(s.details[4*i:])) {
			return corrupt(s.file, "detail %d leads nowhere", i)
		}
	}
	at := uint32(0)
	for i := range s.n {
		r := s.row(i)
		key, off, size := r.keyAt(), r.offset(), uint64(r.bytes())
		switch {
		case key < at || uint64(key) > uint64(len(s.keys)):
			return corrupt(s.file, "the key of row %d leads nowhere", i)
		case !s.isText(r.nameAt()) || int(r.detail()) >= details:
			return corrupt(s.file, "the texts of row %d lead nowhere", i)
		case r.flags().hasBody() && (off%8 != 0 || off < uint64(len(s.index)) || off > uint64(s.size) || size > uint64(s.size)-off):
			return corrupt(s.file, "the body of row %d leads nowhere", i)
		}
		at = key
	}
	return nil
}

func corrupt(file, format string, args ...any) error {
	return fleetscore.Errorf(fleetscore.Corrupt, "read pack", file, format, args...).WithHint("remove the file and pack the fleet again")
}

// row is a row of the index.
type row []byte

func (s *segment) row(i int) row { return s.rows[i*rowBytes : (i+1)*rowBytes : (i+1)*rowBytes] }

func (r row) digest() fleetscore.Digest { return fleetscore.Digest(r[:32]) }
func (r row) size() uint64              { return binary.LittleEndian.Uint64(r[32:]) } // of the original
func (r row) offset() uint64            { return binary.LittleEndian.Uint64(r[40:]) } // of the body
func (r row) bytes() uint32             { return binary.LittleEndian.Uint32(r[48:]) } // of the body
func (r row) keyAt() uint32             { return binary.LittleEndian.Uint32(r[52:]) }
func (r row) nameAt() uint32            { return binary.LittleEndian.Uint32(r[56:]) }
func (r row) flags() Flags              { return Flags(binary.LittleEndian.Uint16(r[60:])) }
func (r row) detail() uint16            { return binary.LittleEndian.Uint16(r[62:]) }

// key is the key of a row. It refers to the index, which is never changed.
func (s *segment) key(i int) fleetscore.Key {
	from, to := s.row(i).keyAt(), uint32(len(s.keys))
	if i+1 < s.n {
		to = s.row(i + 1).keyAt()
	}
	return fleetscore.Key(text(s.keys[from:to]))
}

func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// isText reports whether a text, its length in 2 bytes before it, begins there.
func (s *segment) isText(at uint32) bool {
	return uint64(at)+2 <= uint64(len(s.texts)) && uint64(at)+2+uint64(binary.LittleEndian.Uint16(s.texts[at:])) <= uint64(len(s.texts))
}

func (s *segment) text(at uint32) string {
	n := uint32(binary.LittleEndian.Uint16(s.texts[at:]))
	return text(s.texts[at+2 : at+2+n])
}

func (s *segment) name(i int) string { return s.text(s.row(i).nameAt()) }

func (s *segment) detail(i int) string {
	return s.text(binary.LittleEndian.Uint32(s.details[4*int(s.row(i).detail()):]))
}

// find finds the row of a key by its hash.
func (s *segment) find(k fleetscore.Key, hash uint64) (int, bool) {
	if s.n == 0 {
		return 0, false
	}
	mask := uint32(len(s.slots)/4 - 1)
	for at := uint32(hash) & mask; ; at = (at + 1) & mask {
		i := binary.LittleEndian.Uint32(s.slots[4*at:])
		if i == 0 {
			return 0, false
		}
		if s.key(int(i-1)) == k {
			return int(i - 1), true
		}
	}
}

// body is a row's body, nil if bodies aren't in memory.
func (s *segment) body(i int) []byte {
	if s.bodies == nil {
		return nil
	}
	r := s.row(i)
	at := r.offset() - uint64(len(s.index))
	end := at + uint64(r.bytes())
	return s.bodies[at:end:end]
}

// segmentRow is what a segment is to hold of a key.
type segmentRow struct {
	key    fleetscore.Key
	name   string
	digest fleetscore.Digest
	size   int64
	flags  Flags
	detail string
	body   body // empty if it has none
}

// maxDetails is how many different details a segment holds; what comes after is
// cut short to the last.
const maxDetails = 1<<16 - 1

// indexer builds an index.
type indexer struct {
	rows, keys, texts []byte
	at                map[string]uint32 // texts that stand in several rows
	details           []uint32
	number            map[string]uint16
	placed            map[bodyID]uint64
	end               uint64 // of the bodies, from their start
}

type bodyID struct {
	digest fleetscore.Digest
	flags  Flags
}

// encodeSegment gives header and index of a segment with the rows, which are in
// order, and which of them have bodies to be written: each begins at a multiple
// of 8 bytes, in order.
func encodeSegment(shards fleetscore.ShardRange, rows []segmentRow) (index []byte, bodies []body, err error) {
	x := indexer{at: map[string]uint32{}, number: map[string]uint16{}, placed: map[bodyID]uint64{},
		rows: make([]byte, 0, len(rows)*rowBytes)}
	x.detail("")
	for i := range rows {
		if x.add(&rows[i]) {
			bodies = append(bodies, rows[i].body)
		}
	}
	slots := hashTable(rows)
	index = make([]byte, headerBytes, headerBytes+len(x.rows)+len(slots)+4*len(x.details)+len(x.keys)+len(x.texts)+8)
	index = append(append(index, x.rows...), slots...)
	for _, d := range x.details {
		index = binary.LittleEndian.AppendUint32(index, d)
	}
	index = append(append(index, x.keys...), x.texts...)
	index = append(index, make([]byte, -len(index)&7)...)
	if max(uint64(len(x.keys)), uint64(len(x.texts)), uint64(len(rows))*4) > math.MaxUint32 {
		return nil, nil, fleetscore.Errorf(fleetscore.Exhausted, "pack models", shards.String(), "keys and names take more than 4 GiB")
	}
	le := binary.LittleEndian
	copy(index, segmentMagic)
	le.PutUint32(index[4:], segmentVersion)
	le.PutUint64(index[16:], uint64(len(index))+x.end)
	le.PutUint64(index[24:], uint64(len(index)))
	for i, n := range []int{len(rows), len(slots) / 4, len(x.details), len(x.keys), len(x.texts)} {
		le.PutUint32(index[32+4*i:], uint32(n))
	}
	index[52], index[53] = byte(shards.First), byte(shards.Last)
	for i := range rows {
		if r := row(index[headerBytes+i*rowBytes:]); r.flags().hasBody() {
			le.PutUint64(r[40:], r.offset()+uint64(len(index)))
		}
	}
	le.PutUint32(index[8:], crc32.Checksum(index[16:], castagnoli))
	return index, bodies, nil
}

// add appends a row, and reports whether its body must be written.
func (x *indexer) add(r *segmentRow) (write bool) {
	le := binary.LittleEndian
	var b [rowBytes]byte
	copy(b[:], r.digest[:])
	le.PutUint64(b[32:], uint64(r.size))
	if r.flags.hasBody() {
		id := bodyID{r.digest, r.flags & (Native | Original)}
		at, twice := x.placed[id]
		if !twice {
			at, write = x.end, r.body.size > 0
			x.placed[id] = at
			x.end += uint64(r.body.size+7) &^ 7
		}
		le.PutUint64(b[40:], at)
		le.PutUint32(b[48:], uint32(r.body.size))
	}
	le.PutUint32(b[52:], uint32(len(x.keys)))
	le.PutUint32(b[56:], x.text(r.name, r.flags&Shared != 0))
	le.PutUint16(b[60:], uint16(r.flags))
	le.PutUint16(b[62:], x.detail(r.detail))
	x.keys = append(x.keys, r.key...)
	x.rows = append(x.rows, b[:]...)
	return write
}

func (x *indexer) text(s string, again bool) uint32 {
	if at, ok := x.at[s]; ok {
		return at
	}
	s = s[:min(len(s), math.MaxUint16)]
	at := uint32(len(x.texts))
	x.texts = append(binary.LittleEndian.AppendUint16(x.texts, uint16(len(s))), s...)
	if again {
		x.at[s] = at
	}
	return at
}

func (x *indexer) detail(s string) uint16 {
	n, ok := x.number[s]
	switch {
	case ok:
		return n
	case len(x.details) >= maxDetails:
		s = "one of very many different reasons; fleetscore model inspect tells it"
		if n, ok := x.number[s]; ok {
			return n
		}
	}
	n = uint16(len(x.details))
	x.details = append(x.details, x.text(s, true))
	x.number[s] = n
	return n
}

// hashTable has at least 4 slots for 3 rows: 4 bytes each, the row's number
// from 1, where the low bits of the key's hash say or in the next free slot.
func hashTable(rows []segmentRow) []byte {
	if len(rows) == 0 {
		return nil
	}
	n := 1 << bits.Len(uint(len(rows)*4/3))
	out := make([]byte, 4*n)
	mask := uint32(n - 1)
	for i := range rows {
		at := uint32(rows[i].key.Hash()) & mask
		for binary.LittleEndian.Uint32(out[4*at:]) != 0 {
			at = (at + 1) & mask
		}
		binary.LittleEndian.PutUint32(out[4*at:], uint32(i+1))
	}
	return out
}

var padding [8]byte

// pad is what follows a body of n bytes, so that the next begins at a multiple of
// 8.
func pad(n int) []byte { return padding[:-n&7] }
