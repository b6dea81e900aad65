// Package natstest runs real NATS servers inside the process of a test. They sync each
// message to disk before they acknowledge it, as the guide tells operators to set them.
// Only tests import it.
package natstest

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const startLimit = 30 * time.Second

// Server is a NATS server with JetStream that can be ended and started again.
type Server struct {
	t       testing.TB
	options *server.Options
	now     *server.Server
}

// Start starts a server alone. Change adjusts its options, if it isn't nil.
func Start(t testing.TB, change func(*server.Options)) *Server {
	t.Helper()
	s := newServer(t, "alone", change)
	s.Start()
	return s
}

func newServer(t testing.TB, name string, change func(*server.Options)) *Server {
	t.Helper()
	s := &Server{t: t, options: &server.Options{ServerName: name, Host: "127.0.0.1", Port: freePort(t), JetStream: true, StoreDir: filepath.Join(t.TempDir(), name),
		SyncAlways: true, NoSigs: true, NoLog: true, MaxPayload: 1 << 20, JetStreamMaxStore: 4 << 30, JetStreamMaxMemory: 256 << 20}}
	if change != nil {
		change(s.options)
	}
	t.Cleanup(s.Stop)
	return s
}

// freePort returns a port that is free now.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Start starts the server, on the folder that it had before, and waits until clients can
// connect.
func (s *Server) Start() {
	s.t.Helper()
	now, err := server.NewServer(s.options.Clone())
	if err != nil {
		s.t.Fatal(err)
	}
	s.now = now
	now.Start()
	if !now.ReadyForConnections(startLimit) {
		s.t.Fatalf("the NATS server %s isn't ready after %s", s.options.ServerName, startLimit)
	}
}

// Stop ends the server at once. What it acknowledged is on disk.
func (s *Server) Stop() {
	if s.now != nil {
		s.now.Shutdown()
		s.now.WaitForShutdown()
		s.now = nil
	}
}

// URL is the server's address.
func (s *Server) URL() string { return fmt.Sprintf("nats://127.0.0.1:%d", s.options.Port) }

// Leads reports whether the server leads a stream.
func (s *Server) Leads(stream string) bool {
	return s.now != nil && s.now.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream)
}

// Cluster is several servers that keep copies of each stream.
type Cluster []*Server

// StartCluster starts a cluster of n servers, and waits until it can make streams.
func StartCluster(t testing.TB, n int) Cluster {
	t.Helper()
	var c Cluster
	var routes []*url.URL
	for i := range n {
		port := freePort(t)
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
		c = append(c, newServer(t, fmt.Sprintf("s%d", i), func(o *server.Options) {
			o.Cluster = server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port}
		}))
	}
	for _, s := range c {
		s.options.Routes = routes
	}
	c.Start()
	return c
}

// Start starts all servers that don't run, and waits until one of them leads.
func (c Cluster) Start() {
	c[0].t.Helper()
	for _, s := range c {
		if s.now == nil {
			s.Start()
		}
	}
	for end := time.Now().Add(startLimit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, s := range c {
			if s.now.JetStreamIsLeader() && len(s.now.JetStreamClusterPeers()) == len(c) {
				return
			}
		}
	}
	c[0].t.Fatalf("the cluster has no leader after %s", startLimit)
}

// Stop ends all servers.
func (c Cluster) Stop() {
	for _, s := range c {
		s.Stop()
	}
}

// URL is the addresses of all servers.
func (c Cluster) URL() string {
	var list []string
	for _, s := range c {
		list = append(list, s.URL())
	}
	return strings.Join(list, ",")
}
