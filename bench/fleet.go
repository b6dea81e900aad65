package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tags is how many sensors a device of a generated fleet has. gen.py has the same number.
const tags = 10

// firstRow is the stamp of the first row of a generated fleet. The next rows follow every
// 5 seconds.
var firstRow = time.Date(2026, 11, 23, 10, 0, 5, 0, time.UTC)

const stampLayout = "2006-01-02 15:04:05.000"

// writeReadings writes 60 rows for each sensor of a fleet, in the order of time. The values
// are in a range that is a little wider than the range in training.
func writeReadings(file string, numbers []float64) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	if _, err := f.WriteString("TS,Device,Tag,Value\n"); err != nil {
		return err
	}
	blocks := make([]chan []byte, rowsPerModel)
	free := make(chan []byte, 2)
	free <- nil
	free <- nil
	for t := range blocks {
		blocks[t] = make(chan []byte, 1)
	}
	go func() {
		for t := range blocks {
			buf := <-free
			go func() { blocks[t] <- appendTick(buf[:0], t, numbers) }()
		}
	}()
	for _, b := range blocks {
		buf := <-b
		if err == nil {
			_, err = f.Write(buf)
		}
		free <- buf
	}
	return err
}

// appendTick appends the rows of one stamp.
func appendTick(out []byte, t int, numbers []float64) []byte {
	r := rand.New(rand.NewPCG(uint64(t), 7))
	stamp := firstRow.Add(time.Duration(t) * 5 * time.Second).Format(stampLayout)
	for i := 0; 2*i < len(numbers); i++ {
		out = append(out, stamp...)
		out = append(out, ',')
		out = strconv.AppendInt(out, int64(i/tags+1), 10)
		out = append(out, ',')
		out = strconv.AppendInt(out, int64(i%tags+1), 10)
		out = append(out, ',')
		out = strconv.AppendFloat(out, numbers[2*i]+1.3*numbers[2*i+1]*r.NormFloat64(), 'f', 2, 64)
		out = append(out, '\n')
	}
	return out
}

// process returns a contestant that starts a command for each measurement.
func process(ctx context.Context, name string, env []string, args ...string) *contestant {
	return &contestant{name: name, whole: true, run: func(int) (sample, error) {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = env
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		began := time.Now()
		if err := cmd.Run(); err != nil {
			return sample{}, fmt.Errorf("%w\n%s", err, out.String())
		}
		return sampleOf(cmd.ProcessState, time.Since(began)), nil
	}}
}

func sampleOf(p *os.ProcessState, wall time.Duration) sample {
	s := sample{CPU: (p.UserTime() + p.SystemTime()).Seconds(), Wall: wall.Seconds()}
	if u, ok := p.SysUsage().(*syscall.Rusage); ok {
		s.Peak = float64(u.Maxrss)
		if runtime.GOOS != "darwin" {
			s.Peak *= 1024
		}
	}
	return s
}

// scoreArgs returns the arguments of the command that scores a generated fleet.
func (b *bench) scoreArgs(data, models, out string, more ...string) []string {
	return append([]string{b.binary, "score", "--data", data, "--models", models, "--model", "model_{Device}_{Tag}", "--key", "Device,Tag",
		"--time", "TS", "--feature", "Value", "--out", out}, more...)
}

func (b *bench) packArgs(models, out string) []string {
	return []string{b.binary, "model", "pack", models, "--model", "model_{Device}_{Tag}", "--key", "Device,Tag", "--out", out}
}

// fast returns a folder for data that should not be slowed down by the disk.
func (b *bench) fast() string {
	if b.ram != "" {
		return b.ram
	}
	return b.scratch
}

func gib(bytes float64) string { return fmt.Sprintf("%.2f GiB", bytes/(1<<30)) }
func mib(bytes float64) string { return fmt.Sprintf("%.0f MiB", bytes/(1<<20)) }

// packedFleet makes a fleet's models, a CSV file of readings and a pack; it returns
// their paths.
func (b *bench) packedFleet(ctx context.Context, count int) (models, data, pack string, err error) {
	if models, err = b.fleetOf(ctx, count); err != nil {
		return "", "", "", err
	}
	numbers, err := readFloats(models + ".f64")
	if err != nil {
		return "", "", "", err
	}
	data, pack = filepath.Join(b.fast(), "readings.csv"), filepath.Join(b.fast(), "pack")
	if err = writeReadings(data, numbers); err != nil {
		return "", "", "", err
	}
	_, err = process(ctx, "model pack", os.Environ(), b.packArgs(models, pack)...).run(1)
	return models, data, pack, err
}

func runFleet(ctx context.Context, b *bench) (*section, error) {
	count := 20_000
	if b.quick {
		count = 2_000
	}
	models, data, pack, err := b.packedFleet(ctx, count)
	if err != nil {
		return nil, err
	}
	dir := b.fast()
	env := os.Environ()
	script := filepath.Join(b.root, "bench", "script.py")
	out := func(name string) string { return filepath.Join(dir, name) }
	cs := []*contestant{
		process(ctx, "score, a file per model", env, b.scoreArgs(data, models, out("files"))...),
		process(ctx, "score, packed models", env, b.scoreArgs(data, pack, out("packed"))...),
		process(ctx, "score, packed models, to disk", env, b.scoreArgs(data, pack, filepath.Join(b.scratch, "packed"))...),
		process(ctx, "script, one process", pythonEnv(), b.python, script, data, models, out("script1.csv")),
		process(ctx, "script, two processes", pythonEnv(), b.python, script, data, models, out("script2.csv"), "2"),
	}
	got, err := duel(cs, b.repeats, 0)
	if err != nil {
		return nil, err
	}
	var agreed string
	for _, mine := range []string{"files", "packed"} {
		if agreed, err = sameFleet(count, out(mine+"/predictions.csv"), out("script1.csv"), out("script2.csv")); err != nil {
			return nil, err
		}
	}
	alone, err := b.aProcessPerModel(ctx, models, data)
	if err != nil {
		return nil, err
	}
	return fleetReport(count, cs, got, agreed, alone), nil
}

func fleetReport(count int, cs []*contestant, got [][]sample, agreed string, alone sample) *section {
	s := &section{}
	t := grid{Caption: fmt.Sprintf("%s models (ref_1) × 60 rows, from a CSV file to a CSV file: whole processes are measured, from start to end. `script.py` reads with pandas, groups, loads, predicts, concatenates and writes. Data and results are in memory (/dev/shm), except where the table says disk.", thousands(int64(count))),
		Head: []string{"what", "wall", "CPU", "CPU-s per million rows", "peak memory", "script ÷ this, wall", "script ÷ this, CPU", "two processes ÷ this, wall"}}
	one, two := got[3], got[4]
	for i, c := range cs {
		r := func(peer []sample, what func(sample) float64) string {
			if i >= 3 {
				return "–"
			}
			return ratioOf(got[i], peer, what).String()
		}
		t.add(c.name, took(median(pick(got[i], wallOf))), took(median(pick(got[i], cpuOf))), short(median(pick(got[i], cpuOf))/float64(count*rowsPerModel)*1e6),
			mib(median(pick(got[i], peakOf))), r(one, wallOf), r(one, cpuOf), r(two, wallOf))
	}
	s.Tables = []grid{t}
	s.Notes = append(s.Notes, agreed)
	files, packed := ratioOf(got[0], one, wallOf), ratioOf(got[1], one, wallOf)
	each := median(pick(got[0], wallOf)) / float64(count)
	s.Notes = append(s.Notes, fmt.Sprintf("The reference architecture starts a process for each model. Such a process (`one.py`: pandas, one model, its 60 rows) takes %s of wall time and %s of CPU time; `score` with a file per model takes %s of wall time for each model.",
		took(alone.Wall), took(alone.CPU), took(each)))
	s.Targets = append(s.Targets,
		atLeast("CSV to CSV, fleet of small models, against the pandas script, a file per model", 100, files.Median, "×", fmt.Sprintf(" (CPU %s×)", short(ratioOf(got[0], one, cpuOf).Median))),
		atLeast("the same, packed models", 200, packed.Median, "×", fmt.Sprintf(" (CPU %s×)", short(ratioOf(got[1], one, cpuOf).Median))),
		atLeast("cost against a process per model", 1e5, alone.Wall/each, "×", ""))
	return s
}

// aProcessPerModel measures a process that scores one sensor.
func (b *bench) aProcessPerModel(ctx context.Context, models, data string) (sample, error) {
	in, err := os.Open(data)
	if err != nil {
		return sample{}, err
	}
	defer in.Close()
	one := filepath.Join(b.scratch, "one.csv")
	var rows bytes.Buffer
	rows.WriteString("TS,Device,Tag,Value\n")
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if f := strings.Split(lines.Text(), ","); len(f) == 4 && f[1] == "1" && f[2] == "1" {
			fmt.Fprintln(&rows, lines.Text())
		}
	}
	if err := os.WriteFile(one, rows.Bytes(), 0o644); err != nil {
		return sample{}, err
	}
	c := process(ctx, "one.py", pythonEnv(), b.python, filepath.Join(b.root, "bench", "one.py"), one, filepath.Join(models, "model_1_1"), filepath.Join(b.scratch, "one-out.csv"))
	got, err := duel([]*contestant{c}, min(5, b.repeats), 0)
	if err != nil {
		return sample{}, err
	}
	return sample{Wall: median(pick(got[0], wallOf)), CPU: median(pick(got[0], cpuOf))}, nil
}

// sameFleet compares predictions, in any order of the rows.
func sameFleet(count int, ours string, peers ...string) (string, error) {
	mine, values, err := fleetPredictions(count, ours)
	if err != nil {
		return "", err
	}
	anomalies := 0
	for _, p := range mine {
		anomalies += int(p)
	}
	for _, file := range peers {
		theirs, v, err := fleetPredictions(count, file)
		if err != nil {
			return "", err
		}
		for i := range mine {
			if mine[i] != theirs[i] || values[i] != v[i] {
				return "", fmt.Errorf("%s: sensor %d, row %d: prediction %d of %v, %s has %d of %v", ours, i/rowsPerModel, i%rowsPerModel, mine[i], values[i], file, theirs[i], v[i])
			}
		}
	}
	return fmt.Sprintf("The predictions of all %s rows are equal; %s of them are anomalies.", thousands(int64(len(mine))), thousands(int64(anomalies))), nil
}

// fleetPredictions reads a CSV file of predictions: one for each sensor and stamp.
func fleetPredictions(count int, file string) (prediction []int8, value []float64, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	prediction, value = make([]int8, count*rowsPerModel), make([]float64, count*rowsPerModel)
	for i := range prediction {
		prediction[i] = -1
	}
	n := 0
	err = eachLine(f, func(line []byte) error {
		f := bytes.Split(line, []byte(","))
		at, err := time.Parse(stampLayout, string(f[0]))
		device, err1 := strconv.Atoi(string(f[1]))
		tag, err2 := strconv.Atoi(string(f[2]))
		v, err3 := strconv.ParseFloat(string(f[3]), 64)
		if err != nil || err1 != nil || err2 != nil || err3 != nil {
			return fmt.Errorf("%s: %q isn't a row", file, line)
		}
		i := ((device-1)*tags+tag-1)*rowsPerModel + int(at.Sub(firstRow)/(5*time.Second))
		if i < 0 || i >= len(prediction) || prediction[i] >= 0 {
			return fmt.Errorf("%s: %q occurs twice, or doesn't belong to this fleet", file, line)
		}
		prediction[i], value[i] = int8(f[4][0]-'0'), v
		n++
		return nil
	})
	if err == nil && n != len(prediction) {
		err = fmt.Errorf("%s: %d rows instead of %d", file, n, len(prediction))
	}
	return prediction, value, err
}

// eachLine calls do for each line after the first.
func eachLine(r io.Reader, do func(line []byte) error) error {
	lines := bufio.NewScanner(bufio.NewReaderSize(r, 1<<20))
	lines.Scan()
	for lines.Scan() {
		if err := do(lines.Bytes()); err != nil {
			return err
		}
	}
	return lines.Err()
}
