package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"maps"
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
	// Neglected are nodes that should give signs of life and gave the last before silent,
	// and nodes that have ended and hold leases or gave the last before old. If there are
	// very many, it returns some of them.
	Neglected(ctx context.Context, silent, old time.Time) ([]fleetscore.Node, error)
	// Strays are the nodes that don't take tasks, and those of pools that aren't listed.
	Strays(ctx context.Context, pools []string) ([]fleetscore.Node, error)
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
	// leases no longer belong to the node. Kind NotFound if there is no such node. Signs
	// of life that come closely together may all count with the time of the latest.
	Renew(ctx context.Context, id fleetscore.NodeID, leases []fleetscore.LeaseID, load *fleetscore.NodeLoad, now time.Time, ttl time.Duration) (n fleetscore.Node, revoked []fleetscore.LeaseID, err error)
	// LoseNodes makes those of the nodes lost that should give signs of life and gave the
	// last before a time. Those of low priority that took tasks were preempted, which is
	// their reason. It returns the nodes that are lost now.
	LoseNodes(ctx context.Context, ids []fleetscore.NodeID, before time.Time) ([]fleetscore.Node, error)
	// ForgetNodes removes nodes that have ended and gave no sign of life since
	// a time.
	ForgetNodes(ctx context.Context, before time.Time) error
}

const selectNodes = `SELECT id, pool, state, slots, host, pid, version, started, heartbeat, idle_since, registered, usable, kind, reason, log_tail, load,
	(SELECT COUNT(*) FROM attempts WHERE node = nodes.id AND state = 'leased') FROM nodes`

const (
	selectNode      = selectNodes + ` WHERE id = ?`
	selectPoolNodes = selectNodes + ` WHERE pool = ? ORDER BY started, id`
	selectAllNodes  = selectNodes + ` ORDER BY started, id`
	lockNode        = selectNode + ` FOR UPDATE`
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
	var started, heartbeat, idle, registered, usable int64
	var load string
	err := scan(&n.ID, &n.Pool, &n.State, &n.Slots, &n.Host, &n.PID, &n.Version, &started, &heartbeat, &idle, &registered, &usable, &n.Kind, &n.Reason, &n.LogTail, &load, &n.Running)
	if err != nil {
		return n, err
	}
	n.Started, n.Heartbeat, n.IdleSince, n.Registered, n.Ready = timeOf(started), timeOf(heartbeat), timeOf(idle), timeOf(registered), timeOf(usable)
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
	return t.exec(`INSERT INTO nodes (id, pool, state, slots, host, pid, version, started, heartbeat, idle_since, registered, usable, kind, reason, log_tail, load) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET pool = excluded.pool, state = excluded.state, slots = excluded.slots, host = excluded.host, pid = excluded.pid,
		version = excluded.version, started = excluded.started, heartbeat = excluded.heartbeat, idle_since = excluded.idle_since, registered = excluded.registered, usable = excluded.usable,
		kind = excluded.kind, reason = excluded.reason, log_tail = excluded.log_tail, load = excluded.load`,
		string(n.ID), n.Pool, storedState(n.State), n.Slots, n.Host, n.PID, n.Version, micros(n.Started), micros(n.Heartbeat), micros(n.IdleSince), micros(n.Registered), micros(n.Ready),
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

// The states of the ledger as conditions; see fleetscore.NodeState.
const (
	speaks = `state IN ('` + ready + `', 'preparing', 'draining')`
	ended  = `state IN ('unusable', 'lost', 'stopped')`

	// selectNeglected reads all nodes, which takes a few milliseconds for ten thousand. An
	// index by heartbeat would cost more, because heartbeats change all the time.
	selectNeglected = selectNodes + ` WHERE ` + speaks + ` AND heartbeat < ?1 OR ` + ended + ` AND (heartbeat < ?2 OR
		EXISTS (SELECT 1 FROM attempts WHERE node = nodes.id AND state = 'leased')) LIMIT 1000`
	selectStrays = selectNodes + ` WHERE state <> '` + ready + `' OR pool NOT IN (SELECT w.value FROM json_each(?) AS w) ORDER BY started, id`
	lockSilent   = selectNodes + ` WHERE id IN (SELECT w.value FROM json_each(?1) AS w) AND ` + speaks + ` AND heartbeat < ?2 ORDER BY id FOR UPDATE`
)

// Neglected implements Nodes.
func (l *core) Neglected(ctx context.Context, silent, old time.Time) ([]fleetscore.Node, error) {
	return query(ctx, l, "list nodes", "", scanNode, selectNeglected, micros(silent), micros(old))
}

// Strays implements Nodes.
func (l *core) Strays(ctx context.Context, pools []string) ([]fleetscore.Node, error) {
	return query(ctx, l, "list nodes", "", scanNode, selectStrays, names(l, pools))
}

// goneWithoutAWord is why a node of low priority is lost.
const goneWithoutAWord = fleetscore.PreemptedReason + ": it was gone without a word"

// LoseNodes implements NodeChanges.
func (l *core) LoseNodes(ctx context.Context, ids []fleetscore.NodeID, before time.Time) (lost []fleetscore.Node, err error) {
	err = l.update(ctx, "change nodes", "", func(t *tx) (err error) {
		if lost, err = list(t, scanNode, lockSilent, names(l, ids), micros(before)); err != nil || len(lost) == 0 {
			return err
		}
		ids := make([]fleetscore.NodeID, len(lost))
		for i := range lost {
			if lost[i].State.Works() && lost[i].Kind == fleetscore.LowPriority {
				lost[i].Reason = goneWithoutAWord
			}
			lost[i].State, ids[i] = fleetscore.NodeLost, lost[i].ID
			t.event(NodesTopic(lost[i].Pool), NodeTopic(lost[i].ID))
		}
		return t.exec(`UPDATE nodes SET reason = CASE WHEN state = 'ready' AND kind = 'low_priority' THEN ? ELSE reason END, state = 'lost'
			WHERE id IN (SELECT w.value FROM json_each(?) AS w)`, goneWithoutAWord, names(l, ids))
	})
	if err != nil {
		return nil, err
	}
	return lost, nil
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

// Renew implements NodeChanges. Signs of life that come closely together are noted by one
// transaction, so that thousands of nodes don't keep the database busy. Nobody is answered
// before his own is on disk.
func (l *core) Renew(ctx context.Context, id fleetscore.NodeID, leases []fleetscore.LeaseID, load *fleetscore.NodeLoad, now time.Time, ttl time.Duration) (n fleetscore.Node, revoked []fleetscore.LeaseID, err error) {
	measured, err := loadText(load)
	if err != nil {
		return n, nil, fleetscore.Wrap("renew leases", string(id), err)
	}
	s := &sign{node: id, leases: leases, load: load, measured: measured, now: now, ttl: ttl, done: make(chan struct{})}
	if err = l.signs.do(ctx, s, l.note); err == nil {
		err = s.err
	}
	return s.found, s.revoked, l.problem("renew leases", string(id), err)
}

// sign is a sign of life of a node.
type sign struct {
	node     fleetscore.NodeID
	leases   []fleetscore.LeaseID
	load     *fleetscore.NodeLoad // nil if it measured nothing new
	measured string               // load as it is kept
	now      time.Time
	ttl      time.Duration

	done    chan struct{} // closed when the fields below are set
	found   fleetscore.Node
	revoked []fleetscore.LeaseID
	err     error
}

func (s *sign) ended() <-chan struct{} { return s.done }

// After a transaction with several signs of life the next one begins signPace later, so that
// they don't become many small ones. maxSigns bounds how many signs of life a transaction has.
const (
	signPace = 20 * time.Millisecond
	maxSigns = 1000
)

func newSigns() *line[*sign] { return newLine[*sign](maxSigns, signPace) }

// note notes signs of life. If they can't be noted together, one of them may be the reason:
// then each is noted alone.
func (l *core) note(signs []*sign) {
	ended := false
	defer func() {
		for _, s := range signs {
			if !ended { // this goroutine ends within the transaction
				s.err = fleetscore.Errorf(fleetscore.Internal, "", "", "the transaction was given up")
			}
			close(s.done)
		}
	}()
	err := l.renew(signs)
	for _, s := range signs {
		switch {
		case err == nil:
		case len(signs) == 1, fleetscore.Unavailable.Is(err):
			s.err = err
		default:
			if alone := l.renew([]*sign{s}); alone != nil {
				s.err = alone
			}
		}
	}
	ended = true
}

// The names of the nodes and leases are a list in JSON.
const (
	lockLeases  = `SELECT lease, node FROM attempts WHERE lease IN (SELECT w.value FROM json_each(?) AS w) AND state = 'leased' ORDER BY lease FOR UPDATE`
	renewLeases = `UPDATE attempts SET expires = ? WHERE lease IN (SELECT w.value FROM json_each(?) AS w) AND state = 'leased'`
	lockNodes   = selectNodes + ` WHERE id IN (SELECT w.value FROM json_each(?) AS w) ORDER BY id FOR UPDATE`
	noteLoad    = `UPDATE nodes SET load = ? WHERE id = ?`
	renewNodes  = `UPDATE nodes SET heartbeat = ? WHERE id IN (SELECT w.value FROM json_each(?) AS w)`
)

// renew notes signs of life by one transaction. All count with the time of the latest.
func (l *core) renew(signs []*sign) error {
	leases, claims := map[fleetscore.LeaseID]bool{}, map[claim]bool{} // as the nodes say
	nodes := map[fleetscore.NodeID]bool{}
	var now, expires time.Time
	for _, s := range signs {
		nodes[s.node] = true
		for _, id := range s.leases {
			leases[id], claims[claim{id, s.node}] = true, true
		}
		if s.now.After(now) {
			now = s.now
		}
		if at := s.now.Add(s.ttl); at.After(expires) {
			expires = at
		}
	}
	return l.update(context.Background(), "renew leases", "", func(t *tx) error {
		held := map[fleetscore.LeaseID]fleetscore.NodeID{}
		if len(leases) > 0 {
			rows, err := list(t, scanClaim, lockLeases, namesOf(l, leases))
			if err != nil {
				return err
			}
			for _, r := range rows {
				if claims[r] {
					held[r.lease] = r.node
				}
			}
			if err := t.exec(renewLeases, micros(expires), namesOf(l, held)); err != nil {
				return err
			}
		}
		rows, err := list(t, scanNode, lockNodes, namesOf(l, nodes))
		if err != nil {
			return err
		}
		found := map[fleetscore.NodeID]fleetscore.Node{}
		for _, n := range rows {
			n.Heartbeat = now.UTC()
			found[n.ID] = n
		}
		for _, s := range signs {
			s.found, s.err = found[s.node], nil
			if s.found.ID == "" {
				s.err = sql.ErrNoRows
			} else if s.load != nil {
				s.found.Load = s.load
				if err := t.exec(noteLoad, s.measured, string(s.node)); err != nil {
					return err
				}
			}
			s.revoked = slices.DeleteFunc(slices.Clone(s.leases), func(id fleetscore.LeaseID) bool { return held[id] == s.node })
		}
		return t.exec(renewNodes, micros(now), namesOf(l, found))
	})
}

// claim is a lease and who holds it.
type claim struct {
	lease fleetscore.LeaseID
	node  fleetscore.NodeID
}

func scanClaim(scan func(...any) error) (c claim, err error) {
	err = scan(&c.lease, &c.node)
	return c, err
}

// namesOf is a list of the names in a map for json_each.
func namesOf[K ~string, V any](l *core, of map[K]V) string {
	return names(l, slices.Collect(maps.Keys(of)))
}

// names is a list of names for json_each.
func names[K ~string](l *core, of []K) string {
	out := make([]any, 0, len(of))
	for _, name := range of {
		out = append(out, l.dialect.value(string(name)))
	}
	doc, _ := json.Marshal(out) // of texts, which can always be written
	return string(doc)
}

// ForgetNodes implements NodeChanges.
func (l *core) ForgetNodes(ctx context.Context, before time.Time) error {
	return l.update(ctx, "forget nodes", "", func(t *tx) error {
		return t.exec(`DELETE FROM nodes WHERE `+ended+` AND heartbeat < ?`, micros(before))
	})
}
