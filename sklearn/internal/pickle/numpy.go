package pickle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// dtype is a NumPy type.
type dtype struct {
	kind  byte // 'f', 'i', 'u', 'b', 'U', 'S' as NumPy has it; 'O' for objects; 'V' with fields
	size  int  // bytes
	big   bool // big-endian
	state Value
}

// dtype reads numpy.dtype("f8", …) and the byte order in its state.
func (g *Graph) dtype(v Value) (dtype, error) {
	if v == g.lastType && v != 0 { // most arrays share their dtype
		return g.lastDtype, nil
	}
	d, err := g.readType(v)
	if err == nil {
		g.lastType, g.lastDtype = v, d
		if t := g.template; t != nil && t.lastType == 0 {
			t.lastType, t.lastDtype = v, d
		}
	}
	return d, err
}

func (g *Graph) readType(v Value) (dtype, error) {
	args := g.Tuple(g.object(v, objectArgs))
	if !g.calls(v, dtypeClass) || len(args) == 0 {
		return dtype{}, errors.New("has no dtype")
	}
	name, _ := g.Text(args[0])
	d := dtype{state: g.object(v, objectState)}
	if len(name) > 0 && (name[0] == '<' || name[0] == '>' || name[0] == '|') {
		d.big = name[0] == '>'
		name = name[1:]
	}
	if !d.parse(name) {
		return dtype{}, fmt.Errorf("has dtype %q; float64, float32, integers, bool and text are supported", Clean(name))
	}
	if state := g.Tuple(d.state); len(state) > 1 {
		order, _ := g.Text(state[1])
		switch string(order) {
		case ">":
			d.big = true
		case "<", "|", "=":
		default:
			return dtype{}, fmt.Errorf("has byte order %q", Clean(order))
		}
	}
	return d, nil
}

// parse reads a type's name without byte order, such as "f8" or "U12".
func (d *dtype) parse(name []byte) bool {
	if len(name) < 2 || len(name) > 8 {
		return false
	}
	n := 0
	for _, c := range name[1:] {
		if c < '0' || c > '9' {
			return false
		}
		n = 10*n + int(c-'0')
	}
	d.kind, d.size = name[0], n
	switch d.kind {
	case 'f':
		return n == 2 || n == 4 || n == 8
	case 'i', 'u':
		return n == 1 || n == 2 || n == 4 || n == 8
	case 'b':
		return n == 1
	case 'O':
		return n == 4 || n == 8
	case 'U':
		d.size = 4 * n
		return n > 0
	case 'S', 'V':
		return n > 0
	}
	return false
}

func (d dtype) isNumber() bool {
	return d.kind == 'f' || d.kind == 'i' || d.kind == 'u' || d.kind == 'b'
}

// float decodes one number. Integers beyond 2**53 are rounded, as NumPy does.
func (d dtype) float(b []byte) float64 {
	var u uint64
	for i := range d.size {
		if d.big {
			u = u<<8 | uint64(b[i])
		} else {
			u |= uint64(b[i]) << (8 * i)
		}
	}
	switch d.kind {
	case 'f':
		switch d.size {
		case 2:
			return halfFloat(uint16(u))
		case 4:
			return float64(math.Float32frombits(uint32(u)))
		}
		return math.Float64frombits(u)
	case 'i':
		shift := 64 - 8*d.size
		return float64(int64(u<<shift) >> shift)
	}
	return float64(u)
}

// text decodes one string of a fixed-width type, without the padding.
func (d dtype) text(b []byte) string {
	if d.kind == 'S' {
		n := len(b)
		for n > 0 && b[n-1] == 0 {
			n--
		}
		return string(b[:n])
	}
	var out []byte
	order := binary.ByteOrder(binary.LittleEndian)
	if d.big {
		order = binary.BigEndian
	}
	end := len(b) / 4
	for end > 0 && order.Uint32(b[4*end-4:]) == 0 {
		end--
	}
	for i := range end {
		out = utf8.AppendRune(out, rune(order.Uint32(b[4*i:])&0x7fffffff))
	}
	return string(out)
}

// halfFloat decodes IEEE 754 binary16.
func halfFloat(h uint16) float64 {
	sign, exp, frac := 1.0, int(h>>10&31), float64(h&1023)
	if h>>15 == 1 {
		sign = -1
	}
	switch {
	case exp == 31 && frac == 0:
		return math.Inf(int(sign))
	case exp == 31:
		return math.NaN()
	case exp == 0:
		return sign * math.Ldexp(frac, -24)
	}
	return sign * math.Ldexp(1024+frac, exp-25)
}

// TypeOf reads a dtype and returns NumPy's letter for its kind and its size in bytes,
// or 0 for any other value.
func (g *Graph) TypeOf(v Value) (kind byte, size int) {
	d, err := g.dtype(v)
	if err != nil {
		return 0, 0
	}
	return d.kind, d.size
}

const maxDims = 8

// Array is a NumPy array in a file that isn't decoded yet.
type Array struct {
	Dims    int // up to 8
	Shape   [maxDims]int
	dtype   dtype
	fortran bool
	data    Value  // bytes, or a list of objects
	raw     []byte // the bytes, if joblib wrote the array
}

// Size returns the number of elements. It can't overflow, because shape checks the
// product.
func (a *Array) Size() int {
	n := 1
	for _, d := range a.Shape[:a.Dims] {
		n *= d
	}
	return n
}

// Type returns NumPy's letter for the kind of the elements, and their size in bytes.
func (a *Array) Type() (kind byte, size int) { return a.dtype.kind, a.dtype.size }

// HoldsObjects reports whether the elements are Python objects.
func (a *Array) HoldsObjects() bool { return a.dtype.kind == 'O' }

// HoldsText reports whether the elements are strings of a fixed width.
func (a *Array) HoldsText() bool { return a.dtype.kind == 'U' || a.dtype.kind == 'S' }

// IsArray reports whether v is an array.
func (g *Graph) IsArray(v Value) bool {
	_, wraps := g.instance(v, arrayWrapper)
	return wraps || g.calls(v, reconstruct) || g.calls(v, frombuffer)
}

// Array reads an array that was written by ndarray.__reduce__, by __reduce_ex__ in
// protocol 5, or by joblib.
func (g *Graph) Array(v Value) (Array, error) {
	args := g.Tuple(g.object(v, objectArgs))
	var shape, dt Value
	a := Array{}
	switch {
	case g.calls(v, reconstruct):
		state := g.Tuple(g.object(v, objectState))
		if len(args) != 3 || !g.isGlobal(args[0], ndarray) || len(state) != 5 {
			return Array{}, errors.New("isn't a plain array")
		}
		shape, dt, a.data = state[1], state[2], state[4]
		a.fortran, _ = g.Boolean(state[3])
	case g.calls(v, frombuffer):
		if len(args) < 4 || len(args) > 5 || (len(args) == 5 && args[4].Kind() != KindNone) {
			return Array{}, errors.New("isn't a plain array")
		}
		a.data, dt, shape = args[0], args[1], args[2]
		order, _ := g.Text(args[3])
		switch string(order) {
		case "C":
		case "F":
			a.fortran = true
		default:
			return Array{}, fmt.Errorf("has the memory order %q", Clean(order))
		}
	default:
		if _, wraps := g.instance(v, arrayWrapper); wraps {
			return g.wrapped(v)
		}
		return Array{}, errors.New("isn't a NumPy array")
	}
	var err error
	if a.dtype, err = g.dtype(dt); err != nil {
		return Array{}, err
	}
	return a, g.shape(&a, shape)
}

// shape reads an array's shape. An array can't have more elements than the file has
// bytes.
func (g *Graph) shape(a *Array, v Value) error {
	dims := g.Tuple(v)
	if v.Kind() != KindTuple || len(dims) > maxDims {
		return fmt.Errorf("has more than %d dimensions", maxDims)
	}
	a.Dims = len(dims)
	n := int64(1)
	for i, d := range dims {
		if d.Kind() != KindInt || g.Int(d) < 0 || g.Int(d) > int64(len(g.data)) {
			return errors.New("has an impossible shape")
		}
		a.Shape[i] = int(g.Int(d))
		n *= g.Int(d) // both below 2³¹
		if n > int64(len(g.data)) {
			return errors.New("has an impossible shape")
		}
	}
	return nil
}

// contents returns an array's bytes, which are valid until the next call.
func (g *Graph) contents(a *Array) ([]byte, error) {
	b, ok := a.raw, true
	if b == nil {
		if b, ok = g.payload(a.data); !ok {
			return nil, errors.New("has content that can't be read")
		}
	}
	if n := a.Size(); len(b) != n*a.dtype.size {
		return nil, fmt.Errorf("has %d elements of %d bytes, but there are %d bytes", n, a.dtype.size, len(b))
	}
	return b, nil
}

// ErrNotFinite is the error for NaN and infinity in numbers that must be finite.
var ErrNotFinite = errors.New("holds")

// Floats decodes an array of numbers, row after row. If all is true, NaN and infinity
// are errors.
func (g *Graph) Floats(a *Array, all bool) ([]float64, error) {
	if a.HoldsObjects() {
		return g.objectFloats(a, all)
	}
	if !a.dtype.isNumber() {
		return nil, errors.New("holds something other than numbers")
	}
	b, err := g.contents(a)
	if err != nil {
		return nil, err
	}
	n := a.Size()
	if err := g.Charge(8 * n); err != nil {
		return nil, err
	}
	out := g.floats(n)
	a.decode(out, b)
	if all {
		if err := finite(out); err != nil {
			return nil, err
		}
	}
	if a.fortran && a.Dims > 1 {
		return g.transpose(out, a)
	}
	return out, nil
}

// floats makes a slice. Small slices share memory with others of this model or of a few
// more.
func (g *Graph) floats(n int) []float64 {
	const share, most = 64, 16
	if n > most {
		return make([]float64, n)
	}
	if len(g.shared) < n {
		g.shared = make([]float64, share)
	}
	out := g.shared[:n:n]
	g.shared = g.shared[n:]
	return out
}

func (a *Array) decode(out []float64, b []byte) {
	d := a.dtype
	if d.kind == 'f' && d.size == 8 && !d.big {
		for i := range out {
			out[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
		}
		return
	}
	for i := range out {
		out[i] = d.float(b[i*d.size:])
	}
}

// objectFloats reads an array of Python numbers.
func (g *Graph) objectFloats(a *Array, finite bool) ([]float64, error) {
	n := a.Size()
	if a.data.Kind() != KindList || g.Count(a.data) != n || a.fortran && a.Dims > 1 {
		return nil, errors.New("holds something other than numbers")
	}
	if err := g.Charge(8 * n); err != nil {
		return nil, err
	}
	out := make([]float64, 0, n)
	for e := g.Entries(a.data); ; {
		v, ok := e.Item()
		if !ok {
			return out, nil
		}
		f, ok := g.Number(v)
		if !ok || finite && f-f != 0 {
			return nil, errors.New("holds something other than numbers")
		}
		out = append(out, f)
	}
}

// transpose turns column-major order into row-major order: it reverses the strides of
// in.
func (g *Graph) transpose(in []float64, a *Array) ([]float64, error) {
	if err := g.Charge(8 * len(in)); err != nil {
		return nil, err
	}
	out := make([]float64, len(in))
	if a.Dims == 2 {
		rows, cols := a.Shape[0], a.Shape[1]
		for c := range cols {
			for r := range rows {
				out[r*cols+c] = in[c*rows+r]
			}
		}
		return out, nil
	}
	var at [maxDims]int
	for i := range out {
		from, stride := 0, 1
		for d := range a.Dims {
			from += at[d] * stride
			stride *= a.Shape[d]
		}
		out[i] = in[from]
		for d := a.Dims - 1; d >= 0; d-- {
			if at[d]++; at[d] < a.Shape[d] {
				break
			}
			at[d] = 0
		}
	}
	return out, nil
}

// Field decodes one field of an array of records, such as a tree's nodes. It finds the
// field by its name, because releases of scikit-learn add fields and move them.
func (g *Graph) Field(a *Array, name string) ([]float64, error) {
	field, offset, err := g.field(a, name)
	if err != nil {
		return nil, err
	}
	b, err := g.contents(a)
	if err != nil {
		return nil, err
	}
	n := a.Size()
	if err := g.Charge(8 * n); err != nil {
		return nil, err
	}
	out := make([]float64, n)
	field.floats(out, b[min(offset, len(b)):], a.dtype.size)
	return out, nil
}

// floats decodes numbers whose starts are stride bytes apart.
func (d dtype) floats(out []float64, b []byte, stride int) {
	switch {
	case d.kind == 'f' && d.size == 8 && !d.big:
		for i := range out {
			out[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[i*stride:]))
		}
	case d.kind == 'i' && d.size == 8 && !d.big:
		for i := range out {
			out[i] = float64(int64(binary.LittleEndian.Uint64(b[i*stride:])))
		}
	case d.size == 1 && d.kind != 'i':
		for i := range out {
			out[i] = float64(b[i*stride])
		}
	default:
		for i := range out {
			out[i] = d.float(b[i*stride:])
		}
	}
}

// HasField reports whether an array's records have a field of that name.
func (g *Graph) HasField(a *Array, name string) bool {
	_, _, err := g.field(a, name)
	return err == nil
}

// field finds a field in the state of a dtype: (version, order, subdtype, names,
// fields, size, alignment, flags).
func (g *Graph) field(a *Array, name string) (dtype, int, error) {
	state := g.Tuple(a.dtype.state)
	if a.dtype.kind != 'V' || len(state) < 6 || state[4].Kind() != KindDict || a.Dims != 1 {
		return dtype{}, 0, errors.New("isn't an array of records")
	}
	for e := g.Entries(state[4]); ; {
		key, v, ok := e.Pair()
		if !ok {
			return dtype{}, 0, fmt.Errorf("has no field %q", name)
		}
		if string(key) != name {
			continue
		}
		items := g.Tuple(v)
		if len(items) < 2 || items[1].Kind() != KindInt {
			return dtype{}, 0, fmt.Errorf("has a damaged field %q", name)
		}
		d, err := g.dtype(items[0])
		if err != nil {
			return dtype{}, 0, fmt.Errorf("has a field %q that %w", name, err)
		}
		at := g.Int(items[1])
		if !d.isNumber() || at < 0 || at+int64(d.size) > int64(a.dtype.size) {
			return dtype{}, 0, fmt.Errorf("has a damaged field %q", name)
		}
		return d, int(at), nil
	}
}

// Strings decodes a one-dimensional array of strings, such as feature_names_in_.
func (g *Graph) Strings(a *Array) ([]string, error) {
	n := a.Size()
	if a.Dims != 1 {
		return nil, errors.New("isn't a list of names")
	}
	if err := g.Charge(16 * n); err != nil {
		return nil, err
	}
	out := make([]string, 0, n)
	if a.HoldsText() {
		b, err := g.contents(a)
		if err != nil {
			return nil, err
		}
		if err := g.Charge(len(b)); err != nil {
			return nil, err
		}
		for i := range n {
			out = append(out, a.dtype.text(b[i*a.dtype.size:(i+1)*a.dtype.size]))
		}
		return out, nil
	}
	if !a.HoldsObjects() || a.data.Kind() != KindList || g.Count(a.data) != n {
		return nil, errors.New("isn't a list of names")
	}
	for e := g.Entries(a.data); ; {
		item, ok := e.Item()
		if !ok {
			return out, nil
		}
		t, ok := g.Text(item)
		if !ok {
			return nil, errors.New("holds something other than names")
		}
		if err := g.Charge(len(t)); err != nil {
			return nil, err
		}
		out = append(out, string(t))
	}
}

// Objects returns the elements of an array of Python objects.
func (g *Graph) Objects(a *Array) (Entries, error) {
	if !a.HoldsObjects() || a.data.Kind() != KindList || g.Count(a.data) != a.Size() || (a.fortran && a.Dims > 1 && a.Shape[0] != 1 && a.Shape[1] != 1) {
		return Entries{}, errors.New("isn't an array of objects")
	}
	return g.Entries(a.data), nil
}

// HoldsBools reports whether the elements are truth values.
func (a *Array) HoldsBools() bool { return a.dtype.kind == 'b' }
