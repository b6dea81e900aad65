package store

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// A whole request to a cloud has no deadline, because it may carry any number of
// bytes. Each step of it has stallLimit: the time until the answer begins, and the
// time of each read of the answer.
const stallLimit = 30 * time.Second

// stalled says that a peer sends nothing any more. It is a time-out in the sense of
// net.Error.
type stalled struct{ limit time.Duration }

func (s stalled) Error() string { return "the other side was silent for " + s.limit.String() }
func (stalled) Timeout() bool   { return true }
func (stalled) Temporary() bool { return true }

// guard ends requests that make no progress.
type guard struct {
	base  http.RoundTripper
	limit time.Duration
}

// Guard ends requests of base that make no progress within the limit: no piece of the
// request is taken, the answer doesn't begin, or no piece of it comes. The error is a
// time-out in the sense of net.Error. A request that makes progress may take any time.
func Guard(base http.RoundTripper, limit time.Duration) http.RoundTripper { return guard{base, limit} }

func defaultHTTPClient() *http.Client { return newHTTPClient(http.DefaultTransport.(*http.Transport)) }

// newHTTPClient makes the HTTP client for all clouds. It doesn't follow redirects: a
// bucket in another place is an error that is explained to the user.
func newHTTPClient(base *http.Transport) *http.Client {
	t := base.Clone()
	t.DisableCompression = true // the bytes arrive as they were stored
	t.MaxIdleConnsPerHost = 64  // there are few hosts, and more requests at once are rare
	return &http.Client{Transport: guard{t, stallLimit}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// RoundTrip implements http.RoundTripper.
func (g guard) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(g.limit, func() { cancel(stalled{g.limit}) })
	out := req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		out.Body = &progress{body: req.Body, guard: g, timer: timer}
	}
	resp, err := g.base.RoundTrip(out)
	timer.Stop()
	if err != nil {
		err = causeOf(ctx, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &guarded{body: resp.Body, guard: g, ctx: ctx, cancel: cancel, timer: timer}
	return resp, nil
}

// causeOf returns our own reason instead of the cancellation that it caused.
func causeOf(ctx context.Context, err error) error {
	var s stalled
	if errors.As(context.Cause(ctx), &s) {
		return s
	}
	return err
}

// progress is a request's body: each piece sent extends the limit.
type progress struct {
	body  io.ReadCloser
	guard guard
	timer *time.Timer
}

func (p *progress) Read(b []byte) (int, error) {
	p.timer.Reset(p.guard.limit)
	return p.body.Read(b)
}

func (p *progress) Close() error { return p.body.Close() }

// guarded is an answer's body: the limit runs while the caller waits for bytes.
type guarded struct {
	body   io.ReadCloser
	guard  guard
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (g *guarded) Read(b []byte) (int, error) {
	g.timer.Reset(g.guard.limit)
	n, err := g.body.Read(b)
	g.timer.Stop()
	if err != nil && err != io.EOF {
		err = causeOf(g.ctx, err)
	}
	return n, err
}

func (g *guarded) Close() error {
	g.timer.Stop()
	err := g.body.Close()
	g.cancel(nil)
	return err
}
