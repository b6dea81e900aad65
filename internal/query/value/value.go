// Package value holds the values that queries compute with: the data types of Azure
// Stream Analytics, their conversions, comparisons and arithmetic, and the records that
// events and rows are made of.
//
// Values are immutable. The package is pure and safe for concurrent use.
package value

import (
	"math"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// Type is a data type. Columns have no type of their own, because each event may hold
// another one; Any is the type of an expression whose values' types aren't known
// before the events.
type Type uint8

// The data types.
const (
	Any Type = iota // as the type of a value: NULL
	Bit
	Bigint
	Float
	Datetime
	Text
	Array
	RecordType
)

var typeNames = [...]string{"any", "bit", "bigint", "float", "datetime", "nvarchar(max)", "array", "record"}

// String returns the type's name in SQL.
func (t Type) String() string { return typeNames[t] }

// TypeNamed returns the type with that name in SQL.
func TypeNamed(name string) (Type, bool) {
	switch strings.ToLower(name) {
	case "bit":
		return Bit, true
	case "bigint":
		return Bigint, true
	case "float":
		return Float, true
	case "datetime":
		return Datetime, true
	case "nvarchar", "nvarchar(max)":
		return Text, true
	case "array":
		return Array, true
	case "record":
		return RecordType, true
	}
	return Any, false
}

// TypeNames are the names that TypeNamed knows, for messages.
var TypeNames = []string{"bigint", "float", "nvarchar(max)", "datetime", "bit", "record", "array"}

// Value is one value; the zero Value is NULL.
type Value struct {
	kind Type
	bits uint64 // Bit, Bigint, Float, Datetime
	text string
	list []Value
	rec  *Record
}

// Null is the missing value.
var Null = Value{}

// Of builds a value of a boolean.
func Of(b bool) Value {
	if b {
		return Value{kind: Bit, bits: 1}
	}
	return Value{kind: Bit}
}

// Int builds a bigint.
func Int(n int64) Value { return Value{kind: Bigint, bits: uint64(n)} }

// Number builds a float. No value is infinite or not a number: those are NULL.
func Number(x float64) Value {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return Null
	}
	return Value{kind: Float, bits: math.Float64bits(x)}
}

// Time builds a datetime.
func Time(t fleetscore.Micros) Value { return Value{kind: Datetime, bits: uint64(t)} }

// String builds a text.
func String(s string) Value { return Value{kind: Text, text: s} }

// List builds an array, which keeps the slice.
func List(l []Value) Value { return Value{kind: Array, list: l} }

// OfRecord builds a record; NULL for nil.
func OfRecord(r *Record) Value {
	if r == nil {
		return Null
	}
	return Value{kind: RecordType, rec: r}
}

// Type returns the value's type; Any for NULL.
func (v Value) Type() Type { return v.kind }

// IsNull reports whether the value is missing.
func (v Value) IsNull() bool { return v.kind == Any }

// True reports whether the value is a true condition. NULL, unknown, is not.
func (v Value) True() bool {
	switch v.kind {
	case Bit, Bigint:
		return v.bits != 0
	case Float:
		return v.float() != 0
	}
	return false
}

// Bigint returns the number of a bigint or bit.
func (v Value) Bigint() int64 { return int64(v.bits) }

// Micros returns the instant of a datetime.
func (v Value) Micros() fleetscore.Micros { return fleetscore.Micros(v.bits) }

// Text returns the text of a text.
func (v Value) Text() string { return v.text }

// Items returns the elements of an array.
func (v Value) Items() []Value { return v.list }

// Record returns the record of a record; nil for other values.
func (v Value) Record() *Record { return v.rec }

func (v Value) float() float64 { return math.Float64frombits(v.bits) }

// Shape is the list of columns that records share.
type Shape struct {
	Names []string
	index map[string]int // by the exact name, and by the name in lower case
}

// NewShape builds a shape. The names are those of the columns, in order.
func NewShape(names []string) *Shape {
	s := &Shape{Names: names, index: make(map[string]int, 2*len(names))}
	for i, n := range names {
		if l := strings.ToLower(n); l != n {
			if _, taken := s.index[l]; !taken {
				s.index[l] = i
			}
		}
	}
	for i, n := range names {
		s.index[n] = i
	}
	return s
}

// fewNames are compared one by one, which is faster than a map.
const fewNames = 12

// Find returns the place of a column; upper and lower case are alike, unless a column
// has exactly that name.
func (s *Shape) Find(name string) (int, bool) {
	if len(s.Names) <= fewNames {
		for i := len(s.Names) - 1; i >= 0; i-- {
			if s.Names[i] == name {
				return i, true
			}
		}
	}
	if i, ok := s.index[name]; ok {
		return i, true
	}
	i, ok := s.index[strings.ToLower(name)]
	return i, ok
}

// Record is an event or row: values by name, in order.
type Record struct {
	Shape  *Shape
	Values []Value
}

// Get returns the value of a column; NULL if the record, which may be nil, has none of
// that name.
func (r *Record) Get(name string) Value {
	if r == nil {
		return Null
	}
	if i, ok := r.Shape.Find(name); ok {
		return r.Values[i]
	}
	return Null
}
