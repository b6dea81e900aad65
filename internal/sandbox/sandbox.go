// Package sandbox starts programs in which other people's code runs, such as Python with
// the models of a fleet, so that they see their own folder and nothing else of the machine:
// no other file, no network, no other process, no secret.
//
// It needs no rights: an ordinary user's process is enough. Each means that the kernel has
// is used:
//
//   - namespaces of users, mounts, processes, network and IPC: the program gets a file system
//     of its own, with the parts of the machine that it needs, read-only, and a folder in
//     memory of bounded size;
//   - Landlock: the same for files where mounts aren't possible, TCP, signals;
//   - seccomp: system calls that programs don't need and that attack kernels or other processes;
//   - limits of the process, and no_new_privs.
//
// A program is started in two steps: this binary starts itself again as the child (Main),
// which builds the walls, and then runs the program inside of them.
//
// What is missing on a machine is found by trying (New), and Probe tries what a program can
// still do. The package judges nothing: whether a machine is good enough decides its user.
// It keeps no state beyond a Sandbox, which is safe for concurrent use.
package sandbox

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/fleetscore/fleetscore"
)

// Config says how programs are isolated.
type Config struct {
	// Exe is this program; its main function calls Main before anything else. Empty means
	// that nothing is isolated.
	Exe string
	// Without leaves layers out, for machines where they don't work and for tests.
	Without []Layer
}

// Layer is a means of isolation.
type Layer string

// The layers.
const (
	Namespaces Layer = "namespaces" // a file system, processes, network and IPC of its own
	Landlock   Layer = "landlock"   // files, TCP and signals
	Seccomp    Layer = "seccomp"    // system calls
	Limits     Layer = "limits"     // sizes of files, open files, processes
	NoNewPrivs Layer = "no_new_privs"
)

// Layers are all layers, the strongest first.
var Layers = []Layer{Namespaces, Landlock, Seccomp, Limits, NoNewPrivs}

// State is whether a layer is in force on this machine.
type State struct {
	Layer   Layer
	InForce bool
	Detail  string // what it does, or why it is absent
}

// Spec is a program to be started.
type Spec struct {
	Path    string   // the program; an absolute path
	Args    []string // beginning with the program's name
	Env     []string
	WorkDir string     // the working folder; an absolute path
	Files   []*os.File // its descriptors 3, 4, …
	Stdout  io.Writer
	Stderr  io.Writer
	// Dir is the only folder that the program may write to, besides /tmp. It must exist. With
	// namespaces, the program finds an empty folder in memory there, which ends with it.
	Dir string
	// Make are folders below Dir that the program finds there, such as "output".
	Make []string
	// Keep says that Process.Folder is asked for.
	Keep bool
	// Read are files and folders that the program sees, read-only, besides those of the
	// system's libraries.
	Read []string
	// Write are folders of the machine that the program sees and may write to, by the rights of
	// the user that it runs as. DiskBytes doesn't bound them.
	Write []string
	// DiskBytes bounds what the program writes; 0 means 512 MiB.
	DiskBytes int64
	// Processes bounds its processes and threads; 0 means 512.
	Processes int
	// MemoryBytes bounds the memory of each of its processes, without files; 0 means that there
	// is no limit.
	MemoryBytes int64
}

const (
	usualDisk      = 512 << 20
	usualProcesses = 512
)

// Exit is how a program ended.
type Exit struct {
	Code   int            // -1 if a signal ended it
	Signal syscall.Signal // 0 if none ended it
}

// Err is nil for exit code 0.
func (e Exit) Err() error {
	switch {
	case e.Signal != 0:
		return fmt.Errorf("it was ended by signal %d (%s)", int(e.Signal), e.Signal)
	case e.Code != 0:
		return fmt.Errorf("it ended with exit code %d", e.Code)
	}
	return nil
}

// Process is a program that can be started once.
type Process struct {
	// Cmd is to be started by its Start. It isn't to be waited for but by Wait.
	Cmd    *exec.Cmd
	report *os.File   // what the child says of itself; nil without isolation
	child  []*os.File // the child's ends, to be closed once it has started
	dir    string     // Spec.Dir
	folder *os.File   // by which the child hands its folder over; nil unless it has one of its own
	memory int64      // bytes that the program may take, where no child limits itself
}

// Started releases what only the child needs. It is called once, after Start, also if that
// failed.
func (p *Process) Started(err error) {
	for _, f := range p.child {
		_ = f.Close()
	}
	switch {
	case err == nil && p.memory > 0:
		limitMemory(p.Cmd.Process.Pid, p.memory)
	case err == nil:
	case p.report != nil:
		_ = p.report.Close()
		fallthrough
	default:
		p.Release()
	}
}

// Release gives back what Folder gave.
func (p *Process) Release() {
	if p.folder != nil {
		_ = p.folder.Close()
		p.folder = nil
	}
}

// Kill ends the program and all processes that it started.
func (p *Process) Kill() {
	if p.Cmd.Process != nil {
		_ = syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGKILL)
	}
}

// Wait waits for the end of the program. An error says that it couldn't be isolated, and
// never ran.
func (p *Process) Wait() (Exit, error) {
	waited := p.Cmd.Wait()
	said := hearsay{}
	if p.report != nil {
		said = hear(p.report)
	}
	state := p.Cmd.ProcessState
	switch {
	case said.Error != "":
		return Exit{Code: -1}, fleetscore.Errorf(fleetscore.Unavailable, "isolate program", p.Cmd.Path, "%s", said.Error).
			WithHint("fleetscore node doctor says what this machine can isolate")
	case said.Ended:
		return Exit{said.Code, syscall.Signal(said.Signal)}, nil
	case state == nil:
		return Exit{Code: -1}, waited
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return Exit{-1, status.Signal()}, nil
	}
	return Exit{Code: state.ExitCode()}, nil
}

// Describe tells in one line what is in force.
func (s *Sandbox) Describe() string {
	var in, out []string
	for _, l := range s.States() {
		if l.InForce {
			in = append(in, string(l.Layer))
		} else {
			out = append(out, string(l.Layer))
		}
	}
	text := "isolated by " + strings.Join(in, ", ")
	if len(in) == 0 {
		text = "not isolated"
	}
	if len(out) > 0 {
		text += "; absent: " + strings.Join(out, ", ")
	}
	return text
}
