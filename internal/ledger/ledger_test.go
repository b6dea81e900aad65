package ledger

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// writerEnv makes the test binary a writer that TestSurvivesKill kills.
const writerEnv = "FLEETSCORE_LEDGER_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		writeForEver(path)
	}
	goleak.VerifyTestMain(m)
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func open(t *testing.T) *SQLite {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "ledger.db"))
}

func openAt(t *testing.T, path string) *SQLite {
	t.Helper()
	l, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	testkit.CloseLater(t, l)
	return l
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func job(id string) fleetscore.Job {
	return fleetscore.Job{ID: fleetscore.JobID(id), Pipeline: "p", State: fleetscore.JobWaiting, Config: fleetscore.PipelineConfig{Pool: "cpu"},
		Interval: fleetscore.Interval{From: noon.Add(-time.Hour), To: noon}, Created: noon}
}

// plan makes a job with n queued tasks.
func plan(t testing.TB, l Ledger, id string, n int) {
	t.Helper()
	j := job(id)
	if _, err := l.DecideSchedule(t.Context(), "p", func(v ScheduleView) (ScheduleDecision, error) {
		return ScheduleDecision{State: v.State, Job: &j}, nil
	}); err != nil {
		t.Fatal(err)
	}
	var tasks []PlannedTask
	for i := range n {
		tasks = append(tasks, PlannedTask{Task: fleetscore.Task{ID: fleetscore.TaskID(fmt.Sprintf("%s.%03d", id, i)), Job: j.ID, Index: i, State: fleetscore.TaskQueued, Keys: 1}})
	}
	if err := l.PlanJob(t.Context(), j, tasks); err != nil {
		t.Fatal(err)
	}
}

func TestOpenTwice(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a folder?", "100%#.db") // characters that mean something in a URL
	l := openAt(t, path)
	plan(t, l, "j1", 1)
	_, err := Open(t.Context(), path)
	if !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("a second Open = %v, want kind conflict, the process and what to do", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l2, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer l2.Close()
	if j, err := l2.Job(t.Context(), "j1"); err != nil || j.State != fleetscore.JobQueued || j.Tasks != 1 {
		t.Errorf("after reopening the job is %+v, %v", j, err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file lies elsewhere: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path); !fleetscore.Corrupt.Is(err) {
		t.Errorf("Open of other bytes = %v, want kind corrupt", err)
	}

	newer := filepath.Join(t.TempDir(), "ledger.db")
	l, err := Open(t.Context(), newer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.write.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)`); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), newer); !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), "newer release") {
		t.Errorf("Open of a newer ledger = %v, want kind conflict", err)
	}
}

// writeForEver makes jobs with tasks, and prints each id once it was told that
// the job is kept.
func writeForEver(path string) {
	ctx := context.Background()
	l, err := Open(ctx, path)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	existing, err := l.Jobs(ctx, JobFilter{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := len(existing); ; i++ {
		j := job(fmt.Sprintf("j%d", i))
		due := noon.Add(time.Duration(i) * time.Minute)
		_, err := l.DecideSchedule(ctx, "p", func(ScheduleView) (ScheduleDecision, error) {
			return ScheduleDecision{State: ScheduleState{Pipeline: "p", Created: noon, LastDue: due}, Job: &j,
				Occurrences: []fleetscore.Occurrence{{Pipeline: "p", Due: due, State: fleetscore.OccurrenceRan, Job: j.ID}}}, nil
		})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(j.ID)
	}
}

// TestSurvivesKill kills a writer at random moments: what it was told is kept is
// kept, and transactions are whole.
func TestSurvivesKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.db")
	kept := 0
	for round := range 4 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), writerEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if strings.HasPrefix(lines.Text(), "error") {
				t.Errorf("the writer says %s", lines.Text())
				break
			}
			kept++
			if n == 5+7*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed
		l, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		jobs := must[[]fleetscore.Job](t)(l.Jobs(t.Context(), JobFilter{}))
		occs := must[[]fleetscore.Occurrence](t)(l.Occurrences(t.Context(), "p", 1_000_000))
		s := must[ScheduleView](t)(l.Schedule(t.Context(), "p")).State
		// One more than acknowledged may be there: the kill came before the word.
		if len(jobs) < kept || len(jobs) > kept+1 || len(occs) != len(jobs) || !s.LastDue.Equal(occs[0].Due) {
			t.Errorf("round %d: %d jobs, %d occurrences, last due %s; %d were acknowledged", round, len(jobs), len(occs), s.LastDue, kept)
		}
		kept = len(jobs)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
