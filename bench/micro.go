package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// modelKind describes a set of models.
type modelKind struct {
	name, what   string
	count, quick int
	scale        float64 // the scale of the decision values, which the tolerance of 1e-12 is relative to
	load         float64 // the target: how much faster than pickle.loads the model is read
}

var kinds = []modelKind{
	{"ref_1", "StandardScaler + OneClassSVM, 1 feature, 2 support vectors", 500, 100, 0.1, 10},
	{"ref_8", "the same, 8 features, about 7 support vectors", 500, 100, 0.1, 10},
	{"sv200_1", "the same, 1 feature, 200 support vectors", 200, 20, 200, 6},
	{"sv200_8", "the same, 8 features, 200 support vectors", 200, 20, 200, 6},
	{"if100_1", "StandardScaler + IsolationForest of 100 trees, 1 feature", 24, 3, 1, 1.5},
	{"if100_8", "the same, 8 features", 24, 3, 1, 1.5},
}

func (k modelKind) size(b *bench) int {
	if b.quick {
		return k.quick
	}
	return k.count
}

// asks returns a contestant that sends a question to a worker.
func asks(w *worker, name string, q question) *contestant {
	return &contestant{name: name, run: func(passes int) (sample, error) {
		q.Op, q.Passes = "run", passes
		r, err := w.ask(q)
		return sample{CPU: r.CPU / r.Units, Wall: r.Wall / r.Units}, err
	}}
}

// agree compares the answers to two questions. It returns how many labels differ, and the
// largest difference of scores.
func (b *bench) agree(ours *worker, a question, peer *worker, p question) (labels, rows int, most float64, err error) {
	a.Op, a.Out = "answers", filepath.Join(b.scratch, "ours.f64")
	p.Op, p.Out = "answers", filepath.Join(b.scratch, "peer.f64")
	if _, err := ours.ask(a); err != nil {
		return 0, 0, 0, err
	}
	if _, err := peer.ask(p); err != nil {
		return 0, 0, 0, err
	}
	x, err1 := readFloats(a.Out)
	y, err2 := readFloats(p.Out)
	if err1 != nil || err2 != nil || len(x) != len(y) {
		return 0, 0, 0, fmt.Errorf("answers of %s: %d and %d values, %v, %v", a.Set, len(x), len(y), err1, err2)
	}
	rows = len(x) / 2
	for i := range rows {
		if x[i] != y[i] {
			labels++
		}
		most = max(most, math.Abs(x[rows+i]-y[rows+i]))
	}
	return labels, rows, most, nil
}

// mustAgree compares with scikit-learn. It fails if a label differs, or a score too much.
func (b *bench) mustAgree(k modelKind, ours *worker, a question, peer *worker, p question) (string, error) {
	labels, rows, most, err := b.agree(ours, a, peer, p)
	if err != nil {
		return "", err
	}
	if labels > 0 || !(most <= 1e-12*k.scale) {
		return "", fmt.Errorf("%s, %s: %d of %d labels differ from %s, scores by up to %g, so nothing is measured", k.name, a.What, labels, rows, p.What, most)
	}
	return fmt.Sprintf("%s: 0 of %s, scores within %.1g", k.name, thousands(int64(rows)), most), nil
}

func versions(w *worker) (map[string]string, error) {
	r, err := w.ask(question{Op: "versions"})
	return r.Versions, err
}

func runReader(ctx context.Context, b *bench) (*section, error) {
	ours, err := b.startOurs(ctx, "")
	if err != nil {
		return nil, err
	}
	defer ours.stop()
	peer, err := b.startPeer(ctx)
	if err != nil {
		return nil, err
	}
	defer peer.stop()
	s := &section{}
	if s.Versions, err = versions(peer); err != nil {
		return nil, err
	}
	t := grid{Caption: "CPU time to read one model: `sklearn.Load` of a pickle, `RecordReader.Read` of a native record, and `pickle.loads` with scikit-learn. All bytes are in memory.",
		Head: []string{"set", "pickle", "pickle.loads", "Load", "ratio", "by wall time", "record", "ratio", "CPU-s per million: loads, Load, record"}}
	for _, k := range kinds {
		dir, err := b.setOf(ctx, k.name, k.size(b))
		if err != nil {
			return nil, err
		}
		q := question{Set: k.name, Folder: dir, What: "load"}
		record, load := q, q
		record.What = "record"
		cs := []*contestant{asks(ours, "Load", load), asks(ours, "ReadRecord", record), asks(peer, "pickle.loads", q)}
		got, err := duel(cs, b.repeats, b.span)
		if err != nil {
			return nil, err
		}
		size, err := meanSize(dir)
		if err != nil {
			return nil, err
		}
		byCPU := ratioOf(got[0], got[2], cpuOf)
		l, r, p := median(pick(got[0], cpuOf)), median(pick(got[1], cpuOf)), median(pick(got[2], cpuOf))
		t.add(k.name, size, took(p), took(l), byCPU.String(), ratioOf(got[0], got[2], wallOf).String(), took(r), short(ratioOf(got[1], got[2], cpuOf).Median)+"×",
			fmt.Sprintf("%s, %s, %s", short(1e6*p), short(1e6*l), short(1e6*r)))
		s.Targets = append(s.Targets, atLeast("unpickle against pickle.loads, "+k.name, k.load, byCPU.Median, "×", ""))
	}
	s.Tables = append(s.Tables, t)
	return s, nil
}

func meanSize(dir string) (string, error) {
	ends, err := readFloats(filepath.Join(dir, "models.u64"))
	if err != nil {
		return "", err
	}
	total := float64(math.Float64bits(ends[len(ends)-1])) / float64(len(ends)-1)
	if total > 1e6 {
		return short(total/1e6) + " MB", nil
	}
	return short(total/1e3) + " KB", nil
}

func runKernels(ctx context.Context, b *bench) (*section, error) {
	peer, err := b.startPeer(ctx)
	if err != nil {
		return nil, err
	}
	defer peer.stop()
	s := &section{}
	if s.Versions, err = versions(peer); err != nil {
		return nil, err
	}
	levels := kernels()
	ours := make([]*worker, len(levels))
	for i, l := range levels {
		if ours[i], err = b.startOurs(ctx, l); err != nil {
			return nil, err
		}
		defer ours[i].stop()
	}
	r := &kernelReport{levels: levels}
	r.begin()
	for _, k := range kinds {
		if err := b.kernelsOf(ctx, k, ours, peer, r); err != nil {
			return nil, err
		}
	}
	s.Tables = []grid{r.times, r.ratios}
	s.Targets = r.targets
	s.Notes = append(s.Notes, "Labels that differ from scikit-learn's: "+strings.Join(r.agreed, "; ")+".")
	if len(r.odd) > 0 {
		s.Notes = append(s.Notes, "onnxruntime computes these models in float32: "+strings.Join(r.odd, "; ")+".")
	}
	return s, nil
}

// kernelReport collects the results of runKernels.
type kernelReport struct {
	levels        []string
	times, ratios grid
	targets       []target
	agreed, odd   []string
}

const onnxModels = 5 // making a session takes long

func (r *kernelReport) begin() {
	r.times = grid{Caption: "CPU time to score 60 rows with one model that was read before, for each value of FLEETSCORE_CPU. `PredictInto` returns predictions and decision values, `predict` returns only predictions.", Head: []string{"set"}}
	r.times.Head = append(r.times.Head, r.levels...)
	r.times.Head = append(r.times.Head, "record + score", "predict", "NumPy, stacked", "onnxruntime")
	r.ratios = grid{Caption: "The same figures divided by Fleetscore's: the median of the pairs (smallest to largest), by CPU time.", Head: []string{"set"}}
	for _, l := range r.levels {
		r.ratios.Head = append(r.ratios.Head, "predict ÷ "+l)
	}
	fast := r.levels[0]
	r.ratios.Head = append(r.ratios.Head, "by wall time ÷ "+fast, "stacked ÷ "+fast, "onnxruntime ÷ "+fast)
}

// kernelsOf measures one set.
func (b *bench) kernelsOf(ctx context.Context, k modelKind, ours []*worker, peer *worker, r *kernelReport) error {
	dir, err := b.setOf(ctx, k.name, k.size(b))
	if err != nil {
		return err
	}
	ask := func(what string) question { return question{Set: k.name, Folder: dir, What: what} }
	var cs []*contestant
	for i, w := range ours {
		cs = append(cs, asks(w, r.levels[i], ask("score")))
		agreed, err := b.mustAgree(k, w, ask("score"), peer, ask("predict"))
		if err != nil {
			return err
		}
		if i == 0 {
			r.agreed = append(r.agreed, agreed)
		}
	}
	if _, err := b.mustAgree(k, ours[0], ask("pack"), peer, ask("predict")); err != nil {
		return err
	}
	cs = append(cs, asks(ours[0], "pack", ask("pack")), asks(peer, "predict", ask("score")))
	pack, predict := len(ours), len(ours)+1
	stacked, onnx := 0, 0
	if !strings.HasPrefix(k.name, "if") {
		if _, err := b.mustAgree(k, ours[0], ask("score"), peer, ask("stacked")); err != nil {
			return err
		}
		stacked = len(cs)
		cs = append(cs, asks(peer, "stacked", ask("stacked")))
	}
	q := ask("onnx")
	q.Models = min(onnxModels, k.size(b))
	few := ask("score")
	few.Models = q.Models
	labels, rows, most, err := b.agree(ours[0], few, peer, q)
	if err == nil {
		onnx = len(cs)
		cs = append(cs, asks(peer, "onnxruntime", q))
		r.odd = append(r.odd, fmt.Sprintf("%s: %d of %s labels differ, scores by up to %.1g", k.name, labels, thousands(int64(rows)), most))
	} else {
		r.odd = append(r.odd, fmt.Sprintf("%s: does not convert (%s)", k.name, firstLine(err.Error())))
	}
	got, err := duel(cs, b.repeats, b.span)
	if err != nil {
		return err
	}
	r.add(k.name, got, pack, predict, stacked, onnx)
	return nil
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

func (r *kernelReport) add(name string, got [][]sample, pack, predict, stacked, onnx int) {
	n := len(r.levels)
	times, ratios := []string{name}, []string{name}
	for i := range n {
		times = append(times, took(median(pick(got[i], cpuOf))))
		ratios = append(ratios, ratioOf(got[i], got[predict], cpuOf).String())
	}
	ratios = append(ratios, ratioOf(got[0], got[predict], wallOf).String())
	times = append(times, took(median(pick(got[pack], cpuOf))), took(median(pick(got[predict], cpuOf))))
	for _, at := range []int{stacked, onnx} {
		if at == 0 {
			times, ratios = append(times, "–"), append(ratios, "–")
			continue
		}
		times = append(times, took(median(pick(got[at], cpuOf))))
		ratios = append(ratios, ratioOf(got[0], got[at], cpuOf).String())
	}
	r.times.Rows, r.ratios.Rows = append(r.times.Rows, times), append(r.ratios.Rows, ratios)

	against := func(level string, peer int) float64 {
		i := slices.Index(r.levels, level)
		if i < 0 {
			return math.NaN()
		}
		return ratioOf(got[i], got[peer], cpuOf).Median
	}
	add := func(what string, want, got float64) {
		if !math.IsNaN(got) { // NaN means that this machine doesn't have the kernel
			r.targets = append(r.targets, atLeast(what, want, got, "×", ""))
		}
	}
	switch name {
	case "ref_1":
		add("rbf kernel against NumPy, stacked across models, 2 support vectors", 12, against("avx512", stacked))
	case "sv200_1":
		add("rbf kernel against predict, 200 support vectors, 1 feature, AVX-512", 70, against("avx512", predict))
		add("the same, AVX2", 25, against("avx2", predict))
		add("rbf kernel against NumPy, stacked across models, 200 support vectors", 8, against("avx512", stacked))
	case "sv200_8":
		add("rbf kernel against predict, 200 support vectors, 8 features, AVX-512", 50, against("avx512", predict))
		add("the same, AVX2", 25, against("avx2", predict))
	case "if100_1":
		add("IsolationForest against predict, 1 feature, read from a pack and scored (a step function)", 150, ratioOf(got[pack], got[predict], cpuOf).Median)
		add("the same, as loaded from a pickle (trees)", 150, against(r.levels[0], predict))
	case "if100_8":
		add("IsolationForest against predict, 8 features (trees)", 150, against(r.levels[0], predict))
	}
}

// runBound runs the kernel's own benchmark, which measures the processor's peak in the same
// run. It compares the best of many short runs with the highest peak of all runs, because other
// programs on the machine can only make a run slower.
func runBound(ctx context.Context, b *bench) (*section, error) {
	count := "40"
	if b.quick {
		count = "5"
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkRBF$", "-benchtime", "20ms", "-count", count, "./sklearn/internal/kernel")
	cmd.Dir = b.root
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go test: %w\n%s%s", err, out.String(), errs.String())
	}
	type best struct{ least, ns float64 } // ns per term: the least possible time, and the measured time
	found, order := map[string]best{}, []string{}
	for line := range strings.Lines(out.String()) {
		f := strings.Fields(line)
		if len(f) == 0 || !strings.HasPrefix(f[0], "BenchmarkRBF/") {
			continue
		}
		name := strings.TrimPrefix(f[0], "BenchmarkRBF/")
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			name = name[:i]
		}
		x, ok := found[name]
		if !ok {
			order = append(order, name)
			x = best{math.Inf(1), math.Inf(1)}
		}
		share, ns := math.NaN(), math.NaN()
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			switch {
			case err != nil:
			case f[i+1] == "%bound":
				share = v
			case f[i+1] == "ns/exp":
				ns = v
			}
		}
		x.ns = min(x.ns, ns)
		if least := share / 100 * ns; least < x.least {
			x.least = least
		}
		found[name] = x
	}
	return boundReport(order, func(name string) (least, ns float64) { return found[name].least, found[name].ns }, count), nil
}

// avx512Operations returns how many vector operations the AVX-512 kernel needs for a vector of
// 8 terms: all operations, and only the multiplications and fused multiply-adds, which its
// benchmark counts.
func avx512Operations(dims float64) (all, multiplications float64) { return 14 + 2*dims, 9 + dims }

func boundReport(order []string, of func(name string) (least, ns float64), count string) *section {
	s := &section{}
	t := grid{Caption: "The time for one term of the sum: a distance, an exponential, and a multiply-add. The peak rate of fused multiply-adds is measured in the same run. The bound assumes that every vector operation of the kernel needs one slot at that rate. Processors with further pipes for additions, permutations and scaling can exceed the bound, so the stricter column counts only multiplications and fused multiply-adds. The table shows the best of " + count + " runs, because other programs on the machine disturb it least.",
		Head: []string{"kernel", "ns per term", "of the bound", "of multiplications only"}}
	for _, name := range order {
		least, ns := of(name)
		strict, share := "–", "–"
		if !math.IsInf(least, 1) {
			strict = fmt.Sprintf("%.0f %%", 100*least/ns)
		}
		var dims float64
		if n, _ := fmt.Sscanf(name, "avx512/features=%g", &dims); n == 1 {
			all, multiplications := avx512Operations(dims)
			of := 100 * least / ns * all / multiplications
			share = fmt.Sprintf("%.0f %%", of)
			s.Targets = append(s.Targets, atLeast(fmt.Sprintf("rbf kernel against its instruction bound, AVX-512, %g features", dims), 85, of, " %", " ("+strict+" of multiplications only)"))
		}
		t.add(name, short(ns), share, strict)
	}
	s.Tables = []grid{t}
	return s
}
