package pickle

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"
)

// Value is one value of a pickle. Its highest 4 bits are the kind; the other bits
// depend on the kind. A leaf keeps the offset of its opcode, so its bytes stay in the
// file. A container keeps an index into the graph's cells. A Value has only 4 bytes,
// because a file with many small objects has a value for every two or three bytes.
type Value uint32

// Kind is the kind of a value.
type Kind uint8

const (
	KindUnset   Kind = iota
	KindNone         // Python's None
	KindBool         // 0 or 1
	KindInt          // a whole number; a number that fits into 28 bits with its sign is stored in the Value
	KindBig          // offset of an integer of more than 64 bits
	KindFloat        // offset
	KindText         // offset; unicode, or a string of Python 2
	KindBytes        // offset
	KindGlobal       // index into globals
	KindTuple        // cell: count, items…
	KindList         // cell: first chunk, last chunk, count
	KindDict         // cell as a list's; keys and values alternate
	KindObject       // cell: see the object* offsets
	kindRaw          // offset of an array's bytes in the stream
	kindForeign      // index into foreign; Kind says KindGlobal
	kindLong         // offset of an integer that doesn't fit into a KindInt; Kind says KindInt
)

// Cells of an object that a NEWOBJ, REDUCE, INST or OBJ opcode made.
const (
	objectMade     = iota // the opcode
	objectCallable        // a kindGlobal
	objectArgs            // a kindTuple
	objectState           // the state that BUILD set; kindUnset before BUILD
	objectItems           // a kindList of the items that SETITEMS or APPENDS added; kindUnset before
	objectCells
)

const (
	payloadBits = 28
	payloadMask = 1<<payloadBits - 1
)

func makeValue(k Kind, payload int) Value {
	return Value(k)<<payloadBits | Value(payload)&payloadMask
}

// Kind returns the value's kind.
func (v Value) Kind() Kind {
	switch k := v.kind(); k {
	case kindLong:
		return KindInt
	case kindForeign:
		return KindGlobal
	default:
		return k
	}
}

func (v Value) kind() Kind { return Kind(v >> payloadBits) }

// index returns the payload of every kind but KindInt.
func (v Value) index() int { return int(v & payloadMask) }

// largeFile is the size from which offsets don't fit into a Value. Tests change it.
var largeFile = payloadMask

// leaf makes a value that is kept by its offset. In files too large for 28 bits, a
// table holds the offsets.
func (g *Graph) leaf(k Kind, at int) Value {
	if len(g.data) <= largeFile {
		return makeValue(k, at)
	}
	if p, err := g.room(g.places, 1); err == nil { // else the budget is spent, and Err returns the refusal
		g.places = append(p, Value(at))
	}
	return makeValue(k, max(0, len(g.places)-1))
}

// place returns the offset of a leaf.
func (g *Graph) place(v Value) int {
	if len(g.data) <= largeFile {
		return v.index()
	}
	return int(g.places[v.index()])
}

// Int returns the number of a KindInt.
func (g *Graph) Int(v Value) int64 {
	if v.kind() != kindLong {
		return int64(int32(v<<4) >> 4)
	}
	op, b := g.body(v)
	switch op {
	case opBinint1, opBinint2:
		return int64(uint16(signed(b))) & (1<<(8*len(b)) - 1)
	case opInt, opLong:
		n, _ := strconv.ParseInt(string(bytes.TrimSuffix(b, []byte("L"))), 10, 64)
		return n
	}
	return signed(b)
}

// signed decodes a little-endian number of up to 8 bytes.
func signed(b []byte) int64 {
	var x int64
	for i, c := range b {
		x |= int64(c) << (8 * i)
	}
	if shift := 64 - 8*len(b); shift < 64 {
		x = x << shift >> shift
	}
	return x
}

// True reports whether v is Python's True.
func (v Value) True() bool { return v.Kind() == KindBool && v.index() == 1 }

// Tuple returns the items of a tuple, or nil for any other value.
func (g *Graph) Tuple(v Value) []Value {
	if v.Kind() != KindTuple {
		return nil
	}
	at := v.index()
	n := int(g.cells[at])
	return g.cells[at+1 : at+1+n]
}

// Entries iterates over the items of a list, dict or tuple.
type Entries struct {
	g     *Graph
	chunk []Value
	next  int
}

// Entries returns an iterator over a list, dict or tuple. Any other value has no items.
func (g *Graph) Entries(v Value) Entries {
	switch v.Kind() {
	case KindTuple:
		return Entries{g: g, chunk: g.Tuple(v)}
	case KindList, KindDict:
		return Entries{g: g, next: int(g.cells[v.index()])}
	}
	return Entries{g: g}
}

// Item returns the next item.
func (e *Entries) Item() (Value, bool) {
	for len(e.chunk) == 0 {
		if e.next == 0 {
			return 0, false
		}
		at := e.next
		e.next = int(e.g.cells[at])
		e.chunk = e.g.cells[at+2 : at+2+int(e.g.cells[at+1])]
	}
	if e.g.Spend(visit) != nil {
		return 0, false // the budget is spent, and Err returns the refusal
	}
	v := e.chunk[0]
	e.chunk = e.chunk[1:]
	return v, true
}

// Pair returns the next key and value of a dict. The key is valid until the next call,
// and nil if it isn't a string.
func (e *Entries) Pair() (key []byte, v Value, ok bool) {
	k, ok := e.Item()
	if !ok {
		return nil, 0, false
	}
	v, ok = e.Item()
	key, _ = e.g.Text(k)
	return key, v, ok
}

// KeyValue returns the next key and value of a dict.
func (e *Entries) KeyValue() (k, v Value, ok bool) {
	if g := e.g; len(e.chunk) >= 2 && g.Spend(2*visit) == nil {
		k, v = e.chunk[0], e.chunk[1]
		e.chunk = e.chunk[2:]
		return k, v, true
	}
	if k, ok = e.Item(); ok {
		v, ok = e.Item()
	}
	return k, v, ok
}

// Escaped reports whether the bytes that Text returns for v are a copy, which the next
// call of Text overwrites, and not bytes of the file.
func (g *Graph) Escaped(v Value) bool {
	if v.Kind() != KindText {
		return true
	}
	op := g.data[g.place(v)]
	return op == opUnicode || op == opString
}

// Count returns the number of items of a list or tuple.
func (g *Graph) Count(v Value) int {
	switch v.Kind() {
	case KindTuple:
		return int(g.cells[v.index()])
	case KindList, KindDict:
		return int(g.cells[v.index()+2])
	}
	return 0
}

// object returns an object's field.
func (g *Graph) object(v Value, field int) Value {
	if v.Kind() != KindObject {
		return 0
	}
	return g.cells[v.index()+field]
}

// calls reports whether v is an object that the named function or class made.
func (g *Graph) calls(v Value, id Use) bool {
	c := g.object(v, objectCallable)
	return c.kind() == KindGlobal && g.names.list[c.index()].Use == id
}

func (g *Graph) isGlobal(v Value, id Use) bool {
	return v.kind() == KindGlobal && g.names.list[v.index()].Use == id
}

// body reads a leaf again; the machine checked its length when it parsed the leaf.
func (g *Graph) body(v Value) (op byte, b []byte) {
	at := g.place(v)
	op = g.data[at]
	rest := g.data[at+1:]
	switch op {
	case opShortBinstring, opShortBinunicode, opShortBinbytes, opLong1:
		b = rest[1 : 1+int(rest[0])]
	case opBinstring, opBinunicode, opBinbytes, opLong4:
		b = rest[4 : 4+int(binary.LittleEndian.Uint32(rest))]
	case opBinunicode8, opBinbytes8, opBytearray8:
		b = rest[8 : 8+int(binary.LittleEndian.Uint64(rest))]
	case opBinfloat:
		b = rest[:8]
	case opBinint1:
		b = rest[:1]
	case opBinint2:
		b = rest[:2]
	case opBinint:
		b = rest[:4]
	default:
		b = rest[:bytes.IndexByte(rest, '\n')]
	}
	_ = g.Spend(len(b)) // the caller reads Spent
	return op, b
}

// Text returns a string's bytes (UTF-8, or whatever Python 2 wrote). They are valid
// until the next call.
func (g *Graph) Text(v Value) ([]byte, bool) {
	if v.Kind() != KindText {
		return g.scalarText(v)
	}
	if at := g.place(v); g.data[at] == opShortBinunicode { // nearly all strings are of this kind
		n := int(g.data[at+1])
		return g.data[at+2 : at+2+n], g.Spend(n+visit) == nil
	}
	op, b := g.body(v)
	if op != opUnicode && op != opString {
		return b, !g.Spent()
	}
	buf, ok := g.buffer(&g.words, 2*len(b)) // one byte may become two
	if !ok {
		return nil, false
	}
	if op == opUnicode {
		return unescapeUnicode(buf, b, false)
	}
	return unescapeString(buf, b)
}

// scalarText returns the text of a NumPy string, such as numpy.str_("rbf").
func (g *Graph) scalarText(v Value) ([]byte, bool) {
	args := g.Tuple(g.object(v, objectArgs))
	if v.Kind() != KindObject || !g.calls(v, scalar) || len(args) != 2 {
		return nil, false
	}
	d, err := g.dtype(args[0])
	if err != nil || (d.kind != 'U' && d.kind != 'S') {
		return nil, false
	}
	b, ok := g.payload(args[1])
	if !ok || len(b) != d.size {
		return nil, false
	}
	buf, ok := g.buffer(&g.words, len(b))
	if !ok {
		return nil, false
	}
	return append(buf, d.text(b)...), true
}

// buffer returns room for n bytes if the budget allows it.
func (g *Graph) buffer(b *[]byte, n int) ([]byte, bool) {
	if g.Spent() {
		return nil, false
	}
	if cap(*b) < n {
		if g.Charge(n) != nil {
			return nil, false
		}
		*b = make([]byte, 0, n)
	}
	return (*b)[:0], true
}

// payload returns the bytes of a bytes object, in any protocol's notation. They are
// valid until the next call.
func (g *Graph) payload(v Value) ([]byte, bool) {
	switch v.Kind() {
	case KindBytes:
		_, b := g.body(v)
		return b, !g.Spent()
	case KindText: // written by Python 2, where strings are bytes
		op, b := g.body(v)
		switch op {
		case opShortBinstring, opBinstring:
			return b, !g.Spent()
		case opString:
			if buf, ok := g.buffer(&g.bytes, len(b)); ok {
				return unescapeString(buf, b)
			}
		}
		return nil, false
	case KindObject:
	default:
		return nil, false
	}
	args := g.Tuple(g.object(v, objectArgs))
	switch {
	case (g.calls(v, bytesClass) || g.calls(v, bytearrayClass)) && len(args) == 0:
		return nil, true
	case g.calls(v, bytearrayClass) && len(args) == 1 && args[0].Kind() == KindBytes:
		return g.payload(args[0])
	case (g.calls(v, encode) || g.calls(v, bytearrayClass)) && len(args) == 2:
		codec, _ := g.Text(args[1])
		if c := string(codec); c != "latin1" && c != "latin-1" {
			return nil, false
		}
		return g.latin1(args[0])
	}
	return nil, false
}

// latin1 encodes a unicode string as bytes: protocols 0 to 2 write bytes in this form.
func (g *Graph) latin1(v Value) ([]byte, bool) {
	if v.Kind() != KindText {
		return nil, false
	}
	op, b := g.body(v)
	buf, ok := g.buffer(&g.bytes, len(b))
	if !ok {
		return nil, false
	}
	switch op {
	case opUnicode:
		return unescapeUnicode(buf, b, true)
	case opShortBinunicode, opBinunicode, opBinunicode8:
	default:
		return nil, false
	}
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r > 0xff || (r == utf8.RuneError && n == 1) {
			return nil, false
		}
		buf = append(buf, byte(r))
		b = b[n:]
	}
	return buf, true
}

// unescapeUnicode decodes Python's raw-unicode-escape to UTF-8. With latin1 it decodes
// to one byte for each character, and fails if a character doesn't fit.
func unescapeUnicode(dst, b []byte, latin1 bool) ([]byte, bool) {
	for i := 0; i < len(b); i++ {
		r := rune(b[i])
		if b[i] == '\\' && i+1 < len(b) && (b[i+1] == 'u' || b[i+1] == 'U') {
			digits := 4
			if b[i+1] == 'U' {
				digits = 8
			}
			if i+2+digits <= len(b) {
				if n, err := strconv.ParseUint(string(b[i+2:i+2+digits]), 16, 32); err == nil {
					r = rune(n)
					i += 1 + digits
				}
			}
		}
		switch {
		case !latin1:
			dst = utf8.AppendRune(dst, r)
		case r < 0 || r > 0xff:
			return nil, false
		default:
			dst = append(dst, byte(r))
		}
	}
	return dst, true
}

// unescapeString decodes a Python 2 string that repr wrote.
func unescapeString(dst, b []byte) ([]byte, bool) {
	if len(b) < 2 || (b[0] != '\'' && b[0] != '"') || b[len(b)-1] != b[0] {
		return dst, false
	}
	b = b[1 : len(b)-1]
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			dst = append(dst, b[i])
			continue
		}
		i++
		if i == len(b) {
			return dst, false
		}
		switch b[i] {
		case '\\', '\'', '"':
			dst = append(dst, b[i])
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'x':
			if i+2 >= len(b) {
				return dst, false
			}
			n, err := strconv.ParseUint(string(b[i+1:i+3]), 16, 8)
			if err != nil {
				return dst, false
			}
			dst = append(dst, byte(n))
			i += 2
		default:
			return dst, false
		}
	}
	return dst, true
}

// Number returns a Python or NumPy number as float64.
func (g *Graph) Number(v Value) (float64, bool) {
	switch v.Kind() {
	case KindInt:
		return float64(g.Int(v)), true
	case KindFloat:
		op, b := g.body(v)
		if op == opBinfloat {
			return math.Float64frombits(binary.BigEndian.Uint64(b)), true
		}
		f, err := strconv.ParseFloat(string(b), 64)
		return f, err == nil
	case KindObject:
		args := g.Tuple(g.object(v, objectArgs))
		if !g.calls(v, scalar) || len(args) != 2 {
			return 0, false
		}
		d, err := g.dtype(args[0])
		if err != nil {
			return 0, false
		}
		b, ok := g.payload(args[1])
		if !ok || len(b) != d.size {
			return 0, false
		}
		return d.float(b), true
	}
	return 0, false
}

// Boolean returns a Python or NumPy truth value. Python 2 may have written an integer.
func (g *Graph) Boolean(v Value) (b, ok bool) {
	if v.Kind() == KindBool {
		return v.True(), true
	}
	f, ok := g.Number(v)
	return f != 0, ok
}
