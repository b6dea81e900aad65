package lifecycle

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestTurns: one at a time works on a thing, nobody waits for another thing, and whoever
// waits stops when its context ends.
func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var turns Turns[string]
		first, err := turns.Take(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		other, err := turns.Take(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		other()
		limited, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if _, err := turns.Take(limited, "a"); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("the turn ended with %v after %s, want the context's error after a minute", err, time.Since(began))
		}
		const waiting = 5
		order := make(chan int, waiting)
		working := 0 // the turns guard it
		for n := range waiting {
			go func() {
				done, err := turns.Take(t.Context(), "a")
				if err != nil {
					t.Error(err)
					return
				}
				defer done()
				if working++; working != 1 {
					t.Errorf("%d work at once", working)
				}
				time.Sleep(time.Second) // of the bubble's clock
				working--
				order <- n
			}()
		}
		synctest.Wait()
		if len(order) != 0 {
			t.Error("somebody works during another one's turn")
		}
		first()
		for range waiting {
			<-order
		}
		if took := time.Since(began) - time.Minute; took != waiting*time.Second {
			t.Errorf("%d turns of a second took %s", waiting, took)
		}
		synctest.Wait()
		if len(turns.taken) != 0 {
			t.Errorf("%d turns are left", len(turns.taken))
		}
	})
}
