package fleetscore

// Outcome is how an item ended: a key of a job has exactly one.
type Outcome string

// The outcomes, best first.
const (
	Scored      Outcome = "scored"      // every row of the key has a prediction
	NoData      Outcome = "no_data"     // the interval holds no row of the key
	NoModel     Outcome = "no_model"    // there are rows, but no model for the key
	Failed      Outcome = "failed"      // the model could not be read or its rows not scored
	TimedOut    Outcome = "timed_out"   // scoring took longer than the limit
	Quarantined Outcome = "quarantined" // taken out of scoring after repeated harm
	Excluded    Outcome = "excluded"    // left out by configuration
)

// Outcomes lists all outcomes in their order of display.
var Outcomes = []Outcome{Scored, NoData, NoModel, Failed, TimedOut, Quarantined, Excluded}

// Asked reports whether a model was asked for the outcome.
func (o Outcome) Asked() bool { return o == Scored || o == Failed || o == TimedOut }

// JobState is where a job is in its life.
type JobState string

// The states of a job in life order.
const (
	JobWaiting      JobState = "waiting"       // for its dataset to be complete until the interval's end
	JobQueued       JobState = "queued"        // planned into tasks, none leased yet
	JobRunning      JobState = "running"       // at least one task was leased
	JobCommitting   JobState = "committing"    // all tasks ended; results become visible
	JobSucceeded    JobState = "succeeded"     // committed, something was scored, coverage within the limits
	JobPartlyFailed JobState = "partly_failed" // committed, a limit is exceeded
	JobFailed       JobState = "failed"        // no prediction was committed
	JobCanceled     JobState = "canceled"
)

// JobStates lists all states of a job in life order.
var JobStates = []JobState{JobWaiting, JobQueued, JobRunning, JobCommitting, JobSucceeded, JobPartlyFailed, JobFailed, JobCanceled}

// Ended reports whether the state is final.
func (s JobState) Ended() bool {
	switch s {
	case JobSucceeded, JobPartlyFailed, JobFailed, JobCanceled:
		return true
	}
	return false
}

// TaskState is where a task is in its life.
type TaskState string

// The states of a task in life order.
const (
	TaskQueued    TaskState = "queued"
	TaskLeased    TaskState = "leased"
	TaskSucceeded TaskState = "succeeded" // an attempt delivered an outcome for each of its keys
	TaskFailed    TaskState = "failed"    // its tries are used up; its keys are failed
	TaskCanceled  TaskState = "canceled"
)

// Ended reports whether the state is final.
func (s TaskState) Ended() bool {
	return s == TaskSucceeded || s == TaskFailed || s == TaskCanceled
}

// NodeState is where a node is in its life.
type NodeState string

// The states of a node in life order.
const (
	NodeStarting  NodeState = "starting"  // the provider was asked to start the node
	NodePreparing NodeState = "preparing" // the node registered, and the pool's setup command runs on it
	NodeIdle      NodeState = "idle"      // the node could take tasks and has none
	NodeRunning   NodeState = "running"   // the node has tasks
	NodeDraining  NodeState = "draining"  // the node takes no more leases
	NodeUnusable  NodeState = "unusable"  // the setup command failed, or a mount can't be used; the node has ended, or was never started
	NodeLost      NodeState = "lost"      // its heartbeats stopped
	NodeStopped   NodeState = "stopped"   // the node ended and said so
)

// NodeStates lists all states of a node in life order.
var NodeStates = []NodeState{NodeStarting, NodePreparing, NodeIdle, NodeRunning, NodeDraining, NodeUnusable, NodeLost, NodeStopped}

// Works reports whether the node takes tasks.
func (s NodeState) Works() bool { return s == NodeIdle || s == NodeRunning }

// Coming reports whether the node doesn't take tasks yet, but will.
func (s NodeState) Coming() bool { return s == NodeStarting || s == NodePreparing }

// Speaks reports whether the node registered and its heartbeats are expected.
func (s NodeState) Speaks() bool { return s.Works() || s == NodePreparing || s == NodeDraining }

// Ended reports whether the node has ended, or is taken for it.
func (s NodeState) Ended() bool { return s == NodeUnusable || s == NodeLost || s == NodeStopped }

// OccurrenceState is the outcome of one due time of a schedule.
type OccurrenceState string

// The outcomes of an occurrence.
const (
	OccurrenceRan       OccurrenceState = "ran"       // a job was made for it
	OccurrenceCoalesced OccurrenceState = "coalesced" // a later occurrence's job covers its interval
	OccurrenceSkipped   OccurrenceState = "skipped"   // its trigger was dropped; the next interval includes its rows
	OccurrenceMissed    OccurrenceState = "missed"    // no job could run within its deadline
)

// ServerState says what a server does.
type ServerState string

// The states of servers.
const (
	ServerLeads   ServerState = "leads"
	ServerFollows ServerState = "follows"
	ServerSilent  ServerState = "silent"
	ServerEnded   ServerState = "ended"
)
