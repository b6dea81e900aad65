package archive

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

// IsZip reports whether a file is a zip archive, such as skops writes.
func IsZip(data []byte) bool { return bytes.HasPrefix(data, []byte("PK\x03\x04")) }

// Skops translates a skops file into a pickle of protocol 4. Its schema.json describes
// the same objects as a pickle, with the arrays in files in NumPy's format. So one
// reader with one list of allowed names reads all formats.
func Skops(data []byte, b *budget.Budget) ([]byte, error) {
	if n := entries(data); n > maxEntries || b.Charge(n*entryBytes) != nil {
		return nil, refusal.New(refusal.TooLarge, "the zip archive has %d entries", n).
			WithHint("trained models have fewer entries; write the model again with skops.io.dump or pickle.dump")
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, damagedZip(data, err)
	}
	s := skops{files: map[string]*zip.File{}, memo: map[string]int{}, left: limit(data, b), data: data, budget: b}
	size := uint64(0)
	for _, f := range z.File {
		s.files[f.Name] = f
		size += min(f.UncompressedSize64, 1<<32)
	}
	s.out = make([]byte, 0, min(size, 4*uint64(len(data)), uint64(s.left)))
	schema, err := s.read("schema.json")
	if err != nil {
		return nil, s.noSkops(err)
	}
	if !json.Valid(schema) {
		return nil, damagedSkops(errJSON)
	}
	s.effort = 64 * (len(schema) + 1<<14)
	root, _ := cut(schema)
	s.out = append(s.out, 0x80, 4)
	if err := s.write(root, 0); err != nil {
		return nil, damagedSkops(err)
	}
	return append(s.out, '.'), nil
}

func damagedSkops(err error) error {
	if of := (*refusal.Refusal)(nil); errors.As(err, &of) {
		return err
	}
	return refusal.New(refusal.Damaged, "the skops file can't be read: %w", err).
		WithHint("write the model again with skops.io.dump")
}

// node is one object of schema.json.
type node struct {
	class, module, loader, id, kind, file string
	content, shape, args                  value
}

// node reads an object's own members, without the objects in them.
func (s *skops) node(v value) (n node, err error) {
	if err := s.budget.Late(); err != nil {
		return n, err
	}
	if s.effort -= len(v); s.effort < 0 {
		return n, errors.New("its objects are nested too deeply")
	}
	err = v.each('{', func(key string, item value) error {
		var to *string
		switch key {
		case "__class__":
			to = &n.class
		case "__module__":
			to = &n.module
		case "__loader__":
			to = &n.loader
		case "type":
			to = &n.kind
		case "file":
			to = &n.file
		case "__id__":
			n.id = string(item)
		case "content":
			n.content = item
		case "shape":
			n.shape = item
		case "__reduce__":
			return item.each('{', func(key string, item value) error {
				if key == "args" {
					n.args = item
				}
				return nil
			})
		}
		if to == nil || item.null() {
			return nil
		}
		*to, err = item.text()
		return err
	})
	return n, err
}

type skops struct {
	budget *budget.Budget
	files  map[string]*zip.File
	data   []byte
	left   int64 // bytes that may still be unpacked
	// effort is how many bytes of JSON may still be read. An object's bytes are read
	// once for each object around it.
	effort int
	out    []byte
	memo   map[string]int
}

const maxDepth = 100 // the nesting of objects

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
	b, err := readAll(r, max(0, s.left), int(min(s.left, int64(min(f.CompressedSize64, 1<<40)))), s.budget)
	if s.left -= int64(len(b)); s.left < 0 {
		return nil, tooLarge(s.data, limit(s.data, s.budget))
	}
	return b, err
}

// write appends the opcodes of an object.
func (s *skops) write(v value, depth int) error {
	if v.null() || depth > maxDepth {
		return errors.New("an object is missing or nested too deeply")
	}
	n, err := s.node(v)
	if err != nil {
		return err
	}
	if err := s.body(&n, depth); err != nil {
		return err
	}
	if n.id != "" && n.loader != "JsonNode" && n.loader != "CachedNode" {
		at, ok := s.memo[n.id]
		if !ok {
			at = len(s.memo)
			s.memo[n.id] = at
		}
		s.out = binary.LittleEndian.AppendUint32(append(s.out, 'r'), uint32(at))
	}
	return nil
}

func (s *skops) body(n *node, depth int) error {
	switch n.loader {
	case "JsonNode":
		text, err := n.content.text()
		if err != nil {
			return err
		}
		return s.leaf(text)
	case "DictNode":
		return s.dict(n.content, depth)
	case "ListNode", "SetNode":
		s.out = append(s.out, ']', '(')
		return s.items(n.content, depth, 'e')
	case "TupleNode":
		s.out = append(s.out, '(')
		return s.items(n.content, depth, 't')
	case "ObjectNode":
		s.global(n.module, n.class)
		s.out = append(s.out, ')', 0x81)
		return s.state(n.content, depth)
	case "NdArrayNode":
		return s.array(n, depth)
	case "FunctionNode", "TypeNode":
		s.global(n.module, n.class)
		return nil
	case "SliceNode":
		return s.slice(n, depth)
	case "CachedNode":
		at, ok := s.memo[n.id]
		if !ok {
			return errors.New("an object refers to an object that isn't in the file")
		}
		s.out = binary.LittleEndian.AppendUint32(append(s.out, 'j'), uint32(at))
		return nil
	case "RandomStateNode", "RandomGeneratorNode", "DTypeNode", "BytesNode", "BytearrayNode", "MaskedArrayNode", "MethodNode", "PartialNode", "OperatorFuncNode":
		s.out = append(s.out, 'N') // scores don't depend on this object
		return nil
	case "DefaultDictNode":
		return n.content.each('{', func(key string, item value) error {
			if key != "main" {
				return nil
			}
			return s.write(item, depth+1)
		})
	case "SparseMatrixNode":
		return refusal.Of(refusal.Refusal{Reason: refusal.Parameter, Class: fmt.Sprintf("%.100s.%.100s", n.module, n.class)}, "%.100s.%.100s is not supported", n.module, n.class).
			WithHint("the model was fitted on sparse data; fit it on a dense array, such as X.toarray()")
	}
	if n.args == nil {
		return fmt.Errorf("%.100s.%.100s is written with the unknown loader %.100q", n.module, n.class, n.loader)
	}
	s.global(n.module, n.class)
	if err := s.write(n.args, depth+1); err != nil {
		return err
	}
	s.out = append(s.out, 'R')
	return s.state(n.content, depth)
}

// state writes the attributes of the object before it, if the object has any.
func (s *skops) state(content value, depth int) error {
	if content.null() {
		return nil
	}
	if err := s.write(content, depth+1); err != nil {
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

// leaf writes a value that is stored as JSON within a JSON string.
func (s *skops) leaf(inner string) error {
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
		return fmt.Errorf("%.40q isn't a value", inner)
	}
	s.float(f)
	return nil
}

func (s *skops) float(f float64) {
	s.out = binary.BigEndian.AppendUint64(append(s.out, 'G'), math.Float64bits(f))
}

func (s *skops) dict(content value, depth int) error {
	s.out = append(s.out, '}', '(')
	err := content.each('{', func(key string, item value) error {
		s.text(key)
		return s.write(item, depth+1)
	})
	s.out = append(s.out, 'u')
	return err
}

func (s *skops) items(content value, depth int, end byte) error {
	err := content.each('[', func(_ string, item value) error { return s.write(item, depth+1) })
	s.out = append(s.out, end)
	return err
}

// slice writes the bounds of a slice, which are objects or plain values.
func (s *skops) slice(n *node, depth int) error {
	bounds := map[string]value{}
	if err := n.content.each('{', func(key string, item value) error {
		bounds[key] = item
		return nil
	}); err != nil {
		return err
	}
	s.global("builtins", "slice")
	s.out = append(s.out, '(')
	for _, key := range [...]string{"start", "stop", "step"} {
		var err error
		if b := bounds[key]; len(b) > 0 && b[0] == '{' {
			err = s.write(b, depth+1)
		} else {
			err = s.leaf(string(b))
		}
		if err != nil {
			return err
		}
	}
	s.out = append(s.out, 't', 'R')
	return nil
}

// array writes what ndarray.__reduce__ returns. For an array without dimensions, it
// writes what a NumPy number returns.
func (s *skops) array(n *node, depth int) error {
	if n.kind == "json" {
		return s.objects(n, depth)
	}
	b, err := s.read(n.file)
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

// objects writes an array of Python objects. Their nested lists become one list.
func (s *skops) objects(n *node, depth int) error {
	if n.shape.null() {
		return errors.New("an array has no shape")
	}
	shape, err := s.node(n.shape)
	if err != nil {
		return err
	}
	dims := 0
	if err := shape.content.each('[', func(string, value) error { dims++; return nil }); err != nil {
		return err
	}
	s.reconstruct()
	s.out = append(s.out, '(', 'K', 1)
	if err := s.write(n.shape, depth+1); err != nil {
		return err
	}
	s.plainType("O8")
	s.out = append(s.out, 0x89, ']', '(')
	if err := s.flatten(n.content, dims, depth); err != nil {
		return err
	}
	s.out = append(s.out, 'e', 't', 'b')
	return nil
}

func (s *skops) flatten(content value, dims, depth int) error {
	if depth > maxDepth {
		return errors.New("an array is nested too deeply")
	}
	return content.each('[', func(_ string, item value) error {
		if dims > 1 && !item.null() {
			n, err := s.node(item)
			if err != nil {
				return err
			}
			if n.loader == "ListNode" {
				return s.flatten(n.content, dims-1, depth+1)
			}
		}
		return s.write(item, depth+1)
	})
}
