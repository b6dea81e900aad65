package build

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"cmp"
	"compress/flate"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/textproto"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// python is an interpreter of the base, and where it looks for packages.
type python struct {
	program string // absolute
	prefix  string // relative to the root
	minor   int    // of 3.minor
	site    string // relative to the root
	dists   []string
	machine string // as wheels name the processor
	musl    bool
}

// defaultPath is where programs are looked for in an image that doesn't say it.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

var goodLib = regexp.MustCompile(`^python3\.([0-9]+)$`)

// findPython finds the interpreter that gets the wheels.
func findPython(t tree, cfg *v1.ConfigFile, opt Options) (*python, error) {
	program := opt.Python
	if program == "" {
		folders := defaultPath
		for _, e := range cfg.Config.Env {
			if v, ok := strings.CutPrefix(e, "PATH="); ok {
				folders = v
			}
		}
		for folder := range strings.SplitSeq(folders, ":") {
			at, err := t.resolve(strings.Trim(folder, "/")+"/python3", true)
			if _, there := t[at]; err == nil && there {
				program = "/" + strings.Trim(folder, "/") + "/python3"
				break
			}
		}
		if program == "" {
			return nil, invalid(opt.Base, "wheels need a Python, and the base has no python3 in its PATH (%s)", folders).WithHint("take another base, or name the interpreter with --python")
		}
	}
	at, err := t.resolve(strings.TrimPrefix(program, "/"), true)
	if _, there := t[at]; err != nil || !there {
		return nil, invalid(opt.Base, "the base has no %s", program).WithHint("name another interpreter with --python")
	}
	p := &python{program: program, minor: -1, machine: map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i686", "arm": "armv7l"}[cfg.Architecture]}
	p.machine = cmp.Or(p.machine, cfg.Architecture) // ppc64le, s390x and others have the same name
	// The prefix is where the program is called, not where its link leads to: that is how
	// virtual environments work. /bin may be a link to /usr/bin.
	bin, err := t.resolve(strings.TrimPrefix(path.Dir(program), "/"), true)
	if err != nil {
		return nil, invalid(program, "%w", err)
	}
	p.prefix = path.Dir(bin)
	if m := goodLib.FindStringSubmatch(path.Base(at)); m != nil {
		p.minor, _ = strconv.Atoi(m[1]) // the expression has digits only
	}
	lib := path.Join(p.prefix, "lib")
	for name := range t {
		if m := goodLib.FindStringSubmatch(path.Base(name)); p.minor < 0 && m != nil && path.Dir(name) == lib {
			p.minor, _ = strconv.Atoi(m[1])
		}
		p.musl = p.musl || strings.HasPrefix(path.Base(name), "ld-musl-")
	}
	if p.minor < 0 {
		return nil, invalid(opt.Base, "it can't be told which release of Python %s is: /%s has no folder python3.N", program, lib)
	}
	release := fmt.Sprintf("python3.%d", p.minor)
	p.site = path.Join(lib, release, "site-packages")
	p.dists = []string{p.site, path.Join(p.prefix, "lib64", release, "site-packages")}
	if debian := path.Join(lib, "python3/dist-packages"); p.prefix == "usr" && t[debian].kind == tar.TypeDir {
		p.site = path.Join("usr/local/lib", release, "dist-packages")
		p.dists = []string{debian, p.site}
	} else if t[p.site].kind != tar.TypeDir {
		return nil, invalid(opt.Base, "%s has no folder /%s for its packages in the base", program, p.site).WithHint("name another interpreter with --python")
	}
	return p, nil
}

// wheel is an opened file of a wheel.
type wheel struct {
	file string
	zip  *zip.ReadCloser
	info string // name of its .dist-info folder
	data string // name of its .data folder
}

// wheels unpacks wheels as pip installs them. missing are requirements that nobody brings.
func wheels(t tree, cfg *v1.ConfigFile, opt Options) (out []entry, missing []string, err error) {
	p, err := findPython(t, cfg, opt)
	if err != nil {
		return nil, nil, err
	}
	files := slices.Clone(opt.Wheels)
	slices.SortFunc(files, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	have := map[string]bool{}
	for name := range t {
		if slices.Contains(p.dists, path.Dir(name)) && (strings.HasSuffix(name, ".dist-info") || strings.HasSuffix(name, ".egg-info")) {
			dist, _, _ := strings.Cut(path.Base(name), "-")
			have[normal(dist)] = true
		}
	}
	needs := map[string][]string{}
	for _, file := range files {
		if err := p.fits(file); err != nil {
			return nil, nil, err
		}
		name, _, _ := strings.Cut(filepath.Base(file), "-")
		have[normal(name)] = true
		entries, requires, err := p.unpack(file)
		if err != nil {
			return nil, nil, invalid(file, "%w", err)
		}
		out = append(out, entries...)
		needs[filepath.Base(file)] = requires
	}
	for _, file := range files {
		for _, need := range needs[filepath.Base(file)] {
			if !have[normal(need)] {
				missing = append(missing, fmt.Sprintf("%s needs %s, which is neither in the base nor among the wheels", filepath.Base(file), need))
			}
		}
	}
	return out, missing, nil
}

// normal is the form in which names of distributions are compared (PEP 503).
func normal(name string) string {
	return strings.ToLower(regexp.MustCompile(`[-_.]+`).ReplaceAllString(name, "-"))
}

// fits refuses a wheel that is for another Python, system or processor, by its name (PEP 425).
func (p *python) fits(file string) error {
	parts := strings.Split(strings.TrimSuffix(filepath.Base(file), ".whl"), "-")
	if n := len(parts); !strings.HasSuffix(file, ".whl") || n != 5 && n != 6 {
		return invalid(file, "this isn't the name of a wheel: NAME-RELEASE-PYTHON-ABI-PLATFORM.whl").WithHint("pip wheel makes wheels of source distributions")
	}
	tags := parts[len(parts)-3:]
	exact := fmt.Sprintf("cp3%d", p.minor)
	forPython := anyOf(tags[0], func(tag string) bool {
		m := regexp.MustCompile(`^(py|cp)3([0-9]*)$`).FindStringSubmatch(tag)
		if m == nil {
			return false
		}
		minor, _ := strconv.Atoi(m[2]) // empty means any
		return tag == exact || minor <= p.minor && (m[1] == "py" || anyOf(tags[1], func(abi string) bool { return abi == "abi3" || abi == "none" }))
	})
	forABI := anyOf(tags[1], func(abi string) bool { return abi == "none" || abi == "abi3" || abi == exact })
	forPlatform := anyOf(tags[2], func(tag string) bool {
		return tag == "any" || strings.HasSuffix(tag, "_"+p.machine) &&
			(strings.HasPrefix(tag, "linux_") || strings.HasPrefix(tag, "manylinux") && !p.musl || strings.HasPrefix(tag, "musllinux") && p.musl)
	})
	if forPython && forABI && forPlatform {
		return nil
	}
	libc := "glibc"
	if p.musl {
		libc = "musl"
	}
	return invalid(file, "the wheel is for %s, and the image has Python 3.%d on linux %s with %s", strings.Join(tags, "-"), p.minor, p.machine, libc).
		WithHint("pip download --only-binary :all: --python-version 3.%d --platform %s PACKAGE gets one that fits", p.minor, map[bool]string{true: "musllinux_1_2_", false: "manylinux2014_"}[p.musl]+p.machine)
}

func anyOf(tags string, ok func(string) bool) bool {
	return slices.ContainsFunc(strings.Split(tags, "."), ok)
}

// unpack lists the files of a wheel where pip would put them.
func (p *python) unpack(file string) (out []entry, requires []string, err error) {
	z, err := zip.OpenReader(file)
	if err != nil {
		return nil, nil, err
	}
	defer z.Close()
	w := &wheel{file: file, zip: z}
	for _, f := range z.File {
		folder, _, _ := strings.Cut(f.Name, "/")
		if strings.HasSuffix(folder, ".dist-info") {
			w.info, w.data = folder, strings.TrimSuffix(folder, ".dist-info")+".data"
		}
	}
	if w.info == "" {
		return nil, nil, fmt.Errorf("it has no folder .dist-info, so it isn't a wheel")
	}
	meta, err := w.read("METADATA")
	if err != nil {
		return nil, nil, err
	}
	requires = requirements(meta)
	var record bytes.Buffer
	for _, f := range z.File {
		if strings.HasSuffix(f.Name, "/") || f.Name == w.info+"/RECORD" || strings.HasPrefix(f.Name, w.info+"/RECORD.") || f.Name == w.info+"/INSTALLER" {
			continue
		}
		e, err := p.place(w, f)
		if err != nil {
			return nil, nil, err
		}
		if err := p.note(&record, e); err != nil {
			return nil, nil, err
		}
		out = append(out, e)
	}
	scripts, err := p.scripts(w)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range append(scripts, textEntry(path.Join(p.site, w.info, "INSTALLER"), 0o644, []byte("fleetscore\n"))) {
		if err := p.note(&record, e); err != nil {
			return nil, nil, err
		}
		out = append(out, e)
	}
	fmt.Fprintf(&record, "%s/RECORD,,\n", w.info)
	return append(out, textEntry(path.Join(p.site, w.info, "RECORD"), 0o644, record.Bytes())), requires, nil
}

// read returns a file of the .dist-info folder; absent files other than METADATA are empty.
func (w *wheel) read(name string) ([]byte, error) {
	f, err := w.zip.Open(w.info + "/" + name)
	if err != nil {
		if name != "METADATA" {
			return nil, nil
		}
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 16<<20))
}

// place says where a file of a wheel belongs.
func (p *python) place(w *wheel, f *zip.File) (e entry, err error) {
	if strings.Contains(f.Name, "\\") || path.IsAbs(f.Name) || path.Clean(f.Name) != f.Name || strings.HasPrefix(f.Name, "../") {
		return e, fmt.Errorf("it has a file with the name %q, which leads out of its folder", f.Name)
	}
	e = entry{path: path.Join(p.site, f.Name), kind: tar.TypeReg, mode: 0o644, size: int64(f.UncompressedSize64)}
	if f.Mode()&0o100 != 0 {
		e.mode = 0o755
	}
	if e.open, err = opener(w.file, f); err != nil {
		return e, err
	}
	rest, special := strings.CutPrefix(f.Name, w.data+"/")
	if !special {
		return e, nil
	}
	kind, rest, _ := strings.Cut(rest, "/")
	switch kind {
	case "purelib", "platlib":
		e.path = path.Join(p.site, rest)
	case "data":
		e.path = path.Join(p.prefix, rest)
	case "headers":
		e.path = path.Join(p.prefix, "include/site", fmt.Sprintf("python3.%d", p.minor), strings.TrimSuffix(w.data, ".data"), rest)
	case "scripts":
		r, err := e.open()
		if err != nil {
			return e, err
		}
		defer r.Close()
		text, err := io.ReadAll(io.LimitReader(r, 256<<20))
		if err != nil {
			return e, err
		}
		if rest2, ok := bytes.CutPrefix(text, []byte("#!python")); ok {
			_, rest2, _ = bytes.Cut(rest2, []byte("\n"))
			text = append([]byte("#!"+p.program+"\n"), rest2...)
		}
		return textEntry(path.Join(p.prefix, "bin", rest), 0o755, text), nil
	default:
		return e, fmt.Errorf("it has files of the unknown kind %q", kind)
	}
	return e, nil
}

// opener opens a file of a wheel again and again, without reading the wheel's list of files
// each time, which has thousands of them. That what it holds is whole is checked first.
func opener(file string, f *zip.File) (func() (io.ReadCloser, error), error) {
	whole, err := f.Open()
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, whole)
	if e := whole.Close(); err == nil {
		err = e
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	at, err := f.DataOffset()
	if err != nil {
		return nil, err
	}
	return func() (io.ReadCloser, error) {
		r, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		part := io.NewSectionReader(r, at, int64(f.CompressedSize64))
		if f.Method == zip.Deflate {
			return both{flate.NewReader(bufio.NewReader(part)), r}, nil
		}
		return both{part, r}, nil // it is stored as it is: opening knows no other method
	}, nil
}

// note adds a line to the list of installed files.
func (p *python) note(record io.Writer, e entry) error {
	r, err := e.open()
	if err != nil {
		return err
	}
	defer r.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, r); err != nil {
		return err
	}
	rel, err := filepath.Rel("/"+p.site, "/"+e.path)
	if err != nil {
		return err
	}
	if strings.ContainsAny(rel, ",\"\n") {
		rel = strconv.Quote(rel)
	}
	_, err = fmt.Fprintf(record, "%s,sha256=%s,%d\n", rel, base64.RawURLEncoding.EncodeToString(sum.Sum(nil)), e.size)
	return err
}

// scripts makes the commands that a wheel names as entry points.
func (p *python) scripts(w *wheel) (out []entry, err error) {
	text, err := w.read("entry_points.txt")
	if err != nil {
		return nil, err
	}
	within := false
	for line := range strings.SplitSeq(string(text), "\n") {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		if strings.HasPrefix(line, "[") {
			within = line == "[console_scripts]" || line == "[gui_scripts]"
			continue
		}
		name, target, ok := strings.Cut(line, "=")
		if !within || !ok {
			continue
		}
		name, target = strings.TrimSpace(name), strings.TrimSpace(target)
		target, _, _ = strings.Cut(target, "[") // extras
		module, function, ok := strings.Cut(strings.TrimSpace(target), ":")
		if !ok || name == "" || strings.ContainsAny(name, "/\\") || strings.ContainsAny(module+function, " ;()\"'") {
			return nil, fmt.Errorf("its entry point %q can't be understood", line)
		}
		first, _, _ := strings.Cut(function, ".")
		out = append(out, textEntry(path.Join(p.prefix, "bin", name), 0o755,
			fmt.Appendf(nil, "#!%s\nimport sys\nfrom %s import %s\nif __name__ == '__main__':\n    sys.exit(%s())\n", p.program, module, first, function)))
	}
	return out, nil
}

var requirementName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*`)

// requirements are the names of what a distribution always needs. Those with a condition are
// left out, as conditions aren't evaluated.
func requirements(metadata []byte) (out []string) {
	head, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(metadata))).ReadMIMEHeader()
	if err != nil && len(head) == 0 {
		return nil
	}
	for _, line := range head.Values("Requires-Dist") {
		if strings.Contains(line, ";") {
			continue
		}
		if name := requirementName.FindString(strings.TrimSpace(line)); name != "" {
			out = append(out, name)
		}
	}
	return out
}
