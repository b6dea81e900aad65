package ipc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
)

var schema = table.Schema{Time: "TS", Key: []string{"Device", "Tag"}, Values: []string{"Value"}}

// written is a file, or a stream, with the columns' JSON texts, in batches.
func written(t testing.TB, stream bool, types map[string]arrow.DataType, batches ...map[string]string) []byte {
	t.Helper()
	var fields []arrow.Field
	for _, n := range []string{"TS", "Device", "Tag", "Value"} {
		if types[n] != nil {
			fields = append(fields, arrow.Field{Name: n, Type: types[n], Nullable: true})
		}
	}
	s := arrow.NewSchema(fields, nil)
	var b bytes.Buffer
	var w interface {
		Write(arrow.RecordBatch) error
		Close() error
	} = ipc.NewWriter(&b, ipc.WithSchema(s))
	if !stream {
		var err error
		if w, err = ipc.NewFileWriter(&b, ipc.WithSchema(s)); err != nil {
			t.Fatal(err)
		}
	}
	for _, batch := range batches {
		var columns []arrow.Array
		for _, f := range fields {
			a, _, err := array.FromJSON(memory.DefaultAllocator, f.Type, strings.NewReader(batch[f.Name]))
			if err != nil {
				t.Fatal(err)
			}
			columns = append(columns, a)
		}
		if err := w.Write(array.NewRecordBatch(s, columns, int64(columns[0].Len()))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read reads a file or a stream; of a stream in memory it expects the same.
func read(t testing.TB, data []byte, s table.Schema, opt table.ReadOptions) (*table.Input, error) {
	t.Helper()
	in, err := Read(t.Context(), "rows", bytes.NewReader(data), int64(len(data)), s, opt)
	if !bytes.HasPrefix(data, []byte(FileMagic)) {
		mapped, e := ReadStream(t.Context(), "rows", data, s, opt)
		if (err == nil) != (e == nil) || err != nil && err.Error() != e.Error() {
			t.Errorf("in memory: got the error %v, want %v", e, err)
		}
		if diff := cmp.Diff(in, mapped, cmpopts.EquateNaNs(), cmpopts.IgnoreUnexported(table.Input{})); diff != "" {
			t.Errorf("in memory (-want +got):\n%s", diff)
		}
	}
	return in, err
}

var dictionary = &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Uint32, ValueType: arrow.BinaryTypes.String}

// TestTypes: times, keys and values of all types that programs write.
func TestTypes(t *testing.T) {
	t.Parallel()
	at := func(text string) fleetscore.Micros {
		m, err := table.ParseTime(text)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	one, two := at("2026-11-23T10:00:05Z"), at("2026-11-23T10:00:06Z")
	seconds := fmt.Sprintf("[%d,%d]", one/1e6, two/1e6)
	millis := fmt.Sprintf("[%d,%d]", one/1e3, two/1e3)
	for name, c := range map[string]struct {
		column, json string
		kind         arrow.DataType
		want         any
	}{
		"seconds":        {"TS", seconds, arrow.FixedWidthTypes.Timestamp_s, []fleetscore.Micros{one, two}},
		"milliseconds":   {"TS", millis, arrow.FixedWidthTypes.Timestamp_ms, []fleetscore.Micros{one, two}},
		"microseconds":   {"TS", fmt.Sprintf("[%d,%d]", one, two), arrow.FixedWidthTypes.Timestamp_us, []fleetscore.Micros{one, two}},
		"nanoseconds":    {"TS", fmt.Sprintf("[%d001,%d999]", one, two), arrow.FixedWidthTypes.Timestamp_ns, []fleetscore.Micros{one, two}},
		"before 1970":    {"TS", "[-1,-1000]", arrow.FixedWidthTypes.Timestamp_ns, []fleetscore.Micros{-1, -1}},
		"days":           {"TS", "[0,20000]", arrow.FixedWidthTypes.Date32, []fleetscore.Micros{0, 20000 * 86400e6}},
		"texts as times": {"TS", `["2026-11-23T10:00:05Z","2026-11-23 10:00:06"]`, arrow.BinaryTypes.String, []fleetscore.Micros{one, two}},
		"numbers":        {"TS", millis, arrow.PrimitiveTypes.Int64, []fleetscore.Micros{one, two}},

		"whole numbers":  {"Device", "[7,-7]", arrow.PrimitiveTypes.Int8, "7 -7"},
		"all of a byte":  {"Device", "[127,-128]", arrow.PrimitiveTypes.Int8, "127 -128"},
		"far apart":      {"Device", "[7,9000000000000000000]", arrow.PrimitiveTypes.Int64, "7 9000000000000000000"},
		"without sign":   {"Device", "[7,18446744073709551615]", arrow.PrimitiveTypes.Uint64, "7 18446744073709551615"},
		"texts":          {"Device", `["a","b"]`, arrow.BinaryTypes.LargeString, "a b"},
		"views of texts": {"Device", `["a","b"]`, arrow.BinaryTypes.StringView, "a b"},
		"categories":     {"Device", `["b","a"]`, dictionary, "b a"},
		"truths as keys": {"Device", `[true,false]`, arrow.FixedWidthTypes.Boolean, "true false"},

		"doubles":  {"Value", "[1.5,null]", arrow.PrimitiveTypes.Float64, []float64{1.5, math.NaN()}},
		"floats":   {"Value", "[1.5,null]", arrow.PrimitiveTypes.Float32, []float64{1.5, math.NaN()}},
		"wholes":   {"Value", "[-3,null]", arrow.PrimitiveTypes.Int16, []float64{-3, math.NaN()}},
		"large":    {"Value", "[18446744073709551615,null]", arrow.PrimitiveTypes.Uint64, []float64{1 << 64, math.NaN()}},
		"truths":   {"Value", "[true,false]", arrow.FixedWidthTypes.Boolean, []float64{1, 0}},
		"decimals": {"Value", `["1.10","-2.25"]`, &arrow.Decimal128Type{Precision: 20, Scale: 2}, []float64{1.1, -2.25}},
		"nulls":    {"Value", "[null,null]", arrow.Null, []float64{math.NaN(), math.NaN()}},
	} {
		for _, stream := range []bool{false, true} {
			types := map[string]arrow.DataType{"TS": arrow.FixedWidthTypes.Timestamp_s, "Device": arrow.PrimitiveTypes.Int64, "Tag": arrow.BinaryTypes.String, "Value": arrow.PrimitiveTypes.Float64}
			batch := map[string]string{"TS": seconds, "Device": "[1,1]", "Tag": `["x","y"]`, "Value": "[0,0]"}
			types[c.column], batch[c.column] = c.kind, c.json
			in, err := read(t, written(t, stream, types, batch), schema, table.ReadOptions{TimeUnit: "ms"})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			r, got := in.Rows, any(nil)
			switch c.column {
			case "TS":
				got = r.Times
			case "Device":
				got = r.Keys[r.KeyIndex[0]].Values()[0] + " " + r.Keys[r.KeyIndex[1]].Values()[0]
			case "Value":
				got = r.Values[0]
			}
			if diff := cmp.Diff(c.want, got, cmpopts.EquateNaNs()); diff != "" {
				t.Errorf("%s (stream: %v): %s", name, stream, diff)
			}
		}
	}
}

// TestRefused: what can't be read is refused, with the column's name.
func TestRefused(t *testing.T) {
	t.Parallel()
	good := map[string]arrow.DataType{"TS": arrow.FixedWidthTypes.Timestamp_s, "Device": arrow.PrimitiveTypes.Int64, "Tag": arrow.BinaryTypes.String, "Value": arrow.PrimitiveTypes.Float64}
	for want, change := range map[string]struct {
		column, json string
		kind         arrow.DataType
	}{
		"column TS: it holds plain numbers":            {"TS", "[1]", arrow.PrimitiveTypes.Int64},
		"column TS: it holds float64, not times":       {"TS", "[1]", arrow.PrimitiveTypes.Float64},
		"column TS: a value is missing":                {"TS", "[null]", arrow.FixedWidthTypes.Timestamp_s},
		`read time later`:                              {"TS", `["later"]`, arrow.BinaryTypes.String},
		"column Device: it holds float64; a key is":    {"Device", "[1.5]", arrow.PrimitiveTypes.Float64},
		"column Device: a value is missing":            {"Device", "[null]", arrow.PrimitiveTypes.Int64},
		"is empty":                                     {"Tag", `[""]`, arrow.BinaryTypes.String},
		"column Value: it holds utf8, not numbers":     {"Value", `["x"]`, arrow.BinaryTypes.String},
		"the columns are: TS, Device, Tag":             {"Value", "", nil},
		"say what the numbers count with --time-unit:": {"TS", "[1]", arrow.PrimitiveTypes.Int64},
	} {
		types, batch := map[string]arrow.DataType{}, map[string]string{"TS": "[1]", "Device": "[1]", "Tag": `["x"]`, "Value": "[0]"}
		for n, k := range good {
			types[n] = k
		}
		types[change.column], batch[change.column] = change.kind, change.json
		_, err := read(t, written(t, false, types, batch), schema, table.ReadOptions{Say: table.Words{TimeUnit: "--time-unit"}})
		if !fleetscore.Invalid.Is(err) && !fleetscore.NotFound.Is(err) || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	if _, err := read(t, written(t, false, good, map[string]string{"TS": "[1,2]", "Device": "[1,1]", "Tag": `["x","x"]`, "Value": "[0,0]"}), schema, table.ReadOptions{MaxRows: 1}); !fleetscore.Exhausted.Is(err) {
		t.Errorf("two rows where one is allowed: %v", err)
	}
}

// TestPredictionsAndBack: predictions that are written are read as they were, whatever
// keys and values they have; an interval chooses rows.
func TestPredictionsAndBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(0, 40).Draw(r, "rows")
		p := &fleetscore.Predictions{Rows: fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device", "Tag"}, ValueNames: []string{"Value"}, Values: [][]float64{{}}}}
		place := map[fleetscore.Key]uint32{}
		for range n {
			k, err := fleetscore.NewKey(rapid.StringMatching("[a-c0-9]{1,2}").Draw(r, "device"), rapid.StringMatching("[a-c]").Draw(r, "tag"))
			if err != nil {
				r.Fatal(err)
			}
			if _, ok := place[k]; !ok {
				place[k] = uint32(len(p.Keys))
				p.Keys = append(p.Keys, k)
			}
			p.KeyIndex = append(p.KeyIndex, place[k])
			p.Times = append(p.Times, fleetscore.Micros(rapid.Int64Range(1e6, 9e6).Draw(r, "time")))
			number := rapid.OneOf(rapid.Just(math.NaN()), rapid.Float64())
			p.Values[0] = append(p.Values[0], number.Draw(r, "value"))
			p.Prediction = append(p.Prediction, number.Draw(r, "prediction"))
			p.Score = append(p.Score, number.Draw(r, "score"))
		}
		var b bytes.Buffer
		if err := WritePredictions(&b, p); err != nil {
			r.Fatal(err)
		}
		want := p.Rows
		want.ValueNames, want.Values = []string{"Value", "Prediction", "Score"}, [][]float64{p.Values[0], p.Prediction, p.Score}
		in, err := read(t, b.Bytes(), table.Schema{Time: "TS", Key: want.KeyNames}, table.ReadOptions{})
		if err != nil {
			r.Fatal(err)
		}
		if diff := cmp.Diff(&want, in.Rows, cmpopts.EquateNaNs(), cmpopts.EquateEmpty()); diff != "" {
			r.Fatal(diff)
		}
		iv := fleetscore.Interval{From: time.UnixMicro(3e6).UTC(), To: time.UnixMicro(6e6).UTC()}
		part, err := read(t, b.Bytes(), table.Schema{Time: "TS", Key: want.KeyNames, Values: []string{"Score"}}, table.ReadOptions{Interval: &iv})
		if err != nil {
			r.Fatal(err)
		}
		at := 0
		for i, m := range p.Times {
			if m <= 3e6 || m > 6e6 {
				continue
			}
			if k := part.Rows.Keys[part.Rows.KeyIndex[at]]; k != p.Keys[p.KeyIndex[i]] || part.Rows.Times[at] != m || math.Float64bits(part.Rows.Values[0][at]) != math.Float64bits(p.Score[i]) && p.Score[i] == p.Score[i] {
				r.Fatalf("row %d of the interval is %v at %v with %v", at, k, part.Rows.Times[at], part.Rows.Values[0][at])
			}
			at++
		}
		if at != part.Rows.Len() {
			r.Fatalf("the interval has %d rows, want %d", part.Rows.Len(), at)
		}
	})
}

// TestManyBatches: rows of several batches with other dictionaries follow each other.
func TestManyBatches(t *testing.T) {
	t.Parallel()
	types := map[string]arrow.DataType{"TS": arrow.FixedWidthTypes.Timestamp_s, "Device": dictionary, "Tag": arrow.PrimitiveTypes.Int64, "Value": arrow.PrimitiveTypes.Float64}
	data := written(t, true, types,
		map[string]string{"TS": "[1,2]", "Device": `["a","b"]`, "Tag": "[1,1]", "Value": "[10,20]"},
		map[string]string{"TS": "[]", "Device": `[]`, "Tag": "[]", "Value": "[]"},
		map[string]string{"TS": "[3,4]", "Device": `["c","a"]`, "Tag": "[1000000,1]", "Value": "[30,40]"})
	in, err := read(t, data, schema, table.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, k := range in.Rows.KeyIndex {
		got = append(got, fmt.Sprint(in.Rows.Keys[k], " ", int64(in.Rows.Times[i])/1e6, " ", in.Rows.Values[0][i]))
	}
	if want := []string{"a/1 1 10", "b/1 2 20", "c/1000000 3 30", "a/1 4 40"}; !cmp.Equal(want, got) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestKeys: rows have the keys that their columns name, in the order in which they come first, whatever the columns'
// types are and however far apart numbers are.
func TestKeys(t *testing.T) {
	t.Parallel()
	kinds := map[string]arrow.DataType{"int8": arrow.PrimitiveTypes.Int8, "int16": arrow.PrimitiveTypes.Int16, "int32": arrow.PrimitiveTypes.Int32, "int64": arrow.PrimitiveTypes.Int64,
		"uint8": arrow.PrimitiveTypes.Uint8, "uint16": arrow.PrimitiveTypes.Uint16, "uint32": arrow.PrimitiveTypes.Uint32, "uint64": arrow.PrimitiveTypes.Uint64, "text": arrow.BinaryTypes.String, "category": dictionary}
	names := slices.Sorted(maps.Keys(kinds))
	rapid.Check(t, func(r *rapid.T) {
		types := map[string]arrow.DataType{"TS": arrow.FixedWidthTypes.Timestamp_s, "Value": arrow.PrimitiveTypes.Float64}
		values := map[string]*rapid.Generator[string]{}
		for _, column := range schema.Key {
			name := rapid.SampledFrom(names).Draw(r, column)
			types[column] = kinds[name]
			least, most := int64(-5), int64(5) // few values, so that they come several times
			bits := map[string]int{"int8": 8, "uint8": 8, "int16": 16, "uint16": 16, "int32": 32, "uint32": 32, "int64": 63, "uint64": 63}[name]
			if bits > 0 && rapid.Bool().Draw(r, "far apart") {
				least, most = -1<<(bits-1), 1<<(bits-1)-1
			}
			if name[0] == 'u' {
				least, most = 0, most-least
			}
			few := rapid.SliceOfN(rapid.Int64Range(least, most), 1, 40).Draw(r, "values")
			values[column] = rapid.Map(rapid.SampledFrom(few), func(x int64) string { return fmt.Sprint(x) })
		}
		iv := fleetscore.Interval{From: time.Unix(rapid.Int64Range(0, 3).Draw(r, "from"), 0).UTC(), To: time.Unix(rapid.Int64Range(4, 9).Draw(r, "to"), 0).UTC()}
		var batches []map[string]string
		var want []string
		for range rapid.IntRange(1, 3).Draw(r, "batches") {
			columns := map[string][]string{}
			for range rapid.IntRange(0, 60).Draw(r, "rows") {
				at := rapid.IntRange(0, 9).Draw(r, "at")
				device, tag := values["Device"].Draw(r, "device"), values["Tag"].Draw(r, "tag")
				columns["TS"], columns["Value"] = append(columns["TS"], fmt.Sprint(at)), append(columns["Value"], "1")
				columns["Device"], columns["Tag"] = append(columns["Device"], device), append(columns["Tag"], tag)
				if iv.Contains(time.Unix(int64(at), 0)) {
					want = append(want, device+"/"+tag)
				}
			}
			batch := map[string]string{}
			for _, name := range []string{"TS", "Device", "Tag", "Value"} {
				list := columns[name]
				if types[name] == kinds["text"] || types[name] == kinds["category"] {
					for i := range list {
						list[i] = strconv.Quote(list[i])
					}
				}
				batch[name] = "[" + strings.Join(list, ",") + "]"
			}
			batches = append(batches, batch)
		}
		in, err := read(t, written(t, true, types, batches...), schema, table.ReadOptions{Interval: &iv})
		if err != nil {
			r.Fatal(err)
		}
		var got, first []string
		for _, k := range in.Rows.KeyIndex {
			got = append(got, in.Rows.Keys[k].String())
		}
		for _, k := range in.Rows.Keys {
			first = append(first, k.String())
		}
		var wantFirst []string
		for _, k := range want {
			if !slices.Contains(wantFirst, k) {
				wantFirst = append(wantFirst, k)
			}
		}
		if !cmp.Equal(want, got, cmpopts.EquateEmpty()) || !cmp.Equal(wantFirst, first, cmpopts.EquateEmpty()) {
			r.Fatalf("got %q with the keys %q, want %q with %q", got, first, want, wantFirst)
		}
	})
}

func FuzzRead(f *testing.F) {
	types := map[string]arrow.DataType{"TS": arrow.FixedWidthTypes.Timestamp_s, "Device": dictionary, "Tag": arrow.BinaryTypes.StringView, "Value": arrow.PrimitiveTypes.Float64}
	for _, stream := range []bool{false, true} {
		f.Add(written(f, stream, types, map[string]string{"TS": "[1,2]", "Device": `["a","b"]`, "Tag": `["x","y"]`, "Value": "[10,null]"}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := Read(t.Context(), "rows", bytes.NewReader(data), int64(len(data)), schema, table.ReadOptions{})
		if err == nil && len(in.Rows.KeyIndex) != in.Rows.Len() {
			t.Errorf("%d rows have %d keys", in.Rows.Len(), len(in.Rows.KeyIndex))
		}
		in, err = ReadStream(t.Context(), "rows", data, schema, table.ReadOptions{})
		if err == nil && len(in.Rows.KeyIndex) != in.Rows.Len() {
			t.Errorf("in memory, %d rows have %d keys", in.Rows.Len(), len(in.Rows.KeyIndex))
		}
	})
}

// TestStreamInMemory: numbers of a stream in memory aren't copied; a stream that isn't whole is refused, wherever it ends.
func TestStreamInMemory(t *testing.T) {
	t.Parallel()
	types := map[string]arrow.DataType{"TS": arrow.FixedWidthTypes.Timestamp_s, "Device": dictionary, "Tag": arrow.PrimitiveTypes.Int64, "Value": arrow.PrimitiveTypes.Float64}
	data := written(t, true, types, map[string]string{"TS": "[1,2]", "Device": `["a","b"]`, "Tag": "[1,1]", "Value": "[10,20]"})
	in, err := ReadStream(t.Context(), "rows", data, schema, table.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before := in.Rows.Values[0][1]
	at := bytes.LastIndex(data, binary.LittleEndian.AppendUint64(nil, math.Float64bits(20)))
	binary.LittleEndian.PutUint64(data[at:], math.Float64bits(30))
	if after := in.Rows.Values[0][1]; before != 20 || after != 30 {
		t.Errorf("after the memory changed: got %v and %v, want 20 and 30", before, after)
	}
	for n := range len(data) - 8 { // the last 8 bytes say that the stream ends
		if _, err := ReadStream(t.Context(), "rows", data[:n], schema, table.ReadOptions{}); !fleetscore.Corrupt.Is(err) {
			t.Fatalf("the first %d bytes of %d: got %v", n, len(data), err)
		}
	}
}

// TestLargePart: a stream may have a part that takes more memory than any stream may take, if the whole is so large.
func TestLargePart(t *testing.T) {
	t.Parallel()
	types := map[string]arrow.DataType{"TS": arrow.FixedWidthTypes.Timestamp_s, "Device": arrow.PrimitiveTypes.Int64, "Tag": arrow.PrimitiveTypes.Int64, "Value": arrow.PrimitiveTypes.Float64}
	data := written(t, true, types, map[string]string{"TS": "[1,2,3]", "Device": "[1,1,1]", "Tag": "[1,1,1]", "Value": "[1,2,3]"})
	at := 0 // after the first message, the schema, and the head of the second one, the part
	for range 2 {
		at += 8 + int(binary.LittleEndian.Uint32(data[at+4:]))
	}
	const endOfStream = 8
	says := binary.LittleEndian.AppendUint64(nil, uint64(len(data)-at-endOfStream))
	if n := bytes.Count(data[:at], says); n != 1 {
		t.Fatalf("the size of the part stands at %d places of %q", n, data[:at])
	}
	data = bytes.Replace(data, says, binary.LittleEndian.AppendUint64(nil, 5<<28), 1) // it is cut short, so that the test takes little memory
	for sizeBytes, want := range map[int64]string{0: "more memory than its size makes likely", 5 << 28: "EOF"} {
		if _, err := Read(t.Context(), "rows", bytes.NewReader(data), sizeBytes, schema, table.ReadOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("of a stream of %d bytes: got %v, want %q", sizeBytes, err, want)
		}
	}
}
