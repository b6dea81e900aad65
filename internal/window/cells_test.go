package window

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
)

// TestRepeatsAmongMany: in windows with long chains of readings of a key, in any order, each
// reading counts once, as a set of all readings says.
func TestRepeatsAmongMany(t *testing.T) {
	t.Parallel()
	cfg := config
	cfg.Window, cfg.Disorder, cfg.Aggregates = 2*time.Hour, 2*time.Hour, []Aggregate{{"count", ""}, {"sum", "v"}}
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		p := New(cfg)
		seen := map[reading]bool{}
		count, sum := map[fleetscore.Key]float64{}, map[fleetscore.Key]float64{}
		keys := 1 + rnd.IntN(3)
		for seq := range 60 {
			m := logged{source: "http", arrived: 11500 * second}
			for range rnd.IntN(100) {
				// times that are alike in their lower 32 bits, which is 71 minutes, differ
				x := reading{fleetscore.Key(fmt.Sprint(rnd.IntN(keys))), 7200*second + 1 + fleetscore.Micros(rnd.IntN(300)) + fleetscore.Micros(rnd.IntN(2))<<32, float64(rnd.IntN(2))}
				m.readings = append(m.readings, x)
			}
			if len(m.readings) == 0 {
				continue
			}
			feed(p, uint64(seq+1), m, func(i int, v Verdict) {
				x := m.readings[i]
				if want := map[bool]Verdict{false: Counted, true: Repeat}[seen[x]]; v != want {
					t.Fatalf("seed %d, message %d: reading %v is %s, want %s", seed, seq, x, v, want)
				}
				if !seen[x] {
					seen[x] = true
					count[x.key]++
					sum[x.key] += x.v
				}
			})
		}
		feed(p, 1000, logged{source: "http", arrived: 30000 * second}, nil)
		rows := p.Close(14400 * second)
		if rows.Len() != len(count) {
			t.Fatalf("seed %d: %d rows, want %d", seed, rows.Len(), len(count))
		}
		for i := range rows.Times {
			if k := rows.Keys[rows.KeyIndex[i]]; rows.Values[0][i] != count[k] || rows.Values[1][i] != sum[k] {
				t.Errorf("seed %d: key %s has %v and %v, want %v and %v", seed, k, rows.Values[0][i], rows.Values[1][i], count[k], sum[k])
			}
		}
		if open, over := p.HeldBytes(); open != 0 || over != 0 {
			t.Errorf("seed %d: %d and %d bytes are held at the end", seed, open, over)
		}
	}
}

// TestKeysComeAndGo: keys that no window has are forgotten, and windows that are open or
// wait to be closed keep their rows and recognise repeats when the others get new numbers.
func TestKeysComeAndGo(t *testing.T) {
	t.Parallel()
	p := New(config)
	var rows []row
	total, most := 0, 0
	for n := range 40 {
		now := fleetscore.Micros(1000+5*n) * second
		m := logged{source: "http", arrived: now}
		for i := range 1000 {
			m.readings = append(m.readings, reading{fleetscore.Key(fmt.Sprint("new ", n, "/", i)), now, float64(n)})
		}
		for i := range 10 {
			m.readings = append(m.readings, reading{fleetscore.Key(fmt.Sprint("old ", i)), now, float64(n)})
		}
		total += len(m.readings)
		for again := range uint64(2) {
			feed(p, uint64(2*n)+again+1, m, func(_ int, v Verdict) {
				if want := []Verdict{Counted, Repeat}[again]; v != want {
					t.Fatalf("a reading is %s, want %s", v, want)
				}
			})
		}
		if w, _ := p.Watermark(); n%3 == 2 {
			rows = append(rows, rowsOf(p.Close(w-5*second))...) // a window that is over stays
			most = max(most, len(p.keys.list))
		}
	}
	feed(p, 1000, logged{source: "http", arrived: 9000 * second}, nil)
	rows = append(rows, rowsOf(p.Close(8000*second))...)
	if len(rows) != total {
		t.Errorf("%d rows, want %d", len(rows), total)
	}
	seen := map[string]bool{}
	for _, r := range rows {
		id := fmt.Sprint(r.key, " ", r.end)
		n := (r.end/second - 1000) / 5
		if seen[id] || r.values[0] != float64(n) || r.values[5] != 1 {
			t.Fatalf("row %v is wrong or there twice", r)
		}
		seen[id] = true
	}
	if most > 4*fewKeys {
		t.Errorf("%d keys are kept", most)
	}
}

// TestParts: the parts of closed windows hold each row once, and no key in two of them.
func TestParts(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 100, 1500, 1 << 20} {
		var want, got []row
		parts := 0
		for _, whole := range []bool{true, false} {
			p := New(config)
			for seq := range uint64(40) {
				now := fleetscore.Micros(1000+seq) * second
				m := logged{source: "http", arrived: now}
				for i := range 300 {
					if seq < 20 || i%100 == 0 { // later windows have few of the keys
						m.readings = append(m.readings, reading{fleetscore.Key(fmt.Sprint(i)), now, float64(seq)})
					}
				}
				feed(p, seq+1, m, func(int, Verdict) {})
			}
			feed(p, 100, logged{source: "http", arrived: 2000 * second}, nil)
			if whole {
				want = rowsOf(p.Close(1030 * second))
				continue
			}
			seq, owner := p.Parts(1030*second, n), map[fleetscore.Key]int{}
			if _, over := p.HeldBytes(); over == 0 || p.OpenWindows() == 0 {
				t.Error("no window is left")
			}
			for rows := range seq {
				parts++
				for _, k := range rows.Keys {
					if owner[k] > 0 {
						t.Errorf("key %s is in the parts %d and %d", k, owner[k], parts)
					}
					owner[k] = parts
				}
				got = append(got, rowsOf(rows)...)
			}
		}
		slices.SortFunc(got, func(a, b row) int { return cmp.Or(cmp.Compare(a.end, b.end), cmp.Compare(a.key, b.key)) })
		if d := gocmp.Diff(want, got, gocmp.AllowUnexported(row{})); d != "" {
			t.Errorf("parts of %d rows (-whole +parts):\n%s", n, d)
		}
		if wantParts := map[int]int{1: 16, 100: 16, 1500: 2, 1 << 20: 1}[n]; parts != wantParts {
			t.Errorf("%d parts of %d rows each, want %d; there are %d rows", parts, n, wantParts, len(want))
		}
	}
}
