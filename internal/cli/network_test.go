package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestTwoMachines: a server on one machine, agents on another, and a link between them
// that is cut in the middle of a job for so long that the server gives the agents up:
// when the link is back, each sensor has one outcome and each row one prediction.
func TestTwoMachines(t *testing.T) {
	t.Parallel()
	net := testkit.NewNetwork(t)
	dir := t.TempDir()
	const sensors, rowsEach = 30_000, 5
	writeWideFleet(t, dir, sensors, rowsEach)
	address := net.Address(0) + ":7180"
	start := func(machine int, env []string, args ...string) (*exec.Cmd, *logText) {
		t.Helper()
		cmd, log := net.On(machine, os.Args[0], args...), &logText{}
		cmd.Env = append(append(os.Environ(), asCommand+"=1"), env...)
		cmd.Stderr = log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			_ = cmd.Wait()                          // the signal's
			if t.Failed() {
				t.Logf("%v:\n%s", args, log)
			}
		})
		return cmd, log
	}
	run := func(args ...string) (string, error) {
		cmd := net.On(0, os.Args[0], append(args, "--server=http://"+address)...)
		cmd.Env = append(os.Environ(), asCommand+"=1")
		out, err := cmd.Output()
		return string(out), err
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := run(args...)
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return out
	}
	start(0, nil, "up", filepath.Join(dir, "fleet.yaml"), "--dir", filepath.Join(dir, "data"), "--listen", address, "--insecure-http")
	eventually(t, "the server answers", func() bool { _, err := run("pool", "list"); return err == nil })
	must("dataset", "upload", "rows", filepath.Join(dir, "rows.csv"))
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(must("token", "create", "node", "lab")), 0o600); err != nil {
		t.Fatal(err)
	}
	submitted := must("job", "submit", "p", "-o", "csv")
	id, _, _ := strings.Cut(strings.Split(submitted, "\n")[1], ",")
	job := func() (j fleetscore.Job) {
		t.Helper()
		if err := json.Unmarshal([]byte(must("job", "show", id, "-o", "json")), &j); err != nil {
			t.Fatal(err)
		}
		return j
	}
	var agents []*exec.Cmd
	for range 2 {
		a, _ := start(1, []string{"FLEETSCORE_NODE_TOKEN_FILE=" + token}, "node", "--pool", "lab", "--server", "http://"+address)
		agents = append(agents, a)
	}
	signal := func(s syscall.Signal) {
		for _, a := range agents {
			_ = a.Process.Signal(s) // it runs until the test ends
		}
	}
	// The agents run in short pieces, so that the job isn't finished before anybody
	// sees that its first task is.
	eventually(t, "a task is done", func() bool {
		signal(syscall.SIGCONT)
		time.Sleep(20 * time.Millisecond)
		signal(syscall.SIGSTOP)
		return job().TasksEnded > 0
	})
	net.Cut()
	if j := job(); j.State.Ended() {
		t.Fatalf("the job was %s before the link was cut", j.State)
	}
	signal(syscall.SIGCONT)
	eventually(t, "the server gives the agents up", func() bool { return strings.Count(must("node", "list", "-o", "csv"), ",lost,") == 2 })
	net.Join()
	eventually(t, "the job is done", func() bool { return job().State.Ended() })
	j := job()
	if j.State != fleetscore.JobSucceeded || j.Outcomes[fleetscore.Scored] != sensors || j.Rows != sensors*rowsEach {
		t.Errorf("the job is %s (%s) with %v and %d rows", j.State, j.Reason, j.Outcomes, j.Rows)
	}
	checkOnce(t, filepath.Join(dir, "data", "store"), j, sensors*rowsEach, sensors)
}

// checkOnce reads predictions and coverage: each row and each sensor is there once.
func checkOnce(t *testing.T, dir string, j fleetscore.Job, rows, sensors int) {
	t.Helper()
	b, err := store.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	c := catalog.New(b)
	d := c.Predictions(j.Pipeline)
	snap, err := d.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.ReadPredictions(t.Context(), snap.Files, table.ReadQuery{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i, at := range got.Times {
		seen[fmt.Sprint(at, " ", got.Keys[got.KeyIndex[i]])] = true
	}
	if got.Len() != rows || len(seen) != rows {
		t.Errorf("%d predictions, %d of them different; want %d", got.Len(), len(seen), rows)
	}
	items, err := c.Coverage(j.Pipeline).JobItems(t.Context(), j.ID, j.Interval)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[fleetscore.Key]bool{}
	for _, it := range items {
		keys[it.Key] = true
	}
	if len(items) != sensors || len(keys) != sensors {
		t.Errorf("%d outcomes of %d sensors; want %d", len(items), len(keys), sensors)
	}
}

// writeWideFleet writes a fleet of many sensors with one model for all, and its rows.
func writeWideFleet(t *testing.T, dir string, sensors, rowsEach int) {
	t.Helper()
	model, err := os.ReadFile(filepath.Join(testkit.Root(t), "sklearn", "testdata", "1.9.1", "one.p5.pickle"))
	if err != nil {
		t.Fatal(err)
	}
	var list, rows strings.Builder
	list.WriteString("Device\n")
	rows.WriteString("TS,Device,Value\n")
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	for i := range sensors {
		fmt.Fprintf(&list, "d%d\n", i)
		for r := range rowsEach {
			fmt.Fprintf(&rows, "%s,d%d,%d\n", at.Add(time.Duration(r)*time.Second).Format(time.RFC3339), i, (i+r)%97)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "models"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"models/sensors.csv": list.String(), "models/any": string(model), "rows.csv": rows.String(),
		"fleet.yaml": "hub: {key: [Device], time: TS}\nfleets: {f: {path: ./models, sensors: sensors.csv, defaults: [{model: any}]}}\npools: {lab: {provider: static}}\n" +
			"pipelines:\n  p: {dataset: rows, fleet: f, features: [Value], pool: lab}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
