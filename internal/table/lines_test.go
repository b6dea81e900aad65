package table

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
)

// TestCSVAgainstStandardLibrary: whatever the chunks and the quoting, the rows
// are those that encoding/csv finds, in their order.
func TestCSVAgainstStandardLibrary(t *testing.T) {
	t.Parallel()
	field := rapid.StringOf(rapid.SampledFrom([]rune("ab1,\" \né")))
	rapid.Check(t, func(t *rapid.T) {
		var text bytes.Buffer
		w := csv.NewWriter(&text)
		w.UseCRLF = rapid.Bool().Draw(t, "crlf")
		w.Write([]string{"Note", "TS", "Tag", "Device", "Value"})
		for i := range rapid.IntRange(0, 60).Draw(t, "rows") {
			tag := field.Draw(t, "tag")
			value := ""
			if rapid.Bool().Draw(t, "present") {
				value = strconv.FormatFloat(rapid.Float64().Draw(t, "value"), 'g', -1, 64)
			}
			w.Write([]string{field.Draw(t, "note"), fmt.Sprintf("2026-11-23 10:00:%02d.5", i%60), "k" + tag, strconv.Itoa(i % 3), value})
		}
		w.Flush()
		records, err := csv.NewReader(bytes.NewReader(text.Bytes())).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		opt := ReadOptions{chunkBytes: rapid.IntRange(1, 200).Draw(t, "chunk"), Workers: rapid.IntRange(1, 4).Draw(t, "workers")}
		in, err := readLines(t.Context(), []Source{{Name: "in.csv", SizeBytes: int64(text.Len()), Open: opened(bytes.NewReader(text.Bytes()))}}, schema, opt)
		if err != nil {
			t.Fatal(err)
		}
		if in.Rows.Len() != len(records)-1 || in.Records != int64(len(records)-1) {
			t.Fatalf("got %d rows of %d records, want %d", in.Rows.Len(), in.Records, len(records)-1)
		}
		for i, r := range records[1:] {
			key := fleetscore.Key(r[3] + fleetscore.KeySeparator + r[2])
			// encoding/csv turns \r\n inside quotes into \n.
			if got := fleetscore.Key(strings.ReplaceAll(string(in.Rows.Keys[in.Rows.KeyIndex[i]]), "\r\n", "\n")); got != key {
				t.Fatalf("row %d: key %q, want %q", i, got, key)
			}
			want := math.NaN()
			if r[4] != "" {
				want, _ = strconv.ParseFloat(r[4], 64)
			}
			if diff := cmp.Diff(want, in.Rows.Values[0][i], cmpopts.EquateNaNs()); diff != "" {
				t.Fatalf("row %d (-want +got):\n%s", i, diff)
			}
		}
	})
}

// TestBadRows: malformed rows cost themselves alone where they are tolerated, and
// each is named by its line, also behind chunks and quoted line breaks.
func TestBadRows(t *testing.T) {
	t.Parallel()
	lines := []string{"TS,Device,Tag,Value"}
	for i := range 100 {
		lines = append(lines, fmt.Sprintf("2026-11-23 10:00:%02d,%d,1,%d", i%60, i%7, i))
	}
	lines[10] = "yesterday,1,1,1"       // line 11
	lines[50] = "2026-11-23 10:00:00,1" // line 51
	lines[90] = "2026-11-23 10:00:00,1,1,many"
	text := strings.Join(lines, "\n")
	for _, c := range []int{0, 1, 100, 1000} {
		opt := ReadOptions{BadRows: 5, chunkBytes: c, Workers: 3}
		in, err := ReadCSV(t.Context(), "in.csv", strings.NewReader(text), schema, opt)
		if err != nil {
			t.Fatal(err)
		}
		want := []Reject{{"in.csv", 11, "TS", "yesterday", whyTime}, {"in.csv", 51, "", "", "it has 2 fields, the header has 4"}, {"in.csv", 91, "Value", "many", whyNumber}}
		if diff := cmp.Diff(want, in.Rejects); diff != "" || in.Rows.Len() != 97 || in.Rejected != 3 || in.Records != 100 {
			t.Errorf("chunks of %d: %d rows, %d rejected of %d (-want +got):\n%s", c, in.Rows.Len(), in.Rejected, in.Records, diff)
		}
		opt.BadRows = 2
		if _, err := ReadCSV(t.Context(), "in.csv", strings.NewReader(text), schema, opt); err == nil || !strings.Contains(err.Error(), "3 of 100 rows are malformed") {
			t.Errorf("chunks of %d: 2%% tolerated: got %v", c, err)
		}
		opt.BadRows = 0
		if _, err := ReadCSV(t.Context(), "in.csv", strings.NewReader(text), schema, opt); err == nil || !strings.Contains(err.Error(), "line 11, column TS") {
			t.Errorf("chunks of %d: none tolerated: got %v", c, err)
		}
	}
	for _, tt := range []struct{ text, want string }{
		{"TS,Device,Tag,Value\n2026-11-23 10:00:00,\"a\nb\"x,1,1\nyesterday,1,1,1\n", "text follows a closing quote"},
		{"TS,Device,Tag,Value\n2026-11-23 10:00:00,\"a\nb\",1,1\nyesterday,1,1,1\n", "line 4, column TS"},
	} {
		if _, err := ReadCSV(t.Context(), "in.csv", strings.NewReader(tt.text), schema, ReadOptions{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %q", tt.text, err, tt.want)
		}
	}
	open := "TS,Device,Tag,Value\n2026-11-23 10:00:00,\"1,1,1\n" + strings.Repeat("2026-11-23 10:00:00,1,1,1\n", 100)
	if _, err := ReadCSV(t.Context(), "in.csv", strings.NewReader(open), schema, ReadOptions{BadRows: 50}); err == nil || !strings.Contains(err.Error(), "not closed") {
		t.Errorf("a quote that swallows the rest is tolerated: %v", err)
	}
}

// TestNumbers: numbers read as strconv reads them, and are written as short as
// it would.
func TestNumbers(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"0", "-0", "1", "-1.5", "0.1", "10.16", "999999999999999", "9999999999999999", "1e5", "1e400", ".5", "5.", ".", "-", "", "+1", "inf", "0x1p-2", "1_0", "123456789012345.6", "0.000000000000001", "00012.50"} {
		want, err := strconv.ParseFloat(s, 64)
		got, ok := parseNumber([]byte(s))
		if s == "" {
			want, err = math.NaN(), nil
		}
		if ok != (err == nil) || (ok && math.Float64bits(got) != math.Float64bits(want) && s != "") {
			t.Errorf("%q: got %v %v, want %v %v", s, got, ok, want, err)
		}
	}
	check := func(x float64) {
		t.Helper()
		if got, want := string(appendNumber(nil, x)), string(appendShortest(nil, x)); got != want {
			t.Errorf("%b: got %s, want %s", x, got, want)
		}
	}
	for i := range 200000 {
		check(float64(i) / 1000)
		check(-float64(i*7919) / 1e6)
		check(float64(i) * 0.1)
		check(float64(i*i) * 12.5)
	}
	for _, x := range []float64{0, math.Copysign(0, -1), 1e-5, 9.9e-6, 999999999.999999, 1e9, 123456789.123, math.MaxFloat64, math.SmallestNonzeroFloat64, math.Inf(1), 0.1 + 0.2} {
		check(x)
	}
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.Float64().Draw(t, "x")
		if got, want := string(appendNumber(nil, x)), string(appendShortest(nil, x)); got != want {
			t.Errorf("%v: got %s, want %s", x, got, want)
		}
	})
}

// TestClockText: the shortcut writes what the layout does.
func TestClockText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := clockText{layout: Layout{Separator: ' ', Fraction: rapid.IntRange(0, 6).Draw(t, "fraction")}}
		m := fleetscore.Micros(rapid.Int64Range(-1e15, 4e15).Draw(t, "start"))
		for _, step := range rapid.SliceOf(rapid.SampledFrom([]int64{0, 1, 1e6, -1e6, 3600e6, 86400e6, 500000})).Draw(t, "steps") {
			if got, want := string(c.append(nil, m)), string(c.layout.append(nil, m)); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
			m += fleetscore.Micros(step)
		}
	})
}
