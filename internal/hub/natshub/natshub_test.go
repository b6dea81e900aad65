package natshub_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/fleetscore/fleetscore/internal/hub"
	"github.com/fleetscore/fleetscore/internal/hub/hubtest"
	"github.com/fleetscore/fleetscore/internal/hub/natshub"
	"github.com/fleetscore/fleetscore/internal/testkit/natstest"
)

// names makes the hubs of tests that share servers differ.
var names atomic.Int64

func openHub(t *testing.T, cfg natshub.Config, deps hub.Deps) hub.Hub {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = fmt.Sprintf("test%d", names.Add(1))
	}
	h, err := natshub.Open(t.Context(), cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() }) // most tests closed it before
	return h
}

func TestHub(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, nil)
	hubtest.Run(t, func(t *testing.T) hub.Hub {
		return openHub(t, natshub.Config{URL: s.URL(), Partitions: 3, Replicas: 1}, hub.Deps{})
	})
}

func TestHubOnCluster(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t, 3)
	hubtest.Run(t, func(t *testing.T) hub.Hub {
		return openHub(t, natshub.Config{URL: c.URL(), Partitions: 3}, hub.Deps{})
	})
}
