package records

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/fleetscore/fleetscore"
)

// TestReadParquet: columns keep their types, and NULL stays NULL.
func TestReadParquet(t *testing.T) {
	t.Parallel()
	type line struct {
		Device string
		Most   *float64 `parquet:",optional"`
		N      int32
		On     bool
		Since  time.Time `parquet:",timestamp(millisecond)"`
	}
	two := 2.5
	var file bytes.Buffer
	if err := parquet.Write(&file, []line{{"a", &two, 7, true, time.Unix(60, 0)}, {"b", nil, -1, false, time.Unix(0, 5e6)}}); err != nil {
		t.Fatal(err)
	}
	rows, err := Read("limits.parquet", file.Bytes())
	if err != nil || len(rows) != 2 || rows[1].Line != 2 {
		t.Fatal(rows, err)
	}
	a, b := rows[0].Record, rows[1].Record
	if a.Get("Device").Text() != "a" || a.Get("N").Bigint() != 7 || !a.Get("On").True() || !b.Get("Most").IsNull() {
		t.Errorf("got %v and %v", a, b)
	}
	if f, ok := a.Get("Most").AsFloat(); !ok || f != 2.5 {
		t.Errorf("Most is %v", f)
	}
	if at, ok := b.Get("Since").AsTime(); !ok || at != 5000 {
		t.Errorf("Since is %v", at)
	}
	for n := range file.Len() { // a file that was cut short is an error, never a crash
		if _, err := Read("limits.parquet", file.Bytes()[:n]); !fleetscore.Invalid.Is(err) {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
	}
	var nested bytes.Buffer
	if err := parquet.Write(&nested, []struct{ L []int32 }{{[]int32{1}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := Read("limits.parquet", nested.Bytes()); err == nil || !strings.Contains(err.Error(), "column L has lists") {
		t.Errorf("lists: %v", err)
	}
}

// FuzzRead: a file that is no table, or a damaged one, gives an error of the kind invalid.
func FuzzRead(f *testing.F) {
	type limit struct {
		Device string   `parquet:"Device"`
		Most   *float64 `parquet:"Most,optional"`
		N      int32    `parquet:"N"`
	}
	var b bytes.Buffer
	most := 1.5
	if err := parquet.Write(&b, []limit{{"a", &most, 1}, {"b", nil, 2}}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	for _, s := range []string{"", "a,b\n1,2\n", "\xef\xbb\xbfa\n\"x\ny\"\n", "a,a\n1", "a\n1,2\n", "\"", "PAR1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range []string{"f.csv", "f.parquet"} {
			if _, err := Read(name, data); err != nil && !fleetscore.Invalid.Is(err) {
				t.Fatalf("%s: kind of %v", name, err)
			}
		}
	})
}
