package table

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fleetscore/fleetscore"
)

var schema = Schema{Time: "TS", Key: []string{"Device", "Tag"}, Values: []string{"Value"}}

func TestReadCSV(t *testing.T) {
	t.Parallel()
	in := "\xef\xbb\xbfDevice,Note,TS,Tag,Value\r\n1,\"a \"\"b\"\", c\",2026-11-23 10:00:05.500,\"x,y\",1.5\r\n\r\n2,,2026-11-23 10:00:05,z,\r\n"
	got, err := ReadCSV(t.Context(), "in.csv", strings.NewReader(in), schema, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rows := got.Rows
	if want := (Layout{Separator: ' ', Fraction: 3}); got.Layout != want {
		t.Errorf("layout: got %+v, want %+v", got.Layout, want)
	}
	if diff := cmp.Diff([]fleetscore.Key{"1\x1fx,y", "2\x1fz"}, rows.Keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if rows.Values[0][0] != 1.5 || !math.IsNaN(rows.Values[0][1]) {
		t.Errorf("values: got %v, want 1.5 and NaN", rows.Values[0])
	}
	if got := rows.Times[0].String(); got != "2026-11-23T10:00:05.5Z" {
		t.Errorf("time: got %s", got)
	}
}

func TestReadCSVRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", "the file is empty"},
		{"no column", "TS,Device,Tag\n", `no column "Value"`},
		{"bad time", "TS,Device,Tag,Value\n2026-11-23 10:00:00,1,1,1\nyesterday,1,1,1\n", `line 3, column TS: "yesterday"`},
		{"bad day", "TS,Device,Tag,Value\n2026-02-29 10:00:00,1,1,1\n", `line 2, column TS`},
		{"bad number", "TS,Device,Tag,Value\n2026-11-23 10:00:00,1,1,x1\n", `line 2, column Value: "x1": not a number`},
		{"empty key", "TS,Device,Tag,Value\n2026-11-23 10:00:00,1,,1\n", `line 2, column Tag`},
		{"short", "TS,Device,Tag,Value\n2026-11-23 10:00:00,1\n", `line 2: it has 2 fields, the header has 4`},
		{"open quote", "TS,Device,Tag,Value\n2026-11-23 10:00:00,1,\"1,1\n", "line 2: a quoted field is not closed"},
		{"twice", "TS,Device,Tag,Value,Value\n", `names column "Value" twice`},
	} {
		_, err := ReadCSV(t.Context(), "in.csv", strings.NewReader(tt.in), schema, ReadOptions{})
		if err == nil || !strings.Contains(err.Error(), tt.want) || !fleetscore.Invalid.Is(err) {
			t.Errorf("%s: got %v, want an invalid error with %q", tt.name, err, tt.want)
		}
	}
}

func TestReadNDJSON(t *testing.T) {
	t.Parallel()
	in := `{"TS":"2026-11-23T10:00:05Z","Device":1,"Tag":"a","Value":2}` + "\n\n" + `{"TS":"2026-11-23T12:00:05+02:00","Device":"1","Tag":"a","Value":null}`
	got, err := ReadNDJSON(t.Context(), "in", strings.NewReader(in), schema, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rows := got.Rows
	if len(rows.Keys) != 1 || rows.Times[0] != rows.Times[1] || rows.Values[0][0] != 2 || !math.IsNaN(rows.Values[0][1]) {
		t.Errorf("got %+v", rows)
	}
	_, err = ReadNDJSON(t.Context(), "in", strings.NewReader(in+"\n{"), schema, ReadOptions{})
	if err == nil || !strings.Contains(err.Error(), "line 4") {
		t.Errorf("got %v, want an error on line 4", err)
	}
}

func predictions() *fleetscore.Predictions {
	return &fleetscore.Predictions{
		Rows: fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device", "Tag"}, ValueNames: []string{"Val"},
			Keys: []fleetscore.Key{"1\x1fa", "2\x1fb,c"}, KeyIndex: []uint32{1, 0, 1}, Times: []fleetscore.Micros{1e15, 1e15 + 500000, 1e15 + 36e8},
			Values: [][]float64{{1, 0.1, math.NaN()}}},
		Prediction: []float64{1, 0, 1}, Score: []float64{-4e-11, 0.25, math.NaN()},
		Models: []fleetscore.Digest{{1}, {2}},
	}
}

func TestWriteCSV(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := WriteCSV(&b, predictions(), WriteOptions{Layout: Layout{Separator: ' ', Fraction: 3}}); err != nil {
		t.Fatal(err)
	}
	want := "TS,Device,Tag,Val,Prediction,Score\n" +
		"2001-09-09 01:46:40.000,2,\"b,c\",1,1,-4e-11\n" +
		"2001-09-09 01:46:40.500,1,a,0.1,0,0.25\n" +
		"2001-09-09 02:46:40.000,2,\"b,c\",,1,\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParquetRoundTrip(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	p := predictions()
	if err := WriteParquet(&b, p); err != nil {
		t.Fatal(err)
	}
	in, err := ReadParquet("x.parquet", b.Bytes(), Schema{Time: "TS", Key: []string{"Device", "Tag"}}, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rows := in.Rows
	if diff := cmp.Diff([]string{"Val", "Prediction", "Score"}, rows.ValueNames); diff != "" {
		t.Fatalf("columns (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([][]float64{p.Values[0], p.Prediction, p.Score}, rows.Values, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(p.Times, rows.Times); diff != "" {
		t.Errorf("times (-want +got):\n%s", diff)
	}
	if _, err := ReadParquet("x.parquet", b.Bytes()[:b.Len()/2], schema, ReadOptions{}); !fleetscore.Corrupt.Is(err) {
		t.Errorf("half a file: got %v, want corrupt", err)
	}
}

// FuzzReadCSV: no bytes cause a panic, and how the text is cut into chunks makes
// no difference.
func FuzzReadCSV(f *testing.F) {
	for _, text := range []string{
		"TS,Device,Tag,Value\n2026-11-23 10:00:00,1,\"a\"\"b\",1e5\r\n",
		"TS,Device,Tag,Value\n,",
		"\xef\xbb\xbfTag,Value,Device,TS\r\nx,,1,2026-11-23T10:00:00.5+01:00\r\n\r\n\"y\nz\",-0,2,2026-11-23T10:00:00Z\r\n",
		"TS,Device,Tag,Value\n2026-11-23 10:00:00,1,1\nyesterday,1,1,1\n2026-11-23 10:00:00,1,\"1\"x,1\n2026-11-23 10:00:00,1,1,2",
	} {
		f.Add([]byte(text), uint8(5))
	}
	f.Add([]byte("Tag,\"00000000000000\n000000000\",0000000000000000000"), uint8(5)) // with semicolons the first line is a header
	f.Fuzz(func(t *testing.T, data []byte, chunk uint8) {
		read := func(opt ReadOptions) string {
			in, err := ReadCSV(t.Context(), "f", bytes.NewReader(data), schema, opt)
			if err != nil {
				return "error: " + err.Error()
			}
			var b strings.Builder
			fmt.Fprintln(&b, in.Layout, in.Records, in.Rejected, in.Rejects)
			for i, k := range in.Rows.KeyIndex {
				fmt.Fprintf(&b, "%d %q %v\n", in.Rows.Times[i], in.Rows.Keys[k], in.Rows.Values[0][i])
			}
			return b.String()
		}
		whole := read(ReadOptions{BadRows: 100, Workers: 1})
		if parts := read(ReadOptions{BadRows: 100, Workers: 3, chunkBytes: int(chunk) + 1}); parts != whole {
			t.Errorf("whole:\n%s\nin chunks:\n%s", whole, parts)
		}
	})
}

// FuzzReadNDJSON is FuzzReadCSV for JSON lines.
func FuzzReadNDJSON(f *testing.F) {
	f.Add([]byte(`{"TS":"2026-11-23T10:00:05Z","Device":1,"Tag":"a","Value":2}`+"\n\n"+`{"TS":"x"}`), uint8(9))
	f.Fuzz(func(t *testing.T, data []byte, chunk uint8) {
		read := func(opt ReadOptions) (int, int64) {
			in, err := ReadNDJSON(t.Context(), "f", bytes.NewReader(data), schema, opt)
			if err != nil {
				return -1, 0
			}
			return in.Rows.Len(), in.Rejected
		}
		n1, bad1 := read(ReadOptions{BadRows: 100, Workers: 1})
		if n2, bad2 := read(ReadOptions{BadRows: 100, Workers: 3, chunkBytes: int(chunk) + 1}); n1 != n2 || bad1 != bad2 {
			t.Errorf("whole: %d rows, %d bad; in chunks: %d rows, %d bad", n1, bad1, n2, bad2)
		}
	})
}
