package config

import (
	"strings"
	"testing"
)

// TestMounts: fleets in mounts get absolute paths, and what names mounts in a way that can't
// work is refused.
func TestMounts(t *testing.T) {
	t.Parallel()
	with := func(mounts, fleet, pool, pipeline string) string {
		text := strings.Replace(good, "fleets:\n", "mounts:\n  history: "+mounts+"\nfleets:\n", 1)
		text = strings.Replace(text, "{path: models/sensors, ", "{"+fleet+", ", 1)
		text = strings.Replace(text, "slots: 2, ", "slots: 2, "+pool, 1)
		if strings.Contains(pool, "docker") {
			text = strings.Replace(text, "provider: local, ", "", 1)
		}
		return strings.Replace(text, "    pool: cpu\n", "    pool: cpu\n    "+pipeline+"\n", 1)
	}
	const path, fleet, pool, python = "{path: /mnt/history}", "path: models/sensors", "mounts: [history], ", "runtime: python"
	cfg, err := Parse("fleet.yaml", []byte(with("{path: /mnt/history, read_only: false, type: nfs, source: 'files:/export'}", "mount: history, path: models/a", pool, "mounts: [history]\n    "+python)))
	if err != nil {
		t.Fatal(err)
	}
	if f, m := cfg.Fleets["sensors"], cfg.MountsOf("history", "other", "history"); f.Path != "/mnt/history/models/a" || len(m) != 1 || !m[0].Writable() || m[0].Variable() != "FLEETSCORE_MOUNT_HISTORY" {
		t.Errorf("the fleet is %+v, the mounts %+v", f, m)
	}
	for want, text := range map[string]string{
		"mounts.history: path is missing":                  with("{type: nfs}", fleet, "", ""),
		"an absolute path without":                         with("{path: mnt/history}", fleet, "", ""),
		"without a slash at the end":                       with("{path: /mnt/history/}", fleet, "", ""),
		"/: write an absolute path":                        with("{path: /}", fleet, "", ""),
		"isn't a kind of file system":                      with("{path: /mnt/history, type: nfs rw}", fleet, "", ""),
		`mount "other" is not described under mounts; the`: with(path, "mount: other, path: x", "", ""),
		"write a folder in the mount":                      with(path, "mount: history, path: ../x", "", ""),
		"write a folder in the mount history":              with(path, "mount: history, path: /etc", "", ""),
		`pools.cpu.mounts: mount "other" is not`:           with(path, fleet, "mounts: [other], ", ""),
		"mount history is named twice":                     with(path, fleet, "mounts: [history, history], ", ""),
		"write it under pools.cpu.mounts too":              with(path, fleet, "", "mounts: [history]\n    "+python),
		"where a container has something of its own":       with("{path: /usr/share/x}", fleet, "provider: docker, docker: {image: a}, "+pool, ""),
		"scored natively see no files":                     with(path, fleet, pool, "mounts: [history]"),
	} {
		if _, err := Parse("fleet.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want …%s…", err, want)
		}
	}
}
