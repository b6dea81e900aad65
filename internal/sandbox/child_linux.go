package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// nobody is the user that programs run as when root starts them in namespaces.
const nobody = 65534

// Main does the work of the child, if this process is one, and doesn't return then. The
// main function of a program that makes a Sandbox calls it first.
func Main() {
	if len(os.Args) < 2 {
		return
	}
	switch os.Args[0] {
	case childName:
		child(os.Args[1])
	case probeName:
		probe(os.Args[1:])
	}
}

// child builds the walls, runs the program, and ends as it does.
func child(files string) {
	// What is set below belongs to a thread: the one that starts the program.
	runtime.LockOSThread()
	n, err := strconv.Atoi(files)
	if err != nil || n < 0 || n > 16 {
		os.Exit(1)
	}
	orders, report := os.NewFile(uintptr(3+n), "orders"), os.NewFile(uintptr(4+n), "report")
	say := func(h hearsay) {
		if text, err := json.Marshal(h); err == nil {
			_, _ = report.Write(text)
		}
	}
	var p plan
	err = closeOnExec(3 + n)
	var text []byte
	if err == nil {
		text, err = io.ReadAll(io.NewSectionReader(orders, 0, 64<<20))
	}
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err == nil {
		err = orders.Close()
	}
	notes := map[Layer]string{}
	if err == nil {
		err = p.wall(notes, 5+n)
	}
	switch {
	case err != nil:
		say(hearsay{Error: err.Error()})
		os.Exit(1)
	case p.Check:
		say(hearsay{Notes: notes})
		os.Exit(0)
	}
	if p.Memory > 0 {
		if err := syscall.Setrlimit(unix.RLIMIT_DATA, &syscall.Rlimit{Cur: uint64(p.Memory), Max: uint64(p.Memory)}); err != nil {
			say(hearsay{Error: fmt.Sprintf("the memory can't be limited to %d bytes: %v", p.Memory, err)})
			os.Exit(1)
		}
	}
	if !p.Spaces {
		if err = os.Chdir(p.WorkDir); err == nil {
			err = syscall.Exec(p.Path, p.Args, p.Env)
		}
		say(hearsay{Error: fmt.Sprintf("%s can't be started: %v", p.Path, err)})
		os.Exit(1)
	}
	status, err := p.run()
	switch {
	case err != nil:
		say(hearsay{Error: err.Error()})
		os.Exit(1)
	case status.Signaled():
		say(hearsay{Ended: true, Code: -1, Signal: int(status.Signal())})
	default:
		say(hearsay{Ended: true, Code: status.ExitStatus()})
	}
	os.Exit(0) // the kernel ends everything that is left in the namespace
}

// closeOnExec keeps open files from the program, from this descriptor on: those of this process, and those that its starter
// inherited itself, such as the lock of a shell or the memory of a notebook.
func closeOnExec(from int) error {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list open files: %w", err)
	}
	for _, f := range open {
		if fd, err := strconv.Atoi(f.Name()); err == nil && fd >= from {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// wall puts the layers into force, from the outer to the inner one. The program's folder is
// handed over through the descriptor, if that is asked for.
func (p *plan) wall(notes map[Layer]string, folder int) error {
	if f, err := os.OpenFile("/proc/self/oom_score_adj", os.O_WRONLY, 0); err == nil {
		_, _ = f.WriteString("1000") // when the machine has no memory left, the program ends before others
		_ = f.Close()
	}
	if p.Spaces && os.Geteuid() == 0 && !known(nobody) {
		return fmt.Errorf("root of this container can't become the user %d, whom the container doesn't know", nobody)
	}
	if p.Spaces {
		note, err := p.mounts(folder)
		if err != nil {
			return err
		}
		notes[Namespaces] = note
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make this process private: %w", err)
	}
	if p.Limits {
		if err := p.limit(); err != nil {
			return err
		}
		notes[Limits] = fmt.Sprintf("files of %d MiB, no core dumps", p.DiskBytes>>20)
		if p.countsProcesses() {
			notes[Limits] += fmt.Sprintf(", %d processes and threads", p.Processes)
		}
	}
	if err := p.dropRights(); err != nil {
		return err
	}
	if p.NNP {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			notes[NoNewPrivs] = absent + err.Error()
		} else {
			notes[NoNewPrivs] = "programs with more rights, such as sudo, run without them"
		}
	}
	if p.Landlock {
		notes[Landlock] = p.landlock()
	}
	if p.Seccomp {
		notes[Seccomp] = p.seccomp()
	}
	return nil
}

// known tells whether a user exists in this process's namespace.
func known(uid int) bool {
	users, err := sameUsers("/proc/self/uid_map")
	return err != nil || slices.ContainsFunc(users, func(m syscall.SysProcIDMap) bool { return m.ContainerID <= uid && uid < m.ContainerID+m.Size })
}

// countsProcesses tells whether the kernel counts the program's processes apart from others
// of the same user.
func (p *plan) countsProcesses() bool { return p.Spaces && p.UserSpace }

// limit sets the limits of this process, which the program inherits.
func (p *plan) limit() error {
	set := func(resource int, what string, n uint64) error {
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("limit the %s: %w", what, err)
		}
		return nil
	}
	if err := set(unix.RLIMIT_CORE, "core dumps", 0); err != nil {
		return err
	}
	if err := set(unix.RLIMIT_FSIZE, "size of files", uint64(p.DiskBytes)); err != nil {
		return err
	}
	if !p.countsProcesses() {
		return nil
	}
	return set(unix.RLIMIT_NPROC, "processes", uint64(p.Processes))
}

// dropRights takes away what root may do, in a namespace and without, from whatever this
// process starts.
func (p *plan) dropRights() error {
	if !p.Spaces && os.Geteuid() != 0 {
		return nil
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL { // a capability that this kernel doesn't know
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop ambient capabilities: %w", err)
	}
	if p.Spaces && os.Geteuid() == 0 {
		return nil // they are needed to become another user, and end with that
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&head, &none[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// run starts the program and waits for its end, as the first process of its namespace,
// which gets all orphans.
func (p *plan) run() (status syscall.WaitStatus, err error) {
	attr := &syscall.ProcAttr{Dir: p.WorkDir, Env: p.Env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{}}
	for i := range p.Files {
		attr.Files = append(attr.Files, uintptr(3+i))
	}
	if os.Geteuid() == 0 {
		attr.Sys.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	pid, err := syscall.ForkExec(p.Path, p.Args, attr)
	if err != nil {
		return status, p.explain(err)
	}
	for i := range p.Files { // only the program holds them now
		_ = syscall.Close(3 + i)
	}
	for {
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return status, fmt.Errorf("wait for the program: %w", err)
		case ended == pid:
			return status, nil
		}
	}
}

// explain says why the program can't be started.
func (p *plan) explain(err error) error {
	if err != syscall.EACCES && err != syscall.ENOENT {
		return fmt.Errorf("%s can't be started: %w", p.Path, err)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s can't be started in %s: %w; are both in a folder that it may see?", p.Path, p.WorkDir, err)
	}
	for _, file := range append([]string{p.Path, p.WorkDir}, p.Read...) {
		for at := file; at != "/" && at != "."; at = filepath.Dir(at) {
			if st, err := os.Stat(at); err == nil && st.Mode().Perm()&0o005 != 0o005 && st.IsDir() {
				return fmt.Errorf("%s can't be started: programs of root run as the user %d, for whom %s isn't readable; start the node as an ordinary user, or make the folder readable", p.Path, nobody, at)
			}
		}
	}
	return fmt.Errorf("%s can't be started in %s as the user %d: %w", p.Path, p.WorkDir, nobody, err)
}

// within tells whether a path is the folder or lies in it.
func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, strings.TrimSuffix(folder, "/")+"/")
}
