package pickle

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

// steps has the function of each opcode of protocols 0 to 5. Python's pickletools
// defines the format.
var steps = [256]func(*Graph) error{
	opProto: stepProto,
	0x95:    stepFrame,
	opStop:  func(g *Graph) error { g.stopped = true; return nil },

	// The stack and the memo.
	'(':  stepMark,
	'0':  stepPop,
	'1':  func(g *Graph) error { _, err := g.popMark(); return err },
	'2':  stepDup,
	'p':  stepText((*Graph).put),
	'q':  stepIndex(1, (*Graph).put),
	'r':  stepIndex(4, (*Graph).put),
	0x94: func(g *Graph) error { return g.put(g.named) },
	'g':  stepText((*Graph).get),
	'h':  stepIndex(1, (*Graph).get),
	'j':  stepIndex(4, (*Graph).get),

	// Leaves.
	'N':               stepConst(makeValue(KindNone, 0)),
	0x88:              stepConst(makeValue(KindBool, 1)),
	0x89:              stepConst(makeValue(KindBool, 0)),
	'I':               stepInt,
	'J':               stepBinint,
	'K':               stepIndex(1, pushInt),
	'M':               stepIndex(2, pushInt),
	'L':               stepLong,
	opLong1:           stepBinlong(1),
	opLong4:           stepBinlong(4),
	'F':               stepLine(KindFloat),
	opBinfloat:        stepBinfloat,
	opString:          stepLine(KindText),
	opUnicode:         stepLine(KindText),
	opBinstring:       stepSized(KindText, 4),
	opShortBinstring:  stepSized(KindText, 1),
	opBinunicode:      stepSized(KindText, 4),
	opShortBinunicode: stepSized(KindText, 1),
	opBinunicode8:     stepSized(KindText, 8),
	opBinbytes:        stepSized(KindBytes, 4),
	opShortBinbytes:   stepSized(KindBytes, 1),
	opBinbytes8:       stepSized(KindBytes, 8),
	opBytearray8:      stepSized(KindBytes, 8),

	// Containers.
	')':  func(g *Graph) error { return g.pushTuple(nil) },
	0x85: stepTuple(1),
	0x86: stepTuple(2),
	0x87: stepTuple(3),
	't':  stepTupleMark,
	0x91: stepTupleMark, // a frozenset
	']':  stepEmpty(KindList),
	'}':  stepEmpty(KindDict),
	0x8f: stepEmpty(KindList), // a set
	'l':  stepFromMark(KindList),
	'd':  stepFromMark(KindDict),
	'a':  stepAdd(KindList, 1),
	's':  stepAdd(KindDict, 2),
	'e':  stepAddMark(KindList),
	'u':  stepAddMark(KindDict),
	0x90: stepAddMark(KindList),

	// Classes, functions, objects.
	'c':        stepGlobal,
	0x93:       stepStackGlobal,
	opNewobj:   stepCall,
	opReduce:   stepCall,
	opNewobjEx: stepNewobjEx,
	opInst:     stepInst,
	opObj:      stepObj,
	'b':        (*Graph).build,

	// Values that only the process that wrote the file can resolve.
	'P':  stepOutside("a persistent identifier (opcode PERSID)"),
	'Q':  stepOutside("a persistent identifier (opcode BINPERSID)"),
	0x82: stepOutside("a copyreg extension code (opcode EXT1)"),
	0x83: stepOutside("a copyreg extension code (opcode EXT2)"),
	0x84: stepOutside("a copyreg extension code (opcode EXT4)"),
	0x97: stepOutside("an out-of-band buffer (opcode NEXT_BUFFER)"),
	0x98: stepOutside("an out-of-band buffer (opcode READONLY_BUFFER)"),
}

func stepProto(g *Graph) error {
	n, err := g.uint(1)
	if err != nil {
		return err
	}
	if n > maxProtocol {
		return refusal.New(refusal.Damaged, "byte %d: pickle protocol %d is newer than %d", g.at, n, maxProtocol).
			WithHint("write the model with pickle.dump(model, file, protocol=%d)", maxProtocol)
	}
	g.protocol = max(g.protocol, n)
	return nil
}

// stepFrame reads a frame's length. The whole file is in memory, so frames aren't
// needed.
func stepFrame(g *Graph) error {
	n, err := g.uint(8)
	if err != nil {
		return err
	}
	if n > len(g.data)-g.pos {
		return g.cut("the file says that a frame of %d bytes follows, but %d bytes are left", n, len(g.data)-g.pos)
	}
	return nil
}

func stepMark(g *Graph) error {
	marks, err := g.room(g.marks, 1)
	if err != nil {
		return err
	}
	g.marks = append(marks, Value(len(g.stack)))
	return nil
}

func stepPop(g *Graph) error {
	if len(g.marks) > 0 && len(g.stack) == g.floor() {
		g.marks = g.marks[:len(g.marks)-1]
		return nil
	}
	_, err := g.pop()
	return err
}

func stepDup(g *Graph) error {
	v, err := g.pop()
	if err != nil {
		return err
	}
	if err := g.push(v); err != nil {
		return err
	}
	return g.push(v)
}

// stepIndex reads a number of n bytes and calls f with it. Protocol 0 has no such
// opcodes, so a pickle with such an opcode and without PROTO has protocol 1.
func stepIndex(n int, f func(*Graph, int) error) func(*Graph) error {
	return func(g *Graph) error {
		i, err := g.uint(n)
		if err != nil {
			return err
		}
		g.protocol = max(g.protocol, 1)
		return f(g, i)
	}
}

// stepText reads a line with a number and calls f with it.
func stepText(f func(*Graph, int) error) func(*Graph) error {
	return func(g *Graph) error {
		b, err := g.line()
		if err != nil {
			return err
		}
		i, err := strconv.ParseUint(string(b), 10, 32)
		if err != nil {
			return g.damaged("%q isn't a memo entry", Clean(b))
		}
		return f(g, int(i))
	}
}

func stepConst(v Value) func(*Graph) error {
	return func(g *Graph) error { return g.push(v) }
}

func pushInt(g *Graph, n int) error {
	if g.learning {
		g.hole(g.at + 1)
		return g.push(g.leaf(kindLong, g.at))
	}
	return g.push(makeValue(KindInt, n))
}

// pushWide pushes an integer. An integer that is too large for a Value is kept by its
// offset.
func pushWide(g *Graph, n int64) error {
	if v := makeValue(KindInt, int(n)); g.Int(v) == n {
		return g.push(v)
	}
	return g.push(g.leaf(kindLong, g.at))
}

func stepInt(g *Graph) error {
	b, err := g.line()
	if err != nil {
		return err
	}
	switch string(b) {
	case "00":
		return g.push(makeValue(KindBool, 0))
	case "01":
		return g.push(makeValue(KindBool, 1))
	}
	return g.decimal(b)
}

func stepLong(g *Graph) error {
	b, err := g.line()
	if err != nil {
		return err
	}
	return g.decimal(bytes.TrimSuffix(b, []byte("L")))
}

func (g *Graph) decimal(b []byte) error {
	if len(b) > 18 {
		for i, c := range b {
			if (c < '0' || c > '9') && (c != '-' || i > 0) {
				return g.damaged("%q isn't an integer", Clean(b))
			}
		}
		return g.push(g.leaf(KindBig, g.at))
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return g.damaged("%q isn't an integer", Clean(b))
	}
	return pushWide(g, n)
}

func stepBinint(g *Graph) error {
	b, err := g.take(4)
	if err != nil {
		return err
	}
	g.protocol = max(g.protocol, 1)
	if g.learning {
		g.hole(g.at + 1)
		return g.push(g.leaf(kindLong, g.at))
	}
	return pushWide(g, int64(int32(binary.LittleEndian.Uint32(b))))
}

func stepBinlong(n int) func(*Graph) error {
	return func(g *Graph) error {
		size, err := g.uint(n)
		if err != nil {
			return err
		}
		b, err := g.take(size)
		if err != nil {
			return err
		}
		if len(b) > 8 {
			return g.push(g.leaf(KindBig, g.at))
		}
		return pushWide(g, signed(b))
	}
}

func stepBinfloat(g *Graph) error {
	if _, err := g.take(8); err != nil {
		return err
	}
	g.protocol = max(g.protocol, 1)
	if g.learning {
		g.hole(g.at + 1)
	}
	return g.push(g.leaf(KindFloat, g.at))
}

func stepLine(k Kind) func(*Graph) error {
	return func(g *Graph) error {
		if _, err := g.line(); err != nil {
			return err
		}
		return g.push(g.leaf(k, g.at))
	}
}

func stepSized(k Kind, n int) func(*Graph) error {
	return func(g *Graph) error {
		size, err := g.uint(n)
		if err != nil {
			return err
		}
		if _, err := g.take(size); err != nil {
			return err
		}
		g.protocol = max(g.protocol, 1)
		if g.learning && k == KindBytes {
			g.hole(g.pos - size)
		}
		return g.push(g.leaf(k, g.at))
	}
}

func stepTuple(n int) func(*Graph) error {
	return func(g *Graph) error {
		if len(g.stack)-n < g.floor() {
			return g.damaged("too few values are on the stack")
		}
		items := g.stack[len(g.stack)-n:]
		g.stack = g.stack[:len(g.stack)-n]
		return g.pushTuple(items)
	}
}

func stepTupleMark(g *Graph) error {
	items, err := g.popMark()
	if err != nil {
		return err
	}
	return g.pushTuple(items)
}

func stepEmpty(k Kind) func(*Graph) error {
	return func(g *Graph) error {
		v, err := g.newList(k)
		if err != nil {
			return err
		}
		return g.push(v)
	}
}

func stepFromMark(k Kind) func(*Graph) error {
	return func(g *Graph) error {
		items, err := g.popMark()
		if err != nil {
			return err
		}
		if k == KindDict && len(items)%2 != 0 {
			return g.damaged("a key has no value")
		}
		v, err := g.newList(k)
		if err != nil {
			return err
		}
		if err := g.extend(v, items); err != nil {
			return err
		}
		return g.push(v)
	}
}

func stepAdd(k Kind, n int) func(*Graph) error {
	return func(g *Graph) error {
		if len(g.stack)-n < g.floor() {
			return g.damaged("too few values are on the stack")
		}
		items := g.stack[len(g.stack)-n:]
		g.stack = g.stack[:len(g.stack)-n]
		return g.addTo(k, items)
	}
}

func stepAddMark(k Kind) func(*Graph) error {
	return func(g *Graph) error {
		items, err := g.popMark()
		if err != nil {
			return err
		}
		if k == KindDict && len(items)%2 != 0 {
			return g.damaged("a key has no value")
		}
		return g.addTo(k, items)
	}
}

// addTo adds items to the container on the stack.
func (g *Graph) addTo(k Kind, items []Value) error {
	if len(g.stack) <= g.floor() {
		return g.damaged("the stack is empty")
	}
	list, err := g.target(g.stack[len(g.stack)-1], k)
	if err != nil {
		return err
	}
	return g.extend(list, items)
}

func stepGlobal(g *Graph) error {
	module, err := g.line()
	if err != nil {
		return err
	}
	name, err := g.line()
	if err != nil {
		return err
	}
	return g.pushGlobal(module, name)
}

func stepStackGlobal(g *Graph) error {
	n, err := g.pop()
	if err != nil {
		return err
	}
	m, err := g.pop()
	if err != nil {
		return err
	}
	if n.Kind() != KindText || m.Kind() != KindText {
		return g.damaged("the name of a class isn't two strings")
	}
	t, _ := g.Text(m)
	module := t
	if op, _ := g.body(m); op == opUnicode || op == opString {
		module = bytes.Clone(t) // the next call overwrites it
	}
	name, _ := g.Text(n)
	return g.pushGlobal(module, name)
}

// stepCall is for NEWOBJ and REDUCE, which take a callable and a tuple of arguments.
func stepCall(g *Graph) error {
	args, err := g.pop()
	if err != nil {
		return err
	}
	callable, err := g.pop()
	if err != nil {
		return err
	}
	return g.pushObject(g.data[g.at], callable, args)
}

func stepNewobjEx(g *Graph) error {
	kwargs, err := g.pop()
	if err != nil {
		return err
	}
	if kwargs.Kind() != KindDict || g.Count(kwargs) > 0 {
		return g.damaged("an object is made with keyword arguments, which aren't supported")
	}
	return stepCall(g)
}

func stepInst(g *Graph) error {
	if err := stepGlobal(g); err != nil {
		return err
	}
	class, err := g.pop()
	if err != nil {
		return err
	}
	return g.callMark(class)
}

func stepObj(g *Graph) error {
	if len(g.marks) == 0 || len(g.stack) <= g.floor() {
		return g.damaged("the stack is empty")
	}
	at := g.floor()
	class := g.stack[at]
	copy(g.stack[at:], g.stack[at+1:])
	g.stack = g.stack[:len(g.stack)-1]
	return g.callMark(class)
}

// callMark makes an object from the values since the mark.
func (g *Graph) callMark(class Value) error {
	op := g.data[g.at]
	if err := stepTupleMark(g); err != nil {
		return err
	}
	args, err := g.pop()
	if err != nil {
		return err
	}
	return g.pushObject(op, class, args)
}

func stepOutside(what string) func(*Graph) error {
	return func(g *Graph) error {
		return refusal.New(refusal.Class, "byte %d: %s refers to data outside the file", g.at, what).
			WithHint("write the model with plain pickle.dump(model, file)")
	}
}
