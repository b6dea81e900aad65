package fleetscore

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Identifiers. Each is its own type so that they can't be mixed up.
type (
	JobID        string // e.g. "anomalies-20261123T1000Z-k3f9"
	TaskID       string // e.g. "anomalies-20261123T1000Z-k3f9.000"
	NodeID       string // e.g. "cpu-7f3a"
	LeaseID      string // unguessable; names one attempt and is its fencing token
	BlobName     string // slash-separated, relative to the store's root
	GenerationID string // digest prefix of a fleet's keys and models
)

// Digest is the SHA-256 of a content.
type Digest [sha256.Size]byte

// DigestOf hashes b.
func DigestOf(b []byte) Digest { return sha256.Sum256(b) }

// String is the whole digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short is the first 12 hexadecimal digits, for people.
func (d Digest) Short() string { return d.String()[:12] }

// IsZero reports whether no digest was set.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText writes hexadecimal; the zero digest is empty.
func (d Digest) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return nil, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText reads hexadecimal.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*d = Digest{}
		return nil
	}
	if hex.DecodedLen(len(b)) != len(d) {
		return Errorf(Invalid, "read digest", string(b), "a digest must have %d hexadecimal digits", 2*len(d))
	}
	_, err := hex.Decode(d[:], b)
	return err
}

// Item is one key of a job and how it ended: a row of the coverage.
type Item struct {
	Key       Key     `json:"key"`
	Outcome   Outcome `json:"outcome"`
	Rows      int64   `json:"rows"`      // rows with a prediction
	Anomalies int64   `json:"anomalies"` // of those, predictions of 1 by outlier detectors
	First     Micros  `json:"first"`     // stamp of the first row seen; 0 if none
	Last      Micros  `json:"last"`
	Model     Digest  `json:"model"`  // zero if there was none
	Reason    string  `json:"reason"` // why the key is not scored
	// Kept is the earlier job whose outcome and predictions stay, as nothing that they depend
	// on has changed; empty if the item's own job worked on the key.
	Kept JobID `json:"kept,omitempty"`
	// Image is that of the container in which the key's model was asked, by its digest; empty if
	// that was no container, or if no model was asked.
	Image string `json:"image,omitempty"`
	// Content is a digest of all that the outcome depends on: rows, model, settings. 0 means
	// that there is none.
	Content uint64 `json:"-"`

	// Load and Score are how long reading the model and predicting took; 0 if that wasn't
	// measured.
	Load  time.Duration `json:"-"`
	Score time.Duration `json:"-"`
}

// Harm is what a sensor's model did to the processes that scored it: the model crashed
// them, ate their memory, or took longer than a model may.
type Harm struct {
	Fleet       string     `json:"fleet,omitempty"`
	Pipeline    string     `json:"pipeline,omitempty"` // that scored it; what it does to another pipeline's processes isn't known by this
	Key         Key        `json:"key"`
	Model       Digest     `json:"model"`                 // another model of the sensor isn't meant
	Reason      string     `json:"reason"`                // of the last time
	Jobs        []JobID    `json:"jobs,omitempty"`        // in which jobs, which followed each other, oldest first
	First       time.Time  `json:"first,omitzero"`        // when it was noted first
	Last        time.Time  `json:"last,omitzero"`         // when it was noted last
	Quarantined *time.Time `json:"quarantined,omitempty"` // since when the model isn't scored; nil if it is
}

// Why is why the model of a sensor isn't scored.
func (h Harm) Why() error {
	return Errorf(Conflict, "score", h.Key.String(), "its model %s is in quarantine, as it did harm in %s of pipeline %s in a row: %s", h.Model.Short(), Counted(len(h.Jobs), "job"), h.Pipeline, h.Reason).
		WithHint("give the sensor another model, or release this one: fleetscore fleet release %s --key KEY", h.Fleet)
}

// Counts are items per outcome.
type Counts map[Outcome]int64

// Total is the number of items.
func (c Counts) Total() (n int64) {
	for _, v := range c {
		n += v
	}
	return n
}

// Job is one pipeline over one interval.
type Job struct {
	ID         JobID          `json:"id"`
	Pipeline   string         `json:"pipeline"`
	Interval   Interval       `json:"interval"`
	State      JobState       `json:"state"`
	Reason     string         `json:"reason,omitempty"`    // why the job waits, is partly_failed or failed
	Config     PipelineConfig `json:"config"`              // as it was when the job was made
	Due        *time.Time     `json:"due,omitempty"`       // the occurrence it was made for; nil if submitted by hand
	Priority   Priority       `json:"priority,omitempty"`  // in the pool's queue; empty means normal
	Backfill   string         `json:"backfill,omitempty"`  // names the jobs that were submitted with it to score the past; empty if there are none
	Again      bool           `json:"again,omitempty"`     // every sensor is scored, also those for which nothing has changed since an earlier job
	Rerun      *Rerun         `json:"rerun,omitempty"`     // the job that it scores a part of again; nil if it scores all
	Content    Digest         `json:"content,omitzero"`    // of all that its results depend on: rows, models, settings, release
	Unchanged  JobID          `json:"unchanged,omitempty"` // the earlier job whose results stay, as nothing has changed since; then nothing was scored
	Generation GenerationID   `json:"generation,omitempty"`
	Image      string         `json:"image,omitempty"` // in containers of which its tasks run, by its digest; empty for pools of other providers
	// Environments are those of its pipeline that are images of their own, in which the tasks with
	// their models run.
	Environments []JobEnvironment `json:"environments,omitempty"`
	FormerImages []string         `json:"former_images,omitempty"` // in which tasks may have run before the job was moved to another pool, by their digests
	Expected     int64            `json:"expected"`                // keys of the generation
	Outcomes     Counts           `json:"outcomes,omitempty"`
	Kept         int64            `json:"kept,omitempty"` // sensors whose results of an earlier job stay; they count in what follows and in the outcomes
	Rows         int64            `json:"rows"`
	Anomalies    int64            `json:"anomalies"`
	Tasks        int              `json:"tasks"`
	TasksEnded   int              `json:"tasks_ended"`
	Created      time.Time        `json:"created"`
	Planned      *time.Time       `json:"planned,omitempty"` // when its tasks were put into the pool's queue
	Started      *time.Time       `json:"started,omitempty"` // first lease
	Ended        *time.Time       `json:"ended,omitempty"`
}

// ResultsOf is the job under whose id the results are kept: the job itself, or the
// earlier one whose results stay.
func (j Job) ResultsOf() JobID {
	if j.Unchanged != "" {
		return j.Unchanged
	}
	return j.ID
}

// Rerun says which sensors of an ended job are scored again: those that fit any of its
// fields.
type Rerun struct {
	Of     JobID    `json:"of"`               // the ended job
	All    bool     `json:"all,omitempty"`    // every sensor, also those that today's fleet has besides; the job's rerun is empty then
	Failed bool     `json:"failed,omitempty"` // those that failed, timed out or were quarantined
	Cause  string   `json:"cause,omitempty"`  // those that weren't scored for a reason that holds this text
	Keys   []string `json:"keys,omitempty"`   // these, as people write them: 3/pressure
}

// Fits reports whether an item of the ended job is scored again.
func (r Rerun) Fits(i Item) bool {
	switch i.Outcome {
	case Failed, TimedOut, Quarantined:
		if r.Failed {
			return true
		}
		fallthrough
	case NoModel, NoData:
		if r.Cause != "" && strings.Contains(i.Reason, r.Cause) {
			return true
		}
	}
	return slices.Contains(r.Keys, i.Key.String()) || slices.Contains(r.Keys, string(i.Key))
}

// JobEnvironment is an environment of a job that is an image.
type JobEnvironment struct {
	Number  int    `json:"number"`  // among the environments of the pipeline, from 1 on
	SKLearn string `json:"sklearn"` // release of the models
	Image   string `json:"image"`   // by its digest
	Sensors int64  `json:"sensors"` // whose models are scored in it
}

// Images are the images that the job's tasks run in or ran in, by their digests.
func (j Job) Images() (out []string) {
	if j.Image != "" {
		out = append(out, j.Image)
	}
	for _, e := range j.Environments {
		if e.Image != "" {
			out = append(out, e.Image)
		}
	}
	return append(out, j.FormerImages...)
}

// ShortImage is the name of an image with the beginning of its digest, for tables that people read.
func ShortImage(image string) string {
	const prefix = "@sha256:"
	if at := strings.Index(image, prefix); at >= 0 && len(image) > at+len(prefix)+12 {
		return image[:at+len(prefix)+12]
	}
	return image
}

// Task is a bundle of a job's keys: those of a shard range.
type Task struct {
	ID     TaskID     `json:"id"`
	Job    JobID      `json:"job"`
	Index  int        `json:"index"`
	Shards ShardRange `json:"shards"`
	Keys   int64      `json:"keys"`
	// Environment is the number of the job's environment whose models it scores; 0 means all that
	// no such environment has.
	Environment int       `json:"environment,omitempty"`
	Image       string    `json:"image,omitempty"` // that its last attempt ran in; before the first one, that it is to run in, where empty means its job's
	State       TaskState `json:"state"`
	Attempts    int       `json:"attempts"` // leases given out
	Failures    int       `json:"failures"` // attempts that reported an error; losing a node doesn't count
	Outages     int       `json:"outages"`  // attempts that ended because the store couldn't be used; they use up no tries
	Losses      int       `json:"losses"`   // attempts that were lost with their nodes; they use up no tries
	// Alone means that its models are scored in processes of their own, one after the
	// other, because attempts ended as they do when a model takes its node down.
	Alone    bool       `json:"alone,omitempty"`
	Node     NodeID     `json:"node,omitempty"`
	NodeKind NodeKind   `json:"node_kind,omitempty"` // of that node
	Reason   string     `json:"reason,omitempty"`
	Outcome  Outcome    `json:"outcome,omitempty"` // of all its keys, if the task failed
	Started  *time.Time `json:"started,omitempty"`
	Ended    *time.Time `json:"ended,omitempty"`
}

// Attempt is one try of a task: a lease given to a node.
type Attempt struct {
	Lease   LeaseID    `json:"-"`
	Task    TaskID     `json:"task"`
	Number  int        `json:"number"` // 1, 2, …
	Node    NodeID     `json:"node"`
	State   string     `json:"state"` // leased, succeeded, failed, timed_out, unavailable, expired, lost, stopped, canceled
	Reason  string     `json:"reason,omitempty"`
	Started time.Time  `json:"started"`
	Expires time.Time  `json:"expires"`
	Ended   *time.Time `json:"ended,omitempty"`
}

// Node is one agent of a pool.
type Node struct {
	ID        NodeID    `json:"id"`
	Pool      string    `json:"pool"`
	Slots     int       `json:"slots"`
	State     NodeState `json:"state"`
	Host      string    `json:"host"`
	PID       int       `json:"pid"`
	Version   string    `json:"version"`
	Running   int       `json:"running"` // leases it holds
	Started   time.Time `json:"started"`
	Heartbeat time.Time `json:"heartbeat"`
	IdleSince time.Time `json:"idle_since"`
	// Registered is when it reported to the server first; zero before.
	Registered time.Time `json:"registered,omitzero"`
	Ready      time.Time `json:"ready,omitzero"` // when it could take tasks first; zero before
	Kind       NodeKind  `json:"kind"`
	Image      string    `json:"image,omitempty"`    // of its container, by its digest; it takes tasks of jobs with this image only
	Reason     string    `json:"reason,omitempty"`   // why it is unusable or lost, or ended before its time
	LogTail    string    `json:"log_tail,omitempty"` // the end of what its setup command wrote, if it is unusable
	Load       *NodeLoad `json:"load,omitempty"`     // as it reported last; nil if it never did
}

// PreemptedReason begins the reason of a node that was taken away.
const PreemptedReason = "preempted"

// Preempted reports whether the node was taken away by whoever lends its machine.
func (n Node) Preempted() bool {
	return n.Kind == LowPriority && strings.HasPrefix(n.Reason, PreemptedReason)
}

// NodeKind says what may happen to a node.
type NodeKind string

// The kinds.
const (
	Dedicated   NodeKind = "dedicated"    // it stays until it is stopped
	LowPriority NodeKind = "low_priority" // whoever lends the machine may take it away at any time
)

// NodeLoad is what a node measured of its machine, or of its container if that is
// limited. What can't be measured is absent, and Missing says why.
type NodeLoad struct {
	At               time.Time `json:"time"`                  // when the server was told
	CPUs             float64   `json:"cpus"`                  // processors, or the part of them that the container may use
	CPUPercent       *float64  `json:"cpu_percent,omitempty"` // of CPUs, since the measurement before: 0 to 100
	MemoryBytes      *int64    `json:"memory_bytes,omitempty"`
	MemoryTotalBytes *int64    `json:"memory_total_bytes,omitempty"`
	DiskBytes        *int64    `json:"disk_bytes,omitempty"` // used on the file system of temporary files
	DiskTotalBytes   *int64    `json:"disk_total_bytes,omitempty"`
	// What was read, written and transferred since the machine or the container started.
	DiskReadBytes   *int64 `json:"disk_read_bytes,omitempty"`
	DiskWriteBytes  *int64 `json:"disk_write_bytes,omitempty"`
	DiskReadOps     *int64 `json:"disk_read_ops,omitempty"`
	DiskWriteOps    *int64 `json:"disk_write_ops,omitempty"`
	NetworkInBytes  *int64 `json:"network_in_bytes,omitempty"`
	NetworkOutBytes *int64 `json:"network_out_bytes,omitempty"`
	Missing         string `json:"missing,omitempty"` // what isn't measured, and why
	// Cache is what the node holds of packs on its disk; nil if it has no cache, because it
	// reads the store's folder itself.
	Cache *CacheUse `json:"cache,omitempty"`
}

// CacheUse is how full a node's cache of packs is, and what it was good for since the node
// started.
type CacheUse struct {
	Bytes      int64 `json:"bytes"`
	LimitBytes int64 `json:"limit_bytes"`
	Files      int64 `json:"files"`
	Hits       int64 `json:"hits"`    // files that didn't have to be read from the store
	Misses     int64 `json:"misses"`  // files that had to
	Removed    int64 `json:"removed"` // files that made room for others
}

// Server is one of the servers that share the work, or the only one.
type Server struct {
	Name    string      `json:"name"`
	URL     string      `json:"url" doc:"where it listens"`
	Version string      `json:"version" doc:"its release"`
	State   ServerState `json:"state" enum:"leads,follows,silent,ended" doc:"leads: it also makes, plans and commits jobs and runs queries; follows: it takes requests, readings and nodes; silent: it gave no sign of life for 5 s; ended: it was ended within the last hour"`
	// LeadsSince is since when it leads; nil if it doesn't.
	LeadsSince *time.Time `json:"leads_since,omitempty"`
	Started    time.Time  `json:"started"`
	Seen       time.Time  `json:"seen" doc:"its last sign of life"`
	Self       bool       `json:"self" doc:"it is the server that answers"`
}

// Occurrence is one due time of a schedule and its outcome.
type Occurrence struct {
	Pipeline string          `json:"pipeline"`
	Due      time.Time       `json:"due"`
	State    OccurrenceState `json:"state"`
	Job      JobID           `json:"job,omitempty"`
	Reason   string          `json:"reason,omitempty"`
}

// String is the load in a few words for people, such as "CPU 34 % of 4, memory 1.2 of
// 7.8 GiB, disk 20 of 95 GiB".
func (l *NodeLoad) String() string {
	if l == nil {
		return "not measured yet"
	}
	var parts []string
	if l.CPUPercent != nil {
		parts = append(parts, fmt.Sprintf("CPU %.0f %% of %.3g", *l.CPUPercent, l.CPUs))
	}
	for _, p := range []struct {
		name        string
		used, total *int64
	}{{"memory", l.MemoryBytes, l.MemoryTotalBytes}, {"disk", l.DiskBytes, l.DiskTotalBytes}} {
		if p.used != nil && p.total != nil {
			parts = append(parts, fmt.Sprintf("%s %.3g of %.3g GiB", p.name, gib(*p.used), gib(*p.total)))
		}
	}
	if c := l.Cache; c != nil {
		parts = append(parts, fmt.Sprintf("cache %.3g of %.3g GiB, %d of %d files were there", gib(c.Bytes), gib(c.LimitBytes), c.Hits, c.Hits+c.Misses))
	}
	if l.Missing != "" {
		parts = append(parts, "not measured: "+l.Missing)
	}
	return strings.Join(parts, ", ")
}

func gib(bytes int64) float64 { return float64(bytes) / (1 << 30) }

// Priority orders the jobs of a pool: tasks of a higher priority are given to nodes
// first, and among equal ones those of the job that was made first.
type Priority string

// The priorities. Empty means normal.
const (
	PriorityHigh   Priority = "high"
	PriorityNormal Priority = "normal"
	PriorityLow    Priority = "low" // backfills have it
)

// Validate refuses other words.
func (p Priority) Validate() error {
	switch p {
	case "", PriorityHigh, PriorityNormal, PriorityLow:
		return nil
	}
	return Errorf(Invalid, "read priority", string(p), "the value must be high, normal or low")
}

// Rank is 0 for the priority that comes first, and larger for those that come later.
func (p Priority) Rank() int {
	switch p {
	case PriorityHigh:
		return 0
	case PriorityLow:
		return 2
	}
	return 1
}
