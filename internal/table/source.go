package table

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/fleetscore/fleetscore"
)

// Format is how rows are written in a file.
type Format int

// The formats.
const (
	CSV Format = iota
	NDJSON
	Parquet
	Other // what Source.Rows reads
)

// Source is a file of rows that is read once, from its beginning.
type Source struct {
	Name      string // for messages
	Format    Format
	SizeBytes int64 // where known
	Open      func(context.Context) (io.ReadCloser, error)
	// Rows reads a file of the format Other; sizeBytes is 0 where it isn't known.
	Rows      func(ctx context.Context, name string, r io.Reader, sizeBytes int64, schema Schema, opt ReadOptions) (*Input, error)
	Constants []Constant // columns that the file itself need not have; a file of the format Other gets none
	Delta     *DeltaFile // what a Delta table says of the file, which is Parquet; may be nil
}

// Constant is a column with the same value in all rows of a file, such as the name
// of a folder date=2026-11-25 says. A column of that name in the file takes precedence.
type Constant struct {
	Column string
	text   []byte
	json   json.RawMessage
}

// NewConstant makes a constant; null is a missing value.
func NewConstant(column, value string, null bool) Constant {
	if null {
		return Constant{column, nil, json.RawMessage("null")}
	}
	c := Constant{Column: column, text: []byte(value)}
	if _, ok := parseNumber(c.text); ok && json.Valid(c.text) {
		c.json = c.text
	} else {
		c.json, _ = json.Marshal(value) // a string: can't fail
	}
	return c
}

func columnsOf(list []Constant) (out []string) {
	for _, c := range list {
		out = append(out, c.Column)
	}
	return out
}

// DeltaFile is what a Delta table says of one of its files.
type DeltaFile struct {
	// Columns maps the table's names of columns to those in files, and to their field
	// ids where these count (0 where they don't). Columns of the table that a file
	// lacks are missing in its rows. Nil: names are those in the file.
	Columns map[string]DeltaColumn
	Deleted func(row uint64) bool // rows that were deleted, by their place in the file; may be nil
}

// DeltaColumn is where a column lies in files.
type DeltaColumn struct {
	Physical string
	ID       int
}

// lines is the format of a file of lines.
func (s *Source) lines(schema *Schema, opt ReadOptions) lineFormat {
	if s.Format == NDJSON {
		return &ndjsonFile{s.Name, schema, s.Constants}
	}
	return &csvFile{name: s.Name, schema: schema, opt: opt, consts: s.Constants, sep: opt.Separator}
}

// ReadSources reads the rows of files, in their order. The first file decides which
// value columns there are, where none are named.
//
// With an error that malformed rows are to blame for comes an Input that names
// them; its rows mean nothing.
func ReadSources(ctx context.Context, files []Source, schema Schema, opt ReadOptions) (*Input, error) {
	var out *Input
	var places map[fleetscore.Key]uint32
	for len(files) > 0 {
		n := 0
		for n < len(files) && files[n].Format < Parquet {
			n++ // neighbouring files of lines are read together
		}
		var in *Input
		var err error
		if n > 0 {
			in, err = readLines(ctx, files[:n], schema, opt)
		} else {
			n = 1
			in, err = readColumns(ctx, &files[0], schema, opt)
		}
		if err != nil {
			return in, err
		}
		files = files[n:]
		if out == nil {
			out, schema.Values = in, in.Rows.ValueNames
			continue
		}
		if places == nil {
			places = make(map[fleetscore.Key]uint32, len(out.Rows.Keys))
			for i, k := range out.Rows.Keys {
				places[k] = uint32(i)
			}
		}
		appendRows(out.Rows, in.Rows, places)
		out.Layout = out.Layout.merge(in.Layout)
		out.Records, out.Rejected, out.Rejects = out.Records+in.Records, out.Rejected+in.Rejected, append(out.Rejects, in.Rejects...)
	}
	if out == nil {
		out = &Input{Rows: &fleetscore.Rows{TimeName: schema.Time, KeyNames: schema.Key, ValueNames: schema.Values, Values: make([][]float64, len(schema.Values))}, Layout: RFC3339}
	}
	if schema.Untimed {
		for i := range out.Rows.Times {
			out.Rows.Times[i] = fleetscore.Micros(i + 1)
		}
	}
	return out, nil
}

// appendRows adds the rows of b, which has the same columns, to a, whose keys have
// the given places.
func appendRows(a, b *fleetscore.Rows, places map[fleetscore.Key]uint32) {
	place := make([]uint32, len(b.Keys))
	for i, k := range b.Keys {
		p, ok := places[k]
		if !ok {
			p = uint32(len(a.Keys))
			places[k] = p
			a.Keys = append(a.Keys, k)
		}
		place[i] = p
	}
	for _, k := range b.KeyIndex {
		a.KeyIndex = append(a.KeyIndex, place[k])
	}
	a.Times = append(a.Times, b.Times...)
	for c := range a.Values {
		a.Values[c] = append(a.Values[c], b.Values[c]...)
	}
}

func readColumns(ctx context.Context, s *Source, schema Schema, opt ReadOptions) (*Input, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := s.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if s.Format == Other {
		return s.Rows(ctx, s.Name, r, s.SizeBytes, schema, opt)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fleetscore.Wrap("read", s.Name, err)
	}
	if opt.Progress != nil {
		opt.Progress.Add(int64(len(data)))
	}
	return s.readParquet(data, schema, opt)
}

// MissingColumn is the error for a column that isn't among those there are; how says
// how these were found, and may be empty.
func MissingColumn(name, column string, have []string) error {
	return missingColumn(name, column, have, "")
}

// maxNamed is how many columns a message names.
const maxNamed = 40

// missingColumn names what is most likely to blame.
func missingColumn(name, column string, have []string, how string) error {
	shown := have
	if len(have) > maxNamed {
		shown = append(slices.Clone(have[:maxNamed]), fmt.Sprintf("and %d more", len(have)-maxNamed))
	}
	hint := "the columns are: " + strings.Join(shown, ", ")
	if len(hint) > 2000 {
		hint = strings.ToValidUTF8(hint[:2000], "") + "…"
	}
	if how != "" {
		hint = "the header was " + how + "; " + hint
	}
	return fleetscore.Errorf(fleetscore.Invalid, "read", name, "there is no column %q", column).WithHint("%s", likely(column, have)+hint)
}

// likely says what makes a column that is there another one: upper and lower case,
// spaces, or a slip of the fingers.
func likely(column string, have []string) string {
	plain := func(s string) string { return strings.ToLower(strings.TrimSpace(s)) }
	for _, h := range have {
		switch {
		case strings.EqualFold(h, column):
			return "the header has " + strconv.Quote(h) + ": upper and lower case count; "
		case strings.TrimSpace(h) == strings.TrimSpace(column):
			return "the header has " + strconv.Quote(h) + ": the space beside it counts; "
		case plain(h) == plain(column):
			return "the header has " + strconv.Quote(h) + ": upper and lower case and the space beside it count; "
		}
	}
	if slip := fleetscore.Nearest(column, have); slip != "" {
		return "is " + slip + " meant? "
	}
	return ""
}

// TimeUnit is what a time that is a number counts, since 1970-01-01 UTC.
type TimeUnit string

// timeUnits are the units and how many of each a second has.
var timeUnits = []struct {
	unit TimeUnit
	rate int64
	name string
}{{"s", 1, "seconds"}, {"ms", 1e3, "milliseconds"}, {"us", 1e6, "microseconds"}, {"ns", 1e9, "nanoseconds"}}

// Validate refuses what is no unit.
func (u TimeUnit) Validate() error {
	if u == "" || u.rate() > 0 {
		return nil
	}
	return fleetscore.Errorf(fleetscore.Invalid, "read times", string(u), "a unit is s, ms, us or ns")
}

func (u TimeUnit) rate() int64 {
	for _, t := range timeUnits {
		if t.unit == u {
			return t.rate
		}
	}
	return 0
}

// Micros converts a whole number of units.
func (u TimeUnit) Micros(n int64) (fleetscore.Micros, bool) {
	rate := u.rate()
	switch {
	case rate == 1e9:
		return floorMicros(n), true
	case rate == 0 || n > (1<<62)/(1e6/rate) || n < -(1<<62)/(1e6/rate):
		return 0, false
	}
	return fleetscore.Micros(n * (1e6 / rate)), true
}

// number reads a time that is a number.
func (u TimeUnit) number(b []byte) (fleetscore.Micros, bool) {
	if n, err := strconv.ParseInt(string(b), 10, 64); err == nil {
		return u.Micros(n)
	}
	x, ok := parseNumber(b)
	if x *= 1e6 / float64(max(u.rate(), 1)); len(b) == 0 || !ok || x != x || x > 1<<62 || x < -1<<62 {
		return 0, false
	}
	m := fleetscore.Micros(x)
	if x < float64(m) {
		m-- // down, before 1970 too
	}
	return m, true
}

// time reads a time as the files have it.
func (o *ReadOptions) time(b []byte) (fleetscore.Micros, Layout, bool) {
	if o.TimeUnit != "" {
		if m, ok := o.TimeUnit.number(b); ok {
			return m, RFC3339, true
		}
	}
	return parseTime(b)
}

// Outside tells whether no time from first to last, written as files write times, is
// wanted; last may be cut by less than slack. It is false if one of them can't be read.
func (o *ReadOptions) Outside(first, last string, slack time.Duration) bool {
	a, _, ok1 := o.time([]byte(first))
	b, _, ok2 := o.time([]byte(last))
	if o.Interval == nil || !ok1 || !ok2 {
		return false
	}
	return a > fleetscore.MicrosOf(o.Interval.To) || b+fleetscore.Micros(slack.Microseconds()) <= fleetscore.MicrosOf(o.Interval.From)
}

// whyTime says what is wrong with a text that is no time. Of a number it says which
// unit gives a time of our days.
func (o *ReadOptions) whyTime(b []byte) string {
	b = bytes.Trim(b, `"`)
	x, ok := parseNumber(b)
	if len(b) == 0 || !ok || o.TimeUnit != "" || o.Say.TimeUnit == "" {
		return whyTime
	}
	why := "a number, whose unit isn't known: set " + o.Say.TimeUnit + " to s, ms, us or ns"
	for _, t := range timeUnits {
		if s := x / float64(t.rate); s >= 3e8 && s < 8e9 { // 1979 to 2223
			m, _ := t.unit.number(b)
			why += "; as " + t.name + " (" + string(t.unit) + ") it is " + m.String()
		}
	}
	return why
}

// whyNumber says what is wrong with a text that is no number.
func (o *ReadOptions) whyNumber(b []byte) string {
	if _, ok := parseNumber(bytes.Replace(b, []byte{','}, []byte{'.'}, 1)); ok && o.Decimal != ',' && o.Say.Decimal != "" {
		return whyNumber + " as long as its decimals stand behind a point: set " + o.Say.Decimal + " to a comma"
	}
	return whyNumber
}

func hasConstant(list []Constant, name string) (Constant, bool) {
	i := slices.IndexFunc(list, func(c Constant) bool { return c.Column == name })
	if i < 0 {
		return Constant{}, false
	}
	return list[i], true
}

// find is the place of a column, which may have another name in the file than in its
// table.
func (s *Source) find(file *parquet.File, name string) (parquet.LeafColumn, bool) {
	if s.Delta == nil || s.Delta.Columns == nil {
		return file.Schema().Lookup(name)
	}
	at := s.Delta.Columns[name]
	if at.ID != 0 {
		for _, f := range file.Schema().Fields() {
			if id, ok := f.(interface{ ID() int }); ok && id.ID() == at.ID {
				return file.Schema().Lookup(f.Name())
			}
		}
	}
	return file.Schema().Lookup(at.Physical)
}

// absent is a column that the file lacks: a constant, or missing values.
func (s *Source) absent(w wanted, file *parquet.File, opt *ReadOptions) (column, error) {
	out, n := column{name: w.name, kind: w.kind}, int(file.NumRows())
	c, ok := hasConstant(s.Constants, w.name)
	if !ok && w.added {
		switch w.kind {
		case kindDouble:
			out.doubles = slices.Repeat([]float64{math.NaN()}, n)
		case kindText:
			out = constant(w.name, "", n)
		default:
			out.longs, out.zero = make([]int64, n), w.optional
		}
		return out, nil
	}
	if !ok {
		have := parquetNames(file)
		if s.Delta != nil && s.Delta.Columns != nil {
			if _, ok := s.Delta.Columns[w.name]; ok && w.kind == kindDouble {
				out.doubles = slices.Repeat([]float64{math.NaN()}, n)
				return out, nil
			}
			have = slices.Sorted(maps.Keys(s.Delta.Columns))
		}
		return out, missingColumn(s.Name, w.name, append(have, columnsOf(s.Constants)...), "")
	}
	switch w.kind {
	case kindDouble:
		x, ok := parseNumber(c.text)
		if !ok {
			return out, fleetscore.Errorf(fleetscore.Invalid, "read", s.Name, "%s=%s: %s", w.name, c.text, whyNumber)
		}
		out.doubles = slices.Repeat([]float64{x}, n)
	case kindTime:
		m, _, ok := opt.time(c.text)
		if !ok {
			return out, fleetscore.Errorf(fleetscore.Invalid, "read", s.Name, "%s=%s: %s", w.name, c.text, opt.whyTime(c.text))
		}
		out.longs = slices.Repeat([]int64{int64(m)}, n)
	default:
		out = constant(w.name, string(c.text), n)
	}
	return out, nil
}
