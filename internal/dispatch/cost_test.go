package dispatch

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
)

// even is the same number for each shard.
func even(n int64) (out [fleetscore.Shards]int64) {
	for i := range out {
		out[i] = n
	}
	return out
}

// took is what was measured of jobs with so many keys per shard, a model of which takes so
// long to load and so long to score the rows of a job with that many rows.
func took(keys, rows int64, load, score time.Duration) Measured {
	m := Measured{Job: "p-1", Rows: rows}
	for s := range fleetscore.Shards {
		m.Shards = append(m.Shards, Cost{fleetscore.Shard(s), keys, load * time.Duration(keys), score * time.Duration(keys)})
	}
	return m
}

// TestPlanRanges: whatever was measured, the ranges cover every shard once, in order, and
// are of about the same cost, as far as a shard allows it.
func TestPlanRanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		shards := func(name string, scales ...int64) (out [fleetscore.Shards]int64) {
			scale := rapid.SampledFrom(scales).Draw(rt, name)
			seed := rapid.Int64Range(0, 1<<30).Draw(rt, name+" seed")
			for i := range out {
				seed = (seed*1103515245 + 12345) & (1<<31 - 1)
				out[i] = seed % (scale + 1)
			}
			return out
		}
		w := Workload{Keys: shards("keys", 0, 1, 3, 1000), Bytes: shards("bytes", 0, 100, 100<<20), Rows: rapid.SampledFrom([]int64{0, 1, 1e6, math.MaxInt64}).Draw(rt, "rows")}
		m := Measured{Rows: rapid.SampledFrom([]int64{0, 1, 1e6}).Draw(rt, "rows before")}
		for i, n := range shards("known", 0, 1, 1000) {
			took := rapid.SampledFrom([]time.Duration{0, time.Microsecond, time.Second, math.MaxInt64}).Draw(rt, "took")
			m = m.Learn(fleetscore.JobID(rune('a'+i)), Workload{Rows: m.Rows}, true, []Cost{{fleetscore.Shard(i), n, took, took}})
		}
		slots := rapid.IntRange(0, 100).Draw(rt, "slots")
		got := Plan(w, m, slots)
		cost, known := m.costs(w)
		if !known {
			if cost = w.Bytes; sum(cost) == 0 {
				cost = w.Keys
			}
		}
		next, largest := 0, slices.Max(cost[:])
		for _, r := range got {
			if int(r.First) != next || r.Last < r.First {
				rt.Fatalf("%v: a gap or overlap at shard %d", got, next)
			}
			next = int(r.Last) + 1
			var n int64
			for s := int(r.First); s <= int(r.Last); s++ {
				n += cost[s]
			}
			fair := float64(sum(cost))/float64(len(got))*(1+2.0/slack) + float64(largest)
			if float64(n) > fair*1.000001+1 {
				rt.Errorf("range %v costs %d, fair is %.0f", r, n, fair)
			}
		}
		if next != fleetscore.Shards {
			rt.Errorf("%v: ends at shard %d", got, next)
		}
	})
}

// TestPlan: how many tasks there are follows what models cost, once that is known.
func TestPlan(t *testing.T) {
	t.Parallel()
	const rows = 1_000_000
	small := Workload{Keys: even(10), Bytes: even(1000), Rows: rows} // 2,560 keys
	huge := small
	huge.Bytes = even(10 << 20)
	twice := small
	twice.Rows *= 2
	none := small
	none.Rows = 0
	other := small
	other.Of = fleetscore.DigestOf([]byte("another runtime"))
	unlike := took(10, rows, 0, time.Millisecond) // all cost lies in the first 16 shards
	for i := 16; i < fleetscore.Shards; i++ {
		unlike.Shards[i].Score = 0
	}
	for i := range 16 {
		unlike.Shards[i].Score = 30 * time.Second
	}
	for _, tt := range []struct {
		name     string
		w        Workload
		m        Measured
		slots    int
		min, max int
	}{
		{"unknown, few keys", Workload{Keys: [fleetscore.Shards]int64{3: 20}, Rows: 1}, Measured{}, 8, 1, 1},
		{"unknown", small, Measured{}, 4, 16, 16},
		{"unknown, many slots", small, Measured{}, 1000, 40, 40}, // of 64 keys
		{"unknown, many bytes", huge, Measured{}, 1, 40, 40},     // of 64 MB
		{"measured otherwise", other, took(10, rows, 0, time.Hour), 4, 16, 16},
		{"slow", small, took(10, rows, 0, 50*time.Millisecond), 4, 43, 43}, // 128 s
		{"slow, twice the rows", twice, took(10, rows, 0, 50*time.Millisecond), 4, 86, 86},
		{"slow to load, twice the rows", twice, took(10, rows, 50*time.Millisecond, 0), 4, 43, 43},
		{"slower than shards allow", small, took(10, rows, 0, time.Minute), 4, fleetscore.Shards, fleetscore.Shards},
		{"fast", small, took(10, rows, 0, time.Microsecond), 100, 1, 1},
		{"fast, for many slots", small, took(10, rows, 0, time.Millisecond), 100, 8, 8}, // 2.56 s
		{"fast, for some slots", small, took(10, rows, 0, time.Millisecond), 3, 3, 3},
		{"fast, many bytes", huge, took(10, rows, 0, time.Microsecond), 4, 40, 40},
		{"unknown, no rows", none, Measured{}, 4, 16, 16},
		{"no rows", none, took(10, rows, 0, time.Hour), 4, 1, 1},
		{"some shards slow", small, unlike, 4, 16, 17},
		{"one slow shard", Workload{Keys: [fleetscore.Shards]int64{3: 10}, Rows: rows}, took(10, rows, 0, time.Hour), 4, 1, 1},
	} {
		got := Plan(tt.w, tt.m, tt.slots)
		if len(got) < tt.min || len(got) > tt.max {
			t.Errorf("%s: %d tasks, want %d to %d: %v", tt.name, len(got), tt.min, tt.max, got)
		}
	}
	var uneven Workload
	for i := range uneven.Keys {
		uneven.Keys[i] = 400 + int64(i*37%40) // as hashing distributes keys
	}
	for _, r := range Plan(uneven, Measured{}, 2) {
		if (int(r.Last)+1)%fileShards != 0 {
			t.Errorf("range %v ends inside a file's", r)
		}
	}
}

// TestSpread: no byte is lost, and shards get them by their keys.
func TestSpread(t *testing.T) {
	t.Parallel()
	w := Workload{Keys: [fleetscore.Shards]int64{0: 1, 1: 3, 9: 5}}
	w.Spread(400, fleetscore.ShardRange{First: 0, Last: 8})
	w.Spread(7, fleetscore.ShardRange{First: 2, Last: 8}) // no key is there
	if d := cmp.Diff([fleetscore.Shards]int64{0: 100, 1: 300, 2: 7}, w.Bytes); d != "" {
		t.Errorf("bytes (-want +got):\n%s", d)
	}
}

// TestLearn: a job replaces what was known, and one that worked on a part of its keys
// changes it by this part.
func TestLearn(t *testing.T) {
	t.Parallel()
	w := Workload{Rows: 100}
	a := Measured{}.Learn("p-1", w, false, []Cost{{2, 4, 8, 40}, {2, 1, 2, 10}, {7, 1, 1, 1}})
	want := Measured{Job: "p-1", Rows: 100, Shards: []Cost{{2, 5, 10, 50}, {7, 1, 1, 1}}}
	if d := cmp.Diff(want, a); d != "" {
		t.Errorf("the first job (-want +got):\n%s", d)
	}
	if d := cmp.Diff(a, a.Learn("p-1", w, false, []Cost{{2, 1, 1, 1}})); d != "" {
		t.Errorf("a job is counted twice:\n%s", d)
	}
	if d := cmp.Diff(a, a.Learn("p-2", Workload{}, false, []Cost{{2, 5, 0, 0}})); d != "" {
		t.Errorf("a job without rows teaches something:\n%s", d)
	}
	some := a.Learn("p-2", Workload{Rows: 200}, true, []Cost{{2, 1, 100, 1000}})
	want = Measured{Job: "p-2", Rows: 200, Shards: []Cost{{2, 5, 108, 1080}, {7, 1, 1, 2}}} // scoring twice the rows takes twice as long
	if d := cmp.Diff(want, some); d != "" {
		t.Errorf("a part of the keys (-want +got):\n%s", d)
	}
	all := a.Learn("p-2", w, false, []Cost{{2, 1, 100, 1000}})
	if d := cmp.Diff(Measured{Job: "p-2", Rows: 100, Shards: []Cost{{2, 1, 100, 1000}}}, all); d != "" {
		t.Errorf("all keys (-want +got):\n%s", d)
	}
	w.Of = fleetscore.DigestOf([]byte("python"))
	if got := a.Learn("p-2", w, true, []Cost{{7, 1, 5, 5}}); len(got.Shards) != 1 || got.Of != w.Of {
		t.Errorf("what was measured with other settings counts: %+v", got)
	}
	if got := a.Learn("p-2", w, true, []Cost{{7, -1, -5, math.MaxInt64}}); len(got.Shards) != 0 {
		t.Errorf("nonsense counts: %+v", got)
	}
}

// TestCostOf: items count in their shards, also those without rows, and what threads did at
// the same time counts once.
func TestCostOf(t *testing.T) {
	t.Parallel()
	a, b := fleetscore.Key("a"), fleetscore.Key("b")
	got := CostOf([]fleetscore.Item{{Key: a, Load: 10, Score: 20}, {Key: a}, {Key: b, Score: 8}}, 2)
	want := []Cost{{a.Shard(), 2, 5, 10}, {b.Shard(), 1, 0, 4}}
	if a.Shard() > b.Shard() {
		slices.Reverse(want)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("cost (-want +got):\n%s", d)
	}
}
