package mount

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// TestAway: a file server that doesn't answer, and one that has gone, make the mount unusable
// within the limit; looks don't pile up. The file server is one in user space (FUSE) that this
// test starts in namespaces of its own and that never answers.
func TestAway(t *testing.T) {
	t.Parallel()
	if os.Getenv("FLEETSCORE_MOUNT_TEST") == "" {
		if _, err := os.Stat("/dev/fuse"); err != nil {
			testkit.Missing(t, "/dev/fuse", err.Error())
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestAway$", "-test.v")
		cmd.Env = append(os.Environ(), "FLEETSCORE_MOUNT_TEST="+t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}}
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), cannot) || err != nil && len(out) == 0 {
			testkit.Missing(t, "a namespace of this user with mounts", fmt.Sprintf("%v\n%s", err, out))
		}
		if err != nil || !strings.Contains(string(out), "--- PASS: TestAway") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	root := os.Getenv("FLEETSCORE_MOUNT_TEST")
	folder := filepath.Join(root, "history")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	server, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Mount("files", folder, "fuse.test", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", server))
	}
	if err != nil {
		t.Fatalf("%s: %v", cannot, err)
	}
	m := named(folder)
	m.Type, m.Source = "fuse.test", "files"
	c := &Checker{Roots: []string{root}, Limit: 300 * time.Millisecond}
	for range 3 {
		began := time.Now()
		if err := c.Check(t.Context(), m); !fleetscore.Unavailable.Is(err) || !strings.Contains(err.Error(), "didn't answer within 300ms") {
			t.Errorf("a file server that doesn't answer: %v", err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the look took %s", took)
		}
		if len(c.looking) != 1 {
			t.Errorf("%d looks hang, want 1", len(c.looking))
		}
	}
	if r := c.Survey(t.Context(), m, Options{}); r.Verdict != fleetscore.MountUnusable {
		t.Errorf("it is measured: %+v", r)
	}
	if err := unix.Close(server); err != nil { // the file server is killed
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := c.Check(t.Context(), m)
		if fleetscore.Unavailable.Is(err) && strings.Contains(err.Error(), "is stale") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a file server that has gone: %v", err)
		}
	}
	if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(t.Context(), m); !fleetscore.Unavailable.Is(err) || !strings.Contains(err.Error(), "isn't mounted") {
		t.Errorf("an unmounted folder, which is there and empty: %v", err)
	}
}

const cannot = "this machine can't mount"
