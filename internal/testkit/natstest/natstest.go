// Package natstest runs real NATS servers, each in a process of its own that a test can
// kill or freeze. They sync each message to disk before they acknowledge it, as the guide
// tells operators to set them. Only tests import it.
//
// A server's process is the test's own program: the package's initialisation runs a NATS
// server in place of the tests if a variable says so.
package natstest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"
)

const (
	startLimit = 30 * time.Second
	variable   = "FLEETSCORE_TEST_NATS" // holds the options of the server to run
)

// Options describes a server. Fields that are zero have NATS's own defaults.
type Options struct {
	MaxPayload        int
	MaxStore          int64 // bytes
	User, Password    string
	Publish           []string // the only subjects that the user may publish to; nil means all
	Subscribe         []string // the same for subscriptions
	NoJetStream       bool
	Certificate, Key  string // files; they turn TLS on
	name, dir         string
	port, clusterPort int
	routes            []string
}

// process is what the process of a server is told.
type process struct {
	Options
	Name, Dir         string
	Port, ClusterPort int
	Routes            []string
}

func init() {
	text := os.Getenv(variable)
	if text == "" {
		return
	}
	var p process
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		panic(err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends when the test ends, however it does
		os.Exit(1)
	}()
	if err := p.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(1)
}

func (p *process) run() error {
	o := &server.Options{ServerName: p.Name, Host: "127.0.0.1", Port: p.Port, JetStream: !p.NoJetStream, StoreDir: p.Dir, SyncAlways: true, NoSigs: true, NoLog: true,
		MaxPayload: int32(p.MaxPayload), JetStreamMaxStore: p.MaxStore, JetStreamMaxMemory: 64 << 20, Username: p.User, Password: p.Password}
	if p.Publish != nil {
		o.Users = []*server.User{{Username: p.User, Password: p.Password, Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: p.Publish}, Subscribe: &server.SubjectPermission{Allow: p.Subscribe}}}}
		o.Username, o.Password = "", ""
	}
	if p.Certificate != "" {
		t, err := server.GenTLSConfig(&server.TLSConfigOpts{CertFile: p.Certificate, KeyFile: p.Key})
		if err != nil {
			return err
		}
		o.TLS, o.TLSConfig, o.TLSTimeout = true, t, 5
	}
	if p.ClusterPort != 0 {
		o.Cluster = server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: p.ClusterPort}
		for _, r := range p.Routes {
			u, err := url.Parse(r)
			if err != nil {
				return err
			}
			o.Routes = append(o.Routes, u)
		}
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.Start()
	s.WaitForShutdown()
	return nil
}

// Server is a NATS server that can be killed and started again.
type Server struct {
	t   testing.TB
	o   Options
	cmd *exec.Cmd // nil while it doesn't run
	in  io.Closer
}

// Start starts a server alone.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := newServer(t, "alone", o)
	s.Start()
	s.ready()
	return s
}

func newServer(t testing.TB, name string, o Options) *Server {
	t.Helper()
	o.name, o.dir, o.port = name, filepath.Join(t.TempDir(), name), freePort(t)
	if o.MaxStore == 0 {
		o.MaxStore = 2 << 30
	}
	s := &Server{t: t, o: o}
	t.Cleanup(s.Kill)
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

// Start starts the server's process, on the folder that it had before.
func (s *Server) Start() {
	s.t.Helper()
	text, err := json.Marshal(process{Options: s.o, Name: s.o.name, Dir: s.o.dir, Port: s.o.port, ClusterPort: s.o.clusterPort, Routes: s.o.routes})
	if err != nil {
		s.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), variable+"="+string(text))
	cmd.Stderr = os.Stderr
	if s.in, err = cmd.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.cmd = cmd
}

// ready waits until a client can connect and, with JetStream, until streams can be made.
func (s *Server) ready() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	for err := error(nil); ; {
		if err = s.ask(ctx); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("the NATS server %s isn't ready after %s: %v", s.o.name, startLimit, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) ask(ctx context.Context) error {
	if s.o.Certificate != "" || s.o.NoJetStream {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(s.URL(), "nats://"))
		if err == nil {
			err = c.Close()
		}
		return err
	}
	c, err := nats.Connect(s.URL(), nats.UserInfo(s.o.User, s.o.Password))
	if err != nil {
		return err
	}
	defer c.Close()
	js, err := jetstream.New(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err = js.AccountInfo(ctx)
	return err
}

// Kill ends the server's process at once.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended
	_ = s.cmd.Wait()         // the error is that it was killed
	_ = s.in.Close()
	s.cmd = nil
}

// Freeze stops the server's process; Thaw lets it go on.
func (s *Server) Freeze() { s.signal(unix.SIGSTOP) }

// Thaw lets a frozen server go on.
func (s *Server) Thaw() { s.signal(unix.SIGCONT) }

func (s *Server) signal(sig unix.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// PID is the number of the server's process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// URL is the server's address.
func (s *Server) URL() string { return fmt.Sprintf("nats://127.0.0.1:%d", s.o.port) }

// Cluster is several servers that keep copies of each stream.
type Cluster []*Server

// StartCluster starts a cluster of n servers, and waits until it can make streams.
func StartCluster(t testing.TB, n int) Cluster {
	t.Helper()
	var c Cluster
	var routes []string
	for i := range n {
		s := newServer(t, fmt.Sprintf("s%d", i), Options{})
		s.o.clusterPort = freePort(t)
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", s.o.clusterPort))
		c = append(c, s)
	}
	for _, s := range c {
		s.o.routes = routes
	}
	c.Start()
	return c
}

// Start starts all servers that don't run, and waits until they work together.
func (c Cluster) Start() {
	c[0].t.Helper()
	for _, s := range c {
		if s.cmd == nil {
			s.Start()
		}
	}
	for _, s := range c {
		s.ready()
	}
}

// Kill ends all servers at once.
func (c Cluster) Kill() {
	for _, s := range c {
		s.Kill()
	}
}

// Leader is the server that leads a stream.
func (c Cluster) Leader(stream string) *Server {
	t := c[0].t
	t.Helper()
	conn, err := nats.Connect(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	for {
		info, err := js.Stream(ctx, stream)
		if err == nil {
			for _, s := range c {
				if cluster := info.CachedInfo().Cluster; cluster != nil && cluster.Leader == s.o.name {
					return s
				}
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("nobody leads the stream %s: %v", stream, err)
		case <-time.After(20 * time.Millisecond):
		}
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
