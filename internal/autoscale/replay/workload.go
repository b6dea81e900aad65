package replay

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/autoscale/formula"
)

// Work is what jobs asked of their pool: their tasks, at the time when they were queued.
func Work(jobs []autoscale.Past) (out []Arrival) {
	for _, j := range jobs {
		for _, r := range j.Runs {
			out = append(out, Arrival{At: j.Queued, Tasks: r.Tasks, Takes: lasting(r.Seconds)})
		}
	}
	return out
}

// lasting is a number of seconds to the nearest microsecond.
func lasting(seconds float64) time.Duration {
	return time.Duration(math.Round(seconds*1e6)) * time.Microsecond
}

// columns are the header of a file with a workload.
const columns = "time,tasks,seconds"

// Write writes a workload as CSV, which Read understands.
func Write(w io.Writer, work []Arrival) error {
	text := []byte(columns + "\n")
	for _, a := range work {
		text = fmt.Appendf(text, "%s,%d,%s\n", a.At.UTC().Format(time.RFC3339Nano), a.Tasks, strconv.FormatFloat(a.Takes.Seconds(), 'f', -1, 64))
	}
	_, err := w.Write(text)
	return err
}

// Read reads CSV with the columns time, tasks and seconds. The name of the file is for
// errors.
func Read(name string, text []byte) ([]Arrival, error) {
	bad := func(line int, format string, args ...any) error {
		return fleetscore.Errorf(fleetscore.Invalid, "read workload", fmt.Sprintf("%s:%d", name, line), format, args...).
			WithHint("the file has the header " + columns + " and lines such as 2026-11-23T10:00:00Z,40,90")
	}
	r := csv.NewReader(bytes.NewReader(text))
	r.ReuseRecord, r.FieldsPerRecord = true, -1
	var out []Arrival
	for {
		row, err := r.Read()
		if err == io.EOF {
			return out, nil
		} else if broken := (*csv.ParseError)(nil); errors.As(err, &broken) {
			return nil, bad(broken.Line, "%w", broken.Err)
		} else if err != nil {
			return nil, err
		}
		line, _ := r.FieldPos(0)
		switch {
		case len(out) == 0 && strings.Join(row, ",") == columns:
			continue
		case len(row) != 3:
			return nil, bad(line, "there are %d columns", len(row))
		}
		at, ok := formula.ParseTime(row[0])
		if !ok {
			return nil, bad(line, "%q isn't a time", row[0])
		}
		tasks, err := strconv.Atoi(row[1])
		if err != nil {
			return nil, bad(line, "%q isn't a whole number of tasks", row[1])
		}
		seconds, err := strconv.ParseFloat(row[2], 64)
		if err != nil || !(seconds > 0 && seconds <= MaxSpan.Seconds()) {
			return nil, bad(line, "%q isn't a number of seconds", row[2])
		}
		out = append(out, Arrival{At: at, Tasks: tasks, Takes: lasting(seconds)})
	}
}
