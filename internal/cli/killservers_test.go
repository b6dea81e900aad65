package cli

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/client"
	"github.com/fleetscore/fleetscore/internal/server"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/testkit"
	"github.com/fleetscore/fleetscore/internal/testkit/natstest"
)

// killFleet has readings whose event times are those of the test, not of the clock: the log
// doesn't get complete by itself for a day.
const killFleet = `
store: %s
hub: {key: [Device, Tag], time: TS, partitions: 1, disorder: 1m, idle_after: 24h%s}
queries:
  readings:
    cut: 1s
    sql: |
      SELECT System.Timestamp() AS TS, Device, Tag, AVG(Value) AS Value, COUNT(*) AS N
      INTO readings FROM hub TIMESTAMP BY TS
      GROUP BY Device, Tag, TumblingWindow(second, 1)
fleets:
  sensors: {path: models/sensors, model: "model_{Device}_{Tag}"}
pools:
  lab: {provider: static}
pipelines:
  history: {dataset: history, fleet: sensors, features: [Value], pool: lab}
  live: {dataset: readings, fleet: sensors, features: [Value], pool: lab, limits: {no_data: 100%%}}
`

// TestKillServers kills (SIGKILL) and freezes (SIGSTOP) two servers on one PostgreSQL ledger,
// and their nodes, at random while readings come and jobs run. Then all rows and predictions
// are byte for byte those of a server that nothing disturbed, with a ledger of its own.
// "make kill" does it for minutes.
func TestKillServers(t *testing.T) {
	t.Parallel()
	rounds, longest := 8, 2*time.Second
	if n, err := strconv.Atoi(os.Getenv("FLEETSCORE_CRASH_ROUNDS")); err == nil {
		rounds, longest = n, 12*time.Second // beyond the time after which another server leads
	}
	w := killWork{readings: 60 * rounds, jobs: min(8*rounds, 200), base: time.Now().UTC().Truncate(time.Hour).Add(-2 * time.Hour)}
	calm := newServer(t, fmt.Sprintf(killFleet, filepath.Join(t.TempDir(), "store"), ""), func(string) {})
	calm.start()
	calm.fillStore(filepath.Join(testkit.Root(t), "examples", "fleet", "models"))
	stayed := calm.worker("http://" + calm.addr)
	w.run(t.Context(), calm, calm)
	want := w.results(calm, calm)
	stayed.end()
	calm.stop()

	database, bucket, hub := testkit.StartPostgres(t, testkit.PostgresVersions[1]), storetest.S3(t).NewBucket(t), natstest.Start(t, natstest.Options{})
	address := database.NewDatabase(t)
	shared := func(name string) *process {
		p := newServer(t, fmt.Sprintf(killFleet, bucket, fmt.Sprintf(", nats: {url: %q, replicas: 1}", hub.URL())), func(string) {})
		p.env, p.args = []string{server.LedgerVariable + "=" + address}, []string{"--shared", "--name", name}
		return p
	}
	a, b := shared("a"), shared("b")
	a.start()
	a.fillStore(filepath.Join(testkit.Root(t), "examples", "fleet", "models"))
	b.start()
	both := "http://" + a.addr + ",http://" + b.addr
	workers := []*worker{a.worker(both), a.worker(both)}
	w.pause = 30 * time.Millisecond
	var working sync.WaitGroup
	working.Go(func() { w.run(t.Context(), a, b) })
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	counts := map[string]int{}
	order := rnd.Perm(rounds) // so that each kind of fault occurs
	for round := range rounds {
		pause(t.Context(), 300*time.Millisecond+time.Duration(rnd.IntN(1500))*time.Millisecond)
		frozen, p, one := time.Duration(rnd.Int64N(int64(longest))), []*process{a, b}[rnd.IntN(2)], workers[rnd.IntN(2)]
		what := []string{"kill a server", "freeze a server", "kill a node", "freeze a node"}[order[round]%4]
		counts[what]++
		switch what {
		case "kill a server":
			p.kill()
			pause(t.Context(), frozen/2)
			p.start()
		case "freeze a server":
			p.signal(syscall.SIGSTOP)
			pause(t.Context(), frozen)
			p.signal(syscall.SIGCONT)
		case "kill a node":
			one.end()
			one.start()
		case "freeze a node":
			_ = one.cmd.Process.Signal(syscall.SIGSTOP) // it hasn't been waited for
			pause(t.Context(), frozen)
			_ = one.cmd.Process.Signal(syscall.SIGCONT)
		}
	}
	working.Wait()
	got := w.results(a, b)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results (-undisturbed +disturbed):\n%.4000s", diff)
	}
	t.Logf("%d readings, %d jobs, %v; %d results", 2*w.readings, w.jobs+1, counts, len(got))
}

// killWork is what the servers get to do, always the same.
type killWork struct {
	readings, jobs int           // of each of two devices; over uploaded rows
	base           time.Time     // event time of the first reading
	pause          time.Duration // between two readings of a device

	mu   sync.Mutex // guards what follows
	ends []fleetscore.JobID
}

// step is from the event time of a reading to that of the next one.
const step = 20 * time.Millisecond

// run sends readings and submits jobs, to either server, each until it is taken.
func (w *killWork) run(ctx context.Context, a, b *process) {
	w.ends = nil
	var all sync.WaitGroup
	for i, order := range []string{"http://" + a.addr + ",http://" + b.addr, "http://" + b.addr + ",http://" + a.addr} {
		c := a.device(order)
		all.Go(func() {
			for n := range w.readings {
				deliver(ctx, c, i+1, w.base.Add(time.Duration(n)*step), n%7)
				pause(ctx, w.pause)
			}
		})
	}
	all.Go(func() {
		first := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
		for n := range w.jobs {
			from := first.Add(time.Duration(n) * 5 * time.Second)
			w.submit(ctx, []*process{a, b}, map[string]any{"pipeline": "history", "from": from, "to": from.Add(5 * time.Second)})
			pause(ctx, 7*w.pause)
		}
	})
	all.Wait()
}

// submit submits a job to one of the servers. If an answer is lost, the job is submitted
// again, which finds its work done.
func (w *killWork) submit(ctx context.Context, servers []*process, body map[string]any) {
	for n := 0; ctx.Err() == nil; n++ {
		var j fleetscore.Job
		limited, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := servers[(len(w.ends)+n)%len(servers)].Post(limited, "/jobs", body, &j)
		cancel()
		if err == nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ends = append(w.ends, j.ID)
			return
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// deliver sends a reading until a server has acknowledged it.
func deliver(ctx context.Context, c *client.Client, device int, at time.Time, value int) {
	line := fmt.Sprintf(`{"TS":%q,"Device":"%d","Tag":"pressure","Value":%d}`+"\n", at.Format(time.RFC3339Nano), device, value)
	for ctx.Err() == nil {
		limited, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := c.Send(limited, http.MethodPost, "/hubs/hub/messages", nil, "application/x-ndjson", strings.NewReader(line), nil)
		cancel()
		if err == nil {
			return
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// results waits until all is done, and returns all rows and predictions, in order, with the
// bits of their numbers.
func (w *killWork) results(a, b *process) (out []string) {
	t, ctx := a.t, a.t.Context()
	t.Helper()
	until := w.base.Add(time.Duration(w.readings) * step).Truncate(time.Second)
	for _, p := range []*process{a, b} { // each gateway is a source, whose time has to go on
		c := p.device("http://" + p.addr)
		for device := range 2 {
			deliver(ctx, c, device+1, until.Add(time.Hour), 0)
		}
	}
	eventually(t, "the dataset has all rows", func() bool {
		var d api.Dataset
		return a.Get(ctx, "/datasets/readings", nil, &d) == nil && d.CompleteUntil != nil && !d.CompleteUntil.Before(until)
	})
	w.submit(ctx, []*process{a, b}, map[string]any{"pipeline": "live", "from": w.base, "to": until})
	a.jobsEnd(w.ends)
	yaml, err := os.ReadFile(a.file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(yaml), "store: ")
	address, _, _ := strings.Cut(rest, "\n")
	bucket, err := store.Open(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	cat := catalog.New(bucket)
	d := cat.Dataset("readings")
	snap, err := d.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := d.ReadRows(ctx, snap.Files, table.ReadQuery{})
	if err != nil {
		t.Fatal(err)
	}
	for i, at := range rows.Times {
		if !at.Time().After(until) {
			out = append(out, fmt.Sprintf("row %d %s %x %x", at, rows.Keys[rows.KeyIndex[i]], math.Float64bits(rows.Column("Value")[i]), math.Float64bits(rows.Column("N")[i])))
		}
	}
	counts := []int{len(out)}
	for _, pipeline := range []string{"history", "live"} {
		d := cat.Predictions(pipeline)
		snap, err := d.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		p, err := d.ReadPredictions(ctx, snap.Files, table.ReadQuery{})
		if err != nil {
			t.Fatal(err)
		}
		for i, at := range p.Times {
			k := p.KeyIndex[i]
			out = append(out, fmt.Sprintf("%s %d %s %x %x %x %x", pipeline, at, p.Keys[k], math.Float64bits(p.Values[0][i]), math.Float64bits(p.Prediction[i]), math.Float64bits(p.Score[i]), p.Models[k]))
		}
		counts = append(counts, len(out))
	}
	if counts[0] == 0 || counts[1] == counts[0] || counts[2] == counts[1] {
		t.Fatalf("rows, predictions of old and of new rows: %v", counts)
	}
	slices.Sort(out)
	return out
}

// worker is a node that is started by hand.
type worker struct {
	p       *process
	servers string
	token   string // its file
	cmd     *exec.Cmd
}

func (p *process) worker(servers string) *worker {
	p.t.Helper()
	code, token, stderr := command(p.t, "token", "create", "node", "worker"+fmt.Sprint(time.Now().UnixNano()), "--server=http://"+p.addr)
	if code != 0 {
		p.t.Fatal(stderr)
	}
	w := &worker{p: p, servers: servers, token: filepath.Join(p.t.TempDir(), "token")}
	if err := os.WriteFile(w.token, []byte(token), 0o600); err != nil {
		p.t.Fatal(err)
	}
	w.start()
	p.t.Cleanup(func() { w.end() })
	return w
}

func (w *worker) start() {
	w.p.t.Helper()
	w.cmd = exec.Command(os.Args[0], "node", "--pool", "lab", "--server", w.servers)
	w.cmd.Env = append(os.Environ(), asCommand+"=1", "FLEETSCORE_NODE_TOKEN_FILE="+w.token)
	if err := w.cmd.Start(); err != nil {
		w.p.t.Fatal(err)
	}
}

// end kills the node. It does nothing if it was killed before.
func (w *worker) end() {
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait() // its status is the kill's
}
