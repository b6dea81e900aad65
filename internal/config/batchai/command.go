package batchai

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// volume is a file system that a job mounts; which fields it has depends on its kind.
type volume struct {
	RelativeMountPath string
	AccountName       string
	AzureFileURL      string
	ContainerName     string
	MountCommand      string
	FileServer        struct{ ID string }
	SourceDirectory   string
}

// mounted is a mount of fleet.yaml that was made of a volume.
type mounted struct {
	name, kind, source string
	relative           string // below AZ_BATCHAI_MOUNT_ROOT
}

// volumes turns what a job mounts into mounts.
func (c *converter) volumes(kind string, text json.RawMessage) {
	var all []volume
	if json.Unmarshal(text, &all) != nil {
		c.lacks("mountVolumes.%s: there is no counterpart", kind)
		return
	}
	for _, v := range all {
		m := mounted{relative: strings.Trim(path.Clean("/"+v.RelativeMountPath), "/")}
		m.name = plainName(m.relative)
		if m.relative == "" {
			m.name = plainName(kind)
		}
		for i := 2; c.named(m.name); i++ {
			m.name = fmt.Sprintf("%s-%d", plainName(m.relative), i)
		}
		switch kind {
		case "azureFileShares":
			m.kind, m.source = "smb", strings.TrimPrefix(v.AzureFileURL, "https:")
		case "fileServers":
			m.kind = "nfs"
		}
		if !strings.HasPrefix(m.source, "//") || strings.ContainsAny(m.source, " \t\n") {
			m.source = ""
		}
		c.mounts = append(c.mounts, m)
		c.Notes = append(c.Notes, fmt.Sprintf("mountVolumes.%s %s became the mount %s: the operator of each machine has to mount it at /mnt/%s (docs/mounts.md), and allow it by --mount-root /mnt", kind, v.RelativeMountPath, m.name, m.name))
	}
}

func (c *converter) named(name string) bool {
	for _, m := range c.mounts {
		if m.name == name {
			return true
		}
	}
	return false
}

var (
	shellVariable = regexp.MustCompile(`\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))`)
	variable      = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	operators     = regexp.MustCompile("[;&|<>`()*?\n]")
)

// place turns a path of a job, which begins with one of its variables, into one with
// placeholders; "" if it lies nowhere.
func (c *converter) place(text string) string {
	rest, ok := strings.CutPrefix(shellVariable.ReplaceAllString(text, "$$$1$2"), "$AZ_BATCHAI_MOUNT_ROOT")
	if !ok {
		if rest, ok = strings.CutPrefix(shellVariable.ReplaceAllString(text, "$$$1$2"), "$AZ_BATCHAI_JOB_MOUNT_ROOT"); !ok {
			return ""
		}
	}
	rest = strings.Trim(path.Clean("/"+rest), "/")
	best, at := "", -1
	for _, m := range c.mounts {
		if below, ok := strings.CutPrefix(rest+"/", m.relative+"/"); (ok || m.relative == "") && len(m.relative) > at {
			if m.relative == "" {
				below = rest
			}
			best, at = strings.TrimSuffix("{mounts."+m.name+"}/"+below, "/"), len(m.relative)
		}
	}
	return best
}

// fill replaces the variables in a text by what is known of them.
func (c *converter) fill(text string) string {
	return shellVariable.ReplaceAllStringFunc(text, func(v string) string {
		name := strings.Trim(v, "${}")
		if v, ok := c.env[name]; ok {
			return v
		}
		switch {
		case strings.HasPrefix(name, "AZ_BATCHAI_OUTPUT_"), name == "AZ_BATCHAI_STDOUTERR_DIR":
			return "{output}"
		case name == "AZ_BATCHAI_JOB_NAME":
			return "{job}"
		}
		return v
	})
}

// command turns the command line of a job, with what belongs to it, into a pipeline's command.
// It reports whether there is one.
func (c *converter) command() bool {
	j := c.job
	if j.CustomToolkitSettings == nil {
		return false
	}
	c.env = map[string]string{}
	for _, d := range j.InputDirectories {
		to := c.place(d.Path)
		if to == "" {
			to = "{input}"
			c.lacks("inputDirectories %s (%s): it lies in no volume that the job mounts; it stands for the folder with the sensor's rows and model now", d.ID, d.Path)
		}
		c.set("inputDirectories", "AZ_BATCHAI_INPUT_"+d.ID, to)
	}
	for _, d := range j.OutputDirectories {
		c.set("outputDirectories", "AZ_BATCHAI_OUTPUT_"+d.ID, "{output}")
		c.Notes = append(c.Notes, fmt.Sprintf("outputDirectories %s (%s): what the command leaves there is kept in the store, in predictions/%s/_output, and not in that folder", d.ID, path.Join(d.PathPrefix, d.PathSuffix), c.Name))
	}
	for _, v := range j.EnvironmentVariables {
		c.set("environmentVariables", v.Name, c.fill(v.Value))
	}
	c.secrets = map[string]string{}
	for _, v := range j.Secrets {
		if !variable.MatchString(v.Name) {
			c.lacks("secrets %s: this isn't the name of an environment variable", v.Name)
			continue
		}
		c.secrets[v.Name] = plainName(v.Name)
		c.Notes = append(c.Notes, fmt.Sprintf("secrets %s: put its value where the server finds the secret %s (docs/commands.md)", v.Name, plainName(v.Name)))
	}
	line := j.CustomToolkitSettings.CommandLine
	run := c.fill(line)
	if operators.MatchString(line) {
		c.lacks("customToolkitSettings.commandLine %q: there is no shell; put this into a program, and name the program in command.run", line)
		run = ""
	} else if left := shellVariable.FindString(run); left != "" {
		c.lacks("customToolkitSettings.commandLine %q: nothing is known that %s stands for; write a placeholder", line, left)
	}
	words, err := fleetscore.SplitCommand(run)
	if err != nil || len(words) == 0 || strings.Contains(words[0], "{") {
		if run != "" {
			c.lacks("customToolkitSettings.commandLine %q can't be taken over; write command.run yourself", line)
		}
		run = "python predict.py {Device} {Tag}"
	}
	c.run = run
	c.Notes = append(c.Notes, "command.run: one job scores all sensors now, and the command is run for each of them; write {Device} and {Tag} in place of the values of one sensor")
	return true
}

// set notes an environment variable.
func (c *converter) set(setting, name, value string) {
	if !variable.MatchString(name) {
		c.lacks("%s %s: this isn't the name of an environment variable", setting, name)
		return
	}
	c.env[name] = value
}
