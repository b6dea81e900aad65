package simtest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/autoscale"
	"github.com/fleetscore/fleetscore/internal/broker"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/fleet/syncer"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/logs"
	"github.com/fleetscore/fleetscore/internal/node"
	"github.com/fleetscore/fleetscore/internal/pool/pooltest"
	"github.com/fleetscore/fleetscore/internal/scheduler"
	"github.com/fleetscore/fleetscore/internal/scorer"
	"github.com/fleetscore/fleetscore/internal/scorer/alone"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// The names of what is there once.
const (
	dataset  = "readings"
	sensors  = "sensors"
	poolName = "cpu"

	mostNodes = 2 // of the pool
)

// world is one run: everything there is, and what is known about it.
type world struct {
	messages atomic.Int64 // of nodes, that a server has begun to serve

	t         *testing.T
	rnd       *rand.Rand // draws of the run's own script, apart from the conductor's
	conductor *conductor
	weather   weather
	log       *slog.Logger

	dir        string
	store      *bucket
	ledger     ledger.Ledger
	nodes      *pooltest.Goroutines
	background sync.WaitGroup        // messages that come again
	viaServer  bool                  // nodes ask the server for blobs
	low        int                   // nodes of low priority that the pool may have besides
	formula    string                // that decides how many nodes there are; empty if the work alone does
	deadly     fleetscore.Key        // whose model ends the process of the node; empty if there is none
	query      querying              // of the stream path
	several    bool                  // two servers share the ledger, and one of them leads
	pieces     *pieces               // of the logs of attempts, if several servers take them
	hub        hub.Hub               // the log of readings, if several servers share it; nil if each opens it
	off        atomic.Int64          // by how many nanoseconds the machine's clock is wrong
	named      []fleetscore.Interval // by hand so far
	retention  bool                  // old rows are removed
	never      atomic.Bool           // no clock was wrong so far
	resend     atomic.Bool           // the feeder uploads once more what it uploaded before

	devices      []fleetscore.Key // those with readings
	models       map[string][]byte
	deadlyRecord []byte
	pipelines    []string
	schedules    map[string]fleetscore.ScheduleConfig // by pipeline
	limits       fleetscore.LimitsConfig
	priority     map[string]fleetscore.Priority // by pipeline
	began        time.Time
	mutant       mutant   // the fault that is built in; mostly none
	network      *process // it carries messages when whoever sent them is gone
	record       *record
	calmed       chan struct{} // closed when nothing goes wrong any more

	mu        sync.Mutex // guards what follows
	live      []*server  // those that run, in the order of their start
	servers   int
	lease     lease                      // of the server that leads; unused if there is one server at a time
	machines  map[string]bool            // those that exist; nil if nodes need none
	separated map[fleetscore.NodeID]bool // nodes that reach no server
	trap      *trap                      // nil if none is set
	held      fleetscore.JobID           // its results can't be read, so that it isn't committed; empty if there is none
	// lastMinute is the last one of which readings are uploaded; zero while there is no
	// end.
	lastMinute time.Time
}

// server is one life of a server.
type server struct {
	process   *process
	name      string // among the servers that share the work; it is used again when one has ended
	scheduler *scheduler.Scheduler
	broker    *broker.Broker
	logs      *logs.Logs
	stream    *stream // nil if the run has no stream path
	stop      context.CancelFunc
	done      chan struct{}
}

// newWorld draws what there is. Its clock must stand where the run is to begin.
func newWorld(t *testing.T, seed uint64, m mutant, dir string, trace func(string)) (*world, error) {
	w := &world{t: t, dir: dir, rnd: rand.New(rand.NewPCG(seed, 1)), store: newBucket(), began: time.Now().UTC(),
		mutant: m, network: newProcess("network"), calmed: make(chan struct{}), separated: map[fleetscore.NodeID]bool{}, models: map[string][]byte{},
		schedules: map[string]fleetscore.ScheduleConfig{}, priority: map[string]fleetscore.Priority{},
		log: slog.New(slog.DiscardHandler)}
	if trace != nil {
		w.log = slog.New(slog.NewTextHandler(lineWriter(trace), &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
	}
	w.record = newRecord(w.store)
	w.never.Store(true)
	w.conductor = newConductor(rand.New(rand.NewPCG(seed, 2)), w.odds, trace)
	w.nodes = pooltest.NewGoroutines(w.agent)
	l, err := ledger.Open(context.Background(), filepath.Join(dir, "ledger.db"))
	if err != nil {
		return nil, err
	}
	w.ledger = l
	for name, file := range map[string]string{"good": "one", "wild": "apart", "odd": "array"} {
		if w.models[name], err = os.ReadFile(filepath.Join(testkit.Root(t), "sklearn/testdata/1.9.1", file+".p5.pickle")); err != nil {
			return nil, err
		}
	}
	if err := w.readDeadly(filepath.Join(testkit.Root(t), "sklearn/testdata/1.9.1/single.p5.pickle")); err != nil {
		return nil, err
	}
	n := 2 + w.rnd.IntN(5)
	if w.rnd.IntN(10) == 0 {
		n = 80 + w.rnd.IntN(50) // more than one task holds
	}
	for i := range n {
		w.devices = append(w.devices, fleetscore.Key(fmt.Sprintf("d%03d", i)))
	}
	if n > 2 && w.rnd.IntN(5) == 0 {
		w.deadly = w.devices[w.rnd.IntN(n-2)]
	}
	w.viaServer = w.rnd.IntN(3) == 0
	w.several = w.rnd.IntN(3) == 0 || m == forgetsToken // only where there are two can one lead no more
	if w.rnd.IntN(3) == 0 {
		w.formula = formulas[w.rnd.IntN(len(formulas))]
	}
	w.retention = w.rnd.IntN(3) == 0
	if w.pipelines = []string{"p", "q"}[:1+w.rnd.IntN(2)]; w.several {
		w.pieces = newPieces()
	}
	for _, name := range w.pipelines {
		w.schedules[name] = drawSchedule(w.rnd, name)
		w.priority[name] = []fleetscore.Priority{"", "", fleetscore.PriorityHigh, fleetscore.PriorityLow}[w.rnd.IntN(4)]
	}
	w.limits = drawLimits(w.rnd)
	if w.query = drawQuery(seed); m == keepsVanished { // only where sessions are revised do rows vanish
		w.query = querying{timeout: 30 * time.Second, most: 24 * time.Hour, within: 4 * time.Minute}
	}
	if w.rnd.IntN(3) == 0 {
		w.machines = map[string]bool{}
		if err := w.writeCommands(); err != nil {
			return nil, err
		}
	}
	if w.formula == "" && w.machines == nil && w.rnd.IntN(2) == 0 {
		w.low = 1 + w.rnd.IntN(2)
	}
	if err := w.writeModels(context.Background(), "good"); err != nil {
		return nil, err
	}
	_, err = l.PutConfig(context.Background(), time.Now(), "first", w.config(true, w.pipelines))
	return w, err
}

type lineWriter func(string)

func (l lineWriter) Write(b []byte) (int, error) {
	l("    " + strings.TrimSpace(string(b)))
	return len(b), nil
}

// writeModels writes the models of all devices but the last two: of these the last
// but one has a file that is no model, and the last has none.
func (w *world) writeModels(ctx context.Context, kind string) error {
	for i, d := range w.devices {
		data := w.models[kind]
		switch i {
		case len(w.devices) - 1:
			continue
		case len(w.devices) - 2:
			data = w.models["odd"]
		}
		if d == w.deadly {
			data = w.models["deadly"]
		}
		if err := store.WriteAll(ctx, w.store, fleetscore.BlobName(catalog.ModelsArea+sensors+"/model_"+string(d)), data, store.PutOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// config is the configuration with some pipelines, with schedules or without.
func (w *world) config(schedules bool, pipelines []string) fleetscore.Config {
	cfg := fleetscore.Config{Hub: hubSettings(), Queries: map[string]fleetscore.QueryConfig{queryName: w.query.settings()}, Datasets: w.datasetSettings(),
		Fleets:    map[string]fleetscore.FleetConfig{sensors: {Path: catalog.ModelsArea + sensors, Model: "model_{Device}"}},
		Pools:     map[string]fleetscore.PoolConfig{poolName: {Provider: "simulated", Slots: 1, Scale: fleetscore.ScaleConfig{Max: mostNodes, IdleAfter: fleetscore.Duration(20 * time.Second)}, Exec: w.execSettings()}},
		Pipelines: map[string]fleetscore.PipelineConfig{}}
	p := cfg.Pools[poolName]
	if p.Exec != nil {
		p.StartLimit = fleetscore.Duration(machineStart)
	}
	if w.formula != "" {
		p.Scale.Formula, p.Scale.EvaluationInterval = w.formula, fleetscore.Duration(autoscale.LeastInterval)
	}
	if w.low > 0 {
		p.Scale.LowPriority = &fleetscore.LowPriorityConfig{Max: w.low}
	}
	cfg.Pools[poolName] = p
	for i, name := range pipelines {
		p := fleetscore.PipelineConfig{Dataset: dataset, Fleet: sensors, Features: []string{"Value"}, Pool: poolName, Priority: w.priority[name], Limits: w.limits}
		if i > 0 {
			p.Dataset = measured
		}
		if schedules {
			p.Schedule = w.schedules[name]
		}
		cfg.Pipelines[name] = p
	}
	return cfg
}

// up is a server that answers, one of those that run; nil if none does.
func (w *world) up() *server {
	w.mu.Lock()
	defer w.mu.Unlock()
	var awake []*server
	for _, s := range w.live {
		if !s.process.thawed().After(time.Now()) {
			awake = append(awake, s)
		}
	}
	if len(awake) == 0 {
		return nil
	}
	return awake[int(w.messages.Load())%len(awake)]
}

// some is one of the servers that run.
func (w *world) some() *server {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.live) == 1 {
		return w.live[0]
	}
	return w.live[w.rnd.IntN(len(w.live))]
}

// gone notes that a server runs no more.
func (w *world) gone(s *server) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.live = slices.DeleteFunc(w.live, func(x *server) bool { return x == s })
}

// start starts a server over what the one before left.
func (w *world) start() error {
	w.mu.Lock()
	w.servers++
	p := newProcess(fmt.Sprintf("server%d", w.servers))
	w.mu.Unlock()
	b := &blobs{w: w, by: p}
	seen, err := w.ledger.LastTime(context.Background())
	if err != nil {
		return err
	}
	now := clock.New(clock.Config{}, clock.Deps{Log: w.log, Wall: func() time.Time { return time.Now().Add(time.Duration(w.off.Load())) },
		Steady: func() time.Duration { return time.Since(w.began) }, Synced: func() (time.Time, bool) { return time.Time{}, false }}, seen)
	url := "sim://store"
	if w.viaServer {
		url = ""
	}
	l, c := w.ledgerOf(p), catalog.New(b)
	fleets, err := syncer.New(syncer.Config{}, syncer.Deps{Ledger: l, Store: b, Log: w.log, Now: now.Now})
	if err != nil {
		return err
	}
	s := &server{process: p, name: w.freeName(), done: make(chan struct{})}
	if s.scheduler, err = scheduler.New(scheduler.Deps{Ledger: l, Store: b, Catalog: c, Log: w.log, Now: now.Now}); err != nil {
		return err
	}
	if s.broker, err = broker.New(broker.Config{StoreURL: url}, broker.Deps{Ledger: l, Examine: c.Examine, Log: w.log, Now: now.Now}); err != nil {
		return err
	}
	where := logs.Config{SpoolDir: filepath.Join(w.dir, "spool")}
	if w.several {
		where.Pieces = &piecesOf{w, p}
	}
	if s.logs, err = logs.New(where, logs.Deps{Ledger: l, Store: b, Log: w.log, Now: now.Now}); err != nil {
		return err
	}
	t := &term{w: w, server: s, fleets: fleets, blobs: b, catalog: c, now: now}
	run := []func(context.Context) error{s.broker.Call, s.broker.Examine, s.broker.KeepOutputs}
	if w.several {
		run = append(run, t.leading)
	} else {
		alone, err := t.services(l)
		if err != nil {
			return err
		}
		run = append(run, alone...)
	}
	streams, err := w.startStream(s, now, c)
	if err != nil {
		return err
	}
	run = append(run, streams...)
	ctx, stop := context.WithCancel(p.life)
	s.stop = stop
	go func() {
		defer close(s.done)
		var services sync.WaitGroup
		for _, run := range run {
			services.Go(func() { _ = run(ctx) }) // it ends with ctx
		}
		services.Wait()
		if s.stream != nil && !w.several {
			if err := s.stream.hub.Close(); err != nil {
				w.record.problem("the hub can't be closed: %v", err)
			}
		}
		w.gone(s) // it listened until now
		p.end()
	}()
	w.mu.Lock()
	w.live = append(w.live, s)
	w.mu.Unlock()
	w.conductor.note("start of " + p.name)
	return nil
}

// freeName is a name that no server has which runs.
func (w *world) freeName() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.ContainsFunc(w.live, func(s *server) bool { return s.name == "a" }) {
		return "b"
	}
	return "a"
}

// kill kills the server: nothing that it still does is seen by anybody.
func (w *world) kill(s *server) {
	w.conductor.note("kill of " + s.process.name)
	w.gone(s)
	s.process.end()
	<-s.done
}

// trap kills a server or a node at a certain step of its work.
type trap struct {
	node   bool // it is for nodes
	kind   string
	left   int // so many of the kind pass before
	struck chan struct{}
	victim *server       // that died; nil if it was a node
	freeze time.Duration // it is frozen for so long, and doesn't die; 0 means that it dies
}

// trapped tells whether a request is the one that its process dies at.
func (w *world) trapped(r *request) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.trap
	who := "server"
	if t != nil && t.node {
		who = poolName
	}
	if t == nil || t.kind != r.kind || !strings.HasPrefix(r.by.name, who) {
		return false
	}
	t.left--
	return t.left < 0
}

// strike kills a process that a trap was set for.
func (w *world) strike(p *process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, s := range w.live {
		if s.process == p {
			w.live = slices.Delete(w.live, i, i+1)
			if w.trap != nil {
				w.trap.victim = s
			}
			break
		}
	}
	p.end()
	if w.trap != nil {
		close(w.trap.struck)
		w.trap = nil
	}
}

// abandon ends whatever still runs after a run that failed.
func (w *world) abandon() {
	w.mu.Lock()
	live := slices.Clone(w.live)
	w.mu.Unlock()
	for _, s := range live {
		w.kill(s)
	}
	for len(w.runningNodes()) > 0 {
		for _, id := range w.runningNodes() {
			w.nodes.Kill(id)
		}
		time.Sleep(time.Second)
	}
	w.closeHub()
}

// agent is a node.
func (w *world) agent(life, stop context.Context, n fleetscore.Node, out io.Writer) error {
	life, end := context.WithCancel(life)
	defer end()
	stop, unhook := context.WithCancel(stop)
	defer unhook()
	defer context.AfterFunc(life, unhook)()
	p := &process{name: string(n.ID), life: life, end: end}
	f, err := w.reached(stop, p, "boot", string(n.ID))
	if err != nil {
		return err
	}
	if f == broken {
		fmt.Fprintln(out, "it ends before it began")
		return fault("boot", string(n.ID), "it crashes")
	}
	b := &blobs{w: w, by: p}
	if w.viaServer {
		b.may = func(ctx context.Context, name string, write bool) error {
			s := w.up()
			if s == nil {
				return fault("ask for a blob", name, "no server listens")
			}
			return s.broker.Access(ctx, dispatch.LeaseOf(ctx), name, write)
		}
	}
	agent, err := node.New(node.Config{Hello: dispatch.Hello{Node: n.ID, Pool: n.Pool, Slots: n.Slots, Kind: n.Kind, Host: "here", PID: 1}, Workers: 1},
		node.Deps{Runtime: &engine{w: w, by: p}, Alone: func(alone.Limits) scorer.Runtime { return &engine{w, p, true} },
			Server: &protocol{w, p}, Log: w.log.With("node", n.ID), Now: time.Now, OpenStore: func(context.Context, string) (store.Bucket, error) { return b, nil }})
	if err != nil {
		return err
	}
	if err = agent.Run(stop); err == nil && p.dead() {
		err = errDead(p, "work")
	}
	fmt.Fprintln(out, "ended:", err)
	return err
}

// separate cuts nodes off from the server, or joins them again.
func (w *world) separate(ids []fleetscore.NodeID, apart bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		if apart {
			w.separated[id] = true
		} else {
			delete(w.separated, id)
		}
	}
}

// isHeld tells whether a request is part of committing a job that is held up.
func (w *world) isHeld(r *request) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held != "" && r.kind == "ledger Results" && r.subject == string(w.held)
}

func (w *world) isSeparated(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.separated[fleetscore.NodeID(name)]
}

// runningNodes are the nodes that run, in order.
func (w *world) runningNodes() []fleetscore.NodeID {
	ids := w.nodes.Running()
	slices.Sort(ids)
	return ids
}
