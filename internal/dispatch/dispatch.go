// Package dispatch decides how a job becomes tasks, what the end of an attempt
// means for its task, and how a job with given outcomes ends. It also holds the
// messages that nodes and the server exchange.
//
// It is pure: nothing is stored, sent or timed here.
//
// The life of a task:
//
//	queued ──lease──► leased ──result──────────────► succeeded
//	  ▲                 │
//	  │                 ├─ error, tries left ─┐
//	  │                 ├─ time is up, same ──┤
//	  │                 ├─ node lost, ended ──┤
//	  │                 ├─ lease expired ─────┤
//	  └─────────────────┴─────────────────────┘
//	                    ├─ error, tries used up ───► failed
//	                    ├─ job's time is up ───────► failed
//	                    └─ job canceled ───────────► canceled
//
// After two attempts that were lost with their nodes, or one whose time was up, a model may
// be the cause: further attempts score the task's models alone, each in a process that it
// can't take the node down with. So the harmful model alone costs its sensor.
//
// A lease's id is its fencing token: after the lease was taken back, no result under
// that lease is accepted.
package dispatch

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
)

// End is how an attempt ended.
type End string

// The ends of an attempt, as the ledger records them.
const (
	Succeeded End = "succeeded" // it delivered a result
	Failed    End = "failed"    // it reported an error
	TimedOut  End = "timed_out" // it took longer than a task may take
	Expired   End = "expired"   // its lease ran out
	Lost      End = "lost"      // its node was lost
	Stopped   End = "stopped"   // its node was told to stop
	Canceled  End = "canceled"  // its job was canceled
	// Unavailable means that it couldn't go on because the store was away or full.
	Unavailable End = "unavailable"
)

// Ends are all ends of an attempt.
var Ends = []End{Succeeded, Failed, TimedOut, Unavailable, Expired, Lost, Stopped, Canceled}

// EndOf is how an attempt ended that reported an error.
func EndOf(r Result) End {
	if fleetscore.ParseKind(r.Kind) == fleetscore.Unavailable {
		return Unavailable
	}
	return Failed
}

// lossesAlone is how many attempts of a task may be lost with their nodes before its
// models are scored alone, in processes of their own.
const lossesAlone = 2

// maxLosses is how many attempts of a task may be lost with their nodes before the task
// fails. Models that are scored alone don't harm a node, so something else of the task
// does. A working installation doesn't lose that many.
const maxLosses = 20

// maxOutages is how many attempts of a task may end because the store couldn't be used,
// before the task fails. With the waits of OutageAfter, that is an outage of about half a
// day.
const maxOutages = 150

// After applies the end of an attempt to its task. Only reported errors and exceeded
// time limits use up tries; an outage of the store and the end of a node don't. If nodes
// were lost, or time limits exceeded, a model may be the cause: then the models are
// scored alone.
func After(t fleetscore.Task, end End, reason string, tries int) fleetscore.Task {
	t.Node, t.Reason = "", reason
	switch end {
	case Succeeded:
		t.State = fleetscore.TaskSucceeded
	case Canceled:
		t.State = fleetscore.TaskCanceled
	case Failed, TimedOut:
		t.Failures++
		t.State = fleetscore.TaskQueued
		if t.Failures >= max(1, tries) {
			t.State, t.Outcome = fleetscore.TaskFailed, fleetscore.Failed
			if end == TimedOut {
				t.Outcome = fleetscore.TimedOut
			}
			t.Reason = either(int64(t.Failures), "its only try failed: ", fmt.Sprintf("%d of %d tries failed, the last: ", t.Failures, tries)) + reason
		}
		t.Alone = t.Alone || end == TimedOut
	case Unavailable:
		t.Outages++
		t.State = fleetscore.TaskQueued
		if t.Outages >= maxOutages {
			t.State, t.Outcome = fleetscore.TaskFailed, fleetscore.Failed
			t.Reason = fmt.Sprintf("in %d attempts the store couldn't be used, the last: %s", t.Outages, reason)
		}
	case Stopped:
		t.State = fleetscore.TaskQueued
	case Expired, Lost:
		t.Losses++
		t.State = fleetscore.TaskQueued
		t.Alone = t.Alone || t.Losses >= lossesAlone
		if t.Losses >= maxLosses {
			t.State, t.Outcome = fleetscore.TaskFailed, fleetscore.Failed
			t.Reason = fmt.Sprintf("%d attempts were lost with their nodes, the last: %s", t.Losses, reason)
		}
	}
	return t
}

// The waits of RetryAfter and OutageAfter.
const (
	firstRetry = time.Second
	maxRetry   = 30 * time.Second
	maxOutage  = 5 * time.Minute
)

// RetryAfter is how long a task waits after its n-th failure (1, 2, …): twice as
// long each time, up to half a minute. spread, from 0 to 1, makes it up to a fifth
// shorter or longer, so that tasks that failed together aren't tried again together.
func RetryAfter(n int, spread float64) time.Duration { return pause(n, maxRetry, spread) }

// OutageAfter is how long a task waits after the n-th attempt that found the store away:
// as RetryAfter, up to five minutes. So a task goes on after about as long as the outage
// lasted, and a long outage doesn't fill the ledger with attempts.
func OutageAfter(n int, spread float64) time.Duration { return pause(n, maxOutage, spread) }

func pause(n int, longest time.Duration, spread float64) time.Duration {
	d := firstRetry
	for ; n > 1 && d < longest; n-- {
		d *= 2
	}
	return time.Duration(float64(min(d, longest)) * (0.8 + 0.4*spread))
}

// Check refuses a result that doesn't account for each key of its task.
func Check(t fleetscore.Task, r Result) error {
	bad := func(format string, args ...any) error {
		return fleetscore.Errorf(fleetscore.Invalid, "take result", string(t.ID), format, args...)
	}
	if r.Error != "" {
		return nil
	}
	for o, n := range r.Outcomes {
		if n < 0 || !slices.Contains(fleetscore.Outcomes, o) {
			return bad("%d keys with outcome %q", n, o)
		}
	}
	if n := r.Outcomes.Total(); n < t.Keys {
		return bad("the result has outcomes for %d keys, the task has %d", n, t.Keys)
	}
	if k := r.Kept; min(k.Keys, k.Rows, k.Anomalies) < 0 || k.Keys > r.Outcomes[fleetscore.Scored] {
		return bad("%d of %d scored keys are kept, with %d rows", k.Keys, r.Outcomes[fleetscore.Scored], k.Rows)
	}
	var rows int64
	for _, f := range r.Predictions {
		rows += f.Rows
	}
	if rows != r.Rows {
		return bad("the files hold %d rows, the result counts %d", rows, r.Rows)
	}
	var items int64
	for _, f := range r.Coverage {
		items += f.Rows
	}
	if items != r.Outcomes.Total() {
		return bad("the coverage files hold %d items, the result counts %d", items, r.Outcomes.Total())
	}
	for _, f := range slices.Concat(r.Predictions, r.Coverage) {
		if f.Path == "" || path.Clean(f.Path) != f.Path || path.IsAbs(f.Path) || f.Path == ".." || strings.HasPrefix(f.Path, "../") {
			return bad("%q is not a path of a table's file", f.Path)
		}
		if f.Shards.First < t.Shards.First || f.Shards.Last > t.Shards.Last {
			return bad("file %s holds keys of other tasks", f.Path)
		}
	}
	return nil
}
