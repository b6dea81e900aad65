package sql

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fleetscore/fleetscore"
)

// tokenKind is the kind of a token. The lexer treats keywords as words; the parser
// recognises them.
type tokenKind int

const (
	endOfText tokenKind = iota
	word                // an identifier or keyword
	quoted              // [name] or "name": never a keyword
	number
	text // 'text'
	sign // punctuation and operators
)

type token struct {
	kind tokenKind
	text string // without quotes
	pos  int    // byte offset
	end  int    // behind it
}

// is reports whether the token is the keyword or sign, in any case.
func (t token) is(s string) bool {
	return (t.kind == word || t.kind == sign) && strings.EqualFold(t.text, s)
}

func (t token) String() string {
	switch t.kind {
	case endOfText:
		return "the end of the text"
	case text:
		return "'" + t.text + "'"
	}
	return `"` + t.text + `"`
}

// Source is the text of a query, by which errors name lines and columns.
type Source string

// ErrorAt returns an error at a byte offset of the text.
func (s Source) ErrorAt(pos int, format string, args ...any) *fleetscore.Error {
	before := string(s[:min(max(pos, 0), len(s))])
	line := 1 + strings.Count(before, "\n")
	column := 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	return fleetscore.Errorf(fleetscore.Invalid, "read query", fmt.Sprintf("line %d, column %d", line, column), format, args...)
}

// lex splits the text into tokens. The last token is endOfText.
func lex(sql Source) ([]token, error) {
	var out []token
	for i := 0; i < len(sql); {
		r, size := utf8.DecodeRuneInString(string(sql[i:]))
		rest := string(sql[i:])
		switch {
		case unicode.IsSpace(r):
			i += size
		case strings.HasPrefix(rest, "--"):
			if n := strings.IndexByte(rest, '\n'); n >= 0 {
				i += n
			} else {
				i = len(sql)
			}
		case strings.HasPrefix(rest, "/*"):
			n := strings.Index(rest, "*/")
			if n < 0 {
				return nil, sql.ErrorAt(i, "the comment is not closed").WithHint("end it with */")
			}
			i += n + 2
		case r == '[' || r == '"' || r == '\'':
			t, next, err := lexQuoted(sql, i, r)
			if err != nil {
				return nil, err
			}
			out = append(out, t)
			i = next
		case (r == 'N' || r == 'n') && strings.HasPrefix(rest[1:], "'"): // N'text', as in T-SQL
			i++
		case r >= '0' && r <= '9' || r == '.' && len(rest) > 1 && rest[1] >= '0' && rest[1] <= '9':
			n := numberLength(rest)
			out = append(out, token{number, rest[:n], i, i + n})
			i += n
		case r == '_' || unicode.IsLetter(r):
			n := strings.IndexFunc(rest, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
			if n < 0 {
				n = len(rest)
			}
			out = append(out, token{word, rest[:n], i, i + n})
			i += n
		default:
			n := 1
			if len(rest) > 1 && slices.Contains([]string{"<=", ">=", "<>", "!=", "!<", "!>"}, rest[:2]) {
				n = 2
			}
			if !strings.Contains("(),.*=<>!-+;/%&|^~", rest[:1]) || rest[:n] == "!" {
				return nil, sql.ErrorAt(i, "%q has no meaning here", r)
			}
			out = append(out, token{sign, rest[:n], i, i + n})
			i += n
		}
	}
	return append(out, token{endOfText, "", len(sql), len(sql)}), nil
}

func lexQuoted(sql Source, start int, open rune) (token, int, error) {
	closing, kind := string(open), quoted
	if open == '[' {
		closing = "]"
	}
	if open == '\'' {
		kind = text
	}
	var b strings.Builder
	i := start + 1
	for {
		n := strings.Index(string(sql[i:]), closing)
		if n < 0 {
			return token{}, 0, sql.ErrorAt(start, "%c is not closed", open).WithHint("end it with %s", closing)
		}
		b.WriteString(string(sql[i : i+n]))
		i += n + 1
		if !strings.HasPrefix(string(sql[i:]), closing) { // a doubled quote stands for one quote
			break
		}
		b.WriteString(closing)
		i++
	}
	if kind == quoted && b.Len() == 0 {
		return token{}, 0, sql.ErrorAt(start, "the name is empty")
	}
	return token{kind, b.String(), start, i}, i, nil
}

// numberLength returns the length of the decimal number at the start of s.
func numberLength(s string) int {
	digits := func(i int) int {
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		return i
	}
	i := digits(0)
	if i < len(s) && s[i] == '.' {
		i = digits(i + 1)
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		j := i + 1
		if j < len(s) && (s[j] == '+' || s[j] == '-') {
			j++
		}
		if k := digits(j); k > j {
			i = k
		}
	}
	return i
}
