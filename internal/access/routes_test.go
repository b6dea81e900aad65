package access

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fleetscore/fleetscore"
	"github.com/fleetscore/fleetscore/internal/testkit"
)

var update = flag.Bool("update", false, "write the table of routes into docs/security.md")

// TestDocumentedRoutes: docs/security.md shows the current table.
func TestDocumentedRoutes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(testkit.Root(t), "docs", "security.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- routes: kept by a test -->\n", "<!-- end of routes -->"
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the routes", file)
	}
	var table strings.Builder
	table.WriteString("\n| route | least role | body |\n|---|---|---|\n")
	for _, pattern := range slices.SortedFunc(maps.Keys(Table), func(a, b string) int { return strings.Compare(pathOf(a)+a, pathOf(b)+b) }) {
		r := Table[pattern]
		body := map[int64]string{noBody: "none", bodyUpload: "256 MiB", bodyBlob: "8 GiB", bodyHandler: "16 MiB"}[r.Body]
		switch {
		case body != "":
		case r.Body%(1<<20) == 0:
			body = fmt.Sprintf("%d MiB", r.Body>>20)
		default:
			body = fmt.Sprintf("%d KiB", r.Body>>10)
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", pattern, r.Need, body)
	}
	table.WriteString("\n")
	want := before + begin + table.String() + end + after
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(text) != want {
		t.Errorf("%s shows another table of routes: go test ./internal/access -run DocumentedRoutes -update", file)
	}
}

func pathOf(pattern string) string { return pattern[strings.IndexByte(pattern, '/'):] }

// TestRoles: what each role may do, all pairs.
func TestRoles(t *testing.T) {
	t.Parallel()
	for role, may := range map[fleetscore.Role]string{
		fleetscore.RoleDevice:        "device",
		fleetscore.RoleViewer:        "viewer image-pull",
		fleetscore.RoleOperator:      "device viewer operator image-pull image-push",
		fleetscore.RoleAdministrator: "device viewer operator administrator image-pull image-push",
		fleetscore.RoleNode:          "node",
		fleetscore.RoleImagePull:     "image-pull",
		fleetscore.RoleImagePush:     "image-pull image-push",
		"":                           "",
		"odd":                        "",
	} {
		var got []string
		for _, need := range append(slices.Clone(fleetscore.Roles), "odd", "", Anyone, Known) {
			if role.May(need) {
				got = append(got, string(need))
			}
		}
		if strings.Join(got, " ") != may {
			t.Errorf("%q may %q, want %q", role, got, may)
		}
	}
}

// TestUnlistedRoute: a route without an entry isn't served, and Err reports it.
func TestUnlistedRoute(t *testing.T) {
	t.Parallel()
	d := control(t, Config{Open: true})
	m := d.NewMux(nil)
	m.HandleFunc("GET /api/v1/secret", nil)
	if m.Err() == nil || len(d.Routes()) != 0 {
		t.Errorf("Err() = %v, routes %q", m.Err(), d.Routes())
	}
}
