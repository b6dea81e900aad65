package table

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"

	"github.com/fleetscore/fleetscore"
)

// foreign makes a Parquet file as other programs write them: its columns, in the
// order of their names, and its rows.
func foreign(t *testing.T, columns parquet.Group, rows ...[]parquet.Value) []byte {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewWriter(&b, parquet.NewSchema("schema", columns))
	for _, r := range rows {
		row := make(parquet.Row, len(r))
		for i, v := range r {
			row[i] = v.Level(0, 0, i)
		}
		if _, err := w.WriteRows([]parquet.Row{row}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestForeignParquet: what an integer of a Parquet file stands for, its logical
// type says; Spark's times of 96 bits are times.
func TestForeignParquet(t *testing.T) {
	t.Parallel()
	columns := parquet.Group{
		"Key":  parquet.Uint(64),
		"Time": parquet.Leaf(parquet.Int96Type),
		"a":    parquet.Decimal(2, 9, parquet.Int32Type),
		"b":    parquet.Decimal(3, 18, parquet.Int64Type),
		"c":    parquet.Decimal(2, 20, parquet.FixedLenByteArrayType(9)),
		"d":    parquet.Uint(64),
		"e":    parquet.Uint(32),
	}
	row := func(a int32, b int64, c []byte, d int64, e int32) []parquet.Value {
		nanos := uint64(3_600_000_000_000 + 7_999) // an hour and a bit into 1970-01-02
		return []parquet.Value{parquet.Int64Value(-1), parquet.Int96Value(deprecated.Int96{uint32(nanos), uint32(nanos >> 32), 2440589}),
			parquet.Int32Value(a), parquet.Int64Value(b), parquet.FixedLenByteArrayValue(c), parquet.Int64Value(d), parquet.Int32Value(e)}
	}
	data := foreign(t, columns,
		row(1016, 1<<53+1, []byte{0, 0, 0, 0, 0, 0, 0, 3, 0xf8}, -1, -1),
		row(-301, -7, bytes.Repeat([]byte{0xff}, 9), 5, 5))
	in, err := ReadParquet("x", data, Schema{Time: "Time", Key: []string{"Key"}, Values: []string{"a", "b", "c", "d", "e"}}, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := [][]float64{{10.16, -3.01}, {9007199254740.993, -0.007}, {10.16, -0.01}, {math.MaxUint64, 5}, {math.MaxUint32, 5}}
	for i := range want {
		if !slices.Equal(in.Rows.Values[i], want[i]) {
			t.Errorf("column %s: got %v, want %v", in.Rows.ValueNames[i], in.Rows.Values[i], want[i])
		}
	}
	if got := in.Rows.Times[0].String(); got != "1970-01-02T01:00:00.000007Z" {
		t.Errorf("time: got %s", got)
	}
	if !slices.Equal(in.Rows.Keys, []fleetscore.Key{"18446744073709551615"}) {
		t.Errorf("keys: got %q", in.Rows.Keys)
	}
	if _, err := ReadParquet("x", data, Schema{Time: "Time", Key: []string{"a"}, Values: []string{"b"}}, ReadOptions{}); err == nil || !strings.Contains(err.Error(), "decimals") {
		t.Errorf("decimals as keys: got %v", err)
	}
}

// TestForeignKeys: keys that CSV may not have are refused in Parquet, too.
func TestForeignKeys(t *testing.T) {
	t.Parallel()
	columns := parquet.Group{"A": parquet.String(), "B": parquet.String(), "Time": parquet.Timestamp(parquet.Microsecond)}
	for _, c := range []struct {
		a, b string
		good bool
	}{{"1", "2", true}, {"", "2", false}, {"1", "", false}, {"1\x1f3", "2", false}} {
		data := foreign(t, columns, []parquet.Value{parquet.ByteArrayValue([]byte(c.a)), parquet.ByteArrayValue([]byte(c.b)), parquet.Int64Value(1)})
		_, err := ReadParquet("x", data, Schema{Time: "Time", Key: []string{"A", "B"}}, ReadOptions{})
		var e *fleetscore.Error
		if (err == nil) != c.good || !c.good && (!errors.As(err, &e) || !fleetscore.Invalid.Is(err)) {
			t.Errorf("%q, %q: got %v", c.a, c.b, err)
		}
	}
}
