// Package ledger is the database of configuration, schedules, jobs, tasks, leases,
// nodes and audit.
//
// It has roles: small interfaces, each declared beside the words it needs
// (Configs, Schedules, Jobs, JobChanges, Tasks, Queue, Nodes, NodeChanges, Tokens,
// Audits, Events, Times, History). Whoever needs a part of the ledger takes that role; Ledger is all of
// them. Package ledgertest is the conformance suite of every implementation.
//
// The ledger takes no decisions. Where a decision depends on what the ledger
// holds, the caller passes it in as a function. The function gets the state as it
// is inside the transaction that writes the decision, so that two decisions never
// build on the same state. Such a function must not call the ledger, and may be
// called again if the transaction has to be repeated. What returned without error
// is on disk. A lease's id fences its attempt: only one end of it is accepted.
//
// The engine is SQLite in one file, opened by one process at a time. It is safe
// for concurrent use and starts no goroutines of its own.
package ledger

import "io"

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
	Audits
	Events
	Times
	History
	io.Closer
}
