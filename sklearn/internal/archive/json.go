package archive

import (
	"encoding/json"
	"errors"
)

// value is a piece of a JSON text that is known to be valid, without white space
// around it. Looking into one copies nothing, however deep it is nested.
type value []byte

var errJSON = errors.New("schema.json isn't as skops writes it")

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\n' || b[0] == '\t' || b[0] == '\r') {
		b = b[1:]
	}
	return b
}

// cut splits the first value from what follows it.
func cut(b []byte) (value, []byte) {
	b = trim(b)
	depth, text := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
			if !text && depth == 0 {
				return value(b[:i+1]), trim(b[i+1:])
			}
		case text:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth < 0 { // the end of what holds the value
				return value(b[:i]), b[i:]
			}
			if depth == 0 {
				return value(b[:i+1]), trim(b[i+1:])
			}
		case depth == 0 && (c == ',' || c == ' ' || c == '\n' || c == '\t' || c == '\r'):
			return value(b[:i]), trim(b[i:])
		}
	}
	return value(b), nil
}

// each walks the items of an array, or the members of an object with their keys.
func (v value) each(open byte, visit func(key string, item value) error) error {
	if len(v) < 2 || v[0] != open {
		return errJSON
	}
	for rest := trim(v[1:]); len(rest) > 0 && rest[0] != '}' && rest[0] != ']'; {
		var item value
		key := ""
		if open == '{' {
			item, rest = cut(rest)
			var err error
			if key, err = item.text(); err != nil || len(rest) == 0 || rest[0] != ':' {
				return errJSON
			}
			rest = rest[1:]
		}
		item, rest = cut(rest)
		if err := visit(key, item); err != nil {
			return err
		}
		if len(rest) > 0 && rest[0] == ',' {
			rest = rest[1:]
		}
	}
	return nil
}

// text is a JSON string's.
func (v value) text() (string, error) {
	var s string
	if len(v) == 0 || v[0] != '"' {
		return "", errJSON
	}
	return s, json.Unmarshal(v, &s)
}

func (v value) null() bool { return len(v) == 0 || string(v) == "null" }
