// Package verify compares Fleetscore's results with those of a user's own Python. A
// child process loads the same files with its scikit-learn, both score the same rows,
// and the package reports the differences.
//
// The child unpickles the files, which runs code from them; everything else in
// Fleetscore only reads the files as data. One call of Run uses one child at a time,
// and ends it before it returns.
package verify

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn"
)

// Config says how to compare.
type Config struct {
	Python    string        // the interpreter
	Rows      int           // rows per model; 0 means 200
	Sample    int           // models per kind of estimators and releases; 0 means 100, negative all
	Tolerance float64       // difference of values that counts as equal, relative to the largest of the method's column, or to 1; 0 means 1e-12
	Patience  time.Duration // for starting Python, and for one model; 0 means 1m
	// RowsOf returns the rows for a model's file name, row after row and in the order
	// of the model's features. If it returns nil, rows are generated. An error says why
	// the rows don't match the model; this counts as a difference.
	RowsOf   func(name string, info *sklearn.Info) ([]float64, error)
	Progress func(done, total int64) // may be nil
}

// Defaults fills the fields that are zero.
func (c Config) Defaults() Config {
	c.Rows = cmp.Or(c.Rows, 200)
	c.Sample = cmp.Or(c.Sample, 100)
	c.Tolerance = cmp.Or(c.Tolerance, 1e-12)
	c.Patience = cmp.Or(c.Patience, time.Minute)
	return c
}

// File is a model's file.
type File struct {
	Name string // for people
	Path string
}

// Report holds the results of a comparison.
type Report struct {
	Python      Python    `json:"python"`
	Files       int64     `json:"files"`
	Compared    int64     `json:"compared"`     // models that both scored
	Rows        int64     `json:"rows"`         // rows that both scored
	Kinds       []Kind    `json:"kinds"`        // by estimators and releases, most models first
	NotLoadable []Failure `json:"not_loadable"` // files that this Python can't load or score, but Fleetscore can
	Unsupported []Failure `json:"unsupported"`  // files that Fleetscore can't score
	Equal       bool      `json:"equal"`        // every file was compared, or left out of the sample, and no difference found
}

// Kind is the models of the same estimators and releases.
type Kind struct {
	Estimators  string     `json:"estimators"`
	Releases    string     `json:"releases"` // the scikit-learn releases that the files name
	Models      int64      `json:"models"`
	Compared    int64      `json:"compared"`
	Rows        int64      `json:"rows"`
	Labels      int64      `json:"label_differences"` // rows with different labels
	Ties        int64      `json:"ties"`              // results that differ only because of rounding: a row that is changed by rounding errors has scikit-learn's result; they aren't counted elsewhere
	Worst       float64    `json:"worst_difference"`  // of values, relative to the largest of the method's column, or to 1
	WorstMethod string     `json:"worst_method,omitempty"`
	WorstModel  string     `json:"worst_model,omitempty"`
	Offending   []Offender `json:"offending"` // the first models with a difference, at most 20
	Differ      int64      `json:"differ"`    // models with a difference
	Warned      int64      `json:"warned"`    // models that scikit-learn loads with a warning, because another release wrote them
}

// Offender is a model with a difference, and the worst row of it.
type Offender struct {
	File    string  `json:"file"`
	Method  string  `json:"method"`
	Row     []Float `json:"row,omitempty"`
	Ours    Float   `json:"ours"`
	Theirs  Float   `json:"theirs"`
	Problem string  `json:"problem,omitempty"` // what differs, if not a value
}

// Float is a float64 whose JSON may be NaN and infinite, as a text.
type Float float64

// MarshalJSON writes a number, or "NaN", "+Inf", "-Inf".
func (f Float) MarshalJSON() ([]byte, error) {
	if v := float64(f); v-v != 0 {
		return fmt.Appendf(nil, "%q", fmt.Sprint(v)), nil
	}
	return fmt.Appendf(nil, "%v", float64(f)), nil
}

// Failure is a group of models that failed for the same reason.
type Failure struct {
	Code        string   `json:"code,omitempty"` // of files that Fleetscore can't score: the reason, such as "code", "library" or "class"
	Error       string   `json:"error"`
	Explanation string   `json:"explanation,omitempty"`
	Models      int64    `json:"models"`
	Releases    string   `json:"releases,omitempty"`
	Examples    []string `json:"examples"` // at most 20
}

const maxExamples = 20

// run is one comparison.
type run struct {
	cfg      Config
	report   Report
	worker   *worker
	restarts int
	kinds    map[string]*Kind
	failures map[string]*Failure // of Python
	scratch  sklearn.Scratch
}

// maxRestarts is the number of crashes of Python after which a comparison ends.
const maxRestarts = 20

// Run compares the models. It fails as a whole, with kind Unavailable, if Python
// or its scikit-learn can't be started.
func Run(ctx context.Context, cfg Config, files []File) (*Report, error) {
	r := &run{cfg: cfg.Defaults(), kinds: map[string]*Kind{}, failures: map[string]*Failure{}}
	r.report = Report{Files: int64(len(files)), Kinds: []Kind{}, NotLoadable: []Failure{}, Unsupported: []Failure{}}
	var err error
	if r.worker, err = startWorker(ctx, r.cfg.Python, r.cfg.Patience); err != nil {
		return nil, err
	}
	defer func() { r.worker.stop() }()
	r.report.Python = r.worker.about
	sampled, err := r.sample(ctx, files)
	if err != nil {
		return nil, err
	}
	for i, f := range sampled {
		if err := r.compare(ctx, f); err != nil {
			return nil, err
		}
		if r.cfg.Progress != nil {
			r.cfg.Progress(int64(i+1), int64(len(sampled)))
		}
	}
	return r.finish(), nil
}

// sample reads all files and picks those to compare: a number of each kind, by a hash
// of their names, so that the next run picks the same.
func (r *run) sample(ctx context.Context, files []File) ([]File, error) {
	byKind := map[string][]File{}
	refused := map[string]*Failure{}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		m, _, err := open(f)
		if err != nil {
			addFailure(refused, err.Error(), "", "", f.Name)
			if why, ok := errors.AsType[*sklearn.Refusal](err); ok {
				refused[err.Error()+"\x00"].Code = why.Reason.String()
			}
			continue
		}
		i := m.Info()
		id := i.Chain() + "\x00" + strings.Join(i.Versions, ", ")
		if r.kinds[id] == nil {
			r.kinds[id] = &Kind{Estimators: i.Chain(), Releases: strings.Join(i.Versions, ", "), Offending: []Offender{}}
		}
		r.kinds[id].Models++
		byKind[id] = append(byKind[id], f)
	}
	r.report.Unsupported = sorted(refused)
	var out []File
	for _, id := range slices.Sorted(maps.Keys(byKind)) {
		of := byKind[id]
		if n := r.cfg.Sample; n >= 0 && len(of) > n {
			slices.SortFunc(of, func(a, b File) int {
				return cmp.Compare(fleetscore.Key(a.Name).Hash(), fleetscore.Key(b.Name).Hash())
			})
			of = of[:n]
		}
		out = append(out, of...)
	}
	return out, nil
}

func open(f File) (*sklearn.Model, []byte, error) {
	data, err := os.ReadFile(f.Path)
	if err != nil {
		return nil, nil, fleetscore.Errorf(fleetscore.Unavailable, "read model", "", "%w", cause(err))
	}
	m, err := sklearn.Load(data)
	return m, data, err
}

// compare compares one model. It fails only if nothing more can be compared.
func (r *run) compare(ctx context.Context, f File) error {
	m, _, err := open(f)
	if err != nil {
		return nil // the file changed since it was sampled
	}
	info := m.Info()
	k := r.kinds[info.Chain()+"\x00"+strings.Join(info.Versions, ", ")]
	if k == nil {
		return nil
	}
	x, cols, err := r.rows(m, &info, f.Name)
	if err != nil {
		k.offend(f, Offender{Problem: err.Error()})
		return nil
	}
	if len(x) == 0 {
		k.offend(f, Offender{Problem: "no row could be generated that the model accepts"})
		return nil
	}
	q := &request{Path: f.Path, Cols: cols, X: encode(x), Names: info.FeatureNames}
	q.ID = int(r.report.Compared) + len(r.failures) + 1
	for _, method := range m.Methods() {
		q.Methods = append(q.Methods, method.String())
	}
	a, err := r.worker.ask(ctx, q, r.cfg.Patience)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		addFailure(r.failures, "Python failed: "+err.Error(), "Python itself crashed or hung on the file", k.Releases, f.Name)
		if r.restarts++; r.restarts > maxRestarts {
			return fleetscore.Errorf(fleetscore.Unavailable, "compare models", f.Name, "Python ended %d times, the last time: %w", r.restarts, err)
		}
		r.worker.stop()
		again, err := startWorker(ctx, r.cfg.Python, r.cfg.Patience)
		if err == nil {
			r.worker = again
		}
		return err
	}
	if why := unusable(a, q.Methods); why != nil {
		addFailure(r.failures, why.String(), r.explain(why, k.Releases), k.Releases, f.Name)
		return nil
	}
	if len(a.Warnings) > 0 {
		k.Warned++
	}
	k.Compared++
	r.report.Compared++
	n := len(x) / cols
	k.Rows += int64(n)
	r.report.Rows += int64(n)
	c := comparison{run: r, kind: k, file: f, model: m, info: &info, x: x, rows: n, cols: cols}
	c.all(a)
	return nil
}

// unusable returns why a model can't be used in Python at all, or nil.
func unusable(a *reply, methods []string) *fault {
	if a.Load != nil {
		return a.Load
	}
	if len(a.Out) > 0 || len(methods) == 0 {
		return nil
	}
	why, ok := a.Errors[methods[0]]
	if !ok || why.Type == "ValueError" && !needsFrame(&why) { // the model refuses the rows
		return nil
	}
	return &why
}

// needsFrame recognises an error of a model that selects columns by name, when pandas
// is missing.
func needsFrame(f *fault) bool { return strings.Contains(f.Message, "only supported for dataframes") }

// rows returns the rows to compare a model with: the given rows, or else generated rows
// without those that Fleetscore refuses.
func (r *run) rows(m *sklearn.Model, info *sklearn.Info, name string) (x []float64, cols int, err error) {
	cols = max(1, info.Features)
	if r.cfg.RowsOf != nil {
		if x, err = r.cfg.RowsOf(name, info); err != nil {
			return nil, cols, err
		}
		cols = max(1, info.Features)
	}
	if len(x) == 0 {
		x = generate(m, info, r.cfg.Rows, fleetscore.Key(name).Hash())
	} else if n := len(x) / cols; n > r.cfg.Rows {
		some := make([]float64, 0, r.cfg.Rows*cols)
		for i := range r.cfg.Rows {
			at := i * n / r.cfg.Rows * cols
			some = append(some, x[at:at+cols]...)
		}
		x = some
	}
	methods := m.Methods()
	if len(methods) == 0 {
		return nil, cols, nil
	}
	good := x[:0]
	out := make([]float64, m.Outputs(methods[0])+cols)
	for at := 0; at+cols <= len(x); at += cols {
		if m.Call(methods[0], x[at:at+cols], 1, out, &r.scratch) == nil {
			good = append(good, x[at:at+cols]...)
		}
	}
	return good, cols, nil
}

func encode(x []float64) string {
	b := make([]byte, 0, 8*len(x))
	for _, v := range x {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	return base64.StdEncoding.EncodeToString(b)
}

func decode(s string) ([]float64, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	out := make([]float64, len(b)/8)
	for i := range out {
		out[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return out, err
}

func addFailure(to map[string]*Failure, why, explanation, releases, name string) {
	id := why + "\x00" + releases
	f := to[id]
	if f == nil {
		f = &Failure{Error: why, Explanation: explanation, Releases: releases, Examples: []string{}}
		to[id] = f
	}
	f.Models++
	if len(f.Examples) < maxExamples {
		f.Examples = append(f.Examples, name)
	}
}

func sorted(m map[string]*Failure) []Failure {
	out := []Failure{}
	for _, f := range m {
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(b.Models, a.Models), cmp.Compare(a.Error, b.Error), cmp.Compare(a.Releases, b.Releases))
	})
	return out
}

func (r *run) finish() *Report {
	out := &r.report
	out.NotLoadable = sorted(r.failures)
	out.Equal = len(out.NotLoadable)+len(out.Unsupported) == 0
	for _, k := range r.kinds {
		out.Kinds = append(out.Kinds, *k)
		out.Equal = out.Equal && k.Differ == 0
	}
	slices.SortFunc(out.Kinds, func(a, b Kind) int {
		return cmp.Or(cmp.Compare(b.Models, a.Models), cmp.Compare(a.Estimators, b.Estimators), cmp.Compare(a.Releases, b.Releases))
	})
	return out
}

// explain says in plain words why a Python can't use a file.
func (r *run) explain(f *fault, releases string) string {
	here := "scikit-learn " + r.worker.about.Sklearn
	from := "an earlier release"
	if releases != "" {
		from = "scikit-learn " + releases
	}
	const and = "; Fleetscore reads the file as data and scores it nevertheless"
	switch {
	case f.Type == "ModuleNotFoundError" && strings.HasPrefix(f.Module, "sklearn"):
		return fmt.Sprintf("the file was written by %s and names the module %s, which scikit-learn renamed or removed later, so %s can't load it"+and, from, f.Module, here)
	case f.Type == "ModuleNotFoundError" && strings.HasPrefix(f.Module, "numpy"):
		return fmt.Sprintf("the file was written with another generation of NumPy than this Python's %s, which lacks %s"+and, r.worker.about.NumPy, f.Module)
	case f.Type == "ModuleNotFoundError":
		return fmt.Sprintf("this Python has no module %s; install it, or name another Python", f.Module)
	case needsFrame(f):
		return "the model takes columns by their names, which needs pandas in this Python: pip install pandas"
	case f.Type == "AttributeError" || f.Type == "ValueError" && strings.Contains(f.Message, "incompatible"):
		return fmt.Sprintf("the file was written by %s and lacks content that %s needs"+and, from, here)
	}
	return ""
}
