package sklearn

import (
	"bytes"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// estimator is a fitted step, in a form that Info can tell of.
type estimator interface {
	class() string
	parameters() map[string]any
}

// part is an estimator in its place.
type part struct {
	name    string
	version string
	module  string // only where current scikit-learn lacks it
	est     estimator
}

const (
	maxDepth = 32 // of pipelines in pipelines
	// partBytes is what a step is charged for, besides its numbers.
	partBytes = 512
)

// builder turns a parsed graph into a model.
type builder struct {
	g        *graph
	model    *Model
	width    int // columns a row has after the steps so far; 0 while unknown
	features int // columns the model takes; 0 while unknown
}

// build finds the estimators of a graph and checks that they fit together.
func build(g *graph, root value) (*Model, error) {
	b := builder{g: g, model: &Model{protocol: g.protocol}}
	if err := b.add(root, "", 0); err != nil {
		return nil, err
	}
	if b.model.last == nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "the model ends without an estimator that predicts").
			WithHint("save the whole fitted pipeline, with its detector as the last step")
	}
	b.model.features = b.features
	if n := len(b.model.names); n > 0 && n != b.features {
		return nil, misfit("feature_names_in_ has %d names, but the model takes %d features", n, b.features)
	}
	return b.model, nil
}

func misfit(format string, args ...any) *fleetscore.Error {
	return fleetscore.Errorf(fleetscore.Invalid, opLoad, "", format, args...).
		WithHint("the file is damaged or was changed by hand; write the fitted model again with pickle.dump")
}

// add appends an estimator, or all of a pipeline.
func (b *builder) add(v value, name string, depth int) error {
	if depth > maxDepth {
		return misfit("pipelines are nested more than %d deep", maxDepth)
	}
	class, module, state, err := b.estimator(v, name)
	if err != nil {
		return err
	}
	if class == globalPipeline {
		return b.addPipeline(state, name, depth)
	}
	if b.model.last != nil {
		return misfit("%s follows %s, which must be the last step", at(class.class(), name), at(b.model.last.class(), b.model.parts[len(b.model.parts)-1].name))
	}
	if err := b.g.charge(partBytes + len(name)); err != nil {
		return err
	}
	p := part{name: name, module: module}
	switch class {
	case globalStandardScaler:
		s, err := b.scaler(state, &p)
		if err != nil {
			return err
		}
		p.est = s
		b.model.chain = append(b.model.chain, s)
	case globalOneClassSVM:
		s, err := b.oneClass(state, &p)
		if err != nil {
			return err
		}
		p.est = s
		b.model.last = s
	}
	b.model.parts = append(b.model.parts, p)
	return nil
}

// at names an estimator in messages.
func at(class, name string) string {
	if name == "" {
		return class
	}
	return class + " (step \"" + name + "\")"
}

// estimator recognises one of the supported classes, and gives its attributes.
func (b *builder) estimator(v value, name string) (id globalID, module string, state value, err error) {
	g := b.g
	where := ""
	if name != "" {
		where = "step \"" + name + "\" "
	}
	if v.kind() != kindObject {
		return 0, "", 0, fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "%sholds %s instead of a fitted estimator", where, v.kind().noun()).
			WithHint("pickle.dump the fitted estimator itself; supported are %s", supported)
	}
	class := g.object(v, objectCallable)
	switch args := g.tuple(g.object(v, objectArgs)); {
	case g.isGlobal(class, globalReconstructor):
		if len(args) != 3 || !g.isGlobal(args[1], globalObject) || args[2].kind() != kindNone {
			return 0, "", 0, misfit("%sis made in a way that no pickle of a model does", where)
		}
		class = args[0]
	case g.isGlobal(class, globalNewobj) && len(args) == 1:
		class = args[0]
	}
	if class.kind() == kindGlobal {
		id = globals[class.index()].id
		if globals[class.index()].retired {
			module = globals[class.index()].module
		}
	}
	if id.class() == "" {
		return 0, "", 0, fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "%sholds %s instead of a fitted estimator", where, g.describe(v, class)).
			WithHint("pickle.dump the fitted estimator itself; supported are %s", supported)
	}
	state = g.object(v, objectState)
	if state.kind() != kindDict {
		return 0, "", 0, misfit("%s has no attributes", at(id.class(), name))
	}
	// Each visit reads all attributes; pipelines that share a step can't make
	// that many.
	return id, module, state, g.charge(4 * g.count(state))
}

// describe names what stands where an estimator should.
func (g *graph) describe(v, class value) string {
	if class.kind() == kindGlobal {
		return globals[class.index()].module + "." + globals[class.index()].name
	}
	return v.kind().noun()
}

func (k kind) noun() string {
	switch k {
	case kindNone:
		return "None"
	case kindBool, kindInt, kindBig, kindFloat:
		return "a number"
	case kindText:
		return "a string"
	case kindBytes:
		return "bytes"
	case kindGlobal:
		return "a class or function"
	case kindTuple:
		return "a tuple"
	case kindList:
		return "a list"
	case kindDict:
		return "a dict"
	}
	return "an object"
}

// addPipeline appends the steps of a pipeline.
func (b *builder) addPipeline(state value, name string, depth int) error {
	g := b.g
	var list value
	p := part{}
	for e := g.entries(state); ; {
		key, v, ok := e.pair()
		if !ok {
			break
		}
		switch string(key) {
		case "steps":
			list = v
		case "_sklearn_version":
			p.version = b.version(v)
		}
	}
	b.model.addVersion(p.version)
	if (list.kind() != kindList && list.kind() != kindTuple) || g.count(list) == 0 {
		return misfit("%s has no steps", at("Pipeline", name))
	}
	for e := g.entries(list); ; {
		v, ok := e.item()
		if !ok {
			return nil
		}
		if err := b.addStep(v, name, depth); err != nil {
			return err
		}
	}
}

func (b *builder) addStep(v value, pipeline string, depth int) error {
	g := b.g
	items := g.entries(v)
	first, _ := items.item()
	est, ok := items.item()
	t, isText := g.text(first)
	if !ok || !isText || g.count(v) != 2 {
		return misfit("%s has a step that is no pair of name and estimator", at("Pipeline", pipeline))
	}
	if err := g.charge(len(t) + len(pipeline) + 64); err != nil {
		return err
	}
	name := strings.ToValidUTF8(string(t), "?")
	if pipeline != "" {
		name = pipeline + "__" + name
	}
	skip := est.kind() == kindNone
	if t, ok := g.text(est); ok && string(t) == "passthrough" {
		skip = true
	}
	if !skip {
		return b.add(est, name, depth+1)
	}
	if b.model.last != nil {
		return misfit("step %q follows %s, which must be the last step", name, at(b.model.last.class(), b.model.parts[len(b.model.parts)-1].name))
	}
	if err := g.charge(partBytes); err != nil {
		return err
	}
	b.model.parts = append(b.model.parts, part{name: name, est: passthrough{}})
	return nil
}

type passthrough struct{}

func (passthrough) class() string              { return "passthrough" }
func (passthrough) parameters() map[string]any { return map[string]any{} }

// version copies a release such as "0.19.2".
func (b *builder) version(v value) string {
	t, _ := b.g.text(v)
	for _, s := range b.model.versions {
		if string(t) == s {
			return s
		}
	}
	return clean(t)
}

func (m *Model) addVersion(v string) {
	const enough = 16
	if v != "" && len(m.versions) < enough && !slices.Contains(m.versions, v) {
		m.versions = append(m.versions, v)
	}
}

// fits checks a step's number of features against the steps before it, and notes
// the number of columns after it, which is the same for all supported steps.
func (b *builder) fits(class, name string, features int) error {
	if features == 0 {
		return nil
	}
	if b.width != 0 && b.width != features {
		return misfit("%s takes %d features, but the step before it gives %d", at(class, name), features, b.width)
	}
	b.width = features
	if b.features == 0 {
		b.features = features
	}
	return nil
}

// vector reads an attribute that is an array of numbers with those dimensions.
func (b *builder) vector(v value, class, name, attribute string, dims int) ([]float64, [2]int, error) {
	a, err := b.g.array(v)
	if err == nil && a.dims != dims {
		err = fleetscore.Errorf(fleetscore.Invalid, "", "", "has %d dimensions instead of %d", a.dims, dims)
	}
	var f []float64
	if err == nil {
		f, err = b.g.floats(&a)
	}
	if err != nil {
		return nil, a.shape, misfit("%s: %s %w", at(class, name), attribute, err)
	}
	return f, a.shape, nil
}

// common reads the attributes that all estimators share.
func (b *builder) common(key []byte, v value, p *part, class string, features *int) error {
	switch string(key) {
	case "_sklearn_version":
		p.version = b.version(v)
		b.model.addVersion(p.version)
	case "n_features_in_":
		if n, ok := b.g.number(v); ok {
			if n < 1 || n != float64(int(n)) || n > float64(len(b.g.data)) {
				return misfit("%s: n_features_in_ is %v", at(class, p.name), n)
			}
			*features = int(n)
		}
	case "feature_names_in_":
		names, err := b.g.names(v)
		if err != nil {
			return misfit("%s: feature_names_in_ %w", at(class, p.name), err)
		}
		if len(b.model.names) == 0 {
			b.model.names = names
		}
	}
	return nil
}

// recognise refuses files that are something else than a pickle, by what they
// begin with.
func recognise(data []byte) error {
	if len(data) == 0 {
		return fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "the file is empty").WithHint("write the model with pickle.dump")
	}
	for _, f := range [...]struct{ magic, what, hint string }{
		{"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself with git lfs pull"},
		{"\x1f\x8b", "compressed with gzip", "decompress it, or write the model with plain pickle.dump"},
		{"BZh", "compressed with bzip2", "decompress it, or write the model with plain pickle.dump"},
		{"\xfd7zXZ", "compressed with xz", "decompress it, or write the model with plain pickle.dump"},
		{"]\x00\x00\x80\x00", "compressed with lzma", "decompress it, or write the model with plain pickle.dump"},
		{"x\x01", "compressed with zlib, as joblib does", "write the model with pickle.dump"},
		{"x\x5e", "compressed with zlib, as joblib does", "write the model with pickle.dump"},
		{"x\x9c", "compressed with zlib, as joblib does", "write the model with pickle.dump"},
		{"x\xda", "compressed with zlib, as joblib does", "write the model with pickle.dump"},
		{"\x04\x22\x4d\x18", "compressed with lz4, as joblib does", "write the model with pickle.dump"},
		{"PK\x03\x04", "a zip archive, as skops and others write", "write the model with pickle.dump"},
		{"\x89HDF", "an HDF5 file", "write the model with pickle.dump"},
	} {
		if bytes.HasPrefix(data, []byte(f.magic)) {
			return fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "the file is no pickle: it is %s", f.what).WithHint("%s", f.hint)
		}
	}
	return nil
}
