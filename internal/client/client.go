// Package client talks to a server's API: the requests of people's commands and
// the protocol of nodes. It turns the server's errors back into
// fleetscore.Errors.
//
// A command of the user who runs a server on this machine needs no credentials: the
// server writes a file that only that user can read (see Local), and a client finds
// this file by the server's address.
//
// A client repeats only requests for a node's blobs, requests whose token or certificate
// was replaced, and, where it knows several servers, requests that never reached one of
// them or may be repeated at another one. Its only state are connections, and which server it asks: tokens and certificates are read from
// their files when they are needed, so that a client goes on after they change. A
// Client is safe for concurrent use.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// prefix is the path of the API on its server.
const prefix = "/api/v1"

// Config says which server to talk to.
type Config struct {
	// Server is its URL, such as https://fleet.example.com:7180, or those of several servers
	// that share the work, separated by commas: when one doesn't answer, the next one is
	// asked. Empty means this machine's server at DefaultAddress.
	Server     string
	TokenFile  string // file with the token to send; empty means the file of this user's server on this machine, or none beside CertFile
	CAFile     string // certificates to trust in addition to those of the system; empty means the file of this user's server on this machine
	ServerName string // the name that the server's certificate must carry; empty means the name in the URL
	CertFile   string // certificate of this client with its chain, in PEM; empty means none
	KeyFile    string // the certificate's key; empty means that CertFile holds it too
	User       string // name of the user, for the server's audit

	// Requests for a node's blobs alone: such a request ends if it makes no progress for
	// SilenceLimit, 0 means 30 s, and is repeated until AwayLimit has passed, 0 means 1
	// min, so that a restart of the server uses up no try of a node's task.
	SilenceLimit, AwayLimit time.Duration
}

// DefaultAddress is where a server listens by default.
const DefaultAddress = "127.0.0.1:7180"

// Client is a connection to a server, or to one of several.
type Client struct {
	cfg     Config
	servers []*server
	at      *atomic.Int32 // the server that is asked
}

// server is one of the servers that a client may ask.
type server struct {
	base string // its URL
	cfg  Config
	http *http.Client
}

// New builds a client; nothing is sent yet.
func New(cfg Config) (*Client, error) {
	c := &Client{cfg: cfg, at: &atomic.Int32{}}
	asked := cfg.Server
	if asked == "" {
		asked = "http://" + DefaultAddress
	}
	for one := range strings.SplitSeq(asked, ",") {
		one = strings.TrimSpace(one)
		socket, local := strings.CutPrefix(one, "unix://") // where an agent in a container reaches the server
		if local {
			one = "http://localhost"
		}
		u, err := url.Parse(one)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fleetscore.Errorf(fleetscore.Invalid, "connect to server", one, "the address is not a URL").WithHint("write for example http://%s, or several addresses with commas between them", DefaultAddress)
		}
		if l, ok := FindLocal(u.Host); ok && cfg.Server == "" {
			one = l.URL // this may be https
		}
		s := &server{base: strings.TrimSuffix(one, "/"), cfg: cfg}
		// A whole request has no time limit, because waiting for a job may take long.
		// Nodes get their answers within the wait that they ask for.
		s.http = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute,
			TLSClientConfig: (&trust{server: s}).config()}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		if local {
			s.http.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			}
		}
		c.servers = append(c.servers, s)
	}
	return c, nil
}

// Server is the URL of the server that is asked.
func (c *Client) Server() string { return c.servers[c.at.Load()].base }

// Registry is where the server's registry of images answers, and what sends requests there
// with the client's credentials. Requests to other hosts are sent without them.
func (c *Client) Registry() (host string, transport http.RoundTripper) {
	s := c.servers[c.at.Load()]
	u, err := url.Parse(s.base)
	if err != nil { // New has checked it
		return "", http.DefaultTransport
	}
	return u.Host, registryTransport{s, u}
}

type registryTransport struct {
	server *server
	base   *url.URL
}

// RoundTrip implements http.RoundTripper.
func (t registryTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != t.base.Host {
		return http.DefaultTransport.RoundTrip(req)
	}
	token, err := t.server.token()
	if err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	req.URL.Scheme = t.base.Scheme // programs for registries guess it by the host
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return t.server.http.Transport.RoundTrip(req)
}

// Credentials are the token that requests carry, empty if none, and whom they trust, for other protocols of the
// same server.
func (c *Client) Credentials() (token string, trusted *tls.Config, err error) {
	s := c.servers[c.at.Load()]
	token, err = s.token()
	return token, (&trust{server: s}).config(), err
}

// Close closes idle connections.
func (c *Client) Close() {
	for _, s := range c.servers {
		s.http.CloseIdleConnections()
	}
}

// Get asks for a path below /api/v1 and decodes the answer's JSON into out.
func (c *Client) Get(ctx context.Context, path string, query url.Values, out any) error {
	return c.do(ctx, http.MethodGet, path, query, nil, "", out)
}

// Post sends a value as JSON and decodes the answer into out, unless it is nil.
func (c *Client) Post(ctx context.Context, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fleetscore.Wrap("send", path, err)
		}
		body = bytes.NewReader(b)
	}
	return c.do(ctx, http.MethodPost, path, nil, body, "application/json", out)
}

// Send sends a body as it is.
func (c *Client) Send(ctx context.Context, method, path string, query url.Values, contentType string, body io.Reader, out any) error {
	return c.do(ctx, method, path, query, body, contentType, out)
}

// Open returns the body of an answer; the caller closes it.
func (c *Client) Open(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	resp, err := c.send(ctx, http.MethodGet, path, query, nil, "")
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, body io.Reader, contentType string, out any) error {
	resp, err := c.send(ctx, method, path, query, body, contentType)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // the rest is read so that the connection can be used again
	} else {
		err = json.NewDecoder(resp.Body).Decode(out)
	}
	if err != nil {
		return fleetscore.Errorf(fleetscore.Unavailable, "read answer", path, "%w", err)
	}
	return nil
}

// With several servers, a request that can be repeated doesn't wait for longer than this
// for the beginning of an answer: a server may be frozen.
const (
	readLimit = 10 * time.Second // of requests that only read
	nodeLimit = 5 * time.Second  // of requests of nodes, which have to say in time that they live
)

// manner says how a request is sent where there are several servers.
type manner struct {
	limit  time.Duration // for the beginning of an answer; 0 means none
	repeat bool          // another server may be asked even if this one may have done what was asked
}

type mannerKey struct{}

// with makes requests of the context be sent in a manner.
func with(ctx context.Context, limit time.Duration, repeat bool) context.Context {
	return context.WithValue(ctx, mannerKey{}, manner{limit, repeat})
}

func (c *Client) send(ctx context.Context, method, path string, query url.Values, body io.Reader, contentType string) (*http.Response, error) {
	m, _ := ctx.Value(mannerKey{}).(manner)
	switch {
	case len(c.servers) == 1:
		m = manner{}
	case method == http.MethodGet || method == http.MethodHead:
		m = manner{readLimit, true}
	}
	for tried := 1; ; tried++ {
		at := c.at.Load()
		resp, unsent, err := c.servers[at].send(ctx, m.limit, method, path, query, body, contentType)
		if err == nil || len(c.servers) == 1 || ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) || !silent(err) && !unsent {
			return resp, err
		}
		c.at.CompareAndSwap(at, (at+1)%int32(len(c.servers)))
		if tried >= len(c.servers) || ctx.Err() != nil || !unsent && !m.repeat {
			return nil, err
		}
		if body != nil {
			again, ok := body.(*bytes.Reader)
			if !ok {
				return nil, err
			}
			if _, err := again.Seek(0, io.SeekStart); err != nil {
				return nil, err
			}
		}
	}
}

// silence is the error of a request to which no answer came.
type silence struct{ error }

func (s silence) Unwrap() error { return s.error }

func silent(err error) bool {
	_, is := errors.AsType[silence](err)
	return is || errors.Is(err, context.DeadlineExceeded)
}

// errSilent ends a request whose answer doesn't begin in time.
var errSilent = errors.New("the server doesn't answer")

// send sends a request to one server. It reports whether the request didn't reach the
// server at all.
func (s *server) send(ctx context.Context, limit time.Duration, method, path string, query url.Values, body io.Reader, contentType string) (resp *http.Response, unsent bool, err error) {
	address := s.base + prefix + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, false, fleetscore.Errorf(fleetscore.Invalid, "send request", address, "%w", err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if s.cfg.User != "" {
		req.Header.Set("X-Fleetscore-User", s.cfg.User)
	}
	token, err := s.token()
	if err != nil {
		return nil, false, err
	}
	resp, unsent, err = s.try(req, token, limit)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		// Perhaps the server has just been restarted, or the token or the certificate was
		// just replaced.
		if fresh, e := s.token(); e == nil && (fresh != token || s.cfg.CertFile != "") && (req.Body == nil || req.GetBody != nil) {
			resp.Body.Close()
			s.http.CloseIdleConnections() // they keep the certificate that they began with
			req = req.Clone(ctx)
			if req.Body != nil {
				if req.Body, err = req.GetBody(); err != nil {
					return nil, false, fleetscore.Wrap("send request", address, err)
				}
			}
			resp, unsent, err = s.try(req, fresh, limit)
		}
	}
	if err != nil {
		return nil, unsent, err
	}
	if resp.StatusCode/100 == 2 {
		return resp, false, nil
	}
	defer resp.Body.Close()
	return nil, false, failure(method, path, resp)
}

func (s *server) try(req *http.Request, token string, limit time.Duration) (resp *http.Response, unsent bool, err error) {
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	whole := req.Context()
	if limit > 0 {
		limited, cancel := context.WithCancelCause(whole)
		timer := time.AfterFunc(limit, func() { cancel(errSilent) })
		defer timer.Stop()
		defer func() {
			if err != nil {
				cancel(nil)
			} else {
				resp.Body = ending{resp.Body, cancel}
			}
		}()
		req = req.WithContext(limited)
	}
	resp, err = s.http.Do(req)
	if err != nil {
		if whole.Err() != nil {
			return nil, false, whole.Err()
		}
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		if cause := context.Cause(req.Context()); cause != nil {
			err = cause
		}
		dial, isNet := errors.AsType[*net.OpError](err)
		return nil, isNet && dial.Op == "dial", s.unreached(silence{err})
	}
	return resp, false, nil
}

// ending is the body of an answer whose request is over when it is closed.
type ending struct {
	io.ReadCloser
	end context.CancelCauseFunc
}

func (e ending) Close() error {
	defer e.end(nil)
	return e.ReadCloser.Close()
}

// unreached says why the server gave no answer, and what to do.
func (s *server) unreached(err error) error {
	var ours *fleetscore.Error
	if errors.As(err, &ours) {
		return ours
	}
	var unknown x509.UnknownAuthorityError
	var other x509.HostnameError
	var record tls.RecordHeaderError
	kind, hint := fleetscore.Unavailable, "check that the server is running; fleetscore up starts one, and --server names another"
	switch {
	case errors.As(err, &unknown):
		kind, hint = fleetscore.Invalid, "name the certificate to trust with --ca-file; a server started with --tls-self-signed keeps it as secrets/tls-ca.pem in its folder"
	case errors.As(err, &other):
		kind, hint = fleetscore.Invalid, "use a name that the certificate carries, or give such a name with --tls-server-name"
	case errors.As(err, &record):
		kind, hint = fleetscore.Invalid, "the server speaks plain HTTP: use http:// in --server"
	}
	return fleetscore.Errorf(kind, "reach server", s.base, "%w", err).WithHint("%s", hint)
}

// maxProblemBytes bounds an answer that is an error.
const maxProblemBytes = 1 << 20

// failure reads the error of an answer.
func failure(method, path string, resp *http.Response) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxProblemBytes))
	if resp.StatusCode == http.StatusBadRequest && bytes.Contains(data, []byte("HTTP request to an HTTPS server")) {
		return fleetscore.Errorf(fleetscore.Invalid, "ask server", resp.Request.URL.Host, "the server speaks TLS").WithHint("use https:// in --server")
	}
	var p struct{ Kind, Op, Subject, Message, Hint string }
	if err != nil || json.Unmarshal(data, &p) != nil || p.Kind == "" {
		kind := fleetscore.Internal
		switch {
		case resp.StatusCode >= 500:
			kind = fleetscore.Unavailable
		case resp.StatusCode >= 400:
			kind = fleetscore.Invalid
		}
		return fleetscore.Errorf(kind, "ask server", method+" "+path, "%s: %.200s", resp.Status, data)
	}
	return &fleetscore.Error{Op: p.Op, Kind: fleetscore.ParseKind(p.Kind), Subject: p.Subject, Err: errors.New(p.Message), Hint: p.Hint}
}

// Register reports a node for work.
func (c *Client) Register(ctx context.Context, h dispatch.Hello) (w dispatch.Welcome, err error) {
	return w, c.Post(with(ctx, nodeLimit, true), "/nodes", h, &w)
}

// Prepared reports how the setup command of a node ended.
func (c *Client) Prepared(ctx context.Context, node fleetscore.NodeID, p dispatch.Preparation) error {
	return c.Post(with(ctx, nodeLimit, true), nodePath(node, "prepared"), p, nil)
}

// Lease asks for tasks and waits for them.
func (c *Client) Lease(ctx context.Context, node fleetscore.NodeID, r dispatch.LeaseRequest) (reply dispatch.LeaseReply, err error) {
	return reply, c.Post(with(ctx, r.Wait.D()+nodeLimit, false), nodePath(node, "lease"), r, &reply)
}

// Heartbeat renews a node and its leases.
func (c *Client) Heartbeat(ctx context.Context, node fleetscore.NodeID, r dispatch.HeartbeatRequest) (reply dispatch.HeartbeatReply, err error) {
	return reply, c.Post(with(ctx, nodeLimit, true), nodePath(node, "heartbeat"), r, &reply)
}

// Goodbye ends a node.
func (c *Client) Goodbye(ctx context.Context, node fleetscore.NodeID) error {
	return c.Post(with(ctx, nodeLimit, true), nodePath(node, "goodbye"), nil, nil)
}

// AppendLog sends a piece of an attempt's log.
func (c *Client) AppendLog(ctx context.Context, lease fleetscore.LeaseID, chunk dispatch.LogChunk) error {
	return c.Post(with(ctx, nodeLimit, true), leasePath(lease, "logs"), chunk, nil)
}

// Complete delivers the result of an attempt.
func (c *Client) Complete(ctx context.Context, lease fleetscore.LeaseID, r dispatch.Result) error {
	return c.Post(with(ctx, nodeLimit, true), leasePath(lease, "complete"), r, nil)
}

func nodePath(id fleetscore.NodeID, what string) string {
	return fmt.Sprintf("/nodes/%s/%s", url.PathEscape(string(id)), what)
}

func leasePath(id fleetscore.LeaseID, what string) string {
	return fmt.Sprintf("/leases/%s/%s", url.PathEscape(string(id)), what)
}
