package docker

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

// curious is a hostile program in a container. It prints what it could do.
func curious() {
	could := func(what string, err error) {
		if err == nil {
			fmt.Printf("could %s\n", what)
		} else {
			fmt.Printf("couldn't %s: %v\n", what, err)
		}
	}
	could("be root", func() error {
		if os.Getuid() != 0 {
			return fmt.Errorf("user %d", os.Getuid())
		}
		return nil
	}())
	could("write to the root", os.WriteFile("/etc/x", []byte("x"), 0o600))
	could("write to its own program", os.WriteFile("/fleetscore/agent", []byte("x"), 0o600))
	could("write to its folder", os.WriteFile("/fleetscore/node/x", []byte("x"), 0o600))
	could("read what another node has", func() error { _, err := os.ReadFile(os.Getenv("OTHER_TOKEN")); return err }())
	could("reach a neighbour", func() error {
		c, err := net.DialTimeout("tcp", os.Getenv("NEIGHBOUR"), 2*time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}())
	could("have an interface", func() error {
		all, err := net.Interfaces()
		for _, i := range all {
			if err == nil && i.Flags&net.FlagLoopback == 0 {
				return nil
			}
		}
		return fmt.Errorf("only the loopback: %v", err)
	}())
	could("mount", syscall.Mount("none", "/tmp", "tmpfs", 0, ""))
	could("make a device", syscall.Mknod("/tmp/disk", syscall.S_IFBLK|0o600, 254<<8))
	could("see another process", func() error {
		all, err := filepath.Glob("/proc/[0-9]*")
		if err == nil && len(all) <= 2 { // the first one, and this one
			err = fmt.Errorf("%d processes", len(all))
		}
		return err
	}())
	could("fill the disk", func() error {
		f, err := os.Create("/tmp/full")
		if err != nil {
			fmt.Println("could write nothing at all") // that isn't meant
			return err
		}
		defer f.Close()
		for range 64 {
			if _, err := f.Write(make([]byte, 1<<20)); err != nil {
				return err
			}
		}
		return nil
	}())
	could("read the host's disk", func() error { _, err := os.ReadFile("/etc/shadow"); return err }())
	could("start too many processes", func() error {
		for range 64 {
			cmd := exec.Command("/fleetscore/agent")
			cmd.Env = []string{testkit.NodeVariable + "=deaf"}
			if err := cmd.Start(); err != nil {
				return err
			}
		}
		return nil
	}())
	fmt.Println("end")
}

// testIsolation: a hostile program in a container can do none of what would harm others.
func testIsolation(t *testing.T, engine *testkit.Docker) {
	l, err := net.Listen("tcp", "0.0.0.0:0") // on every address that the machine has
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, _ := provider(t, engine.Host, "curious", fleetscore.DockerConfig{Image: "empty:v1", TmpMB: 16, Processes: 64})
	other, _ := provider(t, engine.Host, "deaf", fleetscore.DockerConfig{Image: "empty:v1"})
	neighbour, err := other.Start(t.Context(), node("cpu-other"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { neighbour.Kill(); neighbour.Wait() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d.cfg.Env = append(d.cfg.Env, "OTHER_TOKEN="+filepath.Join(other.folder("cpu-other"), "token"), "NEIGHBOUR=127.0.0.1:"+port)
	r, err := d.Start(t.Context(), node("cpu-curious"))
	if err != nil {
		t.Fatal(err)
	}
	e := r.Wait()
	out := string(e.Output)
	if n := strings.Count(out, "couldn't "); n != 13 || strings.Contains(out, "could ") || !strings.Contains(out, "end\n") {
		t.Errorf("%v, %d of 13 refused:\n%s", e.Err, n, out)
	}
	if left := engine.Run(t, "ps", "-aq", "--filter", "name=fleetscore-cpu-curious"); left != "" {
		t.Errorf("its processes outlive it: %s", left)
	}
}
