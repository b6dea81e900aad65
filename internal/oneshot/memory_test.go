package oneshot

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// percent is how much memory may grow between two collections.
func percent() int {
	now := debug.SetGCPercent(usualPercent)
	debug.SetGCPercent(now)
	return now
}

// TestFewCollections: collections are rare while little memory is in use, and as frequent as usual from then on, or at the end.
func TestFewCollections(t *testing.T) {
	t.Setenv("GOGC", "")
	end := FewCollections()
	for range 3 {
		runtime.GC()
	}
	if p := percent(); p != fewPercent {
		t.Errorf("with little memory in use: %d per cent", p)
	}
	end()
	if p := percent(); p != usualPercent {
		t.Errorf("at the end: %d per cent", p)
	}
	end = FewCollections()
	defer end()
	much := make([]byte, 2*littleMemory)
	for until := time.Now().Add(30 * time.Second); percent() != usualPercent && time.Now().Before(until); runtime.Gosched() {
		runtime.GC()
	}
	runtime.KeepAlive(much)
	if p := percent(); p != usualPercent {
		t.Errorf("with much memory in use: %d per cent", p)
	}
	t.Setenv("GOGC", "70")
	debug.SetGCPercent(70)
	defer debug.SetGCPercent(usualPercent)
	FewCollections()()
	if p := percent(); p != 70 {
		t.Errorf("where GOGC is set: %d per cent", p)
	}
}
