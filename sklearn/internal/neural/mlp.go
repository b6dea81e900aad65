// Package neural computes scikit-learn's multi-layer perceptrons.
package neural

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/kernel"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

type activation int

const (
	identity activation = iota
	logistic
	tanh
	relu
	softmax
	exponential // for the last layer only
)

var activationNames = [...]string{"identity", "logistic", "tanh", "relu", "softmax", "exp"}

// Perceptron is MLPClassifier and MLPRegressor.
type Perceptron struct {
	class   string
	labels  estimator.Labels
	widths  []int32   // the widths of the layers, the input first
	weights []float64 // for each layer: in × out weights, then out biases
	hidden  activation
	last    activation
}

// NewPerceptron returns an empty Perceptron for a record to be read into.
func NewPerceptron(class string) *Perceptron { return &Perceptron{class: class} }

// ReadPerceptron reads the attributes of a Perceptron from a file.
func ReadPerceptron(a *estimator.Attributes) estimator.Estimator {
	p := NewPerceptron(a.Class)
	find := func(name string) activation {
		t := a.Text(name, "")
		for i, n := range activationNames {
			if n == t {
				return activation(i)
			}
		}
		a.Unsupported(name+"="+t, "use identity, logistic, tanh or relu")
		return 0
	}
	p.hidden, p.last = find("activation"), find("out_activation_")
	if a.Class == "MLPClassifier" {
		a.Nested(a.Value("_label_binarizer"), "_label_binarizer", func(in *estimator.Attributes) { // predict returns its labels
			in.OneLabel()
			in.Agrees("neg_label", 0)
			in.Agrees("pos_label", 1)
			in.Unset("sparse_input_", "sparse_output")
			p.labels = in.Labels("classes_")
		})
		if l := a.Labels("classes_"); l.Len() != p.labels.Len() {
			a.Fail("classes_ has %d labels, but _label_binarizer has %d", l.Len(), p.labels.Len())
		}
	}
	g := a.Graph()
	weights, biases := a.Value("coefs_"), a.Value("intercepts_")
	if weights.Kind() != pickle.KindList || biases.Kind() != pickle.KindList || g.Count(weights) != g.Count(biases) {
		a.Fail("coefs_ and intercepts_ aren't lists of the same length")
		return p
	}
	in := -1
	if a.Features() > 0 {
		in = a.Features()
	}
	w, b := g.Entries(weights), g.Entries(biases)
	for a.Err() == nil {
		wv, ok := w.Item()
		if !ok {
			break
		}
		bv, _ := b.Item()
		layer, shape := a.ArrayOf(wv, "coefs_", true, in, -1)
		bias, _ := a.ArrayOf(bv, "intercepts_", true, shape[1])
		if len(p.widths) == 0 {
			p.widths = append(p.widths, int32(shape[0]))
		}
		in = shape[1]
		p.widths = append(p.widths, int32(in))
		if err := g.Charge(16 * (len(layer) + len(bias))); err != nil { // both slices grow
			a.Fail("%w", err)
			break
		}
		p.weights = append(append(p.weights, layer...), bias...)
	}
	return p
}

// Class implements estimator.Estimator, as do the methods below.
func (p *Perceptron) Class() string { return p.class }

func (p *Perceptron) Features() int { return int(p.widths[0]) }

// Labels returns nil for the regressor.
func (p *Perceptron) Labels() *estimator.Labels {
	if p.labels.Len() == 0 {
		return nil
	}
	return &p.labels
}

func (p *Perceptron) Outputs(m estimator.Method, _ int) int {
	switch k := p.labels.Len(); {
	case m == estimator.Predict && k > 0:
		return 1
	case m == estimator.Predict:
		return int(p.widths[len(p.widths)-1])
	case m == estimator.PredictProba || m == estimator.PredictLogProba:
		return k
	}
	return 0
}

func (p *Perceptron) Parameters() map[string]any {
	return map[string]any{"activation": activationNames[p.hidden], "layers": len(p.widths), "weights": len(p.weights)}
}

func (p *Perceptron) Fields(c *estimator.Codec) {
	hidden, last := int(p.hidden), int(p.last)
	p.labels.Fields(c)
	c.Int32s(&p.widths)
	c.Floats(&p.weights)
	c.Int(&hidden)
	c.Int(&last)
	p.hidden, p.last = activation(hidden), activation(last)
}

func (p *Perceptron) Check() error {
	n := 0
	for i, w := range p.widths {
		if w < 1 || w > estimator.MaxFeatures {
			return estimator.Misfit("%s: a layer has the width %d", p.class, w)
		}
		if i > 0 {
			n += int(p.widths[i-1])*int(w) + int(w)
		}
	}
	if len(p.widths) < 2 || n != len(p.weights) || p.hidden > relu || p.last > exponential {
		return estimator.Misfit("%s: %d weights don't fit layers of the widths %v", p.class, len(p.weights), p.widths)
	}
	if k, out := p.labels.Len(), int(p.widths[len(p.widths)-1]); k > 0 && (k != out && (k != 2 || out != 1) || (out > 1 && p.last != softmax)) {
		return estimator.Misfit("%s: %d outputs for %d classes; several labels per row are not supported", p.class, out, k)
	}
	if p.labels.Len() > 0 {
		return p.labels.Check(p.class)
	}
	return nil
}

func (p *Perceptron) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if err := x.CheckFinite(p.class); err != nil {
		return err
	}
	at := 0
	for i, w := range p.widths[1:] {
		in, width := int(p.widths[i]), int(w)
		next := ws.Block(x, width)
		bias := p.weights[at+in*width:]
		for o := range width {
			dst := next.Lanes(o)
			clear(dst)
			for c := range in {
				kernel.AddScaled(dst, x.Lanes(c), p.weights[at+c*width+o])
			}
			for r := range dst {
				dst[r] += bias[o]
			}
		}
		at += in*width + width
		f := p.hidden
		if i == len(p.widths)-2 {
			f = p.last
		}
		activate(f, next)
		x = next
	}
	k := p.labels.Len()
	switch {
	case k == 0:
		copy(out.X, x.X)
	case m == estimator.Predict && x.Cols == 1:
		for r, v := range x.Col(0) {
			out.Col(0)[r] = p.labels.Values[0]
			if v > 0.5 {
				out.Col(0)[r] = p.labels.Values[1]
			}
		}
	case m == estimator.Predict:
		estimator.Choose(x, out.Col(0), &p.labels)
	case x.Cols == 1:
		for r, v := range x.Col(0) {
			out.Col(0)[r], out.Col(1)[r] = 1-v, v
		}
	default:
		copy(out.X, x.X)
	}
	if m == estimator.PredictLogProba {
		estimator.Log(out)
	}
	return nil
}

func activate(f activation, x *estimator.Block) {
	switch f {
	case softmax:
		estimator.Softmax(x, x)
	case relu:
		for i, v := range x.X {
			x.X[i] = max(v, 0)
		}
	case tanh:
		for i, v := range x.X {
			x.X[i] = math.Tanh(v)
		}
	case logistic:
		for i, v := range x.X {
			x.X[i] = estimator.Expit(v)
		}
	case exponential:
		for i, v := range x.X {
			x.X[i] = estimator.Exp(v)
		}
	}
}
