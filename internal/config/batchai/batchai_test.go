package batchai

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/config"
)

const reference = `{
  "$schema": "https://example.com/job.json",
  "properties": {
    "nodeCount": 2,
    "schedulingPriority": "high",
    "cluster": {"id": "/subscriptions/x/workspaces/w/clusters/Anomaly_Cluster"},
    "customToolkitSettings": {"commandLine": "python /predict.py 1 1 $AZ_BATCHAI_INPUT_SCRIPT/config.json"},
    "stdOutErrPathPrefix": "$AZ_BATCHAI_MOUNT_ROOT/logs",
    "inputDirectories": [{"id": "SCRIPT", "path": "$AZ_BATCHAI_MOUNT_ROOT/scripts"}],
    "outputDirectories": [{"id": "MODEL", "pathPrefix": "$AZ_BATCHAI_MOUNT_ROOT/out", "pathSuffix": "preds"}],
    "environmentVariables": [{"name": "MODE", "value": "fast $AZ_BATCHAI_OUTPUT_MODEL/x"}],
    "secrets": [{"name": "STORAGE_KEY", "value": "hunter2"}],
    "containerSettings": {"imageSourceRegistry": {"serverUrl": "registry.example.com", "image": "scorer:1"}},
    "jobPreparation": {"commandLine": "apt-get update"},
    "constraints": {"maxWallClockTime": "P1DT2H30M"},
    "mountVolumes": {"azureFileShares": [{"accountName": "a", "azureFileUrl": "https://a.file.core.windows.net/share", "relativeMountPath": "scripts"}, {"azureFileUrl": "x", "relativeMountPath": "Scripts"}], "fileServers": []},
    "horovodSettings": {"pythonScriptFilePath": "x"}
  }
}`

// TestConvert: a job becomes a configuration that is good, and everything that it can't say
// is named; secrets aren't shown.
func TestConvert(t *testing.T) {
	t.Parallel()
	p, err := Convert("Job 1.json", []byte(reference))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse("/fleet/fleet.yaml", []byte(p.YAML))
	if err != nil {
		t.Fatalf("%v\n%s", err, p.YAML)
	}
	got, ok := cfg.Pipelines["job-1"]
	if !ok || got.Pool != "anomaly-cluster" || got.Priority != fleetscore.PriorityHigh || got.Limits.JobTimeout.D() != 26*time.Hour+30*time.Minute ||
		cfg.Pools["anomaly-cluster"].Scale.Max != 2 || strings.Join(got.Features, " ") != "Val=Value" {
		t.Errorf("the pipeline is %+v\n%s", got, p.YAML)
	}
	pool, c := cfg.Pools["anomaly-cluster"], got.Command
	if pool.Provider != "docker" || pool.Docker.Image != "registry.example.com/scorer:1" || strings.Join(pool.Mounts, " ") != "scripts scripts-2" || cfg.Mounts["scripts"] != (fleetscore.MountConfig{Path: "/mnt/scripts", Type: "smb", Source: "//a.file.core.windows.net/share"}) {
		t.Errorf("the pool is %+v, the mounts are %+v", pool, cfg.Mounts)
	}
	if got.Runtime != fleetscore.RuntimeCommand || c == nil || c.Run != "python /predict.py 1 1 {mounts.scripts}/config.json" || c.Env["MODE"] != "fast {output}/x" || c.Env["AZ_BATCHAI_INPUT_SCRIPT"] != "{mounts.scripts}" ||
		c.Env["AZ_BATCHAI_OUTPUT_MODEL"] != "{output}" || c.Secrets["STORAGE_KEY"] != "storage-key" {
		t.Errorf("the command is %+v\n%s", c, p.YAML)
	}
	for _, want := range []string{"secrets STORAGE_KEY", "outputDirectories MODEL", "--docker", `"apt-get update"`, "stdOutErrPathPrefix", "azureFileShares scripts became the mount scripts:", "--mount-root /mnt", "horovodSettings", "{Device}"} {
		if !strings.Contains(strings.Join(p.Notes, "\n"), want) || !strings.Contains(p.YAML, want) {
			t.Errorf("%q isn't noted", want)
		}
	}
	if p.Counts != 3 || strings.Contains(p.YAML, "hunter2") || strings.Contains(p.YAML, "fileServers") {
		t.Errorf("%d notes:\n%s", p.Counts, p.YAML)
	}
	for line, want := range map[string]string{"cd /x && python a.py": "there is no shell", "python $HOME/a.py": "$HOME stands for", "a 'b": "can't be taken over", "{x} y": "can't be taken over"} {
		p, err := Convert("x.json", []byte(`{"customToolkitSettings": {"commandLine": "`+line+`"}, "inputDirectories": [{"id": "A", "path": "/elsewhere"}]}`))
		if err != nil || p.Counts != 2 || !strings.Contains(p.YAML, want) || !strings.Contains(p.YAML, `"AZ_BATCHAI_INPUT_A": "{input}"`) {
			t.Errorf("%s: %v, want …%s…\n%s", line, err, want, p.YAML)
			continue
		}
		if _, err := config.Parse("/fleet/fleet.yaml", []byte(p.YAML)); err != nil {
			t.Errorf("%s: %v\n%s", line, err, p.YAML)
		}
	}
	for registry, image := range map[string]string{
		`"image": "ubuntu"`: "ubuntu", `"serverUrl": "r.example.com", "image": "a/b:1"`: "r.example.com/a/b:1", `"serverUrl": "r.example.com", "image": "r.example.com/b:1"`: "r.example.com/b:1",
		`"serverUrl": "https://r.example.com/", "image": "b:1", "credentials": {"username": "u", "password": "hunter2"}`: "r.example.com/b:1",
	} {
		p, err := Convert("x.json", []byte(`{"customToolkitSettings": {"commandLine": "a"}, "containerSettings": {"imageSourceRegistry": {`+registry+`}}}`))
		if err != nil || !strings.Contains(p.YAML, `docker: {image: "`+image+`",`) || strings.Contains(p.YAML, "hunter2") || strings.Contains(p.YAML, "docker login") != strings.Contains(registry, "password") {
			t.Errorf("%s: %v\n%s", registry, err, p.YAML)
		}
	}
	// As the REST interface shows a job, and without "properties".
	for _, text := range []string{`{"name": "J", "properties": {"nodeCount": 1, "constraints": {"maxWallClockTime": "1h30m"}}}`, `{"name": "J", "nodeCount": 1}`} {
		if p, err := Convert("x.json", []byte(text)); err != nil || p.Name != "j" {
			t.Errorf("%s: %+v, %v", text, p, err)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"[]": "isn't a job", "{": "isn't a job", `{"some": "thing"}`: "no setting of a Batch AI job", `{"nodeCount": "two"}`: "2018-05-01",
		`{"schedulingPriority": "urgent"}`: "urgent", `{"constraints": {"maxWallClockTime": "soon"}}`: "P1DT2H", `{"constraints": {"maxWallClockTime": "P99999999999D"}}`: "too long",
	} {
		if _, err := Convert("x.json", []byte(text)); !fleetscore.Invalid.Is(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestAnyTexts: whatever texts a job holds, the configuration is good, and they can't add
// lines to it.
func TestAnyTexts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.String().Draw(r, "text")
		commandEnd := rapid.SampledFrom([]string{"", `\nfleets: {}`}).Draw(r, "end")
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(strings.Map(func(c rune) rune {
			if c < ' ' {
				return -1
			}
			return c
		}, text))
		p, err := Convert("x.json", []byte(`{"name": "`+quoted+`", "cluster": {"id": "`+quoted+`"}, "customToolkitSettings": {"commandLine": "`+quoted+commandEnd+`"},
			"secrets": [{"name": "`+quoted+`\npools: {}", "value": "v"}], "environmentVariables": [{"name": "A", "value": "`+quoted+`"}, {"name": "`+quoted+`", "value": "x"}],
			"containerSettings": {"imageSourceRegistry": {"image": "`+quoted+`"}}, "inputDirectories": [{"id": "`+quoted+`", "path": "$AZ_BATCHAI_MOUNT_ROOT/`+quoted+`"}],
			"mountVolumes": {"azureFileShares": [{"azureFileUrl": "https://`+quoted+`", "relativeMountPath": "`+quoted+`"}, {"relativeMountPath": "b"}], "`+quoted+`": [{"relativeMountPath": "`+quoted+`"}]}}`))
		if err != nil {
			r.Fatal(err)
		}
		cfg, err := config.Parse("/fleet/fleet.yaml", []byte(p.YAML))
		if err != nil || len(cfg.Pipelines) != 1 || len(cfg.Fleets) != 1 {
			r.Fatalf("%v\n%s", err, p.YAML)
		}
	})
}
