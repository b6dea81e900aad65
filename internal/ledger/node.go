package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"sync"
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
	// of life that come closely together may all count with the time of the latest. They
	// may reach the disk a second later, and other processes then see them.
	Renew(ctx context.Context, id fleetscore.NodeID, leases []fleetscore.LeaseID, load *fleetscore.NodeLoad, now time.Time, ttl time.Duration) (n fleetscore.Node, revoked []fleetscore.LeaseID, err error)
	// LoseNodes makes those of the nodes lost that should give signs of life and gave the
	// last before a time. Those of low priority that took tasks were preempted, which is
	// their reason. It returns the nodes that are lost now.
	LoseNodes(ctx context.Context, ids []fleetscore.NodeID, before time.Time) ([]fleetscore.Node, error)
	// ForgetNodes removes nodes that have ended and gave no sign of life since
	// a time.
	ForgetNodes(ctx context.Context, before time.Time) error
}

const selectNodes = `SELECT id, pool, state, slots, host, pid, version, started, heartbeat, idle_since, registered, usable, kind, reason, log_tail, load, image,
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
	err := scan(&n.ID, &n.Pool, &n.State, &n.Slots, &n.Host, &n.PID, &n.Version, &started, &heartbeat, &idle, &registered, &usable, &n.Kind, &n.Reason, &n.LogTail, &load, &n.Image, &n.Running)
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
	return t.exec(`INSERT INTO nodes (id, pool, state, slots, host, pid, version, started, heartbeat, idle_since, registered, usable, kind, reason, log_tail, load, image) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET pool = excluded.pool, state = excluded.state, slots = excluded.slots, host = excluded.host, pid = excluded.pid,
		version = excluded.version, started = excluded.started, heartbeat = excluded.heartbeat, idle_since = excluded.idle_since, registered = excluded.registered, usable = excluded.usable,
		kind = excluded.kind, reason = excluded.reason, log_tail = excluded.log_tail, load = excluded.load, image = excluded.image`,
		string(n.ID), n.Pool, storedState(n.State), n.Slots, n.Host, n.PID, n.Version, micros(n.Started), micros(n.Heartbeat), micros(n.IdleSince), micros(n.Registered), micros(n.Ready),
		string(n.Kind), n.Reason, n.LogTail, load, n.Image)
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
		l.signs.latest(&n)
		if err := change(&n); err != nil {
			return err
		}
		n.Kind = cmp.Or(n.Kind, fleetscore.Dedicated)
		return t.putNode(n)
	})
	return n, err
}

// Node implements Nodes.
func (l *core) Node(ctx context.Context, id fleetscore.NodeID) (n fleetscore.Node, err error) {
	l.signs.reading(func() {
		n, err = scanNode(l.row(ctx, selectNode, string(id)).Scan)
		l.signs.latest(&n)
	})
	return n, l.problem("find node", string(id), err)
}

// Nodes implements Nodes.
func (l *core) Nodes(ctx context.Context, pool string) ([]fleetscore.Node, error) {
	if pool == "" {
		return l.nodes(ctx, selectAllNodes)
	}
	return l.nodes(ctx, selectPoolNodes, pool)
}

// nodes are the nodes that a query finds, with their latest signs of life.
func (l *core) nodes(ctx context.Context, statement string, args ...any) (out []fleetscore.Node, err error) {
	l.signs.reading(func() {
		out, err = query(ctx, l, "list nodes", "", scanNode, statement, args...)
		for i := range out {
			l.signs.latest(&out[i])
		}
	})
	return out, err
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
	if err := l.signs.write(); err != nil {
		return nil, err
	}
	return query(ctx, l, "list nodes", "", scanNode, selectNeglected, micros(silent), micros(old))
}

// Strays implements Nodes.
func (l *core) Strays(ctx context.Context, pools []string) ([]fleetscore.Node, error) {
	return l.nodes(ctx, selectStrays, names(l, pools))
}

// goneWithoutAWord is why a node of low priority is lost.
const goneWithoutAWord = fleetscore.PreemptedReason + ": it was gone without a word"

// LoseNodes implements NodeChanges.
func (l *core) LoseNodes(ctx context.Context, ids []fleetscore.NodeID, before time.Time) (lost []fleetscore.Node, err error) {
	if err := l.signs.write(); err != nil {
		return nil, err
	}
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

// Renew implements NodeChanges. Nobody waits for the disk: what signs of life say is kept in
// memory and written once a second, so that thousands of nodes don't keep the database busy,
// and a slow disk doesn't make them wait. Until then everything that this process reads or
// decides about nodes and their leases takes it into account. A process that is killed loses
// the signs of life of the last second, which costs nothing, because nodes send others.
//
// If writing failed the last time, signs of life are written at once, and who gives them hears
// of the failure.
func (l *core) Renew(ctx context.Context, id fleetscore.NodeID, leases []fleetscore.LeaseID, load *fleetscore.NodeLoad, now time.Time, ttl time.Duration) (n fleetscore.Node, revoked []fleetscore.LeaseID, err error) {
	measured, err := loadText(load)
	if err != nil {
		return n, nil, fleetscore.Wrap("renew leases", string(id), err)
	}
	s := &sign{node: id, leases: leases, load: load, measured: measured, now: now, expires: now.Add(ttl), done: make(chan struct{})}
	if err = l.signs.line.do(ctx, s, l.note); err == nil {
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
	expires  time.Time // of the leases

	done    chan struct{} // closed when the fields below are set
	found   fleetscore.Node
	held    []fleetscore.LeaseID
	revoked []fleetscore.LeaseID
	err     error
}

func (s *sign) ended() <-chan struct{} { return s.done }

// Signs of life that come closely together are answered by one query: after a query for
// several the next one begins signPace later. maxSigns bounds how many are answered at once.
// What they say is written once in writePace.
const (
	signPace  = 20 * time.Millisecond
	maxSigns  = 1000
	writePace = time.Second
)

// signs are the signs of life of nodes. All views of one opening share them.
type signs struct {
	line    *line[*sign]
	of      *core      // writes them
	writing sync.Mutex // held while they are written

	mu      sync.Mutex // guards what follows
	pending map[fleetscore.NodeID]*sign
	written map[fleetscore.NodeID]*sign // those that are being written now
	timer   *time.Timer                 // writes them; nil if none came since the last time
	failed  bool                        // the last time they couldn't be written
	writes  int                         // how often they were written
	closed  bool
}

func newSigns(of *core) *signs {
	return &signs{line: newLine[*sign](maxSigns, signPace), of: of, pending: map[fleetscore.NodeID]*sign{}}
}

// note answers signs of life and keeps what they say. If they can't be answered together, one
// of them may be the reason: then each is answered alone.
func (l *core) note(some []*sign) {
	ended := false
	defer func() {
		for _, s := range some {
			if !ended { // this goroutine ends within the query
				s.err = fleetscore.Errorf(fleetscore.Internal, "", "", "the query was given up")
			}
			close(s.done)
		}
	}()
	err := l.answer(some)
	for _, s := range some {
		switch {
		case err == nil:
		case len(some) == 1, fleetscore.Unavailable.Is(err):
			s.err = err
		default:
			if alone := l.answer([]*sign{s}); alone != nil {
				s.err = alone
			}
		}
	}
	if l.signs.keep(some) {
		if err := l.signs.write(); err != nil {
			for _, s := range some {
				s.err = cmp.Or(s.err, err)
			}
		}
	}
	ended = true
}

// The names of the nodes and leases are a list in JSON.
const (
	findLeases  = `SELECT lease, node FROM attempts WHERE lease IN (SELECT w.value FROM json_each(?) AS w) AND state = 'leased' ORDER BY lease`
	lockLeases  = findLeases + ` FOR UPDATE`
	renewLeases = `UPDATE attempts SET expires = ? WHERE lease IN (SELECT w.value FROM json_each(?) AS w) AND state = 'leased'`
	findNodes   = selectNodes + ` WHERE id IN (SELECT w.value FROM json_each(?) AS w)`
	lockNodes   = `SELECT id FROM nodes WHERE id IN (SELECT w.value FROM json_each(?) AS w) ORDER BY id FOR UPDATE`
	noteLoad    = `UPDATE nodes SET load = ? WHERE id = ?`
	renewNodes  = `UPDATE nodes SET heartbeat = ? WHERE id IN (SELECT w.value FROM json_each(?) AS w) AND heartbeat < ?`
)

// answer sets what the nodes that gave signs of life learn.
func (l *core) answer(some []*sign) error {
	nodes, leases := map[fleetscore.NodeID]bool{}, map[fleetscore.LeaseID]bool{} // as the nodes say
	for _, s := range some {
		nodes[s.node] = true
		for _, id := range s.leases {
			leases[id] = true
		}
	}
	from := l.reader(context.Background()) // an end of one caller's context must not end the others' work
	held := map[claim]bool{}
	if len(leases) > 0 {
		rows, err := list(from, scanClaim, findLeases, namesOf(l, leases))
		if err != nil {
			return l.problem("renew leases", "", err)
		}
		for _, c := range rows {
			held[c] = true
		}
	}
	found := map[fleetscore.NodeID]fleetscore.Node{}
	var rows []fleetscore.Node
	var err error
	l.signs.reading(func() {
		rows, err = list(from, scanNode, findNodes, namesOf(l, nodes))
		for _, n := range rows {
			l.signs.latest(&n)
			found[n.ID] = n
		}
	})
	if err != nil {
		return l.problem("renew leases", "", err)
	}
	for _, s := range some {
		s.held, s.revoked = nil, nil
		for _, id := range s.leases {
			if held[claim{id, s.node}] {
				s.held = append(s.held, id)
			} else {
				s.revoked = append(s.revoked, id)
			}
		}
		n, ok := found[s.node]
		if s.err = nil; !ok {
			s.err = sql.ErrNoRows
			continue
		}
		s.found = n
		s.see(&s.found)
	}
	return nil
}

// see puts into a node what its sign of life says.
func (s *sign) see(n *fleetscore.Node) {
	if s.now.After(n.Heartbeat) {
		n.Heartbeat = s.now.UTC()
	}
	if s.load != nil {
		n.Load = s.load
	}
}

// keep keeps signs of life to be written. It reports true if they have to be written at
// once; otherwise they will be.
func (g *signs) keep(some []*sign) (atOnce bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range some {
		if s.err == nil {
			g.add(s)
		}
	}
	if g.timer == nil {
		g.writeAfter(0)
	}
	return g.failed
}

func (g *signs) writeAfter(wait time.Duration) {
	if len(g.pending) > 0 && !g.closed {
		g.timer = time.AfterFunc(wait, func() { _ = g.write() }) // if it fails, the next sign of life is told
	}
}

// close writes what was kept, and writes nothing any more.
func (g *signs) close() {
	_ = g.write() // signs of life that are lost cost nothing
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed = true; g.timer != nil {
		g.timer.Stop()
	}
}

// add adds what a sign of life says to what the same node said before.
func (g *signs) add(s *sign) {
	if have := g.pending[s.node]; have != nil && s.load == nil {
		s.load, s.measured = have.load, have.measured
	}
	g.pending[s.node] = s
}

// latest puts into a node what its sign of life says that isn't written yet.
func (g *signs) latest(n *fleetscore.Node) {
	if g == nil {
		return // of a copy
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, some := range []map[fleetscore.NodeID]*sign{g.written, g.pending} {
		if s := some[n.ID]; s != nil {
			s.see(n)
		}
	}
}

// write writes the signs of life that were kept. It returns when all that were kept before
// the call are on disk.
func (g *signs) write() error {
	g.writing.Lock()
	defer g.writing.Unlock()
	g.mu.Lock()
	some := g.pending
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
	g.writeAfter(writePace)
	g.pending, g.written = map[fleetscore.NodeID]*sign{}, some
	g.mu.Unlock()
	if len(some) == 0 {
		return nil
	}
	err := g.of.renew(some)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failed, g.written, g.writes = err != nil, nil, g.writes+1
	if err != nil {
		for id, s := range some {
			if newer := g.pending[id]; newer != nil {
				g.pending[id] = s
				s = newer
			}
			g.add(s)
		}
	}
	return err
}

// renew writes signs of life by one transaction. Those of the same second count with the
// time of the latest of them.
func (l *core) renew(some map[fleetscore.NodeID]*sign) error {
	type moment struct {
		now, expires time.Time
		nodes        map[fleetscore.NodeID]bool
		leases       map[fleetscore.LeaseID]bool
	}
	leases := map[fleetscore.LeaseID]bool{}
	moments := map[int64]*moment{}
	for _, s := range some {
		m := moments[s.now.Unix()]
		if m == nil {
			m = &moment{nodes: map[fleetscore.NodeID]bool{}, leases: map[fleetscore.LeaseID]bool{}}
			moments[s.now.Unix()] = m
		}
		m.nodes[s.node] = true
		if s.now.After(m.now) {
			m.now = s.now
		}
		if s.expires.After(m.expires) {
			m.expires = s.expires
		}
		for _, id := range s.held {
			leases[id] = true
		}
	}
	return l.update(context.Background(), "renew leases", "", func(t *tx) error {
		if len(leases) > 0 {
			rows, err := list(t, scanClaim, lockLeases, namesOf(l, leases))
			if err != nil {
				return err
			}
			for _, c := range rows {
				if s := some[c.node]; s != nil && slices.Contains(s.held, c.lease) {
					moments[s.now.Unix()].leases[c.lease] = true
				}
			}
		}
		for _, m := range moments {
			if len(m.leases) == 0 {
				continue
			}
			if err := t.exec(renewLeases, micros(m.expires), namesOf(l, m.leases)); err != nil {
				return err
			}
		}
		if _, err := list(t, scanText[fleetscore.NodeID], lockNodes, namesOf(l, some)); err != nil {
			return err
		}
		for _, m := range moments {
			if err := t.exec(renewNodes, micros(m.now), namesOf(l, m.nodes), micros(m.now)); err != nil {
				return err
			}
		}
		for id, s := range some {
			if s.load == nil {
				continue
			}
			if err := t.exec(noteLoad, s.measured, string(id)); err != nil {
				return err
			}
		}
		return nil
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

// ForgetNodes implements NodeChanges.
func (l *core) ForgetNodes(ctx context.Context, before time.Time) error {
	return l.update(ctx, "forget nodes", "", func(t *tx) error {
		return t.exec(`DELETE FROM nodes WHERE `+ended+` AND heartbeat < ?`, micros(before))
	})
}
