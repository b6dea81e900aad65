// Package lifecycle runs the services of a process together: all start, and when
// one ends or the context does, all are told to end and waited for.
//
// It knows nothing about what services do and restarts none: a service that can
// heal does so itself.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// Service is one part of a process. Run blocks until ctx ends or it can't go on,
// and returns after everything it started has ended. Returning nil, or the
// context's error after the context ended, is a normal end.
type Service struct {
	Name string
	Run  func(ctx context.Context) error
}

// slowStop is after how long a service that hasn't ended is named in the log.
const slowStop = 10 * time.Second

// Run runs the services until ctx ends or one of them returns, tells the others
// to end, and returns after the last one has. The error is that of the first
// service that failed, with its name, or nil. A panic in a service is such an
// error.
func Run(ctx context.Context, log *slog.Logger, services ...Service) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type ended struct {
		at  int
		err error
	}
	results := make(chan ended, len(services))
	var wg sync.WaitGroup
	for i, s := range services {
		wg.Go(func() { results <- ended{i, guard(ctx, s)} })
	}
	defer wg.Wait()
	running := make(map[int]bool, len(services))
	for i := range services {
		running[i] = true
	}
	var first error
	var slow <-chan time.Time
	stopping := ctx.Done()
	for len(running) > 0 {
		select {
		case r := <-results:
			delete(running, r.at)
			if r.err != nil && first == nil {
				first = fmt.Errorf("%s: %w", services[r.at].Name, r.err)
			}
			cancel()
		case <-stopping:
			stopping = nil
			slow = time.After(slowStop)
		case <-slow:
			for i := range running {
				log.Warn("service is slow to end", "service", services[i].Name)
			}
			slow = time.After(slowStop)
		}
	}
	return first
}

// guard runs a service and makes errors of panics.
func guard(ctx context.Context, s Service) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	err = s.Run(ctx)
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return nil
	}
	return err
}
