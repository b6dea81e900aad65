package api

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/mount"
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

// MountDetail is a mount of the configuration, as it is on the server's machine.
type MountDetail struct {
	fleetscore.Mount
	Pools    []string `json:"pools" nullable:"false" doc:"whose nodes must have it"`
	OnServer bool     `json:"on_server" doc:"whether the server itself can use it; only fleets whose models lie there need that"`
	Problem  string   `json:"problem" doc:"why the server can't use it; empty if it can"`
}

// MountCheck says where a mount is measured, and with how much.
type MountCheck struct {
	Pool      string `json:"pool,omitempty" doc:"whose nodes measure; empty means the server"`
	SizeBytes int64  `json:"size_bytes,omitempty" minimum:"0" doc:"of the large file; absent means 64 MiB"`
	Files     int    `json:"files,omitempty" minimum:"0" doc:"small files; absent means 200"`
}

type mountCheckInput struct {
	Name string `path:"name"`
	Body MountCheck
}

// measureWithin is how long the answers of nodes are waited for: they hear of the order with
// their next sign of life, and answer with one after the measurement.
const measureWithin = 90 * time.Second

func (s *server) registerMounts(api huma.API) {
	add(api, huma.Operation{OperationID: "list mounts", Method: http.MethodGet, Path: "/mounts", Tags: []string{"pools"}, Summary: "Mounts, as they are on the server"}, s.listMounts)
	add(api, huma.Operation{OperationID: "check mount", Method: http.MethodPost, Path: "/mounts/{name}/check", Tags: []string{"pools"},
		Summary: "Check and measure a mount, on the server or on the nodes of a pool"}, s.checkMount)
}

func (s *server) listMounts(ctx context.Context, _ *struct{}) (*body[List[MountDetail]], error) {
	cfg, err := s.configured(ctx)
	if err != nil {
		return nil, err
	}
	var out []MountDetail
	for _, m := range cfg.MountsOf(slices.Collect(maps.Keys(cfg.Mounts))...) {
		v := MountDetail{Mount: m, Pools: []string{}, OnServer: true}
		for _, pool := range slices.Sorted(maps.Keys(cfg.Pools)) {
			if slices.Contains(cfg.Pools[pool].Mounts, m.Name) {
				v.Pools = append(v.Pools, pool)
			}
		}
		if err := s.deps.Mounts.Check(ctx, m); err != nil {
			v.OnServer, v.Problem = false, err.Error()
		}
		out = append(out, v)
	}
	return answerList(out, ""), nil
}

func (s *server) checkMount(ctx context.Context, in *mountCheckInput) (*body[List[fleetscore.MountReport]], error) {
	const op = "check mount"
	cfg, err := s.configured(ctx)
	if err != nil {
		return nil, err
	}
	m, ok := cfg.Mounts[in.Name]
	switch {
	case !ok:
		return nil, fleetscore.Errorf(fleetscore.NotFound, op, in.Name, "there is no such mount").WithHint("fleetscore mount list shows all mounts")
	case in.Body.SizeBytes > mount.MaxSizeBytes || in.Body.Files > mount.MaxFiles:
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, in.Name, "at most %s and %d files are measured", fleetscore.Size(mount.MaxSizeBytes), mount.MaxFiles)
	}
	named := fleetscore.Mount{Name: in.Name, MountConfig: m}
	if in.Body.Pool == "" {
		return answerList([]fleetscore.MountReport{s.deps.Mounts.Survey(ctx, named, mount.Options{SizeBytes: in.Body.SizeBytes, Files: in.Body.Files})}, ""), nil
	}
	p, ok := cfg.Pools[in.Body.Pool]
	switch {
	case !ok:
		return nil, fleetscore.Errorf(fleetscore.NotFound, op, in.Body.Pool, "there is no such pool").WithHint("fleetscore pool list shows all pools")
	case !slices.Contains(p.Mounts, in.Name):
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, in.Name, "the nodes of pool %s needn't have this mount", in.Body.Pool).WithHint("write it under pools.%s.mounts", in.Body.Pool)
	}
	ctx, cancel := context.WithTimeout(ctx, measureWithin)
	defer cancel()
	out, err := s.deps.Broker.MeasureMount(ctx, in.Body.Pool, dispatch.MountOrder{Mount: named, SizeBytes: in.Body.SizeBytes, Files: in.Body.Files})
	return answerList(out, ""), err
}
