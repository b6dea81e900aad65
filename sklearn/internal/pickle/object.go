package pickle

import "errors"

// Instance returns the class of an object and its attributes, in any protocol's
// notation. The class is nil if v isn't an object of a class on the list.
func (g *Graph) Instance(v Value) (class *Name, state Value) {
	if v.Kind() != KindObject {
		return nil, 0
	}
	c := g.classOf(v)
	if c.kind() != KindGlobal {
		return nil, 0
	}
	return &g.names.list[c.index()], g.object(v, objectState)
}

// classOf returns the class or function that made an object. For another value it
// returns the value itself.
func (g *Graph) classOf(v Value) Value {
	if v.Kind() != KindObject {
		return v
	}
	c := g.object(v, objectCallable)
	if c.kind() != KindGlobal {
		return c
	}
	switch args := g.Tuple(g.object(v, objectArgs)); g.names.list[c.index()].Use {
	case reconstructor:
		if len(args) != 3 || !g.isGlobal(args[1], object) || args[2].Kind() != KindNone {
			return 0
		}
		return args[0]
	case newobj:
		if len(args) == 1 {
			return args[0]
		}
	}
	return c
}

// instance reports whether v is an object of a class with that use, and returns its
// state.
func (g *Graph) instance(v Value, u Use) (state Value, ok bool) {
	c, state := g.Instance(v)
	return state, c != nil && c.Use == u
}

// Call returns the class or function that made an object, its arguments, and the state
// that was set afterwards. The name is nil if v isn't an object.
func (g *Graph) Call(v Value) (name *Name, args []Value, state Value) {
	c := g.object(v, objectCallable)
	if c.kind() != KindGlobal {
		return nil, nil, 0
	}
	return &g.names.list[c.index()], g.Tuple(g.object(v, objectArgs)), g.object(v, objectState)
}

// Global returns the name that v stands for, or nil if v isn't a name.
func (g *Graph) Global(v Value) *Name {
	if v.kind() != KindGlobal {
		return nil
	}
	return &g.names.list[v.index()]
}

// Protocol returns the file's pickle protocol.
func (g *Graph) Protocol() int { return g.protocol }

// Joblib reports whether joblib wrote the file.
func (g *Graph) Joblib() bool { return g.joblib }

// Len returns the size of the file in bytes.
func (g *Graph) Len() int { return len(g.data) }

// Describe returns a description of v for messages.
func (g *Graph) Describe(v Value) string {
	if c, _ := g.Instance(v); c != nil {
		return c.Module + "." + c.Name
	}
	if c := g.classOf(v); c.kind() == kindForeign {
		return g.foreign[c.index()].module + "." + g.foreign[c.index()].name
	}
	if n := g.Global(v); n != nil {
		return n.Module + "." + n.Name
	}
	switch v.Kind() {
	case KindNone:
		return "None"
	case KindBool, KindInt, KindBig, KindFloat:
		return "a number"
	case KindText:
		return "a string"
	case KindBytes:
		return "bytes"
	case KindGlobal:
		return "a class or function"
	case KindTuple:
		return "a tuple"
	case KindList:
		return "a list"
	case KindDict:
		return "a dict"
	}
	return "an object"
}

// StringList reads an array, list or tuple of strings.
func (g *Graph) StringList(v Value) ([]string, error) {
	if g.IsArray(v) {
		a, err := g.Array(v)
		if err != nil {
			return nil, err
		}
		return g.Strings(&a)
	}
	if class, args, _ := g.Call(v); class != nil && class.Name == "_new_Index" && len(args) == 2 { // an index of pandas
		for e := g.Entries(args[1]); ; {
			key, inner, ok := e.Pair()
			if !ok {
				break
			}
			if string(key) == "data" && g.IsArray(inner) {
				return g.StringList(inner)
			}
		}
	}
	if v.Kind() != KindList && v.Kind() != KindTuple {
		return nil, errors.New("isn't a list of names")
	}
	if err := g.Charge(16 * g.Count(v)); err != nil {
		return nil, err
	}
	var out []string
	for e := g.Entries(v); ; {
		item, ok := e.Item()
		if !ok {
			return out, nil
		}
		t, ok := g.Text(item)
		if !ok {
			return nil, errors.New("holds something other than names")
		}
		if err := g.Charge(len(t)); err != nil {
			return nil, err
		}
		out = append(out, string(t))
	}
}
