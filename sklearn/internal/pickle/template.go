package pickle

import (
	"bytes"
	"slices"

	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
)

// template is what a parse left, for the next file of the same shape.
//
// Most files of a fleet differ in numbers alone: the same estimator, trained on
// other rows, is written with the same opcodes in the same places. Numbers decide
// nothing while a file is parsed, and the values of a graph are only their places
// in the file. So a file as long as one before it, with the same bytes outside
// its numbers, has the same graph. Whatever else differs, the file is parsed.
//
// A graph keeps a few templates of small files, one for each length that it saw
// twice. A slot also counts what came by.
type template struct {
	seen   int // the length that was seen last
	misses int // files of that length that didn't fit

	data  []byte // the file it was made from
	fixed []span // the bytes that must be the same
	names *Names
	cells []Value
	root  Value
	used  budget.Mark
	proto int

	kept       []Kept
	attributes int // in all of them
	lastType   Value
	lastDtype  dtype
}

// Attribute is a name and a value of an object's state, with a tag that the caller
// makes of the name.
type Attribute struct {
	Tag        uint64
	Key, Value Value
}

// Kept is the state of an object in files of one shape.
type Kept struct {
	state Value
	// List are its attributes. They are only to be read.
	List []Attribute
	// Asked is what was asked for until now, in the order in which it was.
	Asked []Answer
}

// Answer is the place of an attribute in a list; −1 if there is none of that name.
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
	patience    = 16 // misses until a template is made anew
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

// fits takes over the graph of a template if the file has its bytes.
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

// learn parses the file and makes a template of it. Meanwhile all integers are
// kept by their places, and numbers and bytes are noted as holes.
func (g *Graph) learn(t *template) (Value, error) {
	before := g.Mark()
	g.learning, g.holes = true, g.holes[:0]
	root, err := g.run()
	g.learning = false
	t.misses, t.cells, t.fixed, t.kept, t.attributes = 0, t.cells[:0], t.fixed[:0], t.kept[:0], 0
	t.lastType = 0
	if err != nil || g.joblib || len(g.foreign) > 0 || len(g.holes) > maxHoles || len(g.cells) > maxCells { // joblib's arrays are read while parsing
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

// hole notes that the bytes from one place to the next opcode are a number's.
func (g *Graph) hole(from int) {
	if len(g.holes) <= maxHoles {
		g.holes = append(g.holes, span{from, g.pos})
	}
}

// Known gives the state that Keep got, for an earlier file of the same shape; nil
// where there is none.
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

// Keep keeps the attributes of a state for the next file of the same shape. Their
// keys must be such as lie in the file.
func (g *Graph) Keep(state Value, list []Attribute) {
	const states, attributes = 16, 512
	if t := g.template; t != nil && len(t.kept) < states && t.attributes+len(list) <= attributes && len(list) > 0 {
		t.kept, t.attributes = append(t.kept, Kept{state: state, List: slices.Clone(list)}), t.attributes+len(list)
	}
}
