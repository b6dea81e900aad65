package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/pool"
	"github.com/fleetscore/fleetscore/internal/portal"
	"github.com/fleetscore/fleetscore/internal/scheduler"
	"github.com/fleetscore/fleetscore/internal/store"
)

// serverConfig says where a server keeps its data and listens.
type serverConfig struct {
	dir          string   // all data, or all but the store; made if absent
	store        string   // address of the store; empty: what the configuration in force says, else store in dir
	modelRoots   []string // folders of this machine that fleets may read models from
	listen       string   // host:port; port 0 picks one
	apiTokenFile string   // empty: no token is asked for, and only loopback may be listened on
}

// server is every service of one process, wired.
type server struct {
	cfg      serverConfig
	log      *slog.Logger
	url      string // where it listens, for people and nodes
	loopback bool
	listener net.Listener
	metrics  *prometheus.Registry
	health   *obs.Health // what doesn't work; every service reports there

	store    store.Bucket
	catalog  *catalog.Catalog
	storeURL string // what nodes open; empty if the store is no folder
	ledger   *ledger.Ledger
	streams  *streams
	nodes    string // file with the nodes' token
	api      string // the API token; empty if none is asked for
	node     string // the nodes' token
}

// openServer binds the address first, as a port in use is the commonest mistake
// and must not leave a trace, then opens the storage.
func openServer(ctx context.Context, cfg serverConfig, log *slog.Logger) (*server, error) {
	s := &server{cfg: cfg, log: log, metrics: obs.NewRegistry(), health: &obs.Health{}}
	s.streams = &streams{server: s}
	dir, err := filepath.Abs(cfg.dir)
	if err != nil {
		return nil, err
	}
	s.cfg.dir = dir
	if err := s.readAPIToken(); err != nil {
		return nil, err
	}
	if err := s.bind(ctx); err != nil {
		return nil, err
	}
	if err := s.openStorage(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *server) readAPIToken() error {
	if s.cfg.apiTokenFile == "" {
		return nil
	}
	b, err := os.ReadFile(s.cfg.apiTokenFile)
	s.api = strings.TrimSpace(string(b))
	if err == nil && len(s.api) < 16 {
		err = errors.New("it holds fewer than 16 characters")
	}
	if err != nil {
		return fleetscore.Errorf(fleetscore.Invalid, "read API token", s.cfg.apiTokenFile, "%w", err).
			WithHint("write a long random text into it, e.g. openssl rand -hex 24 > %s", s.cfg.apiTokenFile)
	}
	return nil
}

func (s *server) bind(ctx context.Context) error {
	host, port, err := net.SplitHostPort(s.cfg.listen)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return fleetscore.Errorf(fleetscore.Invalid, "listen", s.cfg.listen, "not host:port").WithHint("write for example 127.0.0.1:7180")
	}
	ip := net.ParseIP(host)
	s.loopback = host == "localhost" || ip != nil && ip.IsLoopback()
	if !s.loopback && s.api == "" {
		return fleetscore.Errorf(fleetscore.Invalid, "listen", s.cfg.listen, "beyond this machine everybody could submit jobs and read data").
			WithHint("give --api-token-file FILE, or listen on 127.0.0.1")
	}
	var lc net.ListenConfig
	s.listener, err = lc.Listen(ctx, "tcp", s.cfg.listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fleetscore.Errorf(fleetscore.Conflict, "listen", s.cfg.listen, "the address is in use").
			WithHint("end the program that uses it (another fleetscore?), or pick another with --listen 127.0.0.1:PORT")
	}
	if err != nil {
		return fleetscore.Errorf(fleetscore.Unavailable, "listen", s.cfg.listen, "%w", err).WithHint("pick another address with --listen")
	}
	addr := s.listener.Addr().(*net.TCPAddr)
	if ip := addr.IP; ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	s.url = "http://" + net.JoinHostPort(host, strconv.Itoa(addr.Port))
	return nil
}

func (s *server) openStorage(ctx context.Context) error {
	if err := durable.MkdirAll(s.cfg.dir, 0o700); err != nil {
		return folderError(s.cfg.dir, err)
	}
	var err error
	if s.ledger, err = ledger.Open(ctx, filepath.Join(s.cfg.dir, "ledger.db")); err != nil {
		return err
	}
	if err := s.openStore(ctx); err != nil {
		return err
	}
	s.nodes = filepath.Join(s.cfg.dir, "secrets", "node-token")
	s.node, err = ensureSecret(s.nodes)
	return err
}

// openStore opens the store that the flag names, else the configuration in force,
// else the folder store. A cloud is probed once for what commits rely on.
func (s *server) openStore(ctx context.Context) error {
	if s.cfg.store == "" {
		cfg, _, err := s.applied(ctx)
		if err != nil {
			return err
		}
		s.cfg.store = cfg.Store
	}
	if s.cfg.store == "" {
		s.cfg.store = filepath.Join(s.cfg.dir, "store")
	}
	if err := s.sameStore(); err != nil {
		return err
	}
	b, err := store.Open(ctx, s.cfg.store)
	if err != nil {
		return err
	}
	s.store, s.catalog = b, catalog.NewReporting(b, s.health)
	if d, ok := b.(*store.Dir); ok {
		s.storeURL = d.URL()
		return nil
	}
	return store.Probe(ctx, b)
}

// sameStore refuses another store than the one that the folder's ledger and hub
// belong to: positions and jobs would name what isn't there.
func (s *server) sameStore() error {
	file := filepath.Join(s.cfg.dir, "store.url")
	now := s.storeName(s.cfg.store)
	then, whole, err := readStoreName(file)
	if err != nil {
		return folderError(file, err)
	}
	if !whole && then == "" {
		if _, err := os.Stat(filepath.Join(s.cfg.dir, "store", "data")); err == nil {
			then = s.storeName(filepath.Join(s.cfg.dir, "store")) // the folder itself tells
		}
	}
	switch {
	case then == now && whole:
		return nil
	case then == now, !whole && strings.HasPrefix(now, then):
		if _, err := os.Stat(file); err == nil {
			s.log.Warn("the name of the store was cut off, as by a power cut, and is written anew", "file", file, "held", then, "store", now)
		}
		if err := durable.WriteFile(file, []byte(now+"\n"), 0o644); err != nil {
			return folderError(file, err)
		}
		return nil
	case !whole:
		return fleetscore.Errorf(fleetscore.Corrupt, "open store", file, "the file was cut off and holds only %q, which is not the beginning of %s", then, now).
			WithHint("name the store that the data belong to, or write its address and a line break into %s", file)
	}
	return fleetscore.Errorf(fleetscore.Conflict, "open store", now, "the data of %s belong to the store %s", s.cfg.dir, then).
		WithHint("name that store, or start with another --dir; to move, end the server, copy every blob and remove %s", file)
}

// readStoreName reads the name of a store, and whether the line with it is whole:
// a power cut can leave it empty, cut, or filled with zero bytes.
func readStoreName(file string) (name string, whole bool, err error) {
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", false, err
	}
	text := strings.TrimRight(string(data), "\x00")
	return strings.TrimSpace(text), strings.HasSuffix(text, "\n") && strings.TrimSpace(text) != "", nil
}

// storeName is what makes a store the same one: not how it is reached. The folder
// in the server's own is named without it, so that it may be moved.
func (s *server) storeName(address string) string {
	if !store.IsLocal(address) {
		return strings.TrimSuffix(withoutQuery(address), "/")
	}
	path := strings.TrimPrefix(address, "file://")
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if rel, err := filepath.Rel(s.cfg.dir, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return path
}

// withoutQuery is an address without its parameters.
func withoutQuery(address string) string {
	bare, _, _ := strings.Cut(address, "?")
	return bare
}

func folderError(dir string, err error) error {
	kind, hint := fleetscore.Unavailable, "check the folder's owner and permissions, or pick another with --dir"
	if errors.Is(err, syscall.ENOSPC) {
		kind, hint = fleetscore.Exhausted, "the disk is full: free some space, or pick another disk with --dir"
	}
	return fleetscore.Errorf(kind, "make folder", dir, "%w", err).WithHint("%s", hint)
}

// ensureSecret reads the secret in file, or makes one that only the owner reads.
func ensureSecret(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err == nil && len(b) >= 32 && bytes.IndexByte(b, 0) < 0 { // a power cut can leave zero bytes
		return string(b), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", folderError(file, err)
	}
	if err := durable.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", folderError(filepath.Dir(file), err)
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	secret := base64.RawURLEncoding.EncodeToString(raw)
	if err := durable.WriteFile(file, []byte(secret), 0o600); err != nil {
		return "", folderError(file, err)
	}
	return secret, nil
}

func (s *server) close() {
	if s.ledger != nil {
		if err := s.ledger.Close(); err != nil {
			s.log.Error("closing the ledger", "err", err)
		}
	}
	if s.listener != nil {
		s.listener.Close() // an error here only says that serving closed it already
	}
}

// applied returns the configuration in force; ready says whether there is one.
func (s *server) applied(ctx context.Context) (cfg fleetscore.Config, ready bool, err error) {
	cfg, _, _, err = s.ledger.Config(ctx)
	if fleetscore.NotFound.Is(err) {
		return cfg, false, nil
	}
	return cfg, err == nil, err
}

// run serves until ctx ends. The extra services run beside the server's own,
// once it answers.
func (s *server) run(ctx context.Context, extra ...lifecycle.Service) error {
	defer s.close()
	sched, err := scheduler.New(scheduler.Config{StoreURL: s.storeURL, SpoolDir: filepath.Join(s.cfg.dir, "spool"), ModelRoots: s.cfg.modelRoots},
		scheduler.Deps{Ledger: s.ledger, Store: s.store, Catalog: s.catalog, Log: s.log, Metrics: s.metrics})
	if err != nil {
		return err
	}
	pools, err := pool.New(pool.Config{ServerURL: s.url, TokenFile: s.nodes},
		pool.Deps{Ledger: s.ledger, Store: s.store, Log: s.log, Metrics: s.metrics})
	if err != nil {
		return err
	}
	handler, err := s.handler(sched, s.streams)
	if err != nil {
		return err
	}
	services := append([]lifecycle.Service{
		{Name: "http", Last: true, Run: func(ctx context.Context) error { return s.serveHTTP(ctx, handler) }}, // nodes say goodbye
		{Name: "streams", Run: s.streams.run},
		{Name: "scheduler", Run: sched.Run},
		{Name: "pool", Run: pools.Run},
		{Name: "maintenance", Run: func(ctx context.Context) error { return s.maintain(ctx, sched) }},
	}, extra...)
	return lifecycle.Run(ctx, s.log, services...)
}

const maintainEvery = 10 * time.Minute

// maintain keeps the tables small now and then.
func (s *server) maintain(ctx context.Context, sched *scheduler.Scheduler) error {
	ticker := time.NewTicker(maintainEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		done, err := s.catalog.Maintain(ctx, time.Now(), "", sched.InUse)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		problem := ""
		if err != nil {
			problem = err.Error()
			s.log.Error("tables can't be maintained", "error", err)
		}
		s.health.Report("maintenance", problem)
		for _, m := range done {
			if m.Problem != "" {
				s.log.Error("table can't be maintained", "table", m.Table, "error", m.Problem)
			} else if m.Replaced+m.Deleted > 0 {
				s.log.Info("table maintained", "table", m.Table, "files", m.Files, "joined", m.Replaced, "into", m.By, "deleted", m.Deleted)
			}
		}
	}
}

func (s *server) handler(sched *scheduler.Scheduler, st *streams) (http.Handler, error) {
	cfg := api.Config{NodeToken: s.node, APIToken: s.api, Version: Version, Loopback: s.loopback}
	a, err := api.New(cfg, api.Deps{Ledger: s.ledger, Scheduler: sched, Store: s.store, Catalog: s.catalog, Gateway: st, Queries: st.status, Check: s.check, Health: s.health, Log: s.log, Metrics: s.metrics})
	if err != nil {
		return nil, err
	}
	p, err := portal.New(portal.Deps{Ledger: s.ledger, Logs: sched, Store: s.store, Catalog: s.catalog, Queries: st.status, Gateway: st.stats, Health: s.health, Log: s.log})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(api.Prefix+"/", a)
	mux.Handle("GET /metrics", api.Protect(cfg, obs.Handler(s.metrics)))
	mux.Handle("/", api.Protect(cfg, p))
	return mux, nil
}

func (s *server) serveHTTP(ctx context.Context, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(s.listener) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		srv.Close() // whoever still hangs on is cut off
	}
	<-done
	return nil
}
