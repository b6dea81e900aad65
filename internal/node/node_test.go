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

func (d *deafOnce) Register(context.Context, dispatch.Hello) (dispatch.Welcome, error) {
	return dispatch.Welcome{}, nil
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

// oneTask is a server with one task, whose store the test holds back.
type oneTask struct {
	dispatch.Protocol
	given   bool
	beats   []dispatch.HeartbeatRequest
	results []dispatch.Result
	bye     time.Time
}

func (o *oneTask) Register(context.Context, dispatch.Hello) (dispatch.Welcome, error) {
	return dispatch.Welcome{}, nil
}

func (o *oneTask) Heartbeat(_ context.Context, _ fleetscore.NodeID, r dispatch.HeartbeatRequest) (dispatch.HeartbeatReply, error) {
	o.beats = append(o.beats, r)
	return dispatch.HeartbeatReply{}, nil
}

func (o *oneTask) Goodbye(context.Context, fleetscore.NodeID) error {
	o.bye = time.Now()
	return nil
}

func (o *oneTask) Lease(ctx context.Context, _ fleetscore.NodeID, _ dispatch.LeaseRequest) (dispatch.LeaseReply, error) {
	if !o.given {
		o.given = true
		return dispatch.LeaseReply{Leases: []dispatch.Lease{{ID: "lease", Task: "task"}}}, nil
	}
	<-ctx.Done()
	return dispatch.LeaseReply{}, ctx.Err()
}

func (o *oneTask) AppendLog(context.Context, fleetscore.LeaseID, dispatch.LogChunk) error { return nil }

func (o *oneTask) Complete(_ context.Context, _ fleetscore.LeaseID, r dispatch.Result) error {
	o.results = append(o.results, r)
	return nil
}

// TestDrain: a node that is told to end finishes its task if there is time, says at once
// that it takes no more, and gives the task back if there isn't.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		drain, work time.Duration
		delivered   bool
		ends        time.Duration // after it was told
	}{
		{"enough time", 25 * time.Second, 10 * time.Second, true, 9 * time.Second},
		{"not enough", 5 * time.Second, time.Hour, false, 5 * time.Second},
		{"no time", 0, time.Hour, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := &oneTask{}
				n, err := New(Config{Hello: dispatch.Hello{Node: "n", Pool: "cpu", Slots: 1}, DrainTime: tt.drain}, Deps{Server: server,
					OpenStore: func(ctx context.Context, _ string) (store.Bucket, error) {
						select {
						case <-time.After(tt.work):
						case <-ctx.Done():
						}
						return nil, errors.New("this task has no store")
					}})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				began := time.Now()
				if err := n.Run(ctx); !errors.Is(err, context.Canceled) {
					t.Errorf("the node ended with %v", err)
				}
				if took := server.bye.Sub(began) - time.Second; took != tt.ends || (len(server.results) == 1) != tt.delivered {
					t.Errorf("the node ended %s after it was told, with %d results; want %s", took, len(server.results), tt.ends)
				}
				told := len(server.beats) > 0 && server.beats[0].Ending
				if told != (tt.drain > 0) {
					t.Errorf("heartbeats: %+v", server.beats)
				}
			})
		})
	}
}
