package oneshot

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

// A run over a few hundred thousand rows ends after some tens of milliseconds, of which collections of garbage take a
// tenth while little memory is in use. Until that is more than littleMemory, memory may grow to five times of what is in use.
const (
	littleMemory = 48 << 20 // bytes in use after a collection
	fewPercent   = 400
	usualPercent = 100
)

// FewCollections makes collections of garbage rare in this process as long as little memory is in use, unless the variable
// GOGC says how often they are. end makes them as frequent as usual.
func FewCollections() (end func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	var ended atomic.Bool
	usual := func() {
		ended.Store(true)
		debug.SetGCPercent(usualPercent)
	}
	// Garbage with a finalizer tells when a collection has ended.
	type garbage struct{ _ [16]byte }
	var collected func(*garbage)
	collected = func(*garbage) {
		sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		if metrics.Read(sample); sample[0].Value.Uint64() > littleMemory {
			usual()
		} else if !ended.Load() {
			runtime.SetFinalizer(new(garbage), collected)
		}
	}
	debug.SetGCPercent(fewPercent)
	runtime.SetFinalizer(new(garbage), collected)
	return usual
}
