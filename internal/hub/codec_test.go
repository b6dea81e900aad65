package hub_test

import (
	"encoding/binary"
	"flag"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
)

var update = flag.Bool("update", false, "rewrite the golden files that may change")

var equal = cmp.Options{cmpopts.EquateNaNs(), cmpopts.EquateEmpty()}

// everything uses each encoding of the format.
func everything() *fleetscore.Readings {
	return &fleetscore.Readings{
		Keys:     []fleetscore.Key{"1\x1ftemperature", "2\x1fpressure"},
		KeyIndex: []uint32{0, 1, 1, 0},
		Times:    []fleetscore.Micros{1_700_000_000_000_000, 1_700_000_000_250_000, 1_700_000_000_250_001, 1_699_999_999_999_000},
		IDs:      []string{"a1", "", "b", "ü"},
		Columns: []fleetscore.ReadingColumn{
			{Name: "Value", Numbers: []float64{21.5, -3.25, 1e300, math.Copysign(0, -1)}},
			{Name: "Scaled", Numbers: []float64{21.37, -0.01, fleetscore.Missing, 99}},
			{Name: "Wide", Numbers: []float64{2147483647, -2147483647, 0, 70000}},
			{Name: "Fault", Numbers: []float64{0, 1, 0, 0}},
			{Name: "Never", Numbers: []float64{fleetscore.Missing, fleetscore.Missing, fleetscore.Missing, fleetscore.Missing}},
			{Name: "Unit", Strings: []string{"°C", "bar", "bar", "°C"}},
			{Name: "Note", Strings: []string{"", "", "x", ""}, Present: []bool{true, false, true, false}},
		},
	}
}

func TestGolden(t *testing.T) {
	t.Parallel()
	tests := []struct {
		file     string
		stamp    hub.Stamp
		readings *fleetscore.Readings
	}{
		{"v2-readings.bin", hub.Stamp{Source: "mqtt", Arrived: 1_700_000_001_000_000, Unsure: 3600e6}, everything()},
		{"v2-position.bin", hub.Stamp{Source: "kafka/readings/3", Arrived: 1_700_000_001_000_000, Position: "1234+2"}, nil},
		{"v2-tick.bin", hubtest.At(1_700_000_002_000_000), nil},
		{"v2-empty.bin", hubtest.At(-5), &fleetscore.Readings{}},
	}
	for _, tt := range tests {
		name := filepath.Join("testdata", tt.file)
		got := hub.Encode(nil, tt.stamp, tt.readings)
		if *update {
			if err := os.WriteFile(name, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.file, diff)
		}
		stamp, r, err := hub.Decode(want)
		if err != nil {
			t.Fatalf("decode %s: %v", tt.file, err)
		}
		if diff := cmp.Diff(tt.readings, r, equal); diff != "" || stamp != tt.stamp {
			t.Errorf("decode %s: stamp %v, want %v (-want +got):\n%s", tt.file, stamp, tt.stamp, diff)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := drawReadings(t)
		stamp := hub.Stamp{Source: fleetscore.Source(rapid.StringN(1, 16, fleetscore.MaxSourceBytes).Draw(t, "source")),
			Arrived: fleetscore.Micros(rapid.Int64().Draw(t, "arrived")), Unsure: fleetscore.Micros(rapid.Int64Min(0).Draw(t, "unsure")), Position: rapid.StringN(-1, 32, hub.MaxPositionBytes).Draw(t, "position")}
		prefix := []byte("kept")
		data := hub.Encode(prefix, stamp, r)
		if string(data[:4]) != "kept" {
			t.Fatal("encode changed what was before")
		}
		gotStamp, got, err := hub.Decode(data[4:])
		if err != nil {
			t.Fatal(err)
		}
		if gotStamp != stamp {
			t.Errorf("stamp %v, want %v", gotStamp, stamp)
		}
		if diff := cmp.Diff(r, got, equal); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for c := range r.Columns {
			for i, v := range r.Columns[c].Numbers {
				if g := got.Columns[c].Numbers[i]; v == v && math.Float64bits(g) != math.Float64bits(v) {
					t.Errorf("%v came back as %v", v, g)
				}
			}
		}
	})
}

func drawReadings(t *rapid.T) *fleetscore.Readings {
	n := rapid.IntRange(0, 40).Draw(t, "n")
	r := &fleetscore.Readings{}
	for i := range rapid.SampledFrom([]int{1, 2, 3, 300}).Draw(t, "keys") {
		r.Keys = append(r.Keys, fleetscore.Key(rapid.String().Draw(t, "key"))+fleetscore.Key(rune('a'+i)))
	}
	number := rapid.OneOf(
		rapid.Float64(), rapid.Just(math.NaN()), rapid.Just(math.Inf(1)),
		rapid.Map(rapid.IntRange(-40000, 40000), func(i int) float64 { return float64(i) / 100 }),
		rapid.Map(rapid.IntRange(-2, 2), func(i int) float64 { return float64(i) }),
	)
	oneNumber := rapid.SampledFrom([]*rapid.Generator[float64]{number, rapid.Map(rapid.IntRange(-100, 100), func(i int) float64 { return float64(i) / 10 })}).Draw(t, "numbers")
	for range rapid.IntRange(0, 4).Draw(t, "columns") {
		c := fleetscore.ReadingColumn{Name: rapid.String().Draw(t, "name")}
		if rapid.Bool().Draw(t, "strings") {
			c.Strings = make([]string, n)
			sparse := false
			present := make([]bool, n)
			for i := range n {
				present[i] = rapid.Bool().Draw(t, "present")
				sparse = sparse || !present[i]
				if present[i] {
					c.Strings[i] = rapid.SampledFrom([]string{"", "a", "bb", "°C"}).Draw(t, "word")
				}
			}
			if sparse {
				c.Present = present
			}
		} else {
			for range n {
				c.Numbers = append(c.Numbers, oneNumber.Draw(t, "v"))
			}
		}
		r.Columns = append(r.Columns, c)
	}
	unit := rapid.SampledFrom([]int64{1, 1000}).Draw(t, "unit")
	for range n {
		r.KeyIndex = append(r.KeyIndex, uint32(rapid.IntRange(0, len(r.Keys)-1).Draw(t, "k")))
		r.Times = append(r.Times, fleetscore.Micros(rapid.Int64Range(-1<<40, 1<<40).Draw(t, "t")*unit))
	}
	if n > 0 && rapid.Bool().Draw(t, "ids") {
		for range n {
			r.IDs = append(r.IDs, rapid.String().Draw(t, "id"))
		}
	}
	return r
}

// TestDamage flips every bit and cuts at every byte.
func TestDamage(t *testing.T) {
	t.Parallel()
	good := hub.Encode(nil, hubtest.At(7), everything())
	for i := range good {
		if _, _, err := hub.Decode(good[:i]); err == nil {
			t.Errorf("cut to %d of %d bytes it was read", i, len(good))
		}
		for bit := range 8 {
			bad := append([]byte(nil), good...)
			bad[i] ^= 1 << bit
			if _, _, err := hub.Decode(bad); err == nil {
				t.Errorf("with bit %d of byte %d flipped it was read", bit, i)
			}
		}
	}
}

func TestUnknownVersion(t *testing.T) {
	t.Parallel()
	data := hub.Encode(nil, hubtest.At(7), nil)
	data[2] = 9
	if _, _, err := hub.Decode(data); !fleetscore.Invalid.Is(err) {
		t.Errorf("got %v, want kind invalid", err)
	}
}

// seal repairs the checksum, so that fuzzing reaches what is behind it.
func seal(data []byte) {
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(data[4:], crc32.Update(crc32.Checksum(data[:4], table), table, data[8:]))
}

func FuzzDecode(f *testing.F) {
	f.Add(hub.Encode(nil, hubtest.At(7), everything()))
	f.Add(hub.Encode(nil, hubtest.At(7), hubtest.Batch(3, 20)))
	f.Add(hub.Encode(nil, hubtest.At(7), nil))
	f.Add(hub.Encode(nil, hubtest.At(7), &fleetscore.Readings{}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		_, _, _ = hub.Decode(data)
		if len(data) < 8 {
			return
		}
		data = append([]byte(nil), data...)
		seal(data)
		stamp, r, err := hub.Decode(data)
		if err != nil {
			return
		}
		a2, r2, err := hub.Decode(hub.Encode(nil, stamp, r))
		if err != nil || a2 != stamp {
			t.Fatalf("decoded, encoded and decoded again: %v %v", a2, err)
		}
		if diff := cmp.Diff(r, r2, equal); diff != "" {
			t.Errorf("decoded, encoded and decoded again (-first +second):\n%s", diff)
		}
	})
}

func BenchmarkCodec(b *testing.B) {
	r := hubtest.Batch(1, 15000)
	data := hub.Encode(nil, hubtest.At(7), r)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf = hub.Encode(buf[:0], hubtest.At(7), r)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(r.Len()), "ns/reading")
		b.ReportMetric(float64(len(data))/float64(r.Len()), "bytes/reading")
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := hub.Decode(data); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(r.Len()), "ns/reading")
	})
}
