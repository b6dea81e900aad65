package sandbox

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// landlock lets this process and its children touch only the program's files. It returns
// what it does.
func (p *plan) landlock() (note string) {
	version, err := landlocksys.LandlockGetABIVersion()
	if err != nil {
		return absent + "the kernel has no Landlock (Linux 5.13 and later have it, unless it is switched off)"
	}
	rules := []landlock.Rule{landlock.RWDirs(p.Dir).WithRefer(), landlock.RWFiles(devices...).IgnoreIfMissing()}
	if p.Spaces {
		rules = append(rules, landlock.RWDirs("/tmp", "/dev/shm").WithRefer(), landlock.RODirs("/etc", "/proc", "/sys").IgnoreIfMissing(), landlock.ROFiles("/dev").IgnoreIfMissing())
	}
	for _, path := range slices.Concat(system, p.Read) {
		if st, err := os.Stat(path); err == nil && st.IsDir() {
			rules = append(rules, landlock.RODirs(path))
		} else if err == nil {
			rules = append(rules, landlock.ROFiles(path))
		}
	}
	for _, path := range p.Write {
		rules = append(rules, landlock.RWDirs(path).WithRefer())
	}
	if err := landlock.V11.BestEffort().Restrict(rules...); err != nil {
		return absent + err.Error()
	}
	note = fmt.Sprintf("version %d: files", version)
	if version >= 4 {
		note += ", TCP"
	}
	if version >= 6 {
		note += ", signals, abstract sockets"
	}
	return note
}

// Audit numbers of the processors whose system calls are known to be numbered as package
// unix says.
var audited = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// forbidden are system calls that reach other processes, change the machine or the walls,
// or get around limits. They fail with EPERM.
var forbidden = []uint32{
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_KCMP, unix.SYS_PIDFD_GETFD,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_FANOTIFY_INIT, unix.SYS_LOOKUP_DCOOKIE,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, // they make other calls unseen
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT, unix.SYS_SYSLOG,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_NFSSERVCTL, unix.SYS_VHANGUP,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
	unix.SYS_MEMFD_CREATE, unix.SYS_MEMFD_SECRET, // memory that no limit counts
	// What outlives the process that made it, and so reaches the worker after it. Semaphores of glibc need none of these.
	unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_SHMCTL, unix.SYS_SEMGET, unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP, unix.SYS_SEMCTL,
	unix.SYS_MSGGET, unix.SYS_MSGSND, unix.SYS_MSGRCV, unix.SYS_MSGCTL, unix.SYS_MQ_OPEN, unix.SYS_MQ_UNLINK,
}

// namespaceFlags are flags of clone that make namespaces.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// seccomp forbids system calls to this process and its children. It returns what it does.
func (p *plan) seccomp() (note string) {
	arch, ok := audited[runtime.GOARCH]
	if !ok {
		return absent + "it isn't made for processors of the kind " + runtime.GOARCH
	}
	program, err := bpf.Assemble(p.filter(arch))
	if err != nil {
		return absent + err.Error()
	}
	filter := make([]unix.SockFilter, len(program))
	for i, ins := range program {
		filter[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		return absent + e.Error()
	}
	note = "no system calls that attack kernels or other processes; no sockets but those of UNIX"
	if !p.Spaces {
		note = "no system calls that attack kernels or other processes; no sockets; no leaving of the process group"
	}
	return note
}

// Places in the data that a filter sees (struct seccomp_data).
const (
	dataCall = 0
	dataArch = 4
	dataArgs = 16 // the low halves of the arguments, each of 8 bytes, on little-endian machines
)

// filter is the program that decides about each system call.
func (p *plan) filter(arch uint32) []bpf.Instruction {
	refuse := func(e unix.Errno) bpf.Instruction {
		return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(e)}
	}
	allow := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	load := func(at uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: at, Size: 4} }
	f := []bpf.Instruction{
		load(dataArch),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}, // calls of 32-bit programs have other numbers
		load(dataCall),
	}
	if arch == unix.AUDIT_ARCH_X86_64 {
		f = append(f, bpf.JumpIf{Cond: bpf.JumpLessThan, Val: 0x40000000, SkipTrue: 1}, refuse(unix.ENOSYS)) // x32
	}
	f = append(f, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_CLONE3, SkipTrue: 1}, refuse(unix.ENOSYS)) // its flags can't be seen; libraries use clone then
	calls := forbidden
	if !p.Spaces {
		calls = append(slices.Clone(calls), unix.SYS_SOCKET, unix.SYS_SETSID, unix.SYS_SETPGID)
	}
	for _, call := range calls {
		f = append(f, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: call, SkipTrue: 1}, refuse(unix.EPERM))
	}
	const shared = unix.MAP_SHARED | unix.MAP_ANONYMOUS // memory that no limit counts
	return append(f,
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_SOCKET, SkipTrue: 4},
		load(dataArgs),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_UNIX, SkipTrue: 1},
		refuse(unix.EACCES),
		allow,

		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_CLONE, SkipTrue: 4},
		load(dataArgs),
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: namespaceFlags, SkipTrue: 1},
		refuse(unix.EPERM),
		allow,

		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_MMAP, SkipTrue: 5},
		load(dataArgs+3*8),
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: shared},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: shared, SkipTrue: 1},
		refuse(unix.EPERM),
		allow,

		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_IOCTL, SkipTrue: 3},
		load(dataArgs+8),
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.TIOCSTI, SkipTrue: 1},
		refuse(unix.EPERM), // typing into the terminal
		allow)
}
