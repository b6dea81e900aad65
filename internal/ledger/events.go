package ledger

import (
	"strings"
	"sync"

	"github.com/fleetscore/fleetscore"
)

// Topic names what an event is about. Topics have at most two parts, "class" or
// "class/name". A watch of "class/" gets the events of every name.
type Topic string

// Topics without a name.
const (
	ConfigTopic Topic = "config"   // a configuration was applied
	AnyQueue    Topic = "queue/"   // every pool's queue
	AnyJobs     Topic = "jobs/"    // every pipeline's jobs
	AnyNodes    Topic = "nodes/"   // every pool's nodes
	AnyDataset  Topic = "dataset/" // every dataset's commits
	// AttemptsTopic: attempts of tasks ended, so that their logs won't grow any more.
	AttemptsTopic Topic = "attempts"
	// AccessTopic: tokens or sessions changed.
	AccessTopic Topic = "access"
)

// DatasetTopic is put by the part of the server that committed rows to a dataset.
func DatasetTopic(dataset string) Topic { return Topic("dataset/" + dataset) }

// FleetTopic is put when a fleet has a new generation, or when its models could
// not be read and the reason changed.
func FleetTopic(fleet string) Topic { return Topic("fleet/" + fleet) }

// QueueTopic: a pool has tasks that it didn't have before.
func QueueTopic(pool string) Topic { return Topic("queue/" + pool) }

// JobsTopic: a job of a pipeline was made, changed its state or its reason, or a
// due time of the pipeline was decided.
func JobsTopic(pipeline string) Topic { return Topic("jobs/" + pipeline) }

// JobTopic: anything about one job changed, its count of ended tasks included.
func JobTopic(id fleetscore.JobID) Topic { return Topic("job/" + string(id)) }

// NodesTopic: a node of a pool registered, changed its state, or has fewer tasks
// to run. Heartbeats and renewed leases are no events.
func NodesTopic(pool string) Topic { return Topic("nodes/" + pool) }

// NodeTopic: one node changed its state.
func NodeTopic(id fleetscore.NodeID) Topic { return Topic("node/" + string(id)) }

// Events tells about changes by topic. Writes to the ledger put their own events;
// what happens elsewhere, such as a dataset's commit, is put by the part that did it.
type Events interface {
	// Watch returns a channel that gets a signal after events of the topics, and
	// a function that ends the watch. Events that follow each other closely may
	// share a signal; none is lost.
	Watch(topics ...Topic) (<-chan struct{}, func())
	// Put tells the watchers of the topics.
	Put(topics ...Topic)
}

// events delivers within one process.
type events struct {
	mu       sync.Mutex // guards watchers
	watchers map[Topic]map[chan struct{}]bool
}

// Watch implements Events.
func (e *events) Watch(topics ...Topic) (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.watchers == nil {
		e.watchers = map[Topic]map[chan struct{}]bool{}
	}
	for _, t := range topics {
		if e.watchers[t] == nil {
			e.watchers[t] = map[chan struct{}]bool{}
		}
		e.watchers[t][ch] = true
	}
	return ch, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, t := range topics {
			if delete(e.watchers[t], ch); len(e.watchers[t]) == 0 {
				delete(e.watchers, t)
			}
		}
	}
}

// Put implements Events.
func (e *events) Put(topics ...Topic) {
	if len(topics) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range topics {
		e.signal(t)
		if i := strings.IndexByte(string(t), '/'); i >= 0 {
			e.signal(t[:i+1])
		}
	}
}

// everyone signals every watcher, except those of single nodes if those aren't meant:
// there is one for each node that waits for tasks.
func (e *events) everyone(nodes bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for t := range e.watchers {
		if nodes || !strings.HasPrefix(string(t), string(NodeTopic(""))) {
			e.signal(t)
		}
	}
}

func (e *events) signal(t Topic) {
	for ch := range e.watchers[t] {
		select {
		case ch <- struct{}{}:
		default: // a signal waits there already
		}
	}
}
