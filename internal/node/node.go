// Package node is the agent that does a pool's work: it leases tasks from the
// server, scores their sensors, writes the results into the store and reports
// them.
//
// It talks to the server by HTTP alone, survives its restarts, and keeps finished
// results until they are delivered. Nothing it writes is seen by readers before
// the server commits it, so it may be killed at any moment.
//
// Run owns all goroutines of a Node.
package node

import (
	"context"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/mount"
	"github.com/fleetscore/fleetscore/internal/sandbox"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/alone"
	"github.com/fleetscore/fleetscore/internal/scorer/code"
	"github.com/fleetscore/fleetscore/internal/store"
)

// AwayLimit is how long a node waits for a server that doesn't answer.
const AwayLimit = 2 * time.Minute

// Config says who the node is.
type Config struct {
	Hello     dispatch.Hello
	AwayLimit time.Duration // the node ends when the server was away for longer; 0 means the constant AwayLimit
	Heartbeat time.Duration // between two signs of life; 0 means 3 s
	DrainTime time.Duration // how long running tasks may go on once ctx ends; 0 gives them back at once
	Workers   int           // processors that a task may use; 0 means all of this machine divided by the slots
	Commands  []string      // folders whose programs may prepare this node; empty means that none may
	Mounts    []string      // folders that mounts may lie in; empty means that there may be none
	// WorkDir is a folder of this node alone, for code of its tasks and files of its programs;
	// empty means that they lie in the system's folder for temporary files.
	WorkDir string
	// MountEvery is the time between two looks at the pool's mounts; 0 means 10 s. Two in a
	// row that find one unusable end the node.
	MountEvery time.Duration
}

// Deps is what a node works with.
type Deps struct {
	Server    dispatch.Protocol
	OpenStore func(ctx context.Context, url string) (store.Bucket, error)
	Runtime   scorer.Runtime // how models are scored; nil means scorer.Native
	Python    string         // the interpreter that models may be scored with; empty means that this node runs no Python
	// Environments is a folder whose virtual environments pipelines may use, and where those lie
	// that are made of requirements; empty means that there are none.
	Environments string
	Isolate      *sandbox.Lazy // how Python is isolated; nil means not at all
	// Alone makes a runtime that scores models of a task alone, in processes of their
	// own. nil means that they are scored by Runtime.
	Alone func(alone.Limits) scorer.Runtime
	// Stuck is called when a task goes on although its lease was taken back a while ago, as
	// with a model that never ends. It should end the process, whose slot is lost otherwise.
	Stuck func(fleetscore.TaskID)
	Log   *slog.Logger // nil discards
	// Output is what the node's log writes to, to be sent to the server; nil sends nothing.
	Output *Output
	Now    func() time.Time // the time that silence and work are measured by; nil means time.Now
	// Measure measures the machine, such as Meter.Measure; nil means that nothing is
	// measured.
	Measure func(now time.Time) fleetscore.NodeLoad
}

// Node is one agent.
type Node struct {
	cfg    Config
	server dispatch.Protocol
	open   func(ctx context.Context, url string) (store.Bucket, error)
	models scorer.Runtime
	alone  func(alone.Limits) scorer.Runtime
	python pythons
	codes  code.Cache
	log    *slog.Logger
	now    func() time.Time
	stuck  func(fleetscore.TaskID)
	load   func(now time.Time) fleetscore.NodeLoad // nil if nothing is measured
	output *Output
	rests  atomic.Int64            // counted, for waits that differ from node to node
	setup  *fleetscore.SetupConfig // to be run before tasks are asked for; nil if there is nothing to run
	mounts mounts

	mu        sync.Mutex // guards what follows; heartbeats need it, so it isn't held over I/O
	leases    map[fleetscore.LeaseID]*work
	stop      bool               // the server said to take no more
	seen      time.Time          // the server's last answer
	unprepare context.CancelFunc // ends the setup command; nil if there was none

	opening  sync.Mutex                  // guards catalogs, also while a store is opened
	catalogs map[string]*catalog.Catalog // by the store's URL; their tables remember what they read
}

// New builds a node.
func New(cfg Config, deps Deps) (*Node, error) {
	if cfg.Hello.Node == "" || cfg.Hello.Pool == "" || cfg.Hello.Slots < 1 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "start node", string(cfg.Hello.Node), "it needs an id, a pool and at least one slot")
	}
	if cfg.AwayLimit == 0 {
		cfg.AwayLimit = AwayLimit
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 3 * time.Second
	}
	if cfg.MountEvery == 0 {
		cfg.MountEvery = 10 * time.Second
	}
	if cfg.Workers == 0 {
		cfg.Workers = max(1, runtime.GOMAXPROCS(0)/cfg.Hello.Slots)
	}
	if deps.Environments != "" {
		var err error
		if deps.Environments, err = filepath.Abs(deps.Environments); err != nil {
			return nil, fleetscore.Wrap("start node", deps.Environments, err)
		}
	}
	n := &Node{cfg: cfg, server: deps.Server, open: deps.OpenStore, models: deps.Runtime, alone: deps.Alone, python: pythons{base: cfg.WorkDir, interpreter: deps.Python, environments: deps.Environments, isolate: deps.Isolate}, log: deps.Log, now: deps.Now, load: deps.Measure, output: deps.Output, leases: map[fleetscore.LeaseID]*work{}, stuck: deps.Stuck, mounts: mounts{check: mount.Checker{Roots: cfg.Mounts}},
		catalogs: map[string]*catalog.Catalog{}}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if n.now == nil {
		n.now = time.Now
	}
	n.python.now = n.now
	n.codes.Dir, n.codes.Leave = cfg.WorkDir, func(folder string) { n.python.leave(folder, n.log) }
	n.codes.Stays = func(folder string, err error) {
		n.log.Warn("code that no task needs any more can't be removed; this is tried again with the next code, and when the node starts or ends", "folder", folder, "error", err)
	}
	return n, nil
}

// Bounds of single requests to the server.
const (
	requestTimeout = 15 * time.Second
	pollWait       = 20 * time.Second
)

// Run works until the server says to stop or is away for too long, or ctx ends. If the
// server says so, the node finishes the tasks that it has begun. If ctx ends, it takes
// no more tasks, and gives those back that aren't finished within DrainTime.
func (n *Node) Run(ctx context.Context) error {
	defer func() {
		n.python.close(n.log)
		if err := n.codes.Close(); err != nil {
			n.log.Warn("code of tasks can't be removed", "error", err)
		}
	}()
	n.reached()
	if err := n.register(ctx); err != nil {
		return err
	}
	ctx, broken := context.WithCancelCause(ctx)
	defer broken(nil)
	life, cancel := context.WithCancel(context.WithoutCancel(ctx)) // of the tasks and heartbeats
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	away := make(chan error, 1)
	group.Go(func() { away <- n.heartbeats(life, ctx.Done()) })

	var tasks sync.WaitGroup
	free := make(chan struct{}, n.cfg.Hello.Slots)
	err := n.prepare(ctx)
	if err == nil {
		group.Go(func() {
			if err := n.watchMounts(life); err != nil { // tasks may wait for the mount for ever
				broken(err)
				cancel()
			}
		})
		err = n.work(ctx, life, free, &tasks)
	}
	switch {
	case err == nil: // the server said to stop: what was begun is finished, unless ctx ends
		drained := context.AfterFunc(ctx, func() { n.endAfter(life, cancel) })
		tasks.Wait()
		drained()
	case ctx.Err() != nil:
		group.Go(func() { n.endAfter(life, cancel) })
		tasks.Wait()
	}
	cancel()
	tasks.Wait()
	if e := <-away; err == nil {
		err = e
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	bye, end := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer end()
	n.log.Info("ended")
	if last := n.output.next(); last != nil { // an error costs these lines alone
		_, _ = n.server.Heartbeat(bye, n.cfg.Hello.Node, dispatch.HeartbeatRequest{Ending: true, Log: last})
	}
	if e := n.server.Goodbye(bye, n.cfg.Hello.Node); e != nil {
		n.log.Warn("the server doesn't know that this node ends; it will notice", "error", e)
	}
	return err
}

// endAfter ends the tasks that still run after DrainTime.
func (n *Node) endAfter(life context.Context, cancel context.CancelFunc) {
	if held := len(n.held()); held > 0 && n.cfg.DrainTime > 0 {
		n.log.Info("the node ends; it finishes its tasks", "tasks", held, "limit", n.cfg.DrainTime)
		limit := time.NewTimer(n.cfg.DrainTime)
		defer limit.Stop()
		select {
		case <-limit.C:
			n.log.Warn("tasks are given back unfinished", "tasks", len(n.held()))
		case <-life.Done():
		}
	}
	cancel()
}

// work leases tasks while slots are free, until ctx ends. It returns nil once told to
// stop. Tasks run as long as life does.
func (n *Node) work(ctx, life context.Context, busy chan struct{}, tasks *sync.WaitGroup) error {
	pause := time.Duration(0)
	for {
		if err := n.rest(ctx, pause); err != nil {
			return err
		}
		select { // until a slot is free
		case <-ctx.Done():
			return ctx.Err()
		case busy <- struct{}{}:
			<-busy
		}
		if n.stopping() {
			return nil
		}
		free := cap(busy) - len(busy)
		call, cancel := context.WithTimeout(ctx, pollWait+requestTimeout)
		reply, err := n.server.Lease(call, n.cfg.Hello.Node, dispatch.LeaseRequest{Free: free, Wait: fleetscore.Duration(pollWait)})
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case fleetscore.NotFound.Is(err): // the server forgot or gave this node up
			if err := n.register(ctx); err != nil {
				return err
			}
			pause = min(max(2*pause, 100*time.Millisecond), 5*time.Second)
			continue
		case err != nil:
			if err := n.unreached(err); err != nil {
				return err
			}
			pause = min(max(2*pause, 100*time.Millisecond), 5*time.Second)
			continue
		}
		pause = 0
		n.reached()
		if reply.Stop {
			return nil
		}
		for _, l := range reply.Leases {
			busy <- struct{}{}
			taskCtx, cancel := context.WithCancelCause(life)
			n.hold(l, cancel)
			tasks.Go(func() {
				defer func() { <-busy }()
				defer n.release(l.ID)
				defer cancel(nil)
				n.do(taskCtx, l)
			})
		}
	}
}

func (n *Node) rest(ctx context.Context, pause time.Duration) error {
	if pause == 0 {
		return ctx.Err()
	}
	spread := clock.Spread(string(n.cfg.Hello.Node), int(n.rests.Add(1)))
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause/2 + time.Duration(spread*float64(pause))):
		return nil
	}
}

// register reports to the server until it answers.
func (n *Node) register(ctx context.Context) error {
	pause := 100 * time.Millisecond
	for {
		call, cancel := context.WithTimeout(ctx, requestTimeout)
		welcome, err := n.server.Register(call, n.cfg.Hello)
		cancel()
		if err == nil {
			n.setup = welcome.Setup
			n.mounts.need(welcome.Mounts)
			n.reached()
			n.log.Info("registered", "pool", n.cfg.Hello.Pool, "slots", n.cfg.Hello.Slots)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if kind := fleetscore.KindOf(err); !kind.Retryable() && kind != fleetscore.Internal {
			return err
		}
		if err := n.unreached(err); err != nil {
			return err
		}
		if err := n.rest(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, 5*time.Second)
	}
}

func (n *Node) reached() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen = n.now()
}

// unreached returns an error once the server was away for too long.
func (n *Node) unreached(err error) error {
	n.mu.Lock()
	away := n.now().Sub(n.seen)
	n.mu.Unlock()
	n.log.Warn("the server doesn't answer", "for", away.Round(time.Second), "error", err)
	if away < n.cfg.AwayLimit {
		return nil
	}
	return fleetscore.Errorf(fleetscore.Unavailable, "reach server", "", "it was away for %s: %w", away.Round(time.Second), err)
}

func (n *Node) stopping() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stop
}

// work is a task that this node does.
type work struct {
	task    fleetscore.TaskID
	cancel  context.CancelCauseFunc
	revoked time.Time // when its lease was found to be taken back; zero if it wasn't
}

func (n *Node) hold(l dispatch.Lease, cancel context.CancelCauseFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leases[l.ID] = &work{task: l.Task, cancel: cancel}
}

func (n *Node) release(id fleetscore.LeaseID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.leases, id)
}

func (n *Node) held() []fleetscore.LeaseID {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]fleetscore.LeaseID, 0, len(n.leases))
	for id := range n.leases {
		out = append(out, id)
	}
	return out
}

// stuckAfter is how long a task may go on after its lease was taken back: a model that is
// being read or scored isn't interrupted.
const stuckAfter = 15 * time.Second

// errRevoked ends a task whose lease no longer belongs to this node.
var errRevoked = fleetscore.Errorf(fleetscore.Conflict, "do task", "", "its lease was taken back")

// measureEvery is how often the machine is measured. It is less often than heartbeats are
// sent, and often enough for formulas, which see a sample every 30 s.
const measureEvery = 10 * time.Second

// heartbeats renews node and leases until ctx ends. Once ending is closed, they say that
// the node takes no more tasks, and the first heartbeat that says so is sent at once.
func (n *Node) heartbeats(ctx context.Context, ending <-chan struct{}) error {
	ticker := time.NewTicker(n.cfg.Heartbeat)
	defer ticker.Stop()
	ends := false
	var measured time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ending:
			ending, ends = nil, true
			if n.cfg.DrainTime == 0 {
				continue
			}
		case <-ticker.C:
		}
		say := dispatch.HeartbeatRequest{Leases: n.held(), Ending: ends}
		if now := n.now(); n.load != nil && now.Sub(measured) >= measureEvery {
			load := n.load(now)
			measured, say.Load = now, &load
		}
		say.Log, say.Measured = n.output.next(), n.mounts.measured()
		call, cancel := context.WithTimeout(ctx, requestTimeout)
		reply, err := n.server.Heartbeat(call, n.cfg.Hello.Node, say)
		cancel()
		if err != nil {
			if ctx.Err() == nil && !fleetscore.NotFound.Is(err) { // the next request for tasks registers again
				n.log.Warn("heartbeat didn't arrive", "error", err)
			}
			continue
		}
		n.output.sent(say.Log)
		n.mounts.sent(say.Measured)
		n.mounts.measure(ctx, reply.Measure)
		n.reached()
		n.mu.Lock()
		n.stop = n.stop || reply.Stop
		if n.stop && n.unprepare != nil {
			n.unprepare()
		}
		for _, id := range reply.Revoked {
			if w := n.leases[id]; w != nil && w.revoked.IsZero() {
				w.revoked = n.now()
				w.cancel(errRevoked)
			}
		}
		var stuck []fleetscore.TaskID
		for _, w := range n.leases {
			if !w.revoked.IsZero() && n.now().Sub(w.revoked) > stuckAfter {
				stuck = append(stuck, w.task)
			}
		}
		n.mu.Unlock()
		for _, task := range stuck {
			n.log.Error("a task goes on although its lease was taken back", "task", task)
			if n.stuck != nil {
				n.stuck(task)
			}
		}
	}
}
