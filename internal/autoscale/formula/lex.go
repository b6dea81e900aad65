package formula

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

type tokenKind int

const (
	endOfText tokenKind = iota
	word                // a name
	number
	text // without its quotes
	sign // punctuation and operators
)

type token struct {
	kind tokenKind
	text string
	pos  int // byte offset
	end  int // byte offset behind it
}

func (t token) is(s string) bool { return t.kind == sign && t.text == s }

func (t token) String() string {
	if t.kind == endOfText {
		return "the end of the formula"
	}
	if t.kind == text {
		return `the text "` + t.text + `"`
	}
	return t.text
}

func isLetter(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// lex cuts the text into tokens; the last is endOfText. An error ends the list.
func lex(src string) ([]token, *Error) {
	var out []token
	for i := 0; i < len(src); {
		c := src[i]
		start := i
		switch {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f' || c == '\v':
			i++
		case strings.HasPrefix(src[i:], "//"):
			if n := strings.IndexByte(src[i:], '\n'); n >= 0 {
				i += n
			} else {
				i = len(src)
			}
		case isDigit(c) || c == '.' && i+1 < len(src) && isDigit(src[i+1]):
			i += numberLength(src[i:])
			if i < len(src) && (isLetter(src[i]) || src[i] == '$') {
				return out, errorAt(src, start, "the number %s is followed by a letter", src[start:i]).
					hint("write an operator between them, such as 5 * TimeInterval_Minute; names don't begin with a digit")
			}
			out = append(out, token{number, src[start:i], start, i})
		case isLetter(c) || c == '$' && i+1 < len(src) && isLetter(src[i+1]):
			for i++; i < len(src) && (isLetter(src[i]) || isDigit(src[i])); i++ {
			}
			out = append(out, token{word, src[start:i], start, i})
		case c == '"':
			n := strings.IndexAny(src[i+1:], "\"\n")
			if n < 0 || src[i+1+n] == '\n' {
				return out, errorAt(src, start, "the text is not closed").hint(`end it with " on the same line`)
			}
			i += n + 2
			if strings.HasSuffix(src[start:i-1], `\`) {
				return out, errorAt(src, i-2, `\" has no meaning in a formula`).hint("%s", escapedHint)
			}
			out = append(out, token{text, src[start+1 : i-1], start, i})
		default:
			t, err := lexSign(src, i)
			if err != nil {
				return out, err
			}
			out = append(out, t)
			i = t.end
		}
	}
	return append(out, token{endOfText, "", len(src), len(src)}), nil
}

const escapedHint = `the formula was copied out of JSON: write " instead of \", and line breaks instead of \n`

func lexSign(src string, i int) (token, *Error) {
	for _, s := range []string{"&&", "||", "==", "!=", "<=", ">="} {
		if strings.HasPrefix(src[i:], s) {
			return token{sign, s, i, i + len(s)}, nil
		}
	}
	c := src[i]
	if strings.IndexByte("+-*/()<>=!?:;,.", c) >= 0 {
		return token{sign, src[i : i+1], i, i + 1}, nil
	}
	switch {
	case c == '%':
		return token{}, errorAt(src, i, "there is no operator %%").
			hint("the remainder of a divided by b is a - b * floor(a / b); a percentage is a plain number, such as 70")
	case c == '\\':
		return token{}, errorAt(src, i, `a backslash has no meaning in a formula`).hint("%s", escapedHint)
	case strings.HasPrefix(src[i:], "${"), c == '{' || c == '}':
		return token{}, errorAt(src, i, "braces have no meaning in a formula").
			hint("a program was to put a value in place of %s and didn't: check how its template marks such places", hole(src[i:]))
	case c == '$':
		return token{}, errorAt(src, i, "a name must follow $ directly").hint("write for example $PendingTasks")
	case c == '&' || c == '|':
		return token{}, errorAt(src, i, "there is no operator %c", c).hint("write %c%c", c, c)
	case c == '\'' || c == '`':
		return token{}, errorAt(src, i, "%c has no meaning in a formula", c).hint(`texts are written in double quotes, such as time("2026-11-23T10:00:00Z")`)
	case c == '#':
		return token{}, errorAt(src, i, "# has no meaning in a formula").hint("a comment begins with //")
	case c == '[' || c == ']':
		return token{}, errorAt(src, i, "brackets have no meaning in a formula").hint("an element of a vector is val(vector, 0), and functions take several numbers, such as max(1, 2)")
	case c == '^':
		return token{}, errorAt(src, i, "there is no operator ^").hint("a power with a small whole exponent can be written as a product")
	}
	r, _ := utf8.DecodeRuneInString(src[i:])
	e := errorAt(src, i, "%q has no meaning in a formula", r)
	if unicode.Is(unicode.Quotation_Mark, r) {
		return token{}, e.hint(`write the plain double quote "`)
	}
	return token{}, e.hint("names consist of the letters a to z, digits and _, and may begin with $")
}

// hole is the place that a template left, with its braces.
func hole(s string) string {
	n := strings.IndexAny(s, "}\n")
	if n < 0 || s[n] == '\n' || n > 60 {
		return "it"
	}
	return s[:n+1]
}

// numberLength is the length of the decimal number at the start of s.
func numberLength(s string) int {
	i := 0
	digits := func() {
		for i < len(s) && isDigit(s[i]) {
			i++
		}
	}
	digits()
	if i < len(s) && s[i] == '.' {
		i++
		digits()
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		back := i
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		first := i
		if digits(); i == first {
			i = back
		}
	}
	return i
}
