package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

const good = `hub: {key: [Device, Tag], time: TS, retention: 7d}
queries:
  readings: |
    SELECT System.Timestamp() AS TS, Device, Tag, AVG(Value) AS Value
    INTO readings FROM hub TIMESTAMP BY TS
    GROUP BY Device, Tag, TumblingWindow(second, 5)
fleets:
  sensors: {path: models/sensors, model: "model_{Device}_{Tag}"}
pools:
  cpu: {provider: local, slots: 2, scale: {min: 0, max: 4}}
pipelines:
  anomalies:
    dataset: readings
    fleet: sensors
    features: [Value]
    schedule: {cron: "0 * * * *", start_when: complete, deadline: 10m}
    pool: cpu
    limits: {model_timeout: 10s, tries: 3, failed: 0%, no_model: 0%, no_data: 100%}
`

// TestOtherKeys: plain files and fleets of a query's dataset have the key columns of its groups.
func TestOtherKeys(t *testing.T) {
	t.Parallel()
	text := strings.NewReplacer("Device, Tag, AVG", "Room, AVG", "BY Device, Tag, T", "BY Room, T", `"model_{Device}_{Tag}"`, `"model_{Room}", key: [Room]`).Replace(good) +
		"datasets:\n  readings: {files: \"rooms/{date}/{time}/{Room}.csv\"}\n"
	if _, err := Parse("fleet.yaml", []byte(text)); err != nil {
		t.Error(err)
	}
	if _, err := Parse("fleet.yaml", []byte(strings.Replace(text, "{time}/{Room}", "{time}/{Device}", 1))); err == nil || !strings.Contains(err.Error(), "{Device} is unknown") {
		t.Errorf("a token that isn't part of the dataset's key: %v", err)
	}
}

func TestParseDesignExample(t *testing.T) {
	t.Parallel()
	got, err := Parse("fleet.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	zero, all := fleetscore.AllowShare(0), fleetscore.AllowShare(100)
	minutes := func(n int) fleetscore.Duration { return fleetscore.Duration(time.Duration(n) * time.Minute) }
	want := fleetscore.Config{
		Hub: fleetscore.HubConfig{Key: []string{"Device", "Tag"}, Time: "TS", TimeUnit: "ms", Partitions: 1, Retention: fleetscore.HubRetention{Age: minutes(7 * 24 * 60)},
			Disorder: fleetscore.Duration(5 * time.Second), IdleAfter: fleetscore.Duration(10 * time.Second)},
		Queries: map[string]fleetscore.QueryConfig{"readings": {
			SQL: "SELECT System.Timestamp() AS TS, Device, Tag, AVG(Value) AS Value\nINTO readings FROM hub TIMESTAMP BY TS\nGROUP BY Device, Tag, TumblingWindow(second, 5)\n",
			Cut: minutes(10)}},
		Fleets: map[string]fleetscore.FleetConfig{"sensors": {Path: "models/sensors", Model: "model_{Device}_{Tag}", Sync: minutes(1)}},
		Pools: map[string]fleetscore.PoolConfig{"cpu": {Provider: "local", Slots: 2,
			Scale: fleetscore.ScaleConfig{Min: 0, Max: 4, IdleAfter: minutes(1)}}},
		Pipelines: map[string]fleetscore.PipelineConfig{"anomalies": {Dataset: "readings", Fleet: "sensors", Features: []string{"Value"},
			FeaturesBy: "name",
			Schedule:   fleetscore.ScheduleConfig{Cron: "0 * * * *", StartWhen: "complete", Deadline: minutes(10), Overlap: "queue_one", CatchUp: "last"}, Pool: "cpu",
			Limits:  fleetscore.LimitsConfig{ModelTimeout: fleetscore.Duration(10 * time.Second), Tries: 3, QuarantineAfter: 3, Failed: zero, NoModel: zero, NoData: all},
			History: minutes(30 * 24 * 60)}},
		Access: fleetscore.AccessConfig{Sessions: fleetscore.SessionsConfig{Idle: minutes(12 * 60), Longest: minutes(7 * 24 * 60)}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("config differs (-want +got):\n%s", d)
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, old, new string
		want           []string // texts that the message must contain, in this order
	}{
		{"unknown key", "    pool: cpu", "    pol: cpu", []string{"fleet.yaml:17:", "pipelines.anomalies.pol: unknown key; did you mean pool?"}},
		{"late readings", "  readings: |\n", "  readings:\n   late: revises\n   late_within: 2h\n   sql: |\n", []string{":4: queries.readings.late: revises is not possible; write drop", ":5: queries.readings.late_within: it has a meaning only with late: revise or adjust"}},
		{"late readings of old windows", "  readings: |\n", "  readings:\n   late: revise\n   late_within: 168h\n   sql: |\n", []string{":5: queries.readings.late_within: a late reading's window", "(168h0m5s together) must not be longer than hub.retention"}},
		{"late readings with OVER", "  readings: |\n    SELECT System.Timestamp() AS TS, Device, Tag, AVG(Value) AS Value\n    INTO readings FROM hub TIMESTAMP BY TS", "  readings:\n   late: revise\n   sql: |\n    SELECT System.Timestamp() AS TS, Device, Tag, AVG(Value) AS Value\n    INTO readings FROM hub TIMESTAMP BY TS OVER Device, Tag",
			[]string{":4: queries.readings.late: revise doesn't go with TIMESTAMP BY … OVER, which the statement INTO readings has"}},
		{"OVER what isn't in GROUP BY", "FROM hub TIMESTAMP BY TS", "FROM hub TIMESTAMP BY TS OVER Site", []string{"queries.readings: ", "Site stands behind OVER, so that GROUP BY needs it too"}},
		{"reference data", "fleets:\n", "references: {limits: {path: /tmp/limits.csv}, other: {path: references/other.json, every: 5ms}}\nfleets:\n",
			[]string{`references.limits.path: "/tmp/limits.csv" is not the name of a file in the store`, "references.other.path: references/other.json: reference data is a .csv or .parquet file", "references.other.every: 5ms is less than 1s"}},
		{"unknown reference data", "FROM hub TIMESTAMP BY TS\n", "FROM hub TIMESTAMP BY TS JOIN caps ON caps.Device = hub.Device\n",
			[]string{"queries.readings: JOIN caps: there is no such reference data; write references: {caps: {path: references/caps.csv}}"}},
		{"unknown top key", "pools:", "machines:", []string{"fleet.yaml:9: machines: unknown key; known here: hub, queries, references, datasets, fleets, pools, mounts, pipelines, access, retention, store"}},
		{"formula in a block", "scale: {min: 0, max: 4}}", "scale: {max: 4, formula: x}}", []string{":10: pools.cpu.scale.formula: line 1, column 1: "}},
		{"formula with bounds of its own", "  cpu: {provider: local, slots: 2, scale: {min: 0, max: 4}}",
			"  cpu:\n    scale:\n      idle_after: 5m\n      evaluation_interval: 20s\n      formula: |\n        // all tasks\n        n = $PendingTask;\n        $TargetDedicatedNodes = n;",
			[]string{":11: pools.cpu.scale: max is missing", ":12: pools.cpu.scale.idle_after: the formula decides", ":13: pools.cpu.scale.evaluation_interval: 20s: from 30s to 168h0m0s are possible",
				":16: pools.cpu.scale.formula: line 2, column 5: ", "$PendingTasks"}},
		{"neither true nor false", "max: 4}}", "max: 4, warm_up: maybe}}", []string{":10: pools.cpu.scale.warm_up: true or false is expected here"}},
		{"cost that is no number", "max: 4}}", "max: 4, cost_per_hour: cheap}}", []string{":10: pools.cpu.scale.cost_per_hour: a number is expected here"}},
		{"cost below zero", "max: 4}}", "max: 4, cost_per_hour: -0.2}}", []string{":10: pools.cpu.scale.cost_per_hour: -0.2: a price from 0"}},
		{"cost without end", "max: 4}}", "max: 4, cost_per_hour: .inf}}", []string{":10: pools.cpu.scale.cost_per_hour:"}},
		{"interval without a formula", "max: 4}}", "max: 4, evaluation_interval: 5m}}", []string{":10: pools.cpu.scale.evaluation_interval: there is no formula"}},
		{"several at once", "slots: 2, scale: {min: 0, max: 4}", "slot: 2, scale: {minimum: 0, max: many}", []string{
			":10: pools.cpu.slot: unknown key; did you mean slots?", ":10: pools.cpu.scale.minimum", ":10: pools.cpu.scale.max: a whole number is expected"}},
		{"duration without unit", "deadline: 10m", "deadline: 10", []string{":16: pipelines.anomalies.schedule.deadline", "write for example 90s"}},
		{"limit that is neither count nor share", "failed: 0%", "failed: some", []string{":18:", "write for example 5 or 5%"}},
		{"isolation", "    pool: cpu", "    pool: cpu\n    runtime: python\n    python: {isolation: off, disk_mb: 1}", []string{":19: pipelines.anomalies.python.disk_mb: 1: at least 16", ":19: pipelines.anomalies.python.isolation: \"off\": write best or required"}},
		{"isolation without Python", "    pool: cpu", "    pool: cpu\n    python: {isolation: required}", []string{":18: pipelines.anomalies.python: the runtime is native"}},
		{"query", "TumblingWindow(second, 5)", "Tumblng(second, 5)", []string{":3: queries.readings:"}},
		{"cron", "0 * * * *", "0 0 30 2 *", []string{":16: pipelines.anomalies.schedule.cron:", "never due"}},
		{"zone", `cron: "0 * * * *"`, `cron: "0 * * * *", zone: Europe/Berln`, []string{":16: pipelines.anomalies.schedule.zone:", "there is no time zone"}},
		{"start", `cron: "0 * * * *"`, `cron: "0 * * * *", start: soon`, []string{":16: pipelines.anomalies.schedule.start:", "isn't a time"}},
		{"recurrence", `cron: "0 * * * *"`, `recurrence: {"frequency": "Day", "schedule": {"hours": [8, "24"]}}`, []string{":16: pipelines.anomalies.schedule.recurrence:", "the hour 24 isn't between 0 and 23"}},
		{"recurrence's keys", `cron: "0 * * * *"`, `recurrence: {frequency: Day, every: 2}`, []string{":16: pipelines.anomalies.schedule.recurrence.every: unknown key"}},
		{"both", `cron: "0 * * * *"`, `cron: "0 * * * *", recurrence: {frequency: Day}`, []string{":16: pipelines.anomalies.schedule.recurrence:", "not both"}},
		{"overlap", "start_when: complete", "overlap: queue", []string{":16: pipelines.anomalies.schedule.overlap:", "write skip, queue_one, queue_all, replace or allow"}},
		{"catch_up", "start_when: complete", "catch_up: some", []string{":16: pipelines.anomalies.schedule.catch_up:", "write none, last or all"}},
		{"jitter", "start_when: complete", "jitter: -1s", []string{":16: pipelines.anomalies.schedule.jitter:", "negative"}},
		{"catch_up_window", "start_when: complete", "catch_up_window: -1h", []string{":16: pipelines.anomalies.schedule.catch_up_window:", "negative"}},
		{"start_when", "start_when: complete", "start_when: due", []string{":16: pipelines.anomalies.schedule.start_when:", "write complete or clock"}},
		{"template", "model_{Device}_{Tag}", "model_{Device}", []string{":8: fleets.sensors.model:", "Tag"}},
		{"other groups", "Tag, AVG(Value) AS Value\n    INTO readings FROM hub TIMESTAMP BY TS\n    GROUP BY Device, Tag,", "AVG(Value) AS Value\n    INTO readings FROM hub TIMESTAMP BY TS\n    GROUP BY Device,",
			[]string{"pipelines.anomalies: the dataset readings has the key columns Device, and the sensors of fleet sensors have Device, Tag; write key: [Device] in the fleet"}},
		{"key of a fleet", "\"model_{Device}_{Tag}\"", "\"model_{Room}\", key: [Room]", []string{"the dataset readings has the key columns Device, Tag, and the sensors of fleet sensors have Room"}},
		{"unknown fleet", "fleet: sensors", "fleet: senors", []string{`fleet "senors" is not described under fleets; there is: sensors`}},
		{"unknown column", "features: [Value]", "features: [Val]", []string{":15:", `dataset readings has no column "Val"; there is: Value`}},
		{"twice", "    pool: cpu", "    pool: cpu\n    pool: cpu", []string{":18:", "already"}},
		{"not yaml", "hub: {key: [Device, Tag]", "hub: {key: [Device, Tag", []string{"fleet.yaml:"}},
		{"alias", "features: [Value]", "features: &f [Value]", []string{":15:", "anchors"}},
		{"provider", "provider: local", "provider: kubernetes", []string{":10:", "\"kubernetes\" is not a provider", "local", "static", "exec"}},
		{"after itself", "schedule: {cron: \"0 * * * *\",", "schedule: {run_after: anomalies,", []string{"in a circle that contains anomalies"}},
		{"zone and cron line", `cron: "0 * * * *"`, `cron: "0 25 * * *", zone: Europe/Berln, start: noon`, []string{"schedule.zone:", "there is no time zone", "schedule.start:", "isn't a time", "schedule.cron:", "the hour 25"}},
		{"after nobody", "schedule: {cron: \"0 * * * *\",", "schedule: {run_after: anomalie, zone: Europe/Paris,", []string{"has no due times of its own", "pipeline \"anomalie\" is not described"}},
		{"shadow of nobody", "pipelines:", "pipelines:\n  candidate: {shadow: anomalis, fleet: sensors}", []string{":12: pipelines.candidate.shadow: pipeline \"anomalis\" is not described", "did you mean anomalies?"}},
		{"shadow of itself", "pipelines:", "pipelines:\n  candidate: {shadow: candidate, fleet: sensors}", []string{":12: pipelines.candidate.shadow: a pipeline can't shadow itself; name the pipeline whose data the candidate is to score; there is: anomalies"}},
		{"shadow of a shadow", "pipelines:", "pipelines:\n  b: {shadow: anomalies, fleet: sensors, missing: skip}\n  c: {shadow: b, fleet: sensors}", []string{":13: pipelines.c.shadow: b is a shadow too, of anomalies"}},
		{"shadow of the same", "pipelines:", "pipelines:\n  candidate: {shadow: anomalies, fleet: sensors}", []string{":12: pipelines.candidate: it would score what anomalies scores"}},
		{"settings that a shadow can't have", "pipelines:", "pipelines:\n  candidate:\n    shadow: anomalies\n    fleet: sensors\n    missing: skip\n    dataset: readings\n    priority: high\n    schedule: {cron: '@hourly'}",
			[]string{":16: pipelines.candidate.dataset: a shadow scores the rows", ":17: pipelines.candidate.priority: a shadow's jobs have low priority", ":18: pipelines.candidate.schedule: a shadow's jobs follow"}},
		{"after a shadow", "pipelines:", "pipelines:\n  b: {shadow: anomalies, fleet: sensors, missing: skip}\n  c: {dataset: readings, fleet: sensors, features: [Value], pool: cpu, schedule: {run_after: b}}",
			[]string{":13: pipelines.c.schedule.run_after: b is a shadow of anomalies"}},
		{"layout of logs", "    pool: cpu", "    pool: cpu\n    logs: {layout: wide, timing: maybe}", []string{":18: pipelines.anomalies.logs.timing: true or false is expected", ":18: pipelines.anomalies.logs.layout: \"wide\": write nested or flat"}},
		{"retention", "pools:", "retention: {logs: {age: 5m, size: 10KB}, predictions: {size: 10}, history: {jobs: -1, size: 9KB, bytes: 1GB}}\npools:",
			[]string{":9: retention.predictions.size: ", "write for example 10GB", ":9: retention.history.bytes: unknown key", ":9: retention.logs.age: 5m0s is too short", ":9: retention.logs.size: 10KB is too little", ":9: retention.history.size: 9KB is too little", ":9: retention.history.jobs: -1 is negative"}},
		{"exec without commands", "provider: local", "provider: exec", []string{":10:", "the provider exec needs commands"}},
		{"commands of local", "provider: local", "provider: local, exec: {start: [./a], stop: [./b], list: [./c]}", []string{":10:", "commands belong to the provider exec"}},
		{"no stop command", "provider: local", "provider: exec, exec: {start: [./a], list: [./c], server: here}", []string{":10:", "stop is missing", "not the URL of a server"}},
		{"scale of static", "provider: local", "provider: static", []string{":10:", "leave scale out"}},
		{"relative path without a folder", "path: models/sensors", "path: ./models", []string{":8:", "absolute path"}},
		{"defaults without a list", "{path: models/sensors, model: \"model_{Device}_{Tag}\"}", "\n    path: models/sensors\n    model: model_{Device}_{Tag}\n    defaults: [{model: d}]", []string{":11: fleets.sensors.defaults: defaults need a list of sensors"}},
		{"a default's column", "{path: models/sensors, model: \"model_{Device}_{Tag}\"}", "\n    path: models/sensors\n    sensors: s.csv\n    defaults:\n      - when: {Tga: x}\n        model: d", []string{":11: fleets.sensors.defaults: default 1: \"Tga\" is not a key column; there is: Device, Tag"}},
		{"a default's key", "{path: models/sensors, model: \"model_{Device}_{Tag}\"}", "\n    path: models/sensors\n    sensors: s.csv\n    defaults:\n      - if: {Tag: x}\n        model: d", []string{":12: fleets.sensors.defaults.if: unknown key; known here: when, model"}},
		{"no model and no list", "{path: models/sensors, model: \"model_{Device}_{Tag}\"}", "{path: models/sensors}", []string{":8: fleets.sensors.model:", "{Device} is missing"}},
		{"a list of another form", "model: \"model_{Device}_{Tag}\"", "sensors: s.xlsx", []string{":8: fleets.sensors.sensors: s.xlsx: a list of sensors is a .csv"}},
		{"store", "pools:", "store: s3://key:secret@bucket\npools:", []string{":9: store:", "the URL holds credentials"}},
		{"store of a kind there isn't", "pools:", "store: ftp://x\npools:", []string{":9: store:", "no engine for ftp://"}},
		{"sync too often", "model: \"model_{Device}_{Tag}\"", "model: \"model_{Device}_{Tag}\", sync: 10ms", []string{":8: fleets.sensors.sync: 10ms is too often"}},
		{"all kinds at once", "    dataset: readings\n    fleet: sensors", "    datset: readings\n    fleet: senors", []string{`fleet "senors"`, ":13: pipelines.anomalies.datset: unknown key"}},
		{"result column twice", "features: [Value]", "features: [score=Value]", []string{":12:", "a column score already"}},
		{"partition column", "AVG(Value) AS Value", "AVG(Value) AS Hour", []string{":3:", "Hour"}},
		{"label that is a feature", "features: [Value]", "features: [Value]\n    label: Value", []string{":16: pipelines.anomalies.label", "Other=Value"}},
		{"kept too short", "    pool: cpu", "    pool: cpu\n    retention: 10m\n    history: 5m", []string{":18: pipelines.anomalies.retention: 10m0s is too short: write at least 1h", ":19: pipelines.anomalies.history"}},
		{"dataset kept too short", "pools:", "datasets:\n  readings: {retention: 1s}\npools:", []string{":10: datasets.readings.retention: 1s is too short"}},
		{"dataset's name", "pools:", "datasets:\n  Readings: {retention: 1d}\npools:", []string{":10: datasets.Readings:"}},
		{"session without end", "pools:", "access: {sessions: {idle: 1s, longest: 1000d}}\npools:", []string{":9: access.sessions.idle: 1s is not possible; write 5m0s to", ":9: access.sessions.longest:"}},
		{"portal's address", "pools:", "access: {url: fleet.example.com}\npools:", []string{":9: access.url: fleet.example.com is not an address"}},
		{"certificates", "pools:", "access:\n  certificates:\n    - {name: 'gateway-*', role: devices}\n    - {name: '[', role: device}\npools:",
			[]string{":11: access.certificates.1: role \"devices\" is not possible here; write device, viewer,", ":12: access.certificates.2: name \"[\" is not a pattern"}},
		{"sign-in without a provider", "pools:", "access: {sign_in: {client_id: fleet}}\npools:", []string{":9: access.sign_in: issuer is missing"}},
		{"sign-in", "pools:", "access:\n  sign_in:\n    issuer: http://login.example.com\n    roles: [{value: a, role: device}]\npools:",
			[]string{":10: access.sign_in: client_id is missing", ":11: access.sign_in.issuer: http://login.example.com: everybody on the network", ":12: access.sign_in.roles.1: role \"device\" is not possible here; write viewer, operator, administrator"}},
		{"path outside the area", "path: models/sensors", "path: sensors", []string{"models/sensors", "./sensors"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(good, tt.old, tt.new, 1)
			if text == good {
				t.Fatal("the test changes nothing")
			}
			_, err := Parse("fleet.yaml", []byte(text))
			if !fleetscore.Invalid.Is(err) {
				t.Fatalf("got error %v, want one of kind invalid", err)
			}
			rest := err.Error()
			for _, w := range tt.want {
				i := strings.Index(rest, w)
				if i < 0 {
					t.Fatalf("message\n%s\nlacks %q (in this order)", err, w)
				}
				rest = rest[i+len(w):]
			}
		})
	}
}

func TestRelativeFleetPath(t *testing.T) {
	t.Parallel()
	text := strings.Replace(good, "path: models/sensors", "path: ./models", 1)
	got, err := Parse("/srv/plant/fleet.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if want := "/srv/plant/models"; got.Fleets["sensors"].Path != want {
		t.Errorf("path %q, want %q", got.Fleets["sensors"].Path, want)
	}
}

func TestExampleFleetIsGood(t *testing.T) {
	t.Parallel()
	file := filepath.Join(testkit.Root(t), "examples", "fleet", "fleet.yaml")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(file, b); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("hub: [1, {a: b}]\nqueries: 3\n"))
	f.Add([]byte("a: &x [*x]\n---\n- !!binary x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		cfg, err := Parse("fleet.yaml", b)
		if err == nil && cfg.Hub.Partitions < 1 {
			t.Error("accepted without partitions")
		}
	})
}

// TestRecurrence: Logic Apps' JSON stands in fleet.yaml as it is.
func TestRecurrence(t *testing.T) {
	t.Parallel()
	text := strings.Replace(good, `cron: "0 * * * *"`, `zone: Europe/Berlin, recurrence: {"frequency": "Week", "interval": 2, "schedule": {"hours": ["8", 16], "minutes": 30, "weekDays": "Monday"}}`, 1)
	cfg, err := Parse("fleet.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	two := 2
	want := &fleetscore.Recurrence{Frequency: "Week", Interval: &two, Schedule: &fleetscore.RecurrenceSchedule{
		Hours: fleetscore.OneOrMore[int]{8, 16}, Minutes: fleetscore.OneOrMore[int]{30}, WeekDays: fleetscore.OneOrMore[string]{"Monday"}}}
	got := cfg.Pipelines["anomalies"].Schedule
	if d := cmp.Diff(want, got.Recurrence); d != "" || got.Zone != "Europe/Berlin" {
		t.Errorf("schedule %+v (-want +got):\n%s", got, d)
	}
}

// TestShadow: a shadow pipeline has the settings of the pipeline that it shadows, except
// those of its own, is due after it and has low priority. This doesn't depend on which of
// the two is read first.
func TestShadow(t *testing.T) {
	t.Parallel()
	text := strings.Replace(good, "sensors: {path:", "sensors: {features_by: position, path:", 1) + `    priority: high
    retention: 9d
  a: {shadow: anomalies, fleet: next, limits: {tries: 7}, missing: skip, history: 2d}
  z: {shadow: anomalies, fleet: by_name}
  same: {shadow: anomalies, fleet: sensors, runtime: python}
`
	text = strings.Replace(text, "fleets:\n", "fleets:\n  next: {path: models/next, model: \"{Device}_{Tag}\"}\n  by_name: {path: models/n, model: \"{Device}_{Tag}\", features_by: name}\n", 1)
	for range 20 {
		got, err := Parse("fleet.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		want := got.Pipelines["anomalies"]
		if want.FeaturesBy != "position" {
			t.Fatalf("the live pipeline: %+v", want)
		}
		want.Shadow, want.Fleet, want.Priority = "anomalies", "next", fleetscore.PriorityLow
		want.Schedule = fleetscore.ScheduleConfig{RunAfter: "anomalies", StartWhen: "clock", Overlap: "queue_one", CatchUp: "last"}
		want.Missing, want.History, want.Limits.Tries = "skip", fleetscore.Duration(48*time.Hour), 7
		if d := cmp.Diff(want, got.Pipelines["a"]); d != "" {
			t.Fatalf("shadow (-want +got):\n%s", d)
		}
		if by := got.Pipelines["z"].FeaturesBy; by != "name" {
			t.Fatalf("the fleet of the other shadow says features_by: name, the shadow has %s", by)
		}
	}
}

// TestRetention: the ages for all pipelines are those of the pipelines that say nothing.
func TestRetention(t *testing.T) {
	t.Parallel()
	c := parsed(t, "pools: {cpu: {}}", "pools: {cpu: {}}\nretention: {predictions: {age: 90d, size: 1TB}, logs: {size: 10GB}, history: {age: 9d, jobs: 7}}",
		"pipelines:", "pipelines:\n  own: {dataset: readings, fleet: f, features: [V], pool: cpu, retention: 2d, history: 1d}")
	day := fleetscore.Duration(24 * time.Hour)
	if p, own := c.Pipelines["p"], c.Pipelines["own"]; p.Retention != 90*day || p.History != 9*day || own.Retention != 2*day || own.History != day {
		t.Errorf("kept for %s and %s, and for %s and %s", p.Retention, p.History, own.Retention, own.History)
	}
	if r := c.Retention; r.Predictions.Size != 1e12 || r.Logs.Size != 10e9 || r.History.Jobs != 7 {
		t.Errorf("bounds %+v", r)
	}
}

// TestKafka: each fault of a topic's settings is named with its line, and what is left out has its default.
// TestHubRetention: an age alone may stand for both bounds, also in JSON, where older servers know nothing else.
func TestHubRetention(t *testing.T) {
	t.Parallel()
	week := fleetscore.HubRetention{Age: fleetscore.Duration(7 * 24 * time.Hour)}
	day := fleetscore.HubRetention{Age: fleetscore.Duration(24 * time.Hour), Size: 50e9}
	for text, want := range map[string]struct {
		fleetscore.HubRetention
		json string
	}{
		"retention: 7d":                        {week, `"168h0m0s"`},
		"time: TS":                             {week, `"168h0m0s"`},
		"retention: {age: 7d}":                 {week, `"168h0m0s"`},
		"retention: {age: 1d, size: 50GB}":     {day, `{"age":"24h0m0s","size":"50GB"}`},
		"retention: {size: 50GB}, time: Other": {fleetscore.HubRetention{Age: week.Age, Size: 50e9}, `{"age":"168h0m0s","size":"50GB"}`},
	} {
		c, err := Parse("fleet.yaml", []byte("hub: {"+text+"}\n"))
		if err != nil || c.Hub.Retention != want.HubRetention {
			t.Errorf("%s gives %+v, %v; want %+v", text, c.Hub.Retention, err, want.HubRetention)
		}
		b, err := json.Marshal(c.Hub.Retention)
		if err != nil || string(b) != want.json {
			t.Errorf("%s is written as %s, %v; want %s", text, b, err, want.json)
		}
		var again fleetscore.HubRetention
		if err := json.Unmarshal(b, &again); err != nil || again != want.HubRetention {
			t.Errorf("%s is read as %+v, %v", b, again, err)
		}
	}
	for text, want := range map[string]string{
		"retention: week":                         "not a number with a unit",
		"retention: {age: -1s}":                   "-1s is negative",
		"retention: {size: 9MB}":                  "9MB is too little for 1 partition: write at least 10MB",
		"retention: {size: 1GB}, partitions: 128": "1GB is too little for 128 partitions: write at least 1280MB",
		"retention: {size: 50}":                   "write for example 10GB",
		"retention: {time: 7d}":                   "hub.retention.time: unknown key",
		"retention: [7d]":                         "a mapping (key: value) is expected here",
	} {
		if _, err := Parse("fleet.yaml", []byte("hub: {"+text+"}\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestKafka(t *testing.T) {
	t.Parallel()
	head := "hub:\n  kafka:\n"
	for entry, want := range map[string]string{
		"- {topic: a}":                                                                          "hub.kafka.1.brokers: no broker is named",
		"- {brokers: [b], topic: a}":                                                            "b is not host:port",
		"- {brokers: ['b:1']}":                                                                  `hub.kafka.1.topic: "" is not the name of a topic`,
		"- {brokers: ['b:1'], topic: a, start: now}":                                            `"now" is unknown; write earliest or latest`,
		"- {brokers: ['b:1'], topic: a, format: avro}":                                          `"avro" is unknown; write json or csv`,
		"- {brokers: ['b:1'], topic: a, format: csv}":                                           "hub.kafka.1.columns: rows of CSV have no names",
		"- {brokers: ['b:1'], topic: a, columns: [x]}":                                          "only CSV has columns",
		"- {brokers: ['b:1'], topic: a, ca: ca.pem}":                                            "hub.kafka.1.ca: ca.pem is relative",
		"- {brokers: ['b:1'], topic: a, certificate: /c}":                                       "certificate and key belong together",
		"- {brokers: ['b:1'], topic: a, sasl: {user: u}}":                                       "hub.kafka.1.sasl: write user and password_file",
		"- {brokers: ['b:1'], topic: a, group: 'a b'}":                                          "hub.kafka.1.group",
		"- {brokers: ['b:1'], topic: a, password: secret}":                                      "password",
		"- {brokers: ['b:1'], topic: a}\n  - {brokers: ['b:1'], topic: a}":                      "hub.kafka.2.group: the topic a is read twice",
		"- {brokers: ['b:1'], topic: a, sasl: {user: u, password_file: /p, mechanism: gssapi}}": `"gssapi" is unknown`,
		"- {brokers: ['b:1'], topic: a, sasl: {user: u, password_file: p}}":                     "hub.kafka.1.sasl.password_file: p is relative",
	} {
		_, err := Parse("fleet.yaml", []byte(head+"  "+entry+"\n"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", entry, err, want)
		}
	}
	c, err := Parse("fleet.yaml", []byte(head+"  - {brokers: ['b:1'], topic: a, sasl: {user: u, password_file: /p}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if k := c.Hub.Kafka[0]; k.Group != "fleetscore" || k.Start != "earliest" || k.Format != "json" || k.SASL.Mechanism != "plain" {
		t.Errorf("defaults %+v", k)
	}
}

// TestEventHubs: each fault of the settings for senders of Event Hubs is named, and what is left out has its default.
func TestEventHubs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"{name: api}":                  `hub.event_hubs.name: "api" is not possible`,
		"{name: a/b}":                  `hub.event_hubs.name: "a/b" is not possible`,
		"{policies: [{key_file: /k}]}": `hub.event_hubs.policies.1.name: the name "" is empty`,
		"{policies: [{name: a, key_file: /k}, {name: a, key_file: /k}]}": `hub.event_hubs.policies.2.name: the name "a" is empty or is there twice`,
		"{policies: [{name: a}]}":                                                     "hub.event_hubs.policies.1.key_file: write the file",
		"{policies: [{name: a, key_file: k}]}":                                        "hub.event_hubs.policies.1.key_file: k is relative",
		"{policies: [{name: a, key_file: /k, secondary_key_file: k}]}":                "hub.event_hubs.policies.1.secondary_key_file: k is relative",
		"{policies: [{name: a, key_file: /k, rights: [write]}]}":                      `hub.event_hubs.policies.1.rights: "write" is unknown`,
		"{policies: [{name: a, key: c2VjcmV0}]}":                                      "key",
		"{policies: [{name: a, key_file: /k, rights: [send, listen, manage, Send]}]}": `"Send" is unknown`,
	} {
		if _, err := Parse("fleet.yaml", []byte("hub:\n  event_hubs: "+text+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	c, err := Parse("fleet.yaml", []byte("hub:\n  event_hubs: {policies: [{name: a, key_file: /k}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if e := c.Hub.EventHubs; e.Name != "hub" || len(e.Policies[0].Rights) != 1 || e.Policies[0].Rights[0] != "send" {
		t.Errorf("defaults %+v", e)
	}
}
