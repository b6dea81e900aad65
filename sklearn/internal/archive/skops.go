package archive

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/fleetscore/fleetscore"
)

// IsZip reports whether a file is a zip archive, as skops writes.
func IsZip(data []byte) bool { return bytes.HasPrefix(data, []byte("PK\x03\x04")) }

// Skops writes a file of skops anew as a pickle of protocol 4: schema.json
// describes the same objects, and arrays lie beside it in NumPy's format. So one
// reader, with one list of what may stand in a file, serves all formats.
func Skops(data []byte) ([]byte, error) {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, damaged("zip", err)
	}
	s := skops{files: map[string]*zip.File{}, memo: map[json.Number]int{}, left: limit(data), data: data}
	for _, f := range z.File {
		s.files[f.Name] = f
	}
	schema, err := s.read("schema.json")
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "the zip archive is none of skops: %w", err).
			WithHint("write the model with skops.io.dump, pickle.dump or joblib.dump")
	}
	var root node
	if err := json.Unmarshal(schema, &root); err != nil {
		return nil, damagedSkops(err)
	}
	s.out = append(s.out, 0x80, 4)
	if err := s.write(&root, 0); err != nil {
		return nil, damagedSkops(err)
	}
	return append(s.out, '.'), nil
}

func damagedSkops(err error) error {
	if fleetscore.Invalid.Is(err) {
		return err
	}
	return fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "the skops file can't be read: %w", err).
		WithHint("write the model again with skops.io.dump")
}

// node is one object of schema.json.
type node struct {
	Class   string          `json:"__class__"`
	Module  string          `json:"__module__"`
	Loader  string          `json:"__loader__"`
	ID      json.Number     `json:"__id__"`
	Content json.RawMessage `json:"content"`
	Type    string          `json:"type"`
	File    string          `json:"file"`
	Shape   *node           `json:"shape"`
	Reduce  *struct {
		Args *node `json:"args"`
	} `json:"__reduce__"`
}

type skops struct {
	files map[string]*zip.File
	data  []byte
	left  int64 // bytes that may still be unpacked
	out   []byte
	memo  map[json.Number]int
}

const maxDepth = 100 // of objects in objects

func (s *skops) read(name string) ([]byte, error) {
	f := s.files[name]
	if f == nil {
		return nil, fmt.Errorf("%q is missing", name)
	}
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, s.left+1))
	if s.left -= int64(len(b)); s.left < 0 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "the contents of %d bytes are larger than the limit of %d", len(s.data), limit(s.data)).
			WithHint("no trained model is so regular; if it is one, write it uncompressed")
	}
	return b, err
}

// write appends the opcodes of an object.
func (s *skops) write(n *node, depth int) error {
	if n == nil || depth > maxDepth {
		return errors.New("an object is missing or nested too deep")
	}
	if err := s.body(n, depth); err != nil {
		return err
	}
	if n.ID != "" && n.Loader != "JsonNode" && n.Loader != "CachedNode" {
		at, ok := s.memo[n.ID]
		if !ok {
			at = len(s.memo)
			s.memo[n.ID] = at
		}
		s.out = binary.LittleEndian.AppendUint32(append(s.out, 'r'), uint32(at))
	}
	return nil
}

func (s *skops) body(n *node, depth int) error {
	switch n.Loader {
	case "JsonNode":
		return s.leaf(n.Content)
	case "DictNode":
		return s.dict(n.Content, depth)
	case "ListNode", "SetNode":
		s.out = append(s.out, ']', '(')
		return s.items(n.Content, depth, 'e')
	case "TupleNode":
		s.out = append(s.out, '(')
		return s.items(n.Content, depth, 't')
	case "ObjectNode":
		s.global(n.Module, n.Class)
		s.out = append(s.out, ')', 0x81)
		return s.state(n.Content, depth)
	case "NdArrayNode":
		return s.array(n, depth)
	case "FunctionNode", "TypeNode":
		s.global(n.Module, n.Class)
		return nil
	case "SliceNode":
		return s.slice(n, depth)
	case "CachedNode":
		at, ok := s.memo[n.ID]
		if !ok {
			return errors.New("an object refers to one that isn't there")
		}
		s.out = binary.LittleEndian.AppendUint32(append(s.out, 'j'), uint32(at))
		return nil
	case "RandomStateNode", "RandomGeneratorNode", "DTypeNode", "BytesNode", "BytearrayNode", "MaskedArrayNode", "MethodNode", "PartialNode", "OperatorFuncNode":
		s.out = append(s.out, 'N') // nothing that scores are made of
		return nil
	case "DefaultDictNode":
		var c struct{ Main *node }
		if err := json.Unmarshal(n.Content, &c); err != nil {
			return err
		}
		return s.write(c.Main, depth+1)
	case "SparseMatrixNode":
		return fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "%s.%s is not supported", n.Module, n.Class).
			WithHint("the model was fitted on sparse data; fit it on a dense array, such as X.toarray()")
	}
	if n.Reduce == nil {
		return fmt.Errorf("%s.%s is written as %q, which isn't known", n.Module, n.Class, n.Loader)
	}
	s.global(n.Module, n.Class)
	if err := s.write(n.Reduce.Args, depth+1); err != nil {
		return err
	}
	s.out = append(s.out, 'R')
	return s.state(n.Content, depth)
}

// state gives the object before it its attributes, if it has some.
func (s *skops) state(content json.RawMessage, depth int) error {
	if len(content) == 0 || string(content) == "null" {
		return nil
	}
	var c node
	if err := json.Unmarshal(content, &c); err != nil {
		return err
	}
	if err := s.write(&c, depth+1); err != nil {
		return err
	}
	s.out = append(s.out, 'b')
	return nil
}

func (s *skops) global(module, name string) {
	s.text(module)
	s.text(name)
	s.out = append(s.out, 0x93)
}

func (s *skops) text(t string) {
	s.out = append(binary.LittleEndian.AppendUint32(append(s.out, 'X'), uint32(len(t))), t...)
}

func (s *skops) int(n int) {
	s.out = binary.LittleEndian.AppendUint32(append(s.out, 'J'), uint32(int32(n)))
}

// leaf is a value that is JSON within a JSON string.
func (s *skops) leaf(content json.RawMessage) error {
	var inner string
	if err := json.Unmarshal(content, &inner); err != nil {
		return err
	}
	switch inner {
	case "null":
		s.out = append(s.out, 'N')
		return nil
	case "true":
		s.out = append(s.out, 0x88)
		return nil
	case "false":
		s.out = append(s.out, 0x89)
		return nil
	case "NaN", "Infinity", "-Infinity": // as Python writes them
		f, _ := strconv.ParseFloat(inner, 64)
		s.float(f)
		return nil
	}
	if inner != "" && inner[0] == '"' {
		var t string
		if err := json.Unmarshal([]byte(inner), &t); err != nil {
			return err
		}
		s.text(t)
		return nil
	}
	if i, err := strconv.ParseInt(inner, 10, 64); err == nil {
		s.out = binary.LittleEndian.AppendUint64(append(s.out, 0x8a, 8), uint64(i))
		return nil
	}
	f, err := strconv.ParseFloat(inner, 64)
	if err != nil {
		return fmt.Errorf("%.40q is no value", inner)
	}
	s.float(f)
	return nil
}

func (s *skops) float(f float64) {
	s.out = binary.BigEndian.AppendUint64(append(s.out, 'G'), math.Float64bits(f))
}

func (s *skops) dict(content json.RawMessage, depth int) error {
	var c map[string]*node
	if err := json.Unmarshal(content, &c); err != nil {
		return err
	}
	s.out = append(s.out, '}', '(')
	for _, key := range slices.Sorted(maps.Keys(c)) {
		s.text(key)
		if err := s.write(c[key], depth+1); err != nil {
			return err
		}
	}
	s.out = append(s.out, 'u')
	return nil
}

func (s *skops) items(content json.RawMessage, depth int, end byte) error {
	var c []*node
	if err := json.Unmarshal(content, &c); err != nil {
		return err
	}
	for _, n := range c {
		if err := s.write(n, depth+1); err != nil {
			return err
		}
	}
	s.out = append(s.out, end)
	return nil
}

func (s *skops) slice(n *node, depth int) error {
	var c struct{ Start, Stop, Step json.RawMessage }
	if err := json.Unmarshal(n.Content, &c); err != nil {
		return err
	}
	s.global("builtins", "slice")
	s.out = append(s.out, '(')
	for _, v := range []json.RawMessage{c.Start, c.Stop, c.Step} {
		var inner node
		if err := json.Unmarshal(v, &inner); err == nil && inner.Loader != "" {
			if err := s.write(&inner, depth+1); err != nil {
				return err
			}
			continue
		}
		quoted, err := json.Marshal(string(v)) // a plain value
		if err != nil {
			return err
		}
		if err := s.leaf(quoted); err != nil {
			return err
		}
	}
	s.out = append(s.out, 't', 'R')
	return nil
}

// array writes what ndarray.__reduce__ gives, or, of an array without
// dimensions, what a NumPy number gives.
func (s *skops) array(n *node, depth int) error {
	if n.Type == "json" {
		return s.objects(n, depth)
	}
	b, err := s.read(n.File)
	if err != nil {
		return err
	}
	a, err := parseNpy(b)
	if err != nil {
		return err
	}
	if len(a.shape) == 0 {
		s.global("numpy.core.multiarray", "scalar")
		s.dtype(&a)
		s.bytes(a.data)
		s.out = append(s.out, 0x86, 'R')
		return nil
	}
	s.reconstruct()
	s.out = append(s.out, '(', 'K', 1, '(')
	for _, d := range a.shape {
		s.int(d)
	}
	s.out = append(s.out, 't')
	s.dtype(&a)
	if a.fortran {
		s.out = append(s.out, 0x88)
	} else {
		s.out = append(s.out, 0x89)
	}
	s.bytes(a.data)
	s.out = append(s.out, 't', 'b')
	return nil
}

func (s *skops) reconstruct() {
	s.global("numpy.core.multiarray", "_reconstruct")
	s.global("numpy", "ndarray")
	s.out = append(s.out, 'K', 0, 0x85, 'C', 1, 'b', 0x87, 'R')
}

func (s *skops) bytes(b []byte) {
	s.out = append(binary.LittleEndian.AppendUint64(append(s.out, 0x8e), uint64(len(b))), b...)
}

// dtype writes numpy.dtype(…) and its state: version, order, subtype, names,
// fields, size, alignment, flags.
func (s *skops) dtype(a *npy) {
	if a.fields == nil {
		s.plainType(a.descr)
		return
	}
	s.global("numpy", "dtype")
	s.text("V" + strconv.Itoa(a.size))
	s.out = append(s.out, 0x89, 0x88, 0x87, 'R', '(', 'K', 3)
	s.text("|")
	s.out = append(s.out, 'N', '(')
	for _, f := range a.fields {
		s.text(f.name)
	}
	s.out = append(s.out, 't', '}', '(')
	for _, f := range a.fields {
		s.text(f.name)
		s.plainType(f.descr)
		s.int(f.offset)
		s.out = append(s.out, 0x86)
	}
	s.out = append(s.out, 'u')
	s.int(a.size)
	s.out = append(s.out, 'K', 1, 'K', 0, 't', 'b')
}

func (s *skops) plainType(descr string) {
	s.global("numpy", "dtype")
	s.text(descr)
	s.out = append(s.out, 0x85, 'R')
}

// objects writes an array of Python objects, whose nested lists become one.
func (s *skops) objects(n *node, depth int) error {
	var dims []*node
	if n.Shape == nil {
		return errors.New("an array has no shape")
	}
	if err := json.Unmarshal(n.Shape.Content, &dims); err != nil {
		return err
	}
	s.reconstruct()
	s.out = append(s.out, '(', 'K', 1)
	if err := s.write(n.Shape, depth+1); err != nil {
		return err
	}
	s.plainType("O8")
	s.out = append(s.out, 0x89, ']', '(')
	if err := s.flatten(n.Content, len(dims), depth); err != nil {
		return err
	}
	s.out = append(s.out, 'e', 't', 'b')
	return nil
}

func (s *skops) flatten(content json.RawMessage, dims, depth int) error {
	var items []*node
	if err := json.Unmarshal(content, &items); err != nil {
		return err
	}
	for _, it := range items {
		var err error
		if it != nil && dims > 1 && it.Loader == "ListNode" {
			err = s.flatten(it.Content, dims-1, depth+1)
		} else {
			err = s.write(it, depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
