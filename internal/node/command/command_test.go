package command_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/node/command"
	"github.com/fleetscore/fleetscore/internal/sandbox"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

func TestMain(m *testing.M) {
	sandbox.Main()
	goleak.VerifyTestMain(m)
}

// isolated is how this machine isolates, which must have namespaces.
func isolated(t *testing.T) *sandbox.Sandbox {
	t.Helper()
	box := sandbox.New(t.Context(), sandbox.Config{Exe: "/proc/self/exe"})
	if !box.Has(sandbox.Namespaces) {
		testkit.Missing(t, "a kernel with user namespaces", box.Describe())
	}
	return box
}

// kept is what a command left, by name, and what it printed.
type kept struct {
	mu    sync.Mutex // guards what follows
	files map[string]string
	log   []string
}

func (k *kept) save(_ context.Context, name string, file io.Reader) error {
	text, err := io.ReadAll(file)
	if c, ok := file.(io.Closer); ok { // as a client of the server does with what it sends
		err = errors.Join(err, c.Close())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.files == nil {
		k.files = map[string]string{}
	}
	k.files[name] = string(text)
	return err
}

func (k *kept) printf(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.log = append(k.log, fmt.Sprintf(format, args...))
}

func (k *kept) text() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.log, "\n")
}

// program writes a shell script as the program "tool" of a folder of its own.
func program(t *testing.T, script string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "tool"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return folder
}

// models gives each key a model with the key's text.
type models struct{}

func (models) Original(_ context.Context, k fleetscore.Key) ([]byte, string, fleetscore.Digest, error) {
	data := []byte("model of " + k.String())
	return data, "model_" + strings.ReplaceAll(k.String(), "/", "_"), fleetscore.DigestOf(data), nil
}

func (m models) Model(ctx context.Context, k fleetscore.Key) ([]byte, fleetscore.Digest, error) {
	data, _, digest, err := m.Original(ctx, k)
	return data, digest, err
}

// score scores sensors, each with three rows whose values are 1, 2 and 3.
func score(t *testing.T, cfg command.Config, k *kept, limit time.Duration, sensors ...string) *scorer.Result {
	t.Helper()
	cfg.Save, cfg.MemoryMB, cfg.DiskMB, cfg.Processes, cfg.AtOnce = k.save, 256, 16, 64, 4
	cfg.Work = command.Work{Pipeline: "p", Job: "p-1", Task: 7, Interval: fleetscore.Interval{From: time.Unix(0, 0), To: time.Unix(3600, 0)}}
	r, err := command.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	testkit.CloseLater(t, r)
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device", "Tag"}, ValueNames: []string{"Value"}, Values: make([][]float64, 1)}
	var keys []fleetscore.Key
	for i, s := range sensors {
		key, err := fleetscore.NewKey("d", s)
		if err != nil {
			t.Fatal(err)
		}
		rows.Keys, keys = append(rows.Keys, key), append(keys, key)
		for n := range 3 {
			rows.KeyIndex, rows.Times, rows.Values[0] = append(rows.KeyIndex, uint32(i)), append(rows.Times, fleetscore.Micros(n+1)*1_000_000), append(rows.Values[0], float64(n+1))
		}
	}
	got, err := scorer.Score(t.Context(), scorer.Spec{Features: []string{"Val=Value"}, ModelTimeout: limit, Use: fleetscore.RuntimeCommand, Foreign: r, Whole: cfg.Per == fleetscore.CommandPerTask, Log: k.printf}, rows, keys, models{})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// predict is a command that calls rows above 2 anomalies.
const predict = `predict() { sed '1s/Value/Val,Prediction/;1!s/\([0-9.]*\)$/\1,\1/' "$1" | sed '1!{s/,[12]$/,0/;s/,3$/,1/}' > "$2"; }
`

// TestCulprits: a command that fails, hangs, forks without end, takes too much memory, fills the
// disk, leaves rows out or makes nonsense costs its own sensor, which is named with the
// cause; all others are scored.
func TestCulprits(t *testing.T) {
	t.Parallel()
	box := isolated(t)
	folder := program(t, predict+`
case "$2" in
bad) echo "no such pump" >&2; exit 3 ;;
slow) while :; do :; done ;;
forks) i=0; while [ $i -lt 500 ]; do sleep 60 & i=$((i+1)); done; wait ;;
hungry) dd if=/dev/null of=/dev/null bs=900M count=1 || exit 5 ;;
fills) dd if=/dev/urandom of=big bs=1M count=40 || exit 6 ;;
holes) truncate -s 15M a; cp --sparse=always a b; exit 0 ;;
silent) exit 0 ;;
nonsense) echo "hello" > preds.csv; exit 0 ;;
pipe) mkfifo preds.csv; exit 0 ;;
link) ln -s /etc/passwd preds.csv; exit 0 ;;
short) predict "$3" all.csv; head -3 all.csv > preds.csv; exit 0 ;;
dies) kill -9 $$ ;;
esac
predict "$3" preds.csv
`)
	var k kept
	cfg := command.Config{Folders: []string{folder}, Sandbox: box, CommandConfig: fleetscore.CommandConfig{Run: "tool {Device} {Tag} {data}", Predictions: "preds.csv"}}
	bad := map[string]struct {
		outcome fleetscore.Outcome
		cause   string
	}{
		"bad": {fleetscore.Failed, "exit code 3; its last words: no such pump"}, "slow": {fleetscore.TimedOut, "not done after 3s"}, "forks": {fleetscore.Failed, "fork"},
		"hungry": {fleetscore.Failed, "exit code 5"}, "fills": {fleetscore.Failed, "exit code 6"}, "holes": {fleetscore.Failed, "larger than 16 MB"}, "silent": {fleetscore.Failed, "hasn't made the file"},
		"nonsense": {fleetscore.Failed, "preds.csv"}, "pipe": {fleetscore.Failed, "no regular file"}, "link": {fleetscore.Failed, "preds.csv"}, "short": {fleetscore.Failed, "no prediction for 1 of its 3 rows"}, "dies": {fleetscore.Failed, "signal 9"},
	}
	sensors := []string{"good", "fine"}
	for s := range bad {
		sensors = append(sensors, s)
	}
	got := score(t, cfg, &k, 3*time.Second, sensors...)
	for _, it := range got.Items {
		tag := it.Key.Values()[1]
		if want, is := bad[tag]; is && (it.Outcome != want.outcome || !strings.Contains(it.Reason, want.cause)) || !is && (it.Outcome != fleetscore.Scored || it.Anomalies != 1) {
			t.Errorf("%s ended %s: %s; want %+v\n%s", tag, it.Outcome, it.Reason, want, k.text())
		}
	}
	if got.Predictions.Len() != 6 {
		t.Errorf("%d rows have predictions, want 6", got.Predictions.Len())
	}
	for i, p := range got.Predictions.Prediction {
		if want := got.Predictions.Values[0][i] > 2; (p == 1) != want {
			t.Errorf("the prediction for %v is %v", got.Predictions.Values[0][i], p)
		}
	}
	if !strings.Contains(k.text(), "d/bad printed: no such pump") {
		t.Errorf("the log lacks what a command printed:\n%s", k.text())
	}
	if !strings.HasPrefix(k.files["Device=d/Tag=good/preds.csv"], "TS,Device,Tag,Val,Prediction\n1970-01-01 00:00:01.000,d,good,1,0\n") || k.files["Device=d/Tag=short/all.csv"] == "" {
		t.Errorf("kept are %q", k.files)
	}
	if slices.Contains(got.Harmful, got.Items[0].Key) || len(got.Harmful) != 2 { // dies, slow
		t.Errorf("harmful are %v", got.Harmful)
	}
}

// TestPerTask: one run scores all sensors of a task, also with an exit code alone; where it
// fails, the sensors that it fails at are found.
func TestPerTask(t *testing.T) {
	t.Parallel()
	box := isolated(t)
	sensors := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	folder := program(t, predict+`
echo run >> runs; ls "$2" > models
if grep -q ',bad,' "$1"; then echo "bad is here" >&2; exit 4; fi
predict "$1" all.csv; mkdir -p out; mv all.csv out/preds.csv
`)
	var k kept
	cfg := command.Config{Folders: []string{folder}, Sandbox: box, CommandConfig: fleetscore.CommandConfig{Run: "tool {data} {models}", Per: fleetscore.CommandPerTask, Predictions: "out/preds.csv"}}
	got := score(t, cfg, &k, 10*time.Second, sensors...)
	if n := got.Counts()[fleetscore.Scored]; n != 8 || got.Predictions.Len() != 24 || k.files["runs"] != "run\n" || strings.Count(k.files["models"], "model_d_") != 8 {
		t.Errorf("%d sensors scored, %d rows; kept %q\n%s", n, got.Predictions.Len(), k.files, k.text())
	}
	got = score(t, cfg, &k, 10*time.Second, append(sensors, "bad")...)
	for _, it := range got.Items {
		if bad := it.Key.Values()[1] == "bad"; bad != (it.Outcome == fleetscore.Failed) || bad && !strings.Contains(it.Reason, "exit code 4; its last words: bad is here") {
			t.Errorf("%s ended %s: %s", it.Key, it.Outcome, it.Reason)
		}
	}
	cfg.Predictions = ""
	got = score(t, cfg, &k, 10*time.Second, sensors...)
	if n := got.Counts()[fleetscore.Scored]; n != 8 || got.Predictions.Len() != 0 {
		t.Errorf("without predictions %d sensors scored, %d rows", n, got.Predictions.Len())
	}
}

// TestSurroundings: what a command finds: its words without a shell, the variables, its
// folders; and what it doesn't: secrets in arguments or the log, the environment of the
// node, a folder of the machine.
func TestSurroundings(t *testing.T) {
	box := isolated(t)
	t.Setenv("NODE_SECRET", "of the node")
	private := filepath.Join(t.TempDir(), "private")
	shown := filepath.Join(t.TempDir(), "shown.json")
	for _, f := range []string{private, shown} {
		if err := os.WriteFile(f, []byte("text of "+filepath.Base(f)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	folder := program(t, `
for a in "$@"; do echo "arg:$a"; done > args
env > env; cat /proc/self/cmdline >> args; pwd > pwd
echo "the key is $STORAGE_KEY"
cat "$AZ_BATCHAI_INPUT_MODELS"/* > models
cat `+private+` > stolen; cat `+shown+` > seen
echo x > "$AZ_BATCHAI_INPUT_DATA/x" && echo wrote > wrote
exit 0
`)
	var k kept
	cfg := command.Config{Folders: []string{folder}, Sandbox: box, Secrets: map[string]string{"STORAGE_KEY": "hunter2-of-old"}, CommandConfig: fleetscore.CommandConfig{
		Run: `tool "{Device} x" '{Tag}' {config} {job}-{task}`, Params: map[string]string{"config": shown}, Read: []string{shown}, Env: map[string]string{"AZ_BATCHAI_INPUT_SCRIPT": "{input}/../s", "MODE": "fast"}}}
	got := score(t, cfg, &k, 10*time.Second, "a; touch pwned $(id)")
	if got.Items[0].Outcome != fleetscore.Scored {
		t.Fatalf("it ended %s: %s\n%s", got.Items[0].Outcome, got.Items[0].Reason, k.text())
	}
	f := map[string]string{}
	for name, text := range k.files {
		f[name[strings.LastIndex(name, "/")+1:]] = text
	}
	for file, want := range map[string]string{"args": "arg:d x\narg:a; touch pwned $(id)\narg:" + shown + "\narg:p-1-007\n", "models": "model of d/a; touch pwned $(id)", "seen": "text of shown.json", "pwd": "/output\n"} {
		if !strings.Contains(f[file], want) {
			t.Errorf("%s is %q, want …%q…", file, f[file], want)
		}
	}
	for _, want := range []string{"AZ_BATCHAI_JOB_NAME=p-1\n", "AZ_BATCHAI_OUTPUT_PREDICTIONS=/", "AZUREML_MODEL_DIR=/", "STORAGE_KEY=hunter2-of-old\n", "MODE=fast\n", "AZ_BATCHAI_INPUT_SCRIPT=/"} {
		if !strings.Contains(f["env"], want) {
			t.Errorf("the environment lacks %q:\n%s", want, f["env"])
		}
	}
	if strings.Contains(f["env"], "NODE_SECRET") || f["stolen"] != "" || f["wrote"] != "" || f["pwned"] != "" {
		t.Errorf("it reached what it mustn't: %q", f)
	}
	if strings.Contains(k.text(), "hunter2") || strings.Contains(f["args"], "hunter2") || !strings.Contains(k.text(), "the key is ***") {
		t.Errorf("the secret is in the log or the arguments:\n%s\n%s", k.text(), f["args"])
	}
}

// TestRefused: commands that can't be run are refused with what to do.
func TestRefused(t *testing.T) {
	t.Parallel()
	folder := program(t, "exit 0\n")
	for run, want := range map[string]string{
		"python x.py": "start it with --python", "/bin/sh -c x": "folder whose programs may be run", "absent": "can't be found", `tool "a`: "isn't closed", "": "empty",
	} {
		if _, err := command.New(t.Context(), command.Config{Folders: []string{folder}, CommandConfig: fleetscore.CommandConfig{Run: run}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want …%s…", run, err, want)
		}
	}
	var k kept
	got := score(t, command.Config{Folders: []string{folder}, CommandConfig: fleetscore.CommandConfig{Run: "tool {Pump}"}}, &k, time.Second, "a")
	if it := got.Items[0]; it.Outcome != fleetscore.Failed || !strings.Contains(it.Reason, "{Pump}") {
		t.Errorf("an unknown placeholder: %s: %s", it.Outcome, it.Reason)
	}
}
