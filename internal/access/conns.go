package access

import (
	"container/list"
	"context"
	"net"
	"sync"
)

// Conns bounds how many connections are open at once, so that unknown clients can't
// use up the process's file descriptors. When there are too many, the connection is
// closed whose last request of a known caller is the longest ago. Connections that
// serve such a request are never closed for this.
type Conns struct {
	most int

	mu   sync.Mutex // guards what follows
	all  int
	idle list.List // of *conn, connections that serve no known caller; the longest idle first
}

// NewConns bounds connections to most.
func NewConns(most int) *Conns { return &Conns{most: most} }

// Listen bounds the connections of a listener.
func (c *Conns) Listen(l net.Listener) net.Listener { return &boundListener{l, c} }

type boundListener struct {
	net.Listener
	conns *Conns
}

// Accept waits for the next connection that there is room for.
func (l *boundListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if b := l.conns.admit(c); b != nil {
			return b, nil
		}
		c.Close() // all open connections serve known callers
	}
}

// conn is one connection.
type conn struct {
	net.Conn
	of     *Conns
	place  *list.Element // in idle; nil while the connection serves a known caller
	busy   int           // running requests of known callers
	closed bool
}

// admit counts a connection; nil if there is no room.
func (c *Conns) admit(raw net.Conn) *conn {
	n := &conn{Conn: raw, of: c}
	c.mu.Lock()
	var out *conn
	if c.all >= c.most {
		front := c.idle.Front()
		if front == nil {
			c.mu.Unlock()
			return nil
		}
		out = front.Value.(*conn)
		c.forget(out)
	}
	c.all++
	n.place = c.idle.PushBack(n)
	c.mu.Unlock()
	if out != nil {
		out.Conn.Close() // the server that reads from it notices this
	}
	return n
}

// forget takes a connection out of the count; mu is held.
func (c *Conns) forget(n *conn) {
	if n.closed {
		return
	}
	n.closed = true
	c.all--
	if n.place != nil {
		c.idle.Remove(n.place)
		n.place = nil
	}
}

// Close ends the connection.
func (n *conn) Close() error {
	n.of.mu.Lock()
	n.of.forget(n)
	n.of.mu.Unlock()
	return n.Conn.Close()
}

type connKey struct{}

// Context is for http.Server.ConnContext: it lets the Mux find the connection of a
// request.
func (c *Conns) Context(ctx context.Context, raw net.Conn) context.Context {
	if t, ok := raw.(interface{ NetConn() net.Conn }); ok { // TLS
		raw = t.NetConn()
	}
	if n, ok := raw.(*conn); ok {
		return context.WithValue(ctx, connKey{}, n)
	}
	return ctx
}

// hold keeps the connection of a request open while the request of a known caller is
// served.
func hold(ctx context.Context) (release func()) {
	n, ok := ctx.Value(connKey{}).(*conn)
	if !ok {
		return func() {}
	}
	c := n.of
	c.mu.Lock()
	n.busy++
	if n.place != nil {
		c.idle.Remove(n.place)
		n.place = nil
	}
	c.mu.Unlock()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if n.busy--; n.busy == 0 && !n.closed {
			n.place = c.idle.PushBack(n)
		}
	}
}

// Hold says that a connection of a protocol other than HTTP serves a known caller, so that
// it isn't closed to make room for others. It is called once for a connection.
func (c *Conns) Hold(raw net.Conn) {
	hold(c.Context(context.Background(), raw))
}
