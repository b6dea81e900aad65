package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/config"
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
		Short: "Judge a fleet.yaml without a server",
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
	cmd := &cobra.Command{Use: "config", Short: "The form of fleet.yaml"}
	cmd.AddCommand(&cobra.Command{
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
		if p.Exec != nil {
			for _, command := range [][]string{p.Exec.Start, p.Exec.Stop, p.Exec.List} {
				out = append(out, filepath.Dir(command[0]))
			}
		}
	}
	return out
}

// checkOwnFolders is checkFolders with all folders that the fleets name as roots.
func checkOwnFolders(cfg fleetscore.Config) error {
	roots, err := store.FindRoots(localFolders(cfg))
	if err != nil {
		return err
	}
	return checkFolders(cfg, roots)
}

// checkFolders refuses fleets whose models lie in a folder of this machine that
// isn't there, or not in one of the roots.
func checkFolders(cfg fleetscore.Config, roots store.Roots) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(cfg.Fleets)) {
		f := cfg.Fleets[name]
		if !filepath.IsAbs(f.Path) {
			continue
		}
		folder, err := roots.OpenFolder(f.Path)
		switch {
		case err == nil:
			problems = append(problems, folder.Close())
		case fleetscore.NotFound.Is(err):
			problems = append(problems, fleetscore.Errorf(fleetscore.Invalid, "open fleet", name, "its models folder %s isn't there", f.Path).
				WithHint("make it and put the models into it, or change fleets.%s.path", name))
		default:
			problems = append(problems, fleetscore.Wrap("open fleet", name, err))
		}
	}
	return errors.Join(problems...)
}

// pathCause drops the operation and path that a message names already.
func pathCause(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}
