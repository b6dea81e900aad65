package table

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"slices"

	"github.com/fleetscore/fleetscore"
)

// ReadNDJSON reads rows from lines of JSON objects; the rules are ReadCSV's. A
// value that is absent or null is missing.
func ReadNDJSON(ctx context.Context, name string, r io.Reader, schema Schema, opt ReadOptions) (*Input, error) {
	return readLines(ctx, []Source{{Name: name, Format: NDJSON, Open: opened(r)}}, schema, opt)
}

// ndjsonFile is the format of one file of JSON lines.
type ndjsonFile struct {
	name   string
	schema *Schema
	consts []Constant
}

func (f *ndjsonFile) begin(data []byte) (skip, line int, err error) {
	if f.schema.Values != nil {
		return 0, 1, nil
	}
	f.schema.Values = []string{}
	for text := range bytes.Lines(data) {
		var object map[string]json.RawMessage
		if text = bytes.TrimSpace(text); len(text) == 0 || json.Unmarshal(text, &object) != nil {
			continue // parse says what is wrong with it
		}
		f.schema.Values = numericFields(object, *f.schema)
		break
	}
	return 0, 1, nil
}

func (f *ndjsonFile) boundary(data []byte) int { return bytes.LastIndexByte(data, '\n') + 1 }

func (f *ndjsonFile) parse(data []byte, p *parsed) {
	line := 0
	for text := range bytes.Lines(data) {
		if text = bytes.TrimSpace(text); len(text) > 0 {
			f.row(text, line, p)
		}
		line++
	}
	p.lines = bytes.Count(data, []byte{'\n'})
}

func numericFields(object map[string]json.RawMessage, s Schema) []string {
	out := []string{}
	for n, raw := range object {
		var x *float64
		if n != s.Time && !slices.Contains(s.Key, n) && checkColumn(n) == nil && json.Unmarshal(raw, &x) == nil {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// row adds the object of a line.
func (f *ndjsonFile) row(text []byte, line int, p *parsed) {
	p.count++
	var object map[string]json.RawMessage
	if err := json.Unmarshal(text, &object); err != nil {
		p.reject(line, "", text, "not a JSON object: "+err.Error())
		return
	}
	for i := range f.consts {
		if c := &f.consts[i]; object[c.Column] == nil {
			object[c.Column] = c.json
		}
	}
	var t fleetscore.Micros
	if !f.schema.Untimed {
		raw := object[f.schema.Time]
		at, ok := scalarText(raw)
		var l Layout
		var okTime bool
		if t, l, okTime = p.opt.time(at); !ok || !okTime {
			p.reject(line, f.schema.Time, raw, p.opt.whyTime(raw))
			return
		}
		p.sawLayout(l)
		if !p.opt.wants(t) {
			return
		}
	}
	p.key = p.key[:0]
	for i, n := range f.schema.Key {
		v, ok := scalarText(object[n])
		if !ok || len(v) == 0 || bytes.IndexByte(v, fleetscore.KeySeparator[0]) >= 0 {
			p.reject(line, n, object[n], whyKey)
			return
		}
		if i > 0 {
			p.key = append(p.key, fleetscore.KeySeparator[0])
		}
		p.key = append(p.key, v...)
	}
	for i, n := range f.schema.Values {
		x := math.NaN()
		if raw, ok := object[n]; ok && string(raw) != "null" {
			if err := json.Unmarshal(raw, &x); err != nil {
				p.reject(line, n, raw, whyNumber)
				for j := range i {
					p.values[j] = p.values[j][:len(p.times)]
				}
				return
			}
		}
		p.values[i] = append(p.values[i], x)
	}
	p.last = p.table.find(p.key, p.last)
	p.times = append(p.times, t)
	p.keys = append(p.keys, p.last.id)
}

// scalarText is a JSON string's content, or a number's literal text.
func scalarText(raw json.RawMessage) ([]byte, bool) {
	if len(raw) == 0 {
		return nil, false
	}
	switch c := raw[0]; {
	case c == '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return []byte(s), err == nil
	case c == '-' || c >= '0' && c <= '9':
		return raw, true
	}
	return nil, false
}
