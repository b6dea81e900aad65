package pool

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/store"
)

// child is a node that runs as a child process.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once it has ended
}

// maxOutput is how much of a node's own output is kept: its end.
const maxOutput = 1 << 20

// output keeps the end of what a node writes.
type output struct {
	mu   sync.Mutex // guards what follows
	text []byte
	cut  bool
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, b...)
	if len(o.text) > 2*maxOutput {
		o.text, o.cut = append(o.text[:0], o.text[len(o.text)-maxOutput:]...), true
	}
	return len(b), nil
}

func (o *output) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cut {
		return append([]byte("(the beginning was left out)\n"), o.text...)
	}
	return o.text
}

// spawn starts a node's process. The token goes by a file's name, never by an
// argument or variable of its own.
func (p *Pools) spawn(n fleetscore.Node) error {
	proof, err := p.proof(n.ID)
	if err != nil {
		return err
	}
	cmd := exec.Command(p.cfg.Executable, "node", "--server", p.cfg.ServerURL, "--pool", n.Pool, "--slots", strconv.Itoa(n.Slots), "--id", string(n.ID))
	cmd.Env = append(withoutCredentials(os.Environ()), "FLEETSCORE_NODE_TOKEN_FILE="+p.cfg.TokenFile,
		"FLEETSCORE_CA_FILE="+p.cfg.CAFile, "FLEETSCORE_TLS_SERVER_NAME="+p.cfg.ServerName, proof)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C on the terminal is the server's to handle
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return fleetscore.Errorf(fleetscore.Unavailable, "start node", string(n.ID), "%w", err)
	}
	c := &child{cmd: cmd, done: make(chan struct{})}
	p.mu.Lock()
	p.running[n.ID] = c
	p.mu.Unlock()
	p.log.Info("node started", "node", n.ID, "pool", n.Pool, "pid", cmd.Process.Pid)
	p.children.Go(func() {
		err := cmd.Wait()
		close(c.done)
		p.reap(n, err, out.bytes())
	})
	return nil
}

// proof is what the environment of a node's process holds if a server of this
// folder started it: only such a process is ever signalled by its number.
func (p *Pools) proof(id fleetscore.NodeID) (string, error) {
	token, err := os.ReadFile(p.cfg.TokenFile)
	if err != nil {
		return "", fleetscore.Errorf(fleetscore.Unavailable, "read the nodes' token", p.cfg.TokenFile, "%w", err)
	}
	mac := hmac.New(sha256.New, token)
	mac.Write([]byte("started as " + string(id)))
	return "FLEETSCORE_NODE_PROOF=" + hex.EncodeToString(mac.Sum(nil)), nil
}

// withoutCredentials leaves out what the server reaches clouds with: nodes ask the
// server.
func withoutCredentials(env []string) []string {
	return slices.DeleteFunc(env, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.ContainsFunc([]string{"AWS_", "AZURE_", "GOOGLE_"}, func(p string) bool { return strings.HasPrefix(name, p) })
	})
}

// reap notes the end of a child and keeps what it wrote.
func (p *Pools) reap(n fleetscore.Node, exit error, text []byte) {
	p.mu.Lock()
	delete(p.running, n.ID)
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	how := "stopped"
	now, err := p.ledger.Node(ctx, n.ID)
	if err == nil && now.State != fleetscore.NodeStopped {
		how = "lost"
		err = p.ledger.SetNodeState(ctx, n.ID, fleetscore.NodeLost)
	}
	if how == "lost" {
		p.crashed(n.Pool, time.Since(n.Started))
	}
	p.starts.WithLabelValues(how).Inc()
	if how == "lost" {
		tail := text
		if i := bytes.LastIndexByte(bytes.TrimSpace(tail), '\n'); i >= 0 {
			tail = tail[i+1:]
		}
		p.log.Error("node ended without a goodbye", "node", n.ID, "exit", fmt.Sprint(exit), "last", string(bytes.TrimSpace(tail)))
	} else {
		p.log.Info("node ended", "node", n.ID)
	}
	if e := store.WriteAll(ctx, p.store, catalog.NodeLog(n.Pool, n.ID), text, store.PutOptions{}); e != nil || err != nil {
		p.log.Error("a node's end could not be recorded", "node", n.ID, "error", err, "log", e)
	}
}

func (p *Pools) kill(id fleetscore.NodeID) {
	p.mu.Lock()
	c := p.running[id]
	p.mu.Unlock()
	if c != nil {
		_ = c.cmd.Process.Kill() // it ended already
	}
}

// stopAll asks all children to end, and kills those that don't in time.
func (p *Pools) stopAll() {
	p.mu.Lock()
	var left []*child
	for _, c := range p.running {
		left = append(left, c)
		_ = c.cmd.Process.Signal(syscall.SIGTERM) // it ended already
	}
	p.mu.Unlock()
	p.stopOrphans()
	limit := time.After(p.cfg.StopLimit)
	for _, c := range left {
		select {
		case <-c.done:
		case <-limit:
			for _, c := range left {
				_ = c.cmd.Process.Kill() // it ended already
			}
			limit = nil
			<-c.done
		}
	}
	p.children.Wait()
}

// stopOrphans asks the nodes to end that a server killed before this one started
// on this machine, if they gave a sign of life just now.
func (p *Pools) stopOrphans() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	nodes, err := p.ledger.Nodes(ctx, "")
	host, hostErr := os.Hostname()
	if err != nil || hostErr != nil {
		p.log.Error("nodes of an earlier server can't be stopped; they end by themselves", "error", err)
		return
	}
	for _, n := range nodes {
		alive := (n.State == fleetscore.NodeReady || n.State == fleetscore.NodeDraining) && time.Since(n.Heartbeat) < 10*time.Second
		p.mu.Lock()
		_, ours := p.running[n.ID]
		p.mu.Unlock()
		if alive && !ours && n.Host == host && n.PID > 1 {
			proof, err := p.proof(n.ID)
			stopped := false
			if err == nil {
				stopped, err = terminate(n.PID, proof)
			}
			if !stopped {
				p.log.Warn("a node of an earlier server can't be stopped, because the process with its number isn't known to be it; it ends by itself",
					"node", n.ID, "pid", n.PID, "error", err)
			}
		}
	}
}
