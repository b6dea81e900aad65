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
