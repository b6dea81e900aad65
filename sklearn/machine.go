package sklearn

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/fleetscore/fleetscore"
)

// The opcodes that are referred to by name; all stand in the table steps.
const (
	opBinfloat        = 'G'
	opString          = 'S'
	opBinstring       = 'T'
	opShortBinstring  = 'U'
	opUnicode         = 'V'
	opBinunicode      = 'X'
	opShortBinunicode = 0x8c
	opBinunicode8     = 0x8d
	opBinbytes        = 'B'
	opShortBinbytes   = 'C'
	opBinbytes8       = 0x8e
	opBytearray8      = 0x96
	opLong1           = 0x8a
	opLong4           = 0x8b
	opNewobj          = 0x81
	opNewobjEx        = 0x92
	opReduce          = 'R'
	opInst            = 'i'
	opObj             = 'o'
	opProto           = 0x80
	opStop            = '.'
)

const maxProtocol = 5

// graph is a parsed pickle, and the machine that parses it. The file is read
// once, front to back; nothing is called and nothing recurses.
type graph struct {
	data   []byte
	pos    int // of the next byte
	at     int // of the opcode being done
	budget int // bytes that may still be allocated
	effort int // bytes that may still be decoded

	stack []value
	marks []value // heights of the stack
	memo  []value
	named int     // entries of memo that are set
	cells []value // containers and objects

	words []byte // scratch of text
	bytes []byte // scratch of payload

	protocol int
	stopped  bool
}

const (
	minBudget = 64 << 10
	// minEffort bounds, with a multiple of the file's size, how much is decoded:
	// values that stand in many places would else make small files slow.
	minEffort = 1 << 20
	// keep is the size up to which a graph's memory is used again.
	keep = 1 << 14
)

var graphs = sync.Pool{New: func() any { return new(graph) }}

// unpickle parses a whole file. The caller gives the graph back with release.
func unpickle(data []byte) (*graph, value, error) {
	g := graphs.Get().(*graph)
	*g = graph{
		data: data, budget: max(minBudget, 4*len(data)), effort: minEffort + 32*len(data),
		stack: g.stack[:0], marks: g.marks[:0], memo: g.memo[:0], cells: append(g.cells[:0], 0), // cell 0 is no cell
		words: g.words[:0], bytes: g.bytes[:0],
	}
	root, err := g.run()
	if err != nil {
		g.release()
		return nil, 0, err
	}
	return g, root, nil
}

func (g *graph) release() {
	g.data = nil
	if cap(g.stack)+cap(g.marks)+cap(g.memo)+cap(g.cells) <= keep && cap(g.words)+cap(g.bytes) <= keep {
		graphs.Put(g)
	}
}

func (g *graph) run() (value, error) {
	for !g.stopped {
		if g.pos >= len(g.data) {
			return 0, g.damaged("the file ends before the model does")
		}
		g.at = g.pos
		g.pos++
		step := steps[g.data[g.at]]
		if step == nil {
			return 0, g.damaged("0x%02x is no opcode", g.data[g.at])
		}
		if err := step(g); err != nil {
			return 0, err
		}
	}
	if len(g.stack) != 1 || len(g.marks) != 0 {
		return 0, g.damaged("the model ends with %d values instead of one", len(g.stack))
	}
	if rest := len(g.data) - g.pos; rest > 0 {
		return 0, fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "%d more bytes follow the model's end at byte %d", rest, g.pos).
			WithHint("write one model per file, with one pickle.dump")
	}
	return g.stack[0], nil
}

// damaged is the error of bytes that no pickler writes.
func (g *graph) damaged(format string, args ...any) error {
	return fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "byte %d: "+format, append([]any{g.at}, args...)...).
		WithHint("the file is damaged or no pickle; write the model again with pickle.dump")
}

// charge takes n bytes from what the file's size allows.
func (g *graph) charge(n int) error {
	if n > g.budget {
		return fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "byte %d: reading on needs more than %d bytes of memory, too many for a file of %d", g.at, max(minBudget, 4*len(g.data)), len(g.data)).
			WithHint("no trained model looks like this; write it again with pickle.dump")
	}
	g.budget -= n
	return nil
}

// room makes space for n more values.
func (g *graph) room(s []value, n int) ([]value, error) {
	need := len(s) + n
	if need <= cap(s) {
		return s, nil
	}
	size := max(need, 2*cap(s), 64)
	if 8*size > g.budget {
		size = need
	}
	if err := g.charge(8 * size); err != nil {
		return nil, err
	}
	grown := make([]value, len(s), size)
	copy(grown, s)
	return grown, nil
}

func (g *graph) push(v value) error {
	if len(g.stack) == cap(g.stack) {
		s, err := g.room(g.stack, 1)
		if err != nil {
			return err
		}
		g.stack = s
	}
	g.stack = append(g.stack, v)
	return nil
}

// floor is the height of the stack that only a mark's opcode may go below.
func (g *graph) floor() int {
	if len(g.marks) == 0 {
		return 0
	}
	return int(g.marks[len(g.marks)-1])
}

func (g *graph) pop() (value, error) {
	if len(g.stack) <= g.floor() {
		return 0, g.damaged("nothing is on the stack")
	}
	v := g.stack[len(g.stack)-1]
	g.stack = g.stack[:len(g.stack)-1]
	return v, nil
}

// popMark gives what was pushed since the last mark; valid until the next push.
func (g *graph) popMark() ([]value, error) {
	if len(g.marks) == 0 {
		return nil, g.damaged("there is no mark")
	}
	at := g.floor()
	g.marks = g.marks[:len(g.marks)-1]
	items := g.stack[at:]
	g.stack = g.stack[:at]
	return items, nil
}

// take reads the next n bytes.
func (g *graph) take(n int) ([]byte, error) {
	if n < 0 || n > len(g.data)-g.pos {
		return nil, g.damaged("%d bytes are announced, but %d are left", n, len(g.data)-g.pos)
	}
	b := g.data[g.pos : g.pos+n]
	g.pos += n
	return b, nil
}

// line reads up to a line feed, without it.
func (g *graph) line() ([]byte, error) {
	n := bytes.IndexByte(g.data[g.pos:], '\n')
	if n < 0 {
		return nil, g.damaged("a line has no end")
	}
	b := g.data[g.pos : g.pos+n]
	g.pos += n + 1
	return b, nil
}

// uint reads an unsigned little-endian number of n bytes.
func (g *graph) uint(n int) (int, error) {
	b, err := g.take(n)
	if err != nil {
		return 0, err
	}
	switch n {
	case 1:
		return int(b[0]), nil
	case 2:
		return int(binary.LittleEndian.Uint16(b)), nil
	case 4:
		return int(binary.LittleEndian.Uint32(b)), nil
	}
	u := binary.LittleEndian.Uint64(b)
	if u > MaxBytes {
		return 0, g.damaged("%d bytes are announced, but %d are left", u, len(g.data)-g.pos)
	}
	return int(u), nil
}

// store puts a count and items into new cells.
func (g *graph) store(items []value) (int, error) {
	cells, err := g.room(g.cells, len(items)+1)
	if err != nil {
		return 0, err
	}
	at := len(cells)
	g.cells = append(append(cells, value(len(items))), items...)
	return at, nil
}

func (g *graph) pushTuple(items []value) error {
	at, err := g.store(items)
	if err != nil {
		return err
	}
	return g.push(makeValue(kindTuple, at))
}

// newList makes an empty list or dict.
func (g *graph) newList(k kind) (value, error) {
	cells, err := g.room(g.cells, 3)
	if err != nil {
		return 0, err
	}
	at := len(cells)
	g.cells = append(cells, 0, 0, 0)
	return makeValue(k, at), nil
}

// extend appends to a list or dict.
func (g *graph) extend(list value, items []value) error {
	if len(items) == 0 {
		return nil
	}
	cells, err := g.room(g.cells, len(items)+2)
	if err != nil {
		return err
	}
	chunk := len(cells)
	g.cells = append(append(cells, 0, value(len(items))), items...)
	head := g.cells[list.index() : list.index()+3]
	if head[0] == 0 {
		head[0] = value(chunk)
	} else {
		g.cells[head[1]] = value(chunk)
	}
	head[1] = value(chunk)
	head[2] += value(len(items))
	return nil
}

// target finds what APPENDS and SETITEMS add to: a container, or the items of an
// object such as an OrderedDict.
func (g *graph) target(v value, k kind) (value, error) {
	if v.kind() == k {
		return v, nil
	}
	if v.kind() != kindObject || !g.calls(v, globalOrderedDict) || k != kindDict {
		return 0, g.damaged("items are added to something that takes none")
	}
	items := g.object(v, objectItems)
	if items.kind() == kindUnset {
		var err error
		if items, err = g.newList(kindDict); err != nil {
			return 0, err
		}
		g.cells[v.index()+objectItems] = items
	}
	return items, nil
}

// pushObject records that the opcode made an object of a class or by a function.
func (g *graph) pushObject(op byte, callable, args value) error {
	if callable.kind() != kindGlobal {
		return g.damaged("something is called that is no named class or function")
	}
	if args.kind() != kindTuple {
		return g.damaged("%s.%s is called without a tuple of arguments", globals[callable.index()].module, globals[callable.index()].name)
	}
	if err := g.callable(op, callable, args); err != nil {
		return err
	}
	cells, err := g.room(g.cells, objectCells)
	if err != nil {
		return err
	}
	at := len(cells)
	g.cells = append(cells, value(op), callable, args, 0, 0)
	return g.push(makeValue(kindObject, at))
}

// callable refuses combinations that no pickler writes.
func (g *graph) callable(op byte, callable, args value) error {
	c := globals[callable.index()]
	fresh := op == opNewobj || op == opNewobjEx
	ok := false
	switch c.id {
	case globalPipeline, globalStandardScaler, globalOneClassSVM:
		ok = fresh && g.count(args) == 0
	case globalReconstruct, globalFrombuffer, globalScalar, globalDtype, globalEncode, globalReconstructor, globalNewobj, globalBytes, globalBytearray, globalOrderedDict:
		ok = op == opReduce
	case globalInert:
		ok = op == opReduce || fresh
	}
	if !ok {
		return g.damaged("%s.%s is called in a way that no pickle of a model does", c.module, c.name)
	}
	return nil
}

// build attaches a state to the object on the stack.
func (g *graph) build() error {
	state, err := g.pop()
	if err != nil {
		return err
	}
	if len(g.stack) <= g.floor() {
		return g.damaged("nothing is on the stack")
	}
	v := g.stack[len(g.stack)-1]
	if v.kind() != kindObject {
		return g.damaged("a state is given to something that has none")
	}
	cell := &g.cells[v.index()+objectState]
	if cell.kind() != kindUnset {
		return g.damaged("an object gets its state twice")
	}
	*cell = state
	return nil
}

// pushGlobal looks a class or function up.
func (g *graph) pushGlobal(module, name []byte) error {
	i, ok := globalIndex[string(module)][string(name)]
	if !ok {
		return refusal(module, name)
	}
	return g.push(makeValue(kindGlobal, i))
}

func (g *graph) put(index int) error {
	if len(g.stack) <= g.floor() {
		return g.damaged("nothing is on the stack")
	}
	if index >= len(g.memo) {
		if index > len(g.data) {
			return g.damaged("memo entry %d, in a file of %d bytes", index, len(g.data))
		}
		n := index + 1 - len(g.memo)
		memo, err := g.room(g.memo, n)
		if err != nil {
			return err
		}
		old := len(memo)
		g.memo = memo[:index+1]
		clear(g.memo[old:])
	}
	if g.memo[index] == 0 {
		g.named++
	}
	g.memo[index] = g.stack[len(g.stack)-1]
	return nil
}

func (g *graph) get(index int) error {
	if index >= len(g.memo) || g.memo[index] == 0 {
		return g.damaged("memo entry %d is not there", index)
	}
	return g.push(g.memo[index])
}
