//go:build !unix

package fleet

import "io"

func mapFile(io.Reader, int64) ([]byte, bool) { return nil, false }

func unmap([]byte) error { return nil }
