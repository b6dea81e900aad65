package table

import (
	"bufio"
	"bytes"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// WriteCSV writes predictions with a header: time, key columns, values,
// Prediction, Score. A missing number is empty. Times are written in the layout.
func WriteCSV(w io.Writer, p *fleetscore.Predictions, l Layout) error {
	out := bufio.NewWriterSize(w, 1<<20) // one system call per MiB
	line := []byte(p.TimeName)
	for _, n := range p.KeyNames {
		line = appendField(append(line, ','), n)
	}
	for _, n := range p.ValueNames {
		line = appendField(append(line, ','), n)
	}
	line = append(line, ",Prediction,Score\n"...)
	keys := make([][]byte, len(p.Keys))
	for i, k := range p.Keys {
		for _, v := range k.Values() {
			keys[i] = appendField(append(keys[i], ','), v)
		}
	}
	for i := range p.Times {
		if _, err := out.Write(line); err != nil {
			return err
		}
		line = l.append(line[:0], p.Times[i])
		line = append(line, keys[p.KeyIndex[i]]...)
		for c := range p.Values {
			line = appendNumber(append(line, ','), p.Values[c][i])
		}
		line = appendNumber(append(line, ','), p.Prediction[i])
		line = appendNumber(append(line, ','), p.Score[i])
		line = append(line, '\n')
	}
	if _, err := out.Write(line); err != nil {
		return err
	}
	return out.Flush()
}

// appendNumber writes the shortest text that reads back as the same float64.
func appendNumber(dst []byte, x float64) []byte {
	if math.IsNaN(x) {
		return dst
	}
	if a := math.Abs(x); a == 0 || a >= 1e-5 && a < 1e16 {
		return strconv.AppendFloat(dst, x, 'f', -1, 64)
	}
	return strconv.AppendFloat(dst, x, 'e', -1, 64)
}

func appendField(dst []byte, s string) []byte {
	if !strings.ContainsAny(s, ",\"\r\n") {
		return append(dst, s...)
	}
	dst = append(dst, '"')
	dst = append(dst, strings.ReplaceAll(s, `"`, `""`)...)
	return append(dst, '"')
}

// WriteItemsCSV writes coverage with a header: key columns, outcome, rows,
// anomalies, first, last, model, reason.
func WriteItemsCSV(w io.Writer, keyNames []string, items []fleetscore.Item) error {
	var b bytes.Buffer
	var line []byte
	for _, n := range keyNames {
		line = append(appendField(line, n), ',')
	}
	line = append(line, "outcome,rows,anomalies,first,last,model,reason\n"...)
	b.Write(line)
	for _, it := range items {
		line = line[:0]
		for _, v := range it.Key.Values() {
			line = append(appendField(line, v), ',')
		}
		line = append(line, it.Outcome...)
		line = strconv.AppendInt(append(line, ','), it.Rows, 10)
		line = strconv.AppendInt(append(line, ','), it.Anomalies, 10)
		for _, t := range []fleetscore.Micros{it.First, it.Last} {
			line = append(line, ',')
			if t != 0 {
				line = RFC3339.append(line, t)
			}
		}
		line = append(line, ',')
		if !it.Model.IsZero() {
			line = append(line, it.Model.String()...)
		}
		line = appendField(append(line, ','), it.Reason)
		b.Write(append(line, '\n'))
	}
	_, err := w.Write(b.Bytes())
	return err
}
