package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// goodUser is the number of a user, and of a group. Names depend on the image.
var goodUser = regexp.MustCompile(`^[0-9]{1,9}(:[0-9]{1,9})?$`)

// ofContainers are folders that a container needs for itself.
var ofContainers = []string{"/fleetscore", "/proc", "/sys", "/dev", "/etc", "/usr", "/bin", "/lib", "/lib64", "/sbin"}

// judgeDocker checks what the containers of a pool are.
func (r *reader) judgeDocker(path string, p *fleetscore.PoolConfig, mounts map[string]fleetscore.MountConfig) {
	c := p.Docker
	if c == nil {
		if p.Provider == "docker" {
			r.at(path+".provider", "the provider docker needs an image; write docker: {image: team/scorer:v1} (docs/docker.md)")
		}
		return
	}
	path += ".docker"
	if p.Provider != "docker" {
		r.at(path, "an image belongs to the provider docker, and this pool's provider is %s", p.Provider)
		return
	}
	for _, name := range p.Mounts {
		if m := mounts[name]; slices.ContainsFunc(ofContainers, func(own string) bool { return m.Path == own || strings.HasPrefix(m.Path, own+"/") }) {
			r.at(path, "mount %s lies at %s, where a container has something of its own; mount it elsewhere on the machine, such as in /mnt", name, m.Path)
		}
	}
	if c.Image == "" || strings.ContainsAny(c.Image, " \t\n") {
		r.at(path+".image", "%q is not the name of an image; write for example team/scorer:v1", c.Image)
	}
	if c.CPUs < 0 || c.CPUs > 1024 || c.CPUs != c.CPUs {
		r.at(path+".cpus", "%v: a number from 0 to 1024 is possible", c.CPUs)
	}
	if c.MemoryMB < 0 || c.MemoryMB > 0 && c.MemoryMB < 64 {
		r.at(path+".memory_mb", "%d MB: write at least 64", c.MemoryMB)
	}
	if c.Processes < 0 || c.Processes > 0 && c.Processes < 32 {
		r.at(path+".processes", "%d processes: write at least 32, because the agent has threads too", c.Processes)
	}
	if c.TmpMB < 0 {
		r.at(path+".tmp_mb", "%d is negative", c.TmpMB)
	}
	if c.GPUs < -1 {
		r.at(path+".gpus", "%d: write a number of GPUs, or -1 for all", c.GPUs)
	}
	if id, _, _ := strings.Cut(c.User, ":"); c.User != "" && (!goodUser.MatchString(c.User) || strings.Trim(id, "0") == "") {
		r.at(path+".user", "%q: write the number of a user that isn't root, such as 1000:1000", c.User)
	}
	if c.Environments != "" && !strings.HasPrefix(c.Environments, "/") {
		r.at(path+".environments", "%s: write the absolute path of a folder in the image", c.Environments)
	}
	if c.Python != "" && !strings.HasPrefix(c.Python, "/") {
		r.at(path+".python", "%s: write the absolute path of the interpreter in the image", c.Python)
	}
}
