package window

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
)

var config = Config{Window: 5 * time.Second, Disorder: 2 * time.Second, IdleAfter: 4 * time.Second, MaxEarly: time.Minute, GoneAfter: 20 * time.Second,
	Aggregates: []Aggregate{{"avg", "v"}, {"sum", "v"}, {"min", "v"}, {"max", "v"}, {"count", "v"}, {"count", ""}}}

// hopping has windows of 12 s that end every 5 s, so that readings are in two or three.
var hopping = Config{Window: 12 * time.Second, Hop: 5 * time.Second, Disorder: config.Disorder, IdleAfter: config.IdleAfter, MaxEarly: config.MaxEarly, GoneAfter: config.GoneAfter,
	Aggregates: config.Aggregates}

func drawConfig(rt *rapid.T) Config {
	if rapid.Bool().Draw(rt, "hopping") {
		return hopping
	}
	return config
}

const second = fleetscore.Micros(1e6)

// message is a message of the log; without readings it is a tick.
type logged struct {
	source   fleetscore.Source
	arrived  fleetscore.Micros
	unsure   fleetscore.Micros
	readings []reading
}

type reading struct {
	key  fleetscore.Key
	time fleetscore.Micros
	v    float64
}

type row struct {
	end    fleetscore.Micros
	key    fleetscore.Key
	values [6]float64
}

func (m logged) columns() *fleetscore.Readings {
	r := &fleetscore.Readings{Columns: []fleetscore.ReadingColumn{{Name: "v"}}}
	for i, x := range m.readings {
		r.Keys = append(r.Keys, x.key)
		r.KeyIndex = append(r.KeyIndex, uint32(i))
		r.Times = append(r.Times, x.time)
		r.Columns[0].Numbers = append(r.Columns[0].Numbers, x.v)
	}
	return r
}

func feed(p *Partition, seq uint64, m logged, verdict func(int, Verdict)) {
	s := Stamp{Seq: seq, Source: m.source, Arrived: m.arrived, Unsure: m.unsure}
	if len(m.readings) == 0 {
		p.Tick(s)
		return
	}
	p.Readings(s, m.columns(), nil, verdict)
}

func rowsOf(r *fleetscore.Rows) []row {
	var out []row
	for i := range r.Times {
		x := row{end: r.Times[i], key: r.Keys[r.KeyIndex[i]]}
		for c := range r.Values {
			x.values[c] = r.Values[c][i]
		}
		out = append(out, x)
	}
	return out
}

// twin is a slow and obvious implementation: it keeps every counted reading,
// calculates the watermark each time from all messages, and sums at the end.
func twin(log []logged, size fleetscore.Micros) (rows []row, verdicts []Verdict) {
	const never = fleetscore.Micros(math.MinInt64)
	type sign struct {
		source  fleetscore.Source
		arrived fleetscore.Micros
		mark    fleetscore.Micros // never means that it moves nothing
	}
	var signs []sign
	watermark, shown := never, never // calculated from all signs, and as shown, which never goes back
	look := func() {
		marks, arrived, last, clock := map[fleetscore.Source]fleetscore.Micros{}, map[fleetscore.Source]fleetscore.Micros{}, map[fleetscore.Source]fleetscore.Micros{}, never
		for _, s := range signs {
			old, marked := marks[s.source]
			if marked {
				last[s.source] = max(last[s.source]+min(max(s.arrived-arrived[s.source], 0), 12*second), clock-12*second)
				arrived[s.source] = max(arrived[s.source], s.arrived)
				clock = max(clock, last[s.source])
			} else {
				if len(marks) == 0 {
					clock = s.arrived
				}
				arrived[s.source], last[s.source] = s.arrived, clock
			}
			if s.mark != never && (!marked || s.mark > old) {
				marks[s.source] = s.mark
			}
		}
		watermark = never
		for s, m := range marks {
			if clock-last[s] <= 20*second && (watermark == never || m < watermark) {
				watermark = m
			}
		}
		shown = max(shown, watermark)
	}
	var kept []reading
	for _, m := range log {
		signs = append(signs, sign{m.source, m.arrived, never}) // the arrival by itself may show that other sources are gone
		look()
		if len(m.readings) == 0 {
			signs = append(signs, sign{m.source, m.arrived, m.arrived - 4*second})
			look()
		}
		for _, x := range m.readings {
			end := fleetscore.Micros(math.Ceil(float64(x.time)/5e6)) * 5 * second
			switch {
			case x.time > m.arrived+m.unsure+60*second:
				verdicts = append(verdicts, Early)
				continue
			case end <= shown:
				verdicts = append(verdicts, Late)
				continue
			case slices.Contains(kept, x):
				verdicts = append(verdicts, Repeat)
			default:
				verdicts = append(verdicts, Counted)
				kept = append(kept, x)
			}
			signs = append(signs, sign{m.source, m.arrived, min(x.time, m.arrived) - 2*second})
			look()
		}
	}
	groups := map[row][]float64{}
	for _, x := range kept {
		for end := 5 * second; end <= shown; end += 5 * second {
			if x.time > end-size && x.time <= end {
				g := row{end: end, key: x.key}
				groups[g] = append(groups[g], x.v)
			}
		}
	}
	for g, vs := range groups {
		sum := 0.0
		for _, v := range vs {
			sum += v
		}
		g.values = [6]float64{sum / float64(len(vs)), sum, slices.Min(vs), slices.Max(vs), float64(len(vs)), float64(len(vs))}
		rows = append(rows, g)
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Or(cmp.Compare(a.end, b.end), cmp.Compare(a.key, b.key)) })
	return rows, verdicts
}

func drawLog(rt *rapid.T) []logged {
	now := 1000 * second
	skew := map[fleetscore.Source]fleetscore.Micros{} // of the clocks by which messages arrive
	for _, source := range []fleetscore.Source{"http", "mqtt", "kafka"} {
		skew[source] = fleetscore.Micros(rapid.SampledFrom([]int{0, 0, 1, -3, 100}).Draw(rt, "skew")) * second
	}
	var log []logged
	for range rapid.IntRange(1, 30).Draw(rt, "messages") {
		now += fleetscore.Micros(rapid.SampledFrom([]int{0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 30}).Draw(rt, "pause")) * second
		source := rapid.SampledFrom([]fleetscore.Source{"http", "http", "mqtt", "kafka"}).Draw(rt, "source")
		m := logged{source: source, arrived: now + skew[source],
			unsure: fleetscore.Micros(rapid.SampledFrom([]int{0, 0, 0, 300}).Draw(rt, "unsure")) * second}
		for range rapid.IntRange(0, 6).Draw(rt, "readings") {
			ago := rapid.SampledFrom([]int{0, 0, 1, 1, 2, 3, 5, 8, 30, -1, -30, -100, -500}).Draw(rt, "ago")
			m.readings = append(m.readings, reading{fleetscore.Key(fmt.Sprint(rapid.IntRange(0, 2).Draw(rt, "key"))),
				now - fleetscore.Micros(ago)*second, float64(rapid.IntRange(0, 2).Draw(rt, "v")) / 3})
		}
		log = append(log, m)
	}
	return log
}

func TestAgainstTwin(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		log, cfg := drawLog(rt), drawConfig(rt)
		p := New(cfg)
		var rows []row
		var verdicts []Verdict
		for i, m := range log {
			feed(p, uint64(i+1), m, func(_ int, v Verdict) { verdicts = append(verdicts, v) })
			if w, ok := p.Watermark(); ok && rapid.Bool().Draw(rt, "close") { // the time of closing makes no difference
				rows = append(rows, rowsOf(p.Close(w))...)
			}
		}
		if w, ok := p.Watermark(); ok {
			rows = append(rows, rowsOf(p.Close(w))...)
		}
		wantRows, wantVerdicts := twin(log, micros(cfg.Window))
		if d := gocmp.Diff(wantVerdicts, verdicts); d != "" {
			rt.Fatalf("verdicts (-want +got):\n%s", d)
		}
		if d := gocmp.Diff(wantRows, rows, gocmp.AllowUnexported(row{})); d != "" {
			rt.Fatalf("rows (-want +got):\n%s", d)
		}
	})
}

// TestReplay crashes after any message and starts again from the last checkpoint:
// rows and verdicts are those of a run without a crash.
func TestReplay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		log, cfg := drawLog(rt), drawConfig(rt)
		cut := rapid.SampledFrom([]fleetscore.Micros{5 * second, 10 * second, 20 * second}).Draw(rt, "cut")
		var rows []row
		verdicts := map[string]Verdict{} // committed ones, by message and place
		p, last, have := New(cfg), Checkpoint{Done: unset}, false
		pending := map[string]Verdict{}
		crashes := 5
		for seq := uint64(1); seq <= uint64(len(log)); seq++ {
			if crashes > 0 && rapid.IntRange(0, 4).Draw(rt, "crash") == 0 {
				crashes--
				p, pending, seq = New(cfg), map[string]Verdict{}, 1
				if have {
					p.Resume(last)
					seq = last.ReplayFrom
				}
				if seq > uint64(len(log)) {
					break
				}
			}
			feed(p, seq, log[seq-1], func(i int, v Verdict) {
				if v != Done && seq > last.Position {
					pending[fmt.Sprint(seq, "/", i)] = v
				}
			})
			w, ok := p.Watermark()
			done := w / cut * cut
			if !ok || seq <= last.Position || have && done <= last.Done || rapid.Bool().Draw(rt, "later") {
				continue
			}
			rows = append(rows, rowsOf(p.Close(done))...)
			for k, v := range pending {
				verdicts[k] = v
			}
			pending = map[string]Verdict{}
			last, have = p.Checkpoint(seq, done), true
		}
		wantAll, _ := twin(log, micros(cfg.Window))
		var want []row
		for _, r := range wantAll {
			if have && r.end <= last.Done {
				want = append(want, r)
			}
		}
		if d := gocmp.Diff(want, rows, gocmp.AllowUnexported(row{}), cmpopts.EquateEmpty()); d != "" {
			rt.Fatalf("rows (-want +got):\n%s", d)
		}
		_, flat := twin(log[:last.Position], micros(cfg.Window))
		at := 0
		for s, m := range log[:last.Position] {
			for i := range m.readings {
				if got := verdicts[fmt.Sprint(s+1, "/", i)]; got != flat[at] {
					rt.Fatalf("reading %d of message %d: got %s, want %s", i, s+1, got, flat[at])
				}
				at++
			}
		}
	})
}

func TestIDsAndTexts(t *testing.T) {
	t.Parallel()
	cfg := config
	cfg.Aggregates = []Aggregate{{"count", ""}, {"count", "s"}, {"max", "s"}}
	p := New(cfg)
	r := &fleetscore.Readings{Keys: []fleetscore.Key{"k"}, KeyIndex: make([]uint32, 4), Times: []fleetscore.Micros{second, second, second, second},
		IDs:     []string{"a", "b", "a", ""},
		Columns: []fleetscore.ReadingColumn{{Name: "s", Strings: []string{"x", "x", "y", "x"}, Present: []bool{true, true, true, false}}}}
	var got []Verdict
	p.Readings(Stamp{Seq: 1, Source: "http", Arrived: 2 * second}, r, []bool{true, true, true, false}, func(_ int, v Verdict) { got = append(got, v) })
	if d := gocmp.Diff([]Verdict{Counted, Counted, Repeat, Filtered}, got); d != "" {
		t.Errorf("verdicts (-want +got):\n%s", d)
	}
	p.Tick(Stamp{Seq: 2, Source: "http", Arrived: 10 * second})
	rows := p.Close(5 * second)
	if rows.Len() != 1 || rows.Values[0][0] != 2 || rows.Values[1][0] != 2 || !math.IsNaN(rows.Values[2][0]) {
		t.Errorf("rows: %+v", rows)
	}
}

func TestManyReadingsInACell(t *testing.T) {
	t.Parallel()
	p := New(config)
	for round := range 2 { // the second sends everything again
		for i := range 100 {
			feed(p, uint64(round*100+i+1), logged{source: "http", arrived: second, readings: []reading{{"k", fleetscore.Micros(i + 1), 1}}},
				func(_ int, v Verdict) {
					if (v == Repeat) != (round == 1) {
						t.Errorf("round %d, reading %d: %s", round, i, v)
					}
				})
		}
	}
}

// TestOneClockAhead: the readings of a device whose clock is 290 s ahead are counted
// in their windows and don't make other devices' readings late, neither at once nor
// when the device falls silent.
func TestOneClockAhead(t *testing.T) {
	t.Parallel()
	cfg := config
	cfg.MaxEarly = 5 * time.Minute
	p := New(cfg)
	seq := uint64(0)
	for now := 1000 * second; now < 1400*second; now += second {
		seq++
		m := logged{source: "http", arrived: now, readings: []reading{{"honest", now - second, 1}}}
		if now < 1100*second {
			m.readings = slices.Insert(m.readings, 0, reading{"ahead", now + 290*second, 1})
		}
		feed(p, seq, m, func(i int, v Verdict) {
			if v != Counted {
				t.Errorf("at %s reading %d of %d is %s", now, i, len(m.readings), v)
			}
		})
		if w, _ := p.Watermark(); w > now-2*second {
			t.Fatalf("at %s the watermark is %s: beyond arrival minus disorder", now, w)
		}
	}
}

// TestLateMovesNothing: a source whose readings are all late or ahead neither moves
// the watermark nor holds it back.
func TestLateMovesNothing(t *testing.T) {
	t.Parallel()
	p := New(config)
	feed(p, 1, logged{source: "http", arrived: 1000 * second}, nil)
	feed(p, 2, logged{source: "mqtt", arrived: 1001 * second, readings: []reading{{"a", 100 * second, 1}, {"a", 2000 * second, 1}}},
		func(i int, v Verdict) {
			if want := []Verdict{Late, Early}[i]; v != want {
				t.Errorf("reading %d is %s, want %s", i, v, want)
			}
		})
	feed(p, 3, logged{source: "http", arrived: 1010 * second}, nil)
	if w, _ := p.Watermark(); w != 1006*second {
		t.Errorf("watermark %s, want that of the tick of http, 4 s before its arrival", w)
	}
}

// TestLeastOfSources: ticks apply to their source alone, until the source is gone.
func TestLeastOfSources(t *testing.T) {
	t.Parallel()
	p := New(config)
	for i, step := range []struct {
		source         fleetscore.Source
		arrived        fleetscore.Micros
		want           fleetscore.Micros
		readingSeconds fleetscore.Micros // 0: a tick
	}{
		{"mqtt", 1000, 998, 1000},
		{"http", 1005, 998, 0}, // mqtt sent nothing
		{"http", 1015, 998, 0},
		{"http", 1025, 998, 0},
		{"http", 1026, 1022, 0}, // mqtt was silent for more than 20 s in which http worked
		{"mqtt", 1027, 1022, 1024},
		{"http", 1028, 1022, 0}, // mqtt is at 1022 again
		{"mqtt", 1029, 1024, 0},
	} {
		m := logged{source: step.source, arrived: step.arrived * second}
		if step.readingSeconds > 0 {
			m.readings = []reading{{"k", step.readingSeconds * second, 1}}
		}
		feed(p, uint64(i+1), m, func(int, Verdict) {})
		if w, _ := p.Watermark(); w != step.want*second {
			t.Errorf("after step %d the watermark is %s, want %s", i, w, step.want*second)
		}
	}
}

// TestGoneAsAnotherBegins: a source that is gone no longer holds the watermark, even
// if the message that shows it is an early one.
func TestGoneAsAnotherBegins(t *testing.T) {
	t.Parallel()
	p := New(config)
	feed(p, 1, logged{source: "mqtt", arrived: 1002 * second}, nil)
	feed(p, 2, logged{source: "http", arrived: 1003 * second}, nil)
	feed(p, 3, logged{source: "http", arrived: 1013 * second}, nil)
	if w, _ := p.Watermark(); w != 998*second {
		t.Fatalf("watermark %s, want that of mqtt, which was silent for 10 s", w)
	}
	var got []Verdict
	feed(p, 4, logged{source: "http", arrived: 1024 * second, readings: []reading{{"k", 2000 * second, 1}, {"k", 1009 * second, 1}, {"k", 1005 * second, 1}}}, func(_ int, v Verdict) { got = append(got, v) })
	if w, _ := p.Watermark(); w != 1009*second || !slices.Equal(got, []Verdict{Early, Counted, Late}) {
		t.Errorf("watermark %s and verdicts %v, want that of the last tick of http", w, got)
	}
}

// TestNoSourceGoneByAnOutage: while nobody can write to the log, no source becomes silent.
// The first one that writes again doesn't move the watermark past the others.
func TestNoSourceGoneByAnOutage(t *testing.T) {
	t.Parallel()
	p := New(config)
	feed(p, 1, logged{source: "http@a", arrived: 1000 * second}, nil)
	feed(p, 2, logged{source: "http@b", arrived: 1001 * second}, nil)
	feed(p, 3, logged{source: "http@a", arrived: 5000 * second}, nil)
	if w, _ := p.Watermark(); w != 997*second {
		t.Errorf("watermark %s after an outage, want that of b, whose devices may still have readings", w)
	}
	feed(p, 4, logged{source: "http@b", arrived: 5001 * second, readings: []reading{{"k", 1002 * second, 1}}}, func(_ int, v Verdict) {
		if v != Counted {
			t.Errorf("the reading that waited during the outage is %s", v)
		}
	})
}

// TestWrongClockOfAServer: a server whose clock is ahead harms neither the watermark of
// the others nor makes them seem silent.
func TestWrongClockOfAServer(t *testing.T) {
	t.Parallel()
	p := New(config)
	seq := uint64(0)
	for i := range fleetscore.Micros(30) {
		for _, m := range []logged{{source: "http@a", arrived: (1000 + 3*i) * second}, {source: "http@b", arrived: (9000 + 3*i) * second}} {
			seq++
			feed(p, seq, m, nil)
			if w, _ := p.Watermark(); w != (996+3*i)*second {
				t.Fatalf("watermark %s after message %d, want that of a", w, seq)
			}
		}
	}
}

// TestOverflow: a sum that is too large for a 64-bit number is missing, and so is its
// average.
func TestOverflow(t *testing.T) {
	t.Parallel()
	p := New(config)
	feed(p, 1, logged{source: "http", arrived: second, readings: []reading{{"k", 1, 1.5e308}, {"k", 2, 1.5e308}, {"n", 1, -1.5e308}, {"n", 2, -1.5e308}}}, func(int, Verdict) {})
	feed(p, 2, logged{source: "http", arrived: 100 * second}, nil)
	for _, r := range rowsOf(p.Close(5 * second)) {
		for i, v := range r.values {
			if missing := i < 2; math.IsInf(v, 0) || math.IsNaN(v) != missing {
				t.Errorf("%s of key %s is %v", config.Aggregates[i].Func, r.key, v)
			}
		}
	}
}

// TestMemory: the data that recognises repeats is freed as soon as a window is over,
// not only when its rows are taken; and the estimate returns to zero.
func TestMemory(t *testing.T) {
	t.Parallel()
	p := New(config)
	for i := range 1000 {
		feed(p, uint64(i+1), logged{source: "http", arrived: second, readings: []reading{{"k", fleetscore.Micros(i + 1), 1}}}, func(int, Verdict) {})
	}
	open, _ := p.HeldBytes()
	if open < 16*1000 {
		t.Errorf("1,000 readings of an open window are said to take %d bytes", open)
	}
	feed(p, 2000, logged{source: "http", arrived: 100 * second}, nil)
	if open, n := p.HeldBytes(); open != 0 || n == 0 || n > 200 || p.OpenWindows() != 1 {
		t.Errorf("once its window is over a key takes %d bytes in %d windows", n, p.OpenWindows())
	}
	p.Close(5 * second)
	if open, over := p.HeldBytes(); open != 0 || over != 0 {
		t.Errorf("%d and %d bytes are held after all windows were closed", open, over)
	}
}

// TestCommittedStaysClosed: if the log ends before the committed position, the
// watermark is lower than the end of the closed windows. A new reading of a closed
// window is late, whatever the watermark.
func TestCommittedStaysClosed(t *testing.T) {
	t.Parallel()
	const second = fleetscore.Micros(1e6)
	p := New(Config{Window: 5 * time.Second, IdleAfter: time.Second, MaxEarly: time.Minute, GoneAfter: time.Hour, Aggregates: []Aggregate{{Func: "count"}}})
	p.Resume(Checkpoint{Position: 5, Done: 100 * second, ReplayFrom: 5, Watermark: 80 * second})
	var got []Verdict
	take := func(seq uint64, times ...fleetscore.Micros) {
		r := &fleetscore.Readings{Keys: []fleetscore.Key{"a"}, KeyIndex: make([]uint32, len(times)), Times: times}
		p.Readings(Stamp{Seq: seq, Source: "http", Arrived: 200 * second}, r, nil, func(_ int, v Verdict) { got = append(got, v) })
	}
	take(5, 85*second)
	take(6, 93*second, 101*second)
	if want := []Verdict{Done, Late, Counted}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestNumbersAndTexts: if a column is sent as numbers and as texts, calculations use
// the numbers and a count uses both.
func TestNumbersAndTexts(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		all := []fleetscore.ReadingColumn{{Name: "v", Numbers: []float64{3, nan, nan}}, {Name: "v", Strings: []string{"", "x", ""}, Present: []bool{false, true, false}}}
		r := &fleetscore.Readings{Keys: []fleetscore.Key{"a"}, KeyIndex: []uint32{0, 0, 0}, Times: []fleetscore.Micros{1e6, 1e6, 1e6},
			Columns: []fleetscore.ReadingColumn{all[order[0]], all[order[1]]}}
		p := New(config)
		p.Readings(Stamp{Seq: 1, Source: "http", Arrived: 1e6}, r, nil, func(_ int, v Verdict) {
			if v != Counted {
				t.Errorf("a reading is %v", v)
			}
		})
		p.Tick(Stamp{Seq: 2, Source: "http", Arrived: 100e6})
		rows := p.Close(5e6)
		var got []float64
		for _, v := range rows.Values {
			got = append(got, v[0])
		}
		if want := []float64{3, 3, 3, 3, 2, 3}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// TestSpread: variances and standard deviations of a sample and of the population. Those
// of a sample of one are missing.
func TestSpread(t *testing.T) {
	t.Parallel()
	cfg := config
	cfg.Aggregates = []Aggregate{{"stdev", "v"}, {"stdevp", "v"}, {"var", "v"}, {"varp", "v"}}
	p := New(cfg)
	var list []reading
	for i, v := range []float64{1, 2, 2, 5} {
		list = append(list, reading{"k", fleetscore.Micros(i + 1), v})
	}
	feed(p, 1, logged{source: "http", arrived: second, readings: append(list, reading{"one", 1, 7})}, func(int, Verdict) {})
	feed(p, 2, logged{source: "http", arrived: 100 * second}, nil)
	rows := p.Close(5 * second)
	want := map[fleetscore.Key][]float64{"k": {math.Sqrt(3), 1.5, 3, 2.25}, "one": {math.NaN(), 0, math.NaN(), 0}}
	for i := range rows.Times {
		for c, w := range want[rows.Keys[rows.KeyIndex[i]]] {
			if got := rows.Values[c][i]; math.Abs(got-w) > 1e-12 || math.IsNaN(got) != math.IsNaN(w) {
				t.Errorf("%s of key %s is %v, want %v", cfg.Aggregates[c].Func, rows.Keys[rows.KeyIndex[i]], got, w)
			}
		}
	}
	if len(rows.Times) != len(want) {
		t.Errorf("%d rows", len(rows.Times))
	}
}
