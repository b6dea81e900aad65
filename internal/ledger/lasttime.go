package ledger

import (
	"context"
	"time"
)

// Times is what the ledger knows of the time.
type Times interface {
	// LastTime is the latest time of something that had happened when it was
	// written: a node's sign of life, a due time that was decided. It is zero in a
	// new ledger. A server compares its clock with it when it starts.
	LastTime(ctx context.Context) (time.Time, error)
}

// LastTime implements Times.
func (l *SQLite) LastTime(ctx context.Context) (time.Time, error) {
	var us int64
	err := l.read.QueryRowContext(ctx, `SELECT MAX(at) FROM (
		SELECT COALESCE(MAX(heartbeat), 0) AS at FROM nodes UNION ALL
		SELECT COALESCE(MAX(created), 0) FROM schedules UNION ALL
		SELECT COALESCE(MAX(last_due), 0) FROM schedules)`).Scan(&us)
	return timeOf(us), problem("read the last time", "", err)
}
