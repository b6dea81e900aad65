package aggregator

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator/reference"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/stream"
	"github.com/fleetscore/fleetscore/internal/query/value"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/window"
)

const disorder = 3 * time.Second

// wholeQuery is a query over Value; all have rows with the same columns.
type wholeQuery struct {
	name, sql string
	lab       string // what stands behind ON in the laboratory besides, which has the rows of all versions
}

var wholeQueries = []wholeQuery{
	{name: "tumbling", sql: "SELECT System.Timestamp() AS TS, Device, SUM(Value) AS A, COUNT(*) AS B INTO d FROM hub TIMESTAMP BY TS GROUP BY Device, TumblingWindow(second, 7, 2)"},
	{name: "hopping", sql: "SELECT System.Timestamp() AS TS, Device, PERCENTILE_CONT(0.3) OVER (ORDER BY Value) AS A, COUNT(DISTINCT Value) AS B INTO d FROM hub TIMESTAMP BY TS WHERE Value > 2 GROUP BY Device, HoppingWindow(second, 9, 4)"},
	{name: "sliding", sql: "SELECT System.Timestamp() AS TS, Device, STDEV(Value) AS A, TopOne(Value) OVER (ORDER BY Value DESC) AS B INTO d FROM hub TIMESTAMP BY TS GROUP BY Device, SlidingWindow(second, 6) HAVING COUNT(*) > 1"},
	{name: "session", sql: "SELECT System.Timestamp() AS TS, Device, FIRST(Value) AS A, LAST(Value) AS B INTO d FROM hub TIMESTAMP BY TS GROUP BY Device, SessionWindow(second, 4, 3600) OVER (PARTITION BY Device)"},
	{name: "cut session", sql: "SELECT System.Timestamp() AS TS, Device, MIN(Value) AS A, AVG(Value) AS B INTO d FROM hub TIMESTAMP BY TS GROUP BY Device, SessionWindow(second, 4, 10) OVER (PARTITION BY Device)"},
	{name: "snapshot", sql: "SELECT System.Timestamp() AS TS, Device, MAX(Value) AS A, VAR(Value) AS B INTO d FROM hub TIMESTAMP BY TS GROUP BY Device, System.Timestamp()"},
	{name: "look back", sql: "SELECT System.Timestamp() AS TS, Device, LAG(Value) OVER (PARTITION BY Device LIMIT DURATION(second, 8)) AS A, AVG(Value) OVER (PARTITION BY Device LIMIT DURATION(second, 5)) AS B INTO d FROM hub TIMESTAMP BY TS"},
	{name: "is first", sql: "SELECT System.Timestamp() AS TS, Device, ISFIRST(second, 5) OVER (PARTITION BY Device) AS A, Value AS B INTO d FROM hub TIMESTAMP BY TS"},
	{name: "several windows", sql: `WITH w AS (SELECT Device, System.Window().Id AS Id, COUNT(*) AS N, CollectTop(2, Value) OVER (ORDER BY Value) AS T FROM hub TIMESTAMP BY TS
		GROUP BY Device, Windows(Window('a', TumblingWindow(second, 5)), Window('b', SlidingWindow(second, 3))))
		SELECT System.Timestamp() AS TS, Device, N AS A, CAST(GetArrayLength(T) AS float) AS B INTO d FROM w WHERE Id = 'b'`},
	{name: "steps", sql: `WITH low AS (SELECT Device, MIN(Value) AS Value, Collect(Value) AS C FROM hub TIMESTAMP BY TS GROUP BY Device, TumblingWindow(second, 3)), high AS (SELECT * FROM low WHERE Value > 1)
		SELECT System.Timestamp() AS TS, Device, SUM(Value) AS A, MAX(GetArrayLength(C)) AS B INTO d FROM high GROUP BY Device, SlidingWindow(second, 7)`},
	{name: "join", sql: "SELECT System.Timestamp() AS TS, hub.Device, hub.Value * limits.Factor AS A, limits.N AS B INTO d FROM hub TIMESTAMP BY TS JOIN limits ON limits.Device = hub.Device",
		lab: " AND hub.TS >= limits.Since AND hub.TS < limits.Until"},
	{name: "left join", sql: `SELECT System.Timestamp() AS TS, hub.Device, SUM(limits.Factor) AS A, COUNT(*) AS B INTO d FROM hub TIMESTAMP BY TS
		LEFT JOIN limits ON limits.Device = hub.Device AND hub.Value > limits.N GROUP BY hub.Device, SlidingWindow(second, 4)`, lab: " AND hub.TS >= limits.Since AND hub.TS < limits.Until"},
	{name: "union", sql: `SELECT System.Timestamp() AS TS, Device, SUM(Value) AS A, 1 AS B INTO d FROM hub TIMESTAMP BY TS GROUP BY Device, TumblingWindow(second, 5)
		UNION SELECT System.Timestamp() AS TS, Device, Value AS A, 0 AS B FROM hub TIMESTAMP BY TS`},
}

// logOf draws messages of one source, in the order of their arrival. No two readings are
// equal.
func logOf(t *rapid.T) (out []hub.Message) {
	arrived := 1000 * second
	serial := 0.0
	for i := range rapid.IntRange(1, 25).Draw(t, "messages") {
		arrived += fleetscore.Micros(rapid.IntRange(0, 5).Draw(t, "gap")) * second
		m := hub.Message{Stamp: hub.Stamp{Source: "http", Arrived: arrived}, Seq: uint64(i + 1)}
		if rapid.IntRange(0, 9).Draw(t, "tick") == 0 {
			m.Tick = true
			m.Arrived += 2 * second
			arrived = m.Arrived
			out = append(out, m)
			continue
		}
		r := &fleetscore.Readings{Keys: []fleetscore.Key{"a", "b"}, Columns: []fleetscore.ReadingColumn{{Name: "Value"}}}
		for range rapid.IntRange(1, 4).Draw(t, "readings") {
			serial++
			late := rapid.IntRange(-12, 8).Draw(t, "late")
			if rapid.IntRange(0, 30).Draw(t, "early") == 0 {
				late = 400
			}
			r.KeyIndex = append(r.KeyIndex, uint32(rapid.IntRange(0, 1).Draw(t, "key")))
			r.Times = append(r.Times, arrived+fleetscore.Micros(late)*second)
			r.Columns[0].Numbers = append(r.Columns[0].Numbers, float64(rapid.IntRange(0, 6).Draw(t, "value"))+serial/1024)
		}
		m.Readings = r
		out = append(out, m)
	}
	return out
}

const idle = 2 * time.Second

var gate = window.Config{Disorder: disorder, IdleAfter: idle, MaxEarly: maxEarly, GoneAfter: goneAfter}

// fataler is a test, or a try of rapid.
type fataler interface {
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func planOf(t fataler, text string) *query.Plan {
	plans, err := query.Parse(text, []string{"Device"})
	if err != nil {
		t.Fatal(err)
	}
	if plans[0].General == nil {
		t.Fatalf("%s is one of package window", text)
	}
	plans[0].TimestampBy = "TS" // the hub's time column
	return plans[0]
}

// goesOn gives new events the state that others saved at their checkpoints, and saves it again to compare.
func goesOn(t fataler, e *events, state []byte, list []window.Checkpoint) *events {
	if !e.load(state, list) {
		t.Fatal("the state isn't taken")
	}
	var positions []uint64
	for _, c := range list {
		positions = append(positions, c.Position)
	}
	if again := e.save(positions); string(again) != string(state) {
		t.Fatal("a state that was taken is saved in another form")
	}
	return e
}

func feedEvents(t fataler, e *events, m hub.Message) {
	s := window.Stamp{Seq: m.Seq, Source: m.Source, Arrived: m.Arrived}
	if len(e.doneSeq) > 1 {
		s.Partition = m.Partition
	}
	var err error
	if m.Tick {
		err = e.Tick(s)
	} else {
		err = e.Take(m, s, []string{"Device"}, func(int, window.Verdict, fleetscore.Micros) {})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestServerEqualsLaboratory: what a server makes of a log equals what the laboratory
// makes of the same readings, wherever the server commits, is killed, goes on from its
// state, or reads the log again.
func TestServerEqualsLaboratory(t *testing.T) {
	t.Parallel()
	for _, q := range slices.Concat(wholeQueries, groupQueries) {
		t.Run(q.name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				log, text := logOf(t), q.sql
				if q.lab == "" && rapid.Bool().Draw(t, "timed") { // some readings have no time
					text = strings.ReplaceAll(text, "TIMESTAMP BY TS", "TIMESTAMP BY CASE WHEN CAST(Value AS bigint) <> 5 THEN DATEADD(second, 3 - CAST(Value AS bigint), TS) END")
				}
				plan := planOf(t, text)
				gate, policy := gate, stream.Policy{Late: 1000 * time.Hour, Disorder: disorder, Early: maxEarly, Drop: true}
				if q.lab == "" && rapid.Bool().Draw(t, "adjust") { // which version is in force is told to the laboratory by the readings' own times
					gate.Adjust = time.Duration(rapid.IntRange(1, 6).Draw(t, "late within")) * time.Second
					policy.Late, policy.Drop = gate.Adjust, false
				}
				start := func() *events {
					e := newEvents(plan, gate)
					e.join(context.Background(), versions{})
					return e
				}
				e := start()
				var got []string
				for at := 0; at < len(log); at++ {
					feedEvents(t, e, log[at])
					done, ok := e.Complete(second*fleetscore.Micros(rapid.IntRange(1, 7).Draw(t, "cut")), rapid.Bool().Draw(t, "early"))
					if !ok || done <= e.done || rapid.IntRange(0, 2).Draw(t, "commit") > 0 || log[at].Seq <= e.doneSeq[0] {
						continue
					}
					got = append(got, listed(e.Close(done))...)
					c, state := e.Checkpoint([]uint64{log[at].Seq}, done), e.Save([]uint64{log[at].Seq})
					switch rapid.IntRange(0, 2).Draw(t, "then") {
					case 0: // it is killed, and goes on from the state
						e = goesOn(t, start(), state, c)
					case 1: // the query was changed meanwhile
						if plan.General.Plan.Sessions() { // see fromOldest
							c[0] = window.Checkpoint{Position: c[0].Position, Done: done, ReplayFrom: 1, Watermark: beginning}
						}
						e = start()
						e.replay(c)
						at = int(c[0].ReplayFrom) - 2
					}
				}
				end := hub.Message{Stamp: hub.Stamp{Source: "http", Arrived: 9000 * second}, Seq: uint64(len(log) + 1), Tick: true}
				feedEvents(t, e, end)
				got = append(got, listed(e.Close(8000*second))...)
				if d := gocmp.Diff(laboratory(t, strings.Replace(text, "limits.Device = hub.Device", "limits.Device = hub.Device"+q.lab, 1), log, policy), got); d != "" {
					t.Fatalf("rows (-laboratory +server):\n%s", d)
				}
			})
		})
	}
}

// versions is reference data that changes twice.
type versions struct{}

var since = []fleetscore.Micros{0, 1020 * second, 1045 * second}

// Versions implements References.
func (versions) Versions(context.Context, string, fleetscore.Micros) (out []reference.Version, err error) {
	for i, from := range since {
		out = append(out, reference.Version{From: from, Blob: fleetscore.BlobName(fmt.Sprint(i))})
	}
	return out, nil
}

// Rows implements References: device b has none in the second version, and two in the third.
func (versions) Rows(_ context.Context, _ string, v reference.Version) (out []*value.Record, err error) {
	i := slices.Index(since, v.From)
	until := fleetscore.Micros(math.MaxInt64)
	if i+1 < len(since) {
		until = since[i+1]
	}
	shape := value.NewShape([]string{"Device", "Factor", "N", "Since", "Until"})
	for _, device := range [][]string{{"a", "b"}, {"a"}, {"a", "b", "b"}}[i] {
		out = append(out, &value.Record{Shape: shape, Values: []value.Value{value.String(device), value.Number(float64(i+len(out)) / 2), value.Number(float64(i)), value.Time(v.From), value.Time(until)}})
	}
	return out, nil
}

// allVersions are the rows of all versions.
func allVersions() (out []*value.Record) {
	list, _ := versions{}.Versions(context.Background(), "", 0)
	for _, v := range list {
		rows, _ := versions{}.Rows(context.Background(), "", v)
		out = append(out, rows...)
	}
	return out
}

// listed are rows as texts, in their order.
func listed(r *fleetscore.Rows) (out []string) {
	for i := range r.Times {
		line := fmt.Sprint(r.Times[i], " ", r.Keys[r.KeyIndex[i]])
		for _, v := range r.Values {
			line += fmt.Sprint(" ", v[i])
		}
		out = append(out, line)
	}
	return out
}

// laboratory runs the query over the readings as the laboratory does: each gets its time by
// the policy, then all go through the query in the order of time. A tick moves the watermark
// like a reading with its time and arrival would.
func laboratory(t *rapid.T, text string, log []hub.Message, policy stream.Policy) (out []string) {
	script, err := sql.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := stream.Compile(script)
	if err != nil {
		t.Fatal(err)
	}
	var events []event
	clock := stream.NewClock(policy)
	shape := value.NewShape([]string{"Device", "TS", "Value"})
	for _, m := range log {
		if m.Tick {
			clock.Take("", m.Arrived-fleetscore.Micros((idle-disorder).Microseconds()), m.Arrived+second)
			continue
		}
		for i, at := range m.Readings.Times {
			key := string(m.Readings.Keys[m.Readings.KeyIndex[i]])
			row := &value.Record{Shape: shape, Values: []value.Value{value.String(key), value.Time(at), value.Number(m.Readings.Columns[0].Numbers[i])}}
			at, ok := plan.Inputs[0].Stamp(row)
			if !ok {
				continue
			}
			stamp, v := clock.Take("", at, m.Arrived)
			if v.Outcome != stream.Dropped {
				events = append(events, event{stamp, row})
			}
		}
	}
	return inOrder(t, plan, events)
}

// event is a reading with the time at which it counts.
type event struct {
	stamp fleetscore.Micros
	row   *value.Record
}

// inOrder are the rows of a plan, to which the readings come in the order of time and key.
func inOrder(t *rapid.T, plan *stream.Plan, events []event) (out []string) {
	slices.SortStableFunc(events, func(a, b event) int {
		return cmp.Or(cmp.Compare(a.stamp, b.stamp), cmp.Compare(a.row.Get("Device").Text(), b.row.Get("Device").Text()))
	})
	var rows []stream.Row
	r := plan.NewRunner(map[string][]*value.Record{"limits": allVersions()}, func(x stream.Row) error { rows = append(rows, x); return nil })
	for _, e := range events {
		if err := r.Push(0, e.row, e.stamp); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	at := map[string]int{}
	for _, x := range rows {
		key, _ := value.Cast(x.Record.Get("Device"), value.Text)
		line := fmt.Sprint(x.Stamp, " ", cmp.Or(key.Text(), "NULL"))
		id := line
		for _, name := range []string{"A", "B"} {
			f, ok := x.Record.Get(name).AsFloat()
			if !ok {
				f = math.NaN()
			}
			line += fmt.Sprint(" ", f)
		}
		if i, twice := at[id]; twice { // a dataset has one row per key and time: the last one
			out[i] = line
			continue
		}
		at[id] = len(out)
		out = append(out, line)
	}
	return out
}

// TestDamagedState: a state that was cut short, changed or belongs to another query isn't
// taken.
func TestDamagedState(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		q := rapid.SampledFrom(wholeQueries).Draw(t, "query")
		plan := planOf(t, q.sql)
		e := newEvents(plan, gate)
		for _, m := range logOf(t) {
			feedEvents(t, e, m)
		}
		state := e.Save([]uint64{7})
		if newEvents(planOf(t, strings.Replace(q.sql, "Value", "[Value]", 1)), gate).load(state, []window.Checkpoint{{Position: 7}}) {
			t.Fatal("the state of another query was taken")
		}
		at := rapid.IntRange(0, len(state)-1).Draw(t, "at")
		if newEvents(plan, gate).load(state[:at], []window.Checkpoint{{Position: 7}}) {
			t.Fatal("a state that was cut short was taken")
		}
		state[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		if newEvents(plan, gate).load(state, []window.Checkpoint{{Position: 7}}) {
			t.Fatal("a changed state was taken")
		}
	})
}

// FuzzState: bytes that aren't a state are refused, or become one that can be saved, whatever they hold.
func FuzzState(f *testing.F) {
	var plans []*query.Plan
	for i, q := range wholeQueries {
		plan := planOf(f, q.sql)
		plans = append(plans, plan)
		e := newEvents(plan, gate)
		for n := range uint64(6) {
			at := fleetscore.Micros(1000+2*n) * second
			feedEvents(f, e, hub.Message{Stamp: hub.Stamp{Source: "http", Arrived: at}, Seq: n + 1, Readings: &fleetscore.Readings{Keys: []fleetscore.Key{"a", "b"}, KeyIndex: []uint32{0, 1},
				Times: []fleetscore.Micros{at, at - second}, Columns: []fleetscore.ReadingColumn{{Name: "Value", Numbers: []float64{float64(n), 3}}}}})
		}
		state := e.save([]uint64{6})
		if !newEvents(plan, gate).load(bytes.Clone(state), []window.Checkpoint{{Position: 6}}) {
			f.Fatalf("%s: its own state isn't taken", q.name)
		}
		f.Add(byte(i), state[len(stateMagic)+4:])
	}
	f.Fuzz(func(t *testing.T, which byte, body []byte) {
		data := append(bytes.Clone(stateMagic), binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(body))...)
		e := newEvents(plans[int(which)%len(plans)], gate)
		if e.load(append(data, body...), []window.Checkpoint{{Position: 6}}) {
			e.save([]uint64{6})
		}
	})
}

// TestJoinAgain: rows joined with reference data that changed are the same when the log is
// read again from its beginning, with the versions that were kept.
func TestJoinAgain(t *testing.T) {
	t.Parallel()
	joining := config
	joining.Query.SQL = `SELECT System.Timestamp() AS TS, hub.Device, SUM(hub.Value) AS Value, MAX(CAST(limits.Most AS float)) AS N
		INTO readings FROM hub TIMESTAMP BY TS JOIN limits ON limits.Device = hub.Device GROUP BY hub.Device, TumblingWindow(second, 5)`
	files := openDir(t)
	now := fleetscore.Micros(0)
	open := func() *reference.Set {
		s := reference.New(map[string]fleetscore.ReferenceConfig{"limits": {Path: "references/limits.csv"}},
			reference.Deps{Store: files, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now.Time() }})
		if err := s.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		return s
	}
	set := open()
	h, b := hubtest.New(1), openDir(t)
	for i, text := range []string{"Device,Most\nd0-0,1\nd0-1,5\n", "Device,Most\nd0-0,2\n"} {
		if err := store.WriteAll(t.Context(), files, "references/limits.csv", []byte(text), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		now = 100*minute + fleetscore.Micros(i)*10*minute
		if err := set.Refresh(t.Context(), "limits"); err != nil {
			t.Fatal(err)
		}
		fillFrom(t, h, 1, now)
		if _, err := runDeps(t, joining, h, Deps{Catalog: catalog.New(b), References: set}); err != nil {
			t.Fatal(err)
		}
	}
	want, _ := rowsIn(t, b)
	seen := map[string]int{}
	for id, row := range want {
		device, _, _ := strings.Cut(id, " ")
		seen[device+row[strings.Index(row, " "):]]++
	}
	if len(seen) != 3 || seen["d0-0 1"] == 0 || seen["d0-0 2"] == 0 || seen["d0-1 5"] == 0 {
		t.Errorf("rows by device and limit: %v", seen)
	}
	again := openDir(t)
	if _, err := runDeps(t, joining, h, Deps{Catalog: catalog.New(again), References: open()}); err != nil {
		t.Fatal(err)
	}
	got, _ := rowsIn(t, again)
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("rows (-first +again):\n%s", d)
	}
}

// disordered is reference data whose versions are in the wrong order.
type disordered struct{}

func (disordered) Versions(context.Context, string, fleetscore.Micros) ([]reference.Version, error) {
	return []reference.Version{{From: 30 * minute}, {From: 20 * minute}, {From: 10 * minute}}, nil
}

func (disordered) Rows(context.Context, string, reference.Version) ([]*value.Record, error) {
	return nil, nil
}

// TestVersionsInDisorder: reference data whose versions are in the wrong order is an error, and
// nothing that a query goes on with for ever.
func TestVersionsInDisorder(t *testing.T) {
	t.Parallel()
	plans, err := query.Parse(`SELECT System.Timestamp() AS TS, hub.Device, SUM(hub.Value) AS Value
		INTO readings FROM hub TIMESTAMP BY TS JOIN limits ON limits.Device = hub.Device GROUP BY hub.Device, TumblingWindow(second, 5)`, []string{"Device"})
	if err != nil {
		t.Fatal(err)
	}
	e := newEvents(plans[0], window.Config{IdleAfter: time.Second})
	e.join(t.Context(), disordered{})
	if err := e.Tick(window.Stamp{Seq: 1, Source: "http", Arrived: 60 * minute}); !fleetscore.Corrupt.Is(err) || !strings.Contains(err.Error(), "limits") {
		t.Errorf("%v, want an error of kind corrupt that names limits", err)
	}
}
