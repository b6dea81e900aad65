// Package clock provides the time that a server acts by. A wall clock can be set
// wrongly and can jump. A server that acted by such a clock would close windows too
// early, make jobs of the future, or remove data that is still needed. So the wall
// clock is compared with a clock that can't be set, and at the start with the last
// times that this server stored.
//
//	          a jump, or a start            it agrees again,
//	          far from the last time        was steady for long enough,
//	          seen                          was confirmed, or accepted
//	trusted ───────────────────────► held ───────────────────────► trusted
//	   ▲                                │ and was behind
//	   └──────────── catching up ◄──────┘
//	     the wall clock is reached
//
// While trusted, Now is the wall clock. While held, Now goes on from the last trusted
// time by the clock that can't be set. If the wall clock is trusted again but is
// behind Now, then Now runs at half speed until the wall clock has caught up, because
// Now never goes back.
//
// The package doesn't set clocks and doesn't ask a server for the time. A Clock may
// be used concurrently. A nil *Clock is the system's clock, always trusted.
package clock

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore/internal/obs"
)

// Config says when the wall clock is trusted.
type Config struct {
	Tolerance   time.Duration // a smaller step is accepted at once; 0 means 3 s
	StartGap    time.Duration // a start at most this long after the last time seen is trusted at once; 0 means 10 min
	StartSteady time.Duration // a later start is trusted after the clock ran steadily for this long; 0 means 10 min
	AcceptAfter time.Duration // a jump is trusted after the clock ran steadily for as long as the jump, at most for this; 0 means 1 h
}

// Defaults fills the fields that are zero.
func (c Config) Defaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Tolerance, 3*time.Second)
	def(&c.StartGap, 10*time.Minute)
	def(&c.StartSteady, 10*time.Minute)
	def(&c.AcceptAfter, time.Hour)
	return c
}

// Deps holds the clocks to compare. Nil fields mean the system's clocks.
type Deps struct {
	Wall   func() time.Time
	Steady func() time.Duration            // a clock that nobody sets and that goes on while the machine sleeps
	Synced func() (now time.Time, ok bool) // the kernel's time, if a time service keeps the kernel's clock right
	Log    *slog.Logger                    // nil discards
	Health *obs.Health                     // nil discards

	awake func() time.Duration // a cheap clock that may stand still while the machine sleeps; nil: Steady is read each time
}

// witnesses is how many requests with new readings confirm a wall clock that isn't
// trusted, because devices have clocks of their own. witnessWithin is how near to the
// wall clock their newest reading must be.
const (
	witnesses     = 3
	witnessWithin = time.Minute
)

// dayUnsure is the least uncertainty of an arrival's time while the wall clock isn't
// trusted.
const dayUnsure = 24 * time.Hour

// Clock is a wall clock that is compared with other clocks before it is trusted.
type Clock struct {
	cfg  Config
	deps Deps

	mu     sync.Mutex // guards what follows
	steady steadyClock
	base   time.Time     // the trusted time is base plus Steady
	now    time.Time     // the last time that was returned
	mark   time.Duration // Steady at that time
	held   *hold         // nil while the wall clock is trusted
}

// hold describes a wall clock that isn't trusted.
type hold struct {
	reason    string
	since     time.Time     // trusted time
	off       time.Duration // the wall clock minus the trusted time, since the wall clock last jumped
	steady    time.Duration // Steady at that time
	start     bool          // the difference was found at the start, so the trusted time is a guess
	witnesses int
}

// State describes a clock.
type State struct {
	Now       time.Time  `json:"now" doc:"the time that this server acts by"`
	Wall      time.Time  `json:"wall" doc:"what the machine's clock says"`
	Trusted   bool       `json:"trusted" doc:"whether the machine's clock is trusted"`
	Reason    string     `json:"reason,omitempty" doc:"why the machine's clock isn't trusted"`
	Since     *time.Time `json:"since,omitempty" doc:"since when the machine's clock isn't trusted"`
	TrustedAt *time.Time `json:"trusted_at,omitempty" doc:"when the machine's clock will be trusted, by its own time, if it runs steadily until then"`
}

// New makes a clock. lastSeen is the latest time that was stored before this start;
// zero if there is none.
func New(cfg Config, deps Deps, lastSeen time.Time) *Clock {
	c := &Clock{cfg: cfg.Defaults(), deps: deps}
	if c.deps.Wall == nil {
		c.deps.Wall = time.Now
	}
	if c.deps.Steady == nil {
		c.deps.Steady, c.deps.awake = steady, sinceStart
	}
	c.steady = steadyClock{exact: c.deps.Steady, awake: c.deps.awake}
	if c.deps.Synced == nil {
		c.deps.Synced = synced
	}
	if c.deps.Log == nil {
		c.deps.Log = slog.New(slog.DiscardHandler)
	}
	wall, at := c.read()
	c.now, c.mark, c.base = wall, at, wall.Add(-at)
	if lastSeen.IsZero() {
		return c
	}
	gap := wall.Sub(lastSeen)
	switch {
	case gap < -c.cfg.Tolerance:
		c.now, c.base = lastSeen, lastSeen.Add(-at)
		c.hold(gap, at, true, fmt.Sprintf("it is %s behind the last time that this server stored, %s", span(-gap), stamp(lastSeen)))
	case gap > c.cfg.StartGap && !c.proven(wall):
		c.now, c.base = lastSeen, lastSeen.Add(-at)
		c.hold(gap, at, true, fmt.Sprintf("it is %s ahead of the last time that this server stored, %s, and nothing confirms it yet", span(gap), stamp(lastSeen)))
	case gap < 0:
		c.now = lastSeen
	}
	return c
}

// read reads both clocks; the wall clock without Go's monotonic reading, which
// would hide a jump.
func (c *Clock) read() (wall time.Time, at time.Duration) {
	return c.deps.Wall().Round(0), c.steady.now()
}

// steadyClock reads a clock that costs a system call by a cheaper one, which may stand still while the machine
// sleeps. How far they are apart is looked at every sleepCheck. A sleep in between that is longer than the tolerance
// shows as a jump of the wall clock; then the caller forgets the difference.
type steadyClock struct {
	exact  func() time.Duration
	awake  func() time.Duration // nil: the exact clock is read each time
	apart  time.Duration        // the exact clock minus the other one
	looked time.Duration        // when that was found, by the other one
	known  bool
}

const sleepCheck = 10 * time.Millisecond

func (s *steadyClock) now() time.Duration {
	if s.awake == nil {
		return s.exact()
	}
	at := s.awake()
	if !s.known || at-s.looked > sleepCheck {
		s.apart, s.looked, s.known = s.exact()-at, at, true
	}
	return at + s.apart
}

// forget makes the next reading exact; false if each is.
func (s *steadyClock) forget() bool {
	s.known = false
	return s.awake != nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func span(d time.Duration) string { return d.Round(time.Second).String() }

// proven reports whether a time service keeps the kernel's clock right, and the
// kernel's clock is the clock that we read.
func (c *Clock) proven(wall time.Time) bool {
	kernel, ok := c.deps.Synced()
	return ok && kernel.Sub(wall).Abs() <= c.cfg.Tolerance
}

// Now is the time to act by. It never goes back.
func (c *Clock) Now() time.Time {
	if c == nil {
		return time.Now()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	return c.now
}

// look compares the clocks and moves the time on. The lock is held.
func (c *Clock) look() (wall time.Time) {
	wall, at := c.read()
	off := wall.Sub(c.base.Add(at))
	if off.Abs() > c.cfg.Tolerance && c.steady.forget() { // perhaps the machine slept
		wall, at = c.read()
		off = wall.Sub(c.base.Add(at))
	}
	switch {
	case off.Abs() <= c.cfg.Tolerance:
		c.base = wall.Add(-at)
		c.release("it agrees with the trusted time again")
	case c.held == nil:
		direction := "ahead"
		if off < 0 {
			direction = "back"
		}
		c.hold(off, at, false, fmt.Sprintf("it jumped %s by %s", direction, span(off.Abs())))
	case (off - c.held.off).Abs() > c.cfg.Tolerance:
		c.held.off, c.held.steady, c.held.witnesses = off, at, 0
		c.deps.Log.Error("the machine's clock jumped again", "now", stamp(wall), "trusted", stamp(c.base.Add(at)))
	}
	if why := c.reasonToTrust(wall, at); why != "" {
		c.base = wall.Add(-at)
		c.release(why)
	}
	elapsed := max(0, at-c.mark)
	c.mark = at
	if trusted := c.base.Add(at); trusted.After(c.now) {
		c.now = trusted
	} else {
		c.now = c.now.Add(elapsed / 2) // until the trusted time has caught up
	}
	return wall
}

// reasonToTrust says why a clock that isn't trusted can be trusted now; empty if it
// can't.
func (c *Clock) reasonToTrust(wall time.Time, at time.Duration) string {
	switch h := c.held; {
	case h == nil:
		return ""
	case h.start && h.off >= 0 && h.off <= c.cfg.StartGap:
		return "it was corrected"
	case h.witnesses >= witnesses:
		return "the times of new readings confirm it"
	case at-h.steady >= c.wait(h):
		return "it ran steadily for " + span(at-h.steady)
	case c.proven(wall):
		return "the machine's time service confirms it"
	}
	return ""
}

// wait is how long a clock must run steadily before it is trusted.
func (c *Clock) wait(h *hold) time.Duration {
	if h.start && h.off > 0 {
		return c.cfg.StartSteady // it is normal that a server was off for a long time
	}
	return min(h.off.Abs(), c.cfg.AcceptAfter)
}

func (c *Clock) hold(off, at time.Duration, start bool, reason string) {
	c.held = &hold{reason: reason, since: c.now, off: off, steady: at, start: start}
	c.deps.Log.Error("the machine's clock is not trusted: "+reason, "trusted", stamp(c.base.Add(at)), "trusted_in", c.wait(c.held), "hint", advice)
	c.deps.Health.Report("clock", fmt.Sprintf("the machine's clock is not trusted: %s. It will be trusted after it has run steadily for %s. Until then this server acts by the last trusted time: no window is closed because of silence after that time, no job of a later time is made, and nothing is removed because of its age. To change that, %s", reason, span(c.wait(c.held)), advice))
}

const advice = "set the machine's clock, or, if it is right, run fleetscore clock accept"

func (c *Clock) release(why string) {
	if c.held == nil {
		return
	}
	c.deps.Log.Warn("the machine's clock is trusted again: "+why, "was", c.held.reason, "now", stamp(c.base.Add(c.mark)))
	c.held = nil
	c.deps.Health.Report("clock", "")
}

// Unsure is how much later than Now the true time may be: 0 while the wall clock is
// trusted.
func (c *Clock) Unsure() time.Duration {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	wall := c.look()
	if c.held == nil {
		return 0
	}
	return max(wall.Sub(c.now), dayUnsure)
}

// Certain reports whether Now may be used to decide that a device is silent. It may
// not while the time of the start is a guess, nor while the wall clock must catch up
// with Now.
func (c *Clock) Certain() bool {
	if c == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	return (c.held == nil || !c.held.start) && c.now.Sub(c.base.Add(c.mark)) <= c.cfg.Tolerance
}

// Trusted reports whether the wall clock is trusted and Now isn't ahead of it.
func (c *Clock) Trusted() bool {
	if c == nil {
		return true
	}
	return c.Certain() && c.State().Trusted
}

// Witness notes the time of the newest of some readings that have just arrived.
// Devices have clocks of their own: if these agree with a wall clock that isn't
// trusted, the wall clock becomes trusted.
func (c *Clock) Witness(newest time.Time) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		return
	}
	if wall := c.look(); c.held != nil && newest.Sub(wall).Abs() <= witnessWithin {
		c.held.witnesses++
	}
}

// Accept makes the wall clock trusted as it is.
func (c *Clock) Accept() State {
	if c == nil {
		return c.State()
	}
	c.mu.Lock()
	wall, at := c.read()
	if c.held != nil {
		c.base = wall.Add(-at)
		c.release("an operator accepted it")
	}
	c.mu.Unlock()
	return c.State()
}

// State describes the clock.
func (c *Clock) State() State {
	if c == nil {
		now := time.Now().UTC()
		return State{Now: now, Wall: now, Trusted: true}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	wall := c.look()
	s := State{Now: c.now.UTC(), Wall: wall.UTC(), Trusted: c.held == nil}
	if h := c.held; h != nil {
		since, trustedAt := h.since.UTC(), wall.Add(c.wait(h)-(c.mark-h.steady)).UTC()
		s.Reason, s.Since, s.TrustedAt = h.reason, &since, &trustedAt
	}
	return s
}

// Run compares the clocks every second until ctx ends, so that a jump is noticed and
// reported even if nothing asks for the time.
func (c *Clock) Run(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			c.Now()
		}
	}
}

var started = time.Now()

// sinceStart is Go's monotonic clock.
func sinceStart() time.Duration { return time.Since(started) }
