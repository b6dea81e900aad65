package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/clock"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/ledger"
)

// maxPoll bounds how long a request for tasks may wait.
const maxPoll = 30 * time.Second

// forgetAfter is how long nodes that are gone stay listed.
const forgetAfter = time.Hour

// Register registers a node, also a node that was away and returns.
func (b *Broker) Register(ctx context.Context, h dispatch.Hello) (dispatch.Welcome, error) {
	const op = "register node"
	cfg, _, _, err := b.ledger.Config(ctx)
	if err != nil {
		return dispatch.Welcome{}, err
	}
	pool, ok := cfg.Pools[h.Pool]
	if !ok {
		return dispatch.Welcome{}, fleetscore.Errorf(fleetscore.NotFound, op, string(h.Node), "there is no pool %q", h.Pool)
	}
	if h.Node == "" || len(h.Node) > 100 || h.Slots < 1 || h.Slots > 1024 {
		return dispatch.Welcome{}, fleetscore.Errorf(fleetscore.Invalid, op, string(h.Node), "a node has a name of 1 to 100 bytes and 1 to 1024 slots, not %d", h.Slots)
	}
	if h.Kind != "" && h.Kind != fleetscore.Dedicated && h.Kind != fleetscore.LowPriority {
		return dispatch.Welcome{}, fleetscore.Errorf(fleetscore.Invalid, op, string(h.Node), "%q is no kind of nodes; there are dedicated and low_priority", string(h.Kind))
	}
	now := b.now().UTC()
	n, err := b.ledger.UpdateNode(ctx, h.Node, func(n *fleetscore.Node) error {
		if n.Pool == "" { // people started it; otherwise its pool has said it
			n.Kind = h.Kind
		}
		if n.Pool != "" && n.Pool != h.Pool {
			return fleetscore.Errorf(fleetscore.Conflict, op, string(h.Node), "a node of that name is in pool %s", n.Pool).WithHint("give it another --id")
		}
		if n.Started.IsZero() {
			n.Started = now
		}
		if n.Registered.IsZero() {
			n.Registered = now
		}
		switch {
		case n.State == fleetscore.NodeDraining:
		case (pool.Setup != nil || len(pool.Mounts) > 0) && !h.Prepared:
			n.State = fleetscore.NodePreparing
		default:
			ready(n, now)
		}
		n.Reason, n.LogTail = "", "" // of an earlier life
		n.Pool, n.Slots, n.Host, n.PID, n.Version = h.Pool, h.Slots, h.Host, h.PID, h.Version
		n.Heartbeat = now
		if n.Running == 0 {
			n.IdleSince = now
		}
		return nil
	})
	if err == nil {
		b.log.Info("node registered", "node", n.ID, "pool", n.Pool, "slots", n.Slots, "state", n.State)
	}
	w := dispatch.Welcome{Node: n, Mounts: cfg.MountsOf(pool.Mounts...)}
	if n.State == fleetscore.NodePreparing {
		w.Setup = pool.Setup
	}
	return w, err
}

// ready makes a node take tasks.
func ready(n *fleetscore.Node, now time.Time) {
	n.State = fleetscore.NodeIdle
	if n.Ready.IsZero() {
		n.Ready = now
	}
}

// maxLogTail is how much of the output of a setup command that failed is kept with the
// node.
const maxLogTail = 2 << 10

// Prepared takes how the setup command of a node ended, and whether the node has its mounts. Kind NotFound if the node was
// given up meanwhile: then it has to register again.
func (b *Broker) Prepared(ctx context.Context, id fleetscore.NodeID, p dispatch.Preparation) error {
	const op = "prepare node"
	if len(p.Output) > dispatch.MaxSetupOutputBytes {
		return fleetscore.Errorf(fleetscore.Invalid, op, string(id), "%d bytes of output are more than %d", len(p.Output), dispatch.MaxSetupOutputBytes)
	}
	n, err := b.ledger.UpdateNode(ctx, id, func(n *fleetscore.Node) error {
		now := b.now().UTC()
		switch {
		case n.Pool == "" || n.State.Ended():
			return fleetscore.Errorf(fleetscore.NotFound, op, string(id), "the node isn't known, or was given up: it has to register again")
		case p.Error != "":
			n.State, n.Reason = fleetscore.NodeUnusable, fleetscore.Printable(p.Error)
			n.LogTail = strings.ToValidUTF8(string(p.Output[max(0, len(p.Output)-maxLogTail):]), "")
		case n.State == fleetscore.NodePreparing:
			ready(n, now)
			n.IdleSince = now
		}
		n.Heartbeat = now
		return nil
	})
	if err != nil {
		return err
	}
	if p.Error != "" {
		b.log.Error("node is unusable", "node", id, "pool", n.Pool, "reason", n.Reason)
	} else {
		b.log.Info("node is prepared", "node", id, "pool", n.Pool)
	}
	if len(p.Output) > 0 {
		select {
		case b.outputs <- nodeOutput{n.Pool, id, p.Output}:
		default:
			b.log.Warn("the output of a setup command isn't kept, because many others wait for the store", "node", id)
		}
	}
	return nil
}

// Lease gives tasks to a node. If there are none, it waits for some.
func (b *Broker) Lease(ctx context.Context, id fleetscore.NodeID, req dispatch.LeaseRequest) (dispatch.LeaseReply, error) {
	changes, stop := b.ledger.Watch(ledger.NodeTopic(id))
	defer stop()
	n, err := b.await(ctx, id)
	if err != nil {
		return dispatch.LeaseReply{}, err
	}
	called, leave := b.doors.enter(n.Pool, min(req.Free, n.Slots)) // before it looks at the queue, so that no task is missed
	defer leave()
	end := time.NewTimer(min(max(req.Wait.D(), 0), maxPoll))
	defer end.Stop()
	for {
		if n.State == fleetscore.NodeDraining {
			return dispatch.LeaseReply{Stop: true}, nil
		}
		leased, err := b.ledger.LeaseTasks(ctx, n.Pool, id, min(req.Free, n.Slots-n.Running), b.now(), b.cfg.LeaseTTL)
		switch {
		case fleetscore.Conflict.Is(err): // the node's state changed in between
		case err != nil || len(leased) > 0:
			return b.leases(ctx, leased), err
		default:
			select {
			case <-ctx.Done():
				return dispatch.LeaseReply{}, ctx.Err()
			case <-end.C:
				return dispatch.LeaseReply{}, nil
			case <-called:
			case <-changes:
			}
		}
		if n, err = b.await(ctx, id); err != nil {
			return dispatch.LeaseReply{}, err
		}
	}
}

func (b *Broker) leases(ctx context.Context, leased []ledger.Leased) (out dispatch.LeaseReply) {
	for _, l := range leased {
		c := l.Job.Config
		secrets, refused := b.secrets(c.Command)
		mounts, missing := b.mountsOf(ctx, c)
		image, environment := placeOf(l)
		out.Leases = append(out.Leases, dispatch.Lease{
			ID: l.Attempt.Lease, Task: l.Task.ID, Index: l.Task.Index, Job: l.Job.ID, Pipeline: l.Job.Pipeline, Attempt: l.Attempt.Number,
			Shards: l.Task.Shards, Interval: l.Job.Interval, Dataset: c.Dataset,
			Files: l.Input.Files, Keys: l.Input.Keys, Except: l.Input.Except,
			TimeName: l.Input.TimeName, KeyNames: l.Input.KeyNames, Features: c.Features, FeaturesBy: c.FeaturesBy, Runtime: c.Runtime, Python: c.Python, Code: l.Input.Code, Command: c.Command, Secrets: secrets, Refused: cmp.Or(refused, missing), Mounts: mounts, Label: c.Label, Missing: c.Missing, Image: image, Environment: environment,
			Fleet: c.Fleet, Generation: l.Job.Generation, Store: b.cfg.StoreURL, ModelTimeout: c.Limits.ModelTimeout, Timing: c.Logs.Timed(),
			Tries: c.Limits.Tries, Alone: l.Task.Alone, ModelMemory: int64(c.Limits.ModelMemoryMB) << 20, Quarantined: l.Input.Quarantined, Earlier: l.Input.Earlier,
			Revision: l.Job.Created.UnixMilli(), TTL: fleetscore.Duration(b.cfg.LeaseTTL)})
		b.log.Info("task leased", "task", l.Task.ID, "attempt", l.Attempt.Number, "node", l.Attempt.Node)
	}
	return out
}

// placeOf is the image of the container that a task runs in, and the number of the environment that
// this image is; neither if the task is in no container, or its job was moved to another pool than it was planned for.
func placeOf(l ledger.Leased) (image string, environment int) {
	if l.Job.Image == "" {
		return "", 0
	}
	return cmp.Or(l.Task.Image, l.Job.Image), l.Task.Environment
}

// secrets are the values of a command's secrets, by environment variables, or why it can't
// have them. They are nowhere but in the lease.
func (b *Broker) secrets(c *fleetscore.CommandConfig) (values map[string]string, refused string) {
	if c == nil || len(c.Secrets) == 0 {
		return nil, ""
	}
	values = map[string]string{}
	for variable, name := range c.Secrets {
		if b.secret == nil {
			return nil, "this server gives no secrets to commands"
		}
		v, err := b.secret(name)
		if err != nil {
			return nil, err.Error()
		}
		values[variable] = v
	}
	return values, ""
}

// Heartbeat renews a node and its leases. Kind NotFound if the node is not known, or was
// declared lost: then it has to register again.
func (b *Broker) Heartbeat(ctx context.Context, id fleetscore.NodeID, req dispatch.HeartbeatRequest) (dispatch.HeartbeatReply, error) {
	now := b.now()
	if req.Load != nil {
		req.Load.At = now.UTC()
	}
	n, revoked, err := b.ledger.Renew(ctx, id, req.Leases, req.Load, now, b.cfg.LeaseTTL)
	if err != nil {
		return dispatch.HeartbeatReply{}, err
	}
	if n.State.Ended() {
		return dispatch.HeartbeatReply{}, fleetscore.Errorf(fleetscore.NotFound, "renew node", string(id), "the node is %s: it has to register again", n.State)
	}
	if req.Ending && n.State.Works() {
		n, err = b.ledger.UpdateNode(ctx, id, func(n *fleetscore.Node) error {
			if n.State.Works() && n.Kind == fleetscore.LowPriority {
				n.Reason = fleetscore.PreemptedReason + ": its machine told it to end"
			}
			n.State = fleetscore.NodeDraining
			return nil
		})
		if err != nil {
			return dispatch.HeartbeatReply{}, err
		}
		b.log.Info("node ends and takes no more tasks", "node", id)
	}
	b.surveys.answered(id, req.Measured)
	return dispatch.HeartbeatReply{Revoked: revoked, Stop: n.State == fleetscore.NodeDraining, Measure: b.surveys.orders(id)}, nil
}

// Goodbye ends a node that has stopped.
func (b *Broker) Goodbye(ctx context.Context, id fleetscore.NodeID) error {
	n, err := b.ledger.Node(ctx, id)
	if err != nil {
		return err
	}
	if n.State != fleetscore.NodeUnusable { // why it can't be used is worth more than that it ended
		if err := b.ledger.SetNodeState(ctx, id, fleetscore.NodeStopped); err != nil {
			return err
		}
	}
	b.log.Info("node stopped", "node", id)
	return b.takeBack(ctx, ledger.LeaseFilter{Node: id}, dispatch.Stopped, always("the node stopped"))
}

// Complete takes the result of an attempt. Kind Conflict if its lease was taken
// back: the lease's id is the fencing token. The result of a lease that ended
// with the same result before is taken as repeated.
func (b *Broker) Complete(ctx context.Context, lease fleetscore.LeaseID, r dispatch.Result) error {
	doc, err := json.Marshal(r)
	if err != nil {
		return fleetscore.Wrap("take result", "", err)
	}
	ended, err := b.ledger.EndAttempt(ctx, lease, b.now(), func(l ledger.Leased) (ledger.AttemptEnd, error) {
		if r.Error != "" {
			return b.ended(l, dispatch.EndOf(r), r.Error), nil
		}
		if err := dispatch.Check(l.Task, r); err != nil {
			return ledger.AttemptEnd{}, err
		}
		e := b.ended(l, dispatch.Succeeded, "")
		e.Result = doc
		return e, nil
	})
	if fleetscore.Conflict.Is(err) {
		a, _, findErr := b.ledger.Attempt(ctx, lease)
		if findErr == nil && r.Error == "" && a.State == string(dispatch.Succeeded) {
			return nil // the first answer was lost on its way
		}
	}
	if err != nil {
		return err
	}
	b.count(ended)
	if r.Damaged != "" {
		select {
		case b.damaged <- r.Damaged:
		default:
		}
	}
	return nil
}

// ended is what the end of an attempt means for its task.
func (b *Broker) ended(l ledger.Leased, end dispatch.End, reason string) ledger.AttemptEnd {
	e := ledger.AttemptEnd{State: string(end), Reason: reason, Task: dispatch.After(l.Task, end, reason, l.Job.Config.Limits.Tries)}
	spread := func(n int) float64 { // ids are random, and a replay must have the same waits
		return clock.Spread(fmt.Sprintf("%s/%d/%d", l.Job.Pipeline, l.Job.Interval.To.UnixMicro(), l.Task.Index), n)
	}
	switch end {
	case dispatch.Failed, dispatch.TimedOut:
		e.NotBefore = b.now().Add(dispatch.RetryAfter(e.Task.Failures, spread(e.Task.Failures)))
	case dispatch.Unavailable:
		e.NotBefore = b.now().Add(dispatch.OutageAfter(e.Task.Outages, spread(e.Task.Outages)))
	default: // the task goes on at once, or has ended
	}
	return e
}

func (b *Broker) count(l ledger.Leased) {
	b.metrics.attempts.WithLabelValues(l.Attempt.State).Inc()
	level := b.log.Info
	if l.Attempt.State != string(dispatch.Succeeded) {
		level = b.log.Warn
	}
	level("attempt ended", "task", l.Task.ID, "attempt", l.Attempt.Number, "node", l.Attempt.Node, "end", l.Attempt.State, "reason", l.Attempt.Reason)
}

// always is the same reason for all leases.
func always(reason string) func(ledger.Leased) string {
	return func(ledger.Leased) string { return reason }
}

// takeBack ends leases whose holder is gone.
func (b *Broker) takeBack(ctx context.Context, which ledger.LeaseFilter, end dispatch.End, reason func(ledger.Leased) string) error {
	ended, err := b.ledger.TakeBack(ctx, which, b.now(), func(l ledger.Leased) (ledger.AttemptEnd, error) {
		return b.ended(l, end, reason(l)), nil
	})
	for _, l := range ended {
		b.count(l)
	}
	return err
}

// tendEvery is how often leases and nodes are looked at.
const tendEvery = 500 * time.Millisecond

// tend takes back leases that ran out, and declares nodes lost that gave no sign of life
// for too long. It reads and writes the ledger only, so that a slow store keeps no lease
// from being taken back.
func (b *Broker) tend(ctx context.Context) (next, error) {
	now := b.now()
	problems := []error{b.takeBack(ctx, ledger.LeaseFilter{ExpiredBefore: now}, dispatch.Expired, always("the lease ran out: no heartbeat renewed it"))}
	problems = append(problems, b.limitTimes(ctx, now))
	nodes, err := b.ledger.Neglected(ctx, now.Add(-b.cfg.LostAfter), now.Add(-forgetAfter))
	if err != nil {
		return next{}, errors.Join(append(problems, err)...)
	}
	var silent []fleetscore.NodeID
	old, gone := false, false
	for _, n := range nodes {
		if n.State.Speaks() {
			silent, gone = append(silent, n.ID), true
			continue
		}
		old = old || now.Sub(n.Heartbeat) > forgetAfter
		gone = gone || n.Running > 0
	}
	problems = append(problems, b.lose(ctx, silent, now.Add(-b.cfg.LostAfter)))
	if gone {
		problems = append(problems, b.takeBack(ctx, ledger.LeaseFilter{Gone: true}, dispatch.Lost, func(l ledger.Leased) string { return "node " + string(l.Attempt.Node) + " was lost" }))
	}
	if old {
		problems = append(problems, b.ledger.ForgetNodes(ctx, now.Add(-forgetAfter)))
	}
	return next{Wake: now.Add(tendEvery)}, errors.Join(problems...)
}

// lose declares nodes lost, except those that gave a sign of life just now.
func (b *Broker) lose(ctx context.Context, silent []fleetscore.NodeID, since time.Time) error {
	if len(silent) == 0 {
		return nil
	}
	lost, err := b.ledger.LoseNodes(ctx, silent, since)
	for _, n := range lost {
		b.log.Warn("node is lost", "node", n.ID, "pool", n.Pool, "heartbeat", n.Heartbeat)
	}
	return err
}
