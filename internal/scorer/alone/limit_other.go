//go:build !linux

package alone

// limitMemory does nothing: other systems than Linux don't bound what a process can
// write to. A model that eats memory there ends its process when the machine has no more.
func limitMemory(int64) error { return nil }

// MachineMemory is how much memory this machine has; 0 if that isn't known.
func MachineMemory() int64 { return 0 }
