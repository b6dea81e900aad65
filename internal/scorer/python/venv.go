package python

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/durable"
	"github.com/fleetscore/fleetscore/internal/obs"
)

// Recipe is what a virtual environment is made of.
type Recipe struct {
	Base         string // the interpreter
	Requirements []byte // as pip reads them
	Index        string // an address, or a folder with wheels; empty means pip's default
}

// makeLimit is how long making an environment may take.
const makeLimit = 15 * time.Minute

// Environment gives the interpreter of a virtual environment below a folder of this machine,
// which is made if it isn't there: once for each recipe, whatever asks for it at the same time.
// pip installs wheels only, so that no package's code runs meanwhile.
func (r Recipe) Environment(ctx context.Context, dir string) (interpreter string, err error) {
	const op = "make environment"
	doc := strings.Join([]string{r.Base, r.Index, string(r.Requirements)}, "\x00")
	path := filepath.Join(dir, "made-"+fleetscore.DigestOf([]byte(doc)).Short())
	interpreter, ready := filepath.Join(path, "bin", "python"), filepath.Join(path, "ready")
	if _, err := os.Stat(ready); err == nil {
		return interpreter, nil
	}
	if err := named(r.Requirements); err != nil {
		return "", fleetscore.Errorf(fleetscore.Invalid, op, path, "%w", err).WithHint("build a wheel of what isn't a package of the index, and put it into an index or a folder of wheels")
	}
	unlock, err := lock(ctx, path+".lock")
	if err != nil {
		return "", fleetscore.Errorf(fleetscore.Unavailable, op, path, "%w", err).WithHint("the folder of environments must be there and writable for the node's user")
	}
	defer unlock()
	if _, err := os.Stat(ready); err == nil { // another process has made it meanwhile
		return interpreter, nil
	}
	ctx, cancel := context.WithTimeout(ctx, makeLimit)
	defer cancel()
	list := path + ".txt"
	if err := errors.Join(os.RemoveAll(path), durable.WriteFile(list, r.Requirements, 0o644)); err != nil { // of a process that was killed
		return "", fleetscore.Errorf(fleetscore.Unavailable, op, path, "%w", err)
	}
	install := []string{interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:", "-r", list}
	switch {
	case strings.Contains(r.Index, "://"):
		install = append(install, "--index-url", r.Index)
	case r.Index != "":
		install = append(install, "--no-index", "--find-links", r.Index)
	}
	for _, args := range [][]string{{r.Base, "-m", "venv", path}, install} {
		if err := runQuietly(ctx, args, dir); err != nil {
			return "", errors.Join(fleetscore.Errorf(fleetscore.Invalid, op, path, "%s: %w", filepath.Base(args[0])+" "+strings.Join(args[1:3], " "), err).
				WithHint("check the requirements, the interpreter, and whether this machine reaches the index"), os.RemoveAll(path))
		}
	}
	unix.Sync() // pip doesn't, and the mark must not outlive what it is about
	if err := durable.WriteFile(ready, nil, 0o644); err != nil {
		return "", fleetscore.Errorf(fleetscore.Unavailable, op, path, "%w", err)
	}
	return interpreter, nil
}

var requirement = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(\s*\[[A-Za-z0-9._, -]*\])?\s*([<>=!~(][^@/\\]*)?(;.*)?$`)

// named refuses requirements that aren't packages by their names: pip builds sources that a path or an address
// names, whose code would run then, and an option such as --no-binary allows that for all packages. Hashes may stand
// behind a package.
func named(requirements []byte) error {
	text := strings.ReplaceAll(strings.ReplaceAll(string(requirements), "\r\n", "\n"), "\\\n", " ")
	for i, line := range strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n") {
		if line, _, _ = strings.Cut(" "+line, " #"); strings.TrimSpace(line) == "" {
			continue
		}
		var words []string
		for _, w := range strings.Fields(line) {
			if !strings.HasPrefix(w, "--hash=") {
				words = append(words, w)
			}
		}
		line = strings.Join(words, " ")
		name, _, _ := strings.Cut(line, ";")
		if !requirement.MatchString(line) || strings.Contains(line, " -") || archive.MatchString(strings.TrimSpace(name)) {
			return fmt.Errorf("requirement %d, %q: only packages by their names are installed, no paths, addresses or options", i+1, line)
		}
	}
	return nil
}

// archive matches what pip takes as a file beside the requirements.
var archive = regexp.MustCompile(`(?i)\.(zip|whl|tar|gz|tgz|bz2|tbz|xz|txz|lz|tlz|lzma)$`)

// runQuietly runs a program whose last line is worth something only if it fails.
func runQuietly(ctx context.Context, args []string, temp string) error {
	var notes obs.Tail
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = Environment(temp)
	for _, v := range os.Environ() { // how pip reaches its index
		if name, _, _ := strings.Cut(strings.ToUpper(v), "="); strings.HasPrefix(name, "PIP_") || strings.HasSuffix(name, "_PROXY") || strings.HasPrefix(name, "SSL_CERT_") || strings.HasSuffix(name, "_CA_BUNDLE") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = temp, &notes, &notes, time.Second
	if err := cmd.Run(); err != nil {
		return errors.New(cmp.Or(notes.LastLine(), err.Error()))
	}
	return nil
}

// lock waits until no other process makes the same environment.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
	return func() { _ = f.Close() }, nil
}
