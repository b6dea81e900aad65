package table

import (
	"cmp"
	"slices"

	"github.com/fleetscore/fleetscore"
)

// kind is a column's type, by its name in Delta's schema.
type kind string

const (
	kindTime   kind = "timestamp" // microseconds, UTC
	kindText   kind = "string"
	kindDouble kind = "double" // NaN is null
	kindLong   kind = "long"
)

// column is one column of a frame; the slice of its kind is set.
type column struct {
	name    string
	kind    kind
	longs   []int64 // kindTime and kindLong
	doubles []float64
	texts   []string
}

func (c *column) length() int {
	switch c.kind {
	case kindDouble:
		return len(c.doubles)
	case kindText:
		return len(c.texts)
	}
	return len(c.longs)
}

// pick returns the column's values at the given places, in their order.
func (c *column) pick(order []int) column {
	out := column{name: c.name, kind: c.kind}
	switch c.kind {
	case kindDouble:
		out.doubles = pick(c.doubles, order)
	case kindText:
		out.texts = pick(c.texts, order)
	default:
		out.longs = pick(c.longs, order)
	}
	return out
}

func pick[T any](in []T, order []int) []T {
	out := make([]T, len(order))
	for i, j := range order {
		out[i] = in[j]
	}
	return out
}

func (c *column) extend(o column) {
	c.longs = append(c.longs, o.longs...)
	c.doubles = append(c.doubles, o.doubles...)
	c.texts = append(c.texts, o.texts...)
}

// frame is rows of any table in columns: the form that files have. Its key
// columns are those named by the table's schema.
type frame struct{ columns []column }

func (f *frame) column(name string) *column {
	for i := range f.columns {
		if f.columns[i].name == name {
			return &f.columns[i]
		}
	}
	return nil
}

func (f *frame) len() int {
	if len(f.columns) == 0 {
		return 0
	}
	return f.columns[0].length()
}

func (f *frame) pick(order []int) *frame {
	out := &frame{columns: make([]column, len(f.columns))}
	for i := range f.columns {
		out.columns[i] = f.columns[i].pick(order)
	}
	return out
}

// keysOf returns the distinct keys of a frame and each row's index among them.
func (f *frame) keysOf(names []string) ([]fleetscore.Key, []uint32) {
	n := f.len()
	var keys []fleetscore.Key
	index := map[string]uint32{}
	rows := make([]uint32, n)
	cols := make([][]string, len(names))
	for i, name := range names {
		cols[i] = f.column(name).texts
	}
	var scratch []byte
	for r := range n {
		scratch = scratch[:0]
		for i, c := range cols {
			if i > 0 {
				scratch = append(scratch, fleetscore.KeySeparator...)
			}
			scratch = append(scratch, c[r]...)
		}
		k, ok := index[string(scratch)]
		if !ok {
			k = uint32(len(keys))
			s := string(scratch)
			index[s] = k
			keys = append(keys, fleetscore.Key(s))
		}
		rows[r] = k
	}
	return keys, rows
}

// addRows appends the columns of rows to a frame: time, key columns, values.
func (f *frame) addRows(r *fleetscore.Rows) {
	times := make([]int64, r.Len())
	for i, t := range r.Times {
		times[i] = int64(t)
	}
	f.columns = append(f.columns, column{name: r.TimeName, kind: kindTime, longs: times})
	values := make([][]string, len(r.Keys))
	for i, k := range r.Keys {
		values[i] = k.Values()
	}
	for c, name := range r.KeyNames {
		texts := make([]string, r.Len())
		for i, k := range r.KeyIndex {
			texts[i] = values[k][c]
		}
		f.columns = append(f.columns, column{name: name, kind: kindText, texts: texts})
	}
	for c, name := range r.ValueNames {
		f.columns = append(f.columns, column{name: name, kind: kindDouble, doubles: r.Values[c]})
	}
}

// rows is the inverse of addRows for the named value columns.
func (f *frame) rows(s TableSchema, values []string) *fleetscore.Rows {
	r := &fleetscore.Rows{TimeName: s.Time, KeyNames: s.Key, ValueNames: values}
	r.Keys, r.KeyIndex = f.keysOf(s.Key)
	longs := f.column(s.Time).longs
	r.Times = make([]fleetscore.Micros, len(longs))
	for i, t := range longs {
		r.Times[i] = fleetscore.Micros(t)
	}
	for _, v := range values {
		r.Values = append(r.Values, f.column(v).doubles)
	}
	return r
}

// part is the rows of a frame that belong into one file.
type part struct {
	date  string
	hour  int
	order []int
}

// parts cuts a frame by date and hour of its time column and sorts each part by
// key, then time.
func (f *frame) parts(s TableSchema) ([]part, []fleetscore.Key, []uint32) {
	times := f.column(s.Time).longs
	keys, keyIndex := f.keysOf(s.Key)
	const hourMicros = 3600 * 1e6
	byHour := map[int64]*part{}
	var hours []int64
	for i, t := range times {
		h := (t - 1) / hourMicros
		if t-1 < 0 && (t-1)%hourMicros != 0 {
			h-- // round down before 1970 too
		}
		p := byHour[h]
		if p == nil {
			date, hour := partition(fleetscore.Micros(t))
			p = &part{date: date, hour: hour}
			byHour[h] = p
			hours = append(hours, h)
		}
		p.order = append(p.order, i)
	}
	rank := rankKeys(keys)
	slices.Sort(hours)
	out := make([]part, 0, len(hours))
	for _, h := range hours {
		p := byHour[h]
		slices.SortStableFunc(p.order, func(a, b int) int {
			if c := cmp.Compare(rank[keyIndex[a]], rank[keyIndex[b]]); c != 0 {
				return c
			}
			return cmp.Compare(times[a], times[b])
		})
		out = append(out, *p)
	}
	return out, keys, keyIndex
}

// rankKeys returns each key's place in sorted order.
func rankKeys(keys []fleetscore.Key) []int {
	order := make([]int, len(keys))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(keys[a], keys[b]) })
	rank := make([]int, len(keys))
	for r, i := range order {
		rank[i] = r
	}
	return rank
}
