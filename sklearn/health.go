package sklearn

import (
	"strings"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
)

// findings is what is known to be wrong with a model, in the form that native
// records keep.
type findings uint32

const (
	flagsEverything findings = 1 << iota
	flagsNothing
	tooOld
	constant
)

// judge finds what is wrong.
func (m *Model) judge(aged []string) {
	m.findings = 0
	if m.detector != nil {
		switch label, _ := m.detector.Degenerate(); label {
		case -1:
			m.findings |= flagsEverything
		case 1:
			m.findings |= flagsNothing
		}
	}
	if s, ok := m.last.(estimator.Steady); ok {
		if same, _ := s.Constant(); same {
			m.findings |= constant
		}
	}
	if len(aged) > 0 {
		m.findings |= tooOld
		if m.file != nil {
			m.file.aged = aged
		}
	}
}

// Degenerate reports whether every row gets the same prediction, whatever its
// values: all are outliers, or none, or have one class or value. It costs nothing.
func (m *Model) Degenerate() bool { return m.findings&(flagsEverything|flagsNothing|constant) != 0 }

// health says what is wrong with a model, as far as that can be proved.
func (m *Model) health() []Finding {
	found := []Finding{}
	why := ""
	if m.detector != nil {
		_, why = m.detector.Degenerate()
	}
	if m.findings&flagsEverything != 0 {
		found = append(found, Finding{FlagsEverything, "every row is an outlier, whatever its values, because " + why})
	}
	if m.findings&flagsNothing != 0 {
		found = append(found, Finding{FlagsNothing, "no row is an outlier, whatever its values, because " + why})
	}
	if m.findings&constant != 0 {
		if s, ok := m.last.(estimator.Steady); ok {
			_, why = s.Constant()
		}
		if why == "" {
			why = "its trees say the same everywhere; train it again"
		}
		found = append(found, Finding{Constant, "every row gets the same prediction, whatever its values, because " + why})
	}
	if m.findings&tooOld != 0 {
		release, reasons := "an early scikit-learn", ""
		if f := m.file; f != nil {
			if len(f.versions) > 0 {
				release = "scikit-learn " + strings.Join(f.versions, ", ")
			}
			reasons = " (" + strings.Join(f.aged, ", ") + ")"
		}
		found = append(found, Finding{TooOld, "written by " + release + "; a current scikit-learn can't score it" + reasons +
			"; it is scored here all the same, but train it again before you need it in Python"})
	}
	return found
}
