package estimator

import (
	"sync"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

// Misfit is the error of files that no fitted estimator was written to.
func Misfit(format string, args ...any) *fleetscore.Error {
	return refusal.New(refusal.Damaged, format, args...).
		WithHint("%s", changed)
}

const changed = "the file is damaged or was changed by hand; write the fitted model again with pickle.dump"

// Builder makes estimators from a parsed file.
type Builder struct {
	Graph *pickle.Graph
	Steps []Step   // every estimator that Build made, in order
	Aged  []string // why the newest scikit-learn can't use the file
	// Names are feature_names_in_ of the model, where it was fitted with names. Those
	// of a later step may be names that an earlier step made up.
	Names   []string
	decided bool // whether there are Names
	// Looked, if it is set, is told each attribute that is asked for; tests find out so
	// what is never looked at.
	Looked func(class, name string)

	classes  func(id int) *Class
	attrs    []pickle.Attribute // of the estimators being built
	names    []string           // of attributes, where the file has them escaped
	frames   []*Attributes      // one for each depth, used again
	same     alike
	versions []string
	latest   release   // that was named last, by this file or one before
	copies   [8]string // names that were copied lately, from this file or others
	copied   int
	depth    int
	hidden   int // above 0: parts of an ensemble, which are no steps
}

// alike is what the objects of a class that were read last have in common.
type alike struct {
	class string
	names *nameSet           // that the class may have
	list  []pickle.Attribute // whose names were found to be among them
}

// builders are used again for their memory, which holds no part of a file.
var builders = sync.Pool{New: func() any { return &Builder{attrs: make([]pickle.Attribute, 0, 128)} }}

// Release gives the builder's memory back for the next one.
func (b *Builder) Release() {
	for _, f := range b.frames {
		*f = Attributes{}
	}
	*b = Builder{attrs: b.attrs[:0], frames: b.frames, same: alike{list: b.same.list[:0]}, latest: b.latest, copies: b.copies, copied: b.copied}
	if cap(b.attrs) <= 1024 {
		builders.Put(b)
	}
}

// frame gives the attributes of an estimator that is being built.
func (b *Builder) frame() *Attributes {
	for len(b.frames) < b.depth {
		b.frames = append(b.frames, new(Attributes))
	}
	return b.frames[b.depth-1]
}

// Class is a supported class.
type Class struct {
	Name string
	// Read makes the estimator from its attributes. What is wrong is noted in
	// them; the result then means nothing.
	Read func(a *Attributes) Estimator
}

// Step is what the file says of an estimator.
type Step struct {
	Name    string // its path in the pipeline, such as "prepare__scaler"
	Version string // the release that wrote it
	Est     Estimator
}

// NewBuilder starts on a file. classes finds one by its number in the file's
// list of names. The caller gives the builder back with Release; what it took
// from its fields before stays.
func NewBuilder(g *pickle.Graph, classes func(id int) *Class) *Builder {
	b := builders.Get().(*Builder)
	b.Graph, b.classes, b.Steps = g, classes, make([]Step, 0, 3)
	return b
}

// Versions are the releases that the file names, each once.
func (b *Builder) Versions() []string { return b.versions }

const (
	maxNested = 12
	// partBytes is what an estimator is charged for, besides its numbers.
	partBytes = 256
	// nestedBytes is what an object that is no estimator is charged for.
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
			WithHint("pickle.dump the fitted estimator itself")
	}
	c := b.classes(class.ID)
	if class.Retired {
		b.age("module " + class.Module + " is gone")
	}
	if state.Kind() != pickle.KindDict {
		return nil, Misfit("%s has no attributes", at(c.Name, name))
	}
	if b.depth++; b.depth > maxNested {
		return nil, Misfit("estimators are nested more than %d deep", maxNested)
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
			err = Misfit("%s: n_features_in_ is %d, but it takes %d features", at(c.Name, name), a.features, n)
		}
	}
	if b.hidden == 0 && (c.Name != "FunctionTransformer" || a.AtLeast(1, 1)) {
		b.decided = true // the first estimator that ends being read is the one that sees the model's columns; early FunctionTransformers pass names on
	}
	if a.instead && err == nil { // the step that stands for it came after
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

// at names an estimator in messages.
func at(class, name string) string {
	if name == "" {
		return class
	}
	return class + " (step \"" + name + "\")"
}
