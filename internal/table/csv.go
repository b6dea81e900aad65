package table

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// csvScanner cuts CSV (RFC 4180: quotes doubled inside quotes, LF or CRLF; the
// separator is a comma or another byte) into records without copying fields, except
// quoted ones with quotes inside.
type csvScanner struct {
	name   string
	sep    byte
	data   []byte
	pos    int
	line   int // of the record read last, 1-based
	next   int // of the record to come
	fields [][]byte
	open   bool // a quoted field goes on to the end
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
			for s.pos < len(s.data) && s.data[s.pos] != s.sep && s.data[s.pos] != '\n' {
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
		if s.pos == len(s.data) { // a separator at the very end
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
			s.open, s.pos = true, len(s.data)
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
	if s.pos < len(s.data) && s.data[s.pos] != s.sep && s.data[s.pos] != '\n' {
		return s.bad("", "", "text follows a closing quote")
	}
	return nil
}

func (s *csvScanner) bad(column, value, why string) error {
	return badValue(s.name, s.line, column, value, why)
}

func badValue(name string, line int, column, value, why string) *fleetscore.Error {
	at := "line " + strconv.Itoa(line)
	if column != "" {
		at += ", column " + column
	}
	if len(value) > 60 {
		value = strings.ToValidUTF8(value[:60], "") + "…"
	}
	if value != "" || column != "" {
		at += ": " + strconv.Quote(value)
	}
	return fleetscore.Errorf(fleetscore.Invalid, "read", name, "%s: %s", at, why)
}

const (
	whyTime   = "not a time such as 2026-11-23 10:00:05.000 or 2026-11-23T10:00:05Z"
	whyNumber = "not a number"
	whyKey    = "a key column is empty, neither text nor number, or holds the control character U+001F"
)

// ReadCSV reads rows from CSV with a header line. Columns are found by name, in
// any order; others are passed over. An empty value is missing (NaN). A malformed
// row ends the reading with an error that names line, column and value, unless
// ReadOptions.BadRows tolerates it.
func ReadCSV(ctx context.Context, name string, r io.Reader, schema Schema, opt ReadOptions) (*Input, error) {
	return readLines(ctx, []Source{{Name: name, Format: CSV, Open: opened(r)}}, schema, opt)
}

func opened(r io.Reader) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(r), nil }
}

// csvFile is the format of one CSV file.
type csvFile struct {
	name    string
	schema  *Schema
	opt     ReadOptions
	consts  []Constant
	sep     byte // 0 until begin guessed it
	columns csvColumns
}

// csvColumns are the places of the columns in a record, constants behind the fields.
type csvColumns struct {
	time   int // −1: there is none
	key    []int
	values []int
	width  int
}

func (f *csvFile) begin(data []byte) (skip, line int, err error) {
	if f.sep == 0 {
		f.sep, _ = f.guess(data)
	}
	s := &csvScanner{name: f.name, sep: f.sep, data: data, next: 1}
	ok, err := s.record()
	if err != nil {
		return 0, 0, err
	}
	if !ok {
		return 0, 0, fleetscore.Errorf(fleetscore.Invalid, "read", f.name, "the file is empty; a header line with the column names is expected")
	}
	header := make([]string, len(s.fields))
	for i, field := range s.fields {
		header[i] = string(field)
	}
	skip, line = s.pos, s.next
	if f.schema.Values == nil {
		if _, err = s.record(); err != nil {
			return 0, 0, err
		}
		f.schema.Values = numericColumns(header, s.fields, *f.schema)
	}
	f.columns, err = f.locate(header)
	return skip, line, err
}

// separators are what fields are usually separated by, the most usual first.
var separators = []byte{',', ';', '\t', '|'}

// separatorNames are for messages.
var separatorNames = map[byte]string{',': "commas", ';': "semicolons", '\t': "tabs", '|': "vertical bars"}

// longHeader is how much of a file is waited for until the header can be read with
// every separator.
const longHeader = 64 << 10

// guess picks the separator with which the header has the most of the columns that
// are looked for, and else the most columns. It isn't sure while more data may show
// that the header goes on with another separator, inside of quotes.
func (f *csvFile) guess(data []byte) (best byte, sure bool) {
	best, sure = separators[0], true
	bestFound, bestFields := -1, 0
	wanted := slices.Concat(f.schema.times(), f.schema.Key, f.schema.Values)
	for _, sep := range separators {
		s := &csvScanner{name: f.name, sep: sep, data: data, next: 1}
		if ok, err := s.record(); !ok || err != nil {
			sure = sure && len(data) >= longHeader
			continue
		}
		found := 0
		for _, w := range wanted {
			if slices.ContainsFunc(s.fields, func(h []byte) bool { return string(h) == w }) {
				found++
			}
		}
		if found > bestFound || found == bestFound && len(s.fields) > bestFields {
			best, bestFound, bestFields = sep, found, len(s.fields)
		}
	}
	return best, sure
}

// boundary looks for the end of the last record. Line breaks inside quotes end
// none.
func (f *csvFile) boundary(data []byte) int {
	if bytes.IndexByte(data, '"') < 0 {
		return bytes.LastIndexByte(data, '\n') + 1
	}
	end, quoted, sep := 0, false, f.sep
	if sep == 0 {
		var sure bool
		if sep, sure = f.guess(data); !sure {
			return 0
		}
	}
	field, record := true, true // one begins here
	for i, c := range data {
		switch {
		case quoted:
			quoted = c != '"' // a doubled quote closes and opens again
			field = !quoted
			continue
		case c == '"' && field:
			quoted = true
		case c == '\n':
			end, field, record = i+1, true, true
			continue
		case c == '\r' && record:
			continue // a blank line, as record sees it
		default:
			field = c == sep
		}
		record = false
	}
	return end
}

func (f *csvFile) parse(data []byte, p *parsed) {
	if bytes.IndexByte(data, '"') < 0 {
		f.parsePlain(data, p)
		return
	}
	s := &csvScanner{name: f.name, sep: f.sep, data: data}
	for {
		ok, err := s.record()
		switch {
		case err != nil:
			p.count++
			p.reject(s.line, "", nil, cause(err))
			if s.open {
				p.fatal = &badRow{line: s.line, why: cause(err)}
			}
			s.skipLine()
		case !ok:
			p.lines = s.next
			return
		default:
			f.row(s.fields, s.line, p)
		}
	}
}

// cause is why a record is malformed, without where it stands.
func cause(err error) string {
	text := err.Error()
	if e, ok := errors.AsType[*fleetscore.Error](err); ok && e.Err != nil {
		text = e.Err.Error()
	}
	_, why, _ := strings.Cut(text, ": ")
	return why
}

// skipLine goes on behind the next line break.
func (s *csvScanner) skipLine() {
	i := bytes.IndexByte(s.data[s.pos:], '\n')
	if i < 0 {
		s.pos = len(s.data)
		return
	}
	s.pos += i + 1
	s.next++
}

// row adds a record.
func (f *csvFile) row(fields [][]byte, line int, p *parsed) {
	p.count++
	c := &f.columns
	if len(fields) != c.width {
		p.reject(line, "", nil, "it has "+strconv.Itoa(len(fields))+" fields, the header has "+strconv.Itoa(c.width))
		return
	}
	for i := range f.consts {
		fields = append(fields, f.consts[i].text)
	}
	if c.time < 0 {
		p.timeIn = true
	} else if text := fields[c.time]; len(p.timeText) == 0 || string(p.timeText) != string(text) {
		t, l, ok := p.opt.time(text)
		if !ok {
			p.reject(line, f.schema.Time, text, p.opt.whyTime(text))
			return
		}
		p.sawLayout(l)
		p.timeText, p.timeAt, p.timeIn = append(p.timeText[:0], text...), t, p.opt.wants(t)
	}
	if !p.timeIn {
		return
	}
	p.key = p.key[:0]
	for i, k := range c.key {
		field := fields[k]
		if len(field) == 0 || bytes.IndexByte(field, fleetscore.KeySeparator[0]) >= 0 {
			p.reject(line, f.schema.Key[i], field, whyKey)
			return
		}
		if i > 0 {
			p.key = append(p.key, fleetscore.KeySeparator[0])
		}
		p.key = append(p.key, field...)
	}
	for i, v := range c.values {
		x, ok := parseNumber(fields[v])
		if !ok && p.opt.Decimal == ',' {
			x, ok = parseNumber(bytes.Replace(fields[v], []byte{','}, []byte{'.'}, 1))
		}
		if !ok {
			p.reject(line, f.schema.Values[i], fields[v], p.opt.whyNumber(fields[v]))
			for j := range i {
				p.values[j] = p.values[j][:len(p.times)]
			}
			return
		}
		p.values[i] = append(p.values[i], x)
	}
	p.last = p.table.find(p.key, p.last)
	p.times = append(p.times, p.timeAt)
	p.keys = append(p.keys, p.last.id)
}

// parsePlain is parse for text without quotes.
func (f *csvFile) parsePlain(data []byte, p *parsed) {
	fields := make([][]byte, 0, f.columns.width+len(f.consts)+1)
	line, sep := 0, uint64(f.sep)*0x0101010101010101
	for pos := 0; pos < len(data); {
		if c := data[pos]; c == '\n' || c == '\r' { // a blank line
			if c == '\n' {
				line++
			}
			pos++
			continue
		}
		fields = fields[:0]
		for {
			end := fieldEnd(data, pos, sep)
			field := data[pos:end]
			pos = end + 1
			if end < len(data) && data[end] == f.sep {
				fields = append(fields, field)
				if pos == len(data) { // a separator at the very end
					fields = append(fields, nil)
					break
				}
				continue
			}
			if n := len(field); n > 0 && field[n-1] == '\r' {
				field = field[:n-1]
			}
			fields = append(fields, field)
			break
		}
		f.row(fields, line, p)
		line++
	}
	p.lines = bytes.Count(data, []byte{'\n'})
}

// fieldEnd finds the separator, given as eight times the same byte, or the line break
// from a place on, or the end: eight bytes at a time, where subtracting 1 from each byte
// that is 0 after the comparison borrows into its highest bit.
func fieldEnd(data []byte, i int, sep uint64) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(data); i += 8 {
		w := binary.LittleEndian.Uint64(data[i:])
		comma, feed := w^sep, w^(ones*'\n')
		if hit := ((comma - ones) &^ comma & highs) | ((feed - ones) &^ feed & highs); hit != 0 {
			return i + bits.TrailingZeros64(hit)/8
		}
	}
	for i < len(data) && data[i] != byte(sep) && data[i] != '\n' {
		i++
	}
	return i
}

// numericColumns are the columns beside time and key whose first value is a
// number or missing.
func numericColumns(header []string, first [][]byte, s Schema) []string {
	out := []string{}
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

func (f *csvFile) locate(header []string) (csvColumns, error) {
	c := csvColumns{width: len(header)}
	find := func(col string) (int, error) {
		i := slices.Index(header, col)
		if i < 0 {
			if k := slices.IndexFunc(f.consts, func(c Constant) bool { return c.Column == col }); k >= 0 {
				return len(header) + k, nil
			}
			how := "split at " + separatorName(f.sep)
			if f.opt.Separator == 0 && f.opt.Say.Separator != "" {
				how += ", a guess that " + f.opt.Say.Separator + " overrides"
			}
			return 0, missingColumn(f.name, col, append(slices.Clone(header), columnsOf(f.consts)...), how)
		}
		if slices.Contains(header[i+1:], col) {
			return 0, fleetscore.Errorf(fleetscore.Invalid, "read", f.name, "the header names column %q twice", col)
		}
		return i, nil
	}
	var err error
	if c.time = -1; !f.schema.Untimed {
		if c.time, err = find(f.schema.Time); err != nil {
			return c, err
		}
	}
	for _, k := range f.schema.Key {
		i, err := find(k)
		if err != nil {
			return c, err
		}
		c.key = append(c.key, i)
	}
	for _, v := range f.schema.Values {
		i, err := find(v)
		if err != nil {
			return c, err
		}
		c.values = append(c.values, i)
	}
	return c, nil
}

func separatorName(sep byte) string {
	if name := separatorNames[sep]; name != "" {
		return name
	}
	return strconv.Quote(string(sep))
}
