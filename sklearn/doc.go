// Package sklearn loads scikit-learn models and scores them in Go, without
// Python and without running anything the file contains.
//
// A pickle is parsed as data by an own reader: every class it names must stand
// on an exact list, and no callable is ever called. What comes out is validated
// (shapes, finite numbers, feature counts along a pipeline) and copied into a
// [Model] that no longer needs the file's bytes.
//
//	model, err := sklearn.Load(data)
//	…
//	err = model.Score(x, rows, prediction, score, &scratch)
//
// # Supported
//
// Pickle protocols 0 to 5, written by Python 2 or 3, NumPy 1 or 2, and
// scikit-learn 0.19 to 1.9:
//
//	Pipeline        steps of the estimators below, pipelines in pipelines, "passthrough" and None
//	StandardScaler  with and without with_mean and with_std
//	OneClassSVM     kernel="rbf", fitted on dense data
//
// Anything else is refused with a [fleetscore.Error] of kind Invalid that names
// the class, or the class and parameter, and says what to do.
//
// # Results
//
// Labels equal scikit-learn's, ties included: a decision of exactly 0 is an
// outlier for OneClassSVM. Sums run in libsvm's order in float64. scikit-learn
// may hand a squared distance over several features to a BLAS, and its libm may
// round exp differently, so decision values agree to within 1e-12 of the sum of
// the absolute dual coefficients; measured differences are far smaller.
//
// # Safety and limits
//
// Corrupt, truncated or hostile bytes give an error, never a panic. Memory while
// loading stays within 4 times the size of the file (and at least 64 KiB); files
// over [MaxBytes] are refused. Parsing is no integrity check: damage inside an
// array's numbers can't be seen, so keep a digest beside each model.
//
// # Concurrency
//
// A [Model] is immutable and safe for concurrent use. A [Scratch] belongs to one
// goroutine at a time. The package starts no goroutine, and does no I/O.
package sklearn
