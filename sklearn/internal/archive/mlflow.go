package archive

import (
	"archive/zip"
	"bytes"
	"errors"
	"regexp"
	"strings"

	"github.com/fleetscore/fleetscore/sklearn/internal/budget"
	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

// manifest is the file of an MLflow folder that says what is in it.
const manifest = "MLmodel"

var (
	flavors     = regexp.MustCompile(`(?m)^  ([a-z][a-z0-9_]*):[ \t]*\r?$`)
	pickledFile = regexp.MustCompile(`(?m)^ +pickled_model:[ \t]*["']?([^"'\r\n]+?)["']?[ \t]*\r?$`)
)

var errEmpty = errors.New("the model's file is empty")

// MLflow gives the file of the scikit-learn model in an archive of an MLflow folder, as it
// is. It gives nil if the archive holds no such folder.
func MLflow(data []byte, b *budget.Budget) ([]byte, error) {
	if !bytes.Contains(data, []byte(manifest)) {
		return nil, nil
	}
	if n := entries(data); n > maxEntries || b.Charge(n*entryBytes) != nil {
		return nil, refusal.New(refusal.TooLarge, "the zip archive has %d entries", n).WithHint("leave in the folder only what the model needs")
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, damagedZip(data, err)
	}
	s := skops{files: map[string]*zip.File{}, left: limit(data, b), data: data, budget: b}
	for _, f := range z.File {
		s.files[f.Name] = f
	}
	if s.files[manifest] == nil {
		return nil, nil
	}
	text, err := s.read(manifest)
	if err != nil {
		return nil, damagedFolder(err)
	}
	name := pickledFile.FindSubmatch(text)
	if name == nil {
		flavor := "python_function"
		for _, m := range flavors.FindAllSubmatch(text, -1) {
			if f := string(m[1]); f != "python_function" {
				flavor = f
			}
		}
		return nil, refusal.Of(refusal.Refusal{Reason: refusal.Library, Class: flavor}, "the folder holds a model of MLflow's flavor %s, which is not supported", flavor).
			WithHint("the flavor sklearn is read natively; others are scored by Python (runtime: auto)")
	}
	model, err := s.read(strings.TrimPrefix(string(name[1]), "./"))
	if err != nil {
		return nil, damagedFolder(err)
	}
	if len(model) == 0 {
		return nil, damagedFolder(errEmpty)
	}
	return model, nil
}

func damagedFolder(err error) error {
	return refusal.New(refusal.Damaged, "the folder of MLflow can't be read: %w", err).WithHint("copy the folder again, or log the model again with mlflow.sklearn.save_model")
}
