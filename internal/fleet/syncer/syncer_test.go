package syncer

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestFleetsSyncApart: a fleet whose folder doesn't answer delays no other, and its
// status can be asked for meanwhile.
func TestFleetsSyncApart(t *testing.T) {
	t.Parallel()
	b, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for d := range 3 {
		if err := store.WriteAll(t.Context(), b, fleetscore.BlobName(fmt.Sprintf("models/m/model_%d", d)), []byte("model"), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := fleetscore.Config{Hub: fleetscore.HubConfig{Key: []string{"Device"}, Time: "TS"}, Fleets: map[string]fleetscore.FleetConfig{
		"a": {Path: "models/slow", Model: "model_{Device}"}, "z": {Path: "models/m", Model: "model_{Device}"}}}
	if _, err := l.PutConfig(t.Context(), time.Now(), "text", cfg); err != nil {
		t.Fatal(err)
	}
	hang, asked := make(chan struct{}), make(chan struct{}, 100)
	ahead := 1000 * time.Hour // the server's time is another than the machine's
	s, err := New(Config{}, Deps{Ledger: l, Now: func() time.Time { return time.Now().Add(ahead) }, Store: &storetest.Faulty{Bucket: b, Fail: func(op string, name fleetscore.BlobName) error {
		if op == "list" && strings.HasPrefix(string(name), "models/slow") {
			asked <- struct{}{}
			<-hang
		}
		return nil
	}}})
	if err != nil {
		t.Fatal(err)
	}
	changes, stop := l.Watch(ledger.FleetTopic("z"))
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		close(hang)
		cancel()
		<-done
	}()
	limit := time.After(20 * time.Second)
	for _, signal := range []<-chan struct{}{asked, changes} {
		select {
		case <-signal:
		case <-limit:
			t.Fatal("one of the fleets isn't synced")
		}
	}
	if g, err := fleet.Current(t.Context(), b, "z"); err != nil || g.Members != 3 || time.Until(g.Created) < ahead-time.Hour {
		t.Errorf("generation %+v, %v", g, err)
	}
	if at, err := s.Status("a"); !at.IsZero() || err != nil {
		t.Errorf("the fleet that is being synced: %s, %v; want nothing yet", at, err)
	}
	if at, err := s.Status("z"); at.IsZero() || err != nil {
		t.Errorf("the fleet that was synced: %s, %v", at, err)
	}
}
