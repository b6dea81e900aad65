package hub_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/obs"
)

// copyHub backs a hub up into a folder.
func copyHub(ctx context.Context, from, to string) error {
	return hub.Backup(ctx, from, func(name string, size int64, content io.Reader) error {
		path := filepath.Join(to, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		data, err := io.ReadAll(content)
		if err == nil && int64(len(data)) != size {
			err = fmt.Errorf("%s has %d bytes, not %d", name, len(data), size)
		}
		return errors.Join(err, os.WriteFile(path, data, 0o600))
	})
}

// TestBackupOfAHubInUse: copies that are taken while the hub is appended to, rolled and
// trimmed hold every message that was acknowledged before, and nothing in them counts as
// damaged or lost.
func TestBackupOfAHubInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var acknowledged, needed atomic.Uint64
	needed.Store(1)
	h, err := hub.Open(t.Context(), hub.Config{Dir: dir, Retention: time.Second}, hub.Deps{Needed: func(int) uint64 { return needed.Load() }})
	if err != nil {
		t.Fatal(err)
	}
	stop, running := make(chan struct{}), sync.WaitGroup{}
	running.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			seq, err := h.Append(t.Context(), 0, hubtest.At(fleetscore.MicrosOf(time.Now())), hubtest.Batch(1, 200))
			if err != nil {
				t.Error(err)
				return
			}
			acknowledged.Store(seq)
			needed.Store(seq)
		}
	})
	first := func(h hub.Hub) hub.Stats {
		s, err := h.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s[0]
	}
	waitFor(t, "messages that are removed", func() bool { return first(h).First > 1 })
	for range 20 {
		before, copied := acknowledged.Load(), t.TempDir()
		if err := copyHub(t.Context(), dir, copied); err != nil {
			t.Fatal(err)
		}
		health := &obs.Health{}
		c, err := hub.Open(t.Context(), hub.Config{Dir: copied}, hub.Deps{Health: health})
		if err != nil {
			t.Fatal(err)
		}
		s := first(c)
		if c.ID() != h.ID() || s.Last < before || len(s.Damage) > 0 || len(health.Problems()) > 0 {
			t.Errorf("a copy after message %d: hub %d of %d, %+v, %v", before, c.ID(), h.ID(), s, health.Problems())
		}
		next := s.First
		read, enough := context.WithCancel(t.Context())
		err = c.Read(read, 0, 0, func(m hub.Message) error {
			if m.Seq != next {
				t.Errorf("message %d, want %d", m.Seq, next)
			}
			if next = m.Seq + 1; m.Seq == s.Last {
				enough()
			}
			return nil
		})
		enough()
		if !errors.Is(err, context.Canceled) || next != s.Last+1 {
			t.Errorf("read up to %d of %d: %v", next, s.Last, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	running.Wait()
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := copyHub(t.Context(), t.TempDir(), t.TempDir()); err != nil {
		t.Errorf("a folder without a hub: %v", err)
	}
}
