package cli

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/server"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/testkit"
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

// TestDatabaseAway: while the database of the ledger is away, commands and health say
// so and name it, without its password; when it is back, everything works again by itself.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	database := testkit.StartPostgres(t, testkit.PostgresVersions[1])
	p := newServer(t, fmt.Sprintf(crashFleet, filepath.Join(testkit.Root(t), "examples", "fleet", "models")), func(string) {})
	p.env = []string{server.LedgerVariable + "=" + database.NewDatabase(t)}
	p.start()
	server := "--server=http://" + p.addr
	healthy := func() bool { status, _ := p.page(api.Prefix + "/health"); return status == http.StatusOK }
	eventually(t, "the server is well", healthy)
	p.reading()
	database.Stop(t)
	p.reading() // it needs the hub alone
	code, stdout, stderr := command(t, "job", "list", server)
	if code != 11 || !strings.Contains(stderr, "database") {
		t.Errorf("job list: exit %d\n%s%s", code, stdout, stderr)
	}
	var page string
	eventually(t, "health tells of the database", func() bool {
		var status int
		status, page = p.page(api.Prefix + "/health")
		return status == http.StatusServiceUnavailable && strings.Contains(page, "database")
	})
	database.Start(t)
	eventually(t, "the server is well again", healthy)
	p.rows(1)
	if code, stdout, stderr := command(t, "job", "submit", "anomalies", "--wait", server); code != 0 && code != exitFailed { // one sensor of twenty has a row
		t.Errorf("job submit: exit %d\n%s%s", code, stdout, stderr)
	}
	if all := p.log.String() + stderr + page; strings.Contains(all, database.Password) {
		t.Errorf("something holds the database's password:\n%s", all)
	}
}

const sharedFleet = `
store: %s
hub: {key: [Device, Tag], time: TS}
fleets:
  sensors: {path: models/sensors, model: "model_{Device}_{Tag}"}
pools:
  cpu: {provider: local, slots: 1, scale: {min: 1, max: 1}}
pipelines:
  history: {dataset: history, fleet: sensors, features: [Value], pool: cpu}
`

// takeOverWithin is the promise: so long after a server was killed or frozen at most,
// another one works.
const takeOverWithin = 10 * time.Second

// TestServers lets two servers share the work while jobs are submitted at both. The one
// that leads is killed, frozen and ended in turn: the other one leads in time, the frozen
// one follows when it wakes, and every job that was taken ends well.
func TestServers(t *testing.T) {
	t.Parallel()
	models := filepath.Join(testkit.Root(t), "examples", "fleet", "models")
	database, bucket := testkit.StartPostgres(t, testkit.PostgresVersions[1]), storetest.S3(t).NewBucket(t)
	address := database.NewDatabase(t)
	server := func(name string) *process {
		p := newServer(t, fmt.Sprintf(sharedFleet, bucket), func(string) {})
		p.env, p.args = []string{server.LedgerVariable + "=" + address}, []string{"--shared", "--name", name}
		return p
	}
	a, b := server("a"), server("b")
	a.start()
	a.leads("a")
	rows := a.fillStore(models)
	b.start()
	if code, _, stderr := command(t, "apply", queriesFile(t, bucket), "--server=http://"+b.addr); code != exitUsage || !strings.Contains(stderr, "queries") {
		t.Errorf("a configuration with queries: exit %d\n%s", code, stderr)
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
			from := first.Add(time.Duration(n%19) * time.Minute) // of the uploaded rows
			for _, p := range []*process{a, b} {
				_ = submit(ctx, p, map[string]any{"pipeline": "history", "from": from, "to": from.Add(time.Minute)}) // one of them may be dead or frozen
			}
			pause(ctx, 200*time.Millisecond)
		}
	})
	pause(ctx, 2*time.Second)
	a.kill()
	b.leads("b")
	a.start()

	b.signal(syscall.SIGSTOP)
	a.leads("a")
	pause(ctx, time.Second)
	b.signal(syscall.SIGCONT)
	eventually(t, "the server that was frozen follows", func() bool { return b.states()["b"] == api.ServerFollows })

	a.stop()
	b.leads("b")
	if s := b.states()["a"]; s != api.ServerEnded {
		t.Errorf("the server that was ended is %q", s)
	}
	cancel()
	wg.Wait()
	if err := submit(t.Context(), b, map[string]any{"pipeline": "history"}); err != nil {
		t.Error(err)
	}
	b.jobsEnd(taken)
	checkCloudPredictions(t, bucket, models, rows)
	t.Logf("%d jobs, %d submitted at one server and %d at the other", len(taken), at[a], at[b])
	if at[a] == 0 || at[b] == 0 {
		t.Error("one of the servers took no job")
	}
}

// states are what the servers do, by name, as this one says.
func (p *process) states() map[string]api.ServerState {
	p.t.Helper()
	out := map[string]api.ServerState{}
	var list api.List[api.Server]
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
	eventually(p.t, "server "+name+" leads", func() bool { return p.states()[name] == api.ServerLeads })
	if took := time.Since(began); took > takeOverWithin {
		p.t.Errorf("it took %s until server %s led", took, name)
	} else {
		p.t.Logf("server %s led after %s", name, took.Round(time.Millisecond))
	}
}

// queriesFile is a configuration that servers which share a ledger can't carry out.
func queriesFile(t *testing.T, bucket string) string {
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
	if len(ids) < 5 {
		p.t.Errorf("only %d jobs were taken, so this has shown little", len(ids))
	}
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
