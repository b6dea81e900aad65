package oneshot

import (
	"os"

	"golang.org/x/sys/unix"
)

// beginWriting tells the kernel to start writing a range of a file to the disk, without
// waiting for it. An error is ignored, because the sync that follows reports it.
func beginWriting(f *os.File, offset, length int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, length, unix.SYNC_FILE_RANGE_WRITE)
}

// mapAhead maps all pages of a file at once, which costs much less than when each is first used.
const mapAhead = unix.MAP_POPULATE

// takeLargePages asks for large pages where memory hasn't been used yet. An error is ignored: the pages are small then.
func takeLargePages(from, size uintptr) {
	unix.Syscall(unix.SYS_MADVISE, from, size, unix.MADV_HUGEPAGE)
}
