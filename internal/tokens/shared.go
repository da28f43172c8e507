package tokens

import "sync"

// shared holds one value per key while it is in use.
type shared[T any] struct {
	create func() T
	// keep reports whether to keep an unused value. If it is nil, unused values are dropped.
	keep func(T) bool

	mu     sync.Mutex // guards the fields below; held while create and keep run
	values map[string]*counted[T]
}

// counted is a value and the number of its users. users is guarded by shared.mu.
type counted[T any] struct {
	value T
	users int
}

func newShared[T any](create func() T, keep func(T) bool) *shared[T] {
	return &shared[T]{create: create, keep: keep, values: map[string]*counted[T]{}}
}

// use returns the value of a key, creating it if needed. The caller calls release after use.
func (s *shared[T]) use(key string) (value T, release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.values[key]
	if c == nil {
		c = &counted[T]{value: s.create()}
		s.values[key] = c
	}
	c.users++
	return c.value, func() { s.release(key, c) }
}

func (s *shared[T]) release(key string, c *counted[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.users--; c.users > 0 {
		return
	}
	if s.keep == nil || !s.keep(c.value) {
		delete(s.values, key)
		return
	}
	// Check all kept values when another is kept, so that the map does not grow forever.
	for key, c := range s.values {
		if c.users == 0 && !s.keep(c.value) {
			delete(s.values, key)
		}
	}
}
