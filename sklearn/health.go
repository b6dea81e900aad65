package sklearn

import (
	"strings"

	"github.com/fleetscore/fleetscore/sklearn/internal/estimator"
)

// findings are the known faults of a model, as bits, in the form that native records
// keep.
type findings uint32

const (
	flagsEverything findings = 1 << iota
	flagsNothing
	tooOld
	constant
)

// judge finds the model's faults. aged are the reasons why a current scikit-learn can't
// use the file.
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

// Degenerate reports whether every row gets the same prediction, whatever the row's
// values are: every row is an outlier, no row is an outlier, or all rows have the same
// class or value. Degenerate computes nothing; the answer was found when the model was
// loaded.
func (m *Model) Degenerate() bool { return m.findings&(flagsEverything|flagsNothing|constant) != 0 }

// health returns the faults that are proved, each with a message for people.
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
			why = "its trees give the same value for every row; train it again"
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
		found = append(found, Finding{TooOld, "the model was written by " + release + "; a current scikit-learn can't score it" + reasons +
			"; Fleetscore scores it correctly, but train it again before you need it in Python"})
	}
	return found
}
