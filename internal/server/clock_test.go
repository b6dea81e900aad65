package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/config"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

func TestMain(m *testing.M) {
	state, err := os.MkdirTemp("", "fleetscore-state") // what servers leave for commands
	if err != nil {
		panic(err)
	}
	os.Setenv("XDG_STATE_HOME", state)
	code := m.Run()
	os.RemoveAll(state)
	os.Exit(code)
}

const clockYAML = `hub: {key: [Device], time: TS, retention: 1s, disorder: 1s, idle_after: 1s}
queries:
  readings: |
    SELECT System.Timestamp() AS TS, Device, AVG(Value) AS Value
    INTO readings FROM hub TIMESTAMP BY TS GROUP BY Device, TumblingWindow(second, 5)
fleets:
  sensors: {path: models/sensors, model: "model_{Device}"}
pools:
  cpu: {slots: 1}
pipelines:
  anomalies:
    dataset: readings
    fleet: sensors
    features: [Value]
    schedule: {cron: "* * * * *"}
    pool: cpu
`

// serving is a server in this process whose machine's clock is wrong by off.
type serving struct {
	*Server
	t    *testing.T
	end  context.CancelFunc
	done chan error
}

func serveWrong(t *testing.T, dir string, off time.Duration) *serving {
	t.Helper()
	begin := time.Now()
	s, err := Open(t.Context(), Config{Dir: dir, Listen: "127.0.0.1:0", Clock: clock.Deps{
		Wall:   func() time.Time { return time.Now().Add(off) },
		Steady: func() time.Duration { return time.Since(begin) },
		Synced: func() (time.Time, bool) { return time.Time{}, false }}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse(filepath.Join(dir, "fleet.yaml"), []byte(clockYAML))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ledger.PutConfig(t.Context(), time.Now(), clockYAML, cfg); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	v := &serving{s, t, end, make(chan error, 1)}
	go func() { v.done <- s.Run(ctx) }()
	t.Cleanup(v.stop)
	return v
}

func (v *serving) stop() {
	v.end()
	if err, ok := <-v.done; ok && err != nil {
		v.t.Error(err)
	}
}

// send posts a reading of the true time until the gateway is there to take it.
func (v *serving) send(at time.Time) {
	v.t.Helper()
	body := fmt.Sprintf(`{"TS":%q,"Device":"a","Value":1}`, at.UTC().Format(time.RFC3339Nano))
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		r := httptest.NewRequestWithContext(v.t.Context(), http.MethodPost, "/hubs/hub/messages", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		v.streams.ServeHTTP(w, r)
		if w.Code == 200 {
			return
		}
		if w.Code != 503 || time.Now().After(deadline) {
			v.t.Fatalf("a reading of the true time: status %d, %s", w.Code, w.Body)
		}
	}
}

func (v *serving) stats() hub.Stats {
	v.t.Helper()
	v.streams.mu.Lock()
	h := v.streams.hub
	v.streams.mu.Unlock()
	s, err := h.Stats(v.t.Context())
	if err != nil {
		v.t.Fatal(err)
	}
	return s[0]
}

// TestServerWithAWrongClock starts a server whose clock is two days ahead, then one
// whose clock is an hour behind, over a log with readings that no query has
// committed. Neither removes them, refuses readings, or decides due times, until
// an operator accepts the clock.
func TestServerWithAWrongClock(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for the hub's retention")
	}
	dir := t.TempDir()
	first := serveWrong(t, dir, 0)
	first.send(time.Now())
	if !first.clock.Trusted() {
		t.Errorf("a new server doesn't trust its clock: %+v", first.clock.State())
	}
	first.stop()
	close(first.done)

	for _, off := range []time.Duration{48 * time.Hour, -time.Hour} {
		s := serveWrong(t, dir, off)
		s.send(time.Now())
		looks := 0
		for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // more than the retention
			if st := s.stats(); st.First != 1 {
				t.Fatalf("%s off: the first message is %d, what wasn't committed was removed", off, st.First)
			}
			looks++
		}
		if looks == 0 {
			t.Fatal("the hub was never looked at")
		}
		state := s.clock.State()
		if state.Trusted || state.Reason == "" || time.Since(state.Now).Abs() > time.Minute {
			t.Errorf("%s off: the clock's state is %+v", off, state)
		}
		if p := fmt.Sprint(s.health.Problems()); !strings.Contains(p, "fleetscore clock accept") {
			t.Errorf("%s off: health says %s", off, p)
		}
		jobs, err := s.Ledger.Jobs(t.Context(), ledger.JobFilter{})
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range jobs {
			if j.Interval.To.After(time.Now()) {
				t.Errorf("%s off: a job of the future was made: %s", off, j.Interval)
			}
		}
		if off < 0 {
			if st := s.clock.Accept(); !st.Trusted {
				t.Errorf("accepted, and yet %+v", st)
			}
		}
		s.stop()
		close(s.done)
	}
}

// TestBacklogOfALeaderThatWas: a server that no longer runs the queries doesn't go on
// refusing readings by what it measured last.
func TestBacklogOfALeaderThatWas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.New(1)
		if _, err := h.Append(t.Context(), 0, hubtest.At(1), hubtest.Batch(1, 1000)); err != nil {
			t.Fatal(err)
		}
		b := &backlog{bound: 1}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.watch(ctx, h, func(int) uint64 { return 1 }, nil) }()
		time.Sleep(2 * backlogEvery)
		if b.full() == "" {
			t.Error("a backlog over its bound isn't noticed")
		}
		cancel()
		<-done
		if b.full() != "" {
			t.Errorf("after the queries ended: %s", b.full())
		}
	})
}

func TestBacklogBound(t *testing.T) {
	t.Parallel()
	b := &backlog{bound: 1000}
	stats := []hub.Stats{{Partition: 0, First: 11, Last: 110, Messages: 100, SizeBytes: 1500}, {Partition: 1, First: 1}}
	for held, full := range map[uint64]bool{0: true, 11: true, 40: true, 60: false, 111: false} {
		b.judge(stats, func(int) uint64 { return held })
		if got := b.full() != ""; got != full {
			t.Errorf("messages from %d on wait: full is %v, want %v (%s)", held, got, full, b.full())
		}
	}
}
