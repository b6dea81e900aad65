package python

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/sandbox"
	source "github.com/fleetscore/fleetscore/python"
)

// bootstrap reads the worker's program from the socket, in three parts, and runs it. So
// nothing of ours has to be installed or written to a disk.
const bootstrap = `import os, struct
def read(n):
    b = b""
    while len(b) < n:
        part = os.read(3, n - len(b))
        if not part: raise SystemExit
        b += part
    return b
models_source, parent_source, worker_source = [read(struct.unpack("<I", read(4))[0]) for _ in range(3)]
exec(compile(worker_source, "fleetscore/_worker.py", "exec"))`

// parent is an isolated Python process that has imported libraries, never runs a model, and
// makes workers by forking, one after the other. A worker that ends or is ended costs no
// imports that way. What a worker leaves behind must not reach the next one: processes are
// ended, and a parent whose folder has changed is ended too.
//
// It belongs to the worker that it has made, or to the pool while there is none.
type parent struct {
	program *sandbox.Process
	socket  *net.UnixConn
	said    said         // what it prints while it imports
	own     map[int]bool // its processes before it has made a worker
	models  string       // the folder where its workers write models for scripts; empty if they don't
	folder  string       // where its workers write, in memory and nowhere else; empty if that isn't so
	ended   chan struct{}
	exit    sandbox.Exit // once it has ended
	err     error        // why it never ran
}

// order asks a parent for a worker, whose open files come with it: requests, answers, shared memory, and where it prints.
type order struct {
	First  []string `json:"first"`  // modules to import before the folders of modules are known
	Path   []string `json:"path"`   // folders that Python modules are imported from
	Import []string `json:"import"` // modules to import
	Folder string   `json:"folder"` // where nothing may have been left by the last worker
	Models string   `json:"models"` // a folder of the last worker that is removed
}

// message is what a parent says: that it is ready, how it carries out an order, or how a worker has ended.
type message struct {
	Clean bool `json:"clean"` // nothing of the last worker is left; if not, the parent ends
	Forks bool `json:"forks"` // it goes on as a parent; if not, it is now the worker
	// Threaded is a package that starts threads when it is imported, so that the parent can't fork.
	Threaded string `json:"threaded"`
	Signal   int    `json:"signal"`
	Code     int    `json:"code"`
}

// newParent starts a parent, isolated as far as the machine can.
func (p *Pool) newParent(ctx context.Context) (*parent, error) {
	home, err := p.interpreter(ctx)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fleetscore.Wrap("start Python", p.cfg.Python, err)
	}
	par := &parent{socket: ours, ended: make(chan struct{})}
	par.said.stdout, par.said.stderr = raw{to: &par.said, name: stdout}, raw{to: &par.said, name: stderr}
	if p.cfg.Script != "" && !p.cfg.PerModel {
		par.models = filepath.Join(p.cfg.TempDir, "models-"+rand.Text()[:8]) // a worker makes it, in the folder that it sees
	}
	if p.cfg.Sandbox != nil && p.cfg.Sandbox.Has(sandbox.Namespaces) {
		par.folder = p.cfg.TempDir
	}
	par.program, err = p.cfg.Sandbox.Prepare(sandbox.Spec{
		Path: home.Executable, Args: []string{home.Executable, "-u", "-c", bootstrap}, Env: p.environment(), WorkDir: p.cfg.Dir, Files: []*os.File{theirs},
		Stdout: &par.said.stdout, Stderr: &par.said.stderr, Dir: p.cfg.TempDir, Read: slices.Concat(home.Folders, Followed(p.cfg.Path, p.cfg.TempDir), p.cfg.Read, p.ownFolders()), Write: p.cfg.Write, DiskBytes: p.cfg.DiskBytes,
	})
	if err == nil {
		err = p.starter.start(par.program.Cmd)
		par.program.Started(err)
	}
	_ = theirs.Close()
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	p.started.Add(1)
	go func() {
		par.exit, par.err = par.program.Wait()
		close(par.ended)
	}()
	var program []byte
	for _, text := range []string{source.Models, source.Parent, source.Worker} {
		program = append(binary.LittleEndian.AppendUint32(program, uint32(len(text))), text...)
	}
	defer par.bound(ctx, p.cfg.StartLimit)()
	if _, err = ours.Write(program); err == nil {
		_, err = par.listen()
	}
	if err != nil {
		par.end()
		return nil, p.unready(ctx, par)
	}
	par.own = par.program.Descendants()
	return par, nil
}

// unready says why a parent isn't ready that was ended.
func (p *Pool) unready(ctx context.Context, par *parent) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case par.err != nil:
		return par.err
	case par.said.last() != "":
		return fleetscore.Errorf(fleetscore.Invalid, "start Python", p.cfg.Python, "the process wasn't ready; its last words: %s", par.said.last())
	}
	return fleetscore.Errorf(fleetscore.Invalid, "start Python", p.cfg.Python, "it wasn't ready after %s", p.cfg.StartLimit)
}

// bound ends the parent when the time is up, until what it returns is called.
func (par *parent) bound(ctx context.Context, limit time.Duration) (stop func()) {
	canceled, late := context.AfterFunc(ctx, par.program.Kill), time.AfterFunc(limit, par.program.Kill)
	return func() {
		canceled()
		late.Stop()
	}
}

// fork asks for a worker.
func (par *parent) fork(o order, files ...*os.File) (m message, err error) {
	data, err := json.Marshal(o)
	if err != nil {
		return m, err
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	if _, _, err := par.socket.WriteMsgUnix(binary.LittleEndian.AppendUint32(nil, uint32(len(data))), unix.UnixRights(fds...), nil); err != nil {
		return m, err
	}
	if _, err := par.socket.Write(data); err != nil {
		return m, err
	}
	if m, err = par.listen(); err != nil || !m.Clean {
		return m, err
	}
	m.Forks = m.Forks && par.single()
	data = fmt.Appendf(nil, `{"fork": %t}`, m.Forks)
	_, err = par.socket.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(data))), data...))
	return m, err
}

// single tells whether the parent has one thread only: a copy of one with more could wait for ever
// for a thread that it lacks. Not all walls let the parent itself know.
func (par *parent) single() bool {
	pid := par.program.Cmd.Process.Pid
	if par.folder != "" { // in namespaces, the program is what waits for the parent
		if len(par.own) != 1 {
			return false
		}
		for pid = range par.own {
		}
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err == nil && len(threads) == 1
}

// listen reads a message. A parent runs no models, but its memory is as near to them as that of
// a process can be, so that it isn't believed either.
func (par *parent) listen() (m message, err error) {
	var head [4]byte
	if _, err := io.ReadFull(par.socket, head[:]); err != nil {
		return m, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > 1<<10 {
		return m, fmt.Errorf("a message of %d bytes is larger than any can be", n)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(par.socket, data); err != nil {
		return m, err
	}
	return m, json.Unmarshal(data, &m)
}

// wait waits for the end of a worker.
func (par *parent) wait(forked bool) (sandbox.Exit, error) {
	if forked {
		if m, err := par.listen(); err == nil {
			return sandbox.Exit{Code: m.Code, Signal: syscall.Signal(m.Signal)}, nil
		}
		par.program.Kill()
	}
	<-par.ended
	return par.exit, par.err
}

// end ends the process and all workers of it.
func (par *parent) end() {
	par.program.Kill()
	<-par.ended
	_ = par.socket.Close()
	if par.models != "" {
		_ = os.RemoveAll(par.models)
	}
}

// socketPair makes two ends of a connection: one for this process, and one to be given away.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "parent")
	defer f.Close()
	theirs = os.NewFile(uintptr(fds[1]), "socket")
	c, err := net.FileConn(f)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), theirs, nil
}

// takeParent gives a parent that waits to make workers; nil if there is none.
func (p *Pool) takeParent() *parent {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.parents)
	if n == 0 {
		return nil
	}
	par := p.parents[n-1]
	p.parents = p.parents[:n-1]
	return par
}

// giveParent takes a parent back whose worker has ended.
func (p *Pool) giveParent(par *parent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parents = append(p.parents, par)
}

// Bounds of the modules that parents import, which workers name.
const (
	maxModules    = 5_000
	maxModuleName = 200
)

// learn remembers modules of libraries that a worker has imported: parents import them before they
// make further workers.
func (p *Pool) learn(modules []string) {
	if len(modules) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range modules {
		if len(p.modules) < maxModules && len(m) <= maxModuleName && !p.knows[m] && !p.shunned[packageOf(m)] {
			p.knows[m], p.modules = true, append(p.modules, m)
		}
	}
}

// packageOf is the package that a module belongs to.
func packageOf(module string) string {
	name, _, _ := strings.Cut(module, ".")
	return name
}

// shun remembers what parents mustn't import: the package that started a thread in one, or, if the
// parent couldn't tell it, all that workers import.
func (p *Pool) shun(name string, forks bool) {
	if name == "" {
		if !forks {
			p.forget()
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.shunned) < maxModules {
		p.shunned[name] = true
	}
	p.modules = slices.DeleteFunc(p.modules, func(m string) bool { return packageOf(m) == name })
}

// learned are the modules that workers have imported.
func (p *Pool) learned() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.modules)
}

// forget drops what was learned for ever, and tells whether that was anything.
func (p *Pool) forget() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	some := len(p.modules) > 0
	p.modules = nil // and knows stays: they aren't learned again
	return some
}
