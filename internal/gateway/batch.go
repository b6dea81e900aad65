package gateway

import (
	"math"
	"slices"

	"github.com/fleetscore/fleetscore"
)

// A batch becomes one message of the hub, so its limits keep it well below
// hub.MaxMessageBytes, whatever the readings contain.
const (
	maxBatchBytes   = 1 << 20 // of text it was parsed from
	maxBatchCells   = 1 << 18 // readings × columns
	maxBatchColumns = 1 << 12 // as many as the hub takes

	// Every cell costs time and memory when the batch is stored and read, also one
	// without a value. So a batch of more than sparseCells cells has at least one value in cellsPerValue cells.
	sparseCells   = 1 << 14
	cellsPerValue = 32
)

// batch is readings of one partition in columns. A name may have two columns, one of
// numbers and one of texts, so that readings whose columns change between numbers and
// texts fit into one batch.
//
// Until the batch is finished it holds only values that were sent, and no absent
// ones. So its memory is bounded by the text that it was parsed from, however many
// columns there are.
type batch struct {
	places   []uint32 // of the readings' keys in the dictionary
	times    []fleetscore.Micros
	ids      []string // nil if no reading has one; shorter than times if the last ones have none
	dict     *dictionary
	numbers  map[string]int // columns by name
	texts    map[string]int
	cols     []column
	values   int // in all columns
	bytes    int // of the text
	through  int // of a feed: no line up to this one is in a later batch of the request
	position string

	round uint64      // how often the batch was used before
	spare [][]float64 // memory of columns that were used before
}

// column is one column of a batch that isn't finished.
type column struct {
	name    string
	isText  bool
	rows    []uint32 // of the values; nil while value i is of reading i
	numbers []float64
	strings []string
}

// batch returns an empty batch.
func (s *shared) batch(d *dictionary) *batch {
	b, ok := s.spare.Get().(*batch)
	if !ok {
		b = &batch{numbers: map[string]int{}, texts: map[string]int{}}
	}
	b.dict = d
	return b
}

// What a batch that is used again may hold: more is given back to the system.
const (
	maxSpareRows    = 64 << 10
	maxSpareColumns = 16
)

// release takes a batch that nobody uses any more.
func (s *shared) release(b *batch) {
	if cap(b.times) > maxSpareRows || len(b.cols) > maxSpareColumns {
		return
	}
	for i := range b.cols {
		if n := b.cols[i].numbers; cap(n) > 0 && cap(n) <= maxSpareRows && len(b.spare) < maxSpareColumns {
			b.spare = append(b.spare, n[:0])
		}
	}
	clear(b.cols)
	clear(b.numbers)
	clear(b.texts)
	*b = batch{places: b.places[:0], times: b.times[:0],
		numbers: b.numbers, texts: b.texts, cols: b.cols[:0], round: b.round + 1, spare: b.spare}
	s.spare.Put(b)
}

// Len is the number of readings.
func (b *batch) Len() int { return len(b.times) }

// expect makes room for readings that are likely to come.
func (b *batch) expect(n int) {
	b.places, b.times = slices.Grow(b.places, n), slices.Grow(b.times, n)
}

// cell is one value of a reading.
type cell struct {
	name   string
	number float64
	text   string
	isText bool
}

// reading is one parsed reading.
type reading struct {
	key   []byte
	place uint32 // of the key in the dictionary
	next  uint32 // the place that is expected of the key
	found bool   // whether the key is the expected one; then key isn't set
	time  fleetscore.Micros
	id    string
	cells []cell
	bytes int

	shape     *shape // by which it was read; nil for a reading that was parsed as JSON
	unstamped bool   // the time is that of the arrival, not of the device
}

// index is the columns of a kind by name.
func (b *batch) index(isText bool) map[string]int {
	if isText {
		return b.texts
	}
	return b.numbers
}

// room reports whether this many columns, readings, values and bytes of text can be added.
func (b *batch) room(columns, readings, values, bytes int) bool {
	columns += len(b.cols)
	cells := columns * (b.Len() + readings)
	return b.bytes+bytes <= maxBatchBytes && columns <= maxBatchColumns &&
		cells <= min(maxBatchCells, max(sparseCells, cellsPerValue*(b.values+values)))
}

// missing counts the reading's columns that the batch doesn't have yet.
func (b *batch) missing(r *reading) (n int) {
	if r.shape.knows(b) {
		return 0
	}
	for i := range r.cells {
		if _, ok := b.index(r.cells[i].isText)[r.cells[i].name]; !ok {
			n++
		}
	}
	return n
}

// cells is how many values the batch has once it is finished.
func (b *batch) cells() int { return b.Len() * len(b.cols) }

// knows reports whether the columns of the shape's cells in the batch are known.
func (s *shape) knows(b *batch) bool { return s != nil && s.batch == b && s.round == b.round }

func (b *batch) add(r *reading) {
	row := uint32(b.Len())
	b.places = append(b.places, r.place)
	b.times = append(b.times, r.time)
	if r.id != "" || b.ids != nil {
		b.ids = append(pad(b.ids, b.Len()-1, ""), r.id)
	}
	b.bytes += r.bytes
	b.values += len(r.cells)
	if r.shape.knows(b) {
		for i, at := range r.shape.at {
			b.cols[at].add(row, &r.cells[i])
		}
		return
	}
	for i := range r.cells {
		at := b.column(r.cells[i].name, r.cells[i].isText)
		b.cols[at].add(row, &r.cells[i])
		if r.shape != nil {
			r.shape.at[i] = at
		}
	}
	if r.shape != nil {
		r.shape.batch, r.shape.round = b, b.round
	}
}

// add appends the value of a reading.
func (c *column) add(row uint32, of *cell) {
	c.at(row)
	if of.isText {
		c.strings = append(c.strings, of.text)
	} else {
		c.numbers = append(c.numbers, of.number)
	}
}

// column returns the place of the named column of a kind, and makes the column if it is new.
func (b *batch) column(name string, isText bool) int {
	index := b.index(isText)
	at, ok := index[name]
	if !ok {
		at = len(b.cols)
		index[name] = at
		c := column{name: name, isText: isText}
		if n := len(b.spare); n > 0 && !isText {
			c.numbers, b.spare = b.spare[n-1], b.spare[:n-1]
		}
		b.cols = append(b.cols, c)
	}
	return at
}

func (c *column) len() int { return len(c.numbers) + len(c.strings) }

// at notes that the next value is of this reading.
func (c *column) at(row uint32) {
	n := c.len()
	if c.rows == nil {
		if int(row) == n {
			return
		}
		c.rows = make([]uint32, n, n+1)
		for i := range c.rows {
			c.rows[i] = uint32(i)
		}
	}
	c.rows = append(c.rows, row)
}

// pad lengthens s to n.
func pad[T any](s []T, n int, absent T) []T {
	for len(s) < n {
		s = append(s, absent)
	}
	return s
}

// takes reports whether all readings of the other batch can be added.
func (b *batch) takes(other *batch) bool {
	if b.dict != other.dict {
		return false
	}
	added := 0
	for i := range other.cols {
		if _, ok := b.index(other.cols[i].isText)[other.cols[i].name]; !ok {
			added++
		}
	}
	return b.room(added, other.Len(), other.values, other.bytes)
}

// join appends the readings of the other batch.
func (b *batch) join(other *batch) {
	before := b.Len()
	b.places = append(b.places, other.places...)
	b.times = append(b.times, other.times...)
	if other.ids != nil {
		b.ids = append(pad(b.ids, before, ""), other.ids...)
	}
	for i := range other.cols {
		o := &other.cols[i]
		c := &b.cols[b.column(o.name, o.isText)]
		if c.rows != nil || o.rows != nil || c.len() != before {
			for j := range o.len() {
				row := uint32(j)
				if o.rows != nil {
					row = o.rows[j]
				}
				c.at(uint32(before) + row)
				if o.isText {
					c.strings = append(c.strings, o.strings[j])
				} else {
					c.numbers = append(c.numbers, o.numbers[j])
				}
			}
			continue
		}
		c.numbers, c.strings = append(c.numbers, o.numbers...), append(c.strings, o.strings...)
	}
	b.bytes += other.bytes
	b.values += other.values
}

// size is about how much memory the batch takes before it is finished.
func (b *batch) size() (n int64) {
	const ofColumn, ofString = 256, 16
	n = int64(4*cap(b.places) + 8*cap(b.times) + ofString*cap(b.ids) + ofColumn*len(b.cols))
	for _, id := range b.ids {
		n += int64(len(id))
	}
	for i := range b.cols {
		c := &b.cols[i]
		n += int64(4*cap(c.rows) + 8*cap(c.numbers) + ofString*cap(c.strings))
		for _, s := range c.strings {
			n += int64(len(s))
		}
	}
	return n
}

// finish returns the batch's readings, with every key once, and in every column an entry for every
// reading: a value, or a mark that the value is absent. They are the hub's from then on, and share no memory
// with the batch.
func (b *batch) finish(keys *numbering) *fleetscore.Readings {
	n := b.Len()
	out := &fleetscore.Readings{KeyIndex: slices.Clone(b.places), Times: slices.Clone(b.times), Columns: make([]fleetscore.ReadingColumn, len(b.cols))}
	out.Keys = keys.keys(b.dict, out.KeyIndex)
	if b.ids != nil {
		out.IDs = pad(slices.Clone(b.ids), n, "")
	}
	for i := range b.cols {
		out.Columns[i] = b.cols[i].finish(n)
	}
	return out
}

func (c *column) finish(n int) fleetscore.ReadingColumn {
	out := fleetscore.ReadingColumn{Name: c.name}
	switch whole := c.rows == nil && c.len() == n; {
	case whole && c.isText:
		out.Strings = slices.Clone(c.strings)
	case whole:
		out.Numbers = slices.Clone(c.numbers)
	case c.isText:
		out.Strings, out.Present = make([]string, n), make([]bool, n)
		for i, s := range c.strings {
			row := c.row(i)
			out.Strings[row], out.Present[row] = s, true
		}
	default:
		out.Numbers = pad(make([]float64, 0, n), n, math.NaN())
		for i, x := range c.numbers {
			out.Numbers[c.row(i)] = x
		}
	}
	return out
}

// row is the reading of a value.
func (c *column) row(i int) int {
	if c.rows == nil {
		return i
	}
	return int(c.rows[i])
}
