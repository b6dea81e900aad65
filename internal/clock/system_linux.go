package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// steady is a clock that nobody sets and that goes on while the machine sleeps,
// which Go's own monotonic clock doesn't.
func steady() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return sinceStart()
	}
	return time.Duration(t.Nano())
}

// synced asks the kernel whether a time service keeps the kernel's clock right. After
// somebody set the clock by hand, the answer is no until the service has measured the
// clock again.
func synced() (time.Time, bool) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil || state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0 {
		return time.Time{}, false
	}
	fraction := time.Duration(t.Time.Usec) * time.Microsecond
	if t.Status&unix.STA_NANO != 0 {
		fraction = time.Duration(t.Time.Usec)
	}
	return time.Unix(t.Time.Sec, int64(fraction)), true
}
