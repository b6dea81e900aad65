package dispatch

import (
	"fmt"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// Aside counts the readings of a job's interval that were not counted in the
// dataset's rows, and the repeats of readings that were counted.
type Aside struct {
	Late    int64 // they came after their window was over
	Early   int64 // their time is too far after their arrival: the device's clock is ahead
	Repeats int64 // they were counted before
}

// manyAside is a share, in percent, of all readings of an interval. From this share
// on, a job's reason mentions the readings that were set aside.
const manyAside = 1

// Judge says how a job with these outcomes ends, and why. The outcomes are of all
// keys, those of failed tasks included; rows is how many were scored.
//
// A job succeeds if no limit is exceeded and something was scored. A job that scored
// nothing succeeds only if the configuration allows this explicitly: each outcome of
// the keys must have a configured limit that allows it.
func Judge(l fleetscore.LimitsConfig, c fleetscore.Counts, rows int64, aside Aside) (fleetscore.JobState, string) {
	var over []string
	total := c.Total()
	written := total > 0 || l.NoData != nil // every outcome that occurs has a configured limit
	check := func(limit, def *fleetscore.Allowance, one, many string, outcomes ...fleetscore.Outcome) {
		var n int64
		for _, o := range outcomes {
			n += c[o]
		}
		if limit == nil {
			written = written && n == 0
			limit = def
		}
		if !limit.Allows(n, total) {
			over = append(over, fmt.Sprintf("%d of %s %s, the limit is %v", n, fleetscore.Counted(total, "sensor"), either(n, one, many), *limit))
		}
	}
	check(l.Failed, fleetscore.AllowShare(0), "failed", "failed", fleetscore.Failed, fleetscore.TimedOut, fleetscore.Quarantined)
	check(l.NoModel, fleetscore.AllowShare(0), "has no model", "have no model", fleetscore.NoModel)
	check(l.NoData, fleetscore.AllowShare(100), "has no data", "have no data", fleetscore.NoData)
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
	const allow = `  (if this is expected, write "no_data: 100%" into the pipeline's limits)`
	total := c.Total()
	none := either(total, "its one sensor has no", fmt.Sprintf("none of %d sensors has", total))
	switch {
	case total == 0:
		return "nothing was scored: the fleet has no sensors, and the interval has no rows" + allow
	case c[fleetscore.NoData] < total:
		return "nothing was scored"
	case aside.Late+aside.Early > 0:
		return "nothing was scored: " + none + " rows in the interval, because all readings of the interval were set aside" + allow
	}
	return "nothing was scored: " + none + " readings in the interval" + allow
}

// either is the text for one or for another number of things.
func either(n int64, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// note mentions the readings that were set aside, if they are many compared with the
// rows that were scored.
func (a Aside) note(rows int64) string {
	all := rows + a.Late + a.Early + a.Repeats
	var parts []string
	for _, p := range []struct {
		n         int64
		one, many string
	}{{a.Late, "came too late for its window", "came too late for their window"}, {a.Early, "came too early, with a time after its arrival", "came too early, with times after their arrival"}, {a.Repeats, "was a repeat", "were repeats"}} {
		if p.n > 0 && p.n*100 >= all*manyAside {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, either(p.n, p.one, p.many)))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "of the interval's readings " + strings.Join(parts, ", ")
}
