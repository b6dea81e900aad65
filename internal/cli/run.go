package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/backup"
	"github.com/fleetscore/fleetscore/internal/broker"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/fleet/syncer"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/logs"
	"github.com/fleetscore/fleetscore/internal/node"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/scheduler"
	"github.com/fleetscore/fleetscore/internal/store"
)

// addServerFlags gives a command the flags of a server.
func addServerFlags(cmd *cobra.Command, cfg *serverConfig, dir string) {
	cmd.Flags().StringVar(&cfg.dir, "dir", dir, "folder for all data; made if absent")
	cmd.Flags().StringVar(&cfg.ledgerFile, "ledger-url-file", "", "file with the address of a PostgreSQL database for the ledger, postgres://USER:PASSWORD@HOST:PORT/DATABASE; the variable FLEETSCORE_LEDGER_URL may hold the address itself (default: a file in --dir)")
	cmd.Flags().BoolVar(&cfg.standby, "standby", false, "wait while another server leads the same PostgreSQL ledger, and take over when it ends; needs a cloud's store, and no queries")
	cmd.Flags().StringVar(&cfg.store, "store", "", "where data, models, predictions and logs lie: a folder, s3://, azblob:// or gs:// (default: what fleet.yaml says, else store in --dir)")
	cmd.Flags().StringArrayVar(&cfg.modelRoots, "models-root", nil, "a folder of this machine that fleets may read models from, with all that lies in it; may be given several times")
	cmd.Flags().StringArrayVar(&cfg.commands, "commands", nil, "a folder of this machine whose programs the pools of provider exec may run as this user; may be given several times")
	cmd.Flags().StringVar(&cfg.listen, "listen", client.DefaultAddress, "address for API and portal; port 0 picks a free one")
	cmd.Flags().StringVar(&cfg.tlsCert, "tls-cert", "", "file with the server's certificate, followed by the certificates of the authorities that issued it, in PEM; read again when it changes")
	cmd.Flags().StringVar(&cfg.tlsKey, "tls-key", "", "file with the certificate's key, in PEM")
	cmd.Flags().BoolVar(&cfg.tlsSelfSigned, "tls-self-signed", false, "speak TLS with a certificate that the server makes itself, once, in secrets in --dir")
	cmd.Flags().BoolVar(&cfg.open, "open", false, "let every user and program of this machine do everything, without a token; only on loopback")
	cmd.Flags().BoolVar(&cfg.insecureHTTP, "insecure-http", false, "speak plain HTTP beyond this machine, as behind a proxy that speaks TLS: whoever can read the network's traffic reads tokens")
	cmd.Flags().IntVar(&cfg.maxConnections, "max-connections", 0, "most connections at once (default: half the files that the process may open, at most 8192)")
}

func newServeCommand() *cobra.Command {
	var cfg serverConfig
	cmd := &cobra.Command{
		Use:     "serve",
		Short:   "Run the server with the configuration applied last",
		Example: "  fleetscore serve --dir fleetscore-data",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := openServer(cmd.Context(), cfg, logger(cmd))
			if err != nil {
				return err
			}
			return s.run(cmd.Context(), s.announce(cmd.ErrOrStderr(), false))
		},
	}
	addServerFlags(cmd, &cfg, "fleetscore-data")
	return cmd
}

func newUpCommand() *cobra.Command {
	var cfg serverConfig
	cmd := &cobra.Command{
		Use:     "up FILE",
		Short:   "Apply fleet.yaml and run everything in one process tree",
		Example: "  fleetscore up fleet.yaml --dir fleetscore-data",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, parsed, text, err := readConfig(args[0])
			if err != nil {
				return err
			}
			if cfg.store == "" {
				cfg.store = parsed.Store
			}
			cfg.modelRoots = append(cfg.modelRoots, localFolders(parsed)...)
			cfg.commands = append(cfg.commands, commandFolders(parsed)...)
			s, err := openServer(cmd.Context(), cfg, logger(cmd))
			if err != nil {
				return err
			}
			if err := s.apply(cmd.Context(), parsed, text); err != nil {
				s.close()
				return err
			}
			return s.run(cmd.Context(), s.announce(cmd.ErrOrStderr(), true))
		},
	}
	addServerFlags(cmd, &cfg, "fleetscore-data")
	return cmd
}

// ledgerVariable holds the address of a PostgreSQL ledger, as an alternative to a file.
const ledgerVariable = "FLEETSCORE_LEDGER_URL"

// readLedgerURL reads the address of a PostgreSQL ledger, a secret, from a file, or if
// none is named, from the variable; empty if none was given.
func readLedgerURL(file string) (string, error) {
	address := os.Getenv(ledgerVariable)
	if file == "" {
		return address, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fleetscore.Errorf(fleetscore.Invalid, "open ledger", file, "%w", err).
			WithHint("--ledger-url-file names a file with the address of the database, postgres://USER:PASSWORD@HOST:PORT/DATABASE")
	}
	if address = strings.TrimSpace(string(text)); address == "" {
		return "", fleetscore.Errorf(fleetscore.Invalid, "open ledger", file, "the file is empty").
			WithHint("write the address of the database into it: postgres://USER:PASSWORD@HOST:PORT/DATABASE")
	}
	return address, nil
}

// openLedger opens the ledger, in a database if its address was given, and waits until
// this server leads. It does nothing if the ledger is open.
func (s *server) openLedger(ctx context.Context) error {
	const op = "open ledger"
	if s.ledger != nil {
		return nil
	}
	if err := backup.Unfinished(s.cfg.dir); err != nil {
		return err
	}
	if err := s.makePrivate(); err != nil {
		return err
	}
	file, marker := filepath.Join(s.cfg.dir, "ledger.db"), filepath.Join(s.cfg.dir, ledgerMarker)
	address, err := readLedgerURL(s.cfg.ledgerFile)
	if err != nil {
		return err
	}
	if address == "" {
		if s.cfg.standby {
			return fleetscore.Errorf(fleetscore.Invalid, op, "--standby", "servers can only share a ledger that lies in a PostgreSQL database").
				WithHint("name the file with its address: --ledger-url-file FILE")
		}
		if err := inDatabase(op, s.cfg.dir); err != nil {
			return err
		}
		l, err := ledger.Open(ctx, file)
		if err == nil {
			s.ledger = l
		}
		return err
	}
	if _, err := os.Stat(file); err == nil {
		return fleetscore.Errorf(fleetscore.Conflict, op, s.cfg.dir, "the folder has a ledger of its own, ledger.db").
			WithHint("start without the database's address, or with another --dir; to move the ledger: fleetscore backup, then fleetscore restore with the database's address")
	}
	lock, err := ledger.Lock(file)
	if err != nil {
		return err
	}
	s.folder = lock
	p, err := ledger.OpenPostgres(ctx, ledger.PostgresConfig{URL: address})
	if err != nil {
		return err
	}
	s.ledger, s.postgres = p, p
	if err := s.lead(ctx); err != nil {
		return err
	}
	if err := durable.WriteFile(marker, []byte(p.String()+"\n"), 0o600); err != nil {
		return folderError(marker, err)
	}
	return nil
}

// ledgerMarker is a file that says that the folder's ledger is in a database.
const ledgerMarker = "ledger.postgres"

// inDatabase refuses a folder whose ledger is in a database, where the address is missing.
func inDatabase(op, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, ledgerMarker)); err != nil {
		return nil
	}
	return fleetscore.Errorf(fleetscore.Conflict, op, dir, "the folder belongs to a ledger in a PostgreSQL database").
		WithHint("give the database's address with --ledger-url-file or %s, or use another --dir", ledgerVariable)
}

// lead waits until this server leads. A standby is judged before, when somebody sees
// it, and after, as the configuration may have changed.
func (s *server) lead(ctx context.Context) error {
	cfg, _, err := s.applied(ctx)
	if err == nil {
		err = s.checkStandby(cfg)
	}
	if err != nil {
		return err
	}
	patience := ledger.Patience
	if s.cfg.standby {
		patience = 0
	}
	if err := s.postgres.Lead(ctx, patience, s.log); err != nil {
		return err
	}
	if cfg, _, err = s.applied(ctx); err != nil {
		return err
	}
	return s.checkStandby(cfg)
}

// checkStandby refuses to share a ledger where a part of the data lies with one server
// alone.
func (s *server) checkStandby(cfg fleetscore.Config) error {
	const op = "share the ledger"
	if !s.cfg.standby {
		return nil
	}
	switch at := cmp.Or(s.cfg.store, cfg.Store); {
	case at == "" || store.IsLocal(at):
		return fleetscore.Errorf(fleetscore.Invalid, op, "--standby", "the store is a folder of one server").
			WithHint("name a store that every server reaches: --store s3://…, azblob://… or gs://…; or start one server alone, without --standby")
	case len(cfg.Queries) > 0:
		return fleetscore.Errorf(fleetscore.Invalid, op, "--standby", "the configuration has queries, which read the hub, and the hub lies in the folder of one server").
			WithHint("take the queries out and upload rows (fleetscore dataset upload); or start one server alone, without --standby")
	}
	return nil
}

// storeOf is a name of the store that is the same for all machines.
func (s *server) storeOf(address string) string {
	if !store.IsLocal(address) {
		return s.storeName(address)
	}
	path := strings.TrimPrefix(address, "file://")
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	host, err := os.Hostname()
	if err != nil {
		return path
	}
	return host + ":" + path
}

// apply does the checks that need the server's data, and stores the configuration.
func (s *server) apply(ctx context.Context, cfg fleetscore.Config, text []byte) error {
	warnings, err := s.check(ctx, cfg)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		s.log.Warn("configuration: " + w)
	}
	version, err := s.ledger.PutConfig(ctx, s.clock.Now(), string(text), cfg)
	if err == nil {
		s.log.Info("configuration applied", "version", version)
	}
	return err
}

// announce prints the portal's address once the server answers; with link, an address
// that signs the browser in.
func (s *server) announce(w io.Writer, link bool) lifecycle.Service {
	return lifecycle.Service{Name: "announce", Run: func(ctx context.Context) error {
		in := s.cfg.dir
		if s.storeURL == "" {
			in += " and " + withoutQuery(s.cfg.store)
		}
		if s.postgres != nil {
			in += " and the " + s.postgres.String()
		}
		switch {
		case s.cfg.open:
			fmt.Fprintf(w, "fleetscore: portal at %s, open to every user and program of this machine\n", s.url)
		case link:
			fmt.Fprintf(w, "fleetscore: portal at %s/?token=%s\n            (signs a browser in once, within 15 minutes; 'fleetscore portal' prints another)\n", s.url, s.control.LocalLink())
		default:
			fmt.Fprintf(w, "fleetscore: portal at %s; 'fleetscore portal' prints an address that signs a browser in\n", s.url)
		}
		if s.cert != nil {
			fmt.Fprintf(w, "fleetscore: the certificate's SHA-256 fingerprint is %s\n", s.cert.Fingerprint())
		}
		fmt.Fprintf(w, "fleetscore: API at %s/api/v1, data in %s; Ctrl-C ends it\n", s.url, in)
		<-ctx.Done()
		return nil
	}}
}

func logger(cmd *cobra.Command) *slog.Logger { return obs.NewLogger(cmd.ErrOrStderr()) }

func newNodeCommand() *cobra.Command {
	var hello dispatch.Hello
	var drain time.Duration
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run one node of a pool, or list the nodes",
		Long: `Runs one node: an agent that leases tasks from the server, scores their sensors
and delivers the results. The pool's provider starts nodes; run one by hand to
lend a machine. A token of the role node is read from the file that the variable
FLEETSCORE_NODE_TOKEN_FILE names; the node's name begins with the token's name and
a dot. Ctrl-C or SIGTERM lets the node finish its tasks within --drain-time; a second
one ends it at once.`,
		Example: "  fleetscore token create node lab-3 > lab-3.token\n  FLEETSCORE_NODE_TOKEN_FILE=lab-3.token fleetscore node --pool cpu --slots 2",
		Args:    checkVerb,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file := os.Getenv("FLEETSCORE_NODE_TOKEN_FILE")
			if file == "" {
				return usagef("the variable FLEETSCORE_NODE_TOKEN_FILE names no file: set it to a file that holds a token of the role node (fleetscore token create node NAME); fleetscore node list shows all nodes")
			}
			cfg, err := clientConfig(cmd)
			if err != nil {
				return err
			}
			cfg.TokenFile = file
			c, err := client.New(cfg)
			if err != nil {
				return err
			}
			defer c.Close()
			if hello.Node == "" {
				if hello.Node, err = nodeName(cmd.Context(), c, hello.Pool); err != nil {
					return err
				}
			}
			hello.PID, hello.Version = os.Getpid(), Version
			if hello.Host, err = os.Hostname(); err != nil {
				return err
			}
			log := logger(cmd).With("node", hello.Node)
			n, err := node.New(node.Config{Hello: hello, DrainTime: drain}, node.Deps{Server: c, Log: log,
				OpenStore: func(ctx context.Context, url string) (store.Bucket, error) {
					if url == "" {
						return c.Blobs(), nil
					}
					return store.Open(ctx, url)
				}})
			if err != nil {
				return err
			}
			return n.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&hello.Pool, "pool", "", "the pool it belongs to")
	cmd.Flags().IntVar(&hello.Slots, "slots", 1, "tasks it runs at once")
	cmd.Flags().DurationVar(&drain, "drain-time", 25*time.Second, "how long running tasks may go on after Ctrl-C or SIGTERM; tasks that aren't finished are given back")
	cmd.Flags().StringVar((*string)(&hello.Node), "id", "", "its name; made up if empty")
	cmd.AddCommand(newNodeListCommand())
	return cmd
}

// nodeName makes a name for a node, of a form that the server allows for the token of
// nodes.
func nodeName(ctx context.Context, c *client.Client, pool string) (fleetscore.NodeID, error) {
	var me api.Caller
	if err := c.Get(ctx, "/whoami", nil, &me); err != nil {
		return "", err
	}
	name := pool + "-" + strings.ToLower(rand.Text()[:6])
	if me.Own {
		name = access.NodeName(me.Name, name)
	}
	return fleetscore.NodeID(name), nil
}

// addPlaceFlags are the flags that say where a server keeps its data.
func addPlaceFlags(cmd *cobra.Command, dir, ledgerFile *string) {
	cmd.Flags().StringVar(dir, "dir", "fleetscore-data", "folder of the server's data")
	cmd.Flags().StringVar(ledgerFile, "ledger-url-file", "", "file with the address of a PostgreSQL database, if the ledger is there; or the variable "+ledgerVariable)
}

func newBackupCommand() *cobra.Command {
	var dir, ledgerFile string
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy everything that isn't in the store into one file, while the server runs",
		Long: `Copies everything of a server that isn't in its store into one file: the ledger, the
log of readings, the logs of running attempts, the secrets, and which store it is. The
server may run meanwhile. If FILE is a folder, the file in it is named by the time. Run it
on the server's machine, as the server's user. The file holds secrets: only its owner can
read it, and copies of it need the same care.`,
		Example: "  fleetscore backup /var/backups --dir fleetscore-data",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := place(dir, ledgerFile)
			if err != nil {
				return err
			}
			if from.LedgerURL == "" {
				if err := inDatabase("write backup", dir); err != nil {
					return err
				}
			}
			now, file := time.Now().UTC(), args[0]
			if st, err := os.Stat(file); err == nil && st.IsDir() {
				file = filepath.Join(file, "fleetscore-"+now.Format("20060102T150405Z")+".backup")
			}
			size, err := backup.Write(cmd.Context(), from, file, Version, now)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), file)
			fmt.Fprintf(cmd.ErrOrStderr(), "fleetscore: %d bytes; the store isn't in it\n", size)
			return nil
		},
	}
	addPlaceFlags(cmd, &dir, &ledgerFile)
	return cmd
}

func newRestoreCommand() *cobra.Command {
	var dir, ledgerFile string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a server's folder from a backup",
		Long: `Makes a server's folder from the file that fleetscore backup wrote. The folder has to be
empty or absent. With the address of a PostgreSQL database the ledger is restored there,
whichever kind of ledger the backup was taken from; the database has to be empty. The
whole file is checked before anything is written. The store isn't in the backup: if it
was in the old folder, move or copy it into the new one before the server starts.`,
		Example: "  fleetscore restore /var/backups/fleetscore-20261129T063000Z.backup --dir fleetscore-data",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := place(dir, ledgerFile)
			if err != nil {
				return err
			}
			m, err := backup.Restore(cmd.Context(), args[0], to)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "fleetscore: %s holds what the server had on %s\n", to.Dir, m.Created.Format(time.RFC3339))
			return nil
		},
	}
	addPlaceFlags(cmd, &dir, &ledgerFile)
	return cmd
}

// place is where a server keeps its data.
func place(dir, ledgerFile string) (p backup.Place, err error) {
	if p.Dir, err = filepath.Abs(dir); err == nil {
		p.LedgerURL, err = readLedgerURL(ledgerFile)
	}
	return p, err
}

// work is the services that carry jobs from their due time to their commit. They meet
// in the ledger.
type work struct {
	fleets    *syncer.Syncer
	scheduler *scheduler.Scheduler
	broker    *broker.Broker
	logs      *logs.Logs
}

func (s *server) newWork() (w work, err error) {
	spool := filepath.Join(s.cfg.dir, "spool")
	if w.fleets, err = syncer.New(syncer.Config{ModelRoots: s.roots, TempDir: spool},
		syncer.Deps{Ledger: s.ledger, Store: s.store, Log: s.log, Health: s.health, Now: s.clock.Now, Metrics: s.metrics}); err != nil {
		return w, err
	}
	whyNoFleet := func(name string) error {
		_, err := w.fleets.Status(name)
		return err
	}
	if w.scheduler, err = scheduler.New(scheduler.Deps{Release: Version, Ledger: s.ledger, Store: s.store, Catalog: s.catalog, WhyNoFleet: whyNoFleet,
		Log: s.log, Health: s.health, Now: s.clock.Now, Metrics: s.metrics}); err != nil {
		return w, err
	}
	if w.broker, err = broker.New(broker.Config{StoreURL: s.storeURL},
		broker.Deps{Ledger: s.ledger, Examine: s.catalog.Examine, Log: s.log, Health: s.health, Now: s.clock.Now, Metrics: s.metrics}); err != nil {
		return w, err
	}
	w.logs, err = logs.New(logs.Config{SpoolDir: spool},
		logs.Deps{Ledger: s.ledger, Store: s.store, Log: s.log, Health: s.health, Now: s.clock.Now, Metrics: s.metrics})
	return w, err
}

const maintainEvery = 10 * time.Minute

// maintain keeps the tables, the logs and the ledger small, in regular rounds.
func (s *server) maintain(ctx context.Context, sched *scheduler.Scheduler) error {
	ticker := time.NewTicker(maintainEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if !s.clock.Trusted() {
			continue // files are deleted by their age; health says why the clock isn't trusted
		}
		done, err := sched.Maintain(ctx, "")
		if ctx.Err() != nil {
			return ctx.Err()
		}
		problem := ""
		if err != nil {
			problem = err.Error()
			s.log.Error("tables, logs or the ledger can't be maintained", "error", err)
		}
		s.health.Report("maintenance", problem)
		for _, m := range done {
			if m.Problem != "" {
				s.log.Error("table can't be maintained", "table", m.Table, "error", m.Problem)
			} else if m.Replaced+m.Expired+m.Deleted > 0 {
				s.log.Info("table maintained", "table", m.Table, "files", m.Files, "joined", m.Replaced, "into", m.By, "expired", m.Expired, "deleted", m.Deleted)
			}
		}
	}
}

// pool returns the settings of a pool in the configuration in force.
func (s *server) pool(ctx context.Context, name string) (fleetscore.PoolConfig, error) {
	cfg, _, err := s.applied(ctx)
	if err != nil {
		return fleetscore.PoolConfig{}, err
	}
	p, ok := cfg.Pools[name]
	if !ok {
		return p, fleetscore.Errorf(fleetscore.NotFound, "find pool", name, "the configuration in force has no such pool")
	}
	return p, nil
}

// machineToken makes the token of a machine that a pool's command starts.
func (s *server) machineToken(ctx context.Context, machine string) (string, error) {
	_, text, err := s.control.Create(ctx, fleetscore.RoleNode, machine, time.Time{})
	return text, err
}
