package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/aggregator"
	"github.com/fleetscore/fleetscore/internal/fleet/syncer"
	"github.com/fleetscore/fleetscore/internal/gateway"
	"github.com/fleetscore/fleetscore/internal/ledger"
	"github.com/fleetscore/fleetscore/internal/lifecycle"
	"github.com/fleetscore/fleetscore/internal/obs"
	"github.com/fleetscore/fleetscore/internal/pool"
)

// beatEvery is how often a server says to the others that it lives.
const beatEvery = time.Second

// others are the servers that share the ledger, this one included, as they were a moment
// ago. All methods are safe for concurrent use.
type others struct {
	mu   sync.Mutex // guards what follows
	list []ledger.Server
	said map[string]*report // by the others that live, by name
	lead *report            // of the one that leads, if it isn't this one
}

func (o *others) set(list []ledger.Server) {
	said, lead := map[string]*report{}, (*report)(nil)
	for _, s := range list {
		r := &report{}
		if s.Self || !s.Live || json.Unmarshal(s.Report, r) != nil { // another release may say other things
			continue
		}
		said[s.Name] = r
		if s.Leads {
			lead = r
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list, o.said, o.lead = list, said, lead
}

// leader is what the server says that leads; nil if that is this one, or nobody leads.
func (o *others) leader() *report {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lead
}

// reports are what the other servers say that live.
func (o *others) reports() map[string]*report {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.said
}

func (o *others) all() []ledger.Server {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.list)
}

// secrets are the SHA-256 of the secrets of the nodes that the other servers start.
func (o *others) secrets() (out [][sha256.Size]byte) {
	for _, s := range o.all() {
		if sum, err := hex.DecodeString(s.Nodes); err == nil && len(sum) == sha256.Size && !s.Self {
			out = append(out, [sha256.Size]byte(sum))
		}
	}
	return out
}

// urls are the addresses of the other servers that live.
func (o *others) urls() (out []string) {
	for _, s := range o.all() {
		if s.Live && !s.Self {
			out = append(out, s.URL)
		}
	}
	return out
}

// name is what the other servers know this one by.
func (s *Server) name() string {
	if s.cfg.Name != "" {
		return s.cfg.Name
	}
	host, err := os.Hostname()
	if err != nil {
		host = "server"
	}
	if u, err := url.Parse(s.URL); err == nil {
		host = net.JoinHostPort(host, u.Port())
	}
	return host
}

// maxServerName bounds a server's name, which is part of the name of its readings' source.
const maxServerName = 48

// join makes this server one of those that share the ledger.
func (s *Server) join(ctx context.Context) error {
	if name := s.name(); len(name) > maxServerName || strings.ContainsAny(name, " /@,") {
		return fleetscore.Errorf(fleetscore.Invalid, "share the work", "--name", "the name %q has more than %d bytes, or one of the characters space / @ ,", name, maxServerName)
	}
	secret, err := ensureSecret(s.secret("node-token"))
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(secret))
	if err := s.postgres.Join(ctx, ledger.ServerInfo{Name: s.name(), URL: s.URL, Version: s.cfg.Version, Nodes: hex.EncodeToString(sum[:])}); err != nil {
		return err
	}
	return s.look(ctx)
}

// look learns which servers there are.
func (s *Server) look(ctx context.Context) error {
	list, err := s.postgres.Servers(ctx)
	if err == nil {
		s.others.set(list)
	}
	return err
}

// The most that the clocks of a server and of the database may differ: readings and
// leases carry the times of the server that took them.
const maxAhead = 2 * time.Second

// beat says to the other servers that this one lives, and what they may know of it, until
// ctx ends.
func (s *Server) beat(ctx context.Context, w work) error {
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	for {
		text, err := json.Marshal(s.report(ctx, w))
		if err != nil {
			return err
		}
		ahead, err := s.postgres.Beat(ctx, text)
		if fleetscore.NotFound.Is(err) { // it was silent for so long that it was forgotten
			err = s.join(ctx)
		}
		if err == nil {
			err = s.look(ctx)
		}
		problem := ""
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			problem = err.Error()
		case ahead.Abs() > maxAhead:
			problem = fmt.Sprintf("the clocks of this machine and of the ledger's database differ by %s: let both follow a time server", ahead.Abs().Round(100*time.Millisecond))
		}
		s.health.Report("servers", problem)
		s.warn()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// servers are all servers, for people.
func (s *Server) servers(ctx context.Context) ([]fleetscore.Server, error) {
	if !s.cfg.Shared {
		return []fleetscore.Server{{LeadsSince: &s.started, Name: s.name(), URL: s.URL, Version: s.cfg.Version, State: fleetscore.ServerLeads, Started: s.started, Seen: s.clock.Now().UTC(), Self: true}}, nil
	}
	list, err := s.postgres.Servers(ctx)
	var out []fleetscore.Server
	for _, o := range list {
		state := fleetscore.ServerFollows
		switch {
		case o.Ended:
			state = fleetscore.ServerEnded
		case !o.Live:
			state = fleetscore.ServerSilent
		case o.Leads:
			state = fleetscore.ServerLeads
		}
		var since *time.Time
		if state == fleetscore.ServerLeads {
			since = &o.LeadsSince
		}
		out = append(out, fleetscore.Server{LeadsSince: since, Name: o.Name, URL: o.URL, Version: o.Version, State: state, Started: o.Started, Seen: o.Seen, Self: o.Self})
	}
	return out, err
}

// report is what a server says of itself to the others, each second.
type report struct {
	Problems []obs.Problem           `json:"problems,omitempty"`
	Gateway  gateway.Stats           `json:"gateway"`
	Leads    bool                    `json:"leads,omitempty"`   // what follows is said by the one that leads
	Queries  []aggregator.Status     `json:"queries,omitempty"` // how far they are
	Fleets   map[string]fleetsStatus `json:"fleets,omitempty"`
}

// fleetsStatus says when the models of a fleet were looked at, and why they can't be read.
type fleetsStatus struct {
	Synced  time.Time `json:"synced"`
	Problem string    `json:"problem,omitempty"`
	Kind    string    `json:"kind,omitempty"`
}

func (s *Server) report(ctx context.Context, w work) report {
	out := report{Gateway: s.streams.ownStats()}
	for _, p := range s.health.Problems() {
		if !strings.HasPrefix(p.Part, elsewhere) {
			out.Problems = append(out.Problems, p)
		}
	}
	if !s.streams.leads.on() {
		return out
	}
	out.Leads, out.Queries, out.Fleets = true, s.streams.ownStatus(), map[string]fleetsStatus{}
	if cfg, ready, err := s.applied(ctx); err == nil && ready {
		for name := range cfg.Fleets {
			at, err := w.fleets.Status(name)
			f := fleetsStatus{Synced: at}
			if err != nil {
				f.Problem, f.Kind = err.Error(), fleetscore.KindOf(err).String()
			}
			out.Fleets[name] = f
		}
	}
	return out
}

// elsewhere begins the names of parts of other servers.
const elsewhere = "server "

// warn shows the problems of other servers as warnings of this one, which may work
// nevertheless.
func (s *Server) warn() {
	now := map[string]string{}
	for name, r := range s.others.reports() {
		for _, p := range r.Problems {
			now[elsewhere+name+": "+p.Part] = p.Problem
		}
	}
	for _, p := range s.health.Problems() {
		if strings.HasPrefix(p.Part, elsewhere) && now[p.Part] == "" {
			s.health.Warn(p.Part, "")
		}
	}
	for part, text := range now {
		s.health.Warn(part, text)
	}
}

// fleets are the fleets as all servers see them: the server that leads looks at their models.
type fleets struct {
	*syncer.Syncer
	server *Server
}

// Status is what the server that leads knows.
func (f fleets) Status(name string) (time.Time, error) {
	leader := f.server.others.leader()
	if leader == nil {
		return f.Syncer.Status(name)
	}
	s := leader.Fleets[name]
	if s.Problem == "" {
		return s.Synced, nil
	}
	return s.Synced, fleetscore.Errorf(fleetscore.ParseKind(s.Kind), "", "", "%s", s.Problem)
}

// otherNodes are the secrets of the nodes that other servers start; nil if there are no
// others.
func (s *Server) otherNodes() func() [][sha256.Size]byte {
	if !s.cfg.Shared {
		return nil
	}
	return s.others.secrets
}

// leading does what only one server does: always if this is the only one, else while it
// leads.
func (s *Server) leading(ctx context.Context, w work) error {
	if !s.cfg.Shared {
		return s.term(ctx, w, s.Ledger)
	}
	for {
		t, err := s.postgres.Elect(ctx, s.log)
		if err != nil {
			return err
		}
		s.log.Info("this server leads")
		err = s.term(ctx, w, t, lifecycle.Service{Name: "lease", Last: true, Run: func(ctx context.Context) error { return t.Keep(ctx, s.log) }})
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		if e := t.Resign(ending); e != nil {
			s.log.Warn("another server can lead only when the lease has run out", "error", e)
		}
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.log.Warn("this server leads no more", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second): // a service that can't go on
		}
	}
}

// term does what only one server does, by a view of the ledger that refuses it once
// another one leads.
func (s *Server) term(ctx context.Context, w work, l ledger.Ledger, more ...lifecycle.Service) error {
	metrics := &scope{Registerer: s.metrics}
	defer metrics.unregister()
	local, err := pool.NewLocal(pool.LocalConfig{ServerURL: s.URL, Others: s.others.urls, TokenFile: s.nodes, CAFile: s.caFile(), ServerName: s.serverName(), Mounts: s.cfg.MountRoots, Commands: s.cfg.Commands, Python: s.cfg.Python, Environments: s.cfg.Environments, Isolation: s.cfg.Isolation})
	if err != nil {
		return err
	}
	machines := pool.NewExec(pool.ExecDeps{ServerURL: cmp.Or(s.cfg.Advertise, s.URL), CAFile: s.caFile(), Folders: s.cfg.Commands, Secrets: filepath.Join(s.cfg.Dir, "secrets"), Log: s.log,
		Pool: s.pool, Token: s.machineToken, Forget: s.control.Remove})
	providers := map[string]pool.Provider{"local": local, "exec": machines}
	if s.cfg.Docker != "" {
		containers, err := s.newDocker()
		if err != nil {
			return err
		}
		providers[pool.Docker] = containers
		more = append(more, lifecycle.Service{Name: "containers", Run: func(ctx context.Context) error { return s.sweepContainers(ctx, containers) }})
	}
	pools, err := pool.New(pool.Config{}, pool.Deps{Ledger: l, Store: s.store, Providers: providers, Image: s.pinImage(w.images),
		Log: s.log, Health: s.health, Now: s.clock.Now, Metrics: metrics})
	if err != nil {
		return err
	}
	sched := w.scheduler.With(l)
	return lifecycle.Run(ctx, s.log, append([]lifecycle.Service{
		{Name: "queries", Run: s.streams.lead},
		{Name: "fleets", Run: w.fleets.Run},
		{Name: "logs", Run: w.logs.Run},
		{Name: "scheduler", Run: sched.Run},
		{Name: "nodes", Run: w.broker.With(l).Tend},
		{Name: "pool", Run: pools.Run},
		{Name: "maintenance", Run: func(ctx context.Context) error { return s.maintain(ctx, sched) }},
	}, more...)...)
}
