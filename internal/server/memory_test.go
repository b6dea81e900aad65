package server

import (
	"context"
	"errors"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

// TestMuchMemoryGrowsLess: while much memory is in use, the garbage collector works sooner;
// before and afterwards it doesn't. It runs alone, because the setting is the process's.
func TestMuchMemoryGrowsLess(t *testing.T) {
	t.Setenv("GOGC", "")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- boundMemory(ctx) }()
	is := func(want uint64) {
		t.Helper()
		setting := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		for limit := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // it looks each second
			runtime.GC()
			if metrics.Read(setting); setting[0].Value.Uint64() == want {
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("the garbage collector is set to %d, want %d", setting[0].Value.Uint64(), want)
			}
		}
	}
	is(usualPercent)
	func() {
		much := make([]byte, muchMemory+1<<20)
		is(tightPercent)
		runtime.KeepAlive(much)
	}()
	is(usualPercent)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
