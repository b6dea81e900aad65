package cli

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// guides are the documents whose commands are run as printed, in the order in which
// a user reads them: a later one finds what an earlier one left.
var guides = []string{"first-fleet.md", "schedules.md", "results.md", "operations.md", "formulas.md"}

// block is a fenced part of a document: its language, and a word behind it, which is
// a file to write or says how a command is run.
type block struct{ language, word, text string }

var fence = regexp.MustCompile("(?ms)^```([a-z]+) ?([^\n]*)\n(.*?)^```$")

func blocksOf(t *testing.T, document string) (out []block) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(testkit.Root(t), "docs", document))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range fence.FindAllStringSubmatch(string(data), -1) {
		out = append(out, block{m[1], m[2], m[3]})
	}
	if len(out) == 0 {
		t.Fatalf("%s has no blocks", document)
	}
	return out
}

// reader is somebody who does what the guides say.
type reader struct {
	t      *testing.T
	dir    string
	addr   string
	env    []string
	server *exec.Cmd
	log    *logText
}

// TestGuides runs every command and file of the guides as printed.
func TestGuides(t *testing.T) {
	t.Parallel()
	python := testkit.Venv(t, "scikit-learn==1.6.1", "pandas==2.3.3", "deltalake==1.6.6", "duckdb==2.0.1", "pyarrow==26.0.1")
	r := newReader(t, python)
	defer r.stop()
	for _, g := range guides {
		for _, b := range blocksOf(t, g) {
			r.follow(g, b)
		}
	}
	r.checkLeft()
}

// newReader is a reader with an empty folder, whose PATH has the program and the Python.
func newReader(t *testing.T, python string) *reader {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{t: t, dir: t.TempDir(), addr: l.Addr().String()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	shim := fmt.Sprintf("#!/bin/sh\nexec env %s=1 '%s' \"$@\"\n", asCommand, os.Args[0])
	if err := os.WriteFile(filepath.Join(bin, "fleetscore"), []byte(shim), 0o755); err != nil {
		t.Fatal(err)
	}
	// The guides speak of the usual address; here it may be in use.
	r.env = append(os.Environ(), "PATH="+bin+":"+filepath.Dir(python)+":"+os.Getenv("PATH"), "XDG_STATE_HOME="+t.TempDir(),
		"FLEETSCORE_LISTEN="+r.addr, "FLEETSCORE_SERVER=http://"+r.addr, "HOME="+t.TempDir())
	return r
}

func (r *reader) follow(guide string, b block) {
	r.t.Helper()
	switch {
	case b.language != "sh" && b.word == "": // part of a file
	case b.language != "sh":
		if err := os.WriteFile(filepath.Join(r.dir, b.word), []byte(b.text), 0o644); err != nil {
			r.t.Fatal(err)
		}
	case b.word == "root": // needs a machine of its own; TestServiceFile judges what it installs
	case b.word == "spark" && os.Getenv("FLEETSCORE_SPARK") == "":
	case strings.HasPrefix(b.text, "fleetscore up "):
		r.start(b.text)
	default:
		if b.word == "stop" || strings.HasPrefix(b.text, "mv fleetscore-data ") {
			r.stop()
		}
		cmd := testkit.Command(r.t, "bash", "-euo", "pipefail", "-c", strings.ReplaceAll(b.text, "127.0.0.1:7180", r.addr))
		cmd.Dir, cmd.Env = r.dir, r.env
		if b.word == "spark" {
			python := testkit.Venv(r.t, "pyspark==3.5.5", "delta-spark==3.3.2")
			cmd.Env = append(slices.Clone(r.env), "PATH="+filepath.Dir(python)+":"+os.Getenv("PATH"))
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			r.t.Fatalf("%s: %v\n%s\n%s\n%s", guide, err, b.text, out, r.log)
		}
	}
}

// start runs a server in a terminal of its own. A server that runs is enough.
func (r *reader) start(line string) {
	r.t.Helper()
	if r.server != nil {
		return
	}
	r.log = &logText{}
	r.server = exec.Command("bash", "-c", "exec "+line)
	r.server.Dir, r.server.Env, r.server.Stderr = r.dir, r.env, r.log
	if err := r.server.Start(); err != nil {
		r.t.Fatal(err)
	}
	for range 300 {
		if resp, err := http.Get("http://" + r.addr + api.Prefix + "/health"); err == nil {
			resp.Body.Close()
			return
		}
		time.Sleep(50 * time.Millisecond) // it has no other way to say that it listens
	}
	r.t.Fatalf("the server doesn't answer:\n%s", r.log)
}

func (r *reader) stop() {
	if r.server == nil {
		return
	}
	if err := r.server.Process.Signal(syscall.SIGINT); err != nil {
		r.t.Error(err)
	}
	if err := r.server.Wait(); err != nil && r.server.ProcessState.ExitCode() != exitInterrupted {
		r.t.Errorf("%v\n%s", err, r.log)
	}
	r.server = nil
}

// checkLeft looks at what the commands made, so that they didn't only end well.
func (r *reader) checkLeft() {
	r.t.Helper()
	rows := readTable(r.t, filepath.Join(r.dir, "scored", "predictions.csv"))
	if len(rows) != 6*1440 {
		r.t.Errorf("scored has %d rows", len(rows))
	}
	flagged := 0
	for _, row := range rows {
		if row["Prediction"] == "1" {
			flagged++
		}
	}
	if flagged < 60 || flagged > 400 { // 10 faults of each sensor, and 1 % of the rest
		r.t.Errorf("%d rows are flagged", flagged)
	}
	if _, err := os.Stat(filepath.Join(r.dir, "fleetscore-data.before", "ledger.db")); err != nil {
		r.t.Errorf("the folder before the restore: %v", err)
	}
	cmd := testkit.Command(r.t, "bash", "-c", "fleetscore dataset list -o csv")
	cmd.Dir, cmd.Env = r.dir, r.env
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "history,,8640,") {
		r.t.Errorf("after the restore: %v\n%s", err, out)
	}
}

// TestReadmeNamesAllDocuments: nobody has to look for a document.
func TestReadmeNamesAllDocuments(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join(testkit.Root(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	documents, err := filepath.Glob(filepath.Join(testkit.Root(t), "docs", "*.md"))
	if err != nil || len(documents) == 0 {
		t.Fatalf("%d documents, %v", len(documents), err)
	}
	for _, d := range documents {
		if link := "(docs/" + filepath.Base(d) + ")"; !strings.Contains(string(readme), link) {
			t.Errorf("README.md has no link %s", link)
		}
	}
}

// TestInit: a new project works as its README prints, also in Python; a second init in
// the folder changes nothing.
func TestInit(t *testing.T) {
	t.Parallel()
	python := testkit.Venv(t, "numpy==2.4.6", "pandas==3.1.1", "pyarrow==26.0.1")
	r := newReader(t, python)
	defer r.stop()
	r.dir = filepath.Join(r.dir, "a plant")
	code, stdout, stderr := command(t, "init", r.dir)
	if want := "cd '" + r.dir + "'\nfleetscore up fleet.yaml\n"; code != 0 || stdout != want {
		t.Fatalf("exit %d: %q, want %q\n%s", code, stdout, want, stderr)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "fleet.yaml"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(r.dir, "readings.csv")); err != nil {
		t.Fatal(err)
	}
	code, _, stderr = command(t, "init", r.dir)
	mine, err := os.ReadFile(filepath.Join(r.dir, "fleet.yaml"))
	if _, e := os.Stat(filepath.Join(r.dir, "readings.csv")); code != 13 || err != nil || string(mine) != "mine" || e == nil {
		t.Errorf("a second init: exit %d, %v, %v: %q\n%s", code, err, e, mine, stderr)
	}
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, "init", r.dir); code != 0 {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	r.env = append(r.env, "FLEETSCORE_PYTHON="+python)
	text, err := os.ReadFile(filepath.Join(r.dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := fence.FindAllStringSubmatch(string(text), -1)
	for _, m := range blocks {
		r.follow("README.md", block{m[1], m[2], m[3]})
	}
	if len(blocks) < 3 {
		t.Errorf("the README has %d blocks", len(blocks))
	}
	r.follow("README.md", block{"sh", "", "fleetscore job submit scripted --wait\n" +
		"fleetscore job list -o csv > jobs.csv\n"})
	for _, row := range readTable(t, filepath.Join(r.dir, "jobs.csv")) {
		if row["state"] != "succeeded" || row["sensors"] != "20" || row["rows"] != "12000" || strings.HasPrefix(row["job"], "past-") && row["anomalies"] == "0" {
			t.Errorf("a job of the project: %v", row)
		}
	}
}

// TestImportBatchAI: the text on stdout is a good fleet.yaml; stderr says what has no
// counterpart.
func TestImportBatchAI(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, yaml := filepath.Join(dir, "job.json"), filepath.Join(dir, "fleet.yaml")
	if err := os.WriteFile(file, []byte(`{"properties": {"nodeCount": 2, "customToolkitSettings": {"commandLine": "cd x && python predict.py"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := command(t, "import", "batchai", file)
	if code != 0 || !strings.Contains(stderr, "1 setting has no counterpart") || !strings.Contains(stderr, "python predict.py") || !strings.Contains(stdout, "runtime: command") {
		t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
	}
	if err := os.WriteFile(yaml, []byte(stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := command(t, "validate", yaml); code != 0 {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	if code, _, stderr := command(t, "import", "batchai", yaml); code != 10 || !strings.Contains(stderr, "isn't a job in JSON") {
		t.Errorf("a file that isn't a job: exit %d\n%s", code, stderr)
	}
	if code, _, stderr := command(t, "import", "batchai", filepath.Join(dir, "none.json")); code != 12 {
		t.Errorf("no file: exit %d\n%s", code, stderr)
	}
}

// TestServiceFile: systemd takes the unit of the guide, where it is there to be asked.
func TestServiceFile(t *testing.T) {
	t.Parallel()
	testkit.Tool(t, "systemd-analyze", "systemd")
	for _, b := range blocksOf(t, "operations.md") {
		if b.language != "ini" {
			continue
		}
		dir := t.TempDir()
		program := filepath.Join(dir, "fleetscore")
		if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		unit := filepath.Join(dir, b.word)
		text := strings.NewReplacer("/usr/local/bin/fleetscore", program, "User=fleetscore", "User=root").Replace(b.text)
		if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := testkit.Command(t, "systemd-analyze", "verify", unit).CombinedOutput()
		if err != nil || strings.Contains(string(out), b.word) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	t.Error("the guide has no unit")
}

// TestGlossary: documents link to it, and its rows are in the words that the states
// and outcomes have.
func TestGlossary(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(testkit.Root(t), "docs", "glossary.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"scored, no_data, no_model, failed, timed_out, quarantined or excluded", "device, viewer, operator, administrator, node", "ran, skipped, coalesced or missed"} {
		if !strings.Contains(string(data), word) {
			t.Errorf("%q is missing", word)
		}
	}
}
