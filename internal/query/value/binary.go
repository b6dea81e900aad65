package value

import (
	"encoding/binary"
	"errors"
	"math"
)

// Append appends a value's binary form, which Decode reads: a byte with the type, then the
// bits, the text, the elements, or the names and values.
func Append(b []byte, v Value) []byte {
	b = append(b, byte(v.kind))
	switch v.kind {
	case Bit, Bigint, Float, Datetime:
		b = binary.LittleEndian.AppendUint64(b, v.bits)
	case Text:
		b = appendString(b, v.text)
	case Array:
		b = binary.AppendUvarint(b, uint64(len(v.list)))
		for _, x := range v.list {
			b = Append(b, x)
		}
	case RecordType:
		b = binary.AppendUvarint(b, uint64(len(v.rec.Values)))
		for i, x := range v.rec.Values {
			b = Append(appendString(b, v.rec.Shape.Names[i]), x)
		}
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// ErrBinary says that bytes are not the binary form of a value.
var ErrBinary = errors.New("the bytes are no values")

// Decode reads a value in its binary form, and returns what follows it. Records with the
// same names share a shape.
func (r *Reader) Decode(b []byte) (Value, []byte, error) { return r.decode(b, 0) }

func (r *Reader) decode(b []byte, depth int) (Value, []byte, error) {
	const most = 2 * maxDepth // a state wraps the values of events in lists of its own
	if len(b) == 0 || depth > most {
		return Null, nil, ErrBinary
	}
	v := Value{kind: Type(b[0])}
	b = b[1:]
	switch v.kind {
	case Any:
		return v, b, nil
	case Bit, Bigint, Float, Datetime:
		if len(b) < 8 {
			return Null, nil, ErrBinary
		}
		v.bits = binary.LittleEndian.Uint64(b)
		return v, b[8:], nil
	case Text:
		var ok bool
		if v.text, b, ok = cutText(b); !ok {
			return Null, nil, ErrBinary
		}
		return v, b, nil
	case Array, RecordType:
		return r.list(v, b, depth)
	}
	return Null, nil, ErrBinary
}

// list reads the elements of an array, or the names and values of a record.
func (r *Reader) list(v Value, b []byte, depth int) (Value, []byte, error) {
	n, b, ok := cutCount(b)
	if !ok {
		return Null, nil, ErrBinary
	}
	values := make([]Value, n)
	var names []string
	for i := range values {
		if v.kind == RecordType {
			var name string
			if name, b, ok = cutText(b); !ok {
				return Null, nil, ErrBinary
			}
			names = append(names, name)
		}
		var err error
		if values[i], b, err = r.decode(b, depth+1); err != nil {
			return Null, nil, err
		}
	}
	if v.kind == Array {
		return List(values), b, nil
	}
	return OfRecord(&Record{Shape: r.Shape(names), Values: values}), b, nil
}

// cutCount reads a number of things, of which each takes a byte at least.
func cutCount(b []byte) (int, []byte, bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return 0, nil, false
	}
	return int(n), b[size:], true
}

func cutText(b []byte) (string, []byte, bool) {
	n, b, ok := cutCount(b)
	if !ok {
		return "", nil, false
	}
	return string(b[:n]), b[n:], true
}

// Fields builds the state of something, value by value, as one array.
type Fields struct{ list []Value }

// Int adds a number.
func (f *Fields) Int(n int64) { f.list = append(f.list, Int(n)) }

// Bits adds a float with all its bits, which Number can't hold if it is infinite.
func (f *Fields) Bits(x float64) {
	f.list = append(f.list, Value{kind: Float, bits: math.Float64bits(x)})
}

// Text adds a text.
func (f *Fields) Text(s string) { f.list = append(f.list, String(s)) }

// Add adds a value.
func (f *Fields) Add(v Value) { f.list = append(f.list, v) }

// List adds values as an array.
func (f *Fields) List(l []Value) { f.list = append(f.list, List(l)) }

// Value returns the array.
func (f *Fields) Value() Value { return List(f.list) }

// Cursor reads what Fields built, in the same order. Values that are missing or of another
// type read as zero, and OK tells it at the end.
type Cursor struct {
	list []Value
	bad  *bool
}

// NewCursor reads an array.
func NewCursor(v Value) *Cursor {
	bad := v.kind != Array
	return &Cursor{list: v.list, bad: &bad}
}

func (c *Cursor) take(want Type) Value {
	if len(c.list) == 0 || want != Any && c.list[0].kind != want {
		*c.bad = true
		return Null
	}
	v := c.list[0]
	c.list = c.list[1:]
	return v
}

// Int reads a number.
func (c *Cursor) Int() int64 { return c.take(Bigint).Bigint() }

// Bits reads a float.
func (c *Cursor) Bits() float64 { return c.take(Float).float() }

// Text reads a text.
func (c *Cursor) Text() string { return c.take(Text).text }

// Value reads any value.
func (c *Cursor) Value() Value { return c.take(Any) }

// List reads an array.
func (c *Cursor) List() []Value { return c.take(Array).list }

// Inner reads an array that Fields built. It shares OK with this cursor.
func (c *Cursor) Inner() *Cursor { return &Cursor{c.take(Array).list, c.bad} }

// More reports whether values are left.
func (c *Cursor) More() bool { return len(c.list) > 0 && !*c.bad }

// Fail notes that the values make no sense.
func (c *Cursor) Fail() { *c.bad = true }

// OK reports whether all values were there, and none is left.
func (c *Cursor) OK() bool { return !*c.bad && len(c.list) == 0 }
