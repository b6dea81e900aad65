package compose

import (
	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// selectColumns appends the positions of the columns that a ColumnTransformer selects
// by numbers, names, a slice of numbers or names, or a mask.
func selectColumns(a *estimator.Attributes, v pickle.Value, names map[string]int32, features int, out []int32) []int32 {
	g := a.Graph()
	if class, _, state := g.Call(v); class != nil && class.Name == "_RemainderColsList" { // from releases 1.5 to 1.7
		for e := g.Entries(state); ; {
			key, inner, ok := e.Pair()
			if !ok {
				break
			}
			if string(key) == "data" {
				return selectColumns(a, inner, names, features, out)
			}
		}
	}
	if class, args, _ := g.Call(v); class != nil && class.Name == "slice" && len(args) == 3 {
		return selectSlice(a, args, names, features, out)
	}
	var items []pickle.Value
	switch {
	case g.IsArray(v):
		arr, err := g.Array(v)
		if err != nil || arr.Dims != 1 {
			a.Fail("a selection of columns can't be read")
			return out
		}
		if arr.HoldsText() || arr.HoldsObjects() {
			texts, err := g.Strings(&arr)
			if err != nil {
				a.Fail("a selection of columns %w", err)
			}
			out = room(a, out, len(texts))
			for _, t := range texts {
				if a.Err() != nil {
					break
				}
				out = append(out, position(a, t, names))
			}
			return out
		}
		numbers, err := g.Floats(&arr, true)
		if err != nil {
			a.Fail("a selection of columns %w", err)
			return out
		}
		return selectNumbers(a, numbers, arr.HoldsBools(), features, out)
	case v.Kind() == pickle.KindList || v.Kind() == pickle.KindTuple:
		if err := g.Charge(4 * g.Count(v)); err != nil {
			a.Fail("%w", err)
			return out
		}
		items = make([]pickle.Value, 0, g.Count(v))
		for e := g.Entries(v); ; {
			item, ok := e.Item()
			if !ok {
				break
			}
			items = append(items, item)
		}
	default:
		a.Unsupported("a selection of columns by "+g.Describe(v), "give a list of names or positions")
		return out
	}
	if len(items) > 0 && items[0].Kind() == pickle.KindText {
		out = room(a, out, len(items))
		for _, it := range items {
			if a.Err() != nil {
				break
			}
			t, _ := g.Text(it)
			out = append(out, position(a, string(t), names))
		}
		return out
	}
	return selectItems(a, items, features, out)
}

// selectItems appends the columns of a list of positions or of truth values.
func selectItems(a *estimator.Attributes, items []pickle.Value, features int, out []int32) []int32 {
	g := a.Graph()
	if err := g.Charge(8 * len(items)); err != nil {
		a.Fail("%w", err)
		return out
	}
	numbers := make([]float64, 0, len(items))
	for _, it := range items {
		n, ok := g.Number(it)
		if b, isBool := g.Boolean(it); it.Kind() == pickle.KindBool && isBool {
			n, ok = 0, true
			if b {
				n = 1
			}
		}
		if !ok {
			a.Fail("a selection of columns holds something other than numbers")
			return out
		}
		numbers = append(numbers, n)
	}
	return selectNumbers(a, numbers, len(items) > 0 && items[0].Kind() == pickle.KindBool, features, out)
}

func selectNumbers(a *estimator.Attributes, numbers []float64, mask bool, features int, out []int32) []int32 {
	if mask && len(numbers) != features {
		a.Fail("a mask has %d entries, but there are %d columns", len(numbers), features)
		return out
	}
	out = room(a, out, len(numbers))
	for i, n := range numbers {
		if a.Err() != nil {
			return out
		}
		switch {
		case mask && n != 0:
			out = append(out, int32(i))
		case mask:
		case n != float64(int32(n)) || n < -float64(features) || n >= float64(features):
			a.Fail("column %v is selected, but there are %d columns", n, features)
			return out
		case n < 0:
			out = append(out, int32(n)+int32(features))
		default:
			out = append(out, int32(n))
		}
	}
	return out
}

func position(a *estimator.Attributes, t string, names map[string]int32) int32 {
	i, ok := names[t]
	if !ok {
		a.Fail("column %q is selected, but isn't among the names that the model was fitted with", t)
	}
	return i
}

// selectSlice appends the columns of slice(start, stop, step). A slice of names
// includes its stop.
func selectSlice(a *estimator.Attributes, args []pickle.Value, names map[string]int32, features int, out []int32) []int32 {
	g := a.Graph()
	bound := func(v pickle.Value, other int, stop bool) int {
		if v.Kind() == pickle.KindNone {
			return other
		}
		if t, ok := g.Text(v); ok {
			n := int(position(a, string(t), names))
			if stop {
				n++
			}
			return n
		}
		f, ok := g.Number(v)
		if !ok || f != float64(int(f)) {
			a.Fail("a slice of columns has a bound that isn't a number")
			return 0
		}
		n := int(f)
		if n < 0 {
			n += features
		}
		return min(max(n, 0), features)
	}
	step := 1
	if args[2].Kind() != pickle.KindNone {
		f, ok := g.Number(args[2])
		if step = int(f); !ok || step < 1 {
			a.Unsupported("a slice of columns with that step", "give a list of positions")
			return out
		}
	}
	from, to := bound(args[0], 0, false), bound(args[1], features, true)
	if to > from {
		out = room(a, out, (to-from+step-1)/step)
	}
	for i := from; i < to && a.Err() == nil; i += step {
		out = append(out, int32(i))
	}
	return out
}

// room makes space for n more columns, within the budget.
func room(a *estimator.Attributes, columns []int32, n int) []int32 {
	if a.Err() != nil || n <= cap(columns)-len(columns) {
		return columns
	}
	size := len(columns) + n
	if len(columns) > 0 {
		size += len(columns) // leave room for another transformer
	}
	if err := a.Graph().Charge(4 * size); err != nil {
		a.Fail("%w", err)
		return columns
	}
	return append(make([]int32, 0, size), columns...)
}
