//go:build !linux

package oneshot

import "os"

func beginWriting(*os.File, int64, int64) {}
