package cli

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
)

// addOutputFlag gives a command the flag -o.
func addOutputFlag(cmd *cobra.Command) {
	cmd.Flags().StringP("output", "o", "table", "how to print: table, json, jsonl or csv")
}

// listing is what a command prints: the same rows as a table for people, and
// the objects behind them for programs.
type listing struct {
	columns []string
	rows    [][]string
	items   []any // one per row
	single  bool  // JSON prints the object itself instead of a list
}

func (l *listing) add(item any, cells ...string) {
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
		return writeTable(w, l.columns, l.rows)
	case "csv":
		c := csv.NewWriter(w)
		if err := c.WriteAll(append([][]string{l.columns}, l.rows...)); err != nil {
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
	case "jsonl":
		e := json.NewEncoder(w)
		for _, item := range l.items {
			if err := e.Encode(item); err != nil {
				return err
			}
		}
		return nil
	}
	return usagef("-o %s: write table, json, jsonl or csv", how)
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

// orDash shows that a cell has nothing to say.
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

// verb is what one thing does, or several do.
func verb(n int, many string) string {
	if n == 1 {
		return many + "s"
	}
	return many
}
