package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// runOverhead measures what a job costs besides its scoring: a job of one task on a warm
// node, and a job that finds no node.
func runOverhead(ctx context.Context, b *bench) (*section, error) {
	const count = 10
	models, data, _, err := b.packedFleet(ctx, count)
	if err != nil {
		return nil, err
	}
	jobs := 3 * b.repeats
	p := &platform{b: b, dir: filepath.Join(b.fast(), "small")} // removed with the folder
	if err := p.start(ctx, models, pipelines("p", "cpu", jobs+1)+pipelines("c", "cold", jobs+1)); err != nil {
		return nil, err
	}
	defer p.stop()
	if _, err := p.command(ctx, "dataset", "upload", "readings", data); err != nil {
		return nil, err
	}
	var whole, wait []float64
	for n := range jobs + 1 {
		warm, err := p.submit(ctx, fmt.Sprint("p", n), count)
		if err != nil {
			return nil, err
		}
		if err := p.empty(ctx, "cold"); err != nil {
			return nil, err
		}
		cold, err := p.submit(ctx, fmt.Sprint("c", n), count)
		if err != nil {
			return nil, err
		}
		if n > 0 { // the first ones also wait for the fleet's pack and for the warm node
			whole = append(whole, warm.Ended.Sub(warm.Created).Seconds())
			wait = append(wait, cold.Started.Sub(cold.Created).Seconds())
		}
	}
	t := grid{Caption: fmt.Sprintf("%d jobs of each kind, %d sensors × 60 rows, one task, data in memory (/dev/shm).", jobs, count), Head: []string{"what", "median", "smallest", "largest"}}
	for _, r := range []struct {
		name string
		took []float64
	}{{"warm node, from the submission to the commit", whole}, {"no node, from the submission to the first task", wait}} {
		low, high := r.took[0], r.took[0]
		for _, v := range r.took {
			low, high = min(low, v), max(high, v)
		}
		t.add(r.name, took(median(r.took)), took(low), took(high))
	}
	return &section{Tables: []grid{t}, Targets: []target{
		atMost("job overhead: one task on a warm node, submitted to committed", 50, 1000*median(whole), " ms", ""),
		atMost("from no node to the first task, local nodes", 300, 1000*median(wait), " ms", ""),
	}}, nil
}

// pipelines are pipelines of a pool as text of fleet.yaml, so that no job replaces rows of
// another.
func pipelines(name, pool string, n int) string {
	var out strings.Builder
	for i := range n {
		fmt.Fprintf(&out, "  %s%d: {dataset: readings, fleet: sensors, features: [Value], pool: %s}\n", name, i, pool)
	}
	return out.String()
}

// empty waits until a pool has no node.
func (p *platform) empty(ctx context.Context, pool string) error {
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(100 * time.Millisecond) {
		out, err := p.command(ctx, "node", "list")
		if err != nil {
			return err
		}
		var nodes []struct {
			Pool  string `json:"pool"`
			State string `json:"state"`
		}
		if err := json.Unmarshal(out, &nodes); err != nil {
			return err
		}
		here := false
		for _, n := range nodes {
			here = here || n.Pool == pool && n.State != "stopped" && n.State != "lost"
		}
		if !here {
			return nil
		}
	}
	return fmt.Errorf("pool %s still has nodes after a minute", pool)
}
