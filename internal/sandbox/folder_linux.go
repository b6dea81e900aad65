package sandbox

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// makeFolders makes the folders of a program that has no file system of its own.
func makeFolders(spec Spec) error { return makeWithin(spec.Dir, spec.Make) }

// limitMemory limits a process that no child of ours has limited. If that fails, its user
// learns of it by node doctor's layers.
func limitMemory(pid int, bytes int64) {
	l := unix.Rlimit{Cur: uint64(bytes), Max: uint64(bytes)}
	_ = unix.Prlimit(pid, unix.RLIMIT_DATA, &l, nil)
}

// openFolder makes the way by which the child hands over the program's folder, which lies in
// a file system that only the child can name.
func (p *Process) openFolder() error {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a pair of sockets: %w", err)
	}
	p.folder = os.NewFile(uintptr(ends[0]), "folder")
	p.child = append(p.child, os.NewFile(uintptr(ends[1]), "folder"))
	return nil
}

// handOver sends a folder through a socket.
func handOver(folder string, socket int) error {
	fd, err := unix.Open(folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Sendmsg(socket, []byte{0}, unix.UnixRights(fd), nil, 0), unix.Close(fd), unix.Close(socket))
}

// Folder is where the program's own folder can be read, once the program has ended. With
// namespaces that folder lies in memory, and stays there until Release. What is in it was made
// by the program, so that links in it mustn't be followed.
func (p *Process) Folder() (string, error) {
	if p.folder == nil {
		return p.dir, nil
	}
	socket := p.folder
	rights := make([]byte, unix.CmsgSpace(4))
	n, size, _, _, err := unix.Recvmsg(int(socket.Fd()), make([]byte, 1), rights, unix.MSG_CMSG_CLOEXEC)
	if err == nil && n == 0 {
		err = errors.New("the program never had it")
	}
	var fds []int
	if err == nil {
		var messages []syscall.SocketControlMessage
		if messages, err = syscall.ParseSocketControlMessage(rights[:size]); err == nil && len(messages) == 1 {
			fds, err = syscall.ParseUnixRights(&messages[0])
		}
	}
	if err == nil && len(fds) != 1 {
		err = errors.New("it wasn't handed over")
	}
	if err != nil {
		return "", fmt.Errorf("reach the program's folder: %w", err)
	}
	p.folder = os.NewFile(uintptr(fds[0]), "folder")
	return fmt.Sprintf("/proc/self/fd/%d", fds[0]), socket.Close()
}
