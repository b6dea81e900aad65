// Package sklearn loads scikit-learn models and scores them in Go: without Python,
// and without running anything that the file contains.
//
//	data, err := os.ReadFile("model.pickle")      // pickle, joblib or skops
//	model, err := sklearn.Load(data)
//	predictions, scores, err := model.Predict(rows) // [][]float64
//
// It is for programs that get models from people who train in Python, and want
// their labels and scores in a service, a command or a pipeline that isn't Python:
// a model loads in microseconds, a row costs nanoseconds, and a pickle from a
// stranger can do no harm.
//
// # Use
//
// [Load] reads a fitted estimator however it was written: pickle of protocol 0 to 5
// (Python 2 or 3, NumPy 1 or 2), joblib with any of its compressions, skops, or a
// native record of this package. The format is recognised by content.
//
// [Model.PredictInto] writes what predict gives of each row, and beside it what
// decision_function or predict_proba gives. [Model.Call] computes any one method:
// [Predict], [DecisionFunction], [ScoreSamples], [PredictProba], [PredictLogProba],
// [Transform]; [Model.Methods] says which the model has. [Model.Predict] is for those
// who don't count allocations. Rows are float64, in the order of the
// columns in training, whose names stand in [Info.FeatureNames] where the model was
// fitted with names.
//
// [Model.Info] describes a model: its steps and their parameters, the releases that
// wrote it, its size, the range of its training rows where the file tells, and what
// is wrong with it ([Info.Health]): a detector that flags every row or none, a
// classifier that knows one answer, a file that a current scikit-learn can't load.
//
// [Model.AppendRecord] and [RecordReader] keep a model in a compact native form
// that is read without allocation. docs/formats/record.md describes it.
//
// # Supported
//
// scikit-learn 0.19 to 1.9. A hundred classes, among them pipelines with all
// common scalers, imputers and transformers, every support vector machine, linear
// models, trees, forests and boosting, isolation forests, local outlier factor,
// elliptic envelope, neighbours, mixtures, perceptrons, calibration, searches,
// voting, stacking and bagging. [Supported] lists them, docs/sklearn.md has the
// table with the methods and limits of each.
//
// Anything else is refused with a [fleetscore.Error] of kind Invalid that names the
// class, or the class and parameter, and says what to do. A model is never scored
// approximately: it is what scikit-learn computes, or it is refused.
//
// # Accuracy
//
// Everything is float64. Where the order of scikit-learn's arithmetic is defined
// (support vector machines, trees, forests, scalers), labels are equal for every
// row, ties included: a decision of exactly 0 is an outlier for OneClassSVM and an
// inlier for IsolationForest. Where it leaves the order to a BLAS (linear models,
// PCA, mixtures), values agree within 1e-12 of the scale of the sum's terms, and
// labels wherever the value isn't that close to the threshold. What releases did
// differently, each model gets as its own release did it. Rows that scikit-learn
// refuses, as NaN for most estimators, are refused here; what it takes, this
// package takes. A wrong number of features is always an error. Tests compare with
// live scikit-learn of several releases on models with random parameters.
//
// # Safety
//
// A pickle is a program; this package doesn't run it. It parses the few opcodes
// that make data, and every class or function that the file names must stand on an
// exact list; none is ever called. What comes out is checked before it is used:
// shapes, finite numbers, links of trees, feature counts from step to step. Corrupt,
// truncated or hostile bytes give an error, never a panic, and take time in
// proportion to the file.
//
// Parsing is no integrity check: damage inside an array's numbers can't be seen, so
// keep a digest beside each model.
//
// # Memory
//
// Loading takes at most 4 times the size of the contents (unpacked, if the file is
// compressed), or 8 MiB if that is more, and what the decompressor itself needs, a
// few MiB for bz2 and lz4. Contents may be 16 MiB or 100 times the file, whichever is
// more, up to 1 GiB; larger ones are taken for decompression bombs. Files over
// [MaxBytes] are refused. A model refers to nothing of the file, one of a [RecordReader]
// to its record. PredictInto and Call allocate nothing once their [Scratch] was used for a
// model as large.
//
// # Speed
//
// Rows are computed side by side in vector instructions, by AVX-512 or AVX2 where
// the processor has them, else in Go; the environment variable
// FLEETSCORE_CPU=generic or =avx2, read when the program starts, takes less. The
// sets differ in the last digits of scores at most: of a support vector machine, a
// decision too close to 0 for these is computed again in scikit-learn's order.
//
// PredictInto takes blocks of 256 rows through all steps; few rows a call cost as much
// as 32. Rows that lie column by column are best given to [Model.PredictColumns]. Where
// many models are scored in turn, keep them as native records, and read all by one
// RecordReader: that takes no memory and a fraction of a microsecond, and forests
// of one feature are step functions there, ten times faster than trees.
//
// # Concurrency
//
// A [Model] is immutable and safe for concurrent use, one of a [RecordReader] until its
// next Read. A RecordReader and a [Scratch] belong to one goroutine at a time; give each
// its own. The package starts no goroutine and does
// no I/O.
package sklearn
