// Package server puts all rooms together into a server: it opens ledger, store and hub,
// binds the address, and runs the services until it is told to stop.
//
// It decides nothing about readings, jobs or nodes itself, and knows no command line: the
// flags of commands are read by cli.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/gateway/rejected"
	"github.com/fleetscore/fleetscore/internal/images"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/mount"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/portal"
	"github.com/fleetscore/fleetscore/internal/sensor"
	"github.com/fleetscore/fleetscore/internal/store"
)

// Config says where a server keeps its data and listens.
type Config struct {
	Version string // of the program

	Dir          string   // all data, or all but the store; made if absent
	LedgerFile   string   // file with the address of a PostgreSQL ledger; empty: the variable FLEETSCORE_LEDGER_URL, else a file in dir
	Shared       bool     // the server is one of several that share ledger, hub and store
	Name         string   // of this server among several; empty: the machine's name and the port
	Advertise    string   // where nodes and programs on other machines reach the servers, separated by commas; empty: where this one listens
	Store        string   // address of the store; empty: what the configuration in force says, else store in dir
	ModelRoots   []string // folders of this machine that fleets may read models from
	MountRoots   []string // folders of this machine that mounts may lie in
	SecretRoots  []string // folders of this machine that hold files with passwords and keys which the hub's settings may name, besides secrets/hub in Dir
	Commands     []string // folders of this machine whose programs pools may run
	Python       string   // interpreter that local nodes may score models with; empty: none
	Environments string   // the folder of further environments of local nodes; empty means that there are none
	Isolation    string   // how far local nodes isolate Python: best, required or off; empty: best
	Docker       string   // address of a Docker engine whose containers may be nodes; empty: none
	DockerConfig string   // file of docker login with the logins of registries that images are pulled from; empty: none
	Listen       string   // host:port; port 0 picks one
	Open         bool     // no token is asked for; on loopback only
	InsecureHTTP bool     // plain HTTP beyond loopback

	TLSCert, TLSKey string // files; empty: plain HTTP, unless tlsSelfSigned
	TLSSelfSigned   bool

	ClientCA           string // file with the authorities of client certificates; empty: none are asked for
	ClientCertRequired bool   // tokens alone aren't enough
	SignInSecretFile   string // file with this server's secret at the OpenID provider; empty: the variable FLEETSCORE_SIGN_IN_SECRET, else none

	NFSListen   string   // host:port where areas of the store are exported over NFS; empty: nowhere
	NFSAreas    []string // which ones; empty: models
	InsecureNFS bool     // beyond loopback, where everybody can read them

	MaxConnections int        // 0: by how many files the process may open
	Clock          clock.Deps // tests set the machine's clocks; zero: the system's
}

// server holds all services of one process.
type Server struct {
	cfg      Config
	log      *slog.Logger
	URL      string // where it listens, for people and nodes
	loopback bool
	listener net.Listener
	nfs      net.Listener  // nil: nothing is exported
	conns    *access.Conns // bounds the connections of all protocols together
	metrics  *prometheus.Registry
	clock    *clock.Clock
	health   *obs.Health // what doesn't work; every service reports there

	roots       store.Roots // what s.cfg.ModelRoots and s.cfg.MountRoots were at the start
	secretRoots store.Roots // what s.cfg.SecretRoots and secrets/hub were at the start
	toldFiles   string      // what tellFiles has said; only the streams use it
	mounts      mount.Checker
	store       store.Bucket
	Catalog     *catalog.Catalog
	storeURL    string // what nodes open; empty if the store is no folder
	Ledger      ledger.Ledger
	postgres    *ledger.Postgres // the ledger; nil if it is a file
	folder      io.Closer        // lock of the folder, if the ledger doesn't lie there
	streams     *streams
	sensors     *sensor.Watch
	nodes       string // file with the token of the server's own nodes
	control     *access.Control
	cert        *access.Certificate // nil: plain HTTP
	left        string              // file that commands of this user find the server by
	started     time.Time
	others      others // the servers that share the ledger; nobody if this one is alone

	authorities *access.Authorities // of client certificates; nil: none are asked for
}

// Open binds the address first, then opens the storage. A port that is already in
// use is the most frequent mistake, and must not leave any files behind.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*Server, error) {
	s := &Server{cfg: cfg, log: log, metrics: obs.NewRegistry(), health: &obs.Health{}}
	s.streams = &streams{server: s, replaying: make(chan struct{}, 1), listing: make(chan struct{}, 1)}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s.cfg.Dir = dir
	s.mounts.Roots = cfg.MountRoots
	if s.roots, err = store.FindRoots(slices.Concat(cfg.ModelRoots, cfg.MountRoots)); err != nil {
		return nil, err
	}
	if err := s.findSecretRoots(); err != nil {
		return nil, err
	}
	if err := s.bind(ctx); err != nil {
		s.Close()
		return nil, err
	}
	err = s.openStorage(ctx)
	if err == nil {
		s.streams.keeper, err = rejected.New(rejected.Deps{Ledger: s.Ledger, Now: func() time.Time { return s.clock.Now() }, Log: log, Metrics: s.metrics})
	}
	if err == nil {
		s.sensors, err = s.watchSensors()
	}
	if err == nil {
		err = s.openAccess(ctx)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) bind(ctx context.Context) error {
	host, port, err := net.SplitHostPort(s.cfg.Listen)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return fleetscore.Errorf(fleetscore.Invalid, "listen", s.cfg.Listen, "not host:port").WithHint("write for example 127.0.0.1:7180")
	}
	s.loopback = isLoopback(host)
	s.conns = access.NewConns(s.maxConnections())
	if err := s.checkListen(); err != nil {
		return err
	}
	if err := s.checkNFS(); err != nil {
		return err
	}
	if s.listener, err = listen(ctx, "listen", s.cfg.Listen, "--listen"); err != nil {
		return err
	}
	if s.cfg.NFSListen != "" {
		if s.nfs, err = listen(ctx, "listen for NFS", s.cfg.NFSListen, "--nfs-listen"); err != nil {
			return err
		}
	}
	addr := s.listener.Addr().(*net.TCPAddr)
	if ip := addr.IP; ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	scheme := "http://"
	if s.tls() {
		scheme = "https://"
	}
	s.URL = scheme + net.JoinHostPort(host, strconv.Itoa(addr.Port))
	return nil
}

// listen binds an address that a flag names.
func listen(ctx context.Context, op, address, flag string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fleetscore.Errorf(fleetscore.Conflict, op, address, "the address is in use").
			WithHint("end the program that uses it (another fleetscore?), or pick another with %s 127.0.0.1:PORT", flag)
	}
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, op, address, "%w", err).WithHint("pick another address with %s", flag)
	}
	return l, nil
}

// Run serves until ctx ends. The extra services run beside the server's own,
// once it answers.
func (s *Server) Run(ctx context.Context, extra ...lifecycle.Service) error {
	defer s.Close()
	s.started = s.clock.Now().UTC()
	work, err := s.newWork()
	if err != nil {
		return err
	}
	handler, err := s.handler(work)
	if err != nil {
		return err
	}
	services := append([]lifecycle.Service{
		{Name: "http", Last: true, Run: func(ctx context.Context) error { return s.serveHTTP(ctx, handler) }}, // last, because nodes sign off over HTTP
		{Name: "clock", Run: s.clock.Run},
		{Name: "memory", Run: boundMemory},
		{Name: "streams", Run: s.streams.run},
		{Name: "sensors", Run: s.sensors.Run},
		{Name: "broker", Run: work.broker.Examine},
		{Name: "queue", Run: work.broker.Call},
		{Name: "setup output", Run: work.broker.KeepOutputs},
		{Name: "access", Run: s.control.Run},
		{Name: "leader", Run: func(ctx context.Context) error { return s.leading(ctx, work) }},
	}, extra...)
	if s.nfs != nil {
		files, err := s.exportFiles()
		if err != nil {
			return err
		}
		services = append(services, files)
	}
	if s.cfg.Docker != "" {
		services = append(services, lifecycle.Service{Name: "containers", Last: true, Run: func(ctx context.Context) error { return s.serveContainers(ctx, handler) }})
	}
	switch { // last, because the others deliver what they hold
	case s.cfg.Shared:
		services = append(services, lifecycle.Service{Name: "servers", Last: true, Run: func(ctx context.Context) error { return s.beat(ctx, work) }})
	case s.postgres != nil:
		services = append(services, lifecycle.Service{Name: "lease", Last: true, Run: func(ctx context.Context) error { return s.postgres.Keep(ctx, s.log) }})
	}
	return lifecycle.Run(ctx, s.log, services...)
}

func (s *Server) handler(w work) (http.Handler, error) {
	st := s.streams
	pushes := filepath.Join(s.cfg.Dir, "push")
	if err := os.RemoveAll(pushes); err != nil { // what a killed server left of pushes
		return nil, FolderError(pushes, err)
	}
	a, err := api.New(api.Config{Version: s.cfg.Version, TempDir: filepath.Join(s.cfg.Dir, "spool"), PushDir: pushes}, api.Deps{Access: s.control, Ledger: s.Ledger, Scheduler: w.scheduler, Broker: w.broker, Logs: w.logs, Fleets: fleets{w.fleets, s}, Store: s.store, Images: w.images, Mounts: &s.mounts, Catalog: s.Catalog, Gateway: st, Hub: st.ways, Tail: st.tail, Keys: st.keys, Replay: st.Replay, Redrive: st.Redrive, RedriveLate: st.RedriveLate, Queries: st.status, Sensors: s.sensors, Servers: s.servers, Check: s.check, Health: s.health, Clock: s.clock, Now: s.clock.Now, Log: s.log, Metrics: s.metrics})
	if err != nil {
		return nil, err
	}
	var servers func(context.Context) ([]fleetscore.Server, error)
	if s.cfg.Shared {
		servers = s.servers
	}
	p, err := portal.New(portal.Deps{Access: s.control, Ledger: s.Ledger, Logs: w.logs, Store: s.store, Catalog: s.Catalog, Queries: st.status, Sensors: s.sensors, Gateway: st.stats, Servers: servers, Health: s.health, Now: s.clock.Now, Log: s.log})
	if err != nil {
		return nil, err
	}
	registry, err := s.serveImages(w.images)
	if err != nil {
		return nil, err
	}
	mux := s.control.NewMux(func(w http.ResponseWriter, _ *http.Request, why *access.Refusal) {
		http.Error(w, why.Op+": "+why.Message+" ("+why.Hint+")", why.Status)
	})
	mux.Handle("GET /metrics", obs.Handler(s.metrics))
	mux.Mount(api.Prefix+"/", a)
	mux.Mount(images.Prefix, registry)
	influx := s.control.NewMux(st.refuseInflux)
	for _, path := range []string{"/api/v2/write", "/write"} {
		influx.Handle(path, st.serve((*gateway.Gateway).ServeInflux))
		mux.Mount(path, access.Basic(influx))
	}
	mux.Mount("/", p)
	h, err := s.eventHubs(mux)
	return h, errors.Join(err, mux.Err(), influx.Err())
}

// Close lets go of everything that Open opened. Run does it too.
func (s *Server) Close() {
	if s.control != nil { // while the ledger is still locked: no other server can have written these files
		client.RemoveLocal(s.left)
		_ = os.Remove(s.adminFile()) // its token is no longer valid
	}
	if s.postgres != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		end := s.postgres.Resign
		if s.cfg.Shared {
			end = s.postgres.Leave
		}
		if err := end(ctx); err != nil {
			s.log.Warn("other servers will notice only in a while that this one has ended", "error", err)
		}
	}
	if s.Ledger != nil {
		if err := s.Ledger.Close(); err != nil {
			s.log.Error("closing the ledger", "err", err)
		}
	}
	if s.folder != nil {
		s.folder.Close() // it was only locked
	}
	if s.nfs != nil {
		s.nfs.Close()
	}
	if s.listener != nil {
		s.listener.Close() // an error here only says that serving closed it already
	}
}

// applied returns the configuration in force; ready says whether there is one.
func (s *Server) applied(ctx context.Context) (cfg fleetscore.Config, ready bool, err error) {
	cfg, _, _, err = s.Ledger.Config(ctx)
	if fleetscore.NotFound.Is(err) {
		return cfg, false, nil
	}
	return cfg, err == nil, err
}

// Apply does the checks that need the server's data, and stores the configuration.
func (s *Server) Apply(ctx context.Context, cfg fleetscore.Config, text []byte) error {
	warnings, err := s.check(ctx, cfg)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		s.log.Warn("configuration: " + w)
	}
	version, err := s.Ledger.PutConfig(ctx, s.clock.Now(), string(text), cfg)
	if err == nil {
		s.log.Info("configuration applied", "version", version)
	}
	return err
}

// Announce prints the portal's address once the server answers; with link, an address
// that signs the browser in.
func (s *Server) Announce(w io.Writer, link bool) lifecycle.Service {
	return lifecycle.Service{Name: "announce", Run: func(ctx context.Context) error {
		in := s.cfg.Dir
		if s.storeURL == "" {
			in += " and " + withoutQuery(s.cfg.Store)
		}
		if s.postgres != nil {
			in += " and the " + s.postgres.String()
		}
		switch {
		case s.cfg.Open:
			fmt.Fprintf(w, "fleetscore: portal at %s, open to every user and program of this machine\n", s.URL)
		case link:
			code, err := s.control.LocalLink(ctx)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "fleetscore: portal at %s/?token=%s\n            (signs a browser in once, within 15 minutes; 'fleetscore portal' prints another)\n", s.URL, code)
		default:
			fmt.Fprintf(w, "fleetscore: portal at %s; 'fleetscore portal' prints an address that signs a browser in\n", s.URL)
		}
		if s.cert != nil {
			fmt.Fprintf(w, "fleetscore: the certificate's SHA-256 fingerprint is %s\n", s.cert.Fingerprint())
		}
		if s.nfs != nil {
			fmt.Fprintf(w, "fleetscore: %s can be read over NFS at %s by everybody who reaches this address\n", strings.Join(s.nfsAreas(), ", "), s.nfs.Addr())
		}
		fmt.Fprintf(w, "fleetscore: API at %s/api/v1, data in %s; Ctrl-C ends it\n", s.URL, in)
		<-ctx.Done()
		return nil
	}}
}

// Dir is the server's folder.
func (s *Server) Dir() string { return s.cfg.Dir }

// Client is a client of the server for a program of this machine.
func (s *Server) Client(user string) (*client.Client, error) {
	return client.New(client.Config{Server: s.URL, TokenFile: s.adminFile(), CAFile: s.caFile(), ServerName: s.serverName(), User: user})
}

// CaughtUp returns the state of the only query, and whether the query has read all
// messages that were in the log before the call.
func (s *Server) CaughtUp(ctx context.Context) (aggregator.Status, bool) {
	return s.streams.caughtUp(ctx)
}
