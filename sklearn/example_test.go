package sklearn_test

import (
	"archive/zip"
	"fmt"
	"io"
	"log"
	"math"
	"os"

	"github.com/fleetscore/fleetscore/sklearn"
)

// model reads one of the package's fixtures: a StandardScaler and a OneClassSVM
// that were trained on a value around 20.
func model() []byte {
	data, err := os.ReadFile("testdata/1.9.1/one.p4.pickle")
	if err != nil {
		log.Fatal(err)
	}
	return data
}

func Example() {
	m, err := sklearn.Load(model()) // a file that pickle.dump(pipeline, file) wrote
	if err != nil {
		log.Fatal(err)
	}
	predictions, scores, err := m.Predict([][]float64{{20}, {23.5}, {80}})
	if err != nil {
		log.Fatal(err)
	}
	for i, p := range predictions {
		fmt.Printf("%v %.4f\n", p, scores[i])
	}
	// Output:
	// 1 0.0002
	// 1 0.0001
	// -1 -0.0072
}

// PredictInto is for many rows: it allocates nothing if its scratch was used before.
func ExampleModel_PredictInto() {
	m, err := sklearn.Load(model())
	if err != nil {
		log.Fatal(err)
	}
	x := []float64{20, 23.5, 80} // rows × features, row by row
	prediction, score := make([]float64, len(x)), make([]float64, len(x))
	var scratch sklearn.Scratch // one for each goroutine, for all calls
	for range 3 {
		if err := m.PredictInto(x, len(x), prediction, score, &scratch); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(prediction)
	// Output: [1 1 -1]
}

// A row that scikit-learn refuses is refused here too, and the error has its number.
func ExampleModel_Predict_refused() {
	m, err := sklearn.Load(model())
	if err != nil {
		log.Fatal(err)
	}
	_, _, err = m.Predict([][]float64{{20}, {math.NaN()}})
	fmt.Println(err)
	_, _, err = m.Predict([][]float64{{20, 21}})
	fmt.Println(err)
	// Output:
	// predict: OneClassSVM got NaN in row 1, feature 0; scikit-learn refuses it too (drop the row or fill the value before scoring)
	// predict: row 0 has 2 features instead of 1
}

// Call computes any method of the model, here the classes' probabilities.
func ExampleModel_Call() {
	m, err := sklearn.Load(fixture("RandomForestClassifier_2_0_68.pickle"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Methods(), m.Classes())
	x := make([]float64, m.NumFeatures()) // one row of zeros
	odds := make([]float64, m.Outputs(sklearn.PredictProba))
	if err := m.Call(sklearn.PredictProba, x, 1, odds, nil); err != nil {
		log.Fatal(err)
	}
	prediction := []float64{0}
	if err := m.PredictInto(x, 1, prediction, nil, nil); err != nil {
		log.Fatal(err)
	}
	fmt.Println(odds, m.Label(prediction[0]))
	// Output:
	// [predict predict_proba predict_log_proba] [-1 2]
	// [1 0] -1
}

func ExampleModel_Info() {
	data, err := os.ReadFile("testdata/1.9.1/single.p5.pickle")
	if err != nil {
		log.Fatal(err)
	}
	m, err := sklearn.Load(data)
	if err != nil {
		log.Fatal(err)
	}
	i := m.Info()
	fmt.Println(i.Chain(), i.Versions, i.Features, i.SupportVectors)
	for _, f := range i.Health {
		fmt.Println(f.Code)
	}
	// Output:
	// StandardScaler → OneClassSVM [1.9.1] 1 1
	// flags_everything
}

// A native record loads without allocation, so fleets keep their models in this form.
func ExampleModel_AppendRecord() {
	m, err := sklearn.Load(model())
	if err != nil {
		log.Fatal(err)
	}
	record, err := m.AppendRecord(nil)
	if err != nil {
		log.Fatal(err)
	}
	var records sklearn.RecordReader // one for each goroutine, for all records
	again, err := records.Read(record)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(again.NumFeatures(), again.OutlierDetector())
	// Output: 1 true
}

// A file that would run a command in Python is refused, and the error names the
// function.
func ExampleLoad_hostile() {
	_, err := sklearn.Load([]byte("cposix\nsystem\n(S'rm -rf /'\ntR."))
	fmt.Println(err)
	// Output:
	// load model: posix.system is not supported: Python would run it, with arguments from the file, when it reads the file (no supported model needs it, and Fleetscore ran nothing; if you don't know why the file contains it, don't open the file with Python's pickle)
}

func fixture(name string) []byte {
	z, err := zip.OpenReader("testdata/parity/formats.zip")
	if err != nil {
		log.Fatal(err)
	}
	defer z.Close()
	f, err := z.Open(name)
	if err != nil {
		log.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		log.Fatal(err)
	}
	return data
}
