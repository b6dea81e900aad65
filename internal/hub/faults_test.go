package hub

import (
	"errors"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
)

func openJetStream(t *testing.T) *jetStream {
	t.Helper()
	h, err := OpenJetStream(t.Context(), JetStreamConfig{Dir: t.TempDir()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h.(*jetStream)
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	h := openJetStream(t)
	h.free = func(string) (uint64, error) { return reserveBytes - 1, nil }
	if _, err := h.Append(t.Context(), 0, Stamp{Source: fleetscore.SourceHTTP, Arrived: 0}, nil); !fleetscore.Exhausted.Is(err) {
		t.Errorf("append to a full disk: %v, want kind exhausted", err)
	}
	h.free = func(string) (uint64, error) { return reserveBytes, nil }
	if seq, err := h.Append(t.Context(), 0, Stamp{Source: fleetscore.SourceHTTP, Arrived: 0}, nil); err != nil || seq != 1 {
		t.Errorf("append once there is room: %d, %v; want 1", seq, err)
	}
}

// TestEngineFails stops JetStream under the hub, as a failed write does, and
// looks whether the hub comes back with all it had and readers go on.
func TestEngineFails(t *testing.T) {
	t.Parallel()
	h := openJetStream(t)
	if _, err := h.Append(t.Context(), 0, Stamp{Source: fleetscore.SourceHTTP, Arrived: 1}, nil); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	read := make(chan error, 1)
	go func() {
		var next uint64 = 1
		read <- h.Read(t.Context(), 0, 0, func(m Message) error {
			if m.Seq != next {
				t.Errorf("read %d, want %d", m.Seq, next)
			}
			if next++; next > 3 {
				return enough
			}
			return nil
		})
	}()
	if err := h.engine.srv.DisableJetStream(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Append(t.Context(), 0, Stamp{Source: fleetscore.SourceHTTP, Arrived: 2}, nil); !fleetscore.Unavailable.Is(err) {
		t.Fatalf("append to a stopped engine: %v, want kind unavailable", err)
	}
	for want := uint64(2); want <= 3; want++ {
		if seq, err := h.Append(t.Context(), 0, Stamp{Source: fleetscore.SourceHTTP, Arrived: 3}, nil); err != nil || seq != want {
			t.Fatalf("append after the restart: %d, %v; want %d", seq, err, want)
		}
	}
	select {
	case err := <-read:
		if err != enough {
			t.Errorf("read: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the reader didn't go on")
	}
}
