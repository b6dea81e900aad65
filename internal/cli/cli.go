// Package cli is the command line of Fleetscore and the place where rooms are
// wired together: it reads flags and variables, builds services, and turns their
// errors into messages and exit codes. It decides nothing that a room below
// could decide.
//
// Data goes to stdout; logs, progress and messages go to stderr.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"

	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/oneshot"
	"github.com/fleetscore/fleetscore/internal/scorer"
)

// Version is the release, set when the binary is built.
var Version = "dev"

// Exit codes that no kind of error stands for.
const (
	exitDone        = 0
	exitFailed      = 1
	exitPartly      = 3
	exitUsage       = 10
	exitInterrupted = 130
)

const allExitCodes = `Exit codes: 0 done, 1 failed, 3 partly failed, 10 usage or configuration,
11 unreachable, 12 not found, 13 conflict, 130 interrupted.`

// exitError ends the command with an exit code; the command's output has already said
// why.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// Main runs one command and returns the process's exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if cmd, err := unknownVerb(root, args); err != nil {
		return exitCode(ctx, cmd, err, stderr)
	}
	cmd, err := root.ExecuteContextC(ctx)
	return exitCode(ctx, cmd, err, stderr)
}

// unknownVerb refuses a mistyped command that is asked for its help, which cobra answers
// with the help of the command before it.
func unknownVerb(root *cobra.Command, args []string) (*cobra.Command, error) {
	if !slices.Contains(args, "--help") && !slices.Contains(args, "-h") {
		return root, nil
	}
	cmd, rest, err := root.Find(args)
	if err != nil || !cmd.HasSubCommands() || len(rest) == 0 || strings.HasPrefix(rest[0], "-") {
		return root, nil // cobra says what is wrong, if anything is
	}
	return cmd, checkVerb(cmd, rest[:1])
}

func exitCode(ctx context.Context, cmd *cobra.Command, err error, stderr io.Writer) int {
	if err == nil {
		return exitDone
	}
	if code, ok := errors.AsType[exitError](err); ok {
		return int(code)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	if unknown := (*pflag.NotExistError)(nil); errors.As(err, &unknown) {
		err = usagef("%w%s", err, meant("--"+unknown.GetSpecifiedName(), flagNames(cmd)))
	}
	if flags, ok := strings.CutPrefix(err.Error(), "required flag(s) "); ok { // cobra's error has no type
		flags = strings.NewReplacer(`"`, "", ", ", ", --", " not set", "").Replace(flags)
		err = usagef("these flags are needed too: --%s", flags)
	}
	lines := strings.Split(err.Error(), "\n")
	for i := range lines {
		lines[i] = fleetscore.Printable(lines[i])
	}
	fmt.Fprintf(stderr, "%s: %s\n", cmd.CommandPath(), strings.Join(lines, "\n"))
	var known *fleetscore.Error
	if !errors.As(err, &known) && isUsage(err) {
		fmt.Fprintf(stderr, "Try '%s --help'.\n", cmd.CommandPath())
		return exitUsage
	}
	return fleetscore.KindOf(err).ExitCode()
}

// usageError marks a command line that makes no sense.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// isUsage recognises our usage errors and cobra's, which have no type.
func isUsage(err error) bool {
	if _, ok := errors.AsType[usageError](err); ok {
		return true
	}
	for _, start := range []string{"unknown flag", "unknown shorthand", "invalid argument", "flag needs", "missing ", "if any flags"} {
		if strings.HasPrefix(err.Error(), start) {
			return true
		}
	}
	return false
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "fleetscore",
		Short: "Score fleets: one pre-trained model per sensor, in batches, on a schedule",
		Long: `Fleetscore scores fleets: one pre-trained Python model per device and sensor,
in batches, on a schedule. Readings stream in, a SQL query aggregates them over
event-time windows, jobs score every sensor with its own model on a pool of
nodes that scales from zero, and a portal shows it all.

` + allExitCodes,
		Example:           "  fleetscore demo\n  fleetscore score --data readings.csv --models models --model 'model_{Device}_{Tag}' --key Device,Tag --time TS --feature Value --out scored",
		Version:           Version,
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return prepare(cmd) },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().String("server", "", "address of the server that client commands talk to, or of several servers that share the work, separated by commas (default: http://127.0.0.1:7180, or https:// if this machine's user started it so)")
	root.PersistentFlags().String("token-file", "", "file with the token that the server gets (default: what a server started by this user on this machine left)")
	root.PersistentFlags().String("ca-file", "", "file with certificates to trust besides the system's, in PEM (default: as for --token-file)")
	root.PersistentFlags().String("client-cert", "", "file with a certificate of this client and its chain, in PEM, for servers that accept client certificates; read again when it changes")
	root.PersistentFlags().String("client-key", "", "file with the key of --client-cert, in PEM (default: the same file)")
	root.PersistentFlags().String("tls-server-name", "", "name that the server's certificate must carry, if not the one in --server")
	root.AddCommand(newUpCommand(), newServeCommand(), newServerCommand(), newNodeCommand(scorer.Native{}), newDemoCommand(), newInitCommand(),
		newValidateCommand(), newApplyCommand(), newConfigCommand(), newImportCommand(), newJobCommand(), newScheduleCommand(), newPoolCommand(), newMountCommand(), newDatasetCommand(), newHubCommand(), newRejectedCommand(), newSensorCommand(), newLateCommand(), newFleetCommand(), newStoreCommand(), newImageCommand(), newClockCommand(), newTokenCommand(), newPortalCommand(),
		newModelCommand(), newQueryCommand(), newSimulateCommand(), newScoreCommand(), newBackupCommand(), newRestoreCommand(), newVersionCommand())
	sayExitCodes(root)
	root.SetHelpCommand(newHelpCommand())
	for _, cmd := range root.Commands() {
		if cmd.HasSubCommands() && !cmd.Runnable() {
			showVerbs(cmd)
		}
	}
	root.Args, root.RunE = checkVerb, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	sayArguments(root)
	addCompletions(root)
	return root
}

// release is what "version" prints with -o json.
type release struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"` // of the source, where the build knows it
	Changed  bool   `json:"changed"`          // the source was changed after the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version of this program", Example: "  fleetscore version -o json", Args: cobra.NoArgs}
	addOutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r := release{Version: Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
		if info, ok := debug.ReadBuildInfo(); ok {
			for _, s := range info.Settings {
				switch s.Key {
				case "vcs.revision":
					r.Commit = s.Value
				case "vcs.modified":
					r.Changed = s.Value == "true"
				}
			}
		}
		commit := r.Commit
		if r.Changed {
			commit += " with changes"
		}
		l := &listing{columns: []string{"version", "commit", "go", "platform"}, single: true}
		l.add(r, r.Version, cmp.Or(commit, "-"), r.Go, r.Platform)
		return l.print(cmd)
	}
	return cmd
}

// sayArguments makes commands that get too few or too many arguments show how they are
// written.
func sayArguments(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		sayArguments(c)
	}
	if cmd.Args == nil || cmd.HasSubCommands() {
		return
	}
	judge := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if judge(cmd, args) == nil {
			return nil
		}
		needed := 0
		for _, word := range strings.Fields(cmd.Use)[1:] {
			if !strings.HasPrefix(word, "[") && strings.ToUpper(word) == word {
				needed++
			}
		}
		if len(args) < needed {
			return usagef("an argument is missing; write: %s", cmd.UseLine())
		}
		return usagef("there is an argument too many; write: %s", cmd.UseLine())
	}
}

// prepare takes the values of absent flags from environment variables, and checks the
// flags that all commands share before the command does anything.
func prepare(cmd *cobra.Command) error {
	if err := flagsFromEnvironment(cmd); err != nil {
		return err
	}
	if how, err := cmd.Flags().GetString("output"); err == nil {
		return checkOutput(how)
	}
	return nil
}

// showVerbs makes a noun without a verb print its verbs, and a noun with a wrong verb
// suggest the nearest verb.
func showVerbs(noun *cobra.Command) {
	noun.Args, noun.RunE = checkVerb, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

func checkVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	if best := meant(args[0], names); best != "" {
		return usagef("unknown command %s%s", args[0], best)
	}
	return usagef("unknown command %s; there are %s", args[0], strings.Join(names, ", "))
}

// meant returns a question that names the most similar word; empty if no word is similar.
func meant(word string, known []string) string {
	if best := fleetscore.Nearest(word, known); best != "" {
		return "; is " + best + " meant?"
	}
	return ""
}

func flagNames(cmd *cobra.Command) (out []string) {
	add := func(f *pflag.Flag) { out = append(out, "--"+f.Name) }
	cmd.Flags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	return out
}

// newHelpCommand is like cobra's help command, but fails if the topic is unknown.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Help about a command",
		Example: "  fleetscore help job submit",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || found == nil {
				return checkVerb(cmd.Root(), args)
			}
			if len(rest) > 0 && found.HasSubCommands() {
				return checkVerb(found, rest)
			}
			return found.Help()
		},
	}
}

// addCompletions lets the shell complete names that the server knows, and values of
// flags.
func addCompletions(root *cobra.Command) {
	kinds := map[string]func(context.Context, *client.Client) ([]string, error){
		"PIPELINE": namesOf("/schedules", func(s api.Schedule) string { return s.Pipeline }),
		"JOB":      namesOf("/jobs", func(j fleetscore.Job) string { return string(j.ID) + "\t" + string(j.State) }),
		"fleet":    namesOf("/fleets", func(f api.Fleet) string { return f.Name }),
		"dataset":  namesOf("/datasets", func(d api.Dataset) string { return d.Name }),
		"token":    namesOf("/tokens", func(t api.Token) string { return t.Name + "\t" + string(t.Role) }),
	}
	values := map[string][]string{"output": outputs, "format": oneshot.Formats, "missing": {"fail", "skip", "model"}, "features-by": {"name", "position"},
		"time-unit": {"s", "ms", "us", "ns"}, "separator": {"comma", "semicolon", "tab", "space"}}
	for _, o := range fleetscore.Outcomes {
		values["outcome"] = append(values["outcome"], string(o))
	}
	var each func(cmd *cobra.Command)
	each = func(cmd *cobra.Command) {
		use := strings.Fields(cmd.Use)
		if len(use) > 1 && cmd.ValidArgsFunction == nil {
			kind := strings.Trim(use[1], "[]")
			if kind == "NAME" && cmd.HasParent() && cmd.Name() != "create" {
				kind = cmd.Parent().Name()
			}
			if ask := kinds[kind]; ask != nil {
				cmd.ValidArgsFunction = complete(ask, len(use) > 2)
			}
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if list := values[f.Name]; list != nil {
				must(cmd.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp)))
			}
			if f.Name == "pipeline" {
				must(cmd.RegisterFlagCompletionFunc(f.Name, complete(kinds["PIPELINE"], false)))
			}
		})
		for _, c := range cmd.Commands() {
			each(c)
		}
	}
	each(root)
}

// must panics on an error that only a mistake in this package can cause.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// namesOf asks the server for a list.
func namesOf[T any](path string, name func(T) string) func(context.Context, *client.Client) ([]string, error) {
	return func(ctx context.Context, c *client.Client) ([]string, error) {
		var got api.List[T]
		if err := c.Get(ctx, path, nil, &got); err != nil {
			return nil, err
		}
		out := make([]string, len(got.Items))
		for i, x := range got.Items {
			out[i] = name(x)
		}
		return out, nil
	}
}

// completionTimeout is how long a shell waits for the server's answer.
const completionTimeout = 2 * time.Second

// complete completes the first argument from the names that the server knows, and
// further arguments, where allowed, with files. If no server answers, there are no
// names.
func complete(ask func(context.Context, *client.Client) ([]string, error), more bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			if more {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if flagsFromEnvironment(cmd) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := dial(cmd)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		names, err := ask(ctx, c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, start) }), cobra.ShellCompDirectiveNoFileComp
	}
}

// sayExitCodes adds the exit codes to the help of every command that doesn't list them.
func sayExitCodes(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		if c.Runnable() && !strings.Contains(c.Long, "Exit codes") {
			c.Long = cmp.Or(c.Long, c.Short+".") + "\n\n" + allExitCodes
		}
		sayExitCodes(c)
	}
}

// flagsFromEnvironment gives every flag that wasn't set the value of its
// variable: --out-dir is FLEETSCORE_OUT_DIR.
func flagsFromEnvironment(cmd *cobra.Command) error {
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := "FLEETSCORE_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := os.LookupEnv(name); ok && !f.Changed && err == nil {
			if e := cmd.Flags().Set(f.Name, v); e != nil {
				err = usagef("variable %s=%q: %v", name, v, e)
			}
		}
	})
	return err
}
