package clock

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore/internal/obs"
)

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// fake is a machine's two clocks.
type fake struct {
	wall   time.Time
	steady time.Duration
	synced bool
	health obs.Health
}

func (f *fake) pass(d time.Duration) { f.wall, f.steady = f.wall.Add(d), f.steady+d }

func (f *fake) start(lastSeen time.Time) *Clock {
	return New(Config{}, Deps{Wall: func() time.Time { return f.wall }, Steady: func() time.Duration { return f.steady },
		Synced: func() (time.Time, bool) { return f.wall, f.synced }, Health: &f.health}, lastSeen)
}

func (f *fake) problem() string {
	for _, p := range f.health.Problems() {
		return p.Part + ": " + p.Problem
	}
	return ""
}

// check compares a clock's time with the expected time, counted from noon.
func check(t *testing.T, c *Clock, now time.Duration, trusted, certain bool) {
	t.Helper()
	if got := c.Now().Sub(noon); got != now {
		t.Errorf("it is noon + %s, want noon + %s", got, now)
	}
	if s := c.State(); s.Trusted != trusted || c.Certain() != certain || trusted == (c.Unsure() > 0) {
		t.Errorf("trusted %v, want %v; certain %v, want %v; unsure by %s; %s", s.Trusted, trusted, c.Certain(), certain, c.Unsure(), s.Reason)
	}
}

func TestJumpAheadAndBack(t *testing.T) {
	t.Parallel()
	f := &fake{wall: noon}
	c := f.start(time.Time{})
	f.pass(time.Minute)
	check(t, c, time.Minute, true, true)
	f.wall = f.wall.Add(time.Hour)
	check(t, c, time.Minute, false, true)
	if p := f.problem(); !strings.Contains(p, "clock: ") || !strings.Contains(p, "jumped ahead by 1h0m0s") || !strings.Contains(p, "clock accept") {
		t.Errorf("health says %q", p)
	}
	f.pass(8 * time.Second)
	check(t, c, 68*time.Second, false, true)
	f.wall = f.wall.Add(-time.Hour)
	check(t, c, 68*time.Second, true, true)
	if p := f.problem(); p != "" {
		t.Errorf("health still says %q", p)
	}
}

// TestSleep: while a laptop sleeps both clocks go on, so that waking up isn't a jump.
func TestSleep(t *testing.T) {
	t.Parallel()
	f := &fake{wall: noon}
	c := f.start(time.Time{})
	f.pass(9 * time.Hour)
	check(t, c, 9*time.Hour, true, true)
}

// TestSlewing: a clock that a time service speeds up or slows down is followed,
// however large the difference becomes, and the time never goes back.
func TestSlewing(t *testing.T) {
	t.Parallel()
	f := &fake{wall: noon}
	c := f.start(time.Time{})
	last := c.Now()
	for range 100 {
		f.pass(10 * time.Second)
		f.wall = f.wall.Add(time.Second)
		if now := c.Now(); !now.Equal(f.wall) {
			t.Fatalf("it is %s, want the machine's %s", now, f.wall)
		}
	}
	for range 100 {
		f.pass(10 * time.Second)
		f.wall = f.wall.Add(-time.Second)
		now := c.Now()
		if now.Before(last) || now.Sub(f.wall) > 2*time.Second {
			t.Fatalf("it is %s after %s, the machine says %s", now, last, f.wall)
		}
		last = now
	}
}

func TestStart(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for name, s := range map[string]struct {
		gap              time.Duration // from the last time seen to the start
		synced           bool
		now              time.Duration // from the start
		trusted, certain bool
	}{
		"just restarted":           {20 * time.Second, false, 0, true, true},
		"two days later":           {2 * day, false, -2 * day, false, false},
		"two days later, in order": {2 * day, true, 0, true, true},
		"an hour before":           {-time.Hour, false, time.Hour, false, false},
		"an hour before, in order": {-time.Hour, true, time.Hour, true, false},
		"a second before":          {-time.Second, false, time.Second, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fake{wall: noon, synced: s.synced}
			check(t, f.start(noon.Add(-s.gap)), s.now, s.trusted, s.certain)
		})
	}
}

// TestStartLaterIsTrusted: a server that was off for two days trusts its clock after
// the clock ran steadily, after devices confirmed it, or after an operator accepted
// it.
func TestStartLaterIsTrusted(t *testing.T) {
	t.Parallel()
	const gap = 48 * time.Hour
	begin := func() (*fake, *Clock) {
		f := &fake{wall: noon.Add(gap)}
		return f, f.start(noon)
	}
	f, c := begin()
	f.pass(9 * time.Minute)
	check(t, c, 9*time.Minute, false, false)
	f.pass(2 * time.Minute)
	check(t, c, gap+11*time.Minute, true, true)

	f, c = begin()
	for range 10 {
		c.Witness(f.wall.Add(-gap)) // devices whose clocks differ
	}
	check(t, c, 0, false, false)
	for range witnesses {
		f.pass(time.Second)
		c.Witness(f.wall.Add(-500 * time.Millisecond))
	}
	check(t, c, gap+witnesses*time.Second, true, true)

	f, c = begin()
	f.pass(time.Second)
	if s := c.Accept(); !s.Trusted {
		t.Errorf("it was accepted, and the state is still %+v", s)
	}
	check(t, c, gap+time.Second, true, true)

	f, c = begin() // a time service sets it right
	f.pass(20 * time.Second)
	check(t, c, 20*time.Second, false, false)
	f.wall = noon.Add(3 * time.Minute)
	check(t, c, 3*time.Minute, true, true)
}

// TestJumpIsTrusted: a jump is trusted after the clock ran steadily for as long as
// the jump, at most for an hour.
func TestJumpIsTrusted(t *testing.T) {
	t.Parallel()
	for _, s := range []struct{ jump, after time.Duration }{{5 * time.Minute, 5 * time.Minute}, {30 * time.Hour, time.Hour}} {
		f := &fake{wall: noon}
		c := f.start(time.Time{})
		f.wall = f.wall.Add(s.jump)
		check(t, c, 0, false, true)
		f.pass(s.after - time.Second)
		check(t, c, s.after-time.Second, false, true)
		f.pass(time.Second)
		check(t, c, s.jump+s.after, true, true)
	}
}

// TestBehind: if a clock was put back by an hour and is trusted, the time runs at
// half speed until the clock has caught up, and no silence is declared until then.
func TestBehind(t *testing.T) {
	t.Parallel()
	f := &fake{wall: noon}
	c := f.start(time.Time{})
	f.wall = f.wall.Add(-time.Hour)
	check(t, c, 0, false, true)
	c.Accept()
	f.pass(time.Hour)
	check(t, c, 30*time.Minute, true, false)
	f.pass(time.Hour)
	check(t, c, time.Hour, true, true)
	f.pass(time.Hour)
	check(t, c, 2*time.Hour, true, true)
}

// TestNil: no clock is the system's.
func TestNil(t *testing.T) {
	t.Parallel()
	var c *Clock
	c.Witness(noon)
	if time.Since(c.Now()) > time.Minute || c.Unsure() != 0 || !c.Certain() || !c.Trusted() || !c.Accept().Trusted {
		t.Error("a nil clock isn't the system's")
	}
}

// TestProperties: whatever the wall clock does, the time never goes back, never runs
// faster than the steady clock while the wall clock isn't trusted, and equals the
// wall clock at the end, after the wall clock ran steadily.
func TestProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		f := &fake{wall: noon}
		var seen time.Time
		if rapid.Bool().Draw(rt, "seen") {
			seen = noon.Add(time.Duration(rapid.IntRange(-200_000, 10_000).Draw(rt, "last seen")) * time.Second)
		}
		c := f.start(seen)
		last, lastSteady := c.Now(), f.steady
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			f.pass(time.Duration(rapid.IntRange(0, 2000).Draw(rt, "pass")) * time.Second)
			switch rapid.IntRange(0, 5).Draw(rt, "event") {
			case 0:
				f.wall = f.wall.Add(time.Duration(rapid.IntRange(-10_000, 10_000).Draw(rt, "jump")) * time.Second)
			case 1:
				c.Accept()
			}
			s := c.State()
			if s.Now.Before(last) {
				rt.Fatalf("the time went back from %s to %s", last, s.Now)
			}
			if passed := f.steady - lastSteady; !s.Trusted && s.Now.Sub(last) > passed {
				rt.Fatalf("%s passed and the time went on by %s", passed, s.Now.Sub(last))
			}
			last, lastSteady = s.Now, f.steady
		}
		f.pass(2 * time.Hour)
		c.Now()
		f.pass(200 * 24 * time.Hour)
		if now := c.Now(); !now.Equal(f.wall) || !c.Trusted() {
			rt.Fatalf("at the end it is %s, the machine says %s", now, f.wall)
		}
	})
}

// TestSystem: the system's steady clock goes on, and the kernel returns a time.
func TestSystem(t *testing.T) {
	t.Parallel()
	if a, b := steady(), steady(); b < a {
		t.Errorf("the steady clock went from %s to %s", a, b)
	}
	if now, ok := synced(); ok && time.Since(now).Abs() > time.Minute {
		t.Errorf("the kernel says %s", now)
	}
	if sinceStart() < 0 {
		t.Error("the time since the start is negative")
	}
}

// TestCheapClockSleeps: while the machine sleeps, the cheap clock stands still. The wall clock is trusted
// nevertheless, also right after a look.
func TestCheapClockSleeps(t *testing.T) {
	t.Parallel()
	wall, exact, awake, reads := noon, time.Duration(0), time.Duration(0), 0
	c := New(Config{}, Deps{Wall: func() time.Time { return wall }, Steady: func() time.Duration { reads++; return exact },
		Synced: func() (time.Time, bool) { return wall, false }, awake: func() time.Duration { return awake }}, time.Time{})
	pass := func(d, slept time.Duration) {
		wall, exact, awake = wall.Add(d+slept), exact+d+slept, awake+d
	}
	for _, slept := range []time.Duration{0, time.Hour, time.Second, 0, 8 * time.Hour} {
		for _, d := range []time.Duration{sleepCheck / 8, sleepCheck * 2} {
			pass(d, slept)
			check(t, c, wall.Sub(noon), true, true)
		}
	}
	before := reads
	for range 1000 {
		pass(sleepCheck/200, 0)
		c.Now()
	}
	if n := reads - before; n > 10 {
		t.Errorf("the exact clock was read %d times in %v", n, 5*sleepCheck)
	}
	wall = wall.Add(time.Hour)
	check(t, c, wall.Add(-time.Hour).Sub(noon), false, true)
}
