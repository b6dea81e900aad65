package config

import _ "embed"

// Schema is the JSON Schema (draft 2020-12) of fleet.yaml, for editors. It knows the
// keys, their types and their words; Parse also checks what a schema can't express,
// such as SQL, and names that must exist.
//
// TestSchema generates it from fleetscore.Config and the comments there.
//
//go:embed fleet.schema.json
var Schema []byte
