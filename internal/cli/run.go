package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/node"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/store"
)

const defaultListen = "127.0.0.1:7180"

// addServerFlags gives a command the flags of a server.
func addServerFlags(cmd *cobra.Command, cfg *serverConfig, dir string) {
	cmd.Flags().StringVar(&cfg.dir, "dir", dir, "folder for all data; made if absent")
	cmd.Flags().StringVar(&cfg.store, "store", "", "where data, models, predictions and logs lie: a folder, s3://, azblob:// or gs:// (default: what fleet.yaml says, else store in --dir)")
	cmd.Flags().StringArrayVar(&cfg.modelRoots, "models-root", nil, "a folder of this machine that fleets may read models from, with all that lies in it; may be given several times")
	cmd.Flags().StringVar(&cfg.listen, "listen", defaultListen, "address for API and portal; port 0 picks a free one")
	cmd.Flags().StringVar(&cfg.apiTokenFile, "api-token-file", "", "file with a token that API and portal ask for; needed beyond this machine")
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
			return s.run(cmd.Context(), s.announce(cmd.ErrOrStderr()))
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
			s, err := openServer(cmd.Context(), cfg, logger(cmd))
			if err != nil {
				return err
			}
			if err := s.apply(cmd.Context(), parsed, text); err != nil {
				s.close()
				return err
			}
			return s.run(cmd.Context(), s.announce(cmd.ErrOrStderr()))
		},
	}
	addServerFlags(cmd, &cfg, "fleetscore-data")
	return cmd
}

// apply checks what only the server can know and records the configuration.
func (s *server) apply(ctx context.Context, cfg fleetscore.Config, text []byte) error {
	warnings, err := s.check(ctx, cfg)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		s.log.Warn("configuration: " + w)
	}
	version, err := s.ledger.PutConfig(ctx, string(text), cfg)
	if err == nil {
		s.log.Info("configuration applied", "version", version)
	}
	return err
}

// announce tells people where to look, once the server answers.
func (s *server) announce(w io.Writer) lifecycle.Service {
	return lifecycle.Service{Name: "announce", Run: func(ctx context.Context) error {
		in := s.cfg.dir
		if s.storeURL == "" {
			in += " and " + withoutQuery(s.cfg.store)
		}
		fmt.Fprintf(w, "fleetscore: portal at %s, API at %s/api/v1, data in %s; Ctrl-C ends it\n", s.url, s.url, in)
		<-ctx.Done()
		return nil
	}}
}

func logger(cmd *cobra.Command) *slog.Logger { return obs.NewLogger(cmd.ErrOrStderr()) }

func newNodeCommand() *cobra.Command {
	var hello dispatch.Hello
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run one node of a pool, or list the nodes there are",
		Long: `Runs one node: an agent that leases tasks from the server, scores their sensors
and delivers the results. The pool's provider starts nodes; run one by hand to
lend a machine. The server's secrets/node-token is read from the file named by
the variable FLEETSCORE_NODE_TOKEN_FILE.`,
		Example: "  FLEETSCORE_NODE_TOKEN_FILE=fleetscore-data/secrets/node-token fleetscore node --pool cpu --slots 2",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file := os.Getenv("FLEETSCORE_NODE_TOKEN_FILE")
			if file == "" {
				return usagef("the variable FLEETSCORE_NODE_TOKEN_FILE names no file: set it to the server's secrets/node-token")
			}
			url, err := cmd.Flags().GetString("server")
			if err != nil {
				return err
			}
			c, err := client.New(client.Config{Server: url, TokenFile: file})
			if err != nil {
				return err
			}
			defer c.Close()
			if hello.Node == "" {
				hello.Node = fleetscore.NodeID(hello.Pool + "-" + strings.ToLower(rand.Text()[:6]))
			}
			hello.PID, hello.Version = os.Getpid(), Version
			if hello.Host, err = os.Hostname(); err != nil {
				return err
			}
			log := logger(cmd).With("node", hello.Node)
			n, err := node.New(node.Config{Hello: hello}, node.Deps{Server: c, Log: log,
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
	cmd.Flags().StringVar((*string)(&hello.Node), "id", "", "its name; made up if empty")
	cmd.AddCommand(newNodeListCommand())
	return cmd
}
