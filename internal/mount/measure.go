package mount

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
)

// Options say how much is measured.
type Options struct {
	SizeBytes int64         // of the large file; 0 means 64 MiB
	Files     int           // small files; 0 means 200
	Limit     time.Duration // of each of the four measurements; 0 means 5 s
}

// Bounds of Options, as a server accepts them.
const (
	MaxSizeBytes = 4 << 30
	MaxFiles     = 10_000
)

const smallBytes = 16 << 10

// surveyLimit bounds a survey of a mount that answers.
const surveyLimit = time.Minute

// Survey checks a mount, and measures it if it can be used. The report says what it found in
// either case.
func (c *Checker) Survey(ctx context.Context, m fleetscore.Mount, opt Options) (r fleetscore.MountReport) {
	ctx, cancel := context.WithTimeout(ctx, surveyLimit)
	defer cancel()
	r = fleetscore.MountReport{Mount: m.Name, Path: m.Path, ReadOnly: !m.Writable()}
	err := c.Check(ctx, m)
	if err == nil {
		r, err = Measure(ctx, m, opt)
	}
	if err != nil {
		r.Verdict, r.Advice = fleetscore.MountUnusable, err.Error()
	}
	r.Host, _ = os.Hostname() // for display only
	return r
}

// Measure measures a mount. Where programs may write, it writes files of its own into a new
// folder, which it removes. Otherwise it reads what is there. What the machine has in its memory
// of these files is dropped before it reads them, as far as the kernel does that. The mount
// should have been checked: calls may wait for ever.
func Measure(ctx context.Context, m fleetscore.Mount, opt Options) (r fleetscore.MountReport, err error) {
	opt = Options{cmp.Or(opt.SizeBytes, 64<<20), cmp.Or(opt.Files, 200), cmp.Or(opt.Limit, 5*time.Second)}
	r = fleetscore.MountReport{Mount: m.Name, Path: m.Path, ReadOnly: !m.Writable()}
	if e, err := Find(m.Path); err == nil { // only Linux has the table
		r.Type, r.Source = e.Type, e.Source
	}
	if r.TotalBytes, r.FreeBytes, err = space(m.Path); err != nil {
		return r, stale(m.Path, err)
	}
	s := &survey{ctx: ctx, opt: opt, report: &r}
	if m.Writable() {
		err = s.own(m.Path)
	} else {
		err = s.found(m.Path)
	}
	r.Verdict, r.Advice = judge(r)
	return r, err
}

// space gives the size of a file system, and what of it this user may still use.
func space(path string) (total, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Blocks) * int64(st.Bsize), int64(st.Bavail) * int64(st.Bsize), nil
}

// writable says whether this user may write into a folder.
func writable(path string) error { return unix.Access(path, unix.W_OK|unix.X_OK) }

// survey is one measurement of a mount.
type survey struct {
	ctx    context.Context
	opt    Options
	report *fleetscore.MountReport
}

// own measures with files of its own.
func (s *survey) own(path string) (err error) {
	folder, err := os.MkdirTemp(path, ".fleetscore-check-")
	if err != nil {
		return fmt.Errorf("make a folder in %s: %w", path, err)
	}
	defer func() {
		if e := os.RemoveAll(folder); e != nil {
			err = errors.Join(err, fmt.Errorf("the files of this measurement can't be removed: %w", e))
		}
	}()
	large := filepath.Join(folder, "large")
	if s.report.WriteBytes, err = s.write(large); err != nil {
		return fmt.Errorf("write %s: %w", large, err)
	}
	if s.report.ReadBytes, err = s.read([]string{large}); err != nil {
		return fmt.Errorf("read %s: %w", large, err)
	}
	block, began := make([]byte, smallBytes), time.Now()
	var small []string
	for i := range s.opt.Files {
		if s.over(began) {
			break
		}
		name := filepath.Join(folder, fmt.Sprintf("small-%05d", i))
		if err := put(name, block); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		small = append(small, name)
	}
	s.report.FilesWritten = perSecond(len(small), time.Since(began))
	return s.open(small)
}

// put writes a file and waits until the file server has it.
func put(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync())
	forget(f)
	return errors.Join(err, f.Close())
}

// looked is how many files of a read-only mount are looked at, at most.
const looked = 20_000

// found measures by reading what is there.
func (s *survey) found(path string) error {
	type file struct {
		name string
		size int64
	}
	var files []file
	seen, began := 0, time.Now()
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		seen++
		switch {
		case seen > looked || s.over(began):
			return fs.SkipAll
		case errors.Is(err, fs.ErrPermission):
			return nil
		case err != nil || !d.Type().IsRegular():
			return err
		}
		if st, err := d.Info(); err == nil && st.Size() > 0 {
			files = append(files, file{name, st.Size()})
		}
		return nil
	})
	if err != nil {
		return stale(path, err)
	}
	s.report.FilesListed = perSecond(seen, time.Since(began))
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(b.size, a.size) })
	var large, small []string
	bytes := int64(0)
	for _, f := range files {
		if bytes < s.opt.SizeBytes {
			large = append(large, f.name)
			bytes += f.size
		} else if f.size <= 1<<20 && len(small) < s.opt.Files {
			small = append(small, f.name)
		}
	}
	if len(small) == 0 { // there is little: the same files do for both
		small = large[:min(len(large), s.opt.Files)]
	}
	// Small files first: the other measurement reads them into the machine's memory.
	if err := s.open(small); err != nil {
		return err
	}
	s.report.ReadBytes, err = s.read(large)
	return err
}

func (s *survey) over(began time.Time) bool {
	return s.ctx.Err() != nil || time.Since(began) > s.opt.Limit
}

// write writes a large file and gives bytes per second, its sync included.
func (s *survey) write(name string) (int64, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	block, began, bytes := make([]byte, 1<<20), time.Now(), int64(0)
	for i := range block {
		block[i] = byte(i * 7 >> 3) // zeros might not be stored at all
	}
	for bytes < s.opt.SizeBytes && !s.over(began) {
		n, err := f.Write(block[:min(int64(len(block)), s.opt.SizeBytes-bytes)])
		if bytes += int64(n); err != nil {
			return 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	took := time.Since(began)
	forget(f)
	return int64(perSecond(int(bytes), took)), s.ctx.Err()
}

// read reads files one after the other and gives bytes per second.
func (s *survey) read(names []string) (int64, error) {
	block, began, bytes := make([]byte, 1<<20), time.Now(), int64(0)
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			if skip(err) {
				continue
			}
			return 0, err
		}
		forget(f)
		for !s.over(began) && bytes < s.opt.SizeBytes {
			n, err := f.Read(block)
			if bytes += int64(n); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return 0, errors.Join(err, f.Close())
			}
		}
		if err := f.Close(); err != nil {
			return 0, err
		}
	}
	return int64(perSecond(int(bytes), time.Since(began))), s.ctx.Err()
}

// skip says whether a file is left out: it has gone meanwhile, or isn't for this user.
func skip(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) }

// open opens, reads and closes small files, as a fleet's models are read.
func (s *survey) open(names []string) error {
	for _, name := range names { // by opens of their own, so that these don't count
		if f, err := os.Open(name); err == nil {
			forget(f)
			_ = f.Close() // it was only read
		}
	}
	var each []time.Duration
	began := time.Now()
	for _, name := range names {
		if s.over(began) {
			break
		}
		at := time.Now()
		if _, err := os.ReadFile(name); err != nil && !skip(err) {
			return err
		}
		each = append(each, time.Since(at))
	}
	s.report.FilesRead = perSecond(len(each), time.Since(began))
	if len(each) > 0 {
		slices.Sort(each)
		s.report.LatencyP50 = fleetscore.Duration(each[len(each)/2])
		s.report.LatencyP99 = fleetscore.Duration(each[len(each)*99/100])
	}
	return s.ctx.Err()
}

func perSecond(n int, d time.Duration) float64 {
	if n == 0 {
		return 0
	}
	return float64(n) / max(d, time.Microsecond).Seconds()
}

// What a mount should do at least: a model of a few KB per sensor, thousands of them.
const (
	slowBytes = 20 << 20 // of a large file, a second
	slowFiles = 100      // small files, a second
)

// judge says in words what the figures mean.
func judge(r fleetscore.MountReport) (v fleetscore.MountVerdict, advice string) {
	switch {
	case r.ReadBytes == 0:
		return fleetscore.MountEmpty, "there is no file with content that this user may read, so that reading can't be measured; put files there"
	case r.FilesRead < slowFiles:
		return fleetscore.MountSlow, fmt.Sprintf("%.0f small files a second: a fleet of 10,000 models as single files takes %s to read; keep models in the store, or on a faster mount", r.FilesRead, time.Duration(10_000/max(r.FilesRead, 0.01)*1e9).Round(time.Second))
	case r.ReadBytes < slowBytes:
		return fleetscore.MountSlow, "large files are read more slowly than 20 MiB a second; look at the network between this machine and the file server"
	case !r.ReadOnly && r.WriteBytes < slowBytes:
		return fleetscore.MountSlow, "large files are written more slowly than 20 MiB a second; look at the file server's disks and at the option sync"
	}
	return fleetscore.MountGood, ""
}
