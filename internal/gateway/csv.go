package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"

	"github.com/fleetscore/fleetscore"
)

// AppendCSV writes each row of a CSV text as a JSON object in a line of its own, and
// returns how many lines that are. Values of key columns are texts; other values are
// numbers, true or false where they can be, and absent where they are empty. A row that can't be read
// becomes a line that isn't JSON, which the parser rejects. Quoted values can't hold line breaks.
func AppendCSV(dst, text []byte, columns []string, hub fleetscore.HubConfig) ([]byte, int) {
	lines := 0
	var fields [][]byte
	for len(text) > 0 {
		row := text
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			row, text = text[:i], text[i+1:]
		} else {
			text = nil
		}
		row = bytes.TrimSuffix(row, []byte("\r"))
		if len(bytes.TrimSpace(row)) == 0 {
			continue
		}
		lines++
		var err error
		if fields, err = splitRow(fields[:0], row); err == nil && len(fields) != len(columns) {
			err = errColumns
		}
		if err != nil {
			dst = append(append(append(dst, "CSV: "...), err.Error()...), '\n')
			continue
		}
		dst = append(dst, '{')
		more := false
		for i, name := range columns {
			v := fields[i]
			if len(v) == 0 || name == "" {
				continue
			}
			if more {
				dst = append(dst, ',')
			}
			more = true
			dst = append(appendText(dst, []byte(name)), ':')
			if !slices.Contains(hub.Key, name) && isPlain(v) {
				dst = append(dst, v...)
			} else {
				dst = appendText(dst, v)
			}
		}
		dst = append(dst, '}', '\n')
	}
	return dst, lines
}

var (
	errColumns = errors.New("the row has another number of values than there are columns")
	errQuote   = errors.New("a quote isn't closed, or text follows it")
)

// splitRow appends the values of a row.
func splitRow(fields [][]byte, row []byte) ([][]byte, error) {
	for {
		if len(row) == 0 || row[0] != '"' {
			i := bytes.IndexByte(row, ',')
			if i < 0 {
				return append(fields, bytes.TrimSpace(row)), nil
			}
			fields, row = append(fields, bytes.TrimSpace(row[:i])), row[i+1:]
			continue
		}
		var v []byte
		for row = row[1:]; ; row = row[1:] {
			i := bytes.IndexByte(row, '"')
			if i < 0 {
				return fields, errQuote
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
			return fields, errQuote
		}
		row = row[1:]
	}
}

// isPlain reports whether a value can stand in JSON as it is.
func isPlain(v []byte) bool {
	if s := string(v); s == "true" || s == "false" {
		return true
	}
	return v[0] <= '9' && json.Valid(v) && v[0] != '"'
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
