package hub

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"math/bits"

	"github.com/fleetscore/fleetscore"
)

// The message's header; see docs/formats/hub-message.md.
const (
	magic0        = 'F'
	magic1        = 'H'
	formatVersion = 2
	kindTick      = 0
	kindReadings  = 1
	kindPosition  = 2 // added to the kind of a message that carries a position
	headerBytes   = 8
)

// Column encodings.
const (
	columnFloats  = 0 // 8 bytes for each value
	columnScaled  = 1 // integers of 1, 2 or 4 bytes over a power of ten
	columnStrings = 2 // a dictionary, and an index for each value
)

// Limits of the format; a decoder checks them before it allocates.
const (
	maxColumns = 4096
	maxCells   = 1 << 24 // readings × columns
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode appends the message of these readings, or of a tick if r is nil, to
// dst. A number that is NaN is absent. r must be well formed: all columns as
// long as Times, every KeyIndex within Keys; the stamp's source must be valid.
func Encode(dst []byte, stamp Stamp, r *fleetscore.Readings) []byte {
	start := len(dst)
	kind := byte(kindReadings)
	if r == nil {
		kind = kindTick
	}
	if stamp.Position != "" {
		kind |= kindPosition
	}
	dst = append(dst, magic0, magic1, formatVersion, kind, 0, 0, 0, 0)
	dst = appendString(dst, string(stamp.Source))
	dst = binary.AppendVarint(dst, int64(stamp.Arrived))
	dst = binary.AppendVarint(dst, int64(stamp.Unsure))
	if stamp.Position != "" {
		dst = appendString(dst, stamp.Position)
	}
	if r != nil {
		dst = appendReadings(dst, r)
	}
	binary.LittleEndian.PutUint32(dst[start+4:], checksum(dst[start:]))
	return dst
}

// Marshal appends a message to dst as Encode does, if the hub named subject can take it.
// The kind of an error is Invalid.
func Marshal(dst []byte, subject string, stamp Stamp, r *fleetscore.Readings) ([]byte, error) {
	const op = "append to hub"
	if !stamp.Source.Valid() {
		return dst, fleetscore.Errorf(fleetscore.Invalid, op, subject, "%q is not a valid name of a source", stamp.Source)
	}
	if len(stamp.Position) > MaxPositionBytes {
		return dst, fleetscore.Errorf(fleetscore.Invalid, op, subject, "a position of %d bytes is over the limit of %d", len(stamp.Position), MaxPositionBytes)
	}
	if r != nil && (len(r.Columns) > maxColumns || len(r.Columns)*r.Len() > maxCells) {
		return dst, fleetscore.Errorf(fleetscore.Invalid, op, subject, "%d readings of %d columns are too many for a message", r.Len(), len(r.Columns))
	}
	out := Encode(dst, stamp, r)
	if n := len(out) - len(dst); n > MaxMessageBytes {
		return dst, fleetscore.Errorf(fleetscore.Invalid, op, subject, "a message of %d bytes is over the limit of %d", n, MaxMessageBytes)
	}
	return out, nil
}

// checksum covers the whole message except the four bytes of the checksum itself.
func checksum(msg []byte) uint32 {
	return crc32.Update(crc32.Checksum(msg[:4], castagnoli), castagnoli, msg[headerBytes:])
}

func appendReadings(dst []byte, r *fleetscore.Readings) []byte {
	n := r.Len()
	dst = binary.AppendUvarint(dst, uint64(n))
	dst = binary.AppendUvarint(dst, uint64(len(r.Keys)))
	for _, k := range r.Keys {
		dst = appendString(dst, string(k))
	}
	w := widthOf(uint64(max(len(r.Keys), 1) - 1))
	dst = append(dst, byte(w))
	for _, k := range r.KeyIndex {
		dst = appendUint(dst, uint64(k), w)
	}
	dst = appendTimes(dst, r.Times)
	if r.IDs == nil {
		dst = append(dst, 0)
	} else {
		dst = append(dst, 1)
		for _, id := range r.IDs {
			dst = appendString(dst, id)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Columns)))
	for i := range r.Columns {
		c := &r.Columns[i]
		dst = appendString(dst, c.Name)
		if c.Strings != nil {
			dst = appendStrings(dst, c)
		} else {
			dst = appendNumbers(dst, c.Numbers)
		}
	}
	return dst
}

// appendTimes writes offsets from the smallest time, in milliseconds if all offsets are
// whole milliseconds.
func appendTimes(dst []byte, times []fleetscore.Micros) []byte {
	if len(times) == 0 {
		return dst
	}
	lo, hi, unit := times[0], times[0], uint64(1000)
	for _, t := range times {
		lo, hi = min(lo, t), max(hi, t)
	}
	for _, t := range times {
		if uint64(t-lo)%1000 != 0 {
			unit = 1
			break
		}
	}
	w := widthOf(uint64(hi-lo) / unit)
	dst = binary.AppendVarint(dst, int64(lo))
	dst = binary.AppendUvarint(dst, unit)
	dst = append(dst, byte(w))
	for _, t := range times {
		dst = appendUint(dst, uint64(t-lo)/unit, w)
	}
	return dst
}

func appendNumbers(dst []byte, v []float64) []byte {
	present := 0
	for _, x := range v {
		if x == x {
			present++
		}
	}
	ints, scale, width := scaled(v)
	if width > 0 {
		dst = append(dst, columnScaled)
	} else {
		dst = append(dst, columnFloats)
	}
	dst = appendPresence(dst, len(v), present, func(i int) bool { return v[i] == v[i] })
	if width == 0 {
		for _, x := range v {
			if x == x {
				dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(x))
			}
		}
		return dst
	}
	dst = append(dst, byte(scale), byte(width))
	for _, i := range ints {
		dst = appendUint(dst, uint64(uint32(i)), width)
	}
	return dst
}

// powersOfTen are the divisors of scaled columns.
var powersOfTen = [...]float64{1, 10, 100, 1e3, 1e4, 1e5, 1e6}

// scaled returns the present values as integers over the smallest power of ten for which
// the quotients have exactly the same bits, and the bytes that an integer needs. The
// width is 0 if there is no such power.
func scaled(v []float64) (ints []int32, scale, width int) {
	ints = make([]int32, 0, len(v))
	lo, hi := int32(0), int32(0)
	for restart := true; restart; {
		restart = false
		ints, lo, hi = ints[:0], 0, 0
		for _, x := range v {
			if x != x {
				continue
			}
			y := math.RoundToEven(x * powersOfTen[scale])
			i := int32(y)
			if !(math.Abs(y) <= math.MaxInt32) || math.Float64bits(float64(i)/powersOfTen[scale]) != math.Float64bits(x) {
				if scale, restart = scaleOf(x, scale+1); !restart {
					return nil, 0, 0
				}
				break
			}
			lo, hi = min(lo, i), max(hi, i)
			ints = append(ints, i)
		}
	}
	switch {
	case lo >= math.MinInt8 && hi <= math.MaxInt8:
		width = 1
	case lo >= math.MinInt16 && hi <= math.MaxInt16:
		width = 2
	default:
		width = 4
	}
	return ints, scale, width
}

// scaleOf returns the smallest scale from s on at which x is a 32-bit integer
// over a power of ten.
func scaleOf(x float64, s int) (int, bool) {
	for ; s < len(powersOfTen); s++ {
		y := math.RoundToEven(x * powersOfTen[s])
		if !(math.Abs(y) <= math.MaxInt32) {
			return 0, false
		}
		if math.Float64bits(float64(int32(y))/powersOfTen[s]) == math.Float64bits(x) {
			return s, true
		}
	}
	return 0, false
}

func appendStrings(dst []byte, c *fleetscore.ReadingColumn) []byte {
	isPresent := func(i int) bool { return c.Present == nil || c.Present[i] }
	present := 0
	index := make(map[string]uint32)
	var words []string
	for i, s := range c.Strings {
		if !isPresent(i) {
			continue
		}
		present++
		if _, ok := index[s]; !ok {
			index[s] = uint32(len(words))
			words = append(words, s)
		}
	}
	dst = append(dst, columnStrings)
	dst = appendPresence(dst, len(c.Strings), present, isPresent)
	dst = binary.AppendUvarint(dst, uint64(len(words)))
	for _, s := range words {
		dst = appendString(dst, s)
	}
	w := widthOf(uint64(max(len(words), 1) - 1))
	dst = append(dst, byte(w))
	for i, s := range c.Strings {
		if isPresent(i) {
			dst = appendUint(dst, uint64(index[s]), w)
		}
	}
	return dst
}

// appendPresence writes 0 if all n values are present, else 1 and a bit for each value.
func appendPresence(dst []byte, n, present int, isPresent func(int) bool) []byte {
	if present == n {
		return append(dst, 0)
	}
	dst = append(dst, 1)
	start := len(dst)
	dst = append(dst, make([]byte, (n+7)/8)...)
	for i := range n {
		if isPresent(i) {
			dst[start+i/8] |= 1 << (i % 8)
		}
	}
	return dst
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// widthOf returns how many bytes v needs: 1, 2, 4 or 8.
func widthOf(v uint64) int {
	switch n := bits.Len64(v); {
	case n <= 8:
		return 1
	case n <= 16:
		return 2
	case n <= 32:
		return 4
	}
	return 8
}

func appendUint(dst []byte, v uint64, width int) []byte {
	switch width {
	case 1:
		return append(dst, byte(v))
	case 2:
		return binary.LittleEndian.AppendUint16(dst, uint16(v))
	case 4:
		return binary.LittleEndian.AppendUint32(dst, uint32(v))
	}
	return binary.LittleEndian.AppendUint64(dst, v)
}
