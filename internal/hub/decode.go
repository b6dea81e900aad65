package hub

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"github.com/fleetscore/fleetscore"
)

// Decode reads a message; the readings are nil for a tick. It never panics, its
// memory is bounded by the message's size, and the result shares nothing with data.
// The error's kind is Corrupt for damage and Invalid for an unknown version.
func Decode(data []byte) (Stamp, *fleetscore.Readings, error) {
	if len(data) < headerBytes || data[0] != magic0 || data[1] != magic1 {
		return Stamp{}, nil, fleetscore.Errorf(fleetscore.Corrupt, "decode hub message", "", "the data doesn't start with a message header")
	}
	if v := data[2]; v != formatVersion {
		return Stamp{}, nil, fleetscore.Errorf(fleetscore.Invalid, "decode hub message", "", "format version %d is unknown", v).
			WithHint("a newer fleetscore wrote the message: run that version")
	}
	if binary.LittleEndian.Uint32(data[4:]) != checksum(data) {
		return Stamp{}, nil, fleetscore.Errorf(fleetscore.Corrupt, "decode hub message", "", "the checksum is wrong")
	}
	d := decoder{b: data[headerBytes:]}
	stamp := Stamp{Source: fleetscore.Source(d.string()), Arrived: fleetscore.Micros(d.varint()), Unsure: fleetscore.Micros(d.varint())}
	if d.err == nil && !stamp.Source.Valid() {
		d.fail("the name of the source is empty or too long")
	}
	if stamp.Unsure < 0 {
		d.fail("the uncertainty of the arrival is negative")
	}
	if data[3]&kindPosition != 0 {
		if stamp.Position = d.string(); d.err == nil && (stamp.Position == "" || len(stamp.Position) > MaxPositionBytes) {
			d.fail("the position is empty or too long")
		}
	}
	var r *fleetscore.Readings
	switch data[3] &^ kindPosition {
	case kindTick:
	case kindReadings:
		r = d.readings()
	default:
		d.fail("kind %d is unknown", data[3])
	}
	if len(d.b) > 0 {
		d.fail("%d bytes follow the end of the message", len(d.b))
	}
	if d.err != nil {
		return Stamp{}, nil, &fleetscore.Error{Op: "decode hub message", Kind: fleetscore.Corrupt, Err: d.err}
	}
	return stamp, r, nil
}

// ArrivalOf returns the arrival time of an encoded message without decoding the rest.
func ArrivalOf(message []byte) (fleetscore.Micros, error) {
	if len(message) < headerBytes {
		return 0, fleetscore.Errorf(fleetscore.Corrupt, "decode hub message", "", "the data doesn't start with a message header")
	}
	d := decoder{b: message[headerBytes:]}
	d.bytes(d.count("characters")) // the source
	t := fleetscore.Micros(d.varint())
	return t, d.err
}

// decoder reads from b. After the first error every read returns zero, and counts are
// zero, so that no loop runs on bad input.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
	d.b = nil
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail("the data ends too early")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("the data ends too early")
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads a number of things that take at least one byte each.
func (d *decoder) count(what string) int {
	v := d.uvarint()
	if v > uint64(len(d.b)) {
		d.fail("%d %s don't fit into %d bytes", v, what, len(d.b))
		return 0
	}
	return int(v)
}

func (d *decoder) byte() byte {
	b := d.bytes(1)
	if b == nil {
		return 0
	}
	return b[0]
}

// bytes takes the next n bytes, or nil after an error.
func (d *decoder) bytes(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.b) {
		d.fail("the data ends too early")
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) string() string { return string(d.bytes(d.count("characters"))) }

// strings reads n strings into one allocation of text, which holds their lengths too.
func (d *decoder) strings(n int) []string {
	rest := d.b
	for range n {
		d.bytes(d.count("characters"))
	}
	if d.err != nil {
		return nil
	}
	all := string(rest[:len(rest)-len(d.b)])
	out := make([]string, n)
	at := 0
	for i := range out {
		size, bytes := binary.Uvarint(rest[at:])
		at += bytes
		out[i] = all[at : at+int(size)]
		at += int(size)
	}
	return out
}

// uints takes n integers of the width that the next byte says, 1 to max bytes.
func (d *decoder) uints(n, maxWidth int) (raw []byte, width int) {
	width = int(d.byte())
	if width > maxWidth || bits.OnesCount(uint(width)) != 1 {
		d.fail("a width of %d bytes is not allowed", width)
		return nil, 1
	}
	return d.bytes(n * width), width
}

func uintAt(raw []byte, i, width int) uint64 {
	switch width {
	case 1:
		return uint64(raw[i])
	case 2:
		return uint64(binary.LittleEndian.Uint16(raw[2*i:]))
	case 4:
		return uint64(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return binary.LittleEndian.Uint64(raw[8*i:])
}

func (d *decoder) readings() *fleetscore.Readings {
	n := d.count("readings")
	r := &fleetscore.Readings{}
	keys := d.strings(d.count("keys"))
	r.Keys = make([]fleetscore.Key, len(keys))
	for i, k := range keys {
		r.Keys[i] = fleetscore.Key(k)
	}
	r.KeyIndex = d.indexes(n, len(r.Keys), "key")
	r.Times = d.times(n)
	switch d.byte() {
	case 0:
	case 1:
		if n > len(d.b) {
			d.fail("%d message ids don't fit into %d bytes", n, len(d.b))
		} else {
			r.IDs = d.strings(n)
		}
	default:
		d.fail("the mark of message ids is wrong")
	}
	columns := d.count("columns")
	if columns > maxColumns || columns*n > maxCells {
		d.fail("%d columns of %d readings are more than the format allows", columns, n)
	}
	for c := 0; c < columns && d.err == nil; c++ {
		r.Columns = append(r.Columns, d.column(n))
	}
	return r
}

// indexes reads n indexes below limit.
func (d *decoder) indexes(n, limit int, what string) []uint32 {
	raw, width := d.uints(n, 4)
	if d.err != nil {
		return nil
	}
	out := make([]uint32, n)
	for i := range out {
		v := uintAt(raw, i, width)
		if v >= uint64(limit) {
			d.fail("%s %d of %d is named", what, v, limit)
			return nil
		}
		out[i] = uint32(v)
	}
	return out
}

func (d *decoder) times(n int) []fleetscore.Micros {
	if n == 0 || d.err != nil {
		return []fleetscore.Micros{}
	}
	base := d.varint()
	unit := d.uvarint()
	raw, width := d.uints(n, 8)
	if unit != 1 && unit != 1000 {
		d.fail("a time unit of %d µs is not allowed", unit)
	}
	if d.err != nil {
		return nil
	}
	out := make([]fleetscore.Micros, n)
	for i := range out {
		out[i] = fleetscore.Micros(base + int64(uintAt(raw, i, width)*unit))
	}
	return out
}

func (d *decoder) column(n int) fleetscore.ReadingColumn {
	c := fleetscore.ReadingColumn{Name: d.string()}
	encoding := d.byte()
	var bitmap []byte
	present := n
	switch d.byte() {
	case 0:
	case 1:
		bitmap = d.bytes((n + 7) / 8)
		present = 0
		for _, b := range bitmap {
			present += bits.OnesCount8(b)
		}
		if n%8 != 0 && len(bitmap) > 0 && bitmap[len(bitmap)-1]>>(n%8) != 0 {
			d.fail("column %q marks values after its end", c.Name)
		}
	default:
		d.fail("column %q has a wrong mark of presence", c.Name)
	}
	if d.err != nil {
		return c
	}
	isPresent := func(i int) bool { return bitmap == nil || bitmap[i/8]>>(i%8)&1 == 1 }
	switch encoding {
	case columnFloats:
		c.Numbers = d.floats(n, present, isPresent)
	case columnScaled:
		c.Numbers = d.scaledNumbers(n, present, isPresent)
	case columnStrings:
		d.stringColumn(&c, n, present, bitmap != nil, isPresent)
	default:
		d.fail("column %q has the unknown encoding %d", c.Name, encoding)
	}
	return c
}

func (d *decoder) floats(n, present int, isPresent func(int) bool) []float64 {
	raw := d.bytes(8 * present)
	if d.err != nil {
		return nil
	}
	out := make([]float64, n)
	at := 0
	for i := range out {
		if !isPresent(i) {
			out[i] = math.NaN()
			continue
		}
		out[i] = math.Float64frombits(binary.LittleEndian.Uint64(raw[8*at:]))
		at++
	}
	return out
}

func (d *decoder) scaledNumbers(n, present int, isPresent func(int) bool) []float64 {
	scale := int(d.byte())
	raw, width := d.uints(present, 4)
	if scale >= len(powersOfTen) {
		d.fail("a scale of %d is not allowed", scale)
	}
	if d.err != nil {
		return nil
	}
	div := powersOfTen[scale]
	out := make([]float64, n)
	at := 0
	for i := range out {
		if !isPresent(i) {
			out[i] = math.NaN()
			continue
		}
		v := uintAt(raw, at, width)
		at++
		switch width {
		case 1:
			out[i] = float64(int8(v)) / div
		case 2:
			out[i] = float64(int16(v)) / div
		default:
			out[i] = float64(int32(v)) / div
		}
	}
	return out
}

func (d *decoder) stringColumn(c *fleetscore.ReadingColumn, n, present int, sparse bool, isPresent func(int) bool) {
	words := d.strings(d.count("words"))
	index := d.indexes(present, len(words), "word")
	if d.err != nil {
		return
	}
	c.Strings = make([]string, n)
	if sparse {
		c.Present = make([]bool, n)
	}
	at := 0
	for i := range c.Strings {
		if !isPresent(i) {
			continue
		}
		if sparse {
			c.Present[i] = true
		}
		c.Strings[i] = words[index[at]]
		at++
	}
}
