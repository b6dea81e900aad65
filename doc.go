// Package fleetscore is the glossary of Fleetscore: the nouns every room
// shares, their identifiers, the kinds of error, and the columnar batches that
// pass between rooms.
//
// It holds no behaviour beyond what a noun needs to be well formed (parsing,
// formatting, hashing a key to its shard), imports the standard library only, starts
// no goroutine and does no I/O. All values are safe to copy. Slices in batches are
// shared: a function that receives a batch must not modify it unless its
// documentation says so.
//
// Times are UTC. Windows and intervals are (start, end]: the end belongs to
// them, the start does not, and a row's stamp is its window's end.
package fleetscore
