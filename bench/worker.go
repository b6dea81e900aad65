package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/fleetscore/fleetscore/sklearn"
)

// question is a line of JSON to a worker: this program with -worker, or peers.py.
// Both are processes that keep running and measure themselves.
type question struct {
	Op     string `json:"op"`               // run or answers; for peers.py also check or versions
	Set    string `json:"set,omitempty"`    // the name of the set of models
	Folder string `json:"folder,omitempty"` // the folder of the set
	What   string `json:"what,omitempty"`   // load, record, score or pack (record and score); for peers.py load, score, stacked or onnx
	Passes int    `json:"passes"`           // the number of passes through the set
	Models int    `json:"models,omitempty"` // the number of models, from the first on; 0 means all
	In     string `json:"in,omitempty"`
	Out    string `json:"out,omitempty"` // file for answers: predictions, then scores
}

// reply is a line of a worker.
type reply struct {
	CPU      float64           `json:"cpu"`  // seconds, of all threads
	Wall     float64           `json:"wall"` // seconds
	Units    float64           `json:"units"`
	Versions map[string]string `json:"versions"`
	Error    string            `json:"error"`
}

const rowsPerModel = 60

// worker is a process that answers questions.
type worker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startOurs starts this program as a worker with one of our kernels.
func (b *bench) startOurs(ctx context.Context, kernel string) (*worker, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, exe, "-worker")
	cmd.Env = append(os.Environ(), "FLEETSCORE_CPU="+kernel, "GOMAXPROCS=1")
	return startWorker(cmd)
}

// startPeer starts peers.py.
func (b *bench) startPeer(ctx context.Context) (*worker, error) {
	cmd := exec.CommandContext(ctx, b.python, filepath.Join(b.root, "bench", "peers.py"))
	cmd.Env = pythonEnv()
	return startWorker(cmd)
}

func startWorker(cmd *exec.Cmd) (*worker, error) {
	w := &worker{cmd: cmd}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = bufio.NewReader(out)
	if w.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return w, cmd.Start()
}

func (w *worker) ask(q question) (r reply, err error) {
	data, err := json.Marshal(q)
	if err != nil {
		return r, err
	}
	if _, err := w.in.Write(append(data, '\n')); err != nil {
		return r, err
	}
	line, err := w.out.ReadBytes('\n')
	if err != nil {
		return r, fmt.Errorf("%s: %w", filepath.Base(w.cmd.Path), err)
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return r, err
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

func (w *worker) stop() {
	w.in.Close()
	_ = w.cmd.Wait() // the worker's exit status doesn't matter
}

// work answers questions until the input ends.
func work(in io.Reader, out io.Writer) error {
	var s *modelSet
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return err
		}
		var r reply
		err := func() (err error) {
			if s == nil || s.name != q.Set {
				s = nil
				if s, err = openSet(q.Set, q.Folder); err != nil {
					return err
				}
			}
			if q.Op == "answers" {
				return s.answers(q)
			}
			r, err = s.measure(q)
			return err
		}()
		if err != nil {
			r.Error = err.Error()
		}
		data, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if _, err := out.Write(append(data, '\n')); err != nil {
			return err
		}
	}
	return lines.Err()
}

// modelSet holds models in every form, with 60 rows for each.
type modelSet struct {
	name              string
	files, records    [][]byte
	models            []*sklearn.Model
	rows              []float64
	features          int
	prediction, score []float64
	scratch           sklearn.Scratch
	record            sklearn.RecordReader
}

func openSet(name, dir string) (*modelSet, error) {
	data, err := os.ReadFile(filepath.Join(dir, "models.bin"))
	if err != nil {
		return nil, err
	}
	ends, err := os.ReadFile(filepath.Join(dir, "models.u64"))
	if err != nil {
		return nil, err
	}
	s := &modelSet{name: name, prediction: make([]float64, rowsPerModel), score: make([]float64, rowsPerModel)}
	if s.rows, err = readFloats(filepath.Join(dir, "rows.f64")); err != nil {
		return nil, err
	}
	for i := 8; i < len(ends); i += 8 {
		file := data[binary.LittleEndian.Uint64(ends[i-8:]):binary.LittleEndian.Uint64(ends[i:])]
		m, err := sklearn.Load(file)
		if err != nil {
			return nil, err
		}
		record, err := m.AppendRecord(nil)
		if err != nil {
			return nil, err
		}
		s.files, s.models, s.records = append(s.files, file), append(s.models, m), append(s.records, record)
	}
	s.features = len(s.rows) / rowsPerModel / len(s.models)
	return s, nil
}

// measure runs an operation several times.
func (s *modelSet) measure(q question) (reply, error) {
	n := len(s.files)
	if q.Models > 0 {
		n = min(n, q.Models)
	}
	runtime.GC()
	debug.FreeOSMemory()
	wall, cpu := time.Now(), cpuSeconds(syscall.RUSAGE_SELF)
	for range q.Passes {
		for i := range n {
			if err := s.one(q.What, i); err != nil {
				return reply{}, err
			}
		}
	}
	return reply{CPU: cpuSeconds(syscall.RUSAGE_SELF) - cpu, Wall: time.Since(wall).Seconds(), Units: float64(n * q.Passes)}, nil
}

func (s *modelSet) one(what string, i int) error {
	m := s.models[i]
	switch what {
	case "load":
		_, err := sklearn.Load(s.files[i])
		return err
	case "record":
		_, err := s.record.Read(s.records[i])
		return err
	case "pack":
		var err error
		if m, err = s.record.Read(s.records[i]); err != nil {
			return err
		}
	}
	size := rowsPerModel * s.features
	return m.PredictInto(s.rows[i*size:(i+1)*size], rowsPerModel, s.prediction, s.score, &s.scratch)
}

// answers writes the predictions of all rows, then their scores.
func (s *modelSet) answers(q question) error {
	n := len(s.files)
	if q.Models > 0 {
		n = min(n, q.Models)
	}
	var prediction, score []float64
	for i := range n {
		if err := s.one(q.What, i); err != nil {
			return err
		}
		prediction, score = append(prediction, s.prediction...), append(score, s.score...)
	}
	return writeFloats(q.Out, append(prediction, score...))
}

func cpuSeconds(who int) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		panic(err) // the argument is a constant
	}
	return seconds(u.Utime) + seconds(u.Stime)
}

func seconds(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

func readFloats(file string) ([]float64, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	out := make([]float64, len(data)/8)
	for i := range out {
		out[i] = math.Float64frombits(binary.LittleEndian.Uint64(data[8*i:]))
	}
	return out, nil
}

func writeFloats(file string, values []float64) error {
	data := make([]byte, 0, 8*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint64(data, math.Float64bits(v))
	}
	return os.WriteFile(file, data, 0o644)
}
