package expr

import (
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/query/sql"
	"github.com/fleetscore/fleetscore/internal/query/value"
)

// dateParts maps the names and abbreviations of parts of a date to the long names.
var dateParts = map[string]string{
	"year": "year", "yy": "year", "yyyy": "year", "quarter": "quarter", "qq": "quarter", "q": "quarter", "month": "month", "mm": "month", "m": "month",
	"dayofyear": "dayofyear", "dy": "dayofyear", "y": "dayofyear", "day": "day", "dd": "day", "d": "day", "week": "week", "wk": "week", "ww": "week",
	"weekday": "weekday", "dw": "weekday", "w": "weekday", "hour": "hour", "hh": "hour", "minute": "minute", "mi": "minute", "n": "minute",
	"second": "second", "ss": "second", "s": "second", "millisecond": "millisecond", "ms": "millisecond", "microsecond": "microsecond", "mcs": "microsecond",
}

var datePartNames = []string{"year", "quarter", "month", "dayofyear", "day", "week", "weekday", "hour", "minute", "second", "millisecond", "microsecond"}

// part reads a part of a date, such as hour, which stands where an expression would.
func (s *Scope) part(x sql.Expr) (string, error) {
	name := ""
	switch x := x.(type) {
	case *sql.Column:
		name = x.Path[0]
	case *sql.Literal:
		name = x.Value.Text()
	}
	low := strings.ToLower(name)
	if p, ok := dateParts[low]; ok {
		return p, nil
	}
	if p, ok := dateParts[strings.TrimSuffix(low, "s")]; ok && len(low) > 3 {
		return p, nil
	}
	err := s.SQL.ErrorAt(x.Pos(), "%q is not a part of a date", name)
	if near := fleetscore.Nearest(name, datePartNames); near != "" && name != "" {
		return "", err.WithHint("is %s meant?", near)
	}
	return "", err.WithHint("the parts are %s", strings.Join(datePartNames, ", "))
}

// date compiles the functions whose first argument is a part of a date.
func (s *Scope) date(x *sql.Call, name string) (Expr, error) {
	f := functions[name]
	if err := s.count(x, len(f.args), len(f.args)); err != nil {
		return Expr{}, err
	}
	part, err := s.part(x.Args[0])
	if err != nil {
		return Expr{}, err
	}
	if name == "datediff" && s.Join {
		i, j := s.inputOf(x.Args[1]), s.inputOf(x.Args[2])
		if i >= 0 && j >= 0 {
			return Expr{value.Bigint, func(e *Env) value.Value { return value.Int(Diff(part, e.Stamps[i], e.Stamps[j])) }}, nil
		}
	}
	switch name {
	case "dateadd":
		f.eval = func(_ *call, a []value.Value) value.Value { return add(part, a[0].Bigint(), a[1].Micros()) }
	case "datediff":
		f.eval = func(_ *call, a []value.Value) value.Value { return value.Int(Diff(part, a[0].Micros(), a[1].Micros())) }
	case "datepart":
		f.eval = partOf(part)
	default:
		f.eval = func(_ *call, a []value.Value) value.Value {
			switch t := a[0].Micros().Time(); part {
			case "month":
				return value.String(t.Month().String())
			case "weekday":
				return value.String(t.Weekday().String())
			}
			s, _ := partOf(part)(nil, a).AsText()
			return value.String(s)
		}
	}
	rest := *x
	rest.Args = x.Args[1:]
	f.args = f.args[1:]
	return s.scalar(&rest, f)
}

// inputOf returns the input that an argument of a JOIN's DATEDIFF names; -1 for others.
func (s *Scope) inputOf(x sql.Expr) int {
	if c, ok := x.(*sql.Column); ok && len(c.Path) == 1 {
		return s.source(c.Path[0])
	}
	return -1
}

var fixedParts = map[string]int64{"week": 7 * 86400e6, "day": 86400e6, "weekday": 86400e6, "dayofyear": 86400e6, "hour": 3600e6, "minute": 60e6, "second": 1e6, "millisecond": 1e3, "microsecond": 1}

// add adds n parts to a time. The 31st becomes the last day of a shorter month.
func add(part string, n int64, at fleetscore.Micros) value.Value {
	if u, ok := fixedParts[part]; ok {
		d := value.Arithmetic('*', value.Int(n), value.Int(u))
		sum := value.Arithmetic('+', value.Int(int64(at)), d)
		if d.IsNull() || sum.IsNull() {
			return value.Null
		}
		return inRange(fleetscore.Micros(sum.Bigint()).Time())
	}
	if n > 200000 || n < -200000 {
		return value.Null
	}
	months := map[string]int64{"month": 1, "quarter": 3, "year": 12}[part] * n
	t := at.Time()
	first := time.Date(t.Year(), t.Month()+time.Month(months), 1, 0, 0, 0, 0, time.UTC)
	last := first.AddDate(0, 1, -1).Day()
	return inRange(time.Date(first.Year(), first.Month(), min(t.Day(), last), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC))
}

// inRange refuses years that RFC 3339 can't write.
func inRange(t time.Time) value.Value {
	if t.Year() < 1 || t.Year() > 9999 {
		return value.Null
	}
	return value.Time(fleetscore.MicrosOf(t))
}

// Diff counts the boundaries of a part that lie between two times. Weeks begin on Sunday.
func Diff(part string, from, to fleetscore.Micros) int64 {
	a, b := from.Time(), to.Time()
	switch part {
	case "year":
		return int64(b.Year() - a.Year())
	case "quarter":
		return int64(b.Year()*4+int(b.Month()-1)/3) - int64(a.Year()*4+int(a.Month()-1)/3)
	case "month":
		return int64(b.Year()*12+int(b.Month())) - int64(a.Year()*12+int(a.Month()))
	case "week":
		const sunday = 4 * 86400e6 // 1970-01-01 was a Thursday
		return floorDiv(int64(to)+sunday, fixedParts[part]) - floorDiv(int64(from)+sunday, fixedParts[part])
	}
	return floorDiv(int64(to), fixedParts[part]) - floorDiv(int64(from), fixedParts[part])
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// partOf returns a part of a time. Weekdays count from Sunday, 1; week 1 contains January 1.
func partOf(part string) func(*call, []value.Value) value.Value {
	return func(_ *call, a []value.Value) value.Value {
		t := a[0].Micros().Time()
		n := 0
		switch part {
		case "year":
			n = t.Year()
		case "quarter":
			n = int(t.Month()-1)/3 + 1
		case "month":
			n = int(t.Month())
		case "dayofyear":
			n = t.YearDay()
		case "day":
			n = t.Day()
		case "week":
			january1 := time.Date(t.Year(), 1, 1, 0, 0, 0, 0, time.UTC)
			n = (t.YearDay()-1+int(january1.Weekday()))/7 + 1
		case "weekday":
			n = int(t.Weekday()) + 1
		case "hour":
			n = t.Hour()
		case "minute":
			n = t.Minute()
		case "second":
			n = t.Second()
		case "millisecond":
			n = t.Nanosecond() / 1e6
		case "microsecond":
			n = t.Nanosecond() / 1e3
		}
		return value.Int(int64(n))
	}
}

func fromParts(c *call, a []value.Value) value.Value {
	n := make([]int, len(a))
	for i, v := range a {
		if v.Bigint() < 0 || v.Bigint() > 9999 {
			return c.fail("the parts don't make a datetime: %d is out of range", v.Bigint())
		}
		n[i] = int(v.Bigint())
	}
	t := time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], n[6]*1e6, time.UTC)
	if t.Year() != n[0] || int(t.Month()) != n[1] || t.Day() != n[2] || t.Hour() != n[3] || t.Minute() != n[4] || t.Second() != n[5] || n[6] > 999 {
		return c.fail("the parts don't make a datetime: %d-%d-%d %d:%d:%d.%d", n[0], n[1], n[2], n[3], n[4], n[5], n[6])
	}
	return value.Time(fleetscore.MicrosOf(t))
}
