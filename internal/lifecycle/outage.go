package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Outages makes the log tell each cause for which work stands still once, when it begins, again at
// growing distances while it lasts, and once when it is over, however many parts of a room it stops and however often
// they try again. The zero value is ready; nil tells each part's causes.
type Outages struct {
	mu   sync.Mutex // guards open
	open map[string]*outage
}

// outage is one cause.
type outage struct {
	parts int // that it stopped and that didn't work since
	begun time.Time
	next  time.Time     // when the log tells it again
	wait  time.Duration // from then to the time after
}

// The distances at which the log tells an outage again.
const (
	firstReminder = 10 * time.Minute
	lastReminder  = 6 * time.Hour
)

// maxCauses bounds the causes of a part that are told apart: those of each of its tries may have another text.
const maxCauses = 16

// cause is what an error has in common with those of other work that stands still for the same reason: an outage
// of the database gives each operation another text.
func cause(err error) string {
	if !fleetscore.KindOf(err).Retryable() {
		return err.Error()
	}
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

// begins notes that a cause stops a part that it didn't stop before, and reports whether it stopped no other.
func (o *Outages) begins(cause string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if x := o.open[cause]; x != nil {
		x.parts++
		return false
	}
	if o.open == nil {
		o.open = map[string]*outage{}
	}
	now := time.Now()
	o.open[cause] = &outage{parts: 1, begun: now, next: now.Add(firstReminder), wait: firstReminder}
	return true
}

// lasts reports for how long a cause has lasted, if that is to be told again.
func (o *Outages) lasts(cause string) (since time.Duration, again bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	x, now := o.open[cause], time.Now()
	if now.Before(x.next) {
		return 0, false
	}
	x.wait = min(2*x.wait, lastReminder)
	x.next = now.Add(x.wait)
	return now.Sub(x.begun), true
}

// ends notes that a cause stops a part no more, and reports whether that was the last one.
func (o *Outages) ends(cause string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open[cause].parts--
	if o.open[cause].parts > 0 {
		return false
	}
	delete(o.open, cause)
	return true
}

// Trouble is what stops one part. It belongs to one goroutine.
type Trouble struct {
	outages *Outages
	log     *slog.Logger
	causes  map[string]bool // for which the part failed since it worked
}

// Trouble begins with a part that works.
func (o *Outages) Trouble(log *slog.Logger) Trouble {
	if o == nil {
		o = &Outages{}
	}
	return Trouble{outages: o, log: log, causes: map[string]bool{}}
}

// Failed notes an error, which is logged with the attributes if its cause is new, or has lasted for long.
func (t *Trouble) Failed(level slog.Level, message string, err error, args ...any) {
	if err == nil {
		return
	}
	now := cause(err)
	if !t.causes[now] && len(t.causes) >= maxCauses {
		now = "" // one of many
	}
	if !t.causes[now] {
		t.causes[now] = true
		if t.outages.begins(now) {
			t.log.Log(context.Background(), level, message, append(args, "error", err)...)
		}
		return
	}
	if since, again := t.outages.lasts(now); again {
		t.log.Log(context.Background(), level, message, append(args, "for", since.Round(time.Second), "error", err)...)
	}
}

// Works notes that the part works, which is logged if it was the last one that a cause had stopped.
func (t *Trouble) Works(message string, args ...any) {
	if t.end() {
		t.log.Info(message, args...)
	}
}

// Ends notes that the part ends, working or not.
func (t *Trouble) Ends() { t.end() }

// end forgets the causes, and reports whether one of them stops no part any more.
func (t *Trouble) end() (over bool) {
	for c := range t.causes {
		over = t.outages.ends(c) || over
	}
	clear(t.causes)
	return over
}
