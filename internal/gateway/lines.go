package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Lines is text with a JSON object per line that other formats are translated into, so that one
// parser judges the readings of every format. A line that is empty stands for a fault that
// was found while translating.
type Lines struct {
	Text    []byte
	numbers []int   // what each line was in the sender's text, from 1; verdicts name it
	faults  []fault // the first maxRejections
	faulty  int     // how many there are
	arrival bool    // readings without a time get that of their arrival
}

// Message is the lines as what the gateway takes.
func (l *Lines) Message() Message {
	return Message{Format: NDJSON, Body: l.Text, ArrivalTime: l.arrival, lines: l}
}

// Len is how many lines there are.
func (l *Lines) Len() int { return len(l.numbers) }

// fault adds a line for text that can't be a reading.
func (l *Lines) fault(number int, field, format string, args ...any) {
	l.Text = append(l.Text, '\n')
	l.numbers = append(l.numbers, number)
	if l.faulty++; len(l.faults) < maxRejections {
		l.faults = append(l.faults, fault{len(l.numbers), Rejection{number, field, fmt.Sprintf(format, args...)}})
	}
}

// object adds a JSON object whose members were appended to Text since the line's begin.
func (l *Lines) object(number int) {
	l.Text = append(l.Text, '}', '\n')
	l.numbers = append(l.numbers, number)
}

// Raw adds text as one line, which the parser judges.
func (l *Lines) Raw(number int, text []byte) {
	n := len(l.Text)
	l.Text = append(append(l.Text, text...), '\n')
	l.numbers = append(l.numbers, number)
	for i := n; i < len(l.Text)-1; i++ {
		if l.Text[i] == '\n' || l.Text[i] == '\r' {
			l.Text[i] = ' '
		}
	}
}

// member begins a member of the line's object.
func (l *Lines) member(name []byte) {
	c := byte(',')
	if n := len(l.Text); n == 0 || l.Text[n-1] == '\n' {
		c = '{'
	}
	l.Text = append(appendText(append(l.Text, c), name), ':')
}

// fault is a verdict on a line of the text.
type fault struct {
	row int // from 1
	Rejection
}

// adjust adds the faults to the verdicts, and names lines as the sender knows them.
func (l *Lines) adjust(out *parsed) {
	all := slices.Clone(l.faults)
	for _, r := range out.reasons {
		f := fault{r.Line, r}
		if r.Line <= len(l.numbers) {
			f.Line = l.numbers[r.Line-1]
		}
		all = append(all, f)
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].row < all[j].row })
	out.rejected += l.faulty
	out.reasons, out.rows = out.reasons[:0], out.rows[:0]
	for _, f := range all[:min(len(all), maxRejections)] {
		out.reasons, out.rows = append(out.reasons, f.Rejection), append(out.rows, f.row)
	}
}

// CSV adds rows. The columns are those of the first row if none are given. Values of key columns are texts; other values are numbers, true or
// false where they can be, and absent where they are empty. Quoted values can't hold line breaks.
func (l *Lines) CSV(text []byte, columns []string, hub fleetscore.HubConfig) {
	var fields [][]byte
	header := columns == nil
	for number := 1; len(text) > 0; number++ {
		var row []byte
		row, text, _ = bytes.Cut(text, []byte("\n"))
		row = bytes.TrimSuffix(row, []byte("\r"))
		if number == 1 {
			row = bytes.TrimPrefix(row, []byte("\ufeff"))
		}
		if len(bytes.TrimSpace(row)) == 0 {
			continue
		}
		var err error
		fields, err = splitRow(fields[:0], row)
		if header && err == nil {
			for _, f := range fields {
				columns = append(columns, string(f))
			}
			header = false
			if c := duplicate(columns); c != "" {
				l.fault(number, c, "the column is there twice; nothing after it was read")
				return
			}
			continue
		}
		if err != nil {
			l.fault(number, "", "not CSV: %v", err)
			if header {
				return
			}
			continue
		}
		if len(fields) != len(columns) {
			l.fault(number, "", "the row has %s for %s", fleetscore.Counted(len(fields), "value"), fleetscore.Counted(len(columns), "column"))
			continue
		}
		some := false
		for i, name := range columns {
			v := fields[i]
			if len(v) == 0 || name == "" {
				continue
			}
			some = true
			l.member([]byte(name))
			if !slices.Contains(hub.Key, name) && isPlain(v) {
				l.Text = append(l.Text, v...)
			} else {
				l.Text = appendText(l.Text, v)
			}
		}
		if !some {
			l.fault(number, "", "the row has no value")
			continue
		}
		l.object(number)
	}
}

// duplicate returns a name that is there twice; empty if there is none.
func duplicate(names []string) string {
	for i, n := range names {
		if n != "" && slices.Contains(names[:i], n) {
			return n
		}
	}
	return ""
}

// splitRow appends the values of a row.
func splitRow(fields [][]byte, row []byte) ([][]byte, error) {
	for {
		if len(row) == 0 || row[0] != '"' {
			v, rest, more := bytes.Cut(row, []byte(","))
			fields = append(fields, bytes.TrimSpace(v))
			if !more {
				return fields, nil
			}
			row = rest
			continue
		}
		var v []byte
		for row = row[1:]; ; row = row[1:] {
			i := bytes.IndexByte(row, '"')
			if i < 0 {
				return fields, fmt.Errorf("a quote isn't closed in its line")
			}
			v, row = append(v, row[:i]...), row[i+1:]
			if len(row) == 0 || row[0] != '"' {
				break
			}
			v = append(v, '"')
		}
		fields = append(fields, v)
		if len(row) == 0 {
			return fields, nil
		}
		if row[0] != ',' {
			return fields, fmt.Errorf("text follows a quoted value")
		}
		row = row[1:]
	}
}

// isPlain reports whether a value can stand in JSON as it is.
func isPlain(v []byte) bool {
	if s := string(v); s == "true" || s == "false" {
		return true
	}
	return (v[0] == '-' || v[0] >= '0' && v[0] <= '9') && json.Valid(v)
}

// appendText writes a JSON text. Invalid UTF-8 stays, so that the parser refuses it.
func appendText(dst, v []byte) []byte {
	dst = append(dst, '"')
	for _, c := range v {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20:
			dst = append(dst, `\u00`...)
			dst = append(dst, "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// MeasurementField is the column of a line's measurement, if it isn't a tag.
const MeasurementField = "measurement"

// Influx adds lines of InfluxDB's line protocol: tags are columns of texts, fields are columns
// of values, and the measurement is the column "measurement". A timestamp counts the units of time
// since 1970 that unit says; a line without one has the time of its arrival.
// The syntax follows InfluxData's "Line protocol reference".
func (l *Lines) Influx(text []byte, unit time.Duration, hub fleetscore.HubConfig) {
	for number := 1; len(text) > 0; number++ {
		var line []byte
		line, text, _ = bytes.Cut(text, []byte("\n"))
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		begin := len(l.Text)
		field, why := l.point(line, unit, hub)
		if why != "" {
			l.Text = l.Text[:begin]
			l.fault(number, field, "%s", why)
			continue
		}
		l.object(number)
	}
}

// point writes the members of one line, or says what is wrong with it.
func (l *Lines) point(line []byte, unit time.Duration, hub fleetscore.HubConfig) (field, why string) {
	measurement, rest := token(line, ", ")
	if len(measurement) == 0 {
		return "", "the measurement is missing"
	}
	own := false
	for len(rest) > 0 && rest[0] == ',' {
		var name, value []byte
		name, rest = token(rest[1:], ",= ")
		if len(name) == 0 || len(rest) == 0 || rest[0] != '=' {
			return "", "a tag isn't written as name=value"
		}
		value, rest = token(rest[1:], ", ")
		if len(value) == 0 {
			return string(name), "the tag has no value"
		}
		own = own || string(name) == MeasurementField
		l.member(name)
		l.Text = appendText(l.Text, value)
	}
	if !own {
		l.member([]byte(MeasurementField))
		l.Text = appendText(l.Text, measurement)
	}
	if len(rest) == 0 {
		return "", "the fields are missing"
	}
	for sep := byte(' '); len(rest) > 0 && rest[0] == sep; sep = ',' {
		var name []byte
		name, rest = token(rest[1:], ",= ")
		if len(name) == 0 || len(rest) == 0 || rest[0] != '=' {
			return "", "a field isn't written as name=value"
		}
		l.member(name)
		if rest, why = l.value(rest[1:]); why != "" {
			return string(name), why
		}
	}
	rest = bytes.TrimSpace(rest)
	if len(rest) == 0 {
		return "", ""
	}
	n, err := strconv.ParseInt(string(rest), 10, 64)
	if err != nil || n > math.MaxInt64/int64(unit) || n < 0 {
		return hub.Time, fmt.Sprintf("the timestamp %.40q is not a number of units of %s since 1970", rest, unit)
	}
	l.member([]byte(hub.Time))
	l.Text = append(l.Text, '"')
	l.Text = time.Unix(0, n*int64(unit)).UTC().AppendFormat(l.Text, "2006-01-02T15:04:05.999999999Z")
	l.Text = append(l.Text, '"')
	return "", ""
}

// token reads until one of the ends, and takes a backslash before one of them, or before another backslash, away.
func token(text []byte, ends string) (value, rest []byte) {
	plain := true
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) && (text[i+1] == '\\' || bytes.IndexByte([]byte(",= "), text[i+1]) >= 0) {
			if plain {
				value, plain = append([]byte{}, text[:i]...), false
			}
			i++
			value = append(value, text[i])
			continue
		}
		if bytes.IndexByte([]byte(ends), text[i]) >= 0 {
			if plain {
				value = text[:i]
			}
			return value, text[i:]
		}
		if !plain {
			value = append(value, text[i])
		}
	}
	if plain {
		value = text
	}
	return value, nil
}

// value writes a field's value as JSON.
func (l *Lines) value(text []byte) (rest []byte, why string) {
	if len(text) > 0 && text[0] == '"' {
		var v []byte
		for i := 1; i < len(text); i++ {
			switch {
			case text[i] == '\\' && i+1 < len(text) && (text[i+1] == '"' || text[i+1] == '\\'):
				i++
				v = append(v, text[i])
			case text[i] == '"':
				l.Text = appendText(l.Text, v)
				if rest := text[i+1:]; len(rest) > 0 && rest[0] != ',' && rest[0] != ' ' {
					return rest, "text follows a quoted value"
				}
				return text[i+1:], ""
			default:
				v = append(v, text[i])
			}
		}
		return nil, "a quote isn't closed in its line"
	}
	end := bytes.IndexAny(text, ", ")
	if end < 0 {
		end = len(text)
	}
	v, rest := text[:end], text[end:]
	switch string(v) {
	case "t", "T", "true", "True", "TRUE":
		l.Text = append(l.Text, "true"...)
		return rest, ""
	case "f", "F", "false", "False", "FALSE":
		l.Text = append(l.Text, "false"...)
		return rest, ""
	}
	number := v
	if n := len(v); n > 1 && (v[n-1] == 'i' || v[n-1] == 'u') {
		number = v[:n-1]
		if _, err := strconv.ParseInt(string(number), 10, 64); err != nil {
			if _, err := strconv.ParseUint(string(number), 10, 64); err != nil {
				return rest, fmt.Sprintf("%.40q is not a whole number", v)
			}
		}
	}
	x, err := strconv.ParseFloat(string(number), 64)
	if err != nil || len(number) == 0 || bytes.ContainsAny(number, "xXpP_nN") {
		return rest, fmt.Sprintf("%.40q is neither a number, a text in quotes, true nor false", v)
	}
	l.Text = strconv.AppendFloat(l.Text, x, 'g', -1, 64)
	return rest, ""
}
