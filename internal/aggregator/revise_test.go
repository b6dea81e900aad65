package aggregator

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// revising is config with late: revise.
func revising(sql string) Config {
	c := config
	c.Query.SQL = sql
	c.Query.Late, c.Query.LateWithin = fleetscore.LateRevise, fleetscore.Duration(10*time.Minute)
	return c
}

var hoppingSQL = strings.Replace(config.Query.SQL, "TumblingWindow(second, 5)", "HoppingWindow(second, 15, 5)", 1)

// sent is a reading and when it arrived.
type sent struct {
	key           fleetscore.Key
	time, arrived fleetscore.Micros
	value         float64
}

// someSent draws readings of half an hour, some of which arrive up to ten minutes late, or
// later; those are too late. Times are even numbers, so that no two readings are repeats.
func someSent(seed uint64) (out []sent) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	for i := range 400 {
		s := sent{key: fleetscore.Key(fmt.Sprintf("d%d", rnd.IntN(4))), time: 100*minute + fleetscore.Micros(rnd.IntN(1800e6)), value: float64(i) / 4}
		s.arrived = s.time
		switch rnd.IntN(8) {
		case 0:
			s.arrived += fleetscore.Micros(rnd.IntN(9*60)) * 1e6
		case 1:
			s.arrived += fleetscore.Micros(rnd.IntN(20*60)) * 1e6
		}
		out = append(out, s)
	}
	return out
}

// arrive appends readings in the order of their arrival, after a first tick long before
// them, and ends with a tick that closes all windows.
func arrive(t *testing.T, h hub.Hub, readings []sent) {
	t.Helper()
	begin(t, h)
	sorted := slices.Clone(readings)
	slices.SortStableFunc(sorted, func(a, b sent) int { return cmp.Compare(a.arrived, b.arrived) })
	send(t, h, sorted...)
	ticks(t, h, 1, sorted[len(sorted)-1].arrived+20*minute)
}

// send appends readings in their order, and returns the sequence of the last one.
func send(t *testing.T, h hub.Hub, readings ...sent) (seq uint64) {
	t.Helper()
	for _, s := range readings {
		r := &fleetscore.Readings{Keys: []fleetscore.Key{s.key}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{s.time},
			Columns: []fleetscore.ReadingColumn{{Name: "Value", Numbers: []float64{s.value}}}}
		var err error
		if seq, err = h.Append(t.Context(), 0, hub.Stamp{Source: "http", Arrived: s.arrived}, r); err != nil {
			t.Fatal(err)
		}
	}
	return seq
}

// begin appends a first tick, of the only source.
func begin(t *testing.T, h hub.Hub) { t.Helper(); tick(t, h, 60*minute) }

func tick(t *testing.T, h hub.Hub, arrived fleetscore.Micros) {
	t.Helper()
	if _, err := h.Append(t.Context(), 0, hub.Stamp{Source: "http", Arrived: arrived}, nil); err != nil {
		t.Fatal(err)
	}
}

// tooLate says which readings come when the watermark has passed the first of their windows by ten
// minutes; written apart from the package's own rule, for one source.
func tooLate(readings []sent, hop fleetscore.Micros) map[sent]bool {
	out := map[sent]bool{}
	sorted := slices.Clone(readings)
	slices.SortStableFunc(sorted, func(a, b sent) int { return cmp.Compare(a.arrived, b.arrived) })
	newest := fleetscore.Micros(0)
	for _, s := range sorted {
		end := (s.time + hop - 1) / hop * hop
		if end+10*minute <= newest-2e6 {
			out[s] = true
			continue
		}
		newest = max(newest, s.time)
	}
	return out
}

// onTime is the readings that aren't late, each as it arrives without any delay.
func onTime(all []sent, late map[sent]bool) (out []sent) {
	for _, s := range all {
		if !late[s] {
			s.arrived = s.time
			out = append(out, s)
		}
	}
	return out
}

// TestReviseEqualsUndisturbed: rows are those of a run to which all readings came in time,
// besides those that came too late to be revised.
func TestReviseEqualsUndisturbed(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			all := someSent(seed)
			late := tooLate(all, 5e6)
			inTime := onTime(all, late)
			c := revising(config.Query.SQL)
			undisturbed, disturbed := openDir(t), openDir(t)
			h := hubtest.New(1)
			arrive(t, h, inTime)
			a, err := runConfig(t, c, h, undisturbed)
			if s := a.Status().Partitions[0]; err != nil || s.Revised+s.Late != 0 {
				t.Fatalf("%v: %d readings were revised and %d late without delay", err, s.Revised, s.Late)
			}
			h = hubtest.New(1)
			arrive(t, h, all)
			a, err = runConfig(t, c, h, disturbed)
			s := a.Status().Partitions[0]
			if err != nil || s.Revised < 20 || s.Late != int64(len(late)) || s.Late < 5 {
				t.Fatalf("%v: %d readings were revised, %d late, want %d", err, s.Revised, s.Late, len(late))
			}
			want, _ := rowsIn(t, undisturbed)
			got, snap := rowsIn(t, disturbed)
			if d := gocmp.Diff(want, got); d != "" {
				t.Errorf("rows (-undisturbed +revised):\n%s", d)
			}
			if until, ok := catalog.CompleteUntil(snap, time.Now()); !ok || until < 130*minute {
				t.Errorf("complete until %s, %v", until, ok)
			}
		})
	}
}

// TestReviseCrashAnywhere is TestCrashAnywhere with late readings whose windows are revised.
func TestReviseCrashAnywhere(t *testing.T) {
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
	for _, sql := range []string{config.Query.SQL, hoppingSQL} {
		if n := crashAnywhere(t, revising(sql), 1, few); n < 30 {
			t.Errorf("rows hold only %d readings", n)
		}
	}
}

// TestReviseHopping: in hopping windows a late reading counts in those of its windows that
// may still be revised, wherever the process ended and began again.
func TestReviseHopping(t *testing.T) {
	t.Parallel()
	all := someSent(5)
	h := hubtest.New(1)
	arrive(t, h, all)
	b := openDir(t)
	a, err := runConfig(t, revising(hoppingSQL), h, b)
	if err != nil || a.Status().Partitions[0].Revised == 0 {
		t.Fatal(err, a.Status())
	}
	want := map[string]string{}
	sums, counts := map[string]float64{}, map[string]int{}
	newest := fleetscore.Micros(0)
	slices.SortStableFunc(all, func(a, b sent) int { return cmp.Compare(a.arrived, b.arrived) })
	for _, s := range all {
		first := (s.time + 5e6 - 1) / 5e6 * 5e6
		for end := first; end < s.time+15e6; end += 5e6 {
			if end+10*minute > newest-2e6 {
				id := fmt.Sprint(s.key, " ", end)
				sums[id], counts[id] = sums[id]+s.value, counts[id]+1
				want[id] = fmt.Sprint(sums[id], " ", counts[id])
			}
		}
		newest = max(newest, s.time)
	}
	got, _ := rowsIn(t, b)
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
}

// TestReviseGone: where the hub lacks a part of the readings of a window, a late reading
// is set aside, and the row stays as it is.
func TestReviseGone(t *testing.T) {
	t.Parallel()
	h := hubtest.New(1)
	begin(t, h)
	last := send(t, h, sent{"d", 100 * minute, 100 * minute, 1}, sent{"d", 104 * minute, 104 * minute, 1})
	b := openDir(t)
	if _, err := runConfig(t, revising(config.Query.SQL), h, b); err != nil {
		t.Fatal(err)
	}
	h.Expire(0, last) // the messages before it
	send(t, h, sent{"d", 100 * minute, 105 * minute, 2})
	ticks(t, h, 1, 120*minute)
	a, err := runConfig(t, revising(config.Query.SQL), h, b)
	if s := a.Status().Partitions[0]; err != nil || s.Revised != 0 || s.Late != 1 {
		t.Fatalf("%v: %d readings were revised, %d late; want none and 1", err, s.Revised, s.Late)
	}
	rows, _ := rowsIn(t, b)
	if got := rows[fmt.Sprint("d ", 100*minute)]; got != "1 1" {
		t.Errorf("the row is %q, want it as it was", got)
	}
}

// TestReviseFromTheBeginning: while the hub has its first message, and all rows were made from it,
// rows of the first minutes are revised too; in a hub that came after another one they aren't.
func TestReviseFromTheBeginning(t *testing.T) {
	t.Parallel()
	b := openDir(t)
	for i, want := range []int64{1, 0} {
		h := hubtest.New(1)
		from := (100 + 60*fleetscore.Micros(i)) * minute
		send(t, h, sent{"d", from, from, 1}, sent{"d", from + 2*minute, from + 2*minute, 1}, sent{"d", from, from + 2*minute, 2})
		tick(t, h, from+4*minute)
		a, err := runConfig(t, revising(config.Query.SQL), h, b)
		rows, _ := rowsIn(t, b)
		if s := a.Status().Partitions[0]; err != nil || s.Revised != want || s.Late != 1-want || rows[fmt.Sprint("d ", from)] != fmt.Sprint(1+2*want, " ", 1+want) {
			t.Errorf("hub %d: %v: %d readings were revised, %d late; the row is %q", i, err, s.Revised, s.Late, rows[fmt.Sprint("d ", from)])
		}
	}
}

// TestRepeatsReviseNothing: readings that are sent again long after they were counted
// change no file.
func TestRepeatsReviseNothing(t *testing.T) {
	t.Parallel()
	var all []sent
	for i := range 60 {
		s := sent{key: "d", time: 100*minute + fleetscore.Micros(i)*10e6, value: 1}
		s.arrived = s.time
		all = append(all, s)
		s.arrived += 5 * minute
		all = append(all, s)
	}
	h := hubtest.New(1)
	arrive(t, h, all)
	b := openDir(t)
	a, err := runConfig(t, revising(config.Query.SQL), h, b)
	if err != nil || a.Status().Partitions[0].Revised < 50 {
		t.Fatal(err, a.Status())
	}
	rows, snap := rowsIn(t, b)
	for id, got := range rows {
		if got != "1 1" {
			t.Errorf("row %s is %q", id, got)
		}
	}
	if len(rows) != 60 {
		t.Errorf("%d rows, want 60", len(rows))
	}
	for version := range snap.Version + 1 {
		data, err := store.ReadAll(t.Context(), b, fleetscore.BlobName(fmt.Sprintf("data/readings/_delta_log/%020d.json", version)))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), `"remove"`) || strings.Contains(string(data), table.RevisedInfo) {
			t.Errorf("commit %d revises rows:\n%s", version, data)
		}
	}
}

// TestCostOfRevisions: revisions, and the readings that are read again for them, are counted, and it is said
// when these are more than come.
func TestCostOfRevisions(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{"windows": config.Query.SQL, "lanes": again[0].sql} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, b, health := hubtest.New(1), openDir(t), &obs.Health{}
			begin(t, h)
			now := time.Unix(0, 0)
			clock := func() time.Time { now = now.Add(30 * time.Second); return now } // of whoever asks, at least once for each message
			const each, minutes = 2000, 25
			cfg := revising(sql)
			run := func(from, late fleetscore.Micros) PartitionStatus {
				t.Helper()
				for m := from; m < from+minutes; m++ {
					at := (100 + m) * minute
					r := &fleetscore.Readings{Keys: []fleetscore.Key{"d", "e"}, Columns: []fleetscore.ReadingColumn{{Name: "Value"}}}
					for i := range fleetscore.Micros(each) {
						r.KeyIndex, r.Times, r.Columns[0].Numbers = append(r.KeyIndex, uint32(i%2)), append(r.Times, at+i), append(r.Columns[0].Numbers, 1)
					}
					if _, err := h.Append(t.Context(), 0, hub.Stamp{Source: "http", Arrived: at + 1e6}, r); err != nil {
						t.Fatal(err)
					}
					if late > 0 {
						send(t, h, sent{"d", at - late + 30e6, at + 2e6, 5})
					}
				}
				a, err := runDeps(t, cfg, h, Deps{Catalog: catalog.New(b), Now: clock, Health: health})
				if err != nil {
					t.Fatal(err)
				}
				return a.Status().Partitions[0]
			}
			s := run(0, 8*minute)
			if s.Revisions < minutes/2 || s.Reread < 4*each*s.Revisions || s.Reread > 25*each*s.Revisions {
				t.Errorf("%d revisions read %d readings again; each late reading is eight minutes late, and %d come in a minute", s.Revisions, s.Reread, each)
			}
			if p := health.Problems(); !strings.Contains(s.Costly, "late readings cost more than the others") || len(p) != 1 || p[0].Problem != s.Costly {
				t.Errorf("the status says %q, the health %v", s.Costly, p)
			}
			if s := run(minutes, 0); s.Revisions > 1 || s.Costly != "" || len(health.Problems()) > 0 { // the last late reading of before
				t.Errorf("without late readings there are %d revisions, and the health says %v", s.Revisions, health.Problems())
			}
		})
	}
}
