//go:build !linux

package clock

import "time"

// steady is Go's monotonic clock. While the machine sleeps it may stand still; the
// wall clock is then ahead when it wakes up, and is trusted after a while.
func steady() time.Duration { return sinceStart() }

// synced never knows the kernel's time on this system.
func synced() (time.Time, bool) { return time.Time{}, false }
