package tokens

// len is the number of values in memory.
func (s *shared[T]) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.values)
}
