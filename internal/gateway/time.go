package gateway

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/table"
)

// unit is the unit of times that are numbers since 1970.
type unit struct {
	name   string
	second float64 // units in a second
	times  uint64  // microseconds in a unit, or 1
	by     uint64  // units in a microsecond, or 1
	digits int     // of a present time
}

// timeUnits are the units by their names in fleetscore.HubConfig.TimeUnit.
var timeUnits = map[string]unit{"": milliseconds, "s": {"seconds", 1, 1e6, 1, 10}, "ms": milliseconds, "us": {"microseconds", 1e6, 1, 1, 16}, "ns": {"nanoseconds", 1e9, 1, 1000, 19}}

var milliseconds = unit{"milliseconds", 1e3, 1000, 1, 13}

// Seconds since 1970 that are taken without a question; see unit.judge.
const leastSeconds, mostSeconds = 1e8, 1e11

// micros is the time of a whole number of units; false if it isn't one that is taken without a question.
func (u unit) micros(n uint64) (fleetscore.Micros, bool) {
	if f := float64(n); f < leastSeconds*u.second || f > mostSeconds*u.second {
		return 0, false
	}
	if u.by > 1 {
		return fleetscore.Micros(n / u.by), true
	}
	return fleetscore.Micros(n * u.times), true
}

// read is the time of a number, or says what is wrong with it.
func (u unit) read(text string) (t fleetscore.Micros, why string) {
	if n, err := strconv.ParseUint(text, 10, 64); err == nil { // a float64 doesn't hold every number of nanoseconds
		if t, ok := u.micros(n); ok {
			return t, ""
		}
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Sprintf("not a number of %s since 1970", u.name)
	}
	if why := u.judge(v); why != "" {
		return 0, why
	}
	return fleetscore.Micros(math.Round(v * float64(u.times) / float64(u.by))), ""
}

// judge judges a number that should be units since 1970: a number that is far
// too small or too large for a present time has another unit. The least number that
// is accepted means 1973-03-03, when nobody sent JSON yet.
func (u unit) judge(v float64) (why string) {
	switch a := math.Abs(v); {
	case a >= leastSeconds*u.second && a <= mostSeconds*u.second && v > 0:
		return ""
	case a < 1:
		return "a number near 0 is not a valid time: is the device's clock set? Send " + u.name + " since 1970"
	case v < 0:
		return "the time is before 1970: is the device's clock set?"
	}
	for _, other := range []string{"s", "ms", "us", "ns"} {
		o := timeUnits[other]
		if v < leastSeconds*o.second || v >= mostSeconds*o.second {
			continue
		}
		do := fmt.Sprintf("multiply the number by %.0f", u.second/o.second)
		if o.second > u.second {
			do = fmt.Sprintf("divide the number by %.0f", o.second/u.second)
		}
		return fmt.Sprintf("times are %s here, in which the number is no present time; as %s it means %s: %s, or say it in hub.time_unit of fleet.yaml",
			u.name, o.name, time.Unix(int64(v/o.second), 0).UTC().Format("2006-01-02T15:04:05Z"), do)
	}
	if v < leastSeconds*u.second {
		return fmt.Sprintf("as %s the number means a time before 1973; send %s since 1970, which have %d digits today", u.name, u.name, u.digits)
	}
	return fmt.Sprintf("not a number of %s since 1970", u.name)
}

// time reads an event time: text as RFC 3339, or a number of units since
// 1970-01-01 UTC.
func (p *parser) time(raw jsontext.Value) (why string) {
	var t fleetscore.Micros
	switch raw.Kind() {
	case '"':
		n := len(p.text)
		text, err := jsontext.AppendUnquote(p.text, raw)
		if err == nil {
			t, err = table.ParseTime(string(text[n:]))
		}
		if err != nil {
			return "not a time such as 2026-11-23T10:00:05.123Z, or " + p.unit.name + " since 1970"
		}
	case '0':
		if t, why = p.unit.read(string(raw)); why != "" {
			return why
		}
	default:
		return "neither a time as text nor " + p.unit.name + " since 1970"
	}
	if t > p.latest {
		return fmt.Sprintf("the time is more than %s ahead of this server's clock", p.cfg.MaxFuture)
	}
	if t < 0 {
		return "the time is before 1970: is the device's clock set?"
	}
	if t < leastTime {
		return "the time is in 1970: is the device's clock set?"
	}
	p.reading.time = t
	return ""
}

// leastTime is 1971-01-01: an earlier time comes from a clock that wasn't set.
const leastTime = fleetscore.Micros(365 * 24 * 3600 * 1e6)
