package archive

import (
	"encoding/json"
	"errors"
)

// value is a part of a valid JSON text, without white space around it. Reading its
// parts copies nothing, at any depth.
type value []byte

var errJSON = errors.New("schema.json differs from what skops writes")

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\n' || b[0] == '\t' || b[0] == '\r') {
		b = b[1:]
	}
	return b
}

// cut splits the first value from the rest.
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
			if depth--; depth < 0 { // the end of the surrounding array or object
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

// each calls visit for the items of an array, or for the members of an object with
// their keys.
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

// text decodes a JSON string.
func (v value) text() (string, error) {
	var s string
	if len(v) == 0 || v[0] != '"' {
		return "", errJSON
	}
	return s, json.Unmarshal(v, &s)
}

func (v value) null() bool { return len(v) == 0 || string(v) == "null" }
