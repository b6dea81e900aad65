package testkit

import (
	"archive/zip"
	"crypto/rand"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// PostgresVersions are the major versions that tests run on: the oldest that is
// supported, which Debian's package holds, and a new one, which a Java package holds.
var PostgresVersions = []int{15, 18}

// Postgres is a PostgreSQL server of a test's own, on a socket in its folder.
type Postgres struct {
	Password string // of its user, fleet
	bin, dir string
	as       *syscall.Credential // who it runs as, if tests run as root
}

// StartPostgres starts a server of that major version, which ends with the test.
func StartPostgres(t testing.TB, major int) *Postgres {
	t.Helper()
	p := &Postgres{Password: rand.Text()}
	if major == PostgresVersions[0] {
		p.bin = debianPostgres(t)
	} else {
		p.bin = mavenPostgres(t)
	}
	dir, err := os.MkdirTemp("/tmp", "fspg") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p.dir = dir
	if os.Geteuid() == 0 { // it refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			u, err = user.Lookup("nobody")
		}
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		p.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "password"), []byte(p.Password+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// The database sorts as people do, which must not matter.
	p.run(t, "initdb", "-D", filepath.Join(dir, "data"), "-U", "fleet", "-A", "scram-sha-256", "--pwfile", filepath.Join(dir, "password"),
		"-E", "UTF8", "--locale", "C", "--locale-provider", "icu", "--icu-locale", "en-US", "--no-sync")
	f, err := os.OpenFile(filepath.Join(dir, "data", "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(f, "listen_addresses=''\nunix_socket_directories='%s'\nshared_buffers=32MB\nfsync=off\nfull_page_writes=off\n", dir)
	if err2 := f.Close(); err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	p.Start(t)
	t.Cleanup(func() { _ = p.command("pg_ctl", "-D", filepath.Join(dir, "data"), "-m", "immediate", "stop").Run() }) // it may be stopped already
	return p
}

// Start starts the server again.
func (p *Postgres) Start(t testing.TB) {
	t.Helper()
	p.run(t, "pg_ctl", "-D", filepath.Join(p.dir, "data"), "-l", filepath.Join(p.dir, "log"), "-w", "-s", "start")
}

// Stop ends the server as a crash does.
func (p *Postgres) Stop(t testing.TB) {
	t.Helper()
	p.run(t, "pg_ctl", "-D", filepath.Join(p.dir, "data"), "-m", "immediate", "-w", "-s", "stop")
}

// NewDatabase makes an empty database and returns its address.
func (p *Postgres) NewDatabase(t testing.TB) string {
	t.Helper()
	c, err := pgx.Connect(t.Context(), p.url("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	name := "t" + strings.ToLower(rand.Text())
	_, err = c.Exec(t.Context(), "CREATE DATABASE "+name)
	if err2 := c.Close(t.Context()); err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	return p.url(name)
}

func (p *Postgres) url(database string) string {
	return (&url.URL{Scheme: "postgres", User: url.UserPassword("fleet", p.Password), Path: "/" + database, RawQuery: url.Values{"host": {p.dir}}.Encode()}).String()
}

func (p *Postgres) run(t testing.TB, program string, args ...string) {
	t.Helper()
	cmd := p.command(program, args...)
	// A file, not a pipe: the server keeps it open after pg_ctl has ended.
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name())
		logged, _ := os.ReadFile(filepath.Join(p.dir, "log"))
		t.Fatalf("%s %s: %v\n%s\n%s", program, strings.Join(args, " "), err, said, logged)
	}
}

func (p *Postgres) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, program), args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as}
	return cmd
}

// debianPostgres is the folder of Debian's programs.
func debianPostgres(t testing.TB) string {
	t.Helper()
	pattern := fmt.Sprintf("/usr/lib/postgresql/%d/bin", PostgresVersions[0])
	Tool(t, filepath.Join(pattern, "initdb"), "postgresql")
	return pattern
}

// mavenRelease is the release of a package of PostgreSQL's programs for Java tests,
// which Maven fetches.
const mavenRelease = "18.6.0"

// mavenPostgres is the folder of the programs in that package, fetched once.
func mavenPostgres(t testing.TB) string {
	t.Helper()
	arch := map[string]string{"linux/amd64": "linux-amd64", "linux/arm64": "linux-arm64v8"}[runtime.GOOS+"/"+runtime.GOARCH]
	if arch == "" {
		Missing(t, "PostgreSQL "+mavenRelease, "run the test on Linux")
	}
	cache, err := os.UserCacheDir()
	if os.Geteuid() == 0 {
		cache, err = "/var/cache", nil // the programs run as another user, who can't look into root's home
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "fleetscore-test", "postgres-"+mavenRelease)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer Lock(t, dir+".lock")() // tests of other packages may want it too
	ready := filepath.Join(dir, "ready")
	if _, err := os.Stat(ready); err == nil {
		return filepath.Join(dir, "bin")
	}
	Tool(t, "mvn", "maven")
	Tool(t, "xz", "xz-utils")
	name := "embedded-postgres-binaries-" + arch
	fetch := Command(t, "mvn", "-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy", "-Dartifact=io.zonky.test.postgres:"+name+":"+mavenRelease, "-DoutputDirectory="+dir)
	if out, err := fetch.CombinedOutput(); err != nil {
		Missing(t, "PostgreSQL "+mavenRelease, fmt.Sprintf("it comes with Maven (%v: %s)", err, out))
	}
	archive := unzipOne(t, filepath.Join(dir, name+"-"+mavenRelease+".jar"), ".txz")
	if out, err := Command(t, "tar", "-xJf", archive, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	if err := os.WriteFile(ready, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "bin")
}

// unzipOne unpacks the one file of that ending beside the archive.
func unzipOne(t testing.TB, archive, ending string) string {
	t.Helper()
	z, err := zip.OpenReader(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, f := range z.File {
		if !strings.HasSuffix(f.Name, ending) {
			continue
		}
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		out, err := os.Create(archive + ending)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		if _, err := io.Copy(out, in); err != nil {
			t.Fatal(err)
		}
		return out.Name()
	}
	t.Fatalf("%s holds no file %s", archive, ending)
	return ""
}
