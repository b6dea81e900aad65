package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func waits(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestAllEndWithTheContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan struct{})
	go func() { <-started; cancel() }()
	err := Run(ctx, quiet, Service{Name: "a", Run: waits}, Service{Name: "b", Run: func(ctx context.Context) error { close(started); return waits(ctx) }})
	if err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestOneFailureEndsAll(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	cleaned := false
	err := Run(t.Context(), quiet,
		Service{Name: "good", Run: func(ctx context.Context) error { err := waits(ctx); cleaned = true; return err }},
		Service{Name: "bad", Run: func(context.Context) error { return boom }})
	if !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), "bad: ") || !cleaned {
		t.Errorf("got %v, cleaned %v; want bad's error after the other ended", err, cleaned)
	}
}

func TestPanicIsAnError(t *testing.T) {
	t.Parallel()
	err := Run(t.Context(), quiet, Service{Name: "p", Run: func(context.Context) error { panic("oh") }}, Service{Name: "a", Run: waits})
	if err == nil || !strings.Contains(err.Error(), "p: panic: oh") {
		t.Errorf("got %v, want the panic", err)
	}
}

func TestSlowServiceIsNamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b strings.Builder
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := Run(ctx, slog.New(slog.NewTextHandler(&b, nil)), Service{Name: "snail", Run: func(context.Context) error { time.Sleep(slowStop + time.Second); return nil }})
		if err != nil || !strings.Contains(b.String(), "service=snail") {
			t.Errorf("got %v and log %q, want the service named", err, b.String())
		}
	})
}

// TestLastEndsLast: a service that others need is asked to end after them.
func TestLastEndsLast(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	needed, order := make(chan string), make(chan string, 2)
	cancel()
	err := Run(ctx, quiet,
		Service{Name: "door", Last: true, Run: func(ctx context.Context) error {
			for {
				select {
				case needed <- "answer":
				case <-ctx.Done():
					order <- "door"
					return ctx.Err()
				}
			}
		}},
		Service{Name: "guest", Run: func(ctx context.Context) error {
			<-ctx.Done()
			<-needed // the last use of the other service
			order <- "guest"
			return ctx.Err()
		}})
	if a, b := <-order, <-order; err != nil || a != "guest" || b != "door" {
		t.Errorf("ended %s, then %s, with %v; want the guest first", a, b, err)
	}
}
