package sandbox

import (
	"context"
	"sync"

	"github.com/fleetscore/fleetscore"
)

// Lazy makes a Sandbox when it is first asked for, since to try what a machine has takes
// a tenth of a second. It is safe for concurrent use.
type Lazy struct {
	Config   Config
	Required bool // whoever runs the machine allows nothing that isn't isolated

	mu    sync.Mutex // guards what follows
	made  *Sandbox
	found []Finding // nil until the promises were tried
}

// Get gives the sandbox. If isolation is required, it tries the promises before, once, and
// refuses with kind Unavailable unless all of them hold.
func (l *Lazy) Get(ctx context.Context, required bool) (*Sandbox, error) {
	const op = "isolate Python"
	const hint = "fleetscore node doctor says what is missing on a machine; isolation: best takes what there is"
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx = context.WithoutCancel(ctx) // what is found out counts for others too
	if l.made == nil {
		l.made = New(ctx, l.Config)
	}
	if !required && !l.Required {
		return l.made, nil
	}
	if l.Config.Exe == "" {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, op, "", "isolation is required, but this machine's operator switched it off (--isolation off)").WithHint(hint)
	}
	if l.found == nil {
		found, err := l.made.Probe(ctx)
		if err != nil {
			return nil, fleetscore.Errorf(fleetscore.Unavailable, op, "", "isolation is required, but it can't be tried: %w", err).WithHint(hint)
		}
		l.found = found
	}
	if broken := Broken(l.found); broken != "" {
		return nil, fleetscore.Errorf(fleetscore.Unavailable, op, "", "isolation is required, but this machine can't isolate whole: %s", broken).WithHint(hint)
	}
	return l.made, nil
}
