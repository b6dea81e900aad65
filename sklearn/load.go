package sklearn

import (
	"bytes"
	"context"
	"math"

	"github.com/fleetscore/fleetscore/sklearn/internal/archive"
	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

var nan = math.NaN()

// fileInfo holds facts that a model's file states but a native record doesn't keep.
type fileInfo struct {
	format   string
	within   string // the place of the model in a dict or list
	protocol int
	steps    []estimator.Step
	versions []string
	aged     []string // why the newest scikit-learn can't use the model
}

// Limits bound the memory and the work of loading one file. A limit of zero means the
// package's own limit, which the package comment states. A limit above the package's
// own limit has no effect.
type Limits struct {
	Memory int64 // bytes
	Work   int64 // units of about a nanosecond on one core
}

// Load reads a fitted scikit-learn estimator from a pickle of protocol 0 to 5, a joblib
// or skops file, a zip archive of a folder of MLflow, or a native record. It recognises the format by the content. If the
// file holds a dict, list or tuple with exactly one estimator in it, Load returns that
// estimator, and [Info.Within] says where it was found. The model doesn't refer to
// data.
//
// An error is a [fleetscore.Error] whose hint says what to do. It wraps a [*Refusal]
// with the reason, the class and the parameter. Only the error for a damaged native
// record wraps no Refusal; its kind is Corrupt.
func Load(data []byte) (*Model, error) { return load(context.Background(), data, Limits{}) }

// LoadWith is [Load] with limits and a context. If the context ends while the file is
// loaded, LoadWith returns a Refusal for the reason [Late], which wraps the context's
// error.
func LoadWith(ctx context.Context, data []byte, limits Limits) (*Model, error) {
	return load(ctx, data, limits)
}

func load(ctx context.Context, data []byte, limits Limits) (*Model, error) {
	if len(data) > MaxBytes {
		return nil, refusal.New(refusal.TooLarge, "the file has %d bytes, more than the limit of %d", len(data), MaxBytes).
			WithHint("check that this file is a model")
	}
	if err := recognise(data); err != nil {
		return nil, err
	}
	within := budget.Limits(limits)
	if bytes.HasPrefix(data, []byte(recordMagic)) {
		return loadRecord(data, within)
	}
	if archive.IsZip(data) || archive.Compressed(data) {
		return unpack(ctx, data, within)
	}
	return loadPickle(data, "pickle", budget.New(ctx, within, len(data), false))
}

// unpack loads a model from a compressed file or an archive.
func unpack(ctx context.Context, data []byte, limits budget.Limits) (*Model, error) {
	first := budget.New(ctx, limits, len(data), false)
	format, plain := "joblib", data
	if archive.IsZip(data) {
		format = "skops"
		model, err := archive.MLflow(data, &first)
		if err != nil {
			return nil, err
		}
		if model != nil {
			format, plain = "mlflow", model
		}
	}
	var err error
	if archive.IsZip(plain) {
		plain, err = archive.Skops(plain, &first)
	} else if archive.Compressed(plain) {
		plain, _, err = archive.Decompress(plain, &first)
	}
	if err != nil {
		return nil, err
	}
	return loadPickle(plain, format, budget.New(ctx, limits, len(plain), true))
}

func loadPickle(data []byte, format string, limits budget.Budget) (*Model, error) {
	g, root, err := pickle.Parse(data, names, limits)
	if err != nil {
		return nil, err
	}
	defer g.Release()
	b := estimator.NewBuilder(g, fileClasses)
	defer b.Release()
	root, within, err := inside(g, root)
	var est estimator.Estimator
	if err == nil {
		est, err = b.Build(root, "")
	}
	if refused := g.Err(); refused != nil { // the values read after the refusal mean nothing
		return nil, refused
	}
	if err != nil {
		return nil, err
	}
	if format == "pickle" && g.Joblib() {
		format = "joblib"
	}
	of := new(struct { // one allocation for both
		Model
		fileInfo
	})
	of.fileInfo = fileInfo{format: format, within: within, protocol: g.Protocol(), steps: b.Steps, versions: b.Versions()}
	m := &of.Model
	m.file = &of.fileInfo
	m.assemble(est)
	m.judge(b.Aged)
	for _, name := range b.Names {
		if err := g.Charge(4 + len(name)); err != nil {
			return nil, err
		}
	}
	m.names = namesOf(b.Names)
	if !m.able() {
		return nil, refusal.Of(refusal.Refusal{Reason: refusal.Parameter, Class: m.last.Class()}, "%s has no output columns", m.last.Class()).
			WithHint("train it again so that at least one column is left")
	}
	if n := len(b.Names); n > 0 && m.features > 0 && n != m.features {
		return nil, estimator.Misfit("feature_names_in_ has %d names, but the model takes %d features", n, m.features)
	}
	return m, nil
}

// recognise refuses files that aren't a pickle. It recognises other formats by their
// first bytes.
func recognise(data []byte) error {
	if len(data) == 0 {
		return refusal.New(refusal.Cut, "the file is empty").WithHint("write the model with pickle.dump")
	}
	for _, f := range [...]struct{ magic, library, what, hint string }{
		{"version https://git-lfs", "", "a pointer of Git LFS", "fetch the file itself with git lfs pull"},
		{"\x89HDF", "keras", "an HDF5 file", "score it as ONNX, in Python with the runtime auto (docs/python.md); for a model of scikit-learn, write it with pickle.dump"},
		{"tree\nversion=", "lightgbm", "a model of LightGBM as text", boosters},
		{"{\"learner\"", "xgboost", "a model of XGBoost as JSON", boosters},
		{"{L\x00\x00\x00\x00\x00\x00", "xgboost", "a model of XGBoost", boosters},
		{"binf", "xgboost", "a model of XGBoost", boosters},
		{"CBM1", "catboost", "a model of CatBoost", boosters},
		{"PAR1", "", "a Parquet file", "name the file of the model, not a file of rows"},
		{"\x93NUMPY", "", "an array of NumPy", "write the fitted estimator with pickle.dump"},
		{"<?xml", "", "an XML file", "write the fitted estimator with pickle.dump"},
	} {
		if bytes.HasPrefix(data, []byte(f.magic)) {
			return notModel(f.library, f.what, f.hint)
		}
	}
	if data[0] == 0x08 && len(data) > 4 && data[1] < 32 && data[2] == 0x12 && bytes.ContainsAny(data[4:min(len(data), 12)], "abcdefghijklmnopqrstuvwxyz") {
		return notModel("onnx", "a model in ONNX format", "score it in Python with the runtime auto (docs/python.md), or use the pickle that it was made from")
	}
	return nil
}

const boosters = "score it in Python with the runtime auto (docs/python.md), or train a model of scikit-learn, such as HistGradientBoosting"

func notModel(library, what, hint string) error {
	r := refusal.Refusal{Reason: refusal.NotModel}
	if library != "" {
		r.Reason, r.Class = refusal.Library, library
	}
	return refusal.Of(r, "the file is %s; only models of scikit-learn are supported", what).WithHint("%s", hint)
}
