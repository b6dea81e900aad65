package oneshot

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

// A run over a few hundred thousand rows ends after some tens of milliseconds, of which collections of garbage would take a
// tenth. There is none until the process has taken freeMemory; from then on, memory may grow to five times of what is in use,
// until that is more than littleMemory.
const (
	freeMemory   = 96 << 20
	littleMemory = 48 << 20 // bytes in use after a collection
	fewPercent   = 400
	usualPercent = 100
)

// FewCollections makes collections of garbage rare in this process as long as little memory is in use, unless the variables
// GOGC or GOMEMLIMIT say how often they are. end makes them as frequent as usual.
func FewCollections() (end func()) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	var ended atomic.Bool
	usual := func() {
		ended.Store(true)
		debug.SetGCPercent(usualPercent)
		debug.SetMemoryLimit(math.MaxInt64)
	}
	// Garbage with a finalizer tells when a collection has ended.
	type garbage struct{ _ [16]byte }
	var collected func(*garbage)
	collected = func(*garbage) {
		sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		if metrics.Read(sample); sample[0].Value.Uint64() > littleMemory {
			usual()
		} else if !ended.Load() {
			debug.SetGCPercent(fewPercent)
			debug.SetMemoryLimit(math.MaxInt64)
			runtime.SetFinalizer(new(garbage), collected)
		}
	}
	debug.SetMemoryLimit(freeMemory)
	debug.SetGCPercent(-1)
	runtime.SetFinalizer(new(garbage), collected)
	return usual
}
