package python

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/obs"
)

// home is where an interpreter and its libraries lie.
type home struct {
	Executable string   // without scripts that choose among several, such as pyenv's
	Folders    []string // that it reads, and symbolic links on the way to it
}

const askHome = `import json, sys
print(json.dumps({"Executable": sys.executable, "Folders": [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix] + [p for p in sys.path if p]}))`

// interpreter asks the interpreter where it lies, once. It runs the environment's own
// code, which the operator has chosen, and no model's.
func (p *Pool) interpreter(ctx context.Context) (*home, error) {
	p.mu.Lock()
	known := p.home
	p.mu.Unlock()
	if known != nil {
		return known, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.StartLimit)
	defer cancel()
	var h home
	var notes obs.Tail
	cmd := exec.CommandContext(ctx, p.cfg.Python, "-c", askHome)
	cmd.Dir, cmd.Env, cmd.Stderr, cmd.WaitDelay = p.cfg.TempDir, p.environment(""), &notes, time.Second
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(bytes.TrimSpace(out), &h)
	}
	switch {
	case ctx.Err() != nil && context.Cause(ctx) != context.DeadlineExceeded:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fleetscore.Errorf(fleetscore.Invalid, "start Python", p.cfg.Python, "the interpreter doesn't say where it lies: %w; its last words: %s", err, notes.LastLine())
	}
	h.Executable = filepath.Clean(h.Executable)
	h.Folders = slices.DeleteFunc(h.Folders, p.tooMuch)
	for i, f := range h.Folders {
		h.Folders[i] = filepath.Clean(f)
	}
	for at, n := h.Executable, 0; n < 40; n++ { // a virtual environment's interpreter is a link
		h.Folders = append(h.Folders, at)
		to, err := os.Readlink(at)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(at), to)
		}
		at = filepath.Clean(to)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.home = &h
	return p.home, nil
}

// tooMuch refuses folders that hold more than libraries: the root, a home, and whatever
// holds the processes' own folder. A path of modules can name them, as python does where it
// was started.
func (p *Pool) tooMuch(folder string) bool {
	user, err := os.UserHomeDir()
	rel, err2 := filepath.Rel(folder, p.cfg.TempDir)
	return !filepath.IsAbs(folder) || filepath.Clean(folder) == "/" || err == nil && filepath.Clean(folder) == filepath.Clean(user) || err2 == nil && filepath.IsLocal(rel)
}

// ownFolders are the folders of the pool's configuration that processes read.
func (p *Pool) ownFolders() (out []string) {
	if p.cfg.Dir != p.cfg.TempDir {
		out = append(out, p.cfg.Dir)
	}
	if p.cfg.Script != "" {
		out = append(out, p.cfg.Script)
	}
	for _, f := range filepath.SplitList(os.Getenv("LD_LIBRARY_PATH")) {
		if strings.TrimSpace(f) != "" && !p.tooMuch(f) {
			out = append(out, filepath.Clean(f))
		}
	}
	return out
}
