package rest

// Records is the action that an operation is declared to record, "" if it only reads.
func Records(operation string) string { return rules[operation].records }

// Own reports whether everybody may call an operation, about itself.
func Own(operation string) bool { return rules[operation].access == own }

// Filtered are the operations that show what their caller may see of more.
func Filtered() (ids []string) {
	for id, r := range rules {
		if r.access == filtered {
			ids = append(ids, id)
		}
	}
	return ids
}
