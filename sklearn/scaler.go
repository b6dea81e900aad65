package sklearn

// standardScaler is scikit-learn's StandardScaler: subtract, then divide.
type standardScaler struct {
	mean, scale []float64 // nil where the step is off
	features    int       // 0 means any
}

func (s *standardScaler) class() string { return "StandardScaler" }

func (s *standardScaler) parameters() map[string]any {
	return map[string]any{"with_mean": s.mean != nil, "with_std": s.scale != nil}
}

// transform divides rather than multiplying by a reciprocal: that would round
// otherwise than scikit-learn, and a row could change its label.
func (s *standardScaler) transform(b *batch) {
	for i := 0; i < len(b.x); i += b.cols {
		row := b.x[i : i+b.cols]
		switch {
		case s.mean != nil && s.scale != nil:
			mean, scale := s.mean[:len(row)], s.scale[:len(row)]
			for c, v := range row {
				row[c] = (v - mean[c]) / scale[c]
			}
		case s.mean != nil:
			for c, m := range s.mean[:len(row)] {
				row[c] -= m
			}
		case s.scale != nil:
			for c, f := range s.scale[:len(row)] {
				row[c] /= f
			}
		}
	}
}

// scaler reads a StandardScaler's attributes.
func (b *builder) scaler(state value, p *part) (*standardScaler, error) {
	const class = "StandardScaler"
	g := b.g
	s := &standardScaler{}
	withMean, withStd := true, true
	var mean, scale value
	for e := g.entries(state); ; {
		key, v, ok := e.pair()
		if !ok {
			break
		}
		known := true
		switch string(key) {
		case "with_mean":
			withMean, known = g.boolean(v)
		case "with_std":
			withStd, known = g.boolean(v)
		case "mean_":
			mean = v
		case "scale_":
			scale = v
		default:
			if err := b.common(key, v, p, class, &s.features); err != nil {
				return nil, err
			}
		}
		if !known {
			return nil, misfit("%s: %s is neither True nor False", at(class, p.name), clean(key))
		}
	}
	var err error
	if withMean {
		if s.mean, err = b.perFeature(mean, class, p.name, "mean_", &s.features); err != nil {
			return nil, err
		}
	}
	if withStd {
		if s.scale, err = b.perFeature(scale, class, p.name, "scale_", &s.features); err != nil {
			return nil, err
		}
		for i, f := range s.scale {
			if f <= 0 {
				return nil, misfit("%s: scale_ is %v for feature %d, but must be above 0", at(class, p.name), f, i)
			}
		}
	}
	return s, b.fits(class, p.name, s.features)
}

// perFeature reads a vector with one number per feature.
func (b *builder) perFeature(v value, class, name, attribute string, features *int) ([]float64, error) {
	if v.kind() == kindUnset || v.kind() == kindNone {
		return nil, misfit("%s: %s is missing", at(class, name), attribute).WithHint("fit the model before saving it")
	}
	f, shape, err := b.vector(v, class, name, attribute, 1)
	if err != nil {
		return nil, err
	}
	if shape[0] == 0 {
		return nil, misfit("%s: %s is empty", at(class, name), attribute)
	}
	if *features != 0 && shape[0] != *features {
		return nil, misfit("%s: %s has %d numbers for %d features", at(class, name), attribute, shape[0], *features)
	}
	*features = shape[0]
	return f, nil
}
