package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/pool"
	"github.com/fleetscore/fleetscore/internal/portal"
	"github.com/fleetscore/fleetscore/internal/store"
)

// serverConfig says where a server keeps its data and listens.
type serverConfig struct {
	dir          string   // all data, or all but the store; made if absent
	ledgerFile   string   // file with the address of a PostgreSQL ledger; empty: the variable FLEETSCORE_LEDGER_URL, else a file in dir
	standby      bool     // wait until no other server leads the ledger, instead of failing
	store        string   // address of the store; empty: what the configuration in force says, else store in dir
	modelRoots   []string // folders of this machine that fleets may read models from
	commands     []string // folders of this machine whose programs pools may run
	listen       string   // host:port; port 0 picks one
	open         bool     // no token is asked for; on loopback only
	insecureHTTP bool     // plain HTTP beyond loopback

	tlsCert, tlsKey string // files; empty: plain HTTP, unless tlsSelfSigned
	tlsSelfSigned   bool
	maxConnections  int        // 0: by how many files the process may open
	clock           clock.Deps // tests set the machine's clocks; zero: the system's
}

// server holds all services of one process.
type server struct {
	cfg      serverConfig
	log      *slog.Logger
	url      string // where it listens, for people and nodes
	loopback bool
	listener net.Listener
	metrics  *prometheus.Registry
	clock    *clock.Clock
	health   *obs.Health // what doesn't work; every service reports there

	roots    store.Roots // what s.cfg.modelRoots were at the start
	store    store.Bucket
	catalog  *catalog.Catalog
	storeURL string // what nodes open; empty if the store is no folder
	ledger   ledger.Ledger
	postgres *ledger.Postgres // the ledger; nil if it is a file
	folder   io.Closer        // lock of the folder, if the ledger doesn't lie there
	streams  *streams
	nodes    string // file with the token of the server's own nodes
	control  *access.Control
	cert     *access.Certificate // nil: plain HTTP
	left     string              // file that commands of this user find the server by
}

// openServer binds the address first, then opens the storage. A port that is already in
// use is the most frequent mistake, and must not leave any files behind.
func openServer(ctx context.Context, cfg serverConfig, log *slog.Logger) (*server, error) {
	s := &server{cfg: cfg, log: log, metrics: obs.NewRegistry(), health: &obs.Health{}}
	s.streams = &streams{server: s}
	dir, err := filepath.Abs(cfg.dir)
	if err != nil {
		return nil, err
	}
	s.cfg.dir = dir
	if s.roots, err = store.FindRoots(cfg.modelRoots); err != nil {
		return nil, err
	}
	if s.cfg.standby { // who waits isn't there yet
		if err := s.openLedger(ctx); err != nil {
			s.close()
			return nil, err
		}
	}
	if err := s.bind(ctx); err != nil {
		s.close()
		return nil, err
	}
	err = s.openStorage(ctx)
	if err == nil {
		err = s.openAccess(ctx)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
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
	if err := s.checkListen(); err != nil {
		return err
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
	scheme := "http://"
	if s.tls() {
		scheme = "https://"
	}
	s.url = scheme + net.JoinHostPort(host, strconv.Itoa(addr.Port))
	return nil
}

func (s *server) openStorage(ctx context.Context) error {
	if err := s.openLedger(ctx); err != nil {
		return err
	}
	if err := s.openClock(ctx, s.ledger); err != nil {
		return err
	}
	if err := s.openStore(ctx); err != nil {
		return err
	}
	blobs := filepath.Join(s.cfg.dir, "store")
	if err := os.Chmod(blobs, 0o700); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return folderError(blobs, err)
	}
	return nil
}

// openClock compares the machine's clock with the last times in ledger and hub. It must
// be called before anything uses the time.
func (s *server) openClock(ctx context.Context, l ledger.Times) error {
	seen, err := l.LastTime(ctx)
	if err != nil {
		return err
	}
	if arrived := hub.LastArrival(filepath.Join(s.cfg.dir, "hub")); arrived > 0 && arrived.Time().After(seen) {
		seen = arrived.Time()
	}
	deps := s.cfg.clock
	deps.Log, deps.Health = s.log, s.health
	s.clock = clock.New(clock.Config{}, deps, seen)
	s.health.Now = s.clock.Now
	return nil
}

// openStore opens the store that the flag names, else the configuration in force,
// else the folder store. A cloud's store is tested once for the operations that commits
// need.
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
	if s.postgres != nil {
		if err := s.postgres.BelongTo(ctx, s.storeOf(s.cfg.store)); err != nil {
			return err
		}
	}
	b, err := store.Open(ctx, s.cfg.store)
	if err != nil {
		return err
	}
	s.store, s.catalog = b, catalog.NewReporting(b, s.health, func() time.Time { return s.clock.Now() })
	if d, ok := b.(*store.Dir); ok {
		s.storeURL = d.URL()
		return nil
	}
	return store.Probe(ctx, b)
}

// sameStore refuses a store that doesn't belong to the folder's ledger and hub, because
// their positions and jobs refer to data of their own store.
func (s *server) sameStore() error {
	file := filepath.Join(s.cfg.dir, "store.url")
	now := s.storeName(s.cfg.store)
	then, whole, err := readStoreName(file)
	if err != nil {
		return folderError(file, err)
	}
	if !whole && then == "" {
		if _, err := os.Stat(filepath.Join(s.cfg.dir, "store", catalog.DatasetFolder(""))); err == nil {
			then = s.storeName(filepath.Join(s.cfg.dir, "store")) // the store that lies in the folder
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

// storeName identifies a store, whichever way it is reached. A store inside --dir is
// named relative to it, so that --dir may be moved.
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

func (s *server) close() {
	if s.control != nil { // while the ledger is still locked: no other server can have written these files
		client.RemoveLocal(s.left)
		_ = os.Remove(s.adminFile()) // its token is no longer valid
	}
	if s.postgres != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := s.postgres.Resign(ctx); err != nil {
			s.log.Warn("another server can take over only when the lease has run out", "error", err)
		}
	}
	if s.ledger != nil {
		if err := s.ledger.Close(); err != nil {
			s.log.Error("closing the ledger", "err", err)
		}
	}
	if s.folder != nil {
		s.folder.Close() // it was only locked
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
	work, err := s.newWork()
	if err != nil {
		return err
	}
	local, err := pool.NewLocal(pool.LocalConfig{ServerURL: s.url, TokenFile: s.nodes, CAFile: s.caFile(), ServerName: s.serverName()})
	if err != nil {
		return err
	}
	machines := pool.NewExec(pool.ExecDeps{ServerURL: s.url, CAFile: s.caFile(), Folders: s.cfg.commands, Secrets: filepath.Join(s.cfg.dir, "secrets"), Log: s.log,
		Pool: s.pool, Token: s.machineToken, Forget: s.control.Remove})
	pools, err := pool.New(pool.Config{}, pool.Deps{Ledger: s.ledger, Store: s.store, Providers: map[string]pool.Provider{"local": local, "exec": machines}, Log: s.log, Health: s.health, Now: s.clock.Now, Metrics: s.metrics})
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
		{Name: "streams", Run: s.streams.run},
		{Name: "fleets", Run: work.fleets.Run},
		{Name: "scheduler", Run: work.scheduler.Run},
		{Name: "broker", Run: work.broker.Run},
		{Name: "logs", Run: work.logs.Run},
		{Name: "pool", Run: pools.Run},
		{Name: "maintenance", Run: func(ctx context.Context) error { return s.maintain(ctx, work.scheduler) }},
		{Name: "access", Run: s.control.Run},
	}, extra...)
	if s.postgres != nil { // last, because it leads while the others deliver what they hold
		services = append(services, lifecycle.Service{Name: "leader", Last: true, Run: func(ctx context.Context) error { return s.postgres.Keep(ctx, s.log) }})
	}
	return lifecycle.Run(ctx, s.log, services...)
}

func (s *server) handler(w work) (http.Handler, error) {
	st := s.streams
	a, err := api.New(api.Config{Version: Version, TempDir: filepath.Join(s.cfg.dir, "spool")}, api.Deps{Access: s.control, Ledger: s.ledger, Scheduler: w.scheduler, Broker: w.broker, Logs: w.logs, Fleets: w.fleets, Store: s.store, Catalog: s.catalog, Gateway: st, Queries: st.status, Check: s.check, Health: s.health, Clock: s.clock, Now: s.clock.Now, Log: s.log, Metrics: s.metrics})
	if err != nil {
		return nil, err
	}
	p, err := portal.New(portal.Deps{Access: s.control, Ledger: s.ledger, Logs: w.logs, Store: s.store, Catalog: s.catalog, Queries: st.status, Gateway: st.stats, Health: s.health, Now: s.clock.Now, Log: s.log})
	if err != nil {
		return nil, err
	}
	mux := s.control.NewMux(func(w http.ResponseWriter, _ *http.Request, why *access.Refusal) {
		http.Error(w, why.Op+": "+why.Message+" ("+why.Hint+")", why.Status)
	})
	mux.Handle("GET /metrics", obs.Handler(s.metrics))
	mux.Mount(api.Prefix+"/", a)
	mux.Mount("/", p)
	return mux, mux.Err()
}

func (s *server) serveHTTP(ctx context.Context, h http.Handler) error {
	conns := access.NewConns(s.maxConnections())
	srv := &http.Server{
		Handler:           h,
		ConnContext:       conns.Context,
		MaxHeaderBytes:    64 << 10,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	done := make(chan error, 1)
	serve := srv.Serve
	if s.cert != nil {
		srv.TLSConfig = s.cert.Config()
		serve = func(l net.Listener) error { return srv.ServeTLS(l, "", "") }
	}
	go func() { done <- serve(conns.Listen(s.listener)) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		srv.Close() // ends the connections that are still open
	}
	<-done
	return nil
}

// tls reports whether the server speaks TLS.
func (s *server) tls() bool { return s.cfg.tlsSelfSigned || s.cfg.tlsCert != "" }

// checkListen refuses settings that would give strangers access.
func (s *server) checkListen() error {
	const op = "listen"
	switch c := s.cfg; {
	case c.tlsSelfSigned && (c.tlsCert != "" || c.tlsKey != ""):
		return fleetscore.Errorf(fleetscore.Invalid, op, c.listen, "--tls-self-signed and --tls-cert exclude each other").WithHint("give one of them")
	case (c.tlsCert == "") != (c.tlsKey == ""):
		return fleetscore.Errorf(fleetscore.Invalid, op, c.listen, "a certificate needs its key").WithHint("give both --tls-cert and --tls-key")
	case s.loopback:
		return nil
	case c.open:
		return fleetscore.Errorf(fleetscore.Invalid, op, c.listen, "--open beyond this machine would let everybody do everything").
			WithHint("listen on 127.0.0.1, or leave --open out and create tokens with fleetscore token create")
	case !s.tls() && !c.insecureHTTP:
		return fleetscore.Errorf(fleetscore.Invalid, op, c.listen, "beyond this machine tokens would travel in plain text").
			WithHint("give --tls-cert and --tls-key, or --tls-self-signed for a first try; behind a proxy that speaks TLS, --insecure-http")
	}
	return nil
}

// secret is the name of a file that only the user who runs the server can read.
func (s *server) secret(name string) string { return filepath.Join(s.cfg.dir, "secrets", name) }

// adminFile holds the token of the user who runs the server. Each start makes a new
// token, so that a program that listens at this address after the server ended learns
// no valid token.
func (s *server) adminFile() string { return s.secret("admin-token") }

// caFile is the file of certificates by which programs of this machine trust the
// server; empty without TLS.
func (s *server) caFile() string {
	if s.cert == nil {
		return ""
	}
	return s.cert.CAFile
}

// serverName is the name in the certificate by which programs of this machine know
// the server, if it isn't the one in its URL.
func (s *server) serverName() string {
	u, err := url.Parse(s.url)
	if s.cert == nil || err != nil {
		return ""
	}
	return s.cert.NameFor(u.Hostname())
}

// openAccess makes the secrets, reads the tokens, and writes the files by which this
// user's commands find the server.
func (s *server) openAccess(ctx context.Context) error {
	s.nodes = s.secret("node-token")
	node, err := ensureSecret(s.nodes)
	if err != nil {
		return err
	}
	addr := s.listener.Addr().(*net.TCPAddr)
	cfg := access.Config{Local: access.Secret(), Node: node, Open: s.cfg.open, Loopback: s.loopback, Secure: s.tls(), Cookie: "fleetscore-" + strconv.Itoa(addr.Port)}
	if err := durable.WriteFile(s.adminFile(), []byte(cfg.Local+"\n"), 0o600); err != nil {
		return folderError(s.adminFile(), err)
	}
	if s.control, err = access.Open(ctx, cfg, access.Deps{Tokens: s.ledger, Log: s.log}); err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(s.cfg.listen) // bind checked it
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = ""
	}
	switch {
	case s.cfg.tlsSelfSigned:
		s.cert, err = access.SelfSigned(filepath.Join(s.cfg.dir, "secrets"), host, s.log)
	case s.cfg.tlsCert != "":
		s.cert, err = access.OpenCertificate(s.cfg.tlsCert, s.cfg.tlsKey, s.log)
	}
	if err != nil {
		return err
	}
	where := *addr
	if where.IP.IsUnspecified() {
		where.IP = net.IPv4(127, 0, 0, 1)
	}
	local := client.Local{URL: s.url, TokenFile: s.adminFile(), CAFile: s.caFile(), ServerName: s.serverName(), PID: os.Getpid()}
	if s.left, err = client.LeaveLocal(where.String(), local); err != nil {
		s.log.Warn("commands of this user can't find the server by themselves; they need --token-file", "file", s.adminFile(), "error", err)
	}
	return nil
}

// ours are the folders in --dir that the server always fills.
var ours = []string{"secrets", "hub", "spool"}

// makePrivate makes the server's folder readable only by the user who runs the server.
// The rights of a folder that contains other files too, or belongs to another user,
// aren't changed; the files that the server puts there are private in any case.
func (s *server) makePrivate() error {
	dir := s.cfg.dir
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return folderError(dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return folderError(dir, err)
	}
	st, err := os.Stat(dir)
	if err != nil {
		return folderError(dir, err)
	}
	_, notYet := os.Stat(filepath.Join(dir, "ledger.db"))
	if shared := st.Mode()&(os.ModeSticky|os.ModeSetgid) != 0; !shared && st.Mode().Perm()&0o077 != 0 && (len(entries) == 0 || notYet == nil) {
		if err := os.Chmod(dir, 0o700); err != nil {
			s.log.Warn("other users can look into the server's folder", "dir", dir, "error", err)
		}
	}
	for _, name := range ours {
		sub := filepath.Join(dir, name)
		if err := durable.MkdirAll(sub, 0o700); err != nil {
			return folderError(sub, err)
		}
		if err := os.Chmod(sub, 0o700); err != nil {
			return folderError(sub, err)
		}
	}
	return nil
}

// maxConnections is how many connections may be open at once. It leaves a share of the
// process's open files for other uses.
func (s *server) maxConnections() int {
	if s.cfg.maxConnections > 0 {
		return s.cfg.maxConnections
	}
	const most, least = 8192, 16
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return least
	}
	return int(max(min(limit.Cur/2, most), least))
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
	secret := access.Secret()
	if err := durable.WriteFile(file, []byte(secret), 0o600); err != nil {
		return "", folderError(file, err)
	}
	return secret, nil
}
