package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
)

// childName is the program's name, args[0], by which Main recognises the child.
const childName = "fleetscore-sandbox"

// plan is what the child is told.
type plan struct {
	Path      string
	Args      []string
	Env       []string
	WorkDir   string
	Files     int
	Dir       string
	Make      []string
	Keep      bool
	Read      []string
	Write     []string
	DiskBytes int64
	Processes int
	Memory    int64
	Check     bool // only the walls are built
	Spaces    bool // it runs in namespaces of its own
	UserSpace bool // also of users
	Landlock  bool
	Seccomp   bool
	Limits    bool
	NNP       bool
}

// hearsay is what the child says: how the program ended, or why it couldn't be isolated.
type hearsay struct {
	Error  string
	Ended  bool
	Code   int
	Signal int
	Notes  map[Layer]string // how far a layer is in force
}

func hear(f *os.File) (h hearsay) {
	defer f.Close()
	if text, err := io.ReadAll(f); err == nil && len(text) > 0 && json.Unmarshal(text, &h) != nil {
		h.Error = "what the program that isolates says can't be understood: " + fleetscore.Printable(string(text))
	}
	return h
}

// Sandbox starts isolated programs. A nil Sandbox starts them without isolation.
type Sandbox struct {
	exe    string
	states []State
	plan   plan // the layers in force
}

// New finds out by trying what this machine has.
func New(ctx context.Context, cfg Config) *Sandbox {
	s := &Sandbox{exe: cfg.Exe}
	on := func(l Layer) bool { return cfg.Exe != "" && !slices.Contains(cfg.Without, l) }
	with := plan{Spaces: on(Namespaces), UserSpace: true, Landlock: on(Landlock), Seccomp: on(Seccomp), Limits: on(Limits), NNP: on(NoNewPrivs)}
	var notes map[Layer]string
	var why error
	if cfg.Exe != "" {
		notes, why = s.try(ctx, with)
		if why != nil && with.Spaces && os.Geteuid() == 0 {
			with.UserSpace = false
			notes2, err := s.try(ctx, with)
			if err == nil {
				notes, why = notes2, nil
			}
		}
		if why != nil && with.Spaces {
			with.Spaces, with.UserSpace = false, false
			var err error
			if notes, err = s.try(ctx, with); err != nil {
				why, with = errors.Join(why, err), plan{}
			}
		}
	}
	s.plan = with
	for _, l := range Layers {
		st := State{Layer: l}
		switch note, ok := notes[l]; {
		case !on(l):
			st.Detail = "switched off"
		case ok && strings.HasPrefix(note, absent):
			st.Detail = strings.TrimPrefix(note, absent)
		case ok:
			st.InForce, st.Detail = true, note
		case why != nil:
			st.Detail = why.Error()
			if l == Namespaces {
				st.Detail += restricted()
			}
		}
		s.states = append(s.states, st)
	}
	return s
}

// absent begins a note that says why a layer isn't in force.
const absent = "absent: "

// States are the layers of this machine.
func (s *Sandbox) States() []State {
	if s == nil {
		out := make([]State, len(Layers))
		for i, l := range Layers {
			out[i] = State{Layer: l, Detail: "switched off"}
		}
		return out
	}
	return s.states
}

// Has tells whether a layer is in force.
func (s *Sandbox) Has(l Layer) bool {
	return slices.ContainsFunc(s.States(), func(st State) bool { return st.Layer == l && st.InForce })
}

// OtherUser is the user that programs run as, if it is another one than this process's.
func (s *Sandbox) OtherUser() (uid int, is bool) {
	return nobody, s != nil && s.plan.Spaces && os.Geteuid() == 0
}

// try builds the walls around nothing.
func (s *Sandbox) try(ctx context.Context, with plan) (map[Layer]string, error) {
	dir, err := os.MkdirTemp("", "fleetscore-sandbox-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(dir)
	with.Check, with.Dir, with.WorkDir = true, dir, dir
	p, err := s.prepare(with, Spec{})
	if err != nil {
		return nil, err
	}
	err = p.Cmd.Start()
	p.Started(err)
	if err != nil {
		return nil, namespaceError(err)
	}
	limit := time.AfterFunc(30*time.Second, p.Kill)
	defer limit.Stop()
	defer context.AfterFunc(ctx, p.Kill)()
	_ = p.Cmd.Wait() // the report says more
	said := hear(p.report)
	switch {
	case said.Error != "":
		return nil, errors.New(said.Error)
	case said.Notes == nil:
		return nil, fmt.Errorf("the child ended without a word: %v", p.Cmd.ProcessState)
	}
	return said.Notes, nil
}

// restriction is the setting by which Ubuntu 23.10 and later forbid namespaces to programs
// without a profile.
const restriction = "kernel.apparmor_restrict_unprivileged_userns"

// restricted names that setting, if it is the likely cause.
func restricted() string {
	text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(restriction, ".", "/"))
	if err != nil || strings.TrimSpace(string(text)) != "1" || os.Geteuid() == 0 {
		return ""
	}
	return "; AppArmor forbids it (sysctl " + restriction + "): set that to 0, or give this program a profile with the right userns"
}

func namespaceError(err error) error {
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return errors.New("the kernel, or the container that this machine is, doesn't let this user make namespaces")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EUSERS):
		return errors.New("no further user namespace is allowed (sysctl user.max_user_namespaces)")
	case errors.Is(err, syscall.EINVAL):
		return errors.New("the kernel has no namespaces of users, processes, mounts, network and IPC")
	}
	return err
}

// Prepare makes a process that is to be started by Cmd.Start, from a thread that lives as
// long as the process shall.
func (s *Sandbox) Prepare(spec Spec) (*Process, error) {
	if s == nil || s.exe == "" || !(s.plan.Spaces || s.plan.Landlock || s.plan.Seccomp || s.plan.Limits || s.plan.NNP) {
		cmd := &exec.Cmd{Path: spec.Path, Args: spec.Args, Env: spec.Env, Dir: spec.WorkDir, ExtraFiles: spec.Files, Stdout: spec.Stdout, Stderr: spec.Stderr,
			SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}, WaitDelay: time.Second}
		return &Process{Cmd: cmd, dir: spec.Dir, memory: spec.MemoryBytes}, makeFolders(spec)
	}
	return s.prepare(s.plan, spec)
}

func (s *Sandbox) prepare(with plan, spec Spec) (*Process, error) {
	if !with.Check {
		with.Path, with.Args, with.Env, with.WorkDir, with.Dir, with.Read, with.Write = spec.Path, spec.Args, spec.Env, spec.WorkDir, spec.Dir, spec.Read, spec.Write
		with.Make, with.Keep, with.Memory = spec.Make, spec.Keep && with.Spaces, spec.MemoryBytes
	}
	if !with.Spaces {
		if err := makeFolders(spec); err != nil {
			return nil, err
		}
	}
	with.Files, with.DiskBytes, with.Processes = len(spec.Files), spec.DiskBytes, spec.Processes
	if with.DiskBytes == 0 {
		with.DiskBytes = usualDisk
	}
	if with.Processes == 0 {
		with.Processes = usualProcesses
	}
	text, err := json.Marshal(with)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("fleetscore-sandbox", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fleetscore.Wrap("isolate program", spec.Path, err)
	}
	orders := os.NewFile(uintptr(fd), "orders")
	_, err = orders.WriteAt(text, 0)
	report, said, err2 := os.Pipe()
	if err := errors.Join(err, err2); err != nil {
		return nil, errors.Join(err, orders.Close())
	}
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if with.Spaces {
		attr.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
		if with.UserSpace {
			attr.Cloneflags |= syscall.CLONE_NEWUSER
			if err := mapUsers(attr); err != nil {
				return nil, errors.Join(err, orders.Close(), report.Close(), said.Close())
			}
		}
	}
	p := &Process{report: report, child: []*os.File{orders, said}, dir: spec.Dir}
	if with.Keep {
		if err := p.openFolder(); err != nil {
			return nil, errors.Join(err, orders.Close(), report.Close(), said.Close())
		}
	}
	p.Cmd = &exec.Cmd{Path: s.exe, Args: []string{childName, strconv.Itoa(len(spec.Files))}, Dir: "/", Env: []string{}, // nothing of this process's environment
		ExtraFiles: append(slices.Clone(spec.Files), p.child...), Stdout: spec.Stdout, Stderr: spec.Stderr, SysProcAttr: attr, WaitDelay: time.Second}
	return p, nil
}

// mapUsers says which users the namespace knows: an ordinary user's only itself, root's all.
func mapUsers(attr *syscall.SysProcAttr) error {
	if os.Geteuid() != 0 {
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
		attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP}
		return nil
	}
	var err, err2 error
	attr.UidMappings, err = sameUsers("/proc/self/uid_map")
	attr.GidMappings, err2 = sameUsers("/proc/self/gid_map")
	attr.GidMappingsEnableSetgroups = true
	return errors.Join(err, err2)
}

// sameUsers maps every user of this process's namespace to itself.
func sameUsers(file string) (out []syscall.SysProcIDMap, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		var first, outer, count int
		if _, err := fmt.Sscan(line, &first, &outer, &count); err != nil {
			return nil, fleetscore.Wrap("read map of users", file, err)
		}
		out = append(out, syscall.SysProcIDMap{ContainerID: first, HostID: first, Size: count})
	}
	return out, nil
}

// Descendants are the processes that the program has started, those that these have started, and so on; with
// namespaces also the program itself, which is the child of the process that built the walls. There are none where the
// kernel doesn't tell them. Without namespaces, a process whose parent has ended isn't among them.
func (p *Process) Descendants() map[int]bool {
	out := map[int]bool{}
	for range 2 { // a process whose parent ended meanwhile has moved up
		descend(p.Cmd.Process.Pid, out)
	}
	return out
}

// EndOthers ends all of the program's descendants but those that are kept, and tells whether none is left.
// Where the kernel doesn't tell the descendants, there seem to be none.
func (p *Process) EndOthers(keep map[int]bool) bool {
	for range endRounds {
		held := map[int]int{} // while a process's descriptor is held, its number isn't another one's
		for pid := range p.Descendants() {
			if keep[pid] || gone(pid) {
				continue
			}
			held[pid] = -1
			if fd, err := unix.PidfdOpen(pid, 0); err == nil {
				held[pid] = fd
			}
		}
		if len(held) == 0 {
			return true
		}
		all := p.Descendants()
		for pid, fd := range held {
			if fd < 0 {
				continue
			}
			if all[pid] {
				_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // the next round sees whether that ended it
			}
			_ = unix.Close(fd)
		}
		time.Sleep(endPause)
	}
	return false
}

// Processes end within a few milliseconds after the signal, unless they give much memory back.
const (
	endPause  = 2 * time.Millisecond
	endRounds = 1000
)

// gone tells whether a process has ended, although its parent may not know that yet.
func gone(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, state, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return (strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")) && len(threads) < 2 // its first thread may end before others
}

// descend doesn't list the folders of threads, which takes the kernel far longer than to read one file of each.
func descend(pid int, out map[int]bool) {
	tasks, err := os.Open(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil { // the process has ended
		return
	}
	threads, _ := tasks.Readdirnames(-1) // those that have ended meanwhile have no children
	_ = tasks.Close()
	for _, thread := range threads {
		list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, thread))
		if err != nil { // the thread has ended
			continue
		}
		for _, field := range strings.Fields(string(list)) {
			if child, err := strconv.Atoi(field); err == nil {
				out[child] = true
				descend(child, out)
			}
		}
	}
}
