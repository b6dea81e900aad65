package ledger

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

var quiet = slog.New(slog.DiscardHandler)

// expire lets the lease run out, as after five seconds without a renewal.
func expire(t *testing.T, l *Postgres) {
	t.Helper()
	if _, err := l.write.ExecContext(t.Context(), `UPDATE leader SET expires = clock_timestamp() - interval '1 second'`); err != nil {
		t.Fatal(err)
	}
}

func lead(t *testing.T, l *Postgres) (token int64) {
	t.Helper()
	if err := l.Lead(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	return l.fence.Load()
}

func audit(t *testing.T, l *Postgres) error {
	return l.Audit(t.Context(), AuditEntry{Who: "me", What: "did", Subject: "it"})
}

// TestLeader: one process leads. Another one takes over when the lease has run out, and
// what the first one does from then on changes nothing.
func TestLeader(t *testing.T) {
	t.Parallel()
	server := testkit.StartPostgres(t, testkit.PostgresVersions[1])
	t.Run("TakeOver", func(t *testing.T) { t.Parallel(); testTakeOver(t, server.NewDatabase(t)) })
	t.Run("Open", func(t *testing.T) { t.Parallel(); testOpenTransaction(t, server.NewDatabase(t)) })
	t.Run("Frozen", func(t *testing.T) { t.Parallel(); testFrozenTransaction(t, server.NewDatabase(t)) })
	t.Run("Store", func(t *testing.T) { t.Parallel(); testBelongsToAStore(t, server.NewDatabase(t)) })
}

func testTakeOver(t *testing.T, url string) {
	ctx := t.Context()
	a, b := openPostgres(t, url), openPostgres(t, url)
	if token := lead(t, a); token != 1 {
		t.Errorf("the first token is %d", token)
	}
	if err := audit(t, a); err != nil {
		t.Error(err)
	}
	if err := b.Lead(ctx, time.Nanosecond); !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), "with process") {
		t.Errorf("a second leader: %v, want kind conflict and who leads", err)
	}
	expire(t, a)
	if token := lead(t, b); token != 2 {
		t.Errorf("the second token is %d", token)
	}
	plan(t, b, "j1", 1)
	if err := audit(t, a); !fleetscore.Conflict.Is(err) {
		t.Errorf("a write of the first leader: %v, want kind conflict", err)
	}
	if _, err := a.UpdateJob(ctx, "j1", func(j *fleetscore.Job) error { j.State = fleetscore.JobFailed; return nil }); !fleetscore.Conflict.Is(err) {
		t.Errorf("a decision of the first leader: %v, want kind conflict", err)
	}
	if err := a.Keep(ctx, quiet); !fleetscore.Conflict.Is(err) {
		t.Errorf("the first leader's renewal: %v, want kind conflict", err)
	}
	if err := a.Resign(ctx); err != nil {
		t.Error(err)
	}
	if err := audit(t, b); err != nil {
		t.Errorf("after the first one resigned: %v", err)
	}
	if j := must[fleetscore.Job](t)(b.Job(ctx, "j1")); j.State != fleetscore.JobQueued {
		t.Errorf("the job is %s", j.State)
	}
	if err := b.Resign(ctx); err != nil {
		t.Fatal(err)
	}
	if err := audit(t, b); !fleetscore.Conflict.Is(err) {
		t.Errorf("a write after resigning: %v, want kind conflict", err)
	}
	c := openPostgres(t, url)
	if err := c.Lead(ctx, time.Nanosecond); err != nil {
		t.Errorf("after the second one resigned: %v", err)
	}
	ending, cancel := context.WithCancel(ctx)
	kept := make(chan error, 1)
	go func() { kept <- c.Keep(ending, quiet) }()
	expire(t, c)
	for h := (holder{left: -1}); h.left < 0; { // until it is renewed
		h = must[holder](t)(c.holder(ctx))
	}
	cancel()
	if err := <-kept; err != nil {
		t.Error(err)
	}
}

// testOpenTransaction: nobody takes over while a transaction of the leader is open,
// which the leader's own renewals don't wait for.
func testOpenTransaction(t *testing.T, url string) {
	ctx := t.Context()
	a, b := openPostgres(t, url), openPostgres(t, url)
	lead(t, a)
	inside, end, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- a.update(ctx, "", "", func(x *tx) error {
			close(inside)
			<-end
			return x.exec(`INSERT INTO audit (at, who, what, subject) VALUES (1, 'a', 'in', 'time')`)
		})
	}()
	<-inside
	renewed, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := a.write.ExecContext(renewed, `UPDATE leader SET expires = clock_timestamp() - interval '1 second' WHERE token = 1`); err != nil {
		t.Errorf("a renewal beside an open transaction: %v", err)
	}
	taken := make(chan error, 1)
	go func() { taken <- b.Lead(ctx, time.Minute) }()
	for waiting := 0; waiting == 0; {
		if err := a.row(ctx, `SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-taken:
		t.Errorf("taken over while a transaction of the leader is open: %v", err)
	default:
	}
	close(end)
	if err := <-done; err != nil {
		t.Errorf("the open transaction: %v", err)
	}
	if err := <-taken; err != nil || b.fence.Load() != 2 {
		t.Errorf("taken over: %v with token %d", err, b.fence.Load())
	}
	if got := must[[]AuditEntry](t)(b.AuditLog(ctx, 9)); len(got) != 1 {
		t.Errorf("audit: %+v", got)
	}
}

// testFrozenTransaction: a process that is frozen inside a transaction holds the others
// up for some seconds only, and the transaction is lost.
func testFrozenTransaction(t *testing.T, url string) {
	ctx := t.Context()
	a, b := openPostgres(t, url), openPostgres(t, url)
	lead(t, a)
	inside, end, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- a.update(ctx, "", "", func(x *tx) error {
			if err := x.exec(`INSERT INTO audit (at, who, what, subject) VALUES (1, 'a', 'too', 'late')`); err != nil {
				return err
			}
			close(inside)
			<-end
			return nil
		})
	}()
	<-inside
	expire(t, a)
	began := time.Now()
	lead(t, b)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s to take over from a frozen process", took)
	}
	close(end)
	if err := <-done; err == nil {
		t.Error("the frozen process's transaction has succeeded")
	}
	if got := must[[]AuditEntry](t)(b.AuditLog(ctx, 9)); len(got) != 0 {
		t.Errorf("it has written %+v", got)
	}
}

func testBelongsToAStore(t *testing.T, url string) {
	a := openPostgres(t, url)
	lead(t, a)
	for range 2 {
		if err := a.BelongTo(t.Context(), "s3://one"); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.BelongTo(t.Context(), "s3://two"); !fleetscore.Conflict.Is(err) || !strings.Contains(err.Error(), "s3://one") {
		t.Errorf("another store: %v, want kind conflict and the store's name", err)
	}
}
