package ipc

import (
	"errors"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/fleetscore/fleetscore"
)

var (
	timeType = &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
	textType = &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}
)

// columns gathers the columns of a file.
type columns struct {
	fields []arrow.Field
	arrays []arrow.Array
}

func (c *columns) add(name string, t arrow.DataType, nullable bool, a arrow.Array) {
	c.fields, c.arrays = append(c.fields, arrow.Field{Name: name, Type: t, Nullable: nullable}), append(c.arrays, a)
}

// fixed adds a column whose values are the bytes; absent is nil where no value is missing.
func (c *columns) fixed(name string, t arrow.DataType, nullable bool, rows int, bytes []byte, absent func(int) bool) {
	var valid *memory.Buffer
	nulls := 0
	if absent != nil {
		bits := make([]byte, (rows+7)/8)
		for i := range rows {
			if absent(i) {
				nulls++
			} else {
				bits[i/8] |= 1 << (i % 8)
			}
		}
		if nulls > 0 {
			valid = memory.NewBufferBytes(bits)
		}
	}
	data := array.NewData(t, rows, []*memory.Buffer{valid, memory.NewBufferBytes(bytes)}, nil, nulls, 0)
	defer data.Release()
	c.add(name, t, nullable, array.MakeFromData(data))
}

// numbers adds numbers; NaN is null, as in the Parquet files.
func (c *columns) numbers(name string, v []float64) {
	absent := func(i int) bool { return v[i] != v[i] }
	sum := 0.0
	for _, x := range v { // NaN and infinities make the sum NaN; most columns have none
		sum += x * 0
	}
	if sum == 0 {
		absent = nil
	}
	c.fixed(name, arrow.PrimitiveTypes.Float64, true, len(v), arrow.Float64Traits.CastToBytes(v), absent)
}

func (c *columns) wholes(name string, v []int64) {
	c.fixed(name, arrow.PrimitiveTypes.Int64, false, len(v), arrow.Int64Traits.CastToBytes(v), nil)
}

func (c *columns) times(name string, v []fleetscore.Micros, zeroIsNull bool) {
	longs := make([]int64, len(v))
	for i, t := range v {
		longs[i] = int64(t)
	}
	var absent func(int) bool
	if zeroIsNull {
		absent = func(i int) bool { return v[i] == 0 }
	}
	c.fixed(name, timeType, zeroIsNull, len(v), arrow.Int64Traits.CastToBytes(longs), absent)
}

// texts adds texts, each distinct one once.
func (c *columns) texts(name string, distinct []string, codes []int32) {
	words := array.NewStringBuilder(memory.DefaultAllocator)
	words.AppendValues(distinct, nil)
	list := words.NewStringArray()
	defer list.Release()
	data := array.NewDataWithDictionary(textType, len(codes), []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(codes))}, 0, 0, list.Data().(*array.Data))
	defer data.Release()
	c.add(name, textType, false, array.NewDictionaryData(data))
}

// digests adds the models' digests, which are hardly ever the same: they stand in each row.
func (c *columns) digests(name string, items []fleetscore.Item) {
	words := array.NewStringBuilder(memory.DefaultAllocator)
	words.Reserve(len(items))
	words.ReserveData(len(items) * 2 * len(fleetscore.Digest{}))
	for i := range items {
		if items[i].Model.IsZero() {
			words.Append("")
		} else {
			words.Append(items[i].Model.String())
		}
	}
	c.add(name, arrow.BinaryTypes.String, false, words.NewStringArray())
}

// write writes the columns as one file.
func (c *columns) write(w io.Writer) error {
	schema := arrow.NewSchema(c.fields, nil)
	rows := int64(0)
	if len(c.arrays) > 0 {
		rows = int64(c.arrays[0].Len())
	}
	batch := array.NewRecordBatch(schema, c.arrays, rows)
	defer batch.Release()
	out, err := ipc.NewFileWriter(w, ipc.WithSchema(schema))
	if err != nil {
		return err
	}
	return errors.Join(out.Write(batch), out.Close())
}

// WritePredictions writes predictions: time (if it has a name), key columns, values, Prediction, Score.
func WritePredictions(w io.Writer, p *fleetscore.Predictions) error {
	c := &columns{}
	if p.TimeName != "" {
		c.times(p.TimeName, p.Times, false)
	}
	for i, name := range p.KeyNames {
		distinct := newTexts()
		places := make([]int32, len(p.Keys)) // of a key, the number of its text
		for k, key := range p.Keys {
			places[k] = int32(distinct.code(key.Values()[i]))
		}
		codes := make([]int32, p.Len())
		for row, k := range p.KeyIndex {
			codes[row] = places[k]
		}
		c.texts(name, distinct.distinct, codes)
	}
	for i, name := range p.ValueNames {
		c.numbers(name, p.Values[i])
	}
	c.numbers("Prediction", p.Prediction)
	c.numbers("Score", p.Score)
	return c.write(w)
}

// WriteItems writes coverage: key columns, outcome, rows, anomalies, first, last, model,
// reason.
func WriteItems(w io.Writer, keyNames []string, items []fleetscore.Item) error {
	c, n := &columns{}, len(items)
	text := func(name string, of func(*fleetscore.Item) string) {
		distinct, codes := newTexts(), make([]int32, n)
		for i := range items {
			codes[i] = int32(distinct.code(of(&items[i])))
		}
		c.texts(name, distinct.distinct, codes)
	}
	for i, name := range keyNames {
		text(name, func(it *fleetscore.Item) string { return it.Key.Values()[i] })
	}
	text("outcome", func(it *fleetscore.Item) string { return string(it.Outcome) })
	rows, anomalies := make([]int64, n), make([]int64, n)
	first, last := make([]fleetscore.Micros, n), make([]fleetscore.Micros, n)
	for i, it := range items {
		rows[i], anomalies[i], first[i], last[i] = it.Rows, it.Anomalies, it.First, it.Last
	}
	c.wholes("rows", rows)
	c.wholes("anomalies", anomalies)
	c.times("first", first, true)
	c.times("last", last, true)
	c.digests("model", items)
	text("reason", func(it *fleetscore.Item) string { return it.Reason })
	return c.write(w)
}
