package storetest

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
)

// Fault is a fault that a proxy makes with a request.
type Fault int

// The faults. An HTTP status, such as 503, is returned without asking the server.
const (
	Pass   Fault = iota
	Cut          // the connection breaks before the request arrives
	Lose         // the request is carried out, the answer lost
	Half         // half of the answer's body arrives, then the connection breaks
	Silent       // nothing is ever answered
)

// Proxy passes requests on to a server and makes faults.
type Proxy struct {
	URL string

	mu    sync.Mutex // guards what follows
	fault func(r *http.Request, n int) Fault
	n     int
}

// NewProxy starts a proxy of the server that ends with the test. It passes everything
// on until Set is called.
func NewProxy(t testing.TB, s *Server) *Proxy {
	t.Helper()
	target, err := url.Parse(hostOf(s.Endpoint))
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{}
	reverse := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // the host is signed
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(reverse, w, r) }))
	t.Cleanup(server.Close)
	p.URL = server.URL
	return p
}

// Set replaces the faults, which are asked for each request and its number from
// now on, from 1; nil passes everything on.
func (p *Proxy) Set(fault func(r *http.Request, n int) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.n = fault, 0
}

// Requests is how many there were since Set.
func (p *Proxy) Requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n
}

func (p *Proxy) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.n++
	f := Pass
	if p.fault != nil {
		f = p.fault(r, p.n)
	}
	p.mu.Unlock()
	switch f {
	case Pass:
		next.ServeHTTP(w, r)
	case Cut:
		panic(http.ErrAbortHandler)
	case Lose:
		next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	case Half:
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2]) // the client may be gone
		if err := http.NewResponseController(w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return
		}
		panic(http.ErrAbortHandler)
	case Silent:
		_, _ = io.Copy(io.Discard, r.Body) // so that the end of the connection is noticed
		<-r.Context().Done()
	default:
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(int(f))
	}
}
