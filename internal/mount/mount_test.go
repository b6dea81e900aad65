package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
)

func named(path string) fleetscore.Mount {
	return fleetscore.Mount{Name: "history", MountConfig: fleetscore.MountConfig{Path: path}}
}

func writableMount(path string) fleetscore.Mount {
	no, m := false, named(path)
	m.ReadOnly = &no
	return m
}

// TestCheck: a folder that is there, is allowed and is what it should be is good; every other
// one is refused with the reason and what to do.
func TestCheck(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, dir := range []string{"good/sub", "closed"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, err := range map[string]error{"file": os.WriteFile(filepath.Join(root, "file"), nil, 0o644), "link": os.Symlink("/etc", filepath.Join(root, "out"))} {
		if err != nil {
			t.Fatal(name, err)
		}
	}
	here, err := Find(root)
	if err != nil {
		t.Fatal(err)
	}
	of := func(path string, change func(*fleetscore.Mount)) fleetscore.Mount {
		m := named(filepath.Join(root, path))
		if change != nil {
			change(&m)
		}
		return m
	}
	for _, tt := range []struct {
		m    fleetscore.Mount
		kind fleetscore.Kind
		want string
	}{
		{m: of("good", nil)},
		{m: of("good/sub", nil)},
		{m: of("good", func(m *fleetscore.Mount) { m.Type, m.Source = here.Type, here.Source+"/" })},
		{m: writableMount(filepath.Join(root, "good"))},
		{of("absent", nil), fleetscore.Unavailable, "there is no folder"},
		{of("absent/below", nil), fleetscore.Unavailable, "there is no folder"},
		{of("file", nil), fleetscore.Invalid, "isn't a folder"},
		{of("out", nil), fleetscore.Invalid, "--mount-root"},
		{named("/proc"), fleetscore.Invalid, "--mount-root"},
		{of("good", func(m *fleetscore.Mount) { m.Type = "nfs" }), fleetscore.Unavailable, "history of type nfs isn't mounted"},
		{of("good", func(m *fleetscore.Mount) { m.Source = "files:/export" }), fleetscore.Unavailable, "history of files:/export isn't mounted"},
		{named(strings.Repeat("/proc", 1) + "/self"), fleetscore.Invalid, "--mount-root"},
	} {
		c := &Checker{Roots: []string{filepath.Join(root, "not there"), root}}
		err := c.Check(t.Context(), tt.m)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%+v: %v, want it to be good", tt.m, err)
			}
			continue
		}
		if fleetscore.KindOf(err) != tt.kind || !strings.Contains(fmt.Sprint(err), tt.want) || !strings.Contains(fmt.Sprint(err), "mounts.history") {
			t.Errorf("%+v: %v, want …%s… of kind %s", tt.m, err, tt.want, tt.kind)
		}
	}
	if err := (&Checker{}).Check(t.Context(), of("good", nil)); !fleetscore.Invalid.Is(err) {
		t.Errorf("without folders that mounts may lie in: %v, want kind invalid", err)
	}
}

// TestTable: the mount that a path lies in is the innermost one, and of several at one place
// the last one.
func TestTable(t *testing.T) {
	t.Parallel()
	const table = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt rw - tmpfs tmpfs rw
31 30 0:41 / /mnt/a\040b rw,nosuid shared:7 master:2 - nfs4 files.example.com:/export/a\040b rw,vers=4.2
32 30 0:42 /sub /mnt/smb rw - cifs //files/share rw
33 30 0:43 / /mnt/smb rw - smb3 //files/other rw
34 30 0:44 / /mnt/g rw - fuse.glusterfs g1:/models rw
35 30 0:45 / /mnt/l rw - lustre 10.0.0.1@tcp:/fs rw
nonsense
`
	for path, want := range map[string]Entry{
		"/srv":               {"/", "ext4", "/dev/sda1"},
		"/mnt/other":         {"/mnt", "tmpfs", "tmpfs"},
		"/mnt/a b/models":    {"/mnt/a b", "nfs4", "files.example.com:/export/a b"},
		"/mnt/a b":           {"/mnt/a b", "nfs4", "files.example.com:/export/a b"},
		"/mnt/a bc":          {"/mnt", "tmpfs", "tmpfs"},
		"/mnt/smb/x":         {"/mnt/smb", "smb3", "//files/other"},
		"/mnt/g/deep/folder": {"/mnt/g", "fuse.glusterfs", "g1:/models"},
	} {
		got, err := find(strings.NewReader(table), path)
		if err != nil || got != want {
			t.Errorf("%s lies in %+v, %v; want %+v", path, got, err, want)
		}
	}
	for kind, is := range map[string]string{"nfs": "nfs4", "smb": "smb3", "gluster": "fuse.glusterfs", "lustre": "lustre", "nfs4": "nfs4", "cifs": "cifs"} {
		m := named("/mnt/x")
		m.Type = kind
		if err := fits(m, Entry{Type: is}); err != nil {
			t.Errorf("%s for %s: %v", is, kind, err)
		}
		if fits(m, Entry{Type: "ext4"}) == nil {
			t.Errorf("ext4 is taken for %s", kind)
		}
	}
}

// TestMeasure: a mount that may be written is measured with files of its own, of which none
// stays; a read-only one by the files that are there, and nothing is written.
func TestMeasure(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	c := &Checker{Roots: []string{root}}
	opt := Options{SizeBytes: 8 << 20, Files: 20}
	r := c.Survey(t.Context(), writableMount(root), opt)
	if r.Verdict == fleetscore.MountUnusable || r.WriteBytes == 0 || r.ReadBytes == 0 || r.FilesWritten == 0 || r.FilesRead == 0 || r.LatencyP99 < r.LatencyP50 || r.LatencyP50 == 0 || r.TotalBytes == 0 || r.ReadOnly || r.Host == "" {
		t.Errorf("a folder that may be written: %+v", r)
	}
	left, err := os.ReadDir(root)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if r := c.Survey(t.Context(), named(root), opt); r.Verdict != fleetscore.MountEmpty || r.Advice == "" {
		t.Errorf("an empty folder: %+v", r)
	}
	for i := range 30 {
		size := 4 << 10
		if i == 0 {
			size = 9 << 20
		}
		if err := os.WriteFile(filepath.Join(root, fmt.Sprintf("m%d", i)), make([]byte, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r = c.Survey(t.Context(), named(root), opt)
	if r.WriteBytes != 0 || r.FilesWritten != 0 || r.ReadBytes == 0 || r.FilesRead == 0 || r.FilesListed == 0 || !r.ReadOnly {
		t.Errorf("a read-only folder: %+v", r)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 30 {
		t.Errorf("%d files are there, %v; want 30", len(left), err)
	}
	if r := c.Survey(t.Context(), named(filepath.Join(root, "absent")), opt); r.Verdict != fleetscore.MountUnusable || !strings.Contains(r.Advice, "there is no folder") {
		t.Errorf("a folder that isn't there: %+v", r)
	}
}

// TestVerdicts: what is too slow for a fleet's models is called slow, with what that means.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	const fast = 100 << 20
	for _, tt := range []struct {
		r    fleetscore.MountReport
		want fleetscore.MountVerdict
		says string
	}{
		{fleetscore.MountReport{ReadOnly: true, ReadBytes: fast, FilesRead: 5000}, fleetscore.MountGood, ""},
		{fleetscore.MountReport{WriteBytes: fast, ReadBytes: fast, FilesRead: 5000}, fleetscore.MountGood, ""},
		{fleetscore.MountReport{ReadOnly: true}, fleetscore.MountEmpty, "no file"},
		{fleetscore.MountReport{ReadOnly: true, ReadBytes: fast, FilesRead: 10}, fleetscore.MountSlow, "takes 16m40s"},
		{fleetscore.MountReport{ReadOnly: true, ReadBytes: 1 << 20, FilesRead: 5000}, fleetscore.MountSlow, "are read more slowly"},
		{fleetscore.MountReport{WriteBytes: 1 << 20, ReadBytes: fast, FilesRead: 5000}, fleetscore.MountSlow, "are written more slowly"},
	} {
		if v, says := judge(tt.r); v != tt.want || !strings.Contains(says, tt.says) || (says == "") != (tt.says == "") {
			t.Errorf("%+v: %s, %q; want %s, %q", tt.r, v, says, tt.want, tt.says)
		}
	}
}
