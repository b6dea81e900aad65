package dispatch

import (
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
)

func TestAfter(t *testing.T) {
	t.Parallel()
	task := fleetscore.Task{State: fleetscore.TaskLeased, Attempts: 1, Node: "n"}
	for _, tt := range []struct {
		end      End
		tries    int
		state    fleetscore.TaskState
		failures int
	}{
		{Succeeded, 3, fleetscore.TaskSucceeded, 0},
		{Failed, 3, fleetscore.TaskQueued, 1},
		{Failed, 1, fleetscore.TaskFailed, 1},
		{TimedOut, 3, fleetscore.TaskQueued, 1},
		{TimedOut, 1, fleetscore.TaskFailed, 1},
		{Unavailable, 1, fleetscore.TaskQueued, 0},
		{Lost, 1, fleetscore.TaskQueued, 0},
		{Expired, 1, fleetscore.TaskQueued, 0},
		{Stopped, 1, fleetscore.TaskQueued, 0},
		{Canceled, 1, fleetscore.TaskCanceled, 0},
	} {
		got := After(task, tt.end, "why", tt.tries)
		if got.State != tt.state || got.Failures != tt.failures || got.Node != "" || !strings.Contains(got.Reason, "why") {
			t.Errorf("%s with %d tries: %+v", tt.end, tt.tries, got)
		}
		if want := map[bool]fleetscore.Outcome{true: fleetscore.Outcome(tt.end)}[tt.state == fleetscore.TaskFailed]; got.Outcome != want {
			t.Errorf("%s with %d tries: the keys end %q, want %q", tt.end, tt.tries, got.Outcome, want)
		}
	}
	task.Losses = maxLosses - 1
	if got := After(task, Lost, "why", 3); got.State != fleetscore.TaskFailed {
		t.Errorf("after %d losses: %+v", maxLosses, got)
	}
	task.Losses, task.Outages, task.Attempts = 0, maxLosses, 3*maxLosses
	if got := After(task, Lost, "why", 3); got.State != fleetscore.TaskQueued {
		t.Errorf("attempts that found the store away, or whose nodes were stopped, count as lost: %+v", got)
	}
	task.Attempts, task.Outages = maxOutages, maxOutages-1
	if got := After(task, Unavailable, "why", 3); got.State != fleetscore.TaskFailed || !strings.Contains(got.Reason, "why") {
		t.Errorf("after %d outages: %+v", maxOutages, got)
	}
}

// TestAlone: what may have been a model's doing lets the models be scored alone, and
// nothing else does.
func TestAlone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		ends  []End
		alone bool
	}{
		{[]End{Lost}, false}, {[]End{Lost, Lost}, true}, {[]End{Expired, Lost}, true}, {[]End{Lost, Failed, Expired}, true}, {[]End{TimedOut}, true}, {[]End{TimedOut, Failed}, true},
		{[]End{Failed, Failed}, false}, {[]End{Stopped, Stopped, Stopped}, false}, {[]End{Lost, Stopped, Unavailable}, false},
	} {
		task := fleetscore.Task{}
		for _, e := range tt.ends {
			task.Attempts++
			task = After(task, e, "why", 10)
		}
		if task.Alone != tt.alone || task.State != fleetscore.TaskQueued {
			t.Errorf("after %v: %+v; alone is to be %v", tt.ends, task, tt.alone)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	task := fleetscore.Task{ID: "j.000", Keys: 3, Shards: fleetscore.ShardRange{First: 10, Last: 20}}
	in := fleetscore.ShardRange{First: 11, Last: 20}
	file := func(rows int64, s fleetscore.ShardRange) []fleetscore.DataFile {
		return []fleetscore.DataFile{{Path: "f", Rows: rows, Shards: s}}
	}
	for _, tt := range []struct {
		name, want string
		r          Result
	}{
		{"whole", "", Result{Outcomes: fleetscore.Counts{"scored": 2, "no_data": 1}, Rows: 5, Predictions: file(5, in), Coverage: file(3, in)}},
		{"unexpected keys too", "", Result{Outcomes: fleetscore.Counts{"no_data": 3, "no_model": 1}, Coverage: file(4, in)}},
		{"failed", "", Result{Error: "disk"}},
		{"too few", "outcomes for 2 keys", Result{Outcomes: fleetscore.Counts{"no_data": 2}, Coverage: file(2, in)}},
		{"rows", "hold 4 rows", Result{Outcomes: fleetscore.Counts{"scored": 3}, Rows: 5, Predictions: file(4, in), Coverage: file(3, in)}},
		{"items", "hold 2 items", Result{Outcomes: fleetscore.Counts{"scored": 3}, Coverage: file(2, in)}},
		{"foreign", "other tasks", Result{Outcomes: fleetscore.Counts{"no_data": 3}, Coverage: file(3, fleetscore.AllShards)}},
		{"odd", "outcome", Result{Outcomes: fleetscore.Counts{"great": 3}, Coverage: file(3, in)}},
	} {
		err := Check(task, tt.r)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	ten, all, two := fleetscore.AllowShare(10), fleetscore.AllowShare(100), fleetscore.AllowCount(2)
	for _, tt := range []struct {
		limits fleetscore.LimitsConfig
		counts fleetscore.Counts
		aside  Aside
		want   fleetscore.JobState
		reason string // a part of the reason; empty means that there is no reason
	}{
		{fleetscore.LimitsConfig{}, fleetscore.Counts{"scored": 9, "no_data": 5}, Aside{}, fleetscore.JobSucceeded, ""},
		{fleetscore.LimitsConfig{}, fleetscore.Counts{"scored": 9, "timed_out": 1}, Aside{}, fleetscore.JobPartlyFailed, "1 of 10 sensors failed"},
		{fleetscore.LimitsConfig{Failed: ten}, fleetscore.Counts{"scored": 9, "failed": 1}, Aside{}, fleetscore.JobSucceeded, ""},
		{fleetscore.LimitsConfig{Failed: ten}, fleetscore.Counts{"scored": 8, "failed": 2}, Aside{}, fleetscore.JobPartlyFailed, "2 of 10"},
		{fleetscore.LimitsConfig{Failed: two}, fleetscore.Counts{"scored": 1, "failed": 1, "timed_out": 1}, Aside{}, fleetscore.JobSucceeded, ""},
		{fleetscore.LimitsConfig{Failed: two}, fleetscore.Counts{"scored": 997, "failed": 3}, Aside{}, fleetscore.JobPartlyFailed, "3 of 1000 sensors failed, the limit is 2"},
		{fleetscore.LimitsConfig{}, fleetscore.Counts{"scored": 9, "no_model": 1}, Aside{}, fleetscore.JobPartlyFailed, "no model"},
		{fleetscore.LimitsConfig{NoData: ten}, fleetscore.Counts{"scored": 8, "no_data": 2}, Aside{}, fleetscore.JobPartlyFailed, "no data"},
		// Nothing was scored.
		{fleetscore.LimitsConfig{}, fleetscore.Counts{"no_data": 5}, Aside{}, fleetscore.JobFailed, "none of 5 sensors has readings"},
		{fleetscore.LimitsConfig{}, fleetscore.Counts{"no_data": 5}, Aside{Repeats: 3}, fleetscore.JobFailed, "none of 5 sensors has readings"},
		{fleetscore.LimitsConfig{}, fleetscore.Counts{"no_data": 5}, Aside{Late: 7}, fleetscore.JobFailed, "all readings of the interval were set aside"},
		{fleetscore.LimitsConfig{}, fleetscore.Counts{"no_data": 5}, Aside{Early: 7}, fleetscore.JobFailed, "7 came too early, with times after their arrival"},
		{fleetscore.LimitsConfig{}, fleetscore.Counts{}, Aside{}, fleetscore.JobFailed, "the fleet has no sensors"},
		{fleetscore.LimitsConfig{}, fleetscore.Counts{"failed": 5}, Aside{}, fleetscore.JobFailed, "nothing was scored; 5 of 5 sensors failed"},
		{fleetscore.LimitsConfig{NoData: all}, fleetscore.Counts{"no_data": 5}, Aside{}, fleetscore.JobSucceeded, ""},
		{fleetscore.LimitsConfig{NoData: all}, fleetscore.Counts{}, Aside{}, fleetscore.JobSucceeded, ""},
		{fleetscore.LimitsConfig{NoData: all}, fleetscore.Counts{"no_data": 4, "no_model": 1}, Aside{}, fleetscore.JobFailed, "1 of 5 sensors has no model"},
		{fleetscore.LimitsConfig{NoData: all, NoModel: all}, fleetscore.Counts{"no_data": 4, "no_model": 1}, Aside{}, fleetscore.JobSucceeded, ""},
		{fleetscore.LimitsConfig{NoData: ten}, fleetscore.Counts{"no_data": 5}, Aside{}, fleetscore.JobFailed, "the limit is 10%"},
		{fleetscore.LimitsConfig{}, fleetscore.Counts{"scored": 3, "no_model": 2}, Aside{}, fleetscore.JobPartlyFailed, "2 of 5 sensors have no model"},
		{fleetscore.LimitsConfig{}, fleetscore.Counts{"failed": 1}, Aside{}, fleetscore.JobFailed, "1 of 1 sensor failed"},
		{fleetscore.LimitsConfig{}, fleetscore.Counts{"no_data": 1}, Aside{}, fleetscore.JobFailed, "its one sensor has no readings in the interval"},
		// Readings that were set aside.
		{fleetscore.LimitsConfig{}, fleetscore.Counts{"no_data": 1}, Aside{Late: 1, Early: 1, Repeats: 1}, fleetscore.JobFailed, "of the interval's readings 1 came too late for its window, 1 came too early, with a time after its arrival, 1 was a repeat"},
		{fleetscore.LimitsConfig{}, fleetscore.Counts{"scored": 9}, Aside{Late: 50, Repeats: 1}, fleetscore.JobSucceeded, "of the interval's readings 50 came too late for their window"},
		{fleetscore.LimitsConfig{}, fleetscore.Counts{"scored": 9}, Aside{Late: 3, Early: 4, Repeats: 5}, fleetscore.JobSucceeded, ""},
	} {
		var rows int64
		if tt.counts["scored"] > 0 {
			rows = 1000
		}
		state, reason := Judge(tt.limits, tt.counts, rows, tt.aside)
		if state != tt.want || !strings.Contains(reason, tt.reason) || tt.reason == "" && reason != "" {
			t.Errorf("%v, %+v: got %s, %q; want %s, %q", tt.counts, tt.aside, state, reason, tt.want, tt.reason)
		}
	}
}

func TestRetryAfterIsBounded(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]time.Duration{0: time.Second, 1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 6: maxRetry, 1 << 30: maxRetry} {
		if got := RetryAfter(n, 0.5); got != want {
			t.Errorf("RetryAfter(%d) = %s, want %s", n, got, want)
		}
		if low, high := RetryAfter(n, 0), RetryAfter(n, 1); low != want*4/5 || high != want*6/5 {
			t.Errorf("RetryAfter(%d) is from %s to %s, want a fifth less and more than %s", n, low, high, want)
		}
	}
}

// TestOutagesLastLong: the waits between attempts grow with the outage, and together they
// last for half a day before a task fails.
func TestOutagesLastLong(t *testing.T) {
	t.Parallel()
	var whole time.Duration
	for n := range maxOutages - 1 {
		wait := OutageAfter(n+1, 0.5)
		if wait > maxOutage || wait > whole+time.Second {
			t.Errorf("wait %d is %s, after an outage of %s", n+1, wait, whole)
		}
		whole += wait
	}
	if whole < 11*time.Hour || whole > 13*time.Hour {
		t.Errorf("a task waits for %s before it fails", whole)
	}
}

func TestCheckRefusesPathsElsewhere(t *testing.T) {
	t.Parallel()
	task := fleetscore.Task{ID: "j.000", Shards: fleetscore.AllShards}
	for _, p := range []string{"", "/x", "../x", "..", "a/../../x", "a//b"} {
		r := Result{Predictions: []fleetscore.DataFile{{Path: p, Shards: fleetscore.AllShards}}}
		if err := Check(task, r); !fleetscore.Invalid.Is(err) {
			t.Errorf("Check accepts the path %q: %v", p, err)
		}
	}
}
