package oneshot

import (
	"errors"
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

// reserve gives a file its size, and all of the space for it: a write to mapped memory that has no space would end the process.
func reserve(f *os.File, size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) { // as on some file servers
		return nil
	}
	return err
}
