package value

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
)

// layouts are the forms of ISO 8601 that are read, and the reference architecture's form
// with a space. A time without a zone is UTC.
var layouts = []string{"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04:05Z07:00",
	"2006-01-02", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02 15:04", "20060102T150405Z07:00", "20060102"}

// ParseTime reads a datetime from a text.
func ParseTime(s string) (fleetscore.Micros, bool) {
	s = strings.TrimSpace(s)
	if n := len(s); n > 0 && s[n-1] == 'z' {
		s = s[:n-1] + "Z"
	}
	for _, l := range layouts {
		if t, err := time.Parse(l, s); err == nil {
			return fleetscore.MicrosOf(t), true
		}
	}
	return 0, false
}

// AsTime converts a datetime, or a text that spells one.
func (v Value) AsTime() (fleetscore.Micros, bool) {
	switch v.kind {
	case Datetime:
		return v.Micros(), true
	case Text:
		return ParseTime(v.text)
	}
	return 0, false
}

// AsText converts to the text that CAST gives; false for NULL, arrays and records.
func (v Value) AsText() (string, bool) {
	switch v.kind {
	case Text:
		return v.text, true
	case Bit, Bigint:
		return strconv.FormatInt(int64(v.bits), 10), true
	case Float:
		return strconv.FormatFloat(v.float(), 'g', -1, 64), true
	case Datetime:
		return v.Micros().String(), true
	}
	return "", false
}

// AsInt converts to an integer; fractions are cut off.
func (v Value) AsInt() (int64, bool) {
	switch v.kind {
	case Bit, Bigint:
		return int64(v.bits), true
	case Float:
		x := math.Trunc(v.float())
		return int64(x), x >= -(1<<63) && x < 1<<63
	case Text:
		n, err := strconv.ParseInt(strings.TrimSpace(v.text), 10, 64)
		return n, err == nil
	}
	return 0, false
}

// Cast converts as CAST does; false if the value can't be converted. NULL stays NULL.
func Cast(v Value, to Type) (Value, bool) {
	if v.kind == to || v.kind == Any {
		return v, true
	}
	switch to {
	case Bigint:
		n, ok := v.AsInt()
		return Int(n), ok
	case Float:
		x, ok := v.AsFloat()
		return Number(x), ok
	case Text:
		s, ok := v.AsText()
		return String(s), ok
	case Datetime:
		t, ok := v.AsTime()
		return Time(t), ok
	case Bit:
		switch v.kind {
		case Bigint, Float:
			return Of(v.True()), true
		case Text:
			switch strings.ToLower(strings.TrimSpace(v.text)) {
			case "true", "1":
				return Of(true), true
			case "false", "0":
				return Of(false), true
			case "null":
				return Null, true
			}
		}
	}
	return Null, false
}
