package store

// OverlayLen is the number of keys that the leader believes to be in flight.
func (s *Store) OverlayLen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lead == nil || s.lead.overlay.empty() {
		return 0
	}
	return s.lead.overlay.m.Len()
}
