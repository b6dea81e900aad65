package aggregator

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
)

// TestWaits: the source that is behind is named; then, when it has caught up, the other.
func TestWaits(t *testing.T) {
	t.Parallel()
	for _, sql := range []string{config.Query.SQL, strings.Replace(config.Query.SQL, "TumblingWindow", "SlidingWindow", 1)} {
		c := config
		c.Query.SQL = sql
		h, b := hubtest.New(1), openDir(t)
		unread, err := New(c, Deps{Hub: h, Catalog: catalog.New(b)})
		if err != nil {
			t.Fatal(err)
		}
		says := func(want string) {
			t.Helper()
			a, err := runConfig(t, c, h, b)
			if err != nil {
				t.Fatal(err)
			}
			if got := a.Status().Partitions[0].Waits; !strings.Contains(got, want) {
				t.Errorf("%s\ngot  %q\nwant %q", sql, got, want)
			}
		}
		if got := unread.Status().Partitions[0].Waits; got != "no message has come since the start" {
			t.Errorf("before the first message: %q", got)
		}
		put(t, h, hub.Stamp{Source: "http", Arrived: 101 * minute}, map[string]fleetscore.Micros{"a": 100 * minute})
		put(t, h, hub.Stamp{Source: "mqtt", Arrived: 101 * minute}, map[string]fleetscore.Micros{"b": 100*minute - 1*second})
		says("rows up to " + (100 * minute).String() + " wait for readings of source mqtt: they have reached " + (100*minute - 1*second).String())
		put(t, h, hub.Stamp{Source: "mqtt", Arrived: 102 * minute}, map[string]fleetscore.Micros{"b": 101*minute + 30*second})
		says("rows up to " + (100 * minute).String() + " wait for readings of source http: they have reached " + (100 * minute).String())
		put(t, h, hub.Stamp{Source: "http", Arrived: 102 * minute}, map[string]fleetscore.Micros{"a": 101*minute + 10*second})
		says("rows up to " + (102 * minute).String() + " wait for readings of source http")
	}
}

// TestReplaced: of two rows with one key and time the later one is there, and the other is
// counted.
func TestReplaced(t *testing.T) {
	t.Parallel()
	c := config
	c.Query.SQL = "SELECT System.Timestamp() AS TS, Device, Value, 1 AS N INTO readings FROM hub TIMESTAMP BY TS"
	h, b := hubtest.New(1), openDir(t)
	for _, v := range []float64{1, 2, 3} {
		r := &fleetscore.Readings{Keys: []fleetscore.Key{"a"}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{100 * minute}, Columns: []fleetscore.ReadingColumn{{Name: "Value", Numbers: []float64{v}}}}
		if _, err := h.Append(context.Background(), 0, hub.Stamp{Source: "http", Arrived: 100 * minute}, r); err != nil {
			t.Fatal(err)
		}
	}
	ticks(t, h, 1, 110*minute)
	a, err := runConfig(t, c, h, b)
	if err != nil {
		t.Fatal(err)
	}
	rows, _ := rowsIn(t, b)
	if got := a.Status().Partitions[0].Replaced; got != 2 || len(rows) != 1 || rows["a "+(100*minute).String()] != "3 1" {
		t.Errorf("%d replaced, rows %v", got, rows)
	}
}

// TestWaitsForPartition: where a query reads all partitions, the one that has no messages is named, and not one whose readings
// have come less far because they weren't taken yet.
func TestWaitsForPartition(t *testing.T) {
	t.Parallel()
	c := config
	c.Query.SQL = "SELECT System.Timestamp() AS TS, 'all' AS Device, SUM(Value) AS Value, COUNT(*) AS N INTO readings FROM hub TIMESTAMP BY TS GROUP BY TumblingWindow(second, 5)"
	h, b, now := hubtest.New(3), openDir(t), 101*minute
	says := func(want string) {
		t.Helper()
		a, err := runDeps(t, c, h, Deps{Catalog: catalog.New(b), Now: func() time.Time { return now.Time() }})
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range a.Status().Partitions {
			if !strings.Contains(p.Waits, want) {
				t.Errorf("partition %d\ngot  %q\nwant %q", i, p.Waits, want)
			}
		}
	}
	for p := range 3 { // the messages of partition 1 are a second later
		for _, at := range []fleetscore.Micros{100 * minute, 101 * minute} {
			if p == 1 {
				at += second
			}
			if _, err := h.Append(t.Context(), p, hub.Stamp{Source: "http", Arrived: at}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	says("rows up to " + (100 * minute).String() + " wait for readings of source http in partition 2: they have reached")
	for _, p := range []int{0, 2} {
		if _, err := h.Append(t.Context(), p, hub.Stamp{Source: "http", Arrived: 110 * minute}, nil); err != nil {
			t.Fatal(err)
		}
	}
	now = 110 * minute
	says(" wait for a message in partition 1, whose last one came at " + (101*minute + second).String())
}

// TestWaitsWithoutTime: where an expression behind TIMESTAMP BY gives readings no time, so that they move nothing, this is said.
func TestWaitsWithoutTime(t *testing.T) {
	t.Parallel()
	c := config
	c.Query.SQL = strings.Replace(config.Query.SQL, "BY TS", "BY CASE WHEN Device = 'a' THEN TS END", 1)
	h, b := hubtest.New(1), openDir(t)
	put(t, h, hub.Stamp{Source: "http", Arrived: 101 * minute}, map[string]fleetscore.Micros{"a": 100 * minute})
	for i, want := range []string{"its last message came at " + (101 * minute).String() + ". While the gateway works, 5s of silence count too", ". Left out since the start: 1 reading without a time by TIMESTAMP BY"} {
		if i == 1 {
			put(t, h, hub.Stamp{Source: "http", Arrived: 102 * minute}, map[string]fleetscore.Micros{"b": 102 * minute})
		}
		a, err := runConfig(t, c, h, b)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Status().Partitions[0].Waits; !strings.Contains(got, want) || i == 0 && strings.Contains(got, "Left out") {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}
