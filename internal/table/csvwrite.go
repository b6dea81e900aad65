package table

import (
	"bufio"
	"bytes"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/fleetscore/fleetscore"
)

// WriteOptions say how rows are written.
type WriteOptions struct {
	Layout   Layout        // of times
	Workers  int           // goroutines; 0 means all cores
	Progress *atomic.Int64 // rows written so far are added; may be nil
}

// blockRows is how many rows are turned into text at once.
const blockRows = 16384

// WriteCSV writes predictions with a header: time, key columns, values,
// Prediction, Score. A missing number is empty.
func WriteCSV(w io.Writer, p *fleetscore.Predictions, opt WriteOptions) error {
	if opt.Workers <= 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	c := &csvText{p: p, layout: opt.Layout}
	c.renderKeys()
	if _, err := w.Write(c.header()); err != nil {
		return err
	}
	blocks := (p.Len() + blockRows - 1) / blockRows
	workers := max(1, min(opt.Workers, blocks))
	// Worker i makes blocks i, i+workers, …: taking their texts in turn keeps the
	// order, and two buffers a worker bound what waits.
	texts, spare := make([]chan []byte, workers), make([]chan []byte, workers)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range workers {
		texts[i], spare[i] = make(chan []byte, 1), make(chan []byte, 2)
		spare[i] <- nil
		spare[i] <- nil
		wg.Go(func() {
			clock := clockText{layout: opt.Layout}
			for b := i; b < blocks; b += workers {
				text := c.rows(<-spare[i], b*blockRows, min((b+1)*blockRows, p.Len()), &clock)
				select {
				case texts[i] <- text:
				case <-stop:
					return
				}
			}
		})
	}
	var err error
	for b := 0; b < blocks && err == nil; b++ {
		text := <-texts[b%workers]
		_, err = w.Write(text)
		spare[b%workers] <- text[:0]
		if opt.Progress != nil {
			opt.Progress.Add(int64(min((b+1)*blockRows, p.Len()) - b*blockRows))
		}
	}
	close(stop)
	wg.Wait()
	return err
}

// csvText turns predictions into text; it may be used by several goroutines.
type csvText struct {
	p      *fleetscore.Predictions
	layout Layout
	keys   []byte // "3,pressure," of all keys
	starts []int  // where each begins; one more at the end
}

// results end the header of predictions.
const results = "Prediction,Score\n"

func (c *csvText) header() []byte {
	var line []byte
	names := slices.Concat(c.p.KeyNames, c.p.ValueNames)
	if c.p.TimeName != "" {
		names = slices.Insert(names, 0, c.p.TimeName)
	}
	for _, n := range names {
		line = append(appendField(line, n), ',')
	}
	return append(line, results...)
}

func (c *csvText) renderKeys() {
	c.starts = make([]int, 0, len(c.p.Keys)+1)
	for _, k := range c.p.Keys {
		c.starts = append(c.starts, len(c.keys))
		if len(c.p.KeyNames) == 0 {
			continue
		}
		for v := range strings.SplitSeq(string(k), fleetscore.KeySeparator) {
			c.keys = append(appendField(c.keys, v), ',')
		}
	}
	c.starts = append(c.starts, len(c.keys))
}

// rows appends the lines of some rows.
func (c *csvText) rows(dst []byte, from, to int, clock *clockText) []byte {
	p := c.p
	for i := from; i < to; i++ {
		if p.TimeName != "" {
			dst = append(clock.append(dst, p.Times[i]), ',')
		}
		k := p.KeyIndex[i]
		dst = append(dst, c.keys[c.starts[k]:c.starts[k+1]]...)
		for _, v := range p.Values {
			dst = append(appendNumber(dst, v[i]), ',')
		}
		switch p.Prediction[i] { // nearly always
		case 0:
			dst = append(dst, '0')
		case 1:
			dst = append(dst, '1')
		default:
			dst = appendNumber(dst, p.Prediction[i])
		}
		dst = append(appendShortest(append(dst, ','), p.Score[i]), '\n') // hardly ever a short decimal
	}
	return dst
}

func appendField(dst []byte, s string) []byte {
	if !strings.ContainsAny(s, ",\"\r\n") {
		return append(dst, s...)
	}
	dst = append(dst, '"')
	dst = append(dst, strings.ReplaceAll(s, `"`, `""`)...)
	return append(dst, '"')
}

// WriteItemsParquet writes coverage with the columns of WriteItemsCSV.
func WriteItemsParquet(w io.Writer, keyNames []string, items []fleetscore.Item) error {
	f := &Frame{}
	for i, n := range keyNames {
		c := column{name: n, kind: kindText}
		for _, it := range items {
			c.appendText(it.Key.Values()[i])
		}
		f.columns = append(f.columns, c)
	}
	outcome, model, reason := column{name: "outcome", kind: kindText}, column{name: "model", kind: kindText}, column{name: "reason", kind: kindText}
	rows, anomalies := column{name: "rows", kind: kindLong}, column{name: "anomalies", kind: kindLong}
	first, last := column{name: "first", kind: kindTime, zero: true}, column{name: "last", kind: kindTime, zero: true}
	for _, it := range items {
		outcome.appendText(string(it.Outcome))
		rows.longs, anomalies.longs = append(rows.longs, it.Rows), append(anomalies.longs, it.Anomalies)
		first.longs, last.longs = append(first.longs, int64(it.First)), append(last.longs, int64(it.Last))
		digest := ""
		if !it.Model.IsZero() {
			digest = it.Model.String()
		}
		model.appendText(digest)
		reason.appendText(it.Reason)
	}
	f.columns = append(f.columns, outcome, rows, anomalies, first, last, model, reason)
	return writeParquet(w, f)
}

// WriteItemsCSV writes coverage with a header: key columns, outcome, rows,
// anomalies, first, last, model, reason. Times have the layout of the predictions.
func WriteItemsCSV(w io.Writer, keyNames []string, items []fleetscore.Item, layout Layout) error {
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
				line = layout.append(line, t)
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

// WriteRejectsCSV writes malformed rows with a header: file, line, column, value,
// reason.
func WriteRejectsCSV(w io.Writer, rejects []Reject) error {
	out := []byte("file,line,column,value,reason\n")
	for _, r := range rejects {
		out = append(appendField(out, r.File), ',')
		out = append(strconv.AppendInt(out, int64(r.Line), 10), ',')
		out = append(appendField(out, r.Column), ',')
		out = append(appendField(out, r.Value), ',')
		out = append(appendField(out, r.Reason), '\n')
	}
	_, err := w.Write(out)
	return err
}

// WriteRowsCSV writes rows with a header: time, key columns, values. Times are written as in
// 2026-11-23 10:00:05.000, with as many digits as the finest needs. A missing number is empty.
func WriteRowsCSV(w io.Writer, rows *fleetscore.Rows) error {
	c := &csvText{p: &fleetscore.Predictions{Rows: *rows}}
	c.renderKeys()
	out := bufio.NewWriterSize(w, 64<<10)
	header := c.header()
	out.Write(append(header[:len(header)-len(results)-1], '\n'))
	digits := "2006-01-02 15:04:05.000"
	for _, t := range rows.Times {
		if t%1000 != 0 {
			digits = "2006-01-02 15:04:05.000000"
		}
	}
	var line []byte
	for i, t := range rows.Times {
		k := rows.KeyIndex[i]
		line = append(t.Time().UTC().AppendFormat(line[:0], digits), ',')
		line = append(line, c.keys[c.starts[k]:c.starts[k+1]]...)
		for _, v := range rows.Values {
			line = append(appendNumber(line, v[i]), ',')
		}
		line[len(line)-1] = '\n'
		out.Write(line)
	}
	return out.Flush() // which tells of earlier errors too
}
