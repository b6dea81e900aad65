package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// section is the result of one part.
type section struct {
	Title    string
	Date     time.Time
	Took     string
	Quick    bool
	Load     [2]string // load average before and after
	Commit   string
	Machine  map[string]string
	Versions map[string]string // of the peers
	Tables   []grid
	Notes    []string
	Targets  []target
}

// grid is a table of text.
type grid struct {
	Caption string
	Head    []string
	Rows    [][]string
}

func (g *grid) add(cells ...string) { g.Rows = append(g.Rows, cells) }

// target is a target and the measured value.
type target struct {
	What     string
	Want     string
	Measured string
	Met      bool
	By       float64 // measured ÷ wanted or its inverse, so that 1 and more is good
}

// atLeast compares a ratio with its target; atMost compares a time or an amount of memory.
func atLeast(what string, want, got float64, unit, more string) target {
	return target{what, "≥ " + short(want) + unit, short(got) + unit + more, got >= want, got / want}
}

func atMost(what string, want, got float64, unit, more string) target {
	return target{what, "≤ " + short(want) + unit, short(got) + unit + more, got <= want, want / got}
}

func (t target) verdict() string {
	if t.Met {
		return "met"
	}
	return fmt.Sprintf("missed: %.0f %% of the target", 100*t.By)
}

var targetHead = []string{"target", "wanted", "measured", "verdict"}

func (t target) row() []string { return []string{t.What, t.Want, t.Measured, t.verdict()} }

func (s *section) print(w io.Writer) {
	for _, g := range s.Tables {
		g.print(w)
	}
	if len(s.Targets) > 0 {
		g := grid{Caption: "Targets", Head: targetHead}
		for _, t := range s.Targets {
			g.add(t.row()...)
		}
		g.print(w)
	}
	for _, n := range s.Notes {
		fmt.Fprintf(w, "%s\n", n)
	}
	fmt.Fprintf(w, "took %s, load average %s before and %s after\n", s.Took, s.Load[0], s.Load[1])
}

func (g *grid) print(w io.Writer) {
	if g.Caption != "" {
		fmt.Fprintf(w, "%s\n", g.Caption)
	}
	widths := make([]int, len(g.Head))
	all := append([][]string{g.Head}, g.Rows...)
	for _, r := range all {
		for i, c := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for _, r := range all {
		for i, c := range r {
			fmt.Fprint(w, "  ", c)
			if i < len(r)-1 {
				fmt.Fprint(w, strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)))
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}

func (g *grid) markdown(w io.Writer) {
	if g.Caption != "" {
		fmt.Fprintf(w, "%s\n\n", g.Caption)
	}
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(g.Head, " | "), strings.Repeat("---|", len(g.Head)))
	for _, r := range g.Rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(r, " | "))
	}
	fmt.Fprintln(w)
}

// write replaces only the text between these marks; people write the rest of the document.
const (
	beginMark = "<!-- measured: from here on written by go run ./bench -write -->"
	endMark   = "<!-- measured: until here -->"
)

// write puts the newest results of all sections into the document.
func (b *bench) write(file string) error {
	var results []*section
	for _, s := range sections {
		data, err := os.ReadFile(b.resultFile(s.name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		var r section
		if err := json.Unmarshal(data, &r); err != nil {
			return err
		}
		results = append(results, &r)
	}
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, rest, ok1 := strings.Cut(string(old), beginMark)
	_, tail, ok2 := strings.Cut(rest, endMark)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s lacks the marks %q and %q; the results are written between them", file, beginMark, endMark)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s%s\n\n", head, beginMark)
	markdown(&out, results)
	fmt.Fprintf(&out, "%s%s", endMark, tail)
	return os.WriteFile(file, []byte(out.String()), 0o644)
}

func markdown(w io.Writer, results []*section) {
	targets := grid{Head: targetHead}
	for _, s := range results {
		for _, t := range s.Targets {
			targets.add(t.row()...)
		}
	}
	fmt.Fprint(w, "## Targets\n\n")
	targets.markdown(w)
	fmt.Fprint(w, "## Machine\n\n")
	place := grid{Head: []string{"what", "which"}}
	versions := map[string]string{}
	for _, s := range results {
		maps.Copy(versions, s.Versions)
	}
	if n := len(results); n > 0 {
		for _, k := range []string{"processor", "features", "cores", "memory", "system", "Go"} {
			place.add(k, results[n-1].Machine[k])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(versions)) {
		place.add(k, versions[k])
	}
	place.markdown(w)
	for _, s := range results {
		fmt.Fprintf(w, "## %s\n\n", s.Title)
		for _, g := range s.Tables {
			g.markdown(w)
		}
		for _, n := range s.Notes {
			fmt.Fprintf(w, "%s\n\n", n)
		}
		fmt.Fprintf(w, "%s UTC, commit %s, load average %s before and %s after.\n\n", s.Date.Format("2006-01-02 15:04"), s.Commit, s.Load[0], s.Load[1])
	}
}
