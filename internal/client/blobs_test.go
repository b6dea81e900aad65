package client

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/store"
)

// TestBlobsOutlastRestarts: a node's reads and writes succeed even if the server is
// away for a while, or ends in the middle of an answer or a write.
func TestBlobsOutlastRestarts(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	var asked atomic.Int64
	var written atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		if n%2 == 1 {
			panic(http.ErrAbortHandler)
		}
		if r.Method == http.MethodPut {
			body, _ := io.ReadAll(r.Body)
			written.Store(body)
			_, _ = io.WriteString(w, `{"name":"x","size_bytes":3}`)
			return
		}
		offset, _ := strconv.Atoi(r.URL.Query().Get("offset"))
		rest := data[offset:]
		if n < 8 { // the answer ends early
			_, _ = w.Write(rest[:len(rest)/3])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(rest)
	}))
	t.Cleanup(s.Close)
	c, err := New(Config{Server: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, ctx := c.Blobs(), dispatch.WithLease(t.Context(), "lease")
	if got, err := store.ReadAll(ctx, b, "data/x/f"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(data))
	}
	asked.Store(0)
	if i, err := b.Put(ctx, "predictions/p/f", bytes.NewBufferString("abc"), store.PutOptions{}); err != nil || i.SizeBytes != 3 {
		t.Errorf("%+v, %v", i, err)
	}
	if got := fmt.Sprintf("%s", written.Load()); got != "abc" {
		t.Errorf("the server got %q", got)
	}
	if err := b.Delete(ctx, "x"); !fleetscore.Invalid.Is(err) {
		t.Errorf("Delete: %v, want kind invalid", err)
	}
	if _, err := b.Get(t.Context(), "x", 0, -1); err == nil {
		t.Error("a blob was read without a lease")
	}
}

// TestBlobsOfASilentServer: a server that takes requests and never answers, or stops in
// the middle of an answer, fails each operation as unavailable within bounded time.
func TestBlobsOfASilentServer(t *testing.T) {
	t.Parallel()
	const silence, away = 50 * time.Millisecond, 150 * time.Millisecond
	end := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("offset") != "" && strings.HasSuffix(r.URL.Path, "/stops") {
			if r.URL.Query().Get("offset") == "0" {
				_, _ = io.WriteString(w, "begin")
			}
			_ = http.NewResponseController(w).Flush()
		}
		<-end
	}))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(end) })
	c, err := New(Config{Server: s.URL, SilenceLimit: silence, AwayLimit: away})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	b, ctx := c.Blobs(), dispatch.WithLease(t.Context(), "lease")
	for op, try := range map[string]func() error{
		"get":            func() error { _, err := store.ReadAll(ctx, b, "data/x/f"); return err },
		"get that stops": func() error { _, err := store.ReadAll(ctx, b, "data/x/stops"); return err },
		"stat":           func() error { _, err := b.Stat(ctx, "data/x/f"); return err },
		"list": func() error {
			for _, err := range b.List(ctx, "data/x/", store.ListOptions{}) {
				return err
			}
			return nil
		},
		"put": func() error {
			_, err := b.Put(ctx, "predictions/p/f", bytes.NewReader([]byte("abc")), store.PutOptions{})
			return err
		},
		"put of a stream": func() error {
			_, err := b.Put(ctx, "predictions/p/f", io.MultiReader(strings.NewReader("abc")), store.PutOptions{})
			return err
		},
	} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			done := make(chan error, 1)
			go func() { done <- try() }()
			select {
			case err := <-done:
				if !fleetscore.Unavailable.Is(err) {
					t.Errorf("got %v, want kind unavailable", err)
				}
			case <-time.After(time.Minute): // far more than the limits
				t.Error("it never ends")
			}
		})
	}
}
