package pool

import (
	"bytes"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// terminate asks a process to end if its environment holds the proof, and reports
// whether it does. A process's number may belong to another one by now, so the
// process is held by a descriptor while it is looked at and signalled: one that
// takes over the number meanwhile can't be hit.
func terminate(pid int, proof string) (bool, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case err == unix.ESRCH:
		return false, nil
	case err != nil: // an old kernel: nothing can be proved for sure
		return false, fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false, nil // another user's, or it has ended
	}
	if !bytes.Contains(append([]byte{0}, environment...), []byte("\x00"+proof+"\x00")) {
		return false, nil
	}
	// The number belonged to the held process when its environment was read if that
	// process hasn't ended since; if it has, the signal goes nowhere.
	if err := unix.PidfdSendSignal(fd, syscall.SIGTERM, nil, 0); err != nil && err != unix.ESRCH {
		return true, fmt.Errorf("stop process %d: %w", pid, err)
	}
	return true, nil
}
