package store

import "slices"

// CheckSealed opens every record but those of the plain tables, to prove that all of the
// state can be read with the keys there are, and returns how many there were. It fails
// with the error of the first that does not open.
func (s *Store) CheckSealed(plain ...TableName) (records int, err error) {
	s.mu.Lock()
	tx, err := s.beginLocked()
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	defer tx.end()
	tx.snap.scan("", "", func(key string, value []byte) bool {
		table, record, _ := tableOf(key)
		if !record || slices.Contains(plain, table) {
			return true
		}
		records++
		_, err = s.cipher.Open(aad(table, key[len(recordPrefix(table)):]), value)
		return err == nil
	})
	return records, err
}
