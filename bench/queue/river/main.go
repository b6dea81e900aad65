// Command river is the peer of bench/queue: it puts jobs that do nothing into River's queue
// on PostgreSQL, works them, and prints how many seconds passed from the first insertion
// until the last one was complete. It is a module of its own, so that Fleetscore doesn't
// depend on River.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

type nothing struct {
	N int `json:"n"`
}

func (nothing) Kind() string { return "nothing" }

type worker struct {
	river.WorkerDefaults[nothing]
}

func (worker) Work(context.Context, *river.Job[nothing]) error { return nil }

func main() {
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "river:", err)
		os.Exit(1)
	}
}

// run works so many jobs on a database with as many workers as said.
func run(ctx context.Context, url, jobs, workers string) error {
	n, err := strconv.Atoi(jobs)
	if err != nil {
		return err
	}
	most, err := strconv.Atoi(workers)
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	known := river.NewWorkers()
	river.AddWorker(known, worker{})
	// The waits are those of River's own benchmark: the usual ones are made for less load.
	client, err := river.NewClient(driver, &river.Config{Workers: known, Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: most}},
		FetchCooldown: 2 * time.Millisecond, FetchPollInterval: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	completed, stop := client.SubscribeConfig(&river.SubscribeConfig{Kinds: []river.EventKind{river.EventKindJobCompleted}, ChanSize: n})
	defer stop()
	if err := client.Start(ctx); err != nil {
		return err
	}
	begun := time.Now()
	const atOnce = 1000
	for first := 0; first < n; first += atOnce {
		var some []river.InsertManyParams
		for i := first; i < min(first+atOnce, n); i++ {
			some = append(some, river.InsertManyParams{Args: nothing{i}})
		}
		if _, err := client.InsertMany(ctx, some); err != nil {
			return err
		}
	}
	for range n {
		<-completed
	}
	took := time.Since(begun)
	var left int
	if err := pool.QueryRow(ctx, `SELECT COUNT(*) FROM river_job WHERE state <> 'completed'`).Scan(&left); err != nil {
		return err
	}
	if left > 0 {
		return fmt.Errorf("%d jobs aren't complete", left)
	}
	fmt.Println(took.Seconds())
	return client.Stop(ctx)
}
