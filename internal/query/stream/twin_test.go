package stream

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// The twin computes what a query gives from the definitions of windows and policies, over
// all events at once and instant by instant. It shares no code with the runner. Its times
// are whole seconds.

// fact is one event: its time, its arrival, a key and a number.
type fact struct {
	at, arrived int
	key         string
	number      int
	stamp       int // System.Timestamp(), once it is known
}

// spec is a window and a policy.
type spec struct {
	kind                           string
	size, hop, offset, timeout, to int
	perKey                         bool // sessions per key
	late, disorder, early          int
	drop, over, filter             bool
}

func drawSpec(t *rapid.T) spec {
	s := spec{kind: rapid.SampledFrom([]string{"tumbling", "hopping", "sliding", "session", "snapshot"}).Draw(t, "kind"),
		size: rapid.IntRange(1, 12).Draw(t, "size"), hop: rapid.IntRange(1, 14).Draw(t, "hop"), offset: rapid.IntRange(-3, 3).Draw(t, "offset"),
		timeout: rapid.IntRange(1, 6).Draw(t, "timeout"), to: rapid.IntRange(1, 15).Draw(t, "to"), perKey: rapid.Bool().Draw(t, "perKey"),
		late: rapid.IntRange(0, 10).Draw(t, "late"), disorder: rapid.IntRange(0, 6).Draw(t, "disorder"), early: rapid.IntRange(0, 6).Draw(t, "early"),
		drop: rapid.Bool().Draw(t, "drop"), over: rapid.Bool().Draw(t, "over"), filter: rapid.Bool().Draw(t, "filter")}
	if s.kind == "tumbling" {
		s.hop = s.size
	}
	return s
}

func (s spec) query() string {
	window := map[string]string{
		"tumbling": fmt.Sprintf("TumblingWindow(second, %d, %d)", s.size, s.offset),
		"hopping":  fmt.Sprintf("HoppingWindow(Duration(second, %d), Hop(second, %d), Offset(millisecond, %d000))", s.size, s.hop, s.offset),
		"sliding":  fmt.Sprintf("Sliding(second, %d)", s.size),
		"session":  fmt.Sprintf("Session(second, %d, %d)", s.timeout, s.to),
		"snapshot": "System.Timestamp()"}[s.kind]
	if s.kind == "session" && s.perKey {
		window += " OVER (PARTITION BY k)"
	}
	over, where := "", ""
	if s.over {
		over = " OVER k"
	}
	if s.filter {
		where = " WHERE n % 2 = 0"
	}
	return "SELECT DATEDIFF(second, '1970-01-01', System.Timestamp()) AS t, k, COUNT(*) AS c, SUM(n) AS s, MIN(n) AS lo, MAX(n) AS hi, COUNT(DISTINCT n) AS d, FIRST(n) AS f, LAST(n) AS l" +
		" FROM i TIMESTAMP BY at" + over + where + " GROUP BY k, " + window
}

func drawFacts(t *rapid.T) []fact {
	n := rapid.IntRange(0, 25).Draw(t, "events")
	out := make([]fact, n)
	arrived := 100
	for i := range out {
		arrived += rapid.IntRange(0, 5).Draw(t, "gap")
		out[i] = fact{at: arrived + rapid.IntRange(-14, 9).Draw(t, "lag"), arrived: arrived, key: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key"), number: rapid.IntRange(-3, 9).Draw(t, "number")}
	}
	return out
}

// stamped judges each event by all events before it.
func (s spec) stamped(events []fact) (out []fact, verdicts []string) {
	for _, e := range events {
		mark, any := 0, false
		for _, o := range out {
			if !s.over || o.key == e.key {
				if m := min(o.stamp, o.arrived) - s.disorder; !any || m > mark {
					mark, any = m, true
				}
			}
		}
		stamp, verdict := e.at, "on_time"
		if e.at-e.arrived > s.early {
			verdicts = append(verdicts, "early")
			continue
		}
		if e.arrived-stamp > s.late {
			stamp, verdict = e.arrived-s.late, "late"
		}
		dropped := verdict == "late" && s.drop
		if !dropped && any && stamp < mark {
			stamp, verdict = mark, verdict+" disorder"
			dropped = s.drop
		}
		verdicts = append(verdicts, verdict)
		if !dropped {
			e.stamp = stamp
			out = append(out, e)
		}
	}
	return out, verdicts
}

// rows are the rows of the events, which are in the order of time.
func (s spec) rows(events []fact) (out []string) {
	if s.filter {
		events = slices.DeleteFunc(slices.Clone(events), func(e fact) bool { return e.number%2 != 0 })
	}
	add := func(end int, in []fact) {
		for _, key := range []string{"a", "b"} {
			var list []int
			for _, e := range in {
				if e.key == key {
					list = append(list, e.number)
				}
			}
			if len(list) > 0 {
				out = append(out, row(end, key, list))
			}
		}
	}
	between := func(from, to int, key string) (in []fact) {
		for _, e := range events {
			if e.stamp > from && e.stamp <= to && (key == "" || e.key == key) {
				in = append(in, e)
			}
		}
		return in
	}
	const least, most = 0, 400
	for t := least; t < most; t++ {
		switch s.kind {
		case "tumbling", "hopping":
			if (t-s.offset)%s.hop == 0 {
				add(t, between(t-s.size, t, ""))
			}
		case "snapshot":
			add(t, between(t-1, t, ""))
		case "sliding":
			for _, key := range []string{"a", "b"} {
				if len(between(t-1, t, key)) > 0 || len(between(t-1-s.size, t-s.size, key)) > 0 {
					add(t, between(t-s.size, t, key))
				}
			}
		}
	}
	if s.kind == "session" {
		for _, key := range []string{"", "a", "b"} {
			if s.perKey != (key != "") {
				continue
			}
			var open []fact
			start, last, running := 0, 0, false
			for t := least; t < most; t++ {
				for _, e := range between(t-1, t, key) {
					if !running {
						start, running = t, true
					}
					open, last = append(open, e), t
				}
				switch {
				case running && t == last+s.timeout:
					add(t, open)
					open, running = nil, false
				case running && t%s.to == 0 && t-start > s.to:
					add(t, open)
					open, start = nil, t
				}
			}
		}
	}
	return out
}

func row(end int, key string, list []int) string {
	sum, seen := 0, map[int]bool{}
	for _, n := range list {
		sum += n
		seen[n] = true
	}
	return fmt.Sprintf(`{"t":%d,"k":"%s","c":%d,"s":%d,"lo":%d,"hi":%d,"d":%d,"f":%d,"l":%d}`, end, key, len(list), sum, slices.Min(list), slices.Max(list), len(seen), list[0], list[len(list)-1])
}

// run runs the query over events with the policy.
func (s spec) run(t testing.TB, events []fact) (rows, verdicts []string) {
	plan := compile(t, s.query())
	var reader value.Reader
	in := &plan.Inputs[0]
	clock := NewClock(Policy{Late: time.Duration(s.late) * time.Second, Disorder: time.Duration(s.disorder) * time.Second, Early: time.Duration(s.early) * time.Second, Drop: s.drop})
	type stamped struct {
		row *value.Record
		at  fleetscore.Micros
	}
	var all []stamped
	for _, e := range events {
		r, err := reader.Read(fmt.Appendf(nil, `{"at":%q,"k":%q,"n":%d}`, time.Unix(int64(e.at), 0).UTC().Format(time.RFC3339), e.key, e.number))
		if err != nil {
			t.Fatal(err)
		}
		own, ok := in.Stamp(r)
		if !ok {
			t.Fatal("no time")
		}
		at, v := clock.Take(in.Timeline(r), own, fleetscore.Micros(e.arrived)*1e6)
		verdict := "on_time"
		if v.Early {
			verdict = "early"
		} else if v.Late {
			verdict = "late"
		}
		if v.OutOfOrder {
			verdict += " disorder"
		}
		if (v.Outcome == OnTime) != (verdict == "on_time") || (v.Outcome == Dropped) != (verdict != "on_time" && (s.drop || v.Early)) {
			t.Fatalf("the outcome is %v with %+v", v.Outcome, v)
		}
		verdicts = append(verdicts, verdict)
		if v.Outcome != Dropped {
			all = append(all, stamped{r, at})
		}
	}
	slices.SortStableFunc(all, func(a, b stamped) int { return cmp.Compare(a.at, b.at) })
	last := -never
	runner := plan.NewRunner(nil, func(r Row) error {
		if r.Stamp < last {
			t.Fatalf("a row of %v comes after one of %v", r.Stamp, last)
		}
		last = r.Stamp
		rows = append(rows, string(r.Record.AppendJSON(nil)))
		return nil
	})
	for _, e := range all {
		if err := runner.Push(0, e.row, e.at); err != nil {
			t.Fatal(err)
		}
	}
	if err := runner.Flush(); err != nil {
		t.Fatal(err)
	}
	return rows, verdicts
}

func compile(t testing.TB, text string) *Plan {
	script, err := sql.Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	plan, err := Compile(script)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return plan
}

// TestTwin: windows, policies and aggregates agree with the twin on random streams.
func TestTwin(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s, events := drawSpec(rt), drawFacts(rt)
		stamped, wantVerdicts := s.stamped(events)
		sort.SliceStable(stamped, func(i, j int) bool { return stamped[i].stamp < stamped[j].stamp })
		want := s.rows(stamped)
		got, verdicts := s.run(t, events)
		slices.Sort(want)
		slices.Sort(got)
		if d := diff.Diff(wantVerdicts, verdicts); d != "" {
			rt.Fatalf("%+v\n%+v\nverdicts (-want +got):\n%s", s, events, d)
		}
		if d := diff.Diff(want, got); d != "" {
			rt.Fatalf("%s\n%+v\nrows (-want +got):\n%s", s.query(), events, d)
		}
	})
}

// TestHorizon: rows after any time come out the same of the events alone that are no older than the plan's horizon before it. It doesn't hold
// for sessions, see Plan.Sessions.
func TestHorizon(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"tumbling", "hopping", "sliding", "snapshot"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			told := 0 // tries that tell something
			rapid.Check(t, func(rt *rapid.T) {
				s := drawSpec(rt)
				s.kind, s.late, s.disorder, s.over = kind, 1000, 1000, false
				var events []fact
				at := 100
				for range rapid.IntRange(20, 60).Draw(rt, "events") {
					at += rapid.SampledFrom([]int{0, 1, 1, 1, 2, 3, 7}).Draw(rt, "gap")
					events = append(events, fact{at: at, arrived: at, key: rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "key"), number: len(events)})
				}
				after := rapid.IntRange(100, at).Draw(rt, "after")
				first := after - int(compile(t, s.query()).Horizon()/time.Second) + 1
				all, _ := s.run(t, events)
				some, _ := s.run(t, slices.DeleteFunc(slices.Clone(events), func(e fact) bool { return e.at < first }))
				want, got := later(t, all, after), later(t, some, after)
				if d := diff.Diff(want, got); d != "" {
					rt.Fatalf("%s\n%+v\nrows after %d (-of all events +of those from %d on):\n%s", s.query(), events, after, first, d)
				}
				if first > 110 && len(got) > 0 {
					told++
				}
			})
			if told < 10 {
				t.Errorf("only %d tries left events out and had rows", told)
			}
		})
	}
}

// later are the rows with a time after another.
func later(t testing.TB, rows []string, after int) (out []string) {
	for _, r := range rows {
		var at int
		if _, err := fmt.Sscanf(r, `{"t":%d`, &at); err != nil {
			t.Fatal(err)
		}
		if at > after {
			out = append(out, r)
		}
	}
	return out
}

// TestTwinSeesSomething: the random streams hold what the rules are about.
func TestTwinSeesSomething(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for i := range 300 {
		s := rapid.Custom(drawSpec).Example(i)
		stamped, verdicts := s.stamped(rapid.Custom(drawFacts).Example(i))
		for _, v := range verdicts {
			seen[v]++
		}
		if len(s.rows(stamped)) > 0 {
			seen[s.kind]++
		}
	}
	for _, want := range strings.Fields("on_time early late tumbling hopping sliding session snapshot") {
		if seen[want] < 5 {
			t.Errorf("%s: %d times (%v)", want, seen[want], seen)
		}
	}
}
