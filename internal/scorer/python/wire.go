package python

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/fleetscore/fleetscore/internal/scorer"
)

// The frames between this process and a worker; docs/formats/worker.md describes them.

// start is the first request.
type startRequest struct {
	Op         string   `json:"op"` // "start"
	Script     string   `json:"script"`
	PerModel   bool     `json:"per_model"`
	FeaturesBy string   `json:"features_by"`
	Path       []string `json:"path"` // folders that Python modules are imported from
	Memory     int64    `json:"memory"`
	Models     string   `json:"models"` // the folder that models are written to for scripts; may be empty
}

// batchRequest asks for scores. Its body is an Arrow stream with the rows, followed by the models.
type batchRequest struct {
	Op       string      `json:"op"` // "score"
	KeyNames []string    `json:"key_names"`
	Columns  []string    `json:"columns"` // of the Arrow table that hold features
	Features []string    `json:"features"`
	Outputs  []string    `json:"outputs"`
	Keys     []sensorRow `json:"keys"`
	Models   string      `json:"models,omitempty"` // the folder that the models are written to for scripts
	Arrow    int         `json:"arrow"`            // bytes of the Arrow stream
}

type sensorRow struct {
	Key    []string `json:"key"`
	Name   string   `json:"name"`
	Digest string   `json:"digest"`
	Model  int      `json:"model"` // bytes
	Rows   int      `json:"rows"`
}

// reply is an answer.
type reply struct {
	Versions map[string]string `json:"versions"`
	Printed  *printed          `json:"printed"` // comes alone
	Error    *fault            `json:"error"`   // the request as a whole couldn't be carried out
	Keys     []sensorReply     `json:"keys"`
	End      bool              `json:"end"`
	Imported []string          `json:"imported"` // modules of libraries that were imported since the last answer
}

type sensorReply struct {
	Key      int     `json:"key"` // its number in the request; -1 for all of them
	Rows     int     `json:"rows"`
	Detector bool    `json:"detector"`
	Load     float64 `json:"load"` // seconds
	Score    float64 `json:"score"`
	Loading  bool    `json:"loading"` // the error came while the model was loaded
	Error    *fault  `json:"error"`
}

// duration is a number of seconds of a worker, which isn't believed.
func duration(seconds float64) time.Duration {
	if !(seconds > 0) {
		return 0
	}
	return time.Duration(min(seconds, 1e6) * float64(time.Second))
}

// fault is a Python exception.
type fault struct {
	Type   string `json:"type"`
	Text   string `json:"text"`
	Trace  string `json:"trace"`
	Module string `json:"module"` // that couldn't be imported
}

// Error implements error.
func (f *fault) Error() string {
	switch {
	case f.Module != "":
		return fmt.Sprintf("%s: %s; install the module in the environment of this Python; if it is a module of your own, put it into the folder that a pipeline's code or the flag --code names", f.Type, f.Text)
	case f.Type == "MemoryError" || f.Type == "_ArrayMemoryError":
		return "the model needs more memory than it may take: " + f.Type + suffix(f.Text) + "; raise the limit if that is expected"
	case f.Type == "":
		return f.Text
	}
	return f.Type + suffix(f.Text)
}

func suffix(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

const maxHeader = 256 << 20 // bytes that the header of an answer may have

func writeFrame(w io.Writer, header any, body ...[]byte) error {
	data, err := json.Marshal(header)
	if err != nil {
		return err
	}
	size := 0
	for _, b := range body {
		size += len(b)
	}
	head := make([]byte, 12, 12+len(data))
	binary.LittleEndian.PutUint32(head, uint32(len(data)))
	binary.LittleEndian.PutUint64(head[4:], uint64(size))
	if _, err := w.Write(append(head, data...)); err != nil {
		return err
	}
	for _, b := range body {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// readFrame reads an answer. The worker runs other people's code, so that nothing is
// believed: sizes have limits.
func readFrame(r io.Reader, maxBody uint64) (h reply, body []byte, err error) {
	var head [12]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return h, nil, err
	}
	n, m := binary.LittleEndian.Uint32(head[:]), binary.LittleEndian.Uint64(head[4:])
	if n > maxHeader || m > maxBody {
		return h, nil, fmt.Errorf("an answer of %d and %d bytes is larger than any answer can be", n, m)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return h, nil, err
	}
	body = make([]byte, m)
	if _, err := io.ReadFull(r, body); err != nil {
		return h, nil, err
	}
	return h, body, json.Unmarshal(data, &h)
}

// part is some sensors of a batch.
type part struct {
	*scorer.Batch
	sensors []int // their numbers
	starts  []int // per sensor of the batch, its first row; one more at the end
}

// request is the batch request for a part, with its body: the Arrow stream and the models.
func (p part) request(models string) (batchRequest, [][]byte, error) {
	req := batchRequest{Op: "score", KeyNames: p.KeyNames, Features: p.Features, Outputs: p.Outputs, Models: models}
	body := [][]byte{nil}
	for _, i := range p.sensors {
		s := &p.Sensors[i]
		req.Keys = append(req.Keys, sensorRow{Key: s.Key.Values(), Name: s.Name, Digest: s.Digest.String(), Model: len(s.Model), Rows: s.Rows})
		body = append(body, s.Model)
	}
	stream, columns, err := p.arrow()
	req.Columns, req.Arrow, body[0] = columns, len(stream), stream
	return req, body, err
}

// arrow is the rows of the part as an Arrow stream: the time, if rows have one, then the features.
func (p part) arrow() (stream []byte, columns []string, err error) {
	var fields []arrow.Field
	if p.TimeName != "" {
		fields = append(fields, arrow.Field{Name: p.TimeName, Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}})
	}
	first := len(fields) // of the features
	for _, f := range p.Features {
		for slices.Contains(columns, f) || f == p.TimeName { // a column that is used twice
			f += "_"
		}
		columns = append(columns, f)
		fields = append(fields, arrow.Field{Name: f, Type: arrow.PrimitiveTypes.Float64})
	}
	schema := arrow.NewSchema(fields, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for _, i := range p.sensors {
		from, to := p.starts[i], p.starts[i+1]
		if p.TimeName != "" {
			times := b.Field(0).(*array.TimestampBuilder)
			times.Reserve(to - from)
			for _, t := range p.Times[from:to] {
				times.UnsafeAppend(arrow.Timestamp(t))
			}
		}
		for c, column := range p.Columns {
			b.Field(first+c).(*array.Float64Builder).AppendValues(column[from:to], nil)
		}
	}
	record := b.NewRecordBatch()
	defer record.Release()
	var out bytes.Buffer
	w := ipc.NewWriter(&out, ipc.WithSchema(schema))
	if err := w.Write(record); err != nil {
		return nil, nil, err
	}
	return out.Bytes(), columns, w.Close()
}

// values reads the body of an answer: the predictions, then as many scores.
func values(body []byte) (prediction, score []float64, err error) {
	if len(body)%16 != 0 {
		return nil, nil, fmt.Errorf("the answer's body of %d bytes isn't a prediction and a score for each row", len(body))
	}
	all := make([]float64, len(body)/8)
	for i := range all {
		all[i] = math.Float64frombits(binary.LittleEndian.Uint64(body[8*i:]))
	}
	return all[:len(all)/2], all[len(all)/2:], nil
}
