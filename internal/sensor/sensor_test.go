package sensor

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
)

// world is a dataset and a pipeline's predictions in a folder.
type world struct {
	b                    store.Bucket
	dataset, predictions *table.Delta
	now                  time.Time
	events               chan struct{}
	commits              int
}

const second = fleetscore.Micros(1e6)

var noon = fleetscore.MicrosOf(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))

func newWorld(t testing.TB, dir string) *world {
	t.Helper()
	b, err := store.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{b: b, dataset: table.OpenDelta(store.Sub(b, "data")), predictions: table.OpenDelta(store.Sub(b, "predictions")), now: noon.Time().Add(24 * time.Hour), events: make(chan struct{}, 1)}
	s := table.DatasetSchema("TS", []string{"Device"}, []string{"Value"})
	if err := w.dataset.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	s.Columns = append(s.Columns, table.Column{Name: "Prediction", Type: table.Double}, table.Column{Name: "Job", Type: table.Text})
	if err := w.predictions.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return w
}

// Watch implements ledger.Events.
func (w *world) Watch(...ledger.Topic) (<-chan struct{}, func()) { return w.events, func() {} }

// Put implements ledger.Events.
func (w *world) Put(...ledger.Topic) {}

func (w *world) watch(t testing.TB) *Watch {
	t.Helper()
	out, err := New(Deps{Sources: func(context.Context) ([]Source, error) {
		return []Source{{Dataset: "readings", Pipelines: []string{"anomalies"}}}, nil
	},
		Dataset: func(string) *table.Delta { return w.dataset }, Predictions: func(string) *table.Delta { return w.predictions },
		Complete: func(s *table.Snapshot) (fleetscore.Micros, bool) {
			until, ok := s.Txns["until"]
			return fleetscore.Micros(until), ok
		},
		Store: w.b, File: func(dataset string) fleetscore.BlobName { return fleetscore.BlobName("sensors-" + dataset) }, Keeps: func() bool { return true },
		Events: w, Now: func() time.Time { return w.now }, Log: slog.New(slog.NewTextHandler(complaints{t}, nil)), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// complaints fails a test when something is logged, because a Watch does so only about what it can't read or write.
type complaints struct{ t testing.TB }

func (c complaints) Write(text []byte) (int, error) {
	c.t.Errorf("the log says %s", text)
	return len(text), nil
}

// row is one row of the dataset.
type row struct {
	key   string
	at    fleetscore.Micros
	value float64
}

func rowsOf(list []row) *fleetscore.Rows {
	r := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, ValueNames: []string{"Value"}, Values: make([][]float64, 1)}
	for _, x := range list {
		k := slices.Index(r.Keys, fleetscore.Key(x.key))
		if k < 0 {
			k = len(r.Keys)
			r.Keys = append(r.Keys, fleetscore.Key(x.key))
		}
		r.KeyIndex, r.Times, r.Values[0] = append(r.KeyIndex, uint32(k)), append(r.Times, x.at), append(r.Values[0], x.value)
	}
	return r
}

// commit commits rows, with what it says of clocks.
func (w *world) commit(t testing.TB, until fleetscore.Micros, clocks []table.Clock, list ...row) {
	t.Helper()
	w.commits++
	files, err := w.dataset.WriteRows(t.Context(), rowsOf(list), fmt.Sprint("c", w.commits))
	if err == nil {
		_, err = w.dataset.Commit(t.Context(), table.Commit{Operation: "STREAMING UPDATE", Add: files, Txns: map[string]int64{"until": int64(until)}, Info: map[string]any{table.ClocksInfo: table.Clocks{Off: clocks}}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// predict commits a job's predictions of one sensor, one a second from a time on: the first ones are anomalies.
func (w *world) predict(t testing.TB, job, key string, from fleetscore.Micros, rows, anomalies int) {
	t.Helper()
	list, prediction := make([]row, rows), make([]float64, rows)
	for i := range list {
		if list[i] = (row{key, from + fleetscore.Micros(i)*second, 1}); i < anomalies {
			prediction[i] = 1
		}
	}
	f := &table.Frame{}
	f.AddRows(rowsOf(list))
	f.AddDoubles("Prediction", prediction)
	f.AddTexts("Job", rows, func(int) string { return job })
	snap, err := w.predictions.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	files, err := w.predictions.WriteFrame(t.Context(), snap.Schema, f, func(r fleetscore.ShardRange) string { return job + r.String() })
	if err == nil {
		_, err = w.predictions.Commit(t.Context(), table.Commit{Operation: "WRITE", Add: files, Txns: map[string]int64{"job/" + job: 1}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func only(t *testing.T, w *Watch, key string) Sensor {
	t.Helper()
	list, next, total := w.List(Query{Key: fleetscore.Key(key), Limit: 10})
	if len(list) != 1 || next != "" || total != 1 {
		t.Fatalf("sensor %s: %d of %d, next %q", key, len(list), total, next)
	}
	return list[0]
}

// TestFigures follows two sensors: first and last row, rate, value, silence, flat line, clock, anomalies.
func TestFigures(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	s := w.watch(t)
	var list []row
	for i := range fleetscore.Micros(721) { // an hour
		list = append(list, row{"a", noon + i*5*second, 0.1 * float64(i%7)})
		if i <= 360 {
			list = append(list, row{"b", noon + i*5*second, 3 * (1 + 1e-15*float64(i%3))})
		}
	}
	w.commit(t, noon, []table.Clock{{Key: []string{"c"}, Time: noon - 60*second, Arrived: noon}}) // of a sensor that never has rows
	w.commit(t, noon+3600*second, []table.Clock{{Key: []string{"a"}, Time: noon + 3600*second, Arrived: noon + 3540*second}}, list...)
	w.predict(t, "j1", "a", noon+1800*second, 10, 4)
	s.Look(t.Context())
	a, b := only(t, s, "a"), only(t, s, "b")
	if !a.First.Equal(noon.Time()) || !a.Last.Equal((noon + 3600*second).Time()) || a.Rows != 721 || *a.Silent != 0 || math.Abs(*a.PerMinute-12) > 1e-3 || *a.Values["Value"] != 0.1*float64(720%7) || a.Flat != 0 {
		t.Errorf("a is %+v", a)
	}
	if a.Skew == nil || *a.Skew != -60 || !a.Heard.Equal((noon + 3540*second).Time()) {
		t.Errorf("the clock of a: %v, %v", a.Skew, a.Heard)
	}
	if len(a.Pipelines) != 1 || a.Pipelines[0].Share != 0.4 || a.Pipelines[0].Scored != 10 || len(b.Pipelines) != 0 {
		t.Errorf("anomalies of a: %+v, of b: %+v", a.Pipelines, b.Pipelines)
	}
	if *b.Silent != 1800 || b.Flat != 1800 || !b.FlatSince.Equal(noon.Time()) || b.Skew != nil {
		t.Errorf("b is %+v", b)
	}
	for _, c := range []struct {
		q    Query
		want string
	}{{Query{}, "[a b c]"}, {Query{Silent: 30 * time.Minute}, "[b]"}, {Query{Silent: 31 * time.Minute}, "[]"}, {Query{Flat: 30 * time.Minute}, "[b]"}, {Query{Flat: time.Hour}, "[]"}, {Query{Skewed: time.Minute}, "[a c]"}, {Query{Skewed: 61 * time.Second}, "[]"},
		{Query{Silent: time.Minute, Skewed: time.Second}, "[]"}, {Query{Dataset: "other"}, "[]"}, {Query{Dataset: "readings"}, "[a b c]"}} {
		c.q.Limit = 10
		list, _, _ := s.List(c.q)
		got := []string{}
		for _, x := range list {
			got = append(got, x.Key[0])
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%+v lists %v, want %s", c.q, got, c.want)
		}
	}
	if got := s.Counts(); len(got) != 1 || got[0].Known != 3 || got[0].Silent != 1 || got[0].Flat != 0 || got[0].Skewed != 2 {
		t.Errorf("counts %+v", got)
	}
	// The clock is put right, b's value moves, and a later job finds less; an earlier one changes nothing.
	w.commit(t, noon+3700*second, nil, row{"a", noon + 3605*second, 1}, row{"b", noon + 3605*second, 3.1})
	w.predict(t, "j2", "a", noon+3600*second, 10, 1)
	w.predict(t, "j0", "a", noon, 10, 10)
	s.Look(t.Context())
	if a, b := only(t, s, "a"), only(t, s, "b"); a.Skew != nil || a.Pipelines[0].Share != 0.1 || b.Flat != 0 || *b.Values["Value"] != 3.1 || *b.Silent != 95 {
		t.Errorf("later a is %+v, b %+v", a, b)
	}
	// Who begins after the files of jobs were joined finds the last job's rows among them.
	for i := range fleetscore.Micros(6) {
		w.predict(t, fmt.Sprint("k", i), "a", noon+(3610+10*i)*second, 10, int(i))
	}
	if _, by, err := w.predictions.Compact(t.Context(), w.now); err != nil || by == 0 {
		t.Fatalf("files were joined to %d, %v", by, err)
	}
	s.Look(t.Context())
	late := w.watch(t)
	late.Look(t.Context())
	for _, s := range []*Watch{s, late} {
		if a := only(t, s, "a").Pipelines[0]; a.Scored != 10 || a.Anomalies != 5 {
			t.Errorf("the last job's rows of a are %+v", a)
		}
	}
}

// TestAnyCourse commits rows at random, joins files and restarts: the figures are those of a simple count of all rows, and
// of a watch that saw every commit at once.
func TestAnyCourse(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, dir)
		steady, moved := w.watch(t), w.watch(t)
		var all []row
		last := map[string]fleetscore.Micros{}
		until := noon
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			switch rapid.IntRange(0, 5).Draw(r, "step") {
			case 0: // a restart
				moved.save(t.Context(), true)
				moved = w.watch(t)
			case 1: // a restart that lost its file
				if err := w.b.Delete(t.Context(), "sensors-readings"); err != nil && !fleetscore.NotFound.Is(err) {
					t.Fatal(err)
				}
				moved = w.watch(t)
			case 2:
				if _, _, err := w.dataset.Compact(t.Context(), w.now); err != nil {
					t.Fatal(err)
				}
			case 3:
				moved.Look(t.Context())
			default:
				var list []row
				for _, key := range []string{"a", "b", "c"} {
					for range rapid.IntRange(0, 3).Draw(r, "rows") {
						at := max(last[key], until) + second*fleetscore.Micros(rapid.IntRange(1, 900).Draw(r, "gap"))
						last[key] = at
						list = append(list, row{key, at, float64(rapid.IntRange(0, 2).Draw(r, "value"))})
					}
				}
				if len(list) == 0 {
					continue
				}
				for _, x := range list {
					until = max(until, x.at)
				}
				w.commit(t, until, nil, list...)
				all = append(all, list...)
				steady.Look(t.Context())
			}
		}
		steady.Look(t.Context())
		moved.Look(t.Context())
		want, _, _ := steady.List(Query{Limit: 10})
		got, _, _ := moved.List(Query{Limit: 10})
		if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0, 1e-6)); diff != "" {
			r.Fatalf("after restarts (-steady +moved):\n%s", diff)
		}
		if diff := cmp.Diff(twin(all, until), want, cmpopts.EquateApprox(1e-4, 0), cmpopts.IgnoreFields(Sensor{}, "PerMinute"), cmpopts.EquateEmpty()); diff != "" {
			r.Fatalf("(-twin +got):\n%s", diff)
		}
	})
}

// twin counts all rows.
func twin(all []row, until fleetscore.Micros) (out []Sensor) {
	for _, key := range []string{"a", "b", "c"} {
		s := Sensor{Dataset: "readings", Key: []string{key}}
		before := math.NaN()
		for _, x := range all {
			if x.key != key {
				continue
			}
			at := x.at.Time()
			if s.Rows++; s.Rows == 1 {
				s.First = &at
			}
			if x.value != before {
				s.FlatSince = &at
			}
			before = x.value
			silent := float64(until-x.at) / 1e6
			s.Last, s.Flat, s.Values, s.Silent = &at, at.Sub(*s.FlatSince).Seconds(), map[string]*float64{"Value": &x.value}, &silent
		}
		if s.Rows > 0 {
			out = append(out, s)
		}
	}
	return out
}

// TestPages: all sensors are found page by page, in the order of their keys.
func TestPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	s := w.watch(t)
	var list []row
	for i := range 25 {
		list = append(list, row{fmt.Sprintf("k%02d/%d", (i*7)%25, i), noon, 1})
	}
	w.commit(t, noon, nil, list...)
	s.Look(t.Context())
	var got []string
	for after, pages := "", 0; ; pages++ {
		list, next, total := s.List(Query{Limit: 10, After: after})
		if total != 25 || pages > 2 {
			t.Fatalf("page %d: total %d", pages, total)
		}
		for _, x := range list {
			got = append(got, x.Key[0])
		}
		if after = next; next == "" {
			break
		}
	}
	if len(got) != 25 || !slices.IsSorted(got) || len(slices.Compact(got)) != 25 {
		t.Errorf("the pages show %v", got)
	}
}

// TestMemory: a sensor costs no more than the documents say, in memory and in the file.
func TestMemory(t *testing.T) {
	s := newState()
	s.columns = []string{"Value"}
	const n = 100_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	found := map[fleetscore.Key]score{}
	for i := range n {
		k := fleetscore.Key(fmt.Sprintf("device-%06d/%02d", i, i%100))
		s.take(&fleetscore.Rows{Keys: []fleetscore.Key{k}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{noon}, Values: [][]float64{{1}}}, true, nil, &sync.Mutex{})
		s.scored("p", map[fleetscore.Key]score{k: {scored: 1, until: noon}})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := float64(after.HeapAlloc-before.HeapAlloc) / n
	data, err := s.encode()
	t.Logf("%.0f bytes of memory and %d bytes of the file for a sensor", per, len(data)/n)
	if err != nil || per > BytesPerSensor || len(data)/n > BytesPerSensor {
		t.Errorf("a sensor costs %.0f bytes, in the file %d; want at most %d (%v)", per, len(data)/n, BytesPerSensor, err)
	}
	runtime.KeepAlive(found)
	runtime.KeepAlive(s)
}

// FuzzDecode: no file makes the reader fail otherwise than by an error, and one that it reads is written alike.
func FuzzDecode(f *testing.F) {
	s := newState()
	s.columns = []string{"Value"}
	s.take(&fleetscore.Rows{Keys: []fleetscore.Key{"a", "b"}, KeyIndex: []uint32{0, 1}, Times: []fleetscore.Micros{1, 2}, Values: [][]float64{{1, 2}}}, true, nil, &sync.Mutex{})
	s.scored("p", map[fleetscore.Key]score{"a": {scored: 3, anomalies: 1, until: 5}})
	data, err := s.encode()
	if err != nil {
		f.Fatal(err)
	}
	if _, err := decode(data); err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:40])
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, in := range [][]byte{data, resum(data)} {
			s, err := decode(in)
			if err != nil {
				if !fleetscore.Corrupt.Is(err) {
					t.Fatalf("kind of %v", err)
				}
				continue
			}
			again, err := s.encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decode(again); err != nil {
				t.Fatalf("its copy can't be read: %v", err)
			}
		}
	})
}

// resum gives a file a checksum that is right, so that the parts behind it are tested too.
func resum(data []byte) []byte {
	if len(data) < 4 {
		return data
	}
	out := slices.Clone(data)
	binary.LittleEndian.PutUint32(out[len(out)-4:], crc32.Checksum(out[:len(out)-4], castagnoli))
	return out
}

// TestOldCommitsAreGone: without a file and the first commits, the newest rows tell what can be told.
func TestOldCommitsAreGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	for i := range fleetscore.Micros(5) {
		w.commit(t, noon+i*second, nil, row{"a", noon + i*second, float64(i)})
	}
	if err := w.dataset.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := w.b.Delete(t.Context(), fleetscore.BlobName(fmt.Sprintf("data/_delta_log/%020d.json", i))); err != nil {
			t.Fatal(err)
		}
	}
	s := w.watch(t)
	s.Look(t.Context())
	if a := only(t, s, "a"); a.Rows != 5 || *a.Values["Value"] != 4 {
		t.Errorf("a is %+v", a)
	}
	w.commit(t, noon+9*second, nil, row{"a", noon + 9*second, 9})
	s.Look(t.Context())
	if a := only(t, s, "a"); a.Rows != 6 || *a.Values["Value"] != 9 {
		t.Errorf("then a is %+v", a)
	}
}

// TestClocksOfSome: if a commit doesn't name all clocks that are off, a sensor that it doesn't name keeps what was told of its
// clock, until that is ten minutes older than the newest row.
func TestClocksOfSome(t *testing.T) {
	t.Parallel()
	s := newState()
	row := func(at fleetscore.Micros, all bool) bool {
		s.take(&fleetscore.Rows{Keys: []fleetscore.Key{"a"}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{at}}, all, nil, &sync.Mutex{})
		return s.is(0, &Query{Skewed: time.Second})
	}
	tell := func(at fleetscore.Micros) {
		s.clocks([]table.Clock{{Key: []string{"a"}, Time: at - 60*second, Arrived: at}})
	}
	row(noon, true)
	tell(noon)
	if !row(noon+60*second, false) {
		t.Error("a commit that tells nothing of the clock made it right")
	}
	if row(noon+700*second, false) {
		t.Error("what was told of a clock is forgotten never")
	}
	tell(noon + 700*second)
	if row(noon+760*second, true) {
		t.Error("a commit that names all clocks and not this one left it wrong")
	}
}

// TestClockStaysOff: while a commit is taken that names a clock that is off, as the one before did, the clock isn't right for a moment.
func TestClockStaysOff(t *testing.T) {
	t.Parallel()
	s := newState()
	off := []table.Clock{{Key: []string{"a"}, Time: noon - 60*second, Arrived: noon}}
	take := func(at fleetscore.Micros, off []table.Clock) {
		s.take(&fleetscore.Rows{Keys: []fleetscore.Key{"a"}, KeyIndex: []uint32{0}, Times: []fleetscore.Micros{at}}, true, offOf(off), &sync.Mutex{})
	}
	take(noon, off)
	s.clocks(off)
	if take(noon+60*second, off); !s.is(0, &Query{Skewed: time.Second}) {
		t.Error("the clock is right until the whole commit was taken")
	}
	if take(noon+120*second, nil); s.is(0, &Query{Skewed: time.Second}) {
		t.Error("a commit that doesn't name the clock left it wrong")
	}
}
