package config

import (
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
)

// TestCommands: what a pipeline's command needs is demanded, and mistakes are named; a secret
// that was written in place of a secret's name isn't shown.
func TestCommands(t *testing.T) {
	t.Parallel()
	with := func(text string) string {
		return strings.Replace(good, "    pool: cpu\n", "    pool: cpu\n    "+text+"\n", 1)
	}
	cfg, err := Parse("/etc/fleet/fleet.yaml", []byte(with(`runtime: command`+"\n    "+`command: {run: "python 'a b.py' {Device}", code: ./code, secrets: {KEY: blob-key}}`)))
	if err != nil {
		t.Fatal(err)
	}
	c := cfg.Pipelines["anomalies"].Command
	if c.Code != "/etc/fleet/code" || c.Per != fleetscore.CommandPerKey || c.MemoryMB != 2048 || c.Input != "csv" || !cfg.Fleets["sensors"].KeepFiles {
		t.Errorf("the command is %+v", c)
	}
	for text, want := range map[string]string{
		"runtime: command":      "command is missing",
		`command: {run: "x"}`:   "needs runtime: command",
		`runtime: command, {}`:  "runtime",
		`command: {run: "x y'"`: "",
	} {
		if _, err := Parse("fleet.yaml", []byte(with(text))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want …%s…", text, err, want)
		}
	}
	for text, want := range map[string]string{
		`{}`: "run is missing", `{run: "a 'b"}`: "isn't closed", `{run: "{Device}"}`: "can't be a placeholder", `{run: a, per: node}`: "key or task", `{run: a, input: xml}`: "csv or parquet",
		`{run: a, predictions: ../x}`: "within the folder", `{run: a, read: [data]}`: "absolute path", `{run: a, work_dir: x}`: "{output}", `{run: a, env: {"A B": c}}`: "environment variable",
		`{run: a, secrets: {KEY: "hunter2 of old/+="}}`: "isn't the name of a secret", `{run: a, memory_mb: 1}`: "at least 64", `{run: a, disk_mb: 1}`: "at least 16", `{run: a, processes: -1}`: "at least 1", `{run: a, isolation: "off"}`: "best or required",
	} {
		_, err := Parse("fleet.yaml", []byte(with("runtime: command\n    command: "+text)))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want …%s…", text, err, want)
		}
	}
}
