// Package scale measures one server with many nodes and a job of many sensors: its memory,
// how long it takes to answer heartbeats, the commands for jobs and the overview page, and
// how many tasks go through the queue. The server is a process of its own, and so is each of
// the few nodes that score. These have the lowest priority, because on a real system they are
// other machines, which don't take processors away from the server. The nodes that have
// nothing to do are those of package node, all in the process of the test, and speak HTTP
// with the server. The package has only tests. "make scale" runs the large form.
package scale

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/node"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// plan says how large a measurement is.
type plan struct {
	nodes, sensors int
	beat           time.Duration // from heartbeat to heartbeat of a node
	steady         time.Duration // how long heartbeats are measured while no job runs
	memory         int64         // what the server may use beyond its idle memory, in bytes
	limit          time.Duration // for answers to heartbeats (99 of 100), job show, job coverage
}

// TestScale runs a small form, unless FLEETSCORE_SCALE says how many nodes and sensors.
func TestScale(t *testing.T) {
	p := plan{nodes: 50, sensors: 2000, beat: 200 * time.Millisecond, steady: time.Second, memory: 1 << 30, limit: 10 * time.Second}
	if large := os.Getenv("FLEETSCORE_SCALE"); large != "" {
		if _, err := fmt.Sscanf(large, "%d,%d", &p.nodes, &p.sensors); err != nil {
			t.Fatalf("FLEETSCORE_SCALE is %q, want nodes and sensors such as 10000,1000000", large)
		}
		p.beat, p.steady, p.limit = 5*time.Second, 20*time.Second, time.Second
	}
	s := start(t, p)
	idle := s.memory("VmRSS:")
	ctx, cancel := context.WithCancel(t.Context())
	var agents sync.WaitGroup
	s.work()
	registered := time.Now()
	s.join(ctx, &agents)
	defer func() { cancel(); agents.Wait() }()
	t.Logf("%d nodes registered within %s", p.nodes, time.Since(registered).Round(time.Millisecond))

	s.beats.take()
	spent := s.cpu()
	time.Sleep(p.steady) // this is what is measured
	steady := s.memory("VmRSS:")
	calm := s.beats.take()
	calm.cpu = (s.cpu() - spent).Seconds() / p.steady.Seconds()

	begun := time.Now()
	spent = s.cpu()
	job, took := s.score(ctx)
	busy := s.beats.take()
	busy.cpu = (s.cpu() - spent).Seconds() / time.Since(begun).Seconds()
	tasks, first, last := s.tasks(ctx, job)
	show := s.ask("job show", "/api/v1/jobs/"+job)
	page := s.ask("job coverage, first page", "/api/v1/jobs/"+job+"/coverage")
	scored := s.ask("job coverage, only scored", "/api/v1/jobs/"+job+"/coverage?outcome=scored")
	failed := s.ask("job coverage, causes", "/api/v1/jobs/"+job+"/coverage?outcome=failed,timed_out,quarantined,no_model&limit=10000")
	s.ask("overview", "/")
	s.ask("page of the job", "/jobs/"+job)
	after, peak := s.memory("VmRSS:"), s.memory("VmHWM:")

	t.Logf("job of %d sensors: %s, %d tasks; from the first lease to the last result %s, %.0f tasks a second", p.sensors, took.Round(time.Millisecond), tasks,
		last.Sub(first).Round(time.Millisecond), float64(tasks)/last.Sub(first).Seconds())
	t.Logf("heartbeats, no job: %s; with the job: %s", calm, busy)
	t.Logf("memory of the server: idle %d MiB, with the nodes %d MiB, after the job %d MiB, peak %d MiB", idle>>20, steady>>20, after>>20, peak>>20)
	if peak-idle > p.memory {
		t.Errorf("the server used %d MiB more than when idle, the limit is %d MiB", (peak-idle)>>20, p.memory>>20)
	}
	if calm.failed+busy.failed > 0 {
		t.Errorf("%d heartbeats failed", calm.failed+busy.failed)
	}
	for what, d := range map[string]time.Duration{"heartbeats": calm.p99, "heartbeats with the job": busy.p99, "job show": show, "job coverage": page,
		"job coverage, only scored": scored, "job coverage, causes": failed} {
		if d > p.limit {
			t.Errorf("%s: %s, the limit is %s", what, d.Round(time.Millisecond), p.limit)
		}
	}
}

// system is the server's process and what its nodes measured.
type system struct {
	t       *testing.T
	plan    plan
	dir     string
	binary  string
	url     string
	admin   string    // token of an administrator
	token   string    // token of the nodes
	refused sync.Once // a registration that failed is logged once
	cmd     *exec.Cmd
	http    *http.Client
	beats   times
}

const yaml = `
hub: {key: [Device, Tag], time: TS}
fleets:
  sensors: {path: %q, sensors: sensors.csv, defaults: [{model: default}], sync: 24h}
pools:
  lab: {provider: static, slots: 64} # so that a job has as many tasks as it can have
pipelines:
  p: {dataset: readings, fleet: sensors, features: [Value], pool: lab}
`

// workers is how many nodes take tasks.
const workers = 4

// exitInterrupted is how a program ends that was told to.
const exitInterrupted = 130

// at is the time of all rows.
var at = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// rowsOf is which share of the sensors has a row: one in this many.
const rowsOf = 10

// start starts a server with a fleet, and uploads rows.
func start(t *testing.T, p plan) *system {
	t.Helper()
	s := &system{t: t, plan: p, dir: t.TempDir(), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * p.nodes}}}
	s.binary = filepath.Join(s.dir, "fleetscore")
	s.command("go", "build", "-tags", "noclouds", "-o", s.binary, "github.com/fleetscore/fleetscore/cmd/fleetscore")
	models := filepath.Join(s.dir, "models")
	var sensors, rows bytes.Buffer
	sensors.WriteString("Device,Tag\n")
	rows.WriteString("TS,Device,Tag,Value\n")
	for n := range p.sensors {
		fmt.Fprintf(&sensors, "%d,%d\n", n/10, n%10)
		if n%rowsOf == 0 {
			fmt.Fprintf(&rows, "%s,%d,%d,%d\n", at.Format(time.RFC3339), n/10, n%10, n%7)
		}
	}
	file, readings := filepath.Join(s.dir, "fleet.yaml"), filepath.Join(s.dir, "readings.csv")
	for name, data := range map[string][]byte{filepath.Join(models, "sensors.csv"): sensors.Bytes(), filepath.Join(models, "default"): testkit.GrowingModel(1, 0),
		readings: rows.Bytes(), file: fmt.Appendf(nil, yaml, models)} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(s.dir, "data")
	s.cmd = exec.Command(s.binary, "up", file, "--dir", data, "--listen", "127.0.0.1:0", "--max-connections", fmt.Sprint(p.nodes+p.nodes/2+100))
	s.cmd.Env = append(os.Environ(), "FLEETSCORE_LOG_LEVEL=warn")
	out, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for s.url == "" && lines.Scan() {
		if m := regexp.MustCompile(`portal at (http://[^/, ]+)`).FindStringSubmatch(lines.Text()); m != nil {
			s.url = m[1]
		} else {
			t.Log(lines.Text())
		}
	}
	read := make(chan struct{})
	go func() { // the server must not wait for a reader of its output
		defer close(read)
		_, _ = io.Copy(os.Stderr, out) // it ends with the server
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM) // if it ended already, Wait says so
		<-read
		if err := s.cmd.Wait(); err != nil {
			t.Errorf("the server: %v", err)
		}
		s.http.CloseIdleConnections()
	})
	secret, err := os.ReadFile(filepath.Join(data, "secrets", "admin-token"))
	if err != nil || s.url == "" {
		t.Fatalf("the server did not start: %v", err)
	}
	s.admin = strings.TrimSpace(string(secret))
	s.token = strings.TrimSpace(s.command(s.binary, "token", "create", "node", "lab", "--server", s.url))
	s.command(s.binary, "dataset", "upload", "readings", readings, "--server", s.url)
	return s
}

// command runs a program and returns what it prints.
func (s *system) command(name string, args ...string) string {
	s.t.Helper()
	var errs bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, errs.Bytes())
	}
	return string(out)
}

// memory is a figure about the server's process, in bytes.
func (s *system) memory(name string) int64 {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		testkit.Missing(s.t, "/proc", "run the test on Linux")
	}
	_, rest, _ := strings.Cut(string(text), name)
	kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return kb << 10
}

// cpu is how long the server's process has computed.
func (s *system) cpu() time.Duration {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		testkit.Missing(s.t, "/proc", "run the test on Linux")
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	ticks := 0
	for _, f := range fields[11:13] { // in the process itself, and in the kernel for it
		n, err := strconv.Atoi(f)
		if err != nil {
			s.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100)
}

// work starts the nodes that take tasks, as processes of the lowest priority, and returns
// when all are registered.
func (s *system) work() {
	s.t.Helper()
	secret := filepath.Join(s.dir, "lab.token")
	if err := os.WriteFile(secret, []byte(s.token), 0o600); err != nil {
		s.t.Fatal(err)
	}
	for n := range workers {
		// 40 is the whole range of priorities: whatever that of the test is, the node's is the lowest.
		cmd := exec.Command("nice", "-n", "40", s.binary, "node", "--server", s.url, "--pool", "lab", "--id", fmt.Sprint("lab.worker", n))
		cmd.Env = append(os.Environ(), "FLEETSCORE_NODE_TOKEN_FILE="+secret, "FLEETSCORE_LOG_LEVEL=warn", "GOMAXPROCS=1")
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM) // if it ended already, Wait says so
			if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() != exitInterrupted {
				s.t.Errorf("node %d: %v", n, err)
			}
		})
	}
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) { // nothing tells when a node has registered
		var nodes api.List[fleetscore.Node]
		err := s.send(s.t.Context(), s.admin, http.MethodGet, "/api/v1/nodes", nil, &nodes)
		if err == nil && len(nodes.Items) == workers {
			return
		}
		if time.Since(begun) > time.Minute {
			s.t.Fatalf("%d of %d nodes have registered within a minute: %v", len(nodes.Items), workers, err)
		}
	}
}

// join starts the nodes that take no tasks, and returns when all are registered.
func (s *system) join(ctx context.Context, agents *sync.WaitGroup) {
	s.t.Helper()
	registered := make(chan struct{}, s.plan.nodes)
	for n := range s.plan.nodes {
		agents.Go(func() {
			// Nodes start at different times, as heartbeats do later.
			select {
			case <-time.After(s.plan.beat * time.Duration(n) / time.Duration(s.plan.nodes)):
			case <-ctx.Done():
				return
			}
			hello := dispatch.Hello{Node: fleetscore.NodeID(fmt.Sprint("lab.", n)), Pool: "lab", Slots: 1, Host: "here", PID: 1}
			a, err := node.New(node.Config{Hello: hello, Heartbeat: s.plan.beat, Workers: 1},
				node.Deps{Server: &agent{system: s, registered: func() { registered <- struct{}{} }}, OpenStore: func(ctx context.Context, url string) (store.Bucket, error) { return store.Open(ctx, url) }})
			if err != nil {
				s.t.Error(err)
				return
			}
			if err := a.Run(ctx); err != nil && ctx.Err() == nil {
				s.t.Errorf("node %d: %v", n, err)
			}
		})
	}
	for range s.plan.nodes {
		select {
		case <-registered:
		case <-time.After(2 * time.Minute):
			s.t.Fatal("nodes could not register within two minutes")
		}
	}
}

// score submits a job and waits for its end.
func (s *system) score(ctx context.Context) (id string, took time.Duration) {
	s.t.Helper()
	begun := time.Now()
	var j fleetscore.Job
	in := map[string]any{"pipeline": "p", "from": at.Add(-time.Hour), "to": at}
	if err := s.send(ctx, s.admin, http.MethodPost, "/api/v1/jobs", in, &j); err != nil {
		s.t.Fatal(err)
	}
	for !j.State.Ended() {
		if time.Since(begun) > 5*time.Minute {
			s.t.Fatalf("the job is %s: %s; %d of %d tasks ended", j.State, j.Reason, j.TasksEnded, j.Tasks)
		}
		if err := s.send(ctx, s.admin, http.MethodGet, "/api/v1/jobs/"+string(j.ID)+"?wait=10s", nil, &j); err != nil {
			s.t.Fatal(err)
		}
	}
	scored := int64((s.plan.sensors + rowsOf - 1) / rowsOf)
	if j.State != fleetscore.JobSucceeded || j.Outcomes[fleetscore.Scored] != scored || j.Outcomes[fleetscore.NoData] != int64(s.plan.sensors)-scored {
		s.t.Fatalf("the job is %s: %s; outcomes %v, want %d scored", j.State, j.Reason, j.Outcomes, scored)
	}
	return string(j.ID), time.Since(begun)
}

// tasks counts the tasks of a job, and says when the first began and the last ended.
func (s *system) tasks(ctx context.Context, job string) (n int, first, last time.Time) {
	s.t.Helper()
	var got api.List[api.TaskDetail]
	if err := s.send(ctx, s.admin, http.MethodGet, "/api/v1/jobs/"+job+"/tasks", nil, &got); err != nil {
		s.t.Fatal(err)
	}
	for _, task := range got.Items {
		if first.IsZero() || task.Started.Before(first) {
			first = *task.Started
		}
		if task.Ended.After(last) {
			last = *task.Ended
		}
	}
	return len(got.Items), first, last
}

// ask asks for something three times while the nodes give signs of life, logs how long the
// answers took, and returns the longest.
func (s *system) ask(what, path string) time.Duration {
	s.t.Helper()
	var took []string
	longest := time.Duration(0)
	for range 3 {
		begun := time.Now()
		if err := s.send(s.t.Context(), s.admin, http.MethodGet, path, nil, nil); err != nil {
			s.t.Fatalf("%s: %v", what, err)
		}
		d := time.Since(begun)
		took, longest = append(took, d.Round(time.Millisecond).String()), max(longest, d)
	}
	s.t.Logf("%s: %s", what, strings.Join(took, ", "))
	return longest
}

// send sends a request and reads the whole answer.
func (s *system) send(ctx context.Context, token, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := s.http.Do(req)
	if err != nil {
		return fleetscore.Errorf(fleetscore.Unavailable, "ask server", path, "%w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return fleetscore.Errorf(fleetscore.Unavailable, "ask server", path, "%w", err)
	case resp.StatusCode == http.StatusNotFound:
		return fleetscore.Errorf(fleetscore.NotFound, "ask server", path, "%s", answer)
	case resp.StatusCode/100 != 2:
		return fleetscore.Errorf(fleetscore.Internal, "ask server", path, "%s: %s", resp.Status, answer)
	case out == nil:
		return nil
	}
	return json.Unmarshal(answer, out)
}

// agent is the server as a node sees it. All nodes share the connections that aren't in
// use, so that a heartbeat needs none of its own.
type agent struct {
	*system
	registered func()
	once       sync.Once
}

func (a *agent) Register(ctx context.Context, h dispatch.Hello) (n dispatch.Welcome, err error) {
	if err = a.send(ctx, a.token, http.MethodPost, "/api/v1/nodes", h, &n); err == nil {
		a.once.Do(a.registered)
	} else if ctx.Err() == nil {
		a.refused.Do(func() { a.t.Logf("node %s can't register, which it tries again: %v", h.Node, err) })
	}
	return n, err
}

func (a *agent) Lease(ctx context.Context, node fleetscore.NodeID, r dispatch.LeaseRequest) (reply dispatch.LeaseReply, err error) {
	r.Free = 0 // it waits as a node that takes tasks, and gets none
	err = a.send(ctx, a.token, http.MethodPost, "/api/v1/nodes/"+string(node)+"/lease", r, &reply)
	return reply, err
}

func (a *agent) Heartbeat(ctx context.Context, node fleetscore.NodeID, r dispatch.HeartbeatRequest) (reply dispatch.HeartbeatReply, err error) {
	begun := time.Now()
	err = a.send(ctx, a.token, http.MethodPost, "/api/v1/nodes/"+string(node)+"/heartbeat", r, &reply)
	if ctx.Err() == nil {
		a.beats.add(time.Since(begun), err)
	}
	return reply, err
}

// Goodbye says nothing: the server is stopped with its nodes.
// Prepared is never called, because the pool has no setup command.
func (a *agent) Prepared(context.Context, fleetscore.NodeID, dispatch.Preparation) error { return nil }

func (a *agent) Goodbye(context.Context, fleetscore.NodeID) error { return nil }

// Complete and AppendLog are never called, because the node gets no tasks.
func (a *agent) Complete(context.Context, fleetscore.LeaseID, dispatch.Result) error { return nil }

func (a *agent) AppendLog(context.Context, fleetscore.LeaseID, dispatch.LogChunk) error { return nil }

// times collects how long answers took.
type times struct {
	mu     sync.Mutex // guards what follows
	took   []time.Duration
	failed int
}

// spread says how long answers took.
type spread struct {
	n, failed     int
	p50, p99, max time.Duration
	cpu           float64 // how many processors the server was busy with meanwhile
}

func (s spread) String() string {
	return fmt.Sprintf("%d answers, median %s, 99 of 100 within %s, longest %s, %d failed, the server used %.2f processors", s.n, s.p50.Round(time.Millisecond), s.p99.Round(time.Millisecond), s.max.Round(time.Millisecond), s.failed, s.cpu)
}

func (t *times) add(d time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.took = append(t.took, d)
	if err != nil {
		t.failed++
	}
}

// take returns what was collected and begins anew.
func (t *times) take() spread {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := spread{n: len(t.took), failed: t.failed}
	if slices.Sort(t.took); s.n > 0 {
		s.p50, s.p99, s.max = t.took[s.n/2], t.took[s.n*99/100], t.took[s.n-1]
	}
	t.took, t.failed = nil, 0
	return s
}
