package ledger

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
)

// occupy makes the writer busy until the returned function is called.
func occupy(t *testing.T, l *SQLite) (release func()) {
	t.Helper()
	begun, end := make(chan struct{}), make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		err := l.update(context.Background(), "occupy", "", func(*tx) error {
			close(begun)
			<-end
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-begun
	return func() { close(end); wait.Wait() }
}

// waits returns when n transactions wait for the writer.
func waits(l *SQLite, n int) {
	for {
		l.group.line.mu.Lock()
		have := len(l.group.line.waiting)
		l.group.line.mu.Unlock()
		if have == n {
			return
		}
		runtime.Gosched()
	}
}

func insertAudit(what string) func(*tx) error {
	return func(t *tx) error {
		return t.exec(`INSERT INTO audit (at, who, what, subject) VALUES (0, 'w', ?, '')`, what)
	}
}

func audited(t *testing.T, l *SQLite) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, what := range must[[]string](t)(query(t.Context(), &l.core, "", "", scanText[string], `SELECT what FROM audit`)) {
		out[what]++
	}
	return out
}

// TestWritersWaitTogether: of those who wait for the writer, one that fails, one that panics and one whose context ends change
// nothing and disturb nobody.
func TestWritersWaitTogether(t *testing.T) {
	t.Parallel()
	for _, engineGivesUp := range []bool{false, true} {
		l := open(t)
		release := occupy(t, l)
		var wait sync.WaitGroup
		const good = 20
		for n := range good {
			wait.Go(func() {
				if err := l.update(t.Context(), "write", "", insertAudit(fmt.Sprint("good", n))); err != nil {
					t.Errorf("good %d: %v", n, err)
				}
			})
			waits(l, n+1)
		}
		bad := errors.New("bad")
		wait.Go(func() {
			err := l.update(t.Context(), "write", "", func(tx *tx) error {
				if engineGivesUp {
					return errors.Join(insertAudit("bad")(tx), tx.exec(`ROLLBACK`), bad)
				}
				return errors.Join(insertAudit("bad")(tx), bad)
			})
			if !errors.Is(err, bad) {
				t.Errorf("bad: %v", err)
			}
		})
		waits(l, good+1)
		limited, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { left <- l.update(limited, "write", "", insertAudit("left")) }()
		waits(l, good+2)
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) { // while the writer is busy
			t.Errorf("left: %v", err)
		}
		if !engineGivesUp {
			wait.Go(func() {
				defer func() {
					if got := recover(); got != "broken" {
						t.Errorf("the caller's panic is %v", got)
					}
				}()
				_ = l.update(t.Context(), "write", "", func(tx *tx) error {
					if err := insertAudit("broken")(tx); err != nil {
						return err
					}
					panic("broken")
				})
			})
			waits(l, good+2)
		}
		release()
		wait.Wait()
		got := audited(t, l)
		for n := range good {
			if got[fmt.Sprint("good", n)] != 1 {
				t.Errorf("good %d was written %d times", n, got[fmt.Sprint("good", n)])
			}
		}
		if len(got) != good {
			t.Errorf("written: %v, want only what succeeded", got)
		}
		if err := l.update(t.Context(), "write", "", insertAudit("after")); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
}

// TestWaitingWritersShareOneCommit: many that wait are one transaction.
func TestWaitingWritersShareOneCommit(t *testing.T) {
	t.Parallel()
	l := open(t)
	release := occupy(t, l)
	const n = 2 * maxGroup
	in := make([]any, n) // the transaction of each
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			err := l.update(t.Context(), "write", "", func(t *tx) error {
				in[i] = t.db
				return insertAudit(fmt.Sprint(i))(t)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	waits(l, n)
	release()
	wait.Wait()
	different := map[any]bool{}
	for _, db := range in {
		different[db] = true
	}
	if len(different) != n/maxGroup {
		t.Errorf("%d writers took %d transactions, want %d", n, len(different), n/maxGroup)
	}
	if got := audited(t, l); len(got) != n {
		t.Errorf("%d of %d were written", len(got), n)
	}
}

// TestStatementsAreParsedOnce: a statement that was carried out before is carried out again
// without parsing it, in transactions as well as outside of them, and one that the engine
// doesn't understand stays an error.
func TestStatementsAreParsedOnce(t *testing.T) {
	t.Parallel()
	l, ctx := open(t), t.Context()
	for i := range 3 {
		if err := l.update(ctx, "", "", insertAudit(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if got := audited(t, l); len(got) != i+1 {
			t.Errorf("%d entries, want %d", len(got), i+1)
		}
	}
	broken := func(t *tx) error { return t.exec(`INSERT INTO nothing VALUES (?)`, 1) }
	for range 2 {
		if err := l.update(ctx, "", "", broken); err == nil {
			t.Error("a statement about a table that there isn't succeeds")
		}
	}
	kept := func(m *sync.Map, text string) bool { _, ok := m.Load(text); return ok }
	if !kept(&l.parsed.write, `INSERT INTO audit (at, who, what, subject) VALUES (0, 'w', ?, '')`) || !kept(&l.parsed.read, `SELECT what FROM audit`) ||
		kept(&l.parsed.write, `INSERT INTO nothing VALUES (?)`) {
		t.Error("kept are not the statements that can be carried out")
	}
}
