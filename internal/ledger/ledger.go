// Package ledger is the database of configuration, schedules, jobs, tasks, leases,
// nodes and audit.
//
// It has roles: small interfaces, each declared beside the words it needs
// (Configs, Schedules, Jobs, JobChanges, Tasks, Queue, Nodes, NodeChanges, Tokens,
// Sessions, Audits, Events, Times, History, Scales, Harms, Costs). Whoever needs a part of the ledger takes that role; Ledger is all of
// them. Package ledgertest is the conformance suite of every implementation.
//
// The ledger takes no decisions. Where a decision depends on what the ledger
// holds, the caller passes it in as a function. The function gets the state as it
// is inside the transaction that writes the decision, so that two decisions never
// build on the same state. Such a function must not call the ledger, and may be
// called again if the transaction has to be repeated. What returned without error
// is on disk, except signs of life of nodes (Renew). A lease's id fences its attempt: only one end of it is accepted.
//
// There are two engines: SQLite in one file, opened by one process at a time, and a
// PostgreSQL database, which several processes may have open. They share the
// statements; a dialect translates the few words in which they differ. A ledger is
// safe for concurrent use. A timer writes signs of life. SQLite starts no other goroutines
// of its own; PostgreSQL has some that carry events between the processes.
package ledger

import (
	"context"
	"io"
	"time"
)

// Ledger is every role of one database.
type Ledger interface {
	Configs
	Schedules
	Jobs
	JobChanges
	Tasks
	Queue
	Nodes
	NodeChanges
	Tokens
	Sessions
	Audits
	Events
	Times
	History
	Scales
	Harms
	Costs
	io.Closer
}

// Times is what the ledger knows of the time.
type Times interface {
	// LastTime is the latest time of something that had happened when it was
	// written: a node's sign of life, a due time that was decided. It is zero in a
	// new ledger. A server compares its clock with it when it starts.
	LastTime(ctx context.Context) (time.Time, error)
}

// LastTime implements Times.
func (l *core) LastTime(ctx context.Context) (time.Time, error) {
	var us int64
	err := l.row(ctx, `SELECT MAX(at) FROM (
		SELECT COALESCE(MAX(heartbeat), 0) AS at FROM nodes UNION ALL
		SELECT COALESCE(MAX(created), 0) FROM schedules UNION ALL
		SELECT COALESCE(MAX(last_due), 0) FROM schedules) AS times`).Scan(&us)
	return timeOf(us), l.problem("read the last time", "", err)
}
