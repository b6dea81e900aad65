package cli

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	examplefleet "github.com/fleetscore/fleetscore/examples/fleet"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/server"
	"github.com/fleetscore/fleetscore/internal/simulator"
	"github.com/fleetscore/fleetscore/internal/table"
)

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
			line := fmt.Sprintf("%s  %s  %s – %s: %s sensors, %s rows, %s anomalies", stamp(*j.Ended), j.State, j.Interval.From.Format("15:04"), j.Interval.To.Format("15:04"),
				thousands(j.Expected), thousands(j.Rows), thousands(j.Anomalies))
			if injected, found, err := truth(ctx, s, j); err == nil {
				line += fmt.Sprintf("; %s rows had an injected fault, %s of them were flagged", thousands(injected), thousands(found))
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
	sim := &simulation{cfg: simulator.Config{}.Defaults(), hub: "hub", client: c}
	return sim.toHub(ctx, progress, from)
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
