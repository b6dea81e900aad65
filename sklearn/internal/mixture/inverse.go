package mixture

import "math"

// maxInverted is the largest number of features for which a matrix is inverted. The
// time grows with its third power.
const maxInverted = 256

// pseudoInverse is scipy.linalg.pinvh for a symmetric matrix with n rows. It finds the
// eigenvectors by Jacobi's rotations and leaves out eigenvalues near 0. It calls spend
// before each sweep, and returns nil if spend returns an error.
func pseudoInverse(matrix []float64, n int, spend func(int) error) []float64 {
	a := append([]float64(nil), matrix...)
	v := make([]float64, n*n) // eigenvectors in columns
	for i := range n {
		v[i*n+i] = 1
	}
	for range 60 { // sweeps; twelve are enough
		off, all := 0.0, 0.0
		for i := range n {
			for j := range n {
				all += a[i*n+j] * a[i*n+j]
				if i != j {
					off += a[i*n+j] * a[i*n+j]
				}
			}
		}
		if off <= 1e-40*all {
			break
		}
		if spend(3*n*n*n/2) != nil {
			return nil
		}
		for p := range n {
			for q := p + 1; q < n; q++ {
				rotate(a, v, n, p, q)
			}
		}
	}
	if spend(n*n*n) != nil {
		return nil
	}
	most := 0.0
	for i := range n {
		most = max(most, math.Abs(a[i*n+i]))
	}
	limit := most * float64(n) * 0x1p-52
	out := make([]float64, n*n)
	for k := range n {
		w := a[k*n+k]
		if math.Abs(w) <= limit {
			continue
		}
		for i := range n {
			for j := range n {
				out[i*n+j] += v[i*n+k] / w * v[j*n+k]
			}
		}
	}
	return out
}

// rotate makes element (p, q) zero.
func rotate(a, v []float64, n, p, q int) {
	if a[p*n+q] == 0 {
		return
	}
	theta := (a[q*n+q] - a[p*n+p]) / (2 * a[p*n+q])
	t := 1 / (math.Abs(theta) + math.Hypot(theta, 1))
	if theta < 0 {
		t = -t
	}
	c := 1 / math.Hypot(t, 1)
	s := t * c
	for k := range n {
		x, y := a[k*n+p], a[k*n+q]
		a[k*n+p], a[k*n+q] = c*x-s*y, s*x+c*y
	}
	for k := range n {
		x, y := a[p*n+k], a[q*n+k]
		a[p*n+k], a[q*n+k] = c*x-s*y, s*x+c*y
	}
	for k := range n {
		x, y := v[k*n+p], v[k*n+q]
		v[k*n+p], v[k*n+q] = c*x-s*y, s*x+c*y
	}
}
