package table

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"

	"github.com/fleetscore/fleetscore"
)

// maxLine bounds a line of NDJSON.
const maxLine = 16 << 20

// ReadNDJSON reads rows from lines of JSON objects; the rules are ReadCSV's. A
// value that is absent or null is missing.
func ReadNDJSON(ctx context.Context, name string, r io.Reader, schema Schema, opt ReadOptions) (*fleetscore.Rows, Layout, error) {
	if err := schema.validate(); err != nil {
		return nil, Layout{}, err
	}
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), maxLine)
	var b *builder
	layout := Layout{}
	for line := 1; in.Scan(); line++ {
		if err := ctx.Err(); err != nil {
			return nil, layout, err
		}
		text := bytes.TrimSpace(in.Bytes())
		if len(text) == 0 {
			continue
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(text, &object); err != nil {
			return nil, layout, badValue(name, line, "", string(text), "not a JSON object: "+err.Error())
		}
		if b == nil {
			if len(schema.Values) == 0 {
				schema.Values = numericFields(object, schema)
			}
			b = newBuilder(schema, schema.Values)
		}
		l, err := b.addJSON(name, line, object, opt)
		if err != nil {
			return nil, layout, err
		}
		if b.rows.Len() <= 1 {
			layout = l
		}
		layout = layout.merge(l)
	}
	if err := in.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, layout, fleetscore.Errorf(fleetscore.Invalid, "read", name, "a line is longer than %d bytes", maxLine)
	} else if err != nil {
		return nil, layout, fleetscore.Wrap("read", name, err)
	}
	if b == nil {
		b = newBuilder(schema, schema.Values)
	}
	return b.rows, layout, nil
}

func parseNDJSON(ctx context.Context, name string, data []byte, s Schema, opt ReadOptions) (*fleetscore.Rows, Layout, error) {
	return ReadNDJSON(ctx, name, bytes.NewReader(data), s, opt)
}

func numericFields(object map[string]json.RawMessage, s Schema) []string {
	var out []string
	for n, raw := range object {
		var x *float64
		if n != s.Time && !slices.Contains(s.Key, n) && checkColumn(n) == nil && json.Unmarshal(raw, &x) == nil {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

func (b *builder) addJSON(name string, line int, object map[string]json.RawMessage, opt ReadOptions) (Layout, error) {
	text, ok := scalarText(object[b.rows.TimeName])
	t, l, okTime := parseTime(text)
	if !ok || !okTime {
		return l, badValue(name, line, b.rows.TimeName, string(object[b.rows.TimeName]), whyTime)
	}
	if !opt.wants(t) {
		return l, nil
	}
	b.key = b.key[:0]
	for i, n := range b.rows.KeyNames {
		v, ok := scalarText(object[n])
		if !ok || len(v) == 0 || bytes.IndexByte(v, fleetscore.KeySeparator[0]) >= 0 {
			return l, badValue(name, line, n, string(object[n]), whyKey)
		}
		if i > 0 {
			b.key = append(b.key, fleetscore.KeySeparator...)
		}
		b.key = append(b.key, v...)
	}
	for i, n := range b.rows.ValueNames {
		x := math.NaN()
		if raw, ok := object[n]; ok && string(raw) != "null" {
			if err := json.Unmarshal(raw, &x); err != nil {
				return l, badValue(name, line, n, string(raw), whyNumber)
			}
		}
		b.rows.Values[i] = append(b.rows.Values[i], x)
	}
	b.rows.Times = append(b.rows.Times, t)
	b.rows.KeyIndex = append(b.rows.KeyIndex, b.keyIndex())
	return l, nil
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
