package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/dispatch"
	"github.com/fleetscore/fleetscore/internal/store"
)

// deafOnce answers everything but the first request for tasks, whose answer never
// comes; the second one is answered with the order to stop.
type deafOnce struct {
	dispatch.Protocol
	asked int
}

func (d *deafOnce) Register(context.Context, dispatch.Hello) (fleetscore.Node, error) {
	return fleetscore.Node{}, nil
}

func (d *deafOnce) Heartbeat(context.Context, fleetscore.NodeID, dispatch.HeartbeatRequest) (dispatch.HeartbeatReply, error) {
	return dispatch.HeartbeatReply{}, nil
}

func (d *deafOnce) Goodbye(context.Context, fleetscore.NodeID) error { return nil }

func (d *deafOnce) Lease(ctx context.Context, _ fleetscore.NodeID, r dispatch.LeaseRequest) (dispatch.LeaseReply, error) {
	if d.asked++; d.asked == 1 {
		<-ctx.Done()
		return dispatch.LeaseReply{}, fleetscore.Errorf(fleetscore.Unavailable, "lease", "", "%w", ctx.Err())
	}
	return dispatch.LeaseReply{Stop: true}, nil
}

// TestAnswerThatNeverComes: a node whose request for tasks is never answered, as when
// a network drops a connection without a word, asks again. It would do nothing for
// ever otherwise, while its heartbeats keep it alive.
func TestAnswerThatNeverComes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &deafOnce{}
		n, err := New(Config{Hello: dispatch.Hello{Node: "n", Pool: "cpu", Slots: 1}},
			Deps{Server: server, OpenStore: func(context.Context, string) (store.Bucket, error) { return nil, errors.New("not asked for") }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		began := time.Now()
		if err := n.Run(ctx); err != nil || server.asked != 2 {
			t.Errorf("the node asked %d times in %s and ended with %v, want 2 times", server.asked, time.Since(began), err)
		}
	})
}
