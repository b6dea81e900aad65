package fleetscore

// ScheduleConfig says when a pipeline's jobs are due: by a cron line, by a recurrence,
// or, without both, only when they are submitted.
type ScheduleConfig struct {
	Cron       string      `json:"cron,omitempty"` // five fields, or a name such as @hourly
	Recurrence *Recurrence `json:"recurrence,omitempty"`
	Zone       string      `json:"zone,omitempty"`       // time zone by its IANA or Windows name; empty means UTC
	Start      string      `json:"start,omitempty"`      // nothing is due before it: local time in Zone, or with an offset; empty means no bound
	End        string      `json:"end,omitempty"`        // nothing is due after it
	RunAfter   string      `json:"run_after,omitempty"`  // a pipeline: due when its jobs have ended, over the same rows; in place of cron or recurrence
	StartWhen  string      `json:"start_when,omitempty"` // "complete" (default): once the dataset is complete until the interval's end; "clock": at once
	Deadline   Duration    `json:"deadline,omitempty"`   // how long after the due time a job may wait for data before it runs incomplete; 0 means for ever
	// Jitter is how much later than due jobs start at most, each by an amount of its own;
	// intervals stay as they are. 0 means not at all.
	Jitter  Duration `json:"jitter,omitempty"`
	Overlap Overlap  `json:"overlap,omitempty"` // what happens to a due time while a job of the schedule hasn't ended; empty means queue_one
	// CatchUp says which due times are made up for that came while no server worked;
	// empty means last. CatchUpWindow is how far back at most; 0 means without limit.
	CatchUp       CatchUp  `json:"catch_up,omitempty"`
	CatchUpWindow Duration `json:"catch_up_window,omitempty"`
	Backfill      Duration `json:"backfill,omitempty"` // how far before the schedule's creation its first interval starts; 0 means at the due time before it
}

// IsSet reports whether there are due times.
func (c ScheduleConfig) IsSet() bool { return c.Cron != "" || c.Recurrence != nil }

// Overlap says what happens to a due time while a job of the schedule hasn't ended.
// Rows of a due time that gets no job are in the next interval.
type Overlap string

// The rules.
const (
	OverlapSkip     Overlap = "skip"      // it gets no job
	OverlapQueueOne Overlap = "queue_one" // one job for all that came meanwhile, once the other has ended
	OverlapQueueAll Overlap = "queue_all" // a job for each, one after another
	OverlapReplace  Overlap = "replace"   // the other is canceled, and the new job covers its rows too
	OverlapAllow    Overlap = "allow"     // a job at once, beside the other
)

// Validate refuses other words.
func (o Overlap) Validate() error {
	switch o {
	case "", OverlapSkip, OverlapQueueOne, OverlapQueueAll, OverlapReplace, OverlapAllow:
		return nil
	}
	return Errorf(Invalid, "read overlap", string(o), "it is not skip, queue_one, queue_all, replace or allow")
}

// CatchUp says which due times are made up for that came while no server worked.
type CatchUp string

// The rules.
const (
	CatchUpNone CatchUp = "none" // none: their rows are in the next interval
	CatchUpLast CatchUp = "last" // one job for all of them
	CatchUpAll  CatchUp = "all"  // a job for each, one after another
)

// Validate refuses other words.
func (c CatchUp) Validate() error {
	switch c {
	case "", CatchUpNone, CatchUpLast, CatchUpAll:
		return nil
	}
	return Errorf(Invalid, "read catch_up", string(c), "it is not none, last or all")
}

// Recurrence is every so many units of time, in the form and with the names of Logic
// Apps' Recurrence trigger.
type Recurrence struct {
	Frequency string              `json:"frequency"`           // Second, Minute, Hour, Day, Week or Month
	Interval  *int                `json:"interval,omitempty"`  // how many of them; nil means 1
	StartTime string              `json:"startTime,omitempty"` // the first; a past one says where the count begins; with Z the recurrence is in UTC
	EndTime   string              `json:"endTime,omitempty"`
	TimeZone  string              `json:"timeZone,omitempty"` // as Zone
	Schedule  *RecurrenceSchedule `json:"schedule,omitempty"`
}

// RecurrenceSchedule says which times of a day, and which days of a week or month,
// are due. What is missing is as in the start.
type RecurrenceSchedule struct {
	Hours              OneOrMore[int]      `json:"hours,omitempty"`   // for Day, Week and Month
	Minutes            OneOrMore[int]      `json:"minutes,omitempty"` // for Day, Week and Month
	WeekDays           OneOrMore[string]   `json:"weekDays,omitempty"`
	MonthDays          OneOrMore[int]      `json:"monthDays,omitempty"` // -1 is the last day of the month
	MonthlyOccurrences []MonthlyOccurrence `json:"monthlyOccurrences,omitempty"`
}

// OneOrMore is a list that may be written as a single value, and its numbers in
// quotes, as Logic Apps takes them.
type OneOrMore[T int | string] []T

// MonthlyOccurrence is such as the second Friday of a month.
type MonthlyOccurrence struct {
	Day        string `json:"day"`        // such as Friday
	Occurrence int    `json:"occurrence"` // 1 to 5, or from the end: -1 to -5
}
