package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/api"
	"github.com/fleetscore/fleetscore/internal/server"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// send sends readings of one sensor until they are acknowledged.
func (p *process) send(device string, n int) {
	p.t.Helper()
	for i := range n {
		line := fmt.Sprintf(`{"TS":"%s","Device":"%s","Tag":"pressure","Value":%d}`+"\n", time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"), device, i)
		p.line(line)
	}
}

// counted is how many readings of a sensor the rows are made of.
func (p *process) counted(device string) (n int64) {
	p.t.Helper()
	for id, readings := range p.readings() {
		if strings.HasSuffix(id, " "+device+"/pressure") {
			n += readings
		}
	}
	return n
}

// TestBackupWhileTheServerRuns: readings come and jobs run while a backup is taken, and
// the server goes on before its folder is lost. A server on the restored folder, with the
// same store, has every reading that was acknowledged before the backup once, takes new
// ones, ends the jobs that ran, and each row has one prediction.
func TestBackupWhileTheServerRuns(t *testing.T) {
	t.Parallel()
	p := startServer(t, fmt.Sprintf(crashFleet, filepath.Join(testkit.Root(t), "examples", "fleet", "models")))
	server, data, before := "--server=http://"+p.addr, filepath.Join(p.dir, "data"), filepath.Join(p.dir, "before")
	p.send("1", 50)
	p.rows(1)
	eventually(t, "a job over rows that are complete", func() bool { // there are rows before both partitions are so far
		code, _, stderr := command(t, "job", "submit", "anomalies", server)
		if code != 0 && !strings.Contains(stderr, "no complete rows") {
			t.Fatalf("job submit: exit %d\n%s", code, stderr)
		}
		return code == 0
	})
	p.send("1", 50)
	code, stdout, stderr := command(t, "backup", p.dir, "--dir", data)
	if code != 0 {
		t.Fatalf("backup: exit %d\n%s", code, stderr)
	}
	file := strings.TrimSpace(stdout)
	// What comes now is in the store, and isn't in the backup.
	p.send("2", 50)
	eventually(t, "rows after the backup", func() bool { return p.counted("2") > 0 })
	if code, _, stderr := command(t, "job", "submit", "anomalies", "--wait", server); code != 0 && code != exitFailed {
		t.Fatalf("job submit: exit %d\n%s", code, stderr)
	}
	p.kill()
	if code, _, stderr := command(t, "restore", file, "--dir", data); code != 13 || !strings.Contains(stderr, "isn't empty") {
		t.Errorf("restore into the folder in use: exit %d\n%s", code, stderr)
	}
	if err := os.Rename(data, before); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, "restore", file, "--dir", data); code != 0 {
		t.Fatalf("restore: exit %d\n%s", code, stderr)
	}
	if err := os.Rename(filepath.Join(before, "store"), filepath.Join(data, "store")); err != nil {
		t.Fatal(err)
	}
	p.open.Close() // the store has another place now
	p.open = nil
	p.start()
	p.send("3", 50)
	eventually(t, "all readings in rows", func() bool { return p.counted("1") >= 100 && p.counted("3") >= 50 })
	if one, three := p.counted("1"), p.counted("3"); one != 100 || three != 50 {
		t.Errorf("%d readings of before the backup and %d of after the restore are in rows, want 100 and 50", one, three)
	}
	rows := p.readings()
	eventually(t, "all rows are scored", func() bool {
		code, _, _ := command(t, "job", "submit", "anomalies", "--wait", server)
		return code == 13 // there is nothing new to score
	})
	var jobs api.List[fleetscore.Job]
	eventually(t, "all jobs have ended", func() bool { // also those that became due meanwhile
		jobs = api.List[fleetscore.Job]{}
		if err := p.Get(t.Context(), "/jobs", nil, &jobs); err != nil || len(jobs.Items) < 2 {
			t.Fatalf("%d jobs, %v", len(jobs.Items), err)
		}
		return !slices.ContainsFunc(jobs.Items, func(j fleetscore.Job) bool { return !j.State.Ended() })
	})
	for _, j := range jobs.Items {
		if j.State == fleetscore.JobCanceled {
			t.Errorf("job %s is %s: %s", j.ID, j.State, j.Reason)
		}
	}
	p.checkScored("anomalies", rows)
}

// TestBackupRefusals: commands say what is wrong, and leave nothing behind.
func TestBackupRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	database := t.TempDir()
	if err := os.WriteFile(filepath.Join(database, server.LedgerMarker), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	unfinished := t.TempDir()
	if err := os.WriteFile(filepath.Join(unfinished, "restore.unfinished"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{12, "there is no ledger", []string{"backup", filepath.Join(dir, "x"), "--dir", filepath.Join(dir, "none")}},
		{13, "PostgreSQL", []string{"backup", filepath.Join(dir, "x"), "--dir", database}},
		{12, "no such file", []string{"restore", filepath.Join(dir, "x"), "--dir", filepath.Join(dir, "none")}},
		{13, "interrupted", []string{"serve", "--listen", "127.0.0.1:0", "--dir", unfinished}},
	} {
		if code, _, stderr := command(t, c.args...); code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit %d, want %d and %q\n%s", c.args, code, c.code, c.want, stderr)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v", left, err)
	}
}
