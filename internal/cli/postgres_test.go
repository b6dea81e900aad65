package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator"
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

// TestPostgresRefusals: a server refuses a ledger or a folder that it can't be sure of,
// with a message that says what to do.
func TestPostgresRefusals(t *testing.T) {
	t.Parallel()
	database := testkit.StartPostgres(t, testkit.PostgresVersions[0])
	file := func(name, text string) string {
		f := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	address := file("ledger.url", database.NewDatabase(t)+"\n")
	own := t.TempDir() // with a ledger of its own
	if err := os.WriteFile(filepath.Join(own, "ledger.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := newServer(t, "hub: {key: [Device], time: TS}\n", func(string) {})
	p.args = []string{"--ledger-url-file", address}
	p.start()
	eventually(t, "the server names its ledger", func() bool { return strings.Contains(p.log.String(), "PostgreSQL ledger") })
	if s := p.log.String(); strings.Contains(s, database.Password) {
		t.Errorf("the server says its ledger's password:\n%s", s)
	}
	refused := func(t *testing.T, code int, want string, args ...string) {
		t.Helper()
		got, stdout, stderr := command(t, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
		if got != code || !strings.Contains(stderr, want) || strings.Contains(stdout+stderr, database.Password) {
			t.Errorf("serve %v: exit %d, want %d and %q\n%s%s", args, got, code, want, stdout, stderr)
		}
	}
	t.Run("Second", func(t *testing.T) {
		t.Parallel() // it waits for as long as a killed server's lease lasts
		refused(t, 13, "--shared", "--dir", t.TempDir(), "--ledger-url-file", address)
	})
	refused(t, 10, "--ledger-url-file FILE", "--dir", t.TempDir(), "--shared")
	refused(t, 10, "empty", "--dir", t.TempDir(), "--ledger-url-file", file("empty", "\n"))
	refused(t, 10, "no such file", "--dir", t.TempDir(), "--ledger-url-file", "/none")
	refused(t, 13, "ledger.db", "--dir", own, "--ledger-url-file", address)
	refused(t, 13, fmt.Sprint(p.cmd.Process.Pid), "--dir", filepath.Join(p.dir, "data"), "--ledger-url-file", address)
	refused(t, 13, "--ledger-url-file", "--dir", filepath.Join(p.dir, "data"))
	refused(t, 10, "--store s3://", "--dir", t.TempDir(), "--ledger-url-file", address, "--shared")
	refused(t, 10, "--store s3://", "--dir", t.TempDir(), "--ledger-url-file", address, "--shared", "--store", t.TempDir())
}

// TestDatabaseAway: the database is away for a whole minute while jobs wait and run.
// Readings are taken, health and commands say what is wrong; when the database is back
// the server goes on by itself: the jobs end, and each reading is counted once. Nothing
// shows the database's password.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	database := testkit.StartPostgres(t, testkit.PostgresVersions[1])
	yaml := strings.TrimSpace(fmt.Sprintf(crashFleet, filepath.Join(testkit.Root(t), "examples", "fleet", "models"))) + historyPipeline
	p := newServer(t, yaml, func(string) {})
	p.env = []string{server.LedgerVariable + "=" + database.NewDatabase(t)}
	p.start()
	server := "--server=http://" + p.addr
	healthy := func() bool { status, _ := p.page(api.Prefix + "/health"); return status == http.StatusOK }
	eventually(t, "the server is well", healthy)
	p.uploadRows()
	p.reading()
	jobs := []fleetscore.JobID{p.submit(0), p.submit(1)}
	database.Stop(t)
	p.reading() // it needs the hub alone
	code, stdout, stderr := command(t, "job", "list", server)
	if code != 11 || !strings.Contains(stderr, "database") {
		t.Errorf("job list: exit %d\n%s%s", code, stdout, stderr)
	}
	readings := int64(2)
	var page string
	back := time.After(time.Minute) // the promise is about a minute
	for every := time.NewTicker(5 * time.Second); back != nil; {
		select {
		case <-every.C:
			p.reading()
			readings++
			var status int
			if status, page = p.page(api.Prefix + "/health"); status != http.StatusServiceUnavailable || !strings.Contains(page, "database") {
				t.Errorf("health doesn't tell of the database: %d\n%s", status, page)
			}
		case <-back:
			every.Stop()
			back = nil
		}
	}
	database.Start(t)
	eventually(t, "the server is well again", healthy)
	for _, id := range append(jobs, p.submit(2)) {
		p.ends(id)
	}
	p.reading()
	readings++
	eventually(t, "all readings are counted", func() bool { return p.countedIn(filepath.Join(p.dir, "data", "store")) == readings })
	if n := strings.Count(p.log.String(), `"level":"ERROR"`); n > 40 { // each try would be more than a hundred
		t.Errorf("one outage is told in %d lines:\n%s", n, p.log)
	}
	if all := p.log.String() + stderr + page; strings.Contains(all, database.Password) {
		t.Errorf("something holds the database's password:\n%s", all)
	}
}

const sharedFleet = `
store: %s
hub: {key: [Device, Tag], time: TS, disorder: 1m, idle_after: 2s, nats: {url: %q, replicas: 1}}
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
  cpu: {provider: local, slots: 1, scale: {min: 0, max: 1}}
  lab: {provider: static}
pipelines:
  history: {dataset: history, fleet: sensors, features: [Value], pool: lab}
  scheduled:
    dataset: history
    fleet: sensors
    features: [Value]
    pool: cpu
    schedule: {recurrence: {frequency: Second, interval: 5}, start_when: clock}
    limits: {no_data: 100%%}
`

// takeOverWithin is the promise: so long after a server was killed or frozen at most,
// another one works.
const takeOverWithin = 10 * time.Second

// TestServers lets two servers share the work while jobs and readings come to both, and
// nodes and devices know both. The one that leads is killed, frozen and ended in turn, the
// other one is killed too, and at last one after the other is started again: the other one
// leads in time, the frozen one follows when it wakes, every job that was taken ends well,
// each due time has one outcome, and each acknowledged reading is in one row.
func TestServers(t *testing.T) {
	t.Parallel()
	models := filepath.Join(testkit.Root(t), "examples", "fleet", "models")
	database, bucket, hub := testkit.StartPostgres(t, testkit.PostgresVersions[1]), storetest.S3(t).NewBucket(t), natstest.Start(t, natstest.Options{})
	address := database.NewDatabase(t)
	server := func(name string) *process {
		p := newServer(t, fmt.Sprintf(sharedFleet, bucket, hub.URL()), func(string) {})
		p.env, p.args = []string{server.LedgerVariable + "=" + address}, []string{"--shared", "--name", name}
		return p
	}
	a, b := server("a"), server("b")
	a.start()
	a.leads("a")
	rows := a.fillStore(models)
	b.start()
	if code, _, stderr := command(t, "apply", ownHubFile(t, bucket), "--server=http://"+b.addr); code != exitUsage || !strings.Contains(stderr, "hub.nats") {
		t.Errorf("a configuration with a hub of one server: exit %d\n%s", code, stderr)
	}
	both := []string{"http://" + a.addr + ",http://" + b.addr, "http://" + b.addr + ",http://" + a.addr}
	for _, order := range both {
		b.agent(order)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var taken []fleetscore.JobID
	at := map[*process]int{}
	submit := func(ctx context.Context, p *process, body map[string]any) error {
		var j fleetscore.Job
		limited, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		err := p.Post(limited, "/jobs", body, &j)
		if err == nil {
			taken = append(taken, j.ID)
			at[p]++
		}
		return err
	}
	wg.Go(func() {
		first := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
		for n := 0; ctx.Err() == nil; n++ {
			p := []*process{a, b}[n%2]
			from := first.Add(time.Duration(n%239) * 5 * time.Second)                                                // of the uploaded rows; a job over the same rows would replace what one before found
			_ = submit(ctx, p, map[string]any{"pipeline": "history", "from": from, "to": from.Add(5 * time.Second)}) // one of them may be dead or frozen
			pause(ctx, 100*time.Millisecond)
		}
	})
	acknowledged := make([]int64, 2)
	for i, order := range both {
		c := a.device(order)
		wg.Go(func() { acknowledged[i] = sendReadings(ctx, c, fmt.Sprint(i+1)) })
	}
	pause(ctx, 2*time.Second)
	a.kill()
	b.leads("b")
	a.start()

	b.signal(syscall.SIGSTOP)
	a.leads("a")
	pause(ctx, time.Second)
	b.signal(syscall.SIGCONT)
	eventually(t, "the server that was frozen follows", func() bool { return b.states()["b"] == fleetscore.ServerFollows })

	var queries api.List[aggregator.Status]
	eventually(t, "the server that follows says how far the queries are", func() bool {
		return b.Get(t.Context(), "/queries", nil, &queries) == nil && len(queries.Items) == 1 && queries.Items[0].Partitions[0].Position > 0
	})
	b.kill() // it only follows
	b.start()

	a.stop() // one after the other is ended and started again, as for an upgrade
	b.leads("b")
	if s := b.states()["a"]; s != fleetscore.ServerEnded {
		t.Errorf("the server that was ended is %q", s)
	}
	b.showsServers()
	a.env = append(a.env, asRelease+"=2.0.0")
	a.start()
	b.stop()
	a.leads("a")
	b.env = append(b.env, asRelease+"=2.0.0")
	b.start()
	eventually(t, "both servers are of the new release", func() bool {
		var servers api.List[fleetscore.Server]
		return b.Get(t.Context(), "/servers", nil, &servers) == nil && len(servers.Items) == 2 &&
			!slices.ContainsFunc(servers.Items, func(s fleetscore.Server) bool { return s.Version != "2.0.0" || s.State == fleetscore.ServerEnded })
	})
	cancel()
	wg.Wait()
	b.jobsEnd(taken)
	for _, p := range []*process{a, b} { // whichever of them took it
		if code, out, stderr := command(t, "job", "logs", string(taken[0]), "--server=http://"+p.addr); code != 0 || !strings.Contains(out, "rows") {
			t.Errorf("the log of a job: exit %d\n%s%s", code, out, stderr)
		}
	}
	if err := submit(t.Context(), b, map[string]any{"pipeline": "history"}); err != nil {
		t.Error(err)
	}
	b.jobsEnd(taken[len(taken)-1:])
	checkCloudPredictions(t, bucket, models, rows)
	t.Logf("%d jobs, %d submitted at one server and %d at the other", len(taken), at[a], at[b])
	if at[a] < 5 || at[b] < 5 {
		t.Error("one of the servers took few jobs, so this has shown little")
	}
	b.oneOutcomeEach("scheduled", 5*time.Second)
	var counted float64
	eventually(t, "each acknowledged reading counts once", func() bool {
		counted = countReadings(t, bucket)
		return counted >= float64(acknowledged[0]+acknowledged[1])
	})
	if counted != float64(acknowledged[0]+acknowledged[1]) || acknowledged[0] == 0 || acknowledged[1] == 0 {
		t.Errorf("%v readings were acknowledged, %v are in rows", acknowledged, counted)
	}
}

// agent starts a node by hand, which may know several servers, until the test ends.
func (p *process) agent(servers string, env ...string) {
	t := p.t
	t.Helper()
	name := "agent" + fmt.Sprint(time.Now().UnixNano())
	code, token, stderr := command(t, "token", "create", "node", name, "--server=http://"+p.addr)
	if code != 0 {
		t.Fatal(stderr)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "node", "--pool", "lab", "--server", servers)
	cmd.Env = append(append(os.Environ(), asCommand+"=1", "FLEETSCORE_NODE_TOKEN_FILE="+file), env...)
	log := &logText{}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // that it ended before shows in the wait
		err := cmd.Wait()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != -1 || t.Failed() {
			t.Logf("the node ended by itself: %v, or the test failed:\n%s", err, log)
		}
	})
}

// device is a client that may send readings to several servers.
func (p *process) device(servers string) *client.Client {
	t := p.t
	t.Helper()
	code, token, stderr := command(t, "token", "create", "device", "device"+fmt.Sprint(time.Now().UnixNano()), "--server=http://"+p.addr)
	if code != 0 {
		t.Fatal(stderr)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Config{Server: servers, TokenFile: file})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// sendReadings sends readings of a device until ctx ends, each until a server has
// acknowledged it, and counts them.
func sendReadings(ctx context.Context, c *client.Client, device string) (acknowledged int64) {
	for ctx.Err() == nil {
		line := fmt.Sprintf(`{"TS":%q,"Device":%q,"Tag":"pressure","Value":5}`+"\n", time.Now().UTC().Format(time.RFC3339Nano), device)
		for {
			limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			err := c.Send(limited, http.MethodPost, "/hubs/hub/messages", nil, "application/x-ndjson", strings.NewReader(line), nil)
			cancel()
			if err == nil {
				acknowledged++
				break
			}
			pause(ctx, 20*time.Millisecond)
		}
		pause(ctx, 20*time.Millisecond)
	}
	return acknowledged
}

// countReadings is how many readings the rows of the dataset are made of.
func countReadings(t *testing.T, address string) (n float64) {
	t.Helper()
	bucket, err := store.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	d := catalog.New(bucket).Dataset("readings")
	snap, err := d.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows, err := d.ReadRows(t.Context(), snap.Files, table.ReadQuery{})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range rows.Column("N") {
		n += x
	}
	return n
}

// oneOutcomeEach checks that due times follow each other without a gap or a repeat.
func (p *process) oneOutcomeEach(pipeline string, every time.Duration) {
	p.t.Helper()
	var list api.List[fleetscore.Occurrence]
	// Due times wait while a job of the schedule hasn't ended, which the loss of its node delays.
	eventually(p.t, "the schedule of "+pipeline+" goes on", func() bool {
		if err := p.Get(p.t.Context(), "/schedules/"+pipeline+"/occurrences", nil, &list); err != nil {
			p.t.Fatal(err)
		}
		return len(list.Items) >= 4
	})
	for i, o := range list.Items[1:] {
		if before := list.Items[i]; before.Due.Sub(o.Due) != every || o.State == "" {
			p.t.Errorf("after %s (%s) the due time before is %s (%s)", before.Due, before.State, o.Due, o.State)
		}
	}
}

// showsServers looks at the page of the servers while this one, b, leads and a has ended.
func (p *process) showsServers() {
	p.t.Helper()
	var list api.List[fleetscore.Server]
	if err := p.Get(p.t.Context(), "/servers", nil, &list); err != nil || len(list.Items) != 2 {
		p.t.Fatalf("%d servers, %v", len(list.Items), err)
	}
	a, b := list.Items[0], list.Items[1]
	if b.LeadsSince == nil || b.LeadsSince.Before(b.Started) || b.LeadsSince.After(b.Seen.Add(time.Minute)) || a.LeadsSince != nil {
		p.t.Errorf("b leads since %v, which was started at %s and seen at %s; a since %v", b.LeadsSince, b.Started, b.Seen, a.LeadsSince)
	}
	_, page := p.page("/servers")
	_, overview := p.page("/")
	for _, want := range []string{"<p>b leads since <span title=\"" + b.LeadsSince.Format("2006-01-02 15:04:05"), "★ leads</span>", "■ ended</span>", p.addr} {
		if !strings.Contains(page, want) {
			p.t.Errorf("the page of the servers lacks %q:\n%s", want, page)
		}
	}
	if !strings.Contains(overview, `<a href="/servers">`) {
		p.t.Error("the overview doesn't lead to the page of the servers")
	}
}

// states are what the servers do, by name, as this one says.
func (p *process) states() map[string]fleetscore.ServerState {
	p.t.Helper()
	out := map[string]fleetscore.ServerState{}
	var list api.List[fleetscore.Server]
	limited, cancel := context.WithTimeout(p.t.Context(), 2*time.Second)
	defer cancel()
	if err := p.Get(limited, "/servers", nil, &list); err != nil {
		return out // it may be about to wake
	}
	for _, s := range list.Items {
		out[s.Name] = s.State
	}
	return out
}

// leads waits until the server of that name, this one, leads, which must be in time.
func (p *process) leads(name string) {
	p.t.Helper()
	began := time.Now()
	eventually(p.t, "server "+name+" leads", func() bool { return p.states()[name] == fleetscore.ServerLeads })
	if took := time.Since(began); took > takeOverWithin {
		p.t.Errorf("it took %s until server %s led", took, name)
	} else {
		p.t.Logf("server %s led after %s", name, took.Round(time.Millisecond))
	}
}

// ownHubFile is a configuration that servers which share a ledger can't carry out.
func ownHubFile(t *testing.T, bucket string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(f, []byte("store: "+bucket+fmt.Sprintf(crashFleet, "models/sensors")), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

// jobsEnd waits until the jobs have ended, and checks that each has succeeded with one
// outcome per sensor.
func (p *process) jobsEnd(ids []fleetscore.JobID) {
	p.t.Helper()
	for _, id := range ids {
		var j fleetscore.Job
		for end := time.Now().Add(90 * time.Second); p.Get(p.t.Context(), "/jobs/"+string(id), nil, &j) != nil || !j.State.Ended(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				_, nodes := p.page("/api/v1/nodes")
				p.t.Fatalf("of %d jobs, job %s doesn't end: %+v\n%s\n%s", len(ids), id, j, nodes, p.log)
			}
		}
		var items api.List[fleetscore.Item]
		if err := p.Get(p.t.Context(), "/jobs/"+string(id)+"/coverage", nil, &items); err != nil {
			p.t.Fatal(err)
		}
		if j.State != fleetscore.JobSucceeded || int64(len(items.Items)) != j.Expected || j.Expected == 0 {
			p.t.Errorf("job %s is %s (%s) with %d items for %d sensors", id, j.State, j.Reason, len(items.Items), j.Expected)
		}
	}
}
