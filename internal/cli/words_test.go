package cli

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestNounsShowTheirVerbs: every noun without a verb shows all it has.
func TestNounsShowTheirVerbs(t *testing.T) {
	t.Parallel()
	for _, noun := range newRoot().Commands() {
		if !noun.HasSubCommands() || noun.Name() == "node" { // node by itself runs one
			continue
		}
		code, stdout, stderr := command(t, noun.Name())
		for _, verb := range noun.Commands() {
			if code != 0 || !strings.Contains(stdout, "  "+verb.Name()+" ") {
				t.Errorf("%s: exit %d, %s isn't shown\n%s%s", noun.Name(), code, verb.Name(), stdout, stderr)
			}
		}
	}
}

// TestVersion: the command and the flag say the same, as a table and as an object.
func TestVersion(t *testing.T) {
	t.Parallel()
	var r release
	code, stdout, stderr := command(t, "version", "-o", "json")
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 0 || r.Version != Version || r.Go != runtime.Version() || r.Platform != runtime.GOOS+"/"+runtime.GOARCH {
		t.Errorf("exit %d, %v\n%s%s", code, err, stdout, stderr)
	}
	for _, line := range []string{"version", "--version"} {
		if code, stdout, stderr := command(t, line); code != 0 || !strings.Contains(stdout, Version) {
			t.Errorf("%s: exit %d\n%s%s", line, code, stdout, stderr)
		}
	}
}

// TestTyposNameTheNearestWord: commands, flags and values, without asking a server.
func TestTyposNameTheNearestWord(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"jbo list": "unknown command jbo; is job meant?", "jbo --help": "unknown command jbo; is job meant?", "job sumbit -h": "unknown command sumbit; is submit meant?", "job lst": "is list meant?", "dataset uplod x y": "is upload meant?", "node lst": "is list meant?",
		"job": "", "job show": "an argument is missing; write: fleetscore job show JOB", "dataset upload x": "write: fleetscore dataset upload NAME PATH",
		"job show a b": "there is an argument too many", "job list --state nix": "--state nix: waiting, queued,", "job coverage j --outcome nix": "--outcome nix: scored,", "job list x": "too many; write: fleetscore job list", "help jb": "is job meant?", "help job lst": "is list meant?", "sing": "there are apply, ",
		"score --dta x": "is --data meant?", "job list --pipelin x": "is --pipeline meant?", "job list -o cvs": "is csv meant?",
		"score --data x --models m --key k --time t --feature f --out o --separator ab": "one character",
		"score --data x --models m --key k --time t --feature f --out o --time-unit h":  "s, ms, us or ns",
		"score --data x --models m --key k --time t --feature f --out o --decimal x":    ". or ,",
	} {
		code, stdout, stderr := command(t, strings.Fields(line)...)
		if wantCode := exitUsage; want != "" && code != wantCode || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, want %q\n%s%s", line, code, want, stdout, stderr)
		}
	}
}

// TestCompletions: the shell completes pipelines, jobs, fleets, datasets and tokens
// of the server, and values of flags without one.
func TestCompletions(t *testing.T) {
	t.Parallel()
	models := filepath.Join(testkit.Root(t), "examples", "fleet", "models")
	p := startServer(t, fmt.Sprintf(crashFleet, models))
	p.reading()
	server := "--server=http://" + p.addr
	complete := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, append([]string{cobra.ShellCompRequestCmd, server}, args...)...)
		if code != 0 {
			t.Errorf("%v: exit %d\n%s", args, code, stderr)
		}
		return stdout
	}
	p.rows(1)
	for until := time.Now().Add(30 * time.Second); !strings.Contains(complete("job", "show", ""), "anomalies-"); {
		if time.Now().After(until) {
			t.Fatalf("no job: %s", complete("job", "show", ""))
		}
		command(t, "job", "submit", "anomalies", "--wait", server)
	}
	if code, _, stderr := command(t, "token", "create", "device", "press-1", server); code != 0 {
		t.Fatal(stderr)
	}
	for _, c := range []struct{ line, want string }{
		{"job submit ", "anomalies\n"}, {"job submit a", "anomalies\n"}, {"job list --pipeline ", "anomalies\n"}, {"job wait anom", "anomalies-"},
		{"fleet show ", "sensors\n"}, {"fleet sync s", "sensors\n"}, {"dataset show ", "readings\n"}, {"dataset upload ", "readings\n"}, {"dataset maintain ", "readings\n"},
		{"token remove ", "press-1\tdevice\n"}, {"job list -o ", "csv\n"}, {"job coverage x --outcome ", "no_model\n"}, {"score --format ", "parquet\n"}, {"job c", "coverage\t"},
	} {
		args := strings.Split(c.line, " ")
		if got := complete(args...); !strings.Contains("\n"+got, "\n"+c.want) {
			t.Errorf("%q: got %q, want %q", c.line, got, c.want)
		}
	}
	if got := complete("dataset", "show", "x"); strings.Contains(got, "readings") {
		t.Errorf("what doesn't begin so is offered: %q", got)
	}

	// -o csv is data: names without spaces, numbers without commas, times as RFC 3339.
	for _, args := range [][]string{{"job", "list"}, {"dataset", "list"}, {"fleet", "list"}, {"pool", "list"}, {"schedule", "list"}, {"token", "list"}, {"node", "list"}} {
		_, stdout, _ := command(t, append(args, "-o", "csv", server)...)
		rows, err := csv.NewReader(strings.NewReader(stdout)).ReadAll()
		if err != nil || len(rows) < 1 {
			t.Fatalf("%v: %v\n%s", args, err, stdout)
		}
		for i, r := range rows {
			for j, cell := range r {
				name := rows[0][j]
				switch {
				case i == 0 && strings.ContainsAny(cell, " ()"), cell == "-":
					t.Errorf("%v: %q is no data", args, cell)
				case i == 0 || cell == "":
				case name == "created" || name == "first" || name == "complete_until" || name == "from" || name == "next_due" || name == "heartbeat":
					if _, err := time.Parse(time.RFC3339, cell); err != nil {
						t.Errorf("%v: %s: %v", args, name, err)
					}
				case name == "rows" || name == "sensors" || name == "took_seconds" || name == "queued":
					if _, err := strconv.ParseFloat(cell, 64); err != nil {
						t.Errorf("%v: %s: %v", args, name, err)
					}
				}
			}
		}
	}
}

// TestForPrograms: what a cell is in a table and in CSV.
func TestForPrograms(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 25, 10, 0, 0, 500e6, time.UTC)
	for _, c := range []struct {
		cell           any
		people, script string
	}{
		{int64(1234567), "1,234,567", "1234567"}, {1234567, "1234567", "1234567"}, {"", "-", ""}, {"a b", "a b", "a b"}, {true, "true", "true"},
		{at, "2026-11-25 10:00:00", "2026-11-25T10:00:00.5Z"}, {&at, "2026-11-25 10:00:00", "2026-11-25T10:00:00.5Z"}, {(*time.Time)(nil), "-", ""}, {time.Time{}, "-", ""},
		{1500 * time.Millisecond, "1.5s", "1.5"}, {time.Duration(0), "-", ""},
	} {
		if p, s := forPeople(c.cell), forPrograms(c.cell); p != c.people || s != c.script {
			t.Errorf("%v: got %q and %q, want %q and %q", c.cell, p, s, c.people, c.script)
		}
	}
}
