package schedule

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
)

func cronIn(zone, line string) fleetscore.ScheduleConfig {
	return fleetscore.ScheduleConfig{Cron: line, Zone: zone}
}

func parse(t testing.TB, c fleetscore.ScheduleConfig) *Spec {
	t.Helper()
	s, err := Parse(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func instantOf(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// local lists the next n due times as a clock in the schedule's zone shows them.
func local(s *Spec, after time.Time, n int) string {
	var out []string
	for range n {
		due, ok := s.Next(after)
		if !ok {
			out = append(out, "none")
			break
		}
		out = append(out, strings.TrimSuffix(due.In(s.zone).Format("2 Jan 15:04 -0700"), "00"))
		after = due
	}
	return strings.Join(out, ", ")
}

// TestCron: what fields can hold.
func TestCron(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ line, want string }{ // after Saturday 10 January 2026, 00:00
		{"5/15 * * * *", "10 Jan 00:05 +00, 10 Jan 00:20 +00, 10 Jan 00:35 +00, 10 Jan 00:50 +00, 10 Jan 01:05 +00"},
		{"*/40 * * * *", "10 Jan 00:40 +00, 10 Jan 01:00 +00, 10 Jan 01:40 +00"},
		{"*/70 * * * *", "10 Jan 01:00 +00, 10 Jan 02:00 +00"},
		{"1-5/2,9 3 * * *", "10 Jan 03:01 +00, 10 Jan 03:03 +00, 10 Jan 03:05 +00, 10 Jan 03:09 +00, 11 Jan 03:01 +00"},
		{" 0  0\t1 1 * ", "1 Jan 00:00 +00"},
		{"05 06 07 08 *", "7 Aug 06:05 +00"},
		{"0 0 1 jan-mar,Dec *", "1 Feb 00:00 +00, 1 Mar 00:00 +00, 1 Dec 00:00 +00"},
		{"0 0 * * sat-sun", "11 Jan 00:00 +00, 17 Jan 00:00 +00, 18 Jan 00:00 +00"},
		{"0 0 * * 6-7", "11 Jan 00:00 +00, 17 Jan 00:00 +00, 18 Jan 00:00 +00"},
		{"0 0 * * 7", "11 Jan 00:00 +00, 18 Jan 00:00 +00"},
		{"0 0 * * 0", "11 Jan 00:00 +00, 18 Jan 00:00 +00"},
		{"0 0 * * */2", "11 Jan 00:00 +00, 13 Jan 00:00 +00, 15 Jan 00:00 +00, 17 Jan 00:00 +00, 18 Jan 00:00 +00"},
		{"0 3-3/9 * * *", "10 Jan 03:00 +00, 10 Jan 12:00 +00, 10 Jan 21:00 +00"},
		{"0 0 * * 1/2", "11 Jan 00:00 +00, 12 Jan 00:00 +00, 14 Jan 00:00 +00, 16 Jan 00:00 +00, 18 Jan 00:00 +00"},
		{"0 0 * * 7/2", "11 Jan 00:00 +00, 18 Jan 00:00 +00"},
		{"0 0 13 * 5", "13 Jan 00:00 +00, 16 Jan 00:00 +00, 23 Jan 00:00 +00"},     // or
		{"0 0 */2 * 5", "23 Jan 00:00 +00, 13 Feb 00:00 +00, 27 Feb 00:00 +00"},    // and: the day starts with a star
		{"0 0 13 * */5", "13 Feb 00:00 +00, 13 Mar 00:00 +00, 13 Sep 00:00 +00"},   // and: 0 and 5
		{"0 0 1-31/2 * 5", "11 Jan 00:00 +00, 13 Jan 00:00 +00, 15 Jan 00:00 +00"}, // or
		{"0 0 ? * 5", "16 Jan 00:00 +00, 23 Jan 00:00 +00"},
		{"0 0 L * ?", "31 Jan 00:00 +00, 28 Feb 00:00 +00, 31 Mar 00:00 +00, 30 Apr 00:00 +00"},
		{"0 0 L,15 * *", "15 Jan 00:00 +00, 31 Jan 00:00 +00, 15 Feb 00:00 +00, 28 Feb 00:00 +00"},
		{"0 0 LW * *", "30 Jan 00:00 +00, 27 Feb 00:00 +00, 31 Mar 00:00 +00, 30 Apr 00:00 +00, 29 May 00:00 +00"},
		{"0 0 15W * *", "15 Jan 00:00 +00, 16 Feb 00:00 +00, 16 Mar 00:00 +00, 15 Apr 00:00 +00, 15 May 00:00 +00"},
		{"0 0 1W * *", "2 Feb 00:00 +00, 2 Mar 00:00 +00, 1 Apr 00:00 +00, 1 May 00:00 +00, 1 Jun 00:00 +00, 1 Jul 00:00 +00, 3 Aug 00:00 +00"},
		{"0 0 31W * *", "30 Jan 00:00 +00, 31 Mar 00:00 +00, 29 May 00:00 +00"}, // 31 May is a Sunday
		{"0 0 * * 5L", "30 Jan 00:00 +00, 27 Feb 00:00 +00, 27 Mar 00:00 +00, 24 Apr 00:00 +00"},
		{"0 0 * * L5", "30 Jan 00:00 +00, 27 Feb 00:00 +00, 27 Mar 00:00 +00, 24 Apr 00:00 +00"},
		{"0 0 * * friL,7L", "25 Jan 00:00 +00, 30 Jan 00:00 +00, 22 Feb 00:00 +00, 27 Feb 00:00 +00"},
		{"0 0 * * fri#2", "13 Feb 00:00 +00, 13 Mar 00:00 +00, 10 Apr 00:00 +00"},
		{"0 0 * * 5#5,1#1", "30 Jan 00:00 +00, 2 Feb 00:00 +00, 2 Mar 00:00 +00"},
		{"0 0 1 * 1#1", "1 Feb 00:00 +00, 2 Feb 00:00 +00, 1 Mar 00:00 +00"},
		{"0 0 29 2 *", "29 Feb 00:00 +00"},
		{"@hourly", "10 Jan 01:00 +00, 10 Jan 02:00 +00"},
		{"@daily", "11 Jan 00:00 +00, 12 Jan 00:00 +00"},
		{"@midnight", "11 Jan 00:00 +00, 12 Jan 00:00 +00"},
		{"@Weekly", "11 Jan 00:00 +00, 18 Jan 00:00 +00"},
		{"@monthly", "1 Feb 00:00 +00, 1 Mar 00:00 +00"},
		{"@yearly", "1 Jan 00:00 +00"},
		{"@annually", "1 Jan 00:00 +00"},
	} {
		n := strings.Count(tt.want, ",") + 1
		if got := local(parse(t, cronIn("", tt.line)), instantOf(t, "2026-01-10T00:00:00Z"), n); got != tt.want {
			t.Errorf("%q:\n got %s\nwant %s", tt.line, got, tt.want)
		}
	}
	// 29 February 2112 is the first one after 2072 that is a Monday, as 2100 is no leap year.
	s := parse(t, cronIn("", "0 0 29 2 */1"))
	s.local.(*cron).weekdays = 1 << time.Monday
	if due, ok := s.Next(instantOf(t, "2072-03-01T00:00:00Z")); !ok || due.Format("2006-01-02") != "2112-02-29" {
		t.Errorf("29 February on a Monday after 2072: %v, %v; want 2112", due, ok)
	}
}

// TestCronErrors: an error names the field and the reason.
func TestCronErrors(t *testing.T) {
	t.Parallel()
	for line, why := range map[string]string{
		"0 25 * * *":                   "the hour 25 isn't between 0 and 23",
		"60 * * * *":                   "the minute 60 isn't between 0 and 59",
		"0 0 0 * *":                    "the day of the month 0 isn't between 1 and 31",
		"0 0 * 13 *":                   "the month 13 isn't between 1 and 12",
		"0 0 * * 8":                    "the day of the week 8 isn't between 0 and 7",
		"99999999999999999999 * * * *": "isn't between 0 and 59",
		"":                             "it has 0 fields, not 5",
		"* * * *":                      "it has 4 fields, not 5",
		"0 * * * * *":                  "it has 6 fields, not 5; cron lines have no seconds",
		"0 22-2 * * *":                 "the range 22-2 of the hour goes backwards; write two, such as 22-23,0-2",
		"0 0 * * fri-mon":              "goes backwards",
		"*/0 * * * *":                  "the step /0 of the minute isn't a whole number from 1 on",
		"*/x * * * *":                  "the step /X",
		"*/+2 * * * *":                 "the step /+2",
		"+5 * * * *":                   `the minute "+5" isn't a number from 0 to 59`,
		"1,,2 * * * *":                 "a value of the minute is missing",
		"* 1- * * *":                   "a value of the hour is missing",
		"0 0 1 january *":              `the month "JANUARY" is neither a number from 1 to 12 nor a name from JAN to DEC`,
		"? * * * *":                    `the minute "?"`,
		"L * * * *":                    `the minute "L"`,
		"H * * * *":                    `the minute "H"`,
		"0 0 L-3 * *":                  `the day of the month "L" isn't a number`,
		"0 0 32W * *":                  "the day of the month 32",
		"0 0 * * L":                    "the day of the week L means Saturday in some programs",
		"0 0 * * 5#6":                  "#6 of the day of the week isn't between #1 and #5",
		"0 0 * * 8#1":                  "the day of the week 8",
		"0 0 * * 9L":                   "the day of the week 9",
		"0 0 30 2 *":                   "it is never due",
		"0 0 31 4,6,9,11 *":            "it is never due",
		"@reboot":                      "@reboot isn't one of @hourly",
		"@every 5m":                    "isn't one of @hourly",
		"TZ=UTC 0 * * * *":             "a time zone can't stand in the line",
		"CRON_TZ=Europe/Rome 0 * * *":  "a time zone can't stand in the line",
	} {
		if _, err := Parse(cronIn("", line)); line != "" && (!fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "five fields")) {
			t.Errorf("%q: got %v, want invalid: %s", line, err, why)
		}
	}
	for _, c := range []fleetscore.ScheduleConfig{cronIn("Europe/Berln", "@daily"), cronIn("Local", "@daily"), cronIn("../etc/passwd", "@daily"),
		{Cron: "@daily", Start: "tomorrow"}, {Cron: "@daily", End: "2026-13-01"}, {Cron: "@daily", Start: "2026-02-01", End: "2026-01-01"},
		{Cron: "@daily", Recurrence: &fleetscore.Recurrence{Frequency: "Day"}}} {
		if _, err := Parse(c); !fleetscore.Invalid.Is(err) {
			t.Errorf("%+v: got %v, want invalid", c, err)
		}
	}
}

// TestGapsAndFolds: what is due where a zone's clocks are changed.
func TestGapsAndFolds(t *testing.T) {
	t.Parallel()
	const newYork, berlin, apia, howe = "America/New_York", "Europe/Berlin", "Pacific/Apia", "Australia/Lord_Howe"
	for _, tt := range []struct{ zone, line, after, want string }{
		// A gap: after 01:59 comes 03:00.
		{newYork, "30 2 * * *", "2026-03-08T00:00:00-05:00", "8 Mar 03:00 -04, 9 Mar 02:30 -04"},
		{newYork, "0,30 2,3 * * *", "2026-03-08T00:00:00-05:00", "8 Mar 03:00 -04, 8 Mar 03:30 -04, 9 Mar 02:00 -04"},
		{newYork, "*/15 2 * * *", "2026-03-08T00:00:00-05:00", "8 Mar 03:00 -04, 9 Mar 02:00 -04, 9 Mar 02:15 -04"},
		{newYork, "0 * * * *", "2026-03-08T00:30:00-05:00", "8 Mar 01:00 -05, 8 Mar 03:00 -04, 8 Mar 04:00 -04"},
		{newYork, "30 * * * *", "2026-03-08T00:30:00-05:00", "8 Mar 01:30 -05, 8 Mar 03:30 -04"},
		{newYork, "0 */2 * * *", "2026-03-07T23:59:00-05:00", "8 Mar 00:00 -05, 8 Mar 04:00 -04, 8 Mar 06:00 -04"},
		// A fold: 01:00 to 01:59 comes twice.
		{newYork, "30 1 * * *", "2026-11-01T00:00:00-04:00", "1 Nov 01:30 -04, 2 Nov 01:30 -05"},
		{newYork, "0,30 1 * * *", "2026-11-01T01:10:00-04:00", "1 Nov 01:30 -04, 2 Nov 01:00 -05"},
		{newYork, "30 1 * * *", "2026-11-01T01:10:00-05:00", "2 Nov 01:30 -05"}, // asked within the second pass
		{newYork, "45 1 * * *", "2026-11-01T01:45:00-04:00", "2 Nov 01:45 -05"}, // asked between the two 01:45
		{newYork, "0 * * * *", "2026-11-01T00:30:00-04:00", "1 Nov 01:00 -04, 1 Nov 01:00 -05, 1 Nov 02:00 -05"},
		{newYork, "0 */2 * * *", "2026-10-31T23:00:00-04:00", "1 Nov 00:00 -04, 1 Nov 02:00 -05"},
		{berlin, "0 */2 * * *", "2026-10-25T01:00:00+02:00", "25 Oct 02:00 +02, 25 Oct 02:00 +01, 25 Oct 04:00 +01"},
		{newYork, "*/30 1 * * *", "2026-11-01T00:30:00-04:00", "1 Nov 01:00 -04, 1 Nov 01:30 -04, 1 Nov 01:00 -05, 1 Nov 01:30 -05, 2 Nov 01:00 -05"},
		{newYork, "30 0-23 * * *", "2026-11-01T01:00:00-04:00", "1 Nov 01:30 -04, 1 Nov 02:30 -05"},
		// A change of half an hour: 02:00 to 02:29 is left out, 01:30 to 01:59 comes twice.
		{howe, "15 2 * * *", "2026-10-03T12:00:00Z", "4 Oct 02:30 +11, 5 Oct 02:15 +11"},
		{howe, "45 1 * * *", "2026-04-04T12:00:00Z", "5 Apr 01:45 +11, 6 Apr 01:45 +1030"},
		{howe, "*/15 * * * *", "2026-04-04T14:25:00Z", "5 Apr 01:30 +11, 5 Apr 01:45 +11, 5 Apr 01:30 +1030, 5 Apr 01:45 +1030, 5 Apr 02:00 +1030"},
		// A day that didn't exist: 30 December 2011.
		{apia, "0 12 * * *", "2011-12-29T22:00:00Z", "31 Dec 00:00 +14, 31 Dec 12:00 +14"},
		// A gap at midnight: after 23:59 comes 01:00, with which the day begins.
		{"America/Santiago", "0 */4 * * *", "2026-09-05T23:30:00Z", "5 Sep 20:00 -04, 6 Sep 01:00 -03, 6 Sep 04:00 -03"},
		{"America/Santiago", "30 */4 * * *", "2026-09-05T23:30:00Z", "5 Sep 20:30 -04, 6 Sep 04:30 -03"},
		{"America/Santiago", "@daily", "2026-09-05T23:30:00Z", "6 Sep 01:00 -03, 7 Sep 00:00 -03"},
		// The last day of a leap year, from 2038 on (see changeAfter).
		{berlin, "0 9 * * *", "2040-12-30T12:00:00Z", "31 Dec 09:00 +01, 1 Jan 09:00 +01"},
		{"Australia/Sydney", "0 */12 * * *", "2040-12-30T12:00:00Z", "31 Dec 00:00 +11, 31 Dec 12:00 +11, 1 Jan 00:00 +11, 1 Jan 12:00 +11"},
		{newYork, "*/30 2 31 12 *", "2040-12-30T12:00:00Z", "31 Dec 02:00 -05, 31 Dec 02:30 -05, 31 Dec 02:00 -05"},
		{"Pacific Standard Time", "0 8 * * *", "2026-03-07T20:00:00Z", "8 Mar 08:00 -07"}, // Windows' name
		{"pacific standard time", "0 8 * * *", "2026-01-07T20:00:00Z", "8 Jan 08:00 -08"},
		{"India Standard Time", "0 0 * * *", "2026-01-07T20:00:00Z", "9 Jan 00:00 +0530"},
	} {
		if got := local(parse(t, cronIn(tt.zone, tt.line)), instantOf(t, tt.after), strings.Count(tt.want, ",")+1); got != tt.want {
			t.Errorf("%q in %s:\n got %s\nwant %s", tt.line, tt.zone, got, tt.want)
		}
	}
}

func TestStartAndEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ start, end, want string }{
		{"2026-06-01T08:00:00", "", "1 Jun 08:00 +02, 2 Jun 08:00 +02"}, // local, and included
		{"2026-06-01T08:00:01", "", "2 Jun 08:00 +02"},
		{"2026-06-01T06:00:00Z", "", "1 Jun 08:00 +02"},
		{"2026-06-01T02:00:00-04:00", "2026-06-02T08:00", "1 Jun 08:00 +02, 2 Jun 08:00 +02, none"},
		{"2026-06-01", "2026-06-02", "1 Jun 08:00 +02, none"},
		{"", "2026-01-01", "none"},
	} {
		s := parse(t, fleetscore.ScheduleConfig{Cron: "0 8 * * *", Zone: "Europe/Berlin", Start: tt.start, End: tt.end})
		if got := local(s, instantOf(t, "2026-05-01T00:00:00Z"), strings.Count(tt.want, ",")+1); got != tt.want {
			t.Errorf("from %q to %q:\n got %s\nwant %s", tt.start, tt.end, got, tt.want)
		}
	}
}

func recurrence(t testing.TB, text string) fleetscore.ScheduleConfig {
	t.Helper()
	var r fleetscore.Recurrence
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	return fleetscore.ScheduleConfig{Recurrence: &r}
}

// TestRecurrence: the examples of Logic Apps' documentation, and what is decided here
// because the documentation doesn't say it.
func TestRecurrence(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, after, want string }{
		{"a past start sets the phase", `{"frequency": "Day", "interval": 2, "startTime": "2017-09-07T14:00:00Z"}`, "2017-09-08T13:00:00Z", "9 Sep 14:00 +00, 11 Sep 14:00 +00, 13 Sep 14:00 +00"},
		{"however far in the past", `{"frequency": "Day", "interval": 2, "startTime": "2017-09-01T14:00:00Z"}`, "2017-09-08T13:00:00Z", "9 Sep 14:00 +00, 11 Sep 14:00 +00"},
		{"a start in the future is the first", `{"frequency": "Hour", "interval": 3, "startTime": "2020-09-18T14:10:20Z"}`, "2020-09-07T00:00:00Z", "18 Sep 14:10 +00, 18 Sep 17:10 +00"},
		{"hours and minutes, never before the start", `{"frequency": "Week", "interval": 1, "startTime": "2020-09-18T08:00:00", "timeZone": "Pacific Standard Time",
			"schedule": {"hours": [10, 12, 14], "minutes": [30], "weekDays": ["Monday"]}}`, "2020-09-04T00:00:00Z", "21 Sep 10:30 -07, 21 Sep 12:30 -07, 21 Sep 14:30 -07, 28 Sep 10:30 -07"},
		{"all combinations", `{"frequency": "Day", "interval": 1, "startTime": "2020-09-18T08:40:00Z", "schedule": {"hours": [16, 8], "minutes": [45, 30]}}`, "2020-09-01T00:00:00Z",
			"18 Sep 08:45 +00, 18 Sep 16:30 +00, 18 Sep 16:45 +00, 19 Sep 08:30 +00"},
		{"missing minutes are the start's", `{"frequency": "Month", "startTime": "2020-01-06T08:25:00Z", "schedule": {"hours": [8, 9, 10]}}`, "2020-01-01T00:00:00Z", "6 Jan 08:25 +00, 6 Jan 09:25 +00, 6 Jan 10:25 +00, 6 Feb 08:25 +00"},
		{"missing hours are the start's", `{"frequency": "Week", "startTime": "2017-09-09T17:00:00Z", "schedule": {"weekDays": ["Saturday"]}}`, "2017-09-01T00:00:00Z", "9 Sep 17:00 +00, 16 Sep 17:00 +00"},
		{"missing week days are the start's", `{"frequency": "Week", "startTime": "2017-09-09T17:00:00Z", "schedule": {"minutes": [5]}}`, "2017-09-01T00:00:00Z", "9 Sep 17:05 +00, 16 Sep 17:05 +00"},
		{"the last day", `{"frequency": "Month", "interval": 1, "schedule": {"monthDays": [-1]}}`, "2026-01-10T00:00:00Z", "31 Jan 00:00 +00, 28 Feb 00:00 +00, 31 Mar 00:00 +00"},
		{"a start with Z makes it ignore the zone", `{"frequency": "Day", "startTime": "2026-01-01T08:00:00Z", "timeZone": "Pacific Standard Time", "schedule": {"hours": [9]}}`, "2026-01-01T00:00:00Z", "1 Jan 09:00 +00"},
		{"without a start the zone counts", `{"frequency": "Day", "timeZone": "Europe/Berlin", "schedule": {"hours": [9], "minutes": [0]}}`, "2026-01-01T00:00:00Z", "1 Jan 09:00 +01"},
		{"without a start minutes are counted from the hour", `{"frequency": "Minute", "interval": 15}`, "2026-01-10T00:03:00Z", "10 Jan 00:15 +00, 10 Jan 00:30 +00"},
		{"months from January", `{"frequency": "Month", "interval": 3}`, "2026-01-10T00:03:00Z", "1 Apr 00:00 +00, 1 Jul 00:00 +00, 1 Oct 00:00 +00, 1 Jan 00:00 +00"},
		{"weeks begin on Monday", `{"frequency": "Week", "interval": 2, "startTime": "2026-01-07T06:00:00Z", "schedule": {"weekDays": ["sunday", "Monday"]}}`, "2026-01-01T00:00:00Z",
			"11 Jan 06:00 +00, 19 Jan 06:00 +00, 25 Jan 06:00 +00, 2 Feb 06:00 +00"},
		{"day 31 of the start is the last day of shorter months", `{"frequency": "Month", "startTime": "2026-01-31T06:00:00Z"}`, "2026-01-01T00:00:00Z", "31 Jan 06:00 +00, 28 Feb 06:00 +00, 31 Mar 06:00 +00, 30 Apr 06:00 +00"},
		{"monthDays 31 leaves shorter months out", `{"frequency": "Month", "schedule": {"monthDays": [31]}}`, "2026-01-01T00:00:00Z", "31 Jan 00:00 +00, 31 Mar 00:00 +00, 31 May 00:00 +00"},
		{"occurrences in a month", `{"frequency": "Month", "schedule": {"monthDays": [1], "monthlyOccurrences": [{"day": "Friday", "occurrence": 2}, {"day": "Sunday", "occurrence": -1}]}}`, "2026-01-10T00:00:00Z",
			"25 Jan 00:00 +00, 1 Feb 00:00 +00, 13 Feb 00:00 +00, 22 Feb 00:00 +00"},
		{"an end is included", `{"frequency": "Day", "startTime": "2026-01-01T06:00:00Z", "endTime": "2026-01-02T06:00:00Z"}`, "2026-01-01T00:00:00Z", "1 Jan 06:00 +00, 2 Jan 06:00 +00, none"},
		{"fixed hours in a gap and a fold", `{"frequency": "Day", "startTime": "2026-03-28T02:30:00", "timeZone": "W. Europe Standard Time"}`, "2026-03-28T12:00:00Z", "29 Mar 03:00 +02, 30 Mar 02:30 +02"},
		{"and a fold", `{"frequency": "Day", "startTime": "2026-03-28T02:30:00", "timeZone": "W. Europe Standard Time"}`, "2026-10-24T12:00:00Z", "25 Oct 02:30 +02, 26 Oct 02:30 +01"},
		{"every hour follows real time", `{"frequency": "Hour", "startTime": "2026-03-28T00:00:00", "timeZone": "Europe/Berlin"}`, "2026-10-25T00:00:00Z", "25 Oct 02:00 +01, 25 Oct 03:00 +01"},
		{"so do all 24 hours", `{"frequency": "Day", "timeZone": "Europe/Berlin", "schedule": {"hours": [0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23], "minutes": [0]}}`, "2026-10-24T23:00:00Z",
			"25 Oct 02:00 +02, 25 Oct 02:00 +01, 25 Oct 03:00 +01"},
		{"every two hours in real time", `{"frequency": "Hour", "interval": 2, "startTime": "2026-10-25T00:00:00", "timeZone": "Europe/Berlin"}`, "2026-10-24T23:00:00Z", "25 Oct 02:00 +02, 25 Oct 03:00 +01, 25 Oct 05:00 +01"},
	} {
		if got := local(parse(t, recurrence(t, tt.text)), instantOf(t, tt.after), strings.Count(tt.want, ",")+1); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
	s := parse(t, recurrence(t, `{"frequency": "Second", "interval": 7, "startTime": "2026-01-01T00:00:03Z"}`))
	if due, _ := s.Next(instantOf(t, "2026-01-01T00:00:17Z")); due != instantOf(t, "2026-01-01T00:00:24Z") {
		t.Errorf("every 7 seconds: %s", due)
	}
}

func TestRecurrenceErrors(t *testing.T) {
	t.Parallel()
	for text, why := range map[string]string{
		`{}`:                                  "recurrence.frequency: the frequency is missing",
		`{"frequency": "Year"}`:               "recurrence.frequency: there is no frequency Year",
		`{"frequency": "Day", "interval": 0}`: "recurrence.interval: 0 isn't a whole number from 1",
		`{"frequency": "Hour", "interval": 9999999}`:                                                                   "recurrence.interval: 9999999",
		`{"frequency": "Day", "startTime": "soon"}`:                                                                    `recurrence.startTime: "soon" isn't a time`,
		`{"frequency": "Day", "endTime": "2026-01-01T25:00:00"}`:                                                       "recurrence.endTime",
		`{"frequency": "Day", "timeZone": "Middle Earth Standard Time"}`:                                               `there is no time zone "Middle Earth Standard Time"`,
		`{"frequency": "Day", "schedule": {"hours": [24]}}`:                                                            "recurrence.schedule.hours: the hour 24 isn't between 0 and 23",
		`{"frequency": "Day", "schedule": {"minutes": [-1]}}`:                                                          "recurrence.schedule.minutes: the minute -1 isn't between 0 and 59",
		`{"frequency": "Hour", "schedule": {"minutes": [5]}}`:                                                          "recurrence.schedule: hours, minutes and days can't be combined with the frequency Hour",
		`{"frequency": "Day", "schedule": {"weekDays": ["Monday"]}}`:                                                   "recurrence.schedule.weekDays: they need the frequency Week",
		`{"frequency": "Week", "schedule": {"weekDays": ["Mon"]}}`:                                                     `recurrence.schedule.weekDays: "Mon" isn't a day of the week`,
		`{"frequency": "Week", "schedule": {"monthDays": [1]}}`:                                                        "recurrence.schedule.monthDays: days of a month need the frequency Month",
		`{"frequency": "Month", "schedule": {"monthDays": [0]}}`:                                                       "recurrence.schedule.monthDays: 0 is neither",
		`{"frequency": "Month", "schedule": {"monthDays": [32]}}`:                                                      "recurrence.schedule.monthDays: 32",
		`{"frequency": "Month", "schedule": {"monthlyOccurrences": [{"day": "Friday", "occurrence": 6}]}}`:             "monthlyOccurrences.occurrence: 6",
		`{"frequency": "Month", "schedule": {"monthlyOccurrences": [{"day": "Fri", "occurrence": 1}]}}`:                "monthlyOccurrences.day",
		`{"frequency": "Month", "interval": 12, "startTime": "2026-02-01T00:00:00Z", "schedule": {"monthDays": [30]}}`: "never due",
	} {
		if _, err := Parse(recurrence(t, text)); !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: got %v, want invalid: %s", text, err, why)
		}
	}
	c := recurrence(t, `{"frequency": "Day", "startTime": "2026-01-01", "timeZone": "Europe/Rome"}`)
	for _, twice := range []func(*fleetscore.ScheduleConfig){func(c *fleetscore.ScheduleConfig) { c.Zone = "UTC" }, func(c *fleetscore.ScheduleConfig) { c.Start = "2026-01-01" }} {
		d := c
		twice(&d)
		if _, err := Parse(d); !fleetscore.Invalid.Is(err) {
			t.Errorf("%+v: got %v, want invalid", d, err)
		}
	}
}

// twin says by trying every minute when a cron line is due, from a day before to some
// days after a time: a separate reading of the line, of the zone and of the rules.
type twin struct {
	fields []string
	zone   *time.Location
	known  map[string]bool
}

// holds reports whether a field holds a value.
func (w twin) holds(field, value, low, high int, sunday bool) bool {
	question := fmt.Sprint(field, value, high)
	holds, ok := w.known[question]
	if !ok {
		holds = w.read(field, value, low, high, sunday)
		w.known[question] = holds
	}
	return holds
}

func (w twin) read(field, value, low, high int, sunday bool) bool {
	for _, term := range strings.Split(w.fields[field], ",") {
		span, step, stepped := strings.Cut(term, "/")
		n, from, to := 1, low, high
		if stepped {
			fmt.Sscan(step, &n)
		}
		if span != "*" {
			c, _ := fmt.Sscanf(span, "%d-%d", &from, &to)
			switch {
			case c == 1 && !stepped:
				to = from
			case c == 1 || from == to && stepped:
				to = high
			}
		}
		for v := from; v <= to; v += n {
			if v == value || sunday && v == 7 && value == 0 {
				return true
			}
		}
	}
	return false
}

func (w twin) fits(t time.Time) bool {
	if !w.holds(0, t.Minute(), 0, 59, false) {
		return false
	}
	month := w.holds(3, int(t.Month()), 1, 12, false)
	day, weekday := w.holds(2, t.Day(), 1, 31, false), w.holds(4, int(t.Weekday()), 0, 7, true)
	if w.fields[4][0] == '*' {
		weekday = w.holds(4, int(t.Weekday()), 0, 6, false)
	}
	days := day || weekday
	if w.fields[2][0] == '*' || w.fields[4][0] == '*' {
		days = day && weekday
	}
	return month && days && w.holds(1, t.Hour(), 0, 23, false)
}

func (w twin) due(after time.Time, days int) (out []time.Time) {
	minuteStar, hourStar := w.fields[0][0] == '*', w.fields[1][0] == '*'
	shown := map[string]bool{} // local times that a clock has shown
	const layout = "2006-01-02 15:04"
	begin := after.Truncate(time.Minute).Add(-27 * time.Hour)
	before := begin.Add(-time.Minute).In(w.zone)
	for t := begin; t.Before(after.Add(time.Duration(days) * 24 * time.Hour)); t = t.Add(time.Minute) {
		now := t.In(w.zone)
		due := w.fits(now) && (!shown[now.Format(layout)] || hourStar || minuteStar)
		shown[now.Format(layout)] = true
		// What the clock has left out between the last minute and this one.
		_, was := before.Zone()
		_, is := now.Zone()
		for left := time.Duration(0); left < time.Duration(is-was)*time.Second; left += time.Minute {
			missing := time.Date(now.Year(), now.Month(), now.Day(), now.Hour(), now.Minute(), 0, 0, time.UTC).Add(-left - time.Minute)
			due = due || w.fits(missing) && (!hourStar || missing.Format("15:04") == "00:00" && missing.Day() == now.Day())
		}
		if before = now; due && t.After(after) {
			out = append(out, t.UTC())
		}
	}
	return out
}

var zones = []string{"UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata", "America/Santiago", "Africa/Casablanca", "Pacific/Apia"}

// drawField makes a field of plain values, ranges, steps and lists.
func drawField(rt *rapid.T, name string, low, high int, star int) string {
	if rapid.IntRange(0, 9).Draw(rt, name+" star") < star {
		return "*"
	}
	var terms []string
	for range rapid.IntRange(1, 3).Draw(rt, name+" terms") {
		a := rapid.IntRange(low, high).Draw(rt, name+" from")
		b := rapid.IntRange(a, high).Draw(rt, name+" to")
		n := rapid.IntRange(1, high).Draw(rt, name+" step")
		terms = append(terms, rapid.SampledFrom([]string{fmt.Sprint(a), fmt.Sprint(a), fmt.Sprintf("%d-%d", a, b), fmt.Sprintf("%d-%d/%d", a, b, n), fmt.Sprintf("*/%d", n), fmt.Sprintf("%d/%d", a, n)}).Draw(rt, name))
	}
	return strings.Join(terms, ",")
}

func drawLine(rt *rapid.T) string {
	return strings.Join([]string{drawField(rt, "minute", 0, 59, 2), drawField(rt, "hour", 0, 23, 3), drawField(rt, "day", 1, 31, 6),
		drawField(rt, "month", 1, 12, 8), drawField(rt, "weekday", 0, 7, 6)}, " ")
}

// change is an instant at which a zone's clocks are changed, or any other.
func drawTime(rt *rapid.T, zone *time.Location) time.Time {
	t := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.IntRange(0, 2*365*24*60).Draw(rt, "minutes")) * time.Minute)
	switch {
	case zone.String() == "Pacific/Apia":
		t = t.AddDate(-15, 0, 0) // with the day that was left out
	case rapid.IntRange(0, 7).Draw(rt, "at the end of 2040") == 0: // see changeAfter
		return time.Date(2040, 12, 29, 0, rapid.IntRange(0, 4*24*60).Draw(rt, "minutes"), 0, 0, time.UTC)
	}
	if _, end := t.In(zone).ZoneBounds(); !end.IsZero() && rapid.Bool().Draw(rt, "near a change") {
		t = end.Add(time.Duration(rapid.IntRange(-30*60, 5*60).Draw(rt, "minutes from the change")) * time.Minute)
	}
	return t.UTC()
}

// TestCronAsTheTwin: on random lines, zones and times the due times of four days are
// those that the twin finds; and Last finds each of them backwards.
func TestCronAsTheTwin(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		line, zone := drawLine(rt), rapid.SampledFrom(zones).Draw(rt, "zone")
		s, err := Parse(cronIn(zone, line))
		if err != nil {
			if !strings.Contains(err.Error(), "never due") {
				rt.Fatalf("%q: %v", line, err)
			}
			return
		}
		after := drawTime(rt, s.zone)
		const days = 3
		want := twin{strings.Fields(line), s.zone, map[string]bool{}}.due(after, days)
		var got []time.Time
		for at := after; ; {
			due, ok := s.Next(at)
			if !ok || !due.Before(after.Add(days*24*time.Hour)) {
				break
			}
			if !due.After(at) {
				rt.Fatalf("%q: %s isn't after %s", line, due, at)
			}
			got, at = append(got, due), due
		}
		if d := cmp.Diff(want, got); d != "" {
			rt.Fatalf("%q in %s after %s (-twin +ours):\n%s", line, zone, after, d)
		}
		if len(got) > 0 {
			i := rapid.IntRange(0, len(got)-1).Draw(rt, "backwards")
			at := got[i].Add(time.Duration(rapid.IntRange(0, 59).Draw(rt, "seconds later")) * time.Second)
			if i+1 < len(got) && !at.Before(got[i+1]) {
				at = got[i]
			}
			if last, ok := s.Last(at); !ok || !last.Equal(got[i]) {
				rt.Fatalf("%q in %s: the last due time until %s is %s, want %s", line, zone, at, last, got[i])
			}
		}
	})
}

// TestEachZoneOfWindows: every name in the table is a zone.
func TestEachZoneOfWindows(t *testing.T) {
	t.Parallel()
	if len(windowsZones) < 130 {
		t.Errorf("only %d zones", len(windowsZones))
	}
	for name, iana := range windowsZones {
		zone, err := Zone(name)
		if err != nil || zone.String() != iana {
			t.Errorf("%s: %v, %v", name, zone, err)
		}
	}
	if windowsZones["W. Europe Standard Time"] != "Europe/Berlin" {
		t.Errorf("W. Europe Standard Time is %s", windowsZones["W. Europe Standard Time"])
	}
}
