package aggregator

import (
	"fmt"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/window"
)

// waits says what the rows of a partition that come next wait for.
func (a *Aggregator) waits(s PartitionStatus, m window.Mark) string {
	slowest, ok := m.Slowest(a.window)
	switch {
	case a.status.Problem != "":
		return "the query has stopped: " + a.status.Problem
	case s.Taken < s.Position:
		return fmt.Sprintf("the log is read again, up to message %d of %d", s.Taken, s.Position)
	case !ok && s.Taken == 0:
		return "no message has come since the start"
	case !ok:
		return "no reading has come yet that tells a time"
	}
	next := floor(m.Watermark, a.cut) + a.cut
	if s.CompleteUntil != 0 {
		next = floor(s.CompleteUntil, a.cut) + a.cut
	}
	if slowest.Mark > next {
		return fmt.Sprintf("rows up to %s are being written", next)
	}
	reached := slowest.Mark + fleetscore.Micros(a.window.Disorder.Microseconds())
	return fmt.Sprintf("rows up to %s wait for readings of source %s: they have reached %s, and must be later by hub.disorder (%s) than the rows; its last message came at %s. While the gateway works, %s of silence count too",
		next, slowest.Source, reached, fleetscore.Duration(a.window.Disorder), slowest.Arrived, fleetscore.Duration(a.window.IdleAfter))
}
