package cli

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore"
	examplefleet "github.com/fleetscore/fleetscore/examples/fleet"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/oneshot"
	"github.com/fleetscore/fleetscore/internal/server"
	"github.com/fleetscore/fleetscore/internal/simulator"
	"github.com/fleetscore/fleetscore/internal/table"
)

// simulation is one run of "simulate".
type simulation struct {
	cfg      simulator.Config
	from, to string
	out, hub string
	last     time.Duration
	client   *client.Client
}

func newSimulateCommand() *cobra.Command {
	var s simulation
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Make readings of a simulated fleet with labelled faults, into a file or a hub",
		Long: `Makes readings of a simulated fleet: the same seed, time and sensor always give
the same reading. Every reading says in its column Fault whether its sensor was
faulty. With --out FILE the readings of (--from, --to] are written as CSV, or as
NDJSON if the name ends so; without it they are sent to the server's hub as time
goes by, until Ctrl-C.`,
		Example: "  fleetscore simulate --from 2026-11-23T00:00:00Z --to 2026-11-24T00:00:00Z --out readings.csv\n  fleetscore simulate --server http://127.0.0.1:7180",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.out != "" {
				return s.toFile(cmd.Context(), cmd.ErrOrStderr())
			}
			if s.from != "" || s.to != "" {
				return usagef("--from and --to go with --out; to send, --last says how long ago to begin")
			}
			var err error
			if s.client, err = dial(cmd); err != nil {
				return err
			}
			defer s.client.Close()
			return s.toHub(cmd.Context(), cmd.ErrOrStderr(), time.Now().Add(-s.last))
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&s.cfg.Seed, "seed", 0, "another seed is another fleet")
	f.IntVar(&s.cfg.Devices, "devices", 5, "devices, named 1, 2, …")
	f.IntVar(&s.cfg.Tags, "tags", 4, "sensors per device")
	f.DurationVar(&s.cfg.Interval, "interval", time.Second, "between two readings of a sensor")
	f.Float64Var(&s.cfg.FaultRate, "faults", 3, "faults per sensor and hour; negative for none")
	f.StringVar(&s.from, "from", "", "with --out: start, not included; an hour before --to if not given")
	f.StringVar(&s.to, "to", "", "with --out: end, included; now if not given")
	f.DurationVar(&s.last, "last", 0, "without --out: begin this long ago, as fast as the server takes it")
	f.StringVar(&s.out, "out", "", "file to write, .csv or .ndjson")
	f.StringVar(&s.hub, "hub", "hub", "hub to send to")
	return cmd
}

func (s *simulation) toFile(ctx context.Context, progress io.Writer) error {
	to := time.Now().UTC().Truncate(time.Second)
	if s.to != "" {
		t, err := table.ParseTime(s.to)
		if err != nil {
			return usagef("--to %s: not a time such as 2026-11-23T10:00:00Z", s.to)
		}
		to = t.Time()
	}
	from := to.Add(-time.Hour)
	if s.from != "" {
		t, err := table.ParseTime(s.from)
		if err != nil {
			return usagef("--from %s: not a time such as 2026-11-23T10:00:00Z", s.from)
		}
		from = t.Time()
	}
	if err := (fleetscore.Interval{From: from, To: to}).Validate(); err != nil {
		return err
	}
	fleet, err := simulator.New(s.cfg)
	if err != nil {
		return err
	}
	n := int64(0)
	folder, err := oneshot.OpenFolder(ctx, filepath.Dir(s.out))
	if err != nil {
		return err
	}
	_, err = folder.Write(ctx, filepath.Base(s.out), func(w io.Writer) error {
		b := bufio.NewWriterSize(w, 1<<20)
		ndjson := strings.HasSuffix(s.out, ".ndjson") || strings.HasSuffix(s.out, ".jsonl")
		if !ndjson {
			b.WriteString(simulator.CSVHeader)
		}
		var line []byte
		for r := range fleet.Readings(from, to) {
			if n++; n&0xffff == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			if ndjson {
				line = r.AppendNDJSON(line[:0])
			} else {
				line = r.AppendCSV(line[:0])
			}
			if _, err := b.Write(line); err != nil {
				return err
			}
		}
		return b.Flush()
	})
	if err == nil {
		fmt.Fprintf(progress, "%s readings in %s\n", thousands(n), s.out)
	}
	return err
}

// toHub sends readings in order when they are due. It repeats each batch until the batch
// is acknowledged, as a device with a buffer does.
func (s *simulation) toHub(ctx context.Context, progress io.Writer, from time.Time) error {
	fleet, err := simulator.New(s.cfg)
	if err != nil {
		return err
	}
	const step, most = 500 * time.Millisecond, time.Minute // the time between two sends, and the longest time of readings in one send
	from = from.UTC().Truncate(time.Millisecond)
	var body []byte
	sent := int64(0)
	for {
		to := time.Now().UTC().Truncate(time.Millisecond)
		if to.Sub(from) > most {
			to = from.Add(most)
		}
		n := int64(0)
		deliver := func() error {
			if n == 0 {
				return nil
			}
			if err := s.deliver(ctx, progress, body); err != nil {
				return err
			}
			sent += n
			body, n = body[:0], 0
			return nil
		}
		for r := range fleet.Readings(from, to) {
			body = r.AppendNDJSON(body)
			if n++; len(body) >= maxSend {
				if err := deliver(); err != nil {
					return err
				}
			}
		}
		if err := deliver(); err != nil {
			return err
		}
		from = to
		if time.Since(to) < step {
			select {
			case <-ctx.Done():
				fmt.Fprintf(progress, "%s readings sent and acknowledged\n", thousands(sent))
				return ctx.Err()
			case <-time.After(step):
			}
		}
	}
}

// maxSend is about how many bytes are sent at once, whatever the number of sensors. It
// is far below what a server accepts.
const maxSend = 1 << 20

// awayAfter is how long a server may not answer before a message says so.
const awayAfter = time.Second

// deliver posts a body until it is acknowledged or refused for good. Repeats of a
// reading count once, so sending again is safe.
func (s *simulation) deliver(ctx context.Context, progress io.Writer, body []byte) error {
	wait, told := 100*time.Millisecond, false
	begun := time.Now()
	for {
		err := s.post(ctx, body)
		if err == nil || ctx.Err() != nil || !fleetscore.KindOf(err).Retryable() {
			return err
		}
		if !told && time.Since(begun) > awayAfter {
			fmt.Fprintf(progress, "%v; trying again until it is there\n", err)
			told = true
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, 2*time.Second)
	}
}

func (s *simulation) post(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return s.client.Send(ctx, http.MethodPost, "/hubs/"+url.PathEscape(s.hub)+"/messages", nil, "application/x-ndjson", bytes.NewReader(body), nil)
}

// sample is the interval of a new project's readings: some have faults.
var sample = [2]time.Time{time.Date(2026, 11, 3, 0, 0, 0, 0, time.UTC), time.Date(2026, 11, 3, 0, 10, 0, 0, time.UTC)}

func newInitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write a new project: fleet.yaml, models, a script, sample readings",
		Long: `Writes a project that works as it is into a folder, by default this one: fleet.yaml,
models of 20 sensors, ten minutes of their readings, a script that scores in Python, and
a README.md with the next commands. No file is overwritten: if one of them is there, nothing
is written.

Exit codes: 0 written, 13 a file is already there.`,
		Example: "  fleetscore init plant",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := strings.Join(args, "")
			if dir == "" {
				dir = "."
			}
			if err := writeProject(dir); err != nil {
				return err
			}
			if dir != "." {
				fmt.Fprintf(cmd.OutOrStdout(), "cd %s\n", quoteArg(dir))
			}
			fmt.Fprintln(cmd.OutOrStdout(), "fleetscore up fleet.yaml")
			fmt.Fprintln(cmd.ErrOrStderr(), "README.md says how to go on in another terminal")
			return nil
		},
	}
}

// quoteArg writes a path as a shell takes it.
func quoteArg(s string) string {
	if strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._/-", r))
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// writeProject writes all files of a new project, or none.
func writeProject(dir string) error {
	const op = "write project"
	files := map[string][]byte{}
	for _, from := range []struct {
		fs     embed.FS
		folder string
		to     string
	}{{examplefleet.Project, "project", ""}, {examplefleet.Files, "models", "models"}} {
		err := fs.WalkDir(from.fs, from.folder, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			files[path.Join(from.to, strings.TrimPrefix(name, from.folder+"/"))], err = from.fs.ReadFile(name)
			return err
		})
		if err != nil {
			return err
		}
	}
	var err error
	if files["train.py"], err = examplefleet.Project.ReadFile("make_models.py"); err != nil {
		return err
	}
	fleet, err := simulator.New(simulator.Config{}.Defaults())
	if err != nil {
		return err
	}
	readings := []byte(simulator.CSVHeader)
	for r := range fleet.Readings(sample[0], sample[1]) {
		readings = r.AppendCSV(readings)
	}
	files["readings.csv"] = readings
	var there []string
	for name := range files {
		if _, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(name))); err == nil {
			there = append(there, name)
		} else if !errors.Is(err, os.ErrNotExist) {
			return fleetscore.Errorf(fleetscore.Unavailable, op, dir, "%w", pathCause(err))
		}
	}
	if len(there) > 0 {
		slices.Sort(there)
		return fleetscore.Errorf(fleetscore.Conflict, op, dir, "these files are already there: %s", shortList(there)).WithHint("name another folder: fleetscore init DIR")
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := durable.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return server.FolderError(filepath.Dir(file), err)
		}
		if err := durable.WriteFile(file, files[name], 0o644); err != nil {
			return server.FolderError(file, err)
		}
	}
	return nil
}
