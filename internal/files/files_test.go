package files

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var schema = table.Schema{Time: "TS", Key: []string{"Device"}, Values: []string{"Value"}}

// say is how the command line speaks of options.
var say = table.ReadOptions{Say: table.Words{Separator: "--separator", Decimal: "--decimal", TimeUnit: "--time-unit"}}

func put(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func gz(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zst(t *testing.T, text string) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll([]byte(text), nil)
}

// lines shows rows as text, a line each.
func lines(r *fleetscore.Rows) string {
	var b strings.Builder
	for i, t := range r.Times {
		fmt.Fprintf(&b, "%s %s %v\n", t, r.Keys[r.KeyIndex[i]], r.Values[0][i])
	}
	return b.String()
}

const (
	rowOne = "2026-11-25T10:00:00Z 1 5\n"
	rowTwo = "2026-11-25T11:00:00Z 2 6\n"
)

// TestForms: the same two rows in every form that people have.
func TestForms(t *testing.T) {
	t.Parallel()
	const text = "TS,Device,Value\n2026-11-25 10:00:00,1,5\n2026-11-25 11:00:00,2,6\n"
	json := `{"TS":"2026-11-25T10:00:00Z","Device":1,"Value":5}` + "\n" + `{"TS":"2026-11-25T11:00:00Z","Device":2,"Value":6}`
	with := func(change func(*table.ReadOptions)) table.ReadOptions {
		o := say
		change(&o)
		return o
	}
	unit := func(u table.TimeUnit) table.ReadOptions { return with(func(o *table.ReadOptions) { o.TimeUnit = u }) }
	for _, c := range []struct {
		name string
		data []byte
		opt  table.ReadOptions
	}{
		{"plain.csv", []byte(text), say},
		{"a.csv.gz", gz(t, text), say},
		{"two members.csv.gz", append(gz(t, text[:20]), gz(t, text[20:])...), say},
		{"a.csv.zst", zst(t, text), say},
		{"a.ndjson.zst", zst(t, json), say},
		{"a.jsonl", []byte(json), say},
		{"compressed though its name doesn't say so.csv", gz(t, text), say},
		{"without ending", []byte(text), say},
		{"lines.json", []byte(json), say},
		{"export.txt", []byte(strings.ReplaceAll(text, ",", "\t")), say},
		{"a.tsv", []byte(strings.ReplaceAll(text, ",", "\t")), say},
		{"semicolons.csv", []byte(strings.ReplaceAll(text, ",", ";")), say},
		{"bars.csv", []byte(strings.ReplaceAll(text, ",", "|")), say},
		{"quoted.csv", []byte("\"TS\";\"Device\";\"Value\";\"a,b,c,d,e\"\r\n\"2026-11-25 10:00\";\"1\";\"5\";x\r\n2026-11-25 11:00;2;6;\"y;z\"\r\n"), say},
		{"colons.csv", []byte("TS:Device:Value\n1764064800:1:5\n1764068400:2:6\n"), with(func(o *table.ReadOptions) { o.Separator, o.TimeUnit = ':', "s" })},
		{"decimal commas.csv", []byte("TS;Device;Value\n2026-11-25 10:00;1;5,0\n2026-11-25 11:00;2;6,0\n"), with(func(o *table.ReadOptions) { o.Decimal = ',' })},
		{"minutes.csv", []byte("TS,Device,Value\n2026-11-25 10:00,1,5\n2026-11-25T11:00Z,2,6\n"), say},
		{"offsets.csv", []byte("TS,Device,Value\n2026-11-25 12:00+02:00,1,5\n2026-11-25T10:00:00-0100,2,6\n"), say},
		{"utc.csv", []byte("TS,Device,Value\n2026-11-25 10:00:00 UTC,1,5\n2026-11-25T13:00:00+02,2,6\n"), say},
		{"s.csv", []byte("TS,Device,Value\n1795600800,1,5\n1795604400.0,2,6\n"), unit("s")},
		{"ms.csv", []byte("TS,Device,Value\n1795600800000,1,5\n1795604400000,2,6\n"), unit("ms")},
		{"us.ndjson", []byte("{\"TS\":1795600800000000,\"Device\":\"1\",\"Value\":5}\n{\"TS\":\"2026-11-25 11:00\",\"Device\":\"2\",\"Value\":6}\n"), unit("us")},
		{"ns.csv", []byte("TS,Device,Value\n1795600800000000000,1,5\n1795604400000000000,2,6\n"), unit("ns")},
	} {
		p := put(t, t.TempDir(), c.name, c.data)
		want := rowOne + rowTwo
		if c.name == "colons.csv" {
			want = strings.ReplaceAll(want, "2026", "2025")
		}
		got, err := Read(t.Context(), []string{p}, nil, schema, c.opt)
		if err != nil || lines(got.Rows) != want {
			t.Errorf("%s: got %v, %v", c.name, got, err)
			continue
		}
		stdin, err := Read(t.Context(), []string{Stdin}, bytes.NewReader(c.data), schema, c.opt)
		if err != nil || lines(stdin.Rows) != want {
			t.Errorf("%s from standard input: got %v, %v", c.name, stdin, err)
		}
	}
}

// TestPaths: patterns, several paths, folders, and columns in the names of folders.
func TestPaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, two := "TS,Device,Value\n2026-11-25 10:00:00,1,5\n", "TS,Device,Value\n2026-11-25 11:00:00,2,6\n"
	put(t, dir, "a.csv", []byte(one))
	put(t, dir, "b.csv.gz", gz(t, two))
	put(t, dir, "notes.txt", []byte("not data"))
	put(t, dir, "_hidden/c.csv", []byte("broken"))
	put(t, dir, "hive/date=2026-11-25/Device=a%2Fb/x.csv", []byte("Value\n5\n"))
	put(t, dir, "hive/date=2026-11-26/Device=2/x.ndjson", []byte(`{"Value":6}`))
	put(t, dir, "value/Device=1/Value=5/x.csv", []byte("TS\n2026-11-25 10:00:00\n"))
	put(t, dir, "value/Device=2/Value="+hiveNull+"/x.csv", []byte("TS\n2026-11-25 11:00:00\n"))
	hive := schema
	hive.Time = "date"
	for _, c := range []struct {
		paths  []string
		schema table.Schema
		want   string
	}{
		{[]string{"a.csv", "b.csv.gz"}, schema, rowOne + rowTwo},
		{[]string{"b.csv.gz", "a.csv"}, schema, rowTwo + rowOne},
		{[]string{"[ab].csv*"}, schema, rowOne + rowTwo},
		{[]string{"?.csv"}, schema, rowOne},
		{[]string{"hive"}, hive, "2026-11-25T00:00:00Z a/b 5\n2026-11-26T00:00:00Z 2 6\n"},
		{[]string{"hive/date=2026-11-2[6-9]/*"}, hive, "2026-11-26T00:00:00Z 2 6\n"},
		{[]string{"value"}, schema, rowOne + strings.Replace(rowTwo, "6", "NaN", 2)[:len(rowTwo)-2] + "NaN\n"},
	} {
		var paths []string
		for _, p := range c.paths {
			paths = append(paths, filepath.Join(dir, p))
		}
		got, err := Read(t.Context(), paths, nil, c.schema, say)
		want := c.want
		if c.paths[0] == "value" {
			want = rowOne + "2026-11-25T11:00:00Z 2 NaN\n"
		}
		if err != nil || lines(got.Rows) != want {
			t.Errorf("%v: got %v, %v", c.paths, got, err)
		}
	}
	if n := Size([]string{filepath.Join(dir, "a.csv"), filepath.Join(dir, "?.csv")}); n != int64(2*len(one)) {
		t.Errorf("size: got %d", n)
	}
}

// TestMessages: what can't be read is refused with what is to blame and what to do.
func TestMessages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const row = "\n2026-11-25 10:00:00,1,5\n"
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"case.csv", "ts,Device,Value" + row, []string{`no column "TS"`, `has "ts": upper and lower case count`}},
		{"space.csv", "TS, Device,Value" + row, []string{`no column "Device"`, `has " Device": the space beside it counts`}},
		{"both.csv", "TS,device ,Value" + row, []string{`has "device ": upper and lower case and the space beside it count`}},
		{"slip.csv", "TS,Devise,Value" + row, []string{"is Devise meant?"}},
		{"colon.csv", "TS:Device:Value" + row, []string{"split at commas, a guess that --separator overrides", "TS:Device:Value"}},
		{"semicolon.csv", "A;B;C\n1;2;3\n", []string{"split at semicolons", "the columns are: A, B, C"}},
		{"tab.csv", "A\tB\tC\n1\t2\t3\n", []string{"split at tabs"}},
		{"epoch.csv", "TS,Device,Value\n1795600800000,1,5\n", []string{"line 2, column TS", "set --time-unit", "as milliseconds (ms) it is 2026-11-25T10:00:00Z"}},
		{"decimal.csv", "TS;Device;Value\n2026-11-25 10:00;1;5,5\n", []string{"line 2, column Value", "set --decimal to a comma"}},
		{"sheet.csv", "PK\x03\x04rest", []string{"a zip archive or a spreadsheet", "save the sheet as CSV"}},
		{"model.pkl", "\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00sklearn", []string{"neither text nor Parquet", "a model"}},
		{"wide.csv", "\xff\xfeT\x00S\x00", []string{"UTF-16", "iconv"}},
		{"cut.csv.gz", string(gz(t, strings.Repeat("TS,Device,Value"+row, 1000)))[:60], []string{"can't be decompressed", "is the file whole?"}},
		{"cut.csv.zst", string(zst(t, strings.Repeat("x", 1<<20)))[:20], []string{"can't be decompressed"}},
	} {
		p := put(t, dir, c.name, []byte(c.text))
		_, err := Read(t.Context(), []string{p}, nil, schema, say)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), p) {
				t.Errorf("%s: got %v, want %q", c.name, err, want)
			}
		}
	}
	for path, want := range map[string]string{"none.csv": "no such file or folder", "none*.csv": "no file or folder fits", "[": "a pattern has", "-": "standard input"} {
		if path != "-" {
			path = filepath.Join(dir, path)
		}
		if _, err := Read(t.Context(), []string{path}, nil, schema, say); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
	empty := t.TempDir()
	put(t, empty, "readme.txt", nil)
	if _, err := Read(t.Context(), []string{empty}, nil, schema, say); !fleetscore.NotFound.Is(err) || !strings.Contains(err.Error(), "holds no data") {
		t.Errorf("got %v", err)
	}
}

// TestDecompressedIsBounded: a small body may hold very much.
func TestDecompressedIsBounded(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 4<<20)
	for name, body := range map[string][]byte{"gzip": gz(t, large), "zstd": zst(t, large)} {
		r, err := Decompressed(bytes.NewReader(body), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(r); !fleetscore.Exhausted.Is(err) || b.Len() > 1<<20 {
			t.Errorf("%s: read %d bytes, %v", name, b.Len(), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}
