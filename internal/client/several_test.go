package client

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
)

// TestSeveralServers: a client of several servers asks the next one where it may, and
// stays with the one that answers.
func TestSeveralServers(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write([]byte(`{}`))
	}))
	defer good.Close()
	released := make(chan struct{})
	frozen := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-released:
		case <-r.Context().Done():
		}
	}))
	defer frozen.Close()
	defer close(released)
	breaking := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		panic(http.ErrAbortHandler) // after the request has arrived
	}))
	defer breaking.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	soon := func(repeat bool) context.Context { return with(t.Context(), 50*time.Millisecond, repeat) }
	for what, tt := range map[string]struct {
		first string
		ctx   context.Context
		calls int // until one is answered
	}{
		"dead: the request never reached it":      {dead, t.Context(), 1},
		"frozen, and the request is repeated":     {frozen.URL, soon(true), 1},
		"frozen, and the request is not":          {frozen.URL, soon(false), 2},
		"breaks off, and the request is not":      {breaking.URL, t.Context(), 2},
		"breaks off, and the request is repeated": {breaking.URL, soon(true), 1},
	} {
		c, err := New(Config{Server: tt.first + ", " + good.URL})
		if err != nil {
			t.Fatal(err)
		}
		before := asked.Load()
		for n := 1; ; n++ {
			err := c.Post(tt.ctx, "/x", map[string]int{"a": 1}, nil)
			if err == nil && n != tt.calls || err != nil && (n >= tt.calls || !fleetscore.Unavailable.Is(err)) {
				t.Errorf("%s: call %d: %v; the answer should come to call %d", what, n, err, tt.calls)
			}
			if err == nil || n >= tt.calls {
				break
			}
		}
		if err := c.Post(t.Context(), "/x", nil, nil); err != nil || asked.Load() != before+2 || c.Server() != good.URL {
			t.Errorf("%s: afterwards %v, %d requests arrived, and %s is asked", what, err, asked.Load()-before, c.Server())
		}
		c.Close()
	}
	if _, err := New(Config{Server: good.URL + ",nowhere"}); !fleetscore.Invalid.Is(err) {
		t.Errorf("an address that is none: %v", err)
	}
	only, err := New(Config{Server: frozen.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer only.Close()
	limited, cancel := context.WithTimeout(soon(true), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := only.Post(limited, "/x", nil, nil); err == nil || time.Since(began) < 200*time.Millisecond {
		t.Errorf("a client of one server gave up after %s with %v; it should wait for as long as the request may last", time.Since(began), err)
	}
}
