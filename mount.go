package fleetscore

import (
	"slices"
	"strings"
)

// MountConfig is a folder that lies at the same path on all machines that use it: a local
// one, or one that the machine's operator has mounted from NFS, SMB, Gluster, Lustre or
// anything else. Fleetscore mounts nothing itself (docs/mounts.md).
type MountConfig struct {
	Path     string `json:"path"`                // an absolute path on the machines
	ReadOnly *bool  `json:"read_only,omitempty"` // whether programs may only read there; absent means true
	// Type is the kind of file system that has to be mounted there: nfs, smb, gluster,
	// lustre, or as the machine's table of mounts names it. Empty means any.
	Type string `json:"type,omitempty"`
	// Source is what has to be mounted there, as the table of mounts names it, such as
	// files.example.com:/export. Empty means anything.
	Source string `json:"source,omitempty"`
}

// Mount is a mount with its name.
type Mount struct {
	Name string `json:"name"`
	MountConfig
}

// Writable says whether programs may write there.
func (m MountConfig) Writable() bool { return m.ReadOnly != nil && !*m.ReadOnly }

// Variable is the environment variable that holds the mount's path.
func (m Mount) Variable() string {
	return "FLEETSCORE_MOUNT_" + strings.ToUpper(strings.ReplaceAll(m.Name, "-", "_"))
}

// MountsOf gives the mounts of these names in their order, each once. Names that aren't
// described are left out; a configuration that was read has none of these.
func (c Config) MountsOf(names ...string) (out []Mount) {
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		if m, ok := c.Mounts[name]; ok {
			out = append(out, Mount{name, m})
		}
	}
	return out
}

// MountVerdict is what a measurement of a mount comes to.
type MountVerdict string

// The verdicts, best first.
const (
	MountGood     MountVerdict = "good"
	MountSlow     MountVerdict = "slow"
	MountEmpty    MountVerdict = "empty"    // there is nothing that could be read
	MountUnusable MountVerdict = "unusable" // it is absent, stale, or isn't what the configuration says
)

// MountReport is what one machine measured of a mount. Figures are per second; 0 means that it
// wasn't measured.
type MountReport struct {
	Mount        string       `json:"mount"`
	Node         NodeID       `json:"node,omitempty"` // empty means the server
	Host         string       `json:"host"`
	Path         string       `json:"path"`
	Type         string       `json:"type,omitempty"`   // as the table of mounts names it
	Source       string       `json:"source,omitempty"` // what is mounted
	ReadOnly     bool         `json:"read_only"`        // files that were there have been read, and none was written
	TotalBytes   int64        `json:"total_bytes"`
	FreeBytes    int64        `json:"free_bytes"`
	WriteBytes   int64        `json:"write_bytes_per_second"` // of a large file
	ReadBytes    int64        `json:"read_bytes_per_second"`
	FilesWritten float64      `json:"files_written_per_second"` // of 16 KiB, each synced
	FilesRead    float64      `json:"files_read_per_second"`
	FilesListed  float64      `json:"files_listed_per_second"` // of a read-only mount
	LatencyP50   Duration     `json:"latency_p50"`             // of opening, reading and closing a small file
	LatencyP99   Duration     `json:"latency_p99"`
	Verdict      MountVerdict `json:"verdict"`
	Advice       string       `json:"advice,omitempty"` // what the verdict means, and what to do
}
