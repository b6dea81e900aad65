//go:build !linux

package python

import (
	"os"
	"os/exec"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore/internal/durable"
)

// sharedMemory makes memory that a worker writes its position to.
func sharedMemory() (*os.File, []byte, error) {
	f, err := durable.Scratch("")
	if err != nil {
		return nil, nil, err
	}
	if err := f.Truncate(int64(os.Getpagesize())); err != nil {
		return f, nil, err
	}
	at, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return f, at, err
}

func pointer(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

// starter starts processes. Only Linux ends them when this process is killed; elsewhere
// they end when they next read a request.
type starter struct{}

func newStarter() *starter { return &starter{} }

func (s *starter) start(cmd *exec.Cmd) error { return cmd.Start() }

func (s *starter) close() {}
