package code

// SetRemove replaces what removes folders.
func (c *Cache) SetRemove(f func(string) error) { c.removeAll = f }
