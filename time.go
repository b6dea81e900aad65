package fleetscore

import (
	"encoding/json"
	"fmt"
	"time"
)

// Micros is an instant in microseconds since 1970-01-01 UTC, the resolution of
// all stored times. Finer input is rounded down.
type Micros int64

// MicrosOf converts a time, rounding down.
func MicrosOf(t time.Time) Micros {
	return Micros(t.Unix()*1e6 + int64(t.Nanosecond())/1000)
}

// Time converts to a UTC time.
func (m Micros) Time() time.Time { return time.UnixMicro(int64(m)).UTC() }

// String formats as RFC 3339 with as many fractional digits as needed, at most 6.
func (m Micros) String() string { return m.Time().Format("2006-01-02T15:04:05.999999Z07:00") }

// Interval is (From, To]: To belongs to it, From doesn't.
type Interval struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Contains reports whether a row stamped t lies in the interval.
func (i Interval) Contains(t time.Time) bool { return t.After(i.From) && !t.After(i.To) }

// ContainsMicros is Contains for a stored time.
func (i Interval) ContainsMicros(t Micros) bool { return t > MicrosOf(i.From) && t <= MicrosOf(i.To) }

// String formats "(from, to]".
func (i Interval) String() string {
	return fmt.Sprintf("(%s, %s]", i.From.UTC().Format(time.RFC3339), i.To.UTC().Format(time.RFC3339))
}

// Validate refuses an interval that is empty or reversed.
func (i Interval) Validate() error {
	if !i.To.After(i.From) {
		return Errorf(Invalid, "check interval", i.String(), "the end must be later than the start")
	}
	return nil
}

// Duration is a time.Duration that reads and writes as text with a unit ("5s",
// "1h30m", "7d") in JSON and YAML.
type Duration time.Duration

// D returns the standard type.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String formats like time.Duration.
func (d Duration) String() string { return time.Duration(d).String() }

// ParseDuration reads a duration with units: those of time.ParseDuration, and whole
// days ("7d").
func ParseDuration(s string) (Duration, error) {
	if n := len(s); n > 1 && s[n-1] == 'd' {
		var days int
		if _, err := fmt.Sscanf(s, "%dd", &days); err == nil && fmt.Sprintf("%dd", days) == s {
			return Duration(time.Duration(days) * 24 * time.Hour), nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, Errorf(Invalid, "read duration", s, "the value is not a number with a unit").WithHint("write for example 90s, 10m, 2h or 7d")
	}
	return Duration(d), nil
}

// MarshalText writes the duration with its unit.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDuration does.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	if err == nil {
		*d = v
	}
	return err
}

// UnmarshalJSON reads a JSON string; a bare number has no unit and is refused.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return Errorf(Invalid, "read duration", string(b), "the unit is missing").WithHint("write for example \"90s\"")
	}
	return d.UnmarshalText([]byte(s))
}
