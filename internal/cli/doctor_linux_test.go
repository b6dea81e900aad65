package cli

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestNodeDoctor: the doctor's exit code follows what holds and what is asked for, on this
// machine and on one that allows no namespaces.
func TestNodeDoctor(t *testing.T) {
	t.Parallel()
	doctor := func(script string, args ...string) (code int, checks map[string]check, stderr string) {
		t.Helper()
		program, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := testkit.Command(t, "/bin/sh", append([]string{"-c", script + `exec "$0" "$@"`, program, "node", "doctor", "-o", "json"}, args...)...)
		cmd.Env = append(os.Environ(), asCommand+"=1")
		if script != "" { // in a user namespace of its own, whose settings the script may change
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
		}
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		_ = cmd.Run() // its exit code is looked at
		var list []check
		if err := json.Unmarshal([]byte(out.String()), &list); err != nil {
			t.Fatalf("%v: exit %d\n%s%s", err, cmd.ProcessState.ExitCode(), out.String(), errs.String())
		}
		checks = map[string]check{}
		for _, c := range list {
			checks[c.Name] = c
		}
		return cmd.ProcessState.ExitCode(), checks, errs.String()
	}
	code, checks, stderr := doctor("")
	if !checks["namespaces"].OK || !strings.Contains(checks["landlock"].Detail, "signals") {
		testkit.Missing(t, "a kernel with user namespaces and Landlock of Linux 6.12", checks["namespaces"].Detail)
	}
	if code != 0 || !checks["disk"].OK || checks["disk"].Kind != "promise" || checks["seccomp"].Kind != "layer" || checks["memory"].Kind != "gap" || checks["memory"].OK || stderr != "" {
		t.Errorf("exit %d, %+v\n%s", code, checks, stderr)
	}
	const forbid = "echo 0 > /proc/sys/user/max_user_namespaces && "
	code, checks, stderr = doctor(forbid)
	if code != 1 || checks["namespaces"].OK || !strings.Contains(checks["namespaces"].Detail, "user") || checks["disk"].OK || !checks["files"].OK || !strings.Contains(stderr, "doesn't keep: disk") {
		t.Errorf("without namespaces: exit %d, %+v\n%s", code, checks, stderr)
	}
	if code, _, stderr := doctor(forbid, "--require", "files,secrets,network,processes,lifetime"); code != 0 {
		t.Errorf("without namespaces, what holds is required: exit %d\n%s", code, stderr)
	}
	if code, _, stderr := doctor(forbid, "--require", "none"); code != 0 {
		t.Errorf("without namespaces, nothing is required: exit %d\n%s", code, stderr)
	}
	if code, _, stderr := command(t, "node", "doctor", "--require", "disks"); code != exitUsage || !strings.Contains(stderr, "disks") {
		t.Errorf("an unknown promise: exit %d\n%s", code, stderr)
	}
}
