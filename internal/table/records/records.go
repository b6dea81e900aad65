// Package records reads files of rows as records, whose columns are those of the file: CSV and
// Parquet. It is used for data that isn't of a fleet, such as reference data of queries. It
// keeps no state and is safe for concurrent use.
package records

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/value"
	"github.com/fleetscore/fleetscore/internal/table/sound"
)

// Row is a row of a file, and its line there, or its number.
type Row struct {
	Line   int
	Record *value.Record
}

// Read reads a CSV file, whose first line names the columns and whose values are texts, or
// a Parquet file with plain columns. Empty cells are NULL. The name's ending tells which it is.
func Read(name string, data []byte) ([]Row, error) {
	var out []Row
	var err error
	if strings.EqualFold(path.Ext(name), ".parquet") {
		out, err = readParquet(data)
	} else {
		out, err = readCSV(data)
	}
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "read rows", name, "%w", err)
	}
	return out, nil
}

func readCSV(data []byte) (out []Row, err error) {
	c := csv.NewReader(bytes.NewReader(data))
	names, err := c.Read()
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names[0] = strings.TrimPrefix(names[0], "\xef\xbb\xbf")
	shape := value.NewShape(names)
	for {
		cells, err := c.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		values := make([]value.Value, len(cells))
		for i, s := range cells {
			if s != "" {
				values[i] = value.String(s)
			}
		}
		line, _ := c.FieldPos(0)
		out = append(out, Row{line, &value.Record{Shape: shape, Values: values}})
	}
}

// maxCells bounds what a Parquet file, which may be small, unpacks to.
const maxCells = 64 << 20

func readParquet(data []byte) (out []Row, err error) {
	defer func() { // parquet-go panics at some damaged files
		if p := recover(); p != nil {
			out, err = nil, fmt.Errorf("the file is damaged: %v", p)
		}
	}()
	f, err := sound.Open(data)
	if err != nil {
		return nil, err
	}
	var names []string
	var convert []func(parquet.Value) value.Value
	for _, field := range f.Schema().Fields() {
		if !field.Leaf() || field.Repeated() {
			return nil, fmt.Errorf("the column %s has lists or records in it; plain columns are read", field.Name())
		}
		to, err := converter(field.Type())
		if err != nil {
			return nil, fmt.Errorf("the column %s: %w", field.Name(), err)
		}
		names, convert = append(names, field.Name()), append(convert, to)
	}
	if cells := f.NumRows() * int64(len(names)); cells > maxCells {
		return nil, fmt.Errorf("it has %d cells, more than %d", cells, maxCells)
	}
	shape := value.NewShape(names)
	for _, group := range f.RowGroups() {
		rows := group.Rows()
		buf := make([]parquet.Row, 1024)
		for err = nil; err == nil; {
			var n int
			n, err = rows.ReadRows(buf)
			for _, row := range buf[:n] {
				values := make([]value.Value, len(names))
				for _, v := range row {
					if !v.IsNull() {
						values[v.Column()] = convert[v.Column()](v)
					}
				}
				out = append(out, Row{len(out) + 1, &value.Record{Shape: shape, Values: values}})
			}
		}
		_ = rows.Close()
		if !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	return out, nil
}

// converter makes values of a column's type.
func converter(t parquet.Type) (func(parquet.Value) value.Value, error) {
	if l := t.LogicalType(); l != nil {
		if stamp, ok := l.Value.(*format.TimestampType); ok {
			unit := stamp.Unit.Value.Duration()
			return func(v parquet.Value) value.Value {
				if unit < time.Microsecond {
					return value.Time(fleetscore.Micros(v.Int64() / int64(time.Microsecond/unit)))
				}
				return value.Time(fleetscore.Micros(v.Int64() * int64(unit/time.Microsecond)))
			}, nil
		}
	}
	switch t.Kind() {
	case parquet.Boolean:
		return func(v parquet.Value) value.Value { return value.Of(v.Boolean()) }, nil
	case parquet.Int32:
		return func(v parquet.Value) value.Value { return value.Int(int64(v.Int32())) }, nil
	case parquet.Int64:
		return func(v parquet.Value) value.Value { return value.Int(v.Int64()) }, nil
	case parquet.Float:
		return func(v parquet.Value) value.Value { return value.Number(float64(v.Float())) }, nil
	case parquet.Double:
		return func(v parquet.Value) value.Value { return value.Number(v.Double()) }, nil
	case parquet.ByteArray:
		return func(v parquet.Value) value.Value { return value.String(string(v.ByteArray())) }, nil
	default:
		return nil, fmt.Errorf("its type %s isn't read", t)
	}
}
