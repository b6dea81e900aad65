// Package batchai turns the description of an Azure Batch AI job into a pipeline: text for
// fleet.yaml, and a list of what has no counterpart. It knows both forms of the description,
// that of the command line's job.json and that of the REST interface of 2018-05-01, whose
// job lies in "properties".
//
// It reads and writes no files, and keeps no state.
package batchai

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
)

// Pipeline is what became of a job.
type Pipeline struct {
	Name   string
	YAML   string   // a whole fleet.yaml
	Notes  []string // what has no counterpart, and what to do; what has to be checked
	Counts int      // how many of the notes are settings without a counterpart
}

type nameValue struct {
	Name, Value          string
	ValueSecretReference json.RawMessage
}

// job is what a job's description holds; the names are those of the interface.
type job struct {
	SchedulingPriority string
	Cluster            struct{ ID string }
	NodeCount          int
	ContainerSettings  *struct {
		ImageSourceRegistry struct {
			ServerURL, Image string
			Credentials      json.RawMessage
		}
	}
	CustomToolkitSettings *struct{ CommandLine string }
	JobPreparation        *struct{ CommandLine string }
	StdOutErrPathPrefix   string
	InputDirectories      []struct{ ID, Path string }
	OutputDirectories     []struct{ ID, PathPrefix, PathSuffix string }
	EnvironmentVariables  []nameValue
	Secrets               []nameValue
	Constraints           struct{ MaxWallClockTime string }
	MountVolumes          map[string]json.RawMessage
}

// known are the settings above; the others are named as having no counterpart.
var known = []string{"schedulingPriority", "cluster", "nodeCount", "containerSettings", "customToolkitSettings", "jobPreparation", "stdOutErrPathPrefix",
	"inputDirectories", "outputDirectories", "environmentVariables", "secrets", "constraints", "mountVolumes", "toolType"}

const op = "import Batch AI job"

var duration = regexp.MustCompile(`^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?$`)

// Convert turns a job's description into a pipeline; name is the file's name, which names
// the pipeline where the description doesn't.
func Convert(name string, data []byte) (*Pipeline, error) {
	var outer struct {
		Name       string
		Properties map[string]json.RawMessage
	}
	if err := json.Unmarshal(data, &outer); err != nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, name, "it isn't a job in JSON: %w", err)
	}
	if outer.Properties == nil {
		if err := json.Unmarshal(data, &outer.Properties); err != nil {
			return nil, fleetscore.Errorf(fleetscore.Invalid, op, name, "it isn't a job in JSON: %w", err)
		}
	}
	inner, err := json.Marshal(outer.Properties)
	if err != nil {
		return nil, fleetscore.Wrap(op, name, err)
	}
	var j job
	if err := json.Unmarshal(inner, &j); err != nil {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, name, "it isn't a job of the version 2018-05-01: %w", err)
	}
	if !slices.ContainsFunc(known, func(k string) bool { return outer.Properties[k] != nil }) {
		return nil, fleetscore.Errorf(fleetscore.Invalid, op, name, "it has no setting of a Batch AI job").
			WithHint("name the job.json of az batchai job create, or a job as the REST interface shows it")
	}
	c := &converter{Pipeline: Pipeline{Name: plainName(cmp.Or(outer.Name, strings.TrimSuffix(path.Base(name), path.Ext(name))))}, job: j}
	c.settings(outer.Properties)
	if err := c.limits(name); err != nil {
		return nil, err
	}
	c.write()
	return &c.Pipeline, nil
}

// plainName makes a name as pipelines have: small letters, digits and hyphens.
func plainName(s string) string {
	s = strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(s), "-"), "-")
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		s = "job-" + s
	}
	return strings.Trim(s[:min(len(s), 40)], "-")
}

type converter struct {
	Pipeline
	job      job
	priority string
	timeout  fleetscore.Duration
	mounts   []mounted
	image    string            // of the pool's containers; empty means no containers
	run      string            // the command; empty means that there is none
	env      map[string]string // of the command
	secrets  map[string]string // of the command, by environment variable
}

// lacks notes a setting that has no counterpart, or another one.
func (c *converter) lacks(format string, args ...any) {
	c.Counts++
	c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
}

// settings notes what can't be said in fleet.yaml.
func (c *converter) settings(all map[string]json.RawMessage) {
	j := c.job
	for _, kind := range slices.Sorted(maps.Keys(j.MountVolumes)) {
		if text := strings.TrimSpace(string(j.MountVolumes[kind])); text != "null" && text != "[]" {
			c.volumes(kind, j.MountVolumes[kind])
		}
	}
	if !c.command() {
		c.withoutCommand()
	}
	if s := j.ContainerSettings; s != nil {
		image := imageName(s.ImageSourceRegistry.ServerURL, s.ImageSourceRegistry.Image)
		if text := string(s.ImageSourceRegistry.Credentials); text != "" && text != "null" {
			c.lacks("containerSettings.imageSourceRegistry.credentials: passwords of registries come from a file that docker login wrote and --docker-config names (docs/docker.md)")
		}
		if c.run == "" || image == "" || strings.ContainsAny(image, " \t\n") {
			c.lacks("containerSettings: the image %s isn't used", image)
		} else {
			c.image = image
			c.Notes = append(c.Notes, fmt.Sprintf("the image %s: check docker.python, the interpreter in it; the server needs --docker", image))
		}
	}
	if s := j.JobPreparation; s != nil {
		c.lacks("jobPreparation.commandLine %q: a pool's setup prepares a node once; put the command into a program in a folder of --commands, or into the image", s.CommandLine)
	}
	if j.StdOutErrPathPrefix != "" {
		c.lacks("stdOutErrPathPrefix %s: logs are kept in the store, and fleetscore job logs shows them", j.StdOutErrPathPrefix)
	}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if !slices.Contains(known, k) && string(all[k]) != "null" {
			c.lacks("%s: there is no counterpart", k)
		}
	}
	if id := j.Cluster.ID; id != "" {
		c.Notes = append(c.Notes, fmt.Sprintf("the cluster %s became the pool %s on this machine; check its scale", path.Base(id), plainName(path.Base(id))))
	}
	c.Notes = append(c.Notes, "check hub, fleets and features: a Batch AI job says nothing about columns and models, so that these are the ones of the reference architecture")
}

// imageName is the name of an image as docker pull takes it. A job may name the registry as an address, and in the image once more.
func imageName(registry, image string) string {
	_, address, ok := strings.Cut(registry, "://")
	if !ok {
		address = registry
	}
	if address = strings.TrimSuffix(address, "/"); image == "" || address == "" || strings.HasPrefix(image, address+"/") {
		return image
	}
	return address + "/" + image
}

// withoutCommand notes what only a command would need.
func (c *converter) withoutCommand() {
	for _, v := range c.job.EnvironmentVariables {
		c.lacks("environmentVariables %s: nodes pass no variables to models", v.Name)
	}
	for _, v := range c.job.Secrets {
		c.lacks("secrets %s: no secret is needed, because nodes get access to their task's rows and models by their lease", v.Name) // the value isn't shown
	}
	for _, d := range c.job.InputDirectories {
		c.lacks("inputDirectories %s (%s): copy models into the fleet's path, and upload rows with fleetscore dataset upload, or send readings", d.ID, d.Path)
	}
	for _, d := range c.job.OutputDirectories {
		c.lacks("outputDirectories %s (%s): predictions are a Delta table in the store, predictions/%s", d.ID, path.Join(d.PathPrefix, d.PathSuffix), c.Name)
	}
}

// limits reads the priority and the time limit.
func (c *converter) limits(name string) error {
	switch p := strings.ToLower(c.job.SchedulingPriority); p {
	case "", "normal":
	case "low", "high":
		c.priority = p
	default:
		return fleetscore.Errorf(fleetscore.Invalid, op, name, "schedulingPriority %s isn't low, normal or high", p)
	}
	text := c.job.Constraints.MaxWallClockTime
	if text == "" {
		return nil
	}
	m := duration.FindStringSubmatch(text)
	if m == nil {
		if d, err := time.ParseDuration(text); err == nil {
			c.timeout = fleetscore.Duration(d)
			return nil
		}
		return fleetscore.Errorf(fleetscore.Invalid, op, name, "constraints.maxWallClockTime %s isn't a duration such as P1DT2H", text)
	}
	for i, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second} {
		var n int64
		if m[i+1] != "" {
			if _, err := fmt.Sscan(m[i+1], &n); err != nil || n > 1e6 {
				return fleetscore.Errorf(fleetscore.Invalid, op, name, "constraints.maxWallClockTime %s is too long", text)
			}
		}
		c.timeout += fleetscore.Duration(time.Duration(n) * unit)
	}
	return nil
}

func (c *converter) write() {
	pool := "cpu"
	if id := c.job.Cluster.ID; id != "" {
		pool = plainName(path.Base(id))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Made of a Batch AI job.\n")
	for _, n := range c.Notes {
		fmt.Fprintf(&b, "# - %s\n", fleetscore.Printable(n))
	}
	b.WriteString("hub: {key: [Device, Tag], time: TS}\n")
	var names []string
	for i, m := range c.mounts {
		if names = append(names, m.name); i == 0 {
			b.WriteString("mounts:\n")
		}
		fmt.Fprintf(&b, "  %s: {path: /mnt/%s", m.name, m.name)
		if m.kind != "" {
			fmt.Fprintf(&b, ", type: %s", m.kind)
		}
		if m.source != "" {
			fmt.Fprintf(&b, ", source: %s", quoted(m.source))
		}
		b.WriteString("}\n")
	}
	mounts := ""
	if len(names) > 0 {
		mounts = "mounts: [" + strings.Join(names, ", ") + "]"
	}
	fmt.Fprintf(&b, `fleets:
  sensors: {path: models/sensors, model: "model_{Device}_{Tag}"}
pools:
  %s:
    slots: 2
    scale: {min: 0, max: %d}
`, pool, max(1, c.job.NodeCount))
	if c.image != "" {
		fmt.Fprintf(&b, "    provider: docker\n    docker: {image: %s, python: /usr/local/bin/python}\n", quoted(c.image))
	}
	if mounts != "" {
		fmt.Fprintf(&b, "    %s\n", mounts)
	}
	fmt.Fprintf(&b, `pipelines:
  %s:
    dataset: history # rows that are uploaded
    fleet: sensors
    features: [Val=Value]
    pool: %s
`, c.Name, pool)
	if c.run != "" {
		c.writeCommand(&b, mounts)
	}
	if c.priority != "" {
		fmt.Fprintf(&b, "    priority: %s\n", c.priority)
	}
	if c.timeout > 0 {
		fmt.Fprintf(&b, "    limits: {job_timeout: %s}\n", c.timeout)
	}
	c.YAML = b.String()
}

// writeCommand writes the command of the pipeline.
func (c *converter) writeCommand(b *strings.Builder, mounts string) {
	b.WriteString("    runtime: command\n")
	if mounts != "" {
		fmt.Fprintf(b, "    %s\n", mounts)
	}
	fmt.Fprintf(b, "    command:\n      run: %s\n", quoted(c.run))
	for _, part := range []struct {
		key    string
		values map[string]string
	}{{"env", c.env}, {"secrets", c.secrets}} {
		if len(part.values) > 0 {
			fmt.Fprintf(b, "      %s:\n", part.key)
		}
		for _, name := range slices.Sorted(maps.Keys(part.values)) {
			fmt.Fprintf(b, "        %s: %s\n", quoted(name), quoted(part.values[name]))
		}
	}
	b.WriteString("      # predictions: preds.csv # a CSV file in the output with TS, Device, Tag and Prediction; without it the exit code alone counts\n")
}

// quoted is a text as YAML and JSON write it.
func quoted(s string) string {
	out, _ := json.Marshal(fleetscore.Printable(s)) // a string can always be written
	return string(out)
}
