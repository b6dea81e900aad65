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
