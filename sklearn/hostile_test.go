package sklearn

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// script writes pickles of protocol 4, also those that no estimator writes.
type script struct {
	bytes.Buffer
	kept int // the number of memo entries
}

func newScript() *script {
	s := &script{}
	s.WriteString("\x80\x04")
	return s
}

func (s *script) text(t string) *script {
	s.WriteByte('X')
	s.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(t))))
	s.WriteString(t)
	return s
}

func (s *script) int(n int) *script {
	s.WriteByte('J')
	s.Write(binary.LittleEndian.AppendUint32(nil, uint32(int32(n))))
	return s
}

func (s *script) float(f float64) *script {
	s.WriteByte('G')
	s.Write(binary.BigEndian.AppendUint64(nil, math.Float64bits(f)))
	return s
}

func (s *script) op(ops string) *script { s.WriteString(ops); return s }

func (s *script) global(module, name string) *script { return s.text(module).text(name).op("\x93") }

// object begins an object's attributes; end ends them.
func (s *script) object(module, name string) *script { return s.global(module, name).op(")\x81}(") }
func (s *script) end() *script                       { return s.op("ub") }

// keep puts the top of the stack into the memo, and returns its number.
func (s *script) keep() int {
	s.WriteByte('r')
	s.Write(binary.LittleEndian.AppendUint32(nil, uint32(s.kept)))
	s.kept++
	return s.kept - 1
}

func (s *script) again(n int) *script {
	s.WriteByte('j')
	s.Write(binary.LittleEndian.AppendUint32(nil, uint32(n)))
	return s
}

func (s *script) pop() *script { return s.op("0") }

// array writes an array of float64, or of a dtype whose bytes are given.
func (s *script) array(dtype string, raw []byte, shape ...int) *script {
	s.global("numpy._core.multiarray", "_reconstruct").global("numpy", "ndarray").op("K\x00\x85C\x01b\x87R(K\x01(")
	for _, d := range shape {
		s.int(d)
	}
	s.op("t").global("numpy", "dtype").text(dtype).op("\x89\x88\x87R(K\x03").text("<").op("NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89\x8e")
	s.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(raw))))
	s.Write(raw)
	return s.op("tb")
}

func (s *script) floats(f func(int) float64, shape ...int) *script {
	n := 1
	for _, d := range shape {
		n *= d
	}
	raw := make([]byte, 0, 8*n)
	for i := range n {
		raw = binary.LittleEndian.AppendUint64(raw, math.Float64bits(f(i)))
	}
	return s.array("f8", raw, shape...)
}

func (s *script) file() []byte { return append(slices.Clone(s.Bytes()), '.') }

const (
	columnModule = "sklearn.compose._column_transformer"
	scalerModule = "sklearn.preprocessing._data"
)

// columnTransformer writes n transformers with the same selection of columns.
func columnTransformer(features, n int, selection, transformer func(*script)) []byte {
	s := newScript()
	selection(s)
	kept := s.keep()
	s.pop()
	transformer(s)
	est := s.keep()
	s.pop().object(columnModule, "ColumnTransformer").text("n_features_in_").int(features).text("transformers_").op("](")
	for range n {
		s.text("a").again(est).again(kept).op("\x87")
	}
	return s.op("e").end().file()
}

// hostile returns files that need far more memory or work than their size, each by
// another trick.
func hostile() map[string][]byte {
	out := map[string][]byte{}
	passthrough := func(s *script) { s.text("passthrough") }
	out["slices of a million columns"] = columnTransformer(1<<20, 60, func(s *script) { s.global("builtins", "slice").op("NNN\x87R") }, passthrough)
	out["a list of columns again and again"] = columnTransformer(1<<20, 2000, func(s *script) {
		s.op("](")
		for i := range 3000 {
			s.int(i)
		}
		s.op("e")
	}, passthrough)
	out["a mask of columns again and again"] = columnTransformer(20_000, 2000, func(s *script) { s.array("b1", bytes.Repeat([]byte{1}, 20_000), 20_000) }, passthrough)
	out["names of columns again and again"] = columnTransformer(1<<20, 2000, func(s *script) { s.array("U1", bytes.Repeat([]byte{'a', 0, 0, 0}, 5000), 5000) }, passthrough)

	many := func(module, class string, n int, shared, rest func(*script)) []byte {
		s := newScript()
		shared(s)
		kept := s.keep()
		s.pop().object("sklearn.pipeline", "Pipeline").text("steps").op("](")
		for range n {
			s.text("a").object(module, class)
			rest(s)
			s.again(kept).end().op("\x86")
		}
		return s.op("e").end().file()
	}
	one := func(int) float64 { return 1 }
	out["an array of many scalers"] = many(scalerModule, "StandardScaler", 3000, func(s *script) { s.floats(one, 2000) },
		func(s *script) { s.text("with_mean").op("\x89").text("scale_") })
	out["scores of many selectors"] = many("sklearn.feature_selection._univariate_selection", "SelectKBest", 3000, func(s *script) { s.floats(func(i int) float64 { return float64(i * 7919 % 2003) }, 2000) },
		func(s *script) { s.text("k").int(2000).text("scores_") })
	out["statistics of many imputers"] = many("sklearn.impute._base", "SimpleImputer", 3000, func(s *script) { s.floats(one, 2000) },
		func(s *script) { s.text("strategy").text("mean").text("statistics_") })
	out["edges of many bins"] = many("sklearn.preprocessing._discretization", "KBinsDiscretizer", 500, func(s *script) {
		s.floats(one, 5000)
		edges := s.keep()
		s.pop().global("numpy._core.multiarray", "_reconstruct").global("numpy", "ndarray").op("K\x00\x85C\x01b\x87R(K\x01").int(100).op("\x85")
		s.global("numpy", "dtype").text("O8").op("\x89\x88\x87R\x89](")
		for range 100 {
			s.again(edges)
		}
		s.op("etb")
	}, func(s *script) { s.text("bin_edges_") })
	out["dense quantiles"] = many(scalerModule, "QuantileTransformer", 2000, func(s *script) { s.floats(one, 10, 1000) },
		func(s *script) { s.text("references_").floats(one, 10).text("quantiles_") })
	out["wide polynomials"] = many("sklearn.preprocessing._polynomial", "PolynomialFeatures", 3000, func(s *script) { s.int(64) },
		func(s *script) { s.text("n_features_in_").int(1 << 20).text("degree") })

	out["inversions"] = inversions(20, 2000)
	out["large inversions"] = inversions(250, 300)
	out["layers of many networks"] = many("sklearn.neural_network._multilayer_perceptron", "MLPRegressor", 300, func(s *script) {
		s.floats(one, 60, 60)
		w := s.keep()
		s.pop().op("](")
		for range 500 {
			s.again(w)
		}
		s.op("e")
	}, func(s *script) {
		s.text("activation").text("relu").text("out_activation_").text("identity").text("intercepts_").floats(one, 60)
		b := s.keep()
		s.pop().op("](")
		for range 500 {
			s.again(b)
		}
		s.op("e").text("coefs_")
	})
	out["a forest of one tree"] = sameTree(3000, 201)
	out["a forest of one leaf"] = sameTree(200_000, 1)
	out["attributes of many objects"] = sharedState(3000, 3000)
	out["a name of many steps"] = many(scalerModule, "Normalizer", 3000, func(s *script) { s.text("l2") }, func(s *script) { s.text(strings.Repeat("x", 3000)).op("N").text("norm") })
	out["nested tuples"] = append([]byte("\x80\x04N"), append(bytes.Repeat([]byte("\x85"), 1<<20), '.')...)
	out["nested marks"] = append([]byte("\x80\x04"), bytes.Repeat([]byte("("), 1<<22)...)
	out["a list in itself"] = selfish()
	out["memo at the end"] = func() []byte {
		s := newScript().op("N")
		for range 4000 {
			s.op("r").Write(binary.LittleEndian.AppendUint32(nil, 30_000))
		}
		return s.file()
	}()
	out["thousands of entries"] = entriesZip(60_000)
	out["a table of trees that isn't there"] = many("sklearn.ensemble._gb", "GradientBoostingRegressor", 3000, func(s *script) {
		s.global("numpy._core.multiarray", "_reconstruct").global("numpy", "ndarray").op("K\x00\x85C\x01b\x87R(K\x01(").int(1).int(50_000).op("t")
		s.global("numpy", "dtype").text("O8").op("\x89\x88\x87R\x89]tb")
	}, func(s *script) { s.text("n_features_in_").int(1).text("estimators_") })
	return out
}

// inversions writes many detectors whose covariance must be inverted when they are
// read.
// read.
func inversions(d, n int) []byte {
	s := newScript().floats(func(i int) float64 { return 1 / float64(1+i/d+i%d) }, d, d)
	cov := s.keep()
	s.pop().floats(func(int) float64 { return 0 }, d)
	at := s.keep()
	s.pop().object("sklearn.ensemble._bagging", "BaggingRegressor").text("estimators_").op("](")
	for range n {
		s.object("sklearn.covariance._elliptic_envelope", "EllipticEnvelope").text("location_").again(at).text("covariance_").again(cov).text("offset_").float(-1).
			text("_sklearn_version").text("1.5.0").end()
	}
	return s.op("e").end().file()
}

// sameTree writes a forest that has the same tree many times.
func sameTree(trees, nodes int) []byte {
	inner := nodes / 2
	s := newScript().global("sklearn.tree._tree", "Tree").op("K\x01").floats(func(int) float64 { return 1 }, 1).op("K\x01\x87R}(").text("nodes")
	s.global("numpy._core.multiarray", "_reconstruct").global("numpy", "ndarray").op("K\x00\x85C\x01b\x87R(K\x01(").int(nodes).op("t")
	s.global("numpy", "dtype").text("V40").op("\x89\x88\x87R(K\x03").text("|").op("N(N" + "t}(")
	for i, f := range []struct{ name, dtype string }{{"left_child", "i8"}, {"right_child", "i8"}, {"feature", "i8"}, {"threshold", "f8"}, {"n_node_samples", "i8"}} {
		s.text(f.name).global("numpy", "dtype").text("<" + f.dtype).op("\x85R").int(8 * i).op("\x86")
	}
	s.op("u").int(40).op("K\x01K\x00tb\x89\x8e")
	s.Write(binary.LittleEndian.AppendUint64(nil, uint64(40*nodes)))
	for i := range nodes {
		left, right := int64(-1), int64(-1)
		if i < inner {
			left, right = int64(2*i+1), int64(2*i+2)
		}
		for _, v := range []uint64{uint64(left), uint64(right), 0, math.Float64bits(float64(i)), 1} {
			s.Write(binary.LittleEndian.AppendUint64(nil, v))
		}
	}
	s.op("tb").text("values").floats(func(i int) float64 { return float64(i) }, nodes, 1, 1).op("ub")
	tree := s.keep()
	s.pop().object("sklearn.tree._classes", "DecisionTreeRegressor").text("tree_").again(tree).end()
	one := s.keep()
	s.pop().object("sklearn.ensemble._forest", "RandomForestRegressor").text("n_features_in_").int(1).text("estimators_").op("](")
	for range trees {
		s.again(one)
	}
	return s.op("e").end().file()
}

// sharedState writes many objects with the same dict of many attributes.
func sharedState(objects, attributes int) []byte {
	s := newScript().op("}(")
	for range attributes {
		s.text("copy").op("N") // an attribute that the class has
	}
	s.text("norm").text("l2").op("u")
	state := s.keep()
	s.pop().object("sklearn.pipeline", "Pipeline").text("steps").op("](")
	for range objects {
		s.text("a").global(scalerModule, "Normalizer").op(")\x81").again(state).op("b\x86")
	}
	return s.op("e").end().file()
}

// selfish writes a dict of lists that contain themselves.
func selfish() []byte {
	s := newScript().op("](")
	list := s.kept
	s.op("0") // the mark
	s.keep()
	s.op("(")
	for range 1000 {
		s.again(list)
	}
	return s.op("e").file()
}

// entriesZip returns an archive that consists almost only of its directory.
func entriesZip(n int) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := range n {
		if _, err := w.CreateHeader(&zip.FileHeader{Name: fmt.Sprintf("%x", i)}); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// mostWork is the largest amount of work for loading content of a size.
func mostWork(size int) int64 { return budget.MinWork + budget.WorkPerByte*int64(size) }

// spent loads a pickle and returns the memory and work that its budget counted.
func spent(data []byte, limits budget.Limits) (memory, work int64, err error) {
	g, root, err := pickle.Parse(data, names, budget.New(context.Background(), limits, len(data), false))
	if err != nil {
		return 0, 0, err
	}
	b := estimator.NewBuilder(g, fileClasses)
	_, err = b.Build(root, "")
	memory, work = g.Used()
	b.Release()
	g.Release()
	return memory, work, err
}

// TestHostileGrowth: files that need far more memory or work than their size are
// refused, or are read within the package's promises. The test measures allocations and
// doesn't rely on the budget's own count.
func TestHostileGrowth(t *testing.T) {
	files := hostile()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		data := files[name]
		var err error
		got := allocated(func() { _, err = Load(data) })
		if most := 3 * memoryPromise(len(data)); got > most { // growing slices leave garbage

			t.Errorf("%s: %d bytes are allocated for %d, %d are allowed (%v)", name, got, len(data), most, err)
		}
		if err != nil && fleetscore.KindOf(err) != fleetscore.Invalid {
			t.Errorf("%s: %v", name, err)
		}
		memory, work, _ := spent(data, budget.Limits{})
		if work > mostWork(len(data))+1<<28 {
			t.Errorf("%s: %d units of work for %d bytes, %d are allowed", name, work, len(data), mostWork(len(data)))
		}
		t.Logf("%s: %d bytes, %d allocated, %d charged, %d work: %.120v", name, len(data), got, memory, work, err)
	}
}

// countdown is a context that ends after a number of calls of Err.
type countdown struct {
	context.Context
	left int
	done chan struct{}
}

func (c *countdown) Done() <-chan struct{} { return c.done }

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// TestLate: the end of a context ends loading in every phase: while a file is unpacked,
// parsed, and made into estimators.
func TestLate(t *testing.T) {
	t.Parallel()
	large := linearModel(500_000)
	for name, data := range map[string][]byte{
		"parsing": append([]byte("\x80\x04"), bytes.Repeat([]byte("N0"), 4<<20)...), "inverting": inversions(200, 40), "building": sameTree(20, 20_001),
		"gzip": compressed(t, "gzip", large), "zlib": compressed(t, "zlib", large), "lz4": compressed(t, "lz4", large), "xz": compressed(t, "xz", large), "lzma": compressed(t, "lzma", large),
	} {
		looks := 0
		for ; ; looks++ {
			ctx := &countdown{Context: t.Context(), left: looks, done: make(chan struct{})}
			_, err := LoadWith(ctx, data, Limits{})
			if !errors.Is(err, context.DeadlineExceeded) && !Late.Is(err) {
				break
			}
			var r *Refusal
			if !errors.As(err, &r) || r.Reason != Late || fleetscore.KindOf(err) != fleetscore.Unavailable {
				t.Fatalf("%s: %v", name, err)
			}
			if looks > 3 {
				break
			}
		}
		if looks < 2 {
			t.Errorf("%s: the context was checked only %d times", name, looks)
		}
	}
}

// TestLimits: a caller's limits are kept.
func TestLimits(t *testing.T) {
	t.Parallel()
	plain := linearModel(100_000)
	for name, data := range map[string][]byte{"plain": plain, "gzip": compressed(t, "gzip", plain)} {
		if _, err := LoadWith(t.Context(), data, Limits{Memory: 8 << 20, Work: 1 << 24}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, l := range []Limits{{Memory: 512 << 10}, {Work: 1 << 10}} {
			if _, err := LoadWith(t.Context(), data, l); !TooLarge.Is(err) {
				t.Errorf("%s within %+v: %v", name, l, err)
			}
		}
	}
}

// TestHonestMargin: ordinary models take clearly less than the limits.
func TestHonestMargin(t *testing.T) {
	t.Parallel()
	worst := [2]float64{}
	for name, data := range fixtureFiles(t) {
		if !strings.HasSuffix(name, ".pickle") {
			continue
		}
		memory, work, err := spent(data, budget.Limits{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		m, w := float64(memory)/float64(max(budget.MinMemory, budget.Times*len(data))), float64(work)/float64(mostWork(len(data)))
		worst = [2]float64{max(worst[0], m), max(worst[1], w)}
		if m > 0.8 || w > 0.5 {
			t.Errorf("%s of %d bytes takes %.2f of its memory and %.2f of its work", name, len(data), m, w)
		}
	}
	t.Logf("at most %.2f of the memory and %.2f of the work", worst[0], worst[1])
}
