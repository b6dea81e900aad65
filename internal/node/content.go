package node

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/catalog"
	"github.com/fleetscore/fleetscore/internal/dispatch"
)

// content is a digest of what the outcomes of a task depend on besides rows and models, and
// of code. It has this release in it, as another one may score differently.
func (n *Node) content(l dispatch.Lease, code []string) uint64 {
	doc, err := json.Marshal([]any{n.cfg.Hello.Version, l.Interval, l.TimeName, l.KeyNames, l.Features, l.FeaturesBy, l.Runtime, l.Label, l.Missing, code})
	if err != nil {
		return 0 // the outcomes equal no others
	}
	d := fleetscore.DigestOf(doc)
	return max(1, binary.LittleEndian.Uint64(d[:]))
}

// Bounds of the code that is looked at for each task.
const (
	maxCodeFiles = 10_000
	maxCodeBytes = 64 << 20
)

// librariesOf are the entries of a virtual environment's folder of libraries.
func librariesOf(venv string) []string {
	all, err := filepath.Glob(filepath.Join(venv, "lib", "python*", "site-packages", "*"))
	if err != nil {
		return nil
	}
	return all
}

// code names all that models depend on which Python scores: the settings, each file of the
// user's code with its digest, and each library with its version. It is nil if that can't be
// told: what lies in mounts may change; libraries lie elsewhere than in a virtual environment, or are being worked on; there
// is very much code; or a script sees the rows of many sensors at once.
func (p *pythons) code(l dispatch.Lease) []string {
	if !l.Runtime.RunsPython() || p.interpreter == "" || len(l.Mounts) > 0 || l.Python.Script != "" && !l.Python.PerModel {
		return nil
	}
	if l.Image != "" { // it can't be changed, and holds libraries and code
		return []string{fmt.Sprintf("%+v", l.Python), p.interpreter, l.Image, l.Code.String()}
	}
	libraries := librariesOf(filepath.Dir(filepath.Dir(p.interpreter)))
	for _, e := range l.Python.Environments {
		if e.Path != "" {
			libraries = append(libraries, librariesOf(filepath.Join(p.environments, e.Path))...)
		}
	}
	out := []string{fmt.Sprintf("%+v", l.Python), p.interpreter}
	for _, path := range libraries { // sorted within each environment
		switch name := filepath.Base(path); {
		case strings.HasSuffix(name, ".egg-link"), strings.HasPrefix(name, "__editable__"):
			return nil
		case strings.HasSuffix(name, ".dist-info"), strings.HasSuffix(name, ".pth"):
			out = append(out, path)
		}
	}
	if len(out) == 2 {
		return nil
	}
	if !l.Code.IsZero() {
		return append(out, l.Code.String())
	}
	if l.Python.Code == "" {
		return out
	}
	files, bytes := 0, int64(0)
	err := filepath.WalkDir(l.Python.Code, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if err == nil && d.Name() == "__pycache__" {
				return fs.SkipDir
			}
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if bytes += int64(len(data)); files > maxCodeFiles || bytes > maxCodeBytes {
			return fs.SkipAll
		}
		out = append(out, path, fleetscore.DigestOf(data).String())
		return nil
	})
	if err != nil || files > maxCodeFiles || bytes > maxCodeBytes {
		return nil
	}
	return out
}

// earlier are the outcomes that stay if nothing has changed. Without them the task takes
// longer, so that they aren't worth an error.
func (n *Node) earlier(ctx context.Context, tables *catalog.Catalog, l dispatch.Lease, out *taskLog) map[fleetscore.Key]fleetscore.Item {
	if len(l.Earlier.Files) == 0 {
		return nil
	}
	items, err := tables.Coverage(l.Pipeline).ReadItems(ctx, l.Earlier.Files, catalog.ItemQuery{Job: l.Earlier.Job, Interval: &l.Interval, Shards: &l.Shards, Outcome: fleetscore.Scored})
	if err != nil {
		out.printf("all sensors are scored, as the outcomes of job %s can't be read: %v", l.Earlier.Job, err)
		return nil
	}
	known := make(map[fleetscore.Key]fleetscore.Item, len(items))
	for _, i := range items {
		i.Kept = cmp.Or(i.Kept, i.Job)
		known[i.Key] = i.Item
	}
	return known
}
