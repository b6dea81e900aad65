package estimator

import "math"

// The functions below use package math where its results are exact except for the last
// digit. Elsewhere they correct it: its exponentials overflow too early, its logarithms
// take subnormal numbers for larger ones, and its logarithms and inverse functions lose
// digits near 1.

// Exp is e^x.
func Exp(x float64) float64 {
	if x > 709 && x < 710 {
		return 2 * expHalf(x)
	}
	return math.Exp(x)
}

// expHalf is e^x/2. It overflows only if the result does.
func expHalf(x float64) float64 {
	const high, low = 6.93147180369123816490e-01, 1.90821492927058770002e-10 // the logarithm of 2 in two parts
	e := math.Exp(x - high)
	return e - e*low
}

// Sinh is the hyperbolic sine.
func Sinh(x float64) float64 {
	if math.Abs(x) > 700 && math.Abs(x) < 711 {
		return math.Copysign(expHalf(math.Abs(x)), x)
	}
	return math.Sinh(x)
}

// Cosh is the hyperbolic cosine.
func Cosh(x float64) float64 {
	if math.Abs(x) > 700 && math.Abs(x) < 711 {
		return expHalf(math.Abs(x))
	}
	return math.Cosh(x)
}

// Ln is the natural logarithm.
func Ln(x float64) float64 {
	if x < 0x1p-1022 && x > 0 {
		return math.Log(x*0x1p54) - 54*math.Ln2
	}
	return math.Log(x)
}

// Log10 is the logarithm to base 10.
func Log10(x float64) float64 {
	if x < 0x1p-1022 && x > 0 {
		return math.Log10(x*0x1p54) - 54*(math.Ln2/math.Ln10)
	}
	return math.Log10(x)
}

// Log2 is the logarithm to base 2.
func Log2(x float64) float64 {
	if x > 0.7 && x < 1.5 {
		return math.Log1p(x-1) / math.Ln2
	}
	return math.Log2(x)
}

// Asin is the inverse of the sine.
func Asin(x float64) float64 {
	if a := math.Abs(x); a > 0.5 && a <= 1 {
		return math.Copysign(math.Pi/2-2*math.Asin(math.Sqrt((1-a)/2)), x)
	}
	return math.Asin(x)
}

// Acos is the inverse of the cosine.
func Acos(x float64) float64 {
	switch {
	case x > 0.5 && x <= 1:
		return 2 * math.Asin(math.Sqrt((1-x)/2))
	case x < -0.5 && x >= -1:
		return math.Pi - 2*math.Asin(math.Sqrt((1+x)/2))
	}
	return math.Acos(x)
}
