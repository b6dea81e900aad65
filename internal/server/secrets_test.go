package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
)

// TestFilesOfTheHub: the hub's settings name files in folders of the operator only, neither the
// server's own secrets nor others of the machine.
func TestFilesOfTheHub(t *testing.T) {
	t.Parallel()
	dir, allowed, elsewhere := t.TempDir(), t.TempDir(), t.TempDir()
	s := &Server{cfg: Config{Dir: dir, SecretRoots: []string{allowed, filepath.Join(elsewhere, "named")}}}
	if err := s.findSecretRoots(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(dir, "secrets", "hub", "a"), filepath.Join(dir, "secrets", "admin-token"), filepath.Join(allowed, "a"), filepath.Join(elsewhere, "named"), filepath.Join(elsewhere, "other")} {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(elsewhere, filepath.Join(allowed, "out")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(elsewhere, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(elsewhere, "sub"), filepath.Join(allowed, "sub")); err != nil {
		t.Fatal(err)
	}
	if err := s.checkFiles(fleetscore.HubConfig{NATS: &fleetscore.NATSConfig{CA: allowed + "/sub/../other"}}, "hub."); !fleetscore.Invalid.Is(err) {
		t.Errorf("a path that leads out of the folder behind a link: %v", err)
	}
	settings := map[string]func(file string) fleetscore.HubConfig{
		"hub.kafka.1.ca":          func(f string) fleetscore.HubConfig { return kafkaOf(fleetscore.KafkaConfig{CA: f}) },
		"hub.kafka.1.certificate": func(f string) fleetscore.HubConfig { return kafkaOf(fleetscore.KafkaConfig{Certificate: f}) },
		"hub.kafka.1.key":         func(f string) fleetscore.HubConfig { return kafkaOf(fleetscore.KafkaConfig{Key: f}) },
		"hub.kafka.1.sasl.password_file": func(f string) fleetscore.HubConfig {
			return kafkaOf(fleetscore.KafkaConfig{SASL: &fleetscore.SASLConfig{PasswordFile: f}})
		},
		"hub.event_hubs.policies.1.key_file":           func(f string) fleetscore.HubConfig { return policyOf(fleetscore.PolicyConfig{KeyFile: f}) },
		"hub.event_hubs.policies.1.secondary_key_file": func(f string) fleetscore.HubConfig { return policyOf(fleetscore.PolicyConfig{SecondaryKeyFile: f}) },
		"hub.nats.credentials": func(f string) fleetscore.HubConfig {
			return fleetscore.HubConfig{NATS: &fleetscore.NATSConfig{Credentials: f}}
		},
		"hub.nats.ca": func(f string) fleetscore.HubConfig { return fleetscore.HubConfig{NATS: &fleetscore.NATSConfig{CA: f}} },
		"hub.nats.certificate": func(f string) fleetscore.HubConfig {
			return fleetscore.HubConfig{NATS: &fleetscore.NATSConfig{Certificate: f}}
		},
		"hub.nats.key": func(f string) fleetscore.HubConfig { return fleetscore.HubConfig{NATS: &fleetscore.NATSConfig{Key: f}} },
	}
	for at, of := range settings {
		for file, ok := range map[string]bool{filepath.Join(dir, "secrets", "hub", "a"): true, filepath.Join(allowed, "a"): true, filepath.Join(allowed, "not-yet"): true, filepath.Join(elsewhere, "named"): true,
			filepath.Join(elsewhere, "other"): false, filepath.Join(dir, "secrets", "admin-token"): false, "/etc/passwd": false, filepath.Join(allowed, "..", "x"): false, filepath.Join(allowed, "out", "other"): false} {
			err := s.checkFiles(of(file), "hub.")
			if ok && err != nil || !ok && (!fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), at) || !strings.Contains(err.Error(), "--secret-root")) {
				t.Errorf("%s: %s: %v", at, file, err)
			}
		}
	}
}

func kafkaOf(k fleetscore.KafkaConfig) fleetscore.HubConfig {
	return fleetscore.HubConfig{Kafka: []fleetscore.KafkaConfig{k}}
}

func policyOf(p fleetscore.PolicyConfig) fleetscore.HubConfig {
	return fleetscore.HubConfig{EventHubs: &fleetscore.EventHubsConfig{Policies: []fleetscore.PolicyConfig{p}}}
}
