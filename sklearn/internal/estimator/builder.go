package estimator

import (
	"sync"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

// Misfit returns the error for a file that can't come from a fitted estimator.
func Misfit(format string, args ...any) *fleetscore.Error {
	return refusal.New(refusal.Damaged, format, args...).
		WithHint("%s", changed)
}

const changed = "the file is damaged or was changed by hand; write the fitted model again with pickle.dump"

// Builder makes estimators from a parsed file.
type Builder struct {
	Graph *pickle.Graph
	Steps []Step   // every estimator that Build made, in order
	Aged  []string // the reasons why the newest scikit-learn can't use the file
	// Names are the model's feature_names_in_, if it was fitted with names. A later
	// step's names may be names that an earlier step made up, so they don't count.
	Names   []string
	decided bool // whether Names is decided
	// Looked, if it isn't nil, is called for each attribute that is read. Tests use it
	// to find attributes that are never read.
	Looked func(class, name string)

	classes  func(id int) *Class
	attrs    []pickle.Attribute // the attributes of the estimators that are being built
	names    []string           // names of attributes that are escaped in the file
	frames   []*Attributes      // one for each depth, for reuse
	same     alike
	versions []string
	latest   release   // the last release that a file named, this file or an earlier one
	copies   [8]string // names that were copied last, from this file or others
	copied   int
	depth    int
	hidden   int // above 0 while parts of an ensemble are built, which aren't steps
}

// alike is what the last objects of a class have in common.
type alike struct {
	class string
	names *nameSet           // the names that the class may have
	list  []pickle.Attribute // the last list whose names are all among them
}

// builders keeps builders for their memory. The memory holds no part of a file.
var builders = sync.Pool{New: func() any { return &Builder{attrs: make([]pickle.Attribute, 0, 128)} }}

// Release keeps the builder's memory for the next builder.
func (b *Builder) Release() {
	for _, f := range b.frames {
		*f = Attributes{}
	}
	*b = Builder{attrs: b.attrs[:0], frames: b.frames, same: alike{list: b.same.list[:0]}, latest: b.latest, copies: b.copies, copied: b.copied}
	if cap(b.attrs) <= 1024 {
		builders.Put(b)
	}
}

// frame returns the attributes for an estimator that is being built.
func (b *Builder) frame() *Attributes {
	for len(b.frames) < b.depth {
		b.frames = append(b.frames, new(Attributes))
	}
	return b.frames[b.depth-1]
}

// Class is a supported class.
type Class struct {
	Name string
	// Read makes the estimator from its attributes. Errors are kept in the attributes;
	// if there is an error, the result isn't valid.
	Read func(a *Attributes) Estimator
}

// Step is a file's description of an estimator.
type Step struct {
	Name    string // its path in the pipeline, such as "prepare__scaler"
	Version string // the release that wrote it
	Est     Estimator
}

// NewBuilder returns a builder for a file. classes returns a class by its number in the
// file's list of names. The caller returns the builder's memory with Release; slices
// that the caller took from the builder's fields stay valid.
func NewBuilder(g *pickle.Graph, classes func(id int) *Class) *Builder {
	b := builders.Get().(*Builder)
	b.Graph, b.classes, b.Steps = g, classes, make([]Step, 0, 3)
	return b
}

// Versions returns the releases that the file names, each once.
func (b *Builder) Versions() []string { return b.versions }

const (
	maxNested = 12
	// partBytes is the memory that is charged for an estimator, besides its numbers.
	partBytes = 256
	// nestedBytes is the memory that is charged for an object that isn't an estimator.
	nestedBytes = 256
)

// Build makes the estimator v.
func (b *Builder) Build(v pickle.Value, name string) (Estimator, error) {
	g := b.Graph
	class, state := g.Instance(v)
	if class == nil || class.Use != pickle.Class {
		where := ""
		if name != "" {
			where = "step \"" + name + "\" "
		}
		if err := g.Foreign(v); err != nil {
			return nil, err
		}
		return nil, refusal.Of(refusal.Refusal{Reason: refusal.NotModel, Step: name}, "%sholds %s instead of a fitted estimator", where, g.Describe(v)).
			WithHint("write the fitted estimator itself with pickle.dump")
	}
	c := b.classes(class.ID)
	if class.Retired {
		b.age("module " + class.Module + " doesn't exist any more")
	}
	if state.Kind() != pickle.KindDict {
		return nil, Misfit("%s has no attributes", at(c.Name, name))
	}
	if b.depth++; b.depth > maxNested {
		return nil, Misfit("estimators are nested more than %d levels deep", maxNested)
	}
	room := 4 * g.Count(state)
	if err := g.Charge(partBytes + len(name) + room); err != nil {
		return nil, err
	}
	defer g.Refund(room)
	a, first := b.frame(), len(b.attrs)
	*a = Attributes{b: b, self: v, Class: c.Name, Name: name}
	if err := a.read(c.Name, state); err != nil {
		return nil, err
	}
	a.release()
	place := len(b.Steps)
	if b.hidden == 0 {
		b.Steps = append(b.Steps, Step{Name: name, Version: a.version})
	}
	est := c.Read(a)
	a.judge(c.Name)
	err := a.err
	if err == nil && est != nil && a.features > 0 && class.Name != "Pipeline" {
		if n := est.Features(); n > 0 && n != a.features {
			err = Misfit("%s: n_features_in_ is %d, but the estimator takes %d features", at(c.Name, name), a.features, n)
		}
	}
	if b.hidden == 0 && (c.Name != "FunctionTransformer" || a.AtLeast(1, 1)) {
		b.decided = true // the first estimator that is read to its end gets the model's own columns; early FunctionTransformers pass names on
	}
	if a.instead && err == nil { // the step that replaces it was added after it
		b.Steps = append(b.Steps[:place], b.Steps[min(place+1, len(b.Steps)):]...)
		b.attrs = b.attrs[:first]
		b.depth--
		return est, nil
	}
	if err == nil {
		err = est.Check()
	}
	b.attrs = b.attrs[:first]
	b.depth--
	if err != nil {
		return nil, err
	}
	if b.hidden == 0 {
		b.Steps[place].Est = est
	}
	return est, nil
}

func (b *Builder) age(why string) {
	for _, w := range b.Aged {
		if w == why {
			return
		}
	}
	if len(b.Aged) < 8 {
		b.Aged = append(b.Aged, why)
	}
}

// at returns an estimator's name for messages.
func at(class, name string) string {
	if name == "" {
		return class
	}
	return class + " (step \"" + name + "\")"
}
