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
	"strings"
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
func (b *bench) startWarm(ctx context.Context, script, data, models, out string) (*dask, error) {
	cmd := exec.CommandContext(ctx, b.python, filepath.Join(b.root, "bench", script), data, models, out, fmt.Sprint(daskWorkers))
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
// Python processes that somebody has written by hand, and with the same models in tasks of Dask.
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
	text := strings.ReplaceAll(pipelines("y", "cpu", b.repeats+1), "pool: cpu", "pool: cpu, runtime: python")
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
	contest := func(name, script string) (*contestant, error) {
		peer, err := b.startWarm(ctx, script, files, models, filepath.Join(b.fast(), strings.TrimSuffix(script, ".py")))
		if err != nil {
			return nil, err
		}
		peers = append(peers, peer)
		return &contestant{name: name, whole: true, passes: 1, run: func(int) (sample, error) { return peer.job() }}, nil
	}
	byHand, err := contest(fmt.Sprintf("a pool of %d processes, written by hand", daskWorkers), "pool.py")
	if err != nil {
		return nil, err
	}
	dask, err := contest(fmt.Sprintf("Dask, warm cluster of %d workers", daskWorkers), "dask_job.py")
	if err != nil {
		return nil, err
	}
	next := 0
	cs := []*contestant{{name: "job with runtime: python, submitted to committed", whole: true, passes: 1, run: func(int) (sample, error) {
		next++
		return p.job(ctx, fmt.Sprintf("y%d", next-1), count)
	}}, byHand, dask}
	got, err := duel(cs, b.repeats, 0)
	if err != nil {
		return nil, err
	}
	s := &section{}
	t := grid{Caption: fmt.Sprintf("%s models of files × 60 rows, from a dataset in memory (/dev/shm). The pool has one warm node with two slots. All processes are warm.", thousands(count)),
		Head: []string{"what", "wall", "this ÷ job, wall"}}
	for i, c := range cs {
		row := []string{c.name, took(median(pick(got[i], wallOf))), "–"}
		if i > 0 {
			row[2] = ratioOf(got[0], got[i], wallOf).String()
		}
		t.add(row...)
	}
	for _, peer := range peers {
		if peer.rows != count*rowsPerModel || peer.sum != peers[0].sum {
			return nil, fmt.Errorf("a peer has %d rows and %d anomalies, another one %d", peer.rows, peer.sum, peers[0].sum)
		}
	}
	s.Tables = []grid{t}
	s.Notes = append(s.Notes, "The job also commits its results and an outcome of each sensor, keeps logs, isolates its processes, and has a time limit for each model. The peers do none of that.")
	s.Targets = append(s.Targets, atLeast("warm Python against a pool of two processes written by hand", 0.9, ratioOf(got[0], got[1], wallOf).Median, "×", ""))
	return s, nil
}
