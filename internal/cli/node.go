package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/node"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/alone"
	"github.com/fleetscore/fleetscore/internal/store"
)

// newNodeCommand makes the command of nodes that score by a runtime.
func newNodeCommand(runtime scorer.Runtime) *cobra.Command {
	var hello dispatch.Hello
	var drain time.Duration
	var interpreter string
	var commands []string
	var credential string
	var low bool
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run one node of a pool, or list the nodes",
		Long: `Runs one node: an agent that leases tasks from the server, scores their sensors
and delivers the results. The pool's provider starts nodes; run one by hand to
lend a machine. The variable FLEETSCORE_NODE_TOKEN_FILE names a file with a token:
a one-time token of "pool join-token", or one of the role node. A client certificate of
the role node does too (--client-cert).

With a one-time token, the node joins the pool and keeps a credential of its own in
the file --credential, readable by this user only. From then on the one-time token isn't
needed: the same command, also after a restart of the machine, uses the credential.

Ctrl-C or SIGTERM lets the node finish its tasks within --drain-time; a second one
ends it at once.`,
		Example: "  fleetscore pool join-token lab > lab.token\n  FLEETSCORE_NODE_TOKEN_FILE=lab.token fleetscore node --slots 2",
		Args:    checkVerb,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := dialAsNode(cmd, &hello, credential)
			if err != nil {
				return err
			}
			defer c.Close()
			if low {
				hello.Kind = fleetscore.LowPriority
			}
			hello.PID, hello.Version = os.Getpid(), Version
			if hello.Host, err = os.Hostname(); err != nil {
				return err
			}
			output := &node.Output{}
			log := slog.New(slog.NewMultiHandler(logger(cmd).Handler(), slog.NewTextHandler(output, nil))).With("node", hello.Node)
			n, err := node.New(node.Config{Hello: hello, DrainTime: drain, Commands: foldersOf(commands)}, node.Deps{Server: c, Log: log, Output: output, Measure: node.NewMeter(time.Now()).Measure, Runtime: runtime, Python: interpreter,
				Alone: func(l alone.Limits) scorer.Runtime { return alone.New(alone.Config{Command: scoreAlone, Limits: l}) },
				Stuck: func(fleetscore.TaskID) { os.Exit(exitFailed) }, // nothing else ends a model that never ends
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
	cmd.Flags().StringVar(&hello.Pool, "pool", "", "the pool it belongs to; not needed with a one-time token")
	cmd.Flags().StringVar(&credential, "credential", "", "file for the node's own credential, once it has joined by a one-time token (default: the token's file with .node at the end)")
	cmd.Flags().IntVar(&hello.Slots, "slots", 1, "tasks it runs at once")
	cmd.Flags().StringVar(&interpreter, "python", "", pythonFlagText)
	cmd.Flags().DurationVar(&drain, "drain-time", 25*time.Second, "how long running tasks may go on after Ctrl-C or SIGTERM; tasks that aren't finished are given back")
	cmd.Flags().BoolVar(&low, "low-priority", false, "the machine may be taken away at any time")
	cmd.Flags().StringArrayVar(&commands, "commands", nil, "a folder of this machine whose programs the pool may run as this user to prepare the node; may be given several times")
	cmd.Flags().StringVar((*string)(&hello.Node), "id", "", "its name; made up if empty")
	cmd.AddCommand(newNodeListCommand(), newNodeLogsCommand(), newNodeRemoveCommand(), newScoreAloneCommand(runtime))
	return cmd
}

// newScoreAloneCommand makes the command of the process in which a node scores models that
// may take their process down.
func newScoreAloneCommand(runtime scorer.Runtime) *cobra.Command {
	return &cobra.Command{
		Use:     "score-alone",
		Hidden:  true,
		Short:   "Score models that may take their process down; nodes start it",
		Example: "  fleetscore node score-alone < messages",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return alone.Serve(cmd.InOrStdin(), cmd.OutOrStdout(), runtime)
		},
	}
}

// scoreAlone makes that process. It needs nothing of what the node may do.
func scoreAlone() (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fleetscore.Wrap("find this program", "", err)
	}
	cmd := exec.Command(program, "node", "score-alone")
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return slices.ContainsFunc([]string{"FLEETSCORE_NODE_", "AWS_", "AZURE_", "GOOGLE_"}, func(p string) bool { return strings.HasPrefix(v, p) })
	})
	return cmd, nil
}

// untilAnswered asks the server again for as long as it doesn't answer, at most for
// node.AwayLimit: a machine may come up while the server is being restarted.
func untilAnswered(ctx context.Context, log *slog.Logger, ask func() error) error {
	begun, pause := time.Now(), 100*time.Millisecond
	for n := 1; ; n++ {
		err := ask()
		if err == nil || !fleetscore.KindOf(err).Retryable() || ctx.Err() != nil || time.Since(begun) > node.AwayLimit {
			return err
		}
		log.Warn("the server doesn't answer and is asked again", "for", time.Since(begun).Round(time.Second), "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause/2 + time.Duration(clock.Spread(strconv.Itoa(os.Getpid()), n)*float64(pause))):
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// dialAsNode reaches the server with the token of a node, and says in hello which node of
// which pool it is. With a one-time token, the node joins first.
func dialAsNode(cmd *cobra.Command, hello *dispatch.Hello, credential string) (*client.Client, error) {
	file := os.Getenv("FLEETSCORE_NODE_TOKEN_FILE")
	if credential == "" && file != "" {
		credential = file + ".node"
	}
	cfg, err := clientConfig(cmd)
	if err != nil {
		return nil, err
	}
	have, err := exists(credential)
	if err != nil {
		return nil, err
	}
	switch {
	case have:
		cfg.TokenFile = credential
	case file != "":
		cfg.TokenFile = file
	case cfg.CertFile == "":
		return nil, usagef("the variable FLEETSCORE_NODE_TOKEN_FILE names no file: set it to a file that holds a one-time token (fleetscore pool join-token POOL) or a token of the role node (fleetscore token create node NAME), or give a client certificate with --client-cert; fleetscore node list shows all nodes")
	}
	c, err := client.New(cfg)
	if err != nil {
		return nil, err
	}
	ask := func(c *client.Client) (me api.Caller, err error) {
		err = untilAnswered(cmd.Context(), logger(cmd), func() error {
			me, err = callerOf(cmd.Context(), c)
			return err
		})
		return me, err
	}
	me, err := ask(c)
	if err == nil && me.Role == fleetscore.RoleJoin {
		err = untilAnswered(cmd.Context(), logger(cmd), func() error { return join(cmd.Context(), c, credential) })
		c.Close()
		if err != nil {
			return nil, err
		}
		cfg.TokenFile = credential
		if c, err = client.New(cfg); err != nil {
			return nil, err
		}
		me, err = ask(c)
	}
	if err != nil {
		c.Close()
		if have && fleetscore.Invalid.Is(err) {
			err = fleetscore.Errorf(fleetscore.Invalid, "use the node's credential", credential, "%w", err).
				WithHint("if the node was removed, delete this file and join again by a new token: fleetscore pool join-token POOL")
		}
		return nil, err
	}
	switch {
	case me.Node != "": // the credential is for one node
		hello.Node = me.Node
		if hello.Pool == "" {
			hello.Pool = me.Pool
		}
	case hello.Node == "":
		hello.Node = nodeName(me, hello.Pool)
	}
	return c, nil
}

func exists(file string) (bool, error) {
	if file == "" {
		return false, nil
	}
	_, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func callerOf(ctx context.Context, c *client.Client) (me api.Caller, err error) {
	return me, c.Get(ctx, "/whoami", nil, &me)
}

// join exchanges the client's one-time token for a credential, and keeps that in a file.
// The credential is on disk before the server hears of it: if this process ends in between,
// or the answer is lost, the next try goes on with the same one.
func join(ctx context.Context, c *client.Client, file string) error {
	const op = "join pool"
	made := file + ".new"
	text, err := os.ReadFile(made)
	if errors.Is(err, fs.ErrNotExist) {
		secret, _, _ := access.Credential()
		text = []byte(secret + "\n")
		err = durable.WriteFile(made, text, 0o600)
	}
	if err != nil {
		return fleetscore.Wrap(op, made, err)
	}
	id, hash, ok := access.CredentialOf(strings.TrimSpace(string(text)))
	if !ok {
		return fleetscore.Errorf(fleetscore.Corrupt, op, made, "it holds no credential").WithHint("delete it, and join by a new one-time token")
	}
	host, _ := os.Hostname() // for display only
	var joined api.Joined
	if err := c.Post(ctx, "/nodes/join", api.Join{Host: host, ID: id, Hash: hex.EncodeToString(hash[:])}, &joined); err != nil {
		return err
	}
	if err := durable.WriteFile(file, text, 0o600); err != nil {
		return fleetscore.Wrap(op, file, err)
	}
	return fleetscore.Wrap(op, made, os.Remove(made))
}

// nodeName makes a name for a node, of a form that the server allows for the token of
// nodes.
func nodeName(me api.Caller, pool string) fleetscore.NodeID {
	return fleetscore.NodeID(me.NodePrefix + pool + "-" + strings.ToLower(rand.Text()[:6]))
}

// foldersOf takes lists of folders apart, as a variable of the environment holds them.
func foldersOf(lists []string) (out []string) {
	for _, l := range lists {
		out = append(out, filepath.SplitList(l)...)
	}
	return out
}

func newNodeListCommand() *cobra.Command {
	return remote(&cobra.Command{Use: "list", Short: "List the nodes", Example: "  fleetscore node list", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
			var got api.List[fleetscore.Node]
			if err := c.Get(ctx, "/nodes", nil, &got); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"node", "pool", "state", "slots", "running", "kind", "host", "pid", "started", "heartbeat", "load", "reason"}}
			for _, n := range got.Items {
				l.add(n, string(n.ID), n.Pool, string(n.State), n.Slots, n.Running, string(n.Kind), n.Host, n.PID, n.Started, n.Heartbeat, n.Load.String(), n.Reason)
			}
			return l, nil
		})
}

func newNodeRemoveCommand() *cobra.Command {
	return &cobra.Command{Use: "remove NODE", Short: "End a node that has joined by a one-time token, and its credential",
		Long: `Ends a node that has joined by a one-time token: its credential is refused from now on,
its tasks are queued again, and its agent ends when it notices. To lend the machine again,
delete the file with its credential and join by a new one-time token.`,
		Example: "  fleetscore node remove lab-3m4k2p6q.press", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Send(cmd.Context(), http.MethodDelete, "/nodes/"+url.PathEscape(args[0]), nil, "", nil, nil); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "node %s and its credential are refused from now on\n", args[0])
			return nil
		}}
}
