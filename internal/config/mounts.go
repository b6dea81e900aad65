package config

import (
	"cmp"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore"
)

// judgeMounts checks mounts and what names them, and makes the paths of fleets in mounts
// absolute.
func (r *reader) judgeMounts(c *fleetscore.Config) {
	for _, name := range keys(c.Mounts) {
		m := c.Mounts[name]
		at := "mounts." + name
		switch {
		case m.Path == "":
			r.at(at, "path is missing: the folder on the machines, such as /mnt/%s", name)
		case !path.IsAbs(m.Path) || path.Clean(m.Path) != m.Path || m.Path == "/":
			r.at(at+".path", "%s: write an absolute path without .. and without a slash at the end, such as /mnt/%s", m.Path, name)
		}
		if strings.ContainsAny(m.Type, " \t\n,") {
			r.at(at+".type", "%q isn't a kind of file system; write nfs, smb, gluster, lustre, or the name that the table of mounts has (findmnt %s)", m.Type, m.Path)
		}
	}
	for _, name := range keys(c.Pools) {
		r.judgeMountNames("pools."+name, c.Pools[name].Mounts, c)
	}
	for _, name := range keys(c.Pipelines) {
		p := c.Pipelines[name]
		at := "pipelines." + name
		r.judgeMountNames(at, p.Mounts, c)
		if len(p.Mounts) > 0 && !p.Runtime.RunsPython() && p.Runtime != fleetscore.RuntimeCommand {
			r.at(at+".mounts", "models that are scored natively see no files; mounts are for runtime: python, onnx, auto or command")
		}
		pool, there := c.Pools[p.Pool]
		for _, m := range p.Mounts {
			if _, known := c.Mounts[m]; there && known && !slices.Contains(pool.Mounts, m) {
				r.at(at+".mounts", "the nodes of pool %s needn't have mount %s; write it under pools.%s.mounts too", p.Pool, m, p.Pool)
			}
		}
	}
	for _, name := range keys(c.Fleets) {
		f := c.Fleets[name]
		if f.Mount == "" {
			continue
		}
		at := "fleets." + name
		m, ok := c.Mounts[f.Mount]
		switch {
		case !ok:
			r.at(at+".mount", "mount %q is not described under mounts%s", f.Mount, among(keys(c.Mounts)))
		case f.Path == m.Path || strings.HasPrefix(f.Path, m.Path+"/"): // it was read before
		case !filepath.IsLocal(cmp.Or(f.Path, ".")):
			r.at(at+".path", "%s: write a folder in the mount %s, such as sensors", f.Path, f.Mount)
		default:
			f.Path = path.Join(m.Path, f.Path)
			c.Fleets[name] = f
		}
	}
}

func (r *reader) judgeMountNames(at string, names []string, c *fleetscore.Config) {
	for i, name := range names {
		if _, ok := c.Mounts[name]; !ok {
			r.at(at+".mounts", "mount %q is not described under mounts%s", name, among(keys(c.Mounts)))
		} else if slices.Contains(names[:i], name) {
			r.at(at+".mounts", "mount %s is named twice", name)
		}
	}
}
