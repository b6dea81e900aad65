package ledger

import (
	"context"
	"time"
)

// AuditEntry says who changed what.
type AuditEntry struct {
	At      time.Time `json:"at"`
	Who     string    `json:"who"`
	What    string    `json:"what"`
	Subject string    `json:"subject"`
}

// Audits is who changed what, for people to look up.
type Audits interface {
	// Audit appends an entry to the audit.
	Audit(ctx context.Context, who, what, subject string) error
	// AuditLog returns the newest entries of the audit, newest first.
	AuditLog(ctx context.Context, limit int) ([]AuditEntry, error)
}

// Audit implements Audits.
func (l *SQLite) Audit(ctx context.Context, who, what, subject string) error {
	return l.update(ctx, "write audit", what+" "+subject, func(t *tx) error {
		return t.exec(`INSERT INTO audit (at, who, what, subject) VALUES (?, ?, ?, ?)`, micros(time.Now()), who, what, subject)
	})
}

// AuditLog implements Audits.
func (l *SQLite) AuditLog(ctx context.Context, limit int) ([]AuditEntry, error) {
	return query(ctx, l, "read audit", "", func(scan func(...any) error) (AuditEntry, error) {
		var e AuditEntry
		var at int64
		err := scan(&at, &e.Who, &e.What, &e.Subject)
		e.At = timeOf(at)
		return e, err
	}, `SELECT at, who, what, subject FROM audit ORDER BY seq DESC LIMIT ?`, limit)
}
