package storetest

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"golang.org/x/sys/unix"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

// The servers that stand for the clouds, each a program of its own in a pinned
// version, kept in the user's cache folder for later runs:
//
//	S3      versitygw (Apache-2.0), built by go install
//	Azure   Azurite (MIT), installed by npm ci from the lock file in testdata
//	GCS     fake-gcs-server (BSD), built by go install
const (
	versitygw     = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
	fakeGCS       = "github.com/fsouza/fake-gcs-server@v1.56.1"
	azuriteFolder = "azurite-3.37.0"
)

//go:embed testdata/azurite/package.json testdata/azurite/package-lock.json
var azurite embed.FS

// Server is a running server of blobs. It ends with its test.
type Server struct {
	Endpoint string                       // http://127.0.0.1:port, and Azure's account
	Scheme   string                       // of the store's URLs
	makes    func(t testing.TB, n string) // a bucket

	mu sync.Mutex // guards n
	n  int        // buckets made
}

// NewBucket makes a bucket and returns its URL. Credentials are in the process's
// environment.
func (s *Server) NewBucket(t testing.TB) string {
	t.Helper()
	s.mu.Lock()
	s.n++
	name := fmt.Sprintf("fleetscore-test-%d", s.n)
	s.mu.Unlock()
	s.makes(t, name)
	return s.Scheme + "://" + name + "?endpoint=" + s.Endpoint
}

// Through is the URL of a bucket behind another endpoint, such as a proxy.
func (s *Server) Through(url, endpoint string) string {
	return strings.Replace(url, s.Endpoint, endpoint+strings.TrimPrefix(s.Endpoint, hostOf(s.Endpoint)), 1)
}

func hostOf(endpoint string) string {
	scheme, rest, _ := strings.Cut(endpoint, "://")
	host, _, _ := strings.Cut(rest, "/")
	return scheme + "://" + host
}

const account = "fleetscoretest"

// environment gives this process and its children credentials that are valid only for
// the test servers, and prevents the SDKs from looking for credentials outside this
// machine.
var environment = sync.OnceValue(func() (secret string) {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	secret = base64.StdEncoding.EncodeToString(raw)
	none := filepath.Join(os.TempDir(), "fleetscore-test-no-such-file")
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": account, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none,
		"AZURE_STORAGE_ACCOUNT": account, "AZURE_STORAGE_KEY": secret,
	} {
		if err := os.Setenv(k, v); err != nil {
			panic(err)
		}
	}
	return secret
})

// S3 starts an S3 server over a temporary folder.
func S3(t testing.TB) *Server {
	t.Helper()
	program := goProgram(t, versitygw)
	secret := environment()
	data, meta := tempDir(t), tempDir(t)
	addr := freeAddress(t)
	start(t, addr, []string{"ROOT_ACCESS_KEY=" + account, "ROOT_SECRET_KEY=" + secret},
		program, "--port", addr, "--quiet", "--keep-alive", "posix", "--sidecar", meta, data)
	return &Server{Endpoint: "http://" + addr, Scheme: "s3", makes: func(t testing.TB, n string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(data, n), 0o755); err != nil {
			t.Fatal(err)
		}
	}}
}

// Azure starts Azurite in memory.
func Azure(t testing.TB) *Server {
	t.Helper()
	script := azuriteProgram(t)
	secret := environment()
	addr := freeAddress(t)
	host, port, _ := net.SplitHostPort(addr)
	start(t, addr, []string{"AZURITE_ACCOUNTS=" + account + ":" + secret},
		"node", script, "--blobHost", host, "--blobPort", port, "--inMemoryPersistence", "--extentMemoryLimit", "2048",
		"--disableTelemetry", "--skipApiVersionCheck", "--silent")
	endpoint := "http://" + addr + "/" + account
	return &Server{Endpoint: endpoint, Scheme: "azblob", makes: func(t testing.TB, n string) {
		t.Helper()
		cred, err := container.NewSharedKeyCredential(account, secret)
		if err != nil {
			t.Fatal(err)
		}
		c, err := container.NewClientWithSharedKeyCredential(endpoint+"/"+n, cred, nil)
		if err == nil {
			_, err = c.Create(t.Context(), nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}}
}

// GCS starts a fake of Google Cloud Storage in memory.
func GCS(t testing.TB) *Server {
	t.Helper()
	program := goProgram(t, fakeGCS)
	environment()
	addr := freeAddress(t)
	host, port, _ := net.SplitHostPort(addr)
	start(t, addr, nil, program, "-backend", "memory", "-scheme", "http", "-host", host, "-port", port, "-public-host", addr,
		"-external-url", "http://"+addr, "-log-level", "error")
	return &Server{Endpoint: "http://" + addr, Scheme: "gs", makes: func(t testing.TB, n string) {
		t.Helper()
		resp, err := http.Post("http://"+addr+"/storage/v1/b?project=test", "application/json", strings.NewReader(`{"name":"`+n+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
			t.Fatalf("make bucket: %s: %s", resp.Status, body)
		}
	}}
}

func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fleetscore-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs a server until the test ends, and returns once it listens.
func start(t testing.TB, addr string, env []string, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = tempDir(t)
	var out strings.Builder // written by the copying goroutine that Wait waits for
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // the server is killed at the end
	}()
	stop := func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		<-ended
	}
	t.Cleanup(stop)
	for limit := time.Now().Add(time.Minute); ; {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended: %s", program, out.String())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(limit) {
			stop()
			t.Fatalf("%s doesn't listen on %s: %s", program, addr, out.String())
		}
	}
}

// goProgram returns the path of a program, built if it isn't there yet.
func goProgram(t testing.TB, module string) string {
	t.Helper()
	name, version, _ := strings.Cut(module, "@")
	folder := cached(t, filepath.Base(name)+"-"+version, func(ctx context.Context, folder string) error {
		return run(ctx, folder, []string{"GOBIN=" + folder, "CGO_ENABLED=0", "GOFLAGS="}, "go", "install", "-trimpath", module)
	})
	return filepath.Join(folder, filepath.Base(name))
}

func azuriteProgram(t testing.TB) string {
	t.Helper()
	if _, err := exec.LookPath("npm"); err != nil {
		testkit.Missing(t, "npm", "install Node.js 20 or newer; the tests then install Azurite by themselves")
	}
	folder := cached(t, azuriteFolder, func(ctx context.Context, folder string) error {
		for _, f := range []string{"package.json", "package-lock.json"} {
			data, err := azurite.ReadFile("testdata/azurite/" + f)
			if err == nil {
				err = os.WriteFile(filepath.Join(folder, f), data, 0o644)
			}
			if err != nil {
				return err
			}
		}
		return run(ctx, folder, nil, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	})
	return filepath.Join(folder, "node_modules", "azurite", "dist", "src", "blob", "main.js")
}

func run(ctx context.Context, dir string, env []string, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, out)
	}
	return nil
}

// setupLimit bounds building or installing one server.
const setupLimit = 10 * time.Minute

// cached returns a folder of the cache, which setup makes if it isn't complete yet.
// Test processes wait for each other. Without FLEETSCORE_TEST_ALL=1 nothing is
// downloaded.
func cached(t testing.TB, name string, setup func(ctx context.Context, folder string) error) string {
	t.Helper()
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	base = filepath.Join(base, "fleetscore-test")
	folder := filepath.Join(base, name)
	if _, err := os.Stat(folder); err == nil {
		return folder
	}
	if !testkit.All() {
		testkit.Missing(t, name, "run this test once with FLEETSCORE_TEST_ALL=1: it fetches and keeps it in "+base)
	}
	if err := os.MkdirAll(base, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(base, name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close() // unlocks
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folder); err == nil {
		return folder
	}
	temp, err := os.MkdirTemp(base, name+".new-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(temp)
	ctx, cancel := context.WithTimeout(context.Background(), setupLimit)
	defer cancel()
	begin := time.Now()
	if err := setup(ctx, temp); err != nil {
		testkit.Missing(t, name, err.Error())
	}
	if err := os.Rename(temp, folder); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s was set up in %s", name, time.Since(begin).Round(time.Second))
	return folder
}
