package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
)

// TestOpenFolderIn: a folder opens only if it lies in a root, by itself and not by
// a symbolic link that leads out.
func TestOpenFolderIn(t *testing.T) {
	t.Parallel()
	root, other := t.TempDir(), t.TempDir()
	for _, d := range []string{root + "/models/a", other + "/a", root + "-beside"} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.Remove(root + "-beside") })
	for from, to := range map[string]string{root + "/out": other, root + "/in": "models", root + "/up": "../", other + "/root": root} {
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		roots, dir string
		kind       fleetscore.Kind // 0 if it opens
		says       string
	}{
		{root, root, 0, ""},
		{root, root + "/models/a", 0, ""},
		{root, root + "/in/a", 0, ""},
		{other + "/root", root + "/models", 0, ""}, // the root is a link
		{other + "/root", other + "/root/models", 0, ""},
		{root + " " + other, other + "/a", 0, ""},
		{root, root + "/none", fleetscore.NotFound, ""},
		{root, other + "/a", fleetscore.Invalid, "--models-root"},
		{"", root, fleetscore.Invalid, "--models-root"},
		{root, root + "-beside", fleetscore.Invalid, "--models-root"},
		{root, filepath.Dir(root), fleetscore.Invalid, "--models-root"},
		{root, root + "/../" + filepath.Base(other), fleetscore.Invalid, "--models-root"},
		{root, root + "/out/a", fleetscore.Invalid, "symbolic link"},
		{root, root + "/out", fleetscore.Invalid, "symbolic link"},
		{root, root + "/up", fleetscore.Invalid, "symbolic link"},
	} {
		f, err := OpenFolderIn(strings.Fields(tt.roots), tt.dir)
		if tt.kind == 0 {
			if err != nil {
				t.Errorf("%s in %q: %v", tt.dir, tt.roots, err)
				continue
			}
			f.Close()
			continue
		}
		if fleetscore.KindOf(err) != tt.kind || err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s in %q: got %v, want kind %v, %q", tt.dir, tt.roots, err, tt.kind, tt.says)
		}
	}
}
