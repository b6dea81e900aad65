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
)

// daskWorkers is how many processes Dask's cluster has, one for each core that the figures
// are wanted for.
const daskWorkers = 2

// dask is a warm cluster that scores the fleet of a platform.
type dask struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	rows int64
	sum  int64 // of anomalies
}

// startDask starts a cluster of Dask over the files of a dataset.
func (b *bench) startDask(ctx context.Context, data, models, out string) (*dask, error) {
	cmd := exec.CommandContext(ctx, b.python, filepath.Join(b.root, "bench", "dask_job.py"), data, models, out, fmt.Sprint(daskWorkers))
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
