package schedule

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
)

// TestAfter: when a pipeline that follows another one is due, and over which rows.
func TestAfter(t *testing.T) {
	t.Parallel()
	at := func(hour int) time.Time { return time.Date(2026, 11, 23, hour, 0, 0, 0, time.UTC) }
	running := []fleetscore.Job{{ID: "own"}}
	for _, tt := range []struct {
		name   string
		leader Leader
		state  State
		fresh  bool
		active []fleetscore.Job
		job    string // its interval; empty for none
		state2 string // outcome of the due time; empty if none is decided
		reason string
	}{
		{"nothing has ended", Leader{}, State{}, true, nil, "", "", ""},
		{"a new pipeline begins with the next job", Leader{Until: at(10), From: at(9), Ended: "succeeded"}, State{}, true, nil, "", "", ""},
		{"the first job", Leader{Until: at(10), From: at(9), Ended: "succeeded"}, State{}, false, nil, "9-10", "ran", ""},
		{"the next job", Leader{Until: at(11), From: at(10), Ended: "partly_failed"}, State{LastDue: at(10), NextFrom: at(10)}, false, nil, "10-11", "ran", ""},
		{"the other was faster", Leader{Until: at(13), From: at(12), Ended: "succeeded"}, State{LastDue: at(10), NextFrom: at(10)}, false, nil, "10-13", "ran", ""},
		{"decided before", Leader{Until: at(11), From: at(10), Ended: "succeeded"}, State{LastDue: at(11), NextFrom: at(11)}, false, nil, "", "", ""},
		{"the other failed", Leader{Until: at(11), From: at(10), Ended: "failed"}, State{LastDue: at(10), NextFrom: at(10)}, false, nil, "", "skipped", "the job of p is failed"},
		{"the other was canceled", Leader{Until: at(11), From: at(10), Ended: "canceled"}, State{LastDue: at(10), NextFrom: at(10)}, false, nil, "", "skipped", "canceled"},
		{"after a failure", Leader{Until: at(12), From: at(11), Ended: "succeeded"}, State{LastDue: at(11), NextFrom: at(10)}, false, nil, "10-12", "ran", ""},
		{"paused", Leader{Until: at(11), From: at(10), Ended: "succeeded"}, State{LastDue: at(10), NextFrom: at(10), Paused: at(9)}, false, nil, "", "skipped", "paused"},
		{"its own job runs", Leader{Until: at(11), From: at(10), Ended: "succeeded"}, State{LastDue: at(10), NextFrom: at(10)}, false, running, "", "", ""},
		{"covered by hand", Leader{Until: at(11), From: at(10), Ended: "succeeded"}, State{LastDue: at(10), NextFrom: at(12)}, false, nil, "", "skipped", "covered"},
		{"the job is forgotten", Leader{Until: at(11)}, State{LastDue: at(10), NextFrom: at(10)}, false, nil, "10-11", "ran", ""},
	} {
		tt.leader.Pipeline = "p"
		d := After(tt.leader, tt.state, tt.fresh, tt.active)
		job := ""
		if d.Interval != nil {
			job = d.Interval.From.Format("15") + "-" + d.Interval.To.Format("15")
			if job[0] == '0' {
				job = job[1:]
			}
		}
		state, reason := "", ""
		if len(d.Occurrences) == 1 {
			state, reason = string(d.Occurrences[0].State), d.Occurrences[0].Reason
		}
		if job != tt.job || state != tt.state2 || !strings.Contains(reason, tt.reason) {
			t.Errorf("%s: job %q, outcome %q (%s); want %q, %q (%s)", tt.name, job, state, reason, tt.job, tt.state2, tt.reason)
		}
	}
}

// TestAfterLeavesNothingOut: whatever fails, is paused or is slow, the intervals of the
// follower's jobs join, and each end of the leader's jobs is decided at most once.
func TestAfterLeavesNothingOut(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		start := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
		l := Leader{Pipeline: "p"}
		s, fresh := State{}, true
		var active []fleetscore.Job
		var covered time.Time // until where jobs were made
		decided := map[time.Time]bool{}
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			switch rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0, 1: // a job of the leader ends
				l.From = l.Until
				if l.From.IsZero() {
					l.From = start
				}
				l.Until = l.From.Add(time.Duration(rapid.IntRange(1, 3).Draw(rt, "hours")) * time.Hour)
				l.Ended = rapid.SampledFrom([]fleetscore.JobState{"succeeded", "partly_failed", "failed", "canceled"}).Draw(rt, "ended")
			case 2:
				active = nil // the follower's job ends
			case 3:
				s.Paused = start
			case 4:
				s.Paused = time.Time{}
			}
			d := After(l, s, fresh, active)
			s, fresh = d.Next, false
			for _, o := range d.Occurrences {
				if decided[o.Due] {
					rt.Fatalf("%s is decided twice", o.Due)
				}
				decided[o.Due] = true
			}
			if d.Interval == nil {
				continue
			}
			if len(active) > 0 || !d.Interval.To.Equal(l.Until) || !covered.IsZero() && !d.Interval.From.Equal(covered) {
				rt.Fatalf("a job over %s beside %v, after rows until %s were covered", d.Interval, active, covered)
			}
			covered, active = d.Interval.To, []fleetscore.Job{{ID: "own"}}
		}
	})
}
