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
	"github.com/fleetscore/fleetscore/internal/node/cache"
	"github.com/fleetscore/fleetscore/internal/sandbox"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/alone"
	"github.com/fleetscore/fleetscore/internal/store"
)

// newNodeCommand makes the command of nodes that score by a runtime.
func newNodeCommand(runtime scorer.Runtime) *cobra.Command {
	var hello dispatch.Hello
	var drain, low = time.Duration(0), false
	var interpreter, environments, isolation, credential, workDir string
	var commands, mountRoots []string
	blobs := cache.Lazy{Now: time.Now}
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
			if err := blobs.Check(); err != nil {
				return usagef("--cache-size %s", err)
			}
			isolate, err := sandboxOf(isolation)
			if err != nil {
				return err
			}
			c, err := dialAsNode(cmd, &hello, credential)
			if err != nil {
				return err
			}
			defer c.Close()
			defer blobs.Close()
			work, leave, err := openWork(workDir, logger(cmd))
			if err != nil {
				return err
			}
			defer leave()
			if low {
				hello.Kind = fleetscore.LowPriority
			}
			hello.PID, hello.Version = os.Getpid(), Version
			if hello.Host, err = os.Hostname(); err != nil {
				return err
			}
			output := &node.Output{}
			log := slog.New(slog.NewMultiHandler(logger(cmd).Handler(), slog.NewTextHandler(output, nil))).With("node", hello.Node)
			n, err := node.New(node.Config{Hello: hello, DrainTime: drain, Commands: foldersOf(commands), Mounts: foldersOf(mountRoots), WorkDir: work}, node.Deps{Server: c, Log: log, Output: output, Measure: blobs.Measure(node.NewMeter(time.Now()).Measure), Runtime: runtime, Python: interpreter, Environments: environments, Isolate: isolate,
				Alone: func(l alone.Limits) scorer.Runtime { return alone.New(alone.Config{Command: scoreAlone, Limits: l}) },
				Stuck: func(fleetscore.TaskID) { os.Exit(exitFailed) }, // nothing else ends a model that never ends
				OpenStore: func(ctx context.Context, url string) (store.Bucket, error) {
					if url == "" || os.Getenv("FLEETSCORE_BLOBS") == "server" { // in a container
						return blobs.Over(c.Blobs(), log), nil
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
	addFolderFlags(cmd, &blobs, &workDir, &environments)
	cmd.Flags().StringVar(&isolation, "isolation", "", isolationFlagText)
	cmd.Flags().DurationVar(&drain, "drain-time", 25*time.Second, "how long running tasks may go on after Ctrl-C or SIGTERM; tasks that aren't finished are given back")
	cmd.Flags().BoolVar(&low, "low-priority", false, "the machine may be taken away at any time")
	cmd.Flags().StringArrayVar(&mountRoots, "mount-root", nil, mountRootFlagText)
	cmd.Flags().StringArrayVar(&commands, "commands", nil, "a folder of this machine whose programs the pool may run as this user to prepare the node; may be given several times")
	cmd.Flags().StringVar((*string)(&hello.Node), "id", "", "its name; made up if empty")
	cmd.AddCommand(newNodeListCommand(), newNodeLogsCommand(), newNodeRemoveCommand(), newNodeDoctorCommand(), newScoreAloneCommand(runtime))
	return cmd
}

func addFolderFlags(cmd *cobra.Command, blobs *cache.Lazy, workDir, environments *string) {
	cmd.Flags().StringVar(environments, "environments", "", environmentsFlagText)
	cmd.Flags().StringVar(&blobs.Dir, "cache-dir", "", "folder for files of models that are read from the server (default: fleetscore in this user's folder for caches)")
	cmd.Flags().StringVar(workDir, "work-dir", "", "folder in which fleetscore-nodes is made, for code of tasks and files of their programs: this node has a part of it, which it empties at its start and end (default: the folder for temporary files, where the user's number is added to the name)")
	cmd.Flags().StringVar(&blobs.Size, "cache-size", "", "how much this node keeps there, such as 20GB; 0B keeps nothing (default: 10GB, at most a quarter of the disk)")
}

// openWork takes a work folder for a node, which leave empties.
func openWork(base string, log *slog.Logger) (dir string, leave func(), err error) {
	work, err := cache.OpenWork(base, log)
	if err != nil {
		return "", nil, err
	}
	return work.Dir, func() {
		if err := work.Close(); err != nil {
			log.Warn("the work folder can't be emptied; the next node on this machine does it", "error", err)
		}
	}, nil
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

// check is a line of "node doctor": a layer of isolation, a promise that layers keep, or a
// gap, which isolation has on every machine.
type check struct {
	Kind   string `json:"kind"` // layer, promise or gap
	Name   string `json:"name"`
	OK     bool   `json:"ok"` // the layer is in force; the promise holds
	Detail string `json:"detail"`
}

func newNodeDoctorCommand() *cobra.Command {
	var require []string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say how far this machine isolates Python and other programs of users",
		Long: `Tries how far this machine, for this user, keeps programs of others apart from
everything else: which means of the kernel are in force (layers), and what a program
that is started as Python workers are can do nevertheless (promises). The program
tries to read and write files of others, to read a secret, to connect, to end and
trace another process, to go on after its end, and to write more than it may. Gaps
are what isolation doesn't do on any machine.

No server is asked. Run it as the user whose nodes score.

Exit codes: 0 all promises of --require hold, 1 some don't.`,
		Example: "  fleetscore node doctor\n  fleetscore node doctor --require files,secrets,network -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			needed, err := promisesOf(require)
			if err != nil {
				return err
			}
			box := sandbox.New(cmd.Context(), sandbox.Config{Exe: "/proc/self/exe"})
			found, err := box.Probe(cmd.Context())
			if err != nil {
				return err
			}
			l := listing{columns: []string{"kind", "name", "state", "detail"}}
			for _, s := range box.States() {
				l.add(check{"layer", string(s.Layer), s.InForce, s.Detail}, "layer", string(s.Layer), choose(s.InForce, "in force", "absent"), s.Detail)
			}
			var broken []string
			for _, f := range found {
				l.add(check{"promise", string(f.Promise), f.Holds, f.Detail}, "promise", string(f.Promise), choose(f.Holds, "holds", "broken"), f.Detail)
				if !f.Holds && slices.Contains(needed, f.Promise) {
					broken = append(broken, string(f.Promise))
				}
			}
			for _, g := range sandbox.Gaps {
				l.add(check{"gap", g.Name, false, g.Detail}, "gap", g.Name, "open", g.Detail)
			}
			if err := l.print(cmd); err != nil {
				return err
			}
			if len(broken) > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "fleetscore: this machine doesn't keep: %s\n", strings.Join(broken, ", "))
				return exitError(exitFailed)
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&require, "require", []string{"all"}, "promises that must hold for exit code 0: all, none, or some of files, secrets, network, processes, lifetime, disk")
	addOutputFlag(cmd)
	return cmd
}

func choose(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

// promisesOf reads the list of --require.
func promisesOf(names []string) (out []sandbox.Promise, err error) {
	for _, n := range names {
		switch p := sandbox.Promise(n); {
		case n == "all":
			out = append(out, sandbox.Promises...)
		case n == "none":
		case slices.Contains(sandbox.Promises, p):
			out = append(out, p)
		default:
			return nil, usagef("--require %s: all, none, files, secrets, network, processes, lifetime and disk are possible", n)
		}
	}
	return out, nil
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

func newTokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Tokens of devices, people, programs and nodes"}
	columns := []string{"token", "role", "created", "hour of last use", "expires", "expired", "old secret until", "old hour of last use"}
	row := func(l *listing, v any, t api.Token) {
		expired := ""
		if t.Expired {
			expired = "yes"
		}
		l.add(v, t.Name, string(t.Role), t.Created, t.Used, t.Expires, expired, t.OldUntil, t.OldUsed)
	}
	cmd.AddCommand(newTokenCreateCommand(), newTokenRotateCommand(),
		remote(&cobra.Command{Use: "list", Short: "List the tokens, without their secrets", Long: `Lists the tokens, without their secrets. Of its last use only the hour is kept, so that a
token that is used all the time isn't written all the time.`, Example: "  fleetscore token list", Args: cobra.NoArgs},
			func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
				l, query := &listing{columns: columns}, url.Values{}
				for {
					var page api.List[api.Token]
					if err := c.Get(ctx, "/tokens", query, &page); err != nil {
						return nil, err
					}
					for _, t := range page.Items {
						row(l, t, t)
					}
					if page.Next == "" {
						return l, nil
					}
					query.Set("after", page.Next)
				}
			}),
		&cobra.Command{Use: "remove NAME", Short: "End a token at once", Example: "  fleetscore token remove press-1", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				c, err := dial(cmd)
				if err != nil {
					return err
				}
				defer c.Close()
				if err := c.Send(cmd.Context(), http.MethodDelete, "/tokens/"+url.PathEscape(args[0]), nil, "", nil, nil); err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "token %s is refused from now on\n", args[0])
				return nil
			}})
	return cmd
}

func newTokenCreateCommand() *cobra.Command {
	expires, repositories := "", []string{}
	cmd := &cobra.Command{
		Use:   "create ROLE NAME",
		Short: "Create a token and print its secret, which can't be shown again",
		Long: `Creates a token and writes its secret to stdout. The server keeps only its hash, so
it can't be shown again.

Roles: device sends readings and nothing else; viewer reads; operator also submits
and cancels jobs, syncs fleets, uploads rows and models; administrator also applies
configurations and works with tokens; node takes part in a pool and nothing else;
image-pull and image-push use the registry of container images and nothing else.

To replace a token's secret without a pause: fleetscore token rotate NAME.`,
		Example: "  fleetscore token create device press-1 --expires 365d > press-1.token",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := map[string]any{"role": args[0], "name": args[1], "repositories": repositories}
			if err := setExpiry(in, expires); err != nil {
				return err
			}
			_, err := newSecret(cmd, "/tokens", in)
			return err
		}}
	cmd.Flags().StringVar(&expires, "expires", "", "how long it is good for, e.g. 90d; without it, until it is removed")
	cmd.Flags().StringArrayVar(&repositories, "repository", nil, "of image-pull and image-push: a repository that it is for, or the beginning of their names such as team/*; may be given several times")
	return cmd
}

// setExpiry sets the end of a token, if one was given.
func setExpiry(in map[string]any, expires string) error {
	if expires == "" {
		return nil
	}
	d, err := fleetscore.ParseDuration(expires)
	if err != nil || d <= 0 {
		return usagef("--expires %s: not a duration such as 90d", expires)
	}
	in["expires"] = time.Now().Add(d.D()).UTC().Truncate(time.Second)
	return nil
}

// newSecret asks the server for a token's secret and writes it to stdout.
func newSecret(cmd *cobra.Command, path string, in any) (t api.NewToken, err error) {
	c, err := dial(cmd)
	if err != nil {
		return t, err
	}
	defer c.Close()
	if err := c.Post(cmd.Context(), path, in, &t); err != nil {
		return t, err
	}
	fmt.Fprintln(cmd.OutOrStdout(), t.Secret)
	return t, nil
}

func newTokenRotateCommand() *cobra.Command {
	var overlap, expires string
	cmd := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Give a token a new secret, while the old one stays valid for a while",
		Long: `Gives a token a new secret and writes it to stdout. The secret before stays valid
for the time of --overlap, so that whoever uses it can change to the new one without a
pause. "fleetscore token list" shows until when it is valid and when it was last used.
The token's name and role stay, and so do the nodes that use it.

If a secret became known to others, refuse it at once with --overlap 0: this ends all
older secrets and the browsers that were signed in with them. Without --expires the new
secret is valid for as long as the token was when it got its last secret.`,
		Example: "  fleetscore token rotate press-1 --overlap 24h > press-1.token",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := fleetscore.ParseDuration(overlap)
			if err != nil && overlap != "0" || d < 0 {
				return usagef("--overlap %s: not a duration such as 24h; 0 refuses the old secret at once", overlap)
			}
			in := map[string]any{"overlap": d}
			if err := setExpiry(in, expires); err != nil {
				return err
			}
			t, err := newSecret(cmd, "/tokens/"+url.PathEscape(args[0])+"/rotate", in)
			if err != nil {
				return err
			}
			if t.OldUntil != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "the secret before is valid until %s UTC\n", stamp(*t.OldUntil))
			} else {
				fmt.Fprintln(cmd.ErrOrStderr(), "all older secrets are refused from now on")
			}
			return nil
		}}
	cmd.Flags().StringVar(&overlap, "overlap", "24h", "how long the secret before stays valid, up to 90d")
	cmd.Flags().StringVar(&expires, "expires", "", "how long the token is good for, e.g. 90d")
	return cmd
}

func newPortalCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "portal",
		Short: "Print an address that signs a browser in to the portal",
		Long: `Prints an address that signs a browser in with the rights of this command: those of
the token named by --token-file, or of an administrator for the user who runs the
server on this machine. The address works once, within 15 minutes.`,
		Example: "  fleetscore portal",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			var link api.SignInLink
			if err := c.Post(cmd.Context(), "/sign-in-links", nil, &link); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s/?token=%s\n", c.Server(), link.Code)
			return nil
		}}
}
