package sklearn_test

import (
	"archive/zip"
	"bytes"
	"compress/zlib"
	"os"
	"path/filepath"
	"testing"

	"github.com/fleetscore/fleetscore/sklearn"
)

// TestOrigin: each release's files name it, in every protocol, plain and compressed.
func TestOrigin(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*/one.*.pickle")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var packed bytes.Buffer
		w := zlib.NewWriter(&packed)
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		want := filepath.Base(filepath.Dir(file))
		for form, data := range map[string][]byte{"plain": data, "compressed": packed.Bytes()} {
			if got := sklearn.OriginOf(data); got.SKLearn != want || got.NumPy != "1" && got.NumPy != "2" {
				t.Errorf("%s, %s: %+v, want scikit-learn %s", file, form, got, want)
			}
		}
	}
	for text, want := range map[string]sklearn.Origin{"": {}, "\x80\x04": {}, "X\x10\x00\x00\x00_sklearn_versionq\x01": {}, "_sklearn_version\x94\x8c\xff1.2": {}, "_sklearn_version\x94\x8c\x03abc": {}, "numpy.core": {NumPy: "1"}, "_sklearn_versionX\x05\x00\x00\x001.2.2numpy._core": {SKLearn: "1.2.2", NumPy: "2"}} {
		if got := sklearn.OriginOf([]byte(text)); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

// TestOriginOfMLflow: a folder of MLflow says more.
func TestOriginOfMLflow(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	z := zip.NewWriter(&packed)
	for name, text := range map[string]string{
		"MLmodel":          "flavors:\n  python_function:\n    python_version: 3.9.18\n  sklearn:\n    sklearn_version: 0.24.2\n",
		"requirements.txt": "mlflow==2.9\nnumpy==1.19.5\nscikit-learn==0.24.2\n",
	} {
		f, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := sklearn.OriginOf(packed.Bytes()), (sklearn.Origin{SKLearn: "0.24.2", NumPy: "1.19.5", Python: "3.9.18"}); got != want || got.String() != "scikit-learn 0.24.2, NumPy 1.19.5, Python 3.9.18" {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := sklearn.OriginOf(packed.Bytes()[:40]); got != (sklearn.Origin{}) {
		t.Errorf("of a damaged archive: %+v", got)
	}
}
