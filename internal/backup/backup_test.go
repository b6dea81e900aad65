package backup_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/backup"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// fill writes something into most tables.
func fill(t *testing.T, l ledger.Ledger) {
	t.Helper()
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		_, err := l.PutConfig(ctx, noon, fmt.Sprintf("# version %d: <ü>\n", i), fleetscore.Config{Pools: map[string]fleetscore.PoolConfig{"cpu": {Slots: i}}})
		check(err)
	}
	for i := range 3 {
		j := fleetscore.Job{ID: fleetscore.JobID(fmt.Sprint("j", i)), Pipeline: "p", State: fleetscore.JobWaiting, Config: fleetscore.PipelineConfig{Pool: "cpu"}, Created: noon}
		check(ledgertest.Queue(ctx, l, j, 700)) // more than go into one statement
	}
	_, err := l.DecideSchedule(ctx, "q", func(v ledger.ScheduleView) (ledger.ScheduleDecision, error) {
		v.State.Created, v.State.NextFrom, v.State.Paused = noon, noon.Add(time.Hour), noon
		return ledger.ScheduleDecision{State: v.State, Occurrences: []fleetscore.Occurrence{{Due: noon, State: fleetscore.OccurrenceSkipped, Reason: "a\nreason"}}}, nil
	})
	check(err)
	_, err = l.UpdateNode(ctx, "n1", func(n *fleetscore.Node) error {
		n.Pool, n.Slots, n.State, n.Heartbeat = "cpu", 2, fleetscore.NodeIdle, noon
		return nil
	})
	check(err)
	leased, err := l.LeaseTasks(ctx, "cpu", "n1", 2, noon, time.Minute)
	check(err)
	if len(leased) != 2 {
		t.Fatalf("%d leases", len(leased))
	}
	check(l.Audit(ctx, ledger.AuditEntry{At: noon, Who: "me", What: "did", Subject: strings.Repeat("long ", 1000)}))
}

// rows are all rows of a ledger, by table.
func rows(t *testing.T, snap *ledger.Snapshot, err error) map[string][]string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	out := map[string][]string{}
	err = snap.Each(t.Context(), func(r ledger.Row) error {
		out[r.Table] = append(out[r.Table], fmt.Sprintf("%q %#v", r.Columns, r.Values))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// server is the folder of a server that runs.
type server struct {
	dir    string
	ledger *ledger.SQLite
	hub    hub.Hub
}

func newServer(t *testing.T) server {
	t.Helper()
	s := server{dir: filepath.Join(t.TempDir(), "data")}
	var err error
	if s.ledger, err = ledger.Open(t.Context(), filepath.Join(s.dir, "ledger.db")); err != nil {
		t.Fatal(err)
	}
	testkit.CloseLater(t, s.ledger)
	fill(t, s.ledger)
	if s.hub, err = hub.Open(t.Context(), hub.Config{Dir: filepath.Join(s.dir, "hub"), Partitions: 2}, hub.Deps{}); err != nil {
		t.Fatal(err)
	}
	testkit.CloseLater(t, s.hub)
	if _, err := s.hub.Append(t.Context(), 1, hubtest.At(fleetscore.MicrosOf(noon)), hubtest.Batch(1, 30)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"secrets/tls-key.pem": "key", "secrets/admin-token": "of this start", "spool/lease1/stderr.txt": "a log\n", "spool/upload-1": "no log", "store.url": "s3://fleet\n", "store/data/x": "a blob"} {
		path := filepath.Join(s.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s server) backup(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "a.backup")
	size, err := backup.Write(t.Context(), backup.Place{Dir: s.dir}, file, "v1", noon)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(file); err != nil || st.Size() != size || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v; want %d bytes for the owner alone", st, err, size)
	}
	return file
}

// tree are the contents of all files below a folder, by name; those of engines by their
// presence.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		out[name] = string(data)
		if st, err := d.Info(); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s has %v, %v", name, st.Mode(), err)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestBackupAndRestore: a backup of a folder in use, restored into another one, holds
// everything but the store and what each start makes anew.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	file := s.backup(t)
	snap, err := ledger.SnapshotFile(t.Context(), filepath.Join(s.dir, "ledger.db"))
	want := rows(t, snap, err)
	for _, table := range []string{"configs", "jobs", "tasks", "attempts", "inputs", "nodes", "schedules", "occurrences", "audit"} {
		if len(want[table]) == 0 {
			t.Errorf("the test has no rows of %s", table)
		}
	}
	dir := filepath.Join(t.TempDir(), "new")
	m, err := backup.Restore(t.Context(), file, backup.Place{Dir: dir})
	if err != nil || m.Release != "v1" || !m.Created.Equal(noon) {
		t.Fatalf("%+v, %v", m, err)
	}
	snap, err = ledger.SnapshotFile(t.Context(), filepath.Join(dir, "ledger.db"))
	if diff := cmp.Diff(want, rows(t, snap, err)); diff != "" {
		t.Errorf("the ledger differs (-before +after):\n%s", diff)
	}
	before, after := tree(t, s.dir), tree(t, dir)
	for _, name := range []string{"secrets/tls-key.pem", "spool/lease1/stderr.txt", "store.url", "hub/identity"} {
		if after[name] != before[name] || after[name] == "" {
			t.Errorf("%s holds %q, not %q", name, after[name], before[name])
		}
	}
	for name := range after {
		if strings.HasPrefix(name, "store/") || name == "secrets/admin-token" || name == "spool/upload-1" || strings.HasSuffix(name, "unfinished") {
			t.Errorf("%s was restored", name)
		}
	}
	goOn(t, dir, s.hub.ID())
}

// goOn uses what was restored.
func goOn(t *testing.T, dir string, id int64) {
	t.Helper()
	l, err := ledger.Open(t.Context(), filepath.Join(dir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	useLedger(t, l)
	h, err := hub.Open(t.Context(), hub.Config{Dir: filepath.Join(dir, "hub"), Partitions: 2}, hub.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if seq, err := h.Append(t.Context(), 1, hubtest.At(fleetscore.MicrosOf(noon)), hubtest.Batch(2, 1)); err != nil || seq != 2 || h.ID() != id {
		t.Errorf("the next message is %d of hub %d, %v; want 2 of %d", seq, h.ID(), err, id)
	}
}

// useLedger makes a job in a ledger that was restored, and counts.
func useLedger(t *testing.T, l ledger.Ledger) {
	t.Helper()
	if err := ledgertest.Queue(t.Context(), l, fleetscore.Job{ID: "new", Pipeline: "p", State: fleetscore.JobWaiting, Created: noon}, 1); err != nil {
		t.Fatal(err)
	}
	jobs, err := l.Jobs(t.Context(), ledger.JobFilter{})
	if err != nil || len(jobs) != 4 || jobs[0].ID != "new" {
		t.Errorf("%d jobs, the newest %v, %v", len(jobs), jobs[0].ID, err)
	}
	if n, err := l.CountJobs(t.Context()); err != nil || n[fleetscore.JobQueued]+n[fleetscore.JobRunning] != 4 {
		t.Errorf("the jobs are counted as %v, %v", n, err)
	}
	if v, err := l.PutConfig(t.Context(), noon, "", fleetscore.Config{}); err != nil || v != 4 {
		t.Errorf("the next configuration is version %d, %v", v, err)
	}
}

// TestMoveToPostgres: a ledger in a file is restored into a database, and from there into
// a file again. A database with entries is refused.
func TestMoveToPostgres(t *testing.T) {
	t.Parallel()
	url := testkit.StartPostgres(t, testkit.PostgresVersions[1]).NewDatabase(t)
	s := newServer(t)
	file := s.backup(t)
	snap, err := ledger.SnapshotFile(t.Context(), filepath.Join(s.dir, "ledger.db"))
	want := rows(t, snap, err)
	dir := filepath.Join(t.TempDir(), "new")
	if _, err := backup.Restore(t.Context(), file, backup.Place{Dir: dir, LedgerURL: url}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ledger.db")); err == nil {
		t.Error("there is a ledger in the folder too")
	}
	_, err = backup.Restore(t.Context(), file, backup.Place{Dir: filepath.Join(t.TempDir(), "second"), LedgerURL: url})
	if !fleetscore.Conflict.Is(err) {
		t.Errorf("a second restore into the database: %v", err)
	}
	again := filepath.Join(t.TempDir(), "again.backup")
	if _, err := backup.Write(t.Context(), backup.Place{Dir: dir, LedgerURL: url}, again, "v1", noon); err != nil {
		t.Fatal(err)
	}
	back := filepath.Join(t.TempDir(), "back")
	if _, err := backup.Restore(t.Context(), again, backup.Place{Dir: back}); err != nil {
		t.Fatal(err)
	}
	snap, err = ledger.SnapshotFile(t.Context(), filepath.Join(back, "ledger.db"))
	if diff := cmp.Diff(sorted(want), sorted(rows(t, snap, err))); diff != "" {
		t.Errorf("there and back the ledger differs (-before +after):\n%s", diff)
	}
	p, err := ledger.OpenPostgres(t.Context(), ledger.PostgresConfig{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	useLedger(t, p)
}

// sorted forgets the order of rows, and the order of the tables' columns, which
// migrations may change.
func sorted(all map[string][]string) map[string]map[string]int {
	out := map[string]map[string]int{}
	for table, rows := range all {
		out[table] = map[string]int{}
		for _, r := range rows {
			out[table][r]++
		}
	}
	return out
}

// TestRestoreRefuses: what can't be restored whole is refused before anything is written.
func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	whole, err := os.ReadFile(newServer(t).backup(t))
	if err != nil {
		t.Fatal(err)
	}
	flipped := func(at int) []byte {
		b := bytes.Clone(whole)
		b[at] ^= 1
		return b
	}
	type refusal struct {
		name string
		file []byte
		kind fleetscore.Kind
	}
	all := []refusal{
		{"newer format", bytes.Replace(whole, []byte(`"format":1`), []byte(`"format":2`), 1), fleetscore.Conflict},
		{"empty", nil, fleetscore.Corrupt},
		{"another file", []byte(strings.Repeat("no backup\n", 1000)), fleetscore.Corrupt},
	}
	for i := range 40 {
		at := 1024 + i*(len(whole)-1025)/39 // behind the manifest, up to the last byte
		all = append(all, refusal{fmt.Sprint("cut at ", at), whole[:at], fleetscore.Corrupt}, refusal{fmt.Sprint("flipped at ", at), flipped(at), fleetscore.Corrupt})
	}
	for _, r := range all {
		file, dir := filepath.Join(t.TempDir(), "x.backup"), filepath.Join(t.TempDir(), "new")
		if err := os.WriteFile(file, r.file, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := backup.Restore(t.Context(), file, backup.Place{Dir: dir}); !r.kind.Is(err) {
			t.Errorf("%s: %v, want kind %v", r.name, err, r.kind)
		}
		if _, err := os.Lstat(dir); err == nil {
			t.Errorf("%s: the folder was made", r.name)
		}
	}
	file, full := filepath.Join(t.TempDir(), "whole.backup"), t.TempDir()
	for _, f := range []string{file, filepath.Join(full, "x")} {
		if err := os.WriteFile(f, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := backup.Restore(t.Context(), file, backup.Place{Dir: full}); !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), "isn't empty") {
		t.Errorf("a folder with files: %v", err)
	}
	if _, err := backup.Restore(t.Context(), file+".none", backup.Place{Dir: filepath.Join(full, "y")}); !fleetscore.NotFound.Is(err) {
		t.Errorf("no file: %v", err)
	}
	if _, err := backup.Write(t.Context(), backup.Place{Dir: newServer(t).dir}, file, "v1", noon); !fleetscore.Conflict.Is(err) {
		t.Errorf("a backup over another file: %v", err)
	}
}

// TestInterruptedRestore: a folder whose restore was interrupted isn't used.
func TestInterruptedRestore(t *testing.T) {
	t.Parallel()
	file, dir := newServer(t).backup(t), filepath.Join(t.TempDir(), "new")
	if err := backup.Unfinished(dir); err != nil {
		t.Errorf("no folder: %v", err)
	}
	// The context ends when the ledger is there, and the files aren't.
	ctx := &endsLater{Context: t.Context(), when: func() bool { _, err := os.Stat(filepath.Join(dir, "hub")); return err == nil }}
	if _, err := backup.Restore(ctx, file, backup.Place{Dir: dir}); err == nil {
		t.Fatal("the restore wasn't interrupted")
	}
	if err := backup.Unfinished(dir); !fleetscore.Conflict.Is(err) {
		t.Errorf("after an interrupted restore: %v", err)
	}
}

// endsLater is a context that says that it has ended once something holds.
type endsLater struct {
	context.Context
	when func() bool
}

func (c *endsLater) Err() error {
	if c.when() {
		return context.Canceled
	}
	return c.Context.Err()
}
