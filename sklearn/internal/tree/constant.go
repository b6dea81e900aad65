package tree

import "slices"

const (
	sameLeaves = "in each of its trees all leaves have the same value; train it with more varied rows or targets"
	sameClass  = "in all its trees all leaves prefer the same class; train it with more varied rows, or with more rows of the other classes"
)

// Constant implements estimator.Steady.
func (f *Forest) Constant() (constant bool, why string) {
	if f.count() == 0 {
		return false, "" // a record with steps, whose findings were made when it was written
	}
	if f.labels.Len() == 0 {
		return f.sameLeaves(f.values, f.width), sameLeaves
	}
	best := -1
	for i := range f.count() {
		if !f.leaf(i) {
			continue
		}
		v := f.values[i*f.width : (i+1)*f.width]
		top := 0
		for c := range v {
			if v[c] > v[top] {
				top = c
			}
		}
		for c := range v {
			if c != top && v[c] == v[top] {
				return false, "" // a tie, which other trees may decide
			}
		}
		if best >= 0 && top != best {
			return false, ""
		}
		best = top
	}
	return true, sameClass
}

// sameLeaves reports whether each tree has the same value in all its leaves.
func (t *Trees) sameLeaves(values []float64, width int) bool {
	for tree, root := range t.roots {
		end := t.count()
		if tree+1 < len(t.roots) {
			end = int(t.roots[tree+1])
		}
		var first []float64
		for i := int(root); i < end; i++ {
			if !t.leaf(i) {
				continue
			}
			v := values[i*width : (i+1)*width]
			if first == nil {
				first = v
			}
			if !slices.Equal(first, v) {
				return false
			}
		}
	}
	return true
}

// Constant implements estimator.Steady.
func (b *GradientBoosting) Constant() (constant bool, why string) {
	return b.count() > 0 && b.sameLeaves(b.values, 1), sameLeaves
}
