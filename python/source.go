// Package python holds the source text of the Python package's parts that the binary
// starts by itself. It contains no code of its own.
package python

import _ "embed"

// Worker is the program that scores with models in Python (docs/formats/worker.md).
//
//go:embed fleetscore/_worker.py
var Worker string

// Parent is the part of it that makes the workers.
//
//go:embed fleetscore/_parent.py
var Parent string

// Models is the part of it that reads models and asks them to predict.
//
//go:embed fleetscore/_models.py
var Models string
