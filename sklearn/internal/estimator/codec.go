package estimator

import (
	"encoding/binary"
	"math"
	"reflect"
	"unsafe"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
)

// Codec writes an estimator's state into a native record, or reads it from a record;
// one list of fields is for both. Everything is little-endian. Arrays of float64 and
// uint64 start at multiples of 8 bytes from the record's start, so that a little-endian
// machine can use them without a copy.
//
// docs/formats/record.md describes the bytes.
type Codec struct {
	buf     []byte
	pos     int
	reading bool
	depth   int
	err     error
	classes *Classes
	spare   int // bytes that estimators may still take, so that a record with many small estimators doesn't become far larger
}

// Classes maps between classes and their numbers in records. The numbers never change.
type Classes struct {
	Code  func(class string) uint32 // 0 for a class without a number
	Names []string                  // the classes' names, by their numbers
	New   func(code uint32) Estimator
}

// is reports whether a number means a class.
func (c *Classes) is(code uint32, class string) bool {
	return code < uint32(len(c.Names)) && c.Names[code] == class
}

const maxDepth = 16 // the nesting of estimators

// Encode appends the state of an estimator to buf, whose length must be a
// multiple of 8.
func Encode(buf []byte, e Estimator, classes *Classes) ([]byte, error) {
	c := Codec{buf: buf, classes: classes}
	c.Child(&e)
	c.align(8)
	return c.buf, c.err
}

// Decode reads an estimator's state from data[from:]. It reuses *e if *e has the same
// class. The result refers to data, which must not change. The caller must call Check
// on the result.
func (c *Codec) Decode(data []byte, from int, e *Estimator, classes *Classes) error {
	*c = Codec{buf: data, pos: from, reading: true, classes: classes, spare: budget.MinMemory + budget.Times*len(data)}
	c.Child(e)
	c.align(8)
	if c.err == nil && c.pos != len(c.buf) {
		c.fail("%d bytes follow the last estimator", len(c.buf)-c.pos)
	}
	return c.err
}

func (c *Codec) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fleetscore.Errorf(fleetscore.Corrupt, "read record", "", "byte %d: "+format, append([]any{c.pos}, args...)...)
	}
}

// Reading reports whether the codec reads; otherwise it writes.
func (c *Codec) Reading() bool { return c.reading }

// take returns the next n bytes.
func (c *Codec) take(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n < 0 || n > len(c.buf)-c.pos {
		c.fail("the record says that %d bytes follow, but %d are left", n, len(c.buf)-c.pos)
		return nil
	}
	c.pos += n
	return c.buf[c.pos-n : c.pos]
}

func (c *Codec) align(n int) {
	if !c.reading {
		for len(c.buf)%n != 0 {
			c.buf = append(c.buf, 0)
		}
		return
	}
	c.take((n - c.pos%n) % n)
}

// Uint32 reads or writes a number of 4 bytes.
func (c *Codec) Uint32(p *uint32) {
	if c.reading {
		*p = c.uint32()
		return
	}
	c.align(4)
	c.buf = binary.LittleEndian.AppendUint32(c.buf, *p)
}

// uint32 reads a number, or returns 0 if the record ends.
func (c *Codec) uint32() uint32 {
	at := (c.pos + 3) &^ 3
	if at+4 > len(c.buf) || c.err != nil {
		c.align(4)
		c.take(4)
		return 0
	}
	c.pos = at + 4
	return binary.LittleEndian.Uint32(c.buf[at:])
}

// Int reads or writes a number from 0 to 2³¹−1.
func (c *Codec) Int(p *int) {
	u := uint32(*p)
	if c.reading {
		u = c.uint32()
	} else {
		c.Uint32(&u)
	}
	*p = int(u)
	if u > math.MaxInt32 {
		c.fail("%d is out of range", u)
		*p = 0
	}
}

// Bool reads or writes 0 or 1 in 4 bytes.
func (c *Codec) Bool(p *bool) {
	n := 0
	if *p {
		n = 1
	}
	c.Int(&n)
	*p = n == 1
	if n > 1 {
		c.fail("%d is neither true nor false", n)
	}
}

// Float reads or writes a float64.
func (c *Codec) Float(p *float64) {
	if at := (c.pos + 7) &^ 7; c.reading && at+8 <= len(c.buf) && c.err == nil {
		c.pos = at + 8
		*p = math.Float64frombits(binary.LittleEndian.Uint64(c.buf[at:]))
		return
	}
	c.align(8)
	if !c.reading {
		c.buf = binary.LittleEndian.AppendUint64(c.buf, math.Float64bits(*p))
	} else if b := c.take(8); b != nil {
		*p = math.Float64frombits(binary.LittleEndian.Uint64(b))
	}
}

// Floats reads or writes a count and that many float64.
func (c *Codec) Floats(p *[]float64) { numbers(c, p, 8) }

// Uint16s reads or writes a count and that many numbers of 2 bytes.
func (c *Codec) Uint16s(p *[]uint16) { numbers(c, p, 2) }

// Int32s reads or writes a count and that many numbers of 4 bytes.
func (c *Codec) Int32s(p *[]int32) { numbers(c, p, 4) }

// Uint32s reads or writes a count and that many numbers of 4 bytes.
func (c *Codec) Uint32s(p *[]uint32) { numbers(c, p, 4) }

// Uint64s reads or writes a count and that many numbers of 8 bytes.
func (c *Codec) Uint64s(p *[]uint64) { numbers(c, p, 8) }

var littleEndian = func() bool { u := uint16(1); return *(*byte)(unsafe.Pointer(&u)) == 1 }()

func numbers[T float64 | uint16 | int32 | uint32 | uint64](c *Codec, p *[]T, size int) {
	n := len(*p)
	c.Int(&n)
	if n == 0 {
		if c.reading {
			*p = nil
		}
		return
	}
	if at := (c.pos + size - 1) &^ (size - 1); c.reading && at+n*size <= len(c.buf) && c.err == nil && littleEndian &&
		uintptr(unsafe.Pointer(&c.buf[at]))%uintptr(size) == 0 {
		c.pos = at + n*size
		*p = unsafe.Slice((*T)(unsafe.Pointer(&c.buf[at])), n)
		return
	}
	c.align(size)
	if !c.reading {
		if littleEndian {
			c.buf = append(c.buf, unsafe.Slice((*byte)(unsafe.Pointer(&(*p)[0])), n*size)...)
			return
		}
		for _, v := range *p {
			c.buf = appendNumber(c.buf, v)
		}
		return
	}
	b := c.take(n * size)
	if b == nil {
		*p = nil
		return
	}
	out := make([]T, n)
	for i := range out {
		out[i] = readNumber[T](b[i*size:])
	}
	*p = out
}

func appendNumber[T float64 | uint16 | int32 | uint32 | uint64](dst []byte, v T) []byte {
	switch v := any(v).(type) {
	case float64:
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
	case uint16:
		return binary.LittleEndian.AppendUint16(dst, v)
	case int32:
		return binary.LittleEndian.AppendUint32(dst, uint32(v))
	case uint32:
		return binary.LittleEndian.AppendUint32(dst, v)
	case uint64:
		return binary.LittleEndian.AppendUint64(dst, v)
	}
	return dst
}

func readNumber[T float64 | uint16 | int32 | uint32 | uint64](b []byte) (v T) {
	switch p := any(&v).(type) {
	case *float64:
		*p = math.Float64frombits(binary.LittleEndian.Uint64(b))
	case *uint16:
		*p = binary.LittleEndian.Uint16(b)
	case *int32:
		*p = int32(binary.LittleEndian.Uint32(b))
	case *uint32:
		*p = binary.LittleEndian.Uint32(b)
	case *uint64:
		*p = binary.LittleEndian.Uint64(b)
	}
	return v
}

// Text reads or writes a count and that many bytes.
func (c *Codec) Text(p *string) {
	n := len(*p)
	c.Int(&n)
	if !c.reading {
		c.buf = append(c.buf, *p...)
	} else if b := c.take(n); string(b) != *p {
		*p = string(b)
	}
}

// Texts reads or writes a count and that many texts.
func (c *Codec) Texts(p *[]string) {
	*p = list(c, *p, 4)
	for i := range *p {
		c.Text(&(*p)[i])
	}
}

// list reads or writes a count. For reading, it returns a slice of that length, and
// reuses s if s is large enough. Each element must take at least size bytes of the
// record.
func list[T any](c *Codec, s []T, size int) []T {
	n := len(s)
	c.Int(&n)
	if !c.reading || c.err != nil {
		return s
	}
	if n > (len(c.buf)-c.pos)/size {
		c.fail("the record says that %d elements follow, but %d bytes are left", n, len(c.buf)-c.pos)
		return s[:0]
	}
	if cap(s) < n {
		s = append(s[:cap(s)], make([]T, n-cap(s))...)
	}
	return s[:n]
}

// Child reads or writes an estimator, which isn't nil: its class's number and its
// fields.
func (c *Codec) Child(e *Estimator) {
	var code uint32
	if !c.reading {
		if code = c.classes.Code((*e).Class()); code == 0 {
			c.fail("%s has no native form", (*e).Class())
		}
	}
	c.Uint32(&code)
	if c.depth++; c.depth > maxDepth {
		c.fail("estimators are nested more than %d levels deep", maxDepth)
	}
	if c.err != nil {
		return
	}
	if c.reading {
		if *e == nil || !c.classes.is(code, (*e).Class()) {
			if *e = c.classes.New(code); *e == nil {
				c.fail("no estimator of this release has the number %d", code)
				return
			}
			if c.spare -= int(reflect.TypeOf(*e).Elem().Size()) + 64; c.spare < 0 {
				c.fail("a record of %d bytes has too many estimators", len(c.buf))
				return
			}
		}
	}
	(*e).Fields(c)
	if c.reading && c.err == nil {
		c.err = (*e).Check()
	}
	c.depth--
}

// Children reads or writes a count and that many estimators.
func (c *Codec) Children(p *[]Estimator) {
	*p = list(c, *p, 4)
	for i := range *p {
		if c.err == nil {
			c.Child(&(*p)[i])
		}
	}
}

// Err returns the first error, or nil.
func (c *Codec) Err() error { return c.err }
