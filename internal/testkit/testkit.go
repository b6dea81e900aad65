// Package testkit holds what tests of several rooms need: the reference data,
// and the rule that an engine may only be absent on a laptop. It is imported by
// tests only and keeps no state.
package testkit

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// All reports whether every engine must be present (FLEETSCORE_TEST_ALL=1), as
// in continuous integration.
func All() bool { return os.Getenv("FLEETSCORE_TEST_ALL") == "1" }

// Missing skips the test because an engine it needs is absent, or fails it where
// All engines must be present.
func Missing(t testing.TB, engine, howToGet string) {
	t.Helper()
	if All() {
		t.Fatalf("%s is missing and FLEETSCORE_TEST_ALL=1: %s", engine, howToGet)
	}
	t.Skipf("SKIPPED: %s is missing: %s", engine, howToGet)
}

// Root returns the repository's root folder.
func Root(t testing.TB) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("the caller's file is unknown")
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Reference returns the folder of the reference architecture's own models, data
// and expected predictions: FLEETSCORE_REFERENCE, or ../shared/reference beside
// the repository.
func Reference(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("FLEETSCORE_REFERENCE")
	if dir == "" {
		dir = filepath.Join(Root(t), "..", "shared", "reference")
	}
	if _, err := os.Stat(filepath.Join(dir, "expected_predictions.csv")); err != nil {
		Missing(t, "the reference fleet", "set FLEETSCORE_REFERENCE to the folder that holds expected_predictions.csv")
	}
	return dir
}
