package cli

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	examplefleet "github.com/fleetscore/fleetscore/examples/fleet"
	"github.com/fleetscore/fleetscore/internal/backup"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/config"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/server"
	"github.com/fleetscore/fleetscore/internal/simulator"
	"github.com/fleetscore/fleetscore/internal/table"
)

// addServerFlags gives a command the flags of a server.
func addServerFlags(cmd *cobra.Command, cfg *server.Config, dir string) {
	cmd.Flags().StringVar(&cfg.Dir, "dir", dir, "folder for all data; made if absent")
	cmd.Flags().StringVar(&cfg.LedgerFile, "ledger-url-file", "", "file with the address of a PostgreSQL database for the ledger, postgres://USER:PASSWORD@HOST:PORT/DATABASE; the variable FLEETSCORE_LEDGER_URL may hold the address itself (default: a file in --dir)")
	cmd.Flags().BoolVar(&cfg.Shared, "shared", false, "be one of several servers that share a PostgreSQL ledger, a hub and a cloud's store: each takes requests, readings and nodes, one of them leads (docs/servers.md)")
	cmd.Flags().StringVar(&cfg.Name, "name", "", "name of this server among several, which it keeps when it starts again (default: the machine's name and the port)")
	cmd.Flags().StringVar(&cfg.Advertise, "advertise", "", "addresses by which nodes on other machines reach the servers, or the one of a load balancer, separated by commas (default: where this server listens)")
	cmd.Flags().StringVar(&cfg.Store, "store", "", "where data, models, predictions and logs lie: a folder, s3://, azblob:// or gs:// (default: what fleet.yaml says, else store in --dir)")
	cmd.Flags().StringArrayVar(&cfg.ModelRoots, "models-root", nil, "a folder of this machine that fleets may read models from, and pipelines their code, with all that lies in it; may be given several times")
	cmd.Flags().StringArrayVar(&cfg.MountRoots, "mount-root", nil, mountRootFlagText)
	cmd.Flags().StringArrayVar(&cfg.SecretRoots, "secret-root", nil, "a folder of this machine with files of passwords, keys and certificates that the hub's settings may name, besides secrets/hub in --dir; may be given several times")
	cmd.Flags().StringArrayVar(&cfg.Commands, "commands", nil, "a folder of this machine whose programs the pools of provider exec may run as this user; may be given several times")
	cmd.Flags().StringVar(&cfg.Python, "python", "", pythonFlagText)
	cmd.Flags().StringVar(&cfg.Environments, "environments", "", environmentsFlagText)
	cmd.Flags().StringVar(&cfg.Docker, "docker", "", "address of a Docker engine, such as unix:///var/run/docker.sock, in which pools of provider docker may run containers; whoever may apply configurations can then run any image there")
	cmd.Flags().StringVar(&cfg.DockerConfig, "docker-config", "", "file with names and passwords of other registries, as docker login writes it (config.json), for pulling the images of pools; it is read for each pull")
	cmd.Flags().StringVar(&cfg.Isolation, "isolation", "", isolationFlagText)
	cmd.Flags().StringVar(&cfg.Listen, "listen", client.DefaultAddress, "address for API and portal; port 0 picks a free one")
	cmd.Flags().StringVar(&cfg.TLSCert, "tls-cert", "", "file with the server's certificate, followed by the certificates of the authorities that issued it, in PEM; read again when it changes")
	cmd.Flags().StringVar(&cfg.TLSKey, "tls-key", "", "file with the certificate's key, in PEM")
	cmd.Flags().BoolVar(&cfg.TLSSelfSigned, "tls-self-signed", false, "speak TLS with a certificate that the server makes itself, once, in secrets in --dir")
	cmd.Flags().StringVar(&cfg.ClientCA, "tls-client-ca", "", "file with the authorities that issue client certificates, in PEM; which role a certificate has is said under access.certificates in fleet.yaml; read again when it changes")
	cmd.Flags().BoolVar(&cfg.ClientCertRequired, "tls-client-required", false, "accept tokens and sessions only beside a client certificate; this user's own commands on this machine, and the server's own nodes, need none")
	cmd.Flags().StringVar(&cfg.SignInSecretFile, "sign-in-secret-file", "", "file with this server's secret at the OpenID provider of access.sign_in in fleet.yaml, read again each time; the variable "+server.SignInVariable+" may hold the secret itself")
	cmd.Flags().BoolVar(&cfg.Open, "open", false, "let every user and program of this machine do everything, without a token; only on loopback")
	cmd.Flags().BoolVar(&cfg.InsecureHTTP, "insecure-http", false, "speak plain HTTP beyond this machine, as behind a proxy that speaks TLS: whoever can read the network's traffic reads tokens")
	cmd.Flags().StringVar(&cfg.NFSListen, "nfs-listen", "", "address where parts of the store can be read as files over NFS version 3, such as 127.0.0.1:2049; it asks for no password (default: nowhere)")
	cmd.Flags().StringArrayVar(&cfg.NFSAreas, "nfs-area", nil, "a part of the store that --nfs-listen exports: models, predictions, data, logs, or a folder in one; may be given several times (default: models)")
	cmd.Flags().BoolVar(&cfg.InsecureNFS, "insecure-nfs", false, "export files over NFS beyond this machine: whoever reaches the address can read them")
	cmd.Flags().IntVar(&cfg.MaxConnections, "max-connections", 0, "most connections at once (default: all but 8192 of the files that the process may open, at least half of them, at most 16384)")
}

func newServeCommand() *cobra.Command {
	cfg := server.Config{Version: Version}
	cmd := &cobra.Command{
		Use:     "serve",
		Short:   "Run the server with the configuration applied last",
		Example: "  fleetscore serve --dir fleetscore-data",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := server.Open(cmd.Context(), cfg, logger(cmd))
			if err != nil {
				return err
			}
			return s.Run(cmd.Context(), s.Announce(cmd.ErrOrStderr(), false))
		},
	}
	addServerFlags(cmd, &cfg, "fleetscore-data")
	return cmd
}

func newUpCommand() *cobra.Command {
	cfg := server.Config{Version: Version}
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
			if cfg.Store == "" {
				cfg.Store = parsed.Store
			}
			cfg.ModelRoots = append(cfg.ModelRoots, localFolders(parsed)...)
			cfg.Commands = append(cfg.Commands, commandFolders(parsed)...)
			cfg.MountRoots = append(cfg.MountRoots, mountFolders(parsed)...)
			for _, f := range config.Files(parsed.Hub) {
				cfg.SecretRoots = append(cfg.SecretRoots, f.Path)
			}
			s, err := server.Open(cmd.Context(), cfg, logger(cmd))
			if err != nil {
				return err
			}
			if err := s.Apply(cmd.Context(), parsed, text); err != nil {
				s.Close()
				return err
			}
			return s.Run(cmd.Context(), s.Announce(cmd.ErrOrStderr(), true))
		},
	}
	addServerFlags(cmd, &cfg, "fleetscore-data")
	return cmd
}

// addPlaceFlags are the flags that say where a server keeps its data.
func addPlaceFlags(cmd *cobra.Command, dir, ledgerFile *string) {
	cmd.Flags().StringVar(dir, "dir", "fleetscore-data", "folder of the server's data")
	cmd.Flags().StringVar(ledgerFile, "ledger-url-file", "", "file with the address of a PostgreSQL database, if the ledger is there; or the variable "+server.LedgerVariable)
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
				if err := server.InDatabase("write backup", dir); err != nil {
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
		p.LedgerURL, err = server.ReadLedgerURL(ledgerFile)
	}
	return p, err
}

func logger(cmd *cobra.Command) *slog.Logger { return obs.NewLogger(cmd.ErrOrStderr()) }

func newDemoCommand() *cobra.Command {
	cfg := server.Config{Version: Version}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run everything with simulated devices",
		Long: `Runs the server with the example fleet and a simulator that sends readings with
injected faults: ten minutes of history at once, then live. A job a minute scores
them; what it finds is printed beside what was injected. Data stays in the
folder: a second start continues where the first one was.`,
		Example: "  fleetscore demo --dir .demo",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.ModelRoots = append(cfg.ModelRoots, filepath.Join(cfg.Dir, "fleet"))
			s, err := server.Open(cmd.Context(), cfg, logger(cmd))
			if err != nil {
				return err
			}
			if err := applyExample(cmd.Context(), s); err != nil {
				s.Close()
				return err
			}
			return s.Run(cmd.Context(), s.Announce(cmd.ErrOrStderr(), true),
				lifecycle.Service{Name: "simulator", Run: func(ctx context.Context) error { return simulate(ctx, s, cmd.ErrOrStderr()) }},
				lifecycle.Service{Name: "first job", Run: func(ctx context.Context) error { return firstJob(ctx, s) }},
				lifecycle.Service{Name: "report", Run: func(ctx context.Context) error { return report(ctx, s, cmd.OutOrStdout()) }})
		},
	}
	addServerFlags(cmd, &cfg, ".demo")
	return cmd
}

// applyExample puts the example fleet beside the data and applies it.
func applyExample(ctx context.Context, s *server.Server) error {
	dir := filepath.Join(s.Dir(), "fleet")
	err := fs.WalkDir(examplefleet.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := examplefleet.Files.ReadFile(name)
		if err != nil {
			return err
		}
		target := filepath.Join(dir, filepath.FromSlash(name))
		if have, err := os.ReadFile(target); err == nil && string(have) == string(data) {
			return nil // a rewritten file would count as a changed model
		}
		if err := durable.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return server.FolderError(filepath.Dir(target), err)
		}
		return durable.WriteFile(target, data, 0o644)
	})
	if err != nil {
		return err
	}
	_, cfg, text, err := readConfig(filepath.Join(dir, "fleet.yaml"))
	if err != nil {
		return err
	}
	return s.Apply(ctx, cfg, text)
}

// report prints a line for each job that ends.
func report(ctx context.Context, s *server.Server, w io.Writer) error {
	changes, stop := s.Ledger.Watch(ledger.AnyJobs)
	defer stop()
	told := map[fleetscore.JobID]bool{}
	begun := time.Now()
	for {
		jobs, err := s.Ledger.Jobs(ctx, ledger.JobFilter{Limit: 10})
		if err != nil && ctx.Err() == nil {
			return err
		}
		for i := len(jobs) - 1; i >= 0; i-- {
			j := jobs[i]
			if !j.State.Ended() || told[j.ID] || j.Ended.Before(begun) {
				continue
			}
			told[j.ID] = true
			line := fmt.Sprintf("%s  %s  %s – %s: %s, %s, %s", stamp(*j.Ended), j.State, j.Interval.From.Format("15:04"), j.Interval.To.Format("15:04"),
				plural(int(j.Expected), "sensor"), plural(int(j.Rows), "row"), count(int(j.Anomalies), "anomaly", "anomalies"))
			if injected, found, err := truth(ctx, s, j); err == nil {
				line += fmt.Sprintf("; %s had an injected fault, and %s of these got flagged", plural(int(injected), "row"), thousands(found))
			} else if ctx.Err() == nil {
				return err
			}
			fmt.Fprintf(w, "%s  %s/jobs/%s\n", line, s.URL, j.ID)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
		}
	}
}

// truth compares a job's predictions with the simulator's label.
func truth(ctx context.Context, s *server.Server, j fleetscore.Job) (injected, found int64, err error) {
	d := s.Catalog.Predictions(j.Pipeline)
	snap, err := d.Snapshot(ctx)
	if err != nil {
		return 0, 0, err
	}
	rows, err := d.ReadPredictions(ctx, snap.Files, table.ReadQuery{Interval: &j.Interval})
	if err != nil {
		return 0, 0, err
	}
	for i, fault := range rows.Column(simulator.FaultName) {
		if fault > 0 {
			injected++
			if rows.Prediction[i] == 1 {
				found++
			}
		}
	}
	return injected, found, nil
}

// The history that a first start sends, and the most that a later one does.
const (
	firstHistory = 10 * time.Minute
	mostHistory  = time.Hour
)

// simulate sends readings. It begins after the last reading that an earlier start
// stored in the hub.
func simulate(ctx context.Context, s *server.Server, progress io.Writer) error {
	from, err := unseen(ctx, s)
	if err != nil {
		return err
	}
	c, err := s.Client("demo")
	if err != nil {
		return err
	}
	defer c.Close()
	sim := &simulation{cfg: simulator.Config{}.Defaults()}
	_, err = sim.send(ctx, overHTTP(c, "hub"), progress, from)
	return err
}

// unseen is the time after which the hub's readings aren't complete: the watermark
// once the query has read the log to its end.
func unseen(ctx context.Context, s *server.Server) (time.Time, error) {
	for {
		st, caughtUp := s.CaughtUp(ctx)
		now := time.Now()
		if caughtUp {
			from := now.Add(-firstHistory)
			if w := st.Partitions[0].Watermark; w != 0 { // the example fleet's hub has one partition
				from = w.Time()
			}
			if earliest := now.Add(-mostHistory); from.Before(earliest) {
				from = earliest
			}
			return from, nil
		}
		select {
		case <-ctx.Done():
			return now, ctx.Err()
		case <-time.After(20 * time.Millisecond): // for the query
		}
	}
}

// firstJob submits a job over the history as soon as it is aggregated, so that
// the user needn't wait for the schedule's first minute. Later starts don't need such a
// job.
func firstJob(ctx context.Context, s *server.Server) error {
	defer func() { <-ctx.Done() }() // all services end when one of them ends
	jobs, err := s.Ledger.Jobs(ctx, ledger.JobFilter{Limit: 1})
	if err != nil || len(jobs) > 0 {
		return err
	}
	c, err := s.Client("demo")
	if err != nil {
		return err
	}
	defer c.Close()
	for ctx.Err() == nil {
		err := c.Post(ctx, "/jobs", map[string]string{"pipeline": "anomalies"}, nil)
		if err == nil || !fleetscore.Conflict.Is(err) && !fleetscore.KindOf(err).Retryable() {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond): // for rows
		}
	}
	return nil
}
