package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// platform is a running server.
type platform struct {
	b   *bench
	cmd *exec.Cmd
	dir string
	url string
}

const platformYAML = `
hub: {key: [Device, Tag], time: TS}
fleets:
  sensors: {path: %q, model: "model_{Device}_{Tag}"}
pools:
  cpu: {provider: local, slots: 2, scale: {min: 1, max: 1}}
  cold: {provider: local, slots: 1, scale: {min: 0, max: 1, idle_after: 1s}}
pipelines:
`

// runPlatform compares a job with the one-shot command and with a job of Dask, all from the same dataset. Every job
// has its own pipeline, so that no job replaces rows of another.
func runPlatform(ctx context.Context, b *bench) (_ *section, err error) {
	const count = 100_000
	models, data, pack, err := b.packedFleet(ctx, count)
	if err != nil {
		return nil, err
	}
	dir := b.fast()
	p := &platform{b: b, dir: filepath.Join(dir, "server")}
	if err := p.start(ctx, models, pipelines("p", "cpu", b.repeats+1)); err != nil {
		return nil, err
	}
	defer p.stop()
	if _, err := p.command(ctx, "dataset", "upload", "readings", data); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(p.dir, "store/data/readings/date=*/hour=*/*.parquet"))
	if err != nil {
		return nil, err
	}
	next := 0
	job := &contestant{name: "job, submitted to committed", whole: true, run: func(int) (sample, error) {
		next++
		return p.job(ctx, fmt.Sprintf("p%d", next-1), count)
	}}
	delta := filepath.Join(p.dir, "store/data/readings")
	parquet, csv := filepath.Join(dir, "parquet"), filepath.Join(dir, "csv")
	peer, err := b.startDask(ctx, delta, models, filepath.Join(dir, "dask"))
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := peer.close(); err == nil {
			err = e
		}
	}()
	cs := []*contestant{
		process(ctx, "score, Parquet", os.Environ(), b.scoreArgs(delta, pack, parquet, "--format", "parquet")...),
		process(ctx, "score, CSV", os.Environ(), b.scoreArgs(delta, pack, csv)...),
		{name: fmt.Sprintf("Dask, warm cluster of %d workers", daskWorkers), whole: true, once: true, run: func(int) (sample, error) { return peer.job() }},
		job,
	}
	got, err := duel(cs, b.repeats, 0)
	if err != nil {
		return nil, err
	}
	anomalies, err := p.equal(ctx, parquet)
	if err != nil {
		return nil, err
	}
	if peer.rows != count*rowsPerModel || peer.sum != anomalies {
		return nil, fmt.Errorf("the job has %d anomalies, but Dask has %d rows and %d anomalies", anomalies, peer.rows, peer.sum)
	}
	s := &section{}
	t := grid{Caption: fmt.Sprintf("%s sensors × 60 rows, packed models, from a dataset of %d files, in memory (/dev/shm). The job runs in a pool of one warm node with two slots; its CPU time is the sum of server and node.", thousands(count), len(files)),
		Head: []string{"what", "wall", "CPU", "this ÷ job, wall", "this ÷ job, CPU"}}
	for i, c := range cs {
		row := []string{c.name, took(median(pick(got[i], wallOf))), took(median(pick(got[i], cpuOf)))}
		if last := len(cs) - 1; i < last {
			row = append(row, ratioOf(got[last], got[i], wallOf).String(), ratioOf(got[last], got[i], cpuOf).String())
		} else {
			row = append(row, "–", "–")
		}
		t.add(row...)
	}
	s.Tables = []grid{t}
	s.Notes = append(s.Notes, "Job and command find the same number of rows and anomalies. A job writes Parquet files of predictions and of coverage, with the digest of each row's model, so it is compared with the command that writes Parquet. Dask has a task for each file of the dataset, is measured once after a job over one file, writes predictions without decision values, and keeps no account of sensors.")
	wall, cpu := ratioOf(got[0], got[3], wallOf), ratioOf(got[0], got[3], cpuOf)
	s.Targets = append(s.Targets, atMost("through the platform, from the same dataset, against the one-shot", 1.25, wall.Median, "×", fmt.Sprintf(" (CPU %s×)", short(cpu.Median))))
	return s, nil
}

func (p *platform) start(ctx context.Context, models, pipelines string, flags ...string) error {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf(platformYAML, models) + pipelines
	file := filepath.Join(p.b.scratch, "fleet.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	p.cmd = exec.CommandContext(ctx, p.b.binary, append([]string{"up", file, "--dir", p.dir, "--listen", "127.0.0.1:0"}, flags...)...)
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGINT) }
	p.cmd.WaitDelay = 10 * time.Second
	p.cmd.Env = append(os.Environ(), "FLEETSCORE_LOG_LEVEL=warn")
	out, err := p.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := regexp.MustCompile(`portal at (http://[^/, ]+)`).FindStringSubmatch(lines.Text()); m != nil {
			p.url = m[1]
			go func() { // the server must not wait for a reader of its output
				for lines.Scan() {
					fmt.Fprintln(os.Stderr, lines.Text())
				}
			}()
			return nil
		}
		fmt.Fprintln(os.Stderr, lines.Text())
	}
	return errors.New("the server did not start")
}

func (p *platform) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGINT) // it ended already
	_ = p.cmd.Wait()                         // its status is the signal's
}

func (p *platform) command(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, p.b.binary, append(args, "--server", p.url, "-o", "json")...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("fleetscore %s: %w\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.Bytes(), nil
}

// scored has the fields of a job that are used here.
type scored struct {
	Interval  struct{ From, To string } `json:"interval"`
	Created   time.Time                 `json:"created"`
	Started   time.Time                 `json:"started"`
	Ended     time.Time                 `json:"ended"`
	Rows      int64                     `json:"rows"`
	Anomalies int64                     `json:"anomalies"`
	Outcomes  map[string]int64          `json:"outcomes"`
}

// job runs a job and waits for its end. The first job also waits for the fleet's pack and for the
// node; it isn't counted.
func (p *platform) job(ctx context.Context, pipeline string, count int64, flags ...string) (s sample, err error) {
	before, err := p.cpu()
	if err != nil {
		return s, err
	}
	j, err := p.submit(ctx, pipeline, count, flags...)
	if err != nil {
		return s, err
	}
	after, err := p.cpu()
	return sample{CPU: after - before, Wall: j.Ended.Sub(j.Created).Seconds()}, err
}

// submit submits a job and waits for its end.
func (p *platform) submit(ctx context.Context, pipeline string, count int64, flags ...string) (j scored, err error) {
	out, err := p.command(ctx, append([]string{"job", "submit", pipeline, "--wait"}, flags...)...)
	if err != nil {
		return j, err
	}
	if err := json.Unmarshal(out, &j); err != nil {
		return j, err
	}
	if j.Rows != count*rowsPerModel || j.Outcomes["scored"] != count {
		return j, fmt.Errorf("%d rows, outcomes %v", j.Rows, j.Outcomes)
	}
	return j, nil
}

// equal compares the first job with a result of the command.
func (p *platform) equal(ctx context.Context, dir string) (anomalies int64, err error) {
	m, err := readManifest(dir)
	if err != nil {
		return 0, err
	}
	out, err := p.command(ctx, "job", "list", "--pipeline", "p0")
	if err != nil {
		return 0, err
	}
	var jobs []scored
	if err := json.Unmarshal(out, &jobs); err != nil {
		return 0, err
	}
	if len(jobs) != 1 || jobs[0].Rows != m.Rows || jobs[0].Anomalies != m.Anomalies {
		return 0, fmt.Errorf("the job has %+v, but the command has %d rows and %d anomalies", jobs, m.Rows, m.Anomalies)
	}
	return m.Anomalies, nil
}

// cpu returns the CPU seconds of the server and of what it started so far, or 0 without /proc.
func (p *platform) cpu() (float64, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	own, children := map[string]float64{}, map[string][]string{}
	for _, file := range stats {
		if parent, seconds, ok := processCPU(file); ok {
			pid := filepath.Base(filepath.Dir(file))
			own[pid], children[parent] = seconds, append(children[parent], pid)
		}
	}
	total := 0.0
	for todo := []string{strconv.Itoa(p.cmd.Process.Pid)}; len(todo) > 0; todo = append(todo[1:], children[todo[0]]...) {
		total += own[todo[0]]
	}
	return total, nil
}

// processCPU reads a file /proc/PID/stat: the time of the process and of its children that have
// ended. It isn't ok if the process itself has ended.
func processCPU(file string) (parent string, seconds float64, ok bool) {
	const ticks = 100 // per second; Linux always shows this unit to programs
	data, err := os.ReadFile(file)
	_, rest, _ := strings.Cut(string(data), ") ")
	f := strings.Fields(rest)
	if err != nil || len(f) < 15 {
		return "", 0, false
	}
	for _, field := range f[11:15] { // user and system, its own and its children's
		n, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return "", 0, false
		}
		seconds += n / ticks
	}
	return f[1], seconds, true
}
