package sandbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
)

// probeName is args[0] of the program that tries what it can do.
const probeName = "fleetscore-sandbox-probe"

// targets are what the probe tries to reach, all on this machine.
type targets struct {
	Data, Token string // files of others: readable by everybody, and private
	Secret      string // what is in them, and in the environment of the process Victim
	Victim      int    // a process
	Addresses   []string
	Sockets     []string // of UNIX
	Dir         string
	DiskBytes   int64
	IPC         uint32 // key of what it leaves in the kernel
}

// Probe starts a program, isolated as others are, that tries to break each promise, and
// tells what it could do.
func (s *Sandbox) Probe(ctx context.Context) ([]Finding, error) {
	const op = "try the isolation"
	t := targets{Secret: rand.Text(), DiskBytes: 16 << 20, IPC: 1 + binary.NativeEndian.Uint32([]byte(rand.Text()))}
	defer leftovers(t.IPC)
	bait, err := newBait(ctx, &t)
	defer bait.remove()
	if err != nil {
		return nil, fleetscore.Wrap(op, "", err)
	}
	exe, err := filepath.EvalSymlinks("/proc/self/exe")
	if err != nil {
		return nil, fleetscore.Wrap(op, "", err)
	}
	life, end, err := os.Pipe()
	if err != nil {
		return nil, fleetscore.Wrap(op, "", err)
	}
	defer life.Close()
	text, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	var said, noise bytes.Buffer
	p, err := s.Prepare(Spec{Path: exe, Args: []string{probeName, string(text)}, Env: []string{"HOME=" + t.Dir}, WorkDir: "/", Files: []*os.File{end},
		Stdout: &said, Stderr: &noise, Dir: t.Dir, Read: []string{exe}, DiskBytes: t.DiskBytes})
	if err != nil {
		return nil, errors.Join(err, end.Close())
	}
	runtime.LockOSThread() // the kernel ends the program when the thread ends that started it
	defer runtime.UnlockOSThread()
	err = p.Cmd.Start()
	p.Started(err)
	_ = end.Close()
	if err != nil {
		return nil, fleetscore.Wrap(op, "", err)
	}
	limit := time.AfterFunc(30*time.Second, p.Kill)
	defer limit.Stop()
	defer context.AfterFunc(ctx, p.Kill)()
	exit, err := p.Wait()
	if err != nil {
		return nil, err
	}
	p.Kill() // as everybody does who ends a program
	var found []Finding
	if err := errors.Join(exit.Err(), json.Unmarshal(said.Bytes(), &found)); err != nil {
		return nil, fleetscore.Errorf(fleetscore.Internal, op, "", "the program that tries it: %w; %s", err, fleetscore.Printable(noise.String()))
	}
	if err := bait.alive(); err != nil {
		found = lose(found, Processes, "it ended another process")
	}
	if !ended(life) {
		found = lose(found, Lifetime, "a process that it started went on after its end")
	}
	for _, what := range leftovers(t.IPC) {
		found = lose(found, Lifetime, what+" that it made was there after its end")
	}
	return found, nil
}

// lasting is what the kernel keeps after the process that made it has ended.
var lasting = []struct {
	name   string
	get    func(key, flags uintptr) (id uintptr, e unix.Errno)
	remove func(id uintptr)
}{
	{"shared memory",
		func(key, flags uintptr) (uintptr, unix.Errno) { return call(unix.SYS_SHMGET, key, 1, flags) },
		func(id uintptr) { call(unix.SYS_SHMCTL, id, unix.IPC_RMID, 0) }},
	{"a semaphore",
		func(key, flags uintptr) (uintptr, unix.Errno) { return call(unix.SYS_SEMGET, key, 1, flags) },
		func(id uintptr) { call(unix.SYS_SEMCTL, id, 0, unix.IPC_RMID) }},
	{"a message queue",
		func(key, flags uintptr) (uintptr, unix.Errno) { return call(unix.SYS_MSGGET, key, flags, 0) },
		func(id uintptr) { call(unix.SYS_MSGCTL, id, unix.IPC_RMID, 0) }},
}

func call(number, a, b, c uintptr) (uintptr, unix.Errno) {
	r, _, e := unix.Syscall(number, a, b, c)
	return r, e
}

// leave makes what the kernel keeps.
func (t targets) leave() {
	for _, l := range lasting {
		_, _ = l.get(uintptr(t.IPC), unix.IPC_CREAT|0o666)
	}
}

// leftovers names what a program has left in the kernel, and removes it.
func leftovers(key uint32) (out []string) {
	for _, l := range lasting {
		if id, e := l.get(uintptr(key), 0); e == 0 {
			out = append(out, l.name)
			l.remove(id)
		}
	}
	return out
}

// lose notes that a promise doesn't hold.
func lose(found []Finding, p Promise, detail string) []Finding {
	for i := range found {
		if found[i].Promise != p {
			continue
		}
		if !found[i].Holds {
			detail = found[i].Detail + ", " + detail
		}
		found[i].Holds, found[i].Detail = false, detail
	}
	return found
}

// ended waits until nobody holds the other end of a pipe, for a short while.
func ended(life *os.File) bool {
	_ = life.SetReadDeadline(time.Now().Add(2 * time.Second))
	var b [256]byte
	for {
		if _, err := life.Read(b[:]); err != nil {
			return !errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
}

// bait is what a probe tries to reach.
type bait struct {
	folders []string
	open    []interface{ Close() error }
	victim  *exec.Cmd
	hold    *os.File // closing it ends the victim
	gone    chan struct{}
}

func newBait(ctx context.Context, t *targets) (b *bait, err error) {
	b = &bait{gone: make(chan struct{})}
	for range 2 {
		dir, err := os.MkdirTemp("", "fleetscore-probe-")
		if err != nil {
			return b, err
		}
		b.folders = append(b.folders, dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			return b, err
		}
	}
	others := b.folders[0]
	t.Dir, t.Data, t.Token = b.folders[1], filepath.Join(others, "data"), filepath.Join(others, "token")
	if err := errors.Join(put(t.Data, []byte(t.Secret), 0o644), put(t.Token, []byte(t.Secret), 0o600)); err != nil {
		return b, err
	}
	listen := func(network, address string) net.Addr {
		l, err := (&net.ListenConfig{}).Listen(ctx, network, address)
		if err != nil {
			return nil // this machine has no such addresses
		}
		b.open = append(b.open, l)
		return l.Addr()
	}
	for _, host := range append(ownAddresses(), "127.0.0.1", "::1") {
		if a := listen("tcp", net.JoinHostPort(host, "0")); a != nil {
			t.Addresses = append(t.Addresses, a.String())
		}
	}
	for _, name := range []string{filepath.Join(others, "socket"), "@" + t.Secret[:12]} {
		if listen("unix", name) != nil {
			t.Sockets = append(t.Sockets, name)
		}
	}
	return b, b.start(t)
}

// start starts the process that the probe tries to see, to read and to end.
func (b *bait) start(t *targets) error {
	in, hold, err := os.Pipe()
	if err != nil {
		return err
	}
	b.hold = hold
	b.victim = exec.Command("/proc/self/exe")
	b.victim.Args = []string{probeName, "victim", t.Secret}
	b.victim.Env = []string{"SECRET=" + t.Secret}
	b.victim.Stdin = in
	err = b.victim.Start()
	_ = in.Close()
	if err != nil {
		b.victim = nil
		return err
	}
	t.Victim = b.victim.Process.Pid
	go func() {
		_ = b.victim.Wait()
		close(b.gone)
	}()
	return nil
}

// alive ends the victim, and returns an error if it had ended before.
func (b *bait) alive() error {
	_ = b.hold.Close()
	<-b.gone
	if code := b.victim.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("it ended with %s", b.victim.ProcessState)
	}
	return nil
}

func (b *bait) remove() {
	for _, c := range b.open {
		_ = c.Close()
	}
	if b.hold != nil {
		_ = b.hold.Close()
	}
	if b.victim != nil {
		<-b.gone
	}
	for _, dir := range b.folders {
		_ = os.RemoveAll(dir)
	}
}

// ownAddresses are addresses of this machine that other machines reach.
func ownAddresses() (out []string) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && len(out) < 2 {
			out = append(out, n.IP.String())
		}
	}
	return out
}

// probe is the program that tries; it doesn't return.
func probe(args []string) {
	switch args[0] {
	case "victim": // lives until its input ends
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	case "linger": // lives as long as somebody reads from it
		signal.Ignore(syscall.SIGHUP, syscall.SIGTERM, syscall.SIGPIPE)
		for life := os.NewFile(3, "life"); ; time.Sleep(50 * time.Millisecond) {
			if _, err := life.Write([]byte{0}); err != nil {
				os.Exit(0)
			}
		}
	}
	var t targets
	if err := json.Unmarshal([]byte(args[0]), &t); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	signal.Ignore(syscall.SIGXFSZ)
	t.leave()
	found := []Finding{t.files(), t.secrets(), t.network(), t.processes(), linger(), t.disk()}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// finding is that a promise holds unless something was possible.
func finding(p Promise, tried string, possible []string) Finding {
	if len(possible) > 0 {
		return Finding{p, false, "possible: " + strings.Join(possible, ", ")}
	}
	return Finding{p, true, tried}
}

func (t targets) files() Finding {
	var did []string
	if text, err := os.ReadFile(t.Data); err == nil && string(text) == t.Secret {
		did = append(did, "to read a file of another folder")
	}
	if _, err := os.ReadDir(filepath.Dir(t.Data)); err == nil {
		did = append(did, "to list another folder")
	}
	written := filepath.Join(filepath.Dir(t.Data), "written")
	if put(written, nil, 0o600) == nil {
		did = append(did, "to write into another folder")
	}
	for _, dir := range []string{"/usr", "/etc", "/var/tmp", "/"} {
		file := filepath.Join(dir, "fleetscore-probe")
		if put(file, nil, 0o600) == nil {
			did = append(did, "to write into "+dir)
			_ = os.Remove(file)
		}
	}
	return finding(Files, "other folders can't be read or written", did)
}

func (t targets) secrets() Finding {
	var did []string
	if text, err := os.ReadFile(t.Token); err == nil && string(text) == t.Secret {
		did = append(did, "to read a private file")
	}
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", t.Victim)); err == nil && strings.Contains(string(text), t.Secret) {
		did = append(did, "to read the environment of another process")
	}
	if files, err := filepath.Glob("/proc/[0-9]*/environ"); err == nil {
		for _, f := range files {
			if text, err := os.ReadFile(f); err == nil && bytes.Contains(text, []byte("FLEETSCORE_")) {
				did = append(did, "to read variables of a node or server")
				break
			}
		}
	}
	return finding(Secrets, "private files and environments can't be read", did)
}

func (t targets) network() Finding {
	var did []string
	for _, a := range t.Addresses {
		if c, err := net.DialTimeout("tcp", a, time.Second); err == nil {
			_ = c.Close()
			did = append(did, "to connect to "+a)
		}
	}
	if c, err := net.Dial("udp", "192.0.2.1:9"); err == nil { // an address for examples; nothing is sent
		_ = c.Close()
		did = append(did, "to send to other machines")
	}
	for _, s := range t.Sockets {
		if c, err := net.DialTimeout("unix", s, time.Second); err == nil {
			_ = c.Close()
			kind := "a socket in another folder"
			if s[0] == '@' {
				kind = "an abstract socket"
			}
			did = append(did, "to connect to "+kind)
		}
	}
	return finding(Network, "neither this machine's ports and sockets nor other machines can be reached", did)
}

func (t targets) processes() Finding {
	var did []string
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", t.Victim)); err == nil && strings.Contains(string(text), t.Secret) {
		did = append(did, "to see another process")
	}
	local, remote := make([]byte, 8), uintptr(0x400000)
	to := unix.Iovec{Base: &local[0]}
	to.SetLen(len(local))
	if _, err := unix.ProcessVMReadv(t.Victim, []unix.Iovec{to}, []unix.RemoteIovec{{Base: remote, Len: len(local)}}, 0); err == nil {
		did = append(did, "to read the memory of another process")
	}
	if err := unix.PtraceSeize(t.Victim); err == nil {
		did = append(did, "to trace another process")
	}
	_ = syscall.Kill(t.Victim, syscall.SIGKILL) // who started it sees whether it has ended
	return finding(Processes, "other processes can't be seen, ended or traced", did)
}

// linger leaves a process behind, in a session of its own if possible.
func linger() Finding {
	start := func(own bool) error {
		cmd := exec.Command("/proc/self/exe")
		if exe, err := os.Executable(); err == nil {
			cmd.Path = exe
		}
		cmd.Args, cmd.ExtraFiles, cmd.SysProcAttr = []string{probeName, "linger"}, []*os.File{os.NewFile(3, "life")}, &syscall.SysProcAttr{Setsid: own}
		return cmd.Start()
	}
	if start(true) != nil {
		if err := start(false); err != nil {
			return Finding{Lifetime, false, "no further process can be started to try it: " + err.Error()}
		}
	}
	return Finding{Lifetime, true, "processes that it leaves behind end with it"}
}

// disk writes until it may not, at most twice what it may write in all.
func (t targets) disk() Finding {
	written, block := int64(0), make([]byte, 1<<20)
	for n, dir := range []string{t.Dir, "/tmp", "/dev/shm", "/var/tmp"} {
		var files []string
		for i := 0; written <= 2*t.DiskBytes; i++ {
			file := filepath.Join(dir, "probe-"+strconv.Itoa(n)+"-"+strconv.Itoa(i))
			if err := put(file, slices.Concat(block, block, block, block), 0o600); err != nil {
				_ = os.Remove(file)
				break
			}
			files = append(files, file)
			written += 4 << 20
		}
		defer func() {
			for _, f := range files {
				_ = os.Remove(f)
			}
		}()
	}
	if written > t.DiskBytes {
		return Finding{Disk, false, fmt.Sprintf("possible: to write %d MiB, where %d MiB are allowed", written>>20, t.DiskBytes>>20)}
	}
	return Finding{Disk, true, "what it writes lies in memory of bounded size, and ends with it"}
}
