package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"
)

// each runs a test with every level of this processor. Tests of this package don't run
// in parallel, because the level is a variable of the package.
func each(t *testing.T, test func(t *testing.T)) {
	was := use
	defer func() { use = was }()
	for l := generic; l <= avx512; l++ {
		if l > has() {
			t.Logf("not run: this processor lacks %s", levelNames[l])
			continue
		}
		use = l
		t.Log("run with", Name())
		t.Run(Name(), test)
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		has  level
		want string
		use  level
	}{
		{avx512, "", avx512}, {avx512, "avx2", avx2}, {avx512, "generic", generic}, {avx512, "avx512", avx512},
		{avx2, "avx512", avx2}, {generic, "avx2", generic}, {avx2, "AVX2", avx2}, {avx2, "generic", generic},
	} {
		if got := choose(c.has, c.want); got != c.use {
			t.Errorf("of %s, FLEETSCORE_CPU=%q chooses %s, want %s", levelNames[c.has], c.want, levelNames[got], levelNames[c.use])
		}
	}
	if want := choose(has(), os.Getenv("FLEETSCORE_CPU")); use != want {
		t.Errorf("%s is in use, want %s", Name(), levelNames[want])
	}
}

// hostile are numbers that are difficult for kernels.
var hostile = []float64{
	0, math.Copysign(0, -1), math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, -math.MaxFloat64, 1e200, -1e200,
	math.SmallestNonzeroFloat64, -math.SmallestNonzeroFloat64, 0x1p-1022, 1e-310, 1, -1,
}

// numbers returns n random numbers. Behind them in memory are other numbers, which a
// kernel must not read or change.
func numbers(r *rand.Rand, n int, bad bool) []float64 {
	x := make([]float64, n+8)
	for i := range x {
		switch {
		case i >= n:
			x[i] = math.NaN()
		case bad && r.IntN(4) == 0:
			x[i] = hostile[r.IntN(len(hostile))]
		default:
			x[i] = r.NormFloat64() * math.Exp2(float64(r.IntN(12)-6))
		}
	}
	return x[:n]
}

// same fails if two slices differ in any bit, or if memory behind got was changed. All
// NaN are equal.
func same(t *testing.T, got, want []float64, format string, args ...any) {
	t.Helper()
	for i, w := range want {
		if g := got[i]; math.Float64bits(g) != math.Float64bits(w) && (g == g || w == w) {
			t.Fatalf("%s: number %d is %v, the twin has %v", fmt.Sprintf(format, args...), i, g, w)
		}
	}
	for i, v := range got[len(got):cap(got)] {
		if v == v {
			t.Fatalf("%s: %v stands %d behind the end", fmt.Sprintf(format, args...), v, i)
		}
	}
}

const maxRows, maxCols = 130, 20

// rbfTerm returns one term in the obvious way, and its allowed error.
func rbfTerm(x, sv []float64, coef, factor float64) (value, slack float64) {
	var d float64
	for k, v := range x {
		d += (v - sv[k]) * (v - sv[k])
	}
	if d == 0 {
		return coef, 0
	}
	e := math.Exp2(d * factor)
	const ulp = 0x1p-52
	slack = math.Abs(coef) * (e*ulp*(4+float64(len(x)+2)*min(1100, math.Abs(d*factor))) + 0x1p-1021)
	return coef * e, slack
}

// TestRBF: every number of rows and features, compared with sums that are computed one
// by one.
func TestRBF(t *testing.T) {
	each(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		for rows := range maxRows + 1 {
			dims := 1 + rows%maxCols
			count := r.IntN(10)
			stride := Pad(rows) + Lanes*r.IntN(2)
			x := numbers(r, stride*dims, false)
			sv, coef := numbers(r, count*dims, false), numbers(r, count, false)
			factor := -math.Exp2(float64(r.IntN(16) - 12))
			for i := range stride {
				row := i
				if i >= rows { // padding may have any value
					for k := range dims {
						x[k*stride+i] = hostile[r.IntN(len(hostile))]
					}
				} else if count > 0 && r.IntN(3) == 0 { // the row is a support vector
					for k := range dims {
						x[k*stride+row] = sv[r.IntN(count)*dims+k]
					}
				}
			}
			sum := numbers(r, Pad(rows), true)
			RBF(sum, x, stride, sv, coef, dims, factor)
			point := make([]float64, dims)
			for i := range rows {
				for k := range point {
					point[k] = x[k*stride+i]
				}
				var want, slack float64
				for j, c := range coef {
					v, s := rbfTerm(point, sv[j*dims:(j+1)*dims], c, factor)
					want += v
					slack += s + math.Abs(v)*0x1p-51
				}
				if math.IsNaN(sum[i]) || math.Abs(sum[i]-want) > slack {
					t.Fatalf("%d rows of %d features, %d vectors: row %d is %v, want %v ± %v", rows, dims, count, i, sum[i], want, slack)
				}
			}
			same(t, sum, nil, "%d rows", rows)
		}
	})
}

// TestRBFEnds: the kernel is exactly 1 at distance 0, exactly 0 far away, decreases
// between, and is the same on all sides of a support vector.
func TestRBFEnds(t *testing.T) {
	each(t, func(t *testing.T) {
		for dims := 1; dims <= maxCols; dims++ {
			for count := 1; count <= 3; count++ {
				x := make([]float64, Lanes*dims)
				far := []float64{0, 100, 1e5, 1e160, 1e300, math.MaxFloat64}
				for k := range dims {
					for i := range Lanes {
						x[k*Lanes+i] = far[i%len(far)]
					}
				}
				sv := make([]float64, count*dims)
				coef := []float64{1, 0.5, 0.25}[:count]
				sum := make([]float64, Lanes)
				RBF(sum, x, Lanes, sv, coef, dims, -1)
				for i, s := range sum {
					want := 0.0
					if i%len(far) == 0 {
						want = []float64{1, 1.5, 1.75}[count-1]
					}
					if s != want {
						t.Errorf("%d features, %d vectors at distance %v: %v, want exactly %v", dims, count, far[i%len(far)], s, want)
					}
				}
			}
		}
		sum, x := make([]float64, Lanes), make([]float64, Lanes)
		for _, scale := range []float64{1e-170, 1e-12, 0.01, 1, 5} {
			for i := range x {
				x[i] = scale * float64(i)
			}
			RBF(sum, x, Lanes, []float64{0}, []float64{1}, 1, -1)
			for i := range sum[1:] {
				if sum[i+1] > sum[i] || sum[i] > 1 {
					t.Errorf("%v at %v, but %v at %v", sum[i+1], x[i+1], sum[i], x[i])
				}
			}
		}
		// Padding lanes must not make a row slow or wrong, even if they hold tiny or
		// huge numbers.
		for i := range x {
			x[i] = hostile[i%len(hostile)]
		}
		x[3] = 0.5
		RBF(sum, x, Lanes, []float64{0.5}, []float64{3}, 1, -7)
		if sum[3] != 3 {
			t.Errorf("amid hostile lanes: %v, want 3", sum[3])
		}
		RBF(sum, x, Lanes, nil, nil, 1, -1)
		for _, s := range sum {
			if s != 0 {
				t.Errorf("of no vectors: %v", s)
			}
		}
	})
}

// TestRBFCancellation: rows and support vectors far from 0, close to each other.
func TestRBFCancellation(t *testing.T) {
	each(t, func(t *testing.T) {
		x := make([]float64, Lanes)
		for i := range x {
			x[i] = 1.7e9 + float64(i)/16
		}
		sum := make([]float64, Lanes)
		RBF(sum, x, Lanes, []float64{1.7e9}, []float64{1}, 1, -0.3)
		for i, s := range sum {
			if want := math.Exp2(-0.3 * float64(i*i) / 256); math.Abs(s-want) > 4e-16 {
				t.Errorf("row %d: %v, want %v", i, s, want)
			}
		}
	})
}

func TestExp2(t *testing.T) {
	each(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		for n := range maxRows + 1 {
			x := numbers(r, n, false)
			for i := range x {
				x[i] = -math.Abs(x[i]) * math.Exp2(float64(r.IntN(10)))
				if r.IntN(8) == 0 {
					x[i] = -float64(r.IntN(1020)) / 2
				}
			}
			if n > 3 {
				x[0], x[1], x[2], x[3] = 0, -2000, math.Inf(-1), math.Copysign(0, -1)
			}
			dst := numbers(r, n, true)
			Exp2(dst, x)
			for i, v := range x {
				want := math.Exp2(v)
				if v == math.Trunc(v) && v > -1022 && dst[i] != want {
					t.Errorf("2^%v is %v", v, dst[i])
				}
				if math.IsNaN(dst[i]) || math.Abs(dst[i]-want) > want*0x1p-52+0x1p-1022 {
					t.Errorf("2^%v is %v, want %v", v, dst[i], want)
				}
			}
			same(t, dst, nil, "%d numbers", n)
			Exp2(x, x) // in place
			same(t, x, dst, "%d numbers in place", n)
		}
	})
}

func TestStandardize(t *testing.T) {
	each(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(5, 6))
		for n := range maxRows + 1 {
			for _, bad := range []bool{false, true} {
				x := numbers(r, n, bad)
				mean, scale := r.NormFloat64(), math.Exp(r.NormFloat64())
				want, got := make([]float64, n), numbers(r, n, true)
				ok := standardize(want, x, mean, scale)
				if Standardize(got, x, mean, scale) != ok {
					t.Fatalf("%d numbers: all finite is %v", n, !ok)
				}
				same(t, got, want, "%d numbers", n)
				if Finite(x) != finite(x) {
					t.Fatalf("%d numbers: Finite is %v", n, Finite(x))
				}
			}
			x := numbers(r, n, false)
			for i := range x { // at every position of the number that isn't finite
				was := x[i]
				for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
					if x[i] = v; Finite(x) || Standardize(make([]float64, n), x, 0, 1) {
						t.Fatalf("%v is taken for finite", v)
					}
				}
				x[i] = was
			}
		}
	})
}

func TestDecide(t *testing.T) {
	each(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(7, 8))
		for n := range maxRows + 1 {
			for _, bad := range []bool{false, true} {
				sum := numbers(r, n, bad)
				intercept := r.NormFloat64()
				if n > 0 {
					sum[r.IntN(n)] = -intercept // a tie
				}
				label, decision := numbers(r, n, false), numbers(r, n, false)
				wantLabel, wantDecision := make([]float64, n), make([]float64, n)
				for _, near := range []float64{-1, 0, 1e-9, 0.5} {
					want := decide(wantLabel, wantDecision, sum, intercept, near)
					if got := Decide(label, decision, sum, intercept, near); got != want {
						t.Fatalf("%d sums: all clear is %v", n, got)
					}
					same(t, label, wantLabel, "labels of %d sums", n)
					same(t, decision, wantDecision, "decisions of %d sums", n)
				}
			}
		}
	})
}

func TestAddScaled(t *testing.T) {
	each(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(9, 10))
		for n := range maxRows + 1 {
			x, got, f := numbers(r, n, n%2 == 0), numbers(r, n, n%3 == 0), r.NormFloat64()
			want := append([]float64(nil), got...)
			addScaled(want, x, f)
			AddScaled(got, x, f)
			same(t, got, want, "%d numbers", n)
		}
	})
}

func TestTranspose(t *testing.T) {
	each(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(11, 12))
		for rows := range maxRows + 1 {
			for cols := 1; cols <= maxCols; cols++ {
				x := numbers(r, rows*cols, true)
				stride := rows + 3
				got := make([]float64, stride*cols)
				want := make([]float64, stride*cols)
				for i := range got {
					got[i], want[i] = 77, 77
				}
				transpose(want, stride, x, 0, rows, cols)
				Transpose(got, stride, x, rows, cols)
				same(t, got, want, "%d rows of %d columns", rows, cols)
			}
		}
	})
}
