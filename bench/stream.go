package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// streamed is a result of bench/stream.
type streamed struct {
	Readings        int64
	Rate, Whole     float64 // readings a second
	CPUPerM         float64
	P50, P99        float64 // in ms
	Rows, Other     int64
	PeakMB          float64
	GeneratorCPU    float64
	Seconds, HeldMB float64
	Windows         int
}

// runStream measures readings from HTTP to Parquet files, by package bench/stream, and DuckDB, which
// makes the same rows from a file.
func runStream(ctx context.Context, b *bench) (*section, error) {
	load := filepath.Join(b.scratch, "stream")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", load, "./bench/stream")
	build.Dir, build.Stderr = b.root, os.Stderr
	if err := build.Run(); err != nil {
		return nil, err
	}
	readings := 20_000_000
	if b.quick {
		readings = 8_000_000
	}
	measure := func(args ...string) (streamed, error) { return b.stream(ctx, load, args) }
	size := func(keys, n int) []string {
		return []string{"-keys", strconv.Itoa(keys), "-readings", strconv.Itoa(n)}
	}
	t := grid{Caption: "Readings of 69 bytes, each sensor once a second of event time, one query that averages 5 s, so 5 readings make a row. The load is made beside the server, on the same processors. CPU is the server's alone. Medians of the runs.",
		Head: []string{"what", "readings a second", "CPU s per million", "p50", "p99", "peak memory"}}
	s := &section{}
	var first, few, many, single, arrays streamed
	mqtt := func(readings, message, inFlight int) []string {
		return append(size(10_000, readings), "-disorder", "120s", "-connections", "200", "-mqtt", strconv.Itoa(message), "-in-flight", strconv.Itoa(inFlight))
	}
	for _, c := range []struct {
		name string
		args []string
		into *streamed
	}{
		{"16 connections × 64 KB, 10,000 sensors", append(size(10_000, readings), "-disorder", "60s"), &first},
		{"64 connections × 8 KB, 10,000 sensors", append(size(10_000, readings/4), "-connections", "64", "-body", "8192", "-disorder", "60s"), new(streamed)},
		{"16 × 64 KB, 1,000 sensors", append(size(1000, readings), "-disorder", "600s"), &few},
		{"16 × 64 KB, 1,000,000 sensors", size(1_000_000, 2*readings), &many},
		{"MQTT, QoS 1, 200 connections × 16 messages of 1 reading, 10,000 sensors", mqtt(readings/20, 1, 16), &single},
		{"MQTT, QoS 1, 200 connections × 4 messages of 100 readings, 10,000 sensors", mqtt(readings, 100, 4), &arrays},
	} {
		var all []streamed
		for range max(1, b.repeats/3) {
			r, err := measure(c.args...)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			all = append(all, r)
		}
		r := medians(all)
		*c.into = r
		t.add(c.name, thousands(int64(r.Whole)), short(r.CPUPerM), short(r.P50)+" ms", short(r.P99)+" ms", short(r.PeakMB)+" MB")
		if c.name[:2] == "64" {
			s.Targets = append(s.Targets, atLeast("readings by HTTP to Parquet, 64 connections × 8 KB", 1e6, r.Whole, "/s", ""))
		}
	}
	s.Targets = append(s.Targets,
		atLeast("readings by HTTP to Parquet, 16 connections × 64 KB", 3e6, first.Whole, "/s", ""),
		atMost("the same, CPU time of the server", 0.5, first.CPUPerM, " s per million", ""),
		atMost("the same, 99 % of the acknowledgements", 25, first.P99, " ms", ""),
		atLeast("readings by MQTT, QoS 1, 200 connections, one reading a message", 40_000, single.Whole, "/s", ""),
		atLeast("the same, 100 readings a message", 1e6, arrays.Whole, "/s", ""),
		atMost("memory with a million sensors", 1073.7, many.PeakMB, " MB", ""),
		atMost("CPU time of a reading, a million sensors against 1,000", 1.5, many.CPUPerM/few.CPUPerM, "×", ""))
	duck, rows, err := b.duckStream(ctx, load, measure, readings)
	if err != nil {
		return nil, err
	}
	t.add("DuckDB "+duck.Version+", from a file to Parquet", thousands(int64(float64(readings)/duck.Wall)), short(duck.CPU/float64(readings)*1e6), "–", "–", "–")
	e, err := b.ekuiperStream(ctx, load)
	if err != nil {
		return nil, err
	}
	t.add("eKuiper 2.4.0, from a file, rows thrown away", thousands(int64(ekuiperReadings/e.Wall)), short(e.CPU/ekuiperReadings*1e6), "–", "–", "–")
	s.Tables = []grid{t}
	s.Notes = append(s.Notes, fmt.Sprintf("eKuiper reads %s readings of a file, once; it stores nothing, keeps its windows in memory, and its last window never closes.", thousands(ekuiperReadings)))
	s.Notes = append(s.Notes, fmt.Sprintf("DuckDB reads a file that lies in the system's cache, with the columns' types given; it receives and stores nothing, and has all readings before it begins. %s rows that Fleetscore had committed are those of DuckDB.", thousands(rows)))
	return s, nil
}

// stream runs one measurement; a reading that doesn't count is an error.
func (b *bench) stream(ctx context.Context, load string, args []string) (r streamed, err error) {
	cmd := exec.CommandContext(ctx, load, append([]string{"-binary", b.binary}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err == nil && r.Other != 0 {
		err = fmt.Errorf("%d readings didn't count", r.Other)
	}
	return r, err
}

// medians are those of each figure.
func medians(all []streamed) streamed {
	of := func(what func(streamed) float64) float64 {
		var v []float64
		for _, r := range all {
			v = append(v, what(r))
		}
		return median(v)
	}
	return streamed{Whole: of(func(r streamed) float64 { return r.Whole }), CPUPerM: of(func(r streamed) float64 { return r.CPUPerM }),
		P50: of(func(r streamed) float64 { return r.P50 }), P99: of(func(r streamed) float64 { return r.P99 }), PeakMB: of(func(r streamed) float64 { return r.PeakMB })}
}

// ekuiperStream measures eKuiper over fewer readings.
func (b *bench) ekuiperStream(ctx context.Context, load string) (r ekuiperRun, err error) {
	file := filepath.Join(b.scratch, "few", "readings.ndjson")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return r, err
	}
	if out, err := exec.CommandContext(ctx, load, "-keys", "10000", "-readings", strconv.Itoa(ekuiperReadings), "-write", file).CombinedOutput(); err != nil {
		return r, fmt.Errorf("%w\n%s", err, out)
	}
	return b.ekuiper(ctx, file)
}

// duckRun is an answer of windows.py.
type duckRun struct {
	CPU, Wall    float64
	Version      string
	Rows, Differ int64
}

// duckStream measures DuckDB, and compares its rows with those that Fleetscore makes of the same
// readings.
func (b *bench) duckStream(ctx context.Context, load string, measure func(...string) (streamed, error), readings int) (duckRun, int64, error) {
	var best duckRun
	args := []string{"-keys", "10000", "-readings", strconv.Itoa(readings), "-disorder", "60s"}
	file, dir := filepath.Join(b.scratch, "readings.ndjson"), filepath.Join(b.scratch, "stream-server")
	defer os.Remove(file)
	if out, err := exec.CommandContext(ctx, load, append(args, "-write", file)...).CombinedOutput(); err != nil {
		return best, 0, fmt.Errorf("%w\n%s", err, out)
	}
	if _, err := measure(append(args, "-dir", dir)...); err != nil {
		return best, 0, err
	}
	var rows int64
	for n := range max(1, b.repeats/3) {
		args := []string{filepath.Join(b.root, "bench", "windows.py"), file, filepath.Join(b.scratch, "rows.parquet")}
		if n == 0 {
			args = append(args, filepath.Join(dir, "server", "store", "data", "readings"))
		}
		cmd := exec.CommandContext(ctx, b.python, args...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return best, 0, fmt.Errorf("windows.py: %w", err)
		}
		var r duckRun
		if err := json.Unmarshal(out, &r); err != nil {
			return best, 0, err
		}
		if n == 0 {
			if rows = r.Rows; r.Differ > 0 || rows == 0 {
				return best, 0, fmt.Errorf("%d of %d rows differ from DuckDB's", r.Differ, rows)
			}
		}
		if n == 0 || r.CPU < best.CPU {
			best = r
		}
	}
	return best, rows, nil
}
