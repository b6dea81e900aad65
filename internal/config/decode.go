package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/fleetscore/fleetscore"
)

// reader decodes a YAML tree into Go values by their json tags and collects
// every problem instead of stopping at the first.
type reader struct {
	problems []Problem
	lines    map[string]int // path, e.g. "pipelines.a.features", to line
	blocks   map[string]int // path of a text written as a block (|) to the line of the text's first line
	path     []string
	decoded  bool // the file has content to check
}

func newReader() *reader { return &reader{lines: map[string]int{}, blocks: map[string]int{}} }

func (r *reader) problemf(line int, format string, args ...any) {
	r.problems = append(r.problems, Problem{Line: line, Text: fmt.Sprintf(format, args...)})
}

// place is the path that is being read.
func (r *reader) place() string { return shown(strings.Join(r.path, ".")) }

// at reports a problem at the line of path, or of its nearest known parent.
func (r *reader) at(path, format string, args ...any) {
	text := path + ": " + fmt.Sprintf(format, args...)
	for {
		if line, ok := r.lines[path]; ok {
			r.problems = append(r.problems, Problem{Line: line, Text: text})
			return
		}
		i := strings.LastIndexByte(path, '.')
		if i < 0 {
			r.problems = append(r.problems, Problem{Text: text})
			return
		}
		path = path[:i]
	}
}

func (r *reader) decode(n ast.Node, into any) { r.value(n, reflect.ValueOf(into).Elem()) }

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

func (r *reader) value(n ast.Node, v reflect.Value) {
	if t, ok := n.(*ast.TagNode); ok {
		n = t.Value
	}
	switch n.(type) {
	case *ast.NullNode:
		return // this is the same as an absent key
	case *ast.AnchorNode, *ast.AliasNode:
		r.wrong(n, "anchors and aliases are not supported; write the value out")
		return
	}
	if reflect.PointerTo(v.Type()).Implements(textUnmarshaler) {
		r.text(n, v)
		return
	}
	if list, ok := v.Addr().Interface().(*fleetscore.OneOrMore[int]); ok {
		r.numbers(n, list)
		return
	}
	if _, single := scalar(n); single && v.Type() == reflect.TypeFor[fleetscore.OneOrMore[string]]() {
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		v = v.Index(0)
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		r.value(n, v.Elem())
	case reflect.Struct:
		r.structure(n, v)
	case reflect.Map:
		r.mapping(n, v)
	case reflect.Slice:
		r.list(n, v)
	case reflect.String:
		if s, ok := scalar(n); ok {
			v.SetString(s)
			if b, block := n.(*ast.LiteralNode); block && strings.HasPrefix(b.Start.Value, "|") {
				path := strings.Join(r.path, ".")
				r.blocks[path] = r.lines[path] + 1
			}
			return
		}
		r.wrong(n, "a text is expected here")
	case reflect.Int, reflect.Int64:
		if i, ok := n.(*ast.IntegerNode); ok {
			switch x := i.Value.(type) {
			case uint64:
				if x < 1<<31 {
					v.SetInt(int64(x))
					return
				}
			case int64:
				if x > -1<<31 {
					v.SetInt(x)
					return
				}
			}
		}
		r.wrong(n, "a whole number is expected here")
	case reflect.Float64:
		f, ok := float(n)
		if !ok {
			r.wrong(n, "a number is expected here")
		}
		v.SetFloat(f)
	case reflect.Bool:
		if b, ok := n.(*ast.BoolNode); ok {
			v.SetBool(b.Value)
			return
		}
		r.wrong(n, "true or false is expected here")
	default:
		panic("config: no rule for " + v.Type().String())
	}
}

func float(n ast.Node) (float64, bool) {
	switch number := n.(type) {
	case *ast.FloatNode:
		return number.Value, true
	case *ast.IntegerNode:
		f, err := strconv.ParseFloat(number.GetToken().Value, 64)
		return f, err == nil
	}
	return 0, false
}

func (r *reader) text(n ast.Node, v reflect.Value) {
	s, ok := scalar(n)
	if !ok {
		r.wrong(n, "a single value is expected here")
		return
	}
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s)); err != nil {
		r.wrong(n, err.Error())
	}
}

// shortFor names the field of a type that may be written in place of the whole.
var shortFor = map[reflect.Type]string{
	reflect.TypeFor[fleetscore.QueryConfig]():  "SQL",
	reflect.TypeFor[fleetscore.HubRetention](): "Age",
}

func (r *reader) structure(n ast.Node, v reflect.Value) {
	if name, ok := shortFor[v.Type()]; ok {
		if _, single := scalar(n); single {
			r.value(n, v.FieldByName(name))
			return
		}
	}
	fields := map[string]int{}
	var names []string
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		fields[name] = i
		names = append(names, name)
	}
	r.entries(n, func(key string, value ast.Node, line int) {
		i, ok := fields[key]
		if !ok {
			r.problemf(line, "%s: unknown key%s", r.place(), suggest(key, names))
			return
		}
		r.value(value, v.Field(i))
	})
}

func (r *reader) mapping(n ast.Node, v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	r.entries(n, func(key string, value ast.Node, line int) {
		e := reflect.New(v.Type().Elem()).Elem()
		if _, null := value.(*ast.NullNode); null {
			r.problemf(line, "%s: the key has no content", r.place())
		}
		r.value(value, e)
		v.SetMapIndex(reflect.ValueOf(key), e)
	})
}

// entries calls f for each entry of a mapping, with r.path extended by its key.
func (r *reader) entries(n ast.Node, f func(key string, value ast.Node, line int)) {
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	default:
		r.wrong(n, "a mapping (key: value) is expected here")
		return
	}
	seen := make(map[string]bool, len(values))
	for _, e := range values {
		key, ok := scalar(e.Key)
		line := e.Key.GetToken().Position.Line
		if !ok {
			r.problemf(line, "a plain key is expected here")
			continue
		}
		if seen[key] {
			r.problemf(line, "%s: the key is there twice", shown(key))
			continue
		}
		seen[key] = true
		r.path = append(r.path, key)
		r.lines[strings.Join(r.path, ".")] = line
		f(key, e.Value, line)
		r.path = r.path[:len(r.path)-1]
	}
}

func (r *reader) list(n ast.Node, v reflect.Value) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		r.wrong(n, "a list ([a, b]) is expected here")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values)))
	path := strings.Join(r.path, ".")
	for i, e := range seq.Values {
		r.lines[path+"."+strconv.Itoa(i+1)] = e.GetToken().Position.Line
		r.value(e, v.Index(i))
	}
}

// numbers reads a number or a list of them; each may be in quotes.
func (r *reader) numbers(n ast.Node, into *fleetscore.OneOrMore[int]) {
	nodes := []ast.Node{n}
	if seq, ok := n.(*ast.SequenceNode); ok {
		nodes = seq.Values
	}
	for _, e := range nodes {
		text, _ := scalar(e)
		i, err := strconv.Atoi(text)
		if err != nil {
			r.wrong(e, "whole numbers are expected here")
			continue
		}
		*into = append(*into, i)
	}
}

func (r *reader) wrong(n ast.Node, text string) {
	r.problemf(n.GetToken().Position.Line, "%s: %s", r.place(), text)
}

// scalar returns the text of a scalar as it is written, so that a number or boolean
// can stand for a text, as in "model: 1".
func scalar(n ast.Node) (string, bool) {
	switch s := n.(type) {
	case *ast.StringNode:
		return s.Value, true
	case *ast.LiteralNode:
		return s.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// suggest names the known key that is most similar to a mistyped one, or all known
// keys.
func suggest(key string, names []string) string {
	if best := fleetscore.Nearest(key, names); best != "" {
		return fmt.Sprintf("; did you mean %s?", best)
	}
	return "; known here: " + strings.Join(names, ", ")
}
