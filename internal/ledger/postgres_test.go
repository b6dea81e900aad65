package ledger

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

func openPostgres(t *testing.T, url string) *Postgres {
	t.Helper()
	l, err := OpenPostgres(t.Context(), PostgresConfig{URL: url, PollEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	testkit.CloseLater(t, l)
	return l
}

// signaled waits for a watcher's signal.
func signaled(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(30 * time.Second):
		t.Fatalf("no signal: %s", what)
	}
}

// TestPostgresTogether is about several processes on one database, and about what
// happens while it is away.
func TestPostgresTogether(t *testing.T) {
	t.Parallel()
	server := testkit.StartPostgres(t, testkit.PostgresVersions[0])
	t.Run("OpenAtOnce", func(t *testing.T) { testOpenAtOnce(t, server.NewDatabase(t)) })
	t.Run("Events", func(t *testing.T) { testEventsTravel(t, server.NewDatabase(t)) })
	t.Run("OneOutcome", func(t *testing.T) { testOneOutcome(t, server.NewDatabase(t)) })
	t.Run("Refuses", func(t *testing.T) { testPostgresRefuses(t, server.NewDatabase(t)) })
	t.Run("HotQueries", func(t *testing.T) { testPostgresPlans(t, server.NewDatabase(t)) })
	t.Run("Away", func(t *testing.T) { testDatabaseAway(t, server) })
}

// testOpenAtOnce: several servers that start at once on a new database make its tables
// one after the other.
func testOpenAtOnce(t *testing.T, url string) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			l, err := OpenPostgres(t.Context(), PostgresConfig{URL: url})
			if err != nil {
				t.Error(err)
				return
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// testEventsTravel: what one process writes wakes the watchers of the others, and of
// a watcher that missed it, the next look.
func testEventsTravel(t *testing.T, url string) {
	a, b := openPostgres(t, url), openPostgres(t, url)
	ch, stop := b.Watch(JobsTopic("p"))
	defer stop()
	other, stopOther := b.Watch(JobsTopic("other"))
	defer stopOther()
	plan(t, a, "j1", 1)
	signaled(t, "a job was made by another process", ch)
	var many []Topic
	for i := range 1000 { // more than one notification may hold
		many = append(many, DatasetTopic(fmt.Sprintf("a dataset with a rather long name, number %d", i)))
	}
	last, stopLast := b.Watch(many[0])
	defer stopLast()
	a.Put(many...)
	signaled(t, "one of many events", last)
	select {
	case <-other:
		t.Error("a watcher of something else has a signal")
	default:
	}
	c, err := OpenPostgres(t.Context(), PostgresConfig{URL: url, PollEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	polled, stopPolled := c.Watch(JobsTopic("p"))
	defer stopPolled()
	signaled(t, "without any event, by polling", polled)
}

// testOneOutcome: two processes that decide the same due times at once decide each
// once.
func testOneOutcome(t *testing.T, url string) {
	const dues = 30
	var wg sync.WaitGroup
	for _, l := range []*Postgres{openPostgres(t, url), openPostgres(t, url)} {
		for range 2 {
			wg.Go(func() {
				for {
					made := false
					_, err := l.DecideSchedule(t.Context(), "p", func(v ScheduleView) (ScheduleDecision, error) {
						due := noon.Add(time.Minute)
						if !v.State.LastDue.IsZero() {
							due = v.State.LastDue.Add(time.Minute)
						}
						if made = due.Sub(noon) <= dues*time.Minute; !made {
							return ScheduleDecision{State: v.State}, nil
						}
						j := job(due.Format("15:04"))
						return ScheduleDecision{State: ScheduleState{Pipeline: "p", Created: noon, LastDue: due}, Job: &j,
							Occurrences: []fleetscore.Occurrence{{Pipeline: "p", Due: due, State: fleetscore.OccurrenceRan, Job: j.ID}}}, nil
					})
					if err != nil {
						t.Error(err)
						return
					}
					if !made {
						return
					}
				}
			})
		}
	}
	wg.Wait()
	l := openPostgres(t, url)
	occs := must[[]fleetscore.Occurrence](t)(l.Occurrences(t.Context(), "p", 999))
	if jobs := must[[]fleetscore.Job](t)(l.Jobs(t.Context(), JobFilter{})); len(occs) != dues || len(jobs) != dues {
		t.Errorf("%d outcomes and %d jobs, want %d each", len(occs), len(jobs), dues)
	}
}

// testPostgresRefuses: what can't be used is refused with a message that says what to do
// and never holds the password.
func testPostgresRefuses(t *testing.T, address string) {
	l := openPostgres(t, address)
	if s := l.String(); !strings.Contains(s, "PostgreSQL") {
		t.Errorf("it is called %s", s)
	}
	if _, err := l.write.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)`); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	with := func(change func(*url.URL)) string {
		v := *u
		change(&v)
		return v.String()
	}
	for _, c := range []struct {
		name, url, want string
		kind            fleetscore.Kind
	}{
		{"newer tables", address, "newer release", fleetscore.Conflict},
		{"wrong password", with(func(u *url.URL) { u.User = url.UserPassword("fleet", password+"x") }), "password", fleetscore.Unavailable},
		{"no such database", with(func(u *url.URL) { u.Path = "/none" }), "none", fleetscore.Unavailable},
		{"no server", with(func(u *url.URL) { u.RawQuery = "host=/tmp/none" }), "/tmp/none", fleetscore.Unavailable},
		{"commits that a crash loses", with(func(u *url.URL) { u.RawQuery += "&synchronous_commit=off" }), "synchronous_commit", fleetscore.Invalid},
		{"no address", "postgres://fleet:" + password + "@h:p o r t/x?%zz", "postgres://USER:PASSWORD", fleetscore.Invalid},
		{"another engine", "mysql://fleet:" + password + "@h/x", "postgres://USER:PASSWORD", fleetscore.Invalid},
	} {
		l, err := OpenPostgres(t.Context(), PostgresConfig{URL: c.url})
		if err == nil {
			t.Errorf("%s: opened %s", c.name, l)
			_ = l.Close()
			continue
		}
		said := fmt.Sprintf("%v %+v", err, err)
		if !c.kind.Is(err) || !strings.Contains(said, c.want) {
			t.Errorf("%s: %v; want kind %s and %q", c.name, err, c.kind, c.want)
		}
		if strings.Contains(said+fmt.Sprint(l), password) {
			t.Errorf("%s: the message holds the password: %s", c.name, said)
		}
	}
}

// testDatabaseAway: while the database is away calls fail as unavailable, and when it
// is back everything goes on by itself, watchers included.
func testDatabaseAway(t *testing.T, server *testkit.Postgres) {
	url := server.NewDatabase(t)
	a, b := openPostgres(t, url), openPostgres(t, url)
	plan(t, a, "j1", 2)
	server.Stop(t)
	if _, err := a.Job(t.Context(), "j1"); !fleetscore.Unavailable.Is(err) {
		t.Errorf("reading while the database is away: %v, want kind unavailable", err)
	}
	if err := a.Audit(t.Context(), AuditEntry{Who: "me", What: "did", Subject: "it"}); !fleetscore.Unavailable.Is(err) {
		t.Errorf("writing while the database is away: %v, want kind unavailable", err)
	}
	ch, stop := b.Watch(JobsTopic("p"))
	defer stop()
	server.Start(t)
	signaled(t, "the connection is back, so every watcher looks", ch)
	if j := must[fleetscore.Job](t)(a.Job(t.Context(), "j1")); j.Tasks != 2 {
		t.Errorf("after the outage the job is %+v", j)
	}
	plan(t, a, "j2", 1)
	signaled(t, "an event after the outage", ch)
}

// tables of which a query that runs often reads no whole one.
var tables = []string{"jobs", "tasks", "attempts", "occurrences", "inputs", "results"}

// testPostgresPlans asks the engine how it carries out the queries that run often,
// when most of what is kept has ended.
func testPostgresPlans(t *testing.T, url string) {
	l, ctx := openPostgres(t, url), t.Context()
	for _, q := range []string{
		`ALTER TABLE jobs DISABLE TRIGGER USER`,
		`INSERT INTO jobs (id, pipeline, state, ended, doc) SELECT 'j' || i, 'p' || i % 20, 'succeeded', i, repeat('x', 1000) FROM generate_series(1, 4000) i`,
		`INSERT INTO tasks (id, job, job_seq, idx, pool, state, not_before, doc) SELECT 'j' || i || '.000', 'j' || i, i, 0, 'cpu', CASE WHEN i > 3800 THEN 'queued' ELSE 'succeeded' END, 0, repeat('x', 1000) FROM generate_series(1, 4000) i`,
		// Many, because their rows are small: few pages are read as a whole sooner than by an index.
		`INSERT INTO attempts SELECT 'l' || i || '-' || k, 'j' || i || '.000', 'j' || i, k, 'n' || i % 10, CASE WHEN i % 200 = 0 AND k = 1 THEN 'leased' ELSE 'succeeded' END, '', 1, 2, 3 FROM generate_series(1, 4000) i, generate_series(1, 25) k`,
		`INSERT INTO occurrences SELECT 'p' || i % 20, i, 'ran', 'j' || i, '' FROM generate_series(1, 4000) i`,
		`INSERT INTO inputs SELECT 'j' || i || '.000', 'j' || i, repeat('x', 1000) FROM generate_series(1, 4000) i`,
		`INSERT INTO results SELECT 'j' || i || '.000', 'j' || i, repeat('x', 1000) FROM generate_series(1, 4000) i`,
		`ANALYZE`,
	} {
		if _, err := l.write.ExecContext(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	for name, q := range hot() {
		steps := must[string](t)(explain(ctx, l, q))
		for _, table := range tables {
			if strings.Contains(steps, "Seq Scan on "+table) {
				t.Errorf("%s reads all of %s:\n%s\n%s", name, table, q, steps)
			}
		}
		if name == "lease" && strings.Contains(steps, "Sort") {
			t.Errorf("%s sorts all that waits:\n%s", name, steps)
		}
	}
}

// explain is the plan of a statement about one pool, pipeline or job and limits of 1.
func explain(ctx context.Context, l *Postgres, statement string) (string, error) {
	// The engine plans for the values as they are, so they are written into the text.
	for column, value := range map[string]string{"pool": "cpu", "pipeline": "p7", "job": "j8", "node": "n3", "state": "succeeded"} {
		statement = regexp.MustCompile(`\b`+column+` = \?[0-9]*`).ReplaceAllString(statement, column+" = '"+value+"'")
	}
	text := parameter.ReplaceAllString(statement, "'1'")
	text = strings.ReplaceAll(text, "json_each('1') AS w", "json_array_elements_text('[1]') AS w(value)")
	text = strings.ReplaceAll(text, "json_rows('1') AS w", `json_array_elements('[{"id": "j8.000", "task": "j8.000", "lease": "l8", "node": "n3", "at": 1}]') AS w(value)`)
	steps, err := query(ctx, &l.core, "", "", scanText[string], `EXPLAIN `+text)
	return strings.Join(steps, "\n"), err
}
