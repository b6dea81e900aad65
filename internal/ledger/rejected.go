package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Rejected is a message whose readings, or some of them, couldn't be taken.
type Rejected struct {
	ID      string            `json:"id"`      // follows from the source, the topic, the owner and the text, so that a message that is sent again is one entry
	Source  fleetscore.Source `json:"source"`  // the way by which it came
	Topic   string            `json:"topic"`   // of MQTT or of Kafka
	From    string            `json:"from"`    // who sent it last, or where it lay
	Owner   string            `json:"owner"`   // the only device whose readings it may hold; empty means any
	Reason  string            `json:"reason"`  // why it was rejected last
	Arrived time.Time         `json:"arrived"` // when it came last
	First   time.Time         `json:"first"`   // when it came first
	Times   int64             `json:"times"`   // how often it came
	Text    []byte            `json:"text"`
}

// identify sets the id.
func (r *Rejected) identify() {
	h := sha256.New()
	for _, part := range []string{string(r.Source), r.Topic, r.Owner} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	h.Write(r.Text)
	r.ID = hex.EncodeToString(h.Sum(nil)[:8])
}

// RejectsBound says how many rejected messages are kept: the newest.
type RejectsBound struct {
	Count  int       // of messages
	Bytes  int64     // of all of them
	Before time.Time // messages that came last before this time go
}

// Rejects keeps messages whose readings couldn't be taken.
type Rejects interface {
	// PutRejected keeps messages. One that is there already counts once more. Those beyond the
	// bound are removed, the oldest first; the zero bound removes none.
	PutRejected(ctx context.Context, list []Rejected, bound RejectsBound) error
	// Rejected are the newest messages, at most limit, which come after an entry in this order, or
	// all if it is zero. The entry needn't be there any more.
	Rejected(ctx context.Context, before Rejected, limit int) ([]Rejected, error)
	// OneRejected is the message of an id. Kind NotFound if there is none.
	OneRejected(ctx context.Context, id string) (Rejected, error)
	// RemoveRejected removes messages, if they didn't come again since they were read, and returns how many it removed.
	RemoveRejected(ctx context.Context, list ...Rejected) (int64, error)
	// CountRejected counts the messages that are kept, and their bytes.
	CountRejected(ctx context.Context) (count, bytes int64, err error)
}

const (
	putRejected = `INSERT INTO rejected (id, first, last, times, bytes, doc) VALUES (?, ?, ?, 1, ?, ?)
		ON CONFLICT (id) DO UPDATE SET last = excluded.last, times = rejected.times + 1, bytes = excluded.bytes, doc = excluded.doc`
	selectRejected = `SELECT id, first, last, times, doc FROM rejected WHERE last > ? ORDER BY last DESC, id DESC LIMIT ?`
	// before an entry
	selectOlderRejected = `SELECT id, first, last, times, doc FROM rejected WHERE (last, id) < (?, ?) ORDER BY last DESC, id DESC LIMIT ?`
	selectOneRejected   = `SELECT id, first, last, times, doc FROM rejected WHERE id = ?`
	trimRejected        = `DELETE FROM rejected WHERE last < ?`
	// The sizes of all messages are added up, which are few.
	boundRejected = `DELETE FROM rejected WHERE id IN (SELECT id FROM (
		SELECT id, SUM(bytes) OVER (ORDER BY last DESC, id DESC) AS total, ROW_NUMBER() OVER (ORDER BY last DESC, id DESC) AS place FROM rejected) AS page
		WHERE total > ? OR place > ?)`
)

// PutRejected implements Rejects.
func (l *core) PutRejected(ctx context.Context, list []Rejected, bound RejectsBound) error {
	docs := make([]string, len(list))
	for i := range list {
		list[i].identify()
		doc, err := json.Marshal(list[i])
		if err != nil {
			return err
		}
		docs[i] = string(doc)
	}
	return l.update(ctx, "keep rejected messages", "", func(t *tx) error {
		for i, r := range list {
			if err := t.exec(putRejected, r.ID, micros(r.Arrived), micros(r.Arrived), len(docs[i]), docs[i]); err != nil {
				return err
			}
		}
		if bound.Count == 0 {
			return nil
		}
		if err := t.exec(trimRejected, micros(bound.Before)); err != nil {
			return err
		}
		return t.exec(boundRejected, bound.Bytes, bound.Count)
	})
}

func scanRejected(scan func(...any) error) (Rejected, error) {
	var id, doc string
	var first, last, times int64
	if err := scan(&id, &first, &last, &times, &doc); err != nil {
		return Rejected{}, err
	}
	r, err := decode[Rejected](id, doc)
	r.ID, r.First, r.Arrived, r.Times = id, timeOf(first), timeOf(last), times
	return r, err
}

const listRejected = "list rejected messages"

// Rejected implements Rejects.
func (l *core) Rejected(ctx context.Context, before Rejected, limit int) ([]Rejected, error) {
	if before.ID == "" {
		return query(ctx, l, listRejected, "", scanRejected, selectRejected, 0, limit)
	}
	return query(ctx, l, listRejected, before.ID, scanRejected, selectOlderRejected, micros(before.Arrived), before.ID, limit)
}

// OneRejected implements Rejects.
func (l *core) OneRejected(ctx context.Context, id string) (Rejected, error) {
	list, err := query(ctx, l, "show rejected message", id, scanRejected, selectOneRejected, id)
	if err == nil && len(list) == 0 {
		return Rejected{}, fleetscore.Errorf(fleetscore.NotFound, "show rejected message", id, "there is no rejected message of this id").WithHint("fleetscore rejected ls lists them")
	}
	if err != nil {
		return Rejected{}, err
	}
	return list[0], nil
}

// RemoveRejected implements Rejects.
func (l *core) RemoveRejected(ctx context.Context, list ...Rejected) (removed int64, err error) {
	err = l.update(ctx, "remove rejected messages", "", func(t *tx) error {
		removed = 0
		for _, r := range list {
			n, err := t.change(`DELETE FROM rejected WHERE id = ? AND times = ?`, r.ID, r.Times)
			if err != nil {
				return err
			}
			removed += n
		}
		return nil
	})
	return removed, err
}

// CountRejected implements Rejects.
func (l *core) CountRejected(ctx context.Context) (count, bytes int64, err error) {
	err = l.row(ctx, `SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM rejected`).Scan(&count, &bytes)
	return count, bytes, l.problem("count rejected messages", "", err)
}
