package table

import (
	"math"
	"strconv"
	"time"
	"unsafe"

	"github.com/fleetscore/fleetscore"
)

// Layout is how times were written in a file, so that output repeats it.
type Layout struct {
	Separator byte   // 'T' or ' '; 0 means 'T'
	Fraction  int    // digits after the seconds, 0 to 6
	Zone      string // "" as in pandas, or "Z"
}

// RFC3339 is the layout where none was read.
var RFC3339 = Layout{Separator: 'T', Zone: "Z"}

// append writes a time in the layout. Times finer than it get the digits they
// need.
func (l Layout) append(dst []byte, m fleetscore.Micros) []byte {
	sep := l.Separator
	if sep == 0 {
		sep = 'T'
	}
	t := m.Time()
	dst = t.AppendFormat(dst, "2006-01-02")
	dst = append(dst, sep)
	dst = t.AppendFormat(dst, "15:04:05")
	micro := t.Nanosecond() / 1000
	digits := l.Fraction
	for digits < 6 && micro%pow10[6-digits] != 0 {
		digits++
	}
	if digits > 0 {
		dst = append(dst, '.')
		for d := 5; d >= 6-digits; d-- {
			dst = append(dst, byte('0'+micro/pow10[d]%10))
		}
	}
	return append(dst, l.Zone...)
}

var pow10 = [...]int{1, 10, 100, 1000, 10000, 100000, 1000000}

// clockText writes times one after another. Most repeat the one before, or its
// day.
type clockText struct {
	layout Layout
	last   fleetscore.Micros
	text   []byte // of last; nil at first
}

const (
	dayMicros = 24 * 3600 * 1_000_000
	year10000 = 253402300800 * 1_000_000 // from then on years have more digits
)

func (c *clockText) append(dst []byte, m fleetscore.Micros) []byte {
	switch {
	case c.text != nil && m == c.last:
	case c.text == nil || m < 0 || c.last < 0 || m >= year10000 || m/dayMicros != c.last/dayMicros || int(m%1_000_000) != int(c.last%1_000_000):
		c.text = c.layout.append(c.text[:0], m)
	default: // another second of the same day, with the same fraction
		s := int(m % dayMicros / 1_000_000)
		two(c.text[11:], s/3600)
		two(c.text[14:], s/60%60)
		two(c.text[17:], s%60)
	}
	c.last = m
	return append(dst, c.text...)
}

func two(dst []byte, n int) { dst[0], dst[1] = byte('0'+n/10), byte('0'+n%10) }

// ParseTime reads a time as the files have it: "2026-11-23 10:00:05.000" or
// "2026-11-23T10:00:05Z", UTC where no offset is given.
func ParseTime(s string) (fleetscore.Micros, error) {
	m, _, ok := parseTime([]byte(s))
	if !ok {
		return 0, fleetscore.Errorf(fleetscore.Invalid, "read time", s, whyTime)
	}
	return m, nil
}

// parseTime reads "2006-01-02 15:04:05[.fraction]" or the same with "T", without
// the seconds, or the date alone (its midnight); a time may be followed by nothing
// (UTC), "Z", " UTC" or an offset such as "+02:00" or "+0200". Digits finer than a
// microsecond are cut off.
func parseTime(b []byte) (m fleetscore.Micros, l Layout, ok bool) {
	if len(b) < 10 || b[4] != '-' || b[7] != '-' {
		return 0, l, false
	}
	year, ok1 := digits(b[0:4])
	month, ok2 := digits(b[5:7])
	day, ok3 := digits(b[8:10])
	if !(ok1 && ok2 && ok3) || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return 0, l, false
	}
	seconds := daysSinceEpoch(year, month, day) * 86400
	l.Separator = ' '
	if len(b) == 10 {
		return fleetscore.Micros(seconds * 1e6), l, true
	}
	if len(b) < 16 || b[10] != ' ' && b[10] != 'T' && b[10] != 't' || b[13] != ':' {
		return 0, l, false
	}
	l.Separator = b[10]
	hour, ok4 := digits(b[11:13])
	minute, ok5 := digits(b[14:16])
	second, ok6 := 0, true
	rest := b[16:]
	if len(rest) >= 3 && rest[0] == ':' {
		second, ok6 = digits(rest[1:3])
		rest = rest[3:]
	}
	if !(ok4 && ok5 && ok6) || hour > 23 || minute > 59 || second > 59 {
		return 0, l, false
	}
	micro, scale := 0, 100000
	if len(rest) > 0 && rest[0] == '.' && len(b)-len(rest) == 19 {
		i := 1
		for ; i < len(rest) && rest[i] >= '0' && rest[i] <= '9'; i++ {
			micro += int(rest[i]-'0') * scale
			scale /= 10
		}
		if i == 1 {
			return 0, l, false
		}
		l.Fraction = min(i-1, 6)
		rest = rest[i:]
	}
	offset, ok := offsetOf(rest)
	if len(rest) > 0 {
		l.Zone = "Z"
	}
	seconds += int64(hour*3600 + minute*60 + second - offset)
	return fleetscore.Micros(seconds*1e6 + int64(micro)), l, ok
}

// offsetOf reads what may follow a time, in seconds east of UTC.
func offsetOf(b []byte) (seconds int, ok bool) {
	switch {
	case len(b) == 0, string(b) == "Z", string(b) == "z", string(b) == " UTC":
		return 0, true
	case b[0] != '+' && b[0] != '-':
		return 0, false
	}
	east := b[0] == '+'
	if b = b[1:]; len(b) == 5 && b[2] == ':' {
		b = []byte{b[0], b[1], b[3], b[4]}
	}
	if len(b) != 2 && len(b) != 4 {
		return 0, false
	}
	hours, ok1 := digits(b[:2])
	minutes, ok2 := digits(b[2:])
	if !ok1 || !ok2 || hours > 23 || minutes > 59 {
		return 0, false
	}
	if seconds = hours*3600 + minutes*60; !east {
		seconds = -seconds
	}
	return seconds, true
}

func digits(b []byte) (n int, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysSinceEpoch counts days of the proleptic Gregorian calendar with years that
// begin in March, so that the leap day is a year's last.
func daysSinceEpoch(y, m, d int) int64 {
	if m <= 2 {
		y--
		m += 12
	}
	era := y / 400
	yoe := y - era*400
	doy := (153*(m-3)+2)/5 + d - 1
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	return int64(era)*146097 + int64(doe) - 719468
}

// merge widens a layout so that it can show times of both.
func (l Layout) merge(o Layout) Layout {
	l.Fraction = max(l.Fraction, o.Fraction)
	return l
}

// partition returns the date and hour under which a row lies: those of the
// instant just before its stamp, as a window's end belongs to the window.
func partition(m fleetscore.Micros) (date string, hour int) {
	t := (m - 1).Time()
	return t.Format(time.DateOnly), t.Hour()
}

// exact10 are the powers of ten that a float64 holds exactly.
var exact10 = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// parseNumber is strconv.ParseFloat, quicker for plain decimals of up to 15
// digits: such a mantissa and such a power of ten are exact, so one division
// rounds once, as it must (Clinger, "How to Read Floating Point Numbers
// Accurately", 1990).
func parseNumber(b []byte) (float64, bool) {
	i, negative := 0, false
	if len(b) > 0 && b[0] == '-' {
		negative, i = true, 1
	}
	var m uint64
	from := i
	for i < len(b) && b[i]-'0' <= 9 {
		m = m*10 + uint64(b[i]-'0')
		i++
	}
	digits, fraction := i-from, 0
	if i < len(b) && b[i] == '.' {
		i++
		from = i
		for i < len(b) && b[i]-'0' <= 9 {
			m = m*10 + uint64(b[i]-'0')
			i++
		}
		fraction = i - from
		digits += fraction
	}
	if i == len(b) && digits > 0 && digits <= 15 {
		x := float64(m) / exact10[fraction]
		if negative {
			x = -x
		}
		return x, true
	}
	if len(b) == 0 {
		return math.NaN(), true
	}
	x, err := strconv.ParseFloat(unsafe.String(&b[0], len(b)), 64)
	return x, err == nil
}

// appendNumber writes the shortest text that reads back as the same float64;
// nothing for NaN.
//
// Most values were decimals of a few digits. Two different decimals of up to 15
// digits never stand for the same float64, so if one with three digits or six
// after the point does, it is the shortest.
func appendNumber(dst []byte, x float64) []byte {
	if x != x {
		return dst
	}
	a := math.Abs(x)
	if a < 1e9 && a >= smallest || a == 0 {
		for _, digits := range [...]int{0, 3, 6} {
			if n := math.RoundToEven(a * exact10[digits]); n/exact10[digits] == a && (a != 0 || !math.Signbit(x)) {
				if x < 0 {
					dst = append(dst, '-')
				}
				return appendDecimal(dst, uint64(n), digits)
			}
		}
	}
	return appendShortest(dst, x)
}

// appendShortest is appendNumber without the guess.
func appendShortest(dst []byte, x float64) []byte {
	switch a := math.Abs(x); {
	case x != x:
		return dst
	case a == 0 || a >= smallest && a < 1e16:
		return strconv.AppendFloat(dst, x, 'f', -1, 64)
	}
	return strconv.AppendFloat(dst, x, 'e', -1, 64)
}

// smallest is from where on numbers are written without an exponent.
const smallest = 1e-5

// appendDecimal writes n / 10^digits without zeros at the end.
func appendDecimal(dst []byte, n uint64, digits int) []byte {
	for digits > 0 && n%10 == 0 {
		n /= 10
		digits--
	}
	if digits == 0 {
		return strconv.AppendUint(dst, n, 10)
	}
	scale := uint64(exact10[digits])
	dst = append(strconv.AppendUint(dst, n/scale, 10), '.')
	rest := n % scale
	at := len(dst)
	dst = append(dst, "000000"[:digits]...)
	for i := at + digits - 1; rest > 0; i-- {
		dst[i] = byte('0' + rest%10)
		rest /= 10
	}
	return dst
}
