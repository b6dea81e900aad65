package estimator

import (
	"slices"
	"strconv"
	"strings"

	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// tag makes a number of a name's first 8 bytes and its length. Most different names
// have different tags, so comparing tags is a fast first comparison.
func tag[T []byte | string](name T) uint64 {
	n := len(name)
	if n >= 8 {
		return (uint64(name[0]) | uint64(name[1])<<8 | uint64(name[2])<<16 | uint64(name[3])<<24 |
			uint64(name[4])<<32 | uint64(name[5])<<40 | uint64(name[6])<<48 | uint64(name[7])<<56) + uint64(n)<<56
	}
	h := uint64(n) << 56
	for i := range n {
		h |= uint64(name[i]) << (8 * i)
	}
	return h
}

// Attributes holds the attributes of one estimator. Its getters keep the first error
// and return harmless values after it, so the caller checks Err only once.
type Attributes struct {
	Class, Name string
	self        pickle.Value // the estimator
	b           *Builder
	list        []pickle.Attribute
	kept        *pickle.Kept // the kept state that the list belongs to; nil if the file's shape is new
	asked       int          // how many attributes were read
	version     string
	major       int
	minor       int
	patch       int
	features    int
	instead     bool
	of          string // the class of the object that has the attributes; Class is the estimator's class
	unknown     string // the first attribute that the class has in no release
	err         error
}

// read collects the attributes of an object of a class.
func (a *Attributes) read(class string, state pickle.Value) error {
	b, g := a.b, a.b.Graph
	a.of = class
	if a.kept = g.Known(state); a.kept != nil {
		a.list = a.kept.List
		return nil
	}
	n := g.Count(state)
	if err := g.Spend(64 * n); err != nil { // each getter may search all names
		return err
	}
	if n += len(b.attrs); n > cap(b.attrs) {
		if err := g.Charge(2 * 16 * n); err != nil {
			return err
		}
		b.attrs = slices.Grow(b.attrs, 2*n-len(b.attrs))
	}
	if b.same.class != class {
		b.same.class, b.same.list, b.same.names = class, b.same.list[:0], known()[class]
	}
	first, escaped := len(b.attrs), false
	for e, i := g.Entries(state), 0; ; i++ {
		k, v, ok := e.KeyValue()
		if !ok {
			break
		}
		if i < len(b.same.list) && b.same.list[i].Key == k { // most trees of a forest have the same list
			b.attrs = append(b.attrs, pickle.Attribute{Tag: b.same.list[i].Tag, Key: k, Value: v})
			continue
		}
		name, ok := g.Text(k)
		if !ok {
			return Misfit("%s has an attribute whose name isn't a string", at(a.Class, a.Name))
		}
		t := tag(name)
		if a.unknown == "" && !b.same.names.has(t, name) {
			a.unknown = string(name)
		}
		if g.Escaped(k) { // the next call overwrites the name
			if err := g.Charge(len(name) + 24); err != nil {
				return err
			}
			b.names = append(b.names, string(name))
			k, escaped = pickle.Value(len(b.names)), true
		}
		b.attrs = append(b.attrs, pickle.Attribute{Tag: t, Key: k, Value: v})
	}
	if a.list = b.attrs[first:]; escaped || a.unknown != "" {
		return nil
	}
	b.same.list = append(b.same.list[:0], a.list...)
	g.Keep(state, a.list)
	return nil
}

// called reports whether an attribute has that name. The name is in the file or, if the
// protocol escapes it, in names at index Key − 1.
func (b *Builder) called(e *pickle.Attribute, name string) bool {
	if i := int(e.Key) - 1; e.Key.Kind() == pickle.KindUnset {
		return b.names[i] == name
	}
	t, _ := b.Graph.Text(e.Key)
	return string(t) == name
}

// Copy copies a name. A name that was copied before isn't copied again.
func (a *Attributes) Copy(name []byte) string {
	b := a.b
	for _, s := range b.copies {
		if s == string(name) {
			return s
		}
	}
	s := strings.ToValidUTF8(string(name), "?")
	if len(s) <= 32 {
		b.copies[b.copied%len(b.copies)] = s
		b.copied++
	}
	return s
}

// release is a release of scikit-learn.
type release struct {
	version             string
	major, minor, patch int
}

func releaseOf(version []byte) release {
	r := release{version: pickle.Clean(version)}
	major, rest, _ := strings.Cut(r.version, ".")
	minor, rest, _ := strings.Cut(rest, ".")
	patch, _, _ := strings.Cut(rest, ".") // "1.post1" of "1.4.1.post1"
	r.major, _ = strconv.Atoi(major)
	r.minor, _ = strconv.Atoi(minor)
	r.patch, _ = strconv.Atoi(patch)
	return r
}

// release reads the attributes that all estimators have.
func (a *Attributes) release() {
	if v := a.Value("_sklearn_version"); v != 0 {
		t, _ := a.b.Graph.Text(v)
		for _, s := range a.b.versions {
			if string(t) == s {
				a.version = s
			}
		}
		r := &a.b.latest // most files of a fleet name the same release
		if r.version != string(t) {
			*r = releaseOf(t)
		}
		const enough = 16
		if a.version == "" && len(t) > 0 {
			a.version = r.version
			if len(a.b.versions) < enough {
				a.b.versions = append(a.b.versions, a.version)
			}
		}
		a.major, a.minor, a.patch = r.major, r.minor, r.patch
	}
	for _, name := range [...]string{"n_features_in_", "n_features_"} {
		if v := a.Value(name); v != 0 && a.features == 0 {
			n, ok := a.b.Graph.Number(v)
			if !ok {
				continue // a method or property of another release
			}
			if n < 1 || n != float64(int(n)) || n > MaxFeatures {
				a.Fail("%s is %v", name, n)
				return
			}
			a.features = int(n)
		}
	}
	if v := a.Value("feature_names_in_"); v != 0 && !a.b.decided && a.b.hidden == 0 {
		a.FittedWith(a.Strings("feature_names_in_"))
	}
}

// FittedWith records the names of the columns that the estimator was fitted with. They
// become the model's names, unless an earlier estimator gets the rows first.
func (a *Attributes) FittedWith(names []string) {
	if !a.b.decided && a.b.hidden == 0 {
		a.b.Names, a.b.decided = names, true
	}
}

// AtLeast reports whether the file says that this release of scikit-learn or a newer
// one wrote the model.
func (a *Attributes) AtLeast(major, minor int) bool {
	return a.major > major || (a.major == major && a.minor >= minor)
}

// AtLeastPatch is AtLeast for a release of three numbers.
func (a *Attributes) AtLeastPatch(major, minor, patch int) bool {
	return a.AtLeast(major, minor) && (a.patch >= patch || a.AtLeast(major, minor+1))
}

// Features returns n_features_in_ or another attribute with the number of columns, or 0
// if there is none.
func (a *Attributes) Features() int { return a.features }

// Aged records why the newest scikit-learn can't use the estimator.
func (a *Attributes) Aged(why string) { a.b.age(why) }

// Graph returns the parsed file.
func (a *Attributes) Graph() *pickle.Graph { return a.b.Graph }

// Value returns an attribute, or 0 if there is no attribute of that name.
func (a *Attributes) Value(name string) pickle.Value {
	if a.b.Looked != nil {
		a.b.Looked(a.of, name)
	}
	if k := a.kept; k != nil { // the attributes of files with one shape are nearly always read in the same order
		if a.asked < len(k.Asked) {
			if q := &k.Asked[a.asked]; q.Name == name {
				if a.asked++; q.At < 0 {
					return 0
				}
				return a.list[q.At].Value
			}
			a.kept = nil
		} else if at := a.find(name); a.asked < mostAsked {
			k.Asked = append(k.Asked, pickle.Answer{Name: name, At: at})
			a.asked++
		}
	}
	if at := a.find(name); at >= 0 {
		return a.list[at].Value
	}
	return 0
}

// mostAsked bounds how many answers are kept.
const mostAsked = 96

// find returns the index of an attribute, or −1 if there is no attribute of that name.
func (a *Attributes) find(name string) int {
	t := tag(name)
	for i := len(a.list) - 1; i >= 0; i-- { // if a name occurs twice, the last one counts, as in Python
		if e := &a.list[i]; e.Tag == t && a.b.called(e, name) {
			return i
		}
	}
	return -1
}

// Has reports whether an attribute exists and isn't None.
func (a *Attributes) Has(name string) bool {
	v := a.Value(name)
	return v != 0 && v.Kind() != pickle.KindNone
}

// FirstOf returns the first of the names for which an attribute exists, else the last
// name.
func (a *Attributes) FirstOf(names ...string) string {
	for _, n := range names {
		if a.Has(n) {
			return n
		}
	}
	return names[len(names)-1]
}

// Float returns an attribute that must be a finite number.
func (a *Attributes) Float(name string) float64 {
	v := a.Value(name)
	if v == 0 {
		a.missing(name)
		return 0
	}
	f, ok := a.b.Graph.Number(v)
	if !ok {
		f, ok = a.single(v)
	}
	if ok && f-f != 0 {
		a.Fail("%s isn't a finite number: it %w %v", name, pickle.ErrNotFinite, f)
		return 0
	}
	if !ok {
		a.Fail("%s isn't a finite number", name)
		return 0
	}
	return f
}

// single returns the number in an array with one element.
func (a *Attributes) single(v pickle.Value) (float64, bool) {
	if !a.b.Graph.IsArray(v) {
		return 0, false
	}
	arr, err := a.b.Graph.Array(v)
	if err != nil || arr.Size() != 1 {
		return 0, false
	}
	f, err := a.b.Graph.Floats(&arr, true)
	if err != nil {
		return 0, false
	}
	return f[0], true
}

// FloatOr returns an attribute that must be a finite number, or other if the attribute
// is missing or None.
func (a *Attributes) FloatOr(name string, other float64) float64 {
	if !a.Has(name) {
		return other
	}
	return a.Float(name)
}

// Int returns an attribute that must be a whole number from low to high.
func (a *Attributes) Int(name string, low, high int) int {
	f := a.Float(name)
	if a.err == nil && (f != float64(int(f)) || f < float64(low) || f > float64(high)) {
		a.Fail("%s is %v, not a whole number from %d to %d", name, f, low, high)
	}
	if a.err != nil {
		return low
	}
	return int(f)
}

// Bool returns an attribute that must be a truth value, or other if the attribute is
// missing.
func (a *Attributes) Bool(name string, other bool) bool {
	v := a.Value(name)
	if v == 0 {
		return other
	}
	b, ok := a.b.Graph.Boolean(v)
	if !ok {
		a.Fail("%s is neither True nor False", name)
	}
	return b
}

// Text returns an attribute that is a string, or other if the attribute is missing. For
// any other value it returns a description of the value.
func (a *Attributes) Text(name, other string) string {
	v := a.Value(name)
	if v == 0 {
		return other
	}
	t, ok := a.b.Graph.Text(v)
	if !ok {
		return a.b.Graph.Describe(v)
	}
	if string(t) == other {
		return other
	}
	return pickle.Clean(t)
}

// Strings returns an attribute that must be an array or a list of strings.
func (a *Attributes) Strings(name string) []string {
	g := a.b.Graph
	v := a.Value(name)
	if v == 0 {
		a.missing(name)
		return nil
	}
	out, err := g.StringList(v)
	if err != nil {
		a.Fail("%s %w", name, err)
	}
	return out
}

// Array returns an attribute that must be an array of numbers, row after row, with as
// many dimensions as shape. A dimension above −1 in shape must have exactly that size.
func (a *Attributes) Array(name string, finite bool, shape ...int) ([]float64, [8]int) {
	v := a.Value(name)
	if v == 0 || v.Kind() == pickle.KindNone {
		a.missing(name)
		return nil, [8]int{}
	}
	return a.ArrayOf(v, name, finite, shape...)
}

// ArrayOf is Array for a value that isn't an attribute.
func (a *Attributes) ArrayOf(v pickle.Value, name string, finite bool, shape ...int) ([]float64, [8]int) {
	if a.err != nil {
		return nil, [8]int{}
	}
	arr, err := a.b.Graph.Array(v)
	if err != nil {
		a.Fail("%s %w", name, err)
		return nil, [8]int{}
	}
	if arr.Dims != len(shape) {
		a.Fail("%s has %d dimensions instead of %d", name, arr.Dims, len(shape))
		return nil, [8]int{}
	}
	for i, n := range shape {
		if n >= 0 && arr.Shape[i] != n {
			shape := arr.Shape // a copy, so that the array itself isn't allocated in the usual case
			a.Fail("%s has the shape %v, but dimension %d should be %d", name, shape[:arr.Dims], i, n)
			return nil, [8]int{}
		}
	}
	f, err := a.b.Graph.Floats(&arr, finite)
	if err != nil {
		a.Fail("%s %w", name, err)
		return nil, [8]int{}
	}
	if len(f) == 0 {
		a.Fail("%s is empty", name)
	}
	return f, arr.Shape
}

// Vector returns a one-dimensional array of n finite numbers, or of any length if n is
// −1.
func (a *Attributes) Vector(name string, n int) []float64 {
	f, _ := a.Array(name, true, n)
	return f
}

// Matrix returns a two-dimensional array of finite numbers.
func (a *Attributes) Matrix(name string, rows, cols int) (m []float64, gotRows, gotCols int) {
	f, shape := a.Array(name, true, rows, cols)
	return f, shape[0], shape[1]
}

// PerFeature returns a vector with a number for each column. If the number of columns
// wasn't known, the vector's length sets it.
func (a *Attributes) PerFeature(name string) []float64 {
	n := -1
	if a.features > 0 {
		n = a.features
	}
	f := a.Vector(name, n)
	if a.err == nil {
		a.features = len(f)
	}
	return f
}

// Count returns the number of elements of an array, or 0 if the attribute isn't an
// array.
func (a *Attributes) Count(name string) int {
	v := a.Value(name)
	if v == 0 || !a.b.Graph.IsArray(v) {
		return 0
	}
	arr, err := a.b.Graph.Array(v)
	if err != nil {
		return 0
	}
	return arr.Size()
}

// Single reports whether an attribute is an array of float32.
func (a *Attributes) Single(name string) bool {
	v := a.Value(name)
	if v == 0 || !a.b.Graph.IsArray(v) {
		return false
	}
	arr, err := a.b.Graph.Array(v)
	kind, size := arr.Type()
	return err == nil && kind == 'f' && size == 4
}

// Dims returns the number of dimensions of an array, or −1 if the attribute isn't an
// array.
func (a *Attributes) Dims(name string) int {
	v := a.Value(name)
	if v == 0 || !a.b.Graph.IsArray(v) {
		return -1
	}
	arr, err := a.b.Graph.Array(v)
	if err != nil {
		return -1
	}
	return arr.Dims
}

// Labels returns classes_, for a classifier with one output.
func (a *Attributes) Labels(name string) Labels {
	v := a.Value(name)
	if v == 0 {
		a.missing(name)
		return Labels{}
	}
	return a.LabelsOf(v, name)
}

// LabelsOf is Labels for a value that isn't an attribute.
func (a *Attributes) LabelsOf(v pickle.Value, name string) Labels {
	g := a.b.Graph
	if !g.IsArray(v) {
		a.Unsupported(name+" of several outputs", "train one classifier per output")
		return Labels{}
	}
	arr, err := g.Array(v)
	if err == nil && arr.Dims == 1 && arr.Size() > 0 {
		if l, err := g.Floats(&arr, true); err == nil {
			return Labels{Values: l}
		}
		texts, err := g.Strings(&arr)
		if err == nil {
			if err := g.Charge(8 * len(texts)); err != nil {
				a.Fail("%w", err)
				return Labels{}
			}
			l := Labels{Texts: texts, Values: make([]float64, len(texts))}
			for i := range l.Values {
				l.Values[i] = float64(i)
			}
			return l
		}
	}
	a.Fail("%s isn't an array of numbers or strings", name)
	return Labels{}
}

// Child makes the estimator in an attribute, as a step of that name.
func (a *Attributes) Child(name string) Estimator {
	v := a.Value(name)
	if v == 0 || v.Kind() == pickle.KindNone {
		a.missing(name)
		return nil
	}
	return a.ChildOf(v, name)
}

// ChildOf is Child for a value that isn't an attribute.
func (a *Attributes) ChildOf(v pickle.Value, name string) Estimator {
	if a.err != nil {
		return nil
	}
	if a.Name != "" && name != "" {
		name = a.Name + "__" + name
	}
	e, err := a.b.Build(v, name)
	if err != nil {
		a.err = err
		return nil
	}
	return e
}

// Instead makes the estimator in an attribute, which replaces this estimator.
func (a *Attributes) Instead(name string) Estimator {
	v := a.Value(name)
	if v == 0 {
		a.missing(name)
		return nil
	}
	a.instead = true
	e, err := a.b.Build(v, a.Name)
	if a.err == nil {
		a.err = err
	}
	return e
}

// Hidden makes an estimator that isn't shown as a step, such as a tree of a forest.
func (a *Attributes) Hidden(v pickle.Value) Estimator {
	a.b.hidden++
	defer func() { a.b.hidden-- }()
	return a.ChildOf(v, "")
}

// Nested calls read with the attributes of an object that isn't an estimator, or of an
// estimator that its owner reads.
func (a *Attributes) Nested(v pickle.Value, what string, read func(*Attributes)) {
	if a.err != nil {
		return
	}
	class, state := a.b.Graph.Instance(v)
	if class == nil || state.Kind() != pickle.KindDict {
		a.Fail("%s is %s", what, a.b.Graph.Describe(v))
		return
	}
	first := len(a.b.attrs)
	in := Attributes{b: a.b, Class: a.Class, Name: a.Name, major: a.major, minor: a.minor, patch: a.patch}
	room := nestedBytes + 4*a.b.Graph.Count(state)
	if err := a.b.Graph.Charge(room); err != nil {
		a.err = err
		return
	}
	defer a.b.Graph.Refund(room) // the list isn't used afterwards; read has charged everything that is kept
	if err := in.read(class.Name, state); err != nil {
		a.err = err
		return
	}
	read(&in)
	in.judge(class.Name)
	a.b.attrs = a.b.attrs[:first]
	if a.err == nil {
		a.err = in.err
	}
}
