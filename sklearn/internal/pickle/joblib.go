package pickle

import (
	"errors"
	"fmt"
)

// joblib (0.10 and later) writes an array as an object NumpyArrayWrapper; its
// bytes follow the BUILD opcode that gives the wrapper its attributes:
//
//	[1 byte n, n bytes of padding]   from joblib 1.2, if the attribute
//	                                 numpy_array_alignment_bytes is there
//	shape × itemsize bytes           in the memory order of the attribute order
//
// or, if the elements are Python objects, one whole pickle of the array.

// maxNested limits the nesting of pickles in pickles.
const maxNested = 4

// embedded skips the bytes that follow a wrapper, and stores their place in the object.
func (g *Graph) embedded(v Value) error {
	a, padded, err := g.wrapper(v)
	if err != nil {
		return g.damaged("an array that was written by joblib %w", err)
	}
	cell := func() *Value { return &g.cells[v.index()+objectItems] }
	if a.HoldsObjects() {
		nested, err := g.nest(g)
		if err != nil {
			return err
		}
		*cell() = nested
		return nil
	}
	if padded {
		n, err := g.uint(1)
		if err != nil {
			return err
		}
		if _, err := g.take(n); err != nil {
			return err
		}
	}
	*cell() = g.leaf(kindRaw, g.pos)
	_, err = g.take(a.Size() * a.dtype.size)
	return err
}

// nested runs a complete pickle that begins here, with its own stack and memo.
func (g *Graph) nested() (Value, error) {
	if g.depth++; g.depth > maxNested {
		return 0, g.damaged("pickles are nested more than %d deep", maxNested)
	}
	stack, marks, memo, named := g.stack, g.marks, g.memo, g.named
	g.stack, g.marks, g.memo, g.named = nil, nil, nil, 0
	v, err := g.loop()
	g.stack, g.marks, g.memo, g.named = stack, marks, memo, named
	g.stopped = false
	g.depth--
	return v, err
}

// wrapper reads a wrapper's attributes.
func (g *Graph) wrapper(v Value) (a Array, padded bool, err error) {
	var shape, dt Value
	for e := g.Entries(g.object(v, objectState)); ; {
		key, v, ok := e.Pair()
		if !ok {
			break
		}
		switch string(key) {
		case "shape":
			shape = v
		case "dtype":
			dt = v
		case "order":
			order, _ := g.Text(v)
			switch string(order) {
			case "C":
			case "F":
				a.fortran = true
			default:
				return a, false, fmt.Errorf("has the memory order %q", Clean(order))
			}
		case "subclass":
			if !g.isGlobal(v, ndarray) {
				return a, false, errors.New("isn't a plain array")
			}
		case "numpy_array_alignment_bytes":
			padded = v.Kind() != KindNone
		}
	}
	if a.dtype, err = g.dtype(dt); err != nil {
		return a, false, err
	}
	return a, padded, g.shape(&a, shape)
}

// wrapped is Array for an array that joblib wrote.
func (g *Graph) wrapped(v Value) (Array, error) {
	a, _, err := g.wrapper(v)
	if err != nil {
		return a, err
	}
	a.data = g.object(v, objectItems)
	if a.HoldsObjects() {
		if _, wraps := g.instance(a.data, arrayWrapper); wraps { // no writer does this, and reading it wouldn't end
			return a, errors.New("isn't a plain array")
		}
		return g.Array(a.data)
	}
	if a.data.kind() != kindRaw {
		return a, errors.New("has no content")
	}
	at := g.place(a.data)
	a.raw = g.data[at : at+a.Size()*a.dtype.size]
	return a, nil
}
