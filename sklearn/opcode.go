package sklearn

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"github.com/fleetscore/fleetscore"
)

// steps is what each opcode of protocols 0 to 5 does. The format is that of
// Python's pickletools.
var steps = [256]func(*graph) error{
	opProto: stepProto,
	0x95:    stepFrame,
	opStop:  func(g *graph) error { g.stopped = true; return nil },

	// The stack and the memo.
	'(':  stepMark,
	'0':  stepPop,
	'1':  func(g *graph) error { _, err := g.popMark(); return err },
	'2':  stepDup,
	'p':  stepText((*graph).put),
	'q':  stepIndex(1, (*graph).put),
	'r':  stepIndex(4, (*graph).put),
	0x94: func(g *graph) error { return g.put(g.named) },
	'g':  stepText((*graph).get),
	'h':  stepIndex(1, (*graph).get),
	'j':  stepIndex(4, (*graph).get),

	// Leaves.
	'N':               stepConst(makeValue(kindNone, 0)),
	0x88:              stepConst(makeValue(kindBool, 1)),
	0x89:              stepConst(makeValue(kindBool, 0)),
	'I':               stepInt,
	'J':               stepBinint,
	'K':               stepIndex(1, pushInt),
	'M':               stepIndex(2, pushInt),
	'L':               stepLong,
	opLong1:           stepBinlong(1),
	opLong4:           stepBinlong(4),
	'F':               stepLine(kindFloat),
	opBinfloat:        stepBinfloat,
	opString:          stepLine(kindText),
	opUnicode:         stepLine(kindText),
	opBinstring:       stepSized(kindText, 4),
	opShortBinstring:  stepSized(kindText, 1),
	opBinunicode:      stepSized(kindText, 4),
	opShortBinunicode: stepSized(kindText, 1),
	opBinunicode8:     stepSized(kindText, 8),
	opBinbytes:        stepSized(kindBytes, 4),
	opShortBinbytes:   stepSized(kindBytes, 1),
	opBinbytes8:       stepSized(kindBytes, 8),
	opBytearray8:      stepSized(kindBytes, 8),

	// Containers.
	')':  func(g *graph) error { return g.pushTuple(nil) },
	0x85: stepTuple(1),
	0x86: stepTuple(2),
	0x87: stepTuple(3),
	't':  stepTupleMark,
	0x91: stepTupleMark, // a frozenset
	']':  stepEmpty(kindList),
	'}':  stepEmpty(kindDict),
	0x8f: stepEmpty(kindList), // a set
	'l':  stepFromMark(kindList),
	'd':  stepFromMark(kindDict),
	'a':  stepAdd(kindList, 1),
	's':  stepAdd(kindDict, 2),
	'e':  stepAddMark(kindList),
	'u':  stepAddMark(kindDict),
	0x90: stepAddMark(kindList),

	// Classes, functions, objects.
	'c':        stepGlobal,
	0x93:       stepStackGlobal,
	opNewobj:   stepCall,
	opReduce:   stepCall,
	opNewobjEx: stepNewobjEx,
	opInst:     stepInst,
	opObj:      stepObj,
	'b':        (*graph).build,

	// What only the process that wrote it can resolve.
	'P':  stepOutside("a persistent identifier (opcode PERSID)"),
	'Q':  stepOutside("a persistent identifier (opcode BINPERSID)"),
	0x82: stepOutside("a copyreg extension code (opcode EXT1)"),
	0x83: stepOutside("a copyreg extension code (opcode EXT2)"),
	0x84: stepOutside("a copyreg extension code (opcode EXT4)"),
	0x97: stepOutside("an out-of-band buffer (opcode NEXT_BUFFER)"),
	0x98: stepOutside("an out-of-band buffer (opcode READONLY_BUFFER)"),
}

func stepProto(g *graph) error {
	n, err := g.uint(1)
	if err != nil {
		return err
	}
	if n > maxProtocol {
		return fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "byte %d: pickle protocol %d is newer than %d", g.at, n, maxProtocol).
			WithHint("write the model with pickle.dump(model, file, protocol=%d)", maxProtocol)
	}
	g.protocol = max(g.protocol, n)
	return nil
}

// stepFrame reads a frame's length; as the whole file is at hand, frames mean
// nothing more.
func stepFrame(g *graph) error {
	n, err := g.uint(8)
	if err != nil {
		return err
	}
	if n > len(g.data)-g.pos {
		return g.damaged("a frame of %d bytes is announced, but %d are left", n, len(g.data)-g.pos)
	}
	return nil
}

func stepMark(g *graph) error {
	marks, err := g.room(g.marks, 1)
	if err != nil {
		return err
	}
	g.marks = append(marks, value(len(g.stack)))
	return nil
}

func stepPop(g *graph) error {
	if len(g.marks) > 0 && len(g.stack) == g.floor() {
		g.marks = g.marks[:len(g.marks)-1]
		return nil
	}
	_, err := g.pop()
	return err
}

func stepDup(g *graph) error {
	v, err := g.pop()
	if err != nil {
		return err
	}
	if err := g.push(v); err != nil {
		return err
	}
	return g.push(v)
}

// stepIndex reads a number of n bytes for f. Pickles of protocol 0 have none, so
// one without a PROTO opcode is of protocol 1.
func stepIndex(n int, f func(*graph, int) error) func(*graph) error {
	return func(g *graph) error {
		i, err := g.uint(n)
		if err != nil {
			return err
		}
		g.protocol = max(g.protocol, 1)
		return f(g, i)
	}
}

// stepText reads a number written as a line for f.
func stepText(f func(*graph, int) error) func(*graph) error {
	return func(g *graph) error {
		b, err := g.line()
		if err != nil {
			return err
		}
		i, err := strconv.ParseUint(string(b), 10, 32)
		if err != nil {
			return g.damaged("%q is no memo entry", clean(b))
		}
		return f(g, int(i))
	}
}

func stepConst(v value) func(*graph) error {
	return func(g *graph) error { return g.push(v) }
}

func pushInt(g *graph, n int) error { return g.push(makeValue(kindInt, n)) }

// pushWide pushes an integer, by its place where it is too large.
func pushWide(g *graph, n int64) error {
	if v := makeValue(kindInt, int(n)); v.int() == n {
		return g.push(v)
	}
	return g.push(makeValue(kindBig, g.at))
}

func stepInt(g *graph) error {
	b, err := g.line()
	if err != nil {
		return err
	}
	switch string(b) {
	case "00":
		return g.push(makeValue(kindBool, 0))
	case "01":
		return g.push(makeValue(kindBool, 1))
	}
	return g.decimal(b)
}

func stepLong(g *graph) error {
	b, err := g.line()
	if err != nil {
		return err
	}
	return g.decimal(bytes.TrimSuffix(b, []byte("L")))
}

func (g *graph) decimal(b []byte) error {
	if len(b) > 18 {
		for i, c := range b {
			if (c < '0' || c > '9') && (c != '-' || i > 0) {
				return g.damaged("%q is no integer", clean(b))
			}
		}
		return g.push(makeValue(kindBig, g.at))
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return g.damaged("%q is no integer", clean(b))
	}
	return pushWide(g, n)
}

func stepBinint(g *graph) error {
	b, err := g.take(4)
	if err != nil {
		return err
	}
	g.protocol = max(g.protocol, 1)
	return g.push(makeValue(kindInt, int(int32(binary.LittleEndian.Uint32(b)))))
}

func stepBinlong(n int) func(*graph) error {
	return func(g *graph) error {
		size, err := g.uint(n)
		if err != nil {
			return err
		}
		b, err := g.take(size)
		if err != nil {
			return err
		}
		if len(b) > 8 {
			return g.push(makeValue(kindBig, g.at))
		}
		var x int64
		for i, c := range b {
			x |= int64(c) << (8 * i)
		}
		if shift := 64 - 8*len(b); shift < 64 {
			x = x << shift >> shift
		}
		return pushWide(g, x)
	}
}

func stepBinfloat(g *graph) error {
	if _, err := g.take(8); err != nil {
		return err
	}
	g.protocol = max(g.protocol, 1)
	return g.push(makeValue(kindFloat, g.at))
}

func stepLine(k kind) func(*graph) error {
	return func(g *graph) error {
		if _, err := g.line(); err != nil {
			return err
		}
		return g.push(makeValue(k, g.at))
	}
}

func stepSized(k kind, n int) func(*graph) error {
	return func(g *graph) error {
		size, err := g.uint(n)
		if err != nil {
			return err
		}
		if _, err := g.take(size); err != nil {
			return err
		}
		g.protocol = max(g.protocol, 1)
		return g.push(makeValue(k, g.at))
	}
}

func stepTuple(n int) func(*graph) error {
	return func(g *graph) error {
		if len(g.stack)-n < g.floor() {
			return g.damaged("too little is on the stack")
		}
		items := g.stack[len(g.stack)-n:]
		g.stack = g.stack[:len(g.stack)-n]
		return g.pushTuple(items)
	}
}

func stepTupleMark(g *graph) error {
	items, err := g.popMark()
	if err != nil {
		return err
	}
	return g.pushTuple(items)
}

func stepEmpty(k kind) func(*graph) error {
	return func(g *graph) error {
		v, err := g.newList(k)
		if err != nil {
			return err
		}
		return g.push(v)
	}
}

func stepFromMark(k kind) func(*graph) error {
	return func(g *graph) error {
		items, err := g.popMark()
		if err != nil {
			return err
		}
		if k == kindDict && len(items)%2 != 0 {
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

func stepAdd(k kind, n int) func(*graph) error {
	return func(g *graph) error {
		if len(g.stack)-n < g.floor() {
			return g.damaged("too little is on the stack")
		}
		items := g.stack[len(g.stack)-n:]
		g.stack = g.stack[:len(g.stack)-n]
		return g.addTo(k, items)
	}
}

func stepAddMark(k kind) func(*graph) error {
	return func(g *graph) error {
		items, err := g.popMark()
		if err != nil {
			return err
		}
		if k == kindDict && len(items)%2 != 0 {
			return g.damaged("a key has no value")
		}
		return g.addTo(k, items)
	}
}

// addTo adds items to the container on the stack.
func (g *graph) addTo(k kind, items []value) error {
	if len(g.stack) <= g.floor() {
		return g.damaged("nothing is on the stack")
	}
	list, err := g.target(g.stack[len(g.stack)-1], k)
	if err != nil {
		return err
	}
	return g.extend(list, items)
}

func stepGlobal(g *graph) error {
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

func stepStackGlobal(g *graph) error {
	n, err := g.pop()
	if err != nil {
		return err
	}
	m, err := g.pop()
	if err != nil {
		return err
	}
	if n.kind() != kindText || m.kind() != kindText {
		return g.damaged("a class is named by something else than two strings")
	}
	t, _ := g.text(m)
	module := t
	if op, _ := g.body(m); op == opUnicode || op == opString {
		module = bytes.Clone(t) // the next call overwrites it
	}
	name, _ := g.text(n)
	return g.pushGlobal(module, name)
}

// stepCall is NEWOBJ and REDUCE: the callable and a tuple of arguments.
func stepCall(g *graph) error {
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

func stepNewobjEx(g *graph) error {
	kwargs, err := g.pop()
	if err != nil {
		return err
	}
	if kwargs.kind() != kindDict || g.count(kwargs) > 0 {
		return g.damaged("an object is made with keyword arguments")
	}
	return stepCall(g)
}

func stepInst(g *graph) error {
	if err := stepGlobal(g); err != nil {
		return err
	}
	class, err := g.pop()
	if err != nil {
		return err
	}
	return g.callMark(class)
}

func stepObj(g *graph) error {
	if len(g.marks) == 0 || len(g.stack) <= g.floor() {
		return g.damaged("nothing is on the stack")
	}
	at := g.floor()
	class := g.stack[at]
	copy(g.stack[at:], g.stack[at+1:])
	g.stack = g.stack[:len(g.stack)-1]
	return g.callMark(class)
}

// callMark makes an object of the values since the mark.
func (g *graph) callMark(class value) error {
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

func stepOutside(what string) func(*graph) error {
	return func(g *graph) error {
		return fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "byte %d: %s stands for something outside the file", g.at, what).
			WithHint("write the model with plain pickle.dump(model, file)")
	}
}
