package pickle

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
)

// Column is a field of an array of records, such as a tree's nodes. It is read without
// a copy, and is valid until the next array is read.
type Column struct {
	dtype  dtype
	bytes  []byte // the bytes of all records
	at     int    // the field's offset in a record
	stride int
}

// Columns finds fields of an array of records by their names, because releases of
// scikit-learn add fields and move them.
func (g *Graph) Columns(a *Array, names []string, to []Column) error {
	b, err := g.contents(a)
	if err != nil {
		return err
	}
	for i, name := range names {
		d, at, err := g.field(a, name)
		if err != nil {
			return err
		}
		to[i] = Column{d, b, at, a.dtype.size}
	}
	return nil
}

// Plain returns the bytes of all records, the field's offset in a record, and the
// length of a record. ok is false unless the numbers are little-endian and of that
// NumPy kind and size.
func (c *Column) Plain(kind byte, size int) (records []byte, at, stride int, ok bool) {
	d := &c.dtype
	return c.bytes, c.at, c.stride, d.kind == kind && d.size == size && !d.big
}

// Float returns the number in a record.
func (c *Column) Float(record int) float64 {
	b := c.bytes[record*c.stride+c.at:]
	switch d := &c.dtype; {
	case d.size == 8 && d.kind == 'f' && !d.big:
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	case d.size == 8 && d.kind == 'i' && !d.big:
		return float64(int64(binary.LittleEndian.Uint64(b)))
	case d.size == 1 && d.kind != 'i':
		return float64(b[0])
	default:
		return d.float(b)
	}
}

// Int32 returns the whole number in a record. A number that isn't whole or is too large
// becomes the largest int32, and one that is too small becomes the least.
func (c *Column) Int32(record int) int32 {
	if d := &c.dtype; d.size == 8 && d.kind == 'i' && !d.big {
		return Clamp(binary.LittleEndian.Uint64(c.bytes[record*c.stride+c.at:]))
	}
	f := c.Float(record)
	if f != math.Trunc(f) || f > math.MaxInt32 { // NaN too
		return math.MaxInt32
	}
	return int32(max(f, math.MinInt32))
}

// Clamp returns a number of 64 bits as int32, or the nearest int32.
func Clamp(bits uint64) int32 {
	n := int64(bits)
	if n == int64(int32(n)) {
		return int32(n)
	}
	return int32(min(max(n, math.MinInt32), math.MaxInt32))
}

// FloatsInto is Floats for finite numbers. It uses the memory of a slice if the slice
// is large enough. The memory that it takes stays charged.
func (g *Graph) FloatsInto(to []float64, a *Array) ([]float64, error) {
	if a.HoldsObjects() || !a.dtype.isNumber() || a.fortran && a.Dims > 1 {
		g.Refund(8 * cap(to))
		return g.Floats(a, true)
	}
	b, err := g.contents(a)
	if err != nil {
		return to, err
	}
	n := a.Size()
	if n > cap(to) {
		if err := g.Charge(8 * n); err != nil {
			return to, err
		}
		g.Refund(8 * cap(to))
		to = make([]float64, n)
	}
	to = to[:n]
	a.decode(to, b)
	return to, finite(to)
}

// finite returns an error if a number isn't finite.
func finite(x []float64) error {
	if kernel.Finite(x) {
		return nil
	}
	for i, f := range x {
		if f-f != 0 {
			return fmt.Errorf("%w %v at %d", ErrNotFinite, f, i)
		}
	}
	return nil
}
