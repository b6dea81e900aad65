package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// engine is what an engine says of its means to bound containers.
type engine struct {
	CgroupVersion   string
	MemoryLimit     bool
	PidsLimit       bool
	CPUCfsQuota     bool `json:"CpuCfsQuota"`
	Rootless        bool // Podman's word
	SecurityOptions []string
}

// keepsLimits refuses an engine that would start a container without the limits that it is to
// have: engines don't refuse such requests themselves.
func (d *Docker) keepsLimits(ctx context.Context, c fleetscore.DockerConfig) error {
	const op, hint = "make container", "use an engine that runs as root, or a machine with cgroup version 2"
	var e engine
	if err := d.info(ctx, &e); err != nil {
		return fleetscore.Errorf(fleetscore.Unavailable, op, d.cfg.Host, "%w", err)
	}
	rootless := e.Rootless || slices.ContainsFunc(e.SecurityOptions, func(o string) bool { return strings.HasPrefix(o, "name=rootless") })
	if rootless && e.CgroupVersion == "1" {
		return fleetscore.Errorf(fleetscore.Invalid, op, d.cfg.Host, "the engine runs without root on a machine with cgroup version 1, where it bounds neither memory nor processors nor processes").WithHint(hint)
	}
	for _, l := range []struct {
		wanted, kept bool
		what         string
	}{{c.MemoryMB > 0, e.MemoryLimit, "memory (memory_mb)"}, {c.CPUs > 0, e.CPUCfsQuota, "processors (cpus)"}, {true, e.PidsLimit, "the number of processes (processes)"}} {
		if l.wanted && !l.kept {
			return fleetscore.Errorf(fleetscore.Invalid, op, d.cfg.Host, "the engine says that it can't bound %s on this machine", l.what).WithHint(hint)
		}
	}
	return nil
}

// info asks the engine for what the client's own type leaves out.
func (d *Docker) info(ctx context.Context, to any) error {
	dial := d.api.Dialer()
	web := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/v"+d.api.ClientVersion()+"/info", nil)
	if err != nil {
		return err
	}
	answer, err := web.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
		return fmt.Errorf("the engine answers %s to the question what it can bound: %s", answer.Status, fleetscore.Printable(strings.TrimSpace(string(why))))
	}
	return json.NewDecoder(answer.Body).Decode(to)
}
