package table

import (
	"bytes"
	"context"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/fleetscore/fleetscore"
)

// csvScanner cuts CSV (RFC 4180: commas, quotes doubled inside quotes, LF or
// CRLF) into records without copying fields, except quoted ones with quotes
// inside.
type csvScanner struct {
	name   string
	data   []byte
	pos    int
	line   int // of the record read last, 1-based
	next   int // of the record to come
	fields [][]byte
}

// record reads the next record into s.fields; false at the end. Blank lines are
// passed over.
func (s *csvScanner) record() (bool, error) {
	for s.pos < len(s.data) && (s.data[s.pos] == '\n' || s.data[s.pos] == '\r') {
		if s.data[s.pos] == '\n' {
			s.next++
		}
		s.pos++
	}
	if s.pos >= len(s.data) {
		return false, nil
	}
	s.line = s.next
	s.fields = s.fields[:0]
	for {
		if s.pos < len(s.data) && s.data[s.pos] == '"' {
			if err := s.quoted(); err != nil {
				return false, err
			}
		} else {
			start := s.pos
			for s.pos < len(s.data) && s.data[s.pos] != ',' && s.data[s.pos] != '\n' {
				s.pos++
			}
			f := s.data[start:s.pos]
			if n := len(f); n > 0 && f[n-1] == '\r' && (s.pos == len(s.data) || s.data[s.pos] == '\n') {
				f = f[:n-1]
			}
			s.fields = append(s.fields, f)
		}
		if s.pos >= len(s.data) {
			return true, nil
		}
		s.pos++
		if s.data[s.pos-1] == '\n' {
			s.next++
			return true, nil
		}
		if s.pos == len(s.data) { // a comma at the very end
			s.fields = append(s.fields, nil)
			return true, nil
		}
	}
}

func (s *csvScanner) quoted() error {
	s.pos++
	start := s.pos
	doubled := false
	for {
		i := bytes.IndexByte(s.data[s.pos:], '"')
		if i < 0 {
			return s.bad("", "", "a quoted field is not closed")
		}
		s.next += bytes.Count(s.data[s.pos:s.pos+i], []byte{'\n'})
		s.pos += i + 1
		if s.pos < len(s.data) && s.data[s.pos] == '"' {
			doubled = true
			s.pos++
			continue
		}
		break
	}
	f := s.data[start : s.pos-1]
	if doubled {
		f = bytes.ReplaceAll(f, []byte(`""`), []byte(`"`))
	}
	s.fields = append(s.fields, f)
	if s.pos < len(s.data) && s.data[s.pos] == '\r' {
		s.pos++
	}
	if s.pos < len(s.data) && s.data[s.pos] != ',' && s.data[s.pos] != '\n' {
		return s.bad("", "", "text follows a closing quote")
	}
	return nil
}

func (s *csvScanner) bad(column, value, why string) error {
	return badValue(s.name, s.line, column, value, why)
}

func badValue(name string, line int, column, value, why string) error {
	at := "line " + strconv.Itoa(line)
	if column != "" {
		at += ", column " + column
	}
	if len(value) > 60 {
		value = value[:60] + "…"
	}
	if value != "" || column != "" {
		at += ": " + strconv.Quote(value)
	}
	return fleetscore.Errorf(fleetscore.Invalid, "read", name, "%s: %s", at, why)
}

const (
	whyTime   = "not a time such as 2026-11-23 10:00:05.000 or 2026-11-23T10:00:05Z"
	whyNumber = "not a number"
	whyKey    = "a key column is empty or holds the control character U+001F"
)

// ReadCSV reads rows from CSV with a header line. Columns are found by name, in
// any order; others are passed over. An empty value is missing (NaN). The first
// malformed row ends the reading with an error that names line, column and
// value.
func ReadCSV(ctx context.Context, name string, r io.Reader, schema Schema, opt ReadOptions) (*fleetscore.Rows, Layout, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, Layout{}, fleetscore.Wrap("read", name, err)
	}
	return parseCSV(ctx, name, data, schema, opt)
}

// csvColumns are the places of the columns in a record.
type csvColumns struct {
	time   int
	key    []int
	values []int
	width  int
}

func parseCSV(ctx context.Context, name string, data []byte, schema Schema, opt ReadOptions) (*fleetscore.Rows, Layout, error) {
	if err := schema.validate(); err != nil {
		return nil, Layout{}, err
	}
	s := &csvScanner{name: name, data: bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), next: 1}
	ok, err := s.record()
	if err != nil {
		return nil, Layout{}, err
	}
	if !ok {
		return nil, Layout{}, fleetscore.Errorf(fleetscore.Invalid, "read", name, "the file is empty; a header line with the column names is expected")
	}
	header := make([]string, len(s.fields))
	for i, f := range s.fields {
		header[i] = strings.Clone(string(f))
	}
	if ok, err = s.record(); err != nil {
		return nil, Layout{}, err
	}
	if len(schema.Values) == 0 {
		schema.Values = numericColumns(header, s.fields, schema)
	}
	cols, err := locate(name, header, schema)
	if err != nil {
		return nil, Layout{}, err
	}
	b := newBuilder(schema, schema.Values)
	estimate := 0
	if ok {
		estimate = min(len(data)/24, 1<<26) // rows are rarely shorter; grown or cut by append
		b.rows.Times = make([]fleetscore.Micros, 0, estimate)
		b.rows.KeyIndex = make([]uint32, 0, estimate)
	}
	layout, first := Layout{}, true
	for n := 0; ok; n++ {
		if n&0xffff == 0 && ctx.Err() != nil {
			return nil, layout, ctx.Err()
		}
		l, err := b.addCSV(s, cols, opt)
		if err != nil {
			return nil, layout, err
		}
		if first {
			layout, first = l, false
		} else if l.Fraction > layout.Fraction {
			layout = layout.merge(l)
		}
		if ok, err = s.record(); err != nil {
			return nil, layout, err
		}
	}
	return b.rows, layout, nil
}

func (b *builder) addCSV(s *csvScanner, c csvColumns, opt ReadOptions) (Layout, error) {
	if len(s.fields) != c.width {
		return Layout{}, s.bad("", "", "it has "+strconv.Itoa(len(s.fields))+" fields, the header has "+strconv.Itoa(c.width))
	}
	t, l, ok := parseTime(s.fields[c.time])
	if !ok {
		return l, s.bad(b.rows.TimeName, string(s.fields[c.time]), whyTime)
	}
	if !opt.wants(t) {
		return l, nil
	}
	b.key = b.key[:0]
	for i, k := range c.key {
		f := s.fields[k]
		if len(f) == 0 || bytes.IndexByte(f, fleetscore.KeySeparator[0]) >= 0 {
			return l, s.bad(b.rows.KeyNames[i], string(f), whyKey)
		}
		if i > 0 {
			b.key = append(b.key, fleetscore.KeySeparator...)
		}
		b.key = append(b.key, f...)
	}
	for i, v := range c.values {
		f := s.fields[v]
		x := math.NaN()
		if len(f) > 0 {
			var err error
			if x, err = strconv.ParseFloat(unsafe.String(&f[0], len(f)), 64); err != nil {
				return l, s.bad(b.rows.ValueNames[i], string(f), whyNumber)
			}
		}
		b.rows.Values[i] = append(b.rows.Values[i], x)
	}
	b.rows.Times = append(b.rows.Times, t)
	b.rows.KeyIndex = append(b.rows.KeyIndex, b.keyIndex())
	return l, nil
}

// numericColumns are the columns beside time and key whose first value is a
// number or missing.
func numericColumns(header []string, first [][]byte, s Schema) []string {
	var out []string
	for i, h := range header {
		if h == s.Time || slices.Contains(s.Key, h) || i >= len(first) || checkColumn(h) != nil {
			continue
		}
		if _, err := strconv.ParseFloat(string(first[i]), 64); err == nil || len(first[i]) == 0 {
			out = append(out, h)
		}
	}
	return out
}

func locate(name string, header []string, s Schema) (csvColumns, error) {
	c := csvColumns{width: len(header)}
	find := func(col string) (int, error) {
		i := slices.Index(header, col)
		if i < 0 {
			return 0, missingColumn(name, col, header)
		}
		if slices.Contains(header[i+1:], col) {
			return 0, fleetscore.Errorf(fleetscore.Invalid, "read", name, "the header names column %q twice", col)
		}
		return i, nil
	}
	var err error
	if c.time, err = find(s.Time); err != nil {
		return c, err
	}
	for _, k := range s.Key {
		i, err := find(k)
		if err != nil {
			return c, err
		}
		c.key = append(c.key, i)
	}
	for _, v := range s.Values {
		i, err := find(v)
		if err != nil {
			return c, err
		}
		c.values = append(c.values, i)
	}
	return c, nil
}

func missingColumn(name, column string, have []string) error {
	return fleetscore.Errorf(fleetscore.Invalid, "read", name, "there is no column %q", column).
		WithHint("the columns are: %s", strings.Join(have, ", "))
}
