package schedule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a machine without a time zone database has the same zones

	"github.com/fleetscore/fleetscore"
)

// Spec is a schedule that was read: all its due times. It is immutable.
//
// The rules of a time zone's gaps (clocks go forward) and folds (clocks go back):
// lines that stand for an interval follow real time, so that they are due at each
// instant whose local time fits, in both passes of a fold, and never in a gap. Lines
// with fixed hours are due once: in a fold at its first pass, and for the local times
// of a gap at the first instant after it.
type Spec struct {
	zone       *time.Location
	start, end time.Time // zero means unbounded; both are included

	// Due times are either those of local times, or those of elapsed.
	local   localTimes
	real    bool // due at every instant whose local time fits
	fixed   bool // due at the one instant that stands for each local time that fits
	elapsed elapsed
}

// localTimes are times that a clock on the wall shows, written as a time in UTC.
type localTimes interface {
	// next is the first of these times after t; false if there is none in the next
	// hundred years.
	next(t time.Time) (time.Time, bool)
}

// yearsAhead is how far due times are looked for. 29 February falls on one day of the
// week every 40 years at most.
const yearsAhead = 100

// elapsed is a time and all that are a multiple of step before or after it.
type elapsed struct {
	anchor time.Time
	step   time.Duration
}

func (e elapsed) next(t time.Time) time.Time {
	d := t.Sub(e.anchor)
	n := d / e.step
	if d%e.step < 0 {
		n--
	}
	return e.anchor.Add((n + 1) * e.step)
}

// Parse reads a schedule. Every error is of kind Invalid and says which field is
// wrong and why; mistakes in several fields are joined. A schedule without a cron line and recurrence is never due.
func Parse(c fleetscore.ScheduleConfig) (*Spec, error) {
	s := &Spec{}
	zone := c.Zone
	if c.Recurrence != nil {
		if c.Cron != "" {
			return nil, invalid("recurrence", "a schedule has either a cron line or a recurrence, not both")
		}
		if zone != "" && c.Recurrence.TimeZone != "" && zone != c.Recurrence.TimeZone {
			return nil, invalid("recurrence.timeZone", "the zone is %s there and %s beside it: name the time zone once", c.Recurrence.TimeZone, zone)
		}
		if zone == "" {
			zone = c.Recurrence.TimeZone
		}
	}
	var problems [4]error // a mistake in one field hides none in another
	if s.zone, problems[0] = Zone(zone); problems[0] != nil {
		s.zone = time.UTC
	}
	s.start, problems[1] = TimeIn(s.zone, "start", c.Start)
	s.end, problems[2] = TimeIn(s.zone, "end", c.End)
	switch {
	case c.Cron != "":
		problems[3] = s.readCron(c.Cron)
	case c.Recurrence != nil:
		problems[3] = s.readRecurrence(*c.Recurrence, c)
	}
	found := slices.DeleteFunc(problems[:], func(err error) bool { return err == nil })
	switch {
	case len(found) == 1:
		return nil, found[0]
	case len(found) > 1:
		return nil, errors.Join(found...)
	case !c.IsSet():
		return s, nil
	}
	if !s.start.IsZero() && !s.end.IsZero() && s.end.Before(s.start) {
		return nil, invalid("end", "the schedule ends at %s, before it starts at %s", s.end.UTC().Format(time.RFC3339), s.start.UTC().Format(time.RFC3339))
	}
	if s.local != nil {
		if _, ok := s.local.next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)); !ok {
			return nil, s.never(c)
		}
	}
	return s, nil
}

// Describe says in a few words when a schedule is due; empty if it never is.
func Describe(c fleetscore.ScheduleConfig) string {
	r := c.Recurrence
	switch {
	case c.RunAfter != "":
		return "after " + c.RunAfter
	case r == nil:
		return c.Cron
	}
	unit := strings.ToLower(r.Frequency)
	if r.Interval == nil || *r.Interval == 1 {
		return "every " + unit
	}
	return fmt.Sprintf("every %d %ss", *r.Interval, unit)
}

func (s *Spec) never(c fleetscore.ScheduleConfig) error {
	if c.Cron != "" {
		return badCron(c.Cron, "it is never due: no month has such a day")
	}
	return invalid("recurrence.schedule.monthDays", "it is never due: no month that is asked for has such a day")
}

func invalid(field, format string, args ...any) *fleetscore.Error {
	return fleetscore.Errorf(fleetscore.Invalid, "read schedule", field, format, args...)
}

// Zone is a time zone by its name in the IANA database or by Windows' name; empty
// means UTC.
func Zone(name string) (*time.Location, error) {
	iana := name
	for windows, i := range windowsZones {
		if strings.EqualFold(windows, name) {
			iana = i
		}
	}
	if zone, err := time.LoadLocation(iana); err == nil && !strings.EqualFold(name, "local") {
		return zone, nil
	}
	return nil, invalid("zone", "there is no time zone %q", name).
		WithHint("write a name of the IANA database such as Europe/Berlin, or Windows' name of a zone such as Pacific Standard Time; without a zone times are in UTC")
}

// layouts are how a start and an end can be written; a fraction of a second may
// follow the seconds.
var layouts = []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02", "2006-01-02 15:04:05", "2006-01-02 15:04"}

// TimeIn reads a time; without Z or an offset it is local time in the zone. An empty
// text is the zero time.
func TimeIn(zone *time.Location, field, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range layouts {
		if t, err := time.Parse(layout, text); err == nil {
			return instant(t, zone), nil
		}
	}
	return time.Time{}, invalid(field, "%q isn't a time", text).
		WithHint("write for example 2026-12-01T08:00:00 for local time in the schedule's zone, or 2026-12-01T08:00:00Z for UTC")
}

// Zone is the zone of the schedule's local times.
func (s *Spec) Zone() *time.Location { return s.zone }

// Next is the first due time after t, in UTC; false if there is none.
func (s *Spec) Next(t time.Time) (time.Time, bool) {
	if !s.start.IsZero() && t.Before(s.start) {
		t = s.start.Add(-1)
	}
	var due time.Time
	switch {
	case s.elapsed.step > 0:
		due = s.elapsed.next(t)
	case s.local == nil:
		return due, false
	default:
		var ok bool
		if due, ok = s.nextLocal(t); !ok {
			return due, false
		}
	}
	if !s.end.IsZero() && due.After(s.end) {
		return time.Time{}, false
	}
	return due.UTC(), true
}

func (s *Spec) nextLocal(t time.Time) (due time.Time, ok bool) {
	if s.real {
		due, ok = s.nextReal(t)
	}
	if s.fixed {
		if d, found := s.nextFixed(t); found && (!ok || d.Before(due)) {
			due, ok = d, true
		}
	}
	return due, ok
}

// nextReal is the first instant after t whose local time fits. Between two changes of
// the zone's offset, local time and real time run together.
func (s *Spec) nextReal(t time.Time) (time.Time, bool) {
	from := wall(t, s.zone)
	for {
		local, ok := s.local.next(from)
		if !ok {
			return time.Time{}, false
		}
		_, offset := t.In(s.zone).Zone()
		change := changeAfter(t, s.zone)
		due := local.Add(-time.Duration(offset) * time.Second)
		if change.IsZero() || due.Before(change) {
			return due, true
		}
		last := change.UTC().Add(time.Duration(offset) * time.Second)
		t, from = change, wall(change, s.zone).Add(-1)
		// Where a gap takes midnight away, the day begins with the first instant after.
		if midnight := from.Truncate(24 * time.Hour); !midnight.Before(last) {
			if local, ok := s.local.next(midnight.Add(-1)); ok && local.Equal(midnight) {
				return change.UTC(), true
			}
		}
	}
}

// nextFixed is the first instant after t that stands for a local time that fits.
// A later local time never has an earlier instant, so that those up to the local time
// of t needn't be looked at.
func (s *Spec) nextFixed(t time.Time) (time.Time, bool) {
	for local := wall(t, s.zone); ; {
		next, ok := s.local.next(local)
		if !ok {
			return time.Time{}, false
		}
		if due := instant(next, s.zone); due.After(t) {
			return due, true
		}
		local = next
	}
}

// Last is the last due time that isn't after t; false if there is none.
func (s *Spec) Last(t time.Time) (time.Time, bool) {
	// Whether a due time lies in (a, t] is true for every early a and false for every
	// late one. The border between them is searched, in seconds.
	within := func(a time.Time) bool {
		due, ok := s.Next(a)
		return ok && !due.After(t)
	}
	back := time.Second
	for ; !within(t.Add(-back)); back *= 2 {
		if back > yearsAhead*366*24*time.Hour {
			return time.Time{}, false
		}
	}
	early, late := t.Add(-back), t
	for late.Sub(early) > time.Second {
		if middle := early.Add(late.Sub(early) / 2); within(middle) {
			early = middle
		} else {
			late = middle
		}
	}
	due, ok := s.Next(early)
	for ok { // two due times are at least a second apart, so that this ends at once
		next, found := s.Next(due)
		if !found || next.After(t) {
			break
		}
		due = next
	}
	return due, ok
}

// wall is the local time of an instant.
func wall(t time.Time, zone *time.Location) time.Time {
	_, offset := t.In(zone).Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// changeAfter is the end of the time around t in which the zone's offset stays the same;
// zero if it stays so for ever. The offset after it may be the same.
//
// From 2038 on, package time works with years of 365 days: on 31 December of a leap
// year, its end isn't after t.
func changeAfter(t time.Time, zone *time.Location) time.Time {
	_, change := t.In(zone).ZoneBounds()
	if !change.IsZero() && !change.After(t) {
		change = t.Truncate(24 * time.Hour).Add(24 * time.Hour)
	}
	return change
}

// instant is the instant of a local time: the first one if there are two, and the
// end of the gap if there is none.
func instant(local time.Time, zone *time.Location) time.Time {
	for t := local.Add(-26 * time.Hour); ; { // no zone is further from UTC
		in := t.In(zone)
		_, offset := in.Zone()
		start, _ := in.ZoneBounds()
		change := changeAfter(t, zone)
		due := local.Add(-time.Duration(offset) * time.Second)
		switch {
		case !start.IsZero() && due.Before(start):
			return start.UTC()
		case change.IsZero() || due.Before(change):
			return due
		}
		t = change
	}
}
