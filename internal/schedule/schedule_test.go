package schedule

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
)

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, "2026-11-23T"+s+"Z")
	if err != nil {
		panic(err)
	}
	return t
}

func TestDecide(t *testing.T) {
	t.Parallel()
	hourly := fleetscore.ScheduleConfig{Cron: "0 * * * *"}
	created := State{Created: at("09:20:30")}
	for _, tt := range []struct {
		name     string
		c        fleetscore.ScheduleConfig
		s        State
		now      time.Time
		from, to string // empty: nothing is due
		wake     time.Time
		n        int
	}{
		{"no schedule", fleetscore.ScheduleConfig{}, created, at("12:00:00"), "", "", time.Time{}, 0},
		{"not yet", hourly, created, at("09:59:59"), "", "", at("10:00:00"), 0},
		{"first", hourly, created, at("10:00:00"), "09:00:00", "10:00:00", at("11:00:00"), 1},
		{"first with backfill", fleetscore.ScheduleConfig{Cron: "0 * * * *", Backfill: fleetscore.Duration(10 * time.Minute)}, created,
			at("10:00:01"), "09:10:30", "10:00:00", at("11:00:00"), 1},
		{"missed ones are one job", hourly, created, at("13:30:00"), "09:00:00", "13:00:00", at("14:00:00"), 4},
		{"next starts where the last ended", hourly, State{Created: at("01:00:00"), LastDue: at("10:00:00"), NextFrom: at("10:00:00")},
			at("11:00:00"), "10:00:00", "11:00:00", at("12:00:00"), 1},
		{"the clock went back", hourly, State{Created: at("01:00:00"), LastDue: at("10:00:00"), NextFrom: at("10:00:00")}, at("09:00:00"), "", "", at("11:00:00"), 0},
	} {
		d, err := Decide(tt.c, "p", tt.s, nil, tt.now)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if len(d.Occurrences) != tt.n || !d.Wake.Equal(tt.wake) || (d.Interval == nil) != (tt.from == "") {
			t.Errorf("%s: got %+v", tt.name, d)
			continue
		}
		if d.Interval != nil && (!d.Interval.From.Equal(at(tt.from)) || !d.Interval.To.Equal(at(tt.to)) || !d.Next.NextFrom.Equal(at(tt.to))) {
			t.Errorf("%s: interval %s, next %+v; want (%s, %s]", tt.name, d.Interval, d.Next, tt.from, tt.to)
		}
		for i, o := range d.Occurrences {
			if (o.State == fleetscore.OccurrenceRan) != (i == tt.n-1) {
				t.Errorf("%s: occurrence %d of %d is %s", tt.name, i, tt.n, o.State)
			}
		}
	}
}

// TestIntervalsJoin: whenever Decide is called, intervals follow one another and every
// due time is decided once.
func TestIntervalsJoin(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		c := fleetscore.ScheduleConfig{Cron: rapid.SampledFrom([]string{"* * * * *", "*/7 * * * *", "0 */3 * * *", "30 2 * * 1"}).Draw(rt, "cron")}
		now := at("09:20:30")
		s := State{Created: now}
		decided := map[time.Time]bool{}
		var end time.Time
		for range rapid.IntRange(1, 20).Draw(rt, "asks") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(60*time.Hour)).Draw(rt, "pause")))
			d, err := Decide(c, "p", s, nil, now)
			if err != nil {
				rt.Fatal(err)
			}
			for _, o := range d.Occurrences {
				if decided[o.Due] || o.Due.After(now) {
					rt.Fatalf("%s was decided twice or early", o.Due)
				}
				decided[o.Due] = true
			}
			if d.Interval != nil {
				if d.Interval.Validate() != nil || !end.IsZero() && !d.Interval.From.Equal(end) {
					rt.Fatalf("interval %s doesn't follow %s", d.Interval, end)
				}
				end = d.Interval.To
			}
			s = d.Next
		}
	})
}

func TestOccurrencesCoveredAlreadyAreSkipped(t *testing.T) {
	t.Parallel()
	created := time.Date(2026, 11, 23, 9, 20, 0, 0, time.UTC)
	ahead := created.Add(100 * time.Minute) // 11:00
	s := State{Created: created, NextFrom: ahead}
	d, err := Decide(fleetscore.ScheduleConfig{Cron: "0 * * * *"}, "p", s, nil, created.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Occurrences) != 1 || d.Occurrences[0].State != fleetscore.OccurrenceSkipped || d.Interval != nil || !d.Next.NextFrom.Equal(ahead) {
		t.Errorf("Decide = %+v, want 10:00 skipped and no job", d)
	}
	if !d.Wake.Equal(ahead) {
		t.Errorf("it wakes at %s, want %s", d.Wake, ahead)
	}
}

// TestJitter: a job starts later, by an amount that is the same for everyone who asks
// and differs between pipelines; its interval stays as it is.
func TestJitter(t *testing.T) {
	t.Parallel()
	c := fleetscore.ScheduleConfig{Cron: "0 * * * *", Jitter: fleetscore.Duration(10 * time.Minute)}
	s := State{Created: at("09:20:30")}
	starts := map[time.Time]bool{}
	for _, pipeline := range []string{"a", "b", "c", "d", "e"} {
		early, err := Decide(c, pipeline, s, nil, at("10:00:00"))
		if err != nil || len(early.Occurrences) != 0 || !early.Wake.After(at("10:00:00")) || early.Wake.After(at("10:10:00")) {
			t.Fatalf("%s: %+v, %v; want nothing until 10:10 at the latest", pipeline, early, err)
		}
		starts[early.Wake] = true
		again, err := Decide(c, pipeline, s, nil, early.Wake.Add(-1))
		if err != nil || !again.Wake.Equal(early.Wake) || len(again.Occurrences) != 0 {
			t.Errorf("%s: asked again it starts at %s, not at %s", pipeline, again.Wake, early.Wake)
		}
		d, err := Decide(c, pipeline, s, nil, early.Wake)
		if err != nil || d.Interval == nil || !d.Interval.From.Equal(at("09:00:00")) || !d.Interval.To.Equal(at("10:00:00")) || !d.Occurrences[0].Due.Equal(at("10:00:00")) {
			t.Errorf("%s: %+v, %v; want the interval from 9 to 10", pipeline, d, err)
		}
	}
	if len(starts) < 4 {
		t.Errorf("five pipelines start at %d times", len(starts))
	}
}

// TestTriggerWithinJitter: a trigger's job covers a due time whose jitter isn't over, so
// that this due time gets its outcome too; if so many due times wait that not all are
// decided at once, the trigger is refused.
func TestTriggerWithinJitter(t *testing.T) {
	t.Parallel()
	c := fleetscore.ScheduleConfig{Cron: "0 * * * *", Jitter: fleetscore.Duration(time.Hour)}
	s := State{Created: at("09:20:30"), LastDue: at("10:00:00"), NextFrom: at("10:00:00")}
	d, err := Trigger(c, "p", s, nil, at("11:00:00").Add(time.Second))
	if err != nil || len(d.Occurrences) != 2 || !d.Occurrences[0].Due.Equal(at("11:00:00")) || d.Occurrences[0].State != fleetscore.OccurrenceCoalesced {
		t.Errorf("%+v, %v; want that 11:00 is coalesced", d.Occurrences, err)
	}
	s.LastDue, s.NextFrom = s.LastDue.AddDate(0, -2, 0), s.NextFrom.AddDate(0, -2, 0)
	if d, err := Trigger(c, "p", s, nil, at("12:20:00")); !fleetscore.Conflict.Is(err) {
		t.Errorf("after two months: %d outcomes, %v; want conflict", len(d.Occurrences), err)
	}
}

// TestTrigger: a trigger's job covers due times that wait; it takes the place of a job
// or stands beside it only where the schedule says so.
func TestTrigger(t *testing.T) {
	t.Parallel()
	s := State{Created: at("09:20:30"), LastDue: at("10:00:00"), NextFrom: at("10:00:00"), Queued: at("11:00:00"), Paused: at("11:30:00")}
	running := []fleetscore.Job{{ID: "j", Interval: fleetscore.Interval{From: at("09:00:00"), To: at("10:00:00")}, State: fleetscore.JobRunning}}
	committing := []fleetscore.Job{{ID: "j", Interval: running[0].Interval, State: fleetscore.JobCommitting}}
	for _, tt := range []struct {
		name    string
		overlap fleetscore.Overlap
		active  []fleetscore.Job
		now     string
		from    string // empty: it is refused
		cancels int
	}{
		{"free", "", nil, "12:20:00", "10:00:00", 0},
		{"at a due time", "", nil, "12:00:00", "10:00:00", 0},
		{"busy", "", running, "12:20:00", "", 0},
		{"skip", fleetscore.OverlapSkip, running, "12:20:00", "", 0},
		{"queue_all", fleetscore.OverlapQueueAll, running, "12:20:00", "", 0},
		{"replace", fleetscore.OverlapReplace, running, "12:20:00", "09:00:00", 1},
		{"replace while it commits", fleetscore.OverlapReplace, committing, "12:20:00", "", 0},
		{"allow", fleetscore.OverlapAllow, running, "12:20:00", "10:00:00", 0},
		{"covered", "", nil, "10:00:00", "", 0},
	} {
		now := at(tt.now)
		d, err := Trigger(fleetscore.ScheduleConfig{Cron: "0 * * * *", Overlap: tt.overlap}, "p", s, tt.active, now)
		if tt.from == "" {
			if !fleetscore.Conflict.Is(err) {
				t.Errorf("%s: %+v, %v; want conflict", tt.name, d, err)
			}
			continue
		}
		if err != nil || d.Interval == nil || !d.Interval.From.Equal(at(tt.from)) || !d.Interval.To.Equal(now) || len(d.Cancel) != tt.cancels || !d.Next.LastDue.Equal(now) || !d.Next.NextFrom.Equal(now) {
			t.Errorf("%s: %+v, %v", tt.name, d, err)
			continue
		}
		for i, o := range d.Occurrences { // 11:00, 12:00 and now
			if ran := i == len(d.Occurrences)-1; ran != (o.State == fleetscore.OccurrenceRan) || ran && !o.Due.Equal(now) || !ran && o.State != fleetscore.OccurrenceCoalesced {
				t.Errorf("%s: outcomes %+v", tt.name, d.Occurrences)
			}
		}
		if want := map[bool]int{true: 2, false: 3}[tt.now == "12:00:00"]; len(d.Occurrences) != want {
			t.Errorf("%s: %d outcomes, want %d", tt.name, len(d.Occurrences), want)
		}
	}
}
