package fleetscore

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Percent is a share in percent, written "5%" or "0.1%".
type Percent float64

// String formats with the sign.
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'g', -1, 64) + "%" }

// Allows reports whether part of whole stays within the share.
func (p Percent) Allows(part, whole int64) bool {
	return part == 0 || float64(part)*100 <= float64(p)*float64(whole)
}

// MarshalText writes the share with its sign.
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a number from 0 to 100 followed by "%".
func (p *Percent) UnmarshalText(b []byte) error {
	s, ok := strings.CutSuffix(string(b), "%")
	v, err := strconv.ParseFloat(s, 64)
	if !ok || err != nil || !(v >= 0 && v <= 100) {
		return Errorf(Invalid, "read share", string(b), "the value is not a percentage from 0%% to 100%%").WithHint("write for example 5%%")
	}
	*p = Percent(v)
	return nil
}

// UnmarshalJSON reads a JSON string.
func (p *Percent) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return Errorf(Invalid, "read share", string(b), "the percent sign is missing").WithHint("write for example \"5%%\"")
	}
	return p.UnmarshalText([]byte(s))
}

// Allowance is how many of all may end in a way that isn't wished: a count, written
// "5", or a share, written "5%". The zero value allows none.
type Allowance struct {
	Count int64    // used if Share is nil
	Share *Percent // of all
}

// AllowShare allows a share of all.
func AllowShare(p Percent) *Allowance { return &Allowance{Share: &p} }

// AllowCount allows that many, whatever all are.
func AllowCount(n int64) *Allowance { return &Allowance{Count: n} }

// String formats a count as a number and a share with its sign.
func (a Allowance) String() string {
	if a.Share != nil {
		return a.Share.String()
	}
	return strconv.FormatInt(a.Count, 10)
}

// Allows reports whether part of whole is allowed.
func (a Allowance) Allows(part, whole int64) bool {
	if a.Share != nil {
		return a.Share.Allows(part, whole)
	}
	return part <= a.Count
}

// MarshalText writes what UnmarshalText reads.
func (a Allowance) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads a whole number, or a number from 0 to 100 followed by "%".
func (a *Allowance) UnmarshalText(b []byte) error {
	if strings.HasSuffix(string(b), "%") {
		var p Percent
		if err := p.UnmarshalText(b); err != nil {
			return err
		}
		*a = *AllowShare(p)
		return nil
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil || n < 0 {
		return Errorf(Invalid, "read limit", string(b), "the value is neither a count nor a percentage").WithHint("write for example 5 or 5%%")
	}
	*a = *AllowCount(n)
	return nil
}

// UnmarshalJSON reads a JSON number or string.
func (a *Allowance) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		s = string(b)
	}
	return a.UnmarshalText([]byte(s))
}

// Size is a number of bytes, written "500MB", "10GB" or "1TB", in steps of 1000.
type Size int64

// sizeUnits are the units that a size is written in, largest first.
var sizeUnits = []struct {
	name  string
	bytes float64
}{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1}}

// String formats with the largest unit that gives a whole number.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%int64(u.bytes) == 0 {
			return strconv.FormatInt(int64(s)/int64(u.bytes), 10) + u.name
		}
	}
	return "0B"
}

// MarshalText writes the size with its unit.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a number with a unit.
func (s *Size) UnmarshalText(b []byte) error {
	text := strings.ToUpper(strings.ReplaceAll(string(b), " ", ""))
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		if v, err := strconv.ParseFloat(number, 64); err == nil && v >= 0 && v*u.bytes < 1<<62 {
			*s = Size(v * u.bytes)
			return nil
		}
		break
	}
	return Errorf(Invalid, "read size", string(b), "it is not a number with a unit").WithHint("write for example 10GB; the units are KB, MB, GB and TB")
}

// Counted is a number of things for people to read: "1 message", "2 messages".
func Counted[N ~int | ~int64 | ~uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
