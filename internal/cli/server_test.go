package cli

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
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
	"github.com/fleetscore/fleetscore/internal/sandbox"
	"github.com/fleetscore/fleetscore/internal/server"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// asCommand makes the test's own program behave as fleetscore: servers and nodes
// in tests are real processes that can be killed.
const asCommand = "FLEETSCORE_TEST_AS_COMMAND"

// asRelease is the release that the test's own program then is.
const asRelease = "FLEETSCORE_TEST_AS_RELEASE"

func TestMain(m *testing.M) {
	sandbox.Main()
	switch os.Getenv(asCommand) {
	case "1":
		if release := os.Getenv(asRelease); release != "" {
			Version = release
		}
		os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	case hostile:
		os.Exit(hostileMain())
	}
	state, err := os.MkdirTemp("", "fleetscore-state") // what servers leave for commands
	if err != nil {
		panic(err)
	}
	os.Setenv("XDG_STATE_HOME", state)
	code := m.Run()
	os.RemoveAll(state)
	os.Exit(code)
}

// process is a server in a process of its own.
type process struct {
	t    *testing.T
	dir  string
	file string // fleet.yaml
	addr string
	env  []string // variables beside the test's own
	args []string // beside the file, the folder and the address
	bare bool     // the configuration in force is used, as by serve, and not the file
	cmd  *exec.Cmd
	log  *logText
	open *store.Dir // the store, once a test looked into it
	*client.Client
}

// logText is what a process has written so far.
type logText struct {
	mu   sync.Mutex // guards text
	text []byte
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, b...)
	return len(b), nil
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

func startServer(t *testing.T, yaml string) *process {
	t.Helper()
	return startServerIn(t, yaml, func(string) {})
}

// startServerIn starts a server in a folder that fill puts files into first.
func startServerIn(t *testing.T, yaml string, fill func(dir string)) *process {
	t.Helper()
	p := newServer(t, yaml, fill)
	p.start()
	return p
}

// newServer is a server that is yet to be started, in a folder that fill puts files into
// first. It is stopped when the test ends, before what fill has to clean up.
func newServer(t *testing.T, yaml string, fill func(dir string)) *process {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, dir: t.TempDir(), addr: l.Addr().String()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	fill(p.dir)
	p.file = filepath.Join(p.dir, "fleet.yaml")
	if err := os.WriteFile(p.file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	if p.Client, err = client.New(client.Config{Server: "http://" + p.addr}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop()
		p.Close()
	})
	return p
}

func (p *process) start() {
	p.t.Helper()
	p.begin()
	p.answers()
}

// begin starts the server's process, which may have to wait before it serves.
func (p *process) begin() {
	p.t.Helper()
	p.log = &logText{}
	how := []string{"up", p.file}
	if p.bare {
		how = []string{"serve"}
	}
	p.cmd = exec.Command(os.Args[0], slices.Concat(how, []string{"--dir", filepath.Join(p.dir, "data"), "--listen", p.addr}, p.args)...)
	p.cmd.Env = append(append(os.Environ(), asCommand+"=1"), p.env...)
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// answers waits until the server answers.
func (p *process) answers() {
	p.t.Helper()
	for range 300 {
		if resp, err := http.Get("http://" + p.addr + api.Prefix + "/health"); err == nil { // it may be unwell
			resp.Body.Close()
			return
		}
		time.Sleep(50 * time.Millisecond) // it has no other way to say that it listens
	}
	p.t.Fatalf("the server doesn't answer:\n%s", p.log)
}

// token is the token of the user who runs the server.
func (p *process) token() string {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, "data", "secrets", "admin-token"))
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// page is what the server's user gets from an address of the server.
func (p *process) page(path string) (status int, text string) {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "http://"+p.addr+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+p.token())
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// stop ends the server as Ctrl-C does, and checks that it ends well. It does nothing
// if the server has ended.
func (p *process) stop() {
	p.t.Helper()
	if p.open != nil {
		p.open.Close() // it was only read
		p.open = nil
	}
	if p.cmd == nil || p.cmd.ProcessState != nil {
		return
	}
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		p.t.Error(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case err := <-done:
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() != exitInterrupted {
			p.t.Errorf("the server ended with %v:\n%s", err, p.log)
		}
	case <-time.After(30 * time.Second):
		p.t.Errorf("the server doesn't end:\n%s", p.log)
		_ = p.cmd.Process.Kill() // it ended now
		<-done
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // that it ended before would show
	_ = p.cmd.Wait()         // its status is the kill's
}

func (p *process) bucket() store.Bucket {
	p.t.Helper()
	if p.open == nil {
		var err error
		if p.open, err = store.OpenDir(filepath.Join(p.dir, "data", "store")); err != nil {
			p.t.Fatal(err)
		}
	}
	return p.open
}

func (p *process) predictions(pipeline string) *fleetscore.Predictions {
	p.t.Helper()
	d := catalog.New(p.bucket()).Predictions(pipeline)
	snap, err := d.Snapshot(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	rows, err := d.ReadPredictions(p.t.Context(), snap.Files, table.ReadQuery{})
	if err != nil {
		p.t.Fatal(err)
	}
	return rows
}

// TestPlatformReference scores the reference fleet by upload, pipeline, job,
// tasks, nodes and commit: every label and decision value is the expected one.
func TestPlatformReference(t *testing.T) {
	t.Parallel()
	ref := testkit.Reference(t)
	p := startServer(t, fmt.Sprintf(`
hub: {key: [Device, Tag], time: TS}
fleets:
  sensors: {path: %s, model: "model_{Device}_{Tag}"}
pools:
  cpu: {provider: local, slots: 2, scale: {min: 0, max: 2}}
pipelines:
  reference: {dataset: history, fleet: sensors, features: [Val=Value], pool: cpu}
`, filepath.Join(ref, "models")))
	server := "--server=http://" + p.addr
	for range 2 { // the same file counts once
		if code, stdout, stderr := command(t, "dataset", "upload", "history", filepath.Join(ref, "sensor_data.csv"), server); code != 0 || !strings.Contains(stdout, "17,768") {
			t.Fatalf("upload: exit %d\n%s%s", code, stdout, stderr)
		}
	}
	code, stdout, stderr := command(t, "job", "submit", "reference", "--wait", server)
	if code != 0 || !strings.Contains(stdout, "17,768  6,757") {
		t.Fatalf("job: exit %d\n%s%s\n%s", code, stdout, stderr, p.log)
	}
	p.scoredReference("reference")
	if code, stdout, _ := command(t, "job", "submit", "reference", server); code != 13 {
		t.Errorf("a job without new rows: exit %d\n%s", code, stdout)
	}
	// A job that scores nothing is not green.
	if code, stdout, stderr := command(t, "job", "submit", "reference", "--from", "2018-08-28T20:00:00Z", "--to", "2018-08-28T21:00:00Z", "--wait", "-o", "json", server); code != 1 || !strings.Contains(stdout, `"no_data": 15`) || !strings.Contains(stdout, "nothing was scored") {
		t.Errorf("a job without rows: exit %d\n%s%s", code, stdout, stderr)
	}
	foreignReaders(t, filepath.Join(p.dir, "data", "store"))
}

// scoredReference checks that the predictions of a pipeline over the reference fleet are
// the expected ones, to the last bit of the labels.
func (p *process) scoredReference(pipeline string) {
	t, ref := p.t, testkit.Reference(p.t)
	t.Helper()
	f, err := os.Open(filepath.Join(ref, "expected_predictions.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	type row struct{ value, prediction, score float64 }
	want := map[string]row{}
	number := func(s string) float64 {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, l := range lines[1:] {
		at, err := table.ParseTime(l[0])
		if err != nil {
			t.Fatal(err)
		}
		want[fmt.Sprint(at, " ", l[1], "/", l[2])] = row{number(l[3]), number(l[4]), number(l[5])}
	}
	got := p.predictions(pipeline)
	if got.Len() != 17768 || got.ValueNames[0] != "Val" {
		t.Fatalf("%d predictions of %v", got.Len(), got.ValueNames)
	}
	for i, at := range got.Times {
		id := fmt.Sprint(at, " ", got.Keys[got.KeyIndex[i]])
		w, ok := want[id]
		delete(want, id)
		if !ok || got.Values[0][i] != w.value || got.Prediction[i] != w.prediction || math.Abs(got.Score[i]-w.score) > 1e-15 {
			t.Fatalf("%s: got %v %v %v, want %+v", id, got.Values[0][i], got.Prediction[i], got.Score[i], w)
		}
	}
}

// foreignReaders reads the dataset and the predictions of the reference fleet with
// delta-rs and DuckDB: they see the rows that we do.
func foreignReaders(t *testing.T, dir string) {
	t.Helper()
	for _, c := range []struct {
		table, column string
		sum           float64
	}{{"data/history", "Value", 0}, {"predictions/reference", "Prediction", 6757}} {
		for reader, v := range testkit.ReadDelta(t, filepath.Join(dir, filepath.FromSlash(c.table)), c.column) {
			if v.Rows != 17768 || v.Sensors != 15 || c.sum != 0 && v.Sum != c.sum || v.First != 1535497205000000 || v.Last <= v.First {
				t.Errorf("%s reads %s as %+v", reader, c.table, v)
			}
		}
	}
}

const crashFleet = `
hub: {key: [Device, Tag], time: TS, partitions: 2, disorder: 1s, idle_after: 2s}
queries:
  readings:
    cut: 1s
    sql: |
      SELECT System.Timestamp() AS TS, Device, Tag, AVG(Value) AS Value, COUNT(*) AS N
      INTO readings FROM hub TIMESTAMP BY TS
      GROUP BY Device, Tag, TumblingWindow(second, 1)
fleets:
  sensors: {path: %s, model: "model_{Device}_{Tag}"}
pools:
  cpu: {provider: local, slots: 1, scale: {min: 1, max: 2, idle_after: 2s}}
pipelines:
  anomalies: {dataset: readings, fleet: sensors, features: [Value], label: N, pool: cpu}
`

// tagsQuery is a query whose groups have readings of both partitions.
const tagsQuery = `
  tags:
    cut: 1s
    sql: |
      SELECT System.Timestamp() AS TS, Tag, COUNT(*) AS N
      INTO tags FROM hub TIMESTAMP BY TS GROUP BY Tag, TumblingWindow(second, 1)
fleets:
  tags: {path: %s, model: "model_1_{Tag}", key: [Tag]}`

// TestCrash kills and freezes the server and nodes, with SIGKILL and SIGSTOP, at random
// while readings come and jobs run. After it every acknowledged reading is in exactly
// one row, every job has ended, every sensor of a job has one outcome, and the predictions
// hold one row per sensor and time. So do the rows of a query with groups of other columns.
func TestCrash(t *testing.T) {
	t.Parallel()
	crash(t, nil)
}

// TestCrashPostgres is TestCrash with the ledger in a PostgreSQL database, which is
// killed and away for a while too.
func TestCrashPostgres(t *testing.T) {
	t.Parallel()
	crash(t, testkit.StartPostgres(t, testkit.PostgresVersions[0]))
}

func crash(t *testing.T, database *testkit.Postgres) {
	rounds, longest := 8, 2*time.Second
	if n, err := strconv.Atoi(os.Getenv("FLEETSCORE_CRASH_ROUNDS")); err == nil {
		rounds, longest = n, 20*time.Second // beyond the time after which a node counts as lost
	}
	faults := []string{"kill nodes", "kill server", "kill both", "freeze nodes", "freeze server"}
	p := newServer(t, strings.Replace(fmt.Sprintf(crashFleet, filepath.Join(testkit.Root(t), "examples", "fleet", "models")), "\nfleets:", fmt.Sprintf(tagsQuery, filepath.Join(testkit.Root(t), "examples", "fleet", "models")), 1)+
		"  tags: {dataset: tags, fleet: tags, features: [Value=N], pool: cpu}\n", func(string) {})
	if database != nil {
		faults = append(faults, "stop database")
		p.env = []string{server.LedgerVariable + "=" + database.NewDatabase(t)}
		defer func() {
			if strings.Contains(p.log.String(), database.Password) {
				t.Errorf("the log holds the database's password:\n%s", p.log)
			}
		}()
	}
	p.start()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	sent := map[string]int64{} // acknowledged readings per window and sensor
	wg.Go(func() { send(ctx, t, p.Client, func(id string) { sent[id]++ }) })
	wg.Go(func() { // who submits jobs takes no for an answer
		for ctx.Err() == nil {
			_ = p.Post(ctx, "/jobs", map[string]string{"pipeline": "anomalies"}, nil)
			pause(ctx, 300*time.Millisecond)
		}
	})
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	counts := map[string]int{}
	order := rnd.Perm(rounds) // so that each kind of fault occurs
	for round := range rounds {
		pause(ctx, 500*time.Millisecond+time.Duration(rnd.IntN(2000))*time.Millisecond)
		frozen := time.Duration(rnd.Int64N(int64(longest)))
		what := faults[order[round]%len(faults)]
		counts[what]++
		switch what {
		case "kill nodes":
			p.signalNodes(syscall.SIGKILL)
		case "kill server", "kill both":
			if what == "kill both" {
				p.signalNodes(syscall.SIGKILL)
			}
			p.kill()
			pause(ctx, time.Duration(rnd.IntN(500))*time.Millisecond)
			p.start()
		case "freeze nodes":
			pids := p.signalNodes(syscall.SIGSTOP)
			pause(ctx, frozen)
			for _, pid := range pids {
				_ = syscall.Kill(pid, syscall.SIGCONT) // the server may have ended it meanwhile
			}
		case "freeze server":
			p.signal(syscall.SIGSTOP)
			pause(ctx, frozen)
			p.signal(syscall.SIGCONT)
		case "stop database":
			database.Stop(t)
			pause(ctx, frozen)
			database.Start(t)
		}
	}
	cancel()
	wg.Wait()
	p.settle(sent)
	p.checkCrash(sent)
	p.completes("tags", sent)
	tags := map[string]int64{} // acknowledged readings per window and tag
	for id, n := range sent {
		at, key, _ := strings.Cut(id, " ")
		_, tag, _ := strings.Cut(key, "/")
		tags[at+" "+tag] += n
	}
	if diff := cmp.Diff(tags, readingsIn(t, p.bucket(), "tags")); diff != "" {
		t.Errorf("readings per window and tag (-acknowledged +in rows):\n%s", diff)
	}
	p.finish("tags")
	p.checkScored("tags", tags)
	t.Logf("%d acknowledged readings, %v", sum(sent), counts)
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Error(err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// send sends each sensor's reading every 50 ms, each batch until it is
// acknowledged; then it tells the window and sensor of each reading.
func send(ctx context.Context, t *testing.T, c *client.Client, acknowledged func(id string)) {
	tags := []string{"pressure", "temperature", "current", "vibration"}
	for n := 0; ctx.Err() == nil; n++ {
		now := time.Now().UTC()
		end := now.Truncate(time.Second).Add(time.Second) // windows are (start, end]
		if now.Equal(now.Truncate(time.Second)) {
			end = now
		}
		var body bytes.Buffer
		var ids []string
		for d := 1; d <= 5; d++ {
			for _, tag := range tags {
				fmt.Fprintf(&body, `{"TS":"%s","Device":"%d","Tag":"%s","Value":%d,"_id":"%d"}`+"\n", now.Format("2006-01-02T15:04:05.000000Z"), d, tag, n%7, n)
				ids = append(ids, fmt.Sprint(fleetscore.MicrosOf(end), " ", d, "/", tag))
			}
		}
		for {
			err := c.Send(context.WithoutCancel(ctx), http.MethodPost, "/hubs/hub/messages", nil, "application/x-ndjson", bytes.NewReader(body.Bytes()), nil)
			if err == nil {
				break
			}
			if fleetscore.Invalid.Is(err) {
				t.Errorf("readings were refused: %v", err)
				return
			}
			time.Sleep(20 * time.Millisecond) // a device tries again
		}
		for _, id := range ids {
			acknowledged(id)
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// signalNodes sends a signal to the nodes that work, and returns their processes.
func (p *process) signalNodes(s syscall.Signal) (pids []int) {
	var nodes api.List[fleetscore.Node]
	if err := p.Get(p.t.Context(), "/nodes", nil, &nodes); err != nil {
		p.t.Error(err)
	}
	for _, n := range nodes.Items {
		if n.PID > 1 && n.State.Speaks() {
			_ = syscall.Kill(n.PID, s) // it may have ended just now
			pids = append(pids, n.PID)
		}
	}
	return pids
}

// complete waits until the dataset of readings holds all windows.
func (p *process) complete(sent map[string]int64) {
	p.t.Helper()
	p.completes("readings", sent)
}

// completes waits until a dataset holds all windows.
func (p *process) completes(dataset string, sent map[string]int64) {
	p.t.Helper()
	var last fleetscore.Micros
	for id := range sent {
		last = max(last, rowTime(id))
	}
	end := time.Now().Add(60 * time.Second)
	for {
		var d api.Dataset
		err := p.Get(p.t.Context(), "/datasets/"+dataset, nil, &d)
		if err == nil && d.CompleteUntil != nil && !d.CompleteUntil.Before(last.Time()) {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("the dataset is not complete until %s: %+v, %v\n%s", last, d, err, p.log)
		}
		time.Sleep(100 * time.Millisecond) // a page of the API, not an event
	}
}

// settle waits until the dataset holds all windows and every job ended, with a
// last job over what was not scored yet.
func (p *process) settle(sent map[string]int64) {
	p.t.Helper()
	p.complete(sent)
	p.finish("anomalies")
}

// finish submits a last job of a pipeline and waits until every job ended.
func (p *process) finish(pipeline string) {
	p.t.Helper()
	end := time.Now().Add(60 * time.Second)
	if err := p.Post(p.t.Context(), "/jobs", map[string]string{"pipeline": pipeline}, nil); err != nil && !fleetscore.Conflict.Is(err) {
		p.t.Fatal(err)
	}
	for {
		var jobs api.JobList
		err := p.Get(p.t.Context(), "/jobs?state=waiting,queued,running,committing", nil, &jobs)
		if err == nil && len(jobs.Items) == 0 {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("jobs don't end: %+v, %v\n%s", jobs.Items, err, p.log)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (p *process) checkCrash(sent map[string]int64) {
	p.t.Helper()
	ctx := p.t.Context()
	got := p.readings()
	if diff := cmp.Diff(sent, got); diff != "" {
		p.t.Errorf("readings per window and sensor (-acknowledged +in rows):\n%s", diff)
	}
	p.checkScored("anomalies", got)
	var jobs api.JobList
	if err := p.Get(ctx, "/jobs?limit=1000", nil, &jobs); err != nil {
		p.t.Fatal(err)
	}
	for _, j := range jobs.Items {
		var items api.List[fleetscore.Item]
		if err := p.Get(ctx, "/jobs/"+string(j.ID)+"/coverage", nil, &items); err != nil {
			p.t.Fatal(err)
		}
		want := fleetscore.JobSucceeded
		if !slices.ContainsFunc(slices.Collect(maps.Keys(got)), func(id string) bool { return j.Interval.ContainsMicros(rowTime(id)) }) {
			want = fleetscore.JobFailed // all were frozen for as long as the interval lasts: nothing could be scored
		}
		if j.State != want || j.Expected != 20 || len(items.Items) != 20 {
			why := ""
			for _, i := range items.Items {
				why = i.Reason
			}
			p.t.Errorf("job %s is %s (%s; %s) with %d items for %d sensors", j.ID, j.State, j.Reason, why, len(items.Items), j.Expected)
		}
	}
	p.t.Logf("%d readings in %d rows, %d jobs", sum(sent), len(got), len(jobs.Items))
}

// rowTime is the time of the row in which a reading is counted.
func rowTime(id string) fleetscore.Micros {
	at, err := table.ParseTime(strings.Fields(id)[0])
	if err != nil {
		panic(err)
	}
	return at
}

// readings counts the readings in the dataset's rows, per window and sensor, and
// checks that each has one row.
func (p *process) readings() map[string]int64 {
	p.t.Helper()
	return readingsIn(p.t, p.bucket(), "readings")
}

func readingsIn(t *testing.T, b store.Bucket, dataset string) map[string]int64 {
	t.Helper()
	d := table.OpenDelta(store.Sub(b, "data/"+dataset))
	snap, err := d.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows, err := d.ReadRows(t.Context(), snap.Files, table.ReadQuery{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for i, at := range rows.Times {
		got[fmt.Sprint(at, " ", rows.Keys[rows.KeyIndex[i]])] += int64(rows.Column("N")[i])
	}
	if rows.Len() != len(got) {
		t.Errorf("%d rows for %d windows", rows.Len(), len(got))
	}
	return got
}

// checkScored checks that each row has one prediction of a pipeline.
func (p *process) checkScored(pipeline string, rows map[string]int64) {
	p.t.Helper()
	scored := map[string]int64{}
	predictions := p.predictions(pipeline)
	for i, at := range predictions.Times {
		scored[fmt.Sprint(at, " ", predictions.Keys[predictions.KeyIndex[i]])]++
	}
	for id := range rows {
		if scored[id] != 1 {
			p.t.Errorf("%d predictions for %s", scored[id], id)
		}
	}
	if len(scored) != len(rows) {
		p.t.Errorf("predictions for %d of %d rows", len(scored), len(rows))
	}
}

func sum(m map[string]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}
