package server

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/gateway/rejected"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestStreamsOutliveTheLedger: a ledger that can't be read for a moment when the server
// starts doesn't end the server.
func TestStreamsOutliveTheLedger(t *testing.T) {
	t.Parallel()
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	testkit.CloseLater(t, l)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reads := make(chan struct{}, 9)
	s := &Server{log: slog.New(slog.DiscardHandler), Ledger: &ledgertest.Faulty{Ledger: l, Fail: func(_ context.Context, op, _ string) error {
		if op != "Config" {
			return nil
		}
		reads <- struct{}{}
		if len(reads) > 1 {
			cancel()
			return nil
		}
		l.Put(ledger.ConfigTopic) // so that it looks again at once
		return fleetscore.Errorf(fleetscore.Unavailable, op, "", "the database is away")
	}}}
	keeper, err := rejected.New(rejected.Deps{Ledger: l, Now: time.Now, Log: s.log})
	if err != nil {
		t.Fatal(err)
	}
	if err := (&streams{server: s, keeper: keeper}).run(ctx); err != nil && !errors.Is(err, context.Canceled) || len(reads) != 2 {
		t.Errorf("it ended after %d reads with %v; want 2, the second after the outage", len(reads), err)
	}
}
