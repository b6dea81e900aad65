package ipc

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
)

// errUnit says that numbers are times of an unknown unit.
var errUnit = errors.New("it holds plain numbers, whose unit isn't known")

var errNull = errors.New("a value is missing, which a key and a time can't be")

// timesOf reads a column of times.
func timesOf(a arrow.Array, opt table.ReadOptions) ([]fleetscore.Micros, error) {
	if a.NullN() > 0 {
		return nil, errNull
	}
	out := make([]fleetscore.Micros, a.Len())
	switch c := a.(type) {
	case *array.Timestamp:
		unit := c.DataType().(*arrow.TimestampType).Unit
		for i, t := range c.TimestampValues() {
			out[i] = instant(int64(t), unit)
		}
	case *array.Date32:
		for i := range out {
			out[i] = fleetscore.Micros(int64(c.Value(i)) * 86400e6)
		}
	case *array.Date64:
		for i := range out {
			out[i] = fleetscore.Micros(int64(c.Value(i)) * 1000)
		}
	default:
		if n := wholes(a); n != nil {
			for i, x := range n {
				m, ok := opt.TimeUnit.Micros(x)
				if !ok {
					return nil, errUnit
				}
				out[i] = m
			}
			return out, nil
		}
		text, ok := a.(interface{ Value(int) string })
		if !ok {
			return nil, fmt.Errorf("it holds %s, not times", a.DataType())
		}
		for i := range out {
			m, err := table.ParseTime(text.Value(i))
			if err != nil {
				return nil, err
			}
			out[i] = m
		}
	}
	return out, nil
}

// instant is a timestamp in microseconds, rounded down.
func instant(t int64, unit arrow.TimeUnit) fleetscore.Micros {
	switch unit {
	case arrow.Second:
		return fleetscore.Micros(t * 1e6)
	case arrow.Millisecond:
		return fleetscore.Micros(t * 1000)
	case arrow.Nanosecond:
		m := t / 1000
		if t%1000 < 0 {
			m--
		}
		return fleetscore.Micros(m)
	}
	return fleetscore.Micros(t)
}

// wholes are the values of a column of whole numbers; nil if it isn't one. Nulls have any
// value.
func wholes(a arrow.Array) []int64 {
	switch c := a.(type) {
	case *array.Int64:
		return c.Int64Values()
	case *array.Int32:
		return widened(c.Int32Values())
	case *array.Int16:
		return widened(c.Int16Values())
	case *array.Int8:
		return widened(c.Int8Values())
	case *array.Uint32:
		return widened(c.Uint32Values())
	case *array.Uint16:
		return widened(c.Uint16Values())
	case *array.Uint8:
		return widened(c.Uint8Values())
	case *array.Uint64:
		for _, x := range c.Uint64Values() {
			if x > math.MaxInt64 {
				return nil
			}
		}
		return widened(c.Uint64Values())
	}
	return nil
}

func widened[T int8 | int16 | int32 | uint8 | uint16 | uint32 | uint64](in []T) []int64 {
	out := make([]int64, len(in))
	for i, x := range in {
		out[i] = int64(x)
	}
	return out
}

// numbersOf reads a column of numbers; a null is NaN.
func numbersOf(a arrow.Array) ([]float64, error) {
	var out []float64
	switch c := a.(type) {
	case *array.Float64:
		if out = c.Float64Values(); c.NullN() == 0 {
			return out, nil
		}
		out = append([]float64(nil), out...)
	case *array.Float32:
		out = make([]float64, c.Len())
		for i, x := range c.Float32Values() {
			out[i] = float64(x)
		}
	case *array.Uint64:
		out = make([]float64, c.Len())
		for i, x := range c.Uint64Values() {
			out[i] = float64(x)
		}
	case *array.Float16:
		out = make([]float64, c.Len())
		for i := range out {
			out[i] = float64(c.Value(i).Float32())
		}
	case *array.Boolean:
		out = make([]float64, c.Len())
		for i := range out {
			if c.Value(i) {
				out[i] = 1
			}
		}
	case *array.Decimal128:
		out = make([]float64, c.Len())
		scale := c.DataType().(*arrow.Decimal128Type).Scale
		for i := range out {
			x, err := strconv.ParseFloat(c.Value(i).ToString(scale), 64) // the nearest number, as when the text is read
			if err != nil {
				return nil, err
			}
			out[i] = x
		}
	case *array.Null:
		return slices.Repeat([]float64{math.NaN()}, c.Len()), nil
	default:
		n := wholes(a)
		if n == nil {
			return nil, fmt.Errorf("it holds %s, not numbers", a.DataType())
		}
		out = make([]float64, len(n))
		for i, x := range n {
			out[i] = float64(x)
		}
	}
	if a.NullN() > 0 {
		for i := range out {
			if a.IsNull(i) {
				out[i] = math.NaN()
			}
		}
	}
	return out, nil
}

// texts is a key column: the distinct texts, and per row the number of one.
type texts struct {
	distinct []string
	codes    []uint32
	places   map[string]uint32
}

func newTexts() *texts { return &texts{places: map[string]uint32{}} }

func (t *texts) code(s string) uint32 {
	at, ok := t.places[s]
	if !ok {
		at = uint32(len(t.distinct))
		t.distinct, t.places[s] = append(t.distinct, s), at
	}
	return at
}

const unknown = ^uint32(0)

// add adds the kept rows of a batch; nil keeps all of them.
func (t *texts) add(a arrow.Array, keep []int) error {
	if a.NullN() > 0 {
		return errNull
	}
	codes := make([]uint32, a.Len())
	switch c := a.(type) {
	case *array.Dictionary:
		words := newTexts()
		if err := words.add(c.Dictionary(), nil); err != nil {
			return err
		}
		place := make([]uint32, len(words.codes))
		for i := range place {
			place[i] = unknown
		}
		for i := range codes {
			at := c.GetValueIndex(i)
			if place[at] == unknown { // words that no row has aren't taken
				place[at] = t.code(words.distinct[words.codes[at]])
			}
			codes[i] = place[at]
		}
	case interface{ Value(int) string }:
		last, code := "", unknown
		for i := range codes {
			if s := c.Value(i); code == unknown || s != last {
				last, code = s, t.code(s)
			}
			codes[i] = code
		}
	case *array.Boolean:
		for i := range codes {
			codes[i] = t.code(strconv.FormatBool(c.Value(i)))
		}
	case *array.Uint64:
		for i := range codes {
			codes[i] = t.code(strconv.FormatUint(c.Value(i), 10))
		}
	case *array.Int32:
		addWholes(t, c.Int32Values(), codes)
	case *array.Int16:
		addWholes(t, c.Int16Values(), codes)
	default:
		n := wholes(a)
		if n == nil {
			return fmt.Errorf("it holds %s; a key is text or a whole number", a.DataType())
		}
		addWholes(t, n, codes)
	}
	t.codes = join(t.codes, codes, keep, t.codes != nil)
	return nil
}

// addWholes numbers whole numbers: by their place in a small range, or by a map.
func addWholes[T int16 | int32 | int64](t *texts, n []T, codes []uint32) {
	if len(n) == 0 {
		return
	}
	least, most := n[0], n[0]
	for _, x := range n {
		least, most = min(least, x), max(most, x)
	}
	if span := uint64(int64(most)) - uint64(int64(least)); span <= uint64(4*len(n)+1024) {
		place := make([]uint32, span+1)
		for i := range place {
			place[i] = unknown
		}
		for i, x := range n {
			at := &place[int64(x)-int64(least)]
			if *at == unknown {
				*at = t.code(strconv.FormatInt(int64(x), 10))
			}
			codes[i] = *at
		}
		return
	}
	place := map[T]uint32{}
	for i, x := range n {
		at, ok := place[x]
		if !ok {
			at = t.code(strconv.FormatInt(int64(x), 10))
			place[x] = at
		}
		codes[i] = at
	}
}

// combine numbers the distinct combinations of key columns in the order of their first
// rows; it returns these rows, and per row its combination.
func combine(keys []*texts) (first []int, index []uint32) {
	index, n := keys[0].codes, len(keys[0].distinct)
	if len(keys) == 1 {
		first, index = numbered(index, nil, n, 1)
		return first, index
	}
	for _, k := range keys[1:] {
		first, index = numbered(index, k.codes, n, len(k.distinct))
		n = len(first)
	}
	return first, index
}

// numbered numbers the distinct pairs of a and b, which have n and m values; b may be nil.
func numbered(a, b []uint32, n, m int) (first []int, index []uint32) {
	index = make([]uint32, len(a))
	pair := func(i int) uint64 {
		if b == nil {
			return uint64(a[i])
		}
		return uint64(a[i])*uint64(m) + uint64(b[i])
	}
	if uint64(n)*uint64(m) <= uint64(4*len(a)+1024) {
		place := make([]uint32, n*m)
		for i := range place {
			place[i] = unknown
		}
		for i := range index {
			at := &place[pair(i)]
			if *at == unknown {
				*at = uint32(len(first))
				first = append(first, i)
			}
			index[i] = *at
		}
		return first, index
	}
	place := map[uint64]uint32{}
	for i := range index {
		p := pair(i)
		at, ok := place[p]
		if !ok {
			at = uint32(len(first))
			place[p], first = at, append(first, i)
		}
		index[i] = at
	}
	return first, index
}
