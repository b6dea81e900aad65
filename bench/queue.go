package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// runQueue compares our queue with River's; package bench/queue measures both.
func runQueue(ctx context.Context, b *bench) (*section, error) {
	tasks := 10_000
	if b.quick {
		tasks = 2_000
	}
	file := filepath.Join(b.scratch, "queue.json")
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "TestQueue$", "-count", "1", "-timeout", "60m", "./bench/queue")
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.root, os.Stderr, os.Stderr
	cmd.Env = append(os.Environ(), fmt.Sprintf("FLEETSCORE_QUEUE=%d,%d", tasks, b.repeats), "FLEETSCORE_QUEUE_OUT="+file)
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var r struct {
		SQLite, Postgres, Peer   []float64
		PostgresVersion, Workers int
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	samples := func(seconds []float64) (out []sample) {
		for _, s := range seconds {
			out = append(out, sample{Wall: s})
		}
		return out
	}
	t := grid{Caption: fmt.Sprintf("%s tasks that do nothing, %d at once at most, from the first submission until the last answer is taken. Fleetscore's and River's PostgreSQL %d is the same one, without waiting for the disk (fsync=off); SQLite waits for the disk.", thousands(int64(tasks)), r.Workers, r.PostgresVersion),
		Head: []string{"queue", "wall", "tasks a second", "River ÷ this, wall"}}
	for _, c := range []struct {
		name string
		took []float64
	}{{"Fleetscore on SQLite", r.SQLite}, {"Fleetscore on PostgreSQL", r.Postgres}, {"River on PostgreSQL", r.Peer}} {
		m := median(c.took)
		t.add(c.name, took(m), thousands(int64(float64(tasks)/m)), ratioOf(samples(c.took), samples(r.Peer), wallOf).String())
	}
	return &section{Tables: []grid{t}}, nil
}
