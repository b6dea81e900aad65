package sklearn

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fleetscore/fleetscore/sklearn/internal/pickle"
	"github.com/fleetscore/fleetscore/sklearn/internal/refusal"
)

// place is where a dict, list or tuple holds an estimator.
type place struct {
	path  string // in Python's notation, such as ["model"]
	value pickle.Value
}

// inside returns the only estimator in a file that holds a dict, list or tuple, and its
// path. People write such files to keep notes together with a model. Any other root is
// returned as it is.
func inside(g *pickle.Graph, root pickle.Value) (pickle.Value, string, error) {
	switch root.Kind() {
	case pickle.KindDict, pickle.KindList, pickle.KindTuple:
	default:
		return root, "", nil
	}
	found, foreign := models(g, root, "", 0, nil)
	if foreign != nil { // this object may be the model, so its class is reported
		return root, "", foreign
	}
	switch len(found) {
	case 1:
		return found[0].value, found[0].path, nil
	case 0:
		return root, "", refusal.New(refusal.NotModel, "the file holds %s with no estimator in it", g.Describe(root)).
			WithHint("write the fitted estimator itself with pickle.dump")
	}
	var paths []string
	for _, p := range found {
		paths = append(paths, p.path)
	}
	more := ""
	if len(paths) > maxPlaces {
		paths, more = paths[:maxPlaces], " and more"
	}
	return root, "", refusal.New(refusal.Several, "the file holds several models, at %s%s, and Fleetscore can't know which one to score", strings.Join(paths, ", "), more).
		WithHint("write each model to its own file")
}

const (
	maxPlaces = 20
	maxLevels = 3 // the nesting of dicts and lists that is searched
)

// models appends the estimators in a container to found, each once. It returns an error
// for an object of an unknown class, because that object may be a model too.
func models(g *pickle.Graph, v pickle.Value, path string, level int, found []place) ([]place, error) {
	e := g.Entries(v)
	for i := 0; len(found) <= maxPlaces; i++ {
		key := pickle.Value(0)
		if v.Kind() == pickle.KindDict {
			key, _ = e.Item()
		}
		item, ok := e.Item()
		if !ok || g.Spend(visit) != nil {
			break
		}
		switch class, _ := g.Instance(item); {
		case class != nil && class.Use == pickle.Class:
			if !slices.ContainsFunc(found, func(p place) bool { return p.value == item }) {
				found = append(found, place{within(g, path, key, i), item})
			}
		case item.Kind() == pickle.KindObject && g.Foreign(item) != nil:
			return found, g.Foreign(item)
		case level < maxLevels && (item.Kind() == pickle.KindDict || item.Kind() == pickle.KindList || item.Kind() == pickle.KindTuple):
			if path := within(g, path, key, i); g.Spend(visit*len(path)) == nil {
				var err error
				if found, err = models(g, item, path, level+1, found); err != nil {
					return found, err
				}
			}
		}
	}
	return found, nil
}

// visit is the work that is counted for each item of a container.
const visit = 64

// within returns the path of an item, by its key in a dict or its index in a list.
func within(g *pickle.Graph, path string, key pickle.Value, i int) string {
	if key == 0 {
		return fmt.Sprintf("%s[%d]", path, i)
	}
	if t, ok := g.Text(key); ok {
		return fmt.Sprintf("%s[%q]", path, pickle.Clean(t))
	}
	return fmt.Sprintf("%s[%s]", path, g.Describe(key))
}
