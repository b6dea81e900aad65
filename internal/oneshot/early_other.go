//go:build !linux

package oneshot

import "os"

func beginWriting(*os.File, int64, int64) {}

// mapAhead is nothing: pages are mapped when they are first used.
const mapAhead = 0

// takeLargePages does nothing.
func takeLargePages(uintptr, uintptr) {}
