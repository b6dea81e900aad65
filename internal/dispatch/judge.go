package dispatch

import (
	"fmt"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// Aside counts the readings of a job's interval that are in no row of its dataset,
// or in none a second time.
type Aside struct {
	Late    int64 // they came after their window was over
	Ahead   int64 // their time lay too far after their arrival: their device's clock is ahead
	Repeats int64 // they were counted before
}

// manyAside is the share, in percent, of all that came for an interval, from which
// on a job speaks of readings that were set aside.
const manyAside = 1

// Judge says how a job with these outcomes ends, and why. The outcomes are of all
// keys, those of failed tasks included; rows is how many were scored.
//
// A job succeeds if no limit is exceeded and something was scored. That nothing
// was scored is in order only where the limits say so in writing: each outcome
// that the keys have must then have a limit of its own that allows it.
func Judge(l fleetscore.LimitsConfig, c fleetscore.Counts, rows int64, aside Aside) (fleetscore.JobState, string) {
	var over []string
	total := c.Total()
	written := total > 0 || l.NoData != nil // every outcome there is has a limit that was written
	check := func(limit *fleetscore.Percent, def fleetscore.Percent, what string, outcomes ...fleetscore.Outcome) {
		var n int64
		for _, o := range outcomes {
			n += c[o]
		}
		if limit == nil {
			written = written && n == 0
			limit = &def
		}
		if !limit.Allows(n, total) {
			over = append(over, fmt.Sprintf("%d of %d sensors %s, the limit is %v", n, total, what, *limit))
		}
	}
	check(l.Failed, 0, "failed", fleetscore.Failed, fleetscore.TimedOut, fleetscore.Quarantined)
	check(l.NoModel, 0, "have no model", fleetscore.NoModel)
	check(l.NoData, 100, "have no data", fleetscore.NoData)
	state := fleetscore.JobSucceeded
	if len(over) > 0 {
		state = fleetscore.JobPartlyFailed
	}
	var reasons []string
	if c[fleetscore.Scored] == 0 && (!written || len(over) > 0) {
		state = fleetscore.JobFailed
		reasons = append(reasons, nothingScored(c, aside))
	}
	reasons = append(reasons, over...)
	if note := aside.note(rows); note != "" {
		reasons = append(reasons, note)
	}
	return state, strings.Join(reasons, "; ")
}

// nothingScored says why no key was scored.
func nothingScored(c fleetscore.Counts, aside Aside) string {
	const allow = ` (write "no_data: 100%" into the pipeline's limits if that is in order)`
	total := c.Total()
	switch {
	case total == 0:
		return "nothing was scored: the fleet has no sensors, and the interval has no rows" + allow
	case c[fleetscore.NoData] < total:
		return "nothing was scored"
	case aside.Late+aside.Ahead > 0:
		return fmt.Sprintf("nothing was scored: none of %d sensors has rows in the interval, as all of its readings that came were set aside%s", total, allow)
	}
	return fmt.Sprintf("nothing was scored: none of %d sensors has readings in the interval%s", total, allow)
}

// note speaks of readings that were set aside, where they are many beside what was
// scored.
func (a Aside) note(rows int64) string {
	all := rows + a.Late + a.Ahead + a.Repeats
	var parts []string
	for _, p := range []struct {
		n    int64
		what string
	}{{a.Late, "came too late for their window"}, {a.Ahead, "have times ahead of their arrival"}, {a.Repeats, "were repeats"}} {
		if p.n > 0 && p.n*100 >= all*manyAside {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "of the interval's readings " + strings.Join(parts, ", ")
}
