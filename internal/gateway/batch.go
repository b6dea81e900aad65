package gateway

import (
	"math"

	"github.com/fleetscore/fleetscore"
)

// A batch becomes one message of the hub, so it stays well below
// hub.MaxMessageBytes however its readings look.
const (
	maxBatchBytes   = 1 << 20 // of text it was parsed from
	maxBatchCells   = 1 << 18 // readings × columns
	maxBatchColumns = 1 << 10
)

// batch is readings of one partition in columns.
type batch struct {
	fleetscore.Readings
	keys    map[fleetscore.Key]uint32
	columns map[string]int
	bytes   int // of the text
}

func newBatch() *batch {
	return &batch{keys: map[fleetscore.Key]uint32{}, columns: map[string]int{}}
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
	time  fleetscore.Micros
	id    string
	cells []cell
	bytes int
}

// fits tells whether the reading can join: there is room, and each of its columns
// is of the kind that the batch has.
func (b *batch) fits(r *reading) bool {
	added := 0
	for i := range r.cells {
		if at, ok := b.columns[r.cells[i].name]; !ok {
			added++
		} else if (b.Columns[at].Strings != nil) != r.cells[i].isText {
			return false
		}
	}
	columns := len(b.Columns) + added
	return b.Len() == 0 || b.bytes+r.bytes <= maxBatchBytes && columns <= maxBatchColumns && columns*(b.Len()+1) <= maxBatchCells
}

func (b *batch) add(r *reading) {
	k, ok := b.keys[fleetscore.Key(r.key)]
	if !ok {
		k = b.addKey(fleetscore.Key(r.key))
	}
	b.KeyIndex = append(b.KeyIndex, k)
	b.Times = append(b.Times, r.time)
	if r.id != "" || b.IDs != nil {
		b.IDs = append(pad(b.IDs, b.Len()-1, ""), r.id)
	}
	b.bytes += r.bytes
	for i := range r.cells {
		c := &r.cells[i]
		col := b.column(c.name, c.isText)
		if c.isText {
			col.Strings = append(pad(col.Strings, b.Len()-1, ""), c.text)
			col.Present = append(pad(col.Present, b.Len()-1, false), true)
		} else {
			col.Numbers = append(pad(col.Numbers, b.Len()-1, math.NaN()), c.number)
		}
	}
}

func (b *batch) addKey(k fleetscore.Key) uint32 {
	i := uint32(len(b.Keys))
	b.Keys = append(b.Keys, k)
	b.keys[k] = i
	return i
}

// column returns the named column, made when it is new.
func (b *batch) column(name string, isText bool) *fleetscore.ReadingColumn {
	at, ok := b.columns[name]
	if !ok {
		at = len(b.Columns)
		b.columns[name] = at
		c := fleetscore.ReadingColumn{Name: name}
		if isText {
			c.Strings, c.Present = []string{}, []bool{}
		}
		b.Columns = append(b.Columns, c)
	}
	return &b.Columns[at]
}

// pad lengthens s to n; columns catch up only when they get a value.
func pad[T any](s []T, n int, absent T) []T {
	for len(s) < n {
		s = append(s, absent)
	}
	return s
}

// takes tells whether all of other's readings can join.
func (b *batch) takes(other *batch) bool {
	added := 0
	for i := range other.Columns {
		if at, ok := b.columns[other.Columns[i].Name]; !ok {
			added++
		} else if (b.Columns[at].Strings != nil) != (other.Columns[i].Strings != nil) {
			return false
		}
	}
	columns := len(b.Columns) + added
	return b.bytes+other.bytes <= maxBatchBytes && columns <= maxBatchColumns && columns*(b.Len()+other.Len()) <= maxBatchCells
}

// join appends other's readings; other must have been finished.
func (b *batch) join(other *batch) {
	before := b.Len()
	index := make([]uint32, len(other.Keys))
	for i, k := range other.Keys {
		at, ok := b.keys[k]
		if !ok {
			at = b.addKey(k)
		}
		index[i] = at
	}
	for _, k := range other.KeyIndex {
		b.KeyIndex = append(b.KeyIndex, index[k])
	}
	b.Times = append(b.Times, other.Times...)
	if other.IDs != nil {
		b.IDs = append(pad(b.IDs, before, ""), other.IDs...)
	}
	for i := range other.Columns {
		o := &other.Columns[i]
		c := b.column(o.Name, o.Strings != nil)
		if o.Strings != nil {
			c.Strings = append(pad(c.Strings, before, ""), o.Strings...)
			c.Present = append(pad(c.Present, before, false), o.Present...)
		} else {
			c.Numbers = append(pad(c.Numbers, before, math.NaN()), o.Numbers...)
		}
	}
	b.bytes += other.bytes
}

// finish makes all columns as long as the batch.
func (b *batch) finish() *batch {
	n := b.Len()
	if b.IDs != nil {
		b.IDs = pad(b.IDs, n, "")
	}
	for i := range b.Columns {
		c := &b.Columns[i]
		if c.Strings != nil {
			c.Strings, c.Present = pad(c.Strings, n, ""), pad(c.Present, n, false)
		} else {
			c.Numbers = pad(c.Numbers, n, math.NaN())
		}
	}
	return b
}
