package laboratory

import (
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore/internal/query/stream"
)

func list(names []string) string { return strings.Join(names, ", ") }

// inputs are the names of a plan's inputs.
func inputs(p *stream.Plan) string {
	var out []string
	for _, in := range p.Inputs {
		if !slices.Contains(out, in.Name) {
			out = append(out, in.Name)
		}
	}
	return list(out)
}
