package node

import (
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
)

// Meter measures the machine that this process runs on, or its container if the
// container's processors or memory are limited. It is for one goroutine.
//
// It reads a few files of Linux' /proc and /sys, which takes less than a millisecond. On
// other systems only the disk is measured, and the result says so.
type Meter struct {
	root   fs.FS  // of the machine's files
	folder string // of temporary files, whose file system is measured
	linux  bool
	before cpuTime
}

// NewMeter makes a meter. The processors' load is measured from now on.
func NewMeter(now time.Time) *Meter {
	m := &Meter{root: os.DirFS("/"), folder: os.TempDir(), linux: runtime.GOOS == "linux"}
	m.before, _ = m.cpu(now)
	return m
}

// Measure measures the machine. It never fails: what can't be measured is missing from
// the result, which says why.
func (m *Meter) Measure(now time.Time) fleetscore.NodeLoad {
	l := fleetscore.NodeLoad{CPUs: float64(runtime.NumCPU())}
	var missing []string
	note := func(what string, err error) {
		if err != nil {
			missing = append(missing, what+": "+err.Error())
		}
	}
	note("disk space", m.space(&l))
	if !m.linux {
		missing = append(missing, "processors, memory, and what disks and networks transfer: they are measured on Linux only, and this is "+runtime.GOOS)
		l.Missing = strings.Join(missing, "; ")
		return l
	}
	t, err := m.cpu(now)
	note("processors", err)
	if err == nil {
		l.CPUs = t.cpus
		if spent := t.possible - m.before.possible; t.group == m.before.group && spent > 0 && t.busy >= m.before.busy {
			l.CPUPercent = new(math.Round(min(100, 100*float64(t.busy-m.before.busy)/float64(spent))*10) / 10)
		}
		m.before = t
	}
	note("memory", m.memory(&l))
	note("disk transfers", m.transfers(&l))
	note("network", m.network(&l))
	l.Missing = strings.Join(missing, "; ")
	return l
}

func (m *Meter) space(l *fleetscore.NodeLoad) error {
	var st unix.Statfs_t
	if err := unix.Statfs(m.folder, &st); err != nil {
		return err
	}
	size := int64(st.Bsize)
	l.DiskTotalBytes = new(int64(st.Blocks) * size)
	l.DiskBytes = new((int64(st.Blocks) - int64(st.Bfree)) * size)
	return nil
}

// cpuTime is how long processors have worked, and how long they could have.
type cpuTime struct {
	busy, possible time.Duration
	cpus           float64
	group          string // whose time it is; empty for the whole machine
}

// userHz is the unit of /proc/stat, which is the same on all of Linux' architectures.
const userHz = 100

func (m *Meter) cpu(now time.Time) (t cpuTime, err error) {
	text, err := fs.ReadFile(m.root, "proc/stat")
	if err != nil {
		return t, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch {
		case len(f) > 8 && f[0] == "cpu": // user nice system idle iowait irq softirq steal
			for i, v := range f[1:9] {
				n, err := strconv.ParseInt(v, 10, 64)
				if err != nil {
					return t, fmt.Errorf("/proc/stat: %w", err)
				}
				d := time.Duration(n) * time.Second / userHz
				t.possible += d
				if i != 3 && i != 4 { // neither idle nor waiting for disks
					t.busy += d
				}
			}
		case len(f) > 0 && strings.HasPrefix(f[0], "cpu"):
			t.cpus++
		}
	}
	if t.cpus == 0 {
		return t, fmt.Errorf("/proc/stat lists no processor")
	}
	// A container may use a part of them.
	if dir, cpus, ok := m.cpuLimit(); ok && cpus < t.cpus {
		busy, err := m.groupTime(dir)
		if err != nil {
			return t, err
		}
		t = cpuTime{busy: busy, possible: time.Duration(float64(now.UnixNano()) * cpus), cpus: cpus, group: dir}
	}
	return t, nil
}

// cpuLimit is the group of processes whose processors are limited, and to how many.
func (m *Meter) cpuLimit() (dir string, cpus float64, ok bool) {
	for dir := range m.groups("") {
		if f := strings.Fields(m.text(dir + "/cpu.max")); len(f) == 2 {
			quota, err := strconv.ParseFloat(f[0], 64) // or "max"
			period, e := strconv.ParseFloat(f[1], 64)
			if err == nil && e == nil && period > 0 {
				return dir, quota / period, true
			}
		}
	}
	for dir := range m.groups("cpu") {
		quota, ok := m.number(dir + "/cpu.cfs_quota_us")
		period, has := m.number(dir + "/cpu.cfs_period_us")
		if ok && has && quota > 0 && period > 0 {
			return dir, float64(quota) / float64(period), true
		}
	}
	return "", 0, false
}

// groupTime is how long the processes of a group have worked.
func (m *Meter) groupTime(dir string) (time.Duration, error) {
	if us, ok := field(m.text(dir+"/cpu.stat"), "usage_usec"); ok {
		return time.Duration(us) * time.Microsecond, nil
	}
	for _, d := range []string{dir, strings.Replace(dir, "cgroup/cpu/", "cgroup/cpuacct/", 1)} {
		if ns, ok := m.number(d + "/cpuacct.usage"); ok {
			return time.Duration(ns), nil
		}
	}
	return 0, fmt.Errorf("the container's use isn't in /%s", dir)
}

// groups yields the folders of the groups that this process belongs to, from its own one
// up to the root: of a controller of the first version of groups, or of the second
// version for "".
func (m *Meter) groups(controller string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for line := range strings.Lines(m.text("proc/self/cgroup")) {
			f := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if len(f) != 3 || !slices.Contains(strings.Split(f[1], ","), controller) {
				continue
			}
			base := path.Join("sys/fs/cgroup", f[1])
			for p := path.Clean("/" + f[2]); ; p = path.Dir(p) {
				// In a container, /sys shows the container's own group as the root.
				if !yield(path.Join(base, p)) {
					return
				}
				if p == "/" {
					break
				}
			}
		}
	}
}

// noLimit is more memory than any machine has: a limit from it on is none.
const noLimit = 1 << 60

func (m *Meter) memory(l *fleetscore.NodeLoad) error {
	info := m.text("proc/meminfo")
	total, ok := field(info, "MemTotal:")
	free, has := field(info, "MemAvailable:")
	if !ok || !has {
		return fmt.Errorf("/proc/meminfo has neither MemTotal nor MemAvailable")
	}
	l.MemoryTotalBytes, l.MemoryBytes = new(total<<10), new((total-free)<<10)
	group := func(dir, limit, current, inactive string) bool {
		most, ok := m.number(dir + "/" + limit)
		used, has := m.number(dir + "/" + current)
		if !ok || !has || most <= 0 || most >= noLimit || most >= total<<10 {
			return false
		}
		cached, _ := field(m.text(dir+"/memory.stat"), inactive) // the system gives it up on demand
		l.MemoryTotalBytes, l.MemoryBytes = new(most), new(max(0, used-cached))
		return true
	}
	for dir := range m.groups("") {
		if group(dir, "memory.max", "memory.current", "inactive_file") {
			return nil
		}
	}
	for dir := range m.groups("memory") {
		if group(dir, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file") {
			return nil
		}
	}
	return nil
}

// sector is the unit of /proc/diskstats.
const sector = 512

// transfers sums up what the machine's disks have read and written.
func (m *Meter) transfers(l *fleetscore.NodeLoad) error {
	text, err := fs.ReadFile(m.root, "proc/diskstats")
	if err != nil {
		return err
	}
	var sums [4]int64 // reads, sectors read, writes, sectors written
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 10 || !m.isDisk(f[2]) {
			continue
		}
		for i, at := range []int{3, 5, 7, 9} {
			n, err := strconv.ParseInt(f[at], 10, 64)
			if err != nil {
				return fmt.Errorf("/proc/diskstats: %w", err)
			}
			sums[i] += n
		}
	}
	l.DiskReadOps, l.DiskReadBytes, l.DiskWriteOps, l.DiskWriteBytes = new(sums[0]), new(sums[1]*sector), new(sums[2]), new(sums[3]*sector)
	return nil
}

// isDisk tells a whole disk from a partition, and from what lies on another disk or in
// memory.
func (m *Meter) isDisk(name string) bool {
	for _, p := range []string{"loop", "ram", "zram", "dm-", "md", "sr"} {
		if strings.HasPrefix(name, p) {
			return false
		}
	}
	_, err := fs.Stat(m.root, "sys/block/"+name)
	return err == nil
}

// network sums up what all networks have transferred, without that inside the machine.
func (m *Meter) network(l *fleetscore.NodeLoad) error {
	text, err := fs.ReadFile(m.root, "proc/net/dev")
	if err != nil {
		return err
	}
	var in, out int64
	for line := range strings.Lines(string(text)) {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if !ok || strings.TrimSpace(name) == "lo" || len(f) < 9 {
			continue
		}
		received, err := strconv.ParseInt(f[0], 10, 64)
		sent, e := strconv.ParseInt(f[8], 10, 64)
		if err != nil || e != nil {
			return fmt.Errorf("/proc/net/dev can't be read")
		}
		in, out = in+received, out+sent
	}
	l.NetworkInBytes, l.NetworkOutBytes = &in, &out
	return nil
}

// text is a small file of the system; empty if there is none.
func (m *Meter) text(name string) string {
	b, err := fs.ReadFile(m.root, name)
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}

func (m *Meter) number(name string) (int64, bool) {
	n, err := strconv.ParseInt(m.text(name), 10, 64)
	return n, err == nil
}

// field is the number that follows a word at the beginning of a line.
func field(text, word string) (int64, bool) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == word {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
