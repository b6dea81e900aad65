package pool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/program"
)

// ExecDeps is what the provider exec works with.
type ExecDeps struct {
	// Pool returns the settings of a pool, as they are in force now.
	Pool func(ctx context.Context, name string) (fleetscore.PoolConfig, error)
	// Token makes the token by which the agent of a machine reaches the server, and
	// Forget ends it. A token has the name of its machine.
	Token  func(ctx context.Context, machine string) (text string, err error)
	Forget func(ctx context.Context, machine string) error

	ServerURL string       // where agents reach the server, unless the pool says so
	CAFile    string       // certificates that agents trust the server by; may be empty
	Folders   []string     // folders whose programs may be run as commands
	Secrets   string       // folder for files with tokens; a file exists while its start command runs
	Log       *slog.Logger // nil discards
	// Run runs a program until it ends, at most until ctx ends, with these variables
	// added to its environment; nil means as a child process.
	Run func(ctx context.Context, command, env []string, stdout, stderr io.Writer) error
}

// Exec is the provider whose nodes are machines that commands of the user's start and
// stop, such as the command line of a cloud. The machines outlive the server: they are
// stopped by the stop command alone, once their node has ended. A machine that the
// list command prints, but that no node of the ledger lives on, is stopped too.
//
// A command is a program in one of the allowed folders, and gets its data in variables
// of its environment (docs/pools.md lists them).
type Exec struct {
	deps ExecDeps
	log  *slog.Logger
	left chan struct{} // closed by Leave
	once sync.Once
}

// NewExec makes the provider; nothing is started yet.
func NewExec(deps ExecDeps) *Exec {
	e := &Exec{deps: deps, log: deps.Log, left: make(chan struct{})}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.deps.Run == nil {
		e.deps.Run = func(ctx context.Context, command, env []string, stdout, stderr io.Writer) error {
			env = append(without(os.Environ(), ledgerVariables, secretVariables, signInVariables), env...) // with credentials of clouds, which these commands need
			return program.Run(ctx, command, env, stdout, stderr)
		}
	}
	return e
}

// The defaults of a pool of machines.
const (
	commandLimit = 5 * time.Minute
	machineLimit = 10 * time.Minute // from the start command to the registration
)

// machineSuffix ends the name of the node on a machine: a node that uses a token of
// its own begins with the token's name and a dot.
const machineSuffix = ".node"

// NodeID implements Lasting.
func (e *Exec) NodeID(base string) fleetscore.NodeID {
	return fleetscore.NodeID(base + machineSuffix)
}

// machineOf is the name of a node's machine, which the commands get.
func machineOf(id fleetscore.NodeID) string { return strings.TrimSuffix(string(id), machineSuffix) }

// Leave implements Lasting.
func (e *Exec) Leave() { e.once.Do(func() { close(e.left) }) }

func (e *Exec) isLeft() bool {
	select {
	case <-e.left:
		return true
	default:
		return false
	}
}

// Start implements Provider. It returns while the start command runs.
func (e *Exec) Start(ctx context.Context, n fleetscore.Node) (Running, error) {
	const op = "start node"
	c, err := e.deps.Pool(ctx, n.Pool)
	if err != nil {
		return nil, err
	}
	if c.Exec == nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, string(n.ID), "pool %s has no commands", n.Pool).WithHint("write pools.%s.exec in fleet.yaml (docs/pools.md)", n.Pool)
	}
	for _, command := range [][]string{c.Exec.Start, c.Exec.Stop, c.Exec.List} {
		if err := program.Check(command, e.deps.Folders); err != nil {
			return nil, err
		}
	}
	m := &machine{e: e, cfg: *c.Exec, node: n, name: machineOf(n.ID), asked: make(chan struct{}), killed: make(chan struct{}), done: make(chan struct{})}
	go m.run()
	return m, nil
}

// StopEarlier implements Provider. Machines outlive the server, so there is nothing to
// stop: the next server finds those that are no longer needed by the list command.
func (e *Exec) StopEarlier(_ context.Context, n fleetscore.Node) error {
	return fleetscore.Errorf(fleetscore.NotFound, "stop node", string(n.ID), "its machine outlives the server")
}

// List implements Lasting.
func (e *Exec) List(ctx context.Context, pool string) ([]string, error) {
	c, err := e.deps.Pool(ctx, pool)
	if err != nil {
		return nil, err
	}
	if c.Exec == nil {
		return nil, nil
	}
	var out program.Tail
	if err := e.command(ctx, *c.Exec, c.Exec.List, &out, "FLEETSCORE_POOL="+pool); err != nil {
		return nil, err
	}
	return strings.Fields(string(out.Bytes())), nil
}

// Remove implements Lasting.
func (e *Exec) Remove(ctx context.Context, pool, name string) error {
	c, err := e.deps.Pool(ctx, pool)
	if err != nil {
		return err
	}
	if c.Exec == nil {
		return fleetscore.Errorf(fleetscore.Invalid, "stop machine", name, "pool %s has no commands", pool)
	}
	var out program.Tail
	if err := e.command(ctx, *c.Exec, c.Exec.Stop, &out, "FLEETSCORE_POOL="+pool, "FLEETSCORE_MACHINE="+name, "FLEETSCORE_STOP=now"); err != nil {
		return err
	}
	return e.forget(ctx, name)
}

// tokenFile is the file with a machine's token, while its start command runs.
func (e *Exec) tokenFile(machine string) string {
	return filepath.Join(e.deps.Secrets, "token-of-"+machine)
}

// forget ends a machine's token. Its file is there only if the server was killed while
// the start command ran.
func (e *Exec) forget(ctx context.Context, name string) error {
	if err := os.Remove(e.tokenFile(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fleetscore.Wrap("stop machine", name, err)
	}
	if err := e.deps.Forget(ctx, name); err != nil && !fleetscore.NotFound.Is(err) {
		return err
	}
	return nil
}

// command runs a command until it ends, at most as long as the pool allows.
func (e *Exec) command(ctx context.Context, c fleetscore.ExecConfig, command []string, out *program.Tail, env ...string) error {
	if err := program.Check(command, e.deps.Folders); err != nil {
		return err
	}
	limit := c.Timeout.D()
	if limit == 0 {
		limit = commandLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var said program.Tail
	err := e.deps.Run(ctx, command, env, out, &said)
	if text := said.Bytes(); len(text) > 0 {
		e.log.Info("a pool's command wrote", "command", command[0], "stderr", program.LastLine(text))
	}
	if err == nil {
		return nil
	}
	why := fmt.Sprint(err)
	if ctx.Err() != nil {
		why = fmt.Sprintf("it didn't end within %s", limit)
	}
	text := append(bytes.TrimSpace(out.Bytes()), said.Bytes()...)
	return fleetscore.Errorf(fleetscore.Unavailable, "run command", command[0], "%s; its last line: %q", why, program.LastLine(text))
}

// machine is a node on a machine that commands start and stop.
type machine struct {
	e    *Exec
	cfg  fleetscore.ExecConfig
	node fleetscore.Node
	name string

	ask, kill     sync.Once
	asked, killed chan struct{}
	done          chan struct{}
	ended         Ended // written before done is closed
}

// Stop implements Running. It does nothing once the server leaves its machines.
func (m *machine) Stop() {
	if !m.e.isLeft() {
		m.ask.Do(func() { close(m.asked) })
	}
}

// Kill implements Running. It does nothing once the server leaves its machines.
func (m *machine) Kill() {
	if !m.e.isLeft() {
		m.kill.Do(func() { close(m.killed) })
	}
}

// Wait implements Running.
func (m *machine) Wait() Ended {
	<-m.done
	return m.ended
}

// errKilled is how a machine ended that was stopped at once.
var errKilled = errors.New("killed")

// run starts the machine and stops it when it is told to. It ends before that only if
// the server leaves the machine.
func (m *machine) run() {
	defer close(m.done)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-m.e.left:
			cancel()
		case <-ctx.Done():
		}
	}()
	var out program.Tail
	if err := m.start(ctx, &out); err != nil {
		m.ended = Ended{Err: err, Output: out.Bytes()}
		if ctx.Err() != nil {
			m.ended.Left = true
			return
		}
		if e := m.e.Remove(ctx, m.node.Pool, m.name); e != nil { // the command may have made half of it
			m.e.log.Warn("a machine whose start failed can't be stopped; it is tried again if the list command prints it", "machine", m.name, "error", e)
		}
		return
	}
	select {
	case <-m.asked:
	case <-m.killed:
	case <-ctx.Done():
		m.ended.Left = true
		return
	}
	m.ended = m.stop(ctx, &out)
}

// start runs the start command. The token lies in a file while the command runs.
func (m *machine) start(ctx context.Context, out *program.Tail) error {
	token, err := m.e.deps.Token(ctx, m.name)
	if err != nil {
		return err
	}
	file := m.e.tokenFile(m.name)
	defer os.Remove(file)
	if err := durable.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		return fleetscore.Wrap("start node", string(m.node.ID), err)
	}
	server := m.cfg.Server
	if server == "" {
		server = m.e.deps.ServerURL
	}
	return m.e.command(ctx, m.cfg, m.cfg.Start, out, "FLEETSCORE_MACHINE="+m.name, "FLEETSCORE_KIND="+string(m.node.Kind), "FLEETSCORE_ID="+string(m.node.ID), "FLEETSCORE_POOL="+m.node.Pool,
		"FLEETSCORE_SLOTS="+strconv.Itoa(m.node.Slots), "FLEETSCORE_SERVER="+server, "FLEETSCORE_CA_FILE="+m.e.deps.CAFile, "FLEETSCORE_NODE_TOKEN_FILE="+file)
}

// The pauses between the tries of a stop command.
const (
	firstStop = time.Second
	maxStop   = time.Minute
)

// stop runs the stop command until it succeeds, because a machine that runs on costs
// money.
func (m *machine) stop(ctx context.Context, out *program.Tail) Ended {
	for pause := firstStop; ; pause = min(2*pause, maxStop) {
		call, cancel := context.WithCancel(ctx)
		how, killed := "ask", m.killed
		select {
		case <-m.killed:
			how, killed = "now", nil
		default:
		}
		ended := make(chan struct{})
		go func() { // a kill interrupts the polite form of the command
			defer close(ended)
			select {
			case <-killed:
				cancel()
			case <-call.Done():
			}
		}()
		err := m.e.command(call, m.cfg, m.cfg.Stop, out, "FLEETSCORE_MACHINE="+m.name, "FLEETSCORE_POOL="+m.node.Pool, "FLEETSCORE_STOP="+how)
		cancel()
		<-ended
		if err == nil {
			err = m.e.forget(ctx, m.name)
		}
		switch {
		case err == nil && how == "now":
			return Ended{Err: errKilled, Output: out.Bytes()}
		case err == nil:
			return Ended{Output: out.Bytes()}
		case ctx.Err() != nil:
			return Ended{Left: true}
		}
		m.e.log.Error("a machine can't be stopped; it is tried again", "machine", m.name, "pool", m.node.Pool, "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-killed:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}
