package kafka

import (
	"bytes"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleetscore/fleetscore/internal/gateway"
)

// chunkBytes is how much text is handed to the gateway at once.
const chunkBytes = 1 << 20

// chunk is records as text with a JSON object per line.
type chunk struct {
	text    []byte
	records []gateway.Record
	next    int64 // the offset after the last record
}

// chunks turns records of a partition into text.
func (r *Reader) chunks(records []*kgo.Record) (out []chunk) {
	for i, rec := range records {
		if i == 0 || len(out[len(out)-1].text) >= chunkBytes {
			out = append(out, chunk{})
		}
		c := &out[len(out)-1]
		c.next = rec.Offset + 1
		if rec.Attrs.IsControl() {
			continue
		}
		before := len(c.text)
		var lines int
		if r.cfg.Kafka.Format == "csv" {
			c.text, lines = gateway.AppendCSV(c.text, rec.Value, r.cfg.Kafka.Columns, r.cfg.Hub)
		} else {
			c.text, lines = appendJSON(c.text, rec.Value)
		}
		if len(c.text) > before {
			c.records = append(c.records, gateway.Record{Offset: rec.Offset, Lines: lines})
		}
	}
	return out
}

// appendJSON writes each object of a record into a line of its own, whether the record is an
// object, an array of objects, or several values one after the other. Text that isn't JSON becomes one
// line, which the gateway rejects with the reason.
func appendJSON(dst, value []byte) ([]byte, int) {
	value = bytes.TrimSpace(value)
	if len(value) == 0 { // a tombstone
		return dst, 0
	}
	if value[0] != '[' && bytes.IndexByte(value, '\n') < 0 {
		return append(append(dst, value...), '\n'), 1
	}
	dec := jsontext.NewDecoder(bytes.NewReader(value), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) // the gateway judges them
	lines, array := 0, false
	for {
		kind := dec.PeekKind()
		if !array && kind == '[' || array && kind == ']' {
			if _, err := dec.ReadToken(); err != nil {
				break
			}
			array = !array
			continue
		}
		at := dec.InputOffset()
		v, err := dec.ReadValue()
		if errors.Is(err, io.EOF) && !array {
			return dst, lines
		}
		if err != nil {
			return appendLine(dst, value[at:]), lines + 1
		}
		if err := v.Compact(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
			return appendLine(dst, value[at:]), lines + 1
		}
		dst = append(append(dst, v...), '\n')
		lines++
	}
	return appendLine(dst, value), lines + 1
}

// appendLine writes text that may hold line breaks as one line.
func appendLine(dst, text []byte) []byte {
	n := len(dst)
	dst = append(append(dst, text...), '\n')
	for i := n; i < len(dst)-1; i++ {
		if dst[i] == '\n' || dst[i] == '\r' {
			dst[i] = ' '
		}
	}
	return dst
}
