//go:build tools

// Package ekuiper names the program that bench/ekuiper.go builds.
package ekuiper

import _ "github.com/lf-edge/ekuiper/v2/cmd/kuiperd"
