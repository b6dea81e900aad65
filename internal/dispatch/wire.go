package dispatch

import (
	"context"

	"github.com/fleetscore/fleetscore"
)

// Protocol is what nodes ask of a server: a method per message. On the server, the
// broker answers the messages about work and the logs keep the pieces of logs; the
// client carries all of them over HTTP.
type Protocol interface {
	Work
	Logs
}

// Work are a node's messages about itself and its tasks.
type Work interface {
	Register(ctx context.Context, h Hello) (Welcome, error)
	// Prepared reports how the setup command of the node's pool ended.
	Prepared(ctx context.Context, node fleetscore.NodeID, p Preparation) error
	Lease(ctx context.Context, node fleetscore.NodeID, r LeaseRequest) (LeaseReply, error)
	Heartbeat(ctx context.Context, node fleetscore.NodeID, r HeartbeatRequest) (HeartbeatReply, error)
	Goodbye(ctx context.Context, node fleetscore.NodeID) error
	Complete(ctx context.Context, lease fleetscore.LeaseID, r Result) error
}

// Logs takes the pieces of attempts' logs.
type Logs interface {
	AppendLog(ctx context.Context, lease fleetscore.LeaseID, c LogChunk) error
}

// Hello is what a node says when it registers.
type Hello struct {
	Node    fleetscore.NodeID `json:"node"`
	Pool    string            `json:"pool"`
	Slots   int               `json:"slots"`
	Host    string            `json:"host"`
	PID     int               `json:"pid"`
	Version string            `json:"version"`
	// Prepared says that the setup command of the pool has succeeded since the node
	// started, so that it needn't run again.
	Prepared bool                `json:"prepared,omitempty"`
	Kind     fleetscore.NodeKind `json:"kind,omitempty"` // of a node that its pool doesn't start; empty means dedicated
}

// Welcome is the answer to Hello: the node as it is now.
type Welcome struct {
	fleetscore.Node
	Setup  *fleetscore.SetupConfig `json:"setup,omitempty"`  // to be run before the node asks for tasks; nil if there is nothing to run
	Mounts []fleetscore.Mount      `json:"mounts,omitempty"` // which the node must have, from the end of its setup on
}

// Preparation is how a setup command ended, and whether the node has its mounts. A node that
// loses a mount later says so by another one.
type Preparation struct {
	Error  string `json:"error,omitempty"` // why the node can't be used; empty if it can
	Output []byte `json:"output"`          // the end of what the command wrote
}

// MaxSetupOutputBytes bounds the output of a setup command.
const MaxSetupOutputBytes = 1 << 20

// Lease is one attempt of a task, given to a node: all it needs to know.
type Lease struct {
	ID         fleetscore.LeaseID      `json:"id"`
	Task       fleetscore.TaskID       `json:"task"`
	Index      int                     `json:"index"`
	Job        fleetscore.JobID        `json:"job"`
	Pipeline   string                  `json:"pipeline"`
	Attempt    int                     `json:"attempt"` // 1, 2, …
	Shards     fleetscore.ShardRange   `json:"shards"`
	Interval   fleetscore.Interval     `json:"interval"`
	Dataset    string                  `json:"dataset"`
	Files      []fleetscore.DataFile   `json:"files"`            // of the table data/<dataset>: the input
	Keys       []fleetscore.Key        `json:"keys,omitempty"`   // the only keys that are scored; empty means all of the shards but Except
	Except     []fleetscore.Key        `json:"except,omitempty"` // keys that other tasks have
	TimeName   string                  `json:"time_name"`
	KeyNames   []string                `json:"key_names"`
	Features   []string                `json:"features"`
	FeaturesBy fleetscore.FeatureOrder `json:"features_by,omitempty"` // empty means by name
	Runtime    fleetscore.RuntimeName  `json:"runtime,omitempty"`     // empty means native
	Python     fleetscore.PythonConfig `json:"python,omitzero"`
	Code       fleetscore.Digest       `json:"code,omitzero"` // the archive with the code; zero means that the node has it in the folder that the settings name
	// Command is what is run, for the runtime command, and Secrets are the values of its
	// secrets, by environment variables. Refused says why it can't be run.
	Command *fleetscore.CommandConfig `json:"command,omitempty"`
	Secrets map[string]string         `json:"secrets,omitempty"`
	Refused string                    `json:"refused,omitempty"`
	Mounts  []fleetscore.Mount        `json:"mounts,omitempty"` // that Python and commands see
	Label   string                    `json:"label,omitempty"`
	Missing fleetscore.MissingRule    `json:"missing,omitempty"`
	Image   string                    `json:"image,omitempty"` // of the node's container, by its digest; empty if it is in none
	// Environment is the number of the environment in Python that all models of the task need, and
	// whose image the node's container has; 0 means none.
	Environment  int                     `json:"environment,omitempty"`
	Fleet        string                  `json:"fleet"`
	Generation   fleetscore.GenerationID `json:"generation"`
	Store        string                  `json:"store,omitempty"` // URL of a folder that the node opens; empty means that the node asks the server for blobs
	ModelTimeout fleetscore.Duration     `json:"model_timeout"`
	Tries        int                     `json:"tries,omitempty"`        // of a sensor whose model exceeds model_timeout
	Alone        bool                    `json:"alone,omitempty"`        // models are scored in processes of their own, as one of them may take its process down
	ModelMemory  int64                   `json:"model_memory,omitempty"` // bytes that such a process may use; 0 means a share of the machine's
	Quarantined  []fleetscore.Harm       `json:"quarantined,omitempty"`  // models that aren't scored
	Earlier      Earlier                 `json:"earlier,omitzero"`       // outcomes that stay where nothing has changed
	Timing       bool                    `json:"timing,omitempty"`       // how long models take is to be written
	Revision     int64                   `json:"revision"`
	TTL          fleetscore.Duration     `json:"ttl"` // to be renewed by heartbeats within it
}

// Earlier is where the outcomes of an earlier job over the same interval lie, no other job
// having touched the interval since. The zero value means nowhere.
type Earlier struct {
	Job   fleetscore.JobID      `json:"job,omitempty"`
	Files []fleetscore.DataFile `json:"files,omitempty"` // of the coverage table
}

// LeaseRequest asks for tasks and waits for them.
type LeaseRequest struct {
	Free int                 `json:"free"` // slots without a task
	Wait fleetscore.Duration `json:"wait"` // how long to wait if there is none; at most 30 s
}

// LeaseReply gives tasks; none after the wait, or when the node is to stop.
type LeaseReply struct {
	Leases []Lease `json:"leases"`
	Stop   bool    `json:"stop"` // take no more tasks, finish the running ones, then end
}

// HeartbeatRequest renews the node and its leases.
type HeartbeatRequest struct {
	Leases []fleetscore.LeaseID `json:"leases"`
	Ending bool                 `json:"ending,omitempty"` // the node was told to end: it takes no more tasks
	Load   *fleetscore.NodeLoad `json:"load,omitempty"`   // what it measured; only now and then
	Log    *LogChunk            `json:"log,omitempty"`    // what it has written into its own log since
	// Measured are the answers to MountOrders.
	Measured []MountMeasured `json:"measured,omitempty"`
}

// HeartbeatReply names leases that the node no longer holds. The node must end their
// work; their results will be refused.
type HeartbeatReply struct {
	Revoked []fleetscore.LeaseID `json:"revoked"`
	Stop    bool                 `json:"stop"`
	Measure []MountOrder         `json:"measure,omitempty"` // mounts that the node is to measure
}

// MountOrder asks a node to measure a mount. It is given once.
type MountOrder struct {
	ID        string           `json:"id"`
	Mount     fleetscore.Mount `json:"mount"`
	SizeBytes int64            `json:"size_bytes,omitempty"` // of the large file; 0 means 64 MiB
	Files     int              `json:"files,omitempty"`      // small ones; 0 means 200
}

// MountMeasured is what a node found.
type MountMeasured struct {
	ID     string                 `json:"id"` // of the order
	Report fleetscore.MountReport `json:"report"`
}

// Result is how an attempt ended. Either Error is set and the attempt failed as a
// whole, or the other fields describe what the attempt wrote.
type Result struct {
	Predictions []fleetscore.DataFile `json:"predictions"` // written, not committed; of the predictions table
	Coverage    []fleetscore.DataFile `json:"coverage"`    // of the coverage table
	Outcomes    fleetscore.Counts     `json:"outcomes"`    // of the task's keys
	Rows        int64                 `json:"rows"`
	Kept        Kept                  `json:"kept,omitzero"` // of the scored keys, those whose earlier results stay
	Anomalies   int64                 `json:"anomalies"`
	Harm        []fleetscore.Harm     `json:"harm,omitempty"` // what models did to their processes, at most MaxHarm
	Cost        []Cost                `json:"cost,omitempty"` // what models cost, by shard; empty if that says nothing about further jobs
	Error       string                `json:"error,omitempty"`
	Kind        string                `json:"kind,omitempty"`    // of the error
	Damaged     string                `json:"damaged,omitempty"` // the blob that the error is about, if its kind is corrupt
}

// Kept counts keys whose earlier results stay, as nothing that they depend on has changed.
type Kept struct {
	Keys      int64 `json:"keys"`
	Rows      int64 `json:"rows"`
	Anomalies int64 `json:"anomalies"`
}

// Add counts more.
func (k *Kept) Add(more Kept) {
	k.Keys, k.Rows, k.Anomalies = k.Keys+more.Keys, k.Rows+more.Rows, k.Anomalies+more.Anomalies
}

// MaxHarm bounds how many harmful models a result names.
const MaxHarm = 1000

// LogChunk is a piece of an attempt's output.
type LogChunk struct {
	Stream string `json:"stream"` // stdout or stderr
	Offset int64  `json:"offset"` // of its first byte: a chunk sent twice is kept once
	Data   []byte `json:"data"`
}

// MaxLogChunkBytes bounds the data of a chunk.
const MaxLogChunkBytes = 1 << 20
