// Package archive keeps raw readings in the store as Parquet files, in the folders that users
// of Event Hubs Capture know, so that readings outlive the hub's retention.
//
// A file holds the readings of whole messages of one partition. Where files end depends on the
// log alone: on the arrivals and sizes of its messages. A file is written first, then the
// position in the log, by package journal. So if a process is killed between the two, the next
// one writes a file of the same name again, and each reading is in one file; a server that another
// one has replaced moves no position. docs/formats/store.md describes folders and columns.
//
// Run owns a goroutine per partition; Hold may be called at any time.
package archive

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/journal"
	"github.com/fleetscore/fleetscore/internal/table/readings"
)

// Deps is what an Archive works with.
type Deps struct {
	Hub    hub.Hub
	Store  store.Bucket
	Log    *slog.Logger
	Health *obs.Health      // nil discards
	Now    func() time.Time // the trusted time
}

// Archive writes the readings of a hub.
type Archive struct {
	cfg  fleetscore.ArchiveConfig // filled
	key  []string
	time string
	deps Deps

	outages lifecycle.Outages

	mu    sync.Mutex // guards what follows
	holds []uint64   // by partition: the first message that isn't archived; 0 while that isn't known
}

// New makes an archive of a hub with such readings. Nothing is read.
func New(cfg fleetscore.HubConfig, deps Deps) *Archive {
	return &Archive{cfg: *cfg.Archive, key: cfg.Key, time: cfg.Time, deps: deps, holds: make([]uint64, deps.Hub.Partitions())}
}

// position is how far a partition is archived.
type position struct {
	Hub   int64             `json:"hub"`
	Epoch int64             `json:"epoch"` // of the message at Seq
	Seq   uint64            `json:"seq"`   // the last message that is archived
	Named fleetscore.Micros `json:"named_us"`
	File  string            `json:"file"` // the last one
}

func root(cfg fleetscore.ArchiveConfig) string { return "archive/" + cfg.Namespace + "/" }

func (a *Archive) journalOf(partition int) string {
	return fmt.Sprintf("%s_positions/%d/", root(a.cfg), partition)
}

// folder is where the files of a partition lie.
func folder(cfg fleetscore.ArchiveConfig, partition int) string {
	return fmt.Sprintf("%shub/%d/", root(cfg), partition)
}

// name is that of a file whose first reading arrived at a time.
func (a *Archive) name(partition int, named fleetscore.Micros) fleetscore.BlobName {
	return fleetscore.BlobName(folder(a.cfg, partition) + named.Time().UTC().Format(pathLayout) + ".parquet")
}

const pathLayout = "2006/01/02/15/04/05"

// Hold is the first message of a partition that isn't archived yet; 0 while that isn't known.
func (a *Archive) Hold(partition int) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.holds[partition]
}

// Run archives what comes until ctx ends. While the store is away, it waits.
func (a *Archive) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range a.deps.Hub.Partitions() {
		group.Go(func() error { return a.persist(ctx, i) })
	}
	return group.Wait()
}

// persist repeats the work of a partition until ctx ends.
func (a *Archive) persist(ctx context.Context, partition int) error {
	part := fmt.Sprintf("archive of partition %d", partition)
	defer a.deps.Health.Report(part, "")
	trouble := a.outages.Trouble(a.deps.Log)
	defer trouble.Ends()
	works := func() {
		trouble.Works("readings are archived again")
		a.deps.Health.Report(part, "")
	}
	pause := 100 * time.Millisecond
	for {
		begun := a.Hold(partition)
		err := a.partition(ctx, partition, works)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if a.Hold(partition) != begun {
			pause = 100 * time.Millisecond
		}
		trouble.Failed(slog.LevelWarn, "readings are not archived for now, which is tried again; the hub keeps them", err)
		a.deps.Health.Report(part, fmt.Sprintf("readings aren't archived for now; the hub keeps them: %v", err))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, 10*time.Second)
	}
}

// partition archives the messages of a partition from the position on; works is called once that has begun.
func (a *Archive) partition(ctx context.Context, i int, works func()) error {
	j, at, err := journal.Take[position](ctx, a.deps.Store, a.journalOf(i))
	if err != nil {
		return err
	}
	if at, err = a.follow(ctx, i, at); err != nil {
		return err
	}
	w := &writer{a: a, ctx: ctx, partition: i, journal: j, at: at}
	w.hold(at.Seq + 1)
	if err := w.expire(); err != nil {
		return err
	}
	works()
	return a.deps.Hub.Read(ctx, i, at.Seq+1, w.take)
}

// follow moves a position back to where the hub's log is certainly the one that was archived.
func (a *Archive) follow(ctx context.Context, i int, at position) (position, error) {
	if at.Seq == 0 {
		return at, nil
	}
	stats, err := a.deps.Hub.Stats(ctx)
	if err != nil {
		return at, err
	}
	reaches, known, err := a.deps.Hub.Reaches(ctx, i, at.Epoch)
	log := stats[i]
	if err != nil || known && at.Seq <= reaches || !known && at.Hub == a.deps.Hub.ID() && log.First > at.Seq && log.Last >= at.Seq {
		return at, err // the message at the position is there, or was removed because of its age
	}
	a.deps.Log.Error("the hub's log isn't the one that was archived: its messages count as new", "partition", i, "archived", at.Seq, "known", reaches)
	at.Seq = reaches
	return at, nil
}

// writer is the files of a partition.
type writer struct {
	a         *Archive
	ctx       context.Context // of the run, because the hub's callback has none
	partition int
	journal   *journal.Journal[position]
	at        position

	messages []hub.Message // with readings, for the next file
	size     int64         // in memory, about
	last     hub.Message   // that was taken
	tidied   time.Time     // when old files were looked for
}

func (w *writer) hold(seq uint64) {
	w.a.mu.Lock()
	defer w.a.mu.Unlock()
	w.a.holds[w.partition] = seq
}

// take takes a message. A file ends before the first message that arrives in another interval than
// its first one, and behind the message with which it is large enough.
func (w *writer) take(m hub.Message) error {
	every := fleetscore.Micros(w.a.cfg.Every.D().Microseconds())
	if len(w.messages) > 0 && m.Arrived/every != w.messages[0].Arrived/every {
		if err := w.write(); err != nil {
			return err
		}
	}
	w.last = m
	if m.Readings == nil {
		if len(w.messages) == 0 {
			w.hold(m.Seq + 1)
		}
		return nil
	}
	w.messages = append(w.messages, m)
	if w.size += sizeOf(m.Readings); w.size < int64(w.a.cfg.SizeMB)<<20 {
		return nil
	}
	return w.write()
}

func sizeOf(r *fleetscore.Readings) int64 {
	n := int64(r.Len()) * int64(12+8*len(r.Columns))
	for _, id := range r.IDs {
		n += int64(len(id))
	}
	for _, c := range r.Columns {
		for _, s := range c.Strings {
			n += int64(len(s))
		}
	}
	return n
}

// write writes the messages that were taken as a file, and then moves the position.
func (w *writer) write() error {
	const second = 1_000_000
	a := w.a
	named := max(w.messages[0].Arrived/second*second, w.at.Named+second) // two files must not have one name
	name := a.name(w.partition, named)
	var b bytes.Buffer
	if err := readings.Encode(&b, a.key, a.time, w.messages); err != nil {
		return fleetscore.Wrap("write", string(name), err)
	}
	err := store.WriteAll(w.ctx, a.deps.Store, name, b.Bytes(), store.PutOptions{IfAbsent: true})
	if fleetscore.Conflict.Is(err) {
		err = w.again(name, b.Bytes())
	}
	if err != nil {
		return err
	}
	at := position{Hub: a.deps.Hub.ID(), Epoch: w.last.Epoch, Seq: w.last.Seq, Named: named, File: string(name)}
	if err := w.journal.Put(w.ctx, at); err != nil {
		return err
	}
	w.at, w.messages, w.size = at, nil, 0
	w.hold(at.Seq + 1)
	return w.expire()
}

// again writes a file that is there. A process wrote it that was killed before it moved the position;
// its name is that of the next file, because it has the same first message. Or this process
// was replaced, and then it must not change the file.
func (w *writer) again(name fleetscore.BlobName, data []byte) error {
	there, err := store.ReadAll(w.ctx, w.a.deps.Store, name)
	if err != nil || bytes.Equal(there, data) {
		return err
	}
	if err := w.journal.Put(w.ctx, w.at); err != nil { // kind conflict if another server has taken over
		return err
	}
	return store.WriteAll(w.ctx, w.a.deps.Store, name, data, store.PutOptions{})
}

// expire removes files all of whose readings are older than the retention.
func (w *writer) expire() error {
	a, now := w.a, w.a.deps.Now()
	if a.cfg.Retention == 0 || now.Sub(w.tidied) < time.Hour {
		return nil
	}
	w.tidied = now
	oldest := a.name(w.partition, fleetscore.MicrosOf(now.Add(-a.cfg.Retention.D()-a.cfg.Every.D())))
	for info, err := range a.deps.Store.List(w.ctx, folder(a.cfg, w.partition), store.ListOptions{}) {
		if err != nil || info.Name >= oldest || string(info.Name) == w.at.File {
			return err
		}
		if err := a.deps.Store.Delete(w.ctx, info.Name); err != nil {
			return err
		}
	}
	return nil
}
