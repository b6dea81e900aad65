package kafka

import (
	"bytes"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/gateway"
)

// chunkBytes is how much text is handed to the gateway at once.
const chunkBytes = 1 << 20

// chunk is records as lines.
type chunk struct {
	gateway.Lines
	records []gateway.Record
	values  [][]byte // of the records
	next    int64    // the offset after the last record
}

// chunks turns records of a partition into text.
func (r *Reader) chunks(records []*kgo.Record) (out []chunk) {
	for i, rec := range records {
		if i == 0 || len(out[len(out)-1].Text) >= chunkBytes {
			out = append(out, chunk{})
		}
		c := &out[len(out)-1]
		c.next = rec.Offset + 1
		if rec.Attrs.IsControl() {
			continue
		}
		before := c.Len()
		Translate(&c.Lines, rec.Value, r.cfg.Kafka, r.cfg.Hub)
		if lines := c.Len() - before; lines > 0 {
			c.records, c.values = append(c.records, gateway.Record{Offset: rec.Offset, Lines: lines}), append(c.values, rec.Value)
		}
	}
	return out
}

// Translate adds the readings of a record's value.
func Translate(l *gateway.Lines, value []byte, k fleetscore.KafkaConfig, h fleetscore.HubConfig) {
	if k.Format == "csv" {
		l.CSV(value, k.Columns, h)
	} else {
		addJSON(l, value)
	}
}

// addJSON adds each object of a record as a line of its own, whether the record is an
// object, an array of objects, or several values one after the other. The gateway rejects text that isn't JSON.
func addJSON(l *gateway.Lines, value []byte) {
	value = bytes.TrimSpace(value)
	if len(value) == 0 { // a tombstone
		return
	}
	if value[0] != '[' && bytes.IndexByte(value, '\n') < 0 {
		l.Raw(1, value)
		return
	}
	dec := jsontext.NewDecoder(bytes.NewReader(value), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) // the gateway judges them
	for n, array := 1, false; ; {
		kind := dec.PeekKind()
		at := dec.InputOffset()
		if !array && kind == '[' || array && kind == ']' {
			if _, err := dec.ReadToken(); err != nil {
				l.Raw(n, value[at:])
				return
			}
			array = !array
			continue
		}
		v, err := dec.ReadValue()
		if errors.Is(err, io.EOF) && !array {
			return
		}
		if err != nil || v.Compact(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) != nil {
			l.Raw(n, value[at:])
			return
		}
		l.Raw(n, v)
		n++
	}
}
