package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// OldJobs names jobs of a pipeline that have ended and may be forgotten.
type OldJobs struct {
	Pipeline string
	Before   time.Time // those that ended before
	Keep     int       // and those older than the newest so many; 0 means no bound
	// Bytes, if it isn't 0, means those of all pipelines that ended first, of which so many
	// have to go that the others take no more than so many bytes; then only Limit counts
	// besides.
	Bytes int64
	Limit int // at most so many
}

// Bounds say how much is kept of what isn't about one job.
type Bounds struct {
	Occurrences map[string]time.Time // by pipeline: due times before it go, but never the newest
	Audit       time.Time            // entries before it go
	Entries     int                  // of the audit, beyond which the oldest go
	Configs     int                  // configurations that were in force, beyond which the oldest go
}

// History lets go of what is over. Nothing of it is needed by what waits, runs or
// will be decided.
type History interface {
	// HistoryPipelines are the pipelines that jobs or due times are kept of, those
	// that are configured no more included.
	HistoryPipelines(ctx context.Context) ([]string, error)
	// OldJobs are the jobs that fit, oldest first.
	OldJobs(ctx context.Context, which OldJobs) ([]fleetscore.JobID, error)
	// ForgetJobs removes jobs that have ended, their tasks and attempts, in one
	// transaction. Jobs that haven't ended, or aren't known, stay.
	ForgetJobs(ctx context.Context, ids []fleetscore.JobID) error
	// UnknownJobs are those of the ids that no job has.
	UnknownJobs(ctx context.Context, ids []fleetscore.JobID) ([]fleetscore.JobID, error)
	// Trim removes due times, entries of the audit and configurations beyond the
	// bounds.
	Trim(ctx context.Context, b Bounds) error
}

// The pipelines are found one after the other by the index, as the engine would
// read all of it otherwise.
const selectPipelines = `WITH RECURSIVE
	j(p) AS (SELECT MIN(pipeline) FROM jobs UNION ALL SELECT (SELECT MIN(pipeline) FROM jobs WHERE pipeline > p) FROM j WHERE p IS NOT NULL),
	o(p) AS (SELECT MIN(pipeline) FROM occurrences UNION ALL SELECT (SELECT MIN(pipeline) FROM occurrences WHERE pipeline > p) FROM o WHERE p IS NOT NULL)
	SELECT p FROM j WHERE p IS NOT NULL UNION SELECT p FROM o WHERE p IS NOT NULL ORDER BY p`

func scanText[T ~string](scan func(...any) error) (T, error) {
	var v T
	return v, scan(&v)
}

// HistoryPipelines implements History.
func (l *core) HistoryPipelines(ctx context.Context) ([]string, error) {
	return query(ctx, l, "list pipelines", "", scanText[string], selectPipelines)
}

const (
	selectOldJobs  = `SELECT id FROM jobs WHERE pipeline = ? AND ended > 0 AND ended < ? ORDER BY ended, seq LIMIT ?`
	selectManyJobs = `SELECT id FROM jobs WHERE pipeline = ?1 AND seq < (SELECT seq FROM jobs WHERE pipeline = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2) AND ended > 0 ORDER BY seq LIMIT ?3`
)

// What a row takes besides its texts, with its entries in indexes: about as much as was
// measured in files of the embedded engine.
const (
	selectBytes = `SELECT COALESCE(SUM(bytes), 0) FROM jobs WHERE ended > 0`
	selectEnded = `SELECT id, bytes FROM jobs WHERE ended > 0 ORDER BY ended, seq LIMIT ?`
	// sizeEnded notes what a job takes that has ended.
	sizeEnded = `UPDATE jobs SET bytes = LENGTH(doc) + 400
		+ (SELECT COALESCE(SUM(LENGTH(doc) + 200), 0) FROM tasks WHERE job = ?1)
		+ (SELECT COALESCE(SUM(LENGTH(a.reason) + 300), 0) FROM tasks t JOIN attempts a ON a.task = t.id WHERE t.job = ?1)
		WHERE id = ?1`
)

// beyond are the jobs that ended first, of which so many have to go that the others take no
// more than so many bytes.
func (l *core) beyond(ctx context.Context, op string, bytes int64, limit int) (out []fleetscore.JobID, err error) {
	over := int64(0)
	if err := l.row(ctx, selectBytes).Scan(&over); err != nil {
		return nil, l.problem(op, "", err)
	}
	if over -= bytes; over <= 0 {
		return nil, nil
	}
	type sized struct {
		id    fleetscore.JobID
		bytes int64
	}
	ended, err := query(ctx, l, op, "", func(scan func(...any) error) (s sized, err error) { return s, scan(&s.id, &s.bytes) }, selectEnded, limit)
	for _, j := range ended {
		if over <= 0 {
			break
		}
		out = append(out, j.id)
		over -= j.bytes
	}
	return out, err
}

// OldJobs implements History.
func (l *core) OldJobs(ctx context.Context, which OldJobs) ([]fleetscore.JobID, error) {
	const op = "list old jobs"
	if which.Bytes > 0 {
		return l.beyond(ctx, op, which.Bytes, which.Limit)
	}
	out, err := query(ctx, l, op, which.Pipeline, scanText[fleetscore.JobID], selectOldJobs, which.Pipeline, micros(which.Before), which.Limit)
	if err != nil || len(out) == which.Limit || which.Keep <= 0 {
		return out, err
	}
	many, err := query(ctx, l, op, which.Pipeline, scanText[fleetscore.JobID], selectManyJobs, which.Pipeline, which.Keep-1, which.Limit)
	for _, id := range many {
		if len(out) < which.Limit && !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out, err
}

// ForgetJobs implements History.
func (l *core) ForgetJobs(ctx context.Context, ids []fleetscore.JobID) error {
	if len(ids) == 0 {
		return nil
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return fleetscore.Wrap("forget jobs", "", err)
	}
	return l.update(ctx, "forget jobs", string(ids[0]), func(t *tx) error {
		for _, q := range []string{
			`DELETE FROM attempts WHERE task IN (SELECT tasks.id FROM json_each(?) AS w JOIN jobs ON jobs.id = w.value AND jobs.ended > 0 JOIN tasks ON tasks.job = jobs.id)`,
			`DELETE FROM tasks WHERE id IN (SELECT tasks.id FROM json_each(?) AS w JOIN jobs ON jobs.id = w.value AND jobs.ended > 0 JOIN tasks ON tasks.job = jobs.id)`,
			`DELETE FROM jobs WHERE ended > 0 AND id IN (SELECT w.value FROM json_each(?) AS w)`,
		} {
			if err := t.exec(q, string(list)); err != nil {
				return err
			}
		}
		return nil
	})
}

// UnknownJobs implements History.
func (l *core) UnknownJobs(ctx context.Context, ids []fleetscore.JobID) ([]fleetscore.JobID, error) {
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, fleetscore.Wrap("find jobs", "", err)
	}
	out, err := query(ctx, l, "find jobs", "", scanText[fleetscore.JobID],
		`SELECT w.value FROM json_each(?) AS w WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = w.value)`, string(list))
	slices.Sort(out)
	return out, err
}

// trimAtOnce bounds what a transaction removes, as others wait for it.
const trimAtOnce = 1000

// Trim implements History.
func (l *core) Trim(ctx context.Context, b Bounds) error {
	const op = "trim history"
	for pipeline, before := range b.Occurrences {
		err := l.trim(ctx, op, pipeline, `DELETE FROM occurrences WHERE pipeline = ?1 AND due IN (SELECT due FROM occurrences WHERE pipeline = ?1 AND due < ?2
			AND due < (SELECT MAX(due) FROM occurrences WHERE pipeline = ?1) ORDER BY due LIMIT ?3)`, pipeline, micros(before), trimAtOnce)
		if err != nil {
			return err
		}
	}
	err := l.trim(ctx, op, "audit", `DELETE FROM audit WHERE seq IN (SELECT seq FROM audit WHERE at < ? OR seq <= (SELECT MAX(seq) FROM audit) - ? ORDER BY seq LIMIT ?)`,
		micros(b.Audit), b.Entries, trimAtOnce)
	if err != nil {
		return err
	}
	return l.trim(ctx, op, "configurations", `DELETE FROM configs WHERE version IN (SELECT version FROM configs WHERE version <= (SELECT MAX(version) FROM configs) - ? ORDER BY version LIMIT ?)`,
		max(1, b.Configs), trimAtOnce)
}

// trim repeats a statement that removes a bounded number of rows until it removes
// none. Where there is nothing to remove it costs a transaction without a write.
func (l *core) trim(ctx context.Context, op, subject, statement string, args ...any) error {
	for {
		var n int64
		err := l.update(ctx, op, subject, func(t *tx) (err error) {
			n, err = t.change(statement, args...)
			return err
		})
		if err != nil || n < trimAtOnce {
			return err
		}
	}
}

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
	Audit(ctx context.Context, e AuditEntry) error
	// AuditLog returns the newest entries of the audit, newest first.
	AuditLog(ctx context.Context, limit int) ([]AuditEntry, error)
}

// Audit implements Audits.
func (l *core) Audit(ctx context.Context, e AuditEntry) error {
	return l.update(ctx, "write audit", e.What+" "+e.Subject, func(t *tx) error {
		return t.exec(`INSERT INTO audit (at, who, what, subject) VALUES (?, ?, ?, ?)`, micros(e.At), e.Who, e.What, e.Subject)
	})
}

// AuditLog implements Audits.
func (l *core) AuditLog(ctx context.Context, limit int) ([]AuditEntry, error) {
	return query(ctx, l, "read audit", "", func(scan func(...any) error) (AuditEntry, error) {
		var e AuditEntry
		var at int64
		err := scan(&at, &e.Who, &e.What, &e.Subject)
		e.At = timeOf(at)
		return e, err
	}, `SELECT at, who, what, subject FROM audit ORDER BY seq DESC LIMIT ?`, limit)
}

// Pieces keeps what attempts of tasks write until it lies in the store, so that it survives
// the server that took it. Only a PostgreSQL ledger does that.
type Pieces interface {
	// AddPiece adds a piece of an attempt's output that begins at byte "at" of its stream. Kind
	// Conflict if the attempt has ended, or if what lies before is missing. Bytes that are
	// there already are passed over.
	AddPiece(ctx context.Context, lease fleetscore.LeaseID, stream string, at int64, data []byte) error
	// Piece reads bytes of a stream from the byte "from" on, as many as one piece holds, and none
	// at its end.
	Piece(ctx context.Context, lease fleetscore.LeaseID, stream string, from int64) ([]byte, error)
	// PieceSizes are the sizes of the streams that a job's attempts have here, by lease and
	// stream.
	PieceSizes(ctx context.Context, job fleetscore.JobID) (map[fleetscore.LeaseID]map[string]int64, error)
	// PieceLeases are the attempts that have pieces.
	PieceLeases(ctx context.Context) ([]fleetscore.LeaseID, error)
	// RemovePieces removes those of an attempt.
	RemovePieces(ctx context.Context, lease fleetscore.LeaseID) error
}

var _ Pieces = (*Postgres)(nil)

// The attempt is locked against its end, so that no piece comes after what ended it was
// read.
const (
	pieceEnd = `SELECT COALESCE(MAX(at + length(data)), 0) FROM log_pieces WHERE lease = ? AND stream = ?`
	addPiece = `INSERT INTO log_pieces (lease, stream, at, job, data)
		SELECT a.lease, CAST(?1 AS TEXT), CAST(?2 AS BIGINT), a.job, CAST(?3 AS BYTEA) FROM (SELECT lease, job FROM attempts WHERE lease = ?4 AND state = 'leased' FOR SHARE) AS a
		WHERE ?2 = (SELECT COALESCE(MAX(at + length(data)), 0) FROM log_pieces WHERE lease = ?4 AND stream = ?1) ON CONFLICT DO NOTHING`
)

// AddPiece implements Pieces. In the usual case it is one statement, and those of many
// attempts are made durable together.
func (p *Postgres) AddPiece(ctx context.Context, lease fleetscore.LeaseID, stream string, at int64, data []byte) error {
	const op, tries = "append log", 3
	for range tries { // each after another server took the same piece
		added, err := conn{ctx: ctx, l: &p.core, db: p.write}.change(addPiece, stream, at, data, string(lease))
		if err != nil || added > 0 {
			return p.problem(op, string(lease), err)
		}
		a, _, err := p.Attempt(ctx, lease)
		if err != nil {
			return err
		}
		if a.Ended != nil {
			return fleetscore.Errorf(fleetscore.Conflict, op, string(a.Task), "attempt %d ended: %s", a.Number, a.State)
		}
		var size int64
		if err := p.row(ctx, pieceEnd, string(lease), stream).Scan(&size); err != nil {
			return p.problem(op, string(lease), err)
		}
		switch {
		case at > size:
			return fleetscore.Errorf(fleetscore.Conflict, op, stream, "the chunk starts at byte %d, the log ends at %d", at, size)
		case at+int64(len(data)) <= size:
			return nil
		}
		data, at = data[size-at:], size
	}
	return fleetscore.Errorf(fleetscore.Unavailable, op, string(lease), "other servers take the same piece")
}

// Piece implements Pieces.
func (p *Postgres) Piece(ctx context.Context, lease fleetscore.LeaseID, stream string, from int64) ([]byte, error) {
	var at int64
	var data []byte
	err := p.row(ctx, `SELECT at, data FROM log_pieces WHERE lease = ?1 AND stream = ?2 AND at + length(data) > ?3 ORDER BY at LIMIT 1`, string(lease), stream, from).Scan(&at, &data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, p.problem("read log", string(lease), err)
	}
	return data[max(0, from-at):], nil
}

// PieceSizes implements Pieces.
func (p *Postgres) PieceSizes(ctx context.Context, job fleetscore.JobID) (map[fleetscore.LeaseID]map[string]int64, error) {
	type size struct {
		lease  fleetscore.LeaseID
		stream string
		bytes  int64
	}
	all, err := query(ctx, &p.core, "list logs", string(job), func(scan func(...any) error) (s size, err error) {
		return s, scan(&s.lease, &s.stream, &s.bytes)
	}, `SELECT lease, stream, MAX(at + length(data)) FROM log_pieces WHERE job = ? GROUP BY lease, stream`, string(job))
	out := map[fleetscore.LeaseID]map[string]int64{}
	for _, s := range all {
		if out[s.lease] == nil {
			out[s.lease] = map[string]int64{}
		}
		out[s.lease][s.stream] = s.bytes
	}
	return out, err
}

// PieceLeases implements Pieces.
func (p *Postgres) PieceLeases(ctx context.Context) ([]fleetscore.LeaseID, error) {
	return query(ctx, &p.core, "list logs", "", scanText[fleetscore.LeaseID], `SELECT DISTINCT lease FROM log_pieces`)
}

// RemovePieces implements Pieces.
func (p *Postgres) RemovePieces(ctx context.Context, lease fleetscore.LeaseID) error {
	return p.problem("remove log", string(lease), conn{ctx: ctx, l: &p.core, db: p.write}.exec(`DELETE FROM log_pieces WHERE lease = ?`, string(lease)))
}
