package expr

import (
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fleetscore/fleetscore/internal/query/value"
)

var functions = map[string]function{
	"dateadd":           {args: "uid", gives: value.Datetime},
	"datediff":          {args: "udd", gives: value.Bigint},
	"datepart":          {args: "ud", gives: value.Bigint},
	"datename":          {args: "ud", gives: value.Text},
	"datetimefromparts": {args: "iiiiiii", gives: value.Datetime, eval: fromParts},
	"year":              {args: "d", gives: value.Bigint, eval: partOf("year")},
	"month":             {args: "d", gives: value.Bigint, eval: partOf("month")},
	"day":               {args: "d", gives: value.Bigint, eval: partOf("day")},
	"abs":               {args: "n", like: true, eval: abs},
	"ceiling":           {args: "n", like: true, eval: floats(math.Ceil)},
	"floor":             {args: "n", like: true, eval: floats(math.Floor)},
	"exp":               {args: "n", gives: value.Float, eval: always(math.Exp)},
	"sqrt":              {args: "n", gives: value.Float, eval: always(math.Sqrt)},
	"square":            {args: "n", gives: value.Float, eval: always(func(x float64) float64 { return x * x })},
	"sign":              {args: "n", like: true, eval: sign},
	"power":             {args: "nn", like: true, eval: power},
	"round":             {args: "ni", like: true, eval: round},
	"upper":             {args: "t", gives: value.Text, eval: texts(strings.ToUpper)},
	"lower":             {args: "t", gives: value.Text, eval: texts(strings.ToLower)},
	"trim":              {args: "t", gives: value.Text, eval: texts(func(s string) string { return strings.TrimFunc(s, white) })},
	"ltrim":             {args: "t", gives: value.Text, eval: texts(func(s string) string { return strings.TrimLeftFunc(s, white) })},
	"rtrim":             {args: "t", gives: value.Text, eval: texts(func(s string) string { return strings.TrimRightFunc(s, white) })},
	"reverse":           {args: "t", gives: value.Text, eval: texts(reverse)},
	"len":               {args: "t", gives: value.Bigint, eval: length},
	"left":              {args: "ti", gives: value.Text, eval: left},
	"right":             {args: "ti", gives: value.Text, eval: right},
	"substring":         {args: "tii", gives: value.Text, eval: substring},
	"charindex":         {args: "tti", optional: 1, gives: value.Bigint, eval: charIndex},
	"patindex":          {args: "tt", gives: value.Bigint, eval: patIndex},
	"regexmatch":        {args: "tt", gives: value.Bigint, eval: regexMatch},
	"replace":           {args: "ttt", gives: value.Text, eval: replace},
	"replicate":         {args: "ti", gives: value.Text, eval: replicate},
	"space": {args: "i", gives: value.Text, eval: func(c *call, a []value.Value) value.Value {
		return replicate(c, []value.Value{value.String(" "), a[0]})
	}},
	"stuff":                  {args: "tiit", gives: value.Text, eval: stuff},
	"translate":              {args: "ttt", gives: value.Text, eval: translate},
	"concat":                 {args: "tt+", nulls: true, gives: value.Text, eval: concat},
	"concat_ws":              {args: "ttt+", nulls: true, gives: value.Text, eval: concatWith},
	"unicode":                {args: "t", gives: value.Bigint, eval: codeOf},
	"nchar":                  {args: "i", gives: value.Text, eval: charOf},
	"coalesce":               {args: "aa+", nulls: true, eval: coalesce},
	"nullif":                 {args: "aa", nulls: true, like: true, eval: nullIf},
	"gettype":                {args: "a", nulls: true, gives: value.Text, eval: getType},
	"getarrayelement":        {args: "li", eval: element},
	"getarraylength":         {args: "l", gives: value.Bigint, eval: func(_ *call, a []value.Value) value.Value { return value.Int(int64(len(a[0].Items()))) }},
	"getrecordpropertyvalue": {args: "rt", eval: func(_ *call, a []value.Value) value.Value { return a[0].Record().Get(a[1].Text()) }},
}

// maxText bounds the texts that functions build.
const maxText = 1 << 20

func texts(f func(string) string) func(*call, []value.Value) value.Value {
	return func(_ *call, a []value.Value) value.Value { return value.String(f(a[0].Text())) }
}

// floats is a function of a number whose result is a bigint for a bigint.
func floats(f func(float64) float64) func(*call, []value.Value) value.Value {
	return func(_ *call, a []value.Value) value.Value {
		if a[0].Type() == value.Bigint {
			return a[0]
		}
		x, _ := a[0].AsFloat()
		return value.Number(f(x))
	}
}

func always(f func(float64) float64) func(*call, []value.Value) value.Value {
	return func(_ *call, a []value.Value) value.Value {
		x, _ := a[0].AsFloat()
		return value.Number(f(x))
	}
}

func abs(_ *call, a []value.Value) value.Value {
	if c, _ := value.Compare(a[0], value.Int(0)); c < 0 {
		return value.Negate(a[0])
	}
	return a[0]
}

func sign(_ *call, a []value.Value) value.Value {
	c, _ := value.Compare(a[0], value.Int(0))
	if a[0].Type() == value.Float {
		return value.Number(float64(c))
	}
	return value.Int(int64(c))
}

func power(_ *call, a []value.Value) value.Value {
	x, _ := a[0].AsFloat()
	y, _ := a[1].AsFloat()
	z := math.Pow(x, y)
	if a[0].Type() == value.Bigint {
		if math.Abs(z) >= 1<<63 {
			return value.Null
		}
		return value.Int(int64(z))
	}
	return value.Number(z)
}

// round rounds halves away from zero.
func round(_ *call, a []value.Value) value.Value {
	n := a[1].Bigint()
	if a[0].Type() == value.Bigint {
		if n >= 0 {
			return a[0]
		}
		if n < -18 {
			return value.Int(0)
		}
		unit := int64(math.Pow10(int(-n)))
		x := a[0].Bigint()
		r := x % unit
		x -= r
		switch half := unit / 2; {
		case r >= half:
			return value.Arithmetic('+', value.Int(x), value.Int(unit))
		case -r >= half:
			return value.Arithmetic('-', value.Int(x), value.Int(unit))
		}
		return value.Int(x)
	}
	x, _ := a[0].AsFloat()
	switch {
	case n > 15:
		return a[0]
	case n < -308:
		return value.Number(0)
	case n >= 0:
		unit := math.Pow10(int(n))
		if s := x * unit; math.Abs(s) < 1<<53 {
			return value.Number(math.Round(s) / unit)
		}
		return a[0]
	}
	unit := math.Pow10(int(-n))
	return value.Number(math.Round(x/unit) * unit)
}

func white(r rune) bool {
	return unicode.In(r, unicode.Zs, unicode.Zl, unicode.Zp) || r >= 9 && r <= 13 || r == 0x85
}

func reverse(s string) string {
	r := []rune(s)
	slices.Reverse(r)
	return string(r)
}

func length(_ *call, a []value.Value) value.Value {
	return value.Int(int64(utf8.RuneCountInString(strings.TrimRight(a[0].Text(), " "))))
}

func left(c *call, a []value.Value) value.Value {
	if a[1].Bigint() < 0 {
		return c.fail("the length %d is negative", a[1].Bigint())
	}
	r := []rune(a[0].Text())
	return value.String(string(r[:min(int64(len(r)), a[1].Bigint())]))
}

func right(c *call, a []value.Value) value.Value {
	if a[1].Bigint() < 0 {
		return c.fail("the length %d is negative", a[1].Bigint())
	}
	r := []rune(a[0].Text())
	return value.String(string(r[max(0, int64(len(r))-a[1].Bigint()):]))
}

// cut returns the places in r of n characters from start on, counted from 1.
func cut(r []rune, start, n int64) (from, to int64) {
	size := int64(len(r))
	from = max(start, 1) - 1
	if from >= size {
		return size, size
	}
	if start < 1 {
		n = max(start+n-1, 0)
	}
	return from, from + min(n, size-from)
}

func substring(c *call, a []value.Value) value.Value {
	if a[2].Bigint() < 0 {
		return c.fail("the length %d is negative", a[2].Bigint())
	}
	r := []rune(a[0].Text())
	from, to := cut(r, a[1].Bigint(), a[2].Bigint())
	return value.String(string(r[from:to]))
}

func stuff(c *call, a []value.Value) value.Value {
	if a[2].Bigint() < 0 {
		return c.fail("the length %d is negative", a[2].Bigint())
	}
	r := []rune(a[0].Text())
	if a[1].Bigint() > int64(len(r)) {
		return value.String("")
	}
	from, to := cut(r, max(a[1].Bigint(), 1), a[2].Bigint())
	return value.String(string(r[:from]) + a[3].Text() + string(r[to:]))
}

// charIndex finds a text in another, as SQL Server's default collation does, in which
// upper and lower case are alike.
func charIndex(_ *call, a []value.Value) value.Value {
	in, skip := []rune(a[1].Text()), int64(0)
	if len(a) == 3 {
		skip = min(max(a[2].Bigint()-1, 0), int64(len(in)))
	}
	rest := strings.ToLower(string(in[skip:]))
	i := strings.Index(rest, strings.ToLower(a[0].Text()))
	if i < 0 || a[0].Text() == "" {
		return value.Int(0)
	}
	return value.Int(skip + int64(utf8.RuneCountInString(rest[:i])) + 1)
}

func patIndex(_ *call, a []value.Value) value.Value {
	p, s := a[0].Text(), a[1].Text()
	start, end := strings.HasPrefix(p, "%"), strings.HasSuffix(p, "%") && len(p) > 1
	re := pattern(strings.TrimSuffix(strings.TrimPrefix(p, "%"), "%"), "", false).String()
	if !start {
		re = strings.Replace(re, "(?is)", "(?is)^", 1)
	}
	if !end {
		re += "$"
	}
	return matchAt(re, s)
}

func matchAt(re, s string) value.Value {
	r, err := regexp.Compile(re)
	if err != nil {
		return value.Int(0)
	}
	at := r.FindStringIndex(s)
	if at == nil {
		return value.Int(0)
	}
	return value.Int(int64(utf8.RuneCountInString(s[:at[0]])) + 1)
}

func regexMatch(_ *call, a []value.Value) value.Value {
	return matchAt("(?is)"+a[1].Text(), a[0].Text())
}

func replace(c *call, a []value.Value) value.Value {
	s, old, by := a[0].Text(), a[1].Text(), a[2].Text()
	if old == "" {
		return a[0]
	}
	if n := strings.Count(s, old); len(s)+n*len(by) > maxText {
		return c.fail("the text would be longer than %d bytes", maxText)
	}
	return value.String(strings.ReplaceAll(s, old, by))
}

func replicate(c *call, a []value.Value) value.Value {
	n := a[1].Bigint()
	if n < 0 {
		return value.Null
	}
	if s := a[0].Text(); s != "" && n > int64(maxText/len(s)) {
		return c.fail("the text would be longer than %d bytes", maxText)
	} else if s == "" {
		return a[0]
	}
	return value.String(strings.Repeat(a[0].Text(), int(n)))
}

func translate(c *call, a []value.Value) value.Value {
	from, to := []rune(a[1].Text()), []rune(a[2].Text())
	if len(from) != len(to) {
		return c.fail("TRANSLATE needs as many translations as characters: %d and %d", len(to), len(from))
	}
	return value.String(strings.Map(func(r rune) rune {
		if i := slices.Index(from, r); i >= 0 {
			return to[i]
		}
		return r
	}, a[0].Text()))
}

func concat(_ *call, a []value.Value) value.Value {
	var b strings.Builder
	for _, v := range a {
		b.WriteString(v.Text())
	}
	return value.String(b.String())
}

func concatWith(_ *call, a []value.Value) value.Value {
	var parts []string
	for _, v := range a[1:] {
		if !v.IsNull() {
			parts = append(parts, v.Text())
		}
	}
	return value.String(strings.Join(parts, a[0].Text()))
}

func codeOf(_ *call, a []value.Value) value.Value {
	for _, r := range a[0].Text() {
		return value.Int(int64(r))
	}
	return value.Null
}

func charOf(_ *call, a []value.Value) value.Value {
	n := a[0].Bigint()
	if n < 0 || n > unicode.MaxRune {
		return value.Null
	}
	return value.String(string(rune(n)))
}

func coalesce(_ *call, a []value.Value) value.Value {
	for _, v := range a {
		if !v.IsNull() {
			return v
		}
	}
	return value.Null
}

func nullIf(_ *call, a []value.Value) value.Value {
	if c, ok := value.Compare(a[0], a[1]); ok && c == 0 {
		return value.Null
	}
	return a[0]
}

func getType(_ *call, a []value.Value) value.Value {
	if a[0].IsNull() {
		return value.Null
	}
	return value.String(a[0].Type().String())
}

func element(_ *call, a []value.Value) value.Value {
	if i, l := a[1].Bigint(), a[0].Items(); i >= 0 && i < int64(len(l)) {
		return l[i]
	}
	return value.Null
}
