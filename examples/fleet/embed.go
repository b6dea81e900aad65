// Package examplefleet holds the example fleet for the demo: its fleet.yaml and
// the models that make_models.py trained.
package examplefleet

import "embed"

// Files are fleet.yaml and models/.
//
//go:embed fleet.yaml models
var Files embed.FS
