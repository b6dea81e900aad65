package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestModelCheckReference: exactly four of the reference's models flag every row.
func TestModelCheckReference(t *testing.T) {
	t.Parallel()
	models := filepath.Join(testkit.Reference(t), "models")
	code, stdout, stderr := command(t, "model", "check", models, "-o", "json")
	var got struct {
		Sensors, Native int64
		Kinds           []struct{ Estimators, Releases string }
		Causes          []struct {
			Code    string
			Sensors int64
			Members []struct{ Name string }
		}
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != 3 {
		t.Fatalf("exit %d, %v\n%s%s", code, err, stdout, stderr)
	}
	if got.Sensors != 15 || got.Native != 15 || len(got.Kinds) != 1 || len(got.Causes) != 2 || got.Causes[0].Code != "flags_everything" || got.Causes[1].Code != "too_old" {
		t.Fatalf("%+v", got)
	}
	var names []string
	for _, m := range got.Causes[0].Members {
		names = append(names, m.Name)
	}
	if want := []string{"model_1_2", "model_1_5", "model_2_5", "model_3_4"}; got.Causes[0].Sensors != 4 || !slices.Equal(names, want) {
		t.Errorf("%d, %v flag every row; want %v", got.Causes[0].Sensors, names, want)
	}
	code, stdout, _ = command(t, "model", "check", models, "--features", "2")
	if code != 3 || !strings.Contains(stdout, "wrong_features: 15 sensors\n  the model takes 1 features, the data has 2") {
		t.Errorf("exit %d\n%s", code, stdout)
	}
	code, stdout, _ = command(t, "model", "inspect", models)
	if code != 0 || strings.Count(stdout, "\n") != 16 {
		t.Errorf("exit %d\n%s", code, stdout)
	}
}

// TestModelPack: a pack scores as its folder does, is made anew only where models
// changed, and says what is wrong.
func TestModelPack(t *testing.T) {
	t.Parallel()
	example := filepath.Join(testkit.Root(t), "examples", "fleet", "models")
	models, pack := t.TempDir(), filepath.Join(t.TempDir(), "pack")
	if err := os.CopyFS(models, os.DirFS(example)); err != nil {
		t.Fatal(err)
	}
	run := func(want int, args ...string) (got struct {
		Sensors, Native, Added, Changed, Removed int64
		FilesRead                                int64 `json:"files_read"`
		Segments                                 int   `json:"segments_written"`
	}) {
		t.Helper()
		code, stdout, stderr := command(t, append([]string{"model", "pack", models, "--key", "Device,Tag", "--out", pack, "-o", "json"}, args...)...)
		if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != want {
			t.Fatalf("exit %d, %v\n%s%s", code, err, stdout, stderr)
		}
		return got
	}
	const template = "model_{Device}_{Tag}"
	if got := run(0, "--model", template); got.Sensors != 20 || got.Native != 20 || got.Added != 20 || got.FilesRead != 20 {
		t.Errorf("%+v", got)
	}
	if got := run(0, "--model", template); got.FilesRead != 0 || got.Segments != 0 {
		t.Errorf("again: %+v", got)
	}
	if code, stdout, _ := command(t, "model", "check", pack); code != 0 || !strings.Contains(stdout, "nothing is known to be wrong") {
		t.Errorf("exit %d\n%s", code, stdout)
	}
	data := filepath.Join(t.TempDir(), "data.csv")
	if code, _, stderr := command(t, "simulate", "--from", "2026-11-23T00:00:00Z", "--to", "2026-11-23T00:02:00Z", "--out", data); code != 0 {
		t.Fatal(stderr)
	}
	var results []string
	for _, from := range []string{models, pack} {
		out := t.TempDir()
		if code, stdout, stderr := command(t, "score", "--data", data, "--models", from, "--model", template, "--key", "Device,Tag", "--time", "TS", "--feature", "Value", "--out", out); code != 0 {
			t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
		}
		for _, name := range []string{"predictions.csv", "coverage.csv"} {
			text, err := os.ReadFile(filepath.Join(out, name))
			if err != nil {
				t.Fatal(err)
			}
			results = append(results, string(text))
		}
	}
	if results[0] != results[2] || results[1] != results[3] {
		t.Error("a pack scores otherwise than its folder")
	}
	if err := os.WriteFile(filepath.Join(models, "model_1_current"), []byte("\x80\x04cos\nsystem\n."), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := run(3, "--model", template); got.Native != 19 || got.Changed != 1 || got.FilesRead != 1 {
		t.Errorf("a bad model: %+v", got)
	}
	if err := os.WriteFile(filepath.Join(models, "list.csv"), []byte("Device,Tag,model\n1,x,\n2,current,model_2_current\n9,y,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := run(3, "--sensors", "list.csv", "--default", "Tag=x*:model_3_vibration"); got.Sensors != 3 || got.Native != 2 || got.Removed != 19 {
		t.Errorf("a list: %+v", got)
	}
	for _, bad := range [][]string{{"--model", template, "--out", models}, {"--model", template, "--out", filepath.Join(models, "pack")}, {"--model", template, "--default", "x"}, {"--sensors", "list.csv", "--default", "Tag:x"}} {
		if code, _, stderr := command(t, append([]string{"model", "pack", models, "--key", "Device,Tag", "--out", pack}, bad...)...); code != 10 || stderr == "" {
			t.Errorf("%v: exit %d, %s", bad, code, stderr)
		}
	}
}

func TestNoModels(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if code, _, stderr := command(t, "model", "check", dir); code != 12 || !strings.Contains(stderr, "there is no file in the folder") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	if err := os.WriteFile(filepath.Join(dir, "pump-1"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", dir}, {"pack", dir, "--out", t.TempDir()}, {"verify", dir, "--python", "x"}} {
		code, _, stderr := command(t, append(append([]string{"model"}, args...), "--model", "model_{Device}", "--key", "Device")...)
		if code != 12 || !strings.Contains(stderr, "no file's name fits: there is pump-1") {
			t.Errorf("%s: exit %d, %s", args[0], code, stderr)
		}
	}
}

func TestModelVerifyWithoutPython(t *testing.T) {
	t.Parallel()
	models := filepath.Join(testkit.Root(t), "examples", "fleet", "models")
	code, _, stderr := command(t, "model", "verify", models, "--python", filepath.Join(t.TempDir(), "python"))
	if code != 11 || !strings.Contains(stderr, "give --python an interpreter that has scikit-learn") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	if code, _, _ := command(t, "model", "verify", models); code != 10 {
		t.Errorf("without --python: exit %d", code)
	}
	if code, _, stderr := command(t, "model", "verify", models, "--python", "x", "--data", "y"); code != 10 {
		t.Errorf("--data alone: exit %d, %s", code, stderr)
	}
	if _, stdout, _ := command(t, "model", "verify", "--help"); !strings.Contains(stdout, "This RUNS code from the models") {
		t.Error("the help doesn't warn")
	}
}

const fleetOfList = `hub: {key: [Device, Tag], time: TS}
fleets:
  sensors:
    path: ./models
    model: "model_{Device}_{Tag}"
    sensors: sensors.csv
    defaults: [{when: {Tag: "vib*"}, model: model_1_vibration}]
    sync: 1h
pools:
  cpu: {provider: local, slots: 1, scale: {min: 0, max: 1}}
pipelines:
  p: {dataset: history, fleet: sensors, features: [Value], pool: cpu, limits: {no_model: 100%}}
`

// TestFleetCommands: a server's fleet by a list with a default; a listed sensor
// without a model ends as no_model, in coverage and state; fleet list, show, sync.
func TestFleetCommands(t *testing.T) {
	t.Parallel()
	example := os.DirFS(filepath.Join(testkit.Root(t), "examples", "fleet"))
	p := startServerIn(t, fleetOfList, func(dir string) {
		if err := os.CopyFS(dir, example); err != nil {
			t.Fatal(err)
		}
		text := "Device,Tag,model\n1,current,\n7,vibration,\n7,current,\n8,pressure,model_2_pressure\n9,current,\n"
		if err := os.WriteFile(filepath.Join(dir, "models", "sensors.csv"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	server := "--server=http://" + p.addr
	run := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, append(args, server)...)
		if code != 0 {
			t.Fatalf("%v: exit %d\n%s%s", args, code, stdout, stderr)
		}
		return stdout
	}
	if out := run("fleet", "sync", "sensors"); !strings.Contains(out, "sensors                5\nof them native         3\n") || !strings.Contains(out, "no_model: 2 sensors") || !strings.Contains(out, "7/current, 9/current") {
		t.Error(out)
	}
	if out := run("fleet", "list"); !strings.Contains(out, "sensors  "+filepath.Join(p.dir, "models")) {
		t.Error(out)
	}
	data := filepath.Join(t.TempDir(), "rows.csv")
	rows := "TS,Device,Tag,Value\n"
	for _, k := range []string{"1,current", "7,vibration", "7,current", "8,pressure"} {
		rows += "2026-11-23T10:00:00Z," + k + ",5\n"
	}
	if err := os.WriteFile(data, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	run("dataset", "upload", "history", data, "--complete-until", "2026-11-23T10:00:00Z")
	var job struct {
		ID       string
		State    string
		Expected int64
		Outcomes map[string]int64
	}
	if err := json.Unmarshal([]byte(run("job", "submit", "p", "--from", "2026-11-23T09:00:00Z", "--to", "2026-11-23T10:00:00Z", "--wait", "-o", "json")), &job); err != nil {
		t.Fatal(err)
	}
	if job.State != "succeeded" || job.Expected != 5 || job.Outcomes["scored"] != 3 || job.Outcomes["no_model"] != 1 || job.Outcomes["no_data"] != 1 {
		t.Errorf("%+v", job)
	}
	model, err := os.ReadFile(filepath.Join(p.dir, "models", "model_2_current"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "models", "model_9_current"), model, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := run("fleet", "sync", "sensors"); !strings.Contains(out, "0 added, 1 changed, 0 removed; 1 file read") || !strings.Contains(out, "of them native         4\n") {
		t.Error(out)
	}
	if out := run("fleet", "show", "sensors", "-o", "json"); !strings.Contains(out, `"code": "no_model"`) || !strings.Contains(out, `"changed": 1`) {
		t.Error(out)
	}
	if code, _, stderr := command(t, "fleet", "show", "none", server); code != 12 {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

// TestPackCrash kills the making of a pack while its files appear: the pack is
// absent, or the old one is current and whole; another run makes it.
func TestPackCrash(t *testing.T) {
	t.Parallel()
	model, err := os.ReadFile(filepath.Join(testkit.Root(t), "examples", "fleet", "models", "model_1_current"))
	if err != nil {
		t.Fatal(err)
	}
	models, pack := t.TempDir(), filepath.Join(t.TempDir(), "pack")
	const n = 9000 // several files of a pack
	write := func(i int, data []byte) {
		if err := os.WriteFile(filepath.Join(models, fmt.Sprintf("model_%d_x", i)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		write(i, model)
	}
	args := []string{"model", "pack", models, "--model", "model_{Device}_{Tag}", "--key", "Device,Tag", "--out", pack}
	segments := func() int {
		files, _ := os.ReadDir(filepath.Join(pack, "segments"))
		return len(files)
	}
	crash := func() {
		t.Helper()
		cmd := exec.Command(os.Args[0], args...)
		cmd.Env = append(os.Environ(), asCommand+"=1")
		before := segments()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for segments() == before {
			select {
			case err := <-ended:
				t.Fatalf("it ended (%v) before a file appeared", err)
			case <-time.After(200 * time.Microsecond): // files give no signal
			}
		}
		_ = cmd.Process.Kill() // it may have ended just now
		<-ended
	}
	current := func() string {
		text, _ := os.ReadFile(filepath.Join(pack, "current.json"))
		return string(text)
	}
	check := func(sensors string) {
		t.Helper()
		if code, stdout, stderr := command(t, "model", "check", pack); code != 3 || !strings.HasPrefix(stdout, sensors+" models") {
			t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
		}
	}
	crash()
	if current() != "" {
		t.Log("the pack was whole before it could be killed")
	}
	if code, _, stderr := command(t, args...); code != 0 {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	check("9,000")
	before := current()
	changed := append(model[:len(model):len(model)], 0)
	for i := range n / 2 {
		write(i, changed)
	}
	crash()
	if current() == before {
		check("9,000")
	}
	if code, _, stderr := command(t, args...); code != 3 || current() == before { // a byte too many is no model
		t.Fatalf("exit %d, %s", code, stderr)
	}
	check("9,000")
}
