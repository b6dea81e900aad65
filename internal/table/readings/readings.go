// Package readings writes and reads files of raw readings: Parquet files with a row for each
// reading of a hub. docs/formats/store.md describes their columns. It keeps no state and is safe
// for concurrent use.
package readings

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/parquet-go/parquet-go"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/table/sound"
)

// The columns that each file has besides those of the readings.
const (
	colSeq     = "_sequence"
	colArrived = "_arrived"
	colUnsure  = "_unsure_us"
	colSource  = "_source"
	colID      = "_id"
)

// textSuffix follows the name of a column of texts where there is one of numbers too.
const textSuffix = "_text"

// field is a column of the readings: the entry of the file's metadata, by which the file is read.
type field struct {
	Name   string `json:"name"`   // of the readings' column
	Column string `json:"column"` // of the file
	Text   bool   `json:"text,omitempty"`
}

// layout is the metadata of a file.
type layout struct {
	Key    []string `json:"key"`
	Time   string   `json:"time"`
	Fields []field  `json:"fields"`
}

const layoutKey = "fleetscore.readings"

// layoutOf finds names for the columns of messages.
func layoutOf(key []string, time string, messages []hub.Message) layout {
	l := layout{Key: key, Time: time}
	taken := map[string]bool{colSeq: true, colArrived: true, colUnsure: true, colSource: true, colID: true, time: true}
	for _, k := range key {
		taken[k] = true
	}
	for _, text := range []bool{false, true} {
		for _, m := range messages {
			for _, c := range m.Readings.Columns {
				if (c.Strings != nil) != text || slices.ContainsFunc(l.Fields, func(f field) bool { return f.Name == c.Name && f.Text == text }) {
					continue
				}
				f := field{c.Name, c.Name, text}
				for taken[f.Column] {
					f.Column += textSuffix
				}
				taken[f.Column] = true
				l.Fields = append(l.Fields, f)
			}
		}
	}
	return l
}

// Encode writes messages with readings as a Parquet file.
func Encode(w io.Writer, key []string, time string, messages []hub.Message) error {
	l := layoutOf(key, time, messages)
	meta, err := json.Marshal(l)
	if err != nil {
		return err
	}
	group := parquet.Group{colSeq: parquet.Int(64), colArrived: parquet.Timestamp(parquet.Microsecond), colUnsure: parquet.Int(64), colSource: parquet.String(), colID: parquet.Optional(parquet.String()), time: parquet.Timestamp(parquet.Microsecond)}
	for _, k := range key {
		group[k] = parquet.String()
	}
	for _, f := range l.Fields {
		group[f.Column] = parquet.Optional(parquet.Leaf(parquet.DoubleType))
		if f.Text {
			group[f.Column] = parquet.Optional(parquet.String())
		}
	}
	schema := parquet.NewSchema("readings", group)
	out := parquet.NewGenericWriter[any](w, schema, parquet.Compression(&parquet.Snappy), parquet.CreatedBy("fleetscore", "1", ""), parquet.KeyValueMetadata(layoutKey, string(meta)))
	at := map[string]int{}
	for i, path := range schema.Columns() {
		at[path[0]] = i
	}
	rows := make([]parquet.Row, 0, 1024)
	for _, m := range messages {
		for i := range m.Readings.Times {
			rows = append(rows, rowOf(m, i, l, at))
			if len(rows) == cap(rows) {
				if _, err := out.WriteRows(rows); err != nil {
					return err
				}
				rows = rows[:0]
			}
		}
	}
	if _, err := out.WriteRows(rows); err != nil {
		return err
	}
	return out.Close()
}

// rowOf is one reading as a row; at says where the columns are.
func rowOf(m hub.Message, i int, l layout, at map[string]int) parquet.Row {
	r := m.Readings
	row := make(parquet.Row, len(at))
	for c := range row {
		row[c] = parquet.NullValue().Level(0, 0, c)
	}
	required := func(name string, v parquet.Value) { row[at[name]] = v.Level(0, 0, at[name]) }
	optional := func(name string, v parquet.Value) { row[at[name]] = v.Level(0, 1, at[name]) }
	required(colSeq, parquet.Int64Value(int64(m.Seq)))
	required(colArrived, parquet.Int64Value(int64(m.Arrived)))
	required(colUnsure, parquet.Int64Value(int64(m.Unsure)))
	required(colSource, parquet.ByteArrayValue([]byte(m.Source)))
	required(l.Time, parquet.Int64Value(int64(r.Times[i])))
	for k, v := range r.Keys[r.KeyIndex[i]].Values() {
		required(l.Key[k], parquet.ByteArrayValue([]byte(v)))
	}
	if r.IDs != nil && r.IDs[i] != "" {
		optional(colID, parquet.ByteArrayValue([]byte(r.IDs[i])))
	}
	for _, c := range r.Columns {
		f := slices.IndexFunc(l.Fields, func(f field) bool { return f.Name == c.Name && f.Text == (c.Strings != nil) })
		switch {
		case c.Strings != nil && (c.Present == nil || c.Present[i]):
			optional(l.Fields[f].Column, parquet.ByteArrayValue([]byte(c.Strings[i])))
		case c.Strings == nil && !math.IsNaN(c.Numbers[i]):
			optional(l.Fields[f].Column, parquet.DoubleValue(c.Numbers[i]))
		}
	}
	return row
}

// Decode calls fn with the messages of a file that have readings, in their order.
func Decode(data []byte, key []string, time string, fn func(hub.Message) error) (err error) {
	busy := false  // fn is
	defer func() { // parquet-go panics at some damaged files
		if busy {
			return
		}
		if p := recover(); p != nil {
			err = fmt.Errorf("the file is damaged: %v", p)
		}
	}()
	hand := fn
	fn = func(m hub.Message) error {
		busy = true
		err := hand(m)
		busy = false
		return err
	}
	file, err := sound.Open(data)
	if err != nil {
		return err
	}
	text, _ := file.Lookup(layoutKey)
	var l layout
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return fmt.Errorf("it isn't a file of the archive: %w", err)
	}
	if !slices.Equal(l.Key, key) || l.Time != time {
		return fmt.Errorf("its readings have the key columns %q and the time column %s", l.Key, l.Time)
	}
	at := map[string]int{}
	for i, path := range file.Schema().Columns() {
		at[path[0]] = i
	}
	names := append([]string{colSeq, colArrived, colUnsure, colSource, colID, l.Time}, l.Key...)
	for _, f := range l.Fields {
		names = append(names, f.Column)
	}
	for _, n := range names {
		if _, ok := at[n]; !ok {
			return fmt.Errorf("it lacks the column %s", n)
		}
	}
	d := &decoder{layout: l, at: at, fn: fn}
	in := parquet.NewReader(file)
	defer in.Close()
	rows := make([]parquet.Row, 1024)
	for {
		n, err := in.ReadRows(rows)
		for _, row := range rows[:n] {
			if err := d.add(row); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return d.flush()
		} else if err != nil {
			return err
		}
	}
}

// decoder collects the readings of one message.
type decoder struct {
	layout
	at   map[string]int
	fn   func(hub.Message) error
	m    hub.Message
	keys map[fleetscore.Key]uint32
}

func (d *decoder) add(row parquet.Row) error {
	if len(row) != len(d.at) {
		return errors.New("its columns aren't plain ones")
	}
	seq := uint64(row[d.at[colSeq]].Int64())
	if d.m.Readings != nil && d.m.Seq != seq {
		if err := d.flush(); err != nil {
			return err
		}
	}
	if d.m.Readings == nil {
		d.keys = map[fleetscore.Key]uint32{}
		d.m = hub.Message{Seq: seq, Readings: &fleetscore.Readings{}, Stamp: hub.Stamp{Source: fleetscore.Source(row[d.at[colSource]].String()),
			Arrived: fleetscore.Micros(row[d.at[colArrived]].Int64()), Unsure: fleetscore.Micros(row[d.at[colUnsure]].Int64())}}
		for _, f := range d.Fields {
			c := fleetscore.ReadingColumn{Name: f.Name}
			if f.Text {
				c.Strings, c.Present = []string{}, []bool{}
			}
			d.m.Readings.Columns = append(d.m.Readings.Columns, c)
		}
	}
	r := d.m.Readings
	parts := make([]string, len(d.Key))
	for i, k := range d.Key {
		parts[i] = row[d.at[k]].String()
	}
	key, err := fleetscore.NewKey(parts...)
	if err != nil {
		return err
	}
	k, ok := d.keys[key]
	if !ok {
		k = uint32(len(r.Keys))
		d.keys[key] = k
		r.Keys = append(r.Keys, key)
	}
	r.KeyIndex, r.Times = append(r.KeyIndex, k), append(r.Times, fleetscore.Micros(row[d.at[d.Time]].Int64()))
	id := ""
	if v := row[d.at[colID]]; !v.IsNull() {
		id = v.String()
	}
	r.IDs = append(r.IDs, id)
	for i, f := range d.Fields {
		c, v := &r.Columns[i], row[d.at[f.Column]]
		switch {
		case f.Text && v.IsNull():
			c.Strings, c.Present = append(c.Strings, ""), append(c.Present, false)
		case f.Text:
			c.Strings, c.Present = append(c.Strings, v.String()), append(c.Present, true)
		case v.IsNull():
			c.Numbers = append(c.Numbers, math.NaN())
		default:
			c.Numbers = append(c.Numbers, v.Double())
		}
	}
	return nil
}

// flush hands on the message that was collected, without columns that none of its readings has.
func (d *decoder) flush() error {
	if d.m.Readings == nil {
		return nil
	}
	m := d.m
	d.m = hub.Message{}
	m.Readings.Columns = slices.DeleteFunc(m.Readings.Columns, func(c fleetscore.ReadingColumn) bool {
		return !slices.Contains(c.Present, true) && !slices.ContainsFunc(c.Numbers, func(x float64) bool { return !math.IsNaN(x) })
	})
	if !slices.ContainsFunc(m.Readings.IDs, func(id string) bool { return id != "" }) {
		m.Readings.IDs = nil
	}
	return d.fn(m)
}
