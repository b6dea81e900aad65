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
	err := Run(ctx, quiet, Service{"a", waits}, Service{"b", func(ctx context.Context) error { close(started); return waits(ctx) }})
	if err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestOneFailureEndsAll(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	cleaned := false
	err := Run(t.Context(), quiet,
		Service{"good", func(ctx context.Context) error { err := waits(ctx); cleaned = true; return err }},
		Service{"bad", func(context.Context) error { return boom }})
	if !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), "bad: ") || !cleaned {
		t.Errorf("got %v, cleaned %v; want bad's error after the other ended", err, cleaned)
	}
}

func TestPanicIsAnError(t *testing.T) {
	t.Parallel()
	err := Run(t.Context(), quiet, Service{"p", func(context.Context) error { panic("oh") }}, Service{"a", waits})
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
		err := Run(ctx, slog.New(slog.NewTextHandler(&b, nil)), Service{"snail", func(context.Context) error { time.Sleep(slowStop + time.Second); return nil }})
		if err != nil || !strings.Contains(b.String(), "service=snail") {
			t.Errorf("got %v and log %q, want the service named", err, b.String())
		}
	})
}
