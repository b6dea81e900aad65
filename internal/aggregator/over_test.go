package aggregator

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/query/stream"
	"github.com/fleetscore/fleetscore/internal/query/value"
	"github.com/fleetscore/fleetscore/internal/testkit"
	"github.com/fleetscore/fleetscore/internal/window"
)

// overTwin judges readings by the definition of TIMESTAMP BY … OVER in a server, of one source, by all
// that came before. It shares no code with package window.
type overTwin struct {
	apart, adjust fleetscore.Micros
	line          func(key string, value float64) string // what has a watermark; nil: the key
	heard         []overReading                          // readings by which keys live
	counted       []overReading
	mark          fleetscore.Micros // the watermark of all
	clock         fleetscore.Micros // for how long all partitions have worked
	partitions    []overPartition
}

type overPartition struct {
	bound, last fleetscore.Micros
	ahead       fleetscore.Micros // for how long it has worked beyond the clock
}

func newOverTwin(cfg window.Config, partitions int) *overTwin {
	return &overTwin{apart: fleetscore.Micros(cfg.Apart.Microseconds()), adjust: fleetscore.Micros(cfg.Adjust.Microseconds()), mark: math.MinInt64, partitions: slices.Repeat([]overPartition{{bound: math.MinInt64}}, partitions)}
}

type overReading struct {
	line, key      string
	at, stamp      fleetscore.Micros
	arrived, clock fleetscore.Micros
	value          float64
}

// marks are the watermarks of the keys, and of those that live.
func (w *overTwin) marks() (all, live map[string]fleetscore.Micros) {
	all, live = map[string]fleetscore.Micros{}, map[string]fleetscore.Micros{}
	newest := map[string]fleetscore.Micros{}
	for _, h := range w.heard {
		m := min(h.at, h.arrived) - fleetscore.Micros(disorder.Microseconds())
		if was, ok := all[h.line]; !ok || m > was {
			all[h.line] = m
		}
		newest[h.line] = max(newest[h.line], h.clock)
	}
	for k, m := range all {
		if w.clock-newest[k] <= w.apart {
			live[k] = m
		}
	}
	return all, live
}

func (w *overTwin) take(m hub.Message) {
	p, all := &w.partitions[m.Partition], !slices.ContainsFunc(w.partitions, func(p overPartition) bool { return p.last == 0 })
	if all {
		p.ahead += min(m.Arrived-p.last, fleetscore.Micros(3*idle.Microseconds()))
	}
	p.last = m.Arrived
	tolerance := w.apart
	if m.Tick {
		tolerance = fleetscore.Micros(idle.Microseconds())
	}
	p.bound = max(p.bound, m.Arrived-tolerance)
	w.mark = max(w.mark, slices.MinFunc(w.partitions, func(a, b overPartition) int { return cmp.Compare(a.bound, b.bound) }).bound)
	readings := m.Readings
	if m.Tick {
		readings = &fleetscore.Readings{}
	}
	for i := range readings.Len() {
		r := overReading{key: string(m.Readings.Keys[m.Readings.KeyIndex[i]]), at: m.Readings.Times[i], arrived: m.Arrived, clock: w.clock + p.ahead, value: m.Readings.Columns[0].Numbers[i]}
		if r.line = r.key; w.line != nil {
			r.line = w.line(r.key, r.value)
		}
		if r.stamp = r.at; r.at > m.Arrived+5*minute {
			continue
		}
		if w.adjust > 0 {
			r.at = max(r.at, m.Arrived-w.adjust)
		}
		least := max(w.mark, m.Arrived-w.apart)
		if r.at >= m.Arrived-w.apart {
			all, _ := w.marks()
			if own, ok := all[r.line]; ok {
				least = max(least, own)
			}
			w.heard = append(w.heard, r)
		}
		if r.stamp = r.at; w.adjust > 0 {
			r.stamp = max(r.at, least)
		}
		if r.stamp >= least {
			w.counted = append(w.counted, r)
		}
	}
	if all { // the clock goes on by what all have worked
		on := slices.MinFunc(w.partitions, func(a, b overPartition) int { return cmp.Compare(a.ahead, b.ahead) }).ahead
		w.clock += on
		for i := range w.partitions {
			w.partitions[i].ahead = min(w.partitions[i].ahead-on, fleetscore.Micros(3*idle.Microseconds()))
		}
	}
	_, live := w.marks()
	least := fleetscore.Micros(math.MaxInt64)
	for _, m := range live {
		least = min(least, m)
	}
	if len(live) > 0 && w.clock >= w.apart { // before that nobody knows which keys there are
		w.mark = max(w.mark, least)
	}
}

// TestOverEqualsTwin: with a watermark for each key, readings count and the partition goes on as
// the definition says, and the rows are those of the readings that count, wherever the server commits
// and is killed.
func TestOverEqualsTwin(t *testing.T) {
	t.Parallel()
	for _, q := range wholeQueries {
		if strings.Contains(q.sql, "JOIN") {
			continue
		}
		t.Run(q.name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				plan := planOf(t, strings.ReplaceAll(q.sql, "TIMESTAMP BY TS", "TIMESTAMP BY TS OVER Device"))
				cfg := gate
				cfg.Apart = time.Duration(rapid.IntRange(3, 20).Draw(t, "apart")) * time.Second
				if rapid.Bool().Draw(t, "adjust") {
					cfg.Adjust = cfg.Apart
				}
				twin := newOverTwin(cfg, 1)
				e := newEvents(plan, cfg)
				var got []string
				log := logOf(t)
				for i, m := range log {
					feedEvents(t, e, m)
					twin.take(m)
					if w, _ := e.Watermark(); w != twin.mark {
						t.Fatalf("after message %d the watermark is %s, want %s", m.Seq, w, twin.mark)
					}
					done, ok := e.Complete(second*fleetscore.Micros(rapid.IntRange(1, 7).Draw(t, "cut")), rapid.Bool().Draw(t, "early"))
					if !ok || done <= e.done || rapid.IntRange(0, 2).Draw(t, "commit") > 0 {
						continue
					}
					got = append(got, listed(e.Close(done))...)
					c, state := e.Checkpoint([]uint64{m.Seq}, done), e.Save([]uint64{m.Seq})
					if rapid.IntRange(0, 3).Draw(t, "lost") == 0 {
						e = newEvents(plan, cfg)
						e.replay([]window.Checkpoint{{Position: m.Seq, Done: done, ReplayFrom: 1, Watermark: beginning}})
						for _, m := range log[:i+1] {
							feedEvents(t, e, m)
						}
						continue
					}
					e = goesOn(t, newEvents(plan, cfg), state, c)
				}
				feedEvents(t, e, hub.Message{Stamp: hub.Stamp{Source: "http", Arrived: 9000 * second}, Seq: 1000, Tick: true})
				got = append(got, listed(e.Close(8000*second))...)
				want := twin.rows(t, plan.General.Plan)
				slices.Sort(got)
				slices.Sort(want)
				if d := gocmp.Diff(want, got); d != "" {
					t.Fatalf("rows (-twin +server):\n%s", d)
				}
			})
		})
	}
}

// groupOver are queries whose groups have watermarks of their own, and readings in several partitions.
var groupOver = []wholeQuery{
	{name: "hopping", sql: "SELECT System.Timestamp() AS TS, " + level + " AS Device, SUM(Value / 3) AS A, COUNT(*) AS B INTO d FROM hub TIMESTAMP BY TS OVER " + level + " GROUP BY " + level + ", HoppingWindow(second, 9, 4)"},
	{name: "session", sql: "SELECT System.Timestamp() AS TS, " + level + " AS Device, FIRST(Value) AS A, LAST(Value) AS B INTO d FROM hub TIMESTAMP BY TS OVER " + level + " GROUP BY " + level + ", SessionWindow(second, 4, 10) OVER (PARTITION BY " + level + ")"},
	{name: "sliding", sql: "SELECT System.Timestamp() AS TS, " + level + " AS Device, COUNT(DISTINCT Device) AS A, AVG(Value) AS B INTO d FROM hub TIMESTAMP BY TS OVER " + level + " GROUP BY " + level + ", SlidingWindow(second, 6)"},
	{name: "steps", sql: "WITH s AS (SELECT " + level + " AS Level, LAG(Value) OVER (PARTITION BY " + level + " LIMIT DURATION(second, 8)) AS Value FROM hub TIMESTAMP BY TS OVER " + level + ") " +
		"SELECT System.Timestamp() AS TS, Level AS Device, SUM(Value) AS A, COUNT(*) AS B INTO d FROM s GROUP BY Level, TumblingWindow(second, 7)"},
}

// TestGroupsOverEqualTwin is TestOverEqualsTwin for groups whose readings lie in two partitions.
func TestGroupsOverEqualTwin(t *testing.T) {
	t.Parallel()
	for _, q := range groupOver {
		t.Run(q.name, func(t *testing.T) {
			t.Parallel()
			silent := 0 // groups that weren't waited for any more
			rapid.Check(t, func(t *rapid.T) {
				plan, cfg := planOf(t, q.sql), gate
				if !plan.General.Merged || !plan.General.Lines {
					t.Fatalf("the plan is %+v", plan.General)
				}
				cfg.Partitions, cfg.Apart = 2, time.Duration(rapid.IntRange(3, 20).Draw(t, "apart"))*time.Second
				if rapid.Bool().Draw(t, "adjust") {
					cfg.Adjust = cfg.Apart
				}
				h := spread(t, logOf(t))
				twin := newOverTwin(cfg, 2)
				twin.line = func(_ string, x float64) string {
					switch {
					case x > 4:
						return "high"
					case x > 1:
						return "low"
					}
					return "NULL"
				}
				e, positions := newEvents(plan, cfg), make([]uint64, 2)
				var got []string
				for _, m := range byArrival(t, h) {
					feedEvents(t, e, m)
					positions[m.Partition] = m.Seq
					twin.take(m)
					if w, _ := e.Watermark(); w != twin.mark {
						t.Fatalf("after message %d of partition %d the watermark is %s, want %s", m.Seq, m.Partition, w, twin.mark)
					}
					if all, live := twin.marks(); len(live) < len(all) {
						silent++
					}
					done, ok := e.Complete(second*fleetscore.Micros(rapid.IntRange(1, 7).Draw(t, "cut")), rapid.Bool().Draw(t, "early"))
					if !ok || done <= e.done || rapid.IntRange(0, 2).Draw(t, "commit") > 0 {
						continue
					}
					got = append(got, listed(e.Close(done))...)
					c, state := e.Checkpoint(positions, done), e.Save(positions)
					e = goesOn(t, newEvents(plan, cfg), state, c)
				}
				got = append(got, listed(e.Close(8000*second))...)
				want := twin.rows(t, plan.General.Plan)
				slices.Sort(got)
				slices.Sort(want)
				if d := gocmp.Diff(want, got); d != "" {
					t.Fatalf("rows (-twin +server):\n%s", d)
				}
			})
			if silent == 0 {
				t.Error("no group was silent for so long that it isn't waited for")
			}
		})
	}
}

// rows runs the query over the readings that count, in the order of their times.
func (w *overTwin) rows(t *rapid.T, plan *stream.Plan) (out []string) {
	slices.SortStableFunc(w.counted, func(a, b overReading) int { return cmp.Or(cmp.Compare(a.stamp, b.stamp), cmp.Compare(a.key, b.key)) })
	shape := value.NewShape([]string{"Device", "TS", "Value"})
	last := map[string]string{}
	runner := plan.NewRunner(nil, func(r stream.Row) error {
		line := fmt.Sprint(r.Stamp, " ", stream.KeyText(r.Record.Get("Device")))
		id := line
		for _, name := range []string{"A", "B"} {
			f, ok := r.Record.Get(name).AsFloat()
			if !ok {
				f = math.NaN()
			}
			line += fmt.Sprint(" ", f)
		}
		last[id] = line // a dataset has one row per key and time
		return nil
	})
	for _, r := range w.counted {
		if err := runner.Push(0, &value.Record{Shape: shape, Values: []value.Value{value.String(r.key), value.Time(r.at), value.Number(r.value)}}, r.stamp); err != nil {
			t.Fatal(err)
		}
	}
	if err := runner.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, line := range last {
		out = append(out, line)
	}
	return out
}

// TestServerVectors plays the events of docs/windows/server-*.ndjson and compares with what is kept beside
// them: each event's verdict, the watermark after it, and the sensor that holds it back.
func TestServerVectors(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(testkit.Root(t), "docs", "windows", "server-*.ndjson"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d vectors: %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(strings.TrimSuffix(file, ".ndjson") + ".expected")
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		var head struct {
			Query      string
			LateWithin fleetscore.Duration `json:"late_within"`
			Disorder   fleetscore.Duration
			IdleAfter  fleetscore.Duration `json:"idle_after"`
		}
		if err := json.Unmarshal([]byte(lines[0]), &head); err != nil {
			t.Fatal(err)
		}
		plans, err := query.Parse(head.Query, []string{"Device"})
		if err != nil {
			t.Fatal(err)
		}
		plans[0].TimestampBy = "TS"
		e := newEvents(plans[0], window.Config{Disorder: head.Disorder.D(), IdleAfter: head.IdleAfter.D(), MaxEarly: maxEarly, GoneAfter: goneAfter, Apart: head.LateWithin.D()})
		var got strings.Builder
		for i, line := range lines[1:] {
			var in struct {
				Arrived time.Time
				Tick    bool
				Device  string
				TS      time.Time
			}
			if err := json.Unmarshal([]byte(line), &in); err != nil {
				t.Fatal(err)
			}
			m, verdict := hub.Message{Stamp: hub.Stamp{Source: "http", Arrived: fleetscore.MicrosOf(in.Arrived)}, Seq: uint64(i + 1), Tick: in.Tick}, "tick"
			stamp := window.Stamp{Seq: m.Seq, Source: m.Source, Arrived: m.Arrived}
			if in.Tick {
				err = e.Tick(stamp)
			} else {
				m.Readings = &fleetscore.Readings{Keys: []fleetscore.Key{fleetscore.Key(in.Device)}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{fleetscore.MicrosOf(in.TS)}}
				err = e.Take(m, stamp, []string{"Device"}, func(_ int, v window.Verdict, _ fleetscore.Micros) { verdict = v.String() })
			}
			if err != nil {
				t.Fatal(err)
			}
			w := e.Mark(0, nil)
			fmt.Fprintf(&got, `{"line":%d,"verdict":%q,"watermark":%q,"holds":%q}`+"\n", i+2, verdict, w.Watermark, w.Key.Key)
		}
		if d := gocmp.Diff(string(want), got.String()); d != "" {
			t.Errorf("%s (-want +got):\n%s", filepath.Base(file), d)
		}
	}
}

// TestOverWaits: the sensor that holds the dataset back is named.
func TestOverWaits(t *testing.T) {
	t.Parallel()
	c := config
	c.Query.SQL = strings.Replace(config.Query.SQL, "TIMESTAMP BY TS", "TIMESTAMP BY TS OVER Device", 1)
	c.Query.LateWithin = fleetscore.Duration(10 * time.Minute)
	h, b := hubtest.New(1), openDir(t)
	for at := 100 * minute; at <= 120*minute; at += 15 * second {
		put(t, h, hubtest.At(at), map[string]fleetscore.Micros{"quick": at})
		put(t, h, hubtest.At(at), map[string]fleetscore.Micros{"slow": at - 4*minute})
	}
	a, err := runConfig(t, c, h, b)
	if err != nil {
		t.Fatal(err)
	}
	s := a.Status().Partitions[0]
	if want := "rows up to " + (116 * minute).String() + " wait for readings of sensor slow: its newest one came at " + (120 * minute).String() + ", and it has reached " + (116 * minute).String(); s.Late != 0 || s.CompleteUntil != 115*minute || !strings.Contains(s.Waits, want) {
		t.Errorf("%+v\nwant %q", s, want)
	}
	rows, _ := rowsIn(t, b)
	if rows["slow "+(115*minute).String()] != "1 1" || rows["quick "+(115*minute).String()] != "1 1" {
		t.Errorf("rows %v", rows)
	}
}

// TestOverCrashAnywhere is TestCrashAnywhere with sensors of which each is late in its own way.
func TestOverCrashAnywhere(t *testing.T) {
	t.Parallel()
	c := config
	c.Query.SQL = strings.Replace(config.Query.SQL, "TIMESTAMP BY TS", "TIMESTAMP BY TS OVER Device", 1)
	c.Query.LateWithin = fleetscore.Duration(2 * time.Minute)
	few := func(t *testing.T, h hub.Hub, _ int) {
		t.Helper()
		for at := 100 * minute; at <= 103*minute; at += 10 * second {
			put(t, h, hubtest.At(at), map[string]fleetscore.Micros{"a": at, "b": at - 50*second})
			put(t, h, hubtest.At(at), map[string]fleetscore.Micros{"c": at - fleetscore.Micros(at/second%7)*10*second})
		}
		tick(t, h, 120*minute)
	}
	if n := crashAnywhere(t, c, 1, few); n < 40 {
		t.Errorf("rows hold only %d readings", n)
	}
}

// TestOverStateLost: when the state was lost, the log is read from its oldest message on, as TestOverEqualsTwin does, because the watermark
// of a sensor depends on all its readings.
func TestOverStateLost(t *testing.T) {
	t.Parallel()
	c := config
	c.Query.SQL = strings.Replace(config.Query.SQL, "TIMESTAMP BY TS", "TIMESTAMP BY TS OVER Device", 1)
	h, b := hubtest.New(1), openDir(t)
	for at := 100 * minute; at <= 300*minute; at += minute {
		put(t, h, hubtest.At(at), map[string]fleetscore.Micros{"a": at})
	}
	if _, err := runConfig(t, c, h, b); err != nil {
		t.Fatal(err)
	}
	loseStates(t, b)
	h.Expire(0, 3)
	var log strings.Builder
	if _, err := runDeps(t, c, h, Deps{Catalog: catalog.New(b), Log: slog.New(slog.NewTextHandler(&log, nil))}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "from=[3]") || strings.Contains(log.String(), "not in the hub any more") {
		t.Errorf("%s", log.String())
	}
}

// TestOverMemory: while a sensor holds the dataset back, the readings of others that were handed on need no memory any more.
func TestOverMemory(t *testing.T) {
	t.Parallel()
	cfg := gate
	cfg.Apart = time.Hour
	e := newEvents(planOf(t, strings.Replace(config.Query.SQL, "TIMESTAMP BY TS", "TIMESTAMP BY TS OVER Device", 1)), cfg)
	send := func(seq int, key fleetscore.Key, arrived, at fleetscore.Micros) {
		r := &fleetscore.Readings{Keys: []fleetscore.Key{key}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{at}, Columns: []fleetscore.ReadingColumn{{Name: "Value", Numbers: []float64{1}}}}
		feedEvents(t, e, hub.Message{Stamp: hub.Stamp{Source: "http", Arrived: arrived}, Seq: uint64(seq), Readings: r})
	}
	send(1, "slow", 100*minute, 50*minute)
	for i := range 1000 {
		at := 100*minute + fleetscore.Micros(i)*second
		send(i+2, "quick", at, at)
	}
	if n := len(e.lanes.due); n > 2 {
		t.Errorf("two sensors have %d times at which there is something to do", n)
	}
	if n := len(e.lanes.waiting()); n > 10 {
		t.Errorf("%d readings wait", n)
	}
}

// TestOverRowsAhead: rows that wait for a sensor which is further behind count as memory of the query; they aren't taken for rows
// that can be committed, and when they need too much, the query stops and says which sensor they wait for.
func TestOverRowsAhead(t *testing.T) {
	t.Parallel()
	c := config
	c.Query.SQL = strings.Replace(config.Query.SQL, "TIMESTAMP BY TS", "TIMESTAMP BY TS OVER Device", 1)
	c.Query.LateWithin = fleetscore.Duration(10 * time.Minute)
	h := hubtest.New(1)
	for at := 100 * minute; at <= 120*minute; at += 5 * second {
		quick := map[string]fleetscore.Micros{}
		for k := range 10 + 20*int(at/(115*minute)) { // more of them after a quarter of an hour
			quick[fmt.Sprint("quick", k)] = at
		}
		put(t, h, hubtest.At(at), quick)
		put(t, h, hubtest.At(at), map[string]fleetscore.Micros{"slow": at - 8*minute})
	}
	c.MaxHeldBytes = 700_000 // of which an eighth is less than the rows need
	b := openDir(t)
	a, err := runConfig(t, c, h, b)
	if err != nil {
		t.Fatal(err)
	}
	s := a.Status().Partitions[0]
	if s.RowsAhead < 2000 || s.RowsAhead > 2200 || s.HeldBytes < 90*int64(s.RowsAhead) || s.HeldBytes > c.MaxHeldBytes {
		t.Errorf("%d rows wait, and %d bytes are used; thirty sensors have twelve rows a minute each, of eight minutes or five", s.RowsAhead, s.HeldBytes)
	}
	if _, snap := rowsIn(t, b); snap.Version > 25 {
		t.Errorf("%d commits for 12 cuts", snap.Version)
	}
	for bytes, want := range map[int64]string{200_000: "sensor slow, which is further behind", 100_000: "sensors that are further behind"} { // the second before it is known which sensors there are
		c.MaxHeldBytes = bytes
		if _, err = runConfig(t, c, h, openDir(t)); err == nil || !strings.Contains(err.Error(), "rows of partition 0 wait for "+want) {
			t.Errorf("with %d bytes: %v", bytes, err)
		}
	}
}
