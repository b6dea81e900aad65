package logs

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/store"
	"github.com/fleetscore/fleetscore/internal/store/storetest"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var day = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

const jobID = "j1"

// world is a ledger with a job whose tasks are leased, and the logs of their attempts.
type world struct {
	*Logs
	t      *testing.T
	ledger ledger.Ledger
	bucket store.Bucket
	health obs.Health
	leases []fleetscore.LeaseID

	mu     sync.Mutex               // guards what follows
	asked  func(op, subject string) // hears of each call of the ledger and of the store; nil: nobody does
	answer error                    // of the store, if it fails
}

func (w *world) hear(op, subject string) error {
	w.mu.Lock()
	asked, answer := w.asked, w.answer
	w.mu.Unlock()
	if asked != nil {
		asked(op, subject)
	}
	if strings.ToLower(op) == op { // of the store
		return answer
	}
	return nil
}

func (w *world) set(asked func(op, subject string), answer error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked, w.answer = asked, answer
}

func newWorld(t *testing.T, tasks int) *world {
	t.Helper()
	l, err := ledger.Open(context.Background(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	return newWorldOn(t, tasks, l, Config{SpoolDir: t.TempDir()})
}

// newShared is a world whose logs lie in the ledger's database.
func newShared(t *testing.T, tasks int) *world {
	t.Helper()
	p, err := ledger.OpenPostgres(t.Context(), ledger.PostgresConfig{URL: testkit.StartPostgres(t, testkit.PostgresVersions[1]).NewDatabase(t)})
	if err != nil {
		t.Fatal(err)
	}
	return newWorldOn(t, tasks, p, Config{Pieces: p, SpoolDir: t.TempDir()})
}

func newWorldOn(t *testing.T, tasks int, l ledger.Ledger, cfg Config) *world {
	t.Helper()
	w := &world{t: t, ledger: l}
	ctx := context.Background()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	dir, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w.bucket = dir
	j := fleetscore.Job{ID: jobID, Pipeline: "p", State: fleetscore.JobWaiting, Created: day, Config: fleetscore.PipelineConfig{Pool: "cpu"}}
	if err := ledgertest.Queue(ctx, l, j, tasks); err != nil {
		t.Fatal(err)
	}
	if _, err := l.UpdateNode(ctx, "n1", func(n *fleetscore.Node) error {
		n.Pool, n.Slots, n.State = "cpu", tasks, fleetscore.NodeIdle
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	leased, err := l.LeaseTasks(ctx, "cpu", "n1", tasks, day, time.Minute)
	if err != nil || len(leased) != tasks {
		t.Fatalf("%d leases, %v", len(leased), err)
	}
	for _, ls := range leased {
		w.leases = append(w.leases, ls.Attempt.Lease)
	}
	w.Logs, err = New(cfg, Deps{
		Ledger: &ledgertest.Faulty{Ledger: l, Fail: func(_ context.Context, op, subject string) error { return w.hear(op, subject) }},
		Store:  &storetest.Faulty{Bucket: dir, Fail: func(op string, name fleetscore.BlobName) error { return w.hear(op, string(name)) }},
		Health: &w.health})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// append sends a piece that has to be taken.
func (w *world) append(lease fleetscore.LeaseID, stream string, offset int64, text string) {
	w.t.Helper()
	if err := w.AppendLog(context.Background(), lease, dispatch.LogChunk{Stream: stream, Offset: offset, Data: []byte(text)}); err != nil {
		w.t.Fatal(err)
	}
}

// end ends the attempt of a lease.
func (w *world) end(lease fleetscore.LeaseID, end dispatch.End, reason string) {
	w.t.Helper()
	if _, err := w.ledger.EndAttempt(context.Background(), lease, day, func(l ledger.Leased) (ledger.AttemptEnd, error) {
		return ledger.AttemptEnd{State: string(end), Reason: reason, Task: dispatch.After(l.Task, end, reason, 3)}, nil
	}); err != nil {
		w.t.Fatal(err)
	}
}

// read returns all logs of the job as people see them.
func (w *world) read() map[string]string {
	w.t.Helper()
	refs, err := w.List(context.Background(), jobID)
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]string{}
	for _, ref := range refs {
		in, err := w.Open(context.Background(), jobID, ref.Index, ref.Attempt, ref.Stream, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		in.Close()
		if err != nil || int64(len(text)) != ref.SizeBytes {
			w.t.Errorf("%+v: %d bytes, %v", ref, len(text), err)
		}
		out[fmt.Sprint(ref.Index, " ", ref.Stream, " ", ref.State)] = string(text)
	}
	return out
}

// TestLogReadsTheSameAfterItsSeal: what people read doesn't change when a log moves from
// the spool to the store. The log of an attempt that was taken back says why; an attempt
// that wrote nothing has no log.
func TestLogReadsTheSameAfterItsSeal(t *testing.T) {
	t.Parallel()
	t.Run("Folder", func(t *testing.T) { t.Parallel(); testSeal(t, newWorld(t, 5)) })
	t.Run("Database", func(t *testing.T) { t.Parallel(); testSeal(t, newShared(t, 5)) })
}

func testSeal(t *testing.T, w *world) {
	w.append(w.leases[0], "stderr", 0, "good\n")
	w.append(w.leases[1], "stderr", 0, "runs\n")
	w.append(w.leases[2], "stdout", 0, "printed\n")
	w.append(w.leases[3], "stderr", 0, "bad\n")
	w.end(w.leases[0], dispatch.Succeeded, "")
	w.end(w.leases[1], dispatch.Lost, "the node is gone")
	w.end(w.leases[2], dispatch.Expired, "no heartbeat")
	w.end(w.leases[3], dispatch.Failed, "it says so")
	w.end(w.leases[4], dispatch.Lost, "the node is gone")
	want := map[string]string{
		"0 stderr succeeded": "good\n",
		"1 stderr lost":      "runs\nattempt 1 was taken back: the node is gone\n",
		"2 stdout expired":   "printed\n",
		"2 stderr expired":   "attempt 1 was taken back: no heartbeat\n",
		"3 stderr failed":    "bad\n",
	}
	if d := cmp.Diff(want, w.read()); d != "" {
		t.Errorf("in the spool (-want +got):\n%s", d)
	}
	if err := w.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, w.read()); d != "" {
		t.Errorf("in the store (-want +got):\n%s", d)
	}
	if left, err := w.spool.leases(t.Context()); len(left) != 0 || err != nil {
		t.Errorf("the spool holds %v, %v", left, err)
	}
}

// TestServersShareLogs: what one server took is read, and goes on, at another one; pieces
// that come again count once, and one that comes after the end is refused.
func TestServersShareLogs(t *testing.T) {
	t.Parallel()
	a := newShared(t, 1)
	b, err := New(Config{Pieces: a.ledger.(ledger.Pieces), SpoolDir: t.TempDir()}, Deps{Ledger: a.ledger, Store: a.bucket})
	if err != nil {
		t.Fatal(err)
	}
	send := func(l *Logs, offset int64, text string) error {
		return l.AppendLog(t.Context(), a.leases[0], dispatch.LogChunk{Stream: "stderr", Offset: offset, Data: []byte(text)})
	}
	tail := func(l *Logs, from int64) string {
		t.Helper()
		in, err := l.Open(t.Context(), jobID, 0, 1, "stderr", from)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var wg sync.WaitGroup
	for _, l := range []*Logs{a.Logs, b, a.Logs, b} { // the answers of some were lost
		wg.Go(func() {
			if err := send(l, 0, "one\n"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, l := range []*Logs{a.Logs, b} {
		if err := send(l, 0, "one\ntwo\n"); err != nil { // it continues what is there
			t.Error(err)
		}
	}
	if err := send(b, 9, "x"); !fleetscore.Conflict.Is(err) {
		t.Errorf("a piece with a gap before it: %v", err)
	}
	if err := send(b, 8, "three\n"); err != nil {
		t.Error(err)
	}
	if all, rest, none := tail(a.Logs, 0), tail(a.Logs, 6), tail(a.Logs, 14); all != "one\ntwo\nthree\n" || rest != "o\nthree\n" || none != "" {
		t.Errorf("the other server reads %q, from byte 6 on %q, from its end on %q", all, rest, none)
	}
	a.end(a.leases[0], dispatch.Lost, "the node is gone")
	if err := send(b, 14, "late\n"); !fleetscore.Conflict.Is(err) {
		t.Errorf("a piece after the end: %v", err)
	}
	const note = "attempt 1 was taken back: the node is gone\n"
	if got := tail(b, 14+8); got != note[8:] {
		t.Errorf("from within the note on: %q", got)
	}
	if err := b.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := tail(a.Logs, 6); got != "o\nthree\n"+note {
		t.Errorf("in the store, from byte 6 on: %q", got)
	}
}

// TestLatePieceReplacesNoSealedLog: a piece that is sent again, and arrives while its
// attempt ends and the log is sealed, doesn't begin a new log in place of the sealed one.
func TestLatePieceReplacesNoSealedLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		lease := w.leases[0]
		w.append(lease, "stderr", 0, "one\n")
		w.append(lease, "stderr", 4, "two\n")
		sealed := make(chan error, 1)
		w.set(func(op, _ string) {
			if op != "Attempt done" {
				return
			}
			w.set(nil, nil) // the attempt was seen as running, and now ends
			w.end(lease, dispatch.Succeeded, "")
			go func() { sealed <- w.Seal(context.Background()) }()
			synctest.Wait() // until the seal is done, or waits
		}, nil)
		err := w.AppendLog(t.Context(), lease, dispatch.LogChunk{Stream: "stderr", Data: []byte("one\n")})
		if err != nil {
			t.Errorf("a piece that is there already: %v", err)
		}
		if err := <-sealed; err != nil {
			t.Fatal(err)
		}
		if err := w.Seal(t.Context()); err != nil { // as the next event starts it
			t.Fatal(err)
		}
		if d := cmp.Diff(map[string]string{"0 stderr succeeded": "one\ntwo\n"}, w.read()); d != "" {
			t.Errorf("logs (-want +got):\n%s", d)
		}
	})
}

// TestLogsOfNodesDontWaitForEachOther: while one log can't be written, others are.
func TestLogsOfNodesDontWaitForEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		hang := make(chan struct{})
		w.set(func(op, subject string) {
			if op == "Attempt" && subject == string(w.leases[0]) {
				<-hang
			}
		}, nil)
		first := make(chan struct{})
		go func() {
			defer close(first)
			w.append(w.leases[0], "stderr", 0, "slow\n")
		}()
		synctest.Wait()
		w.append(w.leases[1], "stderr", 0, "quick\n")
		if d := cmp.Diff(map[string]string{"1 stderr leased": "quick\n"}, w.read()); d != "" {
			t.Errorf("logs (-want +got):\n%s", d)
		}
		limited, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.AppendLog(limited, w.leases[0], dispatch.LogChunk{Stream: "stderr", Data: []byte("slow\n")}); err == nil {
			t.Error("a second piece of the log that hangs is taken")
		}
		close(hang)
		<-first
	})
}

// TestSealedInTheBackground: the end of an attempt, however it comes, starts the seal. A
// log that the store doesn't take stays, health says so, and it is sealed later.
func TestSealedInTheBackground(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		defer func() {
			cancel()
			<-done
		}()
		for _, lease := range w.leases {
			w.append(lease, "stderr", 0, "hello\n")
		}
		inStore := func() int {
			t.Helper()
			logs, err := catalog.JobLogs(t.Context(), w.bucket, "p", jobID)
			if err != nil {
				t.Fatal(err)
			}
			return len(logs)
		}
		w.end(w.leases[0], dispatch.Succeeded, "")
		synctest.Wait()
		if n := inStore(); n != 1 {
			t.Errorf("%d logs are sealed after one end", n)
		}
		w.set(nil, fleetscore.Errorf(fleetscore.Unavailable, "put", "log", "injected"))
		if _, err := w.ledger.CancelJob(t.Context(), jobID, "enough", day); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if p := w.health.Problems(); len(p) != 1 || p[0].Part != "logs" || inStore() != 1 {
			t.Errorf("the store fails: %d logs, problems %+v", inStore(), p)
		}
		w.set(nil, nil)
		time.Sleep(sealEvery) // of the bubble's clock
		synctest.Wait()
		if p := w.health.Problems(); len(p) != 0 || inStore() != 2 {
			t.Errorf("the store is back: %d logs, problems %+v", inStore(), p)
		}
	})
}

// TestListAsksTheStoreOnce however many tasks a job has.
func TestListAsksTheStoreOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 20)
	for _, lease := range w.leases {
		w.append(lease, "stderr", 0, "hello\n")
		w.end(lease, dispatch.Succeeded, "")
	}
	if err := w.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	asked := 0
	w.set(func(op, _ string) {
		if strings.ToLower(op) == op {
			asked++
		}
	}, nil)
	refs, err := w.List(t.Context(), jobID)
	if err != nil || len(refs) != 20 || asked != 1 {
		t.Errorf("%d logs, %v; the store was asked %d times, want once", len(refs), err, asked)
	}
}

// BenchmarkAppendShared measures what a piece of a log costs in a database.
func BenchmarkAppendShared(b *testing.B) {
	ctx := b.Context()
	p, err := ledger.OpenPostgres(ctx, ledger.PostgresConfig{URL: testkit.StartPostgres(b, testkit.PostgresVersions[1]).NewDatabase(b)})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	const tasks = 64
	if err := ledgertest.Queue(ctx, p, fleetscore.Job{ID: jobID, Pipeline: "p", State: fleetscore.JobWaiting, Created: day, Config: fleetscore.PipelineConfig{Pool: "cpu"}}, tasks); err != nil {
		b.Fatal(err)
	}
	if _, err := p.UpdateNode(ctx, "n1", func(n *fleetscore.Node) error {
		n.Pool, n.Slots, n.State = "cpu", tasks, fleetscore.NodeIdle
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	leased, err := p.LeaseTasks(ctx, "cpu", "n1", tasks, day, time.Hour)
	if err != nil || len(leased) != tasks {
		b.Fatal(len(leased), err)
	}
	piece := []byte(strings.Repeat("a line of a log\n", 16))
	var next atomic.Int64
	b.SetParallelism(tasks / 2) // for two processors: a goroutine for each task
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		lease := leased[int(next.Add(1)-1)%tasks].Attempt.Lease
		for at := int64(0); pb.Next(); at += int64(len(piece)) {
			if err := p.AddPiece(ctx, lease, "stderr", at, piece); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// ofNode is what a node wrote itself, as readers see it.
func (w *world) ofNode() string {
	w.t.Helper()
	r, err := w.OpenNode(w.t.Context(), "cpu", "n1", 0)
	if fleetscore.NotFound.Is(err) {
		return ""
	} else if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// TestNodeLog: what a node sends of its own log is read while the node runs, once however
// often it is sent; a gap is noted. When the node has ended, or was lost, it is in the
// store, where it reads the same; what a node sends that comes back stands behind.
func TestNodeLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	ctx := t.Context()
	send := func(offset int64, text string) {
		t.Helper()
		if err := w.AppendNodeLog(ctx, "n1", dispatch.LogChunk{Stream: "stderr", Offset: offset, Data: []byte(text)}); err != nil {
			t.Fatal(err)
		}
	}
	read := func(want string) {
		t.Helper()
		if got := w.ofNode(); got != want {
			t.Errorf("the log is %q, want %q", got, want)
		}
	}
	inStore := func(want string) {
		t.Helper()
		if err := w.Seal(ctx); err != nil {
			t.Fatal(err)
		}
		text, err := store.ReadAll(ctx, w.bucket, catalog.NodeLog("cpu", "n1"))
		if err != nil && !fleetscore.NotFound.Is(err) || string(text) != want {
			t.Errorf("the store has %q, %v; want %q", text, err, want)
		}
	}
	read("")
	send(0, "registered\n")
	send(0, "registered\n")
	read("registered\n")
	send(0, "registered\ntask begins\n")
	send(90, "task ends\n")
	const first = "registered\ntask begins\n" + missing + "task ends\n"
	read(first)
	inStore("")
	for _, state := range []fleetscore.NodeState{fleetscore.NodeLost, fleetscore.NodeStopped} {
		if err := w.ledger.SetNodeState(ctx, "n1", state); err != nil {
			t.Fatal(err)
		}
		inStore(first)
		read(first)
	}
	send(0, "back again\n")
	read(first + "back again\n")
	w.set(nil, fleetscore.Errorf(fleetscore.Unavailable, "put", "", "away"))
	if err := w.Seal(ctx); err == nil {
		t.Error("a log is sealed while the store is away")
	}
	w.set(nil, nil)
	inStore(first + "back again\n")
	read(first + "back again\n")
	if err := w.AppendNodeLog(ctx, "none", dispatch.LogChunk{Data: []byte("x")}); !fleetscore.NotFound.Is(err) {
		t.Errorf("a node that isn't known: %v", err)
	}
	if names, err := SpoolFiles(filepath.Dir(w.nodeDir)); err != nil || len(names) != 0 {
		t.Errorf("logs of attempts in the spool: %v, %v", names, err)
	}
}

// overtaken is pieces that another server moves into the store just before they are read.
type overtaken struct {
	ledger.Pieces
	by func()
}

func (o *overtaken) Piece(ctx context.Context, lease fleetscore.LeaseID, stream string, from int64) ([]byte, error) {
	o.by()
	return o.Pieces.Piece(ctx, lease, stream, from)
}

// TestServersSealAtOnce: while the lead changes, two servers may move the same log. It stays
// whole if one removes the pieces while the other one reads them.
func TestServersSealAtOnce(t *testing.T) {
	t.Parallel()
	a := newShared(t, 1)
	a.append(a.leases[0], "stderr", 0, "one\n")
	a.append(a.leases[0], "stderr", 4, "two\n")
	a.end(a.leases[0], dispatch.Succeeded, "")
	read := 0
	b, err := New(Config{SpoolDir: t.TempDir(), Pieces: &overtaken{a.ledger.(ledger.Pieces), func() {
		if read++; read == 2 { // after the first piece
			if err := a.Seal(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}}}, Deps{Ledger: a.ledger, Store: a.bucket})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Seal(t.Context()); err != nil || read < 2 {
		t.Fatalf("after %d readings: %v", read, err)
	}
	in, err := a.Open(t.Context(), jobID, 0, 1, "stderr", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if text, err := io.ReadAll(in); err != nil || string(text) != "one\ntwo\n" {
		t.Errorf("the log is %q, %v; want both lines", text, err)
	}
}
