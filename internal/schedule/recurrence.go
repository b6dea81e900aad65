package schedule

import (
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
)

// anchor is where recurrences without a start are counted from: a Monday, and the
// first day of a year, in the schedule's zone.
var anchor = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)

// units are the frequencies that are counted in elapsed time.
var units = map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour}

// maxInterval is Logic Apps' largest, which it allows for seconds.
const maxInterval = 9_999_999

// calendar is every interval-th day, week or month, at times of the day.
type calendar struct {
	frequency string // day, week, month
	interval  int
	start     time.Time // counted from the day, week or month of this local time
	times     []time.Duration

	weekdays  uint64 // for weeks; Sunday is 0
	monthdays map[int]bool
	nth       map[weekdayOfMonth]bool
	clamp     int // a day of the month that months without it have on their last day
}

type weekdayOfMonth struct {
	day time.Weekday
	nth int // from the end of the month if negative
}

// readRecurrence reads what Logic Apps' Recurrence trigger takes.
func (s *Spec) readRecurrence(r fleetscore.Recurrence, c fleetscore.ScheduleConfig) error {
	if err := s.readBounds(r, c); err != nil {
		return err
	}
	frequency := strings.ToLower(r.Frequency)
	interval := 1
	if r.Interval != nil {
		interval = *r.Interval
	}
	unit, real := units[frequency]
	if interval < 1 || interval > maxInterval || real && time.Duration(interval) > yearsAhead*365*24*time.Hour/unit {
		return invalid("recurrence.interval", "%d isn't a whole number from 1 to %d, of at most %d years", interval, maxInterval, yearsAhead)
	}
	begin := wall(s.start, s.zone)
	if s.start.IsZero() {
		begin = anchor
	}
	if real {
		if r.Schedule != nil {
			return invalid("recurrence.schedule", "hours, minutes and days can't be combined with the frequency %s", r.Frequency).
				WithHint("write the frequency Day, Week or Month; or a startTime, whose minute and second each due time has")
		}
		s.elapsed = elapsed{anchor: s.start, step: time.Duration(interval) * unit}
		if s.start.IsZero() {
			s.elapsed.anchor = instant(anchor, s.zone)
		}
		return nil
	}
	if !slices.Contains([]string{"day", "week", "month"}, frequency) {
		what := "the frequency is missing"
		if r.Frequency != "" {
			what = "there is no frequency " + r.Frequency
		}
		return invalid("recurrence.frequency", "%s", what).WithHint("write Second, Minute, Hour, Day, Week or Month")
	}
	k := &calendar{frequency: frequency, interval: interval, start: begin}
	var sched fleetscore.RecurrenceSchedule
	if r.Schedule != nil {
		sched = *r.Schedule
	}
	every, err := k.readTimes(sched)
	if err != nil {
		return err
	}
	if err := k.readDays(sched); err != nil {
		return err
	}
	s.local, s.real, s.fixed = k, every, !every
	return nil
}

// readBounds takes start, end and zone. A start time that ends in Z makes the
// recurrence one in UTC, as in Logic Apps.
func (s *Spec) readBounds(r fleetscore.Recurrence, c fleetscore.ScheduleConfig) (err error) {
	if strings.HasSuffix(strings.ToUpper(r.StartTime), "Z") {
		s.zone = time.UTC
	}
	for _, b := range []struct {
		field, text, other string
		into               *time.Time
	}{{"startTime", r.StartTime, c.Start, &s.start}, {"endTime", r.EndTime, c.End, &s.end}} {
		if b.text == "" {
			continue
		}
		if b.other != "" {
			return invalid("recurrence."+b.field, "the schedule has the same beside the recurrence; write it once")
		}
		if *b.into, err = TimeIn(s.zone, "recurrence."+b.field, b.text); err != nil {
			return err
		}
	}
	return nil
}

// readTimes reads hours and minutes: all combinations are due. What is missing is as
// in the start. It reports whether every hour of a day has due times, so that they
// stand for intervals.
func (k *calendar) readTimes(c fleetscore.RecurrenceSchedule) (everyHour bool, err error) {
	hours, minutes, second := c.Hours, c.Minutes, 0
	for _, f := range []struct {
		name   string
		values []int
		high   int
	}{{"hour", hours, 23}, {"minute", minutes, 59}} {
		for _, v := range f.values {
			if v < 0 || v > f.high {
				return false, invalid("recurrence.schedule."+f.name+"s", "the %s %d isn't between 0 and %d", f.name, v, f.high)
			}
		}
	}
	if len(hours) == 0 {
		hours = []int{k.start.Hour()}
	}
	if len(minutes) == 0 {
		minutes, second = []int{k.start.Minute()}, k.start.Second()
	}
	seen := map[int]bool{}
	for _, h := range hours {
		seen[h] = true
		for _, m := range minutes {
			k.times = append(k.times, time.Duration(h)*time.Hour+time.Duration(m)*time.Minute+time.Duration(second)*time.Second)
		}
	}
	slices.Sort(k.times)
	k.times = slices.Compact(k.times)
	return len(seen) == 24, nil
}

// readDays reads the days of weeks and months. What is missing is as in the start.
func (k *calendar) readDays(c fleetscore.RecurrenceSchedule) error {
	if len(c.WeekDays) > 0 && k.frequency != "week" {
		return invalid("recurrence.schedule.weekDays", "they need the frequency Week").WithHint("for the second Friday of a month, write monthlyOccurrences")
	}
	if (len(c.MonthDays) > 0 || len(c.MonthlyOccurrences) > 0) && k.frequency != "month" {
		return invalid("recurrence.schedule.monthDays", "days of a month need the frequency Month")
	}
	for _, name := range c.WeekDays {
		d, err := weekday("recurrence.schedule.weekDays", name)
		if err != nil {
			return err
		}
		k.weekdays |= 1 << d
	}
	if k.weekdays == 0 {
		k.weekdays = 1 << k.start.Weekday()
	}
	k.monthdays, k.nth = map[int]bool{}, map[weekdayOfMonth]bool{}
	for _, d := range c.MonthDays {
		if d == 0 || d < -31 || d > 31 {
			return invalid("recurrence.schedule.monthDays", "%d is neither a day from 1 to 31 nor one from -1 (the last) to -31", d)
		}
		k.monthdays[d] = true
	}
	for _, o := range c.MonthlyOccurrences {
		d, err := weekday("recurrence.schedule.monthlyOccurrences.day", o.Day)
		if err != nil {
			return err
		}
		if o.Occurrence == 0 || o.Occurrence < -5 || o.Occurrence > 5 {
			return invalid("recurrence.schedule.monthlyOccurrences.occurrence", "%d is neither from 1 to 5 nor from -1 (the last) to -5", o.Occurrence)
		}
		k.nth[weekdayOfMonth{d, o.Occurrence}] = true
	}
	if k.frequency == "month" && len(k.monthdays)+len(k.nth) == 0 {
		k.clamp = k.start.Day()
	}
	return nil
}

func weekday(field, name string) (time.Weekday, error) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if strings.EqualFold(name, d.String()) {
			return d, nil
		}
	}
	return 0, invalid(field, "%q isn't a day of the week", name).WithHint("write Monday, Tuesday, Wednesday, Thursday, Friday, Saturday or Sunday")
}

func (k *calendar) next(t time.Time) (time.Time, bool) {
	limit := t.Year() + yearsAhead
	for day := t.Truncate(24 * time.Hour); day.Year() <= limit; day = day.Add(24 * time.Hour) {
		if !k.fits(day) {
			continue
		}
		for _, of := range k.times {
			if due := day.Add(of); due.After(t) {
				return due, true
			}
		}
	}
	return time.Time{}, false
}

// fits reports whether a day has due times.
func (k *calendar) fits(day time.Time) bool {
	switch k.frequency {
	case "day":
		return k.counted(dayNumber(day) - dayNumber(k.start))
	case "week":
		return k.weekdays&(1<<day.Weekday()) != 0 && k.counted(weekNumber(day)-weekNumber(k.start))
	}
	if !k.counted(monthNumber(day) - monthNumber(k.start)) {
		return false
	}
	d, last, w := day.Day(), daysIn(day.Year(), day.Month()), day.Weekday()
	if k.clamp > 0 {
		return d == min(k.clamp, last)
	}
	return k.monthdays[d] || k.monthdays[d-last-1] || k.nth[weekdayOfMonth{w, (d + 6) / 7}] || k.nth[weekdayOfMonth{w, -(last-d)/7 - 1}]
}

func (k *calendar) counted(n int) bool { return n%k.interval == 0 }

func dayNumber(t time.Time) int {
	return int(t.Truncate(24*time.Hour).Sub(anchor.Truncate(24*time.Hour)) / (24 * time.Hour))
}

// weekNumber counts weeks, which begin on Monday.
func weekNumber(t time.Time) int {
	monday := t.Truncate(24*time.Hour).AddDate(0, 0, -(int(t.Weekday())+6)%7)
	return dayNumber(monday) / 7
}

func monthNumber(t time.Time) int { return 12*t.Year() + int(t.Month()) }
