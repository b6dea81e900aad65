package config

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"
)

// The YAML parser's memory and time grow with the square of the depth of nesting: 60
// KB of brackets take 1.4 GB. So the text is checked before it is parsed, and nesting
// that no configuration needs is refused.
const (
	maxNesting    = 32     // deepest level of a mapping or list; a fleet.yaml has 6
	maxEntries    = 2000   // of a mapping or list
	maxIndicators = 40_000 // characters that begin a token of YAML
	maxProblems   = 100    // reported of one file
	maxShown      = 80     // bytes of the file's text that a message shows
)

// bound returns the line and the reason if a text exceeds a limit, otherwise an empty
// reason. It needs memory for the tokens only, about 300 bytes for each.
func bound(text []byte) (line int, why string) {
	indicators := 0
	for _, c := range text {
		if strings.IndexByte("[]{},:?-&*!\n", c) >= 0 {
			indicators++
		}
	}
	if indicators > maxIndicators {
		return 0, "the file has too many lists, keys and lines to be a configuration; split it into several servers' files"
	}
	var b bounds
	for _, t := range lexer.Tokenize(string(text)) {
		if why := b.add(t); why != "" {
			return t.Position.Line, why
		}
	}
	return 0, ""
}

// bounds follows the nesting of a stream of tokens.
type bounds struct {
	flow    int   // open brackets and braces
	columns []int // where the open levels outside of them begin
	entries []int // lines of each
	line    int   // of the token before
	inLine  int   // levels that began in the line so far
	before  token.Type
}

func (b *bounds) add(t *token.Token) (why string) {
	const deep = "lists and mappings are nested more than 32 levels deep; a fleet.yaml has 6 levels"
	before := b.before
	b.before = t.Type
	if t.Position.Line != b.line {
		b.line, b.inLine = t.Position.Line, 0
		if b.flow == 0 {
			n := len(b.columns)
			for n > 0 && b.columns[n-1] > t.Position.Column {
				n--
			}
			if n == 0 || b.columns[n-1] < t.Position.Column {
				b.columns, b.entries = append(b.columns[:n], t.Position.Column), append(b.entries[:n], 0)
			} else {
				b.columns, b.entries = b.columns[:n], b.entries[:n]
			}
			n = len(b.columns)
			if b.entries[n-1]++; b.entries[n-1] > maxEntries {
				return fmt.Sprintf("a mapping or list has more than %d entries; split it into several servers' files", maxEntries)
			}
		}
	}
	switch t.Type {
	case token.SequenceStartType, token.MappingStartType:
		b.flow++
	case token.SequenceEndType, token.MappingEndType:
		b.flow = max(0, b.flow-1)
	case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.AliasType, token.TagType:
		b.inLine++
	case token.MappingValueType:
		if b.flow == 0 || before == token.MappingValueType {
			b.inLine++
		}
	case token.CollectEntryType:
		if before == token.CollectEntryType || before == token.SequenceStartType || before == token.MappingStartType {
			return "a comma has no value before it"
		}
		b.inLine = 0
	}
	if b.flow+len(b.columns)+b.inLine > maxNesting+2 {
		return deep
	}
	return ""
}

// shown shortens a text of the file for a message.
func shown(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}
