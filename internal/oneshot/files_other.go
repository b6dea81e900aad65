//go:build !linux

package oneshot

import "os"

func beginWriting(*os.File, int64, int64) {}

// mapAhead is nothing: pages are mapped when they are first used.
const mapAhead = 0

// reserve gives a file its size.
func reserve(f *os.File, size int64) error { return f.Truncate(size) }
