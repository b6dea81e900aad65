package fleet

import (
	"context"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Template names a key's model: "model_{Device}_{Tag}". Each key column stands
// in it once, in braces; the rest is literal text, and may hold "/".
//
// An extension that models commonly have need not stand in it. It may end in ".*"
// for any extension, and begin with "**/" for any folder.
type Template struct {
	text   string
	names  []string // the fleet's key columns
	fixed  []string // literal text before, between and after the columns
	column []int    // which key column follows fixed[i]
	deep   bool     // it began with "**/"
	anyExt bool     // it ended in ".*"
}

// ParseTemplate reads a template for the given key columns.
func ParseTemplate(s string, keyNames []string) (Template, error) {
	bad := func(format string, args ...any) (Template, error) {
		return Template{}, fleetscore.Errorf(fleetscore.Invalid, "read model template", s, format, args...).
			WithHint("write for example model_{%s}", strings.Join(keyNames, "}_{"))
	}
	t := Template{text: s, names: keyNames}
	seen := make([]bool, len(keyNames))
	rest := s
	rest, t.deep = strings.CutPrefix(rest, "**/")
	rest, t.anyExt = strings.CutSuffix(rest, ".*")
	for {
		before, after, ok := strings.Cut(rest, "{")
		t.fixed = append(t.fixed, before)
		if strings.Contains(before, "}") {
			return bad("a brace } has no {")
		}
		if strings.Contains(before, "*") {
			return bad("a * may only stand in **/ at the start and .* at the end")
		}
		if !ok {
			break
		}
		name, next, ok := strings.Cut(after, "}")
		if !ok {
			return bad("a brace { is not closed")
		}
		at := -1
		for i, k := range keyNames {
			if k == name {
				at = i
			}
		}
		switch {
		case at < 0:
			return bad("{%s} is not a key column; those are %s", name, strings.Join(keyNames, ", "))
		case seen[at]:
			return bad("{%s} stands in it twice", name)
		case len(t.column) > 0 && before == "":
			return bad("{%s} follows another column without a character between them", name)
		}
		seen[at] = true
		t.column = append(t.column, at)
		rest = next
	}
	for i, ok := range seen {
		if !ok {
			return bad("the key column {%s} is missing, so several sensors would share a model", keyNames[i])
		}
	}
	return t, nil
}

// String is the template's text.
func (t Template) String() string { return t.text }

// KeyNames are the key columns it was read for.
func (t Template) KeyNames() []string { return t.names }

// Name is the name of a key's model, without folder and extension where the
// template leaves them open. Characters of values that would change the
// path ("/", "\", "%" and control characters, or a leading ".") are written as
// in URLs: %2F.
func (t Template) Name(k fleetscore.Key) string {
	values := k.Values()
	var b strings.Builder
	for i, f := range t.fixed {
		b.WriteString(f)
		if i < len(t.column) {
			writeValue(&b, values[t.column[i]])
		}
	}
	name := b.String()
	for i := strings.LastIndexByte(name, '.'); i >= 0 && t.withoutExtension(name) != name; i = strings.LastIndexByte(name, '.') {
		name = name[:i] + "%2E" + name[i+1:] // a value must not end like an extension
	}
	return name
}

func writeValue(b *strings.Builder, v string) {
	const hexDigits = "0123456789ABCDEF"
	for i := 0; i < len(v); i++ {
		c := v[i]
		if c < 0x20 || c == 0x7f || c == '/' || c == '\\' || c == '%' || (c == '.' && i == 0) {
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
			continue
		}
		b.WriteByte(c)
	}
}

// extensions are those that models commonly have; a compressed one is followed by
// one of packed.
var (
	extensions = []string{".pkl", ".pickle", ".p", ".joblib", ".jl", ".skops", ".onnx", ".sav", ".model", ".mdl", ".bin", ".dat"}
	packed     = []string{".gz", ".bz2", ".xz", ".lzma", ".lz4", ".z", ".zlib"}
)

// withoutExtension cuts the extension off a name.
func (t Template) withoutExtension(name string) string {
	ext := path.Ext(name)
	switch {
	case ext == "" || ext == path.Base(name):
		return name
	case t.anyExt:
		return strings.TrimSuffix(name, ext)
	case strings.HasSuffix(t.text, ext):
		return name
	}
	plain := name
	if slices.Contains(packed, strings.ToLower(ext)) {
		plain = strings.TrimSuffix(name, ext)
		if ext = path.Ext(plain); strings.HasSuffix(t.text, ext) && ext != "" {
			return plain
		}
	}
	if slices.Contains(extensions, strings.ToLower(ext)) {
		return strings.TrimSuffix(plain, ext)
	}
	return plain
}

// Match finds the key whose model has the name. A name that doesn't fit, or fits
// in several ways (as "model_1_2_3" does for two columns), belongs to no key.
func (t Template) Match(name string) (fleetscore.Key, bool) {
	if len(t.fixed) == 0 {
		return "", false
	}
	name = t.withoutExtension(name)
	if t.deep {
		depth := strings.Count(strings.Join(t.fixed, ""), "/")
		for at := len(name); depth >= 0; depth-- {
			if at = strings.LastIndexByte(name[:at], '/'); at < 0 {
				break
			}
			if depth == 0 {
				name = name[at+1:]
			}
		}
	}
	rest, ok := strings.CutPrefix(name, t.fixed[0])
	if !ok {
		return "", false
	}
	values := make([]string, len(t.names))
	for i, c := range t.column {
		sep := t.fixed[i+1]
		var v string
		if i == len(t.column)-1 {
			if v, ok = strings.CutSuffix(rest, sep); !ok {
				return "", false
			}
		} else {
			if v, rest, ok = strings.Cut(rest, sep); !ok || t.again(i, rest) {
				return "", false
			}
		}
		u, err := url.PathUnescape(v)
		if v == "" || strings.Contains(v, "/") || err != nil {
			return "", false
		}
		values[c] = u
	}
	k, err := fleetscore.NewKey(values...)
	return k, err == nil
}

// again reports whether the separator after column i stands once more in the rest
// than the template asks, so that the columns could be cut differently.
func (t Template) again(i int, rest string) bool {
	want := 0
	for _, f := range t.fixed[i+2:] {
		want += strings.Count(f, t.fixed[i+1])
	}
	return strings.Count(rest, t.fixed[i+1]) > want
}

// Namer finds how the files of sensors' models are named in a folder. It isn't safe for
// concurrent use.
type Namer struct {
	src    store.Bucket
	spec   Spec
	listed map[fleetscore.Key]string // the list of sensors with the models that it names; nil until it was read
}

// NewNamer names models of a fleet in a folder.
func NewNamer(src store.Bucket, spec Spec) *Namer { return &Namer{src: src, spec: spec} }

// Name is the name of the file that is a key's model, or is to be: of the file that is
// there, with whatever extension, else by the template.
func (n *Namer) Name(ctx context.Context, k fleetscore.Key) (string, error) {
	const op = "find the name of a model"
	t := n.spec.Model
	if t.text == "" || t.deep {
		return "", fleetscore.Errorf(fleetscore.Invalid, op, k.String(), "the fleet's settings don't give a sensor's model one name").
			WithHint("give the file's name in the fleet's folder instead of the sensor")
	}
	if err := n.readList(ctx); err != nil {
		return "", err
	}
	if model, ok := n.listed[k]; n.listed != nil && !ok {
		return "", fleetscore.Errorf(fleetscore.NotFound, op, k.String(), "the list of sensors %s doesn't have this sensor", n.spec.Sensors).WithHint("add the sensor to the list")
	} else if model != "" {
		return "", fleetscore.Errorf(fleetscore.Conflict, op, k.String(), "the list of sensors %s names the file %s as its model, which other sensors may have too", n.spec.Sensors, model).
			WithHint("give this file's name instead of the sensor")
	}
	name := t.Name(k)
	for i, err := range n.src.List(ctx, name, store.ListOptions{Delimiter: true}) {
		if err != nil {
			return "", err
		}
		if have, ok := t.Match(string(i.Name)); ok && have == k {
			return string(i.Name), nil
		}
	}
	return name, nil
}

func (n *Namer) readList(ctx context.Context) error {
	if n.spec.Sensors == "" || n.listed != nil {
		return nil
	}
	sensors, err := readSensors(ctx, n.src, n.spec.Sensors, n.spec.KeyNames)
	if err != nil {
		return err
	}
	n.listed = make(map[fleetscore.Key]string, len(sensors))
	for _, s := range sensors {
		n.listed[s.key] = s.model
	}
	return nil
}
