// Package neighbors computes scikit-learn's models that keep their training rows and
// use the nearest ones.
package neighbors

import (
	"math"
	"slices"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

type metric int

const (
	euclidean metric = iota
	manhattan
	chebyshev
	minkowski
	squared
	canberra
	hamming
	cosine
	brayCurtis
	weighted // minkowski with a weight for each column
	metrics  // the number of metrics
)

var metricNames = [metrics]string{"euclidean", "manhattan", "chebyshev", "minkowski", "sqeuclidean", "canberra", "hamming", "cosine", "braycurtis", "minkowski"}

// known are the metrics by scikit-learn's names.
var known = map[string]metric{
	"euclidean": euclidean, "l2": euclidean, "manhattan": manhattan, "l1": manhattan, "cityblock": manhattan, "chebyshev": chebyshev, "infinity": chebyshev,
	"minkowski": minkowski, "p": minkowski, "wminkowski": weighted, "seuclidean": weighted, "sqeuclidean": squared, "canberra": canberra, "hamming": hamming,
	"cosine": cosine, "braycurtis": brayCurtis,
}

// nearest finds the nearest training rows by comparing with all of them. scikit-learn's
// search trees find the same rows, only faster.
type nearest struct {
	features int
	k        int
	metric   metric
	p        float64   // for minkowski
	weights  []float64 // for weighted: the factor of |difference|^p of each column
	rows     []float64 // the training rows, one after the other
}

func (n *nearest) count() int { return len(n.rows) / n.features }

func (n *nearest) read(a *estimator.Attributes, k string) {
	n.k = a.Int(k, 1, 1<<30)
	name := a.Text("effective_metric_", a.Text("metric", "minkowski"))
	var ok bool
	if n.metric, ok = known[name]; !ok {
		a.Unsupported("metric="+name, "use euclidean, manhattan, chebyshev, minkowski, canberra, braycurtis, hamming or cosine")
		return
	}
	if n.metric == brayCurtis && a.Text("_fit_method", "") != "ball_tree" { // SciPy and scikit-learn's trees define this metric differently for negative numbers
		a.Unsupported("metric=braycurtis without algorithm=ball_tree", "use algorithm=ball_tree")
		return
	}
	cols := -1
	if a.Features() > 0 {
		cols = a.Features()
	}
	rows := 0
	n.rows, rows, n.features = a.Matrix("_fit_X", -1, cols)
	if a.Err() == nil && n.k > rows {
		a.Fail("%d neighbours are needed, but there are %d training rows", n.k, rows)
	}
	n.parametrize(a, name)
}

// parametrize reads the metric's parameters that the fit chose. The parameters p and
// metric_params have no effect after the fit.
func (n *nearest) parametrize(a *estimator.Attributes, name string) {
	if n.metric == minkowski || name == "wminkowski" {
		n.p = 2
		if name == "minkowski" {
			n.p = a.FloatOr("p", 2) // used if effective_metric_params_ doesn't have p
		}
	}
	v := a.Value("effective_metric_params_")
	if v == 0 {
		v = a.Value("metric_params")
	}
	scaled := false
	for e := a.Graph().Entries(v); v.Kind() == pickle.KindDict; {
		key, v, ok := e.Pair()
		if !ok {
			break
		}
		number, isNumber := a.Graph().Number(v)
		switch what := string(key); {
		case what == "p" && isNumber && n.p > 0:
			n.p = number
		case what == "w" && v.Kind() == pickle.KindNone:
		case what == "w" && name == "minkowski" || what == "w" && name == "wminkowski" || what == "V" && name == "seuclidean":
			n.weights, _ = a.ArrayOf(v, "metric_params", true, n.features)
			scaled = true
		default:
			a.Unsupported("metric_params with "+what+" for metric="+name, "use p and w with metric=minkowski, or no metric_params")
			return
		}
	}
	switch {
	case a.Err() != nil:
	case (n.metric == weighted) && !scaled:
		a.Unsupported("metric="+name+" without its parameters", "use metric=minkowski")
	case name == "seuclidean":
		n.p = 2
		for i, v := range n.weights {
			n.weights[i] = 1 / v
		}
	case name == "wminkowski": // its weights are raised to the power p too
		for i, w := range n.weights {
			n.weights[i] = math.Pow(w, n.p)
		}
	case scaled:
		n.metric = weighted
	case n.metric == minkowski && n.p == 2:
		n.metric, n.p = euclidean, 0
	case n.metric == minkowski && n.p == 1:
		n.metric, n.p = manhattan, 0
	case n.metric == minkowski && math.IsInf(n.p, 1):
		n.metric, n.p = chebyshev, 0
	}
}

func (n *nearest) Features() int { return n.features }

func (n *nearest) fields(c *estimator.Codec) {
	m := int(n.metric)
	c.Int(&n.features)
	c.Int(&n.k)
	c.Int(&m)
	n.metric = metric(m)
	c.Float(&n.p)
	c.Floats(&n.weights)
	c.Floats(&n.rows)
}

func (n *nearest) check(class string) error {
	if n.features < 1 || len(n.rows) == 0 || len(n.rows)%n.features != 0 || n.k < 1 || n.k > n.count() || n.metric >= metrics ||
		(n.metric == minkowski || n.metric == weighted) && !(n.p > 0) || (n.metric == weighted) != (n.weights != nil) || n.weights != nil && len(n.weights) != n.features {
		return estimator.Misfit("%s: %d neighbours don't fit %d numbers in rows of %d features", class, n.k, len(n.rows), n.features)
	}
	return nil
}

func (n *nearest) parameters() map[string]any {
	p := map[string]any{"n_neighbors": n.k, "metric": metricNames[n.metric], "training_rows": n.count()}
	if n.metric == minkowski || n.metric == weighted {
		p["p"] = n.p
	}
	if n.metric == weighted {
		p["weighted"] = true
	}
	return p
}

// TrainingRange implements estimator.Ranged.
func (n *nearest) TrainingRange() (low, high []float64) {
	low, high = make([]float64, n.features), make([]float64, n.features)
	copy(low, n.rows)
	copy(high, n.rows)
	for i, v := range n.rows {
		c := i % n.features
		low[c], high[c] = min(low[c], v), max(high[c], v)
	}
	return low, high
}

// reduced returns a distance without its last, monotonic step.
func (n *nearest) reduced(row []float64, at int) float64 {
	if n.metric >= canberra {
		return n.other(row, n.rows[at*n.features:(at+1)*n.features])
	}
	var d float64
	for c, w := range n.rows[at*n.features : (at+1)*n.features] {
		e := math.Abs(row[c] - w)
		switch n.metric {
		case euclidean, squared:
			d += float64(e * e)
		case manhattan:
			d += e
		case chebyshev:
			d = max(d, e)
		default:
			d += math.Pow(e, n.p)
		}
	}
	return d
}

// other returns the distance for a metric that has no reduced form.
func (n *nearest) other(x, y []float64) float64 {
	var d, xx, yy float64
	for c, v := range x {
		w := y[c]
		switch n.metric {
		case canberra:
			if sum := math.Abs(v) + math.Abs(w); sum > 0 {
				d += math.Abs(v-w) / sum
			}
		case hamming:
			if v != w {
				d++
			}
		case brayCurtis:
			d += math.Abs(v - w)
			xx += math.Abs(v) + math.Abs(w)
		case weighted:
			d += float64(n.weights[c] * math.Pow(math.Abs(v-w), n.p))
		default:
			d += float64(v * w)
			xx += float64(v * v)
			yy += float64(w * w)
		}
	}
	switch {
	case n.metric == hamming:
		return d / float64(n.features)
	case n.metric == brayCurtis && xx > 0:
		return d / xx
	case n.metric == cosine && (xx == 0 || yy == 0):
		return 1
	case n.metric == cosine:
		return min(max(1-d/(math.Sqrt(xx)*math.Sqrt(yy)), 0), 2)
	}
	return d
}

func (n *nearest) distance(reduced float64) float64 {
	switch n.metric {
	case euclidean:
		return math.Sqrt(reduced)
	case minkowski, weighted:
		return math.Pow(reduced, 1/n.p)
	}
	return reduced
}

// find writes the k nearest training rows and their distances, the nearest first. If
// distances are equal, the training row that comes first wins.
func (n *nearest) find(row []float64, index []int32, distance []float64) {
	have := 0
	for at := range n.count() {
		d := n.reduced(row, at)
		if have == n.k && !(d < distance[have-1]) {
			continue
		}
		i := have
		if have < n.k {
			have++
		} else {
			i--
		}
		for ; i > 0 && d < distance[i-1]; i-- {
			index[i], distance[i] = index[i-1], distance[i-1]
		}
		index[i], distance[i] = int32(at), d
	}
	for i, d := range distance[:have] {
		distance[i] = n.distance(d)
	}
}

// LocalOutlierFactor is an outlier detector, fitted with novelty=True: a decision of at
// least 0 means an inlier.
type LocalOutlierFactor struct {
	nearest
	density []float64 // for each training row, its local reachability density
	reach   []float64 // for each training row, the distance to its k-th neighbour
	offset  float64
}

// ReadLocalOutlierFactor reads the attributes of a LocalOutlierFactor from a file.
func ReadLocalOutlierFactor(a *estimator.Attributes) estimator.Estimator {
	l := &LocalOutlierFactor{}
	if !a.Bool("novelty", false) {
		a.Unsupported("novelty=False, which is only for the training rows themselves", "train it with novelty=True")
		return l
	}
	l.read(a, "n_neighbors_")
	if a.Err() != nil {
		return l
	}
	l.density = a.Vector("_lrd", l.count())
	d, _, cols := a.Matrix("_distances_fit_X_", l.count(), -1)
	if a.Err() == nil && cols < l.k {
		a.Fail("_distances_fit_X_ has %d columns, but there are %d neighbours", cols, l.k)
	}
	if a.Err() != nil {
		return l
	}
	if err := a.Graph().Charge(8 * l.count()); err != nil {
		a.Fail("%w", err)
		return l
	}
	l.reach = make([]float64, 0, l.count())
	for i := range l.count() {
		l.reach = append(l.reach, d[i*cols+l.k-1])
	}
	l.offset = a.Float("offset_")
	return l
}

// Class implements estimator.Estimator, as do the methods below.
func (l *LocalOutlierFactor) Class() string { return "LocalOutlierFactor" }

func (l *LocalOutlierFactor) Outputs(m estimator.Method, _ int) int {
	switch m {
	case estimator.Predict, estimator.DecisionFunction, estimator.ScoreSamples:
		return 1
	}
	return 0
}

func (l *LocalOutlierFactor) Parameters() map[string]any {
	p := l.parameters()
	p["offset"] = l.offset
	return p
}

func (l *LocalOutlierFactor) Fields(c *estimator.Codec) {
	l.fields(c)
	c.Floats(&l.density)
	c.Floats(&l.reach)
	c.Float(&l.offset)
}

func (l *LocalOutlierFactor) Check() error {
	if err := l.check(l.Class()); err != nil {
		return err
	}
	if len(l.density) != l.count() || len(l.reach) != l.count() {
		return estimator.Misfit("LocalOutlierFactor: %d densities don't fit %d training rows", len(l.density), l.count())
	}
	return nil
}

func (l *LocalOutlierFactor) samples(x *estimator.Block, dst []float64, ws *estimator.Workspace) error {
	if err := x.CheckFinite(l.Class()); err != nil {
		return err
	}
	row, index, distance := ws.Floats(l.features), ws.Int32s(l.k), ws.Floats(l.k)
	for r := range dst {
		x.Row(r, row)
		l.find(row, index, distance)
		sum := 0.0
		for i, at := range index {
			sum += max(distance[i], l.reach[at])
		}
		density := 1 / (sum/float64(l.k) + 1e-10)
		sum = 0
		for _, at := range index {
			sum += l.density[at] / density
		}
		dst[r] = -sum / float64(l.k)
	}
	return nil
}

func (l *LocalOutlierFactor) Decide(x *estimator.Block, prediction, score []float64, ws *estimator.Workspace) error {
	if score == nil {
		score = ws.Floats(x.Rows)
	}
	score = score[:x.Rows]
	if err := l.samples(x, score, ws); err != nil {
		return err
	}
	for i, s := range score {
		score[i] = s - l.offset
		if prediction != nil {
			prediction[i] = 1
			if score[i] < 0 {
				prediction[i] = -1
			}
		}
	}
	return nil
}

func (l *LocalOutlierFactor) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	switch m {
	case estimator.Predict:
		return l.Decide(x, out.Col(0), nil, ws)
	case estimator.ScoreSamples:
		return l.samples(x, out.Col(0), ws)
	}
	return l.Decide(x, nil, out.Col(0), ws)
}

// Degenerate implements estimator.Detector. A row's own density is at most what the
// least reach of k training rows allows, and the density of its neighbours is at least
// the least of k. So the factor has a lower bound. It has no upper bound, because a row
// may be far away.
func (l *LocalOutlierFactor) Degenerate() (label int, why string) {
	least := func(x []float64) float64 {
		sum := 0.0
		for _, v := range slices.Sorted(slices.Values(x))[:l.k] {
			sum += v
		}
		return sum / float64(l.k)
	}
	if bound := least(l.density) * (least(l.reach) + 1e-10); -bound*(1-1e-9)-l.offset < 0 {
		return -1, "even a row in the middle of the training rows is an outlier; train it again with less contamination"
	}
	return 0, ""
}

// KNeighbors is KNeighborsClassifier and KNeighborsRegressor.
type KNeighbors struct {
	nearest
	class      string
	labels     estimator.Labels // for the classifier
	outputs    int              // the columns of targets
	targets    []float64        // for each training row its targets; for the classifier the index of its label
	byDistance bool             // weights are 1/distance
}

// NewKNeighbors returns an empty KNeighbors for a record to be read into.
func NewKNeighbors(class string) *KNeighbors { return &KNeighbors{class: class} }

// ReadKNeighbors reads the attributes of a KNeighbors from a file.
func ReadKNeighbors(a *estimator.Attributes) estimator.Estimator {
	n := NewKNeighbors(a.Class)
	switch w := a.Text("weights", "uniform"); w {
	case "uniform":
	case "distance":
		n.byDistance = true
	default:
		a.Unsupported("weights="+w, "use uniform or distance")
	}
	n.read(a, "n_neighbors")
	if a.Err() != nil {
		return n
	}
	n.outputs = 1
	if a.Dims("_y") == 2 {
		n.targets, _, n.outputs = a.Matrix("_y", n.count(), -1)
	} else {
		n.targets = a.Vector("_y", n.count())
	}
	if a.Class == "KNeighborsClassifier" {
		n.labels = a.Labels("classes_")
	}
	return n
}

func (n *KNeighbors) Class() string { return n.class }

// Labels returns nil for the regressor.
func (n *KNeighbors) Labels() *estimator.Labels {
	if n.labels.Len() == 0 {
		return nil
	}
	return &n.labels
}

func (n *KNeighbors) Outputs(m estimator.Method, _ int) int {
	switch {
	case m == estimator.Predict:
		return n.outputs
	case m == estimator.PredictProba && n.labels.Len() > 0:
		return n.labels.Len()
	}
	return 0
}

func (n *KNeighbors) Parameters() map[string]any {
	p := n.parameters()
	p["weights"] = "uniform"
	if n.byDistance {
		p["weights"] = "distance"
	}
	return p
}

func (n *KNeighbors) Fields(c *estimator.Codec) {
	n.fields(c)
	n.labels.Fields(c)
	c.Int(&n.outputs)
	c.Floats(&n.targets)
	c.Bool(&n.byDistance)
}

func (n *KNeighbors) Check() error {
	if err := n.check(n.class); err != nil {
		return err
	}
	if n.outputs < 1 || n.outputs > 1<<20 || len(n.targets) != n.count()*n.outputs {
		return estimator.Misfit("%s: %d targets don't fit %d training rows", n.class, len(n.targets), n.count())
	}
	k := n.labels.Len()
	if k == 0 {
		return nil
	}
	if n.outputs != 1 {
		return estimator.Misfit("%s: %d outputs", n.class, n.outputs)
	}
	for _, t := range n.targets {
		if t < 0 || int(t) >= k || t != float64(int(t)) {
			return estimator.Misfit("%s: label %v isn't one of %d", n.class, t, k)
		}
	}
	return n.labels.Check(n.class)
}

// weigh turns distances into weights. If some distances are 0, only their rows count.
func (n *KNeighbors) weigh(distance []float64) {
	zero := false
	for _, d := range distance {
		zero = zero || d == 0
	}
	for i, d := range distance {
		switch {
		case !n.byDistance:
			distance[i] = 1
		case !zero:
			distance[i] = 1 / d
		case d == 0:
			distance[i] = 1
		default:
			distance[i] = 0
		}
	}
}

// unweighed refuses a row that is infinitely far from its neighbours.
func (n *KNeighbors) unweighed(row int) error {
	return estimator.Refuse("%s: row %d is so far from all training rows that no training row has a weight", n.class, row)
}

func (n *KNeighbors) Compute(m estimator.Method, x, out *estimator.Block, ws *estimator.Workspace) error {
	if err := x.CheckFinite(n.class); err != nil {
		return err
	}
	row, index, weight := ws.Floats(n.features), ws.Int32s(n.k), ws.Floats(n.k)
	proba := ws.Floats(max(1, n.labels.Len()))
	for r := range x.Rows {
		x.Row(r, row)
		n.find(row, index, weight)
		n.weigh(weight)
		if n.labels.Len() == 0 {
			for o := range n.outputs {
				sum, total := 0.0, 0.0
				for i, at := range index {
					sum += float64(weight[i] * n.targets[int(at)*n.outputs+o])
					total += weight[i]
				}
				if total == 0 {
					return n.unweighed(x.First + r)
				}
				out.Col(o)[r] = sum / total
			}
			continue
		}
		clear(proba)
		total := 0.0
		for i, at := range index {
			proba[int(n.targets[at])] += weight[i]
			total += weight[i]
		}
		if total == 0 {
			return n.unweighed(x.First + r)
		}
		best := 0
		for c, p := range proba {
			if m == estimator.PredictProba {
				out.Col(c)[r] = p / total
			} else if p > proba[best] {
				best = c
			}
		}
		if m == estimator.Predict {
			out.Col(0)[r] = n.labels.Values[best]
		}
	}
	return nil
}

// Constant implements estimator.Steady.
func (n *KNeighbors) Constant() (constant bool, why string) {
	for i, v := range n.targets {
		if v != n.targets[i%n.outputs] {
			return false, ""
		}
	}
	return true, "all its training rows have the same target"
}
