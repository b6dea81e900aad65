//go:build !linux

package store

import "os"

func statWithoutLinks(path string) (os.FileInfo, error) { return lstatParts(path) }
