package fleetscore

// Priority orders the jobs of a pool: tasks of a higher priority are given to nodes
// first, and among equal ones those of the job that was made first.
type Priority string

// The priorities. Empty means normal.
const (
	PriorityHigh   Priority = "high"
	PriorityNormal Priority = "normal"
	PriorityLow    Priority = "low" // backfills have it
)

// Validate refuses other words.
func (p Priority) Validate() error {
	switch p {
	case "", PriorityHigh, PriorityNormal, PriorityLow:
		return nil
	}
	return Errorf(Invalid, "read priority", string(p), "the value must be high, normal or low")
}

// Rank is 0 for the priority that comes first, and larger for those that come later.
func (p Priority) Rank() int {
	switch p {
	case PriorityHigh:
		return 0
	case PriorityLow:
		return 2
	}
	return 1
}
