// Package docker is the provider of nodes that are containers of a Docker engine.
//
// A container runs the agent, which is this program, mounted into it; so any image will do.
// It has no network: the agent reaches the server by a socket in a folder that is mounted.
// Its user isn't root, its root is read-only, and it has no capabilities; docs/docker.md
// tells what isn't isolated. Containers carry labels by which those are found that a killed
// server left.
//
// All methods are safe for concurrent use. Each node has a goroutine until Wait returns.
package docker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/pool"
)

// Config says how containers are made.
type Config struct {
	Host       string   // address of the engine, such as unix:///var/run/docker.sock
	Executable string   // the agent; "" means this program
	Folder     string   // of this machine, for the containers' tokens; it is made if absent
	Socket     string   // folder with the socket SocketName, by which agents reach the server
	Owner      string   // tells this server's containers from those of other servers
	Isolation  string   // how far agents isolate Python: best, required or off; empty means best
	Env        []string // more variables of the agents' environment
}

// SocketName is the socket in the folder Config.Socket.
const SocketName = "server.sock"

// Deps is what the provider works with.
type Deps struct {
	// Pool returns the settings of a pool, as they are in force now.
	Pool func(ctx context.Context, name string) (fleetscore.PoolConfig, error)
	// Mounts are the mounts of a pool, which the containers get at the same paths, and
	// CheckMount says why one can't be used on this machine. If both are nil, there are none.
	Mounts     func(ctx context.Context, pool string) ([]fleetscore.Mount, error)
	CheckMount func(ctx context.Context, m fleetscore.Mount) error
	// Token makes the token by which the agent of a node reaches the server, and Forget
	// ends it.
	Token  func(ctx context.Context, node fleetscore.NodeID) (text string, err error)
	Forget func(ctx context.Context, node fleetscore.NodeID) error
	// Login is what an image is pulled with, and a function that ends it; a zero login for
	// images that need none.
	Login func(ctx context.Context, image string) (l Login, end func(), err error)
	Log   *slog.Logger // nil discards
}

// Docker is the provider.
type Docker struct {
	cfg  Config
	deps Deps
	log  *slog.Logger
	api  *client.Client

	settled time.Duration // see there

	mu    sync.Mutex // guards what follows
	pulls map[string]*pull
	nodes map[fleetscore.NodeID]bool // that this provider started and that haven't ended
}

// pull is a pull of an image that is under way, or has ended well.
type pull struct {
	done chan struct{}
	err  error
}

// New builds the provider; nothing is started yet.
func New(cfg Config, deps Deps) (*Docker, error) {
	if cfg.Executable == "" {
		exe, err := os.Executable()
		if err != nil {
			return nil, fleetscore.Wrap("find this program", "", err)
		}
		cfg.Executable = exe
	}
	api, err := client.New(client.WithHost(cfg.Host))
	if err != nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, "find Docker engine", cfg.Host, "%w", err).WithHint("write for example --docker unix:///var/run/docker.sock")
	}
	d := &Docker{cfg: cfg, deps: deps, log: deps.Log, api: api, settled: settled, pulls: map[string]*pull{}, nodes: map[fleetscore.NodeID]bool{}}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	return d, nil
}

// Close lets go of the connections to the engine.
func (d *Docker) Close() { _ = d.api.Close() } // it only closes idle connections

// The labels of containers.
const (
	ownerLabel = "fleetscore.owner"
	nodeLabel  = "fleetscore.node"
)

// apiLimit bounds one call of the engine that doesn't wait for anything.
const apiLimit = 30 * time.Second

// Start implements pool.Provider. It returns while the image is pulled.
func (d *Docker) Start(ctx context.Context, n fleetscore.Node) (pool.Running, error) {
	const op = "start node"
	c, err := d.deps.Pool(ctx, n.Pool)
	if err != nil {
		return nil, err
	}
	if c.Docker == nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, string(n.ID), "pool %s names no image", n.Pool).WithHint("write pools.%s.docker.image in fleet.yaml (docs/docker.md)", n.Pool)
	}
	call, cancel := context.WithTimeout(ctx, apiLimit)
	defer cancel()
	if _, err := d.api.Ping(call, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, op, string(n.ID), "the Docker engine at %s doesn't answer: %w", d.cfg.Host, err).WithHint("start it, or correct --docker")
	}
	life, kill := context.WithCancel(context.Background())
	r := &running{d: d, node: n, cfg: pinned(*c.Docker, n), asked: make(chan struct{}), life: life, kill: kill, done: make(chan struct{})}
	d.mu.Lock()
	d.nodes[n.ID] = true
	d.mu.Unlock()
	go r.run()
	return r, nil
}

// pinned is the settings of a node, whose image doesn't change when a tag moves.
func pinned(c fleetscore.DockerConfig, n fleetscore.Node) fleetscore.DockerConfig {
	if n.Image != "" {
		c.Image = n.Image
	}
	return c
}

// StopEarlier implements pool.Provider.
func (d *Docker) StopEarlier(ctx context.Context, n fleetscore.Node) error {
	const op = "stop node"
	ctx, cancel := context.WithTimeout(ctx, apiLimit)
	defer cancel()
	found, err := d.list(ctx, nodeLabel+"="+string(n.ID))
	if err != nil {
		return fleetscore.Errorf(fleetscore.Unavailable, op, string(n.ID), "%w", err)
	}
	if len(found) == 0 {
		return fleetscore.Errorf(fleetscore.NotFound, op, string(n.ID), "the Docker engine has no such container")
	}
	_, err = d.api.ContainerKill(ctx, found[0].ID, client.ContainerKillOptions{Signal: "SIGTERM"})
	return fleetscore.Wrap(op, string(n.ID), err)
}

// list finds containers of this server.
func (d *Docker) list(ctx context.Context, labels ...string) ([]container.Summary, error) {
	l, err := d.api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", append(labels, ownerLabel+"="+d.cfg.Owner)...)})
	return l.Items, err
}

// Sweep removes what former servers left: containers that have ended, and those whose
// nodes needed doesn't know any more.
func (d *Docker) Sweep(ctx context.Context, needed func(ctx context.Context, id fleetscore.NodeID) (bool, error)) error {
	found, err := d.list(ctx)
	if err != nil {
		return fleetscore.Errorf(fleetscore.Unavailable, "clean up containers", d.cfg.Host, "%w", err)
	}
	for _, c := range found {
		id := fleetscore.NodeID(c.Labels[nodeLabel])
		d.mu.Lock()
		ours := d.nodes[id]
		d.mu.Unlock()
		if ours {
			continue
		}
		if c.State == container.StateRunning {
			keep, err := needed(ctx, id)
			if err != nil {
				return err
			}
			if keep {
				continue
			}
		}
		d.log.Warn("a container that an earlier server left is removed", "node", id, "container", c.ID)
		if err := d.remove(ctx, c.ID, id); err != nil {
			return err
		}
	}
	return nil
}

// remove removes a container and its token.
func (d *Docker) remove(ctx context.Context, containerID string, id fleetscore.NodeID) error {
	_, err := d.api.ContainerRemove(ctx, containerID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if errdefs.IsNotFound(err) {
		err = nil
	}
	if e := os.RemoveAll(d.folder(id)); err == nil {
		err = e
	}
	if e := d.deps.Forget(ctx, id); err == nil && !fleetscore.NotFound.Is(e) {
		err = e
	}
	return fleetscore.Wrap("remove container", string(id), err)
}

// folder is the folder of a node that is mounted into its container.
func (d *Docker) folder(id fleetscore.NodeID) string { return filepath.Join(d.cfg.Folder, string(id)) }

// pulled makes sure that the engine has an image. Of several nodes that need it, one
// pulls.
func (d *Docker) pulled(ctx context.Context, image string) error {
	for {
		d.mu.Lock()
		p := d.pulls[image]
		mine := p == nil
		if mine {
			p = &pull{done: make(chan struct{})}
			d.pulls[image] = p
		}
		d.mu.Unlock()
		if mine {
			p.err = d.pull(ctx, image)
			d.mu.Lock()
			delete(d.pulls, image) // the next one asks the engine, which answers fast
			d.mu.Unlock()
			close(p.done)
			return p.err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			if p.err == nil || ctx.Err() != nil || !errors.Is(p.err, context.Canceled) {
				return p.err
			} // the node that pulled was killed meanwhile
		}
	}
}

// Fetch implements pool.Fetcher.
func (d *Docker) Fetch(ctx context.Context, image string) error { return d.pulled(ctx, image) }

// pullLimit bounds a pull.
const pullLimit = 30 * time.Minute

func (d *Docker) pull(ctx context.Context, image string) error {
	ctx, cancel := context.WithTimeout(ctx, pullLimit)
	defer cancel()
	if _, err := d.api.ImageInspect(ctx, image); err == nil {
		return nil
	} else if !errdefs.IsNotFound(err) {
		return fleetscore.Errorf(fleetscore.Unavailable, "find image", image, "%w", err)
	}
	login, end, err := d.deps.Login(ctx, image)
	if err != nil {
		return err
	}
	defer end()
	auth, err := login.encode()
	if err != nil {
		return fleetscore.Wrap("pull image", image, err)
	}
	d.log.Info("an image is pulled", "image", image)
	resp, err := d.api.ImagePull(ctx, image, client.ImagePullOptions{RegistryAuth: auth})
	if err == nil {
		err = resp.Wait(ctx)
	}
	switch {
	case err != nil && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fleetscore.Errorf(fleetscore.Unavailable, "pull image", image, "%w", err).WithHint("the registry speaks plain HTTP, and the engine expects TLS: start the server with TLS, or tell the engine about its registry (docs/docker.md#podman)")
	case err != nil:
		return fleetscore.Errorf(fleetscore.Unavailable, "pull image", image, "%w", err).WithHint("%s", login.hint("is the name right, and does the engine reach the registry, and is there a login for it in the file of --docker-config? fleetscore image ls shows what the server's own registry has"))
	}
	return nil
}

// running is a node in a container.
type running struct {
	d    *Docker
	node fleetscore.Node
	cfg  fleetscore.DockerConfig

	ask   sync.Once
	asked chan struct{}
	life  context.Context // ends when the node is killed
	kill  context.CancelFunc
	done  chan struct{}
	ended pool.Ended // written before done is closed
}

// Stop implements pool.Running.
func (r *running) Stop() { r.ask.Do(func() { close(r.asked) }) }

// Kill implements pool.Running.
func (r *running) Kill() { r.kill() }

// Wait implements pool.Running.
func (r *running) Wait() pool.Ended {
	<-r.done
	return r.ended
}

// run makes the container, starts it, and waits until it has ended and is removed.
func (r *running) run() {
	defer close(r.done)
	defer r.kill()
	d := r.d
	mounts, usable, err := r.fit()
	id := ""
	if err == nil {
		id, err = r.create(mounts)
	}
	if err == nil {
		r.ended = r.follow(id)
	} else {
		r.ended = pool.Ended{Err: err, Unusable: !usable && r.life.Err() == nil}
	}
	clean, cancel := context.WithTimeout(context.Background(), apiLimit)
	defer cancel()
	if err := d.remove(clean, id, r.node.ID); err != nil && id != "" {
		d.log.Warn("a container can't be removed; it is tried again", "node", r.node.ID, "error", err)
	}
	d.mu.Lock()
	delete(d.nodes, r.node.ID)
	d.mu.Unlock()
}

// fit finds the mounts that the container gets. usable is false if this machine can't keep the
// container's limits or hasn't one of the mounts, as the error says.
func (r *running) fit() (all []fleetscore.Mount, usable bool, err error) {
	call, cancel := context.WithTimeout(r.life, apiLimit)
	defer cancel()
	if err := r.d.keepsLimits(call, r.cfg); err != nil {
		return nil, !fleetscore.Invalid.Is(err), err
	}
	if r.d.deps.Mounts == nil {
		return nil, true, nil
	}
	if all, err = r.d.deps.Mounts(call, r.node.Pool); err != nil {
		return nil, true, err
	}
	for _, m := range all {
		if err := r.d.deps.CheckMount(call, m); err != nil {
			return nil, false, err
		}
	}
	return all, true, nil
}

// create makes the container. It isn't started yet.
func (r *running) create(mounts []fleetscore.Mount) (id string, err error) {
	d := r.d
	if err := d.pulled(r.life, r.cfg.Image); err != nil {
		return "", err
	}
	token, err := d.deps.Token(r.life, r.node.ID)
	if err != nil {
		return "", err
	}
	// Only this user gets into the folder above; in the container, the file has to be
	// readable for the container's user.
	folder := d.folder(r.node.ID)
	if err := os.MkdirAll(d.cfg.Folder, 0o700); err != nil {
		return "", fleetscore.Wrap("start node", string(r.node.ID), err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", fleetscore.Wrap("start node", string(r.node.ID), err)
	}
	if err := durable.WriteFile(filepath.Join(folder, "token"), []byte(token+"\n"), 0o444); err != nil {
		return "", fleetscore.Wrap("start node", string(r.node.ID), err)
	}
	call, cancel := context.WithTimeout(r.life, apiLimit)
	defer cancel()
	podman := isPodman(call, d.api)
	if podman && r.cfg.GPUs != 0 { // it would ignore the request
		return "", fleetscore.Errorf(fleetscore.Invalid, "make container", string(r.node.ID), "pool %s asks for GPUs, which Podman doesn't hand on by Docker's API", r.node.Pool).WithHint("use a Docker engine, or remove pools.%s.docker.gpus", r.node.Pool)
	}
	made, err := d.api.ContainerCreate(call, d.options(r.node, r.cfg, podman, mounts...))
	if err != nil {
		return "", fleetscore.Errorf(fleetscore.Unavailable, "make container", string(r.node.ID), "%w", err)
	}
	return made.ID, nil
}

// isPodman reports whether the engine is Podman's service, which takes some requests another
// way. An engine that doesn't answer now won't make a container either.
func isPodman(ctx context.Context, api *client.Client) bool {
	v, err := api.ServerVersion(ctx, client.ServerVersionOptions{})
	return err == nil && slices.ContainsFunc(v.Components, func(c system.ComponentVersion) bool { return c.Name == "Podman Engine" })
}

// The defaults of a container.
const (
	defaultUser      = "65534:65534"
	defaultProcesses = 512
	defaultTmpMB     = 256
	logSize          = "1m" // of what a container writes itself; tasks' logs go to the server
)

// options say how the container of a node is made.
func (d *Docker) options(n fleetscore.Node, c fleetscore.DockerConfig, podman bool, mounts ...fleetscore.Mount) client.ContainerCreateOptions {
	user, processes, tmp := c.User, int64(c.Processes), c.TmpMB
	if user == "" {
		user = defaultUser
	}
	if processes == 0 {
		processes = defaultProcesses
	}
	if tmp == 0 {
		tmp = defaultTmpMB
	}
	uid, gid, _ := strings.Cut(user, ":")
	gid = cmp.Or(gid, "0") // as the engine has it
	// Where the image has a folder /tmp, a Docker engine gives the mount that folder's rights,
	// whatever mode says; so it has to belong to the user. Podman refuses that, and heeds mode.
	tmpfs := fmt.Sprintf("rw,nosuid,nodev,size=%dm,mode=1777", tmp)
	if !podman {
		tmpfs += fmt.Sprintf(",uid=%s,gid=%s", uid, gid)
	}
	yes := true
	host := &container.HostConfig{
		NetworkMode:    "none",
		ReadonlyRootfs: true,
		Tmpfs:          map[string]string{"/tmp": tmpfs},
		CapDrop:        []string{"ALL"},
		SecurityOpt:    []string{"no-new-privileges"},
		Init:           &yes, // it collects orphans of scripts
		IpcMode:        "private",
		LogConfig:      container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": logSize, "max-file": "1"}},
		Mounts: []mount.Mount{
			{Type: mount.TypeBind, Source: d.cfg.Executable, Target: "/fleetscore/agent", ReadOnly: true},
			{Type: mount.TypeBind, Source: d.folder(n.ID), Target: "/fleetscore/node", ReadOnly: true},
			{Type: mount.TypeBind, Source: d.cfg.Socket, Target: "/fleetscore/server", ReadOnly: true},
		},
		Resources: container.Resources{NanoCPUs: int64(c.CPUs * 1e9), Memory: int64(c.MemoryMB) << 20, MemorySwap: int64(c.MemoryMB) << 20, PidsLimit: &processes},
	}
	for _, m := range mounts {
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeBind, Source: m.Path, Target: m.Path, ReadOnly: !m.Writable()})
	}
	if c.GPUs != 0 {
		host.DeviceRequests = []container.DeviceRequest{{Count: c.GPUs, Capabilities: [][]string{{"gpu"}}}}
	}
	env := append([]string{"HOME=/tmp", "FLEETSCORE_NODE_TOKEN_FILE=/fleetscore/node/token", "FLEETSCORE_COMMANDS=/:/usr/local/bin:/usr/bin:/bin", "FLEETSCORE_KIND=" + string(n.Kind), "FLEETSCORE_PYTHON=" + c.Python, "FLEETSCORE_ENVIRONMENTS=" + c.Environments, "FLEETSCORE_MOUNT_ROOT=/",
		"FLEETSCORE_ISOLATION=" + d.cfg.Isolation, "FLEETSCORE_BLOBS=server"}, d.cfg.Env...)
	labels := map[string]string{ownerLabel: d.cfg.Owner, nodeLabel: string(n.ID), "fleetscore.pool": n.Pool}
	return client.ContainerCreateOptions{
		Name: "fleetscore-" + strings.ReplaceAll(string(n.ID), "~", "-"),
		Config: &container.Config{Image: c.Image, User: user, Labels: labels, Env: env, WorkingDir: "/tmp", Entrypoint: []string{"/fleetscore/agent"},
			Cmd: []string{"node", "--server", "unix:///fleetscore/server/" + SocketName, "--pool", n.Pool, "--slots", strconv.Itoa(n.Slots), "--id", string(n.ID), "--drain-time", "0s"}},
		HostConfig: host,
	}
}

// errKilled is how a node ended that was killed.
var errKilled = errors.New("killed")

// follow starts the container and waits until it has ended.
func (r *running) follow(id string) pool.Ended {
	d := r.d
	watch, unwatch := context.WithCancel(r.life)
	wait := d.api.ContainerWait(watch, id, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	call, cancel := context.WithTimeout(r.life, apiLimit)
	_, err := d.api.ContainerStart(call, id, client.ContainerStartOptions{})
	cancel()
	told := false
	defer func() {
		if unwatch(); !told { // the client's goroutine waits until somebody takes its answer
			select {
			case <-wait.Error:
			case <-wait.Result:
			}
		}
	}()
	if err != nil {
		return pool.Ended{Err: fleetscore.Errorf(fleetscore.Unavailable, "start container", string(r.node.ID), "%w", err)}
	}
	asked, young := r.asked, time.After(d.settled)
	for {
		select {
		case <-asked:
			asked = nil
			r.term(id)
		case <-young:
			if young = nil; asked == nil {
				r.term(id)
			}
		case <-r.life.Done():
			return pool.Ended{Err: errKilled, Output: d.output(id)}
		case err := <-wait.Error:
			told = true
			if r.life.Err() != nil {
				return pool.Ended{Err: errKilled, Output: d.output(id)}
			}
			if err == nil {
				err = errors.New("the engine closed the connection")
			}
			return pool.Ended{Err: fleetscore.Errorf(fleetscore.Unavailable, "wait for container", string(r.node.ID), "%w", err)}
		case how := <-wait.Result:
			told = true
			return pool.Ended{Err: r.why(id, how), Output: d.output(id)}
		}
	}
}

// settled is how long a container may take until its first process hears signals. One that
// comes earlier may be lost, as the kernel drops what the first process isn't ready for.
const settled = 10 * time.Second

// term asks the container to end.
func (r *running) term(id string) {
	call, cancel := context.WithTimeout(r.life, apiLimit)
	defer cancel()
	_, err := r.d.api.ContainerKill(call, id, client.ContainerKillOptions{Signal: "SIGTERM"})
	if err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) { // it has ended otherwise
		r.d.log.Warn("a container can't be asked to end", "node", r.node.ID, "error", err)
	}
}

// bySIGKILL is the exit status of a container whose first process, or the one below it, was
// ended by SIGKILL.
const bySIGKILL = 128 + 9

// why is the error that a container ended with, which this provider didn't kill.
func (r *running) why(id string, how container.WaitResponse) error {
	ctx, cancel := context.WithTimeout(context.Background(), apiLimit)
	defer cancel()
	if how.StatusCode == 0 {
		return nil
	}
	if got, err := r.d.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{}); err == nil && got.Container.State != nil && got.Container.State.OOMKilled {
		return fmt.Errorf("exit status %d: it needed more memory than its pool's docker.memory_mb allows", how.StatusCode)
	}
	if how.StatusCode == bySIGKILL && r.cfg.MemoryMB > 0 { // Podman doesn't always notice why
		return fmt.Errorf("exit status %d: something killed it, most likely because it needed more memory than its pool's docker.memory_mb allows", how.StatusCode)
	}
	return fmt.Errorf("exit status %d", how.StatusCode)
}

// maxOutput bounds what is kept of a node's own output.
const maxOutput = 64 << 10

// output is the end of what a container wrote.
func (d *Docker) output(id string) []byte {
	ctx, cancel := context.WithTimeout(context.Background(), apiLimit)
	defer cancel()
	logs, err := d.api.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "1000"})
	if err != nil {
		return nil
	}
	defer logs.Close()
	raw, err := io.ReadAll(io.LimitReader(logs, 16<<20))
	if err != nil {
		return nil
	}
	var out bytes.Buffer
	for len(raw) >= 8 { // each piece has a header: the stream, three zeros, the length
		n := min(int(binary.BigEndian.Uint32(raw[4:8])), len(raw)-8)
		out.Write(raw[8 : 8+n])
		raw = raw[8+n:]
	}
	b := out.Bytes()
	return b[max(0, len(b)-maxOutput):]
}
