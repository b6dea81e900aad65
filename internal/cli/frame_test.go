package cli

import (
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFrameStaysHere: programs that this process starts, such as those of models, don't get the files of a DataFrame, which
// its own starter let it inherit.
func TestFrameStaysHere(t *testing.T) {
	t.Parallel()
	var s scoring
	for range 3 {
		fd, err := syscall.Dup(int(os.Stderr.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		s.frame = append(s.frame, fd)
	}
	if err := s.openFrame(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{s.Frame.Rows, s.Frame.Results, s.Frame.Coverage} {
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("a program gets the file %d: flags %d, %v", f.Fd(), flags, err)
		}
		f.Close()
	}
}
