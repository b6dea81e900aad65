package verify

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/fleetscore/fleetscore/sklearn"
)

// generate makes rows inside the range that a model was trained on, near it, and far
// outside, and rows where the model's predictions change, because differences are most
// likely there.
func generate(m *sklearn.Model, info *sklearn.Info, n int, seed uint64) []float64 {
	cols := max(1, info.Features)
	rng := rand.New(rand.NewPCG(seed, 1))
	low, high := ranges(m, info, cols)
	x := make([]float64, 0, n*cols)
	row := make([]float64, cols)
	for i := range n - n/4 {
		for c := range row {
			width := high[c] - low[c]
			switch i % 8 {
			case 0, 1, 2, 3: // inside
				row[c] = low[c] + rng.Float64()*width
			case 4, 5: // around
				row[c] = low[c] + (2*rng.Float64()-0.5)*width
			case 6: // near the middle, in even numbers
				row[c] = math.Round(low[c] + (0.5+0.2*rng.NormFloat64())*width)
			default: // far
				row[c] = low[c] + width*math.Copysign(math.Exp(6*rng.Float64()), rng.Float64()-0.5)
			}
		}
		if i == 0 {
			for c := range row {
				row[c] = (low[c] + high[c]) / 2
			}
		}
		x = append(x, row...)
	}
	return append(x, edges(m, x, cols, n/4, rng)...)
}

// ranges returns the range of each feature in training if the file holds it, else the
// range in which the model's results change, else the range of standardised values.
func ranges(m *sklearn.Model, info *sklearn.Info, cols int) (low, high []float64) {
	low, high = make([]float64, cols), make([]float64, cols)
	known := info.Training
	if len(known) == 0 {
		known = info.Typical
	}
	for c := range low {
		low[c], high[c] = -3, 3
		if c < len(known) {
			if r := known[c]; r.High > r.Low && r.High-r.Low < math.Inf(1) {
				low[c], high[c] = r.Low, r.High
			} else if r.Low == r.High && !math.IsInf(r.Low, 0) {
				low[c], high[c] = r.Low-1, r.Low+1
			}
		}
	}
	if len(known) == 0 {
		for c := range low {
			if from, to, ok := changes(m, cols, c); ok {
				low[c], high[c] = from, to
			}
		}
	}
	return low, high
}

// changes finds the range of a feature in which a model's results change, if they are
// constant outside of it, as with trees. The other features are 0.
func changes(m *sklearn.Model, cols, c int) (from, to float64, ok bool) {
	var at []float64
	for k := -3; k <= 9; k++ {
		for _, v := range []float64{1, 2, 5} {
			v *= math.Pow(10, float64(k))
			at = append(at, -v, v)
		}
	}
	at = append(at, 0)
	slices.Sort(at)
	x := make([]float64, len(at)*cols)
	for i, v := range at {
		x[i*cols+c] = v
	}
	methods := m.Methods()
	if len(methods) == 0 {
		return 0, 0, false
	}
	method := methods[len(methods)-1] // decision values show more than labels
	width := m.Outputs(method)
	out := make([]float64, len(at)*width)
	if m.Call(method, x, len(at), out, nil) != nil {
		return 0, 0, false
	}
	same := func(i, j int) bool {
		return slices.Equal(out[i*width:(i+1)*width], out[j*width:(j+1)*width])
	}
	first, last := 0, len(at)-1
	for first < last && same(first, first+1) {
		first++
	}
	for last > first && same(last, last-1) {
		last--
	}
	return at[first], at[last], first > 0 && last < len(at)-1 && first < last
}

// edges finds up to n rows on both sides of a change of the prediction: between two
// rows with different predictions it halves the distance until no row is between
// them. Regressors that change everywhere have no such rows.
func edges(m *sklearn.Model, x []float64, cols, n int, rng *rand.Rand) []float64 {
	rows := len(x) / cols
	prediction := make([]float64, rows)
	var scratch sklearn.Scratch
	if n < 2 || (len(m.Classes()) == 0 && !m.OutlierDetector()) || m.PredictInto(x, rows, prediction, nil, &scratch) != nil {
		return nil
	}
	var out []float64
	a, b, mid, p := make([]float64, cols), make([]float64, cols), make([]float64, cols), make([]float64, 1)
	for range 4 * n {
		if len(out) >= n*cols {
			break
		}
		i, j := rng.IntN(rows), rng.IntN(rows)
		if prediction[i] == prediction[j] {
			continue
		}
		copy(a, x[i*cols:(i+1)*cols])
		copy(b, x[j*cols:(j+1)*cols])
		for range 80 {
			for c := range mid {
				mid[c] = a[c]/2 + b[c]/2
			}
			if slices.Equal(mid, a) || slices.Equal(mid, b) || m.PredictInto(mid, 1, p, nil, &scratch) != nil {
				break
			}
			if p[0] == prediction[i] {
				copy(a, mid)
			} else {
				copy(b, mid)
			}
		}
		out = append(append(out, a...), b...)
	}
	return out[:min(len(out), n*cols)]
}
