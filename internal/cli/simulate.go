package cli

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
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
	"github.com/fleetscore/fleetscore/internal/gateway/device"
	"github.com/fleetscore/fleetscore/internal/oneshot"
	"github.com/fleetscore/fleetscore/internal/server"
	"github.com/fleetscore/fleetscore/internal/simulator"
	"github.com/fleetscore/fleetscore/internal/table"
)

// simulation is one run of "simulate".
type simulation struct {
	cfg      simulator.Config
	traffic  simulator.Traffic
	from, to string
	out, hub string
	last     time.Duration
	lasts    time.Duration // the flag --for
	output   string

	mqtt, mqttTopic string
	kafka           []string
	topic           string
}

// simulated is what "simulate" prints with -o json.
type simulated struct {
	simulator.Injected
	Acknowledged int64 `json:"acknowledged"` // readings; those in a file count too
}

func newSimulateCommand() *cobra.Command {
	var s simulation
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Make readings of a simulated fleet with labelled faults, into a file, a hub, by MQTT or into a Kafka topic",
		Long: `Makes readings of a simulated fleet: the same seed, time and sensor always give
the same reading. Every reading says in its column Fault whether its sensor was
faulty. With --out FILE the readings of (--from, --to] are written as CSV, or as
NDJSON if the name ends so; without it they are sent as time goes by, until Ctrl-C or
as long as --for says: to the server's hub over HTTP, or with --mqtt by MQTT, or with --kafka into a topic.

The way from the devices goes wrong as --dropped, --duplicates, --late, --skewed and --burst say, the same way
for the same seed. At the end the command says how many readings it made, sent, dropped, sent twice, late and with wrong times;
with -o json as an object. A reading has one of these faults at most. Readings are sent again until they are acknowledged.`,
		Example: "  fleetscore simulate --from 2026-11-23T00:00:00Z --to 2026-11-24T00:00:00Z --out readings.csv\n  fleetscore simulate --server http://127.0.0.1:7180 --for 1m --late 0.01 --duplicates 0.05 -o json\n  fleetscore simulate --mqtt 127.0.0.1:1883\n  fleetscore simulate --kafka 127.0.0.1:9092 --topic readings",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.output != "table" && s.output != "json" {
				return usagef("-o %s: write table or json", s.output)
			}
			made, err := s.run(cmd)
			if made != nil {
				if e := s.print(cmd, made); e != nil {
					return e
				}
			}
			return err
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
	f.DurationVar(&s.lasts, "for", 0, "without --out: end after this long; 0 goes on until Ctrl-C")
	f.StringVar(&s.out, "out", "", "file to write, .csv or .ndjson")
	f.StringVar(&s.hub, "hub", "hub", "hub to send to")
	f.StringVar(&s.mqtt, "mqtt", "", "send by MQTT to HOST:PORT, or mqtts://HOST:PORT with TLS")
	f.StringVar(&s.mqttTopic, "mqtt-topic", "devices/{Device}/{Tag}", "topic of messages by MQTT")
	f.StringSliceVar(&s.kafka, "kafka", nil, "send to these brokers of Kafka, HOST:PORT")
	f.StringVar(&s.topic, "topic", "readings", "topic of records to Kafka")
	f.Float64Var(&s.traffic.Dropped, "dropped", 0, "share of the readings that are never sent, 0 to 1")
	f.Float64Var(&s.traffic.Duplicates, "duplicates", 0, "share of the readings that are sent twice")
	f.Float64Var(&s.traffic.Late, "late", 0, "share of the readings that are sent late")
	f.DurationVar(&s.traffic.LateBy, "late-by", time.Minute, "how late")
	f.Float64Var(&s.traffic.Skewed, "skewed", 0, "share of the devices whose clocks are off")
	f.DurationVar(&s.traffic.SkewBy, "skew-by", -10*time.Minute, "by how much: negative if they are behind")
	f.DurationVar(&s.traffic.Burst, "burst", 0, "devices send what they collected for this long, all at the same time")
	f.StringVarP(&s.output, "output", "o", "table", "table or json")
	return cmd
}

// run makes the readings; what it made may be known although it failed.
func (s *simulation) run(cmd *cobra.Command) (*simulated, error) {
	if s.out != "" {
		if s.mqtt != "" || len(s.kafka) > 0 || s.last != 0 || s.lasts != 0 {
			return nil, usagef("--out writes a file: --mqtt, --kafka, --last and --for go without it")
		}
		return s.toFile(cmd.Context())
	}
	if s.from != "" || s.to != "" {
		return nil, usagef("--from and --to go with --out; to send, --last says how long ago to begin")
	}
	if s.mqtt != "" && len(s.kafka) > 0 {
		return nil, usagef("give --mqtt or --kafka, not both")
	}
	way, err := s.way(cmd)
	if err != nil {
		return nil, err
	}
	defer way.Close()
	return s.send(cmd.Context(), way, cmd.ErrOrStderr(), time.Now().Add(-s.last))
}

// way is how readings are sent.
func (s *simulation) way(cmd *cobra.Command) (device.Way, error) {
	if len(s.kafka) > 0 {
		return device.Kafka(s.kafka, s.topic)
	}
	c, err := dial(cmd)
	if err != nil || s.mqtt == "" {
		return overHTTP(c, s.hub), err
	}
	defer c.Close()
	address, secure := strings.CutPrefix(s.mqtt, "mqtts://")
	address = strings.TrimPrefix(address, "mqtt://")
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, usagef("--mqtt %s: write for example 127.0.0.1:1883 or mqtts://fleet.example.com:8883", s.mqtt)
	}
	token, trusted, err := c.Credentials()
	if !secure {
		trusted = nil
	}
	return device.MQTT(device.MQTTConfig{Address: address, TLS: trusted, Topic: s.mqttTopic, Token: token}), err
}

// overHTTP sends readings to a hub of a server.
func overHTTP(c *client.Client, hub string) device.Way {
	return device.HTTP(func(ctx context.Context, body []byte) error {
		return c.Send(ctx, http.MethodPost, "/hubs/"+url.PathEscape(hub)+"/messages", nil, "application/x-ndjson", bytes.NewReader(body), nil)
	})
}

// print says what was made.
func (s *simulation) print(cmd *cobra.Command, made *simulated) error {
	if s.output == "json" {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		return enc.Encode(made)
	}
	what := "sent and acknowledged"
	if s.out != "" {
		what = "in " + s.out
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s %s\n", plural(int(made.Acknowledged), "reading"), what)
	for _, x := range []struct {
		n    int64
		text string
	}{{made.Dropped, "never sent"}, {made.Duplicates, "copies"}, {made.Late, "sent late"}, {made.Skewed, "with wrong times"}, {made.Waiting, "not sent yet at the end"}} {
		if x.n > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "  %s %s\n", thousands(x.n), x.text)
		}
	}
	return nil
}

func (s *simulation) toFile(ctx context.Context) (*simulated, error) {
	to := time.Now().UTC().Truncate(time.Second)
	if s.to != "" {
		t, err := table.ParseTime(s.to)
		if err != nil {
			return nil, usagef("--to %s: not a time such as 2026-11-23T10:00:00Z", s.to)
		}
		to = t.Time()
	}
	from := to.Add(-time.Hour)
	if s.from != "" {
		t, err := table.ParseTime(s.from)
		if err != nil {
			return nil, usagef("--from %s: not a time such as 2026-11-23T10:00:00Z", s.from)
		}
		from = t.Time()
	}
	if err := (fleetscore.Interval{From: from, To: to}).Validate(); err != nil {
		return nil, err
	}
	fleet, err := simulator.New(s.cfg)
	if err != nil {
		return nil, err
	}
	if err := s.latePossible(to.Sub(from)); err != nil {
		return nil, err
	}
	sender, err := fleet.NewSender(s.traffic, from, to)
	if err != nil {
		return nil, err
	}
	folder, err := oneshot.OpenFolder(ctx, filepath.Dir(s.out))
	if err != nil {
		return nil, err
	}
	n := int64(0)
	_, err = folder.Write(ctx, filepath.Base(s.out), func(w io.Writer) error {
		b := bufio.NewWriterSize(w, 1<<20)
		ndjson := strings.HasSuffix(s.out, ".ndjson") || strings.HasSuffix(s.out, ".jsonl")
		if !ndjson {
			b.WriteString(simulator.CSVHeader)
		}
		var line []byte
		for r := range sender.Until(to) {
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
	if err != nil {
		return nil, err
	}
	return &simulated{sender.Injected(), n}, nil
}

// send sends readings when they are due, as devices do.
func (s *simulation) send(ctx context.Context, way device.Way, progress io.Writer, from time.Time) (*simulated, error) {
	fleet, err := simulator.New(s.cfg)
	if err != nil {
		return nil, err
	}
	from = from.UTC().Truncate(time.Millisecond)
	var end time.Time
	if s.lasts > 0 {
		if err := s.latePossible(s.lasts); err != nil {
			return nil, err
		}
		end = time.Now().UTC().Truncate(time.Millisecond).Add(s.lasts)
	}
	sender, err := fleet.NewSender(s.traffic, from, end)
	if err != nil {
		return nil, err
	}
	n, err := device.Run(ctx, sender, way, from, end, time.Now, progress)
	return &simulated{sender.Injected(), n}, err
}

// latePossible refuses late readings of which none could be sent before the end.
func (s *simulation) latePossible(lasts time.Duration) error {
	if by := s.traffic.Defaults().LateBy; s.traffic.Late > 0 && by >= lasts {
		return usagef("--late: no reading can be late by %v, because all are sent within %v; set --late-by to less, or --for to more", by, lasts)
	}
	return nil
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
