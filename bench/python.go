package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// daskWorkers is how many processes Dask's cluster has, one for each core that the figures
// are wanted for.
const daskWorkers = 2

// dask is a warm cluster, or other warm processes, that score the fleet of a platform.
type dask struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	rows int64
	sum  int64 // of anomalies
}

// startDask starts a cluster of Dask over the files of a dataset.
func (b *bench) startDask(ctx context.Context, data, models, out string) (*dask, error) {
	return b.startWarm(ctx, "dask_job.py", data, models, out)
}

// startWarm starts processes over the files of a dataset, which stay warm from job to job.
func (b *bench) startWarm(ctx context.Context, script, data, models, out string, before ...string) (*dask, error) {
	args := append([]string{filepath.Join(b.root, "bench", script)}, before...)
	cmd := exec.CommandContext(ctx, b.python, append(args, data, models, out, fmt.Sprint(daskWorkers))...)
	cmd.Env, cmd.Stderr = pythonEnv(), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	read, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &dask{cmd: cmd, in: in, out: bufio.NewReader(read)}, cmd.Start()
}

// job runs the job once.
func (d *dask) job() (s sample, err error) {
	if _, err := fmt.Fprintln(d.in, "run"); err != nil {
		return s, err
	}
	_, err = fmt.Fscan(d.out, &s.Wall, &s.CPU, &d.rows, &d.sum)
	return s, err
}

// close ends the cluster.
func (d *dask) close() error { return errors.Join(d.in.Close(), d.cmd.Wait()) }

// runPython compares a job whose models are scored by warm Python processes with a pool of
// Python processes that somebody has written by hand, and with the same models in tasks of Dask
// and Ray.
// All read the same dataset, load each model from its file, and write Parquet.
func runPython(ctx context.Context, b *bench) (_ *section, err error) {
	count := int64(5_000)
	if b.quick {
		count = 1_000
	}
	models, data, _, err := b.packedFleet(ctx, int(count))
	if err != nil {
		return nil, err
	}
	p := &platform{b: b, dir: filepath.Join(b.fast(), "python")} // removed with the folder
	text := strings.ReplaceAll(pipelines("y", "cpu", 1), "pool: cpu", "pool: cpu, runtime: python")
	if err := p.start(ctx, models, text, "--python", b.python); err != nil {
		return nil, err
	}
	defer p.stop()
	if _, err := p.command(ctx, "dataset", "upload", "readings", data); err != nil {
		return nil, err
	}
	files := filepath.Join(p.dir, "store/data/readings")
	var peers []*dask
	defer func() {
		for _, peer := range peers {
			if e := peer.close(); err == nil {
				err = e
			}
		}
	}()
	// Pipelines share no processes: the first job of this one starts those that all others find warm.
	first, err := p.submit(ctx, "y0", count)
	if err != nil {
		return nil, err
	}
	cs := []*contestant{{name: "job with runtime: python, submitted to committed", whole: true, passes: 1, run: func(int) (sample, error) {
		return p.job(ctx, "y0", count, "--again", "--from", first.Interval.From, "--to", first.Interval.To)
	}}}
	for _, c := range []struct {
		name, script string
		before       []string
	}{{"a pool of %d processes, written by hand", "pool.py", nil}, {"Dask, %d workers, a task for each file", "dask_job.py", nil},
		{"Dask, %d workers, a task for each model", "each.py", []string{"dask"}}, {"Ray, %d workers, a task for each model", "each.py", []string{"ray"}}} {
		peer, err := b.startWarm(ctx, c.script, files, models, filepath.Join(b.fast(), fmt.Sprintf("peer-%d", len(peers))), c.before...)
		if err != nil {
			return nil, err
		}
		peers = append(peers, peer)
		cs = append(cs, &contestant{name: fmt.Sprintf(c.name, daskWorkers), whole: true, passes: 1, run: func(int) (sample, error) { return peer.job() }})
	}
	got, err := duel(cs, b.repeats, 0)
	if err != nil {
		return nil, err
	}
	s := &section{}
	t := grid{Caption: fmt.Sprintf("%s models of files × 60 rows, from a dataset in memory (/dev/shm). The pool has one warm node with two slots. All processes are warm.", thousands(count)),
		Head: []string{"what", "wall", "CPU", "this ÷ job, wall", "this ÷ job, CPU"}}
	for i, c := range cs {
		wall, cpu := "–", "–"
		if i > 0 {
			wall, cpu = ratioOf(got[0], got[i], wallOf).String(), ratioOf(got[0], got[i], cpuOf).String()
		}
		t.add(c.name, took(median(pick(got[i], wallOf))), took(median(pick(got[i], cpuOf))), wall, cpu)
	}
	for _, peer := range peers {
		if peer.rows != count*rowsPerModel || peer.sum != peers[0].sum {
			return nil, fmt.Errorf("a peer has %d rows and %d anomalies, another one %d", peer.rows, peer.sum, peers[0].sum)
		}
	}
	s.Tables = []grid{t}
	s.Notes = append(s.Notes, "The job also commits its results and an outcome of each sensor, keeps logs, isolates its processes, and has a time limit for each model. The peers do none of that.")
	s.Targets = append(s.Targets, atLeast("warm Python against a pool of two processes written by hand", 0.9, ratioOf(got[0], got[1], wallOf).Median, "×", fmt.Sprintf(" (CPU %s×)", short(ratioOf(got[0], got[1], cpuOf).Median))))
	for i, name := range []string{"Dask", "Ray"} {
		each := got[3+i]
		s.Targets = append(s.Targets, atLeast("warm Python against a task for each model in "+name, 5, ratioOf(got[0], each, wallOf).Median, "×", fmt.Sprintf(" (CPU %s×)", short(ratioOf(got[0], each, cpuOf).Median))))
	}
	return s, nil
}

// mixedLimit is how long a model of the mixed fleet may take.
const mixedLimit = 2 * time.Second

// runMixed compares a job over a fleet in which some models end their process, never end or take all
// memory, with a job over the good models alone.
func runMixed(ctx context.Context, b *bench) (_ *section, err error) {
	count := 5_000
	if b.quick {
		count = 1_000
	}
	models, data, _, err := b.packedFleet(ctx, count)
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(b.scratch, "mixed")
	cmd := exec.CommandContext(ctx, b.python, "-B", filepath.Join(b.root, "bench", "mixed.py"), models, folder)
	cmd.Env, cmd.Stderr = pythonEnv(), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	first, kinds, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	good, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("mixed.py says %q", out)
	}
	var cs []*contestant
	for i, c := range []struct{ folder, name string }{{"good", "the good models alone"}, {"mixed", "all models"}} {
		p := &platform{b: b, dir: filepath.Join(b.fast(), c.folder)}
		text := fmt.Sprintf("  y0: {dataset: readings, fleet: sensors, features: [Value], pool: cpu, runtime: python, python: {code: %q}, limits: {model_timeout: %s, tries: 1, quarantine_after: 100, failed: 100%%, no_model: 100%%}}\n",
			filepath.Join(b.root, "bench", "odd.py"), mixedLimit)
		if err := p.start(ctx, filepath.Join(folder, c.folder), text, "--python", b.python); err != nil {
			return nil, err
		}
		defer p.stop()
		if _, err := p.command(ctx, "dataset", "upload", "readings", data); err != nil {
			return nil, err
		}
		j, err := p.submit(ctx, "y0", good)
		if err != nil {
			return nil, err
		}
		if bad := j.Outcomes["failed"] + j.Outcomes["timed_out"]; bad != int64(i)*(int64(count)-good) {
			return nil, fmt.Errorf("%s: outcomes %v of %d good models", c.name, j.Outcomes, good)
		}
		cs = append(cs, &contestant{name: c.name, whole: true, passes: 1, run: func(int) (sample, error) {
			return p.job(ctx, "y0", good, "--again", "--from", j.Interval.From, "--to", j.Interval.To)
		}})
	}
	got, err := duel(cs, b.repeats, 0)
	if err != nil {
		return nil, err
	}
	allowed := make([]sample, len(got[0]))
	for i, s := range got[0] {
		allowed[i] = sample{CPU: s.CPU + mixedLimit.Seconds(), Wall: s.Wall + mixedLimit.Seconds()}
	}
	t := grid{Caption: fmt.Sprintf("%s sensors × 60 rows, runtime: python: %s. A model may take %s.", thousands(int64(count)), kinds, mixedLimit), Head: []string{"job", "wall", "CPU"}}
	for i, c := range cs {
		t.add(c.name, took(median(pick(got[i], wallOf))), took(median(pick(got[i], cpuOf))))
	}
	r := ratioOf(allowed, got[1], wallOf)
	return &section{Tables: []grid{t}, Notes: []string{"Each job has the outcome that is expected of each kind. The job over all models may take as long as the other one and the time limit of the model that never ends."},
		Targets: []target{atMost("a job with models that do harm against its good models alone, plus the limit", 1.3, r.Median, "×", fmt.Sprintf(" (CPU %s×)", short(ratioOf(allowed, got[1], cpuOf).Median)))}}, nil
}
