// Package examplefleet holds the example fleet for the demo and for new projects: its
// fleet.yaml, the models that make_models.py trained, and the files of a project.
package examplefleet

import "embed"

// Files are fleet.yaml and models/.
//
//go:embed fleet.yaml models
var Files embed.FS

// Project is the folder project, whose files a new project gets beside the models, and the
// program that trained these.
//
//go:embed project make_models.py
var Project embed.FS
