package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Nodes reads all nodes.
type Nodes interface {
	// Node is the node of that id; kind NotFound if there is none.
	Node(ctx context.Context, id fleetscore.NodeID) (fleetscore.Node, error)
	// Nodes are a pool's, by start; an empty pool means all.
	Nodes(ctx context.Context, pool string) ([]fleetscore.Node, error)
}

// NodeChanges changes them.
type NodeChanges interface {
	// UpdateNode changes a node by a function that sees it as it is, in one
	// transaction; a node that isn't known yet is seen as zero but for its id.
	UpdateNode(ctx context.Context, id fleetscore.NodeID, change func(*fleetscore.Node) error) (fleetscore.Node, error)
	// SetNodeState changes a node's state; kind NotFound if there is no such node.
	SetNodeState(ctx context.Context, id fleetscore.NodeID, state fleetscore.NodeState) error
	// Renew notes a sign of life of a node and what it measured, unless that is nil, and
	// extends the leases it holds to ttl from now. It returns the node, and which of the
	// leases no longer belong to the node. Kind NotFound if there is no such node.
	Renew(ctx context.Context, id fleetscore.NodeID, leases []fleetscore.LeaseID, load *fleetscore.NodeLoad, now time.Time, ttl time.Duration) (n fleetscore.Node, revoked []fleetscore.LeaseID, err error)
	// ForgetNodes removes nodes that have ended and gave no sign of life since
	// a time.
	ForgetNodes(ctx context.Context, before time.Time) error
}

const selectNodes = `SELECT id, pool, state, slots, host, pid, version, started, heartbeat, idle_since, registered, kind, reason, log_tail, load,
	(SELECT COUNT(*) FROM attempts WHERE node = nodes.id AND state = 'leased') FROM nodes`

const (
	selectNode      = selectNodes + ` WHERE id = ?`
	selectPoolNodes = selectNodes + ` WHERE pool = ? ORDER BY started, id`
	selectAllNodes  = selectNodes + ` ORDER BY started, id`
	lockNode        = selectNode + ` FOR UPDATE`
	renewLease      = `UPDATE attempts SET expires = ? WHERE lease = ? AND node = ? AND state = 'leased'`
)

// ready is what the ledger calls nodes that are idle or running: which of both they are
// depends on the leases they hold, so that giving a task to a node doesn't change it.
const ready = "ready"

func storedState(s fleetscore.NodeState) string {
	if s.Works() {
		return ready
	}
	return string(s)
}

func scanNode(scan func(...any) error) (fleetscore.Node, error) {
	var n fleetscore.Node
	var started, heartbeat, idle, registered int64
	var load string
	err := scan(&n.ID, &n.Pool, &n.State, &n.Slots, &n.Host, &n.PID, &n.Version, &started, &heartbeat, &idle, &registered, &n.Kind, &n.Reason, &n.LogTail, &load, &n.Running)
	if err != nil {
		return n, err
	}
	n.Started, n.Heartbeat, n.IdleSince, n.Registered = timeOf(started), timeOf(heartbeat), timeOf(idle), timeOf(registered)
	if n.State == ready {
		n.State = fleetscore.NodeIdle
		if n.Running > 0 {
			n.State = fleetscore.NodeRunning
		}
	}
	if load != "" {
		l, err := decode[fleetscore.NodeLoad](string(n.ID), load)
		if err != nil {
			return n, err
		}
		n.Load = &l
	}
	return n, nil
}

func loadText(l *fleetscore.NodeLoad) (string, error) {
	if l == nil {
		return "", nil
	}
	text, err := json.Marshal(l)
	return string(text), err
}

func (t *tx) putNode(n fleetscore.Node) error {
	load, err := loadText(n.Load)
	if err != nil {
		return err
	}
	t.event(NodesTopic(n.Pool), NodeTopic(n.ID))
	return t.exec(`INSERT INTO nodes (id, pool, state, slots, host, pid, version, started, heartbeat, idle_since, registered, kind, reason, log_tail, load) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET pool = excluded.pool, state = excluded.state, slots = excluded.slots, host = excluded.host, pid = excluded.pid,
		version = excluded.version, started = excluded.started, heartbeat = excluded.heartbeat, idle_since = excluded.idle_since, registered = excluded.registered,
		kind = excluded.kind, reason = excluded.reason, log_tail = excluded.log_tail, load = excluded.load`,
		string(n.ID), n.Pool, storedState(n.State), n.Slots, n.Host, n.PID, n.Version, micros(n.Started), micros(n.Heartbeat), micros(n.IdleSince), micros(n.Registered),
		string(n.Kind), n.Reason, n.LogTail, load)
}

// idle notes that a node has less to do, and since when it is idle if it holds no
// lease any more.
func (t *tx) idle(id fleetscore.NodeID, now time.Time) error {
	var pool string
	if err := t.row(`SELECT pool FROM nodes WHERE id = ? FOR UPDATE`, string(id)).Scan(&pool); errors.Is(err, sql.ErrNoRows) {
		return nil // it was forgotten
	} else if err != nil {
		return err
	}
	t.event(NodesTopic(pool))
	return t.exec(`UPDATE nodes SET idle_since = ? WHERE id = ? AND NOT EXISTS (SELECT 1 FROM attempts WHERE node = nodes.id AND state = 'leased')`,
		micros(now), string(id))
}

// UpdateNode implements NodeChanges.
func (l *core) UpdateNode(ctx context.Context, id fleetscore.NodeID, change func(*fleetscore.Node) error) (fleetscore.Node, error) {
	var n fleetscore.Node
	err := l.update(ctx, "change node", string(id), func(t *tx) (err error) {
		if err := t.lock("node " + string(id)); err != nil { // there may be no row yet
			return err
		}
		n, err = scanNode(t.row(lockNode, string(id)).Scan)
		if errors.Is(err, sql.ErrNoRows) {
			n, err = fleetscore.Node{ID: id}, nil
		}
		if err != nil {
			return err
		}
		if err := change(&n); err != nil {
			return err
		}
		n.Kind = cmp.Or(n.Kind, fleetscore.Dedicated)
		return t.putNode(n)
	})
	return n, err
}

// Node implements Nodes.
func (l *core) Node(ctx context.Context, id fleetscore.NodeID) (fleetscore.Node, error) {
	n, err := scanNode(l.row(ctx, selectNode, string(id)).Scan)
	return n, l.problem("find node", string(id), err)
}

// Nodes implements Nodes.
func (l *core) Nodes(ctx context.Context, pool string) ([]fleetscore.Node, error) {
	if pool == "" {
		return query(ctx, l, "list nodes", pool, scanNode, selectAllNodes)
	}
	return query(ctx, l, "list nodes", pool, scanNode, selectPoolNodes, pool)
}

// SetNodeState implements NodeChanges.
func (l *core) SetNodeState(ctx context.Context, id fleetscore.NodeID, state fleetscore.NodeState) error {
	return l.update(ctx, "change node", string(id), func(t *tx) error {
		var have, pool string
		want := storedState(state)
		if err := t.row(`SELECT state, pool FROM nodes WHERE id = ? FOR UPDATE`, string(id)).Scan(&have, &pool); err != nil || have == want {
			return err
		}
		t.event(NodesTopic(pool), NodeTopic(id))
		return t.exec(`UPDATE nodes SET state = ? WHERE id = ?`, want, string(id))
	})
}

// Renew implements NodeChanges.
func (l *core) Renew(ctx context.Context, id fleetscore.NodeID, leases []fleetscore.LeaseID, load *fleetscore.NodeLoad, now time.Time, ttl time.Duration) (n fleetscore.Node, revoked []fleetscore.LeaseID, err error) {
	measured, err := loadText(load)
	if err != nil {
		return n, nil, fleetscore.Wrap("renew leases", string(id), err)
	}
	err = l.update(ctx, "renew leases", string(id), func(t *tx) (err error) {
		revoked = nil
		for _, lease := range slices.Sorted(slices.Values(leases)) {
			renewed, err := t.change(renewLease, micros(now.Add(ttl)), string(lease), string(id))
			if err != nil {
				return err
			}
			if renewed == 0 {
				revoked = append(revoked, lease)
			}
		}
		if measured == "" {
			err = t.exec(`UPDATE nodes SET heartbeat = ? WHERE id = ?`, micros(now), string(id))
		} else {
			err = t.exec(`UPDATE nodes SET heartbeat = ?, load = ? WHERE id = ?`, micros(now), measured, string(id))
		}
		if err != nil {
			return err
		}
		n, err = scanNode(t.row(selectNode, string(id)).Scan)
		return err
	})
	return n, slices.Clip(revoked), err
}

// ForgetNodes implements NodeChanges.
func (l *core) ForgetNodes(ctx context.Context, before time.Time) error {
	return l.update(ctx, "forget nodes", "", func(t *tx) error {
		return t.exec(`DELETE FROM nodes WHERE state IN ('unusable', 'lost', 'stopped') AND heartbeat < ?`, micros(before))
	})
}
