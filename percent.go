package fleetscore

import (
	"encoding/json"
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
