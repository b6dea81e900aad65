package mount

import (
	"os"

	"golang.org/x/sys/unix"
)

// forget drops what the machine's memory holds of a file, so that it is read from where it
// lies. Kernels needn't do it, so that errors say nothing.
func forget(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
