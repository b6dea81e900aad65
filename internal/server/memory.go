package server

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A server with thousands of nodes holds hundreds of megabytes for their connections. The
// garbage collector usually lets memory grow to twice of what is in use and of all stacks.
// From muchMemory on it may grow by half only, which costs more processor time and keeps a
// gigabyte from becoming two.
const (
	muchMemory   = 128 << 20 // bytes in use after a collection
	usualPercent = 100
	tightPercent = 50
)

// gcPercent is how much memory may grow between two collections, in per cent.
func gcPercent(inUse uint64) int {
	if inUse >= muchMemory {
		return tightPercent
	}
	return usualPercent
}

// boundMemory sets how much memory may grow until ctx ends, unless the variable GOGC says it.
func boundMemory(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return ctx.Err()
	}
	look := time.NewTicker(time.Second)
	defer look.Stop()
	defer debug.SetGCPercent(usualPercent)
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	have := usualPercent
	for {
		metrics.Read(sample)
		if want := gcPercent(sample[0].Value.Uint64()); want != have {
			have = want
			debug.SetGCPercent(want)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
	}
}
