package value

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Reader turns JSON objects into records. Records with the same names share a shape. A
// Reader is used by one goroutine.
type Reader struct {
	shapes map[string]*Shape
}

// maxDepth bounds how deeply arrays and objects nest.
const maxDepth = 100

// Read reads one JSON object.
func (r *Reader) Read(line []byte) (*Record, error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	v, err := r.value(d, 0)
	if err != nil {
		return nil, err
	}
	if v.rec == nil {
		return nil, errors.New("it is not a JSON object")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is something behind the JSON object")
	}
	return v.rec, nil
}

func (r *Reader) value(d *json.Decoder, depth int) (Value, error) {
	if depth > maxDepth {
		return Null, fmt.Errorf("it is nested more than %d levels deep", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Null, err
	}
	switch x := t.(type) {
	case bool:
		return Of(x), nil
	case string:
		return String(x), nil
	case json.Number:
		return number(x.String())
	case json.Delim:
		if x == '[' {
			list := []Value{}
			for d.More() {
				v, err := r.value(d, depth+1)
				if err != nil {
					return Null, err
				}
				list = append(list, v)
			}
			_, err := d.Token()
			return List(list), err
		}
		return r.object(d, depth)
	}
	return Null, nil
}

// number reads a JSON number: without fraction and exponent a bigint, else a float.
func number(s string) (Value, error) {
	if !strings.ContainsAny(s, ".eE") {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return Null, fmt.Errorf("the number %s is too large for a bigint", s)
		}
		return Int(n), nil
	}
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(x, 0) {
		return Null, fmt.Errorf("the number %s is too large", s)
	}
	return Number(x), nil
}

func (r *Reader) object(d *json.Decoder, depth int) (Value, error) {
	var names []string
	var values []Value
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return Null, err
		}
		name, _ := t.(string)
		v, err := r.value(d, depth+1)
		if err != nil {
			return Null, err
		}
		for _, n := range names {
			if n == name {
				return Null, fmt.Errorf("the name %q occurs twice", name)
			}
		}
		names, values = append(names, name), append(values, v)
	}
	if _, err := d.Token(); err != nil {
		return Null, err
	}
	return OfRecord(&Record{Shape: r.Shape(names), Values: values}), nil
}

// Shape returns the shape with these names.
func (r *Reader) Shape(names []string) *Shape {
	key := strings.Join(names, "\x00")
	s := r.shapes[key]
	if s == nil {
		s = NewShape(names)
		if r.shapes == nil {
			r.shapes = map[string]*Shape{}
		}
		r.shapes[key] = s
	}
	return s
}

// AppendJSON appends the value as JSON: datetimes as RFC 3339 in UTC, bits as booleans.
func AppendJSON(b []byte, v Value) []byte {
	switch v.kind {
	case Any:
		return append(b, "null"...)
	case Bit:
		return strconv.AppendBool(b, v.bits != 0)
	case Bigint:
		return strconv.AppendInt(b, int64(v.bits), 10)
	case Float:
		return appendFloat(b, v.float())
	case Datetime:
		return appendText(b, v.Micros().String())
	case Text:
		return appendText(b, v.text)
	case Array:
		b = append(b, '[')
		for i, x := range v.list {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendJSON(b, x)
		}
		return append(b, ']')
	}
	return v.rec.AppendJSON(b)
}

// AppendJSON appends the record as a JSON object.
func (r *Record) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	for i, x := range r.Values {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, r.Shape.Names[i]), ':')
		b = AppendJSON(b, x)
	}
	return append(b, '}')
}

// appendFloat writes the shortest text that reads as the same number.
func appendFloat(b []byte, x float64) []byte {
	if a := math.Abs(x); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.AppendFloat(b, x, 'e', -1, 64)
	}
	return strconv.AppendFloat(b, x, 'f', -1, 64)
}

func appendText(b []byte, s string) []byte {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return append(b, `""`...) // texts can always be encoded
	}
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
}
