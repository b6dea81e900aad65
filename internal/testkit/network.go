package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// Network is two machines with one link between them: network namespaces of this
// machine, joined by a pair of virtual interfaces.
type Network struct {
	t     testing.TB
	names [2]string
}

// NewNetwork makes the two machines. It needs Linux and root. Without them the test is
// skipped, or fails with FLEETSCORE_TEST_ALL=1.
func NewNetwork(t testing.TB) *Network {
	t.Helper()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		Missing(t, "network namespaces", "run the test on Linux as root")
	}
	Tool(t, "ip", "iproute2")
	n := &Network{t: t}
	for i := range n.names {
		n.names[i] = fmt.Sprintf("fs%d-%d", os.Getpid(), i)
		n.run("netns", "add", n.names[i])
		t.Cleanup(func() { n.run("netns", "del", n.names[i]) }) // with the interfaces in it
	}
	n.run("-n", n.names[0], "link", "add", "link0", "type", "veth", "peer", "name", "link1", "netns", n.names[1])
	for i, name := range n.names {
		n.run("-n", name, "link", "set", "lo", "up")
		n.run("-n", name, "addr", "add", n.Address(i)+"/24", "dev", fmt.Sprint("link", i))
		n.run("-n", name, "link", "set", fmt.Sprint("link", i), "up")
	}
	return n
}

// Address is the address of a machine, 0 or 1, which only the two machines reach.
func (n *Network) Address(machine int) string { return fmt.Sprintf("10.203.7.%d", machine+1) }

// Cut takes the link away, and Join brings it back.
func (n *Network) Cut() { n.run("-n", n.names[0], "link", "set", "link0", "down") }

// Join brings the link back.
func (n *Network) Join() { n.run("-n", n.names[0], "link", "set", "link0", "up") }

// On makes a command that runs on a machine.
func (n *Network) On(machine int, name string, args ...string) *exec.Cmd {
	return exec.Command(program("ip"), append([]string{"netns", "exec", n.names[machine], name}, args...)...)
}

func (n *Network) run(args ...string) {
	n.t.Helper()
	if out, err := exec.Command(program("ip"), args...).CombinedOutput(); err != nil {
		n.t.Errorf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
