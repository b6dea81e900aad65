package ipc

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// texts numbers texts.
type texts struct {
	distinct []string
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

// keyColumn is a key column of a batch, whose values have numbers below n.
type keyColumn struct {
	n    uint64
	text func(row int) string
	// combine replaces the number of each row so far by this number × n + the number of its value.
	combine func(index []uint32)
}

// manyNumbers is how many numbers some rows may have that are counted by a table of all of them.
func manyNumbers(rows int) uint64 { return min(uint64(4*rows+1024), math.MaxUint32) }

var errKey = errors.New("a key is text or a whole number")

// keyColumnOf numbers the values of a column.
func keyColumnOf(a arrow.Array) (keyColumn, error) {
	if a.NullN() > 0 {
		return keyColumn{}, errNull
	}
	switch c := a.(type) {
	case *array.Dictionary:
		return categories(c)
	case interface{ Value(int) string }:
		return textColumn(a.Len(), c.Value), nil
	case *array.Boolean:
		return textColumn(a.Len(), func(row int) string { return strconv.FormatBool(c.Value(row)) }), nil
	case *array.Int64:
		return wholeColumn(c.Int64Values()), nil
	case *array.Int32:
		return wholeColumn(c.Int32Values()), nil
	case *array.Int16:
		return wholeColumn(c.Int16Values()), nil
	case *array.Int8:
		return wholeColumn(c.Int8Values()), nil
	case *array.Uint32:
		return wholeColumn(c.Uint32Values()), nil
	case *array.Uint16:
		return wholeColumn(c.Uint16Values()), nil
	case *array.Uint8:
		return wholeColumn(c.Uint8Values()), nil
	case *array.Uint64:
		if n := wholes(a); n != nil {
			return wholeColumn(n), nil
		}
		return textColumn(a.Len(), func(row int) string { return strconv.FormatUint(c.Value(row), 10) }), nil
	}
	return keyColumn{}, fmt.Errorf("it holds %s; %w", a.DataType(), errKey)
}

// numbersOfTexts is a column whose rows have these numbers of texts.
func numbersOfTexts(codes []uint32, distinct []string) keyColumn {
	return keyColumn{n: uint64(len(distinct)), text: func(row int) string { return distinct[codes[row]] }, combine: func(index []uint32) {
		n := uint32(len(distinct))
		for row, code := range codes {
			index[row] = index[row]*n + code
		}
	}}
}

func textColumn(rows int, value func(row int) string) keyColumn {
	t, codes := newTexts(), make([]uint32, rows)
	last, code := "", uint32(0)
	for row := range codes {
		if s := value(row); row == 0 || s != last {
			last, code = s, t.code(s)
		}
		codes[row] = code
	}
	return numbersOfTexts(codes, t.distinct)
}

// categories numbers texts by their places among the distinct ones, of which several may be equal.
func categories(c *array.Dictionary) (keyColumn, error) {
	words, err := keyColumnOf(c.Dictionary())
	if err != nil {
		return keyColumn{}, err
	}
	t := newTexts()
	codes, place := make([]uint32, c.Len()), make([]uint32, c.Dictionary().Len())
	for row := range codes {
		at := c.GetValueIndex(row)
		if place[at] == 0 { // words that no row has aren't taken
			place[at] = t.code(words.text(at)) + 1
		}
		codes[row] = place[at] - 1
	}
	return numbersOfTexts(codes, t.distinct), nil
}

// wholeColumn numbers whole numbers: by their place in a small range, or by a map.
func wholeColumn[T int8 | int16 | int32 | int64 | uint8 | uint16 | uint32](values []T) keyColumn {
	text := func(row int) string { return strconv.FormatInt(int64(values[row]), 10) }
	if len(values) == 0 {
		return keyColumn{n: 0, text: text, combine: func([]uint32) {}}
	}
	least, most := values[0], values[0]
	for _, x := range values {
		least, most = min(least, x), max(most, x)
	}
	if span := uint64(int64(most)) - uint64(int64(least)); span < manyNumbers(len(values)) {
		n := uint32(span + 1)
		return keyColumn{n: span + 1, text: text, combine: func(index []uint32) {
			for row, x := range values {
				index[row] = index[row]*n + uint32(x) - uint32(least)
			}
		}}
	}
	codes, n := numberByMap(len(values), func(row int) uint64 { return uint64(values[row]) })
	return keyColumn{n: n, text: text, combine: func(index []uint32) {
		for row, code := range codes {
			index[row] = index[row]*uint32(n) + code
		}
	}}
}

// numberByMap numbers values of rows in the order in which they come.
func numberByMap(rows int, value func(row int) uint64) (codes []uint32, n uint64) {
	codes = make([]uint32, rows)
	place := map[uint64]uint32{}
	for row := range codes {
		x := value(row)
		at, ok := place[x]
		if !ok {
			at = uint32(len(place))
			place[x] = at
		}
		codes[row] = at
	}
	return codes, uint64(len(place))
}

// combineKeys gives each row of a batch the number of its combination of keys; numbers are below n, and not all are used.
func combineKeys(keys []keyColumn, rows int) (index []uint32, n uint64) {
	index, n = make([]uint32, rows), 1
	for _, k := range keys {
		if n*k.n <= manyNumbers(rows) { // both are below 2³²
			k.combine(index)
			n *= k.n
			continue
		}
		codes := make([]uint32, rows)
		k.combine(codes)
		index, n = numberByMap(rows, func(row int) uint64 { return uint64(index[row])*k.n + uint64(codes[row]) })
	}
	return index, n
}

// inOrder replaces numbers below n by those in the order in which they come, and gives the first row of each.
func inOrder(index []uint32, n uint64) (first []int) {
	place := make([]uint32, n)
	for row, at := range index {
		if place[at] == 0 {
			first = append(first, row)
			place[at] = uint32(len(first))
		}
		index[row] = place[at] - 1
	}
	return first
}
