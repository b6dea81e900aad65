package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
)

// once makes one fault at the nth request.
func once(f storetest.Fault, nth int) func(*http.Request, int) storetest.Fault {
	return func(_ *http.Request, n int) storetest.Fault {
		if n == nth {
			return f
		}
		return storetest.Pass
	}
}

// from makes a fault at the nth request and all that follow.
func from(f storetest.Fault, nth int) func(*http.Request, int) storetest.Fault {
	return func(_ *http.Request, n int) storetest.Fault {
		if n >= nth {
			return f
		}
		return storetest.Pass
	}
}

// faulty is a bucket behind a proxy, and the same without.
func faulty(t *testing.T, s *storetest.Server) (b, direct store.Bucket, p *storetest.Proxy) {
	t.Helper()
	p = storetest.NewProxy(t, s)
	url := s.NewBucket(t)
	b = open(t, s.Through(url, p.URL))
	store.ShortPauses(b)
	return b, open(t, url), p
}

// faults checks how we handle a service's faults. Each test runs in parallel, with
// its own bucket and proxy. Tests for which a fake differs from the real service can
// be left out for it.
func faults(t *testing.T, s *storetest.Server, except ...string) {
	for name, test := range map[string]func(t *testing.T, b, direct store.Bucket, p *storetest.Proxy){
		"OneFailure": oneFailure, "AlwaysFailing": alwaysFailing, "Denied": denied, "LostAnswer": lostAnswer, "LostAnswerBig": lostAnswerBig,
		"BigUploadBreaks": bigUploadBreaks, "ReadBreaks": readBreaks, "SmallPages": smallPages, "CanceledWhileSilent": canceledWhileSilent,
	} {
		if slices.Contains(except, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, direct, p := faulty(t, s)
			test(t, b, direct, p)
		})
	}
}

func put(t *testing.T, b store.Bucket, name fleetscore.BlobName, body string) {
	t.Helper()
	if err := store.WriteAll(t.Context(), b, name, []byte(body), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, b store.Bucket) (out []string) {
	t.Helper()
	for i, err := range b.List(t.Context(), "", store.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(i.Name))
	}
	return out
}

// operations are the calls of a Bucket that each cost a request.
func operations(t *testing.T, b store.Bucket) map[string]func() error {
	return map[string]func() error{
		"put": func() error { return store.WriteAll(t.Context(), b, "x", []byte("new"), store.PutOptions{}) },
		"get": func() error {
			_, err := store.ReadAll(t.Context(), b, "x")
			return err
		},
		"stat":   func() error { _, err := b.Stat(t.Context(), "x"); return err },
		"delete": func() error { return b.Delete(t.Context(), "gone") },
		"list": func() error {
			for _, err := range b.List(t.Context(), "", store.ListOptions{}) {
				return err
			}
			return errors.New("the listing is empty")
		},
	}
}

func oneFailure(t *testing.T, b, _ store.Bucket, p *storetest.Proxy) {
	put(t, b, "x", "old")
	for name, call := range operations(t, b) {
		for _, f := range []storetest.Fault{storetest.Cut, storetest.Lose, 429, 500, 503} {
			p.Set(once(f, 1))
			if err := call(); err != nil {
				t.Errorf("%s after one fault %d: %v", name, f, err)
			}
		}
	}
}

func alwaysFailing(t *testing.T, b, direct store.Bucket, p *storetest.Proxy) {
	put(t, b, "x", "old")
	for name, call := range operations(t, b) {
		p.Set(from(503, 1))
		if err := call(); !fleetscore.Unavailable.Is(err) {
			t.Errorf("%s: %v, want kind unavailable", name, err)
		}
		if n := p.Requests(); n != store.MaxTries {
			t.Errorf("%s was tried %d times, want %d", name, n, store.MaxTries)
		}
	}
	if got, err := store.ReadAll(t.Context(), direct, "x"); err != nil || string(got) != "old" {
		t.Errorf("the blob holds %q, %v", got, err)
	}
}

func denied(t *testing.T, b, _ store.Bucket, p *storetest.Proxy) {
	put(t, b, "x", "old")
	p.Set(from(403, 1))
	for name, call := range operations(t, b) {
		before := p.Requests()
		err := call()
		if !fleetscore.Unavailable.Is(err) || !strings.Contains(err.Error(), "credentials") {
			t.Errorf("%s: %v, want kind unavailable and a hint about credentials", name, err)
		}
		if n := p.Requests() - before; n != 1 {
			t.Errorf("%s was tried %d times, although no try can succeed", name, n)
		}
	}
}

// lostAnswer loses the answer of a conditional write that was carried out.
func lostAnswer(t *testing.T, b, direct store.Bucket, p *storetest.Proxy) {
	absent := store.PutOptions{IfAbsent: true}
	p.Set(once(storetest.Lose, 1))
	if err := store.WriteAll(t.Context(), b, "log/1", []byte("same"), absent); err != nil {
		t.Errorf("our own success was reported as %v", err)
	}
	if got, err := store.ReadAll(t.Context(), direct, "log/1"); err != nil || string(got) != "same" {
		t.Errorf("the blob holds %q, %v", got, err)
	}
	// The blob of another writer is a conflict, even if it has the same bytes and an
	// answer was lost.
	p.Set(once(storetest.Cut, 1))
	if err := store.WriteAll(t.Context(), b, "log/1", []byte("same"), absent); !fleetscore.Conflict.Is(err) {
		t.Errorf("another's success: %v, want kind conflict", err)
	}
}

func lostAnswerBig(t *testing.T, b, direct store.Bucket, p *storetest.Proxy) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 20<<20/16)
	p.Set(nil)
	if err := store.WriteAll(t.Context(), b, "count", data, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	requests := p.Requests()
	for n := 1; n <= requests; n++ {
		name := fleetscore.BlobName("log/" + string(rune('a'+n)))
		p.Set(once(storetest.Lose, n))
		if err := store.WriteAll(t.Context(), b, name, data, store.PutOptions{IfAbsent: true}); err != nil {
			t.Errorf("answer %d of %d lost: %v", n, requests, err)
		}
		if got, err := store.ReadAll(t.Context(), direct, name); err != nil || !bytes.Equal(got, data) {
			t.Errorf("answer %d of %d lost: %d bytes, %v", n, requests, len(got), err)
		}
	}
}

func bigUploadBreaks(t *testing.T, b, direct store.Bucket, p *storetest.Proxy) {
	put(t, direct, "old", "old")
	data := bytes.Repeat([]byte("x"), 20<<20)
	for n := 1; n <= 3; n++ {
		for _, name := range []fleetscore.BlobName{"old", "new"} {
			p.Set(from(503, n))
			if err := store.WriteAll(t.Context(), b, name, data, store.PutOptions{}); !fleetscore.Unavailable.Is(err) {
				t.Errorf("%s, broken from request %d on: %v, want kind unavailable", name, n, err)
			}
			if most := n + 8*store.MaxTries; p.Requests() > most {
				t.Errorf("%d requests, want at most %d", p.Requests(), most)
			}
		}
	}
	if got := names(t, direct); len(got) != 1 || got[0] != "old" {
		t.Errorf("broken uploads left %v", got)
	}
	if got, err := store.ReadAll(t.Context(), direct, "old"); err != nil || string(got) != "old" {
		t.Errorf("the blob holds %.20q, %v", got, err)
	}
}

func readBreaks(t *testing.T, b, direct store.Bucket, p *storetest.Proxy) {
	data := make([]byte, 3<<20)
	for i := range data {
		data[i] = byte(i >> 4)
	}
	put(t, direct, "x", string(data))
	half := func(r *http.Request, n int) storetest.Fault {
		if n <= 3 {
			return storetest.Half
		}
		return storetest.Pass
	}
	p.Set(half)
	if got, err := store.ReadAll(t.Context(), b, "x"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("a reading that broke three times: %d bytes, %v", len(got), err)
	}
	if n := p.Requests(); n != 4 {
		t.Errorf("%d requests, want 4", n)
	}
	p.Set(half)
	r, err := b.Get(t.Context(), "x", 1000, 2<<20)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	r.Close()
	if err != nil || !bytes.Equal(got, data[1000:1000+2<<20]) {
		t.Errorf("a range that broke: %d bytes, %v", len(got), err)
	}
	p.Set(half)
	if r, err = b.Get(t.Context(), "x", 0, -1); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	put(t, direct, "x", strings.Repeat("y", len(data)))
	if got, err := io.ReadAll(r); !fleetscore.Unavailable.Is(err) || !bytes.HasPrefix(data, got) {
		t.Errorf("broken and overwritten: %d bytes, %v; want kind unavailable", len(got), err)
	}
}

func smallPages(t *testing.T, b, _ store.Bucket, _ *storetest.Proxy) {
	var want []string
	for _, n := range []string{"a-", "a/1", "a/2", "a/b/1", "a/b/2", "a/b/3", "a/b/c/1", "a/c/1", "a/c/2", "a0", "b/1", "b/2", "c"} {
		put(t, b, fleetscore.BlobName(n), n)
		want = append(want, n)
	}
	for size := 1; size <= 4; size++ {
		store.SetPageSize(b, size)
		for _, prefix := range []string{"", "a", "a/", "a/b/", "b/"} {
			for _, delimiter := range []bool{false, true} {
				for _, after := range append([]string{"", "a/b/", "a/b/c/", "a/b9", "zz"}, want...) {
					opt := store.ListOptions{After: fleetscore.BlobName(after), Delimiter: delimiter}
					var got, twin []string
					for i, err := range b.List(t.Context(), prefix, opt) {
						if err != nil {
							t.Fatal(err)
						}
						got = append(got, string(i.Name))
					}
					twin = obviousList(want, prefix, after, delimiter)
					if strings.Join(got, " ") != strings.Join(twin, " ") {
						t.Errorf("pages of %d: List(%q, %+v) = %v, want %v", size, prefix, opt, got, twin)
					}
				}
			}
		}
	}
}

// obviousList returns the expected listing of the sorted names.
func obviousList(all []string, prefix, after string, delimiter bool) (out []string) {
	last := ""
	for _, n := range all {
		if !strings.HasPrefix(n, prefix) {
			continue
		}
		if i := strings.IndexByte(n[len(prefix):], '/'); delimiter && i >= 0 {
			n = n[:len(prefix)+i+1]
		}
		if n > after && n != last {
			out = append(out, n)
			last = n
		}
	}
	return out
}

func canceledWhileSilent(t *testing.T, b, direct store.Bucket, p *storetest.Proxy) {
	put(t, direct, "x", "old")
	for name, call := range map[string]func(context.Context) error{
		"put": func(ctx context.Context) error { return store.WriteAll(ctx, b, "x", []byte("new"), store.PutOptions{}) },
		"big": func(ctx context.Context) error {
			return store.WriteAll(ctx, b, "x", make([]byte, 20<<20), store.PutOptions{})
		},
		"get":  func(ctx context.Context) error { _, err := store.ReadAll(ctx, b, "x"); return err },
		"stat": func(ctx context.Context) error { _, err := b.Stat(ctx, "x"); return err },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		p.Set(func(*http.Request, int) storetest.Fault {
			time.AfterFunc(10*time.Millisecond, cancel)
			return storetest.Silent
		})
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want the context's end", name, err)
		}
		cancel()
	}
	p.Set(nil)
	if got, err := store.ReadAll(t.Context(), direct, "x"); err != nil || string(got) != "old" {
		t.Errorf("the blob holds %.20q, %v", got, err)
	}
}

// careless ignores IfAbsent.
type careless struct{ store.Bucket }

func (c careless) Put(ctx context.Context, name fleetscore.BlobName, body io.Reader, _ store.PutOptions) (store.Info, error) {
	return c.Bucket.Put(ctx, name, body, store.PutOptions{})
}

func TestProbe(t *testing.T) {
	t.Parallel()
	b := openDir(t, t.TempDir())
	if err := store.Probe(t.Context(), b); err != nil {
		t.Errorf("a good bucket: %v", err)
	}
	if err := store.Probe(t.Context(), careless{b}); !fleetscore.Invalid.Is(err) {
		t.Errorf("a bucket that ignores IfAbsent: %v, want kind invalid", err)
	}
	if got := names(t, b); len(got) != 0 {
		t.Errorf("it left %v", got)
	}
}

// TestGuard: if a peer goes silent before or during its answer, there is an error
// that says so; a slow peer is no error.
func TestGuard(t *testing.T) {
	t.Parallel()
	mode := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch <-mode {
		case "silent":
			<-r.Context().Done()
		case "half":
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			_, _ = io.WriteString(w, "whole")
		}
	}))
	t.Cleanup(s.Close)
	client := &http.Client{Transport: store.Guard(http.DefaultTransport, 100*time.Millisecond)}
	get := func(how string) (string, error) {
		mode <- how
		resp, err := client.Get(s.URL)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		return string(data), err
	}
	if got, err := get("whole"); err != nil || got != "whole" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, how := range []string{"silent", "half"} {
		if got, err := get(how); err == nil || !strings.Contains(err.Error(), "silent") {
			t.Errorf("%s: got %q, %v; want an error about silence", how, got, err)
		}
	}
}
