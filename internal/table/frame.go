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

// column is one column of a frame; the slices of its kind are set. Texts repeat a
// lot (keys, models, jobs), so each distinct one is held once.
type column struct {
	name    string
	kind    kind
	longs   []int64 // kindTime and kindLong
	zero    bool    // of kindTime: 0 is null
	doubles []float64
	codes   []uint32          // kindText: per row, an index into dict
	dict    []string          // distinct
	places  map[string]uint32 // of dict; made when a text is first looked for
}

func (c *column) length() int {
	switch c.kind {
	case kindDouble:
		return len(c.doubles)
	case kindText:
		return len(c.codes)
	}
	return len(c.longs)
}

// text is the text in a row.
func (c *column) text(row int) string { return c.dict[c.codes[row]] }

// code finds or adds a text.
func (c *column) code(s string) uint32 {
	if c.places == nil {
		c.places = make(map[string]uint32, len(c.dict))
		for i, t := range c.dict {
			c.places[t] = uint32(i)
		}
	}
	i, ok := c.places[s]
	if !ok {
		i = uint32(len(c.dict))
		c.dict = append(c.dict, s)
		c.places[s] = i
	}
	return i
}

// appendText adds a row.
func (c *column) appendText(s string) {
	if n := len(c.codes); n > 0 && c.text(n-1) == s {
		c.codes = append(c.codes, c.codes[n-1])
		return
	}
	c.codes = append(c.codes, c.code(s))
}

// constant is a column of n rows with one text.
func constant(name, text string, n int) column {
	return column{name: name, kind: kindText, codes: make([]uint32, n), dict: []string{text}}
}

// pick returns the column's values at the given places, in their order.
func (c *column) pick(order []int) column {
	out := column{name: c.name, kind: c.kind, zero: c.zero}
	switch c.kind {
	case kindDouble:
		out.doubles = pick(c.doubles, order)
	case kindText:
		out.codes, out.dict = pick(c.codes, order), c.dict
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

// extend adds the rows of o.
func (c *column) extend(o column) {
	c.longs, c.zero = append(c.longs, o.longs...), c.zero || o.zero
	c.doubles = append(c.doubles, o.doubles...)
	if len(o.codes) == 0 {
		return
	}
	if len(c.codes) == 0 {
		c.codes, c.dict, c.places = append(c.codes, o.codes...), slices.Clone(o.dict), nil
		return
	}
	const unknown = ^uint32(0)
	place := make([]uint32, len(o.dict))
	for i := range place {
		place[i] = unknown
	}
	for _, k := range o.codes {
		if place[k] == unknown { // only those in use are taken over
			place[k] = c.code(o.dict[k])
		}
		c.codes = append(c.codes, place[k])
	}
}

// Frame is rows of any table in columns: the form that files have. Its key columns are
// those named by the table's schema.
type Frame struct{ columns []column }

// Len is how many rows the frame has.
func (f *Frame) Len() int { return f.len() }

// Keys returns the distinct keys of the rows in the order of their first rows, and
// each row's index among them.
func (f *Frame) Keys(names []string) ([]fleetscore.Key, []uint32) { return f.keysOf(names) }

// Longs are the values of a column of type timestamp or long.
func (f *Frame) Longs(name string) []int64 { return f.column(name).longs }

// Doubles are the values of a column of type double.
func (f *Frame) Doubles(name string) []float64 { return f.column(name).doubles }

// Texts gives the values of a column of type string by row.
func (f *Frame) Texts(name string) func(row int) string { return f.column(name).text }

// Rows are the frame's rows with the named value columns.
func (f *Frame) Rows(s TableSchema, values []string) *fleetscore.Rows { return f.rows(s, values) }

// AddRows adds the columns of rows: time, key columns, values. All columns of a frame
// are to have the same number of rows.
func (f *Frame) AddRows(r *fleetscore.Rows) { f.addRows(r) }

// AddDoubles adds a column of type double; NaN is null.
func (f *Frame) AddDoubles(name string, values []float64) {
	f.columns = append(f.columns, column{name: name, kind: kindDouble, doubles: values})
}

// AddLongs adds a column of type long.
func (f *Frame) AddLongs(name string, values []int64) {
	f.columns = append(f.columns, column{name: name, kind: kindLong, longs: values})
}

// AddTimes adds a column of type timestamp. If zero is true, 0 is null.
func (f *Frame) AddTimes(name string, zero bool, values []int64) {
	f.columns = append(f.columns, column{name: name, kind: kindTime, longs: values, zero: zero})
}

// AddTexts adds a column of type string with n rows. Each distinct text is kept once.
func (f *Frame) AddTexts(name string, n int, text func(row int) string) {
	c := column{name: name, kind: kindText, codes: make([]uint32, 0, n)}
	for i := range n {
		c.appendText(text(i))
	}
	f.columns = append(f.columns, c)
}

func (f *Frame) column(name string) *column {
	for i := range f.columns {
		if f.columns[i].name == name {
			return &f.columns[i]
		}
	}
	return nil
}

func (f *Frame) len() int {
	if len(f.columns) == 0 {
		return 0
	}
	return f.columns[0].length()
}

func (f *Frame) pick(order []int) *Frame {
	out := &Frame{columns: make([]column, len(f.columns))}
	for i := range f.columns {
		out.columns[i] = f.columns[i].pick(order)
	}
	return out
}

// keysOf returns the distinct keys of a frame in the order of their first rows,
// and each row's index among them.
func (f *Frame) keysOf(names []string) ([]fleetscore.Key, []uint32) {
	n := f.len()
	index := make([]uint32, n)
	var first []int // of each distinct tuple, its first row
	count := 1
	columns := make([]*column, len(names))
	for i, name := range names {
		columns[i] = f.column(name)
		index, first = pairs(index, count, columns[i])
		count = len(first)
	}
	keys := make([]fleetscore.Key, len(first))
	var scratch []byte
	for i, row := range first {
		scratch = scratch[:0]
		for c, column := range columns {
			if c > 0 {
				scratch = append(scratch, fleetscore.KeySeparator...)
			}
			scratch = append(scratch, column.text(row)...)
		}
		keys[i] = fleetscore.Key(scratch)
	}
	return keys, index
}

// pairs numbers the distinct pairs of a row's number so far, of which there are
// count, and its text. A row like the one before is found without a look-up; our
// files are sorted by key, so most are.
func pairs(so []uint32, count int, c *column) (index []uint32, first []int) {
	index = make([]uint32, len(so))
	const unknown = ^uint32(0)
	var small []uint32 // where a table of all pairs is no larger than the rows deserve
	var large map[uint64]uint32
	if count*len(c.dict) <= 4*len(so)+1024 {
		small = make([]uint32, count*len(c.dict))
		for i := range small {
			small[i] = unknown
		}
	} else {
		large = map[uint64]uint32{}
	}
	for row, a := range so {
		b := c.codes[row]
		if row > 0 && a == so[row-1] && b == c.codes[row-1] {
			index[row] = index[row-1]
			continue
		}
		id := unknown
		if small != nil {
			id = small[int(a)*len(c.dict)+int(b)]
		} else if at, ok := large[uint64(a)<<32|uint64(b)]; ok {
			id = at
		}
		if id == unknown {
			id = uint32(len(first))
			first = append(first, row)
			if small != nil {
				small[int(a)*len(c.dict)+int(b)] = id
			} else {
				large[uint64(a)<<32|uint64(b)] = id
			}
		}
		index[row] = id
	}
	return index, first
}

// addRows appends the columns of rows to a frame: time, if it has a name, key columns, values.
func (f *Frame) addRows(r *fleetscore.Rows) {
	if r.TimeName != "" {
		times := make([]int64, r.Len())
		for i, t := range r.Times {
			times[i] = int64(t)
		}
		f.columns = append(f.columns, column{name: r.TimeName, kind: kindTime, longs: times})
	}
	values := make([][]string, len(r.Keys))
	for i, k := range r.Keys {
		values[i] = k.Values()
	}
	for c, name := range r.KeyNames {
		texts := column{name: name, kind: kindText, codes: make([]uint32, r.Len())}
		place := make([]uint32, len(r.Keys))
		for i := range place {
			place[i] = texts.code(values[i][c])
		}
		for i, k := range r.KeyIndex {
			texts.codes[i] = place[k]
		}
		f.columns = append(f.columns, texts)
	}
	for c, name := range r.ValueNames {
		f.columns = append(f.columns, column{name: name, kind: kindDouble, doubles: r.Values[c]})
	}
}

// rows is the inverse of addRows for the named value columns.
func (f *Frame) rows(s TableSchema, values []string) *fleetscore.Rows {
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

// split cuts a part into those of n equal shard ranges that have rows, each in the
// part's order.
func (p part) split(n int, shard func(row int) fleetscore.Shard) []part {
	if n == 1 {
		return []part{p}
	}
	ranges := make([][]int, n)
	for _, row := range p.order {
		r := int(shard(row)) * n / fleetscore.Shards
		ranges[r] = append(ranges[r], row)
	}
	var out []part
	for _, order := range ranges {
		if len(order) > 0 {
			out = append(out, part{p.date, p.hour, order})
		}
	}
	return out
}

const hourMicros = 3600 * 1_000_000

// hourOf numbers the hour under which a row lies, as partition does.
func hourOf(t int64) int64 {
	h := (t - 1) / hourMicros
	if (t-1)%hourMicros < 0 {
		h-- // round down before 1970 too
	}
	return h
}

// parts cuts a frame by date and hour of its time column and sorts each part by
// key, then time.
func (f *Frame) parts(s TableSchema) ([]part, []fleetscore.Key, []uint32) {
	times := f.column(s.Time).longs
	keys, keyIndex := f.keysOf(s.Key)
	byHour := map[int64]*part{}
	var hours []int64
	var p *part
	last := int64(0)
	for i, row := range f.byKey(keys, keyIndex, times) {
		if h := hourOf(times[row]); i == 0 || h != last {
			if last = h; byHour[h] == nil {
				date, hour := partition(fleetscore.Micros(times[row]))
				byHour[h] = &part{date: date, hour: hour}
				hours = append(hours, h)
			}
			p = byHour[h]
		}
		p.order = append(p.order, row)
	}
	slices.Sort(hours)
	out := make([]part, len(hours))
	for i, h := range hours {
		out[i] = *byHour[h]
	}
	return out, keys, keyIndex
}

// byKey is the rows sorted by key, then time; rows with the same key and time keep their
// order.
// Counting does the keys, and mostly times are in order already.
func (f *Frame) byKey(keys []fleetscore.Key, keyIndex []uint32, times []int64) []int {
	rank := rankKeys(keys)
	start := make([]int, len(keys)+1)
	for _, k := range keyIndex {
		start[rank[k]+1]++
	}
	for i := range keys {
		start[i+1] += start[i]
	}
	order, at := make([]int, len(keyIndex)), slices.Clone(start)
	for row, k := range keyIndex {
		order[at[rank[k]]] = row
		at[rank[k]]++
	}
	byTime := func(a, b int) int { return cmp.Compare(times[a], times[b]) }
	for i := range keys {
		if rows := order[start[i]:start[i+1]]; !slices.IsSortedFunc(rows, byTime) {
			slices.SortStableFunc(rows, byTime)
		}
	}
	return order
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
