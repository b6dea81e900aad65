package config

import (
	"strings"
	"testing"
)

// TestEnvironmentsOfImages: an environment may be an image where the pipeline's pool has
// containers; what can't work is refused.
func TestEnvironmentsOfImages(t *testing.T) {
	t.Parallel()
	with := func(pool, environment string) string {
		text := strings.Replace(good, "provider: local, ", pool, 1)
		return strings.Replace(text, "    pool: cpu\n", "    pool: cpu\n    runtime: auto\n    python: {environments: ["+environment+"]}\n", 1)
	}
	const boxes = "provider: docker, docker: {image: new:v1}, "
	cfg, err := Parse("fleet.yaml", []byte(with(boxes, "{sklearn: '0.24', image: old:v1, python: /opt/python}")))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, p := range cfg.Pipelines {
		found = found || len(p.Python.Environments) == 1 && p.Python.Environments[0].Image == "old:v1"
	}
	if !found {
		t.Errorf("no pipeline has the environment: %+v", cfg.Pipelines)
	}
	for text, want := range map[string]string{
		with("provider: local, ", "{sklearn: '0.24', image: old:v1}"):             "only where nodes are containers, and the provider of this pipeline's pool is local",
		with(boxes, "{sklearn: '0.24', image: old:v1, path: old}"):                "write one of path",
		with(boxes, "{sklearn: '0.24'}"):                                          "write one of path",
		with(boxes, "{sklearn: '0.24', image: 'old v1'}"):                         "is not the name of an image",
		with(boxes, "{sklearn: '0.24', image: old:v1, python: python3}"):          "absolute path of the interpreter",
		with(boxes, "{sklearn: '0.24', image: old:v1, index: /wheels}"):           "index has no meaning",
		with(boxes, "{sklearn: '0.24', path: old, python: python3.9}"):            "how an environment is made of requirements",
		with(boxes, "{sklearn: '1', image: a:v1}, {sklearn: '1', image: 'b:v1'}"): "another environment for 1",
	} {
		if _, err := Parse("fleet.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
