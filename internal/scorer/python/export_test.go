package python

// Idle is how many processes wait for work.
func (p *Pool) Idle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}

// Started is how many processes have imported libraries from the beginning.
func (p *Pool) Started() int64 { return p.started.Load() }
