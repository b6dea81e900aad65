package sklearn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// dtype is a NumPy type of numbers.
type dtype struct {
	kind byte // 'f', 'i', 'u', 'b' as NumPy has it; 'O' for objects
	size int  // bytes
	big  bool // big-endian
}

// dtype reads numpy.dtype("f8", …) and the byte order in its state.
func (g *graph) dtype(v value) (dtype, error) {
	args := g.tuple(g.object(v, objectArgs))
	if !g.calls(v, globalDtype) || len(args) == 0 {
		return dtype{}, errors.New("has no dtype")
	}
	name, _ := g.text(args[0])
	d := dtype{}
	if len(name) > 0 && (name[0] == '<' || name[0] == '>') {
		d.big = name[0] == '>'
		name = name[1:]
	}
	switch string(name) {
	case "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "O8", "O4":
		d.kind, d.size = name[0], int(name[1]-'0')
	default:
		return dtype{}, fmt.Errorf("has dtype %q; float64, float32, integers and bool are supported", clean(name))
	}
	if state := g.tuple(g.object(v, objectState)); len(state) > 1 {
		order, _ := g.text(state[1])
		switch string(order) {
		case ">":
			d.big = true
		case "<", "|", "=":
		default:
			return dtype{}, fmt.Errorf("has byte order %q", clean(order))
		}
	}
	return d, nil
}

// float decodes one number. Integers beyond 2**53 round, as they do in NumPy.
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

// array is a NumPy array of at most two dimensions.
type array struct {
	dtype   dtype
	dims    int
	shape   [2]int
	fortran bool
	data    value
}

// size is the number of elements. It can't overflow: shape saw to that.
func (a *array) size() int {
	n := 1
	for _, d := range a.shape[:a.dims] {
		n *= d
	}
	return n
}

// array reads what ndarray.__reduce__ or, in protocol 5, __reduce_ex__ wrote.
func (g *graph) array(v value) (array, error) {
	args := g.tuple(g.object(v, objectArgs))
	var shape, dt value
	a := array{}
	switch {
	case g.calls(v, globalReconstruct):
		state := g.tuple(g.object(v, objectState))
		if len(args) != 3 || !g.isGlobal(args[0], globalNdarray) || len(state) != 5 {
			return array{}, errors.New("is no plain array")
		}
		shape, dt, a.data = state[1], state[2], state[4]
		a.fortran, _ = g.boolean(state[3])
	case g.calls(v, globalFrombuffer):
		if len(args) < 4 || len(args) > 5 || (len(args) == 5 && args[4].kind() != kindNone) {
			return array{}, errors.New("is no plain array")
		}
		a.data, dt, shape = args[0], args[1], args[2]
		order, _ := g.text(args[3])
		switch string(order) {
		case "C":
		case "F":
			a.fortran = true
		default:
			return array{}, fmt.Errorf("has the memory order %q", clean(order))
		}
	default:
		return array{}, errors.New("is no NumPy array")
	}
	var err error
	if a.dtype, err = g.dtype(dt); err != nil {
		return array{}, err
	}
	return a, g.shape(&a, shape)
}

// shape reads an array's shape. No array has more elements than the file bytes.
func (g *graph) shape(a *array, v value) error {
	dims := g.tuple(v)
	if v.kind() != kindTuple || len(dims) > len(a.shape) {
		return errors.New("has more than two dimensions")
	}
	a.dims = len(dims)
	n := int64(1)
	for i, d := range dims {
		if d.kind() != kindInt || d.int() < 0 || d.int() > int64(len(g.data)) {
			return errors.New("has a shape that can't be")
		}
		a.shape[i] = int(d.int())
		n *= d.int() // both below 2³¹
	}
	if n > int64(len(g.data)) {
		return errors.New("has a shape that can't be")
	}
	return nil
}

// floats decodes an array of numbers, row-major. They must be finite.
func (g *graph) floats(a *array) ([]float64, error) {
	if a.dtype.kind == 'O' {
		return nil, errors.New("holds objects instead of numbers")
	}
	b, ok := g.payload(a.data)
	if !ok {
		return nil, errors.New("has contents that can't be read")
	}
	n := a.size()
	if len(b) != n*a.dtype.size {
		return nil, fmt.Errorf("has %d elements of %d bytes, but %d bytes are there", n, a.dtype.size, len(b))
	}
	if err := g.charge(8 * n); err != nil {
		return nil, err
	}
	out := make([]float64, n)
	if a.dtype == (dtype{'f', 8, false}) {
		for i := range out {
			out[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
		}
	} else {
		for i := range out {
			out[i] = a.dtype.float(b[i*a.dtype.size:])
		}
	}
	for i, f := range out {
		if f-f != 0 {
			return nil, fmt.Errorf("holds %v at %d", f, i)
		}
	}
	if a.fortran && a.dims == 2 && a.shape[0] > 1 && a.shape[1] > 1 {
		return g.transpose(out, a.shape[0], a.shape[1])
	}
	return out, nil
}

// transpose turns column-major into row-major.
func (g *graph) transpose(in []float64, rows, cols int) ([]float64, error) {
	if err := g.charge(8 * len(in)); err != nil {
		return nil, err
	}
	out := make([]float64, len(in))
	for c := range cols {
		for r := range rows {
			out[r*cols+c] = in[c*rows+r]
		}
	}
	return out, nil
}

// names decodes an array of strings, such as feature_names_in_.
func (g *graph) names(v value) ([]string, error) {
	a, err := g.array(v)
	if err != nil {
		return nil, err
	}
	if a.dtype.kind != 'O' || a.dims != 1 || a.data.kind() != kindList || g.count(a.data) != a.shape[0] {
		return nil, errors.New("is no list of names")
	}
	if err := g.charge(16 * a.shape[0]); err != nil {
		return nil, err
	}
	out := make([]string, 0, a.shape[0])
	for e := g.entries(a.data); ; {
		item, ok := e.item()
		if !ok {
			return out, nil
		}
		t, ok := g.text(item)
		if !ok {
			return nil, errors.New("holds something else than names")
		}
		if err := g.charge(len(t)); err != nil {
			return nil, err
		}
		out = append(out, string(t))
	}
}
