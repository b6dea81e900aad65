package laboratory

import (
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/stream"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// enqueued is the column in which Event Hubs tells an event's arrival.
const enqueued = "EventEnqueuedUtcTime"

// reasons are why events aren't on time, and how a warning says so.
var reasons = []struct{ name, text string }{{"late", "came late"}, {"out_of_order", "came out of order"}, {"late, out_of_order", "came late and out of order"}, {"early", "came early"},
	{"no_time", "had no time that can be read"}, {"not_declared", "didn't fit CREATE TABLE"}}

// times gives the events of an input their System.Timestamp() and leaves out those that
// are dropped.
func (l *lab) times(at int, in *stream.Input, events []event) ([]event, error) {
	byArrival := l.opt.ArrivalTime || !in.HasTime
	column := l.opt.Arrival
	if column == "" && byArrival && len(events) > 0 && !events[0].row.Get(enqueued).IsNull() {
		column = enqueued
	}
	if byArrival && column == "" && (in.NeedsTime || l.opt.ArrivalTime) {
		if l.opt.ArrivalTime {
			return nil, fleetscore.Errorf(fleetscore.Invalid, "read flag", "--arrival-time", "it isn't known when events arrived").WithHint("add --arrival COLUMN")
		}
		return nil, l.plan.SQL.ErrorAt(in.At, "the input %s has no TIMESTAMP BY, and it isn't known when its events arrived", in.Name).WithHint("write TIMESTAMP BY column behind %s, or add --arrival COLUMN", in.Name)
	}
	clock := stream.NewClock(l.opt.Policy)
	var out []event
	counts := map[string]int{}
	for _, e := range events {
		j := Judged{Input: in.Name, Line: e.line, Event: e.row, Outcome: stream.Dropped.String()}
		arrived := stream.Unknown
		if column != "" {
			t, ok := stream.TimeOf(e.row.Get(column))
			if !ok {
				return nil, fleetscore.Errorf(fleetscore.Invalid, "read input", l.files[strings.ToLower(in.Name)], "line %d: the column %s has no time of arrival", e.line, column)
			}
			arrived, j.Arrived = t, value.Time(t)
		}
		row, declared := in.Declare(e.row)
		e.row, e.input = row, at
		switch {
		case !declared:
			j.Reason = "not_declared"
		case byArrival:
			if column != "" {
				e.stamp, j.Stamp = arrived, value.Time(arrived)
			}
			j.Outcome = stream.OnTime.String()
		default:
			l.judge(clock, in, &e, arrived, &j)
		}
		if j.Outcome != stream.Dropped.String() {
			out = append(out, e)
		}
		if j.Reason != "" {
			counts[j.Reason+" and "+j.Outcome]++
		}
		if l.judged != nil {
			if err := l.judged(j); err != nil {
				return nil, err
			}
		}
	}
	for _, r := range reasons {
		for _, outcome := range []stream.Outcome{stream.Adjusted, stream.Dropped} {
			if n := counts[r.name+" and "+outcome.String()]; n == 1 && l.judged == nil {
				l.warn("input %s: 1 event that %s was %s", in.Name, r.text, outcome)
			} else if n > 1 && l.judged == nil {
				l.warn("input %s: %d events that %s were %s", in.Name, n, r.text, outcome)
			}
		}
	}
	return out, nil
}

// judge gives one event its time by the policy.
func (l *lab) judge(clock *stream.Clock, in *stream.Input, e *event, arrived fleetscore.Micros, j *Judged) {
	t, ok := in.Stamp(e.row)
	if !ok {
		j.Reason = "no_time"
		return
	}
	j.Time = value.Time(t)
	if l.opt.Arrival == "" && !l.opt.Disordered { // a replay goes by event time alone
		e.stamp, j.Stamp, j.Outcome = t, j.Time, stream.OnTime.String()
		return
	}
	stamp, v := clock.Take(in.Timeline(e.row), t, arrived)
	var why []string
	for _, r := range []struct {
		is   bool
		name string
	}{{v.Late, "late"}, {v.OutOfOrder, "out_of_order"}, {v.Early, "early"}} {
		if r.is {
			why = append(why, r.name)
		}
	}
	j.Outcome, j.Reason = v.Outcome.String(), strings.Join(why, ", ")
	if v.Outcome != stream.Dropped {
		e.stamp, j.Stamp = stamp, value.Time(stamp)
	}
}

// unknownColumns warns about columns that no event of their input has.
func (l *lab) unknownColumns() {
	told := map[string]bool{}
	for _, u := range l.plan.Uses {
		events := l.lines[l.files[strings.ToLower(u.Input)]]
		seen := map[*value.Shape]bool{}
		var known []string
		found := len(events) == 0
		for _, e := range events {
			if seen[e.row.Shape] {
				continue
			}
			seen[e.row.Shape] = true
			known = append(known, e.row.Shape.Names...)
			if _, ok := e.row.Shape.Find(u.Column); ok {
				found = true
				break
			}
		}
		if key := u.Input + "\x00" + u.Column; !found && !told[key] {
			told[key] = true
			hint := ""
			if near := fleetscore.Nearest(u.Column, known); near != "" {
				hint = "; is " + near + " meant?"
			}
			l.warn("%s: no event of input %s has a column %s%s", l.plan.SQL.ErrorAt(u.At, "").Subject, u.Input, u.Column, hint)
		}
	}
}
