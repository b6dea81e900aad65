package config

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// allocated returns how many bytes f allocates in total.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestHostileYAML: a text of at most MaxBytes can't make the parser use too much
// memory, however it is nested, and is refused with a line. The test runs alone
// because it measures allocations.
func TestHostileYAML(t *testing.T) {
	stairs := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "%sa:\n", strings.Repeat(" ", i))
		}
		return b.String()
	}
	const small, large = 60 << 10, MaxBytes
	fill := func(unit string, n int) string { return strings.Repeat(unit, n/len(unit)) }
	for name, text := range map[string]string{
		"open brackets":       fill("[", small),
		"closed brackets":     fill("[", small/2) + fill("]", small/2),
		"braces":              fill("{a: ", small),
		"braces and brackets": fill("[{a: ", small),
		"dashes":              fill("- ", small) + "a",
		"question marks":      fill("? ", small) + "a",
		"tags":                fill("!a ", small) + "a",
		"anchors":             fill("&a ", small) + "a",
		"colons":              fill("a: ", small),
		"commas":              "[" + fill(",", small),
		"commas in braces":    "{" + fill(",", small),
		"stairs":              stairs(340),
		"aliases":             "a: &a [x]\nb: &b [*a, *a]\nc: [" + fill("*b, ", small) + "]",
		"many keys":           fill("a: b\n", large),
		"many brackets":       fill("[\n", large),
		"many documents":      fill("---\n", large),
		"many quotes":         "a: " + fill("'", large-3),
		"unknown keys": func() (s string) {
			b := &strings.Builder{}
			for i := range 40_000 {
				fmt.Fprintf(b, "k%d: 1\n", i)
			}
			return b.String()
		}(),
		"entries": "a:\n" + func() (s string) {
			b := &strings.Builder{}
			for i := range 30_000 {
				fmt.Fprintf(b, "- %d\n", i)
			}
			return b.String()
		}(),
		"flow entries": "{" + func() (s string) {
			b := &strings.Builder{}
			for i := range 30_000 {
				fmt.Fprintf(b, "k%d: %d,", i, i)
			}
			return b.String()
		}() + "}",
		"a long key":           fill("k", large-4) + ": 1",
		"comments":             fill("#\n", large),
		"values without comma": "a: [" + fill("b c ", large-8) + "]",
		"carriage returns":     fill("\r", large),
		"nulls":                fill("\x00", large),
	} {
		var err error
		used := allocated(func() { _, err = Parse("fleet.yaml", []byte(text)) })
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if limit := uint64(128 << 20); used > limit {
			t.Errorf("%s: %d bytes of text took %d MB, more than %d", name, len(text), used>>20, limit>>20)
		}
		if s := err.Error(); len(s) > 100_000 {
			t.Errorf("%s: the message has %d bytes", name, len(s))
		}
	}
}

// TestNestingAllowed: nesting that a configuration needs is accepted in every layout.
func TestNestingAllowed(t *testing.T) {
	t.Parallel()
	flow := `{fleets: {a: {path: models/a, model: "m_{D}", sensors: s.csv, defaults: [{when: {D: "a*"}, model: x}, {when: {D: "b*"}, model: y}]}}, hub: {key: [D]}}`
	var large strings.Builder
	large.WriteString("hub: {key: [D]}\nfleets:\n")
	for i := range 1500 {
		fmt.Fprintf(&large, "  f%d:\n    path: models/f%d # a comment, [with] {brackets}\n    model: \"m_{D}\"\n    defaults: []\n", i, i)
	}
	for name, text := range map[string]string{
		"flow":  flow,
		"block": "hub:\n    key:\n      - D\nfleets:\n        a:\n                path: models/a\n                model: m_{D}\n                sensors: s.csv\n                defaults:\n                  - when:\n                        D: a*\n                    model: x\n",
		"large": large.String(),
	} {
		if _, err := Parse("fleet.yaml", []byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
