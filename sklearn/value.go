package sklearn

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"
)

// value is one parsed pickle value: the kind in the high byte, and below it what
// that kind keeps. Leaves keep the offset of their opcode, so their bytes stay
// in the file; containers keep an index into the graph's cells.
type value uint64

type kind uint8

const (
	kindUnset  kind = iota
	kindNone        // nothing
	kindBool        // 0 or 1
	kindInt         // the number, 56 bits, signed
	kindBig         // offset of an integer too large for kindInt
	kindFloat       // offset
	kindText        // offset; unicode, or a string of Python 2
	kindBytes       // offset
	kindGlobal      // index into globals
	kindTuple       // cell: count, items…
	kindList        // cell: first chunk, last chunk, count
	kindDict        // cell as a list's; keys and values alternate
	kindObject      // cell: see the object* offsets
)

// Cells of an object: what a NEWOBJ, REDUCE, INST or OBJ opcode recorded.
const (
	objectMade     = iota // the opcode
	objectCallable        // a kindGlobal
	objectArgs            // a kindTuple
	objectState           // what BUILD gave; kindUnset before
	objectItems           // a kindList of what SETITEMS or APPENDS gave; kindUnset before
	objectCells
)

const (
	payloadBits = 56
	payloadMask = 1<<payloadBits - 1
)

func makeValue(k kind, payload int) value {
	return value(k)<<payloadBits | value(payload)&payloadMask
}

func (v value) kind() kind { return kind(v >> payloadBits) }

// index is the payload of every kind but kindInt.
func (v value) index() int { return int(v & payloadMask) }

func (v value) int() int64 { return int64(v<<8) >> 8 }

func (v value) isTrue() bool { return v.kind() == kindBool && v.index() == 1 }

// tuple gives the items of a tuple, nil for anything else.
func (g *graph) tuple(v value) []value {
	if v.kind() != kindTuple {
		return nil
	}
	at := v.index()
	n := int(g.cells[at])
	return g.cells[at+1 : at+1+n]
}

// entries walks the items of a list, dict or tuple.
type entries struct {
	g     *graph
	chunk []value
	next  int
}

func (g *graph) entries(v value) entries {
	switch v.kind() {
	case kindTuple:
		return entries{g: g, chunk: g.tuple(v)}
	case kindList, kindDict:
		return entries{g: g, next: int(g.cells[v.index()])}
	}
	return entries{g: g}
}

func (e *entries) item() (value, bool) {
	for len(e.chunk) == 0 {
		if e.next == 0 {
			return 0, false
		}
		at := e.next
		e.next = int(e.g.cells[at])
		e.chunk = e.g.cells[at+2 : at+2+int(e.g.cells[at+1])]
	}
	v := e.chunk[0]
	e.chunk = e.chunk[1:]
	return v, true
}

// pair gives the next key and value of a dict; the key is valid until the next
// call, and nil where it is no string.
func (e *entries) pair() (key []byte, v value, ok bool) {
	k, ok := e.item()
	if !ok {
		return nil, 0, false
	}
	v, ok = e.item()
	key, _ = e.g.text(k)
	return key, v, ok
}

// count is the number of items of a list or tuple.
func (g *graph) count(v value) int {
	switch v.kind() {
	case kindTuple:
		return int(g.cells[v.index()])
	case kindList, kindDict:
		return int(g.cells[v.index()+2])
	}
	return 0
}

// object gives an object's field.
func (g *graph) object(v value, field int) value {
	if v.kind() != kindObject {
		return 0
	}
	return g.cells[v.index()+field]
}

// calls reports whether v is an object that the named function or class made.
func (g *graph) calls(v value, id globalID) bool {
	c := g.object(v, objectCallable)
	return c.kind() == kindGlobal && globals[c.index()].id == id
}

func (g *graph) isGlobal(v value, id globalID) bool {
	return v.kind() == kindGlobal && globals[v.index()].id == id
}

// body reads a leaf again; the machine has checked its length.
func (g *graph) body(v value) (op byte, b []byte) {
	defer func() { g.effort -= len(b) }()
	at := v.index()
	op = g.data[at]
	rest := g.data[at+1:]
	switch op {
	case opShortBinstring, opShortBinunicode, opShortBinbytes, opLong1:
		return op, rest[1 : 1+int(rest[0])]
	case opBinstring, opBinunicode, opBinbytes, opLong4:
		return op, rest[4 : 4+int(binary.LittleEndian.Uint32(rest))]
	case opBinunicode8, opBinbytes8, opBytearray8:
		return op, rest[8 : 8+int(binary.LittleEndian.Uint64(rest))]
	case opBinfloat:
		return op, rest[:8]
	}
	return op, rest[:bytes.IndexByte(rest, '\n')]
}

// text gives a string's bytes (UTF-8, or what Python 2 wrote). They are valid
// until the next call.
func (g *graph) text(v value) ([]byte, bool) {
	if v.kind() != kindText {
		return nil, false
	}
	op, b := g.body(v)
	if op != opUnicode && op != opString {
		return b, g.effort >= 0
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

// buffer gives room for n bytes, if file and effort allow.
func (g *graph) buffer(b *[]byte, n int) ([]byte, bool) {
	if g.effort < 0 {
		return nil, false
	}
	if cap(*b) < n {
		if g.charge(n) != nil {
			return nil, false
		}
		*b = make([]byte, 0, n)
	}
	return (*b)[:0], true
}

// payload gives the bytes of a bytes object, however its protocol spells it.
// They are valid until the next call.
func (g *graph) payload(v value) ([]byte, bool) {
	switch v.kind() {
	case kindBytes:
		_, b := g.body(v)
		return b, g.effort >= 0
	case kindText: // of Python 2, where strings are bytes
		op, b := g.body(v)
		switch op {
		case opShortBinstring, opBinstring:
			return b, g.effort >= 0
		case opString:
			if buf, ok := g.buffer(&g.bytes, len(b)); ok {
				return unescapeString(buf, b)
			}
		}
		return nil, false
	case kindObject:
	default:
		return nil, false
	}
	args := g.tuple(g.object(v, objectArgs))
	switch {
	case (g.calls(v, globalBytes) || g.calls(v, globalBytearray)) && len(args) == 0:
		return nil, true
	case g.calls(v, globalBytearray) && len(args) == 1 && args[0].kind() == kindBytes:
		return g.payload(args[0])
	case (g.calls(v, globalEncode) || g.calls(v, globalBytearray)) && len(args) == 2:
		codec, _ := g.text(args[1])
		if c := string(codec); c != "latin1" && c != "latin-1" {
			return nil, false
		}
		return g.latin1(args[0])
	}
	return nil, false
}

// latin1 encodes a unicode string as bytes: protocols 0 to 2 spell bytes so.
func (g *graph) latin1(v value) ([]byte, bool) {
	if v.kind() != kindText {
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

// unescapeUnicode decodes Python's raw-unicode-escape to UTF-8 or, with latin1,
// to one byte a character, if all fit.
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

// unescapeString decodes what repr wrote for a string of Python 2.
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

// number gives a Python or NumPy number as float64.
func (g *graph) number(v value) (float64, bool) {
	switch v.kind() {
	case kindInt:
		return float64(v.int()), true
	case kindFloat:
		op, b := g.body(v)
		if op == opBinfloat {
			return math.Float64frombits(binary.BigEndian.Uint64(b)), true
		}
		f, err := strconv.ParseFloat(string(b), 64)
		return f, err == nil
	case kindObject:
		args := g.tuple(g.object(v, objectArgs))
		if !g.calls(v, globalScalar) || len(args) != 2 {
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

// boolean gives a Python or NumPy truth value; Python 2 may write an integer.
func (g *graph) boolean(v value) (b, ok bool) {
	if v.kind() == kindBool {
		return v.isTrue(), true
	}
	f, ok := g.number(v)
	return f != 0, ok
}
