package pool

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/program"
)

// LocalConfig says how child processes are started.
type LocalConfig struct {
	ServerURL    string          // where nodes reach the server
	Others       func() []string // where they reach other servers, should that one end; nil means nowhere
	Executable   string          // the program; "" means this one
	TokenFile    string          // file with the token of nodes
	CAFile       string          // certificates that nodes trust the server by; empty where it speaks plain HTTP
	ServerName   string          // the name in the server's certificate; empty where it is the URL's
	Mounts       []string        // folders that mounts may lie in
	Commands     []string        // folders whose programs may prepare nodes
	Python       string          // the interpreter that nodes may score models with; empty where they run no Python
	Environments string          // the folder of their further environments; empty if there is none
	Isolation    string          // how far they isolate it: best, required or off; empty means best
}

// Local is the provider whose nodes are child processes of the server.
type Local struct{ cfg LocalConfig }

// NewLocal makes the provider; nothing is started yet.
func NewLocal(cfg LocalConfig) (*Local, error) {
	if cfg.Executable == "" {
		exe, err := os.Executable()
		if err != nil {
			return nil, fleetscore.Wrap("find this program", "", err)
		}
		cfg.Executable = exe
	}
	return &Local{cfg: cfg}, nil
}

// Start implements Provider. The token goes by a file's name, never by an argument
// or variable of its own.
func (l *Local) Start(_ context.Context, n fleetscore.Node) (Running, error) {
	proof, err := l.proof(n.ID)
	if err != nil {
		return nil, err
	}
	servers := []string{l.cfg.ServerURL}
	if l.cfg.Others != nil {
		servers = append(servers, l.cfg.Others()...)
	}
	cmd := exec.Command(l.cfg.Executable, "node", "--server", strings.Join(servers, ","), "--pool", n.Pool, "--slots", strconv.Itoa(n.Slots), "--id", string(n.ID), "--drain-time", "0s") // a server that ends doesn't wait for tasks
	cmd.Env = append(withoutCredentials(os.Environ()), "FLEETSCORE_NODE_TOKEN_FILE="+l.cfg.TokenFile,
		"FLEETSCORE_CA_FILE="+l.cfg.CAFile, "FLEETSCORE_TLS_SERVER_NAME="+l.cfg.ServerName, "FLEETSCORE_COMMANDS="+strings.Join(l.cfg.Commands, string(os.PathListSeparator)), "FLEETSCORE_MOUNT_ROOT="+strings.Join(l.cfg.Mounts, string(os.PathListSeparator)), "FLEETSCORE_PYTHON="+l.cfg.Python, "FLEETSCORE_ENVIRONMENTS="+l.cfg.Environments, "FLEETSCORE_ISOLATION="+l.cfg.Isolation, "FLEETSCORE_KIND="+string(n.Kind), proof)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C on the terminal is the server's to handle
	c := &child{cmd: cmd}
	cmd.Stdout, cmd.Stderr = &c.out, &c.out
	if err := cmd.Start(); err != nil {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, "start node", string(n.ID), "%w", err)
	}
	return c, nil
}

// StopEarlier implements Provider.
func (l *Local) StopEarlier(_ context.Context, n fleetscore.Node) error {
	const op = "stop node"
	host, err := os.Hostname()
	switch {
	case err != nil:
		return fleetscore.Wrap(op, string(n.ID), err)
	case n.Host != host:
		return fleetscore.Errorf(fleetscore.NotFound, op, string(n.ID), "it runs on another machine, %s", n.Host)
	case n.PID <= 1:
		return fleetscore.Errorf(fleetscore.NotFound, op, string(n.ID), "it never told the number of its process")
	}
	proof, err := l.proof(n.ID)
	if err != nil {
		return err
	}
	stopped, err := terminate(n.PID, proof)
	if err == nil && !stopped {
		return fleetscore.Errorf(fleetscore.NotFound, op, string(n.ID), "the process with its number, %d, isn't known to be it", n.PID)
	}
	return fleetscore.Wrap(op, string(n.ID), err)
}

// proof is what the environment of a node's process holds if a server of this
// folder started it: only such a process is ever signalled by its number.
func (l *Local) proof(id fleetscore.NodeID) (string, error) {
	token, err := os.ReadFile(l.cfg.TokenFile)
	if err != nil {
		return "", fleetscore.Errorf(fleetscore.Unavailable, "read the nodes' token", l.cfg.TokenFile, "%w", err)
	}
	mac := hmac.New(sha256.New, token)
	mac.Write([]byte("started as " + string(id)))
	return "FLEETSCORE_NODE_PROOF=" + hex.EncodeToString(mac.Sum(nil)), nil
}

// withoutCredentials leaves out what the server reaches clouds and databases with: nodes
// ask the server.
func withoutCredentials(env []string) []string {
	return without(env, "AWS_", "AZURE_", "GOOGLE_", "PG", ledgerVariables, secretVariables, signInVariables)
}

// ledgerVariables is how the variables begin that say where the ledger lies.
const ledgerVariables = "FLEETSCORE_LEDGER_"

// How the variables begin that hold secrets of pipelines' commands, which get them with their
// tasks, and the server's secret at the OpenID provider.
const (
	secretVariables = "FLEETSCORE_SECRET_"
	signInVariables = "FLEETSCORE_SIGN_IN_"
)

// without leaves out variables by how their names begin.
func without(env []string, prefixes ...string) []string {
	return slices.DeleteFunc(env, func(v string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(v, p) })
	})
}

// child is a node that runs as a child process.
type child struct {
	cmd *exec.Cmd
	out program.Tail
}

// Stop implements Running.
func (c *child) Stop() { _ = c.cmd.Process.Signal(syscall.SIGTERM) } // an error says that it has ended

// Kill implements Running.
func (c *child) Kill() { _ = c.cmd.Process.Kill() } // an error says that it has ended

// Wait implements Running.
func (c *child) Wait() Ended {
	err := c.cmd.Wait()
	return Ended{Err: err, Output: c.out.Bytes()}
}
