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

// Home is where an interpreter and its libraries lie.
type Home struct {
	Executable string   // without scripts that choose among several, such as pyenv's
	Folders    []string // that it reads, and symbolic links on the way to it
}

const askHome = `import json, sys
print(json.dumps({"Executable": sys.executable, "Folders": [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix] + [p for p in sys.path if p]}))`

// interpreter asks the interpreter where it lies, once.
func (p *Pool) interpreter(ctx context.Context) (*Home, error) {
	p.mu.Lock()
	known := p.home
	p.mu.Unlock()
	if known != nil {
		return known, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.StartLimit)
	defer cancel()
	h, err := FindHome(ctx, p.cfg.Python, p.cfg.TempDir)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.home = h
	return p.home, nil
}

// FindHome asks an interpreter where it lies. It runs the environment's own code, which the
// operator has chosen, and no model's. temp is the folder where processes may write.
func FindHome(ctx context.Context, interpreter, temp string) (*Home, error) {
	var h Home
	var notes obs.Tail
	path, err := find(interpreter) // before the folder changes
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, "-c", askHome)
	cmd.Dir, cmd.Env, cmd.Stderr, cmd.WaitDelay = temp, Environment(temp), &notes, time.Second
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(bytes.TrimSpace(out), &h)
	}
	switch {
	case ctx.Err() != nil && context.Cause(ctx) != context.DeadlineExceeded:
		return nil, context.Cause(ctx)
	case err != nil:
		words := notes.LastLine()
		if words != "" {
			words = "; its last words: " + words
		}
		return nil, fleetscore.Errorf(fleetscore.Invalid, "start Python", interpreter, "the interpreter doesn't say where it lies: %w%s", err, words)
	}
	h.Executable = filepath.Clean(h.Executable)
	h.Folders = slices.DeleteFunc(h.Folders, func(f string) bool { return tooMuch(f, temp) })
	h.Folders = Followed(h.Folders, temp)
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
	return &h, nil
}

// find is the absolute path of an interpreter.
func find(interpreter string) (string, error) {
	path, err := exec.LookPath(interpreter)
	if err != nil {
		return "", fleetscore.Errorf(fleetscore.NotFound, "find Python", interpreter, "%w", err).
			WithHint("install Python with numpy and pyarrow, or name the interpreter of an environment that has them")
	}
	path, err = filepath.Abs(path)
	return path, fleetscore.Wrap("find Python", interpreter, err)
}

// Followed are files and folders, and what those of them lead to that are symbolic links: a program needs both.
func Followed(paths []string, temp string) (out []string) {
	for _, f := range paths {
		out = append(out, filepath.Clean(f))
		if to, err := filepath.EvalSymlinks(f); err == nil && to != filepath.Clean(f) && !tooMuch(to, temp) {
			out = append(out, to)
		}
	}
	return out
}

// tooMuch refuses folders that hold more than libraries: the root, a home, and whatever
// holds the processes' own folder. A path of modules can name them, as python does where it
// was started.
func tooMuch(folder, temp string) bool {
	user, err := os.UserHomeDir()
	rel, err2 := filepath.Rel(folder, temp)
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
	return append(out, Libraries(p.cfg.TempDir)...)
}

// Libraries are the folders of libraries that the environment names. temp is the folder
// where processes may write.
func Libraries(temp string) (out []string) {
	for _, f := range filepath.SplitList(os.Getenv("LD_LIBRARY_PATH")) {
		if strings.TrimSpace(f) != "" && !tooMuch(f, temp) {
			out = append(out, filepath.Clean(f))
		}
	}
	return out
}
