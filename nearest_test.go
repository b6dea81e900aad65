package fleetscore

import "testing"

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"dataset", "job", "schedule", "score", "s", "TS"}
	for word, want := range map[string]string{"datset": "dataset", "jbo": "job", "jobs": "job", "scroe": "score", "sore": "score", "DATASET": "dataset", "ts": "TS",
		"completely different": "", "x": "s", "": "s", "pipelines": ""} {
		if got := Nearest(word, known); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}
