package sklearn

import (
	"errors"
	"strings"
	"testing"
)

// TestForeign: objects of unknown classes are accepted if no prediction depends on
// them, and refused by name otherwise. Functions that Python would call while it reads
// a file are refused anywhere.
func TestForeign(t *testing.T) {
	t.Parallel()
	// normalizer returns a Normalizer whose attribute copy, which has no effect, is
	// another object.
	normalizer := func(value func(*script)) func(*script) {
		return func(s *script) {
			s.object("sklearn.preprocessing._data", "Normalizer").text("norm").text("l2").text("copy")
			value(s)
			s.end()
		}
	}
	object := func(module, name string) func(*script) {
		return func(s *script) { s.object(module, name).text("x").int(1).end() }
	}
	call := func(module, name string) func(*script) {
		return func(s *script) { s.global(module, name).text("x").op("\x85R") }
	}
	dict := func(values ...func(*script)) func(*script) {
		return func(s *script) {
			s.op("}(")
			for i, v := range values {
				s.text(string(rune('a' + i)))
				v(s)
			}
			s.op("u")
		}
	}
	good := normalizer(func(s *script) { s.op("\x88") })
	step := func(value func(*script)) func(*script) {
		return func(s *script) {
			s.object("sklearn.pipeline", "Pipeline").text("steps").op("](").text("s")
			value(s)
			s.op("\x86e").end()
		}
	}
	for name, c := range map[string]struct {
		write  func(*script)
		reason Reason // 0: the file is accepted
		class  string
	}{
		"a known one":               {good, 0, ""},
		"an object beside":          {normalizer(object("sklearn.model_selection._split", "ShuffleSplit")), 0, ""},
		"an object of one's own":    {normalizer(object("__main__", "MySplit")), 0, ""},
		"a method of an object":     {normalizer(func(s *script) { s.global("builtins", "getattr"); object("a", "B")(s); s.text("x").op("\x86R") }), 0, ""},
		"a function":                {normalizer(func(s *script) { s.global("__main__", "f") }), 0, ""},
		"the model":                 {object("xgboost.sklearn", "XGBClassifier"), OtherLibrary, "xgboost.sklearn.XGBClassifier"},
		"a model of one's own":      {object("__main__", "Mine"), UnknownClass, "__main__.Mine"},
		"a step":                    {step(object("lightgbm.sklearn", "LGBMClassifier")), OtherLibrary, "lightgbm.sklearn.LGBMClassifier"},
		"a sampler":                 {step(object("imblearn.over_sampling", "SMOTE")), OtherLibrary, "imblearn.over_sampling.SMOTE"},
		"a model in a dict":         {dict(object("pyod.models.knn", "KNN")), OtherLibrary, "pyod.models.knn.KNN"},
		"a model beside a scaler":   {dict(good, object("xgboost.sklearn", "XGBClassifier")), OtherLibrary, "xgboost.sklearn.XGBClassifier"},
		"a model in a dict in dict": {dict(good, dict(object("catboost.core", "CatBoost"))), OtherLibrary, "catboost.core.CatBoost"},
		"a call":                    {normalizer(call("__main__", "f")), HoldsCode, "__main__.f"},
		"a call of NumPy":           {dict(good, call("numpy", "load")), HoldsCode, "numpy.load"},
		"a command":                 {step(call("posix", "system")), HoldsCode, "posix.system"},
		"a command's name alone":    {normalizer(func(s *script) { s.global("subprocess", "Popen") }), HoldsCode, "subprocess.Popen"},
		"an object of a process":    {normalizer(object("subprocess", "Popen")), HoldsCode, "subprocess.Popen"},
		"a call of what was got": {normalizer(func(s *script) {
			s.global("builtins", "getattr").global("numpy", "ndarray").text("x").op("\x86R").text("y").op("\x85R")
		}), HoldsCode, ""},
		"a call of an object": {dict(good, func(s *script) { object("a", "B")(s); s.text("y").op("\x85R") }), HoldsCode, ""},
	} {
		s := newScript()
		c.write(s)
		_, err := Load(s.file())
		var r *Refusal
		switch {
		case c.reason == 0 && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.reason != 0 && (!errors.As(err, &r) || r.Reason != c.reason || r.Class != c.class):
			t.Errorf("%s: %v, want the reason %v and the class %q", name, err, c.reason, c.class)
		case c.reason == OtherLibrary && !strings.Contains(err.Error(), "belongs to the library"):
			t.Errorf("%s: %v", name, err)
		}
	}
}
