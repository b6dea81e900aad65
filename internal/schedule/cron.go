package schedule

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
)

// cron is a line of five fields. Bit n of a set stands for the value n.
type cron struct {
	minutes, hours, days, months uint64

	lastDay     bool   // L: the last day of the month
	lastWorkday bool   // LW: the last Monday to Friday of the month
	workdays    uint64 // 15W: the Monday to Friday next to the 15th, in the same month

	weekdays     uint64    // Sunday is 0
	lastWeekdays uint64    // 5L: the last Friday of the month
	nth          [6]uint64 // FRI#2: nth[2] has the second Friday of the month

	// both says that the day of the month and the day of the week must fit. As in
	// Debian's cron this is so if one of the two fields starts with a star; otherwise
	// one of them is enough.
	both bool
}

// nicknames are lines with a name.
var nicknames = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

// field is one of the five.
type field struct {
	name     string // for people
	low      int
	high     int
	names    []string // of the values from low on
	weekday  bool
	monthday bool
}

var fields = [5]field{
	{name: "minute", high: 59},
	{name: "hour", high: 23},
	{name: "day of the month", low: 1, high: 31, monthday: true},
	{name: "month", low: 1, high: 12, names: []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"}},
	{name: "day of the week", high: 7, names: []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}, weekday: true},
}

func badCron(line, format string, args ...any) error {
	return fleetscore.Errorf(fleetscore.Invalid, "read cron line", strconv.Quote(line), format, args...).
		WithHint(`write five fields: minute hour day month weekday, such as "0 * * * *" for every hour`)
}

// readCron reads a line such as "30 2 * * MON-FRI" or "@hourly".
func (s *Spec) readCron(line string) error {
	text := strings.TrimSpace(line)
	if strings.HasPrefix(text, "@") {
		five, ok := nicknames[strings.ToLower(text)]
		if !ok {
			return badCron(line, "%s isn't one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually", text)
		}
		text = five
	}
	if first, _, _ := strings.Cut(text, "="); first == "TZ" || first == "CRON_TZ" {
		return badCron(line, "a time zone can't stand in the line; it is the schedule's zone")
	}
	parts := strings.Fields(strings.ToUpper(text))
	switch n := len(parts); {
	case n == 6:
		return badCron(line, "it has 6 fields, not 5; cron lines have no seconds (a recurrence has)")
	case n != 5:
		return badCron(line, "it has %d fields, not 5", n)
	}
	c := &cron{}
	for i, set := range []*uint64{&c.minutes, &c.hours, &c.days, &c.months, &c.weekdays} {
		for term := range strings.SplitSeq(parts[i], ",") {
			if err := c.term(fields[i], term, set); err != nil {
				return badCron(line, "%w", err)
			}
		}
	}
	if c.weekdays&(1<<7) != 0 {
		c.weekdays |= 1
	}
	c.both = strings.ContainsAny(parts[2][:1]+parts[4][:1], "*?")
	s.local = c
	s.real = parts[0][0] == '*' || parts[1][0] == '*'
	s.fixed = parts[1][0] != '*'
	return nil
}

// term reads one of the values that a field lists.
func (c *cron) term(f field, term string, set *uint64) error {
	if done, err := c.special(f, term); done || err != nil {
		return err
	}
	span, stepText, stepped := strings.Cut(term, "/")
	step := 1
	if stepped {
		n, err := strconv.ParseUint(stepText, 10, 31)
		if err != nil || n == 0 || !digits(stepText) {
			return fmt.Errorf("the step /%s of the %s isn't a whole number from 1 on", stepText, f.name)
		}
		step = int(n)
	}
	from, to, isRange := strings.Cut(span, "-")
	var low, high int
	var err error
	switch {
	case span == "*" || span == "?" && (f.weekday || f.monthday):
		if low, high = f.low, f.high; f.weekday {
			high = 6 // 7 is Sunday again
		}
	case isRange:
		if low, err = f.value(from); err != nil {
			return err
		}
		if high, err = f.value(to); err != nil {
			return err
		}
		if f.weekday && high == 0 && low > 0 && to == f.names[0] {
			high = 7 // such as SAT-SUN
		}
		if high < low {
			return fmt.Errorf("the range %s of the %s goes backwards; write two, such as %s-%d,%d-%s", span, f.name, from, f.high, f.low, to)
		}
		if high == low && stepped { // croniter and cronsim take 11-11/2 for 11/2
			high = f.high
		}
	default:
		if low, err = f.value(span); err != nil {
			return err
		}
		if high = low; stepped {
			high = f.high
		}
	}
	for v := low; v <= high; v += step {
		*set |= 1 << v
	}
	return nil
}

// special reads the values that aren't a number, a name or a range of them. A term
// without such a value is not done.
func (c *cron) special(f field, term string) (done bool, err error) {
	switch {
	case f.monthday && term == "L":
		c.lastDay = true
	case f.monthday && term == "LW":
		c.lastWorkday = true
	case f.monthday && strings.HasSuffix(term, "W"):
		d, err := f.value(strings.TrimSuffix(term, "W"))
		if err != nil {
			return false, err
		}
		c.workdays |= 1 << d
	case f.weekday && term == "L":
		return false, fmt.Errorf("the day of the week L means Saturday in some programs and is refused in others; write 6, or 6L for the last Saturday of the month")
	case f.weekday && strings.Contains(term, "#"):
		name, nth, _ := strings.Cut(term, "#")
		d, err := f.value(name)
		if err != nil {
			return false, err
		}
		n, err := strconv.Atoi(nth)
		if err != nil || n < 1 || n > 5 || !digits(nth) {
			return false, fmt.Errorf("#%s of the day of the week isn't between #1 and #5", nth)
		}
		c.nth[n] |= 1 << (d % 7)
	case f.weekday && (strings.HasSuffix(term, "L") || strings.HasPrefix(term, "L")):
		d, err := f.value(strings.Trim(term, "L"))
		if err != nil {
			return false, err
		}
		c.lastWeekdays |= 1 << (d % 7)
	default:
		return false, nil
	}
	return true, nil
}

// value reads a number or a name.
func (f field) value(text string) (int, error) {
	if i := slices.Index(f.names, text); i >= 0 {
		return f.low + i, nil
	}
	if text == "" {
		return 0, fmt.Errorf("a value of the %s is missing", f.name)
	}
	if !digits(text) {
		if f.names != nil {
			return 0, fmt.Errorf("the %s %q is neither a number from %d to %d nor a name from %s to %s", f.name, text, f.low, f.high, f.names[0], f.names[len(f.names)-1])
		}
		return 0, fmt.Errorf("the %s %q isn't a number from %d to %d", f.name, text, f.low, f.high)
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.low || n > f.high {
		return 0, fmt.Errorf("the %s %s isn't between %d and %d", f.name, text, f.low, f.high)
	}
	return n, nil
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func (c *cron) next(t time.Time) (time.Time, bool) {
	t = t.Truncate(time.Minute).Add(time.Minute)
	limit := t.Year() + yearsAhead
	for day := t.Truncate(24 * time.Hour); day.Year() <= limit; {
		if c.months&(1<<day.Month()) == 0 {
			day = time.Date(day.Year(), day.Month()+1, 1, 0, 0, 0, 0, time.UTC)
			continue
		}
		if c.fits(day) {
			from := 0
			if day.Before(t) {
				from = int(t.Sub(day) / time.Minute)
			}
			if m, ok := c.minuteOfDay(from); ok {
				return day.Add(time.Duration(m) * time.Minute), true
			}
		}
		day = day.Add(24 * time.Hour)
	}
	return time.Time{}, false
}

// minuteOfDay is the first minute of a day, from one on, whose hour and minute fit.
func (c *cron) minuteOfDay(from int) (int, bool) {
	hour, minute := from/60, from%60
	if c.hours&(1<<hour) != 0 {
		if left := c.minutes >> minute; left != 0 {
			return from + bits.TrailingZeros64(left), true
		}
	}
	left := c.hours >> (hour + 1)
	if left == 0 {
		return 0, false
	}
	return 60*(hour+1+bits.TrailingZeros64(left)) + bits.TrailingZeros64(c.minutes), true
}

// fits reports whether a day fits both fields of days as they are combined.
func (c *cron) fits(t time.Time) bool {
	d, w := t.Day(), t.Weekday()
	last := daysIn(t.Year(), t.Month())
	monthday := c.days&(1<<d) != 0 || c.lastDay && d == last || c.workday(d, last, w)
	weekday := c.weekdays&(1<<w) != 0 || c.lastWeekdays&(1<<w) != 0 && d+7 > last || c.nth[(d+6)/7]&(1<<w) != 0
	if c.both {
		return monthday && weekday
	}
	return monthday || weekday
}

// workday reports whether LW or a W names the day d of a month with last days, which
// is the weekday w. A Saturday moves to the day before and a Sunday to the day after,
// unless that is another month.
func (c *cron) workday(d, last int, w time.Weekday) bool {
	if c.workdays == 0 && !c.lastWorkday || w == time.Saturday || w == time.Sunday {
		return false
	}
	named := func(day int) bool { return day >= 1 && day <= last && c.workdays&(1<<day) != 0 }
	switch {
	case named(d):
		return true
	case w == time.Friday && (named(d+1) || d+2 == last && named(d+2)):
		return true
	case w == time.Monday && (named(d-1) || d == 3 && named(1)):
		return true
	}
	return c.lastWorkday && (d == last || w == time.Friday && d+2 >= last)
}

func daysIn(year int, month time.Month) int {
	return time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
}
