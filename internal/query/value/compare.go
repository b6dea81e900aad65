package value

import (
	"cmp"
	"math"
	"strconv"
	"strings"
)

// AsFloat converts to a float where that loses nothing but precision: a number, a bit,
// or a text that is a number.
func (v Value) AsFloat() (float64, bool) {
	switch v.kind {
	case Bit, Bigint:
		return float64(int64(v.bits)), true
	case Float:
		return v.float(), true
	case Text:
		x, err := strconv.ParseFloat(strings.TrimSpace(v.text), 64)
		return x, err == nil && !math.IsNaN(x) && !math.IsInf(x, 0) && !strings.ContainsAny(v.text, "xXpP_")
	}
	return 0, false
}

// numeric converts a text that is a number, and a bit, to a number; NULL if there is none.
func (v Value) numeric() Value {
	switch v.kind {
	case Bigint, Float:
		return v
	case Bit:
		return Int(int64(v.bits))
	case Text:
		if n, err := strconv.ParseInt(strings.TrimSpace(v.text), 10, 64); err == nil {
			return Int(n)
		}
		if x, ok := v.AsFloat(); ok {
			return Number(x)
		}
	}
	return Null
}

// IsNumber reports whether the value is a bigint, float or bit.
func (v Value) IsNumber() bool { return v.kind == Bit || v.kind == Bigint || v.kind == Float }

// Compare orders two values as SQL's comparisons do; false if the comparison is
// unknown: with NULL, or of values that can't be compared. A text beside a number counts
// as the number that it spells, beside a datetime as the instant.
func Compare(a, b Value) (int, bool) {
	switch {
	case a.kind == Any || b.kind == Any:
		return 0, false
	case a.kind == Text && b.kind == Text:
		return strings.Compare(a.text, b.text), true
	case a.kind == Datetime || b.kind == Datetime:
		x, okA := a.AsTime()
		y, okB := b.AsTime()
		return cmp.Compare(x, y), okA && okB
	case a.kind >= Array || b.kind >= Array:
		return 0, a.kind == b.kind && Key(a) == Key(b)
	}
	x, y := a.numeric(), b.numeric()
	switch {
	case x.kind == Any || y.kind == Any:
		return 0, false
	case x.kind == Bigint && y.kind == Bigint:
		return cmp.Compare(int64(x.bits), int64(y.bits)), true
	}
	f, _ := x.AsFloat()
	g, _ := y.AsFloat()
	return cmp.Compare(f, g), true
}

// Less orders any two values for sorting: NULL first, then by Compare, values that can't
// be compared by their types.
func Less(a, b Value) int {
	switch {
	case a.kind == Any || b.kind == Any:
		return cmp.Compare(min(a.kind, 1), min(b.kind, 1))
	}
	if c, ok := Compare(a, b); ok {
		return c
	}
	return cmp.Compare(a.kind, b.kind)
}

// Key returns a text that is equal for values that belong to one group: equal numbers,
// whatever their type, and NULL with NULL. A text never equals a number.
func Key(v Value) string { return string(AppendKey(nil, v)) }

// AppendKey appends Key's text, which ends so that texts of several values can follow
// each other.
func AppendKey(b []byte, v Value) []byte {
	switch v.kind {
	case Any:
		return append(b, 'z', 0)
	case Bit, Bigint:
		return append(strconv.AppendInt(append(b, 'n'), int64(v.bits), 10), 0)
	case Float:
		if x := v.float(); x == math.Trunc(x) && math.Abs(x) < 1<<62 {
			return append(strconv.AppendInt(append(b, 'n'), int64(x), 10), 0)
		}
		return append(strconv.AppendUint(append(b, 'f'), v.bits, 36), 0)
	case Datetime:
		return append(strconv.AppendInt(append(b, 't'), int64(v.bits), 10), 0)
	case Text:
		b = strconv.AppendInt(append(b, 's'), int64(len(v.text)), 10)
		return append(append(b, ':'), v.text...)
	case Array:
		b = append(b, '[')
		for _, x := range v.list {
			b = AppendKey(b, x)
		}
		return append(b, ']')
	}
	b = append(b, '{')
	for i, x := range v.rec.Values {
		b = AppendKey(AppendKey(b, String(v.rec.Shape.Names[i])), x)
	}
	return append(b, '}')
}

// Arithmetic computes a + b and the like; the operator is one of + - * / %. Two texts are
// joined by +. Two bigints give a bigint, so 7 / 2 is 3. A division by zero, a result
// that is too large, and operands of other types give NULL.
func Arithmetic(op byte, a, b Value) Value {
	if op == '+' && a.kind == Text && b.kind == Text {
		return String(a.text + b.text)
	}
	x, y := a.numeric(), b.numeric()
	if x.kind == Any || y.kind == Any {
		return Null
	}
	if x.kind == Bigint && y.kind == Bigint {
		return integers(op, int64(x.bits), int64(y.bits))
	}
	f, _ := x.AsFloat()
	g, _ := y.AsFloat()
	switch op {
	case '+':
		return Number(f + g)
	case '-':
		return Number(f - g)
	case '*':
		return Number(f * g)
	case '/':
		return Number(f / g)
	}
	return Number(math.Mod(f, g))
}

func integers(op byte, x, y int64) Value {
	switch op {
	case '+':
		if s := x + y; (s > x) == (y > 0) {
			return Int(s)
		}
	case '-':
		if d := x - y; (d < x) == (y > 0) {
			return Int(d)
		}
	case '*':
		if x == 0 || y == 0 {
			return Int(0)
		}
		if p := x * y; p/y == x && !(x == -1 && y == math.MinInt64) && !(y == -1 && x == math.MinInt64) {
			return Int(p)
		}
	case '/':
		if y != 0 && !(x == math.MinInt64 && y == -1) {
			return Int(x / y)
		}
	case '%':
		if y == -1 {
			return Int(0)
		}
		if y != 0 {
			return Int(x % y)
		}
	}
	return Null
}

// Negate computes -v.
func Negate(v Value) Value { return Arithmetic('-', Int(0), v) }

// Bits computes a & b, a | b or a ^ b of two integers; NULL for others.
func Bits(op byte, a, b Value) Value {
	if a.kind != Bit && a.kind != Bigint || b.kind != Bit && b.kind != Bigint {
		return Null
	}
	var n uint64
	switch op {
	case '&':
		n = a.bits & b.bits
	case '|':
		n = a.bits | b.bits
	default:
		n = a.bits ^ b.bits
	}
	if a.kind == Bit && b.kind == Bit {
		return Of(n != 0)
	}
	return Int(int64(n))
}

// Invert computes ~v of an integer; NULL for others.
func Invert(v Value) Value {
	switch v.kind {
	case Bit:
		return Of(v.bits == 0)
	case Bigint:
		return Int(^int64(v.bits))
	}
	return Null
}
