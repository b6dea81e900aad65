package table

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
	"github.com/parquet-go/parquet-go/format"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table/sound"
)

// rowGroupRows is how many rows a row group of our files has at most: small
// enough for readers to skip by statistics, large enough to compress.
const rowGroupRows = 128 << 10

var codec = &zstd.Codec{Level: zstd.SpeedFastest}

// parquetSchema builds the schema with columns in the frame's order (a
// parquet.Group would sort them).
func parquetSchema(f *Frame, nulls []bool) *parquet.Schema {
	fields := make([]reflect.StructField, len(f.columns))
	for i := range f.columns {
		c := &f.columns[i]
		sf := reflect.StructField{Name: fmt.Sprintf("C%d", i)}
		var tag string
		switch c.kind {
		case kindTime:
			sf.Type, tag = reflect.TypeFor[int64](), c.name+",timestamp(microsecond)"
		case kindLong:
			sf.Type, tag = reflect.TypeFor[int64](), c.name
		case kindText:
			sf.Type, tag = reflect.TypeFor[string](), c.name+",dict"
		case kindDouble:
			sf.Type, tag = reflect.TypeFor[float64](), c.name
		}
		if nulls[i] {
			tag += ",optional"
		}
		sf.Tag = reflect.StructTag(`parquet:"` + tag + `"`)
		fields[i] = sf
	}
	return parquet.SchemaOf(reflect.New(reflect.StructOf(fields)).Interface())
}

// nulls reports whether a column has nulls. One without is written as required, which costs less; a table's readers
// take both.
func (c *column) nulls() bool {
	if c.kind == kindDouble {
		return slices.ContainsFunc(c.doubles, func(x float64) bool { return x != x })
	}
	return c.zero && slices.Contains(c.longs, 0)
}

// writeParquet writes a frame as one Parquet file, compressed by zstd. NaN is null.
func writeParquet(w io.Writer, f *Frame) error {
	nulls := make([]bool, len(f.columns))
	for i := range f.columns {
		nulls[i] = f.columns[i].nulls()
	}
	out := parquet.NewGenericWriter[any](w, parquetSchema(f, nulls), parquet.Compression(codec),
		parquet.CreatedBy("fleetscore", "1", ""))
	columns := out.ColumnWriters()
	values := make([]parquet.Value, 0, 4096)
	texts := make([][]parquet.Value, len(f.columns))
	for i := range f.columns {
		texts[i] = f.columns[i].parquetTexts()
	}
	for start := 0; start < f.len(); start += rowGroupRows {
		end := min(start+rowGroupRows, f.len())
		for i := range f.columns {
			for at := start; at < end; {
				to := min(at+cap(values), end)
				values = f.columns[i].parquetValues(values[:0], texts[i], nulls[i], at, to)
				if _, err := columns[i].WriteRowValues(values); err != nil {
					return err
				}
				at = to
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return out.Close()
}

// parquetTexts are the column's distinct texts. They aren't copied: the writer
// only reads them.
func (c *column) parquetTexts() []parquet.Value {
	out := make([]parquet.Value, len(c.dict))
	for i, s := range c.dict {
		out[i] = parquet.ByteArrayValue(unsafe.Slice(unsafe.StringData(s), len(s)))
	}
	return out
}

// parquetValues are the values of some rows. Only those of a column with nulls need levels.
func (c *column) parquetValues(dst, texts []parquet.Value, nulls bool, from, to int) []parquet.Value {
	switch {
	case c.kind == kindText:
		for _, k := range c.codes[from:to] {
			dst = append(dst, texts[k])
		}
	case c.kind == kindDouble && nulls:
		for _, x := range c.doubles[from:to] {
			if x != x {
				dst = append(dst, parquet.NullValue())
			} else {
				dst = append(dst, parquet.DoubleValue(x).Level(0, 1, 0))
			}
		}
	case c.kind == kindDouble:
		for _, x := range c.doubles[from:to] {
			dst = append(dst, parquet.DoubleValue(x))
		}
	default:
		last := c.longs[from]
		value := c.long(last, nulls)
		for _, x := range c.longs[from:to] { // times and revisions repeat a lot
			if x != last {
				last, value = x, c.long(x, nulls)
			}
			dst = append(dst, value)
		}
	}
	return dst
}

func (c *column) long(x int64, nulls bool) parquet.Value {
	switch {
	case !nulls:
		return parquet.Int64Value(x)
	case x == 0:
		return parquet.NullValue()
	}
	return parquet.Int64Value(x).Level(0, 1, 0)
}

// wanted is a column to read from a file, and as what.
type wanted struct {
	name     string
	kind     kind
	optional bool // of a time: null is 0
	added    bool // a file that is older than the column may lack it: 0, NaN or an empty text then
}

// readParquet reads the wanted columns of a file that Fleetscore wrote.
func readParquet(name string, data []byte, want []wanted) (*Frame, error) {
	s := &Source{Name: name}
	return s.readColumns(data, want, &ReadOptions{})
}

// readColumns reads the wanted columns of a file. Files of other writers may hold
// times as text or in other units, keys as numbers, and values as any number.
func (s *Source) readColumns(data []byte, want []wanted, opt *ReadOptions) (out *Frame, err error) {
	name := s.Name
	defer func() { // the library panics on some corrupt files
		if p := recover(); p != nil {
			out, err = nil, fleetscore.Errorf(fleetscore.Corrupt, "read", name, "not a sound Parquet file: %v", p)
		}
	}()
	file, err := sound.Open(data)
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Corrupt, "read", name, "not a sound Parquet file: %w", err)
	}
	if opt.MaxRows > 0 && file.NumRows() > opt.MaxRows {
		return nil, fleetscore.Errorf(fleetscore.Exhausted, "read", name, "it has %d rows, more than the %d that are taken at once", file.NumRows(), opt.MaxRows).
			WithHint("send it in several parts")
	}
	out = &Frame{columns: make([]column, len(want))}
	for i, w := range want {
		leaf, ok := s.find(file, w.name)
		if !ok {
			if out.columns[i], err = s.absent(w, file, opt); err != nil {
				return nil, err
			}
			continue
		}
		out.columns[i] = column{name: w.name, kind: w.kind, zero: w.optional}
		c := converter{out: &out.columns[i], node: leaf.Node, flat: leaf.MaxRepetitionLevel == 0 && leaf.MaxDefinitionLevel <= 1, optional: w.optional, opt: opt}
		c.decimal, _ = logical[*format.DecimalType](leaf.Node)
		if t, ok := logical[*format.IntType](leaf.Node); ok {
			c.unsigned = !t.IsSigned
		}
		for _, g := range file.RowGroups() {
			if err := c.chunk(g.ColumnChunks()[leaf.ColumnIndex], int(file.NumRows())); err != nil {
				return nil, fleetscore.Errorf(fleetscore.Corrupt, "read", name, "column %s: %w", w.name, err)
			}
		}
		if c.out.length() != int(file.NumRows()) {
			return nil, fleetscore.Errorf(fleetscore.Corrupt, "read", name, "column %s has %d values in %d rows", w.name, c.out.length(), file.NumRows())
		}
	}
	return out, nil
}

func parquetNames(f *parquet.File) []string {
	var out []string
	for _, c := range f.Schema().Columns() {
		out = append(out, strings.Join(c, "."))
	}
	return out
}

// converter appends a chunk's values to a column.
type converter struct {
	out    *column
	node   parquet.Node
	flat   bool   // a plain column that may be null, as nearly all are
	layout Layout // of times that are texts

	decimal  *format.DecimalType // nil if the column holds none
	unsigned bool
	optional bool // null is 0
	opt      *ReadOptions
}

// chunk appends a chunk's values. They end where the file has no more rows.
func (c *converter) chunk(chunk parquet.ColumnChunk, rows int) error {
	pages := chunk.Pages()
	defer pages.Close()
	buf := make([]parquet.Value, 1024)
	for {
		page, err := pages.ReadPage()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if c.out.length()+int(page.NumRows()) > rows {
			return fmt.Errorf("it has more values than the file has rows (%d)", rows)
		}
		if c.flat && c.page(page) {
			parquet.Release(page)
			continue
		}
		values := page.Values()
		for {
			n, err := values.ReadValues(buf)
			for _, v := range buf[:n] {
				if err := c.value(v); err != nil {
					return err
				}
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
		}
		parquet.Release(page)
	}
}

// page appends a whole page whose values have the column's own form, as those of
// our files do; false if they have to be looked at one by one.
func (c *converter) page(page parquet.Page) bool {
	nulls := page.NumNulls()
	if nulls > 0 && c.out.kind != kindDouble {
		return false // and refused there
	}
	data, kind := page.Data(), c.node.Type().Kind()
	switch {
	case c.out.kind == kindText && kind == parquet.ByteArray && page.Dictionary() != nil:
		c.texts(page.Dictionary(), data.Int32())
		return true
	case page.Dictionary() != nil:
		return false
	case c.out.kind == kindDouble && kind == parquet.Double && nulls == 0:
		c.out.doubles = append(c.out.doubles, data.Double()...)
		return true
	case c.out.kind == kindDouble && kind == parquet.Double && len(page.DefinitionLevels()) == int(page.NumValues()):
		values := data.Double()
		for _, present := range page.DefinitionLevels() {
			x := math.NaN()
			if present == 1 {
				x, values = values[0], values[1:]
			}
			c.out.doubles = append(c.out.doubles, x)
		}
		return true
	case c.out.kind == kindLong && kind == parquet.Int64:
		c.out.longs = append(c.out.longs, data.Int64()...)
		return true
	case c.out.kind == kindTime && kind == parquet.Int64:
		if t, ok := timestampType(c.node); ok && t.Unit.Value.Duration() == time.Microsecond {
			c.out.longs = append(c.out.longs, data.Int64()...)
			return true
		}
	}
	return false
}

// texts appends texts by their numbers in a dictionary.
func (c *converter) texts(dict parquet.Dictionary, numbers []int32) {
	const unknown = ^uint32(0)
	place := make([]uint32, dict.Len())
	for i := range place {
		place[i] = unknown
	}
	for _, n := range numbers {
		if place[n] == unknown {
			place[n] = c.out.code(string(dict.Index(n).ByteArray()))
		}
		c.out.codes = append(c.out.codes, place[n])
	}
}

func (c *converter) value(v parquet.Value) error {
	if v.IsNull() && c.out.kind != kindDouble {
		if c.optional {
			c.out.longs = append(c.out.longs, 0)
			return nil
		}
		return errors.New("a value is null")
	}
	switch c.out.kind {
	case kindDouble:
		x, err := c.number(v)
		c.out.doubles = append(c.out.doubles, x)
		return err
	case kindLong:
		if v.Kind() != parquet.Int64 && v.Kind() != parquet.Int32 {
			return fmt.Errorf("%s is not a whole number", v)
		}
		c.out.longs = append(c.out.longs, whole(v))
	case kindText:
		var b []byte
		switch v.Kind() {
		case parquet.ByteArray, parquet.FixedLenByteArray:
			b = v.ByteArray()
		case parquet.Int32, parquet.Int64:
			if c.decimal != nil && c.decimal.Scale != 0 {
				return errors.New("it holds decimals, which are neither text nor whole numbers")
			}
			if b = fmt.Append(nil, whole(v)); c.unsigned {
				b = fmt.Append(nil, unsigned(v))
			}
		default:
			return fmt.Errorf("%s is neither text nor a whole number", v)
		}
		c.out.appendText(string(b))
	case kindTime:
		m, err := c.instant(v)
		c.out.longs = append(c.out.longs, int64(m))
		return err
	}
	return nil
}

func whole(v parquet.Value) int64 {
	if v.Kind() == parquet.Int32 {
		return int64(v.Int32())
	}
	return v.Int64()
}

// unsigned is whole of a column without negative numbers.
func unsigned(v parquet.Value) uint64 {
	if v.Kind() == parquet.Int32 {
		return uint64(uint32(v.Int32()))
	}
	return uint64(v.Int64())
}

// number is a value as a float64. What an integer stands for, its column's logical
// type says.
func (c *converter) number(v parquet.Value) (float64, error) {
	if v.IsNull() {
		return math.NaN(), nil
	}
	if c.decimal != nil {
		return decimal(v, int(c.decimal.Scale))
	}
	switch v.Kind() {
	case parquet.Double:
		return v.Double(), nil
	case parquet.Float:
		return float64(v.Float()), nil
	case parquet.Int32, parquet.Int64:
		if c.unsigned {
			return float64(unsigned(v)), nil
		}
		return float64(whole(v)), nil
	case parquet.Boolean:
		if v.Boolean() {
			return 1, nil
		}
		return 0, nil
	}
	return 0, fmt.Errorf("%s is not a number", v)
}

// decimal is a whole number / 10^scale: an integer, or bytes in two's complement,
// the highest first.
func decimal(v parquet.Value, scale int) (float64, error) {
	n := new(big.Int)
	switch v.Kind() {
	case parquet.Int32, parquet.Int64:
		n.SetInt64(whole(v))
	case parquet.ByteArray, parquet.FixedLenByteArray:
		b := v.ByteArray()
		if len(b) > 32 { // 76 digits, the most that any writer has
			return 0, fmt.Errorf("a decimal has %d bytes", len(b))
		}
		if n.SetBytes(b); len(b) > 0 && b[0] >= 0x80 {
			n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
		}
	default:
		return 0, fmt.Errorf("%s is not a decimal", v)
	}
	if m := n.Int64(); n.IsInt64() && m > -1<<53 && m < 1<<53 && scale >= 0 && scale < len(exact10) {
		return float64(m) / exact10[scale], nil // both exact: it rounds once
	}
	x, err := strconv.ParseFloat(n.String()+"e"+strconv.Itoa(-scale), 64)
	if err != nil {
		return 0, fmt.Errorf("a decimal has the scale %d", scale)
	}
	return x, nil
}

func (c *converter) instant(v parquet.Value) (fleetscore.Micros, error) {
	switch v.Kind() {
	case parquet.ByteArray:
		m, l, ok := c.opt.time(v.ByteArray())
		if !ok {
			return 0, fmt.Errorf("%q is %s", v.ByteArray(), c.opt.whyTime(v.ByteArray()))
		}
		if c.layout == (Layout{}) {
			c.layout = l
		}
		c.layout = c.layout.merge(l)
		return m, nil
	case parquet.Int32, parquet.Int64:
		if _, ok := logical[*format.DateType](c.node); ok {
			return fleetscore.Micros(whole(v) * dayMicros), nil
		}
		t, ok := timestampType(c.node)
		if !ok {
			return c.numberOfTime(v)
		}
		switch t.Unit.Value.Duration() {
		case time.Millisecond:
			return fleetscore.Micros(v.Int64() * 1000), nil
		case time.Nanosecond:
			return floorMicros(v.Int64()), nil
		}
		return fleetscore.Micros(v.Int64()), nil
	case parquet.Int96: // as Spark writes times unless told otherwise: nanoseconds of a Julian day
		t := v.Int96()
		nanos := int64(uint64(t[1])<<32 | uint64(t[0]))
		return fleetscore.Micros((int64(int32(t[2]))-epochJulian)*dayMicros) + floorMicros(nanos), nil
	}
	return 0, fmt.Errorf("%s is not a time", v)
}

// numberOfTime is a time in a column of plain numbers.
func (c *converter) numberOfTime(v parquet.Value) (fleetscore.Micros, error) {
	if m, ok := c.opt.TimeUnit.Micros(whole(v)); ok {
		return m, nil
	}
	if c.opt.Say.TimeUnit == "" {
		return 0, errors.New("the time column holds plain numbers, whose unit isn't known; store timestamps or texts")
	}
	text := strconv.AppendInt(nil, whole(v), 10)
	return 0, fmt.Errorf("%s is %s", text, c.opt.whyTime(text))
}

const epochJulian = 2440588 // the Julian day of 1970-01-01

func timestampType(n parquet.Node) (*format.TimestampType, bool) {
	t, ok := logical[*format.TimestampType](n)
	return t, ok && t.Unit.Value != nil
}

// logical is a column's logical type, if it is a T.
func logical[T format.LogicalTypeValue](n parquet.Node) (t T, ok bool) {
	if l := n.Type().LogicalType(); l != nil {
		t, ok = l.Value.(T)
	}
	return t, ok
}

// WriteParquet writes predictions with the columns of WriteCSV.
func WriteParquet(w io.Writer, p *fleetscore.Predictions) error {
	f := &Frame{}
	f.addRows(&p.Rows)
	f.columns = append(f.columns, column{name: "Prediction", kind: kindDouble, doubles: p.Prediction},
		column{name: "Score", kind: kindDouble, doubles: p.Score})
	return writeParquet(w, f)
}

// WriteRowsParquet writes rows: time, key columns, values.
func WriteRowsParquet(w io.Writer, rows *fleetscore.Rows) error {
	f := &Frame{}
	f.addRows(rows)
	return writeParquet(w, f)
}

// ReadParquet reads rows from a Parquet file; the rules are ReadCSV's.
func ReadParquet(name string, data []byte, schema Schema, opt ReadOptions) (*Input, error) {
	s := &Source{Name: name, Format: Parquet}
	return s.readParquet(data, schema, opt)
}

func (s *Source) readParquet(data []byte, schema Schema, opt ReadOptions) (*Input, error) {
	if err := schema.Validate(); err != nil {
		return nil, err
	}
	if len(schema.Values) == 0 {
		v, err := parquetNumbers(s.Name, data, schema)
		if err != nil {
			return nil, err
		}
		schema.Values = v
	}
	columns := tableOf(schema).wanted(schema.Values)
	if schema.Untimed {
		columns = columns[1:]
	}
	f, err := s.readColumns(data, columns, &opt)
	if err != nil {
		return nil, err
	}
	if schema.Untimed {
		f.columns = append(f.columns, column{kind: kindTime, longs: make([]int64, f.len())})
	}
	records := int64(f.len())
	deleted := func(int) bool { return false }
	if s.Delta != nil && s.Delta.Deleted != nil {
		deleted = func(row int) bool { return s.Delta.Deleted(uint64(row)) }
	}
	times := f.column(schema.Time).longs
	keep := make([]int, 0, len(times))
	for i, t := range times {
		if gone := deleted(i); gone {
			records--
		} else if opt.wants(fleetscore.Micros(t)) {
			keep = append(keep, i)
		}
	}
	if len(keep) < len(times) {
		f = f.pick(keep)
	}
	rows := f.rows(tableOf(schema), schema.Values)
	for _, k := range rows.Keys {
		if values := k.Values(); len(values) != len(schema.Key) || slices.Contains(values, "") {
			return nil, fleetscore.Errorf(fleetscore.Invalid, "read", s.Name, "key %q: %s", k.String(), whyKey)
		}
	}
	return &Input{Rows: rows, Layout: RFC3339, Records: records}, nil
}

func tableOf(s Schema) TableSchema { return TableSchema{Time: s.Time, Key: s.Key} }

func parquetNumbers(name string, data []byte, s Schema) ([]string, error) {
	file, err := sound.Open(data)
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Corrupt, "read", name, "not a sound Parquet file: %w", err)
	}
	taken := map[string]bool{s.Time: true}
	for _, k := range s.Key {
		taken[k] = true
	}
	var out []string
	for _, n := range parquetNames(file) {
		leaf, ok := file.Schema().Lookup(n)
		if !ok || taken[n] || checkColumn(n) != nil || !leaf.Node.Leaf() {
			continue
		}
		switch leaf.Node.Type().Kind() {
		case parquet.Double, parquet.Float, parquet.Int32, parquet.Int64:
			out = append(out, n)
		}
	}
	return out, nil
}

// floorMicros rounds nanoseconds down, before 1970 too.
func floorMicros(nanos int64) fleetscore.Micros {
	m := nanos / 1000
	if nanos%1000 < 0 {
		m--
	}
	return fleetscore.Micros(m)
}
