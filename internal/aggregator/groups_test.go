package aggregator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	"github.com/fleetscore/fleetscore/internal/hub/merged"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/stream"
	"github.com/fleetscore/fleetscore/internal/query/value"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/testkit"
	"github.com/fleetscore/fleetscore/internal/window"
)

const level = "CASE WHEN Value > 4 THEN 'high' WHEN Value > 1 THEN 'low' END"

// groupQueries are those whose groups have readings of several keys.
var groupQueries = []wholeQuery{
	{name: "groups of all", sql: "SELECT System.Timestamp() AS TS, 'all' AS Device, SUM(Value / 3) AS A, COUNT(*) AS B INTO d FROM hub TIMESTAMP BY TS GROUP BY TumblingWindow(second, 7, 2)"},
	{name: "groups, hopping", sql: "SELECT System.Timestamp() AS TS, FLOOR(Value / 2) AS Device, STDEV(Value) AS A, COUNT(DISTINCT Device) AS B INTO d FROM hub TIMESTAMP BY TS WHERE Value > 2 GROUP BY FLOOR(Value / 2), HoppingWindow(second, 9, 4)"},
	{name: "groups, sliding", sql: "SELECT System.Timestamp() AS TS, " + level + " AS Device, AVG(Value) AS A, TopOne(Value) OVER (ORDER BY Value DESC) AS B INTO d FROM hub TIMESTAMP BY TS GROUP BY " + level + ", SlidingWindow(second, 6) HAVING COUNT(*) > 1"},
	{name: "groups, session", sql: "SELECT System.Timestamp() AS TS, " + level + " AS Device, FIRST(Value) AS A, LAST(Value) AS B INTO d FROM hub TIMESTAMP BY TS GROUP BY " + level + ", SessionWindow(second, 4, 10)"},
	{name: "groups, snapshot", sql: "SELECT System.Timestamp() AS TS, " + level + " AS Device, SUM(Value / 7) AS A, LAST(Value) AS B INTO d FROM hub TIMESTAMP BY TS GROUP BY " + level + ", System.Timestamp()"},
	{name: "groups, NULL", sql: "SELECT System.Timestamp() AS TS, " + level + " AS Device, CASE WHEN " + level + " IS NULL THEN 1 ELSE 0 END AS A, COUNT(*) AS B INTO d FROM hub TIMESTAMP BY TS GROUP BY " + level + ", TumblingWindow(second, 7) HAVING " + level + " IS NULL OR " + level + " = 'high'"},
	{name: "groups, numbers", sql: "SELECT System.Timestamp() AS TS, FLOOR(Value * 3) AS Device, FLOOR(Value * 3) + FLOOR(Value * 3) AS A, COUNT(*) AS B INTO d FROM hub TIMESTAMP BY TS GROUP BY FLOOR(Value * 3), SlidingWindow(second, 6) HAVING FLOOR(Value * 3) > 3"},
	{name: "groups, look back", sql: "SELECT System.Timestamp() AS TS, Device, LAG(Value) OVER (LIMIT DURATION(second, 8)) AS A, Value AS B INTO d FROM hub TIMESTAMP BY TS"},
	{name: "groups, steps", sql: `WITH low AS (SELECT Device, MIN(Value) AS Value FROM hub TIMESTAMP BY TS GROUP BY Device, TumblingWindow(second, 3)), rank AS (SELECT FLOOR(Value / 2) AS Class, SUM(Value / 3) AS Value FROM low GROUP BY FLOOR(Value / 2), TumblingWindow(second, 6))
		SELECT System.Timestamp() AS TS, Class AS Device, Value AS A, 1 AS B INTO d FROM rank WHERE Value > 1`},
}

// spread puts the readings of keys a and b into partitions of their own.
func spread(t *rapid.T, log []hub.Message) hub.Hub {
	h := hubtest.New(2)
	add := func(partition int, s hub.Stamp, r *fleetscore.Readings) {
		if _, err := h.Append(context.Background(), partition, s, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range log {
		for p, key := range []fleetscore.Key{"a", "b"} {
			if m.Tick && rapid.IntRange(0, 3).Draw(t, "tick") > 0 {
				add(p, m.Stamp, nil)
			} else if !m.Tick && slices.Contains(keysOf(m.Readings), key) {
				add(p, m.Stamp, only(m.Readings, key))
			}
		}
	}
	for p := range 2 {
		add(p, hub.Stamp{Source: "http", Arrived: 9000 * second}, nil)
		add(p, hub.Stamp{Source: "http", Arrived: 9001 * second}, nil)
	}
	return h
}

func keysOf(r *fleetscore.Readings) (out []fleetscore.Key) {
	for _, k := range r.KeyIndex {
		out = append(out, r.Keys[k])
	}
	return out
}

// byArrival are the messages of all partitions in the order in which a query takes them. It shares no code with
// package merged.
func byArrival(t *rapid.T, h hub.Hub) (out []hub.Message) {
	stats, err := h.Stats(context.Background())
	for p, s := range stats {
		if err == nil {
			err = hub.Range(context.Background(), h, p, 1, s.Last, func(m hub.Message) error { out = append(out, m); return nil })
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(out, func(a, b hub.Message) int { return cmp.Compare(a.Arrived, b.Arrived) })
	return out
}

// counting are the readings of messages that count, by the definition: those that aren't older than the least
// watermark of the partitions. It shares no code with package window.
func counting(messages []hub.Message, partitions int) (out []event) {
	marks := make([]fleetscore.Micros, partitions)
	shape := value.NewShape([]string{"Device", "TS", "Value"})
	for _, m := range messages {
		if m.Tick {
			marks[m.Partition] = max(marks[m.Partition], m.Arrived-2*second)
			continue
		}
		for i, at := range m.Readings.Times {
			if at > m.Arrived+5*minute || at < slices.Min(marks) {
				continue
			}
			marks[m.Partition] = max(marks[m.Partition], min(at, m.Arrived)-3*second)
			key := string(m.Readings.Keys[m.Readings.KeyIndex[i]])
			out = append(out, event{at, &value.Record{Shape: shape, Values: []value.Value{value.String(key), value.Time(at), value.Number(m.Readings.Columns[0].Numbers[i])}}})
		}
	}
	return out
}

// TestGroupsOfPartitions: what a server makes of several partitions equals what the laboratory makes of the readings
// that count, wherever the server commits, is killed, and goes on from its state or reads the log again.
func TestGroupsOfPartitions(t *testing.T) {
	t.Parallel()
	for _, q := range groupQueries {
		t.Run(q.name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				plan := planOf(t, q.sql)
				if !plan.General.Merged {
					t.Fatal("it doesn't need several partitions")
				}
				h := spread(t, logOf(t))
				order := byArrival(t, h)
				cfg := gate
				cfg.Partitions = 2
				e := newEvents(plan, cfg)
				positions := make([]uint64, 2)
				var got []string
				take := func(m hub.Message) error {
					want := order[positions[0]+positions[1]]
					if m.Partition != want.Partition || m.Seq != want.Seq {
						t.Fatalf("after %v came message %d of partition %d, want %d of %d", positions, m.Seq, m.Partition, want.Seq, want.Partition)
					}
					positions[m.Partition] = m.Seq
					feedEvents(t, e, m)
					done, ok := e.Complete(second*fleetscore.Micros(rapid.IntRange(1, 7).Draw(t, "cut")), rapid.Bool().Draw(t, "early"))
					if !ok || done <= e.done || rapid.IntRange(0, 2).Draw(t, "commit") > 0 || positions[0] < e.doneSeq[0] || positions[1] < e.doneSeq[1] {
						return nil
					}
					got = append(got, listed(e.Close(done))...)
					c, state := e.Checkpoint(positions, done), e.Save(positions)
					switch rapid.IntRange(0, 2).Draw(t, "then") {
					case 0: // it is killed, and goes on from the state
						e = goesOn(t, newEvents(plan, cfg), state, c)
						return errAgain
					case 1: // the state is lost
						e = newEvents(plan, cfg)
						e.replay([]window.Checkpoint{{Position: c[0].Position, Done: done, ReplayFrom: 1}, {Position: c[1].Position, Done: done, ReplayFrom: 1}})
						clear(positions)
						return errAgain
					}
					return nil
				}
				stats, err := h.Stats(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				for err = errAgain; errors.Is(err, errAgain); {
					err = merged.Range(context.Background(), h, []uint64{positions[0] + 1, positions[1] + 1}, []uint64{stats[0].Last, stats[1].Last}, take)
				}
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, listed(e.Close(8000*second))...)
				script, err := sql.Parse(q.sql)
				if err != nil {
					t.Fatal(err)
				}
				lab, err := stream.Compile(script)
				if err != nil {
					t.Fatal(err)
				}
				if d := gocmp.Diff(inOrder(t, lab, counting(order, 2)), got); d != "" {
					t.Fatalf("rows (-laboratory +server):\n%s", d)
				}
			})
		})
	}
}

// TestCrashInGroups is TestCrashAnywhere for a query that reads three partitions as one log.
func TestCrashInGroups(t *testing.T) {
	t.Parallel()
	c := config
	c.Query.SQL = `SELECT System.Timestamp() AS TS, RIGHT(Device, 1) AS Kind, SUM(Value) AS Value, COUNT(*) AS N
		INTO readings FROM hub TIMESTAMP BY TS WHERE Value > -100 GROUP BY RIGHT(Device, 1), SessionWindow(second, 2, 30)`
	got := crashAnywhere(t, c, 3, func(t *testing.T, h hub.Hub, partitions int) {
		fill(t, h, partitions)
		tickAll(t, h, 200*minute) // the last message of a partition waits for others
	})
	if got < 500 {
		t.Errorf("only %d readings are in sessions", got)
	}
}

// tickAll appends a tick to each partition.
func tickAll(t *testing.T, h hub.Hub, arrived fleetscore.Micros) {
	t.Helper()
	for p := range h.Partitions() {
		if _, err := h.Append(t.Context(), p, hub.Stamp{Source: "http", Arrived: arrived}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCrashInGroupsOver is TestCrashInGroups where each group has a watermark of its own, and the time of a reading is computed.
func TestCrashInGroupsOver(t *testing.T) {
	t.Parallel()
	c := config
	c.Query.LateWithin = fleetscore.Duration(3 * time.Minute)
	c.Query.SQL = `SELECT System.Timestamp() AS TS, RIGHT(Device, 1) AS Kind, SUM(Value) AS Value, COUNT(*) AS N
		INTO readings FROM hub TIMESTAMP BY DATEADD(second, 0 - CAST(RIGHT(Device, 1) AS bigint), TS) OVER RIGHT(Device, 1) GROUP BY RIGHT(Device, 1), SessionWindow(second, 2, 30) OVER (PARTITION BY RIGHT(Device, 1))`
	got := crashAnywhere(t, c, 3, func(t *testing.T, h hub.Hub, partitions int) {
		for i := range fleetscore.Micros(90) { // each kind has its devices in all partitions, and a kind is up to two minutes behind
			at := 100*minute + i*2*second
			for p := range partitions {
				r := &fleetscore.Readings{Columns: []fleetscore.ReadingColumn{{Name: "Value"}}}
				for kind := range fleetscore.Micros(3) {
					if (int(i)+p+int(kind))%4 == 0 {
						continue
					}
					r.KeyIndex = append(r.KeyIndex, uint32(len(r.Keys)))
					r.Keys = append(r.Keys, fleetscore.Key(fmt.Sprintf("d%d%d", p, kind)))
					r.Times, r.Columns[0].Numbers = append(r.Times, at-kind*minute), append(r.Columns[0].Numbers, float64(i))
				}
				if _, err := h.Append(t.Context(), p, hub.Stamp{Source: "http", Arrived: at}, r); err != nil {
					t.Fatal(err)
				}
			}
		}
		tickAll(t, h, 200*minute)
		tickAll(t, h, 201*minute)
	})
	if got < 500 {
		t.Errorf("only %d readings are in sessions", got)
	}
}

// TestSameTime: readings whose times differ are no repeats of each other, also if what a query makes of the times is equal.
func TestSameTime(t *testing.T) {
	t.Parallel()
	c := config
	c.Query.SQL = "SELECT System.Timestamp() AS TS, Device, SUM(Value) AS Value, COUNT(*) AS N INTO readings FROM hub TIMESTAMP BY CASE WHEN Value = 1 THEN CAST('1970-01-01T01:40:00Z' AS datetime) END GROUP BY Device, TumblingWindow(second, 5)"
	h, b := hubtest.New(1), openDir(t)
	begin(t, h)
	at := 100 * minute
	send(t, h, sent{"a", at, at, 1}, sent{"a", at + second, at + second, 1}, sent{"a", at + second, at + second, 1}, sent{"a", at + second, at + second, 2})
	ticks(t, h, 1, 130*minute)
	a, err := runConfig(t, c, h, b)
	if err != nil {
		t.Fatal(err)
	}
	rows, _ := rowsIn(t, b)
	if s := a.Status().Partitions[0]; rows["a "+at.String()] != "2 2" || s.Counted != 2 || s.Repeats != 1 || s.Filtered != 1 {
		t.Errorf("rows %v, status %+v; two readings count, one is a repeat, and one has no time", rows, s)
	}
}

// TestGroupsRevised: rows of groups that have readings of several partitions are those of a run to which all readings came in
// time, wherever the process ended and began again.
func TestGroupsRevised(t *testing.T) {
	t.Parallel()
	var all, inTime []sent
	for _, s := range someSent(21) {
		if s.arrived < s.time+9*minute { // the others may come too late
			all = append(all, s)
			s.arrived = s.time
			inTime = append(inTime, s)
		}
	}
	for _, list := range [][]sent{all, inTime} {
		slices.SortStableFunc(list, func(a, b sent) int { return cmp.Compare(a.arrived, b.arrived) })
	}
	c := revising(`SELECT System.Timestamp() AS TS, CASE WHEN Value > 50 THEN 'high' ELSE 'low' END AS Device, SUM(Value) AS Value, COUNT(*) AS N
		INTO readings FROM hub TIMESTAMP BY TS GROUP BY CASE WHEN Value > 50 THEN 'high' ELSE 'low' END, SessionWindow(second, 7, 45)`)
	undisturbed, disturbed := openDir(t), openDir(t)
	h := hubtest.New(3)
	tick := func(at fleetscore.Micros) {
		for p := range 3 {
			if _, err := h.Append(t.Context(), p, hub.Stamp{Source: "http", Arrived: at}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	put := func(list []sent) { // with a tick of the other partitions beside each reading
		for _, s := range list {
			r := &fleetscore.Readings{Keys: []fleetscore.Key{s.key}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{s.time}, Columns: []fleetscore.ReadingColumn{{Name: "Value", Numbers: []float64{s.value}}}}
			for p := range 3 {
				r := r
				if p != int(s.key[1]-'0')%3 {
					r = nil
				}
				if _, err := h.Append(t.Context(), p, hub.Stamp{Source: "http", Arrived: s.arrived}, r); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	tick(60 * minute)
	put(inTime)
	tick(300 * minute)
	tick(301 * minute)
	if _, err := runConfig(t, c, h, undisturbed); err != nil {
		t.Fatal(err)
	}
	want, _ := rowsIn(t, undisturbed)
	h = hubtest.New(3)
	tick(60 * minute)
	var revised int64
	for n := len(all) / 5; len(all) > 0; all = all[min(n, len(all)):] {
		put(all[:min(n, len(all))])
		if len(all) <= n {
			tick(300 * minute)
			tick(301 * minute)
		}
		a, err := runConfig(t, c, h, disturbed)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range a.Status().Partitions {
			revised += s.Revised
		}
	}
	got, _ := rowsIn(t, disturbed)
	if d := gocmp.Diff(want, got); d != "" || revised < 20 || len(want) == 0 {
		t.Errorf("%d readings revised, rows (-undisturbed +revised):\n%s", revised, d)
	}
}

// TestDocumentedGroups runs the queries by other columns in docs/query.md over readings in two partitions.
func TestDocumentedGroups(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(testkit.Root(t), "docs", "query.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "### Groups of other columns\n")
	h := hubtest.New(2)
	for i, room := range []string{"north", "north", "", "south", "north"} {
		r := &fleetscore.Readings{Keys: []fleetscore.Key{fleetscore.Key(fmt.Sprintf("d%d\x1ft", i))}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{100*minute + second},
			Columns: []fleetscore.ReadingColumn{{Name: "Value", Numbers: []float64{float64(10 * i)}}, {Name: "Room", Strings: []string{room}, Present: []bool{room != ""}}}}
		if _, err := h.Append(t.Context(), i%2, hub.Stamp{Source: "http", Arrived: 100*minute + 2*second}, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []fleetscore.Micros{110 * minute, 111 * minute} {
		for p := range 2 {
			if _, err := h.Append(t.Context(), p, hub.Stamp{Source: "http", Arrived: at}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	stamp := (101 * minute).String()
	for _, want := range [][]string{
		{stamp + " NULL/normal 1 20", stamp + " north/hot 1 40", stamp + " north/normal 2 5", stamp + " south/normal 1 30"},
		{(100*minute + 10*second).String() + " all 5"},
	} {
		_, rest, _ := strings.Cut(section, "```sql\n")
		sql, after, _ := strings.Cut(rest, "```")
		section = after
		c, b := config, openDir(t)
		c.Query.SQL, c.Hub.Key = sql, []string{"Device", "Tag"}
		if _, err := runConfig(t, c, h, b); err != nil {
			t.Fatal(err)
		}
		plans, err := query.Parse(sql, c.Hub.Key)
		if err != nil {
			t.Fatal(err)
		}
		d := catalog.New(b).Dataset(plans[0].Into)
		snap, err := d.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rows, err := d.ReadRows(t.Context(), snap.Files, table.ReadQuery{})
		if err != nil {
			t.Fatal(err)
		}
		got := listed(rows)
		for i := range got {
			got[i] = strings.ReplaceAll(got[i], fleetscore.KeySeparator, "/")
		}
		slices.Sort(got)
		if d := gocmp.Diff(want, got); d != "" {
			t.Errorf("%s rows (-want +got):\n%s", sql, d)
		}
	}
}

// TestGroupsRevisedAfterReplay: after the state was lost, a late reading makes rows to be computed again from a state that is as old as
// late readings may be, and not from the beginning of the log, whose readings together need too much memory.
func TestGroupsRevisedAfterReplay(t *testing.T) {
	t.Parallel()
	c := revising(`SELECT System.Timestamp() AS TS, 'all' AS Device, SUM(Value) AS Value, COUNT(*) AS N INTO readings FROM hub TIMESTAMP BY TS GROUP BY TumblingWindow(second, 5)`)
	c.Query.LateWithin, c.MaxHeldBytes = fleetscore.Duration(time.Minute), 300_000
	h, b := hubtest.New(2), openDir(t)
	other := func(at fleetscore.Micros) {
		if _, err := h.Append(t.Context(), 1, hub.Stamp{Source: "http", Arrived: at}, nil); err != nil {
			t.Fatal(err)
		}
	}
	begin(t, h)
	at := 100 * minute
	for i := range 2000 {
		at += second
		send(t, h, sent{"d0", at, at, float64(i)})
		other(at)
	}
	if _, err := runConfig(t, c, h, b); err != nil {
		t.Fatal(err)
	}
	for info, err := range b.List(t.Context(), "data/readings/_state/", store.ListOptions{}) {
		if err != nil || b.Delete(t.Context(), info.Name) != nil {
			t.Fatal(info, err)
		}
	}
	send(t, h, sent{"d1", at - 12*second, at, 1})
	other(at)
	for _, late := range []fleetscore.Micros{10 * minute, 11 * minute} {
		tick(t, h, at+late)
		other(at + late)
	}
	a, err := runConfig(t, c, h, b)
	if err != nil || a.Status().Partitions[0].Revised != 1 {
		t.Fatal(err, a.Status())
	}
	rows, _ := rowsIn(t, b)
	n := 0
	for _, r := range rows {
		var sum, count int
		if _, err := fmt.Sscan(r, &sum, &count); err != nil {
			t.Fatal(err)
		}
		n += count
	}
	if n != 2001 {
		t.Errorf("%d readings are in rows, want 2001", n)
	}
}

// TestEditToAllPartitions: a query that had a worker for each partition, of which one was further than the other, and is edited so that one
// worker reads all of them, makes the rows that the partition which was behind hasn't made.
func TestEditToAllPartitions(t *testing.T) {
	t.Parallel()
	h, b := hubtest.New(2), openDir(t)
	add := func(partition int, at fleetscore.Micros, value float64) {
		r := &fleetscore.Readings{Keys: []fleetscore.Key{fleetscore.Key(fmt.Sprint("d", partition))}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{at}, Columns: []fleetscore.ReadingColumn{{Name: "Value", Numbers: []float64{value}}}}
		if value < 0 {
			r = nil
		}
		if _, err := h.Append(t.Context(), partition, hub.Stamp{Source: "http", Arrived: at}, r); err != nil {
			t.Fatal(err)
		}
	}
	add(0, 60*minute, -1)
	add(1, 60*minute, -1)
	for i := range fleetscore.Micros(60) {
		add(0, 100*minute+i*10*second, float64(i))
	}
	for i := range fleetscore.Micros(20) {
		add(1, 100*minute+i*10*second, float64(i))
	}
	c := config
	c.Query.SQL = "SELECT System.Timestamp() AS TS, Device, MIN(Value) AS Value, COUNT(*) AS N INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, TumblingWindow(second, 5)"
	if _, err := runConfig(t, c, h, b); err != nil {
		t.Fatal(err)
	}
	for i := fleetscore.Micros(20); i < 60; i++ {
		add(1, 100*minute+i*10*second, float64(i))
	}
	add(0, 130*minute, -1)
	add(1, 130*minute, -1)
	add(0, 131*minute, -1)
	add(1, 131*minute, -1)
	c.Query.SQL = "SELECT System.Timestamp() AS TS, Device, Value AS Value, LAG(Value) OVER (LIMIT DURATION(second, 8)) AS N INTO readings FROM hub TIMESTAMP BY TS"
	if _, err := runConfig(t, c, h, b); err != nil {
		t.Fatal(err)
	}
	rows, _ := rowsIn(t, b)
	of := map[string]int{}
	for id := range rows {
		of[id[:2]]++
	}
	if of["d0"] != 60 || of["d1"] != 60 {
		t.Errorf("%d and %d rows of 60 readings each", of["d0"], of["d1"])
	}
}

// TestStatesOfEdits: where an edit changes how partitions are read, the states that were written before it are deleted with the first commits
// after it, also those that a process which was killed has left.
func TestStatesOfEdits(t *testing.T) {
	t.Parallel()
	h, b := hubtest.New(2), openDir(t)
	c, from := config, "INTO readings FROM hub TIMESTAMP BY TS"
	at := 100 * minute
	for i, step := range []struct {
		sql  string
		want string
	}{
		{"SELECT System.Timestamp() AS TS, Device, MIN(Value) AS Value, COUNT(*) AS N " + from + " GROUP BY Device, TumblingWindow(second, 5)", ""},
		{"SELECT System.Timestamp() AS TS, Device, MIN(Value) AS Value, COUNT(*) AS N " + from + " GROUP BY Device, SlidingWindow(second, 5)", "p000 p001"},
		{"SELECT System.Timestamp() AS TS, Device, Value, LAG(Value) OVER (LIMIT DURATION(second, 8)) AS N " + from, "all"},
		{"SELECT System.Timestamp() AS TS, Device, MAX(Value) AS Value, COUNT(*) AS N " + from + " GROUP BY Device, SlidingWindow(second, 5)", "p000 p001"},
		{"SELECT System.Timestamp() AS TS, Device, AVG(Value) AS Value, COUNT(*) AS N " + from + " GROUP BY Device, SessionWindow(second, 5, 50)", "all"},
		{"SELECT System.Timestamp() AS TS, Device, MAX(Value) AS Value, COUNT(*) AS N " + from + " GROUP BY Device, TumblingWindow(second, 5)", ""},
	} {
		for range 3 {
			at += 10 * minute
			for p := range 2 {
				r := &fleetscore.Readings{Keys: []fleetscore.Key{fleetscore.Key(fmt.Sprint("d", p))}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{at}, Columns: []fleetscore.ReadingColumn{{Name: "Value", Numbers: []float64{1}}}}
				for i, r := range []*fleetscore.Readings{r, nil} {
					if _, err := h.Append(t.Context(), p, hub.Stamp{Source: "http", Arrived: at + fleetscore.Micros(i)*second}, r); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		left := catalog.QueryState("readings", []string{"all", "p001"}[i%2], int64(i)) // by a process that was killed
		if err := store.WriteAll(t.Context(), b, left, []byte("x"), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		c.Query.SQL = step.sql
		if _, err := runConfig(t, c, h, b); err != nil {
			t.Fatal(err)
		}
		var got []string
		for info, err := range b.List(t.Context(), catalog.QueryStateFolder("readings"), store.ListOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			pass, _, _ := strings.Cut(filepath.Base(string(info.Name)), "-")
			got = append(got, pass)
		}
		if got := strings.Join(got, " "); got != step.want {
			t.Errorf("after edit %d there are the states %q, want %q", i, got, step.want)
		}
	}
}

// TestGroupsStateLostAfterRetention: where the state is lost, all that the hub has is read again; messages that it removed long ago, whose rows
// are there, aren't missed; those that open windows need are.
func TestGroupsStateLostAfterRetention(t *testing.T) {
	t.Parallel()
	c := config
	c.Query.SQL = "SELECT System.Timestamp() AS TS, 'all' AS Device, SUM(Value) AS Value, COUNT(*) AS N INTO readings FROM hub TIMESTAMP BY TS GROUP BY TumblingWindow(second, 5)"
	h, b := hubtest.New(2), openDir(t)
	add := func(from, to fleetscore.Micros) {
		for at := from; at < to; at += 10 * second {
			for p := range 2 {
				r := &fleetscore.Readings{Keys: []fleetscore.Key{fleetscore.Key(fmt.Sprint("d", p))}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{at}, Columns: []fleetscore.ReadingColumn{{Name: "Value", Numbers: []float64{1}}}}
				if _, err := h.Append(t.Context(), p, hub.Stamp{Source: "http", Arrived: at}, r); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	add(100*minute, 110*minute)
	if _, err := runConfig(t, c, h, b); err != nil {
		t.Fatal(err)
	}
	loseStates(t, b)
	for p := range 2 {
		h.Expire(p, 10)
	}
	add(110*minute, 120*minute)
	a, err := runConfig(t, c, h, b)
	if err != nil {
		t.Fatal(err)
	}
	if s := a.Status().Partitions; s[0].HeldBytes == 0 || s[1].HeldBytes != 0 {
		t.Errorf("what is held is told twice: %+v", s)
	}
	for i, p := range a.Status().Partitions {
		if p.Gone != 0 || p.Note != "" {
			t.Errorf("partition %d: %d messages are missed: %s", i, p.Gone, p.Note)
		}
	}
	rows, _ := rowsIn(t, b)
	for at := 100 * minute; at < 119*minute; at += 10 * second {
		if got := rows["all "+at.String()]; got != "2 2" {
			t.Errorf("row of %s: %q, want 2 readings", at, got)
		}
	}
	loseStates(t, b)
	for p := range 2 {
		h.Expire(p, 111)
	}
	add(120*minute, 121*minute)
	if a, err = runConfig(t, c, h, b); err != nil {
		t.Fatal(err)
	}
	for i, p := range a.Status().Partitions {
		if p.Gone != 110 || !strings.Contains(p.Note, fmt.Sprintf("messages 1 to 110 of partition %d are not in the hub any more", i)) || !strings.Contains(p.Note, "its state is gone") {
			t.Errorf("partition %d: %d messages are missed: %s", i, p.Gone, p.Note)
		}
	}
}

// TestEditToAllPartitionsRevises is TestEditToAllPartitions with late readings: before the edit, while the log is read again, and after that, in
// the partition that was behind and in the other one. All have rows.
func TestEditToAllPartitionsRevises(t *testing.T) {
	t.Parallel()
	h, b := hubtest.New(2), openDir(t)
	want := map[string]bool{}
	add := func(partition int, at, arrived fleetscore.Micros) {
		key := fmt.Sprint("d", partition)
		r := &fleetscore.Readings{Keys: []fleetscore.Key{fleetscore.Key(key)}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{at}, Columns: []fleetscore.ReadingColumn{{Name: "Value", Numbers: []float64{float64(len(want))}}}}
		if _, err := h.Append(t.Context(), partition, hub.Stamp{Source: "http", Arrived: arrived}, r); err != nil {
			t.Fatal(err)
		}
		want[fmt.Sprint(key, " ", at)] = true
	}
	tick := func(at fleetscore.Micros) {
		for p := range 2 {
			if _, err := h.Append(t.Context(), p, hub.Stamp{Source: "http", Arrived: at}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	second := func(s int) fleetscore.Micros { return 100*minute + fleetscore.Micros(s)*second }
	from := func(partition, first, last int) {
		for s := first; s < last; s += 10 {
			add(partition, second(s), second(s))
			if s%70 == 20 { // nearly half a minute late; none of partition 0 waits for its commit when the query is edited
				add(partition, second(s-25), second(s))
			}
		}
	}
	c := revising("SELECT System.Timestamp() AS TS, Device, MIN(Value) AS Value, COUNT(*) AS N INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, TumblingWindow(second, 5)")
	c.Query.LateWithin = fleetscore.Duration(time.Minute)
	run := func() Status {
		t.Helper()
		a, err := runConfig(t, c, h, b)
		if err != nil {
			t.Fatal(err)
		}
		return a.Status()
	}
	tick(60 * minute)
	from(0, 0, 600)
	from(1, 0, 200)
	run()
	from(1, 200, 600)
	c.Query.SQL = "SELECT System.Timestamp() AS TS, Device, Value AS Value, LAG(Value) OVER (LIMIT DURATION(second, 8)) AS N INTO readings FROM hub TIMESTAMP BY TS"
	from(0, 600, 800)
	from(1, 600, 800)
	tick(second(801))
	tick(second(802))
	run()
	from(0, 810, 900)
	from(1, 810, 900)
	tick(130 * minute)
	tick(131 * minute)
	s := run()
	rows, _ := rowsIn(t, b)
	got := map[string]bool{}
	for id := range rows {
		got[id] = true
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("%d of these are late, rows (-want +got):\n%s", s.Partitions[0].Late+s.Partitions[1].Late, d)
	}
}

// TestSetAsideAfterEdit: a late reading that is set aside, because rows of its time were committed after an edit, doesn't count either when
// rows are computed again from a state that is older than that commit.
func TestSetAsideAfterEdit(t *testing.T) {
	t.Parallel()
	h, b := hubtest.New(2), openDir(t)
	at := func(s int) fleetscore.Micros { return 100*minute + fleetscore.Micros(s)*second }
	add := func(partition, time, arrived int, value float64) {
		r := &fleetscore.Readings{Keys: []fleetscore.Key{fleetscore.Key(fmt.Sprint("d", partition))}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{at(time)}, Columns: []fleetscore.ReadingColumn{{Name: "Value", Numbers: []float64{value}}}}
		if value == 0 {
			r = nil
		}
		if _, err := h.Append(t.Context(), partition, hub.Stamp{Source: "http", Arrived: at(arrived)}, r); err != nil {
			t.Fatal(err)
		}
	}
	both := func(first, last int, value float64) {
		for s := first; s < last; s += 10 {
			add(0, s, s, value)
			add(1, s, s, value)
		}
	}
	both(-2400, -2399, 0)
	both(0, 200, 1)
	for s := 200; s < 600; s += 10 {
		add(0, s, s, 1)
	}
	c := revising("SELECT System.Timestamp() AS TS, Device, SUM(Value) AS Value, COUNT(*) AS N INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, TumblingWindow(second, 5)")
	c.Query.LateWithin = fleetscore.Duration(11 * time.Minute) // so that the state before the commit is less than half of it old
	if _, err := runConfig(t, c, h, b); err != nil {           // rows up to 540 and 180
		t.Fatal(err)
	}
	for s := 200; s < 600; s += 10 {
		add(1, s, s, 1)
	}
	both(600, 620, 1) // rows up to 600
	add(1, 535, 620, 1000)
	both(620, 650, 1)
	add(0, 615, 650, 1)
	both(3000, 3002, 0)
	both(3001, 3003, 0)
	c.Query.SQL = "SELECT System.Timestamp() AS TS, Device, SUM(Value) OVER (LIMIT DURATION(second, 100)) AS Value, COUNT(*) OVER (LIMIT DURATION(second, 100)) AS N INTO readings FROM hub TIMESTAMP BY TS"
	a, err := runConfig(t, c, h, b)
	if err != nil {
		t.Fatal(err)
	}
	s := a.Status()
	if late, revised := s.Partitions[0].Late+s.Partitions[1].Late, s.Partitions[0].Revised+s.Partitions[1].Revised; late != 1 || revised != 1 {
		t.Errorf("%d readings are set aside and %d revise rows, want one each", late, revised)
	}
	rows, _ := rowsIn(t, b)
	for id, want := range map[string]string{fmt.Sprint("d0 ", at(615)): "21 21", fmt.Sprint("d1 ", at(620)): "21 21"} { // those of the hundred seconds up to then
		if rows[id] != want {
			t.Errorf("row %s is %q, want %q", id, rows[id], want)
		}
	}
}
