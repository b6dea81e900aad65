// Package pickle parses Python's pickles, protocols 0 to 5, as data: values,
// containers, NumPy arrays and objects with the names of their classes. Joblib's
// arrays within the stream are read too.
//
// Every class and function that a file names must stand on an exact list, and
// none is ever called. Memory and work are bounded by multiples of the file's
// size. It gives no meaning to what it finds. A Graph belongs to one goroutine;
// the list of names may be shared.
package pickle
