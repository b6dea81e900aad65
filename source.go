package fleetscore

import (
	"slices"
	"strings"
)

// Source names the way by which readings reach a hub, such as HTTP. Each source has
// its own watermark.
type Source string

// The sources: the readings that arrive over HTTP, and those that arrive by MQTT. Each partition of
// a topic of Kafka is a source, whose name begins with SourceKafka.
const (
	SourceHTTP  Source = "http"
	SourceMQTT  Source = "mqtt"
	SourceKafka Source = "kafka"
)

// MaxSourceBytes is the longest name that a source can have.
const MaxSourceBytes = 64

// Valid reports whether the name is neither empty nor too long.
func (s Source) Valid() bool { return s != "" && len(s) <= MaxSourceBytes }

// At names the part of a source that came to one of several servers. Each of them is a
// source of its own, because a server only knows what came to itself. Without a name of a
// server it is the source itself.
func (s Source) At(server string) Source {
	if server == "" {
		return s
	}
	return s + "@" + Source(server)
}

// TopicForm is the form of the topics of MQTT messages, such as devices/{Device}/{Tag}: a
// level is a text, a key column's value, or + for anything.
type TopicForm struct {
	text   string
	levels []topicLevel
	keys   int // key columns
}

type topicLevel struct {
	column int // of the key; below 0 if the level is no value
	any    bool
	text   string
}

// DefaultTopic is the form that holds all key columns: devices/{Device}/{Tag}.
func DefaultTopic(key []string) string {
	form := "devices"
	for _, k := range key {
		form += "/{" + k + "}"
	}
	return form
}

// ParseTopicForm reads a form of topics for a hub with these key columns.
func ParseTopicForm(form string, key []string) (TopicForm, error) {
	fail := func(format string, args ...any) (TopicForm, error) {
		return TopicForm{}, Errorf(Invalid, "read form of topics", form, format, args...).
			WithHint("write for example %s; + stands for anything", DefaultTopic(key))
	}
	t := TopicForm{text: form, keys: len(key)}
	seen := map[int]bool{}
	for _, part := range strings.Split(form, "/") {
		l := topicLevel{column: -1, text: part}
		switch inner := strings.TrimSuffix(strings.TrimPrefix(part, "{"), "}"); {
		case part == "":
			return fail("a level is empty")
		case part == "+":
			l.any = true
		case part == "{"+inner+"}":
			l.column = slices.Index(key, inner)
			if l.column < 0 {
				return fail("%q is not a key column; the key columns are %s", inner, strings.Join(key, ", "))
			}
			if seen[l.column] {
				return fail("the column %s is there twice", inner)
			}
			seen[l.column] = true
		case strings.ContainsAny(part, "{}+#") || strings.HasPrefix(form, "$"):
			return fail("the level %q is not possible: a level is a text, {COLUMN} or +", part)
		}
		t.levels = append(t.levels, l)
	}
	return t, nil
}

// String is the text that the form was read from.
func (t TopicForm) String() string { return t.text }

// Match reads the values of the key columns from a topic; the value of a column that the
// form doesn't name is empty. It reports whether the topic has the form.
func (t TopicForm) Match(topic string) (keys []string, ok bool) {
	keys = make([]string, t.keys)
	rest, more := topic, true
	for _, l := range t.levels {
		if !more {
			return nil, false
		}
		var part string
		part, rest, more = strings.Cut(rest, "/")
		switch {
		case l.column >= 0:
			keys[l.column] = part
		case !l.any && part != l.text:
			return nil, false
		}
		if l.column >= 0 && part == "" {
			return nil, false
		}
	}
	return keys, !more
}
