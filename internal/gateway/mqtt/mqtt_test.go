package mqtt

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetscore/fleetscore"
)

// lame is a listener that fails as often as told before its first connection comes.
type lame struct {
	net.Listener
	fails *int
	close func()
	ended chan struct{}
}

func (l *lame) Close() error {
	l.close()
	return l.Listener.Close()
}

func (l *lame) Accept() (net.Conn, error) {
	if *l.fails--; *l.fails >= 0 {
		return nil, errors.New("nobody comes through")
	}
	if *l.fails == -1 {
		here, there := net.Pipe()
		return here, there.Close()
	}
	<-l.ended
	return nil, net.ErrClosed
}

// TestOutage: a listener that fails right after each start is one outage in the log, which the first
// connection ends.
func TestOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		fails := 3
		ctx, cancel := context.WithCancel(t.Context())
		s, err := New(Config{MQTT: fleetscore.MQTTConfig{Listen: "127.0.0.1:0", Topic: "d/{Device}", Value: "V", ArrivalTime: true}, Hub: fleetscore.HubConfig{Key: []string{"Device"}, Time: "TS"}},
			Deps{Log: slog.New(slog.NewTextHandler(&log, nil)), Bound: func(l net.Listener) net.Listener {
				ended := make(chan struct{})
				return &lame{Listener: l, fails: &fails, close: sync.OnceFunc(func() { close(ended) }), ended: ended}
			}})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(5 * listenEvery)
		cancel()
		if err := <-done; err != nil || fails != -2 {
			t.Errorf("%v; %d tries are left, want that of the second connection to be the last one", err, fails)
		}
		for _, text := range []string{`"readings are taken by MQTT"`, "readings can't be taken", "readings are taken by MQTT again"} { // however often it was tried
			if n := strings.Count(log.String(), text); n != 1 {
				t.Errorf("%s is %d times in the log:\n%s", text, n, &log)
			}
		}
	})
}
