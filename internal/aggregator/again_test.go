package aggregator

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator/reference"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/query/value"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// again are queries that package stream runs, whose rows late readings change in ways of their own.
var again = []struct{ name, sql string }{
	{"session", "SELECT System.Timestamp() AS TS, Device, SUM(Value) AS A, COUNT(*) AS B INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, SessionWindow(second, 20, 86400) OVER (PARTITION BY Device)"},
	{"cut session", "SELECT System.Timestamp() AS TS, Device, MIN(Value) AS A, COUNT(*) AS B INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, SessionWindow(second, 60, 90) OVER (PARTITION BY Device)"},
	{"having", "SELECT System.Timestamp() AS TS, Device, AVG(Value) AS A, COUNT(*) AS B INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, TumblingWindow(second, 30) HAVING COUNT(*) < 2"},
	{"sliding", "SELECT System.Timestamp() AS TS, Device, MAX(Value) AS A, COUNT(*) AS B INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, SlidingWindow(second, 40)"},
	{"look back", "SELECT System.Timestamp() AS TS, Device, LAG(Value) OVER (PARTITION BY Device LIMIT DURATION(second, 45)) AS A, Value AS B INTO readings FROM hub TIMESTAMP BY TS WHERE Value > 10"},
	{"is first", "SELECT System.Timestamp() AS TS, Device, ISFIRST(second, 30) OVER (PARTITION BY Device) AS A, Value AS B INTO readings FROM hub TIMESTAMP BY TS"},
	{"steps", `WITH low AS (SELECT Device, MIN(Value) AS Value, COUNT(*) AS N FROM hub TIMESTAMP BY TS GROUP BY Device, SessionWindow(second, 15, 60) OVER (PARTITION BY Device))
		SELECT System.Timestamp() AS TS, Device, SUM(Value) AS A, SUM(N) AS B INTO readings FROM low GROUP BY Device, HoppingWindow(second, 120, 60)`},
	{"groups", "SELECT System.Timestamp() AS TS, CASE WHEN Value > 20 THEN 'high' ELSE 'low' END AS Device, SUM(Value / 3) AS A, COUNT(*) AS B INTO readings FROM hub TIMESTAMP BY TS GROUP BY CASE WHEN Value > 20 THEN 'high' ELSE 'low' END, SessionWindow(second, 5, 60)"},
	{"timed", "SELECT System.Timestamp() AS TS, Device, SUM(Value) AS A, COUNT(*) AS B INTO readings FROM hub TIMESTAMP BY DATEADD(second, 0 - 30, TS) GROUP BY Device, SessionWindow(second, 20, 60) OVER (PARTITION BY Device)"},
	{"join", "SELECT System.Timestamp() AS TS, hub.Device, SUM(hub.Value * limits.Factor) AS A, COUNT(*) AS B INTO readings FROM hub TIMESTAMP BY TS JOIN limits ON limits.Device = hub.Device GROUP BY hub.Device, SlidingWindow(second, 40)"},
}

// tenMinutes is reference data that changes every ten minutes.
type tenMinutes struct{}

func (tenMinutes) Versions(context.Context, string, fleetscore.Micros) (out []reference.Version, err error) {
	for i := range fleetscore.Micros(20) {
		out = append(out, reference.Version{From: i * 10 * minute, Blob: fleetscore.BlobName(fmt.Sprint(i))})
	}
	return out, nil
}

func (tenMinutes) Rows(_ context.Context, _ string, v reference.Version) (out []*value.Record, err error) {
	shape := value.NewShape([]string{"Device", "Factor"})
	for i := range 4 {
		out = append(out, &value.Record{Shape: shape, Values: []value.Value{value.String(fmt.Sprintf("d%d", i)), value.Number(float64(v.From/minute) + float64(i))}})
	}
	return out, nil
}

// tooLateInOrder says which readings come when the watermark has passed them by ten minutes;
// written apart from the package's own rule, for one source.
func tooLateInOrder(sorted []sent) map[sent]bool {
	out, newest := map[sent]bool{}, fleetscore.Micros(0)
	for _, s := range sorted {
		if s.time+10*minute <= newest-2e6 {
			out[s] = true
			continue
		}
		newest = max(newest, s.time)
	}
	return out
}

// TestLanesRevised: rows of any query are those of a run to which all readings came in time,
// besides those that came too late, wherever the process ended and began again.
func TestLanesRevised(t *testing.T) {
	t.Parallel()
	for i, q := range again {
		t.Run(q.name, func(t *testing.T) {
			t.Parallel()
			all := someSent(uint64(10 + i))
			slices.SortStableFunc(all, func(a, b sent) int { return cmp.Compare(a.arrived, b.arrived) })
			late := tooLateInOrder(all)
			inTime := onTime(all, late)
			c := revising(q.sql)
			undisturbed, disturbed := openDir(t), openDir(t)
			h := hubtest.New(1)
			arrive(t, h, inTime)
			if a, err := runDeps(t, c, h, Deps{Catalog: catalog.New(undisturbed), References: tenMinutes{}}); err != nil || a.Status().Partitions[0].Revised != 0 {
				t.Fatal(err, a.Status())
			}
			want, _ := rowsIn(t, undisturbed)

			h = hubtest.New(1)
			begin(t, h)
			var revised, gone, vanished int64
			for n := len(all) / 5; len(all) > 0; all = all[min(n, len(all)):] {
				send(t, h, all[:min(n, len(all))]...)
				if len(all) <= n {
					ticks(t, h, 1, all[len(all)-1].arrived+20*minute)
				}
				before := rowsSoFar(t, disturbed)
				a, err := runDeps(t, c, h, Deps{Catalog: catalog.New(disturbed), References: tenMinutes{}})
				if err != nil {
					t.Fatal(err)
				}
				s := a.Status().Partitions[0]
				revised, gone = revised+s.Revised, gone+s.Late
				after, _ := rowsIn(t, disturbed)
				for id := range before {
					if _, ok := after[id]; !ok {
						vanished++
					}
				}
			}
			if revised < 20 || gone < int64(len(late)) || gone < 5 { // what wasn't committed is counted again
				t.Errorf("%d readings were revised, %d late, want %d", revised, gone, len(late))
			}
			got, _ := rowsIn(t, disturbed)
			if d := gocmp.Diff(want, got); d != "" {
				t.Errorf("rows (-undisturbed +revised):\n%s", d)
			}
			if vanished == 0 && q.name != "look back" && q.name != "is first" && q.name != "sliding" && q.name != "join" {
				t.Error("no row vanished: the test shows too little")
			}
		})
	}
}

// TestLanesRevisedOften is TestLanesRevised where late readings come soon after the states from which keys are computed again, and the
// process ends at any message.
func TestLanesRevisedOften(t *testing.T) {
	t.Parallel()
	for i, q := range again {
		t.Run(q.name, func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(uint64(i), 77))
			within := fleetscore.Micros(20+rnd.IntN(60)) * 1e6
			var all []sent
			for i := range 250 {
				s := sent{key: fleetscore.Key(fmt.Sprintf("d%d", rnd.IntN(3))), time: 100*minute + fleetscore.Micros(rnd.IntN(400e6))/2*2, value: float64(i) / 4}
				s.arrived = s.time
				if rnd.IntN(3) == 0 {
					s.arrived += fleetscore.Micros(rnd.IntN(int(within * 5 / 4)))
				}
				all = append(all, s)
			}
			slices.SortStableFunc(all, func(a, b sent) int { return cmp.Compare(a.arrived, b.arrived) })
			late, newest := map[sent]bool{}, fleetscore.Micros(0)
			for _, s := range all {
				if s.time+within <= newest-2e6 {
					late[s] = true
					continue
				}
				newest = max(newest, s.time)
			}
			inTime := onTime(all, late)
			c := revising(q.sql)
			c.Query.LateWithin, c.Query.Cut = fleetscore.Duration(time.Duration(within)*time.Microsecond), fleetscore.Duration(10*time.Second)
			undisturbed, disturbed := openDir(t), openDir(t)
			h := hubtest.New(1)
			arrive(t, h, inTime)
			if _, err := runDeps(t, c, h, Deps{Catalog: catalog.New(undisturbed), References: tenMinutes{}}); err != nil {
				t.Fatal(err)
			}
			want, _ := rowsIn(t, undisturbed)
			if len(want) == 0 && q.name != "having" { // whose rows all vanish
				t.Fatal("there are no rows")
			}
			h = hubtest.New(1)
			begin(t, h)
			for len(all) > 0 {
				n := min(len(all), 1+rnd.IntN(120))
				send(t, h, all[:n]...)
				if n == len(all) {
					ticks(t, h, 1, all[len(all)-1].arrived+20*minute)
				}
				all = all[n:]
				if _, err := runDeps(t, c, h, Deps{Catalog: catalog.New(disturbed), References: tenMinutes{}}); err != nil {
					t.Fatal(err)
				}
			}
			got, _ := rowsIn(t, disturbed)
			if d := gocmp.Diff(want, got); d != "" {
				t.Errorf("late %d rows (-undisturbed +revised):\n%s", len(late), d)
			}
		})
	}
}

// rowsSoFar is rowsIn, with no row if there is no dataset yet.
func rowsSoFar(t *testing.T, b store.Bucket) map[string]string {
	t.Helper()
	if _, err := catalog.New(b).Dataset("readings").Snapshot(t.Context()); fleetscore.NotFound.Is(err) {
		return nil
	}
	rows, _ := rowsIn(t, b)
	return rows
}

// TestLanesCrashAnywhere is TestCrashAnywhere with late readings that move the ends of sessions.
func TestLanesCrashAnywhere(t *testing.T) {
	t.Parallel()
	few := func(t *testing.T, h hub.Hub, _ int) {
		t.Helper()
		var some []sent
		for _, s := range someSent(3) {
			if s.time < 104*minute && s.arrived < 110*minute {
				some = append(some, s)
			}
		}
		arrive(t, h, some)
	}
	if n := crashAnywhere(t, revising(again[0].sql), 1, few); n < 30 {
		t.Errorf("rows hold only %d readings", n)
	}
}

// TestLanesInParts: keys whose readings need too much memory at once are computed again one after the other.
func TestLanesInParts(t *testing.T) {
	t.Parallel()
	var all []sent
	for i := range 480 { // of 8 keys, in ten minutes
		at := 100*minute + fleetscore.Micros(i)*10*minute/480
		all = append(all, sent{fleetscore.Key(fmt.Sprintf("d%d", i%8)), at, at, float64(i)})
	}
	for k := range 8 {
		all = append(all, sent{fleetscore.Key(fmt.Sprintf("d%d", k)), 101 * minute, 110 * minute, 1000})
	}
	rows := map[bool]map[string]string{}
	for _, bounded := range []bool{false, true} {
		c := revising(again[0].sql)
		if bounded {
			c.MaxHeldBytes = 100_000
		}
		h, b := hubtest.New(1), openDir(t)
		arrive(t, h, all)
		if a, err := runConfig(t, c, h, b); err != nil || a.Status().Partitions[0].Revised != 8 {
			t.Fatal(err, a.Status())
		}
		rows[bounded], _ = rowsIn(t, b)
	}
	if d := gocmp.Diff(rows[false], rows[true]); d != "" {
		t.Errorf("rows of the bounded query (-want +got):\n%s", d)
	}
}

// TestLanesTooLarge: if the readings of a single key need too much memory, the query stops and says so.
func TestLanesTooLarge(t *testing.T) {
	t.Parallel()
	var all []sent
	for i := range 480 {
		at := 100*minute + fleetscore.Micros(i)*10*minute/480
		all = append(all, sent{"d", at, at, float64(i)})
	}
	all = append(all, sent{"d", 101 * minute, 110 * minute, 1000})
	c := revising(again[0].sql)
	c.MaxHeldBytes = 100_000
	h := hubtest.New(1)
	arrive(t, h, all)
	_, err := runConfig(t, c, h, openDir(t))
	if want := "because of a late reading, rows of sensor d are computed again"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// TestLanesRepeats: readings that are sent again long after they were counted change no file.
func TestLanesRepeats(t *testing.T) {
	t.Parallel()
	var all []sent
	for i := range 60 {
		s := sent{key: "d", time: 100*minute + fleetscore.Micros(i)*10e6, value: 1}
		s.arrived = s.time
		all = append(all, s)
		s.arrived += 5 * minute
		all = append(all, s)
	}
	h, b := hubtest.New(1), openDir(t)
	arrive(t, h, all)
	a, err := runConfig(t, revising(again[0].sql), h, b)
	if err != nil || a.Status().Partitions[0].Revised < 50 {
		t.Fatal(err, a.Status())
	}
	rows, snap := rowsIn(t, b)
	if d := gocmp.Diff(map[string]string{fmt.Sprint("d ", 110*minute+10e6): "60 60"}, rows); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
	revised, err := catalog.New(b).Dataset("readings").Revised(t.Context(), 0, snap.Version)
	if err != nil || len(revised) > 0 {
		t.Errorf("revised: %v, %v", revised, err)
	}
}

// TestLateTurnsToRevise: a query that runs takes late readings as soon as it is told to; rows that were
// there before stay as they are.
func TestLateTurnsToRevise(t *testing.T) {
	t.Parallel()
	h, b := hubtest.New(1), openDir(t)
	begin(t, h)
	send(t, h, sent{"d", 100 * minute, 100 * minute, 1}, sent{"d", 104 * minute, 104 * minute, 1})
	drop := revising(again[0].sql)
	drop.Query.Late = fleetscore.LateDrop
	if _, err := runConfig(t, drop, h, b); err != nil {
		t.Fatal(err)
	}
	send(t, h, sent{"d", 100*minute + 5e6, 105 * minute, 2}, sent{"d", 106 * minute, 106 * minute, 3}, sent{"d", 108 * minute, 108 * minute, 4}, sent{"d", 106*minute + 5e6, 108 * minute, 5})
	ticks(t, h, 1, 120*minute)
	a, err := runConfig(t, revising(again[0].sql), h, b)
	if s := a.Status().Partitions[0]; err != nil || s.Revised != 1 || s.Late != 1 {
		t.Fatalf("%v: %d readings were revised, %d late; want 1 and 1", err, s.Revised, s.Late)
	}
	rows, _ := rowsIn(t, b)
	want := map[string]string{}
	for at, row := range map[fleetscore.Micros]string{100*minute + 20e6: "1 1", 104*minute + 20e6: "1 1", 106*minute + 25e6: "8 2", 108*minute + 20e6: "4 1"} {
		want[fmt.Sprint("d ", at)] = row
	}
	if d := gocmp.Diff(want, rows); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
}

// TestLateWithinGrows: after late_within became longer, readings that are older than all states that were kept until then are set aside;
// they aren't taken without an effect.
func TestLateWithinGrows(t *testing.T) {
	t.Parallel()
	h, b := hubtest.New(1), openDir(t)
	begin(t, h)
	for at := 100 * minute; at <= 180*minute; at += minute {
		send(t, h, sent{"d", at, at, 1})
	}
	c := revising(again[0].sql)
	if _, err := runConfig(t, c, h, b); err != nil {
		t.Fatal(err)
	}
	send(t, h, sent{"d", 130*minute + 30e6, 180 * minute, 2}, sent{"d", 175*minute + 30e6, 180 * minute, 3})
	ticks(t, h, 1, 190*minute)
	c.Query.LateWithin = fleetscore.Duration(time.Hour)
	a, err := runConfig(t, c, h, b)
	if s := a.Status().Partitions[0]; err != nil || s.Revised != 1 || s.Late != 1 {
		t.Fatalf("%v: %d readings were revised, %d late; want 1 and 1", err, s.Revised, s.Late)
	}
	rows, _ := rowsIn(t, b)
	if id := fmt.Sprint("d ", 175*minute+50e6); rows[id] != "3 1" {
		t.Errorf("the late reading made the row %q", rows[id])
	}
}

// TestLateWithinChanges: readings are judged by the late_within of the time at which they came, also when the rows of their sensor are
// computed again later: one of two readings that are late by the same time counts.
func TestLateWithinChanges(t *testing.T) {
	t.Parallel()
	const s = 1_000_000
	for name, x := range map[string]struct {
		before, after time.Duration
		revised       int64  // readings, after that
		row           string // of the last forty seconds before the last late reading, in which there are four readings
	}{"shorter": {time.Hour, 10 * time.Minute, 1, "3 3"}, "longer": {10 * time.Minute, time.Hour, 2, "3 3"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, b := hubtest.New(1), openDir(t)
			begin(t, h)
			for at := 100 * minute; at <= 183*minute; at += minute {
				send(t, h, sent{"d", at, at, 1})
			}
			send(t, h, sent{"d", 172*minute + 40*s, 183 * minute, 2}, sent{"d", 183*minute + 3*s, 183*minute + 3*s, 1}) // ten minutes and twenty seconds late
			c := revising(again[3].sql)
			c.Query.LateWithin = fleetscore.Duration(x.before)
			if _, err := runConfig(t, c, h, b); err != nil {
				t.Fatal(err)
			}
			c.Query.LateWithin = fleetscore.Duration(x.after)
			send(t, h, sent{"d", 172*minute + 50*s, 183*minute + 3*s, 2}, sent{"d", 173*minute + 10*s, 183*minute + 3*s, 3}) // the first one is ten minutes and eleven seconds late
			ticks(t, h, 1, 190*minute)
			a, err := runConfig(t, c, h, b)
			if s := a.Status().Partitions[0]; err != nil || s.Revised != x.revised {
				t.Fatalf("%v: %d readings were revised", err, s.Revised)
			}
			rows, _ := rowsIn(t, b)
			if row := rows[fmt.Sprint("d ", 173*minute+10*s)]; row != x.row {
				t.Errorf("the row is %q, want %q", row, x.row)
			}
		})
	}
}

// TestLogLostItsEnd: a reading that is set aside because rows of its time were made from messages that the log has lost
// doesn't count either when the rows of its sensor are computed again, now or after a restart.
func TestLogLostItsEnd(t *testing.T) {
	t.Parallel()
	const s = 1_000_000
	for _, restart := range []bool{false, true} {
		h, b := hubtest.New(1), openDir(t)
		begin(t, h)
		for at := 100 * minute; at <= 110*minute; at += minute {
			send(t, h, sent{"d", at, at, 1})
		}
		c := revising(strings.Replace(again[3].sql, "(second, 40)", "(minute, 5)", 1))
		if _, err := runConfig(t, c, h, b); err != nil {
			t.Fatal(err)
		}
		loseStates(t, b)
		h.Reopen(8) // up to the reading of 106:00
		send(t, h, sent{"d", 107*minute + 30*s, 107*minute + 30*s, 7}, sent{"d", 112 * minute, 112 * minute, 1})
		if restart {
			if _, err := runConfig(t, c, h, b); err != nil {
				t.Fatal(err)
			}
		}
		send(t, h, sent{"d", 110*minute + 20*s, 112 * minute, 2})
		ticks(t, h, 1, 130*minute)
		a, err := runConfig(t, c, h, b)
		if s := a.Status().Partitions[0]; err != nil || s.Revised != 1 {
			t.Fatalf("%v: %d readings were revised", err, s.Revised)
		}
		rows, _ := rowsIn(t, b)
		if row, want := rows[fmt.Sprint("d ", 110*minute+20*s)], "2 2"; row != want {
			t.Errorf("restart %v: the row of the late reading and that of 106:00 is %q, want %q", restart, row, want)
		}
	}
}

// TestVanishedRowsAreNamed: a commit that removes rows says which cuts it changed, so that pipelines score
// them again.
func TestVanishedRowsAreNamed(t *testing.T) {
	t.Parallel()
	h, b := hubtest.New(1), openDir(t)
	begin(t, h)
	send(t, h, sent{"d", 100 * minute, 100 * minute, 1}, sent{"d", 104 * minute, 104 * minute, 1}, sent{"d", 100*minute + 5e6, 104 * minute, 2})
	tick(t, h, 106*minute)
	if _, err := runConfig(t, revising(strings.Replace(again[0].sql, "86400) OVER (PARTITION BY Device)", "86400) OVER (PARTITION BY Device) HAVING COUNT(*) < 2", 1)), h, b); err != nil {
		t.Fatal(err)
	}
	rows, snap := rowsIn(t, b)
	revised, err := catalog.New(b).Dataset("readings").Revised(t.Context(), 0, snap.Version)
	if want := []table.Revised{{From: 100 * minute, To: 101 * minute, Rows: 1}}; err != nil || gocmp.Diff(want, revised) != "" {
		t.Errorf("revised: %v, %v; want %v", revised, err, want)
	}
	if d := gocmp.Diff(map[string]string{fmt.Sprint("d ", 104*minute+20e6): "1 1"}, rows); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
}

// TestRowsBeforeBaseStay: rows that wait for their commit, and are older than the state from which a key is
// computed again, are committed as they are.
func TestRowsBeforeBaseStay(t *testing.T) {
	t.Parallel()
	h, b := hubtest.New(1), openDir(t)
	begin(t, h)
	const s = 1_000_000
	at := func(seconds fleetscore.Micros, value float64) {
		send(t, h, sent{"d", 100*minute + seconds*s, 100*minute + seconds*s, value})
	}
	at(0, 1)
	at(299, 2)
	at(301, 3)
	at(330, 4) // hands on what came before, commits the rows up to 105:00, and keeps a state of 105:28
	at(340, 5)
	send(t, h, sent{"d", 100*minute + 335*s, 100*minute + 341*s, 6}) // late
	at(370, 7)
	ticks(t, h, 1, 110*minute)
	a, err := runConfig(t, revising("SELECT System.Timestamp() AS TS, Device, Value AS A, Value AS B INTO readings FROM hub TIMESTAMP BY TS"), h, b)
	if err != nil || a.Status().Partitions[0].Revised != 1 {
		t.Fatal(err, a.Status())
	}
	rows, _ := rowsIn(t, b)
	want := map[string]string{}
	for at, value := range map[fleetscore.Micros]string{0: "1 1", 299: "2 2", 301: "3 3", 330: "4 4", 335: "6 6", 340: "5 5", 370: "7 7"} {
		want[fmt.Sprint("d ", 100*minute+at*s)] = value
	}
	if d := gocmp.Diff(want, rows); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
}

// loseStates deletes the states of the query.
func loseStates(t *testing.T, b store.Bucket) {
	t.Helper()
	deleted := 0
	for info, err := range b.List(t.Context(), "data/readings/_state/", store.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(t.Context(), info.Name); err != nil {
			t.Fatal(err)
		}
		deleted++
	}
	if deleted == 0 {
		t.Fatal("there is no state")
	}
}

// TestLateStaysWhenStateIsLost: late readings count in rows that are made after the state was lost or the query was edited, although
// rows of their own time were made before: those of sessions and windows that were open then.
func TestLateStaysWhenStateIsLost(t *testing.T) {
	t.Parallel()
	for i, q := range again {
		t.Run(q.name, func(t *testing.T) {
			t.Parallel()
			for _, cut := range []int{150, 250, 251} {
				all := someSent(uint64(50 + i))
				for i := range all {
					all[i].arrived = all[i].time
				}
				slices.SortFunc(all, func(a, b sent) int { return cmp.Compare(a.arrived, b.arrived) })
				done := floor(all[cut-1].arrived-10e6, minute) // the last commit before the state is lost
				for i := range all {
					if i%3 == 0 && all[i].arrived < done { // readings that come late after that commit may be set aside
						all[i].time -= fleetscore.Micros(3+i%50) * 1e6
					}
				}
				rows := map[bool]map[string]string{}
				for _, lost := range []bool{false, true} {
					h, b := hubtest.New(1), openDir(t)
					begin(t, h)
					deps := Deps{Catalog: catalog.New(b), References: tenMinutes{}}
					send(t, h, all[:cut]...)
					if _, err := runDeps(t, revising(q.sql), h, deps); err != nil {
						t.Fatal(err)
					}
					if lost {
						loseStates(t, b)
					}
					send(t, h, all[cut:]...)
					ticks(t, h, 1, 200*minute)
					if _, err := runDeps(t, revising(q.sql), h, deps); err != nil {
						t.Fatal(err)
					}
					rows[lost], _ = rowsIn(t, b)
				}
				if d := gocmp.Diff(rows[false], rows[true]); d != "" || len(rows[true]) < 20 {
					t.Errorf("lost after %d readings: %d rows (-with the state +without):\n%s", cut, len(rows[true]), d)
				}
			}
		})
	}
}

// TestOpenSessionKeepsLateReading: a late reading of a time that was committed stays in a session that is open when the state is lost.
func TestOpenSessionKeepsLateReading(t *testing.T) {
	t.Parallel()
	const s = 1_000_000
	c := revising("SELECT System.Timestamp() AS TS, Device, SUM(Value) AS A, COUNT(*) AS B INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, SessionWindow(second, 30, 86400) OVER (PARTITION BY Device)")
	h, b := hubtest.New(1), openDir(t)
	begin(t, h)
	send(t, h, sent{"d", 100*minute + 50*s, 100*minute + 50*s, 1})
	tick(t, h, 101*minute+4*s)
	send(t, h, sent{"d", 100*minute + 55*s, 101*minute + 5*s, 2}) // late
	tick(t, h, 101*minute+15*s)                                   // commits up to 101:00
	if _, err := runConfig(t, c, h, b); err != nil {
		t.Fatal(err)
	}
	loseStates(t, b)
	ticks(t, h, 1, 110*minute)
	a, err := runConfig(t, c, h, b)
	if st := a.Status().Partitions[0]; err != nil || st.Late != 0 {
		t.Fatal(err, st)
	}
	rows, _ := rowsIn(t, b)
	if d := gocmp.Diff(map[string]string{fmt.Sprint("d ", 101*minute+25*s): "3 2"}, rows); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
}

// TestLanesStateLost: without its state a query whose keys go by themselves reads the log again, and makes
// the same rows.
func TestLanesStateLost(t *testing.T) {
	t.Parallel()
	over := revising(strings.Replace(again[0].sql, "TIMESTAMP BY TS", "TIMESTAMP BY TS OVER Device", 1))
	over.Query.Late = fleetscore.LateDrop
	for name, c := range map[string]Config{"revise": revising(again[0].sql), "over": over} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := someSent(30)
			for i := range all {
				all[i].arrived = all[i].time
			}
			slices.SortStableFunc(all, func(a, b sent) int { return cmp.Compare(a.arrived, b.arrived) })
			rows := map[bool]map[string]string{}
			for _, lost := range []bool{false, true} {
				h, b := hubtest.New(1), openDir(t)
				begin(t, h)
				send(t, h, all[:250]...)
				if _, err := runConfig(t, c, h, b); err != nil {
					t.Fatal(err)
				}
				if lost {
					loseStates(t, b)
				}
				send(t, h, all[250:]...)
				ticks(t, h, 1, 200*minute)
				if _, err := runConfig(t, c, h, b); err != nil {
					t.Fatal(err)
				}
				rows[lost], _ = rowsIn(t, b)
			}
			if d := gocmp.Diff(rows[false], rows[true]); d != "" || len(rows[true]) < 50 {
				t.Errorf("%d rows (-with the state +without):\n%s", len(rows[true]), d)
			}
		})
	}
}
