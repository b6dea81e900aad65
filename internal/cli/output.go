package cli

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/oneshot"
)

// addOutputFlag gives a command the flag -o.
func addOutputFlag(cmd *cobra.Command) {
	cmd.Flags().StringP("output", "o", "table", "how to print: table, json, jsonl or csv")
}

// listing is the output of a command: rows of a table for people, and the same content
// as objects for programs.
type listing struct {
	columns []string
	rows    [][]any // texts, numbers, times, durations, pointers to times
	items   []any   // one per row
	single  bool    // JSON prints the object itself instead of a list
}

func (l *listing) add(item any, cells ...any) {
	l.items = append(l.items, item)
	l.rows = append(l.rows, cells)
}

// print writes the listing as -o asks.
func (l *listing) print(cmd *cobra.Command) error {
	how, err := cmd.Flags().GetString("output")
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	switch how {
	case "table":
		return writeTable(w, l.columns, l.texts(forPeople))
	case "csv":
		header := make([]string, len(l.columns))
		for i, c := range l.columns {
			if header[i] = strings.ReplaceAll(c, " ", "_"); c == tookColumn {
				header[i] += "_seconds"
			}
		}
		c := csv.NewWriter(w)
		if err := c.WriteAll(append([][]string{header}, l.texts(forPrograms)...)); err != nil {
			return err
		}
		return c.Error()
	case "json":
		var v any = l.items
		if l.single && len(l.items) == 1 {
			v = l.items[0]
		} else if l.items == nil {
			v = []any{}
		}
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "jsonl", ndjson:
		e := json.NewEncoder(w)
		for _, item := range l.items {
			if err := e.Encode(item); err != nil {
				return err
			}
		}
		return nil
	}
	return checkOutput(how)
}

var outputs = []string{"table", "json", "jsonl", "csv"}

// ndjson is another name of jsonl.
const ndjson = "ndjson"

func checkOutput(how string) error {
	if slices.Contains(outputs, how) || how == ndjson {
		return nil
	}
	return usagef("-o %s: table, json, jsonl or csv are possible%s", how, meant(how, outputs))
}

// tookColumn is a column of durations; CSV has them in seconds.
const tookColumn = "took"

func (l *listing) texts(text func(any) string) [][]string {
	out := make([][]string, len(l.rows))
	for i, r := range l.rows {
		out[i] = make([]string, len(r))
		for j, v := range r {
			out[i][j] = text(v)
		}
	}
	return out
}

// forPeople groups digits, rounds nothing, and shows what is missing as a dash.
func forPeople(v any) string {
	switch x := v.(type) {
	case string:
		return orDash(x)
	case int64:
		return thousands(x)
	case time.Time:
		return stamp(x)
	case *time.Time:
		return stampOf(x)
	case time.Duration:
		if x == 0 {
			return "-"
		}
		return x.String()
	}
	return fmt.Sprint(v)
}

// forPrograms is plain numbers, times as RFC 3339, and nothing for what is missing.
func forPrograms(v any) string {
	switch x := v.(type) {
	case time.Time:
		if x.IsZero() {
			return ""
		}
		return x.UTC().Format(time.RFC3339Nano)
	case *time.Time:
		if x == nil {
			return ""
		}
		return forPrograms(*x)
	case time.Duration:
		if x == 0 {
			return ""
		}
		return strconv.FormatFloat(x.Seconds(), 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

// writeTable prints left-aligned columns two spaces apart, without borders.
func writeTable(w io.Writer, columns []string, rows [][]string) error {
	width := make([]int, len(columns))
	head := make([]string, len(columns))
	for i, c := range columns {
		head[i] = strings.ToUpper(c)
		width[i] = utf8.RuneCountInString(c)
	}
	for _, r := range rows {
		for i := range r {
			r[i] = fleetscore.Printable(r[i])
		}
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	for _, r := range append([][]string{head}, rows...) {
		for i, c := range r {
			b.WriteString(c)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)+2))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// orDash returns a dash for an empty cell.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// thousands groups the digits of n by commas.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return thousands(int64(n)) + " " + thing + "s"
}

// verb returns the form of a verb for one thing or for several things.
func verb(n int, many string) string {
	if n == 1 {
		return many + "s"
	}
	return many
}

// startProgress shows on a terminal how far a stage of total units is (0 if that
// isn't known), until end is called. If the output isn't a terminal, it prints nothing.
// The work adds to done.
func startProgress(w io.Writer, stage string, done *atomic.Int64, total int64, unit string) (end func()) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func() {}
	}
	p := &progress{w: w, done: done, stop: make(chan struct{}), ended: make(chan struct{})}
	go p.show(stage, total, unit)
	return func() {
		close(p.stop)
		<-p.ended
	}
}

// showProgress is startProgress for work that reports its own progress.
func showProgress(w io.Writer, stage, unit string) (report func(done, total int64), end func()) {
	var at atomic.Int64
	var once sync.Once
	stop := func() {}
	return func(done, total int64) {
		at.Store(done)
		once.Do(func() { stop = startProgress(w, stage, &at, total, unit) })
	}, func() { once.Do(func() {}); stop() }
}

type progress struct {
	w     io.Writer
	done  *atomic.Int64
	stop  chan struct{}
	ended chan struct{}
}

func (p *progress) show(stage string, total int64, unit string) {
	defer close(p.ended)
	began, drawn := time.Now(), false
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			if drawn {
				fmt.Fprint(p.w, "\r\x1b[K")
			}
			return
		case <-t.C:
			if took := time.Since(began); took > time.Second {
				fmt.Fprint(p.w, "\r\x1b[K", progressLine(stage, p.done.Load(), total, unit, took))
				drawn = true
			}
		}
	}
}

const barWidth = 24

// progressLine is "reading  [######······]  52 %  1,200 of 2,300 MB  310 MB/s".
func progressLine(stage string, done, total int64, unit string, took time.Duration) string {
	scale := int64(1)
	if unit == "MB" {
		scale = 1e6
	}
	rate := thousands(int64(float64(done)/took.Seconds())/scale) + " " + unit + "/s"
	if total <= 0 {
		return fmt.Sprintf("%-8s %s %s  %s", stage, thousands(done/scale), unit, rate)
	}
	done = min(done, total)
	full := int(barWidth * done / total)
	return fmt.Sprintf("%-8s [%s%s] %3d %%  %s of %s %s  %s", stage, strings.Repeat("#", full), strings.Repeat("·", barWidth-full),
		100*done/total, thousands(done/scale), thousands(total/scale), unit, rate)
}

func outcomeList(c fleetscore.Counts) string {
	var parts []string
	for _, o := range fleetscore.Outcomes {
		if n := c[o]; n > 0 || o == fleetscore.Scored {
			parts = append(parts, thousands(n)+" "+string(o))
		}
	}
	return strings.Join(parts, ", ")
}

func shortList(names []string) string {
	const most = 8
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// handBack gives the manifest to the program that handed over the rows, and tells it that all is there: it needn't wait
// until this process has ended.
func handBack(w io.Writer, m *oneshot.Manifest) error {
	err := json.NewEncoder(w).Encode(m)
	if c, ok := w.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	return err
}
