package schedule

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
)

// trigger is a due time that waits.
type trigger struct {
	due     time.Time
	alone   bool // it gets a job of its own
	catchUp bool // it is made up for
}

// ledgerTwin follows a schedule event by event, with a list of what waits, where
// Decide has only times up to which others wait.
type ledgerTwin struct {
	c        fleetscore.ScheduleConfig
	next     time.Time
	paused   bool
	jobs     []fleetscore.Job
	waiting  []trigger
	outcomes map[string]string // by due time
}

func (w *ledgerTwin) note(t time.Time, outcome fleetscore.OccurrenceState) {
	w.outcomes[t.Format("15:04")] = string(outcome)
}

func (w *ledgerTwin) begin(t time.Time, others ...trigger) {
	for _, o := range others {
		w.note(o.due, fleetscore.OccurrenceCoalesced)
	}
	w.note(t, fleetscore.OccurrenceRan)
	w.jobs = append(w.jobs, fleetscore.Job{ID: fleetscore.JobID(t.Format("15:04")), Interval: fleetscore.Interval{From: w.next, To: t}, State: fleetscore.JobRunning})
	w.next = t
}

func (w *ledgerTwin) busy() bool { return len(w.jobs) > 0 && w.c.Overlap != fleetscore.OverlapAllow }

// drain begins the next job of those that wait.
func (w *ledgerTwin) drain() {
	for len(w.waiting) > 0 && !w.busy() {
		n := 0
		for n < len(w.waiting)-1 && !w.waiting[n].alone {
			n++
		}
		group := w.waiting[:n+1]
		w.waiting = w.waiting[n+1:]
		w.begin(group[n].due, group[:n]...)
	}
}

// come takes due times that came while nobody looked, or one that comes just now.
func (w *ledgerTwin) come(due []time.Time, now time.Time) {
	var come []time.Time
	for _, t := range due {
		if w.paused || !t.After(w.next) {
			w.note(t, fleetscore.OccurrenceSkipped)
		} else {
			come = append(come, t)
		}
	}
	if len(come) == 0 {
		return
	}
	committing := false
	for _, j := range w.jobs {
		committing = committing || j.State == fleetscore.JobCommitting
	}
	switch catchUp := len(w.waiting) > 0 && w.waiting[0].catchUp; {
	case !w.busy():
		w.free(come, now)
	case catchUp || len(w.waiting) > 0 || w.c.Overlap == fleetscore.OverlapQueueOne || w.c.Overlap == fleetscore.OverlapQueueAll || committing && w.c.Overlap == fleetscore.OverlapReplace:
		for _, t := range come {
			w.waiting = append(w.waiting, trigger{t, catchUp || w.c.Overlap == fleetscore.OverlapQueueAll, catchUp})
		}
	case w.c.Overlap == fleetscore.OverlapSkip:
		for _, t := range come {
			w.note(t, fleetscore.OccurrenceSkipped)
		}
	default: // replace
		for _, j := range w.jobs {
			if j.Interval.From.Before(w.next) {
				w.next = j.Interval.From
			}
		}
		w.jobs = nil
		for _, t := range come {
			w.waiting = append(w.waiting, trigger{due: t})
		}
		w.drain()
	}
}

// free takes due times while no job is in their way.
func (w *ledgerTwin) free(come []time.Time, now time.Time) {
	catchUp := false
	for i, t := range come {
		late := now.Sub(t) > time.Minute
		switch {
		case late && (w.c.CatchUp == fleetscore.CatchUpNone || w.c.CatchUpWindow > 0 && now.Sub(t) > w.c.CatchUpWindow.D()):
			w.note(t, fleetscore.OccurrenceMissed)
		case late && w.c.CatchUp == fleetscore.CatchUpAll:
			w.waiting = append(w.waiting, trigger{t, true, catchUp})
			catchUp = true // those behind the first are made up for
		case late:
			w.waiting = append(w.waiting, trigger{due: t})
		case len(w.waiting) > 0 && w.waiting[len(w.waiting)-1].alone: // jobs before it come first
			w.drain()
			w.come(come[i:], now)
			return
		default:
			w.waiting = append(w.waiting, trigger{t, w.c.Overlap == fleetscore.OverlapQueueAll || w.c.Overlap == fleetscore.OverlapAllow, false})
		}
	}
	w.drain()
}

// TestDecideAsTheTwin plays servers that stop, jobs that take long, commits that can't
// be replaced, pauses and resumptions, by random rules: each due time has the same
// outcome as with the twin, once; and no rows are lost between the intervals.
func TestDecideAsTheTwin(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		c := fleetscore.ScheduleConfig{Cron: "*/10 * * * *",
			Overlap:       rapid.SampledFrom([]fleetscore.Overlap{fleetscore.OverlapSkip, fleetscore.OverlapQueueOne, fleetscore.OverlapQueueAll, fleetscore.OverlapReplace, fleetscore.OverlapAllow}).Draw(rt, "overlap"),
			CatchUp:       rapid.SampledFrom([]fleetscore.CatchUp{fleetscore.CatchUpNone, fleetscore.CatchUpLast, fleetscore.CatchUpAll}).Draw(rt, "catch up"),
			CatchUpWindow: rapid.SampledFrom([]fleetscore.Duration{0, 0, fleetscore.Duration(35 * time.Minute)}).Draw(rt, "window")}
		now := at("00:05:00")
		s := State{Created: now}
		w := &ledgerTwin{c: c, next: at("00:00:00"), outcomes: map[string]string{}}
		var active []fleetscore.Job
		outcomes := map[string]string{}
		seen, up := now, true
		ask := func() {
			for range 300 { // a decision makes one job at most
				d, err := Decide(c, "p", s, active, now)
				if err != nil {
					rt.Fatal(err)
				}
				for _, o := range d.Occurrences {
					if key := o.Due.Format("15:04"); outcomes[key] != "" || o.Due.After(now) {
						rt.Fatalf("%s is decided twice or early", o.Due)
					} else {
						outcomes[key] = string(o.State)
					}
				}
				if len(d.Cancel) > 0 {
					active = nil
				}
				if d.Interval != nil {
					if d.Interval.Validate() != nil || len(active) > 0 && c.Overlap != fleetscore.OverlapAllow {
						rt.Fatalf("a job over %s beside %v", d.Interval, active)
					}
					active = append(active, fleetscore.Job{ID: fleetscore.JobID(d.Interval.To.Format("15:04")), Interval: *d.Interval, State: fleetscore.JobRunning})
				}
				if s = d.Next; d.Interval == nil {
					return
				}
			}
			rt.Fatal("it never comes to rest")
		}
		look := func() { // a server looks now
			var due []time.Time
			for t := seen.Truncate(10 * time.Minute).Add(10 * time.Minute); !t.After(now); t = t.Add(10 * time.Minute) {
				due = append(due, t)
			}
			seen = now
			w.come(due, now)
			ask()
		}
		var story []string
		for range rapid.IntRange(1, 60).Draw(rt, "events") {
			event := rapid.SampledFrom([]string{"time", "time", "time", "end", "end", "commit", "down", "up", "pause", "resume"}).Draw(rt, "event")
			story = append(story, now.Format("15:04 ")+event)
			switch {
			case event == "time":
				now = now.Truncate(10 * time.Minute).Add(10 * time.Minute)
				if up {
					look()
				}
			case event == "down" || event == "up":
				if up = event == "up"; up {
					look()
				}
			case !up: // nothing happens without a server
			case event == "end" && len(active) > 0:
				active, w.jobs = active[1:], w.jobs[1:]
				w.drain()
				ask()
			case event == "commit" && len(active) > 0:
				active[0].State, w.jobs[0].State = fleetscore.JobCommitting, fleetscore.JobCommitting
				ask()
			case event == "pause":
				s.Paused, w.paused = now, true
				for _, o := range w.waiting {
					w.note(o.due, fleetscore.OccurrenceSkipped)
				}
				w.waiting = nil
				ask()
			case event == "resume":
				s.Paused, w.paused = time.Time{}, false
				ask()
			}
			if d := cmp.Diff(w.outcomes, outcomes); d != "" {
				rt.Fatalf("%+v\n%q\noutcomes (-twin +ours):\n%s", c, story, d)
			}
			if d := cmp.Diff(fmt.Sprint(w.jobs), fmt.Sprint(active)); d != "" {
				rt.Fatalf("%+v\n%q\njobs (-twin +ours):\n%s", c, story, d)
			}
			if !s.NextFrom.IsZero() && !s.NextFrom.Equal(w.next) {
				rt.Fatalf("%+v\n%q\nthe next interval starts at %s, the twin says %s", c, story, s.NextFrom, w.next)
			}
		}
	})
}
