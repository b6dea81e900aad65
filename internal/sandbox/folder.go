package sandbox

import (
	"os"
	"path/filepath"
)

// makeWithin makes folders below another one, for whoever the program runs as.
func makeWithin(dir string, names []string) error {
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o777); err != nil { // the folder above keeps others out
			return err
		}
	}
	return nil
}
