package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access/sas"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// reading sends one reading of now.
func (p *process) reading() {
	p.t.Helper()
	p.line(fmt.Sprintf(`{"TS":"%s","Device":"1","Tag":"pressure","Value":5}`+"\n", time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")))
}

// line sends a reading until it is acknowledged.
func (p *process) line(line string) {
	p.t.Helper()
	for range 200 {
		err := p.Send(p.t.Context(), http.MethodPost, "/hubs/hub/messages", nil, "application/x-ndjson", strings.NewReader(line), nil)
		if err == nil {
			return
		}
		if !fleetscore.KindOf(err).Retryable() {
			p.t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // a device tries again
	}
	p.t.Fatalf("no reading is taken:\n%s", p.log)
}

// rows waits until the dataset holds at least n rows.
func (p *process) rows(n int64) {
	p.t.Helper()
	var d api.Dataset
	for range 600 {
		if err := p.Get(p.t.Context(), "/datasets/readings", nil, &d); err == nil && d.Rows >= n {
			return
		}
		time.Sleep(50 * time.Millisecond) // a page of the API, not an event
	}
	p.t.Fatalf("the dataset holds %d rows, not %d:\n%s", d.Rows, n, p.log)
}

// TestChangedConfiguration applies what the server can't carry out with the data
// it has: it says so, keeps what was in force and goes on. What it can carry out
// takes effect without a restart.
func TestChangedConfiguration(t *testing.T) {
	t.Parallel()
	text := fmt.Sprintf(crashFleet, filepath.Join(testkit.Root(t), "examples", "fleet", "models"))
	p := startServer(t, text)
	server := "--server=http://" + p.addr
	apply := func(pairs ...string) (int, string) {
		t.Helper()
		changed := text
		for i := 0; i < len(pairs); i += 2 {
			changed = strings.ReplaceAll(changed, pairs[i], pairs[i+1])
		}
		file := filepath.Join(t.TempDir(), "changed.yaml")
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := command(t, "apply", file, server)
		return code, stderr
	}
	p.reading()
	p.rows(1)
	for _, c := range []struct {
		pairs []string
		code  int
		want  string
	}{
		{[]string{"AVG(Value) AS Value", "AVG(Value) AS Mean", "[Value]", "[Mean]"}, 13, "has the columns TS, Device, Tag, Value, N"},
		{[]string{"  readings:\n", "  renamed:\n"}, 13, "is written by query readings"},
		{[]string{"partitions: 2", "partitions: 3"}, 13, "partitions are fixed"},
		{[]string{"key: [Device, Tag]", "key: [Device]", "Device, Tag", "Device", "_{Tag}", ""}, 13, "the key is fixed"},
		{[]string{"/models, model:", "/models/nowhere, model:"}, 10, "isn't there"},
		{[]string{"/models, model:", ", model:"}, 10, "--models-root"}, // more than what "up" was given
		{[]string{filepath.Join(testkit.Root(t), "examples", "fleet", "models"), "/etc"}, 10, "--models-root"},
		{[]string{"pool: cpu}", "pool: cpu, runtime: python, python: {code: /etc}}"}, 10, "--models-root"},
		{[]string{"pool: cpu}", "pool: cpu, runtime: command, command: {run: python x.py, code: /etc/passwd}}"}, 10, "--models-root"},
		{[]string{"partitions: 2", "partitions: 2, kafka: [{brokers: [\"127.0.0.1:1\"], topic: t, sasl: {user: u, password_file: /etc/passwd}}]"}, 10, "--secret-root"},
	} {
		if code, stderr := apply(c.pairs...); code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%q: exit %d, want %d with %q\n%s", c.pairs, code, c.code, c.want, stderr)
		}
	}
	p.reading()
	p.rows(2)
	if code, stderr := apply("partitions: 2", "partitions: 2, retention: 1h", "scale: {min: 1", "scale: {min: 0"); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for segments, end := len(p.segments()), time.Now().Add(20*time.Second); len(p.segments()) <= segments; { // each opening begins new ones
		if time.Now().After(end) {
			t.Fatal("the hub isn't opened anew")
		}
		p.reading()
	}
	p.reading()
	p.rows(3)
	var queries api.List[aggregator.Status]
	if err := p.Get(t.Context(), "/queries", nil, &queries); err != nil || len(queries.Items) != 1 || queries.Items[0].Problem != "" {
		t.Errorf("queries %+v, %v", queries.Items, err)
	}
	p.stop()
	if log := p.log.String(); !strings.Contains(log, `"retention":"168h0m0s"`) || !strings.Contains(log, `"retention":"1h0m0s"`) {
		t.Errorf("the hub was opened with another retention than a week and then an hour:\n%s", log)
	}
}

// TestFilesAtTheStart: a server that starts without the --secret-root of files which the configuration in force names says
// which they are and doesn't use them; everything else runs. With the flag all runs.
func TestFilesAtTheStart(t *testing.T) {
	t.Parallel()
	keys := t.TempDir()
	for _, name := range []string{"ca", "other", "policy"} {
		if err := os.WriteFile(filepath.Join(keys, name), []byte("no certificate"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hub := fmt.Sprintf(`partitions: 2, kafka: [{brokers: ["127.0.0.1:1"], topic: a}, {brokers: ["127.0.0.1:1"], topic: b, tls: true, ca: %[1]s/ca}], event_hubs: {name: h, policies: [{name: p, key_file: %[1]s/policy}]}`, keys)
	p := startServer(t, strings.ReplaceAll(fmt.Sprintf(crashFleet, filepath.Join(testkit.Root(t), "examples", "fleet", "models")), "partitions: 2", hub))
	p.reading()
	look := func() (problem string, topics []string) {
		t.Helper()
		p.reading() // it is taken all the same
		_, text := p.page(api.Prefix + "/health")
		var health api.Health
		if err := json.Unmarshal([]byte(text), &health); err != nil {
			t.Fatal(err)
		}
		for _, h := range health.Problems {
			if h.Part == "files of the hub" {
				problem = h.Problem
			}
		}
		var ways api.Hub
		if err := p.Get(t.Context(), "/hub", nil, &ways); err != nil {
			t.Fatal(err)
		}
		for _, k := range ways.Kafka {
			topics = append(topics, k.Topic)
		}
		return problem, topics
	}
	sign := func() int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.addr+"/h/messages", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", sas.Sign("http://"+p.addr+"/h", "p", "no certificate", time.Now().Add(time.Hour)))
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, c := range []struct {
		args    []string
		topics  string
		status  int // of a policy's signature; a message without columns is refused with another one if the signature holds
		outside []string
	}{
		{nil, "[a]", http.StatusServiceUnavailable, []string{"hub.kafka.2.ca", keys + "/ca", "hub.event_hubs.policies.1.key_file", "--secret-root"}},
		{[]string{"--secret-root", keys}, "[a b]", http.StatusBadRequest, nil},
	} {
		p.stop()
		p.bare, p.args = true, c.args
		p.start()
		problem, topics := look()
		if fmt.Sprint(topics) != c.topics || (problem != "") != (c.outside != nil) {
			t.Errorf("serve %q: the topics %v are read, want %s; health says %q", c.args, topics, c.topics, problem)
		}
		for _, word := range c.outside {
			if !strings.Contains(problem, word) || !strings.Contains(p.log.String(), "may not be read") {
				t.Errorf("serve %q: health lacks %q: %s\n%s", c.args, word, problem, p.log)
			}
		}
		if got := sign(); got != c.status {
			t.Errorf("serve %q: a policy's signature gets %d, want %d", c.args, got, c.status)
		}
	}
}

// segments are the files of the hub's log.
func (p *process) segments() []string {
	p.t.Helper()
	files, err := filepath.Glob(filepath.Join(p.dir, "data", "hub", "p*", "*"))
	if err != nil || len(files) == 0 {
		p.t.Fatalf("the hub's files: %v, %v", files, err)
	}
	return files
}

// smallDisk mounts a disk of 90 MB, until the test ends.
func smallDisk(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=90m", "tmpfs", dir).CombinedOutput(); err != nil {
		testkit.Missing(t, "a small disk", fmt.Sprintf("run the test as root on Linux, which can mount one: %v: %s", err, out))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// TestFullDisk: while the disk is full nothing is acknowledged, every refusal says
// what to do, and all goes on once there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	p := startServerIn(t, fmt.Sprintf(crashFleet, filepath.Join(testkit.Root(t), "examples", "fleet", "models")),
		func(dir string) { smallDisk(t, filepath.Join(dir, "data")) })
	data := filepath.Join(p.dir, "data")
	p.reading()
	p.rows(1)
	fill := func(name string, bytes int) {
		t.Helper()
		err := os.WriteFile(filepath.Join(data, name), make([]byte, bytes), 0o600)
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	wants := func(what string, err error) {
		t.Helper()
		if !fleetscore.Exhausted.Is(err) || !strings.Contains(err.Error(), "free space") {
			t.Errorf("%s on a full disk: %v", what, err)
		}
	}
	fill("half", 50<<20) // below what the hub keeps free
	line := `{"TS":"2026-11-23T10:00:00Z","Device":"1","Tag":"pressure","Value":5}`
	wants("a reading", p.Send(t.Context(), http.MethodPost, "/hubs/hub/messages", nil, "application/x-ndjson", strings.NewReader(line), nil))
	fill("rest", 90<<20)
	job := map[string]string{"pipeline": "anomalies", "from": "2026-11-23T10:00:00Z", "to": "2026-11-23T11:00:00Z"}
	wants("a job", p.Post(t.Context(), "/jobs", job, nil))
	p.kill()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	up := exec.CommandContext(ctx, os.Args[0], "up", p.file, "--dir", filepath.Join(data, "new"), "--listen", p.addr)
	up.Env = append(os.Environ(), asCommand+"=1")
	if out, err := up.CombinedOutput(); up.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "disk is full") {
		t.Errorf("a start on a full disk: %v\n%s", err, out)
	}
	for _, name := range []string{"half", "rest"} {
		if err := os.Remove(filepath.Join(data, name)); err != nil {
			t.Fatal(err)
		}
	}
	p.start()
	p.reading()
	p.rows(2)
}

// TestConfigVersions: the configurations that were applied are listed, shown as they
// were written, and compared.
func TestConfigVersions(t *testing.T) {
	t.Parallel()
	first := "pools:\n  cpu: {slots: 1}\n"
	p := startServer(t, first)
	server := "--server=http://" + p.addr
	second := "pools:\n  cpu: {slots: 3} # more\n"
	if err := os.WriteFile(p.file, []byte(second), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, "apply", p.file, server); code != 0 {
		t.Fatalf("apply: exit %d\n%s", code, stderr)
	}
	for _, tt := range []struct {
		args []string
		code int
		want string // the whole output, or a part of it if it is a table
	}{
		{[]string{"show"}, 0, second},
		{[]string{"show", "1"}, 0, first},
		{[]string{"show", "9"}, 12, "no configuration of that version is kept"},
		{[]string{"show", "last"}, 10, "is not a version"},
		{[]string{"diff", "1"}, 0, "~ pools.cpu.slots: 1 → 3\n"},
		{[]string{"diff", "1", "1"}, 0, ""},
		{[]string{"history", "-o", "csv"}, 0, "version,applied,in_force\n2,"},
	} {
		code, stdout, stderr := command(t, append(append([]string{"config"}, tt.args...), server)...)
		if code != tt.code || !strings.Contains(stdout+stderr, tt.want) || tt.code == 0 && tt.args[0] != "history" && stdout != tt.want {
			t.Errorf("config %q: exit %d, want %d\n%s%s", tt.args, code, tt.code, stdout, stderr)
		}
	}
}

// TestLinesAboutASensor: what is said of a sensor and what its model printed is about it, with the lines that go on.
func TestLinesAboutASensor(t *testing.T) {
	t.Parallel()
	const log = `2026-11-29T10:00:00.000Z 3/4: out of its program
2026-11-29T10:00:00.000Z 3/4 printed: a warning
    of two lines
2026-11-29T10:00:00.000Z 13/4: another sensor
    and its second line
2026-11-29T10:00:00.000Z 3/40 printed: a third one
2026-11-29T10:00:01.000Z 3/4: failed: the command ended with exit code 1
`
	var got []string
	about, n := false, 0
	for line := range strings.Lines(log) {
		n++
		if about = lineAbout(line, "3/4", about); about {
			got = append(got, strconv.Itoa(n))
		}
	}
	if want := "1 2 3 7"; strings.Join(got, " ") != want {
		t.Errorf("lines %v, want %s", got, want)
	}
}

// TestFollowLogs: a log that is followed from the submission on is written whole and
// once, and ends with the job; the lines about one sensor can be read alone.
func TestFollowLogs(t *testing.T) {
	t.Parallel()
	p := startServerIn(t, "hub: {key: [Device], time: TS}\nfleets: {f: {path: ./models, model: \"m_{Device}\"}}\npools: {cpu: {}}\n"+
		"pipelines:\n  p: {dataset: rows, fleet: f, features: [Value], pool: cpu}\n", func(dir string) {
		if err := os.Mkdir(filepath.Join(dir, "models"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"m_a", "m_b"} {
			if err := os.WriteFile(filepath.Join(dir, "models", name), []byte("this is no model"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
	server := "--server=http://" + p.addr
	rows := filepath.Join(p.dir, "rows.csv")
	if err := os.WriteFile(rows, []byte("TS,Device,Value\n2026-11-23T10:00:00Z,a,1\n2026-11-23T10:00:00Z,b,2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, "dataset", "upload", "rows", rows, server); code != 0 {
		t.Fatalf("upload: exit %d\n%s", code, stderr)
	}
	code, id, stderr := command(t, "job", "submit", "p", "-o", "csv", server)
	if code != 0 {
		t.Fatalf("submit: exit %d\n%s", code, stderr)
	}
	id, _, _ = strings.Cut(strings.Split(id, "\n")[1], ",")
	logs := func(flags ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, append([]string{"job", "logs", id, server}, flags...)...)
		if code != 0 {
			t.Fatalf("logs %q: exit %d\n%s", flags, code, stderr)
		}
		return stdout
	}
	followed := logs("-f")
	var j fleetscore.Job
	if err := p.Get(t.Context(), jobPath(id), nil, &j); err != nil || !j.State.Ended() {
		t.Errorf("the log was followed until the job is %s, %v", j.State, err)
	}
	_, followedText, _ := strings.Cut(followed, "\n") // without the state in its first line
	_, text, _ := strings.Cut(logs(), "\n")
	if followedText != text || strings.Count(text, " b: failed") != 1 || !strings.Contains(text, "done in") {
		t.Errorf("followed:\n%s\nat the end:\n%s", followedText, text)
	}
	if got := logs("--key", "b"); strings.Count(got, "\n") != 2 || !strings.Contains(got, " b: failed") {
		t.Errorf("the lines about b:\n%s", got)
	}
	if got := logs("--task", "7"); got != "" {
		t.Errorf("the log of a task that isn't there:\n%s", got)
	}
}

// TestApplyWatch: a watched file is applied at once and after each change; a mistake in
// it is named and changes nothing.
func TestApplyWatch(t *testing.T) {
	t.Parallel()
	p := startServer(t, "pools:\n  cpu: {slots: 1}\n")
	watched, messages := &logText{}, &logText{}
	cmd := exec.Command(os.Args[0], "apply", p.file, "--watch", "--server=http://"+p.addr)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	cmd.Stdout, cmd.Stderr = watched, messages
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(p.file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(p.file+".new", p.file); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the watch wrote:\n%s%s", watched, messages)
		}
	})
	eventually(t, "the file is applied", func() bool { return strings.Contains(watched.String(), "VERSION") })
	write("pools:\n  cpu: {slots: 2}\n")
	eventually(t, "the change is applied", func() bool { return strings.Contains(watched.String(), "pools.cpu.slots: 1 → 2") })
	write("pools:\n  cpu: {slots: many}\n")
	eventually(t, "the mistake is named", func() bool {
		return strings.Contains(messages.String(), "fleet.yaml:2: pools.cpu.slots: a whole number is expected here")
	})
	write("pools:\n  cpu: {slots: 3}\n")
	eventually(t, "the next change is applied", func() bool { return strings.Contains(watched.String(), "pools.cpu.slots: 2 → 3") })
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitInterrupted {
		t.Errorf("the watch ended with %v", err)
	}
}
