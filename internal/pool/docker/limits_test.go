package docker

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
)

// TestEnginesThatKeepNoLimits: an engine that would ignore the limits of a container gets none
// to make, and the error says which limit it is.
func TestEnginesThatKeepNoLimits(t *testing.T) {
	t.Parallel()
	all := fleetscore.DockerConfig{Image: "a", MemoryMB: 100, CPUs: 1}
	for _, c := range []struct {
		info string
		pool fleetscore.DockerConfig
		want string
	}{
		{`"CgroupVersion": "1", "MemoryLimit": true, "PidsLimit": true, "CpuCfsQuota": true`, all, ""},
		{`"CgroupVersion": "2", "MemoryLimit": true, "PidsLimit": true, "CpuCfsQuota": true, "Rootless": true`, all, ""},
		{`"CgroupVersion": "1", "MemoryLimit": true, "PidsLimit": true, "CpuCfsQuota": true, "Rootless": true`, all, "without root"},
		{`"CgroupVersion": "1", "MemoryLimit": true, "PidsLimit": true, "CpuCfsQuota": true, "SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]`, all, "without root"},
		{`"CgroupVersion": "2", "PidsLimit": true, "CpuCfsQuota": true`, all, "memory_mb"},
		{`"CgroupVersion": "2", "PidsLimit": true, "MemoryLimit": true`, all, "cpus"},
		{`"CgroupVersion": "2", "PidsLimit": true`, fleetscore.DockerConfig{Image: "a"}, ""},
		{`"CgroupVersion": "2", "MemoryLimit": true, "CpuCfsQuota": true`, fleetscore.DockerConfig{Image: "a"}, "processes"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/info") {
				fmt.Fprint(w, "{"+c.info+"}")
			}
		}))
		d, _ := provider(t, "tcp://"+s.Listener.Addr().String(), "", c.pool)
		err := d.keepsLimits(t.Context(), c.pool)
		s.Close()
		if (c.want == "") != (err == nil) || err != nil && (!fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.info, err, c.want)
		}
	}
}

// TestEngineThatCantTell: an engine that doesn't say what it can bound is away, which says nothing
// about its limits.
func TestEngineThatCantTell(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/info") {
			http.Error(w, `{"message": "the daemon is busy"}`, http.StatusInternalServerError)
		}
	}))
	defer s.Close()
	pool := fleetscore.DockerConfig{Image: "a"}
	d, _ := provider(t, "tcp://"+s.Listener.Addr().String(), "", pool)
	if err := d.keepsLimits(t.Context(), pool); !fleetscore.Unavailable.Is(err) || !strings.Contains(err.Error(), "the daemon is busy") {
		t.Errorf("an engine in trouble: %v", err)
	}
}
