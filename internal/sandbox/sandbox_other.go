//go:build !linux

package sandbox

import (
	"context"
	"os/exec"
	"syscall"
	"time"
)

// Sandbox starts programs. Only Linux isolates them.
type Sandbox struct{}

// hearsay is what a child says.
type hearsay struct {
	Error  string
	Ended  bool
	Code   int
	Signal int
}

func hear(io interface{ Close() error }) hearsay { return hearsay{} }

// New gives a Sandbox that isolates nothing.
func New(context.Context, Config) *Sandbox { return &Sandbox{} }

// Main does nothing.
func Main() {}

// States says that nothing is in force.
func (s *Sandbox) States() (out []State) {
	for _, l := range Layers {
		out = append(out, State{Layer: l, Detail: "only Linux has it"})
	}
	return out
}

// Has tells whether a layer is in force.
func (s *Sandbox) Has(Layer) bool { return false }

// OtherUser is the user that programs run as, if it is another one than this process's.
func (s *Sandbox) OtherUser() (uid int, is bool) { return 0, false }

// Prepare makes a process without isolation. When this process is killed, it ends when it
// next reads a request.
func (s *Sandbox) Prepare(spec Spec) (*Process, error) {
	return &Process{dir: spec.Dir, Cmd: &exec.Cmd{Path: spec.Path, Args: spec.Args, Env: spec.Env, Dir: spec.WorkDir, ExtraFiles: spec.Files, Stdout: spec.Stdout, Stderr: spec.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true}, WaitDelay: time.Second}}, makeWithin(spec.Dir, spec.Make)
}

// limitMemory does nothing.
func limitMemory(int, int64) {}

// Descendants are none: only Linux tells.
func (p *Process) Descendants() map[int]bool { return nil }

// EndOthers does nothing.
func (p *Process) EndOthers(map[int]bool) bool { return false }

// Folder is the program's own folder.
func (p *Process) Folder() (string, error) { return p.dir, nil }

// Probe says that no promise holds.
func (s *Sandbox) Probe(context.Context) (out []Finding, err error) {
	for _, p := range Promises {
		out = append(out, Finding{p, false, "only Linux isolates programs"})
	}
	return out, nil
}
