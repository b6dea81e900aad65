package compose

import (
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

// functions are the NumPy functions of one number that a FunctionTransformer may have,
// by name. Other functions are refused, because a name alone doesn't say what they
// compute.
var functions = map[string]func(float64) float64{
	"absolute": math.Abs, "fabs": math.Abs, "sqrt": math.Sqrt, "square": func(x float64) float64 { return x * x },
	"exp": estimator.Exp, "expm1": math.Expm1, "exp2": math.Exp2, "log": estimator.Ln, "log1p": math.Log1p, "log2": estimator.Log2, "log10": estimator.Log10,
	"sin": math.Sin, "cos": math.Cos, "tan": math.Tan, "arcsin": estimator.Asin, "arccos": estimator.Acos, "arctan": math.Atan,
	"sinh": estimator.Sinh, "cosh": estimator.Cosh, "tanh": math.Tanh, "arcsinh": math.Asinh, "arccosh": math.Acosh, "arctanh": math.Atanh,
	"cbrt": math.Cbrt, "negative": func(x float64) float64 { return -x }, "positive": func(x float64) float64 { return x },
	"reciprocal": func(x float64) float64 { return 1 / x }, "floor": math.Floor, "ceil": math.Ceil, "trunc": math.Trunc, "rint": math.RoundToEven,
	"sign": sign, "deg2rad": func(x float64) float64 { return x * (math.Pi / 180) }, "rad2deg": func(x float64) float64 { return x * (180 / math.Pi) },
}

func sign(x float64) float64 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	case x == 0:
		return 0
	}
	return x
}

// Functions returns the supported functions by name.
func Functions() map[string]func(float64) float64 { return functions }

// FunctionTransformer applies one function to every value. The zero value changes
// nothing.
type FunctionTransformer struct {
	features int
	name     string // "" if there is none
	apply    func(float64) float64
	validate bool
	inverse  string // the name of inverse_func; "" if there is none
	back     func(float64) float64
}

// ReadFunctionTransformer reads the attributes of a FunctionTransformer from a file.
func ReadFunctionTransformer(a *estimator.Attributes) estimator.Estimator {
	t := &FunctionTransformer{features: a.Features()}
	if v := a.Value("validate"); v.Kind() == pickle.KindNone { // releases 0.20 and 0.21 treat None as True
		t.validate = !a.AtLeast(0, 22)
	} else {
		t.validate = a.Bool("validate", false)
	}
	g := a.Graph()
	if !t.validate {
		t.features = 0 // then scikit-learn doesn't check the number of columns either
	}
	if v := a.Value("inverse_func"); v != 0 {
		if n := ufunc(a, v); functions[n] != nil { // an unsupported inverse is refused when it is used
			t.inverse = n
		}
	}
	v := a.Value("func")
	if v == 0 || v.Kind() == pickle.KindNone {
		return t
	}
	t.name = ufunc(a, v)
	if functions[t.name] == nil {
		a.Unsupported("func="+g.Describe(v), "use one of NumPy's functions of one number, such as numpy.log1p")
	}
	if kw := a.Value("kw_args"); kw.Kind() == pickle.KindDict && g.Count(kw) > 0 {
		a.Unsupported("kw_args", "use a function without arguments")
	}
	t.apply = functions[t.name]
	return t
}

// ufunc returns the name of a NumPy function.
func ufunc(a *estimator.Attributes, v pickle.Value) string {
	g := a.Graph()
	if class := g.Global(v); class != nil {
		return class.Name
	}
	if c, args, _ := g.Call(v); c != nil && c.Name == "_ufunc_reconstruct" && len(args) == 2 { // from NumPy before 1.20
		n, _ := g.Text(args[1])
		return pickle.Clean(n)
	}
	return ""
}

// Invertible implements estimator.Inverter. A transformer is invertible if it has both
// functions or neither.
func (t *FunctionTransformer) Invertible() bool { return (t.name == "") == (t.inverse == "") }

// Invert implements estimator.Inverter.
func (t *FunctionTransformer) Invert(b *estimator.Block) error {
	if t.validate {
		if err := b.CheckFinite(t.Class()); err != nil {
			return err
		}
	}
	if t.back == nil {
		return nil
	}
	for c := range b.Cols {
		dst := b.Col(c)
		for i, v := range dst {
			dst[i] = t.back(v)
		}
	}
	return nil
}

func (t *FunctionTransformer) Class() string { return "FunctionTransformer" }
func (t *FunctionTransformer) Features() int { return t.features }

func (t *FunctionTransformer) Outputs(m estimator.Method, in int) int {
	if m == estimator.Transform {
		return in
	}
	return 0
}

func (t *FunctionTransformer) Parameters() map[string]any {
	if t.name == "" {
		return map[string]any{}
	}
	return map[string]any{"func": t.name}
}

func (t *FunctionTransformer) Fields(c *estimator.Codec) {
	c.Int(&t.features)
	c.Text(&t.name)
	c.Bool(&t.validate)
	c.Text(&t.inverse)
}

func (t *FunctionTransformer) Check() error {
	t.apply, t.back = functions[t.name], functions[t.inverse]
	if t.name != "" && t.apply == nil {
		return estimator.Misfit("FunctionTransformer: func=%q is not supported", t.name)
	}
	return nil
}

func (t *FunctionTransformer) Compute(_ estimator.Method, x, out *estimator.Block, _ *estimator.Workspace) error {
	if t.validate {
		if err := x.CheckFinite(t.Class()); err != nil {
			return err
		}
	}
	if t.apply == nil {
		copy(out.X, x.X)
		return nil
	}
	for c := range x.Cols {
		dst := out.Col(c)
		for i, v := range x.Col(c) {
			dst[i] = t.apply(v)
		}
	}
	return nil
}
