package rest

// Records is the action that an operation is declared to record, "" if it only reads.
func Records(operation string) string { return rules[operation].records }
