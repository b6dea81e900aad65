package simulator_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/simulator"
)

// send collects what a sender hands out step by step.
func send(t testing.TB, f *simulator.Fleet, traffic simulator.Traffic, steps []time.Duration, end time.Time) (out []simulator.Reading, at []time.Time, count simulator.Injected) {
	t.Helper()
	s, err := f.NewSender(traffic, start, end)
	if err != nil {
		t.Fatal(err)
	}
	to := start
	for _, step := range steps {
		to = to.Add(step)
		for r := range s.Until(to) {
			out, at = append(out, r), append(at, to)
		}
	}
	return out, at, s.Injected()
}

// TestTraffic: whatever the faults, what is sent is what the fleet makes without the dropped readings, with the copies and the
// wrong times, as often as the sender says; and it is the same in pieces and again.
func TestTraffic(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		share := func(name string) float64 { return float64(rapid.IntRange(0, 33).Draw(r, name)) / 100 }
		traffic := simulator.Traffic{Dropped: share("dropped"), Duplicates: share("duplicates"), Late: share("late"), Skewed: share("skewed"),
			LateBy: time.Duration(rapid.IntRange(1, 20).Draw(r, "late by")) * time.Second, SkewBy: time.Duration(rapid.IntRange(-3, 3).Draw(r, "skew by")) * time.Hour, Burst: time.Duration(rapid.IntRange(0, 7).Draw(r, "burst")) * time.Second}
		f := newFleet(t, simulator.Config{Seed: rapid.Uint64().Draw(r, "seed"), Devices: 9, Tags: 2})
		steps := rapid.SliceOfN(rapid.Map(rapid.IntRange(1, 9000), func(ms int) time.Duration { return time.Duration(ms) * time.Millisecond }), 1, 12).Draw(r, "steps")
		total := time.Duration(0)
		for _, s := range steps {
			total += s
		}
		end := start.Add(total)
		got, _, count := send(t, f, traffic, steps, end)
		whole, _, again := send(t, f, traffic, []time.Duration{total}, end)
		if diff := cmp.Diff(whole, got); diff != "" || count != again {
			r.Fatalf("at once and in pieces it isn't the same: %+v, %+v\n%s", again, count, diff)
		}
		skew := traffic.Defaults().SkewBy
		made := map[string]int{}
		for x := range f.Readings(start, end) {
			made[fmt.Sprint(x)]++
		}
		var right, copies, wrong int64
		for i, x := range got {
			key := fmt.Sprint(x)
			if i > 0 && x == got[i-1] {
				copies++
				continue
			}
			if made[key] == 0 {
				x.Time -= fleetscore.Micros(skew.Microseconds())
				key = fmt.Sprint(x)
				wrong++
			} else {
				right++
			}
			if made[key] != 1 {
				r.Fatalf("%v was sent and not made, or twice", x)
			}
			made[key] = 2
		}
		var unsent int64
		for _, n := range made {
			if n == 1 {
				unsent++
			}
		}
		if count.Waiting != 0 || count.Made != int64(len(made)) || count.Sent != int64(len(got)) || count.Duplicates != copies || count.Skewed != wrong || count.Good+count.Late != right || count.Dropped != unsent {
			r.Fatalf("injected %+v; %d right, %d copies, %d with wrong times, %d never sent", count, right, copies, wrong, unsent)
		}
	})
}

// TestShares: faults are about as frequent as they should be, late readings come when they should, and bursts together.
func TestShares(t *testing.T) {
	t.Parallel()
	f := newFleet(t, simulator.Config{Devices: 500, Tags: 2})
	var steps []time.Duration
	for range 100 {
		steps = append(steps, time.Second)
	}
	traffic := simulator.Traffic{Dropped: 0.1, Duplicates: 0.2, Late: 0.05, LateBy: 10 * time.Second, Skewed: 0.02, SkewBy: -time.Hour}
	out, at, n := send(t, f, traffic, steps, start.Add(100*time.Second))
	near := func(what string, got int64, share float64) {
		if want := share * float64(n.Made); math.Abs(float64(got)-want) > 0.2*want {
			t.Errorf("%d %s, want about %.0f", got, what, want)
		}
	}
	near("dropped", n.Dropped, 0.1)
	near("duplicates", n.Duplicates, 0.2)
	near("late", n.Late, 0.045) // those at the end are in time
	if n.SkewedDevices < 3 || n.SkewedDevices > 20 || n.Skewed != n.SkewedDevices*200 {
		t.Errorf("%d readings of %d skewed devices", n.Skewed, n.SkewedDevices)
	}
	lates := int64(0)
	for i, r := range out {
		if age := at[i].Sub(r.Time.Time()); age >= 10*time.Second && age < 11*time.Second {
			lates++
		} else if age >= time.Second && age < time.Hour {
			t.Fatalf("a reading is sent after %v", age)
		}
	}
	if lates != n.Late {
		t.Errorf("%d readings come 10 s late, %d are said to", lates, n.Late)
	}
	_, at, n = send(t, f, simulator.Traffic{Burst: 7 * time.Second}, steps, start.Add(100*time.Second))
	if got := len(slices.Compact(slices.Clone(at))); got < 14 || got > 16 || n.Good != n.Made || n.Waiting != 0 {
		t.Errorf("%d bursts in 100 s with one every 7 s; %+v", got, n)
	}
	_, _, n = send(t, f, simulator.Traffic{Late: 1}, steps, time.Time{})
	if n.Waiting != n.Made-n.Sent || n.Late != n.Sent || n.Waiting < 1 {
		t.Errorf("without an end: %+v", n)
	}
}

func TestTrafficRefusals(t *testing.T) {
	t.Parallel()
	f := newFleet(t, simulator.Config{})
	for _, traffic := range []simulator.Traffic{{Dropped: -0.1}, {Late: 1.1}, {Skewed: math.NaN()}, {Dropped: 0.5, Duplicates: 0.3, Late: 0.3}, {LateBy: -1}, {Burst: 2 * time.Hour}, {SkewBy: 25 * time.Hour}, {SkewBy: time.Microsecond}} {
		if _, err := f.NewSender(traffic, start, start); !fleetscore.Invalid.Is(err) {
			t.Errorf("%+v: %v, want kind invalid", traffic, err)
		}
	}
}
