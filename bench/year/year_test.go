package year

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// size counts the things that grow with time.
type size struct {
	Data, Commits, Checkpoints, Logs, Folders int // files in the store, and its folders
	Jobs, Tasks, Attempts, Occurrences        int // rows of the ledger
	Txns, Visible                             int // entries and visible files of the three tables together
	LedgerBytes                               int64
}

func (w *world) size() (s size) {
	w.t.Helper()
	err := filepath.WalkDir(filepath.Join(w.dir, "store"), func(name string, d fs.DirEntry, err error) error {
		rel := strings.TrimPrefix(name, filepath.Join(w.dir, "store")+"/")
		switch {
		case err != nil:
			return err
		case d.IsDir():
			s.Folders++
		case strings.HasPrefix(rel, "logs/"):
			s.Logs++
		case strings.Contains(rel, "_delta_log/") && strings.HasSuffix(rel, ".json"):
			s.Commits++
		case strings.Contains(rel, "_delta_log/"):
			s.Checkpoints++
		case strings.HasPrefix(rel, "data/"), strings.HasPrefix(rel, "predictions/"):
			s.Data++
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, d := range w.three() {
		snap, err := d.Snapshot(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		s.Txns, s.Visible = s.Txns+len(snap.Txns), s.Visible+len(snap.Files)
	}
	for _, suffix := range []string{"", "-wal"} {
		if st, err := os.Stat(filepath.Join(w.dir, "ledger.db") + suffix); err == nil {
			s.LedgerBytes += st.Size()
		}
	}
	db := w.openSQL()
	defer db.Close()
	for name, n := range map[string]*int{"jobs": &s.Jobs, "tasks": &s.Tasks, "attempts": &s.Attempts, "occurrences": &s.Occurrences} {
		if err := db.QueryRowContext(w.t.Context(), "SELECT COUNT(*) FROM "+name).Scan(n); err != nil {
			w.t.Fatal(err)
		}
	}
	return s
}

func (w *world) three() []*table.Delta {
	return []*table.Delta{w.tables.Dataset(dataset), w.tables.Predictions(pipeline).Delta, w.tables.Coverage(pipeline).Delta}
}

// openSQL opens the ledger's file a second time, beside the ledger itself.
func (w *world) openSQL() *sql.DB {
	w.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(w.dir, "ledger.db")+"?_pragma=busy_timeout(10000)&_pragma=synchronous(OFF)")
	if err != nil {
		w.t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	return db
}

// pass lets time pass, with jobs and maintenance.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	for end := w.now().Add(d); w.now().Before(end); {
		w.carryOut()
	}
}

// TestDaysAreAlike: with a retention, the number of files and rows doesn't grow after a few
// days, each row of the jobs within the retention is visible once, and other programs read these
// rows before, during and after maintenance.
func TestDaysAreAlike(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{careless: true, sensors: 70, step: 30 * time.Minute, retention: 36 * time.Hour, history: 24 * time.Hour})
	const day = 24 * time.Hour
	w.pass(3 * day)
	before := w.size()
	w.pass(day)
	after := w.size()
	t.Logf("after 3 days %+v", before)
	t.Logf("after 4 days %+v", after)
	perDay := int(day / w.plan.step)
	for _, c := range []struct {
		what      string
		was, is   int
		atMost    int
		tolerance int
	}{
		{"jobs", before.Jobs, after.Jobs, perDay + 2, 1},
		{"tasks", before.Tasks, after.Tasks, 2 * (perDay + 2), 2},
		{"attempts", before.Attempts, after.Attempts, 2 * (perDay + 2), 2},
		{"log files", before.Logs, after.Logs, perDay + 2, 1},
		{"entries of tables", before.Txns, after.Txns, 2*3*perDay + 2*100 + 9, 210}, // jobs of 3 days, dropped with checkpoints
		{"visible files", before.Visible, after.Visible, 3 * 37 * 6, 40},
		{"data files", before.Data, after.Data, 3*37*6 + 5*perDay + 3*24*2, 60},
		{"commits", before.Commits, after.Commits, 3 * (perDay + 60 + 210), 320},
		{"checkpoints", before.Checkpoints, after.Checkpoints, 3 * 4, 3},
		{"folders", before.Folders, after.Folders, 3*(perDay+2) + 3*40 + 100, 40},
		{"ledger's KiB", int(before.LedgerBytes >> 10), int(after.LedgerBytes >> 10), 16 << 10, 1 << 10},
	} {
		if c.is > c.was+c.tolerance || c.is > c.atMost {
			t.Errorf("%s: %d after three days, %d after four; at most %d are allowed", c.what, c.was, c.is, c.atMost)
		}
	}
	w.readers("before")
	during := 0
	w.hook = func(op string, name fleetscore.BlobName) {
		joined := op == "put" && strings.HasPrefix(string(name), "predictions/p/_delta_log/") && strings.HasSuffix(string(name), ".json")
		if (joined || op == "delete" && strings.HasPrefix(string(name), "predictions/p/date=")) && during < 2 {
			during++
			w.readers(fmt.Sprint("during ", op, " of ", name))
		}
	}
	w.clock.Add(int64(3 * time.Hour / time.Microsecond))
	w.maintain()
	w.hook = nil
	if during == 0 {
		t.Error("maintenance had nothing to do")
	}
	w.readers("after")
	w.stop()
	w.start()
	w.carryOut()
}

// readers compares the predictions that delta-rs, DuckDB and Fleetscore read, and checks that
// there is one row for each key and time.
func (w *world) readers(when string) {
	w.t.Helper()
	d := catalog.New(w.bucket).Predictions(pipeline) // a separate catalog, as in another process
	snap, err := d.Snapshot(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := d.ReadPredictions(w.t.Context(), snap.Files, table.ReadQuery{})
	if err != nil {
		w.t.Fatal(err)
	}
	type cell struct {
		key  uint32
		time fleetscore.Micros
	}
	seen := map[cell]bool{}
	sum := 0.0
	for i, at := range p.Times {
		seen[cell{p.KeyIndex[i], at}] = true
		sum += p.Values[0][i]
	}
	if len(seen) != p.Len() || p.Len()%w.plan.sensors != 0 || p.Len() == 0 {
		w.t.Errorf("%s: %d rows of %d keys and times", when, p.Len(), len(seen))
	}
	for reader, s := range testkit.ReadDelta(w.t, filepath.Join(w.dir, "store", catalog.PredictionsFolder(pipeline)), "Value") {
		if s.Rows != float64(p.Len()) || s.Sum != sum || s.Sensors != float64(w.plan.sensors) {
			w.t.Errorf("%s: %s sees %+v, want %d rows with the sum %v", when, reader, s, p.Len(), sum)
		}
	}
}

// TestYear lets a first hour pass, fills in a year of hours and the jobs of a month, and
// lets more than a day of jobs pass, as many things are kept for a day. Then the old
// system and a young one, on its first day, do the same in turn, so that both meet with
// the same load of the machine, and are compared. It takes minutes, so without "make
// year" it does the same with less of all, and compares only what doesn't depend on the
// machine: what the store has to do.
func TestYear(t *testing.T) {
	t.Parallel()
	p := plan{careless: true, sensors: 70, step: time.Minute, first: 3, before: 20 * 24 * time.Hour, ledger: 4 * time.Hour, then: 11 * time.Minute, compared: 11}
	long := os.Getenv("FLEETSCORE_YEAR") != ""
	if long {
		p = plan{sensors: 1000, step: time.Minute, first: 60, before: 365 * 24 * time.Hour, ledger: 30 * 24 * time.Hour, then: yearThen(), compared: 200}
	}
	w := newWorld(t, p)
	w.pass(time.Duration(p.first) * p.step)
	was := w.size()
	w.fill()
	defer profile(t)()
	w.pass(p.then)
	young := newWorld(t, p)
	young.pass(time.Duration(p.first)*p.step + min(p.then, time.Hour)) // pages show an hour, and both end at the same minute of one
	w.spent, young.spent = spent{}, spent{}
	for range p.compared {
		young.carryOut()
		w.carryOut()
	}
	w.compare(young, long)
	is := w.size()
	t.Logf("after the first hour %+v", was)
	t.Logf("a year later %+v", is)
	jobs, after := int(p.ledger/p.step), p.first+int(p.then/p.step)+p.compared
	if is.Jobs < jobs || is.Jobs > jobs+after || is.Tasks < 2*is.Jobs {
		t.Errorf("the ledger has %d jobs and %d tasks, and %d jobs were filled in", is.Jobs, is.Tasks, jobs)
	}
	hours := 3 * int((p.before-24*time.Hour)/time.Hour)
	if most := hours + was.Visible + 3*(34+33+5*int(1+time.Duration(after)*p.step/time.Hour)); is.Visible < hours || is.Visible > most {
		t.Errorf("%d files are visible, %d were filled in, at most %d may be there", is.Visible, hours, most)
	}
}

// profile writes a profile of the processor's time into the file that
// FLEETSCORE_YEAR_PROFILE names, from now until the returned function is called.
func profile(t *testing.T) (end func()) {
	t.Helper()
	file := os.Getenv("FLEETSCORE_YEAR_PROFILE")
	if file == "" {
		return func() {}
	}
	f, err := os.Create(file)
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pprof.StopCPUProfile
}

// What an old system may take more than a young one, in the same minutes: times of half
// and of nearly all jobs, and a time that a busy machine may add to any of them.
const (
	mostMedian = 1.5
	mostWorst  = 2
	noise      = 20 * time.Millisecond
	promised   = 50 * time.Millisecond // a commit
	// Opening the three tables, once for each start: it reads the list of all files, so it
	// can't take what it takes on the first day.
	mostOpening = time.Second
)

// compare reports what young and old systems took, and says where the old one takes more
// than it may.
func (w *world) compare(young *world, timed bool) {
	w.t.Helper()
	for _, m := range []struct {
		name       string
		young, old []time.Duration
	}{
		{"commit (last result to end)", young.spent.commit, w.spent.commit},
		{"submit to end, without scoring", young.spent.whole, w.spent.whole},
		{"plan and lease", young.spent.lease, w.spent.lease},
		{"overview", young.spent.overview, w.spent.overview},
		{"job page", young.spent.job, w.spent.job},
		{"sensor page", young.spent.sensor, w.spent.sensor},
	} {
		y50, y99, o50, o99 := share(m.young, 50), share(m.young, 99), share(m.old, 50), share(m.old, 99)
		w.t.Logf("%-32s median %s, a year later %s; 99 %% %s, a year later %s (of %d)", m.name, y50, o50, y99, o99, len(m.old))
		if timed && (o50 > time.Duration(mostMedian*float64(y50))+noise/10 || o99 > mostWorst*y99+noise) {
			w.t.Errorf("%s takes longer a year later: at most %v times the median and %v times the 99 %% are promised", m.name, mostMedian, mostWorst)
		}
	}
	if commit := share(w.spent.commit, 50); timed && commit > promised {
		w.t.Errorf("a commit takes %s, at most %s is promised", commit, promised)
	}
	y, o := middle(young.spent.jobs), middle(w.spent.jobs)
	w.t.Logf("a job and its pages: the store has %+v to do, a year later %+v", y, o)
	if o.Calls > y.Calls+y.Calls/10 || o.Listed > y.Listed+y.Listed/10 || o.Bytes > y.Bytes+y.Bytes/5 {
		w.t.Error("a job needs more of the store a year later")
	}
	y, o = middle(young.spent.upkeep), middle(w.spent.upkeep)
	w.t.Logf("maintenance: the store has %+v to do, a year later %+v", y, o)
	dates := int64(w.plan.before / (24 * time.Hour))
	if most := y.Listed + 3*(dates+max(8, dates/50)*24); o.Listed > most { // the names of all dates, and the files of a few
		w.t.Errorf("maintenance lists %d names a year later, at most %d are needed", o.Listed, most)
	}
	for n, tables := 0, [2]time.Duration{}; n < 5; n++ {
		for i, x := range []*world{young, w} {
			server, opened := x.reopen()
			if tables[i] == 0 || opened < tables[i] {
				tables[i] = opened
			}
			if n == 0 {
				x.t.Logf("opening the server took %s", server.Round(time.Millisecond))
			}
		}
		if n == 4 {
			w.t.Logf("opening the three tables takes %s, a year later %s", tables[0].Round(time.Millisecond), tables[1].Round(time.Millisecond))
			if timed && tables[1] > mostOpening {
				w.t.Errorf("opening the tables takes %s a year later, at most %s is allowed", tables[1], mostOpening)
			}
		}
	}
}

// reopen opens everything anew and says how long that took.
func (w *world) reopen() (server, tables time.Duration) {
	w.t.Helper()
	w.stop()
	at := time.Now()
	w.start()
	server = time.Since(at)
	for _, d := range w.three() {
		if _, err := d.Snapshot(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
	return server, time.Since(at) - server
}

// share is what a share of the measurements, in percent, stay below.
func share(d []time.Duration, percent int) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)*percent/100, len(s)-1)].Round(100 * time.Microsecond)
}

// middle are the medians, each by itself.
func middle(all []effort) effort {
	median := func(of func(effort) int64) int64 {
		var n []int64
		for _, e := range all {
			n = append(n, of(e))
		}
		slices.Sort(n)
		return n[len(n)/2]
	}
	return effort{median(func(e effort) int64 { return e.Calls }), median(func(e effort) int64 { return e.Listed }), median(func(e effort) int64 { return e.Bytes })}
}

// careless is a disk that isn't synced, because the filled-in data can be made again.
type careless struct{ durable.Disk }

type carelessFile struct{ durable.File }

func (carelessFile) Sync() error { return nil }

func (careless) SyncDir(string) error { return nil }

func (c careless) Create(name string, perm fs.FileMode) (durable.File, error) {
	f, err := c.Disk.Create(name, perm)
	return carelessFile{f}, err
}

// fill writes the past: a file for each hour into the three tables, and jobs into the ledger, in the
// state after maintenance.
func (w *world) fill() {
	w.t.Helper()
	begun := time.Now()
	w.stop()
	dir, err := store.OpenDirOn(filepath.Join(w.dir, "store"), func(d durable.Disk) durable.Disk { return careless{d} })
	if err != nil {
		w.t.Fatal(err)
	}
	c := catalog.NewReporting(dir, nil, w.now)
	start := w.now().Add(-w.plan.before).Truncate(24 * time.Hour)
	days := int(w.plan.before/(24*time.Hour)) - 1
	for day := range days {
		w.fillDay(c, start.Add(time.Duration(day)*24*time.Hour))
	}
	if err := dir.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.fillLedger()
	w.start()
	w.t.Logf("%d days were filled in, in %s", days, time.Since(begun).Round(time.Second))
}

// fillDay commits the files of a day, with few rows each.
func (w *world) fillDay(c *catalog.Catalog, day time.Time) {
	w.t.Helper()
	ctx := w.t.Context()
	commit := func(d *table.Delta, files []fleetscore.DataFile, err error) {
		w.t.Helper()
		if err == nil {
			_, err = d.Commit(ctx, table.Commit{Operation: "WRITE", Add: files})
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	var stamps []time.Time
	for h := range 24 {
		stamps = append(stamps, day.Add(time.Duration(h+1)*time.Hour))
	}
	rows := rowsAt(20, stamps...)
	id := day.Format("20060102")
	d := c.Dataset(dataset)
	files, err := d.WriteRows(ctx, rows, id)
	commit(d, files, err)
	p := c.Predictions(pipeline)
	files, err = p.WritePredictions(ctx, predictionsOf(rows), fleetscore.JobID("filled-"+id), 1)
	commit(p.Delta, files, err)
	coverage := c.Coverage(pipeline)
	var all []fleetscore.DataFile
	for _, at := range stamps {
		files, err = coverage.WriteItems(ctx, itemsOf(rows.Keys, rows), keyNames, fleetscore.JobID("filled-"+id), fleetscore.Interval{From: at.Add(-time.Hour), To: at})
		if err != nil {
			break
		}
		all = append(all, files...)
	}
	commit(coverage.Delta, all, err)
}

// fillLedger writes ended jobs of the past into the ledger's file.
func (w *world) fillLedger() {
	w.t.Helper()
	const tasks = 16
	ctx := context.WithoutCancel(w.t.Context())
	db := w.openSQL()
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	run := func(q string, args ...any) {
		w.t.Helper()
		if _, err := tx.ExecContext(ctx, q, args...); err != nil {
			w.t.Fatal(err)
		}
	}
	end := w.now().Add(-time.Duration(w.plan.first) * w.plan.step)
	run(`UPDATE jobs SET seq = seq + 10000000`) // the jobs of the first hour are the newest
	run(`UPDATE tasks SET job_seq = job_seq + 10000000`)
	for n := range int(w.plan.ledger / w.plan.step) {
		at := end.Add(-w.plan.ledger + time.Duration(n)*w.plan.step)
		id := fleetscore.JobID(fmt.Sprintf("%s-%s-%06d", pipeline, at.Format("20060102T1504Z"), n))
		j := fleetscore.Job{ID: id, Pipeline: pipeline, State: fleetscore.JobSucceeded, Interval: fleetscore.Interval{From: at.Add(-w.plan.step), To: at}, Created: at, Started: &at, Ended: &at,
			Tasks: tasks, TasksEnded: tasks, Expected: int64(w.plan.sensors), Rows: int64(w.plan.sensors), Outcomes: fleetscore.Counts{fleetscore.Scored: int64(w.plan.sensors)},
			Config: fleetscore.PipelineConfig{Dataset: dataset, Fleet: "f", Features: []string{"Value"}, Pool: "cpu"}}
		run(`INSERT INTO jobs (seq, id, pipeline, state, ended, doc) VALUES (?, ?, ?, ?, ?, ?)`, n+1, string(id), pipeline, string(j.State), at.UnixMicro(), text(w.t, j))
		run(`INSERT INTO occurrences (pipeline, due, state, job, reason) VALUES (?, ?, 'ran', ?, '')`, pipeline, at.UnixMicro(), string(id))
		for i := range tasks {
			task := fleetscore.Task{ID: fleetscore.TaskID(fmt.Sprintf("%s.%03d", id, i)), Job: id, Index: i, State: fleetscore.TaskSucceeded, Keys: 62, Attempts: 1, Node: node, Started: &at, Ended: &at}
			run(`INSERT INTO tasks (id, job, job_seq, idx, pool, state, not_before, doc) VALUES (?, ?, ?, ?, 'cpu', ?, 0, ?)`, string(task.ID), string(id), n+1, i, string(task.State), text(w.t, task))
			run(`INSERT INTO attempts (lease, task, job, number, node, state, reason, started, expires, ended) VALUES (?, ?, ?, 1, ?, 'succeeded', '', ?, ?, ?)`,
				fmt.Sprintf("L%020d-%02d", n*7919%1000003, i), string(task.ID), string(id), string(node), at.UnixMicro(), at.UnixMicro(), at.UnixMicro())
		}
	}
	if err := tx.Commit(); err != nil {
		w.t.Fatal(err)
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// yearThen returns how long jobs run after the filled-in time.
func yearThen() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("FLEETSCORE_YEAR_THEN")); err == nil {
		return d
	}
	return 26 * time.Hour
}
