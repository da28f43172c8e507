package tokens

import "testing"

// len is the number of values in memory.
func (s *shared[T]) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.values)
}

// A value in use stays the only one for its key, although unused values are dropped.
func TestSharedValueStaysWhileItIsUsed(t *testing.T) {
	s := newShared(func() *bool { return new(bool) }, func(keep *bool) bool { return *keep })
	used, release := s.use("used")
	kept, releaseKept := s.use("kept")
	*kept = true
	releaseKept()
	if again, _ := s.use("used"); again != used {
		t.Error("a value in use was replaced")
	}
	release()
	if again, _ := s.use("kept"); again != kept {
		t.Error("the value in use was dropped")
	}
}
