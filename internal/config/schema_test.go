package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/fleetscore/fleetscore"
)

var update = flag.Bool("update", false, "write fleet.schema.json")

// required are the keys that Parse always demands.
var required = map[reflect.Type][]string{
	reflect.TypeFor[fleetscore.FleetConfig]():       {"path"},
	reflect.TypeFor[fleetscore.ReferenceConfig]():   {"path"},
	reflect.TypeFor[fleetscore.DefaultModel]():      {"model"},
	reflect.TypeFor[fleetscore.PipelineConfig]():    {"fleet"},
	reflect.TypeFor[fleetscore.CommandConfig]():     {"run"},
	reflect.TypeFor[fleetscore.Recurrence]():        {"frequency"},
	reflect.TypeFor[fleetscore.CertificateRole]():   {"name", "role"},
	reflect.TypeFor[fleetscore.ClaimRole]():         {"value", "role"},
	reflect.TypeFor[fleetscore.MonthlyOccurrence](): {"day", "occurrence"},
}

func words[T ~string](ws ...T) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string"}
	for _, w := range ws {
		s.Enum = append(s.Enum, string(w))
	}
	return s
}

// commentsOf returns the comments of the fields of a file's types, by "HubConfig.Key".
func commentsOf(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	put := func(name string, groups ...*ast.CommentGroup) {
		for _, g := range groups {
			if text := strings.Join(strings.Fields(g.Text()), " "); text != "" {
				out[name] = text
			}
		}
	}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range g.Specs {
			ts, ok := s.(*ast.TypeSpec)
			if !ok {
				continue
			}
			if st, ok := ts.Type.(*ast.StructType); ok {
				for _, field := range st.Fields.List {
					for _, n := range field.Names {
						put(ts.Name.Name+"."+n.Name, field.Doc, field.Comment)
					}
				}
			}
		}
	}
	return out
}

// schemaOf generates the schema of fleet.yaml from fleetscore.Config.
func schemaOf(t *testing.T) []byte {
	t.Helper()
	comments := commentsOf(t, "../../config.go")
	maps.Copy(comments, commentsOf(t, "../../schedule.go"))
	r := &jsonschema.Reflector{RequiredFromJSONSchemaTags: true, ExpandedStruct: true,
		LookupComment: func(of reflect.Type, field string) string { return comments[of.Name()+"."+field] }}
	r.Mapper = func(of reflect.Type) *jsonschema.Schema {
		switch of {
		case reflect.TypeFor[fleetscore.Duration]():
			return &jsonschema.Schema{Type: "string", Pattern: `^(-?0|-?([0-9.]+(ns|us|µs|ms|s|m|h))+|[0-9]+d)$`}
		case reflect.TypeFor[fleetscore.Size]():
			return &jsonschema.Schema{Type: "string", Pattern: `^[0-9.]+ *([kKmMgGtT]?[bB])$`}
		case reflect.TypeFor[fleetscore.Allowance]():
			return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "integer", Minimum: "0"}, {Type: "string", Pattern: `^([0-9]+|[0-9.]+%)$`}}}
		case reflect.TypeFor[fleetscore.OneOrMore[int]]():
			number := &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "integer"}, {Type: "string", Pattern: `^-?[0-9]+$`}}}
			return &jsonschema.Schema{OneOf: []*jsonschema.Schema{number, {Type: "array", Items: number}}}
		case reflect.TypeFor[fleetscore.OneOrMore[string]]():
			return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string"}, {Type: "array", Items: &jsonschema.Schema{Type: "string"}}}}
		case reflect.TypeFor[fleetscore.MissingRule]():
			return words(fleetscore.MissingFail, fleetscore.MissingSkip, fleetscore.MissingToModel)
		case reflect.TypeFor[fleetscore.Overlap]():
			return words(fleetscore.OverlapSkip, fleetscore.OverlapQueueOne, fleetscore.OverlapQueueAll, fleetscore.OverlapReplace, fleetscore.OverlapAllow)
		case reflect.TypeFor[fleetscore.LatePolicy]():
			return words(fleetscore.LateDrop, fleetscore.LateRevise, fleetscore.LateAdjust)
		case reflect.TypeFor[fleetscore.CatchUp]():
			return words(fleetscore.CatchUpNone, fleetscore.CatchUpLast, fleetscore.CatchUpAll)
		case reflect.TypeFor[fleetscore.LogLayout]():
			return words(fleetscore.LogsNested, fleetscore.LogsFlat)
		case reflect.TypeFor[fleetscore.Priority]():
			return words(fleetscore.PriorityHigh, fleetscore.PriorityNormal, fleetscore.PriorityLow)
		case reflect.TypeFor[fleetscore.Role]():
			return words(fleetscore.Roles...)
		case reflect.TypeFor[fleetscore.FeatureOrder]():
			return words(fleetscore.FeaturesByName, fleetscore.FeaturesByPosition)
		case reflect.TypeFor[fleetscore.CommandPer]():
			return words(fleetscore.CommandPerKey, fleetscore.CommandPerTask)
		}
		return nil
	}
	s := r.Reflect(&fleetscore.Config{})
	s.ID, s.Title = "", "fleet.yaml"
	for of, keys := range required {
		s.Definitions[of.Name()].Required = keys
	}
	s.Definitions["PipelineConfig"].AnyOf = []*jsonschema.Schema{{Required: []string{"dataset", "features", "pool"}}, {Required: []string{"shadow"}}}
	for short, field := range shortFor {
		whole := s.Definitions[short.Name()]
		member, _ := short.FieldByName(field)
		name, _, _ := strings.Cut(member.Tag.Get("json"), ",")
		one := *whole.Properties.Value(name)
		one.Description = ""
		s.Definitions[short.Name()] = &jsonschema.Schema{OneOf: []*jsonschema.Schema{&one, whole}}
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

// TestSchema: the schema that the binary prints is the one of today's configuration.
func TestSchema(t *testing.T) {
	t.Parallel()
	want := schemaOf(t)
	if *update {
		if err := os.WriteFile("fleet.schema.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(string(want), string(Schema)); d != "" {
		t.Errorf("fleet.schema.json isn't the schema of fleetscore.Config; run go test ./internal/config -run TestSchema -update (-want +got):\n%s", d)
	}
}

func compiled(t *testing.T) *validator.Schema {
	t.Helper()
	c := validator.NewCompiler()
	doc, err := validator.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AddResource("fleet.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("fleet.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// judgeBySchema is what an editor does with a file.
func judgeBySchema(t *testing.T, s *validator.Schema, text string) error {
	t.Helper()
	asJSON, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := validator.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

// TestSchemaAccepts: what Parse accepts, the schema accepts too: the example, and each
// whole configuration of the documents.
func TestSchemaAccepts(t *testing.T) {
	t.Parallel()
	s := compiled(t)
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range append(files, "../../README.md", "../../examples/fleet/fleet.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		blocks := [][]string{{"", string(text)}}
		if filepath.Ext(file) == ".md" {
			blocks = regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
		}
		for _, b := range blocks {
			if _, err := Parse("/fleet/fleet.yaml", []byte(b[1])); err != nil {
				continue // a part of a file, or an example of what is refused
			}
			seen++
			if err := judgeBySchema(t, s, b[1]); err != nil {
				t.Errorf("%s: the schema refuses a configuration that Parse accepts: %v\n%s", file, err, b[1])
			}
		}
	}
	if seen < 3 {
		t.Errorf("only %d configurations were found in the documents and examples", seen)
	}
}

// TestSchemaRefuses: an editor marks these mistakes.
func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	s := compiled(t)
	const good = "pipelines: {a: {dataset: d, fleet: f, features: [Value], pool: p, missing: skip, history: 7d, limits: {failed: 5%}}}\n"
	if err := judgeBySchema(t, s, good); err != nil {
		t.Fatalf("a good file is refused: %v", err)
	}
	for _, text := range []string{
		strings.Replace(good, "missing: skip", "missing: sometimes", 1),
		strings.Replace(good, "missing: skip", "mising: skip", 1),
		strings.Replace(good, "history: 7d", "history: 7", 1),
		strings.Replace(good, "failed: 5%", "failed: 5.5", 1),
		strings.Replace(good, "features: [Value], ", "", 1),
		strings.Replace(good, "fleet: f", "shadow: b", 1),
		"hub: {key: Device}\n",
		"hub: {partitions: many}\n",
		"queries: {a: [x]}\n",
		"pipeline: {}\n",
	} {
		if judgeBySchema(t, s, text) == nil {
			t.Errorf("the schema accepts %s", text)
		}
		if _, err := Parse("/fleet/fleet.yaml", []byte(text)); err == nil {
			t.Errorf("Parse accepts %s", text)
		}
	}
}
