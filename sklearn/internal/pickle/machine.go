package pickle

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

// The opcodes that are used by name. The table steps has all opcodes.
const (
	opBinfloat        = 'G'
	opBinint          = 'J'
	opInt             = 'I'
	opLong            = 'L'
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
	opBinint1         = 'K'
	opBinint2         = 'M'
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

// MaxBytes is the size of the largest file that is read.
const MaxBytes = 1<<31 - 1

// Graph is a parsed pickle, and the machine that parses it. The file is read once from
// front to back. No code of the file is called, and no function calls itself.
type Graph struct {
	data  []byte
	names *Names
	pos   int // the offset of the next byte
	at    int // the offset of the current opcode
	look  int // the offset at which the context is checked next

	budget.Budget // what parsing and making estimators may still take

	stack []Value
	marks []Value // heights of the stack
	memo  []Value
	named int     // entries of memo that are set
	cells []Value // containers and objects

	places []Value // the offsets of leaves, in files too large for a Value

	words []byte // working memory for text
	bytes []byte // working memory for payload

	lastType  Value // the last dtype that was read, and its decoded form
	lastDtype dtype

	known    *[templates]template
	template *template // the template that this graph comes from
	learning bool      // a template is being made
	holes    []span    // the bytes that aren't part of the template

	shared []float64 // memory for small slices

	protocol int
	depth    int                         // the nesting of pickles
	nest     func(*Graph) (Value, error) // is the method nested; a direct call would be an initialisation cycle
	stopped  bool
	foreign  []foreign // names that aren't on the list
	joblib   bool      // the stream contains the bytes of an array
}

const (
	valueBytes = 4
	// visit is the work that is counted for each value that is read.
	visit = 8
	// keep is the size up to which a graph's memory is used again.
	keep = 1 << 14
	// stretch is how many bytes are read between two checks of the context.
	stretch = 1 << 18
)

var graphs = sync.Pool{New: func() any { return new(Graph) }}

// Parse parses a whole file. The graph keeps the budget for everything that is made
// from it. The caller returns the graph's memory with Release.
func Parse(data []byte, names *Names, limits budget.Budget) (*Graph, Value, error) {
	g := graphs.Get().(*Graph)
	*g = Graph{
		data: data, names: names, nest: (*Graph).nested, Budget: limits, look: stretch,
		stack: g.stack[:0], marks: g.marks[:0], memo: g.memo[:0], cells: append(g.cells[:0], 0), // cell 0 isn't used
		words: g.words[:0], bytes: g.bytes[:0], shared: g.shared, known: g.known, holes: g.holes,
	}
	root, err := g.parse()
	if err != nil {
		g.Release()
		return nil, 0, err
	}
	g.settle()
	return g, root, nil
}

// settle drops the memory that only parsing needs, so that the model has room.
func (g *Graph) settle() {
	for _, s := range []*[]Value{&g.stack, &g.memo} {
		if cap(*s) > keep { // the next graph uses smaller memory again
			g.Refund(valueBytes * cap(*s))
			*s = nil
		}
	}
}

// Release keeps the graph's memory for the next graph.
func (g *Graph) Release() {
	g.data, g.names, g.Budget = nil, nil, budget.Budget{}
	if cap(g.stack)+cap(g.marks)+cap(g.memo)+cap(g.cells) <= keep && cap(g.words)+cap(g.bytes) <= keep {
		graphs.Put(g)
	}
}

func (g *Graph) run() (Value, error) {
	v, err := g.loop()
	if err != nil {
		return 0, err
	}
	if rest := len(g.data) - g.pos; rest > 0 {
		return 0, refusal.New(refusal.NotModel, "%d more bytes follow the model's end at byte %d", rest, g.pos).
			WithHint("write one model per file, with one pickle.dump")
	}
	return v, nil
}

// loop runs opcodes until STOP.
func (g *Graph) loop() (Value, error) {
	for !g.stopped {
		g.frequent()
		if g.pos >= g.look {
			g.look = g.pos + stretch
			if err := g.Late(); err != nil {
				return 0, err
			}
		}
		if g.pos >= len(g.data) {
			return 0, g.cut("the file ends in the middle of the model")
		}
		g.at = g.pos
		g.pos++
		step := steps[g.data[g.at]]
		if step == nil {
			return 0, g.damaged("0x%02x isn't an opcode", g.data[g.at])
		}
		if err := step(g); err != nil {
			return 0, err
		}
	}
	if len(g.stack) != 1 || len(g.marks) != 0 {
		return 0, g.damaged("the model ends with %d values instead of one", len(g.stack))
	}
	return g.stack[0], nil
}

// frequent runs the opcodes that most of a model consists of, like the table steps. It
// returns at the first opcode that is rare, damaged, or needs memory.
func (g *Graph) frequent() {
	data, pos, stack, memo, cells := g.data, g.pos, g.stack, g.memo, g.cells
	floor, end := g.floor(), min(len(data), g.look)
	if len(data) > largeFile || g.learning { // values are made in another way
		return
	}
loop:
	for pos < end && len(stack) < cap(stack) {
		switch op := data[pos]; op {
		case 0x94: // MEMOIZE
			if g.named != len(memo) || len(memo) == cap(memo) || len(stack) <= floor {
				break loop
			}
			memo = append(memo, stack[len(stack)-1])
			g.named++
			pos++
		case opShortBinunicode, opShortBinbytes:
			k := KindText
			if op == opShortBinbytes {
				k = KindBytes
			}
			if pos+2 > len(data) || pos+2+int(data[pos+1]) > len(data) {
				break loop
			}
			stack = append(stack, makeValue(k, pos))
			pos += 2 + int(data[pos+1])
		case 'h': // BINGET
			if pos+2 > len(data) || int(data[pos+1]) >= len(memo) || memo[data[pos+1]] == 0 {
				break loop
			}
			stack = append(stack, memo[data[pos+1]])
			pos += 2
		case 'K': // BININT1
			if pos+2 > len(data) {
				break loop
			}
			stack = append(stack, makeValue(KindInt, int(data[pos+1])))
			pos += 2
		case opBinfloat:
			if pos+9 > len(data) {
				break loop
			}
			stack = append(stack, makeValue(KindFloat, pos))
			pos += 9
		case 'N', 0x88, 0x89: // NONE, NEWTRUE, NEWFALSE
			v := makeValue(KindNone, 0)
			if op != 'N' {
				v = makeValue(KindBool, int(0x89-op))
			}
			stack = append(stack, v)
			pos++
		case 0x85, 0x86, 0x87: // TUPLE1 to TUPLE3
			n := int(op - 0x84)
			if len(stack)-n < floor || cap(cells)-len(cells) <= n {
				break loop
			}
			at := len(stack) - n
			v := makeValue(KindTuple, len(cells))
			cells = append(append(cells, Value(n)), stack[at:]...)
			stack = append(stack[:at], v)
			pos++
		default:
			break loop
		}
	}
	if pos > g.pos {
		g.protocol = max(g.protocol, 1) // protocol 0 doesn't have these opcodes
	}
	g.pos, g.stack, g.memo, g.cells = pos, stack, memo, cells
}

// damaged returns the error for bytes that no pickler writes.
func (g *Graph) damaged(format string, args ...any) error {
	return g.broken(refusal.Damaged, format, args...)
}

// cut returns the error for a file that ends too early.
func (g *Graph) cut(format string, args ...any) error {
	return g.broken(refusal.Cut, format, args...).WithHint("the file is cut off; copy it again, or write the model again with pickle.dump")
}

func (g *Graph) broken(reason refusal.Reason, format string, args ...any) *fleetscore.Error {
	return refusal.New(reason, "byte %d: "+format, append([]any{g.at}, args...)...).
		WithHint("the file is damaged or isn't a pickle; write the model again with pickle.dump")
}

// room makes space for n more values.
func (g *Graph) room(s []Value, n int) ([]Value, error) {
	need := len(s) + n
	if need <= cap(s) {
		return s, nil
	}
	if need > payloadMask {
		return nil, g.damaged("it has more than %d objects", payloadMask)
	}
	size := max(need, 2*cap(s), 64)
	if cap(s) > 1<<12 { // large slices grow by a smaller factor
		size = max(need, cap(s)+cap(s)/4)
	}
	if !g.Affords(valueBytes * size) {
		size = need + need/16
	}
	if err := g.Charge(valueBytes * size); err != nil {
		return nil, err
	}
	grown := make([]Value, len(s), size)
	copy(grown, s)
	g.Refund(valueBytes * cap(s))
	return grown, nil
}

func (g *Graph) push(v Value) error {
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

// floor returns the height of the stack below which only the opcode that takes the last
// mark may pop.
func (g *Graph) floor() int {
	if len(g.marks) == 0 {
		return 0
	}
	return int(g.marks[len(g.marks)-1])
}

func (g *Graph) pop() (Value, error) {
	if len(g.stack) <= g.floor() {
		return 0, g.damaged("the stack is empty")
	}
	v := g.stack[len(g.stack)-1]
	g.stack = g.stack[:len(g.stack)-1]
	return v, nil
}

// popMark returns the values pushed since the last mark. They are valid until the next
// push.
func (g *Graph) popMark() ([]Value, error) {
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
func (g *Graph) take(n int) ([]byte, error) {
	if n < 0 || n > len(g.data)-g.pos {
		return nil, g.cut("the file says that %d bytes follow, but %d are left", n, len(g.data)-g.pos)
	}
	b := g.data[g.pos : g.pos+n]
	g.pos += n
	return b, nil
}

// line reads up to a line feed, without it.
func (g *Graph) line() ([]byte, error) {
	n := bytes.IndexByte(g.data[g.pos:], '\n')
	if n < 0 {
		return nil, g.cut("a line has no end")
	}
	b := g.data[g.pos : g.pos+n]
	g.pos += n + 1
	return b, nil
}

// uint reads an unsigned little-endian number of n bytes. A number of 8 bytes is always a
// length, so the file must have that many more bytes.
func (g *Graph) uint(n int) (int, error) {
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
		return 0, g.damaged("the file says that %d bytes follow, but %d are left", u, len(g.data)-g.pos)
	}
	return int(u), nil
}

// store puts a count and items into new cells.
func (g *Graph) store(items []Value) (int, error) {
	cells, err := g.room(g.cells, len(items)+1)
	if err != nil {
		return 0, err
	}
	at := len(cells)
	g.cells = append(append(cells, Value(len(items))), items...)
	return at, nil
}

func (g *Graph) pushTuple(items []Value) error {
	at, err := g.store(items)
	if err != nil {
		return err
	}
	return g.push(makeValue(KindTuple, at))
}

// newList makes an empty list or dict.
func (g *Graph) newList(k Kind) (Value, error) {
	cells, err := g.room(g.cells, 3)
	if err != nil {
		return 0, err
	}
	at := len(cells)
	g.cells = append(cells, 0, 0, 0)
	return makeValue(k, at), nil
}

// extend appends to a list or dict.
func (g *Graph) extend(list Value, items []Value) error {
	if len(items) == 0 {
		return nil
	}
	cells, err := g.room(g.cells, len(items)+2)
	if err != nil {
		return err
	}
	chunk := len(cells)
	g.cells = append(append(cells, 0, Value(len(items))), items...)
	head := g.cells[list.index() : list.index()+3]
	if head[0] == 0 {
		head[0] = Value(chunk)
	} else {
		g.cells[head[1]] = Value(chunk)
	}
	head[1] = Value(chunk)
	head[2] += Value(len(items))
	return nil
}

// target returns the value that APPENDS and SETITEMS add to: a container, or the items
// of an object such as an OrderedDict.
func (g *Graph) target(v Value, k Kind) (Value, error) {
	if v.Kind() == k {
		return v, nil
	}
	if class, _ := g.Instance(v); v.Kind() != KindObject || g.Foreign(v) == nil && (class == nil || (class.Use != Inert && (class.Use != orderedDict || k != KindDict))) {
		return 0, g.damaged("items are added to a value that can't hold items")
	}
	items := g.object(v, objectItems)
	if items.Kind() == KindUnset {
		var err error
		if items, err = g.newList(k); err != nil {
			return 0, err
		}
		g.cells[v.index()+objectItems] = items
	}
	if items.Kind() != k {
		return 0, g.damaged("items of two kinds are added to an object")
	}
	return items, nil
}

// pushObject records that the opcode made an object with a class or function.
func (g *Graph) pushObject(op byte, callable, args Value) error {
	state := Value(0)
	switch {
	case args.Kind() != KindTuple:
		return g.damaged("%s is called without a tuple of arguments", g.Describe(callable))
	case callable.kind() == kindForeign:
		if op != opNewobj && op != opNewobjEx {
			return g.called(callable)
		}
		// An empty object made from a class name runs no code. It is refused only if it
		// is read later; for example a parameter cv=ShuffleSplit() isn't read.
	case callable.Kind() != KindGlobal:
		return refusal.New(refusal.Code, "byte %d: Python would call an object from the file while it reads the file", g.at).
			WithHint("no supported model needs it, and Fleetscore ran nothing; if you don't know why the file contains it, don't open the file with Python's pickle")
	case g.isGlobal(callable, createArray): // dill makes an array from three parts
		parts := g.Tuple(args)
		if op != opReduce || len(parts) < 3 || len(parts) > 4 || !g.isGlobal(parts[0], reconstruct) || parts[1].Kind() != KindTuple || parts[2].Kind() != KindTuple ||
			len(parts) == 4 && parts[3].Kind() != KindNone && g.Count(parts[3]) > 0 {
			return g.damaged("dill made an array in an unknown way")
		}
		callable, args, state = parts[0], parts[1], parts[2]
	default:
		if err := g.callable(op, callable, args); err != nil {
			return err
		}
	}
	cells, err := g.room(g.cells, objectCells)
	if err != nil {
		return err
	}
	at := len(cells)
	g.cells = append(cells, Value(op), callable, args, state, 0)
	return g.push(makeValue(KindObject, at))
}

// callable refuses combinations that no pickler writes.
func (g *Graph) callable(op byte, callable, args Value) error {
	c := &g.names.list[callable.index()]
	fresh := op == opNewobj || op == opNewobjEx
	ok := false
	switch c.Use {
	case Class:
		ok = fresh && g.Count(args) == 0
	case reconstruct, frombuffer, scalar, dtypeClass, encode, reconstructor, newobj, bytesClass, bytearrayClass, orderedDict, setClass:
		ok = op == opReduce
	case arrayWrapper:
		ok = fresh
	case Inert, Record:
		ok = op == opReduce || fresh
	}
	if !ok {
		return g.damaged("%s.%s is called in a way that no pickle of a model does", c.Module, c.Name)
	}
	return nil
}

// build attaches a state to the object on the stack.
func (g *Graph) build() error {
	state, err := g.pop()
	if err != nil {
		return err
	}
	if len(g.stack) <= g.floor() {
		return g.damaged("the stack is empty")
	}
	v := g.stack[len(g.stack)-1]
	if v.Kind() != KindObject {
		return g.damaged("a state is set on a value that can't have one")
	}
	cell := &g.cells[v.index()+objectState]
	if cell.Kind() != KindUnset {
		return g.damaged("the state of an object is set twice")
	}
	*cell = state
	if _, wraps := g.instance(v, arrayWrapper); wraps {
		g.joblib = true
		return g.embedded(v)
	}
	return nil
}

// pushGlobal pushes a class or function from the list.
func (g *Graph) pushGlobal(module, name []byte) error {
	i := g.names.find(module, name)
	if i < 0 {
		return g.pushForeign(module, name)
	}
	return g.push(makeValue(KindGlobal, i))
}

func (g *Graph) put(index int) error {
	if len(g.stack) <= g.floor() {
		return g.damaged("the stack is empty")
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

func (g *Graph) get(index int) error {
	if index >= len(g.memo) || g.memo[index] == 0 {
		return g.damaged("memo entry %d doesn't exist", index)
	}
	return g.push(g.memo[index])
}
