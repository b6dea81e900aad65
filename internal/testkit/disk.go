package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Tool makes sure that a program of the operating system is installed. With
// FLEETSCORE_TEST_ALL=1 it installs the Debian package; otherwise it skips the test.
func Tool(t testing.TB, name, debianPackage string) {
	t.Helper()
	if program(name) != "" {
		return
	}
	if All() && os.Geteuid() == 0 {
		defer Lock(t, filepath.Join(os.TempDir(), "fleetscore-test-packages.lock"))() // two tests can't install at the same time
		if program(name) != "" {
			return
		}
		script := "apt-get install -y " + debianPackage + " || { apt-get update && apt-get install -y " + debianPackage + "; }" // the lists of packages may be missing or old
		if out, err := Command(t, "sh", "-c", script).CombinedOutput(); err != nil {
			t.Logf("apt-get: %v\n%s", err, out)
		}
	}
	if program(name) == "" {
		Missing(t, name, "install the package "+debianPackage)
	}
}

// program returns the path of a program, or "" if it isn't found. It also searches the
// administrator's folders, which a user's PATH may not contain.
func program(name string) string {
	for _, p := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if at, err := exec.LookPath(p); err == nil {
			return at
		}
	}
	return ""
}

// Disk is a small disk for a test, whose power can be cut. It is an ext4 file system on
// a loop device. Its blocks are in a file that can be copied at one instant. Data that
// was written but not synced is in the kernel's memory and not in that file, so the
// copy lacks it, like a real disk after a power cut.
type Disk struct {
	t     testing.TB
	outer string // the mount point of the file system that holds the files of blocks
	n     int
}

// NewDisk makes a disk and mounts it at dir, an empty folder. It needs Linux and root.
// Without them the test is skipped, or fails with FLEETSCORE_TEST_ALL=1.
func NewDisk(t testing.TB, dir string) *Disk {
	t.Helper()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		Missing(t, "a disk whose power can be cut", "run the test on Linux as root: it mounts file systems")
	}
	Tool(t, "mkfs.xfs", "xfsprogs")
	Tool(t, "mkfs.ext4", "e2fsprogs")
	base := t.TempDir()
	d := &Disk{t: t, outer: filepath.Join(base, "outer")}
	image := filepath.Join(base, "outer.img")
	d.run("truncate", "-s", "4G", image)
	d.run("mkfs.xfs", "-q", "-m", "reflink=1", image)
	d.mount(image, d.outer)
	blocks := filepath.Join(d.outer, "disk.img")
	d.run("truncate", "-s", "512M", blocks)
	d.run("mkfs.ext4", "-q", blocks)
	d.mount(blocks, dir)
	return d
}

// Cut returns a copy of the disk at this instant, as a power cut would leave it. Mount
// mounts the copy.
func (d *Disk) Cut() (image string) {
	d.t.Helper()
	d.n++
	image = filepath.Join(d.outer, fmt.Sprintf("cut-%03d.img", d.n))
	d.run("cp", "--reflink=always", filepath.Join(d.outer, "disk.img"), image)
	return image
}

// Mount mounts a copy that Cut made at dir until the returned function is called,
// or the test ends.
func (d *Disk) Mount(image, dir string) (unmount func()) {
	d.t.Helper()
	return d.mount(image, dir)
}

func (d *Disk) mount(image, dir string) (unmount func()) {
	d.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		d.t.Fatal(err)
	}
	d.run("mount", "-o", "loop", image, dir)
	mounted := true
	unmount = func() {
		if !mounted {
			return
		}
		mounted = false
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			out2, err2 := exec.Command("umount", "-l", dir).CombinedOutput() // the kernel unmounts it when the last open file is closed
			d.t.Errorf("umount %s: %v %s; lazily: %v %s", dir, err, out, err2, out2)
		}
	}
	d.t.Cleanup(unmount)
	return unmount
}

func (d *Disk) run(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(program(name), args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}
