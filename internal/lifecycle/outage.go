package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/fleetscore/fleetscore"
)

// Outages makes the log tell each cause for which work stands still once, when it begins, and once
// when it is over, however many parts of a room it stops and however often they try again. The
// zero value is ready; nil tells each part's causes.
type Outages struct {
	mu   sync.Mutex     // guards open
	open map[string]int // how many parts each cause stops
}

// cause is what an error has in common with those of other work that stands still for the same reason: an outage
// of the database gives each operation another text.
func cause(err error) string {
	if err == nil || !fleetscore.KindOf(err).Retryable() {
		return text(err)
	}
	for next := err; ; {
		if next = errors.Unwrap(err); next == nil {
			return text(err)
		}
		err = next
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// changed says that one part stands still for another cause than before; empty means for none.
// It reports whether the new cause stopped no part until now, and whether the old one stops none any more.
func (o *Outages) changed(before, now string) (begins, over bool) {
	begins, over = now != "", before != ""
	if o == nil {
		return begins, over
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if over {
		o.open[before]--
		if over = o.open[before] == 0; over {
			delete(o.open, before)
		}
	}
	if begins {
		if o.open == nil {
			o.open = map[string]int{}
		}
		o.open[now]++
		begins = o.open[now] == 1
	}
	return begins, over
}

// Trouble is what stops one part. It belongs to one goroutine.
type Trouble struct {
	outages *Outages
	log     *slog.Logger
	cause   string // empty if the part works
}

// Trouble begins with a part that works.
func (o *Outages) Trouble(log *slog.Logger) Trouble { return Trouble{outages: o, log: log} }

// Failed notes an error, which is logged with the attributes if its cause is new.
func (t *Trouble) Failed(level slog.Level, message string, err error, args ...any) {
	now := cause(err)
	if now == t.cause {
		return
	}
	begins, _ := t.outages.changed(t.cause, now)
	t.cause = now
	if begins {
		t.log.Log(context.Background(), level, message, append(args, "error", err)...)
	}
}

// Works notes that the part works, which is logged if it was the last one that the cause had stopped.
func (t *Trouble) Works(message string, args ...any) {
	if _, over := t.outages.changed(t.cause, ""); over {
		t.log.Info(message, args...)
	}
	t.cause = ""
}

// Ends notes that the part ends, working or not.
func (t *Trouble) Ends() {
	t.outages.changed(t.cause, "")
	t.cause = ""
}
