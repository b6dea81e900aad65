package pickle

import (
	"bytes"
	"slices"

	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
)

// template is the result of a parse, for the next file with the same shape.
//
// Most files of a fleet differ only in numbers: the same estimator, trained on other
// rows, is written with the same opcodes at the same offsets. Numbers decide nothing
// while a file is parsed, and the values of a graph are only offsets in the file. So if
// a file has the same length as an earlier file, and the same bytes outside its
// numbers, it has the same graph. Any other file is parsed.
//
// A graph keeps a few templates of small files, one for each length that it met twice.
// Each slot also counts files.
type template struct {
	seen   int // the length of the last file for this slot
	misses int // files of that length that didn't match the template

	data  []byte // the file that the template was made from
	fixed []span // the bytes that must be the same
	names *Names
	cells []Value
	root  Value
	used  budget.Mark
	proto int

	kept       []Kept
	attributes int // the attributes in all kept states
	lastType   Value
	lastDtype  dtype
}

// Attribute is a name and a value in an object's state, with a tag that the caller
// derives from the name.
type Attribute struct {
	Tag        uint64
	Key, Value Value
}

// Kept is the state of an object in all files of one shape.
type Kept struct {
	state Value
	// List holds the attributes. Don't change it.
	List []Attribute
	// Asked holds the attributes that were read so far, in the order of reading.
	Asked []Answer
}

// Answer is the index of an attribute in a list, or −1 if there is no attribute of that
// name.
type Answer struct {
	Name string
	At   int
}

type span struct{ from, to int }

const (
	templates   = 32       // slots of a graph
	maxTemplate = 24 << 10 // bytes of a file
	maxHoles    = 1 << 10  // numbers of a file
	maxCells    = 1 << 12
	patience    = 16 // misses before a template is made again
)

// parse parses the file, or takes its graph from a template.
func (g *Graph) parse() (Value, error) {
	n := len(g.data)
	if n > min(maxTemplate, largeFile) {
		return g.run()
	}
	if g.known == nil {
		g.known = new([templates]template)
	}
	t := &g.known[uint32(n)*0x9e3779b1>>27]
	switch {
	case t.seen != n:
		*t = template{seen: n, data: t.data[:0], fixed: t.fixed[:0], cells: t.cells[:0], kept: t.kept[:0]}
		return g.run()
	case len(t.cells) > 0 && g.fits(t):
		return t.root, nil
	case len(t.cells) > 0 && t.misses < patience:
		t.misses++
		return g.run()
	}
	return g.learn(t)
}

// fits returns true and takes over the template's graph if the file matches the
// template.
func (g *Graph) fits(t *template) bool {
	if g.names != t.names {
		return false
	}
	for _, s := range t.fixed {
		if !bytes.Equal(g.data[s.from:s.to], t.data[s.from:s.to]) {
			return false
		}
	}
	if !g.Take(t.used) {
		return false
	}
	g.pos, g.stopped, g.protocol = len(g.data), true, t.proto
	g.cells = append(g.cells[:0], t.cells...)
	g.template, g.lastType, g.lastDtype = t, t.lastType, t.lastDtype
	return true
}

// learn parses the file and makes a template from it. During this parse all integers
// are kept by their offsets, and the bytes of numbers are recorded as holes.
func (g *Graph) learn(t *template) (Value, error) {
	before := g.Mark()
	g.learning, g.holes = true, g.holes[:0]
	root, err := g.run()
	g.learning = false
	t.misses, t.cells, t.fixed, t.kept, t.attributes = 0, t.cells[:0], t.fixed[:0], t.kept[:0], 0
	t.lastType = 0
	if err != nil || g.joblib || len(g.foreign) > 0 || len(g.holes) > maxHoles || len(g.cells) > maxCells { // joblib's arrays are read while the file is parsed
		return root, err
	}
	from := 0
	for _, h := range g.holes {
		t.fixed = append(t.fixed, span{from, h.from})
		from = h.to
	}
	t.fixed = append(t.fixed, span{from, len(g.data)})
	t.data, t.cells = append(t.data[:0], g.data...), append(t.cells, g.cells...)
	t.names, t.root, t.used, t.proto = g.names, root, g.Since(before), g.protocol
	return root, nil
}

// hole records that the bytes from an offset to the next opcode belong to a number.
func (g *Graph) hole(from int) {
	if len(g.holes) <= maxHoles {
		g.holes = append(g.holes, span{from, g.pos})
	}
}

// Known returns the state that Keep stored for an earlier file of the same shape, or
// nil.
func (g *Graph) Known(state Value) *Kept {
	if t := g.template; t != nil {
		for i := range t.kept {
			if t.kept[i].state == state {
				return &t.kept[i]
			}
		}
	}
	return nil
}

// Keep stores the attributes of a state for the next file of the same shape. Their keys
// must be bytes of the file.
func (g *Graph) Keep(state Value, list []Attribute) {
	const states, attributes = 16, 512
	if t := g.template; t != nil && len(t.kept) < states && t.attributes+len(list) <= attributes && len(list) > 0 {
		t.kept, t.attributes = append(t.kept, Kept{state: state, List: slices.Clone(list)}), t.attributes+len(list)
	}
}
