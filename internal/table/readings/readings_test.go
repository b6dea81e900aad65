package readings

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
)

var keyColumns = []string{"Device", "Tag"}

// readingsOf draws readings with ids, numbers, texts, and columns of both.
func readingsOf(t *rapid.T) *fleetscore.Readings {
	r := &fleetscore.Readings{}
	n := rapid.IntRange(1, 4).Draw(t, "readings")
	for i := range n {
		key := fleetscore.Key(fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "device"), fleetscore.KeySeparator, "é"))
		at := slices.Index(r.Keys, key)
		if at < 0 {
			at = len(r.Keys)
			r.Keys = append(r.Keys, key)
		}
		r.KeyIndex, r.Times = append(r.KeyIndex, uint32(at)), append(r.Times, fleetscore.Micros(rapid.Int64Range(-1e15, 1e16).Draw(t, "time")))
		if i == 0 && rapid.Bool().Draw(t, "ids") {
			r.IDs = make([]string, n)
			r.IDs[0] = "an id"
		}
	}
	for _, name := range []string{"Value", "_source", "Value_text"} {
		var numbers []float64
		var texts []string
		var present []bool
		for range n {
			x, s, is := math.NaN(), "", false
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 1:
				x = rapid.Float64Range(-1e9, 1e9).Draw(t, "number")
			case 2:
				s, is = rapid.SampledFrom([]string{"", "x", "on"}).Draw(t, "text"), true
			}
			numbers, texts, present = append(numbers, x), append(texts, s), append(present, is)
		}
		if slices.ContainsFunc(numbers, func(x float64) bool { return x == x }) {
			r.Columns = append(r.Columns, fleetscore.ReadingColumn{Name: name, Numbers: numbers})
		}
		if slices.Contains(present, true) {
			r.Columns = append(r.Columns, fleetscore.ReadingColumn{Name: name, Strings: texts, Present: present})
		}
	}
	slices.SortStableFunc(r.Columns, func(a, b fleetscore.ReadingColumn) int { return cmpBool(a.Strings != nil, b.Strings != nil) })
	return r
}

func cmpBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// TestFile: a file gives back the messages that were written, whatever columns their readings have.
func TestFile(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var want []hub.Message
		for i := range rapid.IntRange(1, 5).Draw(t, "messages") {
			want = append(want, hub.Message{Seq: uint64(i + 1), Stamp: hub.Stamp{Source: "http", Arrived: fleetscore.Micros(i) * 60e6, Unsure: 3}, Readings: readingsOf(t)})
		}
		var b bytes.Buffer
		if err := Encode(&b, keyColumns, "TS", want); err != nil {
			t.Fatal(err)
		}
		var got []hub.Message
		if err := Decode(b.Bytes(), keyColumns, "TS", func(m hub.Message) error { got = append(got, m); return nil }); err != nil {
			t.Fatal(err)
		}
		byName := cmpopts.SortSlices(func(a, b fleetscore.ReadingColumn) bool {
			return a.Name < b.Name || a.Name == b.Name && a.Strings == nil && b.Strings != nil
		})
		if d := cmp.Diff(want, got, cmpopts.EquateNaNs(), cmpopts.EquateEmpty(), byName); d != "" {
			t.Fatalf("messages (-written +read):\n%s", d)
		}
		if err := Decode(b.Bytes(), []string{"Device"}, "TS", nil); err == nil {
			t.Fatal("a file with other key columns was read")
		}
		cut := rapid.IntRange(0, b.Len()-1).Draw(t, "cut")
		if err := Decode(b.Bytes()[:cut], keyColumns, "TS", func(hub.Message) error { return nil }); err == nil {
			t.Fatal("a file that was cut short was read")
		}
	})
}

// FuzzDecode: a damaged file of the archive gives an error.
func FuzzDecode(f *testing.F) {
	var b bytes.Buffer
	r := &fleetscore.Readings{Keys: []fleetscore.Key{fleetscore.Key("d" + fleetscore.KeySeparator + "t")}, KeyIndex: []uint32{0, 0}, Times: []fleetscore.Micros{1, 2}, IDs: []string{"a", ""},
		Columns: []fleetscore.ReadingColumn{{Name: "Value", Numbers: []float64{1, math.NaN()}}, {Name: "Unit", Strings: []string{"", "x"}, Present: []bool{false, true}}}}
	if err := Encode(&b, keyColumns, "TS", []hub.Message{{Stamp: hub.Stamp{Source: "http", Arrived: 3}, Seq: 1, Readings: r}}); err != nil {
		f.Fatal(err)
	}
	if err := Decode(b.Bytes(), keyColumns, "TS", func(hub.Message) error { return nil }); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes(), 0, byte(0))
	for i := 0; i < b.Len(); i += 37 {
		f.Add(b.Bytes(), i, byte(0x55))
	}
	f.Fuzz(func(t *testing.T, data []byte, at int, by byte) {
		data = bytes.Clone(data)
		if at >= 0 && at < len(data) {
			data[at] ^= by
		}
		_ = Decode(data, keyColumns, "TS", func(m hub.Message) error {
			for i, k := range m.Readings.KeyIndex {
				if int(k) >= len(m.Readings.Keys) || len(m.Readings.Times) <= i {
					t.Fatalf("%+v", m.Readings)
				}
			}
			return nil
		})
	})
}
