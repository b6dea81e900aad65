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

func TestDue(t *testing.T) {
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
		d, err := Due(tt.c, "p", tt.s, tt.now)
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

// TestIntervalsJoin: whenever Due is called, intervals follow one another and every
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
			d, err := Due(c, "p", s, now)
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
	d, err := Due(fleetscore.ScheduleConfig{Cron: "0 * * * *"}, "p", s, created.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Occurrences) != 1 || d.Occurrences[0].State != fleetscore.OccurrenceSkipped || d.Interval != nil || !d.Next.NextFrom.Equal(ahead) {
		t.Errorf("Due = %+v, want 10:00 skipped and no job", d)
	}
	if !d.Wake.Equal(ahead) {
		t.Errorf("it wakes at %s, want %s", d.Wake, ahead)
	}
}
