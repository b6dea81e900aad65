// Package laboratory runs queries over files, without a server: it reads events, gives
// them their times by the policy, runs the query and prints the rows. It is part of the
// command line and keeps no state.
package laboratory

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/stream"
	"github.com/fleetscore/fleetscore/internal/query/value"
	"github.com/fleetscore/fleetscore/internal/table/records"
)

// Options says what to run over what.
type Options struct {
	File        string
	Inputs      []string // NAME=FILE
	Arrival     string   // the column with each event's arrival; empty: arrivals aren't known
	ArrivalTime bool     // events go by their arrival, whatever TIMESTAMP BY says
	Disordered  bool     // the tolerance for disorder holds without arrivals too
	Policy      stream.Policy
}

// Compile reads a file with queries.
func Compile(file string) (*stream.Plan, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, unreadable("read query", file, err)
	}
	script, err := sql.Parse(strings.TrimPrefix(string(text), "\ufeff"))
	if err != nil {
		return nil, err
	}
	return stream.Compile(script)
}

func unreadable(op, file string, err error) error {
	if path := (*os.PathError)(nil); errors.As(err, &path) {
		err = path.Err
	}
	kind := fleetscore.Invalid
	if errors.Is(err, os.ErrNotExist) {
		kind = fleetscore.NotFound
	}
	return fleetscore.Errorf(kind, op, file, "%w", err)
}

// event is one line of an input.
type event struct {
	line  int
	row   *value.Record
	stamp fleetscore.Micros
	order int
	input int // of Plan.Inputs
}

// Judged is what became of an event.
type Judged struct {
	Input   string
	Line    int
	Event   *value.Record
	Time    value.Value // the event's own time
	Arrived value.Value
	Stamp   value.Value // System.Timestamp(); NULL if the event was dropped
	Outcome string      // on_time, adjusted, dropped
	Reason  string      // late, out_of_order, early, no_time, not_declared; empty if it was on time
}

// lab runs one script.
type lab struct {
	opt    Options
	plan   *stream.Plan
	files  map[string]string // by input, in lower case
	lines  map[string][]event
	warn   func(format string, args ...any)
	judged func(Judged) error
}

// Test runs the queries. row gets each row; with judged, each event's verdict is reported
// and no query is run. warn gets what is most likely not meant.
func Test(opt Options, row func(output string, r *value.Record) error, judged func(Judged) error, warn func(format string, args ...any)) error {
	plan, err := Compile(opt.File)
	if err != nil {
		return err
	}
	l := &lab{opt: opt, plan: plan, files: map[string]string{}, lines: map[string][]event{}, warn: warn, judged: judged}
	if err := l.open(); err != nil {
		return err
	}
	var all []event
	reference := map[string][]*value.Record{}
	for i := range plan.Inputs {
		in := &plan.Inputs[i]
		events, err := l.read(in)
		if err != nil {
			return err
		}
		if in.Reference {
			for _, e := range events {
				if r, ok := in.Declare(e.row); ok {
					reference[in.Name] = append(reference[in.Name], r)
				}
			}
			continue
		}
		timed, err := l.times(i, in, events)
		if err != nil {
			return err
		}
		all = append(all, timed...)
	}
	if judged != nil {
		return nil
	}
	l.unknownColumns()
	for i := range all {
		all[i].order = i
	}
	slices.SortStableFunc(all, func(a, b event) int { return cmp.Compare(a.stamp, b.stamp) })
	return l.run(all, reference, row)
}

// run runs the plan over events in the order of their times, and hands the rows on by
// output and time.
func (l *lab) run(all []event, reference map[string][]*value.Record, row func(output string, r *value.Record) error) error {
	var rows []stream.Row
	r := l.plan.NewRunner(reference, func(x stream.Row) error { rows = append(rows, x); return nil })
	for _, e := range all {
		if err := r.Push(e.input, e.row, e.stamp); err != nil {
			return fmt.Errorf("line %d of input %s: %w", e.line, l.plan.Inputs[e.input].Name, err)
		}
	}
	if err := r.Flush(); err != nil {
		return err
	}
	slices.SortStableFunc(rows, func(a, b stream.Row) int {
		return cmp.Or(cmp.Compare(a.Output, b.Output), cmp.Compare(a.Stamp, b.Stamp))
	})
	for _, x := range rows {
		if err := row(l.plan.Outputs[x.Output], x.Record); err != nil {
			return err
		}
	}
	return nil
}

// open checks that there is a file for each input of the queries, and an input for each file.
func (l *lab) open() error {
	var needed []string
	for _, in := range l.plan.Inputs {
		if !slices.ContainsFunc(needed, func(n string) bool { return strings.EqualFold(n, in.Name) }) {
			needed = append(needed, in.Name)
		}
	}
	for _, in := range l.opt.Inputs {
		name, file, ok := strings.Cut(in, "=")
		if !ok || name == "" || file == "" {
			return fleetscore.Errorf(fleetscore.Invalid, "read flag", "--input "+in, "a name and a file are expected").WithHint("write for example --input hub=readings.ndjson")
		}
		if !slices.ContainsFunc(needed, func(n string) bool { return strings.EqualFold(n, name) }) {
			return fleetscore.Errorf(fleetscore.Invalid, "read flag", "--input "+in, "the queries have no input %s", name).WithHint("they read %s", strings.Join(needed, ", "))
		}
		if _, twice := l.files[strings.ToLower(name)]; twice {
			return fleetscore.Errorf(fleetscore.Invalid, "read flag", "--input "+in, "the input %s was given before", name)
		}
		l.files[strings.ToLower(name)] = file
	}
	for _, in := range l.plan.Inputs {
		if _, ok := l.files[strings.ToLower(in.Name)]; !ok {
			return l.plan.SQL.ErrorAt(in.At, "there is no file for the input %s", in.Name).WithHint("add --input %s=FILE.ndjson", in.Name)
		}
	}
	return nil
}

// read returns the events of an input's file, which is read once.
func (l *lab) read(in *stream.Input) ([]event, error) {
	file := l.files[strings.ToLower(in.Name)]
	if got, ok := l.lines[file]; ok {
		return got, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, unreadable("read input", file, err)
	}
	defer f.Close()
	var events []event
	if ext := strings.ToLower(filepath.Ext(file)); ext == ".csv" || ext == ".parquet" {
		data, err := io.ReadAll(f)
		if err != nil {
			return nil, unreadable("read input", file, err)
		}
		rows, err := records.Read(file, data)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			events = append(events, event{line: r.Line, row: r.Record})
		}
	} else if events, err = readEvents(f); err != nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "read input", file, "%w", err)
	}
	l.lines[file] = events
	return events, nil
}

// maxLine bounds one event.
const maxLine = 16 << 20

func readEvents(r io.Reader) (out []event, err error) {
	var reader value.Reader
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), maxLine)
	for n := 1; s.Scan(); n++ {
		line := bytes.TrimSpace(s.Bytes())
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
		}
		if len(line) == 0 {
			continue
		}
		row, err := reader.Read(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		out = append(out, event{line: n, row: row})
	}
	return out, s.Err()
}
