package fleet

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// ModelColumn is the column of a list of sensors that names their models.
const ModelColumn = "model"

// Default is a model for sensors that have none of their own.
type Default struct {
	// When holds patterns of key columns' values that must all fit: "*" stands for
	// any characters, "?" for one. Empty means every sensor.
	When  map[string]string
	Model string // the file, relative to the models' folder
}

// fits reports whether a sensor is one of the class.
func (d *Default) fits(names []string, k fleetscore.Key) bool {
	if len(d.When) == 0 {
		return true
	}
	values := k.Values()
	for i, n := range names {
		if p, ok := d.When[n]; ok && !fits(p, values[i]) {
			return false
		}
	}
	return true
}

// fits matches a text with a pattern of "*" and "?".
func fits(pattern, s string) bool {
	star, back := -1, 0 // the last "*", and where in s its text ends
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, back = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			if pattern[p] == '?' {
				i += len(firstRune(s[i:])) - 1
			}
			p++
			i++
		case star >= 0:
			back++
			p, i = star+1, back
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

func firstRune(s string) string {
	for i := range s {
		if i > 0 {
			return s[:i]
		}
	}
	return s
}

// sensor is a line of a list of sensors.
type sensor struct {
	key   fleetscore.Key
	model string // relative to the models' folder; empty if the list doesn't say
	line  int
}

// readSensors reads a list of sensors: CSV with a header, or a JSON object per
// line, with the key columns and, if it maps sensors to models, a column "model"
// whose paths are relative to the list.
func readSensors(ctx context.Context, b store.Bucket, file string, names []string) ([]sensor, error) {
	in, err := b.Get(ctx, fleetscore.BlobName(file), 0, -1)
	if err != nil {
		if fleetscore.NotFound.Is(err) {
			return nil, fleetscore.Errorf(fleetscore.NotFound, "read sensors", file, "the list isn't in the models' folder").
				WithHint("put it there, or change the fleet's sensors")
		}
		return nil, err
	}
	defer in.Close()
	l := list{file: file, folder: path.Dir(file), names: names}
	switch path.Ext(file) {
	case ".csv":
		err = l.csv(in)
	case ".ndjson", ".jsonl":
		err = l.ndjson(in)
	default:
		err = l.bad(0, "its name ends in none of .csv, .ndjson and .jsonl, so its form isn't known")
	}
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(l.sensors, func(a, b sensor) int { return compareKeys(a.key, b.key) })
	for i := 1; i < len(l.sensors); i++ {
		if a, b := l.sensors[i-1], l.sensors[i]; a.key == b.key {
			return nil, l.bad(b.line, "sensor %s stands in line %d already", b.key, a.line)
		}
	}
	return l.sensors, nil
}

// list reads a list of sensors.
type list struct {
	file, folder string
	names        []string
	sensors      []sensor
}

func (l *list) bad(line int, format string, args ...any) error {
	subject := l.file
	if line > 0 {
		subject = fmt.Sprintf("%s:%d", l.file, line)
	}
	return fleetscore.Errorf(fleetscore.Invalid, "read sensors", subject, format, args...)
}

func (l *list) add(line int, values []string, model string) error {
	k, err := fleetscore.NewKey(values...)
	if err != nil {
		return l.bad(line, "%v", errors.Unwrap(err))
	}
	if model != "" {
		if path.IsAbs(model) {
			return l.bad(line, "model %s: write a path relative to the list", model)
		}
		model = path.Join(l.folder, model)
		if err := store.CheckName(fleetscore.BlobName(model)); err != nil {
			return l.bad(line, "model %s: %v", model, errors.Unwrap(err))
		}
	}
	l.sensors = append(l.sensors, sensor{k, model, line})
	return nil
}

func (l *list) csv(in io.Reader) error {
	r := csv.NewReader(in)
	r.ReuseRecord = true
	head, err := r.Read()
	if err == io.EOF {
		return l.bad(0, "it is empty; its first line names the columns: %s", strings.Join(append(slices.Clone(l.names), ModelColumn), ","))
	} else if err != nil {
		return l.csvError(err)
	}
	head[0] = strings.TrimPrefix(head[0], "\ufeff")
	columns := make([]int, len(l.names))
	for i, n := range l.names {
		if columns[i] = slices.Index(head, n); columns[i] < 0 {
			return l.bad(1, "column %s is missing; there is: %s", n, strings.Join(head, ", "))
		}
	}
	model := slices.Index(head, ModelColumn)
	values := make([]string, len(columns))
	for {
		rec, err := r.Read()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return l.csvError(err)
		}
		for i, c := range columns {
			values[i] = rec[c]
		}
		file := ""
		if model >= 0 {
			file = rec[model]
		}
		line, _ := r.FieldPos(0)
		if err := l.add(line, values, file); err != nil {
			return err
		}
	}
}

func (l *list) csvError(err error) error {
	if e, ok := errors.AsType[*csv.ParseError](err); ok {
		return l.bad(e.Line, "%v", e.Err)
	}
	return fleetscore.Wrap("read sensors", l.file, err)
}

func (l *list) ndjson(in io.Reader) error {
	data, err := io.ReadAll(in)
	if err != nil {
		return fleetscore.Wrap("read sensors", l.file, err)
	}
	values := make([]string, len(l.names))
	line := 0
	for text := range bytes.Lines(data) {
		line++
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		var fields map[string]any
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&fields); err != nil || d.More() {
			return l.bad(line, "it is no JSON object")
		}
		for i, n := range l.names {
			var ok bool
			if values[i], ok = scalar(fields[n]); !ok {
				return l.bad(line, "%s is missing, or neither a text nor a number", n)
			}
		}
		model, _ := scalar(fields[ModelColumn])
		if err := l.add(line, values, model); err != nil {
			return err
		}
	}
	return nil
}

func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	}
	return "", false
}
