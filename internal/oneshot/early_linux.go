package oneshot

import (
	"os"

	"golang.org/x/sys/unix"
)

// beginWriting asks for a range of a file to be written to the disk, without
// waiting. It promises nothing, so its error doesn't matter: the sync that
// follows tells.
func beginWriting(f *os.File, offset, length int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, length, unix.SYNC_FILE_RANGE_WRITE)
}
