package fleetscore

import (
	"cmp"
	"encoding/json"
	"time"
)

// Config is all that fleet.yaml can say. Package config reads and judges it.
type Config struct {
	Hub        HubConfig                  `json:"hub"`
	Queries    map[string]QueryConfig     `json:"queries,omitempty"`
	References map[string]ReferenceConfig `json:"references,omitempty"` // files that queries join with
	Datasets   map[string]DatasetConfig   `json:"datasets,omitempty"`   // settings of datasets, whether queries or uploads write them
	Fleets     map[string]FleetConfig     `json:"fleets,omitempty"`
	Pools      map[string]PoolConfig      `json:"pools,omitempty"`
	Mounts     map[string]MountConfig     `json:"mounts,omitempty"` // folders of the machines that pools, pipelines and fleets use
	Pipelines  map[string]PipelineConfig  `json:"pipelines,omitempty"`
	Access     AccessConfig               `json:"access,omitzero"`
	Retention  RetentionConfig            `json:"retention,omitempty"`
	Store      string                     `json:"store,omitempty"` // where blobs lie: a folder, or s3://, azblob:// or gs://; empty means the folder store beside the ledger
}

// RetentionConfig bounds what all pipelines keep of the past, by age and by size. What is
// oldest goes first, and never what a job needs that hasn't ended.
type RetentionConfig struct {
	Predictions KeepConfig    `json:"predictions,omitempty"` // with coverage; the age is that of rows, for pipelines without a retention of their own
	Logs        KeepConfig    `json:"logs,omitempty"`        // of jobs and nodes; an age of 0 means as long as the job is kept
	History     HistoryConfig `json:"history,omitempty"`     // jobs and their tasks
}

// KeepConfig is how long, and how much at most.
type KeepConfig struct {
	Age  Duration `json:"age,omitempty"`  // 0 means for ever
	Size Size     `json:"size,omitempty"` // of all pipelines together; 0 means without limit
}

// HistoryConfig is how long jobs are kept, and how many.
type HistoryConfig struct {
	Age  Duration `json:"age,omitempty"`  // after their end, for pipelines without a history of their own; 0 means 30d
	Jobs int      `json:"jobs,omitempty"` // of each pipeline at most; 0 means 50000
	Size Size     `json:"size,omitempty"` // of the ended jobs of all pipelines together, with their tasks; 0 means without limit
}

// HubConfig says how readings look and how long they are kept.
type HubConfig struct {
	Key        []string `json:"key"`                  // key columns; default [Device, Tag]
	Time       string   `json:"time"`                 // event time column; default TS
	TimeUnit   string   `json:"time_unit,omitempty"`  // unit of event times that are numbers since 1970: "s", "ms", "us" or "ns"; empty means ms
	Partitions int      `json:"partitions,omitempty"` // ordered parts of the log; 0 means 1; fixed once readings are stored
	// Retention says how long readings are kept, and how much of them. In fleet.yaml an age alone may stand for it: retention: 7d.
	Retention HubRetention `json:"retention,omitzero"`
	Disorder  Duration     `json:"disorder,omitempty"`   // how far a reading may lie behind the latest one; 0 means 5s
	BacklogMB int          `json:"backlog_mb,omitempty"` // new readings are refused while more than this is not aggregated yet; 0 means 16384
	IdleAfter Duration     `json:"idle_after,omitempty"` // silence after which arrival time moves the watermark; 0 means 10s
	// Archive keeps readings in the store as Parquet files, so that they outlive the retention; nil keeps none.
	Archive *ArchiveConfig `json:"archive,omitempty"`
	// OwnKey is the key column that must hold the name of a device's token: the holder of the
	// token press-1 may send readings of press-1 only. Empty means that every device may send
	// readings of all.
	OwnKey string        `json:"own_key,omitempty"`
	MQTT   *MQTTConfig   `json:"mqtt,omitempty"`  // takes readings by MQTT too; nil means over HTTP alone
	Kafka  []KafkaConfig `json:"kafka,omitempty"` // topics from which readings are taken too
	// EventHubs lets senders of Azure Event Hubs send over HTTP as they send there; nil
	// takes no signatures.
	EventHubs *EventHubsConfig `json:"event_hubs,omitempty"`
	// NATS keeps the log on NATS servers, so that several servers share it; nil keeps it
	// in the folder of one server.
	NATS *NATSConfig `json:"nats,omitempty"`
}

// HubRetention bounds the log of readings by age and by size. The oldest readings go first, and none that a
// query needs or that is to be archived. Its JSON is the age alone if there is no size.
type HubRetention struct {
	Age  Duration `json:"age,omitempty"`  // 0 means 7d
	Size Size     `json:"size,omitempty"` // of all partitions together; 0 means without limit
}

// MarshalJSON writes the age alone if there is no size.
func (r HubRetention) MarshalJSON() ([]byte, error) {
	if r.Size == 0 {
		return json.Marshal(r.Age)
	}
	type plain HubRetention
	return json.Marshal(plain(r))
}

// UnmarshalJSON reads an age, or an object.
func (r *HubRetention) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*r = HubRetention{}
		return json.Unmarshal(b, &r.Age)
	}
	type plain HubRetention
	return json.Unmarshal(b, (*plain)(r))
}

// MQTTConfig says where each server takes readings by MQTT, and what its messages look like.
type MQTTConfig struct {
	Listen string `json:"listen"` // host:port; empty means 127.0.0.1:1883
	// Topic is the form of the topics; {COLUMN} stands for the value of a key column, + for
	// anything. Empty means devices/ and the key columns: devices/{Device}/{Tag}.
	Topic string `json:"topic"`
	Value string `json:"value,omitempty"` // column of a message that is a bare number; empty means that such messages are refused; needs arrival_time
	// ArrivalTime gives readings without a time the time of their arrival. Such a reading
	// counts twice if its message is sent twice.
	ArrivalTime bool `json:"arrival_time,omitempty"`
}

// ArchiveConfig says how raw readings are kept in the store.
type ArchiveConfig struct {
	Namespace string   `json:"namespace,omitempty"` // first folder below archive/; empty means fleetscore
	Every     Duration `json:"every,omitempty"`     // a file has the arrivals of so much time at most; it divides a day; 0 means 5m
	SizeMB    int      `json:"size_mb,omitempty"`   // and about so much memory of readings at most; 0 means 64
	Retention Duration `json:"retention,omitempty"` // how long files are kept; 0 means for ever
}

// EventHubsConfig says how senders of Azure Event Hubs reach the hub over HTTP, and by which
// keys they are known.
type EventHubsConfig struct {
	Name  string   `json:"name,omitempty"`  // of the hub in addresses: POST /NAME/messages; empty means hub
	Hosts []string `json:"hosts,omitempty"` // names of the service in signatures, besides the host of the request, such as fleet.servicebus.windows.net
	// ArrivalTime gives readings without a time the time of their arrival. Such a reading
	// counts twice if its event is sent twice.
	ArrivalTime bool           `json:"arrival_time,omitempty"`
	Policies    []PolicyConfig `json:"policies,omitempty"` // shared access policies, whose keys sign what is sent
}

// PolicyConfig is a shared access policy.
type PolicyConfig struct {
	Name             string   `json:"name"`                         // as signatures have it
	KeyFile          string   `json:"key_file"`                     // file that holds the key, on the server's machine
	SecondaryKeyFile string   `json:"secondary_key_file,omitempty"` // file that holds another key that is valid too, so that keys can be changed; empty means none
	Rights           []string `json:"rights,omitempty"`             // send, listen, manage; only send is of use here; empty means send
}

// KafkaConfig is a topic of Kafka, or of a service that speaks its protocol, such as an
// Event Hubs namespace. Files are those of the server's machine.
type KafkaConfig struct {
	Brokers []string `json:"brokers"`           // host:port of some of the brokers
	Topic   string   `json:"topic"`             // it must exist
	Group   string   `json:"group,omitempty"`   // consumer group that learns how far the topic was read; another name reads the topic anew; empty means fleetscore
	Start   string   `json:"start,omitempty"`   // where a topic begins that was never read: "earliest" or "latest"; empty means earliest
	Format  string   `json:"format,omitempty"`  // of the records: "json" or "csv"; empty means json
	Columns []string `json:"columns,omitempty"` // of the rows of CSV, in their order
	TLS     bool     `json:"tls,omitempty"`     // connects by TLS; also set by ca and certificate
	CA      string   `json:"ca,omitempty"`      // file with the certificates that sign those of the brokers; empty means the system's

	Certificate string      `json:"certificate,omitempty"` // file with the certificate by which the brokers know us; empty means none
	Key         string      `json:"key,omitempty"`         // file with its key
	SASL        *SASLConfig `json:"sasl,omitempty"`        // signs in by a password; nil means none
}

// SASLConfig is a user of Kafka.
type SASLConfig struct {
	Mechanism    string `json:"mechanism,omitempty"` // "plain", "scram-sha-256" or "scram-sha-512"; empty means plain
	User         string `json:"user"`
	PasswordFile string `json:"password_file"` // file that holds the password, on the server's machine
}

// NATSConfig says which NATS servers keep the hub's log. Files are those of each machine
// on which a Fleetscore server runs.
type NATSConfig struct {
	URL         string `json:"url"`                   // addresses of the servers, with commas between them: nats://a:4222,nats://b:4222, or tls://
	Name        string `json:"name,omitempty"`        // the streams are NAME-000, NAME-001, …; empty means fleetscore
	Replicas    int    `json:"replicas,omitempty"`    // how many NATS servers hold each reading; 0 means 3
	MaxMB       int    `json:"max_mb,omitempty"`      // size of each stream beyond which readings are refused; 0 means no limit
	Credentials string `json:"credentials,omitempty"` // file with a user's credentials; empty means none
	CA          string `json:"ca,omitempty"`          // file with the certificates that sign those of the servers; empty means the system's
	Certificate string `json:"certificate,omitempty"` // file with the certificate by which the servers know us; empty means none
	Key         string `json:"key,omitempty"`         // file with its key
}

// QueryConfig is one continuous query. In fleet.yaml it is either the SQL text
// itself or a mapping with these fields.
type QueryConfig struct {
	SQL string   `json:"sql"`
	Cut Duration `json:"cut,omitempty"` // event time per file and commit; 0 means 10m
	// MemoryMB bounds the memory of the query's windows, by estimate; 0 means 1024.
	MemoryMB int `json:"memory_mb,omitempty"`
	// Late says what happens to readings whose window is over.
	Late LatePolicy `json:"late,omitempty"`
	// LateWithin is, with LateRevise, how far the watermark may have passed a window that is
	// revised, or the reading itself if the query isn't of the simple form; 0 means 1h. With
	// LateAdjust, and with TIMESTAMP BY … OVER, it is how old a reading may be at its arrival; 0 means 5s, and 5m.
	LateWithin Duration `json:"late_within,omitempty"`
}

// ReferenceConfig is reference data: a CSV or Parquet file that queries join readings with.
type ReferenceConfig struct {
	Path  string   `json:"path"`            // of the file in the store
	Every Duration `json:"every,omitempty"` // how often it is looked at; 0 means 1m
}

// LatePolicy is what happens to late readings.
type LatePolicy string

// The policies.
const (
	LateDrop   LatePolicy = "drop"   // they are set aside; empty means that too
	LateRevise LatePolicy = "revise" // the rows of their windows are computed again, and scored again
	LateAdjust LatePolicy = "adjust" // they count at the earliest time that is still possible
)

// Revises is how far the watermark may have passed a window whose row is computed again; 0
// means that none is.
func (q QueryConfig) Revises() time.Duration {
	if q.Late != LateRevise {
		return 0
	}
	return cmp.Or(q.LateWithin.D(), time.Hour)
}

// Adjusts is how old a reading may be at its arrival without being adjusted; 0 means that none
// is adjusted.
func (q QueryConfig) Adjusts() time.Duration {
	if q.Late != LateAdjust {
		return 0
	}
	return cmp.Or(q.LateWithin.D(), 5*time.Second)
}

// Apart is how old a reading may be at its arrival if each key has a watermark of its own.
func (q QueryConfig) Apart() time.Duration {
	return cmp.Or(q.Adjusts(), q.LateWithin.D(), 5*time.Minute)
}

// DatasetConfig holds the settings of a dataset, whether a query writes the dataset
// or users upload it.
type DatasetConfig struct {
	Retention Duration `json:"retention,omitempty"` // how long rows are kept after their stamp; 0 means for ever
	// Files is the path of plain files with the rows, below exports/ in the store, with tokens as
	// in readings/{date}/{time}/{Device}.csv or .parquet; empty means that none are written.
	Files string `json:"files,omitempty"`
}

// FleetConfig says where a fleet's models lie and how a key's model is named.
type FleetConfig struct {
	// Path is a folder of the store ("models/sensors"), or a folder of this
	// machine when it starts with "/" or "./" (relative to fleet.yaml), or relative to Mount.
	Path string `json:"path"`
	// Mount is the mount that the models lie in, on the servers' machines; empty means none.
	Mount string `json:"mount,omitempty"`
	// Key are the key columns of the datasets that the models score, in their order; empty means the
	// hub's.
	Key []string `json:"key,omitempty"`
	// Model is the template of a model's name: "model_{Device}_{Tag}". It may be
	// empty if there is a list of sensors.
	Model string `json:"model,omitempty"`
	// Sensors is a list of the sensors that are expected, a CSV or NDJSON file in
	// Path. The list has the key columns and, if it maps sensors to models, a column
	// "model". Empty means that the sensors are those that have a model.
	Sensors string `json:"sensors,omitempty"`
	// Defaults are models for listed sensors that have no model of their own.
	Defaults []DefaultModel `json:"defaults,omitempty"`
	// FeaturesBy applies to pipelines whose own FeaturesBy is empty; empty means
	// "name".
	FeaturesBy FeatureOrder `json:"features_by,omitempty"`
	// Sync is how often the folder is checked for changes; 0 means 1m.
	Sync Duration `json:"sync,omitempty"`
	// KeepFiles says that packs hold the files of all models, which other runtimes than
	// native need. Pipelines with such a runtime set it.
	KeepFiles bool `json:"keep_files,omitempty"`
}

// KeyOr are the fleet's key columns; those of the hub if it names none.
func (c FleetConfig) KeyOr(hub []string) []string {
	if len(c.Key) > 0 {
		return c.Key
	}
	return hub
}

// DefaultModel is a model for a class of sensors.
type DefaultModel struct {
	When  map[string]string `json:"when,omitempty"` // key column to pattern ("pressure*"); all must fit; empty means every sensor
	Model string            `json:"model"`          // a file in the fleet's folder
}

// PoolConfig is a pool of nodes of one kind.
type PoolConfig struct {
	Provider string      `json:"provider"`        // "local": child processes of the server; "static": agents that people start; "exec": machines that commands start and stop; "docker": containers
	Slots    int         `json:"slots,omitempty"` // tasks a node runs at once; 0 means 1
	Scale    ScaleConfig `json:"scale,omitempty"` // how many nodes there are; not for static
	Exec     *ExecConfig `json:"exec,omitempty"`  // the commands of provider exec
	// Docker says what the containers of provider docker are.
	Docker *DockerConfig `json:"docker,omitempty"`
	// StartLimit is how long a node may take from its start to its registration; 0
	// means 30s, and 10m for exec and docker.
	StartLimit Duration     `json:"start_limit,omitempty"`
	Setup      *SetupConfig `json:"setup,omitempty"` // what prepares a node before it takes tasks
	// Mounts are what each node must have. A node that lacks one is unusable.
	Mounts []string `json:"mounts,omitempty"`
}

// SetupConfig is a command that runs once on each node before the node takes tasks. The
// program lies in a folder that the node was started with (--commands). A node on which
// it fails is unusable.
type SetupConfig struct {
	Command []string `json:"command"`           // a program and its arguments; a name without a slash is looked for in the folders
	Timeout Duration `json:"timeout,omitempty"` // of one run; 0 means 10m
}

// DockerConfig says what the containers of a pool are (docs/docker.md).
type DockerConfig struct {
	// Image is the name of an image, as docker pull takes it. One of the server's own
	// registry begins with the server's address, as with docker push.
	Image     string  `json:"image"`
	CPUs      float64 `json:"cpus,omitempty"`      // processors that a container may use, such as 1.5; 0 means all
	MemoryMB  int     `json:"memory_mb,omitempty"` // memory of a container; 0 means no limit
	Processes int     `json:"processes,omitempty"` // processes and threads of a container; 0 means 512
	TmpMB     int     `json:"tmp_mb,omitempty"`    // size of /tmp, the only place for files, which is in memory; 0 means 256
	GPUs      int     `json:"gpus,omitempty"`      // how many GPUs a container gets; -1 means all
	User      string  `json:"user,omitempty"`      // number of the user, or of user and group, as 1000:1000; empty means 65534:65534; not root
	Python    string  `json:"python,omitempty"`    // the interpreter in the image that may score models; empty means none
	// Environments is a folder in the image whose virtual environments pipelines may use besides
	// Python, for models of other releases; empty means that there are none.
	Environments string `json:"environments,omitempty"`
}

// ExecConfig holds the commands that start, stop and list machines. A command is a
// program with its arguments; the program lies in a folder that the server was started
// with (--commands).
type ExecConfig struct {
	Start   []string `json:"start"`             // starts the machine FLEETSCORE_MACHINE, on which "fleetscore node" runs
	Stop    []string `json:"stop"`              // stops and removes that machine; succeeds if there is none
	List    []string `json:"list"`              // prints the names of the pool's machines that exist
	Server  string   `json:"server,omitempty"`  // URL by which machines reach the server; empty means the address that it listens on
	Timeout Duration `json:"timeout,omitempty"` // of one run of a command; 0 means 5m
}

// ScaleConfig says how many nodes a pool has: as many as the work asks for, or as many
// as a formula says, between min and max.
type ScaleConfig struct {
	Min       int      `json:"min"`
	Max       int      `json:"max"`                  // 0 means 1
	IdleAfter Duration `json:"idle_after,omitempty"` // a node without work is stopped after this; 0 means 1m; not with a formula
	// WarmUp starts nodes before a pipeline of the pool is due, so that they are ready
	// then.
	WarmUp bool `json:"warm_up,omitempty"`
	// CostPerHour is the price of a node for an hour, in any currency; 0 means unknown.
	CostPerHour float64 `json:"cost_per_hour,omitempty"`
	// LowPriority adds nodes of a second kind, which whoever lends the machines may take
	// away at any time; nil means none. Min, Max and CostPerHour are of dedicated nodes.
	LowPriority *LowPriorityConfig `json:"low_priority,omitempty"`
	// Formula is a formula in the language of Azure Batch (docs/formulas.md); it needs
	// max.
	Formula string `json:"formula,omitempty"`
	// EvaluationInterval is the time between two evaluations of the formula, from 30s
	// to 168h; 0 means 15m.
	EvaluationInterval Duration `json:"evaluation_interval,omitempty"`
}

// LowPriorityConfig says how many nodes of low priority a pool has.
type LowPriorityConfig struct {
	Min int `json:"min"`
	Max int `json:"max"` // 0 means 1
	// CostPerHour is the price of such a node for an hour; 0 means unknown.
	CostPerHour float64 `json:"cost_per_hour,omitempty"`
}

// PipelineConfig is what to score, when, where and within which limits.
type PipelineConfig struct {
	Dataset  string   `json:"dataset"`
	Fleet    string   `json:"fleet"`
	Features []string `json:"features"` // value columns; models without feature names take them in this order; "Val=Value" renames Value to Val on output
	// FeaturesBy says how columns are matched to a model's features: "name" or
	// "position"; empty means the fleet's setting.
	FeaturesBy FeatureOrder   `json:"features_by,omitempty"`
	Runtime    RuntimeName    `json:"runtime,omitempty"` // how models are scored: native, auto, python, onnx or command; empty means native
	Python     PythonConfig   `json:"python,omitempty"`  // how Python scores, for the other runtimes than native
	Command    *CommandConfig `json:"command,omitempty"` // what is run, for the runtime command
	Mounts     []string       `json:"mounts,omitempty"`  // what Python and commands see of the pool's mounts
	Label      string         `json:"label,omitempty"`   // a column with the truth, where known: copied to the predictions
	Missing    MissingRule    `json:"missing,omitempty"` // what happens to rows that lack a feature; empty means fail
	Schedule   ScheduleConfig `json:"schedule,omitempty"`
	Pool       string         `json:"pool"`
	Priority   Priority       `json:"priority,omitempty"` // of its jobs in the pool's queue: high, normal or low; empty means normal
	Limits     LimitsConfig   `json:"limits,omitempty"`
	// Logs says how the logs of its jobs are kept.
	Logs LogsConfig `json:"logs,omitempty"`
	// Shadow is a pipeline whose rows this one scores with other models, for comparison:
	// after each of its jobs, at low priority, with results of its own. What isn't set is
	// as in that pipeline; dataset, schedule and priority can't be set.
	Shadow    string   `json:"shadow,omitempty"`
	Retention Duration `json:"retention,omitempty"` // how long predictions and coverage are kept after their rows' time; 0 means for ever
	History   Duration `json:"history,omitempty"`   // how long jobs, their tasks and logs are kept after their end, at most retention; 0 means 30d
}

// PythonConfig says how models are scored by Python processes on the nodes.
type PythonConfig struct {
	// Code is a folder or a file that Python imports the modules of models and scripts from, on
	// the server's machine, or "./code" relative to fleet.yaml. Nodes get it with their tasks; a
	// folder that the server's machine doesn't have is one of the nodes' machines.
	Code     string `json:"code,omitempty"`
	Script   string `json:"script,omitempty"`    // a file in Code with run(); empty means that models are asked to predict
	PerModel bool   `json:"per_model,omitempty"` // run gets a model and its rows, not the rows of many sensors
	MemoryMB int64  `json:"memory_mb,omitempty"` // that a process may allocate beyond its libraries; 0 means 2048
	DiskMB   int64  `json:"disk_mb,omitempty"`   // that an isolated process may write, which lies in memory; 0 means 512
	// Isolation says what happens on a machine that can't keep processes apart from
	// everything else whole: "best" isolates them as far as the machine can, "required"
	// fails the sensors instead of running Python; empty means best (docs/python.md).
	Isolation Isolation `json:"isolation,omitempty"`
	// Versions says what becomes of a model that was made with another release of scikit-learn,
	// NumPy or Python than the environment has: "warn" scores it and says so, "refuse" ends its
	// sensor as failed; empty means warn.
	Versions VersionRule `json:"versions,omitempty"`
	// Environments are further environments, by the release of scikit-learn that models were
	// made with; other models are scored by the interpreter that the node was started with.
	Environments []PythonEnvironment `json:"environments,omitempty"`
}

// VersionRule is what becomes of models that were made with other releases.
type VersionRule string

// The rules.
const (
	VersionsWarn   VersionRule = "warn"
	VersionsRefuse VersionRule = "refuse"
)

// PythonEnvironment is an environment for models of some releases of scikit-learn: one of Path,
// Requirements and Image.
type PythonEnvironment struct {
	SKLearn string `json:"sklearn"`        // release of the models, such as "0.24" or "1"; the longest that fits a model counts
	Path    string `json:"path,omitempty"` // the folder of a virtual environment, relative to the folder that nodes were given by --environments
	// Requirements is a file as pip reads it, of the server's machine, or "./requirements.txt"
	// relative to fleet.yaml: each machine makes a virtual environment of it, once.
	Requirements string `json:"requirements,omitempty"`
	// Image is an image, named as docker.image of a pool is. Its models are scored in containers of
	// this image, by nodes that the pipeline's pool starts for them.
	Image string `json:"image,omitempty"`
	// Python is the interpreter for requirements, such as python3.9, where empty means the
	// node's; or the one in Image, such as /usr/bin/python3, where empty means docker.python of the pool.
	Python string `json:"python,omitempty"`
	Index  string `json:"index,omitempty"` // where packages come from: an address, or a folder of the nodes' machines with wheels; empty means pip's default
}

// CommandConfig says how a program scores that the nodes run (docs/commands.md). In Run, Env and
// WorkDir, {Device} stands for a value of the sensor's key, {data} for the file with its
// rows, {model} for the file of its model, {models} and {input} for the folders of these, {output}
// for the folder whose files are kept, {code} for Code, and {pipeline}, {job}, {task}, {from} and
// {to} for the work.
type CommandConfig struct {
	Run    string            `json:"run"`              // the command, such as "python predict.py {Device} {Tag} {config}"; split at spaces, and run without a shell
	Per    CommandPer        `json:"per,omitempty"`    // key: it is run for each sensor; task: once for all sensors of a task; empty means key
	Params map[string]string `json:"params,omitempty"` // what placeholders of your own stand for, such as config
	Code   string            `json:"code,omitempty"`   // a folder or file as in python, where the command is started; read-only
	Read   []string          `json:"read,omitempty"`   // further files and folders of the nodes' machines that the command sees, read-only
	// WorkDir is where the command is started; empty means code, or else the folder of
	// the output.
	WorkDir string            `json:"work_dir,omitempty"`
	Env     map[string]string `json:"env,omitempty"` // further environment variables
	// Secrets are environment variables, by the names of secrets that only servers know.
	Secrets map[string]string `json:"secrets,omitempty"`
	Input   string            `json:"input,omitempty"` // form of the file with rows: csv or parquet; empty means csv
	// Predictions is a CSV file in the folder of the output with the time, the key columns,
	// Prediction and optionally Score. Empty means that the command's exit code alone says whether a
	// sensor was scored, and that there are no predictions.
	Predictions string `json:"predictions,omitempty"`
	MemoryMB    int64  `json:"memory_mb,omitempty"` // that each of its processes may take; 0 means 2048
	DiskMB      int64  `json:"disk_mb,omitempty"`   // that an isolated command may write, which lies in memory; 0 means 512
	Processes   int    `json:"processes,omitempty"` // that an isolated command may have at once, threads included; 0 means 128
	// Isolation says what happens on a machine that can't isolate whole, as in python.
	Isolation Isolation `json:"isolation,omitempty"`
}

// LimitsConfig bounds what a job may cost and how much may go wrong before it is
// partly_failed.
type LimitsConfig struct {
	ModelTimeout Duration `json:"model_timeout,omitempty"` // scoring time of one key; 0 means 10s
	TaskTimeout  Duration `json:"task_timeout,omitempty"`  // of one attempt of a task; a longer one is ended and has failed; 0 means no limit
	JobTimeout   Duration `json:"job_timeout,omitempty"`   // from a job's first attempt on; then the sensors of its other tasks end timed_out; 0 means no limit
	Tries        int      `json:"tries,omitempty"`         // failed attempts of a task before its keys are failed, and tries of a key whose time is up; 0 means 3
	// ModelMemoryMB bounds the process in which a model is scored that may have taken its
	// node down; 0 means half of the machine's memory, divided by the node's slots.
	ModelMemoryMB int `json:"model_memory_mb,omitempty"`
	// QuarantineAfter is in how many jobs in a row a model may crash its process, eat its
	// memory or exceed model_timeout before it is scored no more; 0 means 3.
	QuarantineAfter int `json:"quarantine_after,omitempty"`

	Failed  *Allowance `json:"failed,omitempty"`   // keys with outcome failed, timed_out or quarantined, as a count or a share; default 0%
	NoModel *Allowance `json:"no_model,omitempty"` // keys without a model, as a count or a share; default 0%
	NoData  *Allowance `json:"no_data,omitempty"`  // keys without rows, as a count or a share; absent means any number as long as something is scored; 100% also allows that nothing is scored
}

// LogsConfig says how the logs of a pipeline's jobs are kept.
type LogsConfig struct {
	// Layout is "nested", a folder for each task and attempt, or "flat", one folder for
	// each job; empty means nested.
	Layout LogLayout `json:"layout,omitempty"`
	// Timing says whether a job's folder also tells how long each model took to load and to
	// score; absent means true.
	Timing *bool `json:"timing,omitempty"`
}

// Timed reports whether timing is kept.
func (c LogsConfig) Timed() bool { return c.Timing == nil || *c.Timing }

// LogLayout says how the logs of a job's attempts are named.
type LogLayout string

// The layouts.
const (
	LogsNested LogLayout = "nested" // <job>/<task>/<attempt>/stderr.txt
	LogsFlat   LogLayout = "flat"   // <job>/<task>-<attempt>-stderr.txt
)

// Validate refuses other words.
func (l LogLayout) Validate() error {
	switch l {
	case "", LogsNested, LogsFlat:
		return nil
	}
	return Errorf(Invalid, "read layout", string(l), "it is not nested or flat")
}

// MissingRule says what happens to rows that lack a feature.
type MissingRule string

// The rules.
const (
	MissingFail    MissingRule = "fail"  // the sensor fails, with the row's time in the reason
	MissingSkip    MissingRule = "skip"  // the row has no prediction, and is counted
	MissingToModel MissingRule = "model" // the model gets NaN: its imputer fills it, its trees know where to send it, or it refuses
)

// Validate refuses other words.
func (m MissingRule) Validate() error {
	switch m {
	case "", MissingFail, MissingSkip, MissingToModel:
		return nil
	}
	return Errorf(Invalid, "read missing", string(m), "it is not fail, skip or model")
}

// AccessConfig says who has access besides those who hold a token.
type AccessConfig struct {
	URL      string         `json:"url,omitempty"` // the server's address as browsers see it, such as https://fleet.example.com; empty means the address in a browser's request
	Sessions SessionsConfig `json:"sessions,omitzero"`
	// Certificates give roles to the holders of client certificates. The first entry
	// that a certificate matches decides.
	Certificates []CertificateRole `json:"certificates,omitempty"`
	SignIn       SignInConfig      `json:"sign_in,omitzero"`
}

// SessionsConfig says how long browsers stay signed in.
type SessionsConfig struct {
	Idle    Duration `json:"idle,omitempty"`    // a session that isn't used for this long ends; 0 means 12h
	Longest Duration `json:"longest,omitempty"` // a session ends after this, however much it is used; 0 means 7d
}

// CertificateRole is the role of the holders of certain client certificates.
type CertificateRole struct {
	// Name is one of the certificate's alternative names (DNS, e-mail, URI), or its
	// common name if it has none. "*" stands for any characters but "/".
	Name string `json:"name"`
	Role Role   `json:"role"`
}

// SignInConfig is the OpenID provider with which people sign in to the portal. The
// client's secret isn't a part of it: the server reads it from the file that
// --sign-in-secret-file names.
type SignInConfig struct {
	Issuer   string   `json:"issuer,omitempty"`    // the provider's URL; empty means that people sign in with tokens alone
	ClientID string   `json:"client_id,omitempty"` // the name by which the provider knows this server
	Scopes   []string `json:"scopes,omitempty"`    // what is asked for besides openid; empty means email and profile
	// Claim is the claim that decides about the role, such as groups or
	// realm_access.roles; empty means email.
	Claim string      `json:"claim,omitempty"`
	Roles []ClaimRole `json:"roles,omitempty"` // the first entry that a value of the claim matches decides
}

// ClaimRole is the role of people with a value of the claim.
type ClaimRole struct {
	Value string `json:"value"` // "*" stands for any characters but "/"
	Role  Role   `json:"role"`  // viewer, operator or administrator
}
