package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// manifest has the fields of a run's manifest.json that are used here.
type manifest struct {
	Rows      int64              `json:"rows"`
	Anomalies int64              `json:"anomalies"`
	Outcomes  map[string]int64   `json:"outcomes"`
	Wall      map[string]float64 `json:"seconds"`
	CPU       map[string]float64 `json:"cpu_seconds"`
	Files     map[string]struct {
		SizeBytes int64  `json:"size_bytes"`
		SHA256    string `json:"sha256"`
	} `json:"files"`
}

func readManifest(dir string) (m manifest, err error) {
	data, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(data, &m)
}

// stages are the stages of score with their names in the manifest.
var stages = []string{"models", "reading", "scoring", "writing"}

const million = 1_000_000

// runMillion scores a million models. Data and results need about 7 GiB; they are in memory if
// 14 GiB are free.
func runMillion(ctx context.Context, b *bench) (*section, error) {
	models, err := b.fleetOf(ctx, million)
	if err != nil {
		return nil, err
	}
	numbers, err := readFloats(models + ".f64")
	if err != nil {
		return nil, err
	}
	s := &section{}
	pack := filepath.Join(b.scratch, "pack")
	packing, err := process(ctx, "model pack", os.Environ(), b.packArgs(models, pack)...).run(1)
	if err != nil {
		return nil, err
	}
	speed, err := diskSpeed(b.scratch)
	if err != nil {
		return nil, err
	}
	t := grid{Caption: "A million models (ref_1) × 60 rows: 60 million rows in the order of time from one CSV file, models from a pack, predictions to one CSV file. Whole processes are measured; the manifest has the times of the stages: wall time (CPU time).",
		Head: []string{"data and results in", "run", "wall", "CPU", "peak memory", "models", "reading", "scoring", "writing"}}
	var ram []sample
	var ramRuns []manifest
	var last manifest
	var agreed string
	if b.ram != "" && freeMemory() > 14<<30 {
		if ram, ramRuns, last, err = b.scoreMillion(ctx, &t, "memory", b.ram, pack, numbers, min(5, b.repeats)); err != nil {
			return nil, err
		}
		if agreed, err = b.checkMillion(ctx, models, filepath.Join(b.ram, "out")); err != nil {
			return nil, err
		}
		if err := os.RemoveAll(filepath.Join(b.ram, "out")); err != nil {
			return nil, err
		}
		os.Remove(filepath.Join(b.ram, "readings.csv"))
	}
	onDisk := filepath.Join(b.scratch, "disk")
	if err := os.Mkdir(onDisk, 0o755); err != nil {
		return nil, err
	}
	disk, diskRuns, m, err := b.scoreMillion(ctx, &t, "disk", onDisk, pack, numbers, 2)
	if err != nil {
		return nil, err
	}
	if ram == nil { // without a folder in memory, the disk's figures are used
		ram, ramRuns, last = disk, diskRuns, m
		if agreed, err = b.checkMillion(ctx, models, filepath.Join(onDisk, "out")); err != nil {
			return nil, err
		}
	}
	s.Tables = []grid{t}
	size := float64(m.Files["predictions.csv"].SizeBytes)
	s.Notes = append(s.Notes, agreed,
		fmt.Sprintf("The models' files were packed by `fleetscore model pack` in %s (%s CPU, %s of memory), once; all runs use this pack until models change.", took(packing.Wall), took(packing.CPU), mib(packing.Peak)),
		fmt.Sprintf("The predictions have %.2f GB. This disk writes %s MB/s with a sync at the end (measured with 1 GiB in the same run), so writing them takes at least %s.", size/1e9, short(speed/1e6), took(size/speed)))
	var loadWall, loadCPU []float64
	for _, m := range ramRuns {
		loadWall = append(loadWall, m.Wall["models"]+m.Wall["scoring"])
		loadCPU = append(loadCPU, m.CPU["models"]+m.CPU["scoring"])
	}
	cpu := median(pick(ram, cpuOf))
	s.Targets = append(s.Targets,
		atMost("1,000,000 models × 60 rows, packed, CSV to CSV, 2 cores", 10, median(pick(ram, wallOf)), " s", fmt.Sprintf(" (CPU %s, %s per core, %s per million rows)", took(cpu), took(cpu/float64(runtime.NumCPU())), took(cpu/float64(million*rowsPerModel)*1e6))),
		atMost("part of it: open models and score", 0.5, median(loadWall), " s", fmt.Sprintf(" (CPU %s; this includes grouping the rows by sensor)", took(median(loadCPU)))),
		atMost("peak memory of the same runs", 4, median(pick(ram, peakOf))/(1<<30), " GiB", ""))
	if m.Files["predictions.csv"].SHA256 != last.Files["predictions.csv"].SHA256 {
		return nil, fmt.Errorf("two runs wrote different predictions")
	}
	return s, nil
}

// scoreMillion scores several times with data and results in a folder.
func (b *bench) scoreMillion(ctx context.Context, t *grid, where, dir, pack string, numbers []float64, times int) (got []sample, by []manifest, m manifest, err error) {
	data, out := filepath.Join(dir, "readings.csv"), filepath.Join(dir, "out")
	if err := writeReadings(data, numbers); err != nil {
		return nil, nil, m, err
	}
	syscall.Sync() // otherwise the run would wait for data that was written before
	for i := range times {
		if err := os.RemoveAll(out); err != nil {
			return nil, nil, m, err
		}
		s, err := process(ctx, "score", os.Environ(), b.scoreArgs(data, pack, out)...).run(1)
		if err != nil {
			return nil, nil, m, err
		}
		if m, err = readManifest(out); err != nil {
			return nil, nil, m, err
		}
		if m.Rows != million*rowsPerModel || m.Outcomes["scored"] != million {
			return nil, nil, m, fmt.Errorf("%d rows, outcomes %v", m.Rows, m.Outcomes)
		}
		row := []string{where, strconv.Itoa(i + 1), took(s.Wall), took(s.CPU), gib(s.Peak)}
		for _, name := range stages {
			row = append(row, fmt.Sprintf("%s (%s)", took(m.Wall[name]), took(m.CPU[name])))
		}
		t.add(row...)
		got, by = append(got, s), append(by, m)
	}
	return got, by, m, nil
}

// checkMillion scores every 997th model with scikit-learn on the rows that a run wrote, and
// compares the results.
func (b *bench) checkMillion(ctx context.Context, models, out string) (string, error) {
	f, err := os.Open(filepath.Join(out, "predictions.csv"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	type answer struct{ prediction, score []float64 }
	sampled, order := map[string]*answer{}, []string{}
	keys, err := os.Create(filepath.Join(b.scratch, "sample.csv"))
	if err != nil {
		return "", err
	}
	defer keys.Close()
	n := 0
	err = eachLine(f, func(line []byte) error {
		f := bytes.SplitN(line, []byte(","), 7)
		device, err := strconv.Atoi(string(f[1]))
		if err != nil {
			return err
		}
		if i := (device-1)*tags + int(f[2][0]-'1'); i%997 != 0 || len(f[2]) > 1 {
			return nil
		}
		key := string(f[1]) + "," + string(f[2])
		a := sampled[key]
		if a == nil {
			a = &answer{}
			sampled[key], order = a, append(order, key)
		}
		p, err1 := strconv.ParseFloat(string(f[4]), 64)
		d, err2 := strconv.ParseFloat(string(f[5]), 64)
		if err1 != nil || err2 != nil {
			return fmt.Errorf("%q isn't a row", line)
		}
		a.prediction, a.score = append(a.prediction, p), append(a.score, d)
		n++
		_, err = fmt.Fprintf(keys, "%s,%s\n", key, f[3])
		return err
	})
	if err != nil {
		return "", err
	}
	peer, err := b.startPeer(ctx)
	if err != nil {
		return "", err
	}
	defer peer.stop()
	q := question{Op: "check", Folder: models, In: keys.Name(), Out: filepath.Join(b.scratch, "sample.f64")}
	if _, err := peer.ask(q); err != nil {
		return "", err
	}
	theirs, err := readFloats(q.Out)
	if err != nil || len(theirs) != 2*n {
		return "", fmt.Errorf("%d answers instead of %d: %w", len(theirs), 2*n, err)
	}
	at, most := 0, 0.0
	for _, key := range order {
		a := sampled[key]
		for i := range a.prediction {
			most = max(most, math.Abs(a.score[i]-theirs[n+at]))
			if 1-2*a.prediction[i] != theirs[at] || !(most <= 1e-12) {
				return "", fmt.Errorf("sensor %s, row %d: prediction %v, score %v; scikit-learn returns %v, %v", key, i, a.prediction[i], a.score[i], theirs[at], theirs[n+at])
			}
			at++
		}
	}
	return fmt.Sprintf("scikit-learn scored %s of the models on the rows that were written: the predictions of all %s rows are equal, and the scores differ by at most %.1g.", thousands(int64(len(order))), thousands(int64(n)), most), nil
}

// diskSpeed returns how many bytes per second a folder's disk writes, with the sync.
func diskSpeed(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "speed"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	const size = 1 << 30
	block := make([]byte, 64<<20)
	if _, err := rand.NewChaCha8([32]byte{}).Read(block); err != nil {
		return 0, err
	}
	began := time.Now()
	for range size / len(block) {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	return size / time.Since(began).Seconds(), nil
}

// freeMemory returns how many bytes of memory programs could still use, or 0 if this isn't known.
func freeMemory() int64 {
	data, _ := os.ReadFile("/proc/meminfo") // this file exists only on Linux
	for line := range strings.Lines(string(data)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	return 0
}
