package cli

import (
	"context"
	"encoding/csv"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// poolText describes a pipeline over the reference fleet whose pool is given.
func poolText(t *testing.T, pool string) string {
	t.Helper()
	return fmt.Sprintf(`
hub: {key: [Device, Tag], time: TS}
fleets:
  sensors: {path: %s, model: "model_{Device}_{Tag}"}
pools:
  vms: %s
pipelines:
  reference: {dataset: history, fleet: sensors, features: [Value], pool: vms}
`, filepath.Join(testkit.Reference(t), "models"), pool)
}

// uploadReference uploads the reference's rows.
func (p *process) uploadReference() {
	p.t.Helper()
	if code, stdout, stderr := command(p.t, "dataset", "upload", "history", filepath.Join(testkit.Reference(p.t), "sensor_data.csv"), "--server=http://"+p.addr); code != 0 {
		p.t.Fatalf("upload: exit %d\n%s%s", code, stdout, stderr)
	}
}

// eventually waits until a condition that processes and files show holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 90 s", what)
		}
	}
}

// writeScript writes a program of the user's.
func writeScript(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte("#!/bin/sh\nset -e\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestExecPool: machines of commands are started for a job, survive a killed server
// and do its job, and are all stopped afterwards, one that nobody knows too.
func TestExecPool(t *testing.T) {
	t.Parallel()
	var folder string
	p := startServerIn(t, poolText(t, "{provider: exec, scale: {max: 2, idle_after: 1s}, exec: {start: [./cloud/start], stop: [./cloud/stop], list: [./cloud/list]}}"), func(dir string) {
		folder = filepath.Join(dir, "cloud")
		if err := os.MkdirAll(filepath.Join(folder, "machines"), 0o755); err != nil {
			t.Fatal(err)
		}
		program, err := filepath.Abs(os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		// The agent gets the token in a file of its own, as a real machine would.
		writeScript(t, filepath.Join(folder, "start"), `cp "$FLEETSCORE_NODE_TOKEN_FILE" "$FLEETSCORE_MACHINE.token"
FLEETSCORE_NODE_TOKEN_FILE="$PWD/$FLEETSCORE_MACHINE.token" `+asCommand+`=1 setsid `+program+` node > "$FLEETSCORE_MACHINE.log" 2>&1 &
echo $! > "machines/$FLEETSCORE_MACHINE"
`)
		writeScript(t, filepath.Join(folder, "stop"), `[ -f "machines/$FLEETSCORE_MACHINE" ] || exit 0
kill $(cat "machines/$FLEETSCORE_MACHINE") 2>/dev/null || true
rm "machines/$FLEETSCORE_MACHINE"
`)
		writeScript(t, filepath.Join(folder, "list"), "ls machines\n")
	})
	t.Cleanup(func() { // whatever runs if the test fails
		pids, err := filepath.Glob(filepath.Join(folder, "machines", "*"))
		if err != nil {
			t.Error(err)
		}
		for _, file := range pids {
			text, _ := os.ReadFile(file)
			if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
	machines := func() []string {
		entries, err := os.ReadDir(filepath.Join(folder, "machines"))
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	p.uploadReference()
	code, stdout, stderr := command(t, "job", "submit", "reference", "-o", "json", "--server=http://"+p.addr)
	if code != 0 {
		t.Fatalf("submit: exit %d\n%s%s", code, stdout, stderr)
	}
	eventually(t, "a machine is started", func() bool { return len(machines()) > 0 })
	before := machines()
	p.kill()
	// Nobody knows this machine: its name says that it is the pool's.
	if err := os.WriteFile(filepath.Join(folder, "machines", "vms-leaked"), []byte("1000000000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "machines", "somebody-elses"), []byte("1000000000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	eventually(t, "the job is done", func() bool {
		var jobs api.List[fleetscore.Job]
		if err := p.Get(t.Context(), "/jobs", url.Values{"pipeline": {"reference"}}, &jobs); err != nil || len(jobs.Items) != 1 {
			t.Fatalf("jobs: %d, %v", len(jobs.Items), err)
		}
		j := jobs.Items[0]
		if j.State.Ended() && j.State != fleetscore.JobSucceeded {
			t.Fatalf("the job is %s: %s", j.State, j.Reason)
		}
		return j.State == fleetscore.JobSucceeded
	})
	if got := p.predictions("reference"); got.Len() != 17768 {
		t.Errorf("%d predictions", got.Len())
	}
	eventually(t, "all machines are stopped", func() bool { return slices.Equal(machines(), []string{"somebody-elses"}) })
	if len(before) == 0 {
		t.Error("no machine was there when the server was killed")
	}
	eventually(t, "the machines' tokens are gone", func() bool {
		var tokens api.List[api.Token]
		if err := p.Get(t.Context(), "/tokens", nil, &tokens); err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(tokens.Items, func(t api.Token) bool { return strings.HasPrefix(t.Name, "vms-") })
	})
}

// TestStaticPool: a pool without a provider's nodes waits for agents that people start, and
// never stops them. An agent joins by a one-time token, keeps its credential, and is the same
// node after a restart. An agent that starts while the server is away waits for it. The token
// is for one node, and the credential ends with the node.
func TestStaticPool(t *testing.T) {
	t.Parallel()
	p := startServer(t, poolText(t, "{provider: static}"))
	p.uploadReference()
	server := "--server=http://" + p.addr
	if code, stdout, stderr := command(t, "job", "submit", "reference", server); code != 0 {
		t.Fatalf("submit: exit %d\n%s%s", code, stdout, stderr)
	}
	eventually(t, "the job says that its pool has no node", func() bool {
		_, stdout, _ := command(t, "job", "list", "-o", "csv", server)
		return strings.Contains(stdout, "pool vms has no node: start an agent")
	})
	code, token, stderr := command(t, "pool", "join-token", "vms", server)
	if code != 0 {
		t.Fatalf("join token: exit %d\n%s", code, stderr)
	}
	if code, _, stderr := command(t, "pool", "join-token", "none", server); code != 12 || !strings.Contains(stderr, "there is no such pool") {
		t.Errorf("a one-time token for a pool that isn't there: exit %d\n%s", code, stderr)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	agent := func(ctx context.Context, args ...string) *exec.Cmd {
		a := exec.CommandContext(ctx, os.Args[0], append([]string{"node", server}, args...)...)
		a.Cancel = func() error { return a.Process.Signal(syscall.SIGTERM) }
		a.Env = append(os.Environ(), asCommand+"=1", "FLEETSCORE_NODE_TOKEN_FILE="+file)
		return a
	}
	nodes := func() []fleetscore.Node {
		var nodes api.List[fleetscore.Node]
		if err := p.Get(t.Context(), "/nodes", nil, &nodes); err != nil {
			t.Fatal(err)
		}
		return nodes.Items
	}
	var joined fleetscore.NodeID
	for start := range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p.kill()
		a, log := agent(ctx), &logText{}
		a.Stderr = log
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the agent says that it waits", func() bool { return strings.Contains(log.String(), "is asked again") })
		p.start()
		eventually(t, "the agent has joined, and the job is done", func() bool {
			var jobs api.List[fleetscore.Job]
			if err := p.Get(t.Context(), "/jobs", nil, &jobs); err != nil {
				t.Fatal(err)
			}
			n := nodes()
			return len(jobs.Items) == 1 && jobs.Items[0].State == fleetscore.JobSucceeded && len(n) == 1 && n[0].State == fleetscore.NodeIdle
		})
		cancel()
		_ = a.Wait() // the signal's
		if n := nodes(); len(n) != 1 || n[0].State != fleetscore.NodeStopped || start > 0 && n[0].ID != joined {
			t.Errorf("nodes %+v: want the agent, stopped", n)
		} else {
			joined = n[0].ID
		}
	}
	if st, err := os.Stat(file + ".node"); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the credential's file: %v, %v; want the rights 0600", st, err)
	}
	fails := func(want string, args ...string) {
		t.Helper()
		text, err := agent(t.Context(), args...).CombinedOutput()
		if err == nil || !strings.Contains(string(text), want) {
			t.Errorf("agent with %q: %v, want %q\n%s", args, err, want, text)
		}
	}
	fails("the one-time token was used already: node "+string(joined)+" joined pool vms by it", "--credential", filepath.Join(t.TempDir(), "mine"))
	fails("its credential is for pool vms, not for pool gpu", "--pool", "gpu")
	if code, _, stderr := command(t, "node", "remove", string(joined), server); code != 0 {
		t.Errorf("node remove: exit %d\n%s", code, stderr)
	}
	fails("delete this file and join again by a new token")
	if code, _, stderr := command(t, "node", "remove", string(joined), server); code != 13 || !strings.Contains(stderr, "it has no credential of its own") {
		t.Errorf("node remove again: exit %d\n%s", code, stderr)
	}
}

// TestFormulaPool: a formula starts the nodes that do a job; its evaluations are shown; a
// formula that can't be read is refused with its line; one that fails leaves the pool as
// it is, and health, "pool show" and the portal say where.
func TestFormulaPool(t *testing.T) {
	t.Parallel()
	pool := func(formula string) string {
		return poolText(t, "\n    scale:\n      max: 3\n      cost_per_hour: 0.2\n      evaluation_interval: 30s\n      formula: |\n        "+formula)
	}
	p := startServer(t, pool("n = 1.5;\n        $TargetDedicatedNodes = n;"))
	server := "--server=http://" + p.addr
	p.uploadReference()
	if code, stdout, stderr := command(t, "job", "submit", "reference", "--wait", server); code != 0 {
		t.Fatalf("submit: exit %d\n%s%s", code, stdout, stderr)
	}
	show := func(how string, want ...string) {
		t.Helper()
		code, stdout, stderr := command(t, "pool", "show", "vms", server, "-o", how)
		for _, w := range want {
			if code != 0 || !strings.Contains(stdout, w) {
				t.Errorf("pool show -o %s: exit %d without %q\n%s%s", how, code, w, stdout, stderr)
			}
		}
	}
	var nodes api.List[fleetscore.Node]
	if err := p.Get(t.Context(), "/nodes", nil, &nodes); err != nil || len(nodes.Items) == 0 || !nodes.Items[0].Registered.After(nodes.Items[0].Started) {
		t.Errorf("nodes %+v, %v; want one that registered after its start", nodes.Items, err)
	}
	const result = "$TargetDedicatedNodes=1;$TargetLowPriorityNodes=0;$NodeDeallocationOption=requeue;n=1.5"
	show("table", "compared with 0 nodes always", "node-hours, cost 0.00", "job                    reference-", "1 idle", "0 to 3 nodes", "evaluated every 30s", result)
	eventually(t, "the node's load is shown", func() bool {
		_, stdout, _ := command(t, "pool", "show", "vms", server)
		return strings.Contains(stdout, ": idle, CPU ") && strings.Contains(stdout, " GiB, disk ")
	})
	var jobs api.List[fleetscore.Job]
	if err := p.Get(t.Context(), "/jobs", nil, &jobs); err != nil || len(jobs.Items) != 1 {
		t.Fatalf("jobs %+v, %v", jobs.Items, err)
	}
	for how, want := range map[string]string{"table": "COST", "json": `"cost": `} {
		if code, stdout, stderr := command(t, "job", "show", string(jobs.Items[0].ID), server, "-o", how); code != 0 || !strings.Contains(strings.ToUpper(stdout), strings.ToUpper(want)) {
			t.Errorf("job show -o %s: exit %d without %q\n%s%s", how, code, want, stdout, stderr)
		}
	}
	show("json", `"cpu_percent": `, `"memory_total_bytes": `, `"always_on_node_hours": `, `"saved_cost": `, `"n": 1.5`, `"$TaskSlotsPerNode": 1`, `"result": "`+result)
	show("csv", "time,nodes,result,error\n", ",1,"+result+",\n")

	apply := func(formula string) (int, string) {
		if err := os.WriteFile(p.file, []byte(pool(formula)), 0o600); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := command(t, "apply", p.file, server)
		return code, stderr
	}
	if code, stderr := apply("// nothing\n        $TargetDedicatedNodes = $PendingTask;"); code != exitUsage || !strings.Contains(stderr, "scale.formula: line 2, column 25: ") {
		t.Errorf("a formula with a mistake: exit %d\n%s", code, stderr)
	}
	if code, stderr := apply("$TargetDedicatedNodes = avg($FailedTasks.GetSample(TimeInterval_Hour));"); code != 0 || !strings.Contains(stderr, "GetSamplePercent") {
		t.Fatalf("a formula without samples: exit %d\n%s", code, stderr)
	}
	const place = "Line 1, Col 51: Insufficient data"
	eventually(t, "health names the formula", func() bool {
		var h api.Health
		if err := p.Get(t.Context(), "/health", nil, &h); err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(h.Problems, func(f api.Failing) bool {
			return f.Part == "formula of pool vms" && f.Warning && strings.Contains(f.Problem, place)
		})
	})
	show("table", "1 idle", place, result)
	if status, text := p.page("/pools/vms"); status != 200 || !strings.Contains(text, place) || !strings.Contains(text, result) {
		t.Errorf("the portal's page: %d\n%s", status, text)
	}
	if code, _, stderr := command(t, "pool", "show", "none", server); code != 12 || !strings.Contains(stderr, "there is no such pool") {
		t.Errorf("a pool that isn't there: exit %d\n%s", code, stderr)
	}
}

// TestSetupPool: a setup command runs on each node before it takes tasks, and what it
// wrote is the node's log. If it fails, the node is unusable: the reason and the end of the
// log are shown by the commands, health and the portal, and the pool doesn't go on starting
// nodes as fast as it can.
func TestSetupPool(t *testing.T) {
	t.Parallel()
	var script string
	text := poolText(t, "{provider: local, setup: {command: [./cloud/prepare, now], timeout: 1m}}")
	p := startServerIn(t, text, func(dir string) {
		if err := os.MkdirAll(filepath.Join(dir, "cloud"), 0o755); err != nil {
			t.Fatal(err)
		}
		script = filepath.Join(dir, "cloud", "prepare")
		writeScript(t, script, "echo \"prepared $FLEETSCORE_ID $1\"\n")
	})
	server := "--server=http://" + p.addr
	p.uploadReference()
	if code, stdout, stderr := command(t, "job", "submit", "reference", "--wait", server); code != 0 {
		t.Fatalf("submit: exit %d\n%s%s", code, stdout, stderr)
	}
	nodes := func() []fleetscore.Node {
		var nodes api.List[fleetscore.Node]
		if err := p.Get(t.Context(), "/nodes", nil, &nodes); err != nil {
			t.Fatal(err)
		}
		return nodes.Items
	}
	first := nodes()
	if len(first) == 0 || !first[0].Ready.After(first[0].Registered) {
		t.Fatalf("nodes %+v; want one that was ready after it registered", first)
	}
	log := "logs/nodes/vms/" + string(first[0].ID) + ".txt"
	eventually(t, "the output of the setup command is the node's log", func() bool {
		_, stdout, _ := command(t, "store", "cat", log, server)
		return strings.Contains(stdout, "prepared "+string(first[0].ID)+" now\n")
	})
	writeScript(t, script, "echo installing\necho no such package >&2\nexit 3\n")
	if err := os.WriteFile(p.file, []byte(strings.Replace(text, "timeout: 1m}}", "timeout: 2m}, scale: {min: 1, max: 2}}", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, "apply", p.file, server); code != 0 {
		t.Fatalf("apply: exit %d\n%s", code, stderr)
	}
	for _, n := range nodes() { // new ones have to come
		if pid := n.PID; pid > 1 && n.State.Speaks() {
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "health says that nodes can't be used", func() bool {
		var h api.Health
		if err := p.Get(t.Context(), "/health", nil, &h); err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(h.Problems, func(f api.Failing) bool {
			return f.Part == "nodes of pool vms" && strings.Contains(f.Problem, "no such package")
		})
	})
	_, stdout, _ := command(t, "pool", "show", "vms", server)
	for _, want := range []string{": unusable, the setup command ", `its last line: "no such package"; the end of its log:` + "\n    installing\n    no such package\n", "could not be used"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("pool show has no %q:\n%s", want, stdout)
		}
	}
	if status, text := p.page("/pools/vms"); status != 200 || !strings.Contains(text, "unusable") || !strings.Contains(text, "<pre>installing\nno such package\n</pre>") {
		t.Errorf("the portal's page: %d\n%s", status, text)
	}
	var pools api.List[api.Pool]
	if err := p.Get(t.Context(), "/pools", nil, &pools); err != nil {
		t.Fatal(err)
	}
	if ended := pools.Items[0].Ended; ended[fleetscore.NodeUnusable] == 0 || ended[fleetscore.NodeStopped] == 0 {
		t.Errorf("the pool's nodes that ended: %v; want unusable and stopped ones", ended)
	}
	_, stdout, _ = command(t, "pool", "list", "-o", "csv", server)
	rows, err := csv.NewReader(strings.NewReader(stdout)).ReadAll()
	if err != nil || len(rows) != 2 {
		t.Fatalf("pool list: %v\n%s", err, stdout)
	}
	if i := slices.Index(rows[0], "unusable"); i < 0 || rows[1][i] == "0" {
		t.Errorf("pool list counts no unusable node:\n%s", stdout)
	}
	unusable := slices.DeleteFunc(nodes(), func(n fleetscore.Node) bool { return n.State != fleetscore.NodeUnusable })
	if len(unusable) > 8 {
		t.Errorf("%d nodes were started although none can be used", len(unusable))
	}
}
