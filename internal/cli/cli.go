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
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fleetscore/fleetscore"
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

// exitError ends the command with a code after its output said why.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// Main runs one command and returns the process's exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return exitCode(ctx, cmd, err, stderr)
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

// usageError marks a command line that can't be meant.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// isUsage recognises our usage errors and cobra's, which have no type.
func isUsage(err error) bool {
	if _, ok := errors.AsType[usageError](err); ok {
		return true
	}
	for _, start := range []string{"unknown command", "unknown flag", "unknown shorthand", "required flag", "accepts ", "requires ", "invalid argument", "flag needs", "missing ", "if any flags"} {
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
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return flagsFromEnvironment(cmd) },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().String("server", "", "address of the server that client commands talk to (default: http://127.0.0.1:7180, or https:// if this machine's user started it so)")
	root.PersistentFlags().String("token-file", "", "file with a token to show (default: what a server started by this user on this machine left)")
	root.PersistentFlags().String("ca-file", "", "file with certificates to trust besides the system's, in PEM (default: as for --token-file)")
	root.PersistentFlags().String("tls-server-name", "", "name that the server's certificate must carry, if not the one in --server")
	root.AddCommand(newUpCommand(), newServeCommand(), newNodeCommand(), newDemoCommand(),
		newValidateCommand(), newApplyCommand(), newJobCommand(), newScheduleCommand(), newPoolCommand(), newDatasetCommand(), newFleetCommand(), newStoreCommand(), newClockCommand(), newTokenCommand(), newPortalCommand(),
		newModelCommand(), newSimulateCommand(), newScoreCommand())
	sayExitCodes(root)
	return root
}

// sayExitCodes adds them to the help of every command that doesn't have them.
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
