// Package kafkatest runs a real Kafka broker from its published jars, in a process that a
// test can kill. Only tests import it.
package kafkatest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetscore/fleetscore/internal/testkit"
)

const (
	version    = "4.4.0"
	startLimit = time.Minute
)

// The user of a broker's listener with SASL.
const (
	User     = "$ConnectionString"
	Password = "Endpoint=sb://x/;SharedAccessKey=k"

	ScramUser     = "scram"
	ScramPassword = "scram-secret"
)

// Broker is one broker with three listeners: plain text; TLS with SASL PLAIN and SCRAM.
type Broker struct {
	t       testing.TB
	dir     string
	lib     string
	cmd     *exec.Cmd
	Address string // plain text
	Secure  string // SASL over TLS
	CA      string // file with the certificate of Secure
}

// jars returns the folder of the broker's jars, which Maven fetches once into the user's
// cache folder.
func jars(t testing.TB) string {
	t.Helper()
	for _, tool := range []string{"java", "mvn"} {
		if _, err := exec.LookPath(tool); err != nil {
			testkit.Missing(t, tool, "install a JRE of version 17 or later, and Maven")
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "fleetscore-test", "kafka-"+version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer testkit.Lock(t, dir+".lock")()
	if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
		return filepath.Join(dir, "lib")
	}
	pom := fmt.Sprintf(`<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>t</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>%s</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency></dependencies></project>`, version)
	if err := os.WriteFile(filepath.Join(dir, "pom.xml"), []byte(pom), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := testkit.Command(t, "mvn", "-B", "-q", "dependency:copy-dependencies", "-DoutputDirectory=lib", "-DincludeScope=runtime")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		testkit.Missing(t, "Kafka "+version, fmt.Sprintf("let Maven reach a repository with its jars (%v: %s)", err, out))
	}
	if err := os.WriteFile(filepath.Join(dir, "ready"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "lib")
}

// Start starts a broker.
func Start(t testing.TB) *Broker {
	t.Helper()
	b := &Broker{t: t, dir: t.TempDir(), lib: jars(t)}
	ports := freePorts(t, 3)
	b.Address, b.Secure = ports[0], ports[1]
	b.certificate()
	jaas := "org.apache.kafka.common.security."
	lines := []string{"process.roles=broker,controller", "node.id=1", "controller.quorum.voters=1@" + ports[2],
		fmt.Sprintf("listeners=PLAINTEXT://%s,SASL_SSL://%s,CONTROLLER://%s", ports[0], ports[1], ports[2]),
		fmt.Sprintf("advertised.listeners=PLAINTEXT://%s,SASL_SSL://%s", ports[0], ports[1]),
		"controller.listener.names=CONTROLLER", "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
		"listener.name.sasl_ssl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256",
		fmt.Sprintf(`listener.name.sasl_ssl.plain.sasl.jaas.config=%splain.PlainLoginModule required user_%s="%s";`, jaas, User, Password),
		"listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=" + jaas + "scram.ScramLoginModule required;",
		"ssl.keystore.type=PEM", "ssl.keystore.location=" + filepath.Join(b.dir, "ks.pem"),
		"log.dirs=" + filepath.Join(b.dir, "data"), "num.partitions=4", "offsets.topic.replication.factor=1", "offsets.topic.num.partitions=1",
		"transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1", "transaction.state.log.num.partitions=1",
		"share.coordinator.state.topic.replication.factor=1", "share.coordinator.state.topic.min.isr=1", "group.initial.rebalance.delay.ms=0",
		"broker.session.timeout.ms=2000", "broker.heartbeat.interval.ms=500"}
	if err := os.WriteFile(b.properties(), []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	format := testkit.Command(t, "java", "-cp", b.lib+"/*", "kafka.tools.StorageTool", "format", "-t", "8EAR8fG5SKK4xZgCzW0N3g", "-c", b.properties(),
		"--add-scram", fmt.Sprintf("SCRAM-SHA-256=[name=%s,password=%s]", ScramUser, ScramPassword))
	if out, err := format.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(b.Kill)
	b.Again()
	return b
}

// freePorts returns addresses that are free now.
func freePorts(t testing.TB, n int) (addresses []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // after the loop, so that no two are the same
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

func (b *Broker) properties() string { return filepath.Join(b.dir, "server.properties") }

// certificate makes the broker's certificate, which is its own authority.
func (b *Broker) certificate() {
	b.t.Helper()
	b.CA = filepath.Join(b.dir, "ca.pem")
	key := filepath.Join(b.dir, "key.pem")
	if out, err := testkit.Command(b.t, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
		"-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", b.CA).CombinedOutput(); err != nil {
		b.t.Fatalf("%v\n%s", err, out)
	}
	var both []byte
	for _, f := range []string{key, b.CA} {
		text, err := os.ReadFile(f)
		if err != nil {
			b.t.Fatal(err)
		}
		both = append(both, text...)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "ks.pem"), both, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// Again starts the broker's process and waits until it answers.
func (b *Broker) Again() {
	b.t.Helper()
	out, err := os.OpenFile(filepath.Join(b.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer out.Close()
	b.cmd = exec.Command("java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", b.lib+"/*", "kafka.Kafka", b.properties())
	b.cmd.Stdout, b.cmd.Stderr = out, out
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	for end := time.Now().Add(startLimit); time.Now().Before(end); {
		if c, err := net.DialTimeout("tcp", b.Address, time.Second); err == nil {
			c.Close()
			return
		}
		time.Sleep(50 * time.Millisecond) // it has no other way to say so
	}
	text, _ := os.ReadFile(filepath.Join(b.dir, "log"))
	b.t.Fatalf("the broker doesn't answer:\n%s", text)
}

// Kill ends the broker at once.
func (b *Broker) Kill() {
	if b.cmd != nil {
		_ = b.cmd.Process.Kill() // it may have ended
		_ = b.cmd.Wait()
		b.cmd = nil
	}
}
