// Package sklearn loads scikit-learn models and scores rows with them in Go. It needs no
// Python, and it never runs code from a model's file.
//
//	data, err := os.ReadFile("model.pickle")      // pickle, joblib or skops
//	model, err := sklearn.Load(data)
//	predictions, scores, err := model.Predict(rows) // [][]float64
//
// The package is for programs that get models from people who train in Python, and that
// compute labels and scores outside Python: in a service, a command or a pipeline. Loading
// a small model takes microseconds, scoring a row takes nanoseconds, and a hostile pickle
// can't do harm.
//
// # Use
//
// [Load] reads a fitted estimator from a pickle of protocol 0 to 5 (written by Python 2 or
// 3, with NumPy 1 or 2), a joblib file with any of joblib's compressions, a skops file, or
// a native record of this package. It recognises the format by the content.
//
// [Model.PredictInto] writes the prediction of each row, as scikit-learn's predict returns
// it, and a score of each row from decision_function or predict_proba. [Model.Predict]
// does the same with one slice per row; it is simpler to call, but it allocates memory.
// [Model.Call] computes a single method: [Predict], [DecisionFunction], [ScoreSamples],
// [PredictProba], [PredictLogProba] or [Transform]. [Model.Methods] returns the methods
// that a model has. Rows are float64 values in the order of the columns in training. If
// the model was fitted with column names, [Info.FeatureNames] lists them.
//
// [Model.Info] describes a model: its steps and their parameters, the scikit-learn
// releases that wrote it, its size, and the range of its training data if the file holds
// it. [Info.Health] lists the model's faults: a detector that flags every row or no row, a
// classifier that predicts one class for every row, or a file that a current scikit-learn
// can't load.
//
// [Model.AppendRecord] writes a model in a compact native form, and [RecordReader] reads
// that form without allocating memory. docs/formats/record.md describes it.
//
// # Supported
//
// Models of scikit-learn 0.19 to 1.9 are supported, with a hundred classes. Among them are
// pipelines with all common scalers, imputers and transformers, every support vector
// machine, linear models, trees, forests and boosting, isolation forests, local outlier
// factor, elliptic envelope, neighbours, mixtures, perceptrons, calibration, searches,
// voting, stacking and bagging. [Supported] lists the classes, and docs/sklearn.md has a
// table with the methods and limits of each class.
//
// Load refuses everything else with a [fleetscore.Error] of kind Invalid that names the
// class, or the class and the parameter, and says what to do. The package never
// approximates: either it computes what scikit-learn computes, or it refuses the model.
//
// # Accuracy
//
// Everything is computed in float64. Where the order of scikit-learn's arithmetic is
// defined (support vector machines, trees, forests, scalers), labels are equal for every
// row, also for ties: a decision of exactly 0 is an outlier for OneClassSVM and an inlier
// for IsolationForest. Where scikit-learn leaves the order to a BLAS (linear models, PCA,
// mixtures), values agree within 1e-12 of the scale of the sum's terms. Then labels are
// equal wherever the value isn't that close to the threshold.
//
// If releases of scikit-learn compute something differently, a model is computed as the
// release that wrote it does. Rows that scikit-learn refuses, such as NaN for most
// estimators, are refused here too, and rows that it accepts are accepted. A wrong number
// of features is always an error. Tests compare this package with real scikit-learn
// releases on models with random parameters.
//
// # Safety
//
// A pickle is a program, and this package doesn't run it. It interprets only the few
// opcodes that make data. Every class or function that the file names must be on an exact
// list, and none of them is ever called. The data is checked before it is used: shapes,
// finite numbers, links of trees, and the feature counts from step to step. Corrupt,
// truncated or hostile bytes cause an error, never a panic, and the time is bounded in
// proportion to the file's size.
//
// These checks can't find damage inside the numbers of an array, so keep a digest beside
// each model.
//
// # Memory
//
// Loading takes at most 4 times the size of the content (unpacked, if the file is
// compressed) or 8 MiB, whichever is more. For bz2 and lz4, the decompressor needs a few
// MiB more. The content may be 16 MiB or 100 times the file's size, whichever is more, up
// to 1 GiB; a file with more content is refused as a decompression bomb. Files over
// [MaxBytes] are refused. A loaded model doesn't refer to the file's bytes, but a model of
// a [RecordReader] refers to its record. PredictInto and Call allocate nothing if their
// [Scratch] was used before for a model of the same size.
//
// # Speed
//
// Many rows are computed at once with vector instructions: AVX-512 or AVX2 if the
// processor has them, else plain Go. The environment variable FLEETSCORE_CPU=generic or
// FLEETSCORE_CPU=avx2, read when the program starts, limits the instructions. The choice
// changes at most the last digits of scores. It doesn't change the labels of a support
// vector machine: if a decision is too close to 0 for these digits, it is computed again
// in scikit-learn's order.
//
// PredictInto passes blocks of 256 rows through all steps. A call with fewer than 32 rows
// costs as much as one with 32. If values are stored column by column, use
// [Model.PredictColumns]. To score many models in turn, keep them as native records and
// read all with one RecordReader: reading a record allocates nothing and takes a fraction
// of a microsecond. Native records also keep forests with one feature as step functions,
// which are ten times faster than trees.
//
// # Concurrency
//
// A [Model] is immutable and safe for concurrent use. A model of a [RecordReader] is valid
// until the reader's next Read. A RecordReader and a [Scratch] may be used by one goroutine
// at a time, so give each goroutine its own. The package starts no goroutine and does no
// I/O.
package sklearn
