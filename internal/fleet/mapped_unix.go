//go:build unix

package fleet

import (
	"io"
	"math"

	"golang.org/x/sys/unix"
)

// mapFile maps a blob that is a file of this machine into memory, read-only;
// false if it is none or can't be mapped.
func mapFile(r io.Reader, size int64) ([]byte, bool) {
	f, ok := r.(interface{ Fd() uintptr })
	if !ok || size <= 0 || size > math.MaxInt {
		return nil, false
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	return data, err == nil
}

func unmap(data []byte) error { return unix.Munmap(data) }
