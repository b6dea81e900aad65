package gateway

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
)

// flaky is a hub whose process may end after any append: the append after which nothing
// more is stored is drawn, and whether the caller still gets its answer.
type flaky struct {
	*hubtest.Memory
	mu   sync.Mutex
	left int
	lost bool // the last append is stored, but its answer is an error
}

func (f *flaky) Append(ctx context.Context, partition int, stamp hub.Stamp, readings ...*fleetscore.Readings) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gone := fleetscore.Errorf(fleetscore.Unavailable, "append to hub", "", "the process has ended")
	if f.left == 0 {
		return 0, gone
	}
	f.left--
	seq, err := f.Memory.Append(ctx, partition, stamp, readings...)
	if err == nil && f.left == 0 && f.lost {
		err = gone
	}
	return seq, err
}

// entry is a record of a log with some readings.
type entry struct {
	offset int64
	lines  []string
}

// TestFeedOnce: a log is read by one process after the other, each of which ends after some
// append. In the end each reading of the log is in the hub once, and in the log's order.
func TestFeedOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		random := rand.New(rand.NewPCG(seed, 1))
		partitions := rapid.SampledFrom([]int{1, 2, 3, 16}).Draw(t, "partitions")
		var log []entry
		offset, serial := int64(0), 0
		wide := rapid.Bool().Draw(t, "wide") // many columns, so that a request becomes several messages
		for range rapid.IntRange(1, 40).Draw(t, "records") {
			offset += 1 + random.Int64N(3)/2 // compaction leaves gaps
			e := entry{offset: offset}
			for range random.IntN(4) {
				column := "Value"
				if wide {
					column = fmt.Sprintf("C%d", serial)
				}
				e.lines = append(e.lines, fmt.Sprintf(`{"TS":"2026-11-23T10:00:05Z","Device":%d,"Tag":"1","Serial":%d,%q:1}`, random.IntN(9), serial, column))
				serial++
			}
			log = append(log, e)
		}
		h := hubtest.New(partitions)
		for run := range 60 {
			ends := -1 // the last process isn't ended
			if run < 59 {
				ends = random.IntN(8)
			}
			if readLog(t, &flaky{Memory: h, left: ends, lost: random.IntN(2) == 0}, log, random) {
				break
			}
		}
		seen := make([]int, serial)
		for p := range partitions {
			last := -1
			for _, m := range h.Messages(p) {
				if m.Readings == nil {
					continue
				}
				for _, c := range m.Readings.Columns {
					for _, v := range c.Numbers {
						if c.Name != "Serial" {
							continue
						}
						seen[int(v)]++
						if int(v) <= last {
							t.Fatalf("reading %d comes after %d in partition %d", int(v), last, p)
						}
						last = int(v)
					}
				}
			}
		}
		for i, n := range seen {
			if n != 1 {
				t.Fatalf("reading %d of %d is in the hub %d times", i, serial, n)
			}
		}
	})
}

// readLog is one process; it reports whether it came to the log's end.
func readLog(t *rapid.T, h *flaky, log []entry, random *rand.Rand) bool {
	g, err := New(Config{Hub: testHub}, Deps{Hub: h})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	feeds, err := g.Feeds(ctx, []FeedConfig{{Source: "kafka/readings/0"}})
	if err != nil {
		t.Fatal(err)
	}
	f := feeds[0]
	defer f.Close()
	at := slices.IndexFunc(log, func(e entry) bool { return e.offset >= f.Start().Offset })
	if at < 0 {
		return true
	}
	var pending []*Pending
	for at < len(log) {
		n := min(1+random.IntN(8), len(log)-at)
		var text Lines
		var records []Record
		for _, e := range log[at : at+n] {
			for _, l := range e.lines {
				text.Raw(1, []byte(l))
			}
			records = append(records, Record{e.offset, len(e.lines)})
		}
		p, err := f.Begin(&text, records, log[at+n-1].offset+1, nil)
		if err != nil {
			break
		}
		pending = append(pending, p)
		at += n
	}
	done := at == len(log)
	for _, p := range pending {
		if _, err := p.Wait(); err != nil {
			done = false
		}
	}
	return done
}

// TestFeedTicks: ticks of a feed come only while its user says that it has read all, and
// they carry its position. A feed that was opened anew goes on behind them.
func TestFeedTicks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(2)
		g := start(t, h, Config{})
		open := func() *Feed {
			feeds, err := g.Feeds(t.Context(), []FeedConfig{{Source: "kafka/readings/0", First: Place{Offset: 7}}})
			if err != nil {
				t.Fatal(err)
			}
			return feeds[0]
		}
		ticks := func() (n int) {
			for p := range h.Partitions() {
				for _, m := range h.Messages(p) {
					if m.Tick && m.Source == "kafka/readings/0" {
						n++
						if m.Position != "9" {
							t.Errorf("a tick carries the position %q", m.Position)
						}
					}
				}
			}
			return n
		}
		f := open()
		var text Lines
		text.Raw(1, []byte(`{"TS":"2000-01-01T00:00:05Z","Device":"a","Tag":"1","Value":1}`))
		p, err := f.Begin(&text, []Record{{8, 1}}, 9, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := ticks(); n != 0 {
			t.Errorf("%d ticks of a feed that isn't known to be silent", n)
		}
		began := time.Now().Add(-time.Hour)
		for range 60 {
			f.Caught(began, time.Now())
			time.Sleep(time.Second)
		}
		if n := ticks(); n < 36 || n > 50 {
			t.Errorf("%d ticks in a minute of two partitions", n)
		}
		time.Sleep(time.Hour) // the log is away
		before, back := ticks(), time.Now()
		for time.Since(back) < g.cfg.Hub.IdleAfter.D()*3/4 {
			f.Caught(back, time.Now())
			time.Sleep(100 * time.Millisecond)
		}
		if n := ticks(); n != before {
			t.Errorf("%d ticks at once after the log was away", n-before)
		}
		for range 10 {
			f.Caught(back, time.Now())
			time.Sleep(time.Second)
		}
		if n := ticks(); n == before {
			t.Error("no tick although the log is back and silent")
		}
		f.Close()
		if f = open(); f.Start() != (Place{Offset: 9}) {
			t.Errorf("the feed goes on at %s", f.Start())
		}
		f.Close()
	})
}

// TestPlaces: what isn't a place of ours is refused.
func TestPlaces(t *testing.T) {
	t.Parallel()
	for _, p := range []Place{{}, {Offset: 12}, {12, 3}} {
		if got, err := ParsePlace(p.String()); err != nil || got != p {
			t.Errorf("%v came back as %v, %v", p, got, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1+", "1+0", "1+-2", "01", "1+2+3", " 1"} {
		if p, err := ParsePlace(text); err == nil {
			t.Errorf("%q was read as %v", text, p)
		}
	}
}
