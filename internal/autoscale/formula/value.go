package formula

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
)

// kind is a type of the language.
type kind int

const (
	unknown   kind = iota // only where types are judged before the evaluation
	double                // a number
	doubleVec             // a vector of numbers
	stringOf              // a text
	timestamp
	timeInterval
)

func (k kind) String() string {
	return [...]string{"a value", "a number", "a vector", "a text", "a time", "an interval"}[k]
}

// A timestamp is held in ticks of 100 ns since 1970, an interval in ticks.
const ticksPerSecond = 10_000_000

// The bounds of timestamps: the years 1 to 9999.
const (
	firstTick = -62135596800 * ticksPerSecond
	lastTick  = 253402300800*ticksPerSecond - 1
)

// Value is a value of the language. The zero Value is none.
type Value struct {
	kind  kind
	num   float64
	vec   []float64
	text  string
	ticks int64
}

func numberOf(v float64) Value { return Value{kind: double, num: v} }

func truth(b bool) Value {
	if b {
		return numberOf(1)
	}
	return numberOf(0)
}

func timeOf(t time.Time) Value {
	return Value{kind: timestamp, ticks: t.Unix()*ticksPerSecond + int64(t.Nanosecond()/100)}
}

// time is the timestamp as a time in UTC.
func (v Value) time() time.Time {
	s, rest := v.ticks/ticksPerSecond, v.ticks%ticksPerSecond
	return time.Unix(s, rest*100).UTC()
}

// Number is the value if it is a number.
func (v Value) Number() (float64, bool) { return v.num, v.kind == double }

// String writes the value as the service does in its results: whole numbers without a
// point, vectors in brackets, times with milliseconds, intervals as in ISO 8601.
func (v Value) String() string {
	switch v.kind {
	case double:
		return formatNumber(v.num)
	case doubleVec:
		parts := make([]string, len(v.vec))
		for i, x := range v.vec {
			parts[i] = formatNumber(x)
		}
		return "[" + strings.Join(parts, ",") + "]"
	case timestamp:
		return v.time().Format("2006-01-02T15:04:05.000Z")
	case timeInterval:
		return formatInterval(v.ticks)
	}
	return v.text
}

// MarshalJSON writes numbers as numbers and vectors as lists; all else, also what JSON
// has no number for, as text.
func (v Value) MarshalJSON() ([]byte, error) {
	finite := func(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
	switch v.kind {
	case double:
		if finite(v.num) {
			return json.Marshal(v.num + 0) // never -0
		}
	case doubleVec:
		list := make([]any, len(v.vec))
		for i, x := range v.vec {
			if list[i] = x + 0; !finite(x) {
				list[i] = formatNumber(x)
			}
		}
		return json.Marshal(list)
	}
	return json.Marshal(v.String())
}

func formatNumber(x float64) string {
	switch {
	case math.IsNaN(x):
		return "NaN"
	case math.IsInf(x, 1):
		return "Infinity"
	case math.IsInf(x, -1):
		return "-Infinity"
	case x == 0:
		return "0" // never -0
	}
	if a := math.Abs(x); a >= 1e21 || a < 1e-7 {
		return strconv.FormatFloat(x, 'g', -1, 64)
	}
	return strconv.FormatFloat(x, 'f', -1, 64)
}

// formatInterval writes for example PT1H30M, P1DT0.5S, -PT5S.
func formatInterval(ticks int64) string {
	if ticks == 0 {
		return "PT0S"
	}
	var b strings.Builder
	u := uint64(ticks)
	if ticks < 0 {
		b.WriteByte('-')
		u = -u
	}
	b.WriteByte('P')
	const second, day = ticksPerSecond, 86400 * ticksPerSecond
	if d := u / day; d > 0 {
		b.WriteString(strconv.FormatUint(d, 10) + "D")
	}
	if u %= day; u == 0 {
		return b.String()
	}
	b.WriteByte('T')
	for _, unit := range []struct {
		ticks uint64
		name  string
	}{{3600 * second, "H"}, {60 * second, "M"}} {
		if n := u / unit.ticks; n > 0 {
			b.WriteString(strconv.FormatUint(n, 10) + unit.name)
		}
		u %= unit.ticks
	}
	if u > 0 {
		s := strconv.FormatUint(u/second, 10)
		if f := u % second; f > 0 {
			s += "." + strings.TrimRight(strconv.FormatUint(second+f, 10)[1:], "0")
		}
		b.WriteString(s + "S")
	}
	return b.String()
}

// timeLayouts are W3C's and RFC 1123's; fractions of seconds are taken anyway.
var timeLayouts = []string{
	"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02", "2006-01", "2006",
	"Mon, 02 Jan 2006 15:04:05 -0700", "Mon, 2 Jan 2006 15:04:05 -0700",
}

// ParseTime reads a time as the function time() does. One without a zone is UTC.
func ParseTime(s string) (time.Time, bool) {
	s = strings.TrimSpace(s)
	if strings.HasSuffix(s, "GMT") || strings.HasSuffix(s, "UTC") {
		s = s[:len(s)-3] + "+0000"
	}
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			if v := timeOf(t); v.ticks < firstTick || v.ticks > lastTick {
				return time.Time{}, false
			}
			return t, true
		}
	}
	return time.Time{}, false
}

// members are those of a timestamp.
var members = []string{"year", "month", "day", "weekday", "hour", "minute", "second"}

func member(t time.Time, name string) float64 {
	switch name {
	case "year":
		return float64(t.Year())
	case "month":
		return float64(t.Month())
	case "day":
		return float64(t.Day())
	case "weekday": // Monday is 1, Sunday 7
		return float64((int(t.Weekday())+6)%7 + 1)
	case "hour":
		return float64(t.Hour())
	case "minute":
		return float64(t.Minute())
	}
	return float64(t.Second())
}
