package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator/reference"
	"github.com/fleetscore/fleetscore/internal/gateway/rejected"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
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

// TestReferenceDataThatCantBeRead: queries wait until their reference data can be read, whatever
// is wrong with it; an error would end the gateway too, which takes readings meanwhile.
func TestReferenceDataThatCantBeRead(t *testing.T) {
	t.Parallel()
	for _, kind := range []fleetscore.Kind{fleetscore.Unavailable, fleetscore.Corrupt} {
		dir, err := store.OpenDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		testkit.CloseLater(t, dir)
		synctest.Test(t, func(t *testing.T) {
			tries, health := 0, &obs.Health{}
			broken := &storetest.Faulty{Bucket: dir, Fail: func(string, fleetscore.BlobName) error {
				if tries++; tries > 3 {
					return nil
				}
				return fleetscore.Errorf(kind, "read", "limits", "it is broken")
			}}
			references := reference.New(map[string]fleetscore.ReferenceConfig{"limits": {}}, reference.Deps{Store: broken, Now: time.Now})
			ended := make(chan error, 1)
			s := &streams{server: &Server{log: slog.New(slog.DiscardHandler), health: health}}
			go func() { ended <- s.load(t.Context(), references) }()
			time.Sleep(time.Second)
			if len(ended) > 0 || len(health.Problems()) != 1 {
				t.Errorf("%s: the queries don't wait: health %v", kind, health.Problems())
			}
			if err := <-ended; err != nil || len(health.Problems()) != 0 {
				t.Errorf("%s: once it can be read: %v, health %v", kind, err, health.Problems())
			}
		})
	}
}

// TestOutageOfAService: a service that fails soon after each start is one outage in the log, which is
// over once all services have run for a while.
func TestOutageOfAService(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		log := slog.New(slog.NewTextHandler(&text, nil))
		trouble := new(lifecycle.Outages).Trouble(log)
		for _, lasts := range []time.Duration{time.Second, time.Second, steady - time.Second, steady + time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), lasts)
			trouble.Failed(slog.LevelError, "readings are held up", errors.New("the same"))
			if err := lifecycle.Run(ctx, log, over(&trouble)); err != nil {
				t.Error(err)
			}
			cancel()
			if n, over := strings.Count(text.String(), "held up"), strings.Count(text.String(), "taken again"); n != 1 || (over == 1) != (lasts > steady) {
				t.Errorf("after services that lasted %v the log has\n%s", lasts, &text)
			}
		}
	})
}
