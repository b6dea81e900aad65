// Package ipc reads rows from Arrow's IPC format and writes results in it. Programs that
// hold columns in memory (pandas, Polars, DuckDB) exchange them in this format much faster
// than in CSV or Parquet: the bytes of a column of numbers are the column.
//
// Files (also called Feather version 2) and streams are read, with buffers compressed by
// LZ4 or zstd too. The package keeps no state; no goroutine of it outlives a call.
package ipc

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
)

// The first bytes of a file and of a stream.
const (
	FileMagic   = "ARROW1"
	StreamMagic = "\xff\xff\xff\xff"
)

const opRead = "read"

// Read reads the rows of the columns that the schema names. Value columns without nulls
// aren't copied where that is possible: nobody may change what they hold.
func Read(ctx context.Context, name string, r io.Reader, sizeBytes int64, schema table.Schema, opt table.ReadOptions) (in *table.Input, err error) {
	if err := errors.Join(schema.Validate(), ctx.Err()); err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil { // the library trusts the offsets of a file
			in, err = nil, unsound(name, fmt.Errorf("%v", p))
		}
	}()
	f := &reader{name: name, schema: schema, opt: opt}
	content := bufio.NewReader(r)
	head, _ := content.Peek(len(FileMagic)) // an error comes again when it is read
	if string(head) == FileMagic {
		err = f.file(content, sizeBytes)
	} else {
		err = f.stream(content, sizeBytes)
	}
	if err != nil {
		return nil, err
	}
	return f.input(ctx)
}

// ReadStream is Read for a stream that lies in memory, such as a file that is mapped. Value columns may refer to this memory.
func ReadStream(ctx context.Context, name string, stream []byte, schema table.Schema, opt table.ReadOptions) (in *table.Input, err error) {
	if err := errors.Join(schema.Validate(), ctx.Err()); err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil { // the library trusts the offsets of a stream
			in, err = nil, unsound(name, fmt.Errorf("%v", p))
		}
	}()
	if _, err := checkStream(bytes.NewReader(stream)); err != nil {
		return nil, unsound(name, err)
	}
	f := &reader{name: name, schema: schema, opt: opt}
	r, err := ipc.NewReaderFromMessageReader(&messages{rest: stream}, ipc.WithAllocator(bounded(int64(len(stream)))))
	if err := f.batches(r, err); err != nil {
		return nil, err
	}
	return f.input(ctx)
}

func unsound(name string, err error) error {
	if e, ok := errors.AsType[*fleetscore.Error](err); ok {
		return e
	}
	return fleetscore.Errorf(fleetscore.Corrupt, opRead, name, "not a sound Arrow file: %w", err)
}

// reader gathers the columns of a file.
type reader struct {
	name   string
	schema table.Schema
	opt    table.ReadOptions

	begun  bool
	times  []fleetscore.Micros
	keys   []fleetscore.Key
	index  []uint32                  // per row, its key
	places map[fleetscore.Key]uint32 // of keys; made for the second batch
	values [][]float64
}

// file reads all record batches of a file. Its dictionaries may stand anywhere, so the whole
// file is needed first.
func (f *reader) file(r io.Reader, sizeBytes int64) error {
	var buf bytes.Buffer
	buf.Grow(int(max(sizeBytes, 0)) + bytes.MinRead)
	if _, err := buf.ReadFrom(r); err != nil {
		return fleetscore.Wrap(opRead, f.name, err)
	}
	if err := checkFile(buf.Bytes()); err != nil {
		return unsound(f.name, err)
	}
	in, err := ipc.NewFileReader(bytes.NewReader(buf.Bytes()), ipc.WithAllocator(bounded(int64(buf.Len()))))
	if err != nil {
		return unsound(f.name, err)
	}
	defer in.Close()
	if err := f.begin(in.Schema()); err != nil {
		return err
	}
	for i := range in.NumRecords() {
		batch, err := in.RecordBatch(i)
		if err != nil {
			return unsound(f.name, err)
		}
		if err := f.add(batch); err != nil {
			return err
		}
	}
	return nil
}

// stream reads all record batches of a stream.
func (f *reader) stream(r io.Reader, sizeBytes int64) error {
	memory := bounded(sizeBytes)
	r, err := checkStream(granting{r, memory})
	if err != nil {
		return unsound(f.name, err)
	}
	in, err := ipc.NewReader(r, ipc.WithAllocator(memory))
	return f.batches(in, err)
}

// batches reads all record batches of a stream that was opened, or not.
func (f *reader) batches(in *ipc.Reader, err error) error {
	if err != nil {
		return unsound(f.name, err)
	}
	defer in.Release()
	if err := f.begin(in.Schema()); err != nil {
		return err
	}
	for in.Next() {
		if err := f.add(in.RecordBatch()); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return unsound(f.name, err)
	}
	return nil
}

// begin checks the columns.
func (f *reader) begin(s *arrow.Schema) error {
	var have []string
	for _, c := range s.Fields() {
		have = append(have, c.Name)
	}
	if len(f.schema.Values) == 0 {
		for _, c := range s.Fields() {
			if c.Name != f.schema.Time && !slices.Contains(f.schema.Key, c.Name) && isNumber(c.Type) {
				f.schema.Values = append(f.schema.Values, c.Name)
			}
		}
	}
	for _, names := range [][]string{{f.schema.Time}, f.schema.Key, f.schema.Values} {
		for _, n := range names {
			if n == "" && f.schema.Untimed {
				continue
			}
			if !slices.Contains(have, n) {
				return table.MissingColumn(f.name, n, have)
			}
			if len(s.FieldIndices(n)) > 1 {
				return fleetscore.Errorf(fleetscore.Invalid, opRead, f.name, "two columns are named %s", n)
			}
		}
	}
	f.values = make([][]float64, len(f.schema.Values))
	return nil
}

func isNumber(t arrow.DataType) bool {
	return arrow.IsInteger(t.ID()) || arrow.IsFloating(t.ID()) || t.ID() == arrow.DECIMAL128
}

// add adds the rows of a batch.
func (f *reader) add(batch arrow.RecordBatch) (err error) {
	if batch.NumRows() == 0 {
		return nil
	}
	if limit := f.opt.MaxRows; limit > 0 && int64(len(f.times))+batch.NumRows() > limit {
		return fleetscore.Errorf(fleetscore.Exhausted, opRead, f.name, "the file holds more than %d rows", limit).WithHint("send the rows in several parts")
	}
	column := func(name string) arrow.Array { return batch.Column(batch.Schema().FieldIndices(name)[0]) }
	times := make([]fleetscore.Micros, batch.NumRows()) // of rows without times, package table says what they are
	if !f.schema.Untimed {
		if times, err = timesOf(column(f.schema.Time), f.opt); err != nil {
			return f.problem(f.schema.Time, err)
		}
	}
	var keep []int // nil: all rows
	if f.opt.Interval != nil {
		keep = []int{}
		for i, t := range times {
			if f.opt.Interval.ContainsMicros(t) {
				keep = append(keep, i)
			}
		}
	}
	if err := f.addKeys(column, int(batch.NumRows()), keep); err != nil {
		return err
	}
	f.times = join(f.times, times, keep, f.begun)
	for i, n := range f.schema.Values {
		v, err := numbersOf(column(n))
		if err != nil {
			return f.problem(n, err)
		}
		f.values[i] = join(f.values[i], v, keep, f.begun)
	}
	f.begun = true
	return nil
}

// addKeys adds the keys of the kept rows; nil keeps all. All columns are numbered at the same time.
func (f *reader) addKeys(column func(name string) arrow.Array, rows int, keep []int) error {
	columns, errs := make([]keyColumn, len(f.schema.Key)), make([]error, len(f.schema.Key))
	var wg sync.WaitGroup
	for i, n := range f.schema.Key {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil { // the library trusts the offsets of a file
					errs[i] = unsound(f.name, fmt.Errorf("%v", p))
				}
			}()
			var err error
			if columns[i], err = keyColumnOf(column(n)); err != nil {
				errs[i] = f.problem(n, err)
			}
		})
	}
	wg.Wait()
	if err := cmp.Or(errs...); err != nil {
		return err
	}
	index, n := combineKeys(columns, rows)
	index = join(nil, index, keep, false)
	first := inOrder(index, n)
	keys := make([]fleetscore.Key, len(first))
	values := make([]string, len(columns))
	for i, at := range first {
		row := at
		if keep != nil {
			row = keep[at]
		}
		for c := range columns {
			values[c] = columns[c].text(row)
		}
		var err error
		if keys[i], err = fleetscore.NewKey(values...); err != nil {
			return fleetscore.Errorf(fleetscore.Invalid, opRead, f.name, "row %d: %w", len(f.index)+at+1, err)
		}
	}
	f.join(keys, index)
	return nil
}

// join adds the keys of a batch to those of earlier ones.
func (f *reader) join(keys []fleetscore.Key, index []uint32) {
	if !f.begun {
		f.keys, f.index = keys, index
		return
	}
	if f.places == nil {
		f.places = make(map[fleetscore.Key]uint32, len(f.keys))
		for i, k := range f.keys {
			f.places[k] = uint32(i)
		}
	}
	place := make([]uint32, len(keys))
	for i, k := range keys {
		at, ok := f.places[k]
		if !ok {
			at = uint32(len(f.keys))
			f.keys, f.places[k] = append(f.keys, k), at
		}
		place[i] = at
	}
	for _, k := range index {
		f.index = append(f.index, place[k])
	}
}

func (f *reader) problem(column string, err error) error {
	e := fleetscore.Errorf(fleetscore.Invalid, opRead, f.name, "column %s: %w", column, err)
	if errors.Is(err, errUnit) && f.opt.Say.TimeUnit != "" {
		e = e.WithHint("say what the numbers count with %s: s, ms, us or ns", f.opt.Say.TimeUnit)
	}
	return e
}

// join appends the kept values to those of earlier batches. The first batch isn't copied.
func join[T any](have, more []T, keep []int, begun bool) []T {
	if keep == nil && !begun {
		return more
	}
	if keep == nil {
		return append(slices.Clip(have), more...)
	}
	for _, i := range keep {
		have = append(have, more[i])
	}
	return have
}

// input puts the columns together.
func (f *reader) input(ctx context.Context) (*table.Input, error) {
	rows := &fleetscore.Rows{TimeName: f.schema.Time, KeyNames: f.schema.Key, ValueNames: f.schema.Values, Times: f.times, Values: f.values}
	if len(f.times) > 0 {
		rows.Keys, rows.KeyIndex = f.keys, f.index
	}
	return &table.Input{Rows: rows, Layout: table.RFC3339, Records: int64(len(f.times))}, ctx.Err()
}
