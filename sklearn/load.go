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

// fileInfo is what only the file knew, not the native form.
type fileInfo struct {
	format   string
	within   string // where in a dict or list the model stood
	protocol int
	steps    []estimator.Step
	versions []string
	aged     []string // why the newest scikit-learn can't use it
}

// Limits bound what loading one file may take. Zero stands for what the package
// allows in any case, which the package's comment has; a limit can only be lower.
type Limits struct {
	Memory int64 // bytes
	Work   int64 // units of about a nanosecond on one core
}

// Load reads a fitted scikit-learn estimator, however it was written: pickle of
// protocol 0 to 5, joblib, skops, or a native record of ours. The format is
// recognised by content. A dict, list or tuple that holds one estimator is taken for
// it; [Info.Within] says so. The bytes are not kept.
//
// An error is a [fleetscore.Error] whose hint says what to do. It wraps a [*Refusal],
// which has the reason, the class and the parameter; of a damaged record its kind is
// Corrupt instead.
func Load(data []byte) (*Model, error) { return load(context.Background(), data, Limits{}) }

// LoadWith is [Load] within limits and until the context ends, which gives a Refusal
// for the reason [Late] that wraps the context's error.
func LoadWith(ctx context.Context, data []byte, limits Limits) (*Model, error) {
	return load(ctx, data, limits)
}

func load(ctx context.Context, data []byte, limits Limits) (*Model, error) {
	if len(data) > MaxBytes {
		return nil, refusal.New(refusal.TooLarge, "the file has %d bytes, more than the limit of %d", len(data), MaxBytes).
			WithHint("check that this is a model")
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

// unpack loads what lies in a file that is compressed or an archive.
func unpack(ctx context.Context, data []byte, limits budget.Limits) (*Model, error) {
	first := budget.New(ctx, limits, len(data), false)
	format := "joblib"
	plain, _, err := archive.Decompress(data, &first)
	if archive.IsZip(data) {
		format = "skops"
		plain, err = archive.Skops(data, &first)
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
	if refused := g.Err(); refused != nil { // what was read then means nothing
		return nil, refused
	}
	if err != nil {
		return nil, err
	}
	if format == "pickle" && g.Joblib() {
		format = "joblib"
	}
	of := new(struct { // in one piece
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
		return nil, refusal.Of(refusal.Refusal{Reason: refusal.Parameter, Class: m.last.Class()}, "%s gives no columns", m.last.Class()).
			WithHint("train it on rows of which something is left")
	}
	if n := len(b.Names); n > 0 && m.features > 0 && n != m.features {
		return nil, estimator.Misfit("feature_names_in_ has %d names, but the model takes %d features", n, m.features)
	}
	return m, nil
}

// recognise refuses files that are something else than a pickle, by what they
// begin with.
func recognise(data []byte) error {
	if len(data) == 0 {
		return refusal.New(refusal.Cut, "the file is empty").WithHint("write the model with pickle.dump")
	}
	for _, f := range [...]struct{ magic, library, what, hint string }{
		{"version https://git-lfs", "", "a pointer of Git LFS", "fetch the file itself with git lfs pull"},
		{"\x89HDF", "keras", "an HDF5 file", "if it is a model of Keras, a later release will score it as ONNX; else write the model with pickle.dump"},
		{"tree\nversion=", "lightgbm", "a model of LightGBM as text", boosters},
		{"{\"learner\"", "xgboost", "a model of XGBoost as JSON", boosters},
		{"{L\x00\x00\x00\x00\x00\x00", "xgboost", "a model of XGBoost", boosters},
		{"binf", "xgboost", "a model of XGBoost", boosters},
		{"CBM1", "catboost", "a model of CatBoost", boosters},
		{"PAR1", "", "a Parquet file", "give the model's file, not the data's"},
		{"\x93NUMPY", "", "an array of NumPy", "write the fitted estimator with pickle.dump"},
		{"<?xml", "", "an XML file", "write the fitted estimator with pickle.dump"},
	} {
		if bytes.HasPrefix(data, []byte(f.magic)) {
			return notModel(f.library, f.what, f.hint)
		}
	}
	if data[0] == 0x08 && len(data) > 4 && data[1] < 32 && data[2] == 0x12 && bytes.ContainsAny(data[4:min(len(data), 12)], "abcdefghijklmnopqrstuvwxyz") {
		return notModel("onnx", "a model as ONNX", "a later release will score ONNX models; until then give the pickle that it was made from")
	}
	return nil
}

const boosters = "a later release will score such models by a runtime of their own or as ONNX; until then train one of scikit-learn's, such as HistGradientBoosting"

func notModel(library, what, hint string) error {
	r := refusal.Refusal{Reason: refusal.NotModel}
	if library != "" {
		r.Reason, r.Class = refusal.Library, library
	}
	return refusal.Of(r, "the file is no model of scikit-learn, which alone is supported: it is %s", what).WithHint("%s", hint)
}
