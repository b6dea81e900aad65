package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// maxNodeBodyBytes bounds a message of a node: a log chunk, or the result of a
// task with its list of files.
const maxNodeBodyBytes = 16 << 20

func (s *server) registerNodeProtocol(api huma.API) {
	op := func(id, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: http.MethodPost, Path: path, Summary: summary, Tags: []string{"node protocol"},
			MaxBodyBytes: maxNodeBodyBytes, BodyReadTimeout: 30 * time.Second,
			SkipValidateBody: true} // a nil slice of a node written in Go is null
	}
	nodes := s.deps.Broker
	add(api, op("register node", "/nodes", "Register a node"), func(ctx context.Context, in *struct{ Body dispatch.Hello }) (*body[dispatch.Welcome], error) {
		if err := ownsNode(ctx, in.Body.Node); err != nil {
			return nil, err
		}
		if c := access.CallerOf(ctx); c.Of != "" && c.Of != in.Body.Pool {
			return nil, &Problem{Kind: fleetscore.Invalid.String(), Op: "check node", Subject: string(in.Body.Node), status: http.StatusForbidden,
				Message: "its credential is for pool " + c.Of + ", not for pool " + in.Body.Pool, Hint: "leave --pool out"}
		}
		n, err := nodes.Register(ctx, in.Body)
		return answer(n), err
	})
	add(api, op("prepared", "/nodes/{id}/prepared", "Report how the setup command of a node ended"), func(ctx context.Context, in *preparedInput) (*struct{}, error) {
		if err := ownsNode(ctx, in.ID); err != nil {
			return nil, err
		}
		return nil, nodes.Prepared(ctx, in.ID, in.Body)
	})
	add(api, op("lease", "/nodes/{id}/lease", "Lease tasks for a node; waits until there are tasks"), func(ctx context.Context, in *leaseInput) (*body[dispatch.LeaseReply], error) {
		if err := ownsNode(ctx, in.ID); err != nil {
			return nil, err
		}
		r, err := nodes.Lease(ctx, in.ID, in.Body)
		return answer(r), err
	})
	add(api, op("heartbeat", "/nodes/{id}/heartbeat", "Report that a node runs, and renew its leases"), func(ctx context.Context, in *heartbeatInput) (*body[dispatch.HeartbeatReply], error) {
		if err := ownsNode(ctx, in.ID); err != nil {
			return nil, err
		}
		r, err := nodes.Heartbeat(ctx, in.ID, in.Body)
		if err == nil && in.Body.Log != nil {
			if e := s.deps.Logs.AppendNodeLog(ctx, in.ID, *in.Body.Log); e != nil { // the heartbeat counts nevertheless
				s.log.Warn("lines of a node's own log are lost", "node", in.ID, "error", e)
			}
		}
		return answer(r), err
	})
	add(api, op("goodbye", "/nodes/{id}/goodbye", "Report that a node ends"), func(ctx context.Context, in *NodePath) (*struct{}, error) {
		if err := ownsNode(ctx, in.ID); err != nil {
			return nil, err
		}
		return nil, nodes.Goodbye(ctx, in.ID)
	})
	add(api, op("append log", "/leases/{id}/logs", "Append to an attempt's log"), func(ctx context.Context, in *logInput) (*struct{}, error) {
		if err := s.holds(ctx, in.ID); err != nil {
			return nil, err
		}
		return nil, s.deps.Logs.AppendLog(ctx, in.ID, in.Body)
	})
	add(api, op("complete", "/leases/{id}/complete", "Report the result of an attempt"), func(ctx context.Context, in *completeInput) (*struct{}, error) {
		if err := s.holds(ctx, in.ID); err != nil {
			return nil, err
		}
		return nil, nodes.Complete(ctx, in.ID, in.Body)
	})
}

// ownsNode refuses callers that don't own the node.
func ownsNode(ctx context.Context, id fleetscore.NodeID) error {
	c := access.CallerOf(ctx)
	if c.Owns(id) {
		return nil
	}
	return &Problem{Kind: fleetscore.Invalid.String(), Op: "check node", Subject: string(id), status: http.StatusForbidden,
		Message: "the node doesn't belong to " + c.String(), Hint: "use a name such as " + c.NodePrefix() + "cpu-1"}
}

// holds refuses callers that don't hold the lease.
func (s *server) holds(ctx context.Context, lease fleetscore.LeaseID) error {
	a, _, err := s.deps.Ledger.Attempt(ctx, lease)
	if err != nil {
		return err
	}
	return ownsNode(ctx, a.Node)
}

// NodePath is the path of a node; exported, because huma ignores embedded types that
// aren't.
type NodePath struct {
	ID fleetscore.NodeID `path:"id"`
}

// LeasePath is the path of a lease.
type LeasePath struct {
	ID fleetscore.LeaseID `path:"id"`
}

type leaseInput struct {
	NodePath
	Body dispatch.LeaseRequest
}

// Resolve removes the deadline for reading the body after the body was read, because
// the deadline would end the wait for work.
func (*leaseInput) Resolve(ctx huma.Context) []error {
	// Not every writer supports deadlines; a writer that doesn't has none to remove.
	_ = ctx.SetReadDeadline(time.Time{})
	return nil
}

type heartbeatInput struct {
	NodePath
	Body dispatch.HeartbeatRequest
}

type preparedInput struct {
	NodePath
	Body dispatch.Preparation
}

type logInput struct {
	LeasePath
	Body dispatch.LogChunk
}

type completeInput struct {
	LeasePath
	Body dispatch.Result
}
