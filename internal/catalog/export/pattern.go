package export

import (
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Folder is the prefix of all files.
const Folder = "exports/"

// Pattern is a path with tokens, as outputs of Azure Stream Analytics have it.
type Pattern struct {
	parts   []token
	Unit    time.Duration // a file lies within one of it: an hour or a day
	Parquet bool          // else CSV
}

// token is one part of a path: a text, a layout of a time, or a key column.
type token struct {
	text, layout string
	key          int // of the key columns; -1 if it is none
}

// specifiers are those of {datetime:…}, with the layouts of package time.
var specifiers = map[string]string{"yyyy": "2006", "MM": "01", "M": "1", "dd": "02", "d": "2", "HH": "15", "H": "15", "mm": "04", "m": "4", "ss": "05", "s": "5"}

// Parse reads a path such as anomalies/{date}/{time}/{Device}.csv, for rows with such key columns.
func Parse(text string, key []string) (*Pattern, error) {
	bad := func(format string, args ...any) *fleetscore.Error {
		return fleetscore.Errorf(fleetscore.Invalid, "read path", text, format, args...)
	}
	p := &Pattern{Unit: 24 * time.Hour}
	has := map[string]bool{}
	for rest := text; rest != ""; {
		plain, after, found := strings.Cut(rest, "{")
		if plain != "" {
			p.parts = append(p.parts, token{text: plain, key: -1})
		}
		if !found {
			break
		}
		name, after, found := strings.Cut(after, "}")
		if !found {
			return nil, bad("a } is missing")
		}
		rest = after
		t := token{key: slices.Index(key, name)}
		of, isTime := strings.CutPrefix(name, "datetime:")
		switch {
		case t.key >= 0:
		case name == "date":
			t.layout = "2006/01/02"
			has["y"], has["M"], has["d"] = true, true, true
		case name == "time":
			t.layout = "15"
			has["H"] = true
		case isTime && specifiers[of] != "":
			t.layout = specifiers[of]
			has[of[:1]] = true
		default:
			return nil, bad("{%s} is unknown", name).WithHint("write {date}, {time}, {datetime:yyyy} and the like with MM, dd, HH, mm, ss, or a key column: {%s}", strings.Join(key, "}, {"))
		}
		p.parts = append(p.parts, t)
	}
	for _, pair := range [][3]string{{"", "y", "the year"}, {"", "M", "the month"}, {"", "d", "the day"}, {"m", "H", "the hour"}, {"s", "m", "the minute"}} {
		if !has[pair[1]] && (pair[0] == "" || has[pair[0]]) {
			return nil, bad("it lacks %s, so that different times would have one file", pair[2]).WithHint("write {date} and {time} for a file an hour")
		}
	}
	if has["H"] {
		p.Unit = time.Hour
	}
	switch path.Ext(text) {
	case ".parquet":
		p.Parquet = true
	case ".csv":
	default:
		return nil, bad("it ends neither in .csv nor in .parquet")
	}
	values := slices.Repeat([]string{"x"}, len(key))
	if err := store.CheckName(p.name(0, values)); err != nil || strings.HasPrefix(text, "_") {
		return nil, bad("it isn't the name of a file in the store, or begins with _")
	}
	return p, nil
}

// name is the file of a row. A row belongs to the hour and day in which its window began, as in
// the folders of datasets: a stamp of 10:00:00 to the hour 09.
func (p *Pattern) name(stamp fleetscore.Micros, key []string) fleetscore.BlobName {
	at := (stamp - 1).Time().UTC()
	var b strings.Builder
	b.WriteString(Folder)
	for _, t := range p.parts {
		switch {
		case t.layout != "":
			b.WriteString(at.Format(t.layout))
		case t.key >= 0:
			escaped := url.PathEscape(key[t.key]) // a / would be another folder
			if strings.Trim(escaped, ".") == "" {
				escaped = strings.ReplaceAll(escaped, ".", "%2E")
			}
			b.WriteString(escaped)
		default:
			b.WriteString(t.text)
		}
	}
	return fleetscore.BlobName(b.String())
}
