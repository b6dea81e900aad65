package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/fleet/folders"
	"github.com/fleetscore/fleetscore/internal/sandbox"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/store"
)

// result is how a run of the command ended.
type result struct {
	ended    map[int]scorer.Ended // of the sensors whose end the predictions tell
	err      error                // the end of all others; nil only if there are none
	timedOut bool
	fatal    error // the attempt can't go on
	took     time.Duration
}

// places are where a run finds its files.
type places struct {
	dir    string // the others, on the machine
	input  string // rows and models
	models string
	data   string // the file with rows
	own    string // the only folder that it may write to
	output string // what is kept of that
}

// run runs the command once.
func (s *session) run(ctx context.Context, sensors []int) (res result) {
	began := s.cfg.Now()
	defer func() { res.took = s.cfg.Now().Sub(began) }()
	p, err := s.lay(sensors)
	if p.dir != "" {
		defer func() {
			if err := os.RemoveAll(p.dir); err != nil {
				s.batch.Log("the files of the command can't be removed: %v", err)
			}
		}()
	}
	if err != nil {
		return result{fatal: fleetscore.Errorf(fleetscore.Unavailable, "write input of command", s.cfg.Work.Pipeline, "%w", err)}
	}
	args, env, workDir, err := s.arguments(sensors, p)
	if err != nil {
		return result{err: err}
	}
	out := &printed{subject: s.subject(sensors), hide: s.hide}
	stdout, stderr := &stream{to: out, log: s.batch.Print, form: "%s: %s"}, &stream{to: out, log: s.batch.Log, form: "%s printed: %s"}
	process, err := s.cfg.Sandbox.Prepare(sandbox.Spec{Path: s.path, Args: args, Env: env, WorkDir: workDir, Stdout: stdout, Stderr: stderr,
		Dir: p.own, Make: []string{"output"}, Keep: true, Read: append([]string{p.input}, s.read...), Write: s.write, DiskBytes: s.cfg.DiskMB << 20, Processes: s.cfg.Processes, MemoryBytes: s.cfg.MemoryMB << 20})
	if err != nil {
		return result{err: err}
	}
	defer process.Release()
	cause := s.wait(ctx, process, s.limit(len(sensors)))
	stdout.close()
	stderr.close()
	if ctx.Err() != nil {
		return result{fatal: context.Cause(ctx)}
	}
	if last := cmp.Or(stderr.last, stdout.last); cause.err != nil && !cause.timedOut && last != "" {
		cause.err = &ending{cause.err, last}
	}
	folder, err := process.Folder()
	if err != nil {
		return result{err: cmp.Or(cause.err, err), timedOut: cause.timedOut}
	}
	output, err := os.OpenRoot(filepath.Join(folder, "output"))
	if err != nil {
		return result{err: cmp.Or(cause.err, fmt.Errorf("the folder of the output can't be read: %w", err)), timedOut: cause.timedOut}
	}
	defer output.Close()
	if err := s.keep(ctx, sensors, output); err != nil {
		if fleetscore.Unavailable.Is(err) || ctx.Err() != nil {
			return result{fatal: err}
		}
		return result{err: cmp.Or(cause.err, err), timedOut: cause.timedOut}
	}
	if cause.err != nil {
		return cause
	}
	return s.judge(ctx, sensors, output)
}

// ending is why a command ended, with its last words.
type ending struct {
	error
	last string
}

func (e *ending) Error() string { return e.error.Error() + "; its last words: " + e.last }

// Unwrap gives the cause without them.
func (e *ending) Unwrap() error { return e.error }

// limit is how long a run may take.
func (s *session) limit(sensors int) time.Duration { return s.batch.Timeout * time.Duration(sensors) }

// subject is who a line of the log is about.
func (s *session) subject(sensors []int) string {
	if len(sensors) == 1 {
		return s.batch.Sensors[sensors[0]].Key.String()
	}
	return fmt.Sprintf("%d sensors", len(sensors))
}

// wait starts the process and waits for its end, which it brings about at the limit.
func (s *session) wait(ctx context.Context, p *sandbox.Process, limit time.Duration) (res result) {
	runtime.LockOSThread() // the kernel ends the process with the thread that started it
	defer runtime.UnlockOSThread()
	err := p.Cmd.Start()
	p.Started(err)
	if err != nil {
		return result{err: fmt.Errorf("the command can't be started: %w", err)}
	}
	defer context.AfterFunc(ctx, p.Kill)()
	timer := time.AfterFunc(limit, p.Kill)
	exit, err := p.Wait()
	intime := timer.Stop()
	p.Kill() // what it left behind, where it isn't isolated
	switch {
	case err != nil:
		return result{err: err}
	case !intime:
		return result{err: fmt.Errorf("not done after %s; raise limits.model_timeout if that is expected", limit), timedOut: true}
	case exit.Signal != 0:
		return result{err: &scorer.HarmError{Cause: fmt.Sprintf("the command was ended by signal %d (%s)", int(exit.Signal), exit.Signal)}}
	case exit.Code != 0:
		return result{err: fmt.Errorf("the command ended with exit code %d", exit.Code)}
	}
	return result{}
}

// keep stores the files of the output. The program made them, so nothing outside of the
// folder is reached through them.
func (s *session) keep(ctx context.Context, sensors []int, output *os.Root) error {
	prefix, left := "", s.cfg.DiskMB<<20
	if s.cfg.Per != fleetscore.CommandPerTask {
		for i, v := range s.batch.Sensors[sensors[0]].Key.Values() {
			prefix += url.PathEscape(s.batch.KeyNames[i]) + "=" + url.PathEscape(v) + "/"
		}
	}
	return fs.WalkDir(output.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("the output can't be read: %w", err)
		case d.IsDir():
			return nil
		case !d.Type().IsRegular():
			s.batch.Log("%s: %s of the output isn't kept, because it is no regular file", s.subject(sensors), name)
			return nil
		}
		full := prefix + name
		if err := store.CheckName(fleetscore.BlobName(full)); err != nil {
			return fmt.Errorf("the output holds a file that can't be kept: %w", err)
		}
		f, err := open(output, name)
		if err != nil {
			return fmt.Errorf("the output can't be read: %w", err)
		}
		st, err := f.Stat()
		if err != nil {
			return errors.Join(err, f.Close())
		}
		if left -= st.Size(); left < 0 { // files with holes take no room in the folder, but would in the store
			return errors.Join(fmt.Errorf("the output is larger than %d MB; raise command.disk_mb if that is expected", s.cfg.DiskMB), f.Close())
		}
		// Whoever sends it to the server would close the file itself.
		return errors.Join(s.cfg.Save(ctx, full, io.NewSectionReader(f, 0, st.Size())), f.Close())
	})
}

// open opens a file that the program made, which may be anything.
func open(output *os.Root, name string) (*os.File, error) {
	f, err := output.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would wait for a writer
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no regular file", name), f.Close())
	}
	return f, nil
}

// fileName is the name of a model's file without folders that lie outside.
func fileName(name string) string {
	if name = filepath.FromSlash(name); filepath.IsLocal(name) {
		return name
	}
	return filepath.Base(name)
}

// lay makes the folders of a run, with the rows and models.
func (s *session) lay(sensors []int) (p places, err error) {
	if p.dir, err = os.MkdirTemp(s.temp, "run-"); err != nil {
		return p, err
	}
	p.input, p.own = filepath.Join(p.dir, "input"), filepath.Join(p.dir, "own")
	p.models, p.output, p.data = filepath.Join(p.input, "models"), filepath.Join(p.own, "output"), filepath.Join(p.input, "readings."+cmp.Or(s.cfg.Input, fleetscore.CommandCSV))
	if err := errors.Join(os.MkdirAll(p.models, 0o755), os.Mkdir(p.own, 0o755)); err != nil {
		return p, err
	}
	for _, i := range sensors {
		m := s.batch.Sensors[i]
		file := filepath.Join(p.models, fileName(m.Name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return p, err
		}
		if err := writeModel(file, m.Model); err != nil {
			return p, err
		}
	}
	return p, write(p.data, func(f io.Writer) error { return s.writeRows(f, sensors) })
}

// writeModel writes a model as it was uploaded: as a file, or as a folder.
func writeModel(file string, data []byte) error {
	if folders.Is(data) {
		return folders.Unpack(data, file)
	}
	return write(file, func(f io.Writer) error {
		_, err := f.Write(data)
		return err
	})
}

// write writes a file that the command reads, as whoever it runs as.
func write(file string, text func(io.Writer) error) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(text(f), f.Close())
}
