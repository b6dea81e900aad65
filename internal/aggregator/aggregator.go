// Package aggregator carries out continuous queries: it reads a hub's partitions,
// aggregates their readings over windows, and commits the rows of a dataset together
// with the position in the log up to which they were made.
//
// Files are cut at multiples of the query's cut in event time. One Delta commit holds
// a cut's files and, in its txn entries, how far the log was read, so that a crash at
// any point neither loses nor repeats a row. After a crash the log is read again:
// committed rows are skipped, and the others are calculated again with the same
// result.
//
// Package window decides which window a reading belongs to and which readings are
// late. Run owns a goroutine per partition; Status may be called at any time.
package aggregator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/query"
	"github.com/fleetscore/fleetscore/internal/table"
	"github.com/fleetscore/fleetscore/internal/window"
)

// Config says which query to carry out.
type Config struct {
	Name  string // of the query
	Into  string // the dataset, one of those that the query writes; empty if there is only one
	Query fleetscore.QueryConfig
	Hub   fleetscore.HubConfig // Key, Disorder and IdleAfter are used; filled
	// MaxHeldBytes bounds, by estimate, the memory of the query's windows over all
	// partitions; 0 means DefaultHeldBytes. When finished windows
	// of a partition use more than an eighth of its share, they are committed before their cut. A partition whose
	// open windows alone use the whole share stops reading.
	MaxHeldBytes int64
}

// DefaultHeldBytes is the bound of the memory of a query's windows.
const DefaultHeldBytes = 1 << 30

// Deps is what an aggregator works with.
type Deps struct {
	Hub        hub.Hub
	Catalog    *catalog.Catalog      // has the dataset's table
	References References            // reference data that the query joins with; nil if it has no JOIN
	Log        *slog.Logger          // nil discards
	Metrics    prometheus.Registerer // nil means none
	Health     *obs.Health           // nil discards
	Now        func() time.Time      // the trusted time; nil means time.Now
	// Committed is called after each commit to the dataset; it must not block. Nil
	// means no call.
	Committed func(dataset string)
}

// goneAfter is how long a source may be silent, while the log works, before it no longer
// holds the watermark back.
const goneAfter = 15 * time.Minute

// maxEarly is how far a reading's time may be after its arrival.
const maxEarly = 5 * time.Minute

// Aggregator carries out one query.
type Aggregator struct {
	cfg        Config
	subject    string // for people: the query, with the dataset if it writes several
	plan       *query.Plan
	window     window.Config
	cut        fleetscore.Micros
	hub        hub.Hub
	references References
	told       func(dataset string) // of commits; may be nil
	catalog    *catalog.Catalog
	table      *table.Delta
	log        *slog.Logger
	metrics    *metrics
	health     *obs.Health
	now        func() time.Time
	outages    lifecycle.Outages
	share      int64 // of MaxHeldBytes, for a partition

	mu     sync.Mutex // guards the status
	status Status
	marks  []window.Mark // by partition
	holds  []uint64      // by partition: the first message that is still needed; 0 while that isn't known
	counts []int64       // by partition: the last message of which the rows are committed, as the table's entries count
	turn   int           // the partition of the message that was taken last
}

// New builds an aggregator; nothing is read yet.
func New(cfg Config, deps Deps) (*Aggregator, error) {
	parse := query.Parse
	if cfg.Query.Adjusts() > 0 { // which is a matter of the readings' order
		parse = query.ParseInOrder
	}
	plans, err := parse(cfg.Query.SQL, cfg.Hub.Key)
	if err != nil {
		return nil, fleetscore.Wrap("configure query", cfg.Name, err)
	}
	subject := cfg.Name
	if len(plans) > 1 {
		subject += " into " + cfg.Into
	}
	at := slices.IndexFunc(plans, func(p *query.Plan) bool { return p.Into == cfg.Into || cfg.Into == "" && len(plans) == 1 })
	if at < 0 {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "configure query", cfg.Name, "it doesn't write the dataset %q", cfg.Into)
	}
	plan := plans[at]
	if c := cfg.Query.Cut.D(); c < plan.Hop || plan.Hop > 0 && c%plan.Hop != 0 {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "configure query", cfg.Name, "the cut %s is not a multiple of %s, after which a window ends", c, plan.Hop)
	}
	a := &Aggregator{cfg: cfg, plan: plan, hub: deps.Hub, references: deps.References, told: deps.Committed, log: deps.Log, cut: fleetscore.Micros(cfg.Query.Cut.D().Microseconds()),
		window: window.Config{Window: plan.Window, Hop: plan.Hop, Disorder: cfg.Hub.Disorder.D(), IdleAfter: cfg.Hub.IdleAfter.D(), MaxEarly: maxEarly, GoneAfter: goneAfter, Revise: cfg.Query.Revises(), Adjust: cfg.Query.Adjusts()},
		health: deps.Health, now: deps.Now, share: cfg.MaxHeldBytes, holds: make([]uint64, deps.Hub.Partitions()), counts: make([]int64, deps.Hub.Partitions()), marks: make([]window.Mark, deps.Hub.Partitions())}
	if plan.General != nil && plan.General.Over != "" {
		a.window.Apart = cfg.Query.Apart()
	}
	if plan.TimestampBy == "" {
		plan.TimestampBy = cfg.Hub.Time
	}
	for _, g := range plan.Aggregates {
		a.window.Aggregates = append(a.window.Aggregates, window.Aggregate{Func: g.Func, Column: g.Column})
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.share == 0 {
		a.share = DefaultHeldBytes
	}
	a.share /= int64(len(a.passes()) * len(plans))
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	a.log, a.subject = a.log.With("query", subject), subject
	a.catalog, a.table = deps.Catalog, deps.Catalog.Dataset(plan.Into)
	a.status = Status{Query: cfg.Name, Dataset: plan.Into, Partitions: make([]PartitionStatus, deps.Hub.Partitions())}
	a.metrics, err = newMetrics(deps.Metrics, cfg.Name, plan.Into)
	return a, err
}

// Name is the query's, with the dataset if it writes several.
func (a *Aggregator) Name() string { return a.subject }

// Status says how far a query has come.
type Status struct {
	Query      string            `json:"query"`
	Dataset    string            `json:"dataset"`
	Problem    string            `json:"problem,omitempty"` // why the query has stopped
	Partitions []PartitionStatus `json:"partitions"`
}

// PartitionStatus says how far a query has come in one partition. Counts are since
// the start; times are 0 before the first.
type PartitionStatus struct {
	Position      uint64            `json:"position"` // the last message taken, now or before a restart
	Taken         uint64            `json:"taken"`    // the last message taken since the start: below Position while it is replayed
	Watermark     fleetscore.Micros `json:"watermark"`
	CompleteUntil fleetscore.Micros `json:"complete_until"`
	Counted       int64             `json:"counted"` // readings
	Repeats       int64             `json:"repeats"`
	Late          int64             `json:"late"`  // set aside because their window was over
	Early         int64             `json:"early"` // set aside because their time lies after their arrival
	Filtered      int64             `json:"filtered"`
	Adjusted      int64             `json:"adjusted"`           // readings that count at a later time than their own
	Revised       int64             `json:"revised"`            // late readings for whose windows the committed rows were computed again
	Revisions     int64             `json:"revisions"`          // commits for which rows were computed again
	Reread        int64             `json:"reread"`             // readings that were read again for that
	Costly        string            `json:"costly,omitempty"`   // says so if that is more than there are readings
	Rows          int64             `json:"rows"`               // committed
	Gone          uint64            `json:"gone"`               // messages that the hub no longer had when the query wanted to read them
	Note          string            `json:"note,omitempty"`     // what a person should know about the log: messages that are gone, another hub
	Replaced      int64             `json:"replaced,omitempty"` // rows that a later row with their key and time replaced
	Waits         string            `json:"waits"`              // what the rows after CompleteUntil wait for
	OpenWindows   int               `json:"open_windows"`       // this and the next two: of a query that reads all partitions, in the first one
	RowsAhead     int               `json:"rows_ahead"`         // rows that wait for sensors which are further behind, with TIMESTAMP BY … OVER
	HeldBytes     int64             `json:"held_bytes"`         // memory of the windows, estimated
}

// Status describes how far the query is.
func (a *Aggregator) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.status
	s.Partitions = append([]PartitionStatus(nil), s.Partitions...)
	now := a.now()
	for i := range s.Partitions { // the clock may have been put back meanwhile
		s.Partitions[i].CompleteUntil = min(s.Partitions[i].CompleteUntil, fleetscore.MicrosOf(now))
		s.Partitions[i].Waits = a.waits(s.Partitions[i], i)
	}
	return s
}

// waits says what the rows of a partition that come next wait for, and what revisions cost if that is much.
func (a *Aggregator) waits(s PartitionStatus, partition int) string {
	text := a.waitsFor(s, partition)
	if g := a.plan.General; g != nil && g.Timed && s.Filtered > 0 {
		text += fmt.Sprintf(". Left out since the start: %s without a time by TIMESTAMP BY, or with other types than CREATE TABLE says", fleetscore.Counted(s.Filtered, "reading"))
	}
	if s.Costly != "" {
		text += ". Besides, " + s.Costly
	}
	return text
}

func (a *Aggregator) waitsFor(s PartitionStatus, partition int) string {
	where, absent := "", ""
	if a.merged() && s.Taken >= s.Position { // they wait for the partition that is furthest behind
		absent = a.absent()
		partition = a.furthest()
		where = fmt.Sprintf(" in partition %d", partition)
	}
	m := a.marks[partition]
	slowest, ok := m.Slowest(a.window)
	switch {
	case a.status.Problem != "":
		return "the query has stopped: " + a.status.Problem
	case s.Taken < s.Position:
		return fmt.Sprintf("the log is read again, up to message %d of %d", s.Taken, s.Position)
	case !ok && where != "":
		return "since the start not every partition has had a reading that tells a time, or a tick"
	case !ok && s.Taken == 0:
		return "no message has come since the start"
	case !ok:
		return "no reading has come yet that tells a time"
	}
	next := floor(m.Watermark, a.cut) + a.cut
	if s.CompleteUntil != 0 {
		next = floor(s.CompleteUntil, a.cut) + a.cut
	}
	if absent != "" {
		return fmt.Sprintf("rows up to %s wait for %s", next, absent)
	}
	if slowest.Mark > next {
		return fmt.Sprintf("rows up to %s are being written", next)
	}
	if k := m.Key; a.window.Apart > 0 {
		if k.Key == "" {
			unknown := "no sensor is known that is behind"
			if a.plan.General.Lines {
				unknown = "it isn't known yet what is behind"
			}
			return fmt.Sprintf("rows up to %s wait until the log is later than they are by late_within (%s): %s", next, fleetscore.Duration(a.window.Apart), unknown)
		}
		return fmt.Sprintf("rows up to %s wait for readings of %s: its newest one came at %s, and it has reached %s; it must be later by hub.disorder (%s) than the rows. When it was silent for %s, while the gateway worked, it isn't waited for any more",
			next, a.lineName(k.Key), k.Arrived, k.Mark+fleetscore.Micros(a.window.Disorder.Microseconds()), fleetscore.Duration(a.window.Disorder), fleetscore.Duration(a.window.Apart))
	}
	reached := slowest.Mark + fleetscore.Micros(a.window.Disorder.Microseconds())
	return fmt.Sprintf("rows up to %s wait for readings of source %s%s: they have reached %s, and must be later by hub.disorder (%s) than the rows; its last message came at %s. While the gateway works, %s of silence count too",
		next, slowest.Source, where, reached, fleetscore.Duration(a.window.Disorder), slowest.Arrived, fleetscore.Duration(a.window.IdleAfter))
}

// lineName names what has a watermark of its own.
func (a *Aggregator) lineName(k fleetscore.Key) string {
	if a.plan.General.Lines {
		return fmt.Sprintf("%s (OVER %s)", k, a.plan.General.Over)
	}
	return "sensor " + k.String()
}

// merged reports whether the query reads all partitions as one log.
func (a *Aggregator) merged() bool { return a.plan.General != nil && a.plan.General.Merged }

// absent says for which partition the others wait, if it has had no message for longer than a gateway that works leaves it without one: a
// message is taken once every other partition has one behind it, so that the partition of the latest one has none.
func (a *Aggregator) absent() string {
	last := fleetscore.Micros(math.MinInt64)
	for _, s := range a.marks[a.turn].Sources {
		last = max(last, s.Arrived)
	}
	if last == math.MinInt64 || fleetscore.MicrosOf(a.now())-last <= 3*fleetscore.Micros(a.window.IdleAfter.Microseconds()) {
		return ""
	}
	return fmt.Sprintf("a message in partition %d, whose last one came at %s: the query takes the messages of all partitions in the order of their arrivals. Every gateway that works writes at least one into each partition in %s", a.turn, last, fleetscore.Duration(a.window.IdleAfter))
}

// furthest is the partition that is furthest behind.
func (a *Aggregator) furthest() (partition int) {
	least := fleetscore.Micros(math.MaxInt64)
	for i, m := range a.marks {
		at := fleetscore.Micros(math.MinInt64) // nothing has come
		if s, ok := m.Slowest(a.window); ok {
			at = s.Mark
		}
		if at < least {
			partition, least = i, at
		}
	}
	return partition
}

// Hold is the first message of a partition that the query still needs. Earlier
// messages are committed, and no open window has a reading of them. Hold is 0, which
// keeps all messages, until the query has found its position.
func (a *Aggregator) Hold(partition int) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.holds[partition]
}

// Peek learns from the dataset's last commit what the query still needs while another
// process carries it out. Hold then returns that.
func (a *Aggregator) Peek(ctx context.Context) error {
	snap, err := a.table.Snapshot(ctx)
	if err != nil && !fleetscore.NotFound.Is(err) {
		return err
	}
	for i := range a.hub.Partitions() {
		hold := uint64(1) // nothing was committed of this log
		if err == nil {
			if c, at, ok := a.checkpoint(snap, i); ok && at.hub == a.hub.ID() {
				hold = a.needs(c)
			}
		}
		a.setHold(i, hold)
	}
	return nil
}

// needs is the first message that is read again after a restart.
func (a *Aggregator) needs(c window.Checkpoint) uint64 {
	if a.plan.General != nil && a.window.Revise == 0 { // the state is kept
		return c.Position + 1
	}
	return c.ReplayFrom
}

func (a *Aggregator) setHold(partition int, seq uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holds[partition] = seq
}

func (a *Aggregator) update(partition int, change func(*PartitionStatus)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.status.Partitions[partition])
}

// standstill is how long a query waits before it tries again after an error that
// doesn't go away by itself.
const standstill = 10 * time.Second

// Run carries out the query until ctx ends. If a store or hub is unavailable or full,
// the query waits until it works again. Any other error is shown in Status and the
// log, and the query tries again later; other queries go on.
func (a *Aggregator) Run(ctx context.Context) error {
	for {
		err := a.run(ctx)
		if ctx.Err() != nil || err == nil {
			return err
		}
		a.log.Error("query has stopped", "error", err, "again_after", standstill)
		a.setProblem(err.Error())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(standstill):
		}
		a.setProblem("")
	}
}

func (a *Aggregator) setProblem(text string) {
	a.health.Report("query "+a.subject, text)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.Problem = text
}

func (a *Aggregator) run(ctx context.Context) error {
	err := a.persist(ctx, "create dataset", func() error {
		if err := Check(ctx, a.catalog, a.cfg.Name, a.plan); err != nil {
			return err
		}
		return a.table.Create(ctx, schemaOf(a.plan))
	})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, of := range a.passes() {
		group.Go(func() (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
				}
			}()
			return a.pass(ctx, of)
		})
	}
	return group.Wait()
}

// persist repeats f, with growing pauses, while its error may go away by itself.
func (a *Aggregator) persist(ctx context.Context, what string, f func() error) error {
	pause := 50 * time.Millisecond
	trouble := a.outages.Trouble(a.log)
	defer trouble.Ends()
	for {
		err := f()
		if err == nil {
			trouble.Works("the query goes on after failures")
		}
		if err == nil || ctx.Err() != nil || !fleetscore.KindOf(err).Retryable() {
			return err
		}
		a.metrics.retries.Inc()
		trouble.Failed(slog.LevelWarn, what+" failed and is tried again until it goes on", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// errAgain ends a reading of the log that must start again from the last commit.
var errAgain = errors.New("start again from the last commit")

// passes are the partitions that are read by themselves, or all of them that are read as one log.
func (a *Aggregator) passes() (out [][]int) {
	var all []int
	for i := range a.hub.Partitions() {
		all = append(all, i)
		out = append(out, []int{i})
	}
	if a.merged() {
		return [][]int{all}
	}
	return out
}

func (a *Aggregator) pass(ctx context.Context, of []int) error {
	for {
		err := a.persist(ctx, "reading the hub", func() error {
			r, from, err := a.resume(ctx, of)
			if err != nil {
				return err
			}
			return r.read(from)
		})
		if !errors.Is(err, errAgain) {
			return err
		}
	}
}

// appID names an entry of the table's transactions.
func (a *Aggregator) appID(partition int, what string) string {
	return fmt.Sprintf("query/%s/p%d/%s", a.cfg.Name, partition, what)
}

// resume starts at the positions of the table's last commit.
func (a *Aggregator) resume(ctx context.Context, of []int) (*reading, []uint64, error) {
	snap, err := a.table.Snapshot(ctx)
	if err != nil {
		return nil, nil, err
	}
	r := &reading{a: a, ctx: ctx, done: beginning, aside: aside{cut: a.cut}, outlived: true}
	edited := false
	var holds []uint64
	for _, i := range of {
		t, anew, err := a.track(ctx, snap, i)
		if err != nil {
			return nil, nil, err
		}
		edited = edited || anew
		holds = append(holds, 1)
		if t.last.ReplayFrom > 0 {
			r.done, r.committed, holds[len(holds)-1] = max(r.done, t.last.Done), true, a.needs(t.last)
		}
		r.tracks = append(r.tracks, t)
	}
	if !r.committed {
		r.windows = a.start(ctx, r.config())
		for _, t := range r.tracks {
			a.setHold(t.partition, 1)
		}
		return r, make([]uint64, len(of)), nil
	}
	for _, t := range r.tracks {
		if t.own = r.done; edited && t.last.ReplayFrom > 0 {
			t.own = t.last.Done
		}
		if t.last.Done = r.done; edited { // the new text may look further back than the old one did
			t.last = window.Checkpoint{Position: t.last.Position, Done: r.done, ReplayFrom: 1, Watermark: beginning}
		}
		t.last.ReplayFrom = max(1, t.last.ReplayFrom) // it may be a new partition
	}
	if edited {
		a.log.Info("the query was edited: its rows from now on are computed from all readings that the hub still has", "partition", r.name(), "complete_until", r.done)
	}
	from, err := r.open(edited)
	if err != nil {
		return nil, nil, err
	}
	for i, t := range r.tracks {
		a.setHold(t.partition, holds[i])
		a.update(t.partition, func(s *PartitionStatus) {
			s.Position, s.CompleteUntil = t.last.Position, t.last.Done
			s.Taken, s.Watermark = from[i]-1, t.last.Watermark
		})
	}
	return r, from, nil
}

// track is the place in a partition at which the table's last commit lies, and whether the query was edited since then. Its
// checkpoint is empty if there was none.
func (a *Aggregator) track(ctx context.Context, snap *table.Snapshot, partition int) (t *track, edited bool, err error) {
	t = &track{partition: partition}
	last, at, ok := a.checkpoint(snap, partition)
	old, known := snap.Txns[a.appID(partition, "form")]
	edited = ok && known && old != formOf(a.plan)
	if done, moved := a.inherit(snap); moved {
		last.Done, last.Watermark = done, max(done, last.Watermark)
		if !ok {
			last.ReplayFrom, ok = 1, true
		}
	}
	if !ok {
		t.at = place{hub: a.hub.ID()}
		return t, false, nil
	}
	t.last, t.at, err = a.follow(ctx, partition, last, at)
	return t, edited, err
}

// open makes the windows at the tracks' checkpoints, and says from which messages on the log is read.
func (r *reading) open(edited bool) (from []uint64, err error) {
	a := r.a
	for _, t := range r.tracks {
		from = append(from, t.last.ReplayFrom)
		a.committed(t.partition, t.at.count(t.last.Position))
	}
	r.outlived = a.forget(r.ctx)
	if a.plan.General != nil {
		if r.windows, from, err = a.restore(r.ctx, r); err != nil {
			return nil, err
		}
	} else {
		p := window.New(a.window)
		p.Resume(r.tracks[0].last)
		r.windows = &windows{Partition: p, plan: a.plan}
	}
	for i, t := range r.tracks {
		t.position, t.next = from[i]-1, from[i]
		if edited {
			t.next = 0 // what the hub removed because of its age isn't missed
		}
		if t.needed = beginning; len(r.tracks) > 1 && from[i] <= t.last.Position { // all that there is is read again, also what no row needs
			t.needed = r.done - r.windows.(*events).reach
		}
	}
	return from, r.remember(max(from[0], r.tracks[0].last.Position))
}

// committedAt are the positions of the last commit.
func (r *reading) committedAt() (out []uint64) {
	for _, t := range r.tracks {
		out = append(out, t.last.Position)
	}
	return out
}

// start begins before the first message.
func (a *Aggregator) start(ctx context.Context, cfg window.Config) engine {
	if a.plan.General != nil {
		e := newEvents(a.plan, cfg)
		e.join(ctx, a.references)
		return e
	}
	return &windows{Partition: window.New(cfg), plan: a.plan}
}
