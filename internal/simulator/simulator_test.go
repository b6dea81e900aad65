package simulator_test

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/simulator"
)

var start = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

func newFleet(t testing.TB, cfg simulator.Config) *simulator.Fleet {
	t.Helper()
	f, err := simulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestPieces simulates some time at once and in uneven pieces.
func TestPieces(t *testing.T) {
	t.Parallel()
	f := newFleet(t, simulator.Config{Seed: 7, Interval: 700 * time.Millisecond})
	end := start.Add(10 * time.Minute)
	whole := slices.Collect(f.Readings(start, end))
	var pieces []simulator.Reading
	for at, step := start, 137*time.Millisecond; at.Before(end); step = step * 3 / 2 {
		to := at.Add(step)
		if to.After(end) {
			to = end
		}
		pieces = slices.AppendSeq(pieces, newFleet(t, f.Config()).Readings(at, to))
		at = to
	}
	if diff := cmp.Diff(whole, pieces); diff != "" {
		t.Errorf("in pieces (-whole +pieces):\n%s", diff)
	}
	if want := 20 * int(10*time.Minute/(700*time.Millisecond)); len(whole) < want || len(whole) > want+20 {
		t.Errorf("%d readings, want about %d", len(whole), want)
	}
	if !slices.IsSortedFunc(whole, func(a, b simulator.Reading) int { return int(a.Time - b.Time) }) {
		t.Error("readings are not in time order")
	}
	for _, r := range whole {
		if r.Time <= fleetscore.MicrosOf(start) || r.Time > fleetscore.MicrosOf(end) {
			t.Errorf("a reading at %v lies outside of the interval", r.Time)
		}
	}
}

// TestBeforeTheEpoch checks that times before 1970 round the right way.
func TestBeforeTheEpoch(t *testing.T) {
	t.Parallel()
	f := newFleet(t, simulator.Config{Devices: 2, Tags: 2})
	n := len(slices.Collect(f.Readings(time.Unix(-90, 500), time.Unix(30, 500))))
	if n != 4*120 {
		t.Errorf("%d readings in 120 s of 4 sensors, want 480", n)
	}
}

func TestSeeds(t *testing.T) {
	t.Parallel()
	first := func(seed uint64) simulator.Reading {
		for r := range newFleet(t, simulator.Config{Seed: seed}).Readings(start, start.Add(time.Second)) {
			return r
		}
		t.Fatal("no reading")
		return simulator.Reading{}
	}
	if first(1) != first(1) || first(1) == first(2) {
		t.Error("a seed must give the same fleet again, another seed another one")
	}
}

// TestFaultsMatchReadings compares the label of every reading with the list of faults,
// and checks that a demo of ten minutes shows several faults.
func TestFaultsMatchReadings(t *testing.T) {
	t.Parallel()
	f := newFleet(t, simulator.Config{Seed: 1})
	end := start.Add(2 * time.Hour)
	faults := f.Faults(start, end)
	if n := len(faults); n < 80 || n > 160 {
		t.Errorf("%d faults in 2 h of 20 sensors, want about 120", n)
	}
	kinds := map[simulator.FaultKind]int{}
	for _, x := range faults {
		kinds[x.Kind]++
	}
	if len(kinds) != 4 {
		t.Errorf("kinds of fault seen: %v, want all 4", kinds)
	}
	for m := range 12 {
		from := start.Add(time.Duration(m) * 10 * time.Minute)
		if n := len(f.Faults(from, from.Add(10*time.Minute))); n < 3 {
			t.Errorf("%d faults in the ten minutes from %v, want several", n, from)
		}
	}
	for r := range f.Readings(start, end) {
		want := slices.ContainsFunc(faults, func(x simulator.Fault) bool {
			return x.Device == r.Device && x.Tag == r.Tag && x.From < r.Time && r.Time <= x.To
		})
		if r.Fault != want {
			t.Fatalf("reading %+v: fault %v, want %v", r, r.Fault, want)
		}
	}
}

func TestHealthy(t *testing.T) {
	t.Parallel()
	with := newFleet(t, simulator.Config{Seed: 1})
	without := newFleet(t, simulator.Config{Seed: 1, FaultRate: -1})
	end := start.Add(30 * time.Minute)
	if n := len(without.Faults(start, end)); n > 0 {
		t.Errorf("%d faults, want none", n)
	}
	healthy := slices.Collect(without.Readings(start, end))
	i := 0
	for r := range with.Readings(start, end) {
		if !r.Fault && r != healthy[i] {
			t.Fatalf("healthy reading %+v differs from %+v of the fleet without faults", r, healthy[i])
		}
		i++
	}
}

// TestValues checks that signals vary, stay near their base, and all differ from each
// other.
func TestValues(t *testing.T) {
	t.Parallel()
	f := newFleet(t, simulator.Config{Devices: 3, Tags: 12, Interval: time.Minute, FaultRate: -1})
	type stat struct{ n, sum, squares float64 }
	stats := map[string]*stat{}
	for r := range f.Readings(start, start.Add(24*time.Hour)) {
		s := stats[r.Device+"/"+r.Tag]
		if s == nil {
			s = &stat{}
			stats[r.Device+"/"+r.Tag] = s
		}
		s.n, s.sum, s.squares = s.n+1, s.sum+r.Value, s.squares+r.Value*r.Value
	}
	if len(stats) != 36 {
		t.Fatalf("%d sensors, want 36", len(stats))
	}
	means := map[float64]string{}
	for key, s := range stats {
		mean := s.sum / s.n
		deviation := math.Sqrt(s.squares/s.n - mean*mean)
		if !(deviation > 0.001*mean) || deviation > 0.5*mean {
			t.Errorf("%s has mean %v and deviation %v", key, mean, deviation)
		}
		if other, ok := means[mean]; ok {
			t.Errorf("%s and %s have the same mean", key, other)
		}
		means[mean] = key
	}
}

// TestGolden checks that values never change, because models were trained on them.
func TestGolden(t *testing.T) {
	t.Parallel()
	f := newFleet(t, simulator.Config{Seed: 1, Devices: 1})
	var csv []byte
	for r := range f.Readings(start, start.Add(2*time.Second)) {
		csv = r.AppendCSV(csv)
	}
	want, err := os.ReadFile("testdata/golden.csv")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(csv)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	r := simulator.Reading{Device: "3", Tag: "flow", Time: 1_700_000_000_250_000, Value: -1.5, Fault: true}
	if got, want := string(r.AppendCSV(nil)), "2023-11-14T22:13:20.250Z,3,flow,-1.5,1\n"; got != want {
		t.Errorf("CSV %q, want %q", got, want)
	}
	var got map[string]any
	if err := json.Unmarshal(r.AppendNDJSON(nil), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"TS": "2023-11-14T22:13:20.250Z", "Device": "3", "Tag": "flow", "Value": -1.5, "Fault": 1.0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("NDJSON (-want +got):\n%s", diff)
	}
	if columns := strings.Count(simulator.CSVHeader, ","); columns != 4 {
		t.Errorf("the header has %d columns, want 5", columns+1)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, cfg := range []simulator.Config{
		{Devices: -1},
		{Tags: -1},
		{Devices: 1 << 20, Tags: 1 << 20},
		{Interval: 1500 * time.Microsecond},
		{Interval: 2 * time.Hour},
		{FaultRate: 13},
		{FaultRate: math.NaN()},
	} {
		if _, err := simulator.New(cfg); !fleetscore.Invalid.Is(err) {
			t.Errorf("%+v: %v, want kind invalid", cfg, err)
		}
	}
	if diff := cmp.Diff(simulator.Config{Devices: 5, Tags: 4, Interval: time.Second, FaultRate: 3}, newFleet(t, simulator.Config{}).Config(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

func BenchmarkReadings(b *testing.B) {
	f := newFleet(b, simulator.Config{Devices: 100, Tags: 100})
	n := 0
	var line []byte
	for b.Loop() {
		for r := range f.Readings(start, start.Add(time.Second)) {
			line = r.AppendNDJSON(line[:0])
			n++
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/reading")
}
