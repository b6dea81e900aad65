package natshub

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// TestFollowed: a leader's word counts while a majority follows it, itself included.
func TestFollowed(t *testing.T) {
	t.Parallel()
	peer := func(active time.Duration) *jetstream.PeerInfo { return &jetstream.PeerInfo{Active: active} }
	now, long := peer(100*time.Millisecond), peer(leaderLimit)
	offline := &jetstream.PeerInfo{Offline: true}
	for name, tt := range map[string]struct {
		replicas int
		cluster  *jetstream.ClusterInfo
		want     bool
	}{
		"alone":                 {1, nil, true},
		"both others":           {3, &jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{now, now}}, true},
		"one other":             {3, &jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{now, long}}, true},
		"others long ago":       {3, &jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{long, long}}, false},
		"others offline":        {3, &jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{offline, offline}}, false},
		"two of five":           {5, &jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{now, long, long, long}}, false},
		"three of five":         {5, &jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{now, now, long, long}}, true},
		"a copy being added":    {3, &jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{now}}, true},
		"copies that nobody is": {3, &jetstream.ClusterInfo{}, false},
	} {
		if err := followed(&jetstream.StreamInfo{Config: jetstream.StreamConfig{Replicas: tt.replicas}, Cluster: tt.cluster}); (err == nil) != tt.want {
			t.Errorf("%s: %v, want followed to be %v", name, err, tt.want)
		}
	}
}
