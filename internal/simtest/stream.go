package simtest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// The stream path: devices send readings to the gateway of whatever server there is,
// the hub keeps them in files, and a query makes rows of them.
const (
	measured   = "measured" // the dataset that the query writes
	queryName  = "windows"
	partitions = 2
	width      = 20 * time.Second // of a window
	disorder   = 2 * time.Second
	idleAfter  = 5 * time.Second
	maxFuture  = 5 * time.Minute // how far a reading may lie ahead, as the gateway and the query have it
	maxDevices = 4               // that send readings, as each reading costs time
)

// querying is what the query of a run does: the rows of its windows, and what becomes of late readings.
type querying struct {
	timeout time.Duration // of a session; 0: windows tumble, and each is width long
	most    time.Duration // sessions are cut at its multiples
	within  time.Duration // how late readings may be that revise rows; 0: late readings are set aside
	apart   time.Duration // each device has a watermark of its own, and readings may be so old at their arrival; 0: one watermark
}

// drawQuery draws a query, by draws of its own.
func drawQuery(seed uint64) (q querying) {
	rnd := rand.New(rand.NewPCG(seed, 6))
	some := []time.Duration{15 * time.Second, 50 * time.Second, 4 * time.Minute}[rnd.IntN(3)]
	if rnd.IntN(2) == 0 {
		q.timeout = time.Duration(10+rnd.IntN(10)) * time.Second // often about as long as a device pauses
	}
	switch rnd.IntN(4) {
	case 0, 1:
		q.within = some
	case 2:
		q.apart = some
	}
	if q.most = 24 * time.Hour; rnd.IntN(2) == 0 {
		q.most = time.Duration(20+rnd.IntN(50)) * time.Second
	}
	return q
}

func (q querying) settings() fleetscore.QueryConfig {
	window, over := fmt.Sprintf("TumblingWindow(second, %d)", int(width.Seconds())), ""
	if q.timeout > 0 {
		window = fmt.Sprintf("SessionWindow(second, %d, %d) OVER (PARTITION BY Device)", int(q.timeout.Seconds()), int(q.most.Seconds()))
	}
	c := fleetscore.QueryConfig{Cut: fleetscore.Duration(time.Minute)}
	switch {
	case q.within > 0:
		c.Late, c.LateWithin = fleetscore.LateRevise, fleetscore.Duration(q.within)
	case q.apart > 0:
		c.LateWithin, over = fleetscore.Duration(q.apart), " OVER Device"
	}
	c.SQL = fmt.Sprintf(`SELECT System.Timestamp() AS TS, Device, MAX(Value) AS Value, COUNT(*) AS N, SUM(Serial) AS Serials
	INTO %s FROM hub TIMESTAMP BY TS%s GROUP BY Device, %s`, measured, over, window)
	return c
}

func hubSettings() fleetscore.HubConfig {
	return fleetscore.HubConfig{Key: []string{"Device"}, Time: "TS", Partitions: partitions, Disorder: fleetscore.Duration(disorder), IdleAfter: fleetscore.Duration(idleAfter)}
}

func (w *world) hubDir() string { return filepath.Join(w.dir, "hub") }

// streams tells whether the run has the stream path.
func (w *world) streams() bool { return len(w.pipelines) > 1 }

// stream is the stream path of one server.
type stream struct {
	hub     hub.Hub // its files stay when the server is killed
	gateway *gateway.Gateway
}

func (w *world) openStream(of *server, now *clock.Clock) (s *stream, err error) {
	s = &stream{hub: w.hub}
	cfg := gateway.Config{Hub: hubSettings(), Numbers: []string{"Value", "Serial"}}
	if w.several {
		cfg.Server = of.name
	} else if s.hub, err = hub.Open(context.Background(), hub.Config{Dir: w.hubDir(), Partitions: partitions}, hub.Deps{Log: w.log, Now: now.Now}); err != nil {
		return nil, err
	}
	s.gateway, err = gateway.New(cfg, gateway.Deps{Hub: &log{Hub: s.hub, w: w, by: of.process}, Log: w.log, Clock: now})
	if err != nil && !w.several {
		err = errors.Join(err, s.hub.Close())
	}
	return s, err
}

// aggregates makes the query's aggregator, which goes on where the one before has committed.
func (w *world) aggregates(of *server, now *clock.Clock, c *catalog.Catalog) (run func(context.Context) error, err error) {
	seen := &log{Hub: of.stream.hub, w: w, by: of.process}
	if w.mutant == skipsReadings && !w.leads(1) || w.mutant == skipsLate && of.process.name != "server1" {
		stats, err := seen.Hub.Stats(context.Background())
		if err != nil {
			return nil, err
		}
		for _, p := range stats {
			seen.skipped = append(seen.skipped, p.Last)
		}
	}
	a, err := aggregator.New(aggregator.Config{Name: queryName, Query: w.query.settings(), Hub: hubSettings()},
		aggregator.Deps{Hub: seen, Catalog: c, Log: w.log, Now: now.Now, Committed: func(name string) { w.ledger.Put(ledger.DatasetTopic(name)) }})
	if err != nil {
		return nil, err
	}
	return a.Run, nil
}

// startStream is the stream path of a server, if the run has one: the gateway, and the query
// unless only the server that leads runs it.
func (w *world) startStream(s *server, now *clock.Clock, c *catalog.Catalog) (run []func(context.Context) error, err error) {
	if !w.streams() {
		return nil, nil
	}
	if !w.several {
		if err := w.tear(); err != nil {
			return nil, err
		}
	}
	if s.stream, err = w.openStream(s, now); err != nil || w.several {
		if err == nil {
			run = append(run, s.stream.gateway.Run)
		}
		return run, err
	}
	query, err := w.aggregates(s, now, c)
	return append(run, s.stream.gateway.Run, query), err
}

// closeHub closes the log that servers share, once no server runs.
func (w *world) closeHub() {
	if w.hub == nil {
		return
	}
	if err := w.hub.Close(); err != nil {
		w.record.problem("the hub can't be closed: %v", err)
	}
	w.hub = nil
}

// log is the hub as one server sees it.
type log struct {
	hub.Hub
	w       *world
	by      *process
	skipped []uint64 // by partition, messages up to there aren't read; only of a mutant
}

// Append implements hub.Hub. What is synced stays, whoever is killed afterwards.
func (l *log) Append(ctx context.Context, partition int, stamp hub.Stamp, readings ...*fleetscore.Readings) (uint64, error) {
	subject := fmt.Sprintf("partition %d, %d messages", partition, len(readings))
	if _, err := l.w.reached(ctx, l.by, "hub append", subject); err != nil {
		return 0, err
	}
	switch {
	case l.w.mutant == answersUnsynced && len(readings) > 0:
		l.w.background.Go(func() { // the server may be killed until then
			if _, err := l.w.conductor.step(context.WithoutCancel(ctx), l.by, "late append", subject); err == nil {
				_, _ = l.Hub.Append(context.WithoutCancel(ctx), partition, stamp, readings...)
			}
		})
		return 0, nil
	case l.w.mutant == ticksAhead && len(readings) == 0:
		stamp.Arrived += fleetscore.Micros((30 * time.Second).Microseconds())
	}
	seq, err := l.Hub.Append(ctx, partition, stamp, readings...)
	if err != nil {
		return 0, err
	}
	_, err = l.w.reached(ctx, l.by, "hub append done", subject)
	return seq, err
}

// Read implements hub.Hub.
func (l *log) Read(ctx context.Context, partition int, from uint64, fn func(hub.Message) error) error {
	return l.Hub.Read(ctx, partition, from, func(m hub.Message) error {
		if _, err := l.w.reached(ctx, l.by, "hub read", fmt.Sprintf("partition %d message %d", partition, m.Seq)); err != nil {
			return err
		}
		if l.skipped != nil && m.Seq <= l.skipped[partition] {
			if l.w.mutant == skipsReadings {
				return nil
			}
			m.Readings = prompt(m)
		}
		return fn(m)
	})
}

// prompt are the readings of a message without those that were old at its arrival; nil for a tick.
func prompt(m hub.Message) *fleetscore.Readings {
	if m.Tick {
		return nil
	}
	out := *m.Readings
	out.KeyIndex, out.Times, out.IDs = nil, nil, nil
	out.Columns = slices.Clone(out.Columns)
	for c := range out.Columns {
		out.Columns[c].Numbers = nil
	}
	for i, at := range m.Readings.Times {
		if at < m.Arrived-micros(10*time.Second) {
			continue
		}
		out.KeyIndex, out.Times = append(out.KeyIndex, m.Readings.KeyIndex[i]), append(out.Times, at)
		for c := range out.Columns {
			out.Columns[c].Numbers = append(out.Columns[c].Numbers, m.Readings.Columns[c].Numbers[i])
		}
	}
	return &out
}

// complete tells whether the query's dataset is complete until a time.
func (w *world) complete(ctx context.Context, until time.Time) func() (bool, string, error) {
	return func() (bool, string, error) {
		snap, err := w.record.truth.Dataset(measured).Snapshot(ctx)
		if err != nil {
			return false, fmt.Sprint(": ", err), nil
		}
		have, _ := catalog.CompleteUntil(snap, time.Now())
		return have >= fleetscore.MicrosOf(until), " until " + until.UTC().String() + ", only " + have.String(), nil
	}
}

// rescored tells whether all rows that late readings changed were scored again.
func (w *world) rescored(ctx context.Context) func() (bool, string, error) {
	return func() (bool, string, error) {
		if w.query.within == 0 {
			return true, "", nil
		}
		name, d := w.pipelines[1], w.record.truth.Dataset(measured)
		jobs, err := w.ledger.Jobs(ctx, ledger.JobFilter{Pipeline: name, States: active})
		if err != nil || len(jobs) > 0 {
			return false, fmt.Sprint(": ", len(jobs), " jobs haven't ended"), err
		}
		snap, err := d.Snapshot(ctx)
		if err != nil {
			return false, "", err
		}
		view, err := w.ledger.Schedule(ctx, name)
		if err != nil {
			return false, "", err
		}
		left, err := d.Revised(ctx, view.State.Revised, snap.Version)
		return len(left) == 0, fmt.Sprint(": ", len(left), " revisions are left"), err
	}
}

// tear leaves the beginning of a message at the end of a partition's last file, as a
// process does that is killed while it writes.
func (w *world) tear() error {
	names, err := filepath.Glob(filepath.Join(w.hubDir(), fmt.Sprintf("p%03d", w.rnd.IntN(partitions)), "*.log"))
	if err != nil || len(names) == 0 || w.rnd.IntN(2) == 0 {
		return err
	}
	f, err := os.OpenFile(slices.Max(names), os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\xf1REC" + strings.Repeat("x", w.rnd.IntN(100)))
	return errors.Join(err, f.Close())
}

// reading is one reading of a device. Its serial number is used once.
type reading struct {
	cell
	serial float64
	value  float64
}

// sent is a reading that a device sent, and what it heard.
type sent struct {
	reading
	acknowledged bool
	// prompt says that the reading was acknowledged sooner after its event time than the
	// allowed disorder, while no clock was wrong. Such a reading is never late.
	prompt bool
}

// devicesSend lets all devices send until no more is to be fed.
func (w *world) devicesSend(ctx context.Context) {
	var all sync.WaitGroup
	for _, d := range w.devices[:min(len(w.devices), maxDevices)] {
		rnd := rand.New(rand.NewPCG(w.rnd.Uint64(), 4))
		all.Go(func() { w.send(ctx, d, rnd) })
	}
	all.Wait()
}

// send is one device: it sends some readings every few seconds, and what wasn't
// acknowledged again; some are old when they are sent, and the clock of some devices is
// wrong.
func (w *world) send(ctx context.Context, d fleetscore.Key, rnd *rand.Rand) {
	p := newProcess("device " + string(d))
	defer p.end()
	off := []time.Duration{0, 0, 0, 0, -time.Second, -3 * time.Minute, 4 * time.Minute, time.Hour}[rnd.IntN(8)]
	serial, used := 0.0, map[fleetscore.Micros]bool{}
	var last []byte
	pause, late, oldest := 20*time.Second, 5, 60
	if w.mutant == keepsVanished { // so that sensors often have a single row, which vanishes
		pause, late, oldest = time.Minute, 2, 200
	}
	for w.more(time.Now()) && ctx.Err() == nil {
		time.Sleep(time.Second + time.Duration(rnd.Int64N(int64(pause))))
		var batch []reading
		for range 1 + rnd.IntN(3) {
			age := time.Duration(rnd.Int64N(int64(time.Second)))
			if rnd.IntN(late) == 0 {
				age *= time.Duration(1 + rnd.IntN(oldest))
			}
			at := fleetscore.MicrosOf(time.Now().Add(off - age))
			if used[at] {
				continue
			}
			used[at] = true
			serial++
			batch = append(batch, reading{cell{d, at}, serial, []float64{20, 0}[rnd.IntN(2)]})
		}
		body := encode(batch)
		verdicts, err := w.take(ctx, p, body)
		for tries := 0; err != nil && tries < 8 && ctx.Err() == nil; tries++ {
			time.Sleep(time.Duration(rnd.Int64N(int64(4 * time.Second))))
			verdicts, err = w.take(ctx, p, body)
		}
		w.record.sent(batch, err == nil && verdicts.Rejected == 0, time.Now(), off == 0 && w.never.Load())
		if last != nil && rnd.IntN(8) == 0 { // as a device does that forgot the answer
			_, _ = w.take(ctx, p, last)
		}
		last = body
	}
}

func encode(batch []reading) (out []byte) {
	for _, r := range batch {
		line, err := json.Marshal(map[string]any{"Device": r.key, "TS": r.at.Time().Format(time.RFC3339Nano), "Value": r.value, "Serial": r.serial})
		if err != nil {
			panic(err) // strings and numbers can be written
		}
		out = append(append(out, line...), '\n')
	}
	return out
}

// take carries readings to the server, and its answer back.
func (w *world) take(ctx context.Context, p *process, body []byte) (gateway.Verdicts, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	return send(ctx, &protocol{w, p}, "take", p.name, func(_ context.Context, s *server) (gateway.Verdicts, error) {
		return s.stream.gateway.Take(fleetscore.SourceHTTP, gateway.NDJSON, body)
	})
}

// sent notes what a device sent.
func (r *record) sent(batch []reading, acknowledged bool, at time.Time, right bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range batch {
		r.readings = append(r.readings, sent{x, acknowledged, acknowledged && right && at.Sub(x.at.Time()) < disorder})
	}
}

// uploader uploads rows to the dataset, as a process of its own.
type uploader struct {
	w       *world
	by      *process
	rnd     *rand.Rand
	catalog *catalog.Catalog
}

func (w *world) newUploader(name string) *uploader {
	p := newProcess(name)
	return &uploader{w, p, rand.New(rand.NewPCG(w.rnd.Uint64(), 3)), catalog.New(&blobs{w: w, by: p})}
}

// rowsOf are the rows with some values, in order.
func rowsOf(values map[cell]float64) *fleetscore.Rows {
	rows := &fleetscore.Rows{TimeName: "TS", KeyNames: []string{"Device"}, ValueNames: []string{"Value"}, Values: make([][]float64, 1)}
	for _, c := range sortedCells(values) {
		rows.KeyIndex, rows.Keys = append(rows.KeyIndex, uint32(len(rows.Keys))), append(rows.Keys, c.key)
		rows.Times, rows.Values[0] = append(rows.Times, c.at), append(rows.Values[0], values[c])
	}
	return rows
}

// until uploads rows, as often as it takes.
func (u *uploader) until(ctx context.Context, values map[cell]float64, fresh bool) bool {
	rows := rowsOf(values)
	u.w.record.trying(values)
	for tries := 0; ctx.Err() == nil; tries++ {
		done, err := u.catalog.Upload(ctx, dataset, rows, nil)
		if err == nil {
			if fresh && tries == 0 && done.Added != int64(rows.Len()) {
				u.w.record.problem("an upload of %d new rows says that it added %d, replaced %d and found %d", rows.Len(), done.Added, done.Replaced, done.Same)
			}
			u.w.record.uploaded(done.Version, values)
			u.w.ledger.Put(ledger.DatasetTopic(dataset))
			return true
		}
		u.w.log.Info("upload fails", "error", err)
		time.Sleep(time.Second + time.Duration(u.rnd.Int64N(int64(time.Second))))
	}
	return false
}

// more tells whether readings of a minute are still uploaded.
func (w *world) more(at time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lastMinute.IsZero() || !at.After(w.lastMinute)
}

// feed uploads readings, a minute after the other.
func (w *world) feed(ctx context.Context) {
	u := w.newUploader("feeder")
	defer u.by.end()
	var last map[cell]float64
	for at := w.began.Truncate(time.Minute); w.more(at); at = at.Add(time.Minute) {
		time.Sleep(time.Until(at.Add(time.Duration(u.rnd.Int64N(int64(20 * time.Second))))))
		values := map[cell]float64{}
		for _, d := range w.devices {
			if u.rnd.IntN(10) == 0 && len(values) > 0 {
				continue // it is silent
			}
			values[cell{d, fleetscore.MicrosOf(at)}] = []float64{20, 0}[u.rnd.IntN(2)]
		}
		if last != nil && w.resend.Swap(false) { // as by somebody who heard no answer
			_, _ = u.catalog.Upload(ctx, dataset, rowsOf(last), nil)
		}
		if !u.until(ctx, values, true) {
			return
		}
		last = values
	}
}

// revise uploads other values for rows that were uploaded some minutes ago, now and
// then, while the feeder uploads too.
func (w *world) revise(ctx context.Context) {
	u := w.newUploader("reviser")
	defer u.by.end()
	for at := w.began.Truncate(time.Minute); w.more(at); at = at.Add(time.Minute) {
		time.Sleep(time.Until(at.Add(time.Duration(u.rnd.Int64N(int64(20 * time.Second))))))
		have := w.record.rows(math.MaxInt64)
		last := fleetscore.Micros(0) // the feeder may upload these once more
		for c := range have {
			last = max(last, c.at)
		}
		values := map[cell]float64{}
		for _, c := range sortedCells(have) {
			if c.at < last && u.rnd.IntN(2*len(w.devices)) == 0 {
				values[c] = 20 - have[c]
			}
		}
		if len(values) > 0 && !u.until(ctx, values, false) {
			return
		}
	}
}

func sortedCells(values map[cell]float64) []cell {
	out := make([]cell, 0, len(values))
	for c := range values {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b cell) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.key, b.key)) })
	return out
}
