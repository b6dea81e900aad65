package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/access"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/images"
	"github.com/fleetscore/fleetscore/internal/pool/docker"
)

// containersFolder is what the provider docker keeps on this machine: a socket for agents,
// and a folder for each of their tokens. Other users can't look into it.
func (s *Server) containersFolder() string { return filepath.Join(s.cfg.Dir, "containers") }

func (s *Server) socketFolder() string { return filepath.Join(s.containersFolder(), "server") }

// serveContainers serves agents in containers, which have no network, by a socket. Their
// requests need tokens as all others do.
func (s *Server) serveContainers(ctx context.Context, h http.Handler) error {
	const op = "listen for containers"
	if err := durable.MkdirAll(s.containersFolder(), 0o700); err != nil {
		return fleetscore.Wrap(op, s.containersFolder(), err)
	}
	if err := durable.MkdirAll(s.socketFolder(), 0o755); err != nil {
		return fleetscore.Wrap(op, s.socketFolder(), err)
	}
	file := filepath.Join(s.socketFolder(), docker.SocketName)
	_ = os.Remove(file) // a killed server left it; otherwise listening says why
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", file)
	if err != nil {
		return fleetscore.Errorf(fleetscore.Unavailable, op, file, "%w", err).WithHint("a socket's path may have about 100 characters: choose a shorter --dir")
	}
	if err := os.Chmod(file, 0o666); err != nil { // the container's user isn't this one
		l.Close() // nobody uses it
		return fleetscore.Wrap(op, file, err)
	}
	srv := &http.Server{Handler: h, ConnContext: s.conns.Context, MaxHeaderBytes: 64 << 10, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) }}
	return serveUntil(ctx, srv, func() error { return srv.Serve(s.conns.Listen(l)) })
}

// newDocker builds the provider of containers.
func (s *Server) newDocker() (*docker.Docker, error) {
	if s.cfg.DockerConfig != "" { // better now than at the first pull
		if _, err := docker.FindLogin(s.cfg.DockerConfig, "localhost/any"); err != nil {
			return nil, err
		}
	}
	secret, err := os.ReadFile(s.nodes)
	if err != nil {
		return nil, fleetscore.Wrap("read the nodes' token", s.nodes, err)
	}
	sum := sha256.Sum256(append([]byte("owner of containers "), secret...))
	return docker.New(docker.Config{Host: s.cfg.Docker, Folder: filepath.Join(s.containersFolder(), "nodes"), Socket: s.socketFolder(), Owner: hex.EncodeToString(sum[:8]), Isolation: s.cfg.Isolation},
		docker.Deps{Pool: s.pool, Log: s.log, Login: s.imageLogin, Mounts: s.mountsOf, CheckMount: s.mounts.Check,
			Token: func(ctx context.Context, node fleetscore.NodeID) (string, error) {
				n, err := s.Ledger.Node(ctx, node)
				if err != nil {
					return "", err
				}
				return s.control.CreateNode(ctx, n.Pool, node)
			},
			Forget: func(ctx context.Context, node fleetscore.NodeID) error { return s.control.Remove(ctx, string(node)) }})
}

// ownImage takes the name of an image of this server's own registry apart.
func (s *Server) ownImage(image string) (host, rest string, own bool) {
	host, rest, _ = strings.Cut(image, "/")
	return host, rest, host == s.listener.Addr().String() || "http://"+host == s.URL || "https://"+host == s.URL
}

// pinImage finds the digest that the image of a pool of containers has now; it is empty for
// other pools.
func (s *Server) pinImage(registry *images.Registry) func(ctx context.Context, p fleetscore.PoolConfig) (string, error) {
	return func(ctx context.Context, p fleetscore.PoolConfig) (string, error) {
		if p.Docker == nil {
			return "", nil
		}
		host, rest, own := s.ownImage(p.Docker.Image)
		if !own {
			login, end, err := s.imageLogin(ctx, p.Docker.Image)
			if err != nil {
				return "", err
			}
			defer end()
			return docker.Pin(ctx, s.cfg.Docker, p.Docker.Image, login)
		}
		repository, reference := images.Split(rest)
		d, err := registry.Resolve(ctx, repository, reference)
		return host + "/" + repository + "@" + d, err
	}
}

// credentialLimit is longer than a pull may take.
const credentialLimit = time.Hour

// imageLogin is what an image is pulled with: a token that is made for this pull, if it is one
// of this server's own registry, or what the operator's file has.
func (s *Server) imageLogin(ctx context.Context, image string) (l docker.Login, end func(), err error) {
	_, rest, own := s.ownImage(image)
	switch {
	case !own && s.cfg.DockerConfig != "":
		l, err = docker.FindLogin(s.cfg.DockerConfig, image)
		return l, func() {}, err
	case !own:
		return l, func() {}, nil
	}
	repository, _ := images.Split(rest)
	name := "pull-" + strings.ToLower(hexOf(image)) + "-" + hexOf(s.clock.Now().String())
	_, text, err := s.control.Create(ctx, fleetscore.RoleImagePull, name, s.clock.Now().Add(credentialLimit), repository)
	return docker.Login{User: "fleetscore", Password: text}, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := s.control.Remove(end, name); err != nil {
			s.log.Warn("a token for pulling an image stays until it expires", "token", name, "error", err)
		}
	}, err
}

func hexOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}

// sweepEvery is how often containers are looked for that nobody needs.
const sweepEvery = time.Minute

// forgotten is how long a node of a former server may be silent before its container is
// removed.
const forgotten = 3 * time.Minute

// sweepContainers removes what former servers left, until ctx ends.
func (s *Server) sweepContainers(ctx context.Context, d *docker.Docker) error {
	needed := func(ctx context.Context, id fleetscore.NodeID) (bool, error) {
		n, err := s.Ledger.Node(ctx, id)
		if fleetscore.NotFound.Is(err) {
			return false, nil
		}
		return err == nil && n.State.Speaks() && s.clock.Now().Sub(n.Heartbeat) < forgotten, err
	}
	for {
		problem := ""
		if err := d.Sweep(ctx, needed); err != nil && ctx.Err() == nil {
			problem = err.Error()
			s.log.Error("containers of former servers can't be removed", "error", err)
		}
		s.health.Report("docker", problem)
		timer := time.NewTimer(sweepEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			d.Close()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// mountsOf are the mounts of a pool.
func (s *Server) mountsOf(ctx context.Context, pool string) ([]fleetscore.Mount, error) {
	cfg, _, err := s.applied(ctx)
	if err != nil {
		return nil, err
	}
	return cfg.MountsOf(cfg.Pools[pool].Mounts...), nil
}

// newImages opens the registry of images.
func (s *Server) newImages() (*images.Registry, error) {
	return images.New(images.Config{TempDir: filepath.Join(s.cfg.Dir, "uploads")}, images.Deps{Store: s.store, Now: s.clock.Now,
		May: func(ctx context.Context, repository string, r images.Right) bool {
			need := map[images.Right]fleetscore.Role{images.Pull: fleetscore.RoleImagePull, images.Push: fleetscore.RoleImagePush, images.Delete: fleetscore.RoleOperator}[r]
			return access.CallerOf(ctx).MayImage(repository, need)
		}})
}

// serveImages puts the registry behind the checks of package access. Its refusals have the
// form that the distribution specification asks for.
func (s *Server) serveImages(r *images.Registry) (http.Handler, error) {
	mux := s.control.NewMux(func(w http.ResponseWriter, _ *http.Request, why *access.Refusal) {
		code := "DENIED"
		switch why.Status {
		case http.StatusUnauthorized:
			code = "UNAUTHORIZED"
			w.Header().Set("WWW-Authenticate", `Basic realm="fleetscore", charset="UTF-8"`)
		case http.StatusTooManyRequests:
			code = "TOOMANYREQUESTS"
		}
		images.WriteError(w, why.Status, code, why.Message+" ("+why.Hint+")")
	})
	for _, pattern := range []string{"GET /v2/{name...}", "POST /v2/{name...}", "PUT /v2/{name...}", "PATCH /v2/{name...}", "DELETE /v2/{name...}"} {
		mux.Handle(pattern, r)
	}
	return access.Basic(mux), mux.Err()
}
