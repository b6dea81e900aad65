// Package pickle parses Python's pickles, protocols 0 to 5, as data: values,
// containers, NumPy arrays and objects with the names of their classes. Joblib's
// arrays within the stream are read too.
//
// Every class and function that a file names must be on an exact list, and none of them
// is ever called. Memory and work are bounded by multiples of the file's size. The
// package doesn't interpret the objects: it doesn't know what an estimator is. One
// goroutine may use a Graph; goroutines may share the list of names.
package pickle
