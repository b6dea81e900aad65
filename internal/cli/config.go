package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/config"
	"github.com/fleetscore/fleetscore/internal/config/batchai"
	"github.com/fleetscore/fleetscore/internal/server"
	"github.com/fleetscore/fleetscore/internal/store"
)

// readConfig reads and judges a fleet.yaml; the name is its absolute path.
func readConfig(file string) (name string, cfg fleetscore.Config, text []byte, err error) {
	name, err = filepath.Abs(file)
	if err != nil {
		return "", cfg, nil, err
	}
	text, err = os.ReadFile(file)
	if err != nil {
		return "", cfg, nil, fleetscore.Errorf(fleetscore.Invalid, "read configuration", file, "%w", pathCause(err)).
			WithHint("docs/configuration.md has an example to start from")
	}
	cfg, err = config.Parse(name, text)
	return name, cfg, text, err
}

func newValidateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "validate FILE",
		Short: "Check a fleet.yaml without a server",
		Long: `Reads a fleet.yaml and reports every problem at once, each with its line: unknown
keys, values of a wrong form, queries and cron expressions that don't parse,
names that refer to nothing, a models folder that isn't there. What is allowed and
most likely not meant, such as a dataset that no query writes, is a warning on stderr.

Exit codes: 0 good, 10 not.`,
		Example: "  fleetscore validate examples/fleet/fleet.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, cfg, _, err := readConfig(args[0])
			if err == nil {
				err = checkOwnFolders(cfg)
			}
			if err != nil {
				return err
			}
			warn(cmd.ErrOrStderr(), config.Warnings(cfg, time.Now(), func(string) bool { return false }))
			fmt.Fprintf(cmd.OutOrStdout(), "%s is good: %s, %s, %s, %s\n", args[0], count(len(cfg.Queries), "query", "queries"),
				plural(len(cfg.Fleets), "fleet"), plural(len(cfg.Pools), "pool"), plural(len(cfg.Pipelines), "pipeline"))
			return nil
		},
	}
}

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "The configurations that were applied, and the form of fleet.yaml"}
	cmd.AddCommand(newConfigShowCommand(), newConfigHistoryCommand(), newConfigDiffCommand(), &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of fleet.yaml for editors",
		Long: `Prints the JSON Schema (draft 2020-12) of fleet.yaml. An editor that knows the schema
completes keys, shows their meaning and marks mistakes while you type. Save it
beside fleet.yaml, and begin fleet.yaml with this line:

  # yaml-language-server: $schema=fleet.schema.json

"fleetscore validate" also checks what a schema can't express: SQL, cron
expressions, and names that must exist.`,
		Example: "  fleetscore config schema > fleet.schema.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Schema)
			return err
		},
	})
	return cmd
}

func newImportCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "import", Short: "Turn descriptions of other systems into a fleet.yaml"}
	cmd.AddCommand(&cobra.Command{
		Use:   "batchai FILE",
		Short: "Turn the JSON of an Azure Batch AI job into a pipeline",
		Long: `Prints a fleet.yaml with a pipeline for an Azure Batch AI job: a job.json of the
command line, or a job as the REST interface shows it. What has no counterpart is named
on stderr and in comments, with what to do instead; values of secrets aren't shown.`,
		Example: "  fleetscore import batchai job.json > fleet.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readLimited(args[0])
			if err != nil {
				return err
			}
			p, err := batchai.Convert(args[0], data)
			if err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), p.YAML)
			verb := "settings have"
			if p.Counts == 1 {
				verb = "setting has"
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d %s no counterpart, or another one:\n", p.Counts, verb)
			for _, n := range p.Notes {
				fmt.Fprintf(cmd.ErrOrStderr(), "  %s\n", fleetscore.Printable(n))
			}
			return nil
		},
	})
	return cmd
}

// readLimited reads a small file.
func readLimited(name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "read", name, "there is no such file")
	} else if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "read", name, "%w", pathCause(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, config.MaxBytes+1))
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "read", name, "%w", pathCause(err))
	}
	if len(data) > config.MaxBytes {
		return nil, fleetscore.Errorf(fleetscore.Exhausted, "read", name, "the file has more than %d bytes", config.MaxBytes)
	}
	return data, nil
}

func newConfigShowCommand() *cobra.Command {
	return &cobra.Command{Use: "show [VERSION]", Short: "Print the configuration in force, or an earlier version",
		Example: "  fleetscore config show > fleet.yaml\n  fleetscore config show 3", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			text, err := configOf(cmd.Context(), c, strings.Join(args, ""))
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		}}
}

// configOf asks the server for a version of the configuration; empty means the one in
// force.
func configOf(ctx context.Context, c *client.Client, version string) ([]byte, error) {
	query := url.Values{}
	if version != "" {
		if n, err := strconv.ParseInt(version, 10, 64); err != nil || n < 1 {
			return nil, usagef("%q is not a version; fleetscore config history lists them", version)
		}
		query.Set("version", version)
	}
	r, err := c.Open(ctx, "/config", query)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, config.MaxBytes))
}

func newConfigHistoryCommand() *cobra.Command {
	return remote(&cobra.Command{Use: "history", Short: "List the configurations that were applied, newest first", Example: "  fleetscore config history", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
			var got api.List[api.ConfigVersion]
			if err := c.Get(ctx, "/config/versions", nil, &got); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"version", "applied", "in force"}}
			for _, v := range got.Items {
				inForce := ""
				if v.InForce {
					inForce = "yes"
				}
				l.add(v, v.Version, v.Applied, inForce)
			}
			return l, nil
		})
}

func newConfigDiffCommand() *cobra.Command {
	return &cobra.Command{Use: "diff VERSION [VERSION]", Short: "Show what changed from a version to another, or to the one in force",
		Long: `Shows each key that was added (+), removed (-) or changed (~) from one version to
another, or to the one in force. To compare a file with the configuration in force:
fleetscore apply FILE --dry-run.`,
		Example: "  fleetscore config diff 3\n  fleetscore config diff 3 4", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			defer c.Close()
			var versions [2]fleetscore.Config
			for i, v := range []string{args[0], strings.Join(args[1:], "")} {
				text, err := configOf(cmd.Context(), c, v)
				if err != nil {
					return err
				}
				// Paths that are relative to fleet.yaml are compared as they are written.
				if versions[i], err = config.Parse("/fleet.yaml", text); err != nil {
					return err
				}
			}
			changes, err := config.Diff(versions[0], versions[1])
			for _, change := range changes {
				fmt.Fprintln(cmd.OutOrStdout(), change)
			}
			return err
		}}
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// localFolders are the folders of this machine that fleets read models from.
func localFolders(cfg fleetscore.Config) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(cfg.Fleets)) {
		if p := cfg.Fleets[name].Path; filepath.IsAbs(p) {
			out = append(out, p)
		}
	}
	return out
}

// commandFolders are the folders with the programs of pools' commands.
func commandFolders(cfg fleetscore.Config) (out []string) {
	for _, p := range cfg.Pools {
		var commands [][]string
		if p.Exec != nil {
			commands = append(commands, p.Exec.Start, p.Exec.Stop, p.Exec.List)
		}
		if p.Setup != nil && p.Provider == "local" && filepath.IsAbs(p.Setup.Command[0]) {
			commands = append(commands, p.Setup.Command)
		}
		for _, command := range commands {
			out = append(out, filepath.Dir(command[0]))
		}
	}
	return out
}

// mountFolders are the mounts of a configuration.
func mountFolders(cfg fleetscore.Config) (out []string) {
	for _, m := range cfg.Mounts {
		out = append(out, m.Path)
	}
	return out
}

// checkOwnFolders is checkFolders with all folders that the fleets name as roots.
func checkOwnFolders(cfg fleetscore.Config) error {
	roots, err := store.FindRoots(localFolders(cfg))
	if err != nil {
		return err
	}
	return server.CheckFolders(cfg, roots)
}

// pathCause drops the operation and path that a message names already.
func pathCause(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}

const mountRootFlagText = "a folder of this machine that mounts of fleet.yaml may lie in, so that programs of pipelines may read there, and write if fleet.yaml says so; may be given several times"

func newMountCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "mount", Short: "Folders of file servers that pools, pipelines and fleets use"}
	cmd.AddCommand(remote(&cobra.Command{Use: "list", Short: "List the mounts, as they are on the server's machine", Example: "  fleetscore mount list", Args: cobra.NoArgs},
		func(ctx context.Context, c *client.Client, _ []string) (*listing, error) {
			var got api.List[api.MountDetail]
			if err := c.Get(ctx, "/mounts", nil, &got); err != nil {
				return nil, err
			}
			l := &listing{columns: []string{"name", "path", "read only", "type", "source", "pools", "on server", "problem"}}
			for _, m := range got.Items {
				l.add(m, m.Name, m.Path, choose(m.Writable(), "no", "yes"), m.Type, m.Source, strings.Join(m.Pools, ","), choose(m.OnServer, "good", "unusable"), m.Problem)
			}
			return l, nil
		}), newMountCheckCommand())
	return cmd
}

func newMountCheckCommand() *cobra.Command {
	var in api.MountCheck
	var size string
	cmd := remote(&cobra.Command{
		Use:   "check NAME",
		Short: "Check a mount and measure how fast it is",
		Long: `Checks a mount and measures it, on the server's machine or with --pool on each node of a
pool that runs. If programs may write there (read_only: false), a large file and small ones are
written, read and removed; otherwise files that are there are read. What the machine has of them
in its memory is dropped first, as far as its kernel does that.

The verdict is good, slow (less than 20 MiB a second of a large file, or less than 100 small
files a second), empty (there is nothing to read) or unusable.

Exit codes: 0 good, slow or empty everywhere, 1 unusable somewhere.`,
		Example: "  fleetscore mount check history\n  fleetscore mount check history --pool cpu --size 1GB",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *client.Client, args []string) (*listing, error) {
		var bytes fleetscore.Size
		if err := bytes.UnmarshalText([]byte(size)); err != nil || bytes <= 0 {
			return nil, usagef("--size %s: not a size such as 64MB", size)
		}
		in.SizeBytes = int64(bytes)
		var got api.List[fleetscore.MountReport]
		if err := c.Post(ctx, "/mounts/"+url.PathEscape(args[0])+"/check", in, &got); err != nil {
			return nil, err
		}
		l, failed := &listing{columns: []string{"node", "host", "type", "source", "free MB", "write MB/s", "read MB/s", "files written/s", "files read/s", "latency p50", "p99", "verdict", "advice"}}, false
		for _, r := range got.Items {
			l.add(r, cmp.Or(string(r.Node), "server"), r.Host, r.Type, r.Source, measured(float64(r.FreeBytes)/1e6), measured(float64(r.WriteBytes)/1e6), measured(float64(r.ReadBytes)/1e6), measured(r.FilesWritten), measured(r.FilesRead), r.LatencyP50.String(), r.LatencyP99.String(), string(r.Verdict), r.Advice)
			failed = failed || r.Verdict == fleetscore.MountUnusable
		}
		if failed {
			return l, exitError(exitFailed)
		}
		return l, nil
	})
	cmd.Flags().StringVar(&in.Pool, "pool", "", "the pool whose nodes measure; the server does if it is empty")
	cmd.Flags().StringVar(&size, "size", "64MB", "how much is written and read, of a large file")
	cmd.Flags().IntVar(&in.Files, "files", 200, "how many small files")
	return cmd
}

// measured is a figure of a measurement; 0 was not measured.
func measured(n float64) string {
	return choose(n == 0, "-", strconv.FormatFloat(n, 'f', 0, 64))
}
