// Package lifecycle runs the services of a process together. All services start. When
// one service or the context ends, all services are asked to end and waited for.
// Services that the others need until their own end are asked last.
//
// Turns let one caller at a time work on each of many things.
//
// Loops are how services do their work: a loop steps after events and at set times, and
// repeats a step that failed.
//
// The package doesn't know what services do and doesn't restart them: a service that
// can recover does so itself.
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
	Last bool // asked to end only after all services that aren't Last have ended, because they need it until then
}

// slowStop is the time after which the log names a service that hasn't ended.
const slowStop = 10 * time.Second

// Run runs the services until ctx ends or one of them returns, asks the others to
// end, and returns after the last one has ended. The error is that of the first
// service that failed, with its name, or nil. A panic in a service counts as its
// error.
func Run(ctx context.Context, log *slog.Logger, services ...Service) error {
	last, cancelLast := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelLast()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type ended struct {
		at  int
		err error
	}
	results := make(chan ended, len(services))
	var wg sync.WaitGroup
	running := make(map[int]bool, len(services))
	for i, s := range services {
		running[i] = true
		of := ctx
		if s.Last {
			of = last
		}
		wg.Go(func() { results <- ended{i, guard(of, s)} })
	}
	defer wg.Wait()
	var first error
	var slow <-chan time.Time
	stopping := ctx.Done()
	for len(running) > 0 {
		if !needed(services, running) {
			cancelLast()
		}
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

// needed reports whether a service that isn't Last still runs.
func needed(services []Service, running map[int]bool) bool {
	for i := range running {
		if !services[i].Last {
			return true
		}
	}
	return false
}

// guard runs a service and turns a panic into an error.
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
