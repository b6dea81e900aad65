package python

import (
	"os"
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sharedMemory makes memory that a worker writes its position to.
func sharedMemory() (*os.File, []byte, error) {
	fd, err := unix.MemfdCreate("fleetscore-position", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), "position")
	if err := f.Truncate(int64(os.Getpagesize())); err != nil {
		return f, nil, err
	}
	at, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return f, at, err
}

func pointer(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

// starter starts processes from a thread that lives as long as the pool: the kernel kills
// them when the thread that started them ends, so that they end with this process however
// that ends.
type starter struct {
	work chan func()
}

func newStarter() *starter {
	s := &starter{work: make(chan func())}
	go func() {
		runtime.LockOSThread() // the thread ends with this goroutine
		for f := range s.work {
			f()
		}
	}()
	return s
}

func (s *starter) start(cmd *exec.Cmd) error {
	done := make(chan error)
	s.work <- func() { done <- cmd.Start() }
	return <-done
}

func (s *starter) close() { close(s.work) }
