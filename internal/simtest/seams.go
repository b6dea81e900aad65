package simtest

import (
	"bytes"
	"context"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/ledger/ledgertest"
	"github.com/fleetscore/fleetscore/internal/pool"
	"github.com/fleetscore/fleetscore/internal/store"
)

func fault(op, subject, what string) error {
	return fleetscore.Errorf(fleetscore.Unavailable, op, subject, "simulated: %s", what)
}

// reached is a request that was let go on; an error if nothing is to be carried out.
func (w *world) reached(ctx context.Context, by *process, kind, subject string) (fate, error) {
	f, err := w.conductor.step(ctx, by, kind, subject)
	switch {
	case err != nil:
		return f, err
	case f == failed:
		return f, fault(kind, subject, "it fails")
	case f == fatal:
		w.strike(by)
		return f, errDead(by, kind)
	case f == lost:
		limit := time.NewTimer(storeLimit)
		defer limit.Stop()
		var gone <-chan time.Time
		var calmed <-chan struct{}
		if strings.HasPrefix(kind, "store ") {
			gone, calmed = limit.C, w.calmed
		}
		select { // until whoever asked has waited enough
		case <-ctx.Done():
			return f, context.Cause(ctx)
		case <-by.life.Done():
			return f, errDead(by, kind)
		case <-gone:
			return f, fault(kind, subject, "no answer came")
		case <-calmed:
			return f, fault(kind, subject, "the store's network works again")
		}
	}
	return f, nil
}

// storeLimit is how long a call to a store lasts at most. That of real ones is 2 minutes; here it is less, as the time of
// grace is, so that a commit of which two or three calls hang ends within that time.
const storeLimit = 50 * time.Second

// ledgerOf is the ledger as a process sees it.
func (w *world) ledgerOf(by *process) ledger.Ledger {
	return w.ledgerBy(by, func(string) error { return nil })
}

// ledgerBy is the ledger as a process sees it whose calls may be refused.
func (w *world) ledgerBy(by *process, refuse func(method string) error) ledger.Ledger {
	return &ledgertest.Faulty{Ledger: &witness{w.ledger, w}, Fail: func(ctx context.Context, op, subject string) error {
		method, after := strings.CutSuffix(op, " done")
		if after && !writes[method] {
			return nil // what was read alters nothing, if it isn't heard of
		}
		if _, err := w.reached(ctx, by, "ledger "+op, subject); err != nil || after {
			return err
		}
		return refuse(method)
	}}
}

// writes are the ledger's methods that change something.
var writes = map[string]bool{"DecideSchedule": true, "UpdateJob": true, "UpdateJobs": true, "PlanJob": true, "CancelJob": true, "TimeOutJob": true, "LeaseTasks": true,
	"EndAttempt": true, "TakeBack": true, "UpdateNode": true, "SetNodeState": true, "Renew": true, "ForgetNodes": true, "PutConfig": true,
	"ChangeHarms": true, "AddSample": true, "AddEvaluation": true}

// blobs is the store as a process sees it.
type blobs struct {
	w  *world
	by *process
	// may, if set, is asked before each operation, as a server is that hands out
	// blobs to nodes.
	may func(ctx context.Context, name string, write bool) error
}

func (b *blobs) ask(ctx context.Context, op, name string, write bool) (fate, error) {
	f, err := b.w.reached(ctx, b.by, "store "+op, name)
	if err == nil && b.may != nil {
		err = b.may(ctx, name, write)
	}
	return f, err
}

// Get implements store.Bucket.
func (b *blobs) Get(ctx context.Context, name fleetscore.BlobName, offset, length int64) (io.ReadCloser, error) {
	f, err := b.ask(ctx, "get", string(name), false)
	if err != nil {
		return nil, err
	}
	if b.w.mutant == forgetsStates && isState(name) {
		return nil, fleetscore.Errorf(fleetscore.NotFound, "store get", string(name), "simulated: it is lost")
	}
	r, err := b.w.store.Get(ctx, name, offset, length)
	if err == nil && b.w.mutant.reads() {
		data, e := io.ReadAll(r)
		r, err = io.NopCloser(bytes.NewReader(b.w.mutant.get(name, data))), e
	}
	if err == nil && f == broken {
		r = io.NopCloser(io.MultiReader(io.LimitReader(r, 100), brokenReader{string(name)}))
	}
	return r, err
}

type brokenReader struct{ name string }

// Read implements io.Reader.
func (b brokenReader) Read([]byte) (int, error) {
	return 0, fault("read", b.name, "the connection broke")
}

// Put implements store.Bucket. A write that must not replace anything is the commit of
// a table, mostly, and has faults of its own: it may arrive long after whoever sent it
// was told that it failed, and it may be repeated on the way although it was carried
// out.
func (b *blobs) Put(ctx context.Context, name fleetscore.BlobName, body io.Reader, opt store.PutOptions) (store.Info, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return store.Info{}, err
	}
	op := "put"
	if opt.IfAbsent {
		op = "create"
	}
	f, err := b.ask(ctx, op, string(name), true)
	if err != nil {
		return store.Info{}, err
	}
	data, opt = b.w.mutant.put(name, data, opt)
	put := func(ctx context.Context) (store.Info, error) {
		return b.w.store.Put(ctx, name, bytes.NewReader(data), opt)
	}
	if f == late {
		b.w.background.Go(func() {
			ctx := context.WithoutCancel(ctx)
			if _, err := b.w.conductor.step(ctx, b.w.network, "late put", string(name)); err == nil {
				_, _ = put(ctx) // nobody hears the answer
			}
		})
		return store.Info{}, fault("store put", string(name), "the connection broke")
	}
	i, err := put(ctx)
	if err != nil {
		return i, err
	}
	f, err = b.w.reached(ctx, b.by, "store "+op+" done", string(name))
	if err == nil && f == again {
		return put(ctx)
	}
	return i, err
}

// Stat implements store.Bucket.
func (b *blobs) Stat(ctx context.Context, name fleetscore.BlobName) (store.Info, error) {
	if _, err := b.ask(ctx, "stat", string(name), false); err != nil {
		return store.Info{}, err
	}
	return b.w.store.Stat(ctx, name)
}

// Delete implements store.Bucket.
func (b *blobs) Delete(ctx context.Context, name fleetscore.BlobName) error {
	if _, err := b.ask(ctx, "delete", string(name), true); err != nil {
		return err
	}
	return b.w.store.Delete(ctx, name)
}

// List implements store.Bucket.
func (b *blobs) List(ctx context.Context, prefix string, opt store.ListOptions) iter.Seq2[store.Info, error] {
	if _, err := b.ask(ctx, "list", prefix, false); err != nil {
		return func(yield func(store.Info, error) bool) { yield(store.Info{}, err) }
	}
	return b.w.store.List(ctx, prefix, opt)
}

// protocol carries a node's messages to whatever server there is.
type protocol struct {
	w  *world
	by *process
}

// send carries one message there and its answer back.
func send[T any](ctx context.Context, p *protocol, op, subject string, do func(context.Context, *server) (T, error)) (T, error) {
	var none T
	f, err := p.w.reached(ctx, p.by, "message "+op, subject)
	if err != nil {
		return none, err
	}
	s := p.w.up()
	if s == nil {
		return none, fault(op, subject, "no server listens")
	}
	handle := func(ctx context.Context) (T, error) {
		ctx, cancel := context.WithCancelCause(context.WithValue(ctx, messageKey{}, int(p.w.messages.Add(1))))
		defer cancel(nil)
		defer context.AfterFunc(s.process.life, func() { cancel(errDead(s.process, op)) })()
		v, err := do(ctx, s)
		if s.process.dead() {
			return none, errDead(s.process, op)
		}
		return v, err
	}
	if f == twice {
		p.w.background.Go(func() {
			late := context.WithoutCancel(ctx)
			if _, err := p.w.conductor.step(late, s.process, "repeated "+op, subject); err == nil {
				_, _ = handle(late) // nobody hears the answer
			}
		})
	}
	v, err := handle(ctx)
	if err != nil {
		return none, err
	}
	if _, err := p.w.reached(ctx, p.by, "answer "+op, subject); err != nil {
		return none, err
	}
	return v, nil
}

type nothing struct{}

// Register implements dispatch.Protocol.
func (p *protocol) Register(ctx context.Context, h dispatch.Hello) (dispatch.Welcome, error) {
	return send(ctx, p, "register", string(h.Node), func(ctx context.Context, s *server) (dispatch.Welcome, error) { return s.broker.Register(ctx, h) })
}

// Prepared implements dispatch.Protocol.
func (p *protocol) Prepared(ctx context.Context, node fleetscore.NodeID, how dispatch.Preparation) error {
	_, err := send(ctx, p, "prepared", string(node), func(ctx context.Context, s *server) (nothing, error) {
		return nothing{}, s.broker.Prepared(ctx, node, how)
	})
	return err
}

// Lease implements dispatch.Protocol.
func (p *protocol) Lease(ctx context.Context, node fleetscore.NodeID, r dispatch.LeaseRequest) (dispatch.LeaseReply, error) {
	return send(ctx, p, "lease", string(node), func(ctx context.Context, s *server) (dispatch.LeaseReply, error) {
		return s.broker.Lease(ctx, node, r)
	})
}

// Heartbeat implements dispatch.Protocol.
func (p *protocol) Heartbeat(ctx context.Context, node fleetscore.NodeID, r dispatch.HeartbeatRequest) (dispatch.HeartbeatReply, error) {
	return send(ctx, p, "heartbeat", string(node), func(ctx context.Context, s *server) (dispatch.HeartbeatReply, error) {
		var found renewed
		reply, err := s.broker.Heartbeat(context.WithValue(ctx, renewedKey{}, &found), node, r)
		if err == nil {
			p.w.accepted(node, found)
		}
		return reply, err
	})
}

// Goodbye implements dispatch.Protocol.
func (p *protocol) Goodbye(ctx context.Context, node fleetscore.NodeID) error {
	_, err := send(ctx, p, "goodbye", string(node), func(ctx context.Context, s *server) (nothing, error) {
		return nothing{}, s.broker.Goodbye(ctx, node)
	})
	return err
}

// AppendLog implements dispatch.Protocol.
func (p *protocol) AppendLog(ctx context.Context, lease fleetscore.LeaseID, c dispatch.LogChunk) error {
	_, err := send(ctx, p, "log", string(lease), func(ctx context.Context, s *server) (nothing, error) {
		return nothing{}, s.logs.AppendLog(ctx, lease, c)
	})
	return err
}

// Complete implements dispatch.Protocol.
func (p *protocol) Complete(ctx context.Context, lease fleetscore.LeaseID, r dispatch.Result) error {
	_, err := send(ctx, p, "complete", string(lease), func(ctx context.Context, s *server) (nothing, error) {
		return nothing{}, s.broker.Complete(ctx, lease, r)
	})
	return err
}

// provider is the provider of nodes as one server sees it. Nodes outlive a server
// that is killed.
type provider struct {
	w  *world
	by *process
}

// Start implements pool.Provider.
func (p *provider) Start(ctx context.Context, n fleetscore.Node) (pool.Running, error) {
	if _, err := p.w.reached(ctx, p.by, "start node", string(n.ID)); err != nil {
		return nil, err
	}
	r, err := p.w.nodes.Start(ctx, n)
	if err != nil {
		return nil, err
	}
	return &running{r, p.by}, nil
}

// StopEarlier implements pool.Provider.
func (p *provider) StopEarlier(ctx context.Context, n fleetscore.Node) error {
	if _, err := p.w.reached(ctx, p.by, "stop earlier node", string(n.ID)); err != nil {
		return err
	}
	return p.w.nodes.StopEarlier(ctx, n)
}

// running is a node as the server that started it sees it.
type running struct {
	pool.Running
	by *process
}

// Stop implements pool.Running.
func (r *running) Stop() {
	if !r.by.dead() {
		r.Running.Stop()
	}
}

// Kill implements pool.Running.
func (r *running) Kill() {
	if !r.by.dead() {
		r.Running.Kill()
	}
}

// Wait implements pool.Running. A server that was killed waits for nothing.
func (r *running) Wait() pool.Ended {
	ended := make(chan pool.Ended, 1)
	go func() { ended <- r.Running.Wait() }() // it ends with the node, which the end of the run waits for
	select {
	case e := <-ended:
		return e
	case <-r.by.life.Done():
		return pool.Ended{Err: errDead(r.by, "wait for node")}
	}
}
