// Package client talks to a server's API: the requests of people's commands and
// the protocol of nodes. It turns the server's errors back into
// fleetscore.Errors.
//
// It repeats nothing, but for a node's blobs, and keeps no state but connections. A Client is safe for
// concurrent use.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// prefix is where the API lies on its server.
const prefix = "/api/v1"

// Config says which server to talk to.
type Config struct {
	Server    string // its URL, such as http://127.0.0.1:7180
	TokenFile string // file with the token to show; empty for none
	User      string // who asks, for the server's audit
}

// Client is a connection to a server.
type Client struct {
	base  string
	token string
	user  string
	http  *http.Client
}

// New builds a client; nothing is sent yet.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.Server)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "connect to server", cfg.Server, "not a URL").WithHint("write for example http://127.0.0.1:7180")
	}
	c := &Client{base: strings.TrimSuffix(cfg.Server, "/") + prefix, user: cfg.User,
		// No limit as a whole: waiting for a job may take long. Answers to nodes come within their wait.
		http: &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute}}}
	if cfg.TokenFile != "" {
		b, err := os.ReadFile(cfg.TokenFile)
		if err != nil {
			return nil, fleetscore.Errorf(fleetscore.Invalid, "read token", cfg.TokenFile, "%w", err).WithHint("name the file that holds the server's token")
		}
		c.token = strings.TrimSpace(string(b))
	}
	return c, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

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
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // so that the connection can be used again
	} else {
		err = json.NewDecoder(resp.Body).Decode(out)
	}
	if err != nil {
		return fleetscore.Errorf(fleetscore.Unavailable, "read answer", path, "%w", err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, query url.Values, body io.Reader, contentType string) (*http.Response, error) {
	address := c.base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "send request", address, "%w", err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.user != "" {
		req.Header.Set("X-Fleetscore-User", c.user)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "reach server", strings.TrimSuffix(c.base, prefix), "%w", err).
			WithHint("is it running? fleetscore up starts one; --server names another")
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, failure(method, path, resp)
}

// maxProblemBytes bounds an answer that is an error.
const maxProblemBytes = 1 << 20

// failure reads the error of an answer.
func failure(method, path string, resp *http.Response) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxProblemBytes))
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
func (c *Client) Register(ctx context.Context, h dispatch.Hello) (n fleetscore.Node, err error) {
	return n, c.Post(ctx, "/nodes", h, &n)
}

// Lease asks for tasks and waits for them.
func (c *Client) Lease(ctx context.Context, node fleetscore.NodeID, r dispatch.LeaseRequest) (reply dispatch.LeaseReply, err error) {
	return reply, c.Post(ctx, nodePath(node, "lease"), r, &reply)
}

// Heartbeat renews a node and its leases.
func (c *Client) Heartbeat(ctx context.Context, node fleetscore.NodeID, r dispatch.HeartbeatRequest) (reply dispatch.HeartbeatReply, err error) {
	return reply, c.Post(ctx, nodePath(node, "heartbeat"), r, &reply)
}

// Goodbye ends a node.
func (c *Client) Goodbye(ctx context.Context, node fleetscore.NodeID) error {
	return c.Post(ctx, nodePath(node, "goodbye"), nil, nil)
}

// AppendLog sends a piece of an attempt's log.
func (c *Client) AppendLog(ctx context.Context, lease fleetscore.LeaseID, chunk dispatch.LogChunk) error {
	return c.Post(ctx, leasePath(lease, "logs"), chunk, nil)
}

// Complete delivers the result of an attempt.
func (c *Client) Complete(ctx context.Context, lease fleetscore.LeaseID, r dispatch.Result) error {
	return c.Post(ctx, leasePath(lease, "complete"), r, nil)
}

func nodePath(id fleetscore.NodeID, what string) string {
	return fmt.Sprintf("/nodes/%s/%s", url.PathEscape(string(id)), what)
}

func leasePath(id fleetscore.LeaseID, what string) string {
	return fmt.Sprintf("/leases/%s/%s", url.PathEscape(string(id)), what)
}
