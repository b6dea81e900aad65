package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/autoscale/advise"
	"github.com/fleetscore/fleetscore/internal/autoscale/replay"
)

// TestPoolHistory: the tasks that a pool of a running server did are played with a formula
// and with the one in force; saved as a file, they give the same without the server.
func TestPoolHistory(t *testing.T) {
	t.Parallel()
	p := startServer(t, poolText(t, "{provider: local, slots: 3, scale: {max: 2, cost_per_hour: 0.5, evaluation_interval: 30s, formula: $TargetDedicatedNodes = 1;}}"))
	server := "--server=http://" + p.addr
	two, saved := file(t, "two.formula", "$TargetDedicatedNodes = 2;"), filepath.Join(t.TempDir(), "tasks.csv")
	if code, _, stderr := command(t, "pool", "formula", "replay", two, "--history", "vms", server); code != 12 || !strings.Contains(stderr, "no task has run since") {
		t.Errorf("before any job: exit %d\n%s", code, stderr)
	}
	p.uploadReference()
	if code, stdout, stderr := command(t, "job", "submit", "reference", "--wait", server); code != 0 {
		t.Fatalf("submit: exit %d\n%s%s", code, stdout, stderr)
	}
	var h api.PoolHistory
	if err := p.Get(t.Context(), "/pools/vms/history", nil, &h); err != nil {
		t.Fatal(err)
	}
	tasks := 0
	for _, r := range h.Jobs[0].Runs {
		tasks += r.Tasks
	}
	if j := h.Jobs[0]; len(h.Jobs) != 1 || tasks == 0 || j.Left != 0 || j.Pipeline != "reference" || j.Queued.Before(j.Created) || j.Ended == nil || !j.Ended.After(j.Queued) ||
		h.Slots != 3 || h.Scale.CostPerHour != 0.5 || h.StartSeconds == nil || *h.StartSeconds <= 0 || h.Shortened || h.Usage == nil || h.Waits.Max < h.Waits.Mean || h.Waits.Mean <= 0 {
		t.Errorf("got %+v; want one job, its tasks, and what the pool is like", h)
	}
	code, stdout, stderr := command(t, "pool", "formula", "replay", two, "--history", "vms", "--save", saved, server)
	for _, want := range []string{"history of             pool vms, ", "work                   1 job, ", "tasks waited           ", "the pool took          ", "start of a node        ", "s, measured\n",
		"\ntwo.formula\n  nodes    |█", "\nin force\n  nodes    |▄", "\ntwo.formula  4.", "\nin force     2."} {
		if code != 0 || stderr != "" || !strings.Contains(stdout, want) {
			t.Errorf("exit %d without %q\n%s%s", code, want, stdout, stderr)
		}
	}
	// The same from the file, with the pool's settings by hand.
	type outcome struct {
		Formula   string
		NodeHours float64 `json:"node_hours"`
		Cost      float64
		Waits     autoscale.Waits
	}
	var there, here []outcome
	args := []string{"pool", "formula", "replay", two, "--start", "20s", "-o", "json"}
	for got, flags := range map[*[]outcome][]string{&there: {"--history", "vms", server}, &here: {"--workload", saved, "--slots", "3", "--interval", "30s", "--max", "2", "--cost", "0.5"}} {
		if code, stdout, stderr := command(t, append(args, flags...)...); code != 0 || json.Unmarshal([]byte(stdout), got) != nil {
			t.Fatalf("exit %d\n%.2000s%s", code, stdout, stderr)
		}
	}
	if len(there) != 2 || len(here) != 1 || there[0] != here[0] || there[0].Waits.Mean != 20 || there[0].Cost != there[0].NodeHours/2 || there[1].Formula != "in force" {
		t.Errorf("from the history %+v, from the file %+v", there, here)
	}
	if err := os.Remove(saved); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := command(t, "pool", "formula", "replay", "--history", "vms", "--save", saved, "--since", "1h", server); code != 0 || !strings.Contains(stdout, "\nin force\n") {
		t.Errorf("without another formula: exit %d\n%s%s", code, stdout, stderr)
	}
	text, err := os.ReadFile(saved)
	if err != nil {
		t.Fatal(err)
	}
	if work, err := replay.Read(saved, text); err != nil || len(work) != len(h.Jobs[0].Runs) || !work[0].At.Equal(h.Jobs[0].Queued) {
		t.Errorf("saved %v, %v\n%s", work, err, text)
	}
	for want, flags := range map[string][]string{
		"there is no such pool":           {"--history", "none", server},
		"--since must be longer":          {"--history", "vms", "--since", "-1h", server},
		"[history workload] were all set": {"--history", "vms", "--workload", saved},
		"at least one of the flags":       {},
		"not a directory":                 {"--history", "vms", "--save", filepath.Join(saved, "x"), server},
	} {
		if code, _, stderr := command(t, append([]string{"pool", "formula", "replay", two}, flags...)...); code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%v: exit %d, want %q\n%s", flags, code, want, stderr)
		}
	}
	if code, _, stderr := command(t, "pool", "formula", "replay", "--workload", saved); code != exitUsage || !strings.Contains(stderr, "name at least one file with a formula") {
		t.Errorf("no formula: exit %d\n%s", code, stderr)
	}
	adviseOn(t, server)
}

// adviseOn asks which machines the pool of TestPoolHistory should have.
func adviseOn(t *testing.T, server string) {
	t.Helper()
	args := []string{"pool", "advise", "vms", "--machine", "small=2cpu,4GiB,0.10", "--machine", "big=16cpu,64GB,0.80", server}
	code, stdout, stderr := command(t, append(args, "--within", "10m")...)
	for _, want := range []string{"largest job            ", "start of a node        ", "allowed for a job      10m0s\n", "\nsmall    ", "\nbig      ", "  unknown", "\nTake 1 × small: the longest of 1 job (", "of the allowed 10m0s", "; 1 × big would cost 0.",
		"\nMeasured: the models of reference: ", " to load and ", " to score 15 sensors and ", "s ago in job reference-", "; 1 job of it rest on this.\n", "\nMeasured: how long a node takes to start.\n",
		"\nAssumed: the processors of all candidates are taken to be as fast"} {
		if code != 0 || stderr != "" || !strings.Contains(stdout, want) {
			t.Errorf("exit %d without %q\n%s%s", code, want, stdout, stderr)
		}
	}
	var a advise.Advice
	if code, stdout, stderr := command(t, append(args, "--within", "10m", "--start", "2m", "-o", "json")...); code != 0 || json.Unmarshal([]byte(stdout), &a) != nil ||
		len(a.Candidates) != 2 || a.Best != "small" || a.StartSeconds != 120 || a.Candidates[0].WallSeconds < 120 || a.Candidates[0].Bound != advise.ByStart || a.CPUSeconds <= 0 || a.Jobs != 1 {
		t.Errorf("exit %d, %+v\n%s%s", code, a, stdout, stderr)
	}
	if code, stdout, stderr := command(t, append(args, "--within", "1m", "--start", "2m")...); code != exitFailed || !strings.Contains(stdout, "No candidate does every job within 1m0s (small: ") {
		t.Errorf("too short a time: exit %d\n%s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := command(t, append(args, "--within", "1h", "-o", "csv")...); code != 0 || !strings.HasPrefix(stdout, "machine,slots,nodes,wall_time,node_hours_a_job,cost_a_job,cost_a_month,bound_by\nsmall,") {
		t.Errorf("csv: exit %d\n%s%s", code, stdout, stderr)
	}
	for want, flags := range map[string][]string{
		"no pipeline of pool vms has a schedule": {"--machine", "a=1cpu,1GiB,1"},
		"--within must be longer":                {"--machine", "a=1cpu,1GiB,1", "--within", "0s"},
		"these flags are needed too: --machine":  {"--within", "1h"},
		"it has another form":                    {"--machine", "a=1cpu,1GiB"},
		"there are two of this name":             {"--machine", "a=1cpu,1GiB,1", "--machine", "a=2cpu,1GiB,1"},
		"the processors aren't":                  {"--machine", "a=NaNcpu,1GiB,1"},
		"the memory isn't":                       {"--machine", "a=1cpu,1TiB,1"},
		"the price isn't":                        {"--machine", "a=1cpu,1MiB,0"},
	} {
		if code, _, stderr := command(t, append([]string{"pool", "advise", "vms", server}, flags...)...); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%v: exit %d, want %q\n%s", flags, code, want, stderr)
		}
	}
	if code, _, stderr := command(t, "pool", "advise", "none", "--machine", "a=1cpu,1MiB,1", server); code != 12 || !strings.Contains(stderr, "there is no such pool") {
		t.Errorf("no such pool: exit %d\n%s", code, stderr)
	}
}
