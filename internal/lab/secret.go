package lab

import (
	"maps"
	"slices"
	"sync"
)

// secrets are what the server gave to clients that they must keep to themselves. The zero value is ready to use.
type secrets struct {
	mu  sync.Mutex
	all map[string]bool
}

func (s *secrets) note(secret string) {
	if secret == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[string]bool{}
	}
	s.all[secret] = true
}

// Secrets are the keys of sessions and the tickets of leases and of files that clients got so far: whoever has one
// may do what its owner may. A test can look for them where they must not be.
func (l *Lab) Secrets() []string {
	l.secrets.mu.Lock()
	defer l.secrets.mu.Unlock()
	return slices.Sorted(maps.Keys(l.secrets.all))
}
