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
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
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
			log := hubtest.New(1)
			references := reference.New(map[string]fleetscore.ReferenceConfig{"limits": {}}, reference.Deps{Store: broken, Now: time.Now})
			ended := make(chan error, 1)
			s := &streams{server: &Server{log: slog.New(slog.DiscardHandler), health: health}}
			go func() { ended <- s.load(t.Context(), references, log) }()
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

// TestReferenceDataOfAnotherClock: a server that begins to lead, and whose clock is behind that of the one before, puts no new
// version of reference data in force for readings that the other one may have joined.
func TestReferenceDataOfAnotherClock(t *testing.T) {
	t.Parallel()
	dir, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	testkit.CloseLater(t, dir)
	log := hubtest.New(2)
	start := time.Unix(1_000_000, 0)
	from := func(now time.Time, text string) fleetscore.Micros {
		t.Helper()
		if err := store.WriteAll(t.Context(), dir, "references/limits.csv", []byte(text), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		references := reference.New(map[string]fleetscore.ReferenceConfig{"limits": {Path: "references/limits.csv"}},
			reference.Deps{Store: dir, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
		s := &streams{server: &Server{log: slog.New(slog.DiscardHandler), health: &obs.Health{}}}
		if err := s.load(t.Context(), references, log); err != nil {
			t.Fatal(err)
		}
		if err := references.Refresh(t.Context(), "limits"); err != nil {
			t.Fatal(err)
		}
		all, err := references.Versions(t.Context(), "limits", 0)
		if err != nil {
			t.Fatal(err)
		}
		return all[len(all)-1].From
	}
	from(start, "a\n1\n")
	ahead := start.Add(time.Minute) // the clock of the server that took these readings, and led
	for partition, at := range []time.Time{ahead, start} {
		if _, err := log.Append(t.Context(), partition, hubtest.At(fleetscore.MicrosOf(at)), hubtest.Batch(1, 3)); err != nil {
			t.Fatal(err)
		}
	}
	if got := from(start.Add(time.Second), "a\n2\n"); got <= fleetscore.MicrosOf(ahead) {
		t.Errorf("the new version is in force from %s, and readings that came until %s may be joined", got, fleetscore.MicrosOf(ahead))
	}
	later := ahead.Add(time.Hour)
	if got := from(later, "a\n3\n"); got < fleetscore.MicrosOf(later) || got > fleetscore.MicrosOf(later.Add(time.Minute)) {
		t.Errorf("the version after it is in force from %s, and it is %s", got, later)
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
