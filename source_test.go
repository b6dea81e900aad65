package fleetscore

import (
	"slices"
	"strings"
	"testing"
)

func TestTopicForm(t *testing.T) {
	t.Parallel()
	key := []string{"Device", "Tag"}
	for _, c := range []struct {
		form, topic string
		want        []string // nil: the topic hasn't the form
	}{
		{"devices/{Device}/{Tag}", "devices/press-1/4", []string{"press-1", "4"}},
		{"{Tag}/of/{Device}", "4/of/press-1", []string{"press-1", "4"}},
		{"plant/+/{Device}", "plant/north/press-1", []string{"press-1", ""}},
		{"readings", "readings", []string{"", ""}},
		{"devices/{Device}/{Tag}", "devices/press-1", nil},
		{"devices/{Device}/{Tag}", "devices/press-1/4/5", nil},
		{"devices/{Device}/{Tag}", "devices/press-1/4/", nil},
		{"devices/{Device}/{Tag}", "devices//4", nil},
		{"devices/{Device}/{Tag}", "Devices/press-1/4", nil},
		{"devices/{Device}/{Tag}", "/devices/press-1/4", nil},
		{"devices/{Device}/{Tag}", "", nil},
	} {
		f, err := ParseTopicForm(c.form, key)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := f.Match(c.topic)
		if ok != (c.want != nil) || ok && !slices.Equal(got, c.want) {
			t.Errorf("%s in %s: got %q %v, want %q", c.topic, c.form, got, ok, c.want)
		}
	}
	for form, want := range map[string]string{
		"":                   "empty",
		"a//b":               "empty",
		"/{Device}":          "empty",
		"a/{Machine}":        `"Machine" is not a key column`,
		"{Tag}/{Tag}":        "twice",
		"a/x{Tag}":           "not possible",
		"a/#":                "not possible",
		"$share/g/{Device}/": "not possible",
	} {
		if _, err := ParseTopicForm(form, key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", form, err, want)
		}
	}
}
