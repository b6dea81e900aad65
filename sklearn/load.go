package sklearn

import (
	"bytes"
	"math"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/sklearn/internal/archive"
	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
)

var nan = math.NaN()

// fileInfo is what only the file knew, not the native form.
type fileInfo struct {
	format   string
	protocol int
	steps    []estimator.Step
	versions []string
	aged     []string // why the newest scikit-learn can't use it
}

// memoryTimes bounds memory while loading, in sizes of the contents. Contents that
// had to be unpacked take one of them.
const memoryTimes = 4

// Load reads a fitted scikit-learn estimator, however it was written: pickle of
// protocol 0 to 5, joblib, skops, or a native record of ours. The format is
// recognised by content. The bytes are not kept. An error is a
// [fleetscore.Error] of kind Invalid, or Corrupt for a damaged record, that names
// the class, attribute or byte at fault and says what to do.
func Load(data []byte) (*Model, error) {
	if len(data) > MaxBytes {
		return nil, fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "the file has %d bytes, more than the limit of %d", len(data), MaxBytes).
			WithHint("check that this is a model")
	}
	if err := recognise(data); err != nil {
		return nil, err
	}
	if bytes.HasPrefix(data, []byte(recordMagic)) {
		return loadRecord(data)
	}
	plain, compression, err := archive.Decompress(data)
	if err != nil {
		return nil, err
	}
	if compression != "" {
		return loadPickle(plain, "joblib", memoryTimes-1)
	}
	if archive.IsZip(data) {
		if plain, err = archive.Skops(data); err != nil {
			return nil, err
		}
		return loadPickle(plain, "skops", memoryTimes-1)
	}
	return loadPickle(data, "pickle", memoryTimes)
}

func loadPickle(data []byte, format string, times int) (*Model, error) {
	g, root, err := pickle.Parse(data, names, times)
	if err != nil {
		return nil, err
	}
	defer g.Release()
	b := estimator.NewBuilder(g, fileClasses)
	defer b.Release()
	est, err := b.Build(root, "")
	if tired := g.Tired(); tired != nil {
		return nil, tired
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
	of.fileInfo = fileInfo{format: format, protocol: g.Protocol(), steps: b.Steps, versions: b.Versions()}
	m := &of.Model
	m.file = &of.fileInfo
	m.assemble(est)
	m.judge(b.Aged)
	m.names = namesOf(b.Names)
	if !m.able() {
		return nil, fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "%s gives no columns", m.last.Class()).
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
		return fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "the file is empty").WithHint("write the model with pickle.dump")
	}
	for _, f := range [...]struct{ magic, what, hint string }{
		{"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself with git lfs pull"},
		{"\x89HDF", "an HDF5 file", "write the model with pickle.dump"},
	} {
		if bytes.HasPrefix(data, []byte(f.magic)) {
			return fleetscore.Errorf(fleetscore.Invalid, opLoad, "", "the file is no model of scikit-learn: it is %s", f.what).WithHint("%s", f.hint)
		}
	}
	return nil
}
